"""The cases of test_malformed.py. As a script, runs the one named: a crash must not take other tests with it.

Each case puts one bad object in the place of every argument that it can stand for, and checks the exception, that all
outputs still have their old bytes, that every deleter was called exactly once, and that the next call works.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

import leancore
from helpers import Legacy, Producer, integer_problem, new_capsule

CASES: dict[str, Callable[[], None]] = {}
MARK = 7.0  # in outputs, before a call that must fail
OUTPUTS = ("out", "dx", "dalpha", "dc")


def case(body: Callable[[], None]) -> Callable[[], None]:
    CASES[body.__name__] = body
    return body


class Calls:
    """The four operations on one problem, any argument replaced."""

    def __init__(self, dtype: Any = np.float32, shape: tuple[int, ...] = (2, 3, 4, 5), c_out: int = 4) -> None:
        self.problem = integer_problem(shape[0], shape[1], c_out, shape[2:], dtype=dtype)
        p = self.problem
        self.places: dict[tuple[str, str], np.ndarray] = {
            ("forward", "x"): p.x,
            ("forward", "alpha"): p.alpha,
            ("forward", "c"): p.c,
            ("forward", "bias"): p.bias,
            ("forward", "out"): np.empty_like(p.dy),
            ("backward_data", "dy"): p.dy,
            ("backward_data", "alpha"): p.alpha,
            ("backward_data", "c"): p.c,
            ("backward_data", "out"): np.empty_like(p.x),
            ("backward_weight", "x"): p.x,
            ("backward_weight", "dy"): p.dy,
            ("backward_weight", "dalpha"): np.empty_like(p.alpha),
            ("backward_weight", "dc"): np.empty_like(p.c),
            ("backward", "x"): p.x,
            ("backward", "dy"): p.dy,
            ("backward", "alpha"): p.alpha,
            ("backward", "c"): p.c,
            ("backward", "dx"): np.empty_like(p.x),
            ("backward", "dalpha"): np.empty_like(p.alpha),
            ("backward", "dc"): np.empty_like(p.c),
        }
        self.outputs = [a for (_, name), a in self.places.items() if name in OUTPUTS]
        for array in self.outputs:
            array.fill(MARK)

    def call(self, function: str, **replaced: Any) -> Any:
        given = {name: array for (f, name), array in self.places.items() if f == function} | replaced
        if function in ("backward_weight", "backward"):
            given["out"] = tuple(given.pop(name) for name in ("dx", "dalpha", "dc") if name in given)
        return getattr(leancore, function)(**given)

    def untouched(self) -> None:
        for array in self.outputs:
            assert (array == MARK).all(), "an output was written to"

    def next_call_works(self) -> None:
        assert (self.call("forward") == self.problem.y()).all()
        assert (self.call("backward_data") == self.problem.dx()).all()
        for got, expected in zip(self.call("backward_weight"), self.problem.weights(), strict=True):
            assert (got == expected).all()
        for got, expected in zip(self.call("backward"), self.problem.gradients(), strict=True):
            assert (got == expected).all()


def raises(kind: type[BaseException], match: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    caught: BaseException | None = None
    try:
        call(*arguments, **named)
    except BaseException as error:
        caught = error
    # Exactly that class, so that a NotImplementedError is no RuntimeError; but NumPy has a MemoryError of its own.
    right = isinstance(caught, MemoryError) if kind is MemoryError else type(caught) is kind
    assert right, f"expected {kind.__name__}, got {caught!r}"
    assert re.search(match, str(caught)), f"{match!r} is not in {caught}"


def every_place(
    make: Callable[[np.ndarray], Any],
    kind: type[BaseException],
    match: str,
    axes: Callable[[int], bool] = lambda ndim: True,
    only: tuple[str, ...] = (),
    calls: Calls | None = None,
) -> None:
    """Replace every argument (whose number of axes passes ``axes``, whose name is in ``only``) by make(it)."""
    calls = calls or Calls()
    places = [p for p, a in calls.places.items() if axes(a.ndim) and (not only or p[1] in only)]
    assert places
    for function, name in places:
        bad = make(calls.places[function, name])
        raises(kind, match, calls.call, function, **{name: bad})
        calls.untouched()
        if isinstance(bad, Producer):
            gc.collect()
            assert bad.exported == bad.deleted, f"{function} {name}: {bad.deleted} deletions of {bad.exported} exports"
        del bad
    calls.next_call_works()


def accepted(make: Callable[[np.ndarray], Any], calls: Calls | None = None) -> None:
    """Every argument may be make(it), and the results are those of the array itself."""
    calls = calls or Calls()
    p = calls.problem
    expected = {
        "forward": (p.y(),),
        "backward_data": (p.dx(),),
        "backward_weight": p.weights(),
        "backward": p.gradients(),
    }
    for function, name in calls.places:
        good = make(calls.places[function, name])
        calls.call(function, **{name: good})
        written = [a for (f, n), a in calls.places.items() if f == function and n in OUTPUTS]
        for got, right in zip(written, expected[function], strict=True):
            assert (got == right).all(), f"{function} is wrong with {name} replaced"
            got.fill(MARK)
        if isinstance(good, Producer):
            gc.collect()
            assert good.exported == 1
            assert good.deleted == (0 if good.no_deleter else 1)


def producer(
    kind: type[BaseException], match: str, axes: Callable[[int], bool] = lambda n: True, **fields: Any
) -> None:
    """A DLPack producer with these fields, in every place; a field may be a function of the true array."""

    def make(array: np.ndarray) -> Producer:
        return Producer(array, **{k: v(array) if callable(v) else v for k, v in fields.items()})

    every_place(make, kind, match, axes)


# ---- a producer that says the truth: the tests below can fail


@case
def truth_is_accepted() -> None:
    accepted(Producer)


@case
def legacy_producer_is_accepted() -> None:
    accepted(Legacy)


@case
def missing_deleter_is_accepted() -> None:
    accepted(lambda a: Producer(a, no_deleter=True))


@case
def pinned_host_memory_is_accepted() -> None:
    accepted(lambda a: Producer(a, says=(3, 0), device=(3, 0)))


@case
def newer_minor_version_is_accepted() -> None:
    accepted(lambda a: Producer(a, version=(1, 99)))


# ---- objects


@case
def none() -> None:
    # None means "not given" for bias and out, and "no stencil" for the c of forward and backward_data.
    every_place(lambda a: None, TypeError, "is None", only=("x", "alpha", "dy", "dx", "dalpha", "dc"))
    calls = Calls()
    raises(TypeError, "c is None", calls.call, "backward", c=None)
    calls.untouched()


@case
def integer() -> None:
    every_place(lambda a: 3, TypeError, "int")


@case
def nested_list() -> None:
    every_place(lambda a: a.tolist(), TypeError, "list")


@case
def string() -> None:
    every_place(lambda a: "x", TypeError, "str")


@case
def object_array() -> None:
    every_place(lambda a: a.astype(object), TypeError, "dtype")


@case
def masked_array() -> None:
    every_place(lambda a: np.ma.masked_less(a, 0), TypeError, "mask")


@case
def numpy_scalar() -> None:
    every_place(lambda a: np.float32(1), TypeError, "float32, expected an array")


@case
def dlpack_not_callable() -> None:
    class Bad(Producer):
        __dlpack__ = 3  # type: ignore[assignment]

    every_place(Bad, TypeError, "expected an array")


@case
def device_not_callable() -> None:
    class Bad(Producer):
        __dlpack_device__ = 3  # type: ignore[assignment]

    every_place(Bad, TypeError, "expected an array")


@case
def no_device() -> None:
    class Bad:
        def __init__(self, array: np.ndarray) -> None:
            self.__dlpack__ = array.__dlpack__

    every_place(Bad, TypeError, "expected an array")


def _returning(result: Callable[[Producer], Any]) -> type[Producer]:
    class Bad(Producer):
        def __dlpack__(self, *, max_version: Any = None) -> Any:
            return result(self)

    return Bad


@case
def returns_none() -> None:
    every_place(_returning(lambda self: None), BufferError, "not a capsule")


@case
def returns_an_array() -> None:
    every_place(_returning(lambda self: self.array), BufferError, "not a capsule")


@case
def capsule_of_another_name() -> None:
    producer(BufferError, "named somebody_else", name=b"somebody_else")


@case
def capsule_without_a_name() -> None:
    producer(BufferError, "capsule named", name=None)


@case
def capsule_with_a_very_long_name() -> None:
    producer(BufferError, "xxxx", name=b"x" * 5000)


@case
def consumed_capsule() -> None:
    class Bad(Producer):
        def __dlpack__(self, *, max_version: Any = None) -> Any:
            capsule = self.capsule()
            np.from_dlpack(_Capsule(capsule))
            return capsule

    every_place(Bad, BufferError, "used_dltensor_versioned")


class _Capsule:
    """What np.from_dlpack asks for, around a capsule."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


