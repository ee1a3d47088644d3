"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_file(path: str | Path, content: bytes | str) -> None:
    """Replace a file in one step: whenever a process or the machine dies, the old or the new content is there.

    Raises OSError with the old content intact.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")  # what a killed process left there is overwritten
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
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


def write_json(path: str | Path, value: Any) -> None:
    """The value as indented JSON. Raises ValueError for a number that JSON does not know (NaN, infinity)."""
    write_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
