"""Checks candidates against a float64 result, then times them, and the machine's limits, in turns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancore import reference
from leancore.bench import networks
from leancore.bench.cases import ITEM_SIZES, LAYOUTS, Case, work
from leancore.bench.devices import CPU, Device
from leancore.bench.limits import roofline
from leancore.bench.peers import Lean, Outputs, Peer
from leancore.bench.problem import Problem
from leancore.bench.timing import Spread, Turn, interleave, set_threads


@dataclass(frozen=True)
class Settings:
    """Of a whole run."""

    seconds: float = 2.0  # of each case and operation, all candidates together
    at_least: int = 7  # rounds
    patience: float = 10.0  # seconds; a candidate whose call takes longer is left out
    threads: int = 0  # 0: those of the device
    device: Device = CPU

    def resolved(self) -> Settings:
        return self if self.threads else replace(self, threads=self.device.threads())


@dataclass(frozen=True)
class Entry:
    """One candidate on one case; several of them take turns. threads 0: those of the settings."""

    case: Case
    peer: Peer
    threads: int = 0


@dataclass(frozen=True)
class Row:
    """What was found out about an entry."""

    case: Case
    operation: str
    peer: str
    description: str
    layout: str
    threads: int
    note: str = ""  # why there are no samples, else ""
    samples: tuple[float, ...] = ()  # seconds of each round; those of rows measured together belong together
    flops: int = 0  # of the candidate's own arithmetic
    bytes: int = 0  # that the lean operator cannot avoid
    roofline: float = math.nan  # seconds, of the lean operator, by the limits measured in the same turns

    @property
    def seconds(self) -> Spread:
        return Spread.of(self.samples)


Double = Callable[[NDArray[np.float32]], NDArray[np.float64]]
#: Of each output: its value, and the sum of the absolute values of its terms.
Expected = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


class WrongOutput(Exception):
    """A candidate that does not compute what it should is not timed."""


class Bench:
    """Measures entries. Inputs of the last cases are kept, so measure the operations of a case one after the other."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.resolved()
        self._problems: dict[Case, Problem] = {}

    def measure(
        self, entries: Sequence[Entry], operation: str, tick: Callable[[float], None] = lambda fraction: None
    ) -> list[Row]:
        """A row for each entry, in their order; all of them took turns."""
        set_threads(self.settings.threads)
        rows = [self._row(entry, operation) for entry in entries]
        rows = self._check(entries, rows)

        inputs = {_inputs_of(row.case) for row in rows}
        self._problems = {case: problem for case, problem in self._problems.items() if case in inputs}
        turns: dict[int, Turn] = {}
        for index, (entry, row) in enumerate(zip(entries, rows, strict=True)):
            if row.note:
                continue
            case = _inputs_of(row.case)
            if case not in self._problems:
                self._problems[case] = Problem(case, "normal", self.settings.device.place)
            call = _attempt(_prepared_call, entry.peer, self._problems[case], row)
            if isinstance(call, str):
                rows[index] = replace(row, note=call)
            else:
                turns[index] = Turn(call, row.threads)
        if turns:
            self._time(rows, turns, tick)
        return rows

    def _row(self, entry: Entry, operation: str) -> Row:
        """Without samples so far; with a note where there will be none."""
        peer, settings = entry.peer, self.settings
        layout = peer.layout if peer.layout in LAYOUTS else entry.case.layout
        case = replace(entry.case, dtype=peer.dtype or entry.case.dtype, layout=layout)
        return Row(
            case=case,
            operation=operation,
            peer=peer.name,
            description=peer.description,
            layout=peer.layout or layout,
            threads=entry.threads or settings.threads,
            note=peer.missing(case, operation, settings.device.name) or "",
            flops=networks.flops(case, peer.computes, operation),
            bytes=work(case, operation).bytes,
        )

    def _check(self, entries: Sequence[Entry], rows: Sequence[Row]) -> list[Row]:
        problems: dict[Case, Problem] = {}
        results: dict[tuple[Case, str], Expected] = {}
        checked = []
        for entry, row in zip(entries, rows, strict=True):
            case, computes = _inputs_of(row.case), entry.peer.computes
            if not row.note and case not in problems:
                problems[case] = Problem(case, "integers", self.settings.device.place)
            if not row.note and (case, computes) not in results:
                results[case, computes] = expected(problems[case], computes, row.operation)
            if not row.note:
                slack = 0.0 if isinstance(entry.peer, Lean) else self.settings.device.slack
                given = (row.case, entry.peer, row.operation, problems[case], results[case, computes], slack)
                outcome = _attempt(check, *given)
                row = replace(row, note=outcome or "")
            checked.append(row)
        return checked

    def _time(self, rows: list[Row], turns: dict[int, Turn], tick: Callable[[float], None]) -> None:
        """Fill in the samples and rooflines of the rows that have turns."""
        settings, device = self.settings, self.settings.device
        probes = device.probes({(rows[i].case.dtype, rows[i].threads) for i in turns})
        samples = interleave(
            [*turns.values(), *(probe.turn() for probe in probes)],
            settings.seconds,
            at_least=settings.at_least,
            patience=settings.patience,
            clock=device.clock,
            tick=tick,
        )
        set_threads(settings.threads)
        limits = samples[len(turns) :]
        for index, taken in zip(turns, samples, strict=False):
            row = rows[index]
            if not taken:
                rows[index] = replace(row, note=f"not timed: one call takes more than {settings.patience:g} s")
                continue
            roof = roofline(probes, limits, device.binding(row.case.dtype), row.threads)
            rows[index] = replace(row, samples=tuple(taken), roofline=roof.seconds(work(row.case, row.operation)))