@case
def one_capsule_for_two_arguments() -> None:
    calls = Calls()
    source = Producer(calls.problem.x)
    shared = _Capsule(source.capsule())
    raises(BufferError, "alpha.*used_dltensor", calls.call, "forward", x=shared, alpha=shared)
    calls.untouched()
    assert source.deleted == 1
    calls.next_call_works()


@case
def one_producer_for_two_arguments_is_fine() -> None:
    calls = Calls(shape=(2, 3, 4, 5), c_out=3)
    both = Producer(calls.problem.x)
    dalpha, _ = leancore.backward_weight(both, both, out=(np.empty((3, 3), "f"), np.empty((3, 4), "f")))
    assert (dalpha == dalpha.T).all()
    assert both.exported == both.deleted == 2


def _raising(error: BaseException, device: bool) -> None:
    class Bad(Producer):
        if device:

            def __dlpack_device__(self) -> Any:
                raise error

        else:

            def __dlpack__(self, *, max_version: Any = None) -> Any:
                raise error

    every_place(Bad, type(error), "own words")


@case
def export_raises_value_error() -> None:
    _raising(ValueError("own words"), device=False)


@case
def export_raises_type_error() -> None:
    _raising(TypeError("own words"), device=False)


@case
def export_raises_memory_error() -> None:
    _raising(MemoryError("own words"), device=False)


