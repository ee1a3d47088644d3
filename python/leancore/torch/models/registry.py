"""The networks by name: those of the LeanResNet paper's Table 1, and relatives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from leancore.torch.models.mobilenet_v2 import MobileNetV2
from leancore.torch.models.resnet import ResNet
from leancore.torch.models.shift_resnet import ShiftResNet
from leancore.torch.models.shufflenet_v2 import shufflenet_v2


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a network without making it.

    Attributes:
        name: what `create_model` takes.
        family: the name without its size, such as "lean_resnet".
        row: of the paper's Table 1, "a" to "f", where it tells the network; else None.
        dims: spatial axes of the images.
        num_classes, in_channels: those that `create_model` takes when it is told no others.
        parameters: the exact count with these.
        paper_parameters: the paper's count as it is printed, such as "0.5M", or None.
        paper_accuracy: the paper's accuracy in per cent, by name of the data set ("cifar10", "cifar100", "stl10").
    """

    name: str
    family: str
    row: str | None
    dims: int
    num_classes: int
    in_channels: int
    parameters: int
    paper_parameters: str | None
    paper_accuracy: Mapping[str, float]


@dataclass(frozen=True)
class _Family:
    """How its networks are made from the arguments of a size, and what all of them share."""

    make: Callable[..., nn.Module]
    sizes: Mapping[str, tuple[Any, ...]]
    dims: int = 2
    in_channels: int = 3
    in_table_1: bool = True


# Widths and steps of the blocks.
_SIZES = {
    "a": ((32, 64, 128, 256), (2, 3, 3, 3)),
    "b": ((12, 24, 48, 96), (2, 3, 3, 3)),
    "c": ((64, 128, 256, 512), (3, 5, 7, 4)),
    "d": ((24, 48, 96, 192), (3, 5, 7, 4)),
    "e": ((32, 64, 128, 256, 512), (2, 3, 3, 3, 3)),
    "f": ((12, 24, 48, 96, 192), (2, 3, 3, 3, 3)),
    "digits": ((16, 32, 64), (1, 1, 1)),
}

# Widths / sqrt(6), rounded: steps with six times as many channels inside then have about as many parameters as lean
# ones.
_REDUCED = {
    "a": ((13, 26, 52, 105), (2, 3, 3, 3)),
    "c": ((26, 52, 105, 209), (3, 5, 7, 4)),
    "e": ((13, 26, 52, 105, 209), (2, 3, 3, 3, 3)),
}

_FAMILIES = {
    "lean_resnet": _Family(partial(ResNet, lean=True), _SIZES),
    "resnet": _Family(partial(ResNet, lean=False), _SIZES),
    "mobilenet_v2": _Family(MobileNetV2, _REDUCED),
    "shift_resnet": _Family(ShiftResNet, _REDUCED),
    "shufflenet_v2": _Family(shufflenet_v2, {"x0_5": ("x0_5",), "x1_5": ("x1_5",)}),
    "lean_resnet3d": _Family(partial(ResNet, lean=True, dims=3), _SIZES, dims=3, in_channels=1, in_table_1=False),
    "resnet3d": _Family(partial(ResNet, lean=False, dims=3), _SIZES, dims=3, in_channels=1, in_table_1=False),
}

_Accuracy = Mapping[str, float]

