"""scikit-learn's digits: a data set that needs no download."""

from __future__ import annotations

import numpy as np
import torch

from leancore.torch.train.data.augment import Augmentation
from leancore.torch.train.data.sets import DataSet, Normalisation, Split


def digits() -> DataSet:
    """scikit-learn's 1,797 grey 8x8 digits, values 0 to 16.

    Every fifth image of each digit, in the order of the file, is a test image: 364 test, 1,433 training images, the
    same ones in every run.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    loaded = load_digits()
    images = torch.from_numpy(loaded.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(loaded.target.astype(np.int64))
    # How many images of the same digit come before each one.
    rank = torch.zeros_like(labels)
    for digit in range(10):
        rank[labels == digit] = torch.arange(int((labels == digit).sum()))
    test = rank % 5 == 0
    train = Split(images[~test], labels[~test])
    scaled = train.images.double() / 16
    return DataSet(
        name="digits",
        title="digits",
        classes=tuple("0123456789"),
        train=train,
        test=Split(images[test], labels[test]),
        normalisation=Normalisation(16.0, (float(scaled.mean()),), (float(scaled.std()),)),
        augmentation=Augmentation("padded", padding=1),
    )