@case
def export_raises_keyboard_interrupt() -> None:
    _raising(KeyboardInterrupt("own words"), device=False)


@case
def device_raises_keyboard_interrupt() -> None:
    _raising(KeyboardInterrupt("own words"), device=True)


@case
def attribute_lookup_raises() -> None:
    class Bad(Producer):
        @property
        def __dlpack__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("own words")

    every_place(Bad, RuntimeError, "own words")


@case
def export_calls_leancore() -> None:
    inner = Calls()

    class Nested(Producer):
        def __dlpack__(self, *, max_version: Any = None) -> Any:
            inner.next_call_works()
            return self.capsule()

    accepted(Nested)


@case
def deleter_calls_leancore() -> None:
    inner = Calls()

    class Nested(Producer):
        def _delete(self, pointer: int) -> None:
            super()._delete(pointer)
            inner.next_call_works()

    calls = Calls()
    good = Nested(calls.problem.x)
    y = calls.call("forward", x=good)
    assert (y == calls.problem.y()).all()
    assert good.deleted == 1


@case
def device_says_nonsense() -> None:
    for says in (None, 3, (1,), (1, 0, 0), ("cpu", 0), (1, None), (2**70, 0), [1, 0]):
        producer(BufferError, "did not return two integers", says=says)


# ---- the C exchange API of DLPack 1.3, a table of functions that a type offers

_Export = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.POINTER(ctypes.c_void_p))


class _ExchangeApi(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("previous", ctypes.c_void_p),
        ("allocator", ctypes.c_void_p),
        ("export", _Export),
    ]


_forever: list[Any] = []


def _exchanging(name: bytes = b"dlpack_exchange_api", major: int = 1) -> type[Producer]:
    class Exchanging(Producer):
        used = 0

    def export(producer: Exchanging, out: Any) -> int:
        Exchanging.used += 1
        out[0] = producer.managed()
        return 0

    api = _ExchangeApi(major, 3, None, None, _Export(export))
    _forever.append(api)
    Exchanging.__dlpack_c_exchange_api__ = new_capsule(ctypes.addressof(api), name, None)  # type: ignore[attr-defined]
    return Exchanging


@case
def exchange_api_is_used() -> None:
    kind = _exchanging()
    accepted(kind)
    assert kind.used == len(Calls().places)  # type: ignore[attr-defined]
    every_place(lambda a: kind(a, shape=None), BufferError, "without a shape")
    every_place(lambda a: kind(a, version=(7, 0)), BufferError, r"DLPack 7\.0")
    every_place(lambda a: kind(a, says=(2, 0), device=(2, 0)), RuntimeError, "without CUDA")


@case
def exchange_api_of_another_kind_is_not_used() -> None:
    for kind in (_exchanging(name=b"something"), _exchanging(major=2)):
        accepted(kind)
        assert kind.used == 0  # type: ignore[attr-defined]


