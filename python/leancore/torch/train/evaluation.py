"""What a network makes of the test images."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leancore.torch.train.data import DataSet, test_batches


@dataclass(frozen=True)
class Evaluation:
    """The scores (N, classes) of N test images, float64, and their labels (N,), both in the order of the files."""

    scores: Tensor
    labels: Tensor

    @property
    def loss(self) -> float:
        """Mean cross entropy."""
        return F.cross_entropy(self.scores, self.labels).item()

    @property
    def predicted(self) -> Tensor:
        """int64 (N,)"""
        return self.scores.argmax(1)

    @property
    def accuracy(self) -> float:
        """0 to 1"""
        return int((self.predicted == self.labels).sum()) / len(self.labels)

    def confusion(self) -> Tensor:
        """int64 (classes, classes): how many images of the class of the row were taken for that of the column."""
        classes = self.scores.shape[1]
        return torch.bincount(self.labels * classes + self.predicted, minlength=classes**2).view(classes, classes)

    def class_accuracies(self) -> list[float | None]:
        """Of each class, 0 to 1; None where there is no test image of it."""
        counts = self.confusion()
        return [
            right / total if total else None
            for right, total in zip(counts.diagonal().tolist(), counts.sum(1).tolist(), strict=True)
        ]

    def most_confident_mistakes(self, count: int) -> list[Mistake]:
        """The misclassified images, those of the highest probability first."""
        probability, predicted = self.scores.softmax(1).max(1)
        wrong = (predicted != self.labels).nonzero().flatten()
        order = wrong[probability[wrong].argsort(descending=True, stable=True)][:count]
        return [
            Mistake(i, int(self.labels[i]), int(predicted[i]), float(probability[i])) for i in map(int, order.tolist())
        ]


@dataclass(frozen=True)
class Mistake:
    index: int  # of the test image
    label: int
    predicted: int
    probability: float  # of the predicted class, by the network's softmax


@torch.no_grad()
def evaluate_model(model: nn.Module, data: DataSet, batch_size: int = 250) -> Evaluation:
    """Run the model, in eval mode, over the test images. Leaves it in the mode that it was in."""
    like = next(model.parameters())
    training = model.training
    model.eval()
    try:
        batches = [(model(images.to(like)).double().cpu(), labels) for images, labels in test_batches(data, batch_size)]
    finally:
        model.train(training)
    return Evaluation(torch.cat([scores for scores, _ in batches]), torch.cat([labels for _, labels in batches]))


def multiply_adds(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Of one forward pass on one image (channels, *spatial), counted by torch: convolutions and matrix products."""
    counted = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        counted(torch.empty(1, *image_shape, dtype=next(counted.parameters()).dtype, device="meta"))
    return int(counter.get_total_flops()) // 2
