"""MobileNetV2 as the LeanResNet paper compares with: reduced widths, and the pools of its residual networks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from leancore.torch.models.network import Network, add_shortcut, convolution, norm

EXPANSION = 6


class InvertedStep(nn.Module):
    """y + N3(P2 relu6(N2(D relu6(N1(P1 y))))): 1x1 to 6 c_out channels, depthwise 3-wide, 1x1 to c_out >= c_in."""

    def __init__(self, c_in: int, c_out: int, dims: int = 2) -> None:
        super().__init__()
        hidden = EXPANSION * c_out
        self.residual = nn.Sequential(
            convolution(dims, c_in, hidden, 1),
            norm(dims, hidden),
            nn.ReLU6(inplace=True),
            convolution(dims, hidden, hidden, 3, groups=hidden),
            norm(dims, hidden),
            nn.ReLU6(inplace=True),
            convolution(dims, hidden, c_out, 1),
            norm(dims, c_out),
        )

    def forward(self, y: Tensor) -> Tensor:
        return add_shortcut(y, self.residual(y))


class MobileNetV2(Network):
    """A `Network` of `InvertedStep`s. Arguments as there."""

    def __init__(
        self, widths: Sequence[int], steps: Sequence[int], *, num_classes: int, in_channels: int, dims: int = 2
    ) -> None:
        super().__init__(
            widths,
            steps,
            lambda k, c_in, c_out: InvertedStep(c_in, c_out, dims),
            num_classes=num_classes,
            in_channels=in_channels,
            dims=dims,
            final_norm=False,
        )
