"""`leancore train`: a TrainConfig from the command line or a YAML file, and errors as one line each."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import get_type_hints


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that failed, 2 (by SystemExit) for options that make no sense."""
    from jsonargparse import ArgumentParser

    from leancore.torch.train.config import TrainConfig
    from leancore.torch.train.data import DataError
    from leancore.torch.train.loop import TrainingDiverged, train

    parser = ArgumentParser(
        prog="leancore train",
        description="Train a network. Without options: a small LeanResNet on the digits of scikit-learn. The folder "
        "of a run holds metrics.csv, curves.png, config.yaml and the checkpoints `last` and `best`; `best` is the "
        "epoch of the highest accuracy on the test images, so that its figure is no unbiased estimate.",
    )
    parser.add_argument("--config", action="config", help="YAML file with any of the options, as a run's config.yaml")
    types = get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=types[field.name], default=field.default, help=field.metadata["help"])
    options = parser.parse_args(list(arguments)).as_dict()
    options.pop("config")
    config = TrainConfig(**options)
    try:
        config.resolved()
    except ValueError as error:
        parser.error(str(error))
    try:
        train(config)
    except (DataError, TrainingDiverged, OSError) as error:
        print(f"leancore train: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("leancore train: interrupted; the checkpoints of the finished epochs are complete", file=sys.stderr)
        return 130
    return 0
