"""What the networks of the zoo share: the opening, the blocks with their pools, and the classifier, in 1-D to 3-D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

_CONVOLUTIONS: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


def convolution(dims: int, c_in: int, c_out: int, width: int, groups: int = 1) -> nn.Module:
    """`width` wide along each axis, keeping the spatial size, without bias, with He initialisation."""
    conv: nn.Module = _CONVOLUTIONS[dims](c_in, c_out, width, padding=width // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # type: ignore[arg-type]
    return conv


def norm(dims: int, channels: int) -> nn.Module:
    made: nn.Module = _NORMS[dims](channels)
    return made


def add_shortcut(y: Tensor, z: Tensor) -> Tensor:
    """y + z, where z may have more channels: the shortcut has no parameters, the channels that y lacks are zero."""
    new_channels = z.shape[1] - y.shape[1]
    if new_channels:
        y = F.pad(y, (0, 0) * (y.dim() - 2) + (0, new_channels))
    return y + z


def halve(y: Tensor) -> Tensor:
    """The averages of 2 pixels along each axis, and of those that there are at the end of an odd side."""
    dims = y.dim() - 2
    # avg_pool3d, unlike the others, refuses windows that are larger than the volume.
    width = [min(2, n) for n in y.shape[2:]] if dims == 3 else 2
    pooled: Tensor = _POOLS[dims](y, width, ceil_mode=True)
    return pooled


class Network(nn.Module):
    """An opening dense 3-wide convolution, blocks of steps, and a linear classifier of the mean over space.

    Block k runs steps[k] steps at widths[k] channels, after an average pool by 2 in each direction (k > 0). Its first
    step takes the channels of the block before it to its own. Widths must not decrease. An odd side is rounded up, its
    last window averaging the pixels that there are; so images of any size from one pixel work.

    Args:
        widths, steps: one entry for each block.
        make_step: (k, c_in, c_out) -> a step of block k, which keeps the spatial size.
        dims: spatial axes, 1 to 3.
        final_norm: whether normalisation and ReLU come before the mean, for steps whose sum has not been normalised.

    forward: x (N, in_channels, *spatial) -> scores (N, num_classes).

    Raises:
        ValueError: widths, steps or dims are not as above, or a count is below 1.
    """

    def __init__(
        self,
        widths: Sequence[int],
        steps: Sequence[int],
        make_step: Callable[[int, int, int], nn.Module],
        *,
        num_classes: int,
        in_channels: int,
        dims: int = 2,
        final_norm: bool,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not widths or len(widths) != len(steps) or list(widths) != sorted(widths):
            raise ValueError(f"{name}: widths {tuple(widths)} and steps {tuple(steps)} must pair, widths not decrease")
        if dims not in _CONVOLUTIONS:
            raise ValueError(f"{name}: dims is {dims}, expected 1, 2 or 3")
        for what, count in (("num_classes", num_classes), ("in_channels", in_channels), ("steps", min(steps))):
            if count < 1:
                raise ValueError(f"{name}: {what} is {count}, expected at least 1")
        self.dims = dims
        self.opening = nn.Sequential(
            convolution(dims, in_channels, widths[0], 3), norm(dims, widths[0]), nn.ReLU(inplace=True)
        )
        self.blocks = nn.ModuleList()
        c_in = widths[0]
        for k, (width, count) in enumerate(zip(widths, steps, strict=True)):
            block = nn.Sequential()
            for _ in range(count):
                block.append(make_step(k, c_in, width))
                c_in = width
            self.blocks.append(block)
        self.norm = norm(dims, c_in) if final_norm else None
        self.classifier = nn.Linear(c_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.opening(x)
        for k, block in enumerate(self.blocks):
            if k > 0:
                y = halve(y)
            y = block(y)
        if self.norm is not None:
            y = F.relu(self.norm(y), inplace=True)
        scores: Tensor = self.classifier(y.mean(tuple(range(2, y.dim()))))
        return scores
