"""The residual network of the LeanResNet paper, with lean or with dense 3x3 convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from leancore.torch.modules import LeanConv2d


def _convolution(lean: bool, c_in: int, c_out: int) -> nn.Module:
    return LeanConv2d(c_in, c_out) if lean else _dense(c_in, c_out)


def _dense(c_in: int, c_out: int) -> nn.Conv2d:
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    return conv


class Step(nn.Module):
    """y + K2 relu(N2(K1 relu(N1(y)))), from c_in to c_out >= c_in channels; the shortcut pads channels with zeros."""

    def __init__(self, c_in: int, c_out: int, *, lean: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.conv1 = _convolution(lean, c_in, c_out)
        self.norm2 = nn.BatchNorm2d(c_out)
        self.conv2 = _convolution(lean, c_out, c_out)
        self.new_channels = c_out - c_in

    def forward(self, y: Tensor) -> Tensor:
        z: Tensor = self.conv1(F.relu(self.norm1(y), inplace=True))
        z = self.conv2(F.relu(self.norm2(z), inplace=True))
        if self.new_channels:
            y = F.pad(y, (0, 0, 0, 0, 0, self.new_channels))
        return y + z


class ResNet(nn.Module):
    """An opening dense 3x3 convolution, blocks of residual steps, and a linear classifier.

    Block k runs steps[k] steps at widths[k] channels, after an average pool by 2 in each direction (k > 0). Widths
    must not decrease. An odd side is rounded up, its last window averaging the pixels that there are; so images of
    any size from 1x1 work. Convolutions have no bias.

    Args:
        widths, steps: one entry for each block.
        lean: LeanConv2d in the steps, else dense 3x3 convolutions.

    forward: x (N, in_channels, H, W) -> scores (N, num_classes).
    """

    def __init__(
        self, widths: Sequence[int], steps: Sequence[int], *, lean: bool, num_classes: int, in_channels: int
    ) -> None:
        super().__init__()
        if len(widths) != len(steps) or list(widths) != sorted(widths):
            raise ValueError(f"ResNet: widths {tuple(widths)} and steps {tuple(steps)} must pair, widths not decrease")
        self.opening = nn.Sequential(_dense(in_channels, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        c_in = widths[0]
        for width, count in zip(widths, steps, strict=True):
            block = nn.Sequential()
            for _ in range(count):
                block.append(Step(c_in, width, lean=lean))
                c_in = width
            self.blocks.append(block)
        self.norm = nn.BatchNorm2d(c_in)
        self.classifier = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.opening(x)
        for k, block in enumerate(self.blocks):
            if k > 0:
                y = F.avg_pool2d(y, 2, ceil_mode=True)
            y = block(y)
        scores: Tensor = self.classifier(F.relu(self.norm(y), inplace=True).mean((2, 3)))
        return scores
