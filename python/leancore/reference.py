"""The definition of the operator in NumPy: float64, any number of spatial dimensions, no thought of speed.

Shapes, with m = min(c_in, c_out) and d spatial dimensions: x (N, c_in, *spatial), alpha (c_out, c_in), c (m, 2d),
bias (c_out,), y (N, c_out, *spatial of y). ``stride`` and ``dilation`` are an int or one int for each dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Extents = int | Sequence[int]


def _per_axis(value: Extents, dims: int) -> list[int]:
    return [int(v) for v in np.broadcast_to(value, (dims,))]


def _taps(dims: int, dilation: list[int]) -> Iterator[tuple[int, int]]:
    """(axis, offset) for each column of c: -1 taps from the outermost axis in, +1 taps from the innermost out."""
    for axis in range(dims):
        yield axis, -dilation[axis]
    for axis in reversed(range(dims)):
        yield axis, dilation[axis]


def _every(steps: list[int]) -> tuple[slice, ...]:
    """Index of the positions of x at which y is computed."""
    return (slice(None), slice(None), *(slice(None, None, s) for s in steps))


def _overlap(extents: Sequence[int], axis: int, offset: int, stride: list[int]) -> tuple[Any, Any]:
    """Indices (into y, into x) of the pairs (p, p + offset) along ``axis`` that lie inside x; p at every stride-th."""
    y_index: list[Any] = [slice(None)] * 2
    x_index: list[Any] = [slice(None)] * 2
    for a, extent in enumerate(extents):
        shift = offset if a == axis else 0
        positions = np.arange(0, extent, stride[a])
        inside = np.flatnonzero((positions + shift >= 0) & (positions + shift < extent))
        y_index.append(slice(inside[0], inside[-1] + 1) if inside.size else slice(0, 0))
        source = positions[inside] + shift
        x_index.append(slice(source[0], source[-1] + 1, stride[a]) if inside.size else slice(0, 0))
    return tuple(y_index), tuple(x_index)


def forward(
    x: ArrayLike,
    alpha: ArrayLike,
    c: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Extents = 1,
    dilation: Extents = 1,
) -> NDArray[np.float64]:
    """y, in float64."""
    x, alpha, c = (np.asarray(a, np.float64) for a in (x, alpha, c))
    extents, m = x.shape[2:], min(alpha.shape)
    steps, gaps = _per_axis(stride, len(extents)), _per_axis(dilation, len(extents))
    at_outputs = x[_every(steps)]
    y: NDArray[np.float64] = np.einsum("oi,ni...->no...", alpha, at_outputs)
    for k, (axis, offset) in enumerate(_taps(len(extents), gaps)):
        to, at = _overlap(extents, axis, offset, steps)
        y[:, :m][to] += c[:, k].reshape(-1, *[1] * len(extents)) * x[:, :m][at]
    return y if bias is None else y + np.asarray(bias, np.float64).reshape(-1, *[1] * len(extents))


def backward_data(
    dy: ArrayLike,
    alpha: ArrayLike,
    c: ArrayLike,
    stride: Extents = 1,
    dilation: Extents = 1,
    x_shape: Sequence[int] | None = None,
) -> NDArray[np.float64]:
    """dx, in float64: the adjoint of forward in x. Without ``x_shape`` the extents are those of dy times the stride."""
    dy, alpha, c = (np.asarray(a, np.float64) for a in (dy, alpha, c))
    dims, m = dy.ndim - 2, min(alpha.shape)
    steps, gaps = _per_axis(stride, dims), _per_axis(dilation, dims)
    extents = [n * s for n, s in zip(dy.shape[2:], steps, strict=True)] if x_shape is None else list(x_shape[2:])
    dx = np.zeros((dy.shape[0], alpha.shape[1], *extents))
    dx[_every(steps)] = np.einsum("oi,no...->ni...", alpha, dy)
    for k, (axis, offset) in enumerate(_taps(dims, gaps)):
        to, at = _overlap(extents, axis, offset, steps)
        dx[:, :m][at] += c[:, k].reshape(-1, *[1] * dims) * dy[:, :m][to]
    return dx


def backward_weight(
    x: ArrayLike, dy: ArrayLike, stride: Extents = 1, dilation: Extents = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(dalpha, dc), in float64."""
    x, dy = np.asarray(x, np.float64), np.asarray(dy, np.float64)
    extents, m = x.shape[2:], min(x.shape[1], dy.shape[1])
    steps, gaps = _per_axis(stride, len(extents)), _per_axis(dilation, len(extents))
    at_outputs = x[_every(steps)]
    dc, summed = np.zeros((m, 2 * len(extents))), (0, *range(2, x.ndim))
    for k, (axis, offset) in enumerate(_taps(len(extents), gaps)):
        to, at = _overlap(extents, axis, offset, steps)
        dc[:, k] = (dy[:, :m][to] * x[:, :m][at]).sum(axis=summed)
    return np.tensordot(dy, at_outputs, axes=(summed, summed)), dc


def backward(
    x: ArrayLike, dy: ArrayLike, alpha: ArrayLike, c: ArrayLike, stride: Extents = 1, dilation: Extents = 1
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """(dx, dalpha, dc), in float64."""
    dx = backward_data(dy, alpha, c, stride, dilation, np.shape(x))
    return (dx, *backward_weight(x, dy, stride, dilation))