@case
def inherited_exchange_api_is_not_used() -> None:
    base = _exchanging()

    class Derived(base):  # type: ignore[misc, valid-type]
        pass

    accepted(Derived)
    assert base.used == 0  # type: ignore[attr-defined]


@case
def exchange_api_that_is_no_capsule() -> None:
    class Bad(Producer):
        __dlpack_c_exchange_api__ = 3

    accepted(Bad)


@case
def many_types() -> None:
    for _ in range(100):
        for kind in (_exchanging(), type("Fresh", (Producer,), {})):
            accepted(kind)


# ---- devices


@case
def says_cpu_but_is_cuda() -> None:
    producer(BufferError, "says device type 1, but its capsule says 2", device=(2, 0))


@case
def cuda_without_cuda() -> None:
    producer(RuntimeError, r"is on CUDA device 3.*without CUDA", says=(2, 3), device=(2, 3))


@case
def other_device() -> None:
    producer(NotImplementedError, "DLPack type 8", says=(8, 0), device=(8, 0))


@case
def unknown_device() -> None:
    producer(NotImplementedError, "DLPack type -5", says=(-5, 0), device=(-5, 0))


# ---- descriptors


@case
def version_7() -> None:
    producer(BufferError, r"DLPack 7\.3, expected version 1", version=(7, 3))


@case
def version_0() -> None:
    producer(BufferError, r"DLPack 0\.9, expected version 1", version=(0, 9))


@case
def axes_minus_1() -> None:
    producer(BufferError, "-1 axes", ndim=-1)


@case
def axes_int_min() -> None:
    producer(BufferError, "-2147483648 axes", ndim=-(2**31))


@case
def axes_0() -> None:
    producer(ValueError, "shape \\(\\)", ndim=0)


@case
def axes_2() -> None:
    producer(ValueError, "shape \\(", axes=lambda n: n > 2, ndim=2)


@case
def axes_65() -> None:
    producer(ValueError, "65 axes", ndim=65, shape=(1,) * 65, strides=(1,) * 65)


@case
def axes_int_max() -> None:
    producer(ValueError, "2147483647 axes", ndim=2**31 - 1)


@case
def no_shape() -> None:
    producer(BufferError, "without a shape", shape=None)


@case
def negative_extent() -> None:
    producer(BufferError, "negative extent", shape=lambda a: (*a.shape[:-1], -a.shape[-1]))


@case
def smallest_extent() -> None:
    producer(BufferError, "negative extent", shape=lambda a: (-(2**63), *a.shape[1:]))


@case
def no_data() -> None:
    producer(BufferError, "no data", data=None)


@case
def no_data_but_an_offset() -> None:
    producer(BufferError, "no data", data=None, byte_offset=64)


@case
def count_overflows() -> None:
    huge = {"shape": lambda a: (2**32, 2**32, *a.shape[2:]), "strides": None}
    producer(OverflowError, "element count", axes=lambda n: n > 1, **huge)


@case
def count_overflows_with_zero_strides() -> None:
    producer(
        OverflowError,
        "element count",
        axes=lambda n: n > 1,
        shape=lambda a: (2**32, 2**32, *a.shape[2:]),
        strides=lambda a: (0,) * a.ndim,
    )


@case
def bytes_overflow() -> None:
    # Each reach fits in 63 bits, their sum does not.
    producer(
        OverflowError,
        "bytes spanned",
        axes=lambda n: n > 1,
        shape=lambda a: (2,) * a.ndim,
        strides=lambda a: (2**60,) * a.ndim,
    )


@case
def one_reach_overflows() -> None:
    producer(OverflowError, "bytes spanned", shape=lambda a: (3,) * a.ndim, strides=lambda a: (2**62,) * a.ndim)


@case
def smallest_stride() -> None:
    producer(OverflowError, "bytes spanned", shape=lambda a: (2,) * a.ndim, strides=lambda a: (-(2**63),) * a.ndim)


@case
def above_the_address_space() -> None:
    producer(OverflowError, "address space", byte_offset=2**64 - 64)


@case
def below_the_address_space() -> None:
    producer(
        OverflowError, "address space", data=64, strides=lambda a: (-1000,) * a.ndim, shape=lambda a: (3,) * a.ndim
    )


