"""What a run shows and leaves behind: progress, metrics.csv, curves.png, config.yaml."""

from __future__ import annotations

import csv
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from leancore.torch.train.config import TrainConfig
from leancore.torch.train.data import DataSet


@dataclass(frozen=True)
class EpochRow:
    """One line of metrics.csv. Accuracies run from 0 to 1; `lr` is that of the last step; `step` counts all so far."""

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


class Report:
    """Opens the folder of a run; a context manager, so that the plot is drawn however the run ends.

    With a terminal it shows bars with the remaining time, without one a line for each epoch.
    """

    def __init__(self, config: TrainConfig, data: DataSet, parameters: int, steps_per_epoch: int) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        assert config.epochs is not None
        self.folder = _new_folder(config)
        # One scalar a line, each spelled as JSON, which YAML reads alike.
        settings = (f"{key}: {json.dumps(value)}\n" for key, value in config.as_dict().items())
        (self.folder / "config.yaml").write_text("".join(settings))
        self._title = f"{config.model} on {data.title}"
        self._epochs = config.epochs
        self._steps_per_epoch = steps_per_epoch
        self._rows: list[EpochRow] = []
        self._csv = (self.folder / "metrics.csv").open("w", newline="")
        self._writer = csv.DictWriter(self._csv, [f.name for f in dataclasses.fields(EpochRow)])
        self._writer.writeheader()
        self._began = time.perf_counter()

        self._console = Console(highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all = self._progress.add_task("all steps", total=config.epochs * steps_per_epoch, note="")
        self._this = self._progress.add_task("epoch", total=steps_per_epoch, note="")
        self._console.print(
            f"{self._title}: {parameters:,} parameters, {len(data.train):,} training and {len(data.test):,} test "
            f"images, {config.epochs} epochs of {steps_per_epoch} steps, in {self.folder}"
        )

    def __enter__(self) -> Report:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._csv.close()
        if self._rows:
            draw_curves(self._rows, self._title, self.folder / "curves.png")

    def step(self, loss: float) -> None:
        self._progress.advance(self._all)
        self._progress.update(self._this, advance=1, note=f"loss {loss:.4f}")

    def epoch(self, row: EpochRow) -> None:
        self._rows.append(row)
        self._writer.writerow(row.as_dict())
        self._csv.flush()
        left = (self.seconds() / row.epoch) * (self._epochs - row.epoch)
        self._progress.reset(self._this, note="")
        self._console.print(
            f"epoch {row.epoch:>{len(str(self._epochs))}}/{self._epochs}  train loss {row.train_loss:.4f} accuracy "
            f"{row.train_accuracy:.2%}  test loss {row.test_loss:.4f} accuracy {row.test_accuracy:.2%}  "
            f"{row.seconds:.1f} s, {_duration(left)} left"
        )

    def done(self, summary: str) -> None:
        self._progress.stop()
        self._console.print(f"{self._title}: {summary}")

    def seconds(self) -> float:
        return time.perf_counter() - self._began


def draw_curves(rows: list[EpochRow], title: str, path: Path) -> None:
    """Loss and accuracy over the epochs, of the training and of the test images."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    figure.suptitle(title)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    marker = "o" if len(rows) < 3 else ""
    for axes, what in ((loss_axes, "loss"), (accuracy_axes, "accuracy")):
        for split in ("train", "test"):
            axes.plot(epochs, [getattr(row, f"{split}_{what}") for row in rows], label=split, marker=marker)
        axes.set_xlabel("epoch")
        axes.set_ylabel(what)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _new_folder(config: TrainConfig) -> Path:
    if config.out is not None:
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder}: not empty; a run writes into a new or an empty folder")
        return folder
    stem = f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        folder = Path("runs") / (stem + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"runs/{stem}: a hundred runs began in the same second")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
