"""The training command behind `leancore train`, usable from Python as `train(TrainConfig(...))`.

Needs the extra: pip install 'leancore[train]'. Its packages are imported when a run needs them, not here.
"""

from leancore.torch.train.checkpoint import CheckpointError, load_checkpoint, load_model, save_checkpoint
from leancore.torch.train.config import RECIPES, OptionError, TrainConfig
from leancore.torch.train.data import DataError, DataSet, list_data, load_data
from leancore.torch.train.loop import Result, TrainingDiverged, train
from leancore.torch.train.progress import EpochRow
from leancore.torch.train.stop import Interrupted

__all__ = [
    "RECIPES",
    "CheckpointError",
    "DataError",
    "DataSet",
    "EpochRow",
    "Interrupted",
    "OptionError",
    "Result",
    "TrainConfig",
    "TrainingDiverged",
    "list_data",
    "load_checkpoint",
    "load_data",
    "load_model",
    "save_checkpoint",
    "train",
]