def _attempt(step: Callable[..., Any], *arguments: Any) -> Any:
    """What the step returns, or in one line why a candidate fails."""
    try:
        return step(*arguments)
    except (WrongOutput, ImportError, MemoryError, NotImplementedError, RuntimeError) as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _prepared_call(peer: Peer, problem: Problem, row: Row) -> Callable[[], Any]:
    return peer.prepare(problem, row.case).call(row.operation)


def _inputs_of(case: Case) -> Case:
    """What the inputs depend on: neither the name nor the dtype and layout that they are converted to."""
    return replace(case, name="", dtype="float32", layout="channels-first")


def check(case: Case, peer: Peer, operation: str, problem: Problem, results: Expected, slack: float = 0.0) -> None:
    """Run the candidate once on integers, through the code that is timed, and compare every output.

    The allowed difference is derived. Where the sum of the absolute values of the terms is small enough, all partial
    sums are integers that the accumulator holds exactly, so float32 and float64 results must be exact; elsewhere the
    bound for n terms, n u Σ|terms|. 16-bit candidates may round to their dtype at each stage.

    Args:
        case: with the candidate's dtype and layout.
        peer, operation: what is checked.
        problem: filled with integers.
        results: what :func:`expected` says.
        slack: what the integers may be off by beside that.

    Raises:
        WrongOutput: an output differs by more.
    """
    prepared = peer.prepare(problem, case)
    outputs = prepared.outputs(operation, prepared.call(operation)())
    for name, (value, magnitude) in results.items():
        found = _compared(name, outputs, problem, slack)
        limit = allowed(magnitude, case, peer.computes, name) + slack
        wrong = ~(np.abs(found - value) <= limit)
        if wrong.any():
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise WrongOutput(
                f"{name}{list(place)} is {found[place]}, expected {value[place]} within {limit[place]:.3g}; "
                f"{int(wrong.sum())} of {wrong.size} are wrong"
            )


def _compared(name: str, outputs: Outputs, problem: Problem, slack: float) -> NDArray[np.float64]:
    """The output in float64; of y and dx the corners, everything else having to be zero."""
    raw = outputs[name]
    if name not in ("y", "dx"):
        return _float64(raw)
    corner = problem.corner(raw, "y" if name == "y" else "x")
    if _count_nonzero(raw, slack) != _count_nonzero(corner, slack):
        raise WrongOutput(f"{name} is not zero where it should be")
    return _float64(corner)