@case
def null_strides_mean_compact() -> None:
    accepted(lambda a: Producer(a, strides=None))


@case
def strides_of_extent_1_mean_nothing() -> None:
    def make(array: np.ndarray) -> Producer:
        strides = [s // array.itemsize if n > 1 else -(2**63) for n, s in zip(array.shape, array.strides, strict=True)]
        return Producer(array, strides=strides)

    accepted(make, Calls(shape=(1, 1, 4, 1), c_out=1))


@case
def no_data_without_elements() -> None:
    calls = Calls(shape=(0, 3, 4, 5))
    y = calls.call("forward", x=Producer(calls.problem.x, data=None))
    assert y.shape == (0, 4, 4, 5)
    dalpha, dc = calls.call("backward_weight", dy=Producer(calls.problem.dy, data=None))
    assert (dalpha == 0).all()
    assert (dc == 0).all()


@case
def overflowing_extents_without_elements() -> None:
    # A shape that does not fit, and not an overflow: there is no element to count.
    producer(
        ValueError, "shape", axes=lambda n: n > 2, shape=lambda a: (0, 2**62, 2**62, 7), strides=lambda a: (2**62,) * 4
    )


@case
def offset_into_the_data() -> None:
    def make(array: np.ndarray) -> Producer:
        return Producer(array, data=array.ctypes.data - 4096, byte_offset=4096)

    accepted(make)


@case
def offset_inside_an_element() -> None:
    producer(ValueError, "not aligned", byte_offset=2)


@case
def unaligned_to_an_element() -> None:
    producer(ValueError, "not aligned", data=lambda a: a.ctypes.data + 1)


@case
def unaligned_numpy() -> None:
    def make(array: np.ndarray) -> np.ndarray:
        return np.frombuffer(bytearray(array.nbytes + 1), np.uint8)[1:].view(array.dtype).reshape(array.shape)

    every_place(make, ValueError, "not aligned")


@case
def aligned_to_an_element_only() -> None:
    def make(array: np.ndarray) -> Producer:
        room = np.empty(array.size + 16, array.dtype)
        start = next(i for i in range(16) if (room.ctypes.data + i * room.itemsize) % 64 == 4)
        moved = room[start : start + array.size].reshape(array.shape)
        moved[...] = array
        return Producer(moved)

    calls = Calls()
    for function, names, expected in (
        ("forward", ("x", "alpha", "c", "bias"), calls.problem.y()),
        ("backward_data", ("dy", "alpha", "c"), calls.problem.dx()),
    ):
        moved = {name: make(calls.places[function, name]) for name in (*names, "out")}
        calls.call(function, **moved)
        assert (moved["out"].array == expected).all()


# ---- element types


def _dtype(
    code: int, bits: int, lanes: int = 1, kind: type[BaseException] = TypeError, match: str = "expected"
) -> None:
    producer(kind, match, dtype=(code, bits, lanes))


@case
def dtype_integers() -> None:
    for code in (0, 1):
        for bits in (8, 16, 32, 64):
            _dtype(code, bits, match="int")


@case
def dtype_bool() -> None:
    _dtype(6, 8, match="bool")


@case
def dtype_complex() -> None:
    _dtype(5, 64, match="complex64")


@case
def dtype_opaque() -> None:
    _dtype(3, 32, match="opaque")


@case
def dtype_float8() -> None:
    for code in range(7, 16):
        _dtype(code, 8)
    _dtype(2, 8)


@case
def dtype_float16_among_float32() -> None:
    _dtype(2, 16, match=r"is (float16|float32), expected (float16|float32) like")


@case
def dtype_bfloat16_among_float32() -> None:
    _dtype(4, 16, match=r"is (bfloat16|float32), expected (bfloat16|float32) like")


@case
def dtype_float16_is_accepted() -> None:
    accepted(Producer, Calls(dtype=np.float16))


@case
def dtype_bfloat16_is_accepted() -> None:
    # Outputs as well: NumPy exports its memory as 16-bit words, and the producer says what they are.
    accepted(
        lambda a: Producer(a.view(np.uint16), dtype=(4, 16, 1)),
        Calls(dtype=ml_dtypes.bfloat16),
    )


@case
def sixteen_bits_of_another_kind() -> None:
    class Lying:
        """Says that it is an array of bfloat16, and hands over something else."""

        dtype = "bfloat16"

        def __init__(self, words: Any) -> None:
            self.words = words

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

        def __dlpack__(self, **_: Any) -> Any:
            raise BufferError("own words")

        def view(self, _: str) -> Any:
            if isinstance(self.words, BaseException):
                raise self.words
            return self.words

    for words, kind, match in (
        (ValueError("no view"), BufferError, "own words"),
        (None, TypeError, "is None"),
        (np.zeros((2, 3, 4, 5), np.uint8), TypeError, "bfloat8"),
        (np.zeros((2, 3, 4, 5), np.float32), TypeError, "bfloat32"),
    ):
        every_place(lambda a, words=words: Lying(words), kind, match)  # type: ignore[misc]


@case
def dtype_odd_widths() -> None:
    for bits in (0, 1, 31, 80, 128):
        _dtype(2, bits)


@case
def dtype_lanes() -> None:
    for lanes in (0, 2, 65535):
        _dtype(2, 32, lanes)


@case
def dtype_unknown() -> None:
    _dtype(255, 32)


@case
def numpy_integers_bool_complex() -> None:
    for dtype in (np.int32, np.uint8, np.int64, bool, np.complex64, np.longdouble, "M8[s]", "S4"):
        every_place(lambda a, dtype=dtype: np.zeros(a.shape, dtype), TypeError, "dtype")  # type: ignore[misc]


@case
def numpy_foreign_byte_order() -> None:
    every_place(lambda a: a.astype(a.dtype.newbyteorder("S")), TypeError, "dtype.*native")


@case
def numpy_bfloat16_that_is_not_writable() -> None:
    def frozen(array: np.ndarray) -> np.ndarray:
        return np.frombuffer(array.tobytes(), array.dtype).reshape(array.shape)

    every_place(frozen, BufferError, "read-only", only=OUTPUTS, calls=Calls(dtype=ml_dtypes.bfloat16))


@case
def numpy_record() -> None:
    every_place(lambda a: np.zeros(a.shape, [("a", "f4"), ("b", "f4")]), TypeError, "dtype")


@case
def mixed_dtypes() -> None:
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        name = np.dtype(dtype).name
        every_place(lambda a, dtype=dtype: a.astype(dtype), TypeError, f"{name}.*float32|float32.*{name}")  # type: ignore[misc]


# ---- shapes


@case
def shapes_that_do_not_fit() -> None:
    for axis in (0, 1, -1):

        def longer(array: np.ndarray, axis: int = axis) -> np.ndarray:
            return np.concatenate([array, array.take([0], axis)], axis)

        every_place(longer, ValueError, r"shape \(", axes=lambda n: n > 1)
    every_place(lambda a: a[:-1].copy(), ValueError, r"shape \(", only=("alpha", "c", "bias", "dy", *OUTPUTS))


@case
def no_output_but_too_much_memory() -> None:
    calls = Calls()
    x = np.broadcast_to(np.float32(1), (1, 1, 2**23, 2**23))
    raises(MemoryError, "", leancore.forward, x, np.ones((1, 1), "f"), np.ones((1, 4), "f"))
    calls.next_call_works()


@case
def no_memory_for_the_workspace() -> None:
    if sys.platform != "linux":
        return
    import resource

    calls = Calls()
    calls.next_call_works()
    x, alpha, c = np.ones((1, 1500, 32, 32), "f"), np.ones((1500, 1500), "f"), np.ones((1500, 4), "f")
    out = np.full_like(x, MARK)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**21, before[1]))
    try:
        raises(MemoryError, "forward: no memory for a workspace of", leancore.forward, x, alpha, c, out=out)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert (out == MARK).all()
    calls.next_call_works()
    assert leancore.forward(x, alpha, c, out=out)[0, 0, 1, 1] == 1504


