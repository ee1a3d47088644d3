"""For the tests of what is done with trainings: short runs on the digits, and a checkpoint made by hand."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from leancore.torch import create_model
from leancore.torch.train import Result, TrainConfig, load_checkpoint, save_checkpoint, train

# Of processes with a run of their own.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}

IMAGE_CLASSES = ("red", "green", "blue")


def digits_run(folder: Path, **options: Any) -> Result:
    """Two epochs of the small network on scikit-learn's digits."""
    return train(TrainConfig(**{"epochs": 2, "out": str(folder), **options}))


def metrics(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def outcome(folder: Path) -> tuple[str, list[str]]:
    """What a run that is repeated must repeat: a hash of the last weights, and metrics.csv without the seconds."""
    weights = load_checkpoint(folder / "last.json")[0]
    digest = hashlib.sha256(b"".join(weights[key].numpy().tobytes() for key in sorted(weights))).hexdigest()
    lines = (folder / "metrics.csv").read_text().splitlines()
    return digest, [line.rpartition(",")[0] for line in lines]


def checkpoint_by_hand(folder: Path, **about: Any) -> Path:
    """An untrained network of three classes for RGB images of 6 rows and 8 columns; `about` with None is left out."""
    torch.manual_seed(0)
    model = create_model(about.get("model", "lean_resnet_digits"), len(IMAGE_CLASSES), 3)
    described: dict[str, Any] = {
        "model": "lean_resnet_digits",
        "num_classes": len(IMAGE_CLASSES),
        "in_channels": 3,
        "image_size": [6, 8],
        "data": "digits",
        "classes": list(IMAGE_CLASSES),
        "normalisation": {"full_scale": 255.0, "mean": [0.5, 0.25, 0.125], "std": [0.25, 0.5, 0.75]},
    }
    described.update(about)
    return save_checkpoint(folder, "by-hand", model, {k: v for k, v in described.items() if v is not None})
