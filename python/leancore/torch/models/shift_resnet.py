"""ShiftResNet: 1x1 convolutions with a shift between them, which has no parameters and no arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from leancore.torch.functional import shift
from leancore.torch.models.network import Network, add_shortcut, convolution, norm

EXPANSION = 6


class Shift(nn.Module):
    """`leancore.torch.shift` by all offsets of {-1, 0, 1}^dims, each moving its part of the channels."""

    def forward(self, x: Tensor) -> Tensor:
        return shift(x)


class ShiftStep(nn.Module):
    """y + relu(N2(P2 shift(relu(N1(P1 y))))): 1x1 to 6 c_out channels, shift, 1x1 to c_out >= c_in channels."""

    def __init__(self, c_in: int, c_out: int, dims: int = 2) -> None:
        super().__init__()
        hidden = EXPANSION * c_out
        self.residual = nn.Sequential(
            convolution(dims, c_in, hidden, 1),
            norm(dims, hidden),
            nn.ReLU(inplace=True),
            Shift(),
            convolution(dims, hidden, c_out, 1),
            norm(dims, c_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, y: Tensor) -> Tensor:
        return add_shortcut(y, self.residual(y))


class ShiftResNet(Network):
    """A `Network` of `ShiftStep`s. Arguments as there."""

    def __init__(
        self, widths: Sequence[int], steps: Sequence[int], *, num_classes: int, in_channels: int, dims: int = 2
    ) -> None:
        super().__init__(
            widths,
            steps,
            lambda k, c_in, c_out: ShiftStep(c_in, c_out, dims),
            num_classes=num_classes,
            in_channels=in_channels,
            dims=dims,
            final_norm=False,
        )
