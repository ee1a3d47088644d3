"""Checkpoints: the weights of a model and what they are, on disk either whole or not at all.

A checkpoint NAME in a folder is NAME.json and the files that it names with their size and SHA-256.
NAME-<hash>.safetensors holds the parameters and buffers of the model, for use; NAME.json says what they are: the model,
the data, how images are normalised, and the figures of the epoch. A checkpoint from which a run can be resumed has
NAME-state-<hash>.safetensors too, with whatever else the training needs as tensors; its numbers are in NAME.json.

Each file is written under a temporary name, flushed to the disk, and renamed. The JSON file comes last and is the
moment at which the new checkpoint replaces the old one: whenever a process dies, NAME.json names a complete file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from leancore.torch.train.files import write_file

_FORMAT = "leancore checkpoint 2"
_FORMATS = (_FORMAT, "leancore checkpoint 1")  # that of 1 has no state


@dataclass(frozen=True)
class State:
    """What a training needs beside the weights to go on as if it had not stopped."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]  # what JSON can hold; floating-point numbers come back with the same bits


class CheckpointError(Exception):
    """A checkpoint cannot be read or is damaged; the text names the file."""


def save_checkpoint(
    folder: str | Path, name: str, model: nn.Module, about: dict[str, Any], state: State | None = None
) -> Path:
    """Write the checkpoint `name` and return the path of its JSON file.

    Replaces an earlier checkpoint of this name, and removes its files and what an interrupted save left behind.
    `about` must be what JSON can hold. Raises OSError (a full disk, say) with the earlier checkpoint intact.
    """
    folder = Path(folder)
    record: dict[str, Any] = {
        "format": _FORMAT,
        "about": about,
        "weights": _write_tensors(folder, name, model.state_dict()),
    }
    if state is not None:
        record["state"] = _write_tensors(folder, f"{name}-state", state.tensors)
        record["values"] = state.values
    path = folder / f"{name}.json"
    write_file(path, _encode(record))
    current = {record[part]["file"] for part in ("weights", "state") if part in record}
    for stem in (name, f"{name}-state"):
        for stale in folder.glob(f"{stem}-{'[0-9a-f]' * 16}.safetensors*"):
            if stale.name not in current:
                stale.unlink(missing_ok=True)
    return path


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint from its JSON file: (weights by name, what save_checkpoint was told about them).

    Both files are checked against their SHA-256, so any changed bit is found. Nothing in them is executed. Raises
    CheckpointError, which names the file.
    """
    path = Path(path)
    record = _decode(path)
    return _read_tensors(path, record["weights"]), record["about"]


def load_state(path: str | Path) -> State:
    """The state that a checkpoint holds beside the weights. Raises CheckpointError, also if it holds none."""
    path = Path(path)
    record = _decode(path)
    if "state" not in record:
        raise CheckpointError(f"{path}: holds no state of a training; only `last` can be resumed from")
    return State(_read_tensors(path, record["state"]), record["values"])


def load_model(path: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The model of a training run's checkpoint, with its weights, in eval mode; and what is known about it.

    Feed it (byte / full_scale - mean) / std with the figures of about["normalisation"]. Raises CheckpointError.
    """
    from leancore.torch.models import create_model

    weights, about = load_checkpoint(path)
    try:
        model = create_model(
            about["model"], about["num_classes"], about["in_channels"], **(about.get("model_options") or {})
        )
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not the weights of a model of this version: {error}") from error
    return model.eval(), about


def _write_tensors(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    import safetensors.torch

    content = safetensors.torch.save({k: v.detach().contiguous() for k, v in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    file = f"{stem}-{digest[:16]}.safetensors"
    write_file(folder / file, content)
    return {"file": file, "bytes": len(content), "sha256": digest}


def _read_tensors(path: Path, entry: dict[str, Any]) -> dict[str, Tensor]:
    import safetensors
    import safetensors.torch

    file = path.parent / entry["file"]
    content = _read(file)
    if len(content) != entry["bytes"]:
        raise CheckpointError(f"{file}: {len(content):,} bytes, expected {entry['bytes']:,}")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise CheckpointError(f"{file}: damaged, its SHA-256 is not the one in {path.name}")
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file: {error}") from error


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
    entries = [record.get("weights"), *([record["state"]] if "state" in record else [])]
    if record.get("format") not in _FORMATS or not all(
        isinstance(entry, dict) and {"file", "bytes", "sha256"} <= entry.keys() for entry in entries
    ):
        raise CheckpointError(f"{path}: not a checkpoint of this version, expected the format {_FORMAT!r}")
    for entry in entries:
        if not re.fullmatch(r"[\w.-]+\.safetensors", str(entry["file"])):
            raise CheckpointError(f"{path}: names a weights file outside of its folder: {entry['file']}")
    return record


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
