"""`leancore train`: a TrainConfig from a recipe, a YAML file and the command line, and errors as one line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

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
    from leancore.torch.train.checkpoint import CheckpointError
    from leancore.torch.train.config import OptionError, TrainConfig
    from leancore.torch.train.data import DataError
    from leancore.torch.train.loop import TrainingDiverged, train
    from leancore.torch.train.options import parse_training, training_parser
    from leancore.torch.train.stop import Interrupted

    parser = training_parser("leancore train", _DESCRIPTION)
    options = parse_training(parser, arguments)
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
