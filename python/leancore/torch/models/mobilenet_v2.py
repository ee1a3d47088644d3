"""MobileNetV2 as the LeanResNet paper compares with: reduced widths, and the pools of its residual networks."""

from __future__ import annotations

from torch import nn

from leancore.torch.models.expanded import ExpandedNetwork, ExpandedStep
from leancore.torch.models.network import convolution, norm


class InvertedStep(ExpandedStep):
    """y + N3(P2 relu6(N2(D relu6(N1(P1 y))))): 1x1 to 6 c_out channels, depthwise 3-wide, 1x1 to c_out >= c_in."""

    def between(self, dims: int, hidden: int) -> list[nn.Module]:
        return [
            nn.ReLU6(inplace=True),
            convolution(dims, hidden, hidden, 3, groups=hidden),
            norm(dims, hidden),
            nn.ReLU6(inplace=True),
        ]


class MobileNetV2(ExpandedNetwork):
    """A `Network` of `InvertedStep`s. Arguments as there."""

    step = InvertedStep
