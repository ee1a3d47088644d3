"""The shift on arrays of any framework, against its definition; tests/cpp/test_shift.cpp has layouts and memory."""

from __future__ import annotations

import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import leancore
from helpers import DTYPES

SPATIAL = [(7,), (1,), (5, 6), (2, 1), (3, 4, 5), (2, 3, 2, 4)]


def definition(x: np.ndarray, offsets: Any = None) -> np.ndarray:
    dims = x.ndim - 2
    groups = list(itertools.product((-1, 0, 1), repeat=dims)) if offsets is None else offsets
    y = np.zeros_like(x)
    for channels, offset in zip(np.array_split(np.arange(x.shape[1]), len(groups)), groups, strict=True):
        for p in np.ndindex(*x.shape[2:]):
            q = tuple(i + o for i, o in zip(p, offset, strict=True))
            if all(0 <= i < n for i, n in zip(q, x.shape[2:], strict=True)):
                y[(slice(None), channels, *q)] = x[(slice(None), channels, *p)]
    return y


def numbers(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).integers(-9, 10, shape).astype(dtype)


@pytest.mark.parametrize("spatial", SPATIAL)
@pytest.mark.parametrize("channels", [1, 4, 9, 10, 83])
def test_all_neighbours_by_default(spatial: tuple[int, ...], channels: int) -> None:
    x = numbers(2, channels, *spatial)
    np.testing.assert_array_equal(leancore.shift(x), definition(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_and_layouts(dtype: Any) -> None:
    x = numbers(2, 20, 5, 6, dtype=dtype)
    expected = definition(x)
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for same in (
        np.moveaxis(last, -1, 1),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=3)[..., ::2],
        x[:, :, ::-1].copy()[:, :, ::-1],
    ):
        result = leancore.shift(same)
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)
        out = np.full((2, 20, 5, 12), 7, dtype)
        assert leancore.shift(same, out=out[..., ::2]).base is out
        np.testing.assert_array_equal(out[..., ::2], expected)
        assert (out[..., 1::2] == 7).all()
    assert np.moveaxis(leancore.shift(np.moveaxis(last, -1, 1)), 1, -1).flags.c_contiguous


@pytest.mark.parametrize(
    "offsets",
    [[(1, 0)], [(0, 0)], ((0, 1), (2, -3)), [[5, 0], [0, -6], [0, 0]], np.array([[1, -1], [0, 2]]), [(1, 1)] * 30],
)
def test_offsets_of_ones_own(offsets: Any) -> None:
    x = numbers(2, 11, 5, 6)
    np.testing.assert_array_equal(leancore.shift(x, offsets), definition(x, offsets))


def test_the_adjoint_is_the_opposite_shift() -> None:
    offsets = [(1, -1), (0, 2), (-1, 0)]
    x, dy = numbers(3, 7, 5, 6, dtype=np.float64), numbers(3, 7, 5, 6, dtype=np.float64)[::-1]
    dx = leancore.shift(dy, [(-a, -b) for a, b in offsets])
    assert (leancore.shift(x, offsets) * dy).sum() == (x * dx).sum()


def test_bits_are_kept() -> None:
    x = np.array([[[-0.0, np.nan, np.inf, 1e-45]]], np.float32)
    x.view(np.uint32)[0, 0, 1] |= 0x1234
    moved = leancore.shift(x, [(1,)])
    assert moved.view(np.uint32).tolist() == [[[0, *x.view(np.uint32)[0, 0, :3].tolist()]]]


def test_nothing_to_move() -> None:
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0), (2, 3, 4, 0)):
        assert leancore.shift(np.empty(shape, np.float32)).shape == shape


def test_other_frameworks() -> None:
    jnp, torch = pytest.importorskip("jax.numpy"), pytest.importorskip("torch")
    x = numbers(2, 20, 5, 6)
    assert (np.asarray(leancore.shift(jnp.asarray(x))) == definition(x)).all()
    y = leancore.shift(torch.from_numpy(x).to(torch.bfloat16).to(memory_format=torch.channels_last))
    assert y.dtype == torch.bfloat16
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert (y.float().numpy() == definition(x)).all()
    bf16 = leancore.shift(x.astype(ml_dtypes.bfloat16))
    assert bf16.dtype == ml_dtypes.bfloat16


def read_only(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


GOOD = numbers(2, 9, 4, 5)
FOLDED = np.lib.stride_tricks.as_strided(GOOD.copy(), GOOD.shape, (4, 4, 4, 4))
BAD: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    (TypeError, "x has dtype", (GOOD.astype(np.int32),), {}),
    (TypeError, "x has dtype", (GOOD.astype(np.complex64),), {}),
    (TypeError, "x", ([1.0],), {}),
    (TypeError, "x", (None,), {}),
    (ValueError, r"x has shape \(2, 9\), expected 3 to 6 axes", (GOOD[:, :, 0, 0],), {}),
    (ValueError, "offsets is empty", (GOOD, []), {}),
    (ValueError, "entry 1 of offsets has 1 numbers, expected 2", (GOOD, [(0, 0), (1,)]), {}),
    (ValueError, "offsets has 5 entries", (GOOD, [(0, 0, 0, 0, 0)]), {}),
    (TypeError, "offsets is neither", (GOOD, [1, 2]), {}),
    (TypeError, "offsets is neither", (GOOD, 1), {}),
    (TypeError, "offsets is neither", (GOOD, [(0.5, 1)]), {}),
    (OverflowError, "int", (GOOD, [(2**63, 1)]), {}),
    (ValueError, r"out \(y\) has shape", (GOOD,), {"out": np.empty((2, 9, 4, 6), np.float32)}),
    (TypeError, r"out \(y\) is float64", (GOOD,), {"out": np.empty((2, 9, 4, 5))}),
    (BufferError, r"out \(y\) is read-only", (GOOD,), {"out": read_only(GOOD)}),
    (ValueError, "output y overlaps input x", (GOOD,), {"out": GOOD}),
    (
        ValueError,
        "several elements",
        (GOOD,),
        {"out": FOLDED},
    ),
]


@pytest.mark.parametrize(("kind", "text", "args", "options"), BAD, ids=range(len(BAD)))
def test_what_does_not_fit_is_refused(
    kind: type[Exception], text: str, args: tuple[Any, ...], options: dict[str, Any]
) -> None:
    before = GOOD.copy()
    out = options.get("out")
    old = None if out is None else out.tobytes()
    with pytest.raises(kind, match=text) as caught:
        leancore.shift(*args, **options)
    if kind is not OverflowError:
        assert "shift" in str(caught.value)
    assert (before == GOOD).all()
    assert old is None or out.tobytes() == old
    assert leancore.shift(GOOD).shape == GOOD.shape


def test_tensors_that_would_lose_something_are_refused() -> None:
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    x = torch.from_numpy(GOOD.copy())
    with pytest.raises(BufferError, match="shift: x requires grad"):
        leancore.shift(x.clone().requires_grad_())
    with pytest.raises(TypeError, match="shift: x is a"):
        leancore.shift(x.to("meta"))
    with pytest.raises(BufferError, match="immutable"):
        leancore.shift(GOOD, out=jnp.asarray(GOOD))
