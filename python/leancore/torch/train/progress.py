"""What a run shows while it lasts: lines and bars on the console, metrics.csv, TensorBoard."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


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


class Progress:
    """Of one run; a context manager. A process that is not to show or write anything gets `folder` None.

    With a terminal it shows bars with the remaining time, without one a line for each epoch.
    """

    def __init__(
        self, folder: Path | None, title: str, *, epochs: int, steps_per_epoch: int, tensorboard: bool = False
    ) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        self._folder = folder
        self._title = title
        self._epochs = epochs
        self._steps = steps_per_epoch
        self._tensorboard = tensorboard and folder is not None and importlib.util.find_spec("tensorboard") is not None
        self._events: Any = None
        self._console = Console(highlight=False, soft_wrap=True, quiet=folder is None)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=folder is None or not self._console.is_terminal,
        )
        self._all = self._bars.add_task("all steps", total=epochs * steps_per_epoch, note="")
        self._this = self._bars.add_task("epoch", total=steps_per_epoch, note="")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if self._events is not None:
            self._events.close()

    def begin(self, text: str, rows: Sequence[EpochRow], step: int) -> None:
        """Say what begins, or goes on after these epochs and this step: metrics.csv then holds just these rows."""
        self._console.print(f"{self._title}: {text}")
        self._bars.update(self._all, completed=step)
        self._bars.update(self._this, completed=step - len(rows) * self._steps)
        if self._folder is None:
            return
        with (self._folder / "metrics.csv").open("w", newline="") as file:
            csv.DictWriter(file, [field.name for field in dataclasses.fields(EpochRow)]).writeheader()
        for row in rows:
            self._write(row)
        if self._tensorboard:
            tensorboard = importlib.import_module("torch.utils.tensorboard")
            # Events after this step, of an earlier session that was killed, are taken back.
            self._events = tensorboard.SummaryWriter(
                str(self._folder / "tensorboard"), purge_step=step + 1 if step else None
            )

    def step(self, loss: float) -> None:
        self._bars.advance(self._all)
        self._bars.update(self._this, advance=1, note=f"loss {loss:.4f}")

    def epoch(self, row: EpochRow, seconds_so_far: float) -> None:
        """Append a row; `seconds_so_far` are those of all epochs, of earlier sessions of a resumed run too."""
        if self._folder is not None:
            self._write(row)
        if self._events is not None:
            for name, value in row.as_dict().items():
                if name not in ("epoch", "step"):
                    self._events.add_scalar(name.replace("_", "/", 1), value, row.step)
            self._events.flush()
        left = seconds_so_far / row.epoch * (self._epochs - row.epoch)
        self._bars.reset(self._this, note="")
        self._console.print(
            f"epoch {row.epoch:>{len(str(self._epochs))}}/{self._epochs}  train loss {row.train_loss:.4f} accuracy "
            f"{row.train_accuracy:.2%}  test loss {row.test_loss:.4f} accuracy {row.test_accuracy:.2%}  "
            f"{row.seconds:.1f} s, {_duration(left)} left"
        )

    def end(self, text: str) -> None:
        self._bars.stop()
        self._console.print(f"{self._title}: {text}")

    def _write(self, row: EpochRow) -> None:
        assert self._folder is not None
        with (self._folder / "metrics.csv").open("a", newline="") as file:
            csv.DictWriter(file, list(row.as_dict())).writerow(row.as_dict())


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
