"""The networks in the registry of timm."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from leancore.torch._torchvision import import_torchvision
from leancore.torch.models.registry import create_model, list_models


def register_with_timm() -> list[str]:
    """Makes `timm.create_model(name, num_classes=…, in_chans=…)` know the networks of `list_models()`.

    Importing `leancore.torch` does this by itself where timm has been imported before. timm is imported, with what
    it needs of torchvision (see docs/convert.md). Names that timm has already are left alone, so that a second call
    does nothing. There are no pretrained weights: pretrained=True raises ValueError.

    Returns:
        The names that were added.

    Raises:
        ImportError: timm is not installed.
    """
    with contextlib.suppress(ImportError):  # the import of timm says what it thinks of that
        import_torchvision()
    registry = importlib.import_module("timm.models")
    added = [name for name in list_models() if not registry.is_model(name)]
    for name in added:
        registry.register_model(_entry_point(name))
    return added


def register_with_timm_if_imported() -> None:
    # A module that is being imported, or has failed to, has no such function.
    if hasattr(sys.modules.get("timm"), "create_model"):
        register_with_timm()


def _entry_point(name: str) -> Callable[..., nn.Module]:
    def make(
        pretrained: bool = False, num_classes: int | None = None, in_chans: int | None = None, **options: Any
    ) -> nn.Module:
        if pretrained:
            raise ValueError(f"{name}: leancore has no pretrained weights, expected pretrained=False")
        for what_timm_adds in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
            options.pop(what_timm_adds, None)
        if options.get("drop_rate") == 0:  # what timm's scripts ask of every network
            del options["drop_rate"]
        return create_model(name, num_classes, in_chans, **options)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"`leancore.torch.create_model({name!r})`."
    return make


__all__ = ["register_with_timm"]  # a name of its own: timm adds to it what it registers
