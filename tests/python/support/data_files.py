"""Small stand-ins for the official files of the data sets: their exact layouts, random bytes, fewer records."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

CIFAR10 = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
CIFAR100 = ["train.bin", "test.bin"]
STL10 = ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"]
FASHION_MNIST = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
FILES = {"cifar10": CIFAR10, "cifar100": CIFAR100, "stl10": STL10, "fashion_mnist": FASHION_MNIST}
TRAIN, TEST = 10, 6  # records of CIFAR-100, STL-10 and Fashion-MNIST; each file of CIFAR-10 has TRAIN

PACKAGE = "leancore.torch.train.data"


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the readers expect the stand-ins' numbers of records."""
    monkeypatch.setattr(f"{PACKAGE}.cifar._CIFAR10_RECORDS", TRAIN)
    monkeypatch.setattr(f"{PACKAGE}.cifar._CIFAR100_RECORDS", (TRAIN, TEST))
    for module in ("stl10", "fashion_mnist"):
        monkeypatch.setattr(f"{PACKAGE}.{module}._TRAIN", TRAIN)
        monkeypatch.setattr(f"{PACKAGE}.{module}._TEST", TEST)


def write(name: str, folder: Path) -> Path:
    """The files of a data set in a folder, which is made."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)

    def random(*shape: int) -> npt.NDArray[np.uint8]:
        return rng.integers(0, 256, shape, dtype=np.uint8)

    def labels(count: int, classes: int) -> npt.NDArray[np.uint8]:
        return rng.permutation(np.arange(count) * classes // count).astype(np.uint8)

    if name == "cifar10":
        for file in CIFAR10:
            np.hstack([labels(TRAIN, 10)[:, None], random(TRAIN, 3072)]).tofile(folder / file)
    elif name == "cifar100":
        for file, count in zip(CIFAR100, (TRAIN, TEST), strict=True):
            columns = labels(count, 20)[:, None], labels(count, 100)[:, None], random(count, 3072)
            np.hstack(columns).tofile(folder / file)
    elif name == "stl10":
        for part, count in (("train", TRAIN), ("test", TEST)):
            random(count, 3, 96, 96).tofile(folder / f"{part}_X.bin")
            (labels(count, 10) + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    else:
        for part, count in (("train", TRAIN), ("t10k", TEST)):
            write_idx(folder / f"{part}-images-idx3-ubyte", random(count, 28, 28))
            write_idx(folder / f"{part}-labels-idx1-ubyte", labels(count, 10))
    return folder


def write_idx(path: Path, array: npt.NDArray[np.uint8]) -> None:
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def pack(path: Path) -> Path:
    """Replace a file by its gzipped form."""
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), mtime=0))
    path.unlink()
    return packed
