"""The figures of a run, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from leancore.torch.train.data import DataSet
from leancore.torch.train.evaluation import Mistake
from leancore.torch.train.files import write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from leancore.torch.train.progress import EpochRow

_MOST_NUMBERS = 20  # classes up to which the cells of a confusion matrix hold their numbers


def draw_curves(rows: Sequence[EpochRow], title: str, path: Path) -> None:
    """Loss and accuracy over the epochs, of the training and of the test images, and the learning rate."""
    figure = new_figure(12, 3.6, title)
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [row.epoch for row in rows]
    marker = "o" if len(rows) < 3 else ""
    for axes, what in ((loss, "loss"), (accuracy, "accuracy")):
        for split in ("train", "test"):
            axes.plot(epochs, [getattr(row, f"{split}_{what}") for row in rows], label=split, marker=marker)
        axes.set_ylabel(what)
        axes.legend()
    rate.plot(epochs, [row.lr for row in rows], marker=marker, color="grey")
    rate.set_ylabel("learning rate at the end of the epoch")
    for axes in (loss, accuracy, rate):
        over_epochs(axes)
    save_figure(figure, path)


def over_epochs(axes: Any) -> None:
    """Whole numbers of epochs from left to right, and a grid."""
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)


def draw_confusion(counts: Tensor, classes: Sequence[str], title: str, path: Path) -> None:
    """counts: (classes, classes), rows by true class. The colour is the share of the row."""
    n = len(classes)
    shares = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    side = min(12.0, 2.5 + 0.5 * n)
    figure = new_figure(side + 0.8, side, title)
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    size = "small" if n <= _MOST_NUMBERS else 4
    axes.set_xticks(range(n), classes, rotation=90, fontsize=size)
    axes.set_yticks(range(n), classes, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true class")
    if n <= _MOST_NUMBERS:
        for i, row in enumerate(counts.tolist()):
            for j, count in enumerate(row):
                if count:
                    color = "white" if shares[i, j] > 0.5 else "black"
                    axes.text(j, i, str(count), ha="center", va="center", fontsize="x-small", color=color)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    save_figure(figure, path)


def draw_mistakes(mistakes: Sequence[Mistake], data: DataSet, title: str, path: Path) -> None:
    """The images, each with its number among the test images, its true class and what it was taken for."""
    columns = 6
    rows = max(1, -(-len(mistakes) // columns))
    figure = new_figure(1.7 * columns, 2.1 * rows + 0.4, title)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.axis("off")
    for axes, mistake in zip(grid, mistakes, strict=False):
        _show(axes, data, mistake.index)
        axes.set_title(
            f"{data.classes[mistake.label]}, taken for\n{data.classes[mistake.predicted]} "
            f"({mistake.probability:.0%})\ntest image {mistake.index}",
            fontsize="x-small",
        )
    if not mistakes:
        figure.text(0.5, 0.5, "no test image is misclassified", ha="center", va="center")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the PNG file, in one step."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_file(path, content.getvalue())


def new_figure(width: float, height: float, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def _show(axes: Any, data: DataSet, index: int) -> None:
    image = data.test.images[index].float() / data.normalisation.full_scale
    if len(image) == 3:
        axes.imshow(image.permute(1, 2, 0).numpy())
    else:  # grey, or another number of channels, of which the mean is shown
        axes.imshow(image.mean(0).numpy(), cmap="grey", vmin=0, vmax=1)
