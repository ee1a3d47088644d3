"""Turns, medians and rounds, with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import leancore
from leancore.bench.timing import ENVIRONMENT, Spread, Turn, interleave, memory_is_reused, ratios, set_threads


def clock_of(seconds: dict[Any, float], log: list[Any]) -> Callable[[Callable[[], Any], int], float]:
    def clock(call: Callable[[], Any], repetitions: int) -> float:
        log.append((call(), repetitions))
        return seconds[call()]

    return clock


def turns(names: str) -> list[Turn]:
    return [Turn(lambda name=name: name, 1) for name in names]


def test_candidates_take_turns_and_each_begins_a_round() -> None:
    log: list[Any] = []
    samples = interleave(turns("abc"), 0, at_least=3, clock=clock_of({"a": 1.0, "b": 2.0, "c": 3.0}, log))
    assert samples == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    assert "".join(name for name, _ in log) == "abcabc" + "abc" + "bca" + "cab"


def test_short_calls_are_repeated_within_a_turn() -> None:
    log: list[Any] = []
    interleave(turns("ab"), 0, at_least=1, clock=clock_of({"a": 2e-6, "b": 1.0}, log), shortest=1e-4)
    assert log[-2:] == [("a", 50), ("b", 1)]


def test_a_slow_candidate_is_left_out() -> None:
    log: list[Any] = []
    samples = interleave(turns("ab"), 0, at_least=2, patience=5, clock=clock_of({"a": 6.0, "b": 1.0}, log))
    assert samples == [[], [1.0, 1.0]]
    assert [name for name, _ in log].count("a") == 1


def test_progress_ends_at_one() -> None:
    fractions: list[float] = []
    interleave(turns("a"), 0, at_least=4, clock=clock_of({"a": 1.0}, []), tick=fractions.append)
    assert fractions == [0.25, 0.5, 0.75, 1.0]


def test_threads_of_each_turn() -> None:
    seen = []
    interleave(
        [Turn(lambda: seen.append(leancore.max_threads()), 1), Turn(lambda: seen.append(leancore.max_threads()), 2)],
        0,
        at_least=1,
        clock=lambda call, repetitions: call() or 1.0,
    )
    assert seen == [1, 1, 2, 2] * 3


def test_spread() -> None:
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0, 1)
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(3.0, 2.0, 4.0, 5)
    assert ratios([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]).median == 3.0


def test_threads_must_be_positive() -> None:
    with pytest.raises(ValueError, match="threads: 0 asked for"):
        set_threads(0)


def test_allocator_settings_are_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    assert not memory_is_reused()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert memory_is_reused()