@case
def stride_and_dilation() -> None:
    calls = Calls()
    for name in ("stride", "dilation"):
        for value, kind in (
            (0, ValueError),
            (-1, ValueError),
            ((1, 0), ValueError),
            ((1,), ValueError),
            ((1, 1, 1), ValueError),
            ((1,) * 9, ValueError),
            ((), ValueError),
            (1.5, TypeError),
            (None, TypeError),
            ("2", TypeError),
            ((1, None), TypeError),
            ({}, TypeError),
        ):
            for function in ("forward", "backward_data", "backward_weight", "backward"):
                raises(kind, f"{function}: {name}", calls.call, function, **{name: value})
                calls.untouched()
        raises(OverflowError, "", calls.call, "forward", **{name: 2**64})
    calls.next_call_works()


@case
def x_shape() -> None:
    calls = Calls()
    good = calls.problem.x.shape
    for value, kind in (
        ((9, *good[1:]), ValueError),
        ((good[0], 9, *good[2:]), ValueError),
        ((*good[:3], 9), ValueError),
        (good[:3], ValueError),
        ((*good, 1), ValueError),
        ((1,) * 9, ValueError),
        (5, TypeError),
        ((2, 3, 4, "5"), TypeError),
    ):
        raises(kind, "backward_data: x_shape", calls.call, "backward_data", x_shape=value)
        calls.untouched()
    calls.next_call_works()


