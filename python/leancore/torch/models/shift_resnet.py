"""ShiftResNet: 1x1 convolutions with a shift between them, which has no parameters and no arithmetic."""

from __future__ import annotations

from torch import Tensor, nn

from leancore.torch.functional import shift
from leancore.torch.models.expanded import ExpandedNetwork, ExpandedStep


class Shift(nn.Module):
    """`leancore.torch.shift` by all offsets of {-1, 0, 1}^dims, each moving its part of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return shift(x)


class ShiftStep(ExpandedStep):
    """y + relu(N2(P2 shift(relu(N1(P1 y))))): 1x1 to 6 c_out channels, shift, 1x1 to c_out >= c_in channels."""

    def between(self, dims: int, hidden: int) -> list[nn.Module]:
        return [nn.ReLU(inplace=True), Shift()]

    def end(self) -> list[nn.Module]:
        return [nn.ReLU(inplace=True)]


class ShiftResNet(ExpandedNetwork):
    """A `Network` of `ShiftStep`s. Arguments as there."""

    step = ShiftStep
