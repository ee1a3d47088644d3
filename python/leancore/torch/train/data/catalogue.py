"""The data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leancore.torch.train.data.cifar import CIFAR10, CIFAR100, cifar10, cifar100
from leancore.torch.train.data.digits import digits
from leancore.torch.train.data.fashion_mnist import FASHION_MNIST, fashion_mnist
from leancore.torch.train.data.fetch import Source, locate
from leancore.torch.train.data.sets import DataSet
from leancore.torch.train.data.stl10 import STL10, stl10

_READERS: dict[str, tuple[Source, Callable[[Path], DataSet]]] = {
    CIFAR10.name: (CIFAR10, cifar10),
    CIFAR100.name: (CIFAR100, cifar100),
    STL10.name: (STL10, stl10),
    FASHION_MNIST.name: (FASHION_MNIST, fashion_mnist),
}


def list_data() -> list[str]:
    """The names that load_data knows."""
    return ["digits", *_READERS]


def load_data(name: str, folder: str | Path | None = None, *, download: bool = True) -> DataSet:
    """A data set by name, whole in memory.

    Without a folder the files come from the cache, and if they are not there from the network (unless `download` is
    False); docs/data.md has the folders that are understood. Nothing is ever unpickled.

    Raises:
        ValueError: no such name, or a folder for the digits, which come with scikit-learn.
        DataError: files that are missing, of the wrong size or otherwise not what they should be, by name.
    """
    if name == "digits":
        if folder is not None:
            raise ValueError("digits come with scikit-learn and are not read from a folder")
        return digits()
    if name not in _READERS:
        raise ValueError(f"data is {name!r}, expected one of {', '.join(list_data())}")
    source, read = _READERS[name]
    return read(locate(source, folder, download=download))
