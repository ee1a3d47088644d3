"""The training command behind `leancore train`, usable from Python as `train(TrainConfig(...))`.

Needs the extra: pip install 'leancore[train]'. Its packages are imported when a run needs them, not here.
"""

from leancore.torch.train.checkpoint import CheckpointError, load_checkpoint, load_model, save_checkpoint
from leancore.torch.train.config import TrainConfig
from leancore.torch.train.data import DataError, DataSet, list_data, load_data
from leancore.torch.train.loop import Result, TrainingDiverged, train

__all__ = [
    "CheckpointError",
    "DataError",
    "DataSet",
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
