"""CIFAR-10 and CIFAR-100 in their binary versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from leancore.torch.train.data.augment import Augmentation
from leancore.torch.train.data.fetch import Remote, Source
from leancore.torch.train.data.files import check_labels, read_exactly
from leancore.torch.train.data.sets import DataSet, Normalisation, Split

CIFAR10 = Source(
    name="cifar10",
    folders=("cifar-10-batches-bin",),
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"),
    remotes=(Remote("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
)
CIFAR100 = Source(
    name="cifar100",
    folders=("cifar-100-binary",),
    files=("train.bin", "test.bin"),
    remotes=(Remote("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),),
)

_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_CIFAR100_NAMES = (  # as in fine_label_names.txt
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard "
    "lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear "
    "pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal "
    "shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank "
    "telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
_PIXELS = 3 * 32 * 32  # the red, green and blue planes, row by row
_CIFAR10_RECORDS = 10_000  # in each of the six files
_CIFAR100_RECORDS = 50_000, 10_000
_AUGMENTATION = Augmentation("padded", padding=4, flip=True)


def cifar10(folder: Path) -> DataSet:
    """From the folder with its files, whose records are a label (0 to 9) and the pixels. Raises DataError."""
    *train, test = (_read(folder / name, _CIFAR10_RECORDS, (9,)) for name in CIFAR10.files)
    return DataSet(
        name="cifar10",
        title="CIFAR-10",
        classes=_CIFAR10_CLASSES,
        train=_joined(train),
        test=test,
        # Those of the 50,000 training images.
        normalisation=Normalisation(255.0, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        augmentation=_AUGMENTATION,
    )


def cifar100(folder: Path) -> DataSet:
    """As cifar10; each record is a coarse label (0 to 19, not used), a fine one (0 to 99) and the pixels."""
    train, test = (
        _read(folder / name, count, (19, 99)) for name, count in zip(CIFAR100.files, _CIFAR100_RECORDS, strict=True)
    )
    return DataSet(
        name="cifar100",
        title="CIFAR-100",
        classes=tuple(_CIFAR100_NAMES.split()),
        train=train,
        test=test,
        # Those of the 50,000 training images, as public training programs have them.
        normalisation=Normalisation(255.0, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        augmentation=_AUGMENTATION,
    )


def _read(path: Path, count: int, last_labels: tuple[int, ...]) -> Split:
    """Records of one byte for each kind of label (none above its last) and the pixels. The last kind is used."""
    kinds = len(last_labels)
    size = kinds + _PIXELS
    records = read_exactly(path, count * size, f"{count:,} records of {size:,}").reshape(count, size)
    for kind, last in enumerate(last_labels):
        check_labels(path, records[:, kind], 0, last, "label" if kind == kinds - 1 else "coarse label")
    return Split(
        torch.from_numpy(records[:, kinds:].reshape(count, 3, 32, 32).copy()),
        torch.from_numpy(records[:, kinds - 1].astype(np.int64)),
    )


def _joined(parts: Sequence[Split]) -> Split:
    return Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
