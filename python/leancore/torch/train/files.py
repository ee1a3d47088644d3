"""Files that are there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_file(path: str | Path, content: bytes | str) -> None:
    """Replace a file in one step: whenever a process dies, the old or the new content is there. Raises OSError."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """The value as indented JSON. Raises ValueError for a number that JSON does not know (NaN, infinity)."""
    write_file(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
