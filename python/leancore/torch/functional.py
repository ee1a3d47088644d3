"""The lean convolution and the shift as functions of torch tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from leancore.torch import checks, derivatives, operators


def lean_conv(
    x: Tensor,
    alpha: Tensor,
    c: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Full 1x1 convolution plus depthwise cross stencil, added, in one pass.

    With m = min(c_in, c_out) and d spatial dimensions (1 to 4):

    Args:
        x: (N, c_in, *spatial), any strides.
        alpha: (c_out, c_in), the 1x1 convolution.
        c: (m, 2 d), the stencil. Its columns are the -1 taps from the outermost axis in, then the +1 taps from the
            innermost out (2-D: up, left, right, down). The centre belongs to alpha.
        bias: (c_out,) or None.
        stride: of the output, one number or one for each spatial axis.
        dilation: distance of the taps, one number or one for each spatial axis.

    Returns:
        y: (N, c_out, *spatial), of the spatial size of a 3-wide convolution with padding = dilation; at stride 1 that
        of x. A neighbour outside x counts as zero. y is channels-last where the channels of x are adjacent in memory,
        contiguous otherwise.

    All tensors are of one dtype: float32, float64, bfloat16 or float16. Reverse mode, forward mode and vmap work
    to any order, and so do torch.compile, torch.export, autocast and meta tensors: see docs/torch.md.

    Raises:
        TypeError: an argument is not a plain, dense floating-point tensor, or the dtypes differ.
        ValueError: shapes, stride, dilation or devices that do not fit.
        RuntimeError: x is on a CUDA device that leancore cannot use.
    """
    if has_torch_function_variadic(x, alpha, c, bias):
        return handle_torch_function(
            lean_conv, (x, alpha, c, bias), x, alpha, c, bias, stride=stride, dilation=dilation
        )
    checks.check_kinds(x, alpha, c, bias)
    device_type = "cpu" if x.is_cpu else "cuda" if x.is_cuda else None
    if device_type is not None and torch.is_autocast_enabled(device_type):
        x, alpha, c, bias = operators.autocast(device_type, x, alpha, c, bias)
    checks.check_alike(x, alpha, c, bias)
    dims = x.dim() - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"lean_conv: x has shape {tuple(x.shape)}, expected (N, c_in, 1 to 4 spatial axes)")
    geometry = checks.per_axis("stride", stride, dims), checks.per_axis("dilation", dilation, dims)
    return derivatives.forward(x, alpha, c, bias, *geometry)  # type: ignore[no-any-return]


def shift(x: Tensor, offsets: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Moves groups of channels, each by its own offset: ``y[n, j, p] = x[n, j, p - offset of j]``, zeros moving in.

    With d spatial dimensions (1 to 4):

    Args:
        x: (N, c, *spatial), any strides, of dtype float32, float64, bfloat16 or float16.
        offsets: the offset of each group, d whole numbers; by default all 3^d of {-1, 0, 1}^d, the last axis quickest:
            in 2-D (-1, -1), (-1, 0), ..., (1, 1). The channels are split in their order; where c is not a multiple of
            the number of groups, the first c mod groups have one channel more.

    Returns:
        y, of the shape of x; channels-last where the channels of x are adjacent in memory, contiguous otherwise. The
        values are moved, never computed with, so that the backward, the shift by the opposite offsets, is exact too.

    Reverse mode, forward mode and vmap work to any order, and so do torch.compile, torch.export and meta tensors.

    Raises:
        TypeError: x is not a plain, dense floating-point tensor, or offsets are not whole numbers.
        ValueError: the number of axes of x or of an offset does not fit.
    """
    if has_torch_function_variadic(x):
        return handle_torch_function(shift, (x,), x, offsets)
    checks.check_kind("x", x, "shift")
    checks.check_dtype("x", x, "shift")
    dims = x.dim() - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"shift: x has shape {tuple(x.shape)}, expected (N, c, 1 to 4 spatial axes)")
    return derivatives.shift(x, checks.offsets_of(offsets, dims))  # type: ignore[no-any-return]
