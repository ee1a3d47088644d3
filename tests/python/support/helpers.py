"""For all tests: integer problems whose results are exact, the derived error bound, a hand-made DLPack producer."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import leancore
from leancore import reference

SUPPORT = Path(__file__).parent
REPOSITORY = SUPPORT.parents[2]

HALVES = [np.float16, ml_dtypes.bfloat16]
DTYPES = [np.float32, np.float64, *HALVES]


@dataclass
class Problem:
    """Inputs of all operations, and their results in float64."""

    x: np.ndarray
    alpha: np.ndarray
    c: np.ndarray
    bias: np.ndarray
    dy: np.ndarray
    stride: int | tuple[int, ...]
    dilation: int | tuple[int, ...]

    @property
    def geometry(self) -> dict[str, Any]:
        return {"stride": self.stride, "dilation": self.dilation}

    def y(self) -> np.ndarray:
        return reference.forward(self.x, self.alpha, self.c, self.bias, self.stride, self.dilation)

    def dx(self) -> np.ndarray:
        return reference.backward_data(self.dy, self.alpha, self.c, self.stride, self.dilation, self.x.shape)

    def weights(self) -> tuple[np.ndarray, np.ndarray]:
        return reference.backward_weight(self.x, self.dy, self.stride, self.dilation)

    def gradients(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return reference.backward(self.x, self.dy, self.alpha, self.c, self.stride, self.dilation)

    def map(self, convert: Any) -> Problem:
        arrays = (convert(a) for a in (self.x, self.alpha, self.c, self.bias, self.dy))
        return Problem(*arrays, self.stride, self.dilation)


def _extents_of_y(spatial: Sequence[int], stride: int | tuple[int, ...]) -> list[int]:
    steps = (stride,) * len(spatial) if isinstance(stride, int) else stride
    return [0 if n == 0 else (n - 1) // s + 1 for n, s in zip(spatial, steps, strict=True)]


def integer_problem(
    batch: int,
    c_in: int,
    c_out: int,
    spatial: Sequence[int],
    *,
    dtype: Any = np.float32,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    seed: int = 0,
) -> Problem:
    """Integers from -3 to 3: every sum of the tests' sizes is exact in float32, in any order, with or without FMA.

    Of a 16-bit dtype, results are these sums rounded once: ``result.astype(dtype)``.
    """
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.integers(-3, 4, shape).astype(dtype)

    dims = len(spatial)
    terms = batch * int(np.prod(spatial)) + c_in + c_out + 2 * dims
    assert 9 * terms + 3 < 2**24
    return Problem(
        x=draw(batch, c_in, *spatial),
        alpha=draw(c_out, c_in),
        c=draw(min(c_in, c_out), 2 * dims),
        bias=draw(c_out),
        dy=draw(batch, c_out, *_extents_of_y(spatial, stride)),
        stride=stride,
        dilation=dilation,
    )


def normal_problem(batch: int, c_in: int, c_out: int, spatial: Sequence[int], dtype: Any, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    like = integer_problem(batch, c_in, c_out, spatial)
    return like.map(lambda a: rng.standard_normal(a.shape).astype(dtype))


def absolute(problem: Problem) -> Problem:
    """Its results are the sums of the absolute values of the terms."""
    return problem.map(lambda a: np.abs(a.astype(np.float64)))


def bound(n: int, right: np.ndarray, terms: np.ndarray, dtype: Any) -> np.ndarray:
    """What an n-term sum in dtype may be off by, in any order: (n + 1) u sum|terms|; see Higham, section 4.2.

    16-bit dtypes are summed in float32; one rounding to dtype, to a subnormal perhaps, comes on top.
    """
    if dtype not in HALVES:
        return (n + 1) * (np.finfo(dtype).eps / 2) * terms
    of_sum = bound(n, right, terms, np.float32)
    limits = ml_dtypes.finfo(dtype)
    return of_sum + float(limits.eps) / 2 * (np.abs(right) + of_sum) + float(limits.smallest_subnormal) / 2


SMALL = [
    # batch, c_in, c_out, spatial
    (2, 3, 4, (7,)),
    (1, 5, 2, (33,)),
    (2, 3, 3, (5, 6)),
    (1, 8, 16, (9, 17)),
    (3, 1, 1, (1, 1)),
    (2, 7, 3, (4, 3, 5)),
    (1, 2, 5, (1, 6, 2)),
    (2, 3, 4, (3, 2, 4, 3)),
]


def geometries(dims: int) -> Iterator[dict[str, Any]]:
    for stride, dilation in itertools.product((1, 2), (1, 2)):
        yield {"stride": stride, "dilation": dilation}
    yield {"stride": tuple(range(1, dims + 1)), "dilation": tuple(range(dims, 0, -1))}


def result_bytes(p: Problem) -> list[bytes]:
    """Of all operations, for comparing bit by bit."""
    arrays = [leancore.forward(p.x, p.alpha, p.c, bias=p.bias), leancore.backward_data(p.dy, p.alpha, p.c)]
    gradients = (*leancore.backward_weight(p.x, p.dy), *leancore.backward(p.x, p.dy, p.alpha, p.c))
    return [a.tobytes() for a in (*arrays, *gradients)]


def run_script(*arguments: object, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter; the timeout is there to end a hang, nothing is measured."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(SUPPORT), **environment},
    )


# A DLPack producer of which every field can be set, to anything.


class _Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("index", ctypes.c_int32)]


class _DataType(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", _Device),
        ("ndim", ctypes.c_int32),
        ("dtype", _DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter)]


class _ManagedVersioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", _Deleter),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_CapsuleDestructor = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
new_capsule.restype = ctypes.py_object
_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.argtypes = [ctypes.c_void_p]
_capsule_name.restype = ctypes.c_char_p


_producers: list[Producer] = []


class Producer:
    """Describes ``array`` to DLPack consumers, truthfully but for the fields named in the keywords.

    ``deleted`` counts the calls of the deleter, ``exported`` the capsules handed out.
    """

    def __init__(
        self,
        array: np.ndarray,
        *,
        versioned: bool = True,
        name: bytes | None = b"",
        says: Any = (1, 0),
        device: tuple[int, int] = (1, 0),
        version: tuple[int, int] = (1, 0),
        flags: int = 0,
        no_deleter: bool = False,
        **fields: Any,
    ) -> None:
        self.array, self.says, self.deleted, self.exported = array, says, 0, 0
        self.no_deleter = no_deleter
        self._name = name if name != b"" else b"dltensor_versioned" if versioned else b"dltensor"
        tensor = {
            "data": array.ctypes.data,
            "ndim": array.ndim,
            "dtype": (2, array.dtype.itemsize * 8, 1),
            "shape": array.shape,
            "strides": [s // array.dtype.itemsize for s in array.strides],
            "byte_offset": 0,
        }
        assert not fields.keys() - tensor.keys(), fields
        self._fields = {**tensor, **fields}
        self._versioned, self._device, self._version, self._flags = versioned, device, version, flags
        # Every structure and callback lives until the process ends, so that a second or late call of the deleter is
        # counted and not a crash.
        self._alive: list[Any] = []
        _producers.append(self)
        self._deleter = _Deleter() if no_deleter else _Deleter(self._delete)
        self._destructor = _CapsuleDestructor(self._destroy)

    def _delete(self, _: int) -> None:
        self.deleted += 1

    def _destroy(self, capsule: int) -> None:
        # A capsule that was consumed is named used_...; of any other its producer is still in charge.
        if not (_capsule_name(capsule) or b"").startswith(b"used_"):
            self.deleted += 1

    def _axes(self, values: Sequence[int] | None) -> Any:
        if values is None:
            return ctypes.POINTER(ctypes.c_int64)()
        array = (ctypes.c_int64 * max(len(values), 1))(*values)
        self._alive.append(array)
        return ctypes.cast(array, ctypes.POINTER(ctypes.c_int64))

    def managed(self) -> int:
        """Address of a new managed tensor, which the receiver owes a call of its deleter."""
        fields = self._fields
        tensor = _Tensor(
            fields["data"],
            _Device(*self._device),
            fields["ndim"],
            _DataType(*fields["dtype"]),
            self._axes(fields["shape"]),
            self._axes(fields["strides"]),
            fields["byte_offset"],
        )
        managed: Any
        if self._versioned:
            managed = _ManagedVersioned(*self._version, None, self._deleter, self._flags, tensor)
        else:
            managed = _Managed(tensor, None, self._deleter)
        self._alive.append(managed)
        self.exported += 1
        return ctypes.addressof(managed)

    def capsule(self) -> Any:
        return new_capsule(self.managed(), self._name, ctypes.cast(self._destructor, ctypes.c_void_p))

    def __dlpack_device__(self) -> Any:
        return self.says

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None) -> Any:
        return self.capsule()


class Legacy(Producer):
    """From before DLPack 1.0: no max_version, and the capsule is not versioned."""

    def __init__(self, array: np.ndarray, **fields: Any) -> None:
        super().__init__(array, versioned=False, **fields)

    def __dlpack__(self) -> Any:  # type: ignore[override]
        return self.capsule()
