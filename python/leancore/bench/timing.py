"""How things are timed: candidates take turns in one run, memory is reused, medians and quartiles are quoted."""

from __future__ import annotations

import ctypes
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import leancore

# A large output is otherwise mapped and faulted in anew at every call, which can cost more than a convolution: memory
# is kept, and in huge pages, for every candidate alike. Threads that wait do not spin against those of another library.
ENVIRONMENT = {
    "GLIBC_TUNABLES": ":".join(
        f"glibc.malloc.{name}"
        for name in ("hugetlb=1", "mmap_threshold=17179869184", "trim_threshold=34359738368", "top_pad=268435456")
    ),
    "OMP_WAIT_POLICY": "PASSIVE",
}


def memory_is_reused() -> bool:
    """This process runs under :data:`ENVIRONMENT`."""
    return all(os.environ.get(name) == value for name, value in ENVIRONMENT.items())


def restart_with_reused_memory() -> None:
    """Replace this process by the same command under :data:`ENVIRONMENT`, which is read when a process starts."""
    if not memory_is_reused() and os.name == "posix":
        os.execve(sys.executable, [sys.executable, "-m", "leancore", *sys.argv[1:]], os.environ | ENVIRONMENT)


def set_threads(count: int) -> None:
    """Of leancore, and of torch where it is loaded.

    Raises:
        ValueError: no positive number, or this build of leancore cannot change its number of threads while it runs.
    """
    if count < 1:
        raise ValueError(f"threads: {count} asked for, expected 1 or more")
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != count:
        torch.set_num_threads(count)
    if leancore.max_threads() != count and leancore.thread_backend() == "openmp" and sys.platform == "linux":
        # By the name that leancore is linked to: the copy that is loaded already.
        ctypes.CDLL("libgomp.so.1").omp_set_num_threads(count)
    if leancore.max_threads() != count:
        raise ValueError(
            f"threads: {count} asked for, but this build ({leancore.thread_backend()}) uses {leancore.max_threads()}; "
            "set LEANCORE_NUM_THREADS or OMP_NUM_THREADS before it starts"
        )


@dataclass(frozen=True)
class Turn:
    """One candidate's turn: a call, and the threads it may use."""

    call: Callable[[], Any]
    threads: int


@dataclass(frozen=True)
class Spread:
    """Of the samples of one quantity."""

    median: float
    low: float  # the first quartile
    high: float  # the third
    count: int

    @staticmethod
    def of(samples: Sequence[float]) -> Spread:
        if len(samples) == 1:
            return Spread(samples[0], samples[0], samples[0], 1)
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return Spread(median, low, high, len(samples))


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> Spread:
    """Of two candidates, turn by turn: what slowed down the machine slowed down both."""
    return Spread.of([a / b for a, b in zip(numerator, denominator, strict=True)])


Clock = Callable[[Callable[[], Any], int], float]  # (call, repetitions) -> seconds of one call


def wall_clock(call: Callable[[], Any], repetitions: int) -> float:
    begin = time.perf_counter()
    for _ in range(repetitions):
        call()
    return (time.perf_counter() - begin) / repetitions


def interleave(
    turns: Sequence[Turn],
    seconds: float,
    *,
    at_least: int,
    patience: float = math.inf,
    clock: Clock = wall_clock,
    shortest: float = 2e-3,
    tick: Callable[[float], None] = lambda fraction: None,
) -> list[list[float]]:
    """Seconds of each candidate at each round: all take turns, each round beginning with another one.

    Args:
        turns: the candidates. Each turn begins with a call that is not timed.
        seconds: of measuring, all together, after two rounds to warm up.
        at_least: rounds, however long they take.
        patience: seconds; a candidate whose call takes longer is left out, and gets an empty list.
        clock: that of the device.
        shortest: calls quicker than this are repeated within a turn, so that the clock does not matter.
        tick: told after each round which part of the time has passed, from 0 to 1.
    """

    def take(index: int, repetitions: int) -> float:
        set_threads(turns[index].threads)
        turns[index].call()  # not timed: the one before has left other data in the caches, and other threads
        return clock(turns[index].call, repetitions)

    quick = [index for index in range(len(turns)) if take(index, 1) <= patience]
    repetitions = {index: max(1, min(10_000, int(shortest / max(take(index, 1), 1e-7)))) for index in quick}
    samples: list[list[float]] = [[] for _ in turns]
    begin = time.perf_counter()
    done = 0
    while quick and (done < at_least or time.perf_counter() - begin < seconds):
        for position in range(len(quick)):
            index = quick[(position + done) % len(quick)]
            samples[index].append(take(index, repetitions[index]))
        done += 1
        passed = (time.perf_counter() - begin) / seconds if seconds > 0 else 1.0
        tick(min(1.0, passed, done / at_least))
    return samples
