"""Calls the handlers for XLA without XLA; needs the headers of a jaxlib and a C++ compiler (see xla_frame.cpp)."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from helpers import REPOSITORY, SUPPORT
from leancore import _core

_TYPES = {"float16": 10, "float32": 11, "float64": 12, "bfloat16": 16}
_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t)
_FREE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class _Given(ctypes.Structure):
    _fields_ = (
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("data", ctypes.c_void_p),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
    )


class Buffer(NamedTuple):
    """One of XLA's arrays: compact, at an address of the device."""

    dtype: str
    shape: tuple[int, ...]
    address: int


class Outcome(NamedTuple):
    code: int  # of the error; 0: there was none
    message: str
    allocated: int  # bytes of scratch memory
    freed: int
    errors: int  # that are still there


@functools.cache
def _library() -> ctypes.CDLL:
    jax = pytest.importorskip("jax")
    compiler = os.environ.get("CXX", "c++")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "xla_frame.so"
        command = [compiler, "-std=c++20", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library)]
        includes = [f"-isystem{jax.ffi.include_dir()}", f"-I{REPOSITORY / 'bindings'}"]
        done = subprocess.run(
            [*command, *includes, str(SUPPORT / "xla_frame.cpp")], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return ctypes.CDLL(str(library))


def _handler(platform: str, name: str) -> ctypes.c_void_p:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.c_void_p(get(_core.xla_handlers()[platform][name], None))


def execute(
    platform: str,
    name: str,
    arguments: Sequence[Buffer],
    results: Sequence[Buffer],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    stream: int = 0,
    device: int = 0,
    allocate: Any = None,
    free: Any = None,
) -> Outcome:
    """Run a handler once. `allocate(pointer to an address, bytes)` and `free(address)` return 0, or an error."""

    def given(buffers: Sequence[Buffer]) -> Any:
        rows = [
            _Given(_TYPES[b.dtype], len(b.shape), b.address, (ctypes.c_int64 * len(b.shape))(*b.shape)) for b in buffers
        ]
        return (_Given * len(rows))(*rows)

    def axes(values: Sequence[int]) -> Any:
        return (ctypes.c_int64 * len(values))(*values)

    memory, message = (ctypes.c_int64 * 3)(), ctypes.c_char_p(b"")
    code = _library().xla_frame_execute(
        _handler(platform, name),
        given(arguments), ctypes.c_int64(len(arguments)), given(results), ctypes.c_int64(len(results)),
        axes(stride), axes(dilation), ctypes.c_int64(len(stride)), ctypes.c_void_p(stream), ctypes.c_int32(device),
        _ALLOCATE(allocate or (lambda address, size: 1)), _FREE(free or (lambda address: 1)),
        memory, ctypes.byref(message),
    )  # fmt: skip
    return Outcome(code, (message.value or b"").decode(), *memory)


def describe(platform: str, name: str, *, missing: int = 0) -> tuple[int, str, int]:
    """Code and text of the error, and the traits, that a handler answers when it is registered.

    Args:
        platform, name: of the handler.
        missing: functions that the runtime, an older one, does not have.
    """
    traits, message = ctypes.c_uint32(), ctypes.c_char_p(b"")
    code = _library().xla_frame_describe(
        _handler(platform, name), ctypes.c_int64(missing), ctypes.byref(traits), ctypes.byref(message)
    )
    return code, (message.value or b"").decode(), traits.value


def of_host(array: np.ndarray) -> Buffer:
    assert array.flags.c_contiguous
    return Buffer(array.dtype.name, array.shape, array.ctypes.data)
