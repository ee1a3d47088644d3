"""The operators written in stock operators of torch, for programs that must run without leancore."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from leancore.torch import operators, shapes


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The table that turns the operators of leancore into stock operators of torch.

    It is for `ExportedProgram.run_decompositions` and the `decomposition_table` of `make_fx`. A program decomposed with
    it has no operator of leancore left: it runs, and is lowered further, where leancore is not installed. In 1-D to 3-D
    a forward becomes a 1x1 convolution plus a depthwise one; torch has no 4-D convolution, so there the stencil becomes
    a sum of shifted copies.
    """
    return {
        operators.forward: forward,
        operators.backward_data: backward_data,
        operators.backward_weight: backward_weight,
        operators.shift: shift,
    }


def forward(
    x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """What `torch.ops.leancore.forward` computes."""
    shapes.shape_of_y(x, alpha, c, bias, stride, dilation)
    dims, m, c_out = x.dim() - 2, c.shape[0], alpha.shape[0]
    conv = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}.get(dims)
    if conv is not None:
        y = conv(x, alpha.view(*alpha.shape, *[1] * dims), bias, stride)
        cross = conv(x[:, :m], _cross(c, dims), None, stride, dilation, dilation, m)
    else:
        y = torch.einsum("oi,ni...->no...", alpha, _centre(x, stride))
        if bias is not None:
            y = y + _per_channel(bias, dims)
        terms = zip(c.unbind(1), _neighbours(x[:, :m], stride, dilation), strict=True)
        cross = torch.stack([_per_channel(column, dims) * neighbour for column, neighbour in terms]).sum(0)
    return y + F.pad(cross, (*[0, 0] * dims, 0, c_out - m))


def backward_data(
    dy: Tensor, alpha: Tensor, c: Tensor, x_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """What `torch.ops.leancore.backward_data` computes: the operator itself, transposed and with the taps reversed."""
    shapes.check_backward_data(dy, alpha, c, x_shape, stride, dilation)
    return forward(_spread(dy, x_shape[2:], stride), alpha.t(), c.flip(1), None, [1] * (dy.dim() - 2), dilation)


def backward_weight(x: Tensor, dy: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> tuple[Tensor, Tensor]:
    """What `torch.ops.leancore.backward_weight` computes."""
    shapes.shapes_of_weights(x, dy, stride, dilation)
    m = min(x.shape[1], dy.shape[1])
    dalpha = torch.einsum("nop,nip->oi", dy.flatten(2), _centre(x, stride).flatten(2))
    neighbours = _neighbours(x[:, :m], stride, dilation)
    dc = [(dy[:, :m] * neighbour).flatten(2).sum((0, 2)) for neighbour in neighbours]
    return dalpha, torch.stack(dc, 1)


def shift(x: Tensor, offsets: Sequence[int]) -> Tensor:
    """What `torch.ops.leancore.shift` computes: the groups padded or cropped at each side, joined again."""
    shapes.check_offsets(x, offsets)
    dims = x.dim() - 2
    groups = zip(*[iter(offsets)] * dims, strict=True)
    count, channels = len(offsets) // dims, x.shape[1]
    parts, begin = [], 0
    for g, offset in enumerate(groups):
        end = begin + channels // count + (g < channels % count)
        # The last axis comes first; beyond the extent an offset moves everything out.
        sides = [side for o, n in zip(reversed(offset), reversed(x.shape[2:]), strict=True) for side in _sides(o, n)]
        parts.append(F.pad(x[:, begin:end], sides))
        begin = end
    return torch.cat(parts, 1)


def _shift_on_cuda(x: Tensor, offsets: Sequence[int]) -> Tensor:
    return shapes.empty_in_layout_of(x, x.shape).copy_(shift(x, offsets))


# There is no kernel of our own for CUDA.
operators.library.impl("shift", _shift_on_cuda, "CUDA")  # type: ignore[no-untyped-call]


def _sides(offset: int, extent: int) -> tuple[int, int]:
    moved = max(-extent, min(offset, extent))
    return moved, -moved


def _cross(c: Tensor, dims: int) -> Tensor:
    """The stencil as the kernels of a depthwise convolution."""
    taps = sorted(3**dims // 2 + sign * 3**axis for axis in range(dims) for sign in (-1, 1))
    columns, filled = [], 0
    for k, tap in enumerate(taps):
        columns += [c.new_zeros(c.shape[0], tap - filled), c[:, k : k + 1]]
        filled = tap + 1
    columns.append(c.new_zeros(c.shape[0], 3**dims - filled))
    return torch.cat(columns, 1).view(c.shape[0], 1, *[3] * dims)


def _per_channel(t: Tensor, dims: int) -> Tensor:
    return t.view(-1, *[1] * dims)


def _centre(x: Tensor, stride: Sequence[int]) -> Tensor:
    """x at the positions of y."""
    for axis, s in enumerate(stride, 2):
        x = x[(slice(None),) * axis + (slice(None, None, s),)]
    return x


def _neighbours(x: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> Iterator[Tensor]:
    """For each column of c, the values of x that it multiplies at the positions of y."""
    padded = F.pad(x, [d for d in reversed(dilation) for _ in range(2)])
    dims = len(dilation)
    for k in range(2 * dims):
        shifted = padded
        for axis in range(dims):
            offset = -1 if axis == k else 1 if axis == 2 * dims - 1 - k else 0
            start = dilation[axis] * (1 + offset)
            shifted = shifted.narrow(axis + 2, start, x.shape[axis + 2])
        yield _centre(shifted, stride)


def _spread(dy: Tensor, spatial: Sequence[int], stride: Sequence[int]) -> Tensor:
    """The adjoint of _centre: dy at the positions that it belongs to, zeros between them."""
    for axis, (n, s) in enumerate(zip(spatial, stride, strict=True), 2):
        if s > 1:
            apart = F.pad(dy.unsqueeze(axis + 1), [0, 0] * (dy.dim() - axis - 1) + [0, s - 1])
            dy = apart.flatten(axis, axis + 1).narrow(axis, 0, n)
    return dy
