"""What MobileNetV2 and ShiftResNet share: steps that widen 6-fold, mix neighbours channel by channel, and narrow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from leancore.torch.models.network import Network, add_shortcut, convolution, norm

EXPANSION = 6


class ExpandedStep(nn.Module):
    """y + the layers of `residual`, from c_in to c_out >= c_in channels with 6 c_out between."""

    def __init__(self, c_in: int, c_out: int, dims: int = 2) -> None:
        super().__init__()
        hidden = EXPANSION * c_out
        self.residual = nn.Sequential(
            convolution(dims, c_in, hidden, 1),
            norm(dims, hidden),
            *self.between(dims, hidden),
            convolution(dims, hidden, c_out, 1),
            norm(dims, c_out),
            *self.end(),
        )

    def between(self, dims: int, hidden: int) -> list[nn.Module]:
        """From the normalised channels to those that the second 1x1 convolution reads."""
        raise NotImplementedError

    def end(self) -> list[nn.Module]:
        """After the last normalisation."""
        return []

    def forward(self, y: Tensor) -> Tensor:
        return add_shortcut(y, self.residual(y))


class ExpandedNetwork(Network):
    """A `Network` of the class's `step`s. Arguments as there."""

    step: ClassVar[type[ExpandedStep]]

    def __init__(
        self, widths: Sequence[int], steps: Sequence[int], *, num_classes: int, in_channels: int, dims: int = 2
    ) -> None:
        super().__init__(
            widths,
            steps,
            lambda k, c_in, c_out: self.step(c_in, c_out, dims),
            num_classes=num_classes,
            in_channels=in_channels,
            dims=dims,
            final_norm=False,
        )
