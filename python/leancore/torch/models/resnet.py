"""The residual network of the LeanResNet paper, with lean or with dense 3-wide convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from leancore.torch.models.network import Network, add_shortcut, convolution, norm
from leancore.torch.modules import LeanConv1d, LeanConv2d, LeanConv3d

_LEAN: dict[int, Any] = {1: LeanConv1d, 2: LeanConv2d, 3: LeanConv3d}


def _convolution(dims: int, c_in: int, c_out: int, lean: bool) -> nn.Module:
    return _LEAN[dims](c_in, c_out) if lean else convolution(dims, c_in, c_out, 3)


class Step(nn.Module):
    """y + K2 relu(N2(K1 relu(N1(y)))), from c_in to c_out >= c_in channels; the shortcut pads channels with zeros."""

    def __init__(self, c_in: int, c_out: int, *, lean: bool, dims: int = 2) -> None:
        super().__init__()
        self.norm1 = norm(dims, c_in)
        self.conv1 = _convolution(dims, c_in, c_out, lean)
        self.norm2 = norm(dims, c_out)
        self.conv2 = _convolution(dims, c_out, c_out, lean)

    def forward(self, y: Tensor) -> Tensor:
        z: Tensor = self.conv1(F.relu(self.norm1(y), inplace=True))
        z = self.conv2(F.relu(self.norm2(z), inplace=True))
        return add_shortcut(y, z)


class ResNet(Network):
    """A `Network` of residual steps without bias, ended by normalisation and ReLU.

    Args:
        widths, steps: one entry for each block.
        lean: lean convolutions in the steps, else dense 3-wide ones.
        dense_blocks: the first so many blocks have dense convolutions all the same. It is the paper's advice: early
            blocks have few channels, so that dense convolutions cost few parameters there.
        dims: spatial axes, 1 to 3.

    forward: x (N, in_channels, *spatial) -> scores (N, num_classes).

    Raises:
        ValueError: widths and steps do not pair, widths decrease, or another argument is out of range.
    """

    def __init__(
        self,
        widths: Sequence[int],
        steps: Sequence[int],
        *,
        lean: bool,
        num_classes: int,
        in_channels: int,
        dense_blocks: int = 0,
        dims: int = 2,
    ) -> None:
        if not 0 <= dense_blocks <= len(widths):
            raise ValueError(f"ResNet: dense_blocks is {dense_blocks}, expected 0 to {len(widths)}, the blocks")
        super().__init__(
            widths,
            steps,
            lambda k, c_in, c_out: Step(c_in, c_out, lean=lean and k >= dense_blocks, dims=dims),
            num_classes=num_classes,
            in_channels=in_channels,
            dims=dims,
            final_norm=True,
        )
