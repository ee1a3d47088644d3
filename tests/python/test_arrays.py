"""The functions of leancore on arrays of NumPy, torch, JAX and of nobody in particular."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import leancore
import leancore.reference
from helpers import DTYPES, HALVES, SMALL, Problem, absolute, bound, geometries, integer_problem, normal_problem

CASES = [(*sizes, g) for sizes in SMALL for g in geometries(len(sizes[3]))]


def check_exact(p: Problem, arrays: Problem, back: Callable[[Any], np.ndarray] = np.asarray) -> None:
    """All operations on ``arrays``, which are those of p in some framework or layout."""
    g = p.geometry
    y = leancore.forward(arrays.x, arrays.alpha, arrays.c, bias=arrays.bias, **g)
    dx = leancore.backward_data(arrays.dy, arrays.alpha, arrays.c, x_shape=p.x.shape, **g)
    weights = leancore.backward_weight(arrays.x, arrays.dy, **g)
    gradients = leancore.backward(arrays.x, arrays.dy, arrays.alpha, arrays.c, **g)
    expected = (p.y(), p.dx(), *p.weights(), *p.gradients())
    for got, right in zip((y, dx, *weights, *gradients), expected, strict=True):
        assert np.array_equal(back(got), right.astype(p.x.dtype))


# ---- NumPy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "c_in", "c_out", "spatial", "geometry"), CASES)
def test_numpy_exact(
    batch: int, c_in: int, c_out: int, spatial: tuple[int, ...], geometry: dict[str, Any], dtype: Any
) -> None:
    p = integer_problem(batch, c_in, c_out, spatial, dtype=dtype, **geometry)
    check_exact(p, p)
    y = leancore.forward(p.x, p.alpha, p.c, **geometry)
    assert type(y) is np.ndarray
    assert y.dtype == dtype
    assert np.array_equal(y, (p.y() - p.bias.reshape(-1, *(1,) * len(spatial)).astype(float)).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("c_in", "c_out"), [(3, 5), (64, 64), (17, 130), (128, 8)])
def test_numpy_random_within_the_derived_bound(c_in: int, c_out: int, dtype: Any) -> None:
    p = normal_problem(2, c_in, c_out, (12, 13), dtype)
    size = absolute(p)
    taps = 4
    y = leancore.forward(p.x, p.alpha, p.c, bias=p.bias)
    dx = leancore.backward_data(p.dy, p.alpha, p.c)
    weights = leancore.backward_weight(p.x, p.dy)
    gradients = leancore.backward(p.x, p.dy, p.alpha, p.c)
    pixels = 2 * 12 * 13
    for got, right, terms, n in (
        (y, p.y(), size.y(), c_in + taps + 1),
        (dx, p.dx(), size.dx(), c_out + taps),
        *zip(weights, p.weights(), size.weights(), (pixels, pixels), strict=True),
        *zip(gradients, p.gradients(), size.gradients(), (c_out + taps, pixels, pixels), strict=True),
    ):
        assert (np.abs(got.astype(float) - right) <= bound(n, right, terms, dtype)).all()


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Fortran order": np.asfortranarray,
    "channels last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 2 else a,
    "every second element": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "reversed in every axis": lambda a: np.ascontiguousarray(np.flip(a))[tuple(slice(None, None, -1) for _ in a.shape)],
    "a window": lambda a: np.pad(a, 1)[tuple(slice(1, -1) for _ in a.shape)],
    "aligned to an element": lambda a: np.frombuffer(b"\0" * a.itemsize + a.tobytes(), a.dtype)[1:].reshape(a.shape),
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}


@pytest.mark.parametrize("dtype", [np.float32, *HALVES])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", list(geometries(2)))
def test_numpy_layouts_of_inputs(layout: str, geometry: dict[str, Any], dtype: Any) -> None:
    p = integer_problem(2, 5, 4, (6, 7), dtype=dtype, **geometry)
    changed = p.map(LAYOUTS[layout])
    assert np.array_equal(changed.x, p.x)
    check_exact(p, changed)


def test_numpy_broadcast_inputs() -> None:
    ones = Problem(*(np.broadcast_to(np.float32(v), s) for v, s in zip(
        (2, 3, 1, 5, 1), ((2, 3, 4, 5), (4, 3), (3, 4), (4,), (2, 4, 4, 5)), strict=True)), 1, 1)  # fmt: skip
    check_exact(ones, ones)


@pytest.mark.parametrize("dtype", [np.float32, *HALVES])
@pytest.mark.parametrize("layout", ["Fortran order", "channels last", "every second element", "reversed", "a window"])
def test_numpy_layouts_of_outputs(layout: str, dtype: Any) -> None:
    p = integer_problem(2, 5, 4, (6, 7), dtype=dtype)

    def empty(right: np.ndarray) -> np.ndarray:
        return LAYOUTS[layout](np.full(right.shape, np.nan, dtype))

    for function, arguments, right in (
        (leancore.forward, (p.x, p.alpha, p.c), p.y() - p.bias.reshape(-1, 1, 1).astype(float)),
        (leancore.backward_data, (p.dy, p.alpha, p.c), p.dx()),
    ):
        out = empty(right)
        assert function(*arguments, out=out) is out
        assert np.array_equal(out, right.astype(dtype))
    for several, arguments, rights in (
        (leancore.backward_weight, (p.x, p.dy), p.weights()),
        (leancore.backward, (p.x, p.dy, p.alpha, p.c), p.gradients()),
    ):
        outs = tuple(empty(right) for right in rights)
        result = several(*arguments, out=outs)
        assert all(a is b for a, b in zip(result, outs, strict=True))
        assert all(np.array_equal(a, b.astype(dtype)) for a, b in zip(outs, rights, strict=True))


def test_numpy_output_outside_of_a_window_is_not_written() -> None:
    p = integer_problem(2, 5, 4, (6, 7))
    frame = np.full((4, 6, 8, 9), 7.0, np.float32)
    out = frame[1:3, 1:5, 1:7, 1:8]
    leancore.forward(p.x, p.alpha, p.c, bias=p.bias, out=out)
    assert np.array_equal(out, p.y())
    out[...] = 7
    assert (frame == 7).all()


def test_numpy_result_has_the_layout_of_x() -> None:
    p = integer_problem(2, 5, 4, (6, 7))
    x = LAYOUTS["channels last"](p.x)
    assert leancore.forward(x, p.alpha, p.c).strides == LAYOUTS["channels last"](p.dy).strides
    assert leancore.forward(np.asfortranarray(p.x), p.alpha, p.c).flags.f_contiguous
    assert leancore.forward(p.x[..., ::-1], p.alpha, p.c).flags.c_contiguous
    assert leancore.backward_data(LAYOUTS["channels last"](p.dy), p.alpha, p.c).strides == x.strides
    assert all(a.flags.c_contiguous for a in leancore.backward_weight(x, p.dy))
    dx, dalpha, dc = leancore.backward(x, p.dy, np.asfortranarray(p.alpha), np.asfortranarray(p.c))
    assert dx.strides == x.strides
    assert dalpha.flags.c_contiguous
    assert dc.flags.c_contiguous


def test_numpy_subclass_gives_a_plain_array(tmp_path: Any) -> None:
    p = integer_problem(2, 5, 4, (6, 7))
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=p.x.shape)
    mapped[...] = p.x
    y = leancore.forward(mapped, p.alpha, p.c, bias=p.bias)
    assert type(y) is np.ndarray
    assert np.array_equal(y, p.y())


def test_x_shape_follows_from_out_or_from_dy() -> None:
    for extent in (5, 6):
        p = integer_problem(2, 3, 4, (extent, 7), stride=2)
        dx = np.empty_like(p.x)
        assert leancore.backward_data(p.dy, p.alpha, p.c, stride=2, out=dx) is dx
        assert np.array_equal(dx, p.dx())
    assert leancore.backward_data(p.dy, p.alpha, p.c, stride=2).shape == (2, 3, 6, 8)
    with pytest.raises(ValueError, match=r"backward_data: out \(dx\) has shape \(2, 3, 9, 9\)"):
        leancore.backward_data(p.dy, p.alpha, p.c, stride=2, out=np.empty((2, 3, 9, 9), "f"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2])
def test_without_a_stencil(stride: int, dtype: Any) -> None:
    p = integer_problem(2, 5, 3, (6, 7), stride=stride, dtype=dtype)
    no_stencil = np.zeros_like(p.c, dtype=np.float64)
    y = leancore.reference.forward(p.x, p.alpha, no_stencil, p.bias, stride=stride)
    assert np.array_equal(leancore.forward(p.x, p.alpha, None, bias=p.bias, stride=stride), y.astype(dtype))
    dx = leancore.reference.backward_data(p.dy, p.alpha, no_stencil, stride=stride, x_shape=p.x.shape)
    got = leancore.backward_data(p.dy, p.alpha, None, stride=stride, x_shape=p.x.shape)
    assert np.array_equal(got, dx.astype(dtype))


def test_stride_and_dilation_take_numpy_integers() -> None:
    p = integer_problem(2, 3, 4, (5, 7), stride=(2, 1), dilation=3)
    y = leancore.forward(p.x, p.alpha, p.c, bias=p.bias, stride=np.array([2, 1]), dilation=np.int64(3))
    assert np.array_equal(y, p.y())


@pytest.mark.parametrize("spatial", [(0,), (4,), (0, 5), (5, 0), (4, 0, 3), (2, 3, 0, 2)])
@pytest.mark.parametrize(("batch", "c_in", "c_out"), list(itertools.product((0, 2), (0, 3), (0, 4))))
def test_empty_arrays(batch: int, c_in: int, c_out: int, spatial: tuple[int, ...]) -> None:
    for dtype in DTYPES:
        p = integer_problem(batch, c_in, c_out, spatial, dtype=dtype)
        check_exact(p, p)


def test_nan_spreads_to_neighbours_and_no_further() -> None:
    p = integer_problem(1, 2, 2, (5, 5))
    p.x[0, 0, 2, 2] = np.nan
    expected = np.zeros((2, 5, 5), bool)
    expected[:, 2, 2] = True  # through alpha, also where it is 0
    for row, column in ((1, 2), (3, 2), (2, 1), (2, 3)):
        expected[0, row, column] = True
    p.alpha[1, 0] = 0
    assert np.array_equal(np.isnan(leancore.forward(p.x, p.alpha, p.c)[0]), expected)


def test_outside_of_the_image_contributes_nothing() -> None:
    """Not 0 times infinity: an infinite stencil on a 1 x 1 image."""
    x, alpha = np.ones((1, 1, 1, 1), "f"), np.full((1, 1), 3, "f")
    c = np.full((1, 4), np.inf, "f")
    assert leancore.forward(x, alpha, c)[0, 0, 0, 0] == 3
    assert leancore.backward_data(x, alpha, c)[0, 0, 0, 0] == 3


# ---- torch


def tensor(array: np.ndarray) -> Any:
    """The same in torch, which knows no bfloat16 of NumPy."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    for sizes in SMALL:
        for geometry in geometries(len(sizes[3])):
            p = integer_problem(*sizes, dtype=dtype, **geometry)
            check_exact(p, p.map(tensor), lambda t: t.double().numpy())
    t = p.map(tensor)
    y = leancore.forward(t.x, t.alpha, t.c, **p.geometry)
    for result in (y, *leancore.backward(t.x, t.dy, t.alpha, t.c, **p.geometry)):
        assert type(result) is torch.Tensor
        assert result.is_contiguous()
        assert result.dtype == t.x.dtype


