"""Reading files that have to be of one size, plain or gzipped; what is wrong with them is said by name."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from leancore.torch.train.data.sets import DataError

Bytes = npt.NDArray[np.uint8]


def read_bytes(path: Path, at_most: int) -> Bytes:
    """The bytes of a file, unpacked if its name ends in .gz, and one more than `at_most` if there are more."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return np.frombuffer(file.read(at_most + 1), np.uint8)
    except FileNotFoundError:
        raise DataError(f"{path}: missing") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_exactly(path: Path, expected: int, made_of: str) -> Bytes:
    """The bytes of a file that has to have so many. Raises DataError, with what they are made of."""
    content = read_bytes(path, expected)
    check_size(path, content, expected, made_of)
    return content


def check_size(path: Path, content: Bytes, expected: int, made_of: str) -> None:
    if content.size != expected:
        found = f"more than {expected:,}" if content.size > expected else f"{content.size:,}"
        raise DataError(f"{path}: {found} bytes, expected {expected:,} ({made_of})")


def check_labels(path: Path, labels: Bytes, first: int, last: int, what: str = "label") -> None:
    """Raises DataError for a label outside of `first` to `last`, with the number of its record, counted from 0."""
    wrong = (labels < first) | (labels > last)
    if wrong.any():
        record = int(wrong.argmax())
        raise DataError(f"{path}: record {record} has {what} {labels[record]}, expected {first} to {last}")
