"""Training steps of all systems, side by side in one process, so that every system sees the same machine."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

import leancore
from leancore.bench.timing import Turn, interleave
from leancore.torch.train.config import TrainConfig
from leancore.torch.train.data import DataSet, load_data, train_batches
from leancore.torch.train.files import write_file
from leancore.torch.train.parts import in_layout, make_network, make_optimizer
from leancore.torch.train.processes import launch

FILE = "timing.csv"


def measure(runs: Sequence[TrainConfig], rounds: int) -> dict[str, list[float]]:
    """Seconds of training steps by model: `rounds` of them each, in turns, on one batch of the training images.

    A step is forward, loss, backward and optimizer, with the batch in memory, in the precision and layout of the runs;
    neither augmentation nor averaging of weights.
    """
    data = load_data(runs[0].data, runs[0].data_folder)
    threads = leancore.max_threads()
    samples = interleave([Turn(_step(config, data), threads) for config in runs], 0.0, at_least=rounds)
    return {str(config.model): seconds for config, seconds in zip(runs, samples, strict=True)}


def _step(config: TrainConfig, data: DataSet) -> Callable[[], None]:
    """A training step of a resolved configuration."""
    assert config.batch_size
    fabric = launch(config)
    network = make_network(config, data)
    images, labels = next(train_batches(data, batch_size=config.batch_size, seed=config.seed, epoch=1))
    images = in_layout(images, config)
    stepped = cast(nn.Module, torch.compile(network)) if config.compile else network
    model, optimizer = fabric.setup(stepped, make_optimizer(config, network))
    model.train()

    def step() -> None:
        loss = F.cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def write(samples: Mapping[str, Sequence[float]], folder: str | Path) -> None:
    """timing.csv: a line for each step."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["round", "model", "seconds"])
    for number, seconds in enumerate(zip(*samples.values(), strict=True), 1):
        writer.writerows([number, model, value] for model, value in zip(samples, seconds, strict=True))
    write_file(Path(folder) / FILE, text.getvalue())


def read(folder: str | Path) -> dict[str, list[float]]:
    """Seconds by model; empty where nothing was timed. Raises ValueError, which names the file, and OSError."""
    path = Path(folder) / FILE
    samples: dict[str, list[float]] = {}
    if path.exists():
        try:
            for row in csv.DictReader(path.read_text().splitlines()):
                samples.setdefault(row["model"], []).append(float(row["seconds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a table of step times: {error}") from error
    return samples


def copy(source: str | Path, target: str | Path) -> None:
    """The file, if there is one."""
    path = Path(source) / FILE
    if path.exists():
        write_file(Path(target) / FILE, path.read_bytes())
