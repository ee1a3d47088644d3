"""The images of a run: whole sets in memory as bytes; batched, augmented and normalised as tensors."""

from leancore.torch.train.data.augment import Augmentation
from leancore.torch.train.data.batches import steps_per_epoch, test_batches, train_batches
from leancore.torch.train.data.catalogue import list_data, load_data
from leancore.torch.train.data.sets import DataError, DataSet, Normalisation, Split

__all__ = [
    "Augmentation",
    "DataError",
    "DataSet",
    "Normalisation",
    "Split",
    "list_data",
    "load_data",
    "steps_per_epoch",
    "test_batches",
    "train_batches",
]
