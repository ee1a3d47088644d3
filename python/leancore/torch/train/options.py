"""The options of a training run on a command line: those of TrainConfig, a YAML file, and recipes as other defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_type_hints

from leancore.torch.train.config import RECIPES, TrainConfig

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def recipe_fields(besides: frozenset[str] = frozenset()) -> list[str]:
    """The names of TrainConfig's fields but for some."""
    return [field.name for field in dataclasses.fields(TrainConfig) if field.name not in besides]


def training_parser(prog: str, description: str, besides: frozenset[str] = frozenset()) -> ArgumentParser:
    """A parser with --config, --recipe and the options of TrainConfig but for some fields."""
    from jsonargparse import ActionYesNo, ArgumentParser

    parser = ArgumentParser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the options, as a run's config.yaml")
    recipes = "; ".join(f"{name}: {', '.join(f'{k} {v}' for k, v in r.items())}" for name, r in RECIPES.items())
    parser.add_argument("--recipe", choices=list(RECIPES), help=f"other defaults. {recipes}")
    types = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        if field.name in besides:
            continue
        flag, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if types[field.name] is bool:
            parser.add_argument(flag, action=ActionYesNo(no_prefix="no-"), nargs="?", default=field.default, help=text)
        else:
            parser.add_argument(flag, type=types[field.name], default=field.default, help=text)
    return parser


def parse_training(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """All options by name: of the command line, before those of --config, before those of --recipe."""
    parsed = parser.parse_args(list(arguments))
    if parsed.recipe is not None:
        parser.set_defaults(RECIPES[parsed.recipe])
        parsed = parser.parse_args(list(arguments))
    options: dict[str, Any] = parsed.as_dict()
    del options["config"], options["recipe"]
    return options
