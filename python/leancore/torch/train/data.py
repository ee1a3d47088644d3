"""The images of a run: whole sets in memory as bytes, batched, augmented and normalised as tensors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


class DataError(Exception):
    """The files of a data set are missing or are not what they should be; the text names the file."""


@dataclass(frozen=True)
class Split:
    images: Tensor  # uint8 (N, channels, H, W)
    labels: Tensor  # int64 (N,)

    def __len__(self) -> int:
        return self.labels.shape[0]


@dataclass(frozen=True)
class Normalisation:
    """What a network is fed: (byte / full_scale - mean) / std, per channel."""

    full_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        # One multiply and one add; uint8 in, float32 out.
        scale = torch.tensor([1 / (self.full_scale * s) for s in self.std]).view(-1, 1, 1)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(-1, 1, 1)
        return images.float().mul_(scale).add_(shift)


@dataclass(frozen=True)
class DataSet:
    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    normalisation: Normalisation
    crop_padding: int  # pixels of zeros around an image, of which a random crop is taken
    flip: bool  # whether a mirrored image is as good


def load_data(folder: str | None) -> DataSet:
    """CIFAR-10 from a folder, or without one scikit-learn's digits. Raises DataError."""
    return digits() if folder is None else cifar10(folder)


# Digits


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
        classes=tuple("0123456789"),
        train=train,
        test=Split(images[test], labels[test]),
        normalisation=Normalisation(16.0, (float(scaled.mean()),), (float(scaled.std()),)),
        crop_padding=1,
        flip=False,
    )


# CIFAR-10

_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue planes, row by row
_RECORDS = 10_000
_TRAIN_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_TEST_FILE = "test_batch.bin"
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def cifar10(folder: str | Path) -> DataSet:
    """CIFAR-10 in the official binary layout: data_batch_1.bin to data_batch_5.bin and test_batch.bin.

    The folder is the one with these files or the one with cifar-10-batches-bin. Raises DataError, which names the
    file, when one is missing, has another size than 10,000 records of 3,073 bytes, or holds a label above 9.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    if not (root / _TRAIN_FILES[0]).exists() and (root / "cifar-10-batches-bin").is_dir():
        root = root / "cifar-10-batches-bin"
    parts = [_read_records(root / name) for name in _TRAIN_FILES]
    train = Split(torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts]))
    return DataSet(
        name="CIFAR-10",
        classes=_CIFAR10_CLASSES,
        train=train,
        test=_read_records(root / _TEST_FILE),
        normalisation=Normalisation(255.0, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        crop_padding=4,
        flip=True,
    )


def _read_records(path: Path) -> Split:
    expected = _RECORDS * _RECORD
    try:
        size = path.stat().st_size
        if size != expected:
            raise DataError(f"{path}: {size:,} bytes, expected {expected:,} ({_RECORDS:,} records of {_RECORD:,})")
        data = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; expected {', '.join(_TRAIN_FILES)} and {_TEST_FILE} beside it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if data.size != expected:
        raise DataError(f"{path}: {data.size:,} bytes could be read, expected {expected:,}")
    records = data.reshape(_RECORDS, _RECORD)
    labels = records[:, 0]
    if labels.max() > 9:
        record = int(np.argmax(labels > 9))
        raise DataError(f"{path}: record {record} has label {labels[record]}, expected 0 to 9")
    return Split(
        torch.from_numpy(records[:, 1:].reshape(_RECORDS, 3, 32, 32).copy()),
        torch.from_numpy(labels.astype(np.int64)),
    )


# Batches


class TrainBatches:
    """The training images in batches (float32 images, labels); each iteration another random order.

    The order and the augmentation come from the seed alone. A last batch of one image is left out: batch
    normalisation needs two.
    """

    def __init__(self, data: DataSet, batch_size: int, *, augment: bool, seed: int) -> None:
        self._data = data
        self._batch_size = batch_size
        self._augment = augment
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        full, rest = divmod(len(self._data.train), self._batch_size)
        return full + (rest > 1)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data, size = self._data, self._batch_size
        order = torch.randperm(len(data.train), generator=self._generator)
        for i in range(len(self)):
            chosen = order[i * size : (i + 1) * size]
            images = data.train.images[chosen]
            if self._augment:
                images = random_crop_and_flip(images, data.crop_padding, data.flip, self._generator)
            yield data.normalisation(images), data.train.labels[chosen]


def test_batches(data: DataSet, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The test images in batches (float32 images, labels), in the order of the files."""
    for i in range(0, len(data.test), batch_size):
        yield data.normalisation(data.test.images[i : i + batch_size]), data.test.labels[i : i + batch_size]


def random_crop_and_flip(images: Tensor, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Each image shifted by up to `padding` pixels each way, zeros moving in, and mirrored with probability 1/2.

    images: uint8 (N, channels, H, W); the result has the same shape. All images in one gather.
    """
    n, channels, height, width = images.shape
    shifts = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator)
    rows = shifts[0] + torch.arange(height)
    cols = shifts[1] + torch.arange(width)
    if flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        cols = torch.where(mirrored[:, None], cols.flip(1), cols)
    padded = F.pad(images, (padding,) * 4)
    return padded[
        torch.arange(n).view(-1, 1, 1, 1),
        torch.arange(channels).view(1, -1, 1, 1),
        rows.view(n, 1, height, 1),
        cols.view(n, 1, 1, width),
    ]