# family, size, exact parameters, the paper's, its accuracy
_NETWORKS: tuple[tuple[str, str, int, str | None, _Accuracy], ...] = (
    ("lean_resnet", "a", 496_746, "0.5M", {"cifar10": 92.8}),
    ("lean_resnet", "b", 74_446, None, {}),
    ("lean_resnet", "c", 3_138_596, "2.9M", {"cifar100": 74.3}),
    ("lean_resnet", "d", 466_636, None, {}),
    ("lean_resnet", "e", 1_958_506, "2.0M", {"stl10": 83.7}),
    ("lean_resnet", "f", 284_686, None, {}),
    ("lean_resnet", "digits", 10_202, None, {}),
    ("resnet", "a", 4_303_850, "4.3M", {"cifar10": 94.7}),
    ("resnet", "b", 607_390, "0.6M", {"cifar10": 91.6}),
    ("resnet", "c", 27_351_332, "27M", {"cifar100": 78.5}),
    ("resnet", "d", 3_863_212, "3.8M", {"cifar100": 72.3}),
    ("resnet", "e", 17_288_682, "17M", {"stl10": 84.1}),
    ("resnet", "f", 2_435_422, "1.8M", {"stl10": 78.6}),
    ("resnet", "digits", 75_034, None, {}),
    ("mobilenet_v2", "a", 526_543, "0.5M", {"cifar10": 91.5}),
    ("mobilenet_v2", "c", 3_211_920, "2.7M", {"cifar100": 71.6}),
    ("mobilenet_v2", "e", 2_019_843, "1.9M", {"stl10": 80.4}),
    ("shift_resnet", "a", 488_593, "0.5M", {"cifar10": 92.5}),
    ("shift_resnet", "c", 3_085_926, "3.1M", {"cifar100": 74.2}),
    ("shift_resnet", "e", 1_940_511, "1.9M", {"stl10": 82.3}),
    ("shufflenet_v2", "x0_5", 352_042, "0.4M", {"cifar10": 89.3}),
    ("shufflenet_v2", "x1_5", 2_581_124, "2.5M", {"cifar100": 70.6, "stl10": 86.2}),
    ("lean_resnet3d", "a", 501_930, None, {}),
    ("lean_resnet3d", "b", 76_390, None, {}),
    ("resnet3d", "a", 12_893_162, None, {}),
    ("resnet3d", "b", 1_815_262, None, {}),
)

_HUNDRED_CLASSES = ("c", "d", "x1_5")  # the sizes of CIFAR-100


def _info(family: str, size: str, parameters: int, paper_parameters: str | None, accuracy: _Accuracy) -> ModelInfo:
    kind = _FAMILIES[family]
    return ModelInfo(
        name=f"{family}_{size}",
        family=family,
        row=size if kind.in_table_1 and len(size) == 1 else None,
        dims=kind.dims,
        num_classes=100 if size in _HUNDRED_CLASSES else 10,
        in_channels=1 if size == "digits" else kind.in_channels,
        parameters=parameters,
        paper_parameters=paper_parameters,
        paper_accuracy=accuracy,
    )


_INFOS = {info.name: info for info in (_info(*row) for row in _NETWORKS)}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return list(_INFOS)


def model_info(name: str) -> ModelInfo:
    """What is known of a network without making it.

    Raises:
        ValueError: the name is not in `list_models()`.
    """
    if name not in _INFOS:
        raise ValueError(f"no model {name!r}; there are {', '.join(_INFOS)}")
    info = _INFOS[name]
    return replace(info, paper_accuracy=dict(info.paper_accuracy))  # the caller's own, to change or to pickle


def create_model(
    name: str, num_classes: int | None = None, in_channels: int | None = None, **options: Any
) -> nn.Module:
    """A freshly initialised network: x (N, in_channels, *spatial) -> scores (N, num_classes).

    Args:
        name: one of `list_models()`; docs/models.md describes them.
        num_classes: of the last layer; by default 100 for the sizes of CIFAR-100 (c, d, x1_5), else 10.
        in_channels: of the images; by default 3, of the digits and of volumes 1.
        options: dense_blocks=k, of the lean_resnets alone: the first k blocks have dense 3-wide convolutions.

    Raises:
        ValueError: no such name, or an argument out of range.
        TypeError: the network has no such option.
        ImportError: a ShuffleNetV2 without torchvision.
    """
    info = model_info(name)
    unknown = set(options) - ({"dense_blocks"} if info.family.startswith("lean_") else set())
    if unknown:
        raise TypeError(f"create_model: {name} has no option {', '.join(sorted(unknown))}")
    family = _FAMILIES[info.family]
    return family.make(
        *family.sizes[name.removeprefix(f"{info.family}_")],
        num_classes=info.num_classes if num_classes is None else num_classes,
        in_channels=info.in_channels if in_channels is None else in_channels,
        **options,
    )
