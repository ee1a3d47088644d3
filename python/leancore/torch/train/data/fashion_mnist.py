"""Fashion-MNIST, in the IDX files of its authors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from leancore.torch.train.data.augment import Augmentation
from leancore.torch.train.data.fetch import Remote, Source, find_file
from leancore.torch.train.data.files import check_labels
from leancore.torch.train.data.idx import read_idx
from leancore.torch.train.data.sets import DataSet, Normalisation, Split

_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_MD5 = {
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}
FASHION_MNIST = Source(
    name="fashion_mnist",
    folders=("fashion-mnist", "data/fashion"),  # of Debian's package, of the authors' repository
    files=tuple(_MD5),
    remotes=tuple(Remote(f"{_ADDRESS}/{name}.gz", md5) for name, md5 in _MD5.items()),
)

_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_TRAIN, _TEST = 60_000, 10_000


def fashion_mnist(folder: Path) -> DataSet:
    """From the folder with the four files, each plain or gzipped. Raises DataError."""
    return DataSet(
        name="fashion_mnist",
        title="Fashion-MNIST",
        classes=_CLASSES,
        train=_read(folder, "train", _TRAIN),
        test=_read(folder, "t10k", _TEST),
        # Those of the 60,000 training images.
        normalisation=Normalisation(255.0, (0.2860,), (0.3530,)),
        augmentation=Augmentation("padded", padding=2, flip=True),
    )


def _read(folder: Path, stem: str, count: int) -> Split:
    images = read_idx(find_file(folder, f"{stem}-images-idx3-ubyte"), (count, 28, 28))
    path = find_file(folder, f"{stem}-labels-idx1-ubyte")
    labels = read_idx(path, (count,))
    check_labels(path, labels, 0, len(_CLASSES) - 1)
    return Split(torch.from_numpy(images.copy()).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))
