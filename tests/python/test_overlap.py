"""Outputs that share memory with anything, or that may not be written: an exception, and nothing is touched."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leancore
from helpers import HALVES, Producer, integer_problem


def arena(*shapes: tuple[int, ...], gap: int = 0, dtype: Any = np.float32) -> list[np.ndarray]:
    """Arrays one behind the other in one buffer, ``gap`` elements apart; a negative gap makes neighbours overlap."""
    sizes = [int(np.prod(s)) for s in shapes]
    starts = list(itertools.accumulate((size + gap for size in sizes[:-1]), initial=0))
    memory = np.zeros(starts[-1] + sizes[-1], dtype)
    return [memory[i : i + n].reshape(s) for i, n, s in zip(starts, sizes, shapes, strict=True)]


def must_raise(call: Callable[[], Any], *arrays: np.ndarray) -> None:
    before = [a.copy() for a in arrays]
    with pytest.raises(ValueError, match=r"overlap|several elements at one address"):
        call()
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


X, ALPHA, C, BIAS, Y = (2, 4, 5, 6), (4, 4), (4, 4), (4,), (2, 4, 5, 6)


@pytest.mark.parametrize("gap", [-1, 0])
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("out_first", [False, True])
def test_forward_out_against_each_input(which: int, gap: int, out_first: bool) -> None:
    inputs = [np.ones(s, np.float32) for s in (X, ALPHA, C, BIAS)]
    shapes = (inputs[which].shape, Y)
    pair = arena(*(reversed(shapes) if out_first else shapes), gap=gap)
    inputs[which], out = reversed(pair) if out_first else pair

    def call() -> Any:
        return leancore.forward(inputs[0], inputs[1], inputs[2], bias=inputs[3], out=out)

    if gap < 0:
        must_raise(call, inputs[which], out)
    else:
        assert call() is out


@pytest.mark.parametrize("gap", [-1, 0])
@pytest.mark.parametrize("which", range(3))
def test_backward_data_out_against_each_input(which: int, gap: int) -> None:
    inputs = [np.ones(s, np.float32) for s in (Y, ALPHA, C)]
    inputs[which], out = arena(inputs[which].shape, X, gap=gap)

    def call() -> Any:
        return leancore.backward_data(*inputs, out=out)

    if gap < 0:
        must_raise(call, inputs[which], out)
    else:
        assert call() is out


@pytest.mark.parametrize("gap", [-1, 0])
def test_backward_weight_outputs_against_inputs_and_each_other(gap: int) -> None:
    for one, other in itertools.permutations(range(4), 2):
        if {one, other} == {0, 1}:
            continue  # inputs may overlap
        arrays = [np.ones(s, np.float32) for s in (X, Y, ALPHA, C)]
        arrays[one], arrays[other] = arena(arrays[one].shape, arrays[other].shape, gap=gap)
        x, dy, dalpha, dc = arrays

        def call(x: Any = x, dy: Any = dy, out: Any = (dalpha, dc)) -> Any:
            return leancore.backward_weight(x, dy, out=out)

        if gap < 0:
            must_raise(call, *arrays)
        else:
            got = call()
            assert got[0] is dalpha
            assert got[1] is dc


@pytest.mark.parametrize("gap", [-1, 0])
@pytest.mark.parametrize("dtype", [np.float32, *HALVES])
def test_backward_outputs_against_inputs_and_each_other(gap: int, dtype: Any) -> None:
    for one, other in itertools.permutations(range(7), 2):
        if one < 4 and other < 4:
            continue  # inputs may overlap
        arrays = [np.ones(s, dtype) for s in (X, Y, ALPHA, C, X, ALPHA, C)]
        arrays[one], arrays[other] = arena(arrays[one].shape, arrays[other].shape, gap=gap, dtype=dtype)

        def call(inputs: Any = arrays[:4], out: Any = tuple(arrays[4:])) -> Any:
            return leancore.backward(*inputs, out=out)

        if gap < 0:
            must_raise(call, *arrays)
        else:
            assert all(a is b for a, b in zip(call(), arrays[4:], strict=True))


def test_out_is_an_input() -> None:
    x, alpha, c = np.ones(X, "f"), np.ones(ALPHA, "f"), np.ones(C, "f")
    must_raise(lambda: leancore.forward(x, alpha, c, out=x), x)
    must_raise(lambda: leancore.forward(x, alpha, c, out=x[::-1]), x)
    must_raise(lambda: leancore.backward_data(x, alpha, c, out=x), x)
    must_raise(lambda: leancore.backward_weight(x, x, out=(alpha, alpha)), alpha)
    must_raise(lambda: leancore.backward_weight(x, x, out=(alpha, alpha.T)), alpha)
    dx, dalpha, dc = np.ones(X, "f"), np.ones(ALPHA, "f"), np.ones(C, "f")
    for out in ((x, dalpha, dc), (dx, alpha, dc), (dx, dalpha, c), (dx, dalpha, dalpha), (dx, dx[0, 0, :4, :4], dc)):
        must_raise(lambda out=out: leancore.backward(x, x, alpha, c, out=out), x, alpha, c, *out)


def test_inputs_may_overlap_each_other() -> None:
    p = integer_problem(2, 4, 4, (5, 6))
    dalpha, _ = leancore.backward_weight(p.x, p.x)
    assert np.array_equal(dalpha, dalpha.T)


@pytest.mark.parametrize(
    "strides", [(0, 30, 6, 1), (120, 0, 6, 1), (120, 30, 0, 1), (120, 30, 6, 0), (120, 30, 5, 1), (0,) * 4]
)
def test_out_that_overlaps_itself(strides: tuple[int, ...]) -> None:
    x, alpha, c = np.ones(X, "f"), np.ones(ALPHA, "f"), np.ones(C, "f")
    memory = np.zeros(X, "f")
    itself = np.lib.stride_tricks.as_strided(memory, X, [4 * s for s in strides])
    must_raise(lambda: leancore.forward(x, alpha, c, out=itself), memory)
    must_raise(lambda: leancore.backward_data(x, alpha, c, out=itself), memory)


def test_weight_gradient_that_overlaps_itself() -> None:
    x, memory, other = np.ones(X, "f"), np.zeros(16, "f"), np.zeros((4, 4), "f")
    for strides in ((0, 4), (4, 0), (4, 4), (8, 4)):
        itself = np.lib.stride_tricks.as_strided(memory, (4, 4), strides)
        must_raise(lambda itself=itself: leancore.backward_weight(x, x, out=(itself, other)), memory, other)
        must_raise(lambda itself=itself: leancore.backward_weight(x, x, out=(other, itself)), memory, other)


def test_strides_where_nothing_can_be_walked_do_not_overlap() -> None:
    x, alpha, c = np.ones((1, 1, 1, 6), "f"), np.ones((1, 1), "f"), np.zeros((1, 4), "f")
    out = np.lib.stride_tricks.as_strided(np.zeros(6, "f"), (1, 1, 1, 6), (0, 0, 0, 4))
    leancore.forward(x, alpha, c, out=out)
    assert (out == 1).all()


def test_interleaved_arrays_do_not_overlap() -> None:
    """x and y share every cache line and no element."""
    p = integer_problem(2, 4, 4, (5, 6))
    both = np.zeros((*X[:-1], 12), "f")
    x, y = both[..., ::2], both[..., 1::2]
    x[...] = p.x
    assert np.array_equal(leancore.forward(x, p.alpha, p.c, bias=p.bias, out=y), p.y())
    assert np.array_equal(x, p.x)


def elements(array: np.ndarray) -> set[int]:
    offsets = sum(np.indices(array.shape)[a] * array.strides[a] for a in range(array.ndim))
    return set((array.__array_interface__["data"][0] + offsets).ravel().tolist())


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_random_windows_raise_exactly_when_they_share_an_element(data: st.DataObject) -> None:
    """Windows with steps into one buffer: NumPy enumerates their elements, leancore must come to the same verdict."""
    memory = np.zeros((4, 5, 7, 8), np.float32)

    def window() -> np.ndarray:
        index = []
        for extent, wanted in zip(memory.shape, (1, 2, 2, 3), strict=True):
            step = data.draw(st.integers(1, (extent - 1) // (wanted - 1) if wanted > 1 else 1))
            start = data.draw(st.integers(0, extent - 1 - step * (wanted - 1)))
            index.append(slice(start, start + step * (wanted - 1) + 1, step))
        view = memory[tuple(index)]
        return view[..., ::-1] if data.draw(st.booleans()) else view

    x, out = window(), window()
    assert x.shape == out.shape == (1, 2, 2, 3)
    alpha, c = np.ones((2, 2), "f"), np.ones((2, 4), "f")
    if elements(x) & elements(out):
        must_raise(lambda: leancore.forward(x, alpha, c, out=out), memory)
    else:
        leancore.forward(x, alpha, c, out=out)


# ---- not writable, not of one type


def test_read_only_outputs() -> None:
    x, alpha, c = np.ones(X, "f"), np.ones(ALPHA, "f"), np.ones(C, "f")
    out = np.full(X, 7, "f")
    out.flags.writeable = False
    weights = (np.full(ALPHA, 7, "f"), np.full(C, 7, "f"))
    weights[1].flags.writeable = False
    with pytest.raises(BufferError, match=r"forward: out.*read-only"):
        leancore.forward(x, alpha, c, out=out)
    with pytest.raises(BufferError, match=r"forward: out.*read-only"):
        leancore.forward(x, alpha, c, out=Producer(np.full(X, 7, "f"), flags=1))
    with pytest.raises(BufferError, match=r"backward_data: out.*read-only"):
        leancore.backward_data(x, alpha, c, out=out)
    with pytest.raises(BufferError, match=r"backward_weight: out.*dc.*read-only"):
        leancore.backward_weight(x, x, out=weights)
    with pytest.raises(BufferError, match=r"backward: out.*dc.*read-only"):
        leancore.backward(x, x, alpha, c, out=(np.full(X, 7, "f"), *weights))
    with pytest.raises(BufferError, match=r"backward: out.*dx.*read-only"):
        leancore.backward(x, x, alpha, c, out=(out, np.full(ALPHA, 7, "f"), np.full(C, 7, "f")))
    assert all((a == 7).all() for a in (out, *weights))


def test_mixed_dtypes() -> None:
    single = [np.ones(s, np.float32) for s in (X, ALPHA, C, BIAS, Y)]
    for which in range(5):
        x, alpha, c, bias, out = (a.astype(np.float64) if i == which else a for i, a in enumerate(single))
        with pytest.raises(TypeError, match=r"forward: .*float(32|64)"):
            leancore.forward(x, alpha, c, bias=bias, out=out)
    x, double = single[0], single[0].astype(np.float64)
    with pytest.raises(TypeError, match=r"backward_data: .*float64"):
        leancore.backward_data(double, single[1], single[2])
    with pytest.raises(TypeError, match=r"backward_weight: .*float64"):
        leancore.backward_weight(x, double)
    with pytest.raises(TypeError, match=r"backward_weight: .*float64"):
        leancore.backward_weight(x, x, out=(single[1], single[2].astype(np.float64)))
    for dtype in HALVES:
        low = x.astype(dtype)
        with pytest.raises(TypeError, match=r"backward: .*float16"):
            leancore.backward(x, low, single[1], single[2])
        with pytest.raises(TypeError, match=r"forward: .*float16"):
            leancore.forward(low, single[1], single[2])
