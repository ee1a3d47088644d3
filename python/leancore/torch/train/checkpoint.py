"""Checkpoints: the weights of a model and what they are, on disk either whole or not at all.

A checkpoint NAME in a folder is two files. NAME-<hash>.safetensors holds the parameters and buffers of the model;
NAME.json names that file with its size and SHA-256 and says what the weights are: the model, the data, how images are
normalised, and the figures of the epoch. It does not hold the state of the optimizer: a run cannot be resumed from it.

Each file is written under a temporary name, flushed to the disk, and renamed. The JSON file comes last and is the
moment at which the new checkpoint replaces the old one: whenever a process dies, NAME.json names a complete file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

_FORMAT = "leancore checkpoint 1"


class CheckpointError(Exception):
    """A checkpoint cannot be read or is damaged; the text names the file."""


def save_checkpoint(folder: str | Path, name: str, model: nn.Module, about: dict[str, Any]) -> Path:
    """Write the checkpoint `name` and return the path of its JSON file.

    Replaces an earlier checkpoint of this name, and removes its weights and what an interrupted save left behind.
    `about` must be what JSON can hold. Raises OSError (a full disk, say) with the earlier checkpoint intact.
    """
    import safetensors.torch

    folder = Path(folder)
    weights = safetensors.torch.save({k: v.detach().contiguous() for k, v in model.state_dict().items()})
    digest = hashlib.sha256(weights).hexdigest()
    weights_file = f"{name}-{digest[:16]}.safetensors"
    _write(folder / weights_file, weights)
    record = {
        "format": _FORMAT,
        "weights": {"file": weights_file, "bytes": len(weights), "sha256": digest},
        "about": about,
    }
    path = folder / f"{name}.json"
    _write(path, _encode(record))
    for stale in folder.glob(f"{name}-{'[0-9a-f]' * 16}.safetensors*"):
        if stale.name != weights_file:
            stale.unlink(missing_ok=True)
    return path


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint from its JSON file: (weights by name, what save_checkpoint was told about them).

    Both files are checked against their SHA-256, so any changed bit is found. Nothing in them is executed. Raises
    CheckpointError, which names the file.
    """
    import safetensors
    import safetensors.torch

    path = Path(path)
    record = _decode(path)
    entry = record["weights"]
    weights_file = path.parent / entry["file"]
    weights = _read(weights_file)
    if len(weights) != entry["bytes"]:
        raise CheckpointError(f"{weights_file}: {len(weights):,} bytes, expected {entry['bytes']:,}")
    if hashlib.sha256(weights).hexdigest() != entry["sha256"]:
        raise CheckpointError(f"{weights_file}: damaged, its SHA-256 is not the one in {path.name}")
    try:
        return safetensors.torch.load(weights), record["about"]
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{weights_file}: not a safetensors file: {error}") from error


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a training run's checkpoint, with its weights, in eval mode; and what is known about it.

    Feed it (byte / full_scale - mean) / std with the figures of about["normalisation"]. Raises CheckpointError.
    """
    from leancore.torch.models import create_model

    weights, about = load_checkpoint(path)
    try:
        model = create_model(about["model"], about["num_classes"], about["in_channels"])
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not the weights of a model of this version: {error}") from error
    return model.eval(), about


def _encode(record: dict[str, Any]) -> bytes:
    """JSON with the hash of the rest in its last entry; one record has exactly one spelling."""
    body = json.dumps(record, indent=2, sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**record, "sha256": digest}, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _decode(path: Path) -> dict[str, Any]:
    raw = _read(path)
    damaged = CheckpointError(f"{path}: damaged or edited, its SHA-256 does not match")
    try:
        record: dict[str, Any] = json.loads(raw)
        del record["sha256"]
        intact = _encode(record) == raw
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged from None
    if not intact:
        raise damaged
    entry = record.get("weights")
    if (
        record.get("format") != _FORMAT
        or not isinstance(entry, dict)
        or not {"file", "bytes", "sha256"} <= entry.keys()
    ):
        raise CheckpointError(f"{path}: not a checkpoint of this version, expected the format {_FORMAT!r}")
    if not re.fullmatch(r"[\w.-]+\.safetensors", str(entry["file"])):
        raise CheckpointError(f"{path}: names a weights file outside of its folder: {entry['file']}")
    return record


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    """Replace a file in one step: after a crash, the old or the new content is there."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
