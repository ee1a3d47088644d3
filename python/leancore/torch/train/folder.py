"""The folder of a run."""

from __future__ import annotations

import json
import time
from pathlib import Path

from leancore.torch.train.config import TrainConfig
from leancore.torch.train.files import write_file


def open_folder(config: TrainConfig) -> Path:
    """A new folder for the run, or the one to resume in. Raises FileExistsError."""
    if config.out is None:
        return _new_folder(config.name or "run")
    folder = Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        if not config.resume:
            raise FileExistsError(
                f"{folder}: not empty; a run writes into a new or an empty folder, or resumes its own"
            )
        if not (folder / "config.yaml").exists():
            raise FileExistsError(f"{folder}: not the folder of a run, it has files but no config.yaml")
    return folder


def write_config(folder: Path, config: TrainConfig) -> None:
    """config.yaml: one option a line, each spelled as JSON, which YAML reads alike."""
    settings = (f"{key}: {json.dumps(value)}\n" for key, value in config.as_dict().items())
    write_file(folder / "config.yaml", "".join(settings))


def _new_folder(name: str) -> Path:
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for suffix in ("", *(f"-{i}" for i in range(2, 100))):
        folder = Path("runs") / (stem + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"runs/{stem}: a hundred runs began in the same second")
