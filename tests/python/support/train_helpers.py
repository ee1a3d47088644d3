"""For the tests of training: what a run left."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

from leancore.torch.train import load_checkpoint

# Of processes with a run of their own.
ENVIRONMENT = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}


def rows(folder: Path) -> list[dict[str, float]]:
    """metrics.csv"""
    with (folder / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def outcome(folder: Path) -> tuple[str, list[str]]:
    """What a run that is repeated must repeat: a hash of the last weights, and metrics.csv without the seconds."""
    weights = load_checkpoint(folder / "last.json")[0]
    digest = hashlib.sha256(b"".join(weights[key].numpy().tobytes() for key in sorted(weights))).hexdigest()
    lines = (folder / "metrics.csv").read_text().splitlines()
    return digest, [line.rpartition(",")[0] for line in lines]