def _float64(array: Any) -> NDArray[np.float64]:
    if isinstance(array, np.ndarray):
        return np.asarray(array, np.float64)
    import torch

    result: NDArray[np.float64] = array.detach().to("cpu", torch.float64).numpy()
    return result


def _count_nonzero(array: Any, slack: float) -> int:
    """How many numbers are further from zero than the slack; NaN is."""
    return int((~(abs(array) <= slack)).sum())


def expected(problem: Problem, computes: str, operation: str) -> Expected:
    """Each output in float64, and the sum of the absolute values of its terms."""
    of = _lean if computes in ("lean", "pointwise") else _of_network
    values = of(problem, computes, operation, lambda a: a.astype(np.float64))
    magnitudes = of(problem, computes, operation, lambda a: np.abs(a.astype(np.float64)))
    return {name: (values[name], magnitudes[name]) for name in values}


def _parts(operation: str) -> tuple[bool, bool, bool]:
    """Whether the operation has y, dx, and the gradients of the weights among its outputs."""
    return (
        operation in ("forward", "forward_backward"),
        operation in ("backward_data", "backward", "forward_backward"),
        operation in ("backward_weight", "backward", "forward_backward"),
    )


def _lean(problem: Problem, computes: str, operation: str, double: Double) -> dict[str, NDArray[np.float64]]:
    """By the definition of the operator; the 1x1 alone is a lean layer without stencil."""
    case = problem.case
    x, dy = double(problem.corner(problem.x(), "x")), double(problem.corner(problem.dy(), "y"))
    alpha = double(problem.alpha())
    c = double(problem.c()) if computes == "lean" else np.zeros_like(problem.c())
    geometry = {"stride": case.stride, "dilation": case.dilation}
    y, data, weight = _parts(operation)
    result = {}
    if y:
        result["y"] = reference.forward(x, alpha, c, None, **geometry)
    if data:
        result["dx"] = reference.backward_data(dy, alpha, c, **geometry, x_shape=x.shape)
    if weight:
        dalpha, dc = reference.backward_weight(x, dy, **geometry)
        full = {"dw0": dalpha.reshape(*dalpha.shape, *[1] * case.dims)}
        result |= {"dalpha": dalpha, "dc": dc} if computes == "lean" else full
    return result


def _of_network(problem: Problem, computes: str, operation: str, double: Double) -> dict[str, NDArray[np.float64]]:
    import torch

    network = networks.build(computes, problem, lambda weight: torch.from_numpy(double(weight)))
    x = torch.from_numpy(double(problem.corner(problem.x(), "x")))
    dy = torch.from_numpy(double(problem.corner(problem.dy(network.channels), "y")))
    y, data, weight = _parts(operation)
    value, saved = network.forward(x)
    result = {"y": value} if y else {}
    if data or weight:
        dx, weights = network.backward(saved, dy, data, weight)
        result |= {"dx": dx} if data else {}
        result |= {f"dw{k}": dw for k, dw in enumerate(weights)} if weight else {}
    return {name: each.numpy() for name, each in result.items()}


def allowed(magnitude: NDArray[np.float64], case: Case, computes: str, name: str) -> NDArray[np.float64]:
    """The greatest difference from the true value that rounding explains; see :func:`check`."""
    terms = networks.terms(case, computes)
    if name not in ("y", "dx"):  # sums over the pixels of at most three images
        terms += 3 * math.prod(case.spatial)
    mantissa = 53 if case.dtype == "float64" else 24
    summing = np.where(magnitude <= 2.0**mantissa, 0.0, terms * 2.0**-mantissa * magnitude)
    if ITEM_SIZES[case.dtype] > 2:
        return summing
    unit = 2.0**-8 if case.dtype == "bfloat16" else 2.0**-11
    return summing + networks.roundings(computes) * unit * magnitude
