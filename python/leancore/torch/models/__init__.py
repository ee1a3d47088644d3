"""The networks of the LeanResNet paper's Table 1, by name."""

from __future__ import annotations

from dataclasses import dataclass

from leancore.torch.models.resnet import ResNet

__all__ = ["ResNet", "create_model", "list_models"]


@dataclass(frozen=True)
class _Row:
    widths: tuple[int, ...]
    steps: tuple[int, ...]
    num_classes: int
    in_channels: int = 3


_TABLE_1 = {
    "a": _Row((32, 64, 128, 256), (2, 3, 3, 3), 10),
    "b": _Row((12, 24, 48, 96), (2, 3, 3, 3), 10),
    "c": _Row((64, 128, 256, 512), (3, 5, 7, 4), 100),
    "d": _Row((24, 48, 96, 192), (3, 5, 7, 4), 100),
    "e": _Row((32, 64, 128, 256, 512), (2, 3, 3, 3, 3), 10),
    "f": _Row((12, 24, 48, 96, 192), (2, 3, 3, 3, 3), 10),
    "digits": _Row((16, 32, 64), (1, 1, 1), 10, in_channels=1),
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return [f"{family}_{row}" for family in ("lean_resnet", "resnet") for row in _TABLE_1]


def create_model(name: str, num_classes: int | None = None, in_channels: int | None = None) -> ResNet:
    """A freshly initialised network.

    Args:
        name: one of `list_models()`: lean_resnet_a to lean_resnet_f, resnet_a to resnet_f (the same network with
            dense 3x3 convolutions), and lean_resnet_digits and resnet_digits for 8x8 grey images.
        num_classes: of the last layer; by default 100 for c and d, else 10.
        in_channels: of the images; by default 1 for digits, else 3.

    Raises:
        ValueError: the name is not in the list.
    """
    if name not in list_models():
        raise ValueError(f"create_model: no model {name!r}; there are {', '.join(list_models())}")
    family, _, letter = name.rpartition("_")
    row = _TABLE_1[letter]
    return ResNet(
        row.widths,
        row.steps,
        lean=family == "lean_resnet",
        num_classes=row.num_classes if num_classes is None else num_classes,
        in_channels=row.in_channels if in_channels is None else in_channels,
    )
