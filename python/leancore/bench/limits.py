"""What this machine can do at most: multiply-adds on registers, and copies between memory and memory.

The limits are candidates like any other: they take turns with the operators, so that both see the same machine.
"""

from __future__ import annotations

import functools
import math
import mmap
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import leancore
from leancore import _core
from leancore.bench.cases import Work
from leancore.bench.timing import Spread, Turn, set_threads


@dataclass(frozen=True)
class Probe:
    """A call that does a known amount of one thing and nothing else."""

    name: str  # "multiply-add float32", "copy, streaming", ...
    unit: str  # of `amount`: "flop" or "byte"
    amount: float
    threads: int
    call: Callable[[], Any]

    def turn(self) -> Turn:
        return Turn(self.call, self.threads)

    def rate(self, seconds: list[float]) -> Spread:
        """Units in a second."""
        return Spread.of([self.amount / each for each in seconds])


@dataclass(frozen=True)
class Roofline:
    """Two measured rates. No call can take less than the slower of its arithmetic and its memory traffic."""

    flops_per_second: float
    bytes_per_second: float

    def seconds(self, needed: Work) -> float:
        return max(needed.flops / self.flops_per_second, needed.bytes / self.bytes_per_second)


def instruction_set() -> str:
    """The one to measure with: LEANCORE_CPU_ISA where limits exist for it, else the best of this processor."""
    available = [name for name, runs in _core.limit_loops() if runs]
    forced = os.environ.get("LEANCORE_CPU_ISA", "")
    return forced if forced in available else available[0]


def cpu_probes(threads: int, dtypes: tuple[str, ...] = ("float32",), *, plain: bool = False) -> list[Probe]:
    """Multiply-adds in float32 and float64 as asked for, the streaming copy, and the `plain` one."""
    probes = [_multiply_add(threads, dtype) for dtype in dtypes]
    return [*probes, *([_copy(threads, streaming=False)] if plain else []), _copy(threads, streaming=True)]


def peak_dtype(dtype: str) -> str:
    """The dtype whose multiply-adds are the limit: 16-bit types accumulate in float32 and count against its peak."""
    return "float64" if dtype == "float64" else "float32"


def roofline(probes: list[Probe], samples: list[list[float]], binding: tuple[str, str], threads: int) -> Roofline:
    """From what the probes of a run measured; `binding` names those of arithmetic and of memory."""
    rates = {p.name: p.rate(s).median for p, s in zip(probes, samples, strict=True) if p.threads == threads}
    flops, memory = binding
    return Roofline(rates[flops], rates[memory])


def _multiply_add(threads: int, dtype: str) -> Probe:
    isa = instruction_set()
    rounds = _rounds(threads, dtype, isa)
    amount = _core.run_multiply_add(rounds, threads, dtype, isa)
    return Probe(
        f"multiply-add {dtype}", "flop", amount, threads, lambda: _core.run_multiply_add(rounds, threads, dtype, isa)
    )


@functools.cache
def _rounds(threads: int, dtype: str, isa: str) -> int:
    """As many as take about 4 ms when nothing disturbs: long against waking a team of threads."""
    set_threads(max(threads, leancore.max_threads()))
    quickest = math.inf
    for _ in range(9):
        begin = time.perf_counter()
        _core.run_multiply_add(4000, threads, dtype, isa)
        quickest = min(quickest, time.perf_counter() - begin)
    return max(1, int(4000 * 4e-3 / quickest))


def _copy(threads: int, *, streaming: bool) -> Probe:
    isa = instruction_set()
    source, target = _rows()
    return Probe(
        "copy, streaming" if streaming else "copy, plain",
        "byte",
        2 * source.nbytes,
        threads,
        lambda: _core.run_copy(target, source, streaming, threads, isa),
    )


@functools.cache
def _rows() -> tuple[Any, Any]:
    """Two rows of float32, each four times the last-level cache, in huge pages where the system has them."""
    import numpy as np

    def row() -> Any:
        memory = mmap.mmap(-1, min(max(4 * last_level_cache(), 2**26), 2**30))
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        result = np.frombuffer(memory, np.float32)
        result.fill(1)
        return result

    return row(), row()


def last_level_cache() -> int:
    """Bytes, as Linux tells; 32 MiB where it does not."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        scale = {"K": 2**10, "M": 2**20, "G": 2**30}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KMG")) * scale)
    return max(sizes, default=2**25)


def meminfo(key: str) -> int:
    """Bytes of MemTotal, MemAvailable, ...; 0 where the system does not tell."""
    path = Path("/proc/meminfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    return 0
