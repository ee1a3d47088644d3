"""Modules of a model that change places with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

# Their dicts are moved as they are, so that the handles which register_*_hook returned can still remove the hooks.
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


@dataclass(frozen=True)
class Slot:
    """One module of a model, and every place where it is registered."""

    module: nn.Module
    names: tuple[str, ...]
    places: Sequence[tuple[nn.Module, str]]  # (parent, key)

    @property
    def name(self) -> str:
        return self.names[0]

    def install(self, module: nn.Module) -> None:
        for parent, key in self.places:
            parent._modules[key] = module


def root_of(model: nn.Module) -> nn.Sequential:
    """A parent for the model, so that the model itself can be replaced like any module in it."""
    return nn.Sequential(model)


def slots_of(root: nn.Sequential) -> list[Slot]:
    """Every module below root once, named as seen from root[0]; that itself is called (model)."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in root[0].named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name or "(model)")
    places: dict[nn.Module, list[tuple[nn.Module, str]]] = {}
    for parent in root.modules():
        for key, child in parent._modules.items():
            if child is not None:
                places.setdefault(child, []).append((parent, key))
    return [Slot(module, tuple(found), places[module]) for module, found in names.items()]


def carry_over(old: nn.Module, new: nn.Module) -> None:
    """Training mode and the hooks of forward and backward; those of state_dict, which know its keys, stay behind."""
    new.train(old.training)
    for name in _HOOKS:
        setattr(new, name, getattr(old, name))
