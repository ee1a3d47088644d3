"""The lean convolution as torch modules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from leancore.torch.checks import per_axis
from leancore.torch.functional import lean_conv


class _LeanConv(nn.Module):
    """What LeanConv1d to LeanConv4d share; only the number of spatial dimensions differs."""

    dims: int

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        stride: int | Sequence[int] = 1,
        dilation: int | Sequence[int] = 1,
        bias: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if c_in < 1 or c_out < 1:
            raise ValueError(f"{name}: c_in = {c_in} and c_out = {c_out}, expected at least 1 channel each")
        self.c_in = c_in
        self.c_out = c_out
        self.stride = per_axis("stride", stride, self.dims, name)
        self.dilation = per_axis("dilation", dilation, self.dims, name)
        new = {"device": device, "dtype": dtype}
        self.alpha = nn.Parameter(torch.empty(c_out, c_in, **new))
        self.c = nn.Parameter(torch.empty(min(c_in, c_out), 2 * self.dims, **new))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", nn.Parameter(torch.empty(c_out, **new)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal, with He's total variance of 2, shared by alpha and c; bias zero.

        alpha has variance 1 / c_in and c 1 / (2 dims), so that both make half of an output; outputs without a stencil
        have alpha alone, with 2 / c_in. If all weights had the variance 2 / (c_in + 2 dims), a stencil would make only
        2 dims parts in c_in + 2 dims, and a fresh network of many channels would hardly look at neighbouring pixels.
        """
        m, taps = self.c.shape
        nn.init.normal_(self.alpha[:m], std=math.sqrt(1 / self.c_in))
        nn.init.normal_(self.alpha[m:], std=math.sqrt(2 / self.c_in))
        nn.init.normal_(self.c, std=math.sqrt(1 / taps))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """input, called as torch's convolutions call it: x (N, c_in, *spatial) -> y (N, c_out, *spatial).

        See `leancore.torch.lean_conv`.
        """
        x = input
        if isinstance(x, Tensor) and x.dim() != self.dims + 2:  # torch.fx traces with something else
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}, expected (N, {self.c_in}) "
                f"and {self.dims} spatial axes"
            )
        return lean_conv(x, self.alpha, self.c, self.bias, self.stride, self.dilation)

    def extra_repr(self) -> str:
        parts = [str(self.c_in), str(self.c_out)]
        for name in ("stride", "dilation"):
            value = getattr(self, name)
            if value != (1,) * self.dims:
                parts.append(f"{name}={value}")
        if self.bias is not None:
            parts.append("bias=True")
        return ", ".join(parts)


class LeanConv1d(_LeanConv):
    """y = alpha x + left/right stencil c x, for x of shape (N, c_in, L).

    Parameters `alpha` (c_out, c_in), `c` (min(c_in, c_out), 2) and, with bias=True, `bias` (c_out,). stride and
    dilation are one number or one for each spatial axis. Raises ValueError for sizes below 1.
    """

    dims = 1


class LeanConv2d(_LeanConv):
    """y = alpha x + 4-point stencil c x, for x of shape (N, c_in, H, W). Like LeanConv1d, with c of 4 columns."""

    dims = 2


class LeanConv3d(_LeanConv):
    """y = alpha x + 6-point stencil c x, for x of shape (N, c_in, D, H, W). Like LeanConv1d, with c of 6 columns."""

    dims = 3


class LeanConv4d(_LeanConv):
    """y = alpha x + 8-point stencil c x, for x of shape (N, c_in, T, D, H, W). Like LeanConv1d, c of 8 columns."""

    dims = 4
