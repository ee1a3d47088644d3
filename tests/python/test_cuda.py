"""CUDA arrays: refused, with the reason, where there is no device; else computed on their framework's current stream.

scripts/test_cuda_emulated.sh runs them with an extension built on the emulated CUDA runtime, whose library the
environment variable LEANCORE_CUDA_EMULATED names: its device memory, dressed as CUDA arrays of a framework, takes the
place of that of a GPU.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import types
import weakref
from typing import Any

import numpy as np
import pytest

import leancore
import xla_frame
from helpers import (
    DTYPES,
    SUPPORT,
    Problem,
    Producer,
    absolute,
    bound,
    geometries,
    integer_problem,
    normal_problem,
    run_script,
)
from leancore import arrays

RUNTIME = os.environ.get("LEANCORE_CUDA_EMULATED")
needs_emulation = pytest.mark.skipif(RUNTIME is None, reason="runs in scripts/test_cuda_emulated.sh, which needs nvcc")


@functools.cache
def runtime() -> ctypes.CDLL:
    assert RUNTIME is not None
    library = ctypes.CDLL(RUNTIME)
    library.cuda_emulation_host_view.restype = ctypes.c_void_p
    library.cuda_emulation_launches.restype = ctypes.c_size_t
    return library


@functools.cache
def stream() -> int:
    """One that is not the default one; without the emulated runtime nothing will look at the number."""
    if RUNTIME is None:
        return 0x50
    made = ctypes.c_void_p()
    assert runtime().cudaStreamCreate(ctypes.byref(made)) == 0
    return made.value or 0


def launches() -> int:
    """Kernels launched on the stream so far."""
    return int(runtime().cuda_emulation_launches(ctypes.c_void_p(stream())))


class OnDevice(Producer):
    """An array that says it is on CUDA device 0; remembers the streams that its exports were asked for.

    `array` is the host's view of a copy in device memory, of the shape and strides of `array`, which is dense; without
    a copy nothing has been written there. Without the emulated runtime it stays where it is.
    """

    def __init__(self, array: np.ndarray, *, copy: bool = True) -> None:
        fields: dict[str, Any] = {"dtype": (4, 16, 1)} if array.dtype.name == "bfloat16" else {}
        if RUNTIME is not None:
            address = ctypes.c_void_p()
            assert runtime().cudaMalloc(ctypes.byref(address), ctypes.c_size_t(max(array.nbytes, 1))) == 0
            weakref.finalize(self, runtime().cudaFree, address)
            if copy:
                host = ctypes.c_void_p(array.ctypes.data)
                assert runtime().cudaMemcpy(address, host, ctypes.c_size_t(array.nbytes), 1) == 0
            fields["data"] = self.address = address.value
            view = (ctypes.c_byte * array.nbytes).from_address(runtime().cuda_emulation_host_view(address))
            array = np.ndarray(array.shape, array.dtype, view, strides=array.strides)
        super().__init__(array, says=(2, 0), device=(2, 0), **fields)
        self.streams: list[int | None] = []

    def __dlpack__(self, *, stream: int | None = None, **keywords: Any) -> Any:
        self.streams.append(stream)
        return super().__dlpack__(**keywords)


def like(x: OnDevice, shape: tuple[int, ...]) -> OnDevice:
    return OnDevice(np.empty_like(x.array, shape=shape, subok=False), copy=False)


def compact(x: OnDevice, shape: tuple[int, ...]) -> OnDevice:
    return OnDevice(np.empty(shape, x.array.dtype), copy=False)


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """OnDevice as arrays of a framework whose current stream is stream()."""
    monkeypatch.setitem(arrays._frameworks, OnDevice, arrays._Framework(like, compact, stream=lambda _: stream()))


def on_device(problem: Problem) -> Problem:
    return problem.map(OnDevice)


@pytest.mark.skipif(RUNTIME is not None, reason="needs a runtime without a device")
@pytest.mark.usefixtures("framework")
def test_without_a_device_the_message_says_what_is_missing() -> None:
    p = on_device(integer_problem(1, 2, 2, (3, 4)))
    status = leancore.cuda_status()
    if not any(reason in status for reason in ("built without CUDA", "no CUDA driver", "no device")):
        pytest.skip("there is a CUDA device")
    with pytest.raises(RuntimeError, match="CUDA device 0, which this leancore cannot use") as caught:
        leancore.forward(p.x, p.alpha, p.c)
    assert status in str(caught.value)


@needs_emulation
@pytest.mark.usefixtures("framework")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spatial", [(9,), (5, 8), (4, 13), (3, 4, 5), (2, 2, 3, 4)])
def test_results(dtype: Any, spatial: tuple[int, ...]) -> None:
    for geometry in geometries(len(spatial)):
        p = integer_problem(2, 5, 7, spatial, dtype=dtype, **geometry)
        q = on_device(p)
        y = leancore.forward(q.x, q.alpha, q.c, bias=q.bias, **p.geometry)
        assert y.array.tobytes() == p.y().astype(dtype).tobytes()
        dx = leancore.backward_data(q.dy, q.alpha, q.c, x_shape=p.x.shape, **p.geometry)
        assert dx.array.tobytes() == p.dx().astype(dtype).tobytes()
        gradients = leancore.backward(q.x, q.dy, q.alpha, q.c, **p.geometry)
        for got, expected in zip(gradients, p.gradients(), strict=True):
            assert got.array.tobytes() == expected.astype(dtype).tobytes()
        for got, expected in zip(leancore.backward_weight(q.x, q.dy, **p.geometry), p.weights(), strict=True):
            assert got.array.tobytes() == expected.astype(dtype).tobytes()


@needs_emulation
@pytest.mark.usefixtures("framework")
def test_all_is_done_on_the_current_stream() -> None:
    q = on_device(integer_problem(1, 3, 3, (4, 8)))
    out = compact(q.x, q.dy.array.shape)
    before = launches()
    assert leancore.forward(q.x, q.alpha, q.c, bias=q.bias, out=out) is out
    assert launches() == before + 1
    assert all(array.streams == [stream()] for array in (q.x, q.alpha, q.c, q.bias, out))


@needs_emulation
@pytest.mark.usefixtures("framework")
def test_channels_last_and_outputs_like_x() -> None:
    p = integer_problem(2, 5, 5, (4, 6))
    last = np.ascontiguousarray(p.x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    q = on_device(p)
    y = leancore.forward(OnDevice(last), q.alpha, q.c, bias=q.bias)
    assert y.array.strides == last.strides
    assert (y.array == p.y()).all()


# Asked for by name


@needs_emulation
@pytest.mark.usefixtures("framework")
@pytest.mark.parametrize("last", [False, True], ids=["channels-first", "channels-last"])
def test_tf32_is_computed_where_it_is_asked_for_and_nowhere_else(last: bool) -> None:
    """x and dy are a little more than 1, by less than TF32 tells apart; every sum is exact in float32."""
    ones = np.ones((1, 64, 4, 32), np.float32)
    more = ones + np.float32(2**-12)
    alpha, c = OnDevice(np.ones((64, 64), np.float32)), OnDevice(np.zeros((64, 4), np.float32))
    given = [array.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2) if last else array for array in (more, ones)]
    x, dy = OnDevice(given[0]), OnDevice(given[1])
    for operation in (leancore.forward, leancore.backward_data):
        for name in (None, "cuda", "cuda_generic"):
            assert (operation(x, alpha, c, implementation=name).array == 64 + 2**-6).all()
        assert (operation(x, alpha, c, implementation="cuda_tf32").array == 64).all()
    dx, dalpha, dc = leancore.backward(dy, x, alpha, c, implementation="cuda_tf32")
    assert (dx.array == 64).all()
    weights = leancore.backward_weight(dy, x, implementation="cuda_tf32")  # in float32: there are no tiles of TF32
    for gradients in ((dalpha, dc), weights):
        assert (gradients[0].array == 128 + 2**-5).all()
        assert gradients[1].array[:, 1].tolist() == [124 * (1 + 2**-12)] * 64


@needs_emulation
@pytest.mark.usefixtures("framework")
def test_tf32_is_within_its_bound() -> None:
    p = normal_problem(1, 48, 40, (6, 20), np.float32)
    q, exact, sizes = on_device(p), p.map(lambda a: a.astype(np.float64)), absolute(p)
    for got, want, terms, products, n in (
        (
            leancore.forward(q.x, q.alpha, q.c, bias=q.bias, implementation="cuda_tf32"),
            exact.y(),
            sizes.y(),
            np.einsum("oi,nihw->nohw", sizes.alpha, sizes.x),
            48 + 4 + 1,
        ),
        (
            leancore.backward_data(q.dy, q.alpha, q.c, implementation="cuda_tf32"),
            exact.dx(),
            sizes.dx(),
            np.einsum("oi,nohw->nihw", sizes.alpha, sizes.dy),
            40 + 4,
        ),
    ):
        errors = np.abs(got.array - want)
        assert (errors <= (2**-10 + 2**-22) * products + (n / 2 + 16) * 2**-24 * terms).all()
        assert (errors > bound(n, want, terms, np.float32)).any()


@needs_emulation
@pytest.mark.usefixtures("framework")
def test_an_implementation_for_other_arrays() -> None:
    p = integer_problem(1, 2, 2, (3, 4))
    q = on_device(p)
    with pytest.raises(
        RuntimeError, match=r"implementation 'reference' .* takes arrays on the CPU, and these are on a CUDA device"
    ):
        leancore.forward(q.x, q.alpha, q.c, implementation="reference")
    with pytest.raises(
        RuntimeError, match=r"implementation 'cuda_tf32' .* takes CUDA arrays, and these are on the CPU"
    ):
        leancore.forward(p.x, p.alpha, p.c, implementation="cuda_tf32")


@needs_emulation
def test_the_stream_must_be_known() -> None:
    q = on_device(integer_problem(1, 2, 2, (3, 4)))
    with pytest.raises(NotImplementedError, match="forward: x is a CUDA array of type OnDevice"):
        leancore.forward(q.x, q.alpha, q.c, out=q.dy)


@needs_emulation
@pytest.mark.usefixtures("framework")
def test_devices_do_not_mix() -> None:
    p = integer_problem(1, 2, 2, (3, 4))
    q = on_device(p)
    with pytest.raises(ValueError, match="forward: alpha"):
        leancore.forward(q.x, p.alpha, q.c)


# CuPy: its arrays, its streams, its memory, played on the emulated runtime under its names.


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    current: list[int] = []  # devices that are being used

    class Device:
        id = 0

        def __enter__(self) -> None:
            current.append(self.id)

        def __exit__(self, *_: Any) -> None:
            current.pop()

    class ndarray(OnDevice):
        device = Device()

        @property
        def dtype(self) -> np.dtype:
            return self.array.dtype

    def empty(shape: tuple[int, ...], dtype: Any) -> ndarray:
        assert current == [0]
        return ndarray(np.empty(shape, dtype), copy=False)

    def empty_like(x: ndarray, *, shape: tuple[int, ...]) -> ndarray:
        assert current == [0]
        return ndarray(np.empty_like(x.array, shape=shape, subok=False), copy=False)

    module = types.ModuleType("cupy")
    module.ndarray, module.empty, module.empty_like = ndarray, empty, empty_like  # type: ignore[attr-defined]
    module.cuda = types.SimpleNamespace(  # type: ignore[attr-defined]
        get_current_stream=lambda device: types.SimpleNamespace(ptr=stream())
    )
    ndarray.__module__, ndarray.__qualname__ = "cupy", "ndarray"
    monkeypatch.setitem(sys.modules, "cupy", module)
    arrays._cupy.cache_clear()
    yield module
    arrays._cupy.cache_clear()


@needs_emulation
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_cupy(cupy: Any, dtype: Any) -> None:
    p = integer_problem(2, 16, 12, (6, 8), dtype=dtype)
    q = p.map(cupy.ndarray)
    before = launches()
    y = leancore.forward(q.x, q.alpha, q.c, bias=q.bias)
    results = [y, *leancore.backward(q.x, q.dy, q.alpha, q.c)]
    assert launches() > before
    for got, want in zip(results, [p.y(), *p.gradients()], strict=True):
        assert type(got) is cupy.ndarray
        assert got.array.tobytes() == want.astype(dtype).tobytes()


# XLA's handlers


def buffer(x: OnDevice) -> xla_frame.Buffer:
    return xla_frame.Buffer(x.array.dtype.name, x.array.shape, x.address)


def scratch() -> tuple[Any, Any]:
    """Memory of the device, as XLA hands it to a handler."""
    return (
        lambda address, size: runtime().cudaMalloc(address, ctypes.c_size_t(size)),
        lambda address: runtime().cudaFree(ctypes.c_void_p(address)),
    )


def executed(name: str, given: list[OnDevice], wanted: list[np.ndarray], p: Problem, **options: Any) -> Any:
    outs = [OnDevice(np.empty(want.shape, p.x.dtype), copy=False) for want in wanted]
    dims = p.x.ndim - 2
    axes = [(value,) * dims if isinstance(value, int) else value for value in (p.stride, p.dilation)]
    allocate, free = scratch()
    keywords = {"stream": stream(), "allocate": allocate, "free": free, **options}
    return xla_frame.execute("CUDA", name, [*map(buffer, given)], [*map(buffer, outs)], *axes, **keywords), outs


@needs_emulation
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spatial", [(9,), (5, 8), (3, 4, 5)])
def test_xla_handlers(dtype: Any, spatial: tuple[int, ...]) -> None:
    for geometry in geometries(len(spatial)):
        p = integer_problem(2, 5, 7, spatial, dtype=dtype, **geometry)
        q = on_device(p)
        for name, given, wanted in (
            ("forward", [q.x, q.alpha, q.c, q.bias], [p.y()]),
            ("backward_data", [q.dy, q.alpha, q.c], [p.dx()]),
            ("backward_weight", [q.x, q.dy], list(p.weights())),
        ):
            before = launches()
            outcome, outs = executed(name, given, wanted, p)
            assert outcome[:2] == (0, "")
            assert outcome.allocated == outcome.freed
            assert (outcome.allocated > 0) == (name == "backward_weight")
            assert launches() > before, "not on XLA's stream"
            for out, want in zip(outs, wanted, strict=True):
                assert out.array.tobytes() == want.astype(dtype).tobytes()


@needs_emulation
def test_xla_handlers_hand_back_their_memory_when_they_fail() -> None:
    p = integer_problem(1, 3, 3, (4, 8))
    q = on_device(p)
    weights = list(p.weights())
    outcome, _ = executed("backward_weight", [q.x, q.dy], weights, p, allocate=lambda address, size: 2)
    assert outcome == (8, "no memory of XLA's", 0, 0, 0)
    outcome, _ = executed("backward_weight", [q.x, q.dy], weights, p, device=7)
    assert outcome.code != 0
    assert "CUDA device 7" in outcome.message
    assert (outcome.allocated, outcome.errors) == (outcome.freed, 0)
    outcome, _ = executed("backward_weight", [q.x, q.dy], weights, p, free=lambda address: 1)
    assert outcome[:2] == (13, "memory not freed")
    assert outcome.errors == 0


@needs_emulation
def test_without_a_device_the_driver_is_named() -> None:
    code = """
import leancore, numpy as np
print(leancore.cuda_status())
from helpers import Producer
x = Producer(np.ones((1, 2, 3), np.float32), says=(2, 0), device=(2, 0))
try:
    leancore.forward(x, x, x, out=x)
except RuntimeError as error:
    print(error)
"""
    done = run_script("-c", code, CUDA_EMULATION_DEVICES="none", PYTHONPATH=path_of_tests())
    status, message = done.stdout.splitlines()
    assert status.startswith("built with CUDA ")
    assert status.endswith("for compute capabilities emulated; the CUDA driver finds no device")
    assert message == f"forward: x is on CUDA device 0, which this leancore cannot use ({status})"


def path_of_tests() -> str:
    return os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])])
