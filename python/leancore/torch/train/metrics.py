"""metrics.csv, read back."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

_NEEDED = {"epoch", "step", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"}


def parse_metrics(text: str) -> list[dict[str, float]]:
    """The lines of a metrics.csv, one for each epoch. Raises ValueError for anything else."""
    rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(text.splitlines())]
    if not rows or not rows[0].keys() >= _NEEDED:
        raise ValueError("not the metrics.csv of a training run")
    return rows


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The same of a file. Raises OSError, and ValueError, which names the file."""
    try:
        return parse_metrics(Path(path).read_text())
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not the metrics.csv of a training run: {error}") from error


def step_seconds(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """Of each epoch, its time, test images included, by its number of steps."""
    before = [0.0, *(row["step"] for row in rows)]
    return [row["seconds"] / (row["step"] - start) for row, start in zip(rows, before, strict=False)]