@case
def weight_outputs() -> None:
    calls = Calls()
    p = calls.problem
    dalpha, dc = np.full_like(p.alpha, MARK), np.full_like(p.c, MARK)
    for out, kind in (
        (dalpha, TypeError),
        (5, TypeError),
        ((), ValueError),
        ((dalpha,), ValueError),
        ((dalpha, dc, dc), ValueError),
        ((dc, dalpha), ValueError),
        ((dalpha, None), TypeError),
        ((None, dc), TypeError),
    ):
        raises(kind, "backward_weight: ", leancore.backward_weight, p.x, p.dy, out=out)  # type: ignore[type-var]
        assert (dalpha == MARK).all()
        assert (dc == MARK).all()
    calls.next_call_works()


@case
def combined_outputs() -> None:
    calls = Calls()
    p = calls.problem
    inputs = (p.x, p.dy, p.alpha, p.c)
    dx, dalpha, dc = outputs = [np.full_like(a, MARK) for a in (p.x, p.alpha, p.c)]
    for out, kind in (
        (dx, TypeError),
        (5, TypeError),
        ((), ValueError),
        ((dx, dalpha), ValueError),
        ((dx, dalpha, dc, dc), ValueError),
        ((dalpha, dx, dc), ValueError),
        ((dx, dc, dalpha), ValueError),
        ((None, dalpha, dc), TypeError),
        ((dx, None, dc), TypeError),
        ((dx, dalpha, None), TypeError),
    ):
        raises(kind, "backward: ", leancore.backward, *inputs, out=out)
        assert all((a == MARK).all() for a in outputs)
    calls.next_call_works()


# ---- lifetime


@case
def inputs_stay_alive_until_the_call_ends() -> None:
    from leancore import _core

    calls = Calls()
    p = calls.problem
    arrays = [Producer(a.copy()) for a in (p.x, p.alpha, p.c, p.bias)]
    seen = []

    def allocate(shape: tuple[int, ...]) -> np.ndarray:
        gc.collect()
        seen.append([a.deleted for a in arrays])
        return np.empty(shape, np.float32)

    y = _core.forward(*arrays, None, allocate)
    assert seen == [[0, 0, 0, 0]]
    assert [a.deleted for a in arrays] == [1, 1, 1, 1]
    assert (y == p.y()).all()


@case
def allocator_misbehaves() -> None:
    from leancore import _core

    calls = Calls()
    p = calls.problem
    for allocate, kind in (
        (lambda shape: None, TypeError),
        (lambda shape: np.empty((1, *shape), np.float32), ValueError),
        (lambda shape: np.empty(shape, np.float64), TypeError),
        (lambda shape: p.dy.copy()[..., :1] * np.ones(1, "f"), ValueError),
        (lambda shape: 1 / 0, ZeroDivisionError),
        (None, TypeError),
        (3, TypeError),
    ):
        arrays = [Producer(a) for a in (p.x, p.alpha, p.c)]
        raises(kind, "", _core.forward, *arrays, None, None, allocate)
        assert [a.deleted for a in arrays] == [1, 1, 1]
    calls.next_call_works()


@case
def unknown_implementation() -> None:
    from leancore import _core

    calls = Calls()
    p = calls.problem
    out = np.full_like(p.dy, MARK)
    raises(TypeError, "", _core.forward, p.x, p.alpha, p.c, None, out, None, 1, 1, 3)
    raises(RuntimeError, "no_such", _core.forward, p.x, p.alpha, p.c, None, out, None, 1, 1, "no_such")
    assert (out == MARK).all()
    calls.next_call_works()


if __name__ == "__main__":
    CASES[sys.argv[1]]()
    print("passed")
