"""STL-10 in its binary version, the labelled part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from leancore.torch.train.data.augment import Augmentation
from leancore.torch.train.data.fetch import Remote, Source
from leancore.torch.train.data.files import check_labels, read_exactly
from leancore.torch.train.data.sets import DataSet, Normalisation, Split

STL10 = Source(
    name="stl10",
    folders=("stl10_binary",),
    files=("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"),
    remotes=(Remote("http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz", "91f7769df0f17e558f3565bffb0c7dfb"),),
)

_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
_SHAPE = (3, 96, 96)  # the red, green and blue planes, column by column
_TRAIN, _TEST = 5_000, 8_000


def stl10(folder: Path) -> DataSet:
    """From the folder with the files of the source. Raises DataError."""
    return DataSet(
        name="stl10",
        title="STL-10",
        classes=_CLASSES,
        train=_read(folder, "train", _TRAIN),
        test=_read(folder, "test", _TEST),
        # Those of the 5,000 training images, as public training programs have them.
        normalisation=Normalisation(255.0, (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
        augmentation=Augmentation("padded", padding=12, flip=True),
    )


def _read(folder: Path, stem: str, count: int) -> Split:
    pixels = int(np.prod(_SHAPE))
    images = read_exactly(folder / f"{stem}_X.bin", count * pixels, f"{count:,} images of {pixels:,}")
    path = folder / f"{stem}_y.bin"
    labels = read_exactly(path, count, f"{count:,} labels")
    check_labels(path, labels, 1, len(_CLASSES))
    by_rows = images.reshape(count, *_SHAPE).transpose(0, 1, 3, 2)
    return Split(torch.from_numpy(by_rows.copy()), torch.from_numpy(labels.astype(np.int64) - 1))
