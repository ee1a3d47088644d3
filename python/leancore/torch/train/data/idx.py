"""The IDX format of MNIST and its like: a magic number, the sizes of the dimensions, bytes."""

from __future__ import annotations

import math
from pathlib import Path

from leancore.torch.train.data.files import Bytes, check_size, read_bytes
from leancore.torch.train.data.sets import DataError

_UNSIGNED_BYTES = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> Bytes:
    """The array of an IDX file of unsigned bytes, plain or gzipped, that has to have this shape. Raises DataError."""
    header = 4 * (1 + len(shape))
    expected = header + math.prod(shape)
    content = read_bytes(path, expected)
    if content.size >= header:
        magic, *sizes = (int(number) for number in content[:header].view(">u4"))
        if magic != _UNSIGNED_BYTES << 8 | len(shape):
            raise DataError(
                f"{path}: its IDX magic number is 0x{magic:08x}, expected 0x{_UNSIGNED_BYTES << 8 | len(shape):08x} "
                f"(unsigned bytes, {len(shape)} dimensions)"
            )
        if tuple(sizes) != shape:
            raise DataError(f"{path}: an array of {tuple(sizes)}, expected {shape}")
    check_size(path, content, expected, f"a header of {header} and an array of {shape}")
    return content[header:].reshape(shape)