def test_torch_result_has_the_layout_of_x() -> None:
    torch = pytest.importorskip("torch")
    p = integer_problem(2, 5, 4, (6, 7))
    t = p.map(torch.from_numpy)
    x = t.x.contiguous(memory_format=torch.channels_last)
    y = leancore.forward(x, t.alpha, t.c, bias=t.bias)
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(y.numpy(), p.y())
    volume = torch.ones(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    y = leancore.forward(volume, torch.ones(4, 3), torch.ones(3, 6))
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    assert leancore.forward(t.x.transpose(2, 3), t.alpha, t.c).transpose(2, 3).is_contiguous()
    assert leancore.forward(t.x[:, :, ::2], t.alpha, t.c).is_contiguous()
    assert leancore.backward_weight(x, t.dy)[0].is_contiguous()
    dx, dalpha, _ = leancore.backward(x, t.dy, t.alpha, t.c)
    assert dx.is_contiguous(memory_format=torch.channels_last)
    assert dalpha.is_contiguous()


def test_torch_out() -> None:
    torch = pytest.importorskip("torch")
    p = integer_problem(2, 5, 4, (6, 7))
    t = p.map(torch.from_numpy)
    out = torch.empty_like(t.dy, memory_format=torch.channels_last)
    assert leancore.forward(t.x, t.alpha, t.c, bias=t.bias, out=out) is out
    assert np.array_equal(out.numpy(), p.y())


def test_torch_tensors_that_cannot_be_read() -> None:
    torch = pytest.importorskip("torch")
    fake_tensor = pytest.importorskip("torch._subclasses.fake_tensor")
    p = integer_problem(2, 4, 4, (6, 8))
    t = p.map(torch.from_numpy)

    def attempts(x: Any) -> list[Callable[[], Any]]:
        return [
            lambda: leancore.forward(x, t.alpha, t.c),
            lambda: leancore.forward(t.x, t.alpha, t.c, out=x),
            lambda: leancore.backward_data(x, t.alpha, t.c),
            lambda: leancore.backward_weight(t.x, x),
            lambda: leancore.backward(t.x, x, t.alpha, t.c),
        ]

    with fake_tensor.FakeTensorMode() as mode:
        fake = mode.from_tensor(t.x)
    complex_x = torch.complex(t.x, t.x)
    for x, kind, match in (
        (t.x.clone().requires_grad_(), BufferError, r"requires grad.*leancore\.torch"),
        (torch.nn.Parameter(t.x), BufferError, r"requires grad.*leancore\.torch"),
        (fake, TypeError, "FakeTensor"),
        (t.x.to("meta"), TypeError, "meta"),
        (t.x.to_sparse(), TypeError, "sparse"),
        (torch._neg_view(t.x), BufferError, "resolve_neg"),
        (complex_x.conj().imag, BufferError, "resolve_neg"),
        (t.x.half(), TypeError, "float16"),
        (t.x.bfloat16(), TypeError, "bfloat16"),
        (t.x.int(), TypeError, "int32"),
        (t.x.bool(), TypeError, "bool"),
        (complex_x, TypeError, "complex64"),
    ):
        for attempt in attempts(x):
            with pytest.raises(kind, match=match):
                attempt()
    for bias in (t.bias.clone().requires_grad_(), t.bias.half()):
        with pytest.raises((BufferError, TypeError), match="forward: bias"):
            leancore.forward(t.x, t.alpha, t.c, bias=bias)
    assert np.array_equal(leancore.forward(t.x, t.alpha, t.c, bias=t.bias).numpy(), p.y())


def test_torch_subclass_with_an_export_of_its_own() -> None:
    """Its __dlpack__ is asked, although Tensor has a quicker way."""
    torch = pytest.importorskip("torch")

    class Doubled(torch.Tensor):  # type: ignore[misc, name-defined]
        def __dlpack__(self, **arguments: Any) -> Any:
            return (2 * self.as_subclass(torch.Tensor)).__dlpack__(**arguments)

    p = integer_problem(2, 5, 4, (6, 7))
    t = p.map(torch.from_numpy)
    y = leancore.forward(t.x.as_subclass(Doubled), t.alpha, t.c)
    assert np.array_equal(y.numpy(), 2 * (p.y() - p.bias.reshape(-1, 1, 1)))


def test_torch_inside_of_transforms_is_refused() -> None:
    """Wrapped tensors have no memory of their own: an exception, and no crash."""
    torch = pytest.importorskip("torch")
    alpha, c, x = torch.ones(3, 3), torch.ones(3, 4), torch.ones(2, 1, 3, 4, 4)
    with pytest.raises(RuntimeError):
        torch.vmap(lambda v: leancore.forward(v, alpha, c))(x)
    with pytest.raises(BufferError, match=r"leancore\.torch"):
        torch.func.grad(lambda v: leancore.forward(v, alpha, c).sum())(x[0])


def test_frameworks_may_be_mixed_and_the_result_is_of_the_first() -> None:
    torch = pytest.importorskip("torch")
    p = integer_problem(2, 5, 4, (6, 7))
    y = leancore.forward(p.x, torch.from_numpy(p.alpha), p.c, bias=torch.from_numpy(p.bias))
    assert type(y) is np.ndarray
    assert np.array_equal(y, p.y())
    assert type(leancore.forward(torch.from_numpy(p.x), p.alpha, p.c)) is torch.Tensor
    assert type(leancore.backward_weight(torch.from_numpy(p.x), p.dy)[1]) is torch.Tensor


# ---- JAX


@pytest.mark.parametrize("dtype", [np.float32, *HALVES])
def test_jax(dtype: Any) -> None:
    jax = pytest.importorskip("jax")
    for sizes in SMALL[::2]:
        p = integer_problem(*sizes, dtype=dtype)
        check_exact(p, p.map(jax.numpy.asarray))
    a = p.map(jax.numpy.asarray)
    y = leancore.forward(a.x, a.alpha, a.c)
    for result in (y, *leancore.backward_weight(a.x, a.dy), *leancore.backward(a.x, a.dy, a.alpha, a.c)):
        assert isinstance(result, jax.Array)
        assert result.dtype == dtype
        assert result.device == a.x.device


def test_jax_float64() -> None:
    jax = pytest.importorskip("jax")
    p = integer_problem(2, 5, 4, (6, 7), dtype=np.float64)
    enable_x64 = (
        jax.enable_x64 if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental").enable_x64
    )
    with enable_x64(True):
        arrays = p.map(jax.numpy.asarray)
        assert arrays.x.dtype == np.float64
        check_exact(p, arrays)
        assert leancore.forward(arrays.x, arrays.alpha, arrays.c).dtype == np.float64


def test_jax_arrays_are_no_outputs() -> None:
    jax = pytest.importorskip("jax")
    p = integer_problem(2, 5, 4, (6, 7))
    a = p.map(jax.numpy.asarray)
    before = a.dy + 0
    with pytest.raises(BufferError, match="forward: out is a JAX array, which is immutable"):
        leancore.forward(a.x, a.alpha, a.c, out=a.dy)
    with pytest.raises(BufferError, match="backward_data: out"):
        leancore.backward_data(p.dy, p.alpha, p.c, out=a.x)
    with pytest.raises(BufferError, match="backward_weight: out"):
        leancore.backward_weight(a.x, a.dy, out=(a.alpha, a.c))
    with pytest.raises(BufferError, match="backward: out"):
        leancore.backward(a.x, a.dy, a.alpha, a.c, out=(a.x, a.alpha, a.c))
    assert (a.dy == before).all()
    out = np.empty_like(p.dy)
    assert leancore.forward(a.x, a.alpha, a.c, bias=a.bias, out=out) is out
    assert np.array_equal(out, p.y())


def test_jax_arrays_on_devices_that_are_not_ours(monkeypatch: Any) -> None:
    """The devices are played; test_jax.py has CUDA ones."""
    jax = pytest.importorskip("jax")
    p = integer_problem(1, 2, 2, (3,))
    a = p.map(jax.numpy.asarray)

    class Device:
        platform = "tpu"

    monkeypatch.setattr(type(a.x), "devices", lambda self: {Device})
    with pytest.raises(NotImplementedError, match=r"forward: x is a JAX array on .*, expected the CPU or one CUDA"):
        leancore.forward(a.x, a.alpha, a.c)


def test_jax_tracers_are_refused() -> None:
    jax = pytest.importorskip("jax")
    p = integer_problem(2, 5, 4, (6, 7))
    with pytest.raises(TypeError, match=r"forward: x is of type .*Tracer"):
        jax.jit(lambda x: leancore.forward(x, p.alpha, p.c))(p.x)


# ---- anything else


class Foreign:
    """An array of a framework that is not known here, with the array API standard's namespace."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.dtype, self.device = array, array.dtype, "cpu"

    def __dlpack__(self, **arguments: Any) -> Any:
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __array_namespace__(self) -> type[Foreign]:
        return Foreign

    @staticmethod
    def empty(shape: tuple[int, ...], *, dtype: Any, device: str) -> Foreign:
        assert device == "cpu"
        return Foreign(np.empty(shape, dtype))


def test_result_through_the_array_namespace() -> None:
    p = integer_problem(2, 5, 4, (6, 7))
    check_exact(p, p.map(Foreign), lambda foreign: foreign.array)
    assert type(leancore.forward(Foreign(p.x), p.alpha, p.c)) is Foreign


def test_without_a_namespace_out_must_be_given() -> None:
    class Bare:
        __dlpack__ = Foreign.__dlpack__
        __dlpack_device__ = Foreign.__dlpack_device__

        def __init__(self, array: np.ndarray) -> None:
            self.array = array

    p = integer_problem(2, 5, 4, (6, 7))
    with pytest.raises(TypeError, match=r"Bare.*pass out"):
        leancore.forward(Bare(p.x), p.alpha, p.c)
    out = np.empty_like(p.dy)
    leancore.forward(Bare(p.x), p.alpha, p.c, bias=p.bias, out=Bare(out))
    assert np.array_equal(out, p.y())


# ---- implementations


@pytest.mark.parametrize(
    "name",
    [name for name, _, available in leancore.implementations() if available and not name.startswith("cuda")],
)
def test_every_implementation_may_be_asked_for(name: str) -> None:
    p = integer_problem(2, 5, 4, (6, 7))
    assert np.array_equal(leancore.forward(p.x, p.alpha, p.c, bias=p.bias, implementation=name), p.y())
    assert np.array_equal(leancore.backward_data(p.dy, p.alpha, p.c, implementation=name), p.dx())
    for got, want in zip(leancore.backward_weight(p.x, p.dy, implementation=name), p.weights(), strict=True):
        assert np.array_equal(got, want)
    gradients = leancore.backward(p.x, p.dy, p.alpha, p.c, implementation=name)
    assert all(np.array_equal(a, b) for a, b in zip(gradients, p.gradients(), strict=True))


def test_an_implementation_that_is_not_there() -> None:
    p = integer_problem(2, 5, 4, (6, 7))
    out = np.full_like(p.dy, 7)
    with pytest.raises(RuntimeError, match=r"forward: implementation 'best' \(asked for by the caller\) is not one of"):
        leancore.forward(p.x, p.alpha, p.c, out=out, implementation="best")
    with pytest.raises(TypeError, match="forward: implementation is not a str"):
        leancore.forward(p.x, p.alpha, p.c, out=out, implementation=1)  # type: ignore[arg-type]
    built = any(name == "cuda_tf32" for name, _, _ in leancore.implementations())
    reason = (
        "takes CUDA arrays, and these are on the CPU" if built else "is not one of those that `leancore info` lists"
    )
    with pytest.raises(RuntimeError, match=rf"backward_weight: implementation 'cuda_tf32' .* {reason}"):
        leancore.backward_weight(p.x, p.dy, implementation="cuda_tf32")
    assert (out == 7).all()


def test_implementations_end_with_the_reference() -> None:
    names = [name for name, _, _ in leancore.implementations()]
    assert [name for name in names if not name.startswith("cuda")][-1] == "reference"
    assert len(set(names)) == len(names)
    for operation, dtype in itertools.product(
        ("forward", "backward_data", "backward_weight", "backward"), ("float32", "float64", "float16", "bfloat16")
    ):
        assert leancore.selected_implementation(operation, dtype, (2, 5, 6, 7), 4) in names
    for arguments in (
        ("sideways", "float32", (1, 1, 1), 1),
        ("forward", "int8", (1, 1, 1), 1),
        ("forward", "float32", (1,), 1),
    ):
        with pytest.raises(ValueError, match="selected_implementation"):
            leancore.selected_implementation(*arguments)
