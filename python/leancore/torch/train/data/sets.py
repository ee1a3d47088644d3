"""What a data set is: images as bytes, labels, class names, how to normalise and how to augment."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leancore.torch.train.data.augment import Augmentation


class DataError(Exception):
    """The files of a data set are missing or are not what they should be; the text names the file."""


@dataclass(frozen=True)
class Split:
    """Images and their labels, whole in memory.

    images: uint8 (N, channels, *spatial); labels: int64 (N,), counted from 0. Raises ValueError for other arrays.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() < 3:
            raise ValueError(
                f"images are {self.images.dtype} {tuple(self.images.shape)}, expected uint8 (N, channels, *spatial)"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels are {self.labels.dtype} {tuple(self.labels.shape)}, expected int64 ({len(self.images)},)"
            )

    def __len__(self) -> int:
        return self.labels.shape[0]


@dataclass(frozen=True)
class Normalisation:
    """What a network is fed: (byte / full_scale - mean) / std, per channel."""

    full_scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """images: uint8 (N, channels, *spatial); the result is float32 of the same shape."""
        # One multiply and one add.
        per_channel = (-1, *(1,) * (images.dim() - 2))
        scale = torch.tensor([1 / (self.full_scale * s) for s in self.std]).view(per_channel)
        shift = torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(per_channel)
        return images.float().mul_(scale).add_(shift)


@dataclass(frozen=True)
class DataSet:
    """A data set by hand works like one by name. Raises ValueError where the parts do not fit together."""

    name: str  # as in list_data()
    title: str  # as in print
    classes: tuple[str, ...]  # by label
    train: Split
    test: Split
    normalisation: Normalisation
    augmentation: Augmentation  # the usual one for these images; train_batches uses it when told to

    def __post_init__(self) -> None:
        shape = self.train.images.shape[1:]
        if self.test.images.shape[1:] != shape:
            raise ValueError(
                f"test images are {tuple(self.test.images.shape[1:])}, expected {tuple(shape)} as the training images"
            )
        channels = {shape[0], len(self.normalisation.mean), len(self.normalisation.std)}
        if len(channels) != 1:
            raise ValueError(f"{shape[0]} channels, expected as many means and standard deviations")
        for what, labels in (("training", self.train.labels), ("test", self.test.labels)):
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
                raise ValueError(
                    f"{what} labels from {int(labels.min())} to {int(labels.max())}, expected 0 to "
                    f"{len(self.classes) - 1}, one for each class name"
                )
