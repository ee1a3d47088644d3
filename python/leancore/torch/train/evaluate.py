"""`leancore evaluate`: how good a trained network is on the test images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from leancore.torch.train.checkpoint import CheckpointError
from leancore.torch.train.commands import add_checkpoint, count, fail
from leancore.torch.train.data import DataError, list_data
from leancore.torch.train.evaluation import evaluate_model
from leancore.torch.train.trained import Trained, load_trained


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for what cannot be read or does not fit, 2 (by SystemExit) for wrong options."""
    options = _parser().parse_args(list(arguments))
    try:
        report = evaluate(load_trained(options.checkpoint), options.data, options.data_folder, options.batch_size)
    except (CheckpointError, DataError, OSError, ValueError) as error:
        return fail("evaluate", error)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def evaluate(
    trained: Trained, data: str | None = None, data_folder: str | None = None, batch_size: int = 250
) -> dict[str, Any]:
    """Accuracies (0 to 1) and mean loss on the test images of a data set, by default that of the training.

    Raises:
        DataError: the data set cannot be read.
        ValueError: it does not fit the network.
    """
    test = trained.test_data(data, data_folder)
    evaluation = evaluate_model(trained.model, test, batch_size)
    return {
        "checkpoint": str(trained.path),
        "model": trained.name,
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "data": test.name,
        "test_images": len(evaluation.labels),
        "accuracy": evaluation.accuracy,
        "loss": evaluation.loss,
        "class_accuracies": dict(zip(test.classes, evaluation.class_accuracies(), strict=True)),
    }


def _print(report: dict[str, Any]) -> None:
    print(
        f"{report['model']} ({report['parameters']:,} parameters) on {report['test_images']:,} test images of "
        f"{report['data']}: accuracy {report['accuracy']:.2%}, loss {report['loss']:.4f}"
    )
    width = max(map(len, report["class_accuracies"]))
    for name, accuracy in report["class_accuracies"].items():
        print(f"  {name:<{width}}  {'no test image' if accuracy is None else f'{accuracy:7.2%}'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leancore evaluate",
        description="Accuracy, loss and the accuracy of each class, of a checkpoint on the test images.",
    )
    add_checkpoint(parser)
    parser.add_argument("--data", choices=list_data(), help="data set; left out: the one of the training")
    parser.add_argument("--data-folder", help="where its files are; left out: where the training found them")
    parser.add_argument("--batch-size", type=count, default=250, help="images at a time (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
