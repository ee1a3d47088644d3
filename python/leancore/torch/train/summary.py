"""What a finished run leaves in its folder, beside the checkpoints and metrics.csv: figures and a summary.

summary.json is written last, so that it is there exactly when a run has finished.
"""

from __future__ import annotations

import csv
import io
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from leancore.torch.models import list_models, model_info
from leancore.torch.train.data import DataSet
from leancore.torch.train.environment import environment
from leancore.torch.train.evaluation import Evaluation, evaluate_model, multiply_adds
from leancore.torch.train.figures import draw_confusion, draw_curves, draw_mistakes
from leancore.torch.train.files import write_file, write_json
from leancore.torch.train.metrics import step_seconds

if TYPE_CHECKING:
    from leancore.torch.train.loop import Result
    from leancore.torch.train.progress import EpochRow

FORMAT = "leancore summary 1"
SHOWN_MISTAKES = 24


def write_summary(
    folder: str | Path,
    *,
    config: dict[str, Any],
    data: DataSet,
    model: nn.Module,
    rows: Sequence[EpochRow],
    result: Result,
) -> None:
    """Write curves.png, confusion.png and .csv, misclassified.png, summary.md and, last, summary.json.

    Args:
        folder: of the run, with config.yaml in it.
        config: the options of the run.
        model: the network after the last epoch (its averaged weights, if the run averages).
        rows: of all epochs.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    title = f"{config['model']} on {data.title}"
    evaluation = evaluate_model(model, data)
    draw_curves(rows, title, folder / "curves.png")
    counts = evaluation.confusion()
    write_file(folder / "confusion.csv", confusion_csv(counts, data.classes))
    draw_confusion(counts, data.classes, f"{title}: {evaluation.accuracy:.2%} correct", folder / "confusion.png")
    mistakes = evaluation.most_confident_mistakes(SHOWN_MISTAKES)
    draw_mistakes(mistakes, data, f"{title}: the most confident mistakes", folder / "misclassified.png")
    summary = summarise(config, data, model, rows, result, evaluation)
    write_file(folder / "summary.md", summary_markdown(summary))
    write_json(folder / "summary.json", summary)


def confusion_csv(counts: Tensor, classes: Sequence[str]) -> str:
    """A header with the predicted classes, then a line for each true class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true class", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    return text.getvalue()


def summarise(
    config: dict[str, Any],
    data: DataSet,
    model: nn.Module,
    rows: Sequence[EpochRow],
    result: Result,
    evaluation: Evaluation,
) -> dict[str, Any]:
    """The content of summary.json. Accuracies run from 0 to 1; times are in seconds."""
    name = config["model"]
    paper = model_info(name) if name in list_models() else None
    image_shape = list(data.test.images.shape[1:])
    last = rows[-1]
    return {
        "format": FORMAT,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "model": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "paper_parameters": paper and paper.paper_parameters,
        "paper_accuracy_percent": (paper.paper_accuracy or {}).get(data.name) if paper else None,
        "multiply_adds": multiply_adds(model, image_shape),
        "data": {
            "name": data.name,
            "title": data.title,
            "train_images": len(data.train.labels),
            "test_images": len(data.test.labels),
            "image_shape": image_shape,
            "classes": list(data.classes),
        },
        "test_accuracy": last.test_accuracy,
        "test_loss": last.test_loss,
        "train_accuracy": last.train_accuracy,
        "train_loss": last.train_loss,
        "best_test_accuracy": result.best_test_accuracy,
        "best_epoch": result.best_epoch,
        "class_accuracies": dict(zip(data.classes, evaluation.class_accuracies(), strict=True)),
        "epochs": len(rows),
        "steps": last.step,
        "seconds": result.seconds,
        "seconds_per_step": statistics.median(step_seconds([row.as_dict() for row in rows])),
        "config": config,
        "command": "leancore train --config config.yaml --out ANOTHER_FOLDER",
        "environment": environment(),
    }


def summary_markdown(summary: dict[str, Any]) -> str:
    """summary.json for people, with the figures beside it."""
    data, facts = summary["data"], summary["environment"]
    exact = f"{summary['parameters']:,}"
    if summary["paper_parameters"]:
        exact += f" (the paper: {summary['paper_parameters']})"
    accuracy = f"{summary['test_accuracy']:.2%}"
    if summary["paper_accuracy_percent"] is not None:
        accuracy += f" (the paper, after 300 epochs: {summary['paper_accuracy_percent']} %)"
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    table = {
        "test accuracy": accuracy,
        "best epoch": f"{summary['best_test_accuracy']:.2%} after epoch {summary['best_epoch']}; chosen on the test "
        "images, so no unbiased estimate",
        "test loss": f"{summary['test_loss']:.4f}",
        "training accuracy, loss": f"{summary['train_accuracy']:.2%}, {summary['train_loss']:.4f}",
        "parameters": exact,
        "multiply-adds of an image": f"{summary['multiply_adds']:,}",
        "images": f"{data['train_images']:,} for training, {data['test_images']:,} for testing, "
        + " x ".join(map(str, data["image_shape"])),
        "epochs, steps": f"{summary['epochs']:,}, {summary['steps']:,}",
        "time": f"{summary['seconds']:.1f} s; {1e3 * summary['seconds_per_step']:.1f} ms a step, test images included",
        "processor": f"{facts['processor']}, {facts['threads']} threads, device {facts['device']}",
        "software": f"{versions}, Python {facts['python']}, {facts['system']}",
        "commit": facts["commit"] or "not known",
    }
    options = (f"| {key} | {_cell(value)} |" for key, value in summary["config"].items())
    accuracies = (
        f"| {_cell(name)} | {'no test image' if value is None else f'{value:.2%}'} |"
        for name, value in summary["class_accuracies"].items()
    )
    return "\n".join(
        [
            f"# {summary['model']} on {data['title']}",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {_cell(value)} |" for key, value in table.items()),
            "",
            "![Loss, accuracy and learning rate](curves.png)",
            "",
            "| class | accuracy on the test images |",
            "|---|---|",
            *accuracies,
            "",
            "![Confusion matrix](confusion.png)",
            "",
            "![The most confident mistakes](misclassified.png)",
            "",
            "## Again",
            "",
            "In this folder:",
            "",
            f"    {summary['command']}",
            "",
            "| option | value |",
            "|---|---|",
            *options,
            "",
        ]
    )


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")
