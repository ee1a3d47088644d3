"""A trained network as the commands evaluate, predict and export want it: a checkpoint, checked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from leancore.torch.train.checkpoint import CheckpointError, load_model
from leancore.torch.train.data import DataSet, Normalisation, load_data


@dataclass(frozen=True)
class Trained:
    """A network in eval mode and what it was trained on."""

    path: Path
    model: nn.Module
    name: str
    data: str  # name of the data set
    data_folder: str | None  # where the run found it
    classes: tuple[str, ...]
    in_channels: int
    image_size: tuple[int, ...]
    normalisation: Normalisation

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(channels, *spatial)"""
        return (self.in_channels, *self.image_size)

    def test_data(self, name: str | None = None, folder: str | None = None) -> DataSet:
        """A data set (by default that of the training) normalised as the network is used to it.

        Raises:
            DataError: it cannot be read.
            ValueError: it has other classes or other images than the network.
        """
        if name is None and folder is None:
            folder = self.data_folder
        data = load_data(name or self.data, folder)
        if data.classes != self.classes:
            raise ValueError(
                f"{self.path}: a network for {_list(self.classes)}, but the classes of {data.name} are "
                f"{_list(data.classes)}"
            )
        shape = tuple(data.test.images.shape[1:])
        if shape != self.image_shape:
            raise ValueError(
                f"{self.path}: a network for images of shape {self.image_shape}, but those of {data.name} are {shape}"
            )
        return dataclasses.replace(data, normalisation=self.normalisation)


def load_trained(path: str | Path) -> Trained:
    """Read a checkpoint of a training run. Raises CheckpointError, which names the file."""
    model, about = load_model(path)
    try:
        normalisation = about["normalisation"]
        size = about["image_size"]
        return Trained(
            path=Path(path),
            model=model,
            name=str(about["model"]),
            data=str(about["data"]),
            data_folder=about.get("config", {}).get("data_folder"),
            classes=tuple(about["classes"]),
            in_channels=int(about["in_channels"]),
            image_size=(size, size) if isinstance(size, int) else tuple(map(int, size)),
            normalisation=Normalisation(
                float(normalisation["full_scale"]), tuple(normalisation["mean"]), tuple(normalisation["std"])
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: not the checkpoint of a training run: {error!r} in what it says") from error


def _list(classes: tuple[str, ...]) -> str:
    shown: list[Any] = [*classes[:4], *(["..."] if len(classes) > 4 else [])]
    return f"{len(classes)} classes ({', '.join(shown)})"
