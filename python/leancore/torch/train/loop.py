"""The training loop, visible from the first line to the last; Lightning Fabric carries it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leancore.torch.models import create_model
from leancore.torch.train.checkpoint import save_checkpoint
from leancore.torch.train.config import TrainConfig
from leancore.torch.train.data import DataSet, load_data, steps_per_epoch, test_batches, train_batches
from leancore.torch.train.report import EpochRow, Report


class TrainingDiverged(Exception):
    """The loss is not a finite number any more; the text gives the step and the learning rate."""


@dataclass(frozen=True)
class Result:
    test_accuracy: float  # after the last epoch, 0 to 1
    best_test_accuracy: float
    best_epoch: int
    parameters: int
    seconds: float
    folder: Path

    def __str__(self) -> str:
        return (
            f"test accuracy {self.test_accuracy:.2%} (best {self.best_test_accuracy:.2%} after epoch "
            f"{self.best_epoch}), {self.parameters:,} parameters, {self.seconds:.1f} s"
        )


def train(config: TrainConfig) -> Result:
    """Run a training and write its folder: config.yaml, metrics.csv, curves.png, checkpoints `best` and `last`.

    The figures are those of the test images, and `best` is chosen by them: it is the best epoch on this test set and
    no unbiased estimate. Training accuracy and loss are means over the epoch, of augmented images, in training mode.
    The same seed gives the same run to the last bit on the same machine with the same packages and number of threads.

    Raises:
        ValueError: an option that makes no sense.
        DataError: files of the data set are missing or damaged.
        FileExistsError: `out` is not empty.
        TrainingDiverged: a loss that is not finite; the checkpoints of the epochs before are there.
    """
    from lightning_fabric import Fabric

    config = config.resolved()
    assert config.model
    assert config.epochs
    assert config.batch_size
    data = load_data(config.data, config.data_folder)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    torch.manual_seed(config.seed)

    network = create_model(config.model, len(data.classes), data.train.images.shape[1])
    parameters = sum(p.numel() for p in network.parameters())
    augmentation = data.augmentation if config.augment else None
    steps = steps_per_epoch(data, config.batch_size)
    if steps == 0:
        raise ValueError(f"{data.title} has too few training images ({len(data.train)})")
    model, optimizer = fabric.setup(network, _optimizer(config, network))
    learning_rate = _schedule(config, steps)

    def about(row: EpochRow) -> dict[str, Any]:
        return {
            "model": config.model,
            "num_classes": len(data.classes),
            "in_channels": data.train.images.shape[1],
            "parameters": parameters,
            "data": data.name,
            "classes": list(data.classes),
            "normalisation": vars(data.normalisation),
            "metrics": row.as_dict(),
        }

    with Report(config, data, parameters, steps_per_epoch=steps) as report:
        step, best, best_epoch, accuracy = 0, -1.0, 0, 0.0
        for epoch in range(1, config.epochs + 1):
            began = time.perf_counter()
            model.train()
            total_loss, correct, seen = 0.0, 0, 0
            for images, labels in train_batches(
                data, batch_size=config.batch_size, seed=config.seed, epoch=epoch, augmentation=augmentation
            ):
                lr = learning_rate(step)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                scores = model(images)
                loss = F.cross_entropy(scores, labels)
                value = loss.item()
                step += 1
                if not math.isfinite(value):
                    raise TrainingDiverged(f"the loss is {value} at step {step} (epoch {epoch}), learning rate {lr:g}")
                fabric.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                total_loss += value * len(labels)
                correct += _count_correct(scores, labels)
                seen += len(labels)
                report.step(value)
            test_loss, accuracy = evaluate(model, data, config.batch_size)
            row = EpochRow(
                epoch=epoch,
                step=step,
                lr=lr,
                train_loss=total_loss / seen,
                train_accuracy=correct / seen,
                test_loss=test_loss,
                test_accuracy=accuracy,
                seconds=time.perf_counter() - began,
            )
            report.epoch(row)
            # `best` first: where `last` of an epoch is there, so is what it says about the best.
            if accuracy > best:
                best, best_epoch = accuracy, epoch
                save_checkpoint(report.folder, "best", network, about(row))
            save_checkpoint(report.folder, "last", network, about(row))
        result = Result(accuracy, best, best_epoch, parameters, report.seconds(), report.folder)
        report.done(str(result))
    return result


@torch.no_grad()
def evaluate(model: nn.Module, data: DataSet, batch_size: int) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) on the test images. Leaves the model in eval mode."""
    model.eval()
    loss, correct = 0.0, 0
    for images, labels in test_batches(data, batch_size):
        scores = model(images)
        loss += F.cross_entropy(scores, labels, reduction="sum").item()
        correct += _count_correct(scores, labels)
    return loss / len(data.test), correct / len(data.test)


def _count_correct(scores: Tensor, labels: Tensor) -> int:
    return int((scores.argmax(1) == labels).sum())


def _optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    assert config.lr
    if config.optimizer == "adam":
        return torch.optim.Adam(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        network.parameters(), lr=config.lr, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )


def _schedule(config: TrainConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of a step, counted from 0."""
    assert config.lr
    assert config.epochs
    peak = config.lr
    if config.schedule == "constant":
        return lambda step: peak
    if config.schedule == "paper":
        return lambda step: peak * 0.5 ** (step // steps_per_epoch // 75)

    total = config.epochs * steps_per_epoch
    rise = 0.3 * total

    def onecycle(step: int) -> float:
        # Half a cosine from peak / 25 to peak in the first 30 % of the steps, another one down to peak / 250,000.
        if step < rise:
            low, part = peak / 25, 1 - step / rise
        else:
            low, part = peak / 250_000, (step - rise) / (total - rise)
        return low + (peak - low) * (1 + math.cos(math.pi * part)) / 2

    return onecycle
