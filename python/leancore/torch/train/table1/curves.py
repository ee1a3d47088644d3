"""The curves of several runs in one figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from leancore.torch.train.figures import new_figure, over_epochs, save_figure


def draw_runs(runs: Mapping[str, list[dict[str, float]]], path: str | Path, title: str = "") -> None:
    """Training loss and test accuracy over the epochs; one colour for each run, by its label."""
    figure = new_figure(10, 4, title)
    loss, accuracy = figure.subplots(1, 2)
    for label, rows in runs.items():
        epochs = [row["epoch"] for row in rows]
        marker = "o" if len(rows) < 3 else "."
        loss.plot(epochs, [row["train_loss"] for row in rows], marker=marker, label=label)
        accuracy.plot(epochs, [100 * row["test_accuracy"] for row in rows], marker=marker, label=label)
    loss.set_ylabel("training loss")
    accuracy.set_ylabel("test accuracy, %")
    for axes in (loss, accuracy):
        over_epochs(axes)
    accuracy.legend()
    save_figure(figure, Path(path))
