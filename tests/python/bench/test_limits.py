"""The loops that measure the machine, and what is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import leancore
from leancore import _core
from leancore.bench import limits
from leancore.bench.cases import Work
from leancore.bench.devices import CPU
from leancore.bench.timing import set_threads

AVAILABLE = [name for name, runs in _core.limit_loops() if runs]


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of float32, aligned to 64 bytes: random numbers, and zeros."""
    memory = np.zeros(2 * count + 16, np.float32)
    begin = -memory.ctypes.data % 64 // 4
    source, target = memory[begin : begin + count], memory[begin + count : begin + 2 * count]
    source[:] = np.random.default_rng(0).standard_normal(count, np.float32)
    return source, target


@pytest.mark.parametrize("isa", AVAILABLE)
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("count", [64, 64 * 4099])  # one block; more than one piece, the last not full
def test_copy_copies(isa: str, streaming: bool, count: int) -> None:
    source, target = rows(count)
    _core.run_copy(target, source, streaming, leancore.max_threads(), isa)
    np.testing.assert_array_equal(target, source)


@pytest.mark.parametrize("isa", AVAILABLE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_multiply_adds_are_counted(isa: str, dtype: str) -> None:
    one = _core.run_multiply_add(1, 1, dtype, isa)
    assert one > 0
    assert _core.run_multiply_add(10, 1, dtype, isa) == 10 * one
    set_threads(2)
    assert _core.run_multiply_add(160, 2, dtype, isa) == 320 * one


@pytest.mark.parametrize("isa", AVAILABLE)
def test_twice_as_many_numbers_in_single_precision(isa: str) -> None:
    assert _core.run_multiply_add(1, 1, "float32", isa) == 2 * _core.run_multiply_add(1, 1, "float64", isa)


def test_bad_arguments() -> None:
    source, target = rows(128)
    with pytest.raises(ValueError, match="overlap"):
        _core.run_copy(source, source, False, 1)
    with pytest.raises(ValueError, match="overlap"):
        _core.run_copy(target, source[:64], False, 1)
    for bad in (target[1:65], target[:63], target[::2], target.reshape(2, 64), np.zeros(64)):
        with pytest.raises(ValueError, match="run_copy: to is not a contiguous float32 row"):
            _core.run_copy(bad, source[:64], False, 1)
    source.flags.writeable = False
    with pytest.raises(BufferError, match="read-only"):
        _core.run_copy(source, target, False, 1)
    with pytest.raises(ValueError, match="instruction_set 'mmx'"):
        _core.run_multiply_add(1, 1, "float32", "mmx")
    with pytest.raises(ValueError, match="dtype float32 or float64"):
        _core.run_multiply_add(1, 1, "float16")
    with pytest.raises(ValueError, match="rounds"):
        _core.run_multiply_add(0, 1)
    with pytest.raises(ValueError, match="threads is 0"):
        _core.run_multiply_add(1, 0)


def test_probes_are_positive_and_finite() -> None:
    for probe in limits.cpu_probes(1, ("float32", "float64"), plain=True):
        probe.call()
        assert 0 < probe.amount < math.inf
        assert probe.rate([0.5, 0.25, 0.125]).median == probe.amount / 0.25


def test_roofline_takes_what_binds() -> None:
    roof = limits.Roofline(flops_per_second=100.0, bytes_per_second=10.0)
    assert roof.seconds(Work(1000, 10)) == 10
    assert roof.seconds(Work(10, 1000)) == 100


def test_roofline_of_a_run() -> None:
    def probe(name: str, unit: str, amount: float, threads: int) -> limits.Probe:
        return limits.Probe(name, unit, amount, threads, lambda: None)

    probes = [
        probe("multiply-add float32", "flop", 8, 1),
        probe("copy, streaming", "byte", 6, 1),
        probe("multiply-add float32", "flop", 16, 2),
        probe("copy, streaming", "byte", 6, 2),
    ]
    samples = [[1.0, 2.0, 4.0], [1.0], [1.0], [2.0]]
    assert limits.roofline(probes, samples, CPU.binding("bfloat16"), 1) == limits.Roofline(4, 6)
    assert limits.roofline(probes, samples, CPU.binding("float32"), 2) == limits.Roofline(16, 3)
    with pytest.raises(KeyError, match="float64"):
        limits.roofline(probes, samples, CPU.binding("float64"), 1)


def test_forced_instruction_set(monkeypatch: Any) -> None:
    monkeypatch.setenv("LEANCORE_CPU_ISA", "generic")
    assert limits.instruction_set() == "generic"
    monkeypatch.setenv("LEANCORE_CPU_ISA", "reference")  # a kernel without limits of its own
    assert limits.instruction_set() == AVAILABLE[0]
