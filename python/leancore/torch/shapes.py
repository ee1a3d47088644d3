"""Shapes and memory layouts of results: one rule each, for tensors with and without data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def shape_of_y(
    x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """(N, c_out, *spatial of y). ValueError, naming the argument, where the shapes do not fit together."""
    shape = x.shape
    dims = len(shape) - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"forward: x has shape {tuple(shape)}, expected (N, c_in, 1 to 4 spatial axes)")
    c_out = _check_weights("forward", alpha, c, shape[1], dims, shape)
    if bias is not None and bias.shape != (c_out,):
        raise ValueError(f"forward: bias has shape {tuple(bias.shape)}, expected (c_out,) = ({c_out},)")
    check_geometry("forward", dims, stride, dilation)
    return (shape[0], c_out, *extents_of_y(shape[2:], stride))


def _check_weights(function: str, alpha: Tensor, c: Tensor, c_in: int, dims: int, x_shape: Sequence[int]) -> int:
    """c_out."""
    if alpha.dim() != 2 or alpha.shape[1] != c_in:
        raise ValueError(
            f"{function}: alpha has shape {tuple(alpha.shape)}, expected (c_out, c_in) = (·, {c_in}) from x of shape "
            f"{tuple(x_shape)}"
        )
    stencil = (min(c_in, alpha.shape[0]), 2 * dims)
    if c.shape != stencil:
        raise ValueError(f"{function}: c has shape {tuple(c.shape)}, expected (min(c_in, c_out), 2 dims) = {stencil}")
    return alpha.shape[0]


def check_backward_data(
    dy: Tensor, alpha: Tensor, c: Tensor, x_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> None:
    """ValueError, naming the argument, where the shapes do not fit together."""
    dims = len(x_shape) - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"backward_data: x_shape is {tuple(x_shape)}, expected (N, c_in, 1 to 4 spatial axes)")
    c_out = _check_weights("backward_data", alpha, c, x_shape[1], dims, x_shape)
    check_geometry("backward_data", dims, stride, dilation)
    _check_dy("backward_data", dy, (x_shape[0], c_out, *extents_of_y(x_shape[2:], stride)))


def shapes_of_weights(
    x: Tensor, dy: Tensor, stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(c_out, c_in) and (min(c_in, c_out), 2 dims). ValueError where the shapes do not fit together."""
    dims = x.dim() - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"backward_weight: x has shape {tuple(x.shape)}, expected (N, c_in, 1 to 4 spatial axes)")
    check_geometry("backward_weight", dims, stride, dilation)
    c_out = dy.shape[1] if dy.dim() > 1 else 0
    _check_dy("backward_weight", dy, (x.shape[0], c_out, *extents_of_y(x.shape[2:], stride)))
    c_in = x.shape[1]
    return (c_out, c_in), (min(c_in, c_out), 2 * dims)


def check_offsets(x: Tensor, offsets: Sequence[int]) -> None:
    """ValueError unless x has spatial axes, and offsets are some for each of them, one after the other."""
    dims = x.dim() - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"shift: x has shape {tuple(x.shape)}, expected (N, c, 1 to 4 spatial axes)")
    if len(offsets) == 0 or len(offsets) % dims != 0:
        raise ValueError(f"shift: there are {len(offsets)} numbers in offsets, expected a multiple of {dims}")


def extents_of_y(spatial: Sequence[int], stride: Sequence[int]) -> list[int]:
    """Those of a 3-wide convolution with padding = dilation; 0 where x has 0."""
    return [(n - 1) // s + 1 for n, s in zip(spatial, stride, strict=True)]


def check_geometry(function: str, dims: int, stride: Sequence[int], dilation: Sequence[int]) -> None:
    for name, values in (("stride", stride), ("dilation", dilation)):
        if len(values) != dims or min(values) < 1:
            raise ValueError(f"{function}: {name} is {tuple(values)}, expected {dims} positive numbers")


def _check_dy(function: str, dy: Tensor, expected: tuple[int, ...]) -> None:
    if dy.shape != expected:
        raise ValueError(f"{function}: dy has shape {tuple(dy.shape)}, expected that of y = {expected}")


def empty_in_layout_of(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Uninitialised and dense: channels-last where the channels of `like` are adjacent in memory, else contiguous.

    The rule asks little of the strides, so that it is decided where a compiler does not know all sizes.
    """
    if like.stride(1) != 1 or like.shape[1] == 1 or all(n == 1 for n in like.shape[2:]):
        return torch.empty(tuple(shape), dtype=like.dtype, device=like.device)
    order = (0, *range(2, len(shape)), 1)
    return torch.empty_permuted(tuple(shape), order, dtype=like.dtype, device=like.device)
