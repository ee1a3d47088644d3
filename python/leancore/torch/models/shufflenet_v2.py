"""ShuffleNetV2: that of torchvision, which is imported when one is made."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import importlib
from typing import cast

from torch import nn

from leancore.torch._torchvision import import_torchvision


def shufflenet_v2(width: str, *, num_classes: int, in_channels: int) -> nn.Module:
    """torchvision's shufflenet_v2_{width}, initialised as there, with another first convolution for other channels.

    Raises:
        ImportError: torchvision is not installed.
    """
    try:
        import_torchvision()
    except ImportError as error:
        raise ImportError("ShuffleNetV2 is torchvision's: install the extra leancore[zoo]") from error
    constructors = importlib.import_module("torchvision.models.shufflenetv2")
    model = getattr(constructors, f"shufflenet_v2_{width}")(weights=None, num_classes=num_classes)
    first = model.conv1[0]
    if in_channels != first.in_channels:
        model.conv1[0] = nn.Conv2d(
            in_channels, first.out_channels, first.kernel_size, first.stride, first.padding, bias=False
        )
    return cast(nn.Module, model)
