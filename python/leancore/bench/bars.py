"""The goals that the CPU kernels are developed against, each with the value measured here.

A report and no test: what is not met is printed as such, and what cannot be measured with its reason.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import leancore
from leancore.bench.cases import Case, arithmetic_bound, development, ragged
from leancore.bench.measure import Bench, Entry, Row
from leancore.bench.peers import PEERS, Lean, installed
from leancore.bench.report import Table
from leancore.bench.timing import Spread, Turn, interleave, ratios, set_threads

OPERATIONS = ("forward", "backward_data", "backward_weight")
# Other ways to compute the same, with channels-first arrays in and out, and in any layout with conversions left out.
CHANNELS_FIRST = ("composition", "compiled", "onednn-converted", "onnxruntime")
ANY_LAYOUT = (*CHANNELS_FIRST, "composition-cl", "onednn")
# In 3-D: how many times faster than the best peer.
SPEED_3D = {"forward": 4.0, "backward_data": 20.0, "backward_weight": 5.0}

# leancore in other settings, on the same rows.
PLAIN = PEERS["leancore-1x1"]
LAST = Lean("leancore-cl", "this library, channels-last", layout="channels-last")
HALF = Lean("leancore-bf16", "this library in bfloat16", dtype="bfloat16")
SINGLE = Lean("leancore-1-thread", "this library on one thread")


@dataclass(frozen=True)
class Bar:
    """One goal on one row."""

    goal: str
    subject: str
    limit: float
    at_most: bool  # else at least
    value: Spread | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """By the median; None where it was not measured."""
        if self.value is None:
            return None
        return self.value.median <= self.limit if self.at_most else self.value.median >= self.limit

    def record(self) -> dict[str, Any]:
        value = self.value
        return {
            "goal": self.goal,
            "subject": self.subject,
            "limit": self.limit,
            "at_most": self.at_most,
            "value": None
            if value is None
            else {"median": value.median, "low": value.low, "high": value.high, "count": value.count},
            "met": self.met,
            "note": self.note,
        }


Ticker = Callable[[float], None]
Step = Callable[[Bench, Ticker], tuple[list[Row], list[Bar]]]


def steps(*, quick: bool, compiled: bool) -> list[tuple[str, Step]]:
    """What there is to measure: names, and functions from a bench to the rows timed and the bars judged.

    Args:
        quick: the same layers on few images.
        compiled: torch.compile is one of the peers.
    """
    peers = [name for name in ANY_LAYOUT if compiled or name != "compiled"]

    def sized(case: Case) -> Case:
        return case.small() if quick else case

    result: list[Any] = [
        (f"{case.name} {operation}", functools.partial(_row, sized(case), operation, peers))
        for case in development()
        for operation in OPERATIONS
    ]
    for odd, even in ragged():
        result += [
            (f"{odd.name} {operation}", functools.partial(_ragged, sized(odd), sized(even), operation))
            for operation in OPERATIONS
        ]
    return [*result, ("Python call", _overhead)]


def _row(case: Case, operation: str, peers: Sequence[str], bench: Bench, tick: Ticker) -> tuple[list[Row], list[Bar]]:
    candidates = [PEERS["leancore"], *(PEERS[name] for name in peers), PLAIN, LAST, HALF]
    entries = [Entry(case, peer) for peer in candidates]
    if bench.settings.threads > 1:
        entries.append(Entry(case, SINGLE, threads=1))
    rows = bench.measure(entries, operation, tick)
    by_name = {row.peer: row for row in rows}
    return rows, list(_judge(by_name, case, operation))


def _judge(rows: dict[str, Row], case: Case, operation: str) -> Iterator[Bar]:
    subject = f"{case.name} {operation}"
    ours = rows["leancore"]
    bound = arithmetic_bound(case)
    if not ours.samples:
        yield Bar("time / roofline", subject, 0, True, note=ours.note)
        return
    limit = (1.5 if bound else 1.8) if operation == "backward_weight" else (1.25 if bound else 1.6)
    yield Bar("time / roofline", subject, limit, True, Spread.of([t / ours.roofline for t in ours.samples]))

    speed = SPEED_3D[operation] if case.dims == 3 else 1.0
    for goal, names, wanted in (
        ("best channels-first peer / leancore", CHANNELS_FIRST, speed),
        ("best peer in any layout / leancore", ANY_LAYOUT, 1.0),
    ):
        timed = [rows[name] for name in names if name in rows and rows[name].samples]
        if not timed:
            yield Bar(goal, subject, wanted, False, note="no peer could be timed")
            continue
        best = min(timed, key=lambda row: row.seconds.median)
        yield Bar(goal, subject, wanted, False, ratios(best.samples, ours.samples), note=best.peer)

    def against(goal: str, limit: float, over: str, under: str, *, at_most: bool = True) -> Bar:
        above, below = rows.get(over), rows.get(under)
        for row in (above, below):
            if row is None or not row.samples:
                return Bar(goal, subject, limit, at_most, note="needs two threads" if row is None else row.note)
        assert above is not None
        assert below is not None
        return Bar(goal, subject, limit, at_most, ratios(above.samples, below.samples))

    if operation == "forward":
        yield against("leancore / its plain 1x1", 1.10, "leancore", "leancore-1x1")
    if bound:
        yield against("one thread / all threads", 1.7, "leancore-1-thread", "leancore", at_most=False)
    yield against("channels-last / channels-first", 1.15, "leancore-cl", "leancore")
    if not bound:
        yield against("bfloat16 / float32", 1.0, "leancore-bf16", "leancore")


def _ragged(odd: Case, even: Case, operation: str, bench: Bench, tick: Ticker) -> tuple[list[Row], list[Bar]]:
    rows = bench.measure([Entry(odd, PEERS["leancore"]), Entry(even, PEERS["leancore"])], operation, tick)
    goal, subject = "time per flop / that of the power of two", f"{odd.name} and {even.name} {operation}"
    if not all(row.samples for row in rows):
        return rows, [Bar(goal, subject, 1.5, True, note=rows[0].note or rows[1].note)]
    first, second = ([t / row.flops for t in row.samples] for row in rows)
    return rows, [Bar(goal, subject, 1.5, True, ratios(first, second))]


def _overhead(bench: Bench, tick: Ticker) -> tuple[list[Row], list[Bar]]:
    """Microseconds of a whole call on an array of shape (1, 4, 4, 4), its output allocated by the call."""
    x, alpha, c = np.ones((1, 4, 4, 4), np.float32), np.ones((4, 4), np.float32), np.ones((4, 4), np.float32)
    calls: dict[str, Callable[[], Any]] = {"NumPy": functools.partial(leancore.forward, x, alpha, c)}
    if installed("torch"):
        import torch

        calls["torch"] = functools.partial(leancore.forward, *map(torch.from_numpy, (x, alpha, c)))
    settings = bench.settings
    set_threads(settings.threads)
    samples = interleave(
        [Turn(call, settings.threads) for call in calls.values()],
        min(1.0, settings.seconds),
        at_least=settings.at_least,
        shortest=2e-3,
        tick=tick,
    )
    goal = "microseconds of a Python call"
    return [], [
        Bar(goal, f"{name} (1, 4, 4, 4) forward", 5.0, True, Spread.of([1e6 * t for t in taken]))
        for name, taken in zip(calls, samples, strict=True)
    ]


def table(*, markdown: bool) -> Table:
    columns = [("goal", 42), ("on", 38), ("limit", -8), ("measured", -8), ("quartiles", 13), ("met", 4), ("", 0)]
    return Table(columns, markdown=markdown)


def add(to: Table, record: dict[str, Any]) -> None:
    value, sign = record["value"], "<=" if record["at_most"] else ">="
    to.add(
        record["goal"],
        record["subject"],
        f"{sign} {record['limit']:.2f}",
        "-" if value is None else f"{value['median']:.2f}",
        "" if value is None else f"{value['low']:.2f}-{value['high']:.2f}",
        {True: "yes", False: "no", None: "-"}[record["met"]],
        record["note"],
    )
