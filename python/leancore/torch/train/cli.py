"""`leancore train`: a TrainConfig from a recipe, a YAML file and the command line, and errors as one line each."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import get_type_hints

_DESCRIPTION = """\
Train a network. Without options: a small LeanResNet on the digits of scikit-learn. The folder of a run holds
config.yaml, metrics.csv, the checkpoints `last` and `best`, and at the end a summary with plots; `best` is the epoch of
the highest accuracy on the test images, so that its figure is no unbiased estimate. Options on the command line go
before those of the file --config, and these before those of --recipe. Several processes: torchrun --nproc-per-node 2
-m leancore train ... Exit status: 0; 1 for a run that failed; 2 for options that make no sense; 143 or 130 after
SIGTERM or SIGINT, with the state saved (--resume)."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that failed, 2 (by SystemExit) for options that make no sense, 128 + the
    number of the signal that stopped the run."""
    from jsonargparse import ActionYesNo, ArgumentParser

    from leancore.torch.train.checkpoint import CheckpointError
    from leancore.torch.train.config import RECIPES, OptionError, TrainConfig
    from leancore.torch.train.data import DataError
    from leancore.torch.train.loop import TrainingDiverged, train
    from leancore.torch.train.stop import Interrupted

    parser = ArgumentParser(prog="leancore train", description=_DESCRIPTION)
    parser.add_argument("--config", action="config", help="YAML file with any of the options, as a run's config.yaml")
    recipes = "; ".join(f"{name}: {', '.join(f'{k} {v}' for k, v in r.items())}" for name, r in RECIPES.items())
    parser.add_argument("--recipe", choices=list(RECIPES), help=f"other defaults. {recipes}")
    types = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        flag, text = "--" + field.name.replace("_", "-"), field.metadata["help"]
        if types[field.name] is bool:
            parser.add_argument(flag, action=ActionYesNo(no_prefix="no-"), nargs="?", default=field.default, help=text)
        else:
            parser.add_argument(flag, type=types[field.name], default=field.default, help=text)
    parsed = parser.parse_args(list(arguments))
    if parsed.recipe is not None:
        parser.set_defaults(RECIPES[parsed.recipe])
        parsed = parser.parse_args(list(arguments))
    options = parsed.as_dict()
    del options["config"], options["recipe"]
    try:
        train(TrainConfig(**options))
    except OptionError as error:
        parser.error(str(error))
    except (CheckpointError, DataError, TrainingDiverged, OSError) as error:
        print(f"leancore train: error: {error}", file=sys.stderr)
        return 1
    except Interrupted as stop:
        print(f"leancore train: {stop}", file=sys.stderr)
        return 128 + stop.signal
    return 0
