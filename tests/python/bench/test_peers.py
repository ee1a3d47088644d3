"""Every candidate computes what it is said to: against a convolution written out here, in NumPy, on integers.

Gradients by differences: the layers are linear in x and in each of their weights, so f(w + e) - f(w) is the exact
derivative along e.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import leancore
from leancore.bench import measure
from leancore.bench.cases import OPERATIONS, Case
from leancore.bench.measure import WrongOutput, allowed, check, expected
from leancore.bench.peers import PEERS, Lean, Peer, choose
from leancore.bench.problem import Problem, taps

CASES = [
    Case("1-D", (2, 3, 5), 3),
    Case("2-D", (2, 3, 4, 5), 3),
    Case("more channels", (4, 2, 3, 4), 4),
    Case("fewer channels", (2, 4, 4, 3), 2),
    Case("strided", (2, 2, 7, 6), 2, stride=2),
    Case("dilated", (1, 2, 6, 5), 3, dilation=2),
    Case("3-D", (1, 2, 3, 2, 4), 2),
    Case("4-D", (1, 2, 3, 2, 2, 3), 2),
]


def convolution(x: Any, weight: Any, groups: int, stride: int = 1, dilation: int = 1) -> Any:
    """Cross-correlation with zero padding, the kernel 1 or 3 wide: product by product."""
    spatial = x.shape[2:]
    reach = dilation * (weight.shape[2] // 2)
    padded = np.pad(x, [(0, 0), (0, 0), *[(reach, reach)] * len(spatial)])
    y = np.zeros((len(x), len(weight), *((n - 1) // stride + 1 for n in spatial)))
    for tap in itertools.product(range(weight.shape[2]), repeat=len(spatial)):
        at = tuple(slice(k * dilation, k * dilation + n, stride) for k, n in zip(tap, spatial, strict=True))
        for out in range(len(weight)):
            for i in range(weight.shape[1]):
                channel = out // (len(weight) // groups) * weight.shape[1] + i
                y[:, out] += weight[(out, i, *tap)] * padded[(slice(None), channel, *at)]
    return y


def weights_of(computes: str, problem: Problem) -> dict[str, Any]:
    case = problem.case
    ones, threes, hidden = [1] * case.dims, [3] * case.dims, 6 * case.c_in

    def full(name: str, c_out: int, c_in: int) -> Any:
        return problem.weight(name, (c_out, c_in)).reshape(c_out, c_in, *ones)

    def depthwise(channels: int) -> Any:
        return problem.weight("depthwise", (channels, 1, *threes))

    alpha = full("alpha", case.c_out, case.c_in)
    opened = {"dw0": full("expand", hidden, case.c_in), "dw1": depthwise(hidden)} if "expanded" in computes else {}
    weights = {
        "lean": {"dalpha": problem.alpha(), "dc": problem.c()},
        "pointwise": {"dw0": alpha},
        "dense": {"dw0": problem.weight("dense", (case.c_out, case.c_in, *threes))},
        "sequential": {"dw0": alpha, "dw1": depthwise(case.c_out)},
        "expanded-open": opened,
        "expanded": opened | {"dw2": full("project", case.c_out, hidden)},
    }[computes]
    return {name: weight.astype(np.float64) for name, weight in weights.items()}


def layer(computes: str, case: Case, x: Any, weights: dict[str, Any]) -> Any:
    stride, dilation = case.stride, case.dilation
    if computes == "lean":
        alpha, c = weights["dalpha"], weights["dc"]
        y = convolution(x, alpha.reshape(*alpha.shape, *[1] * case.dims), 1, stride)
        stencil = np.zeros((case.m, 1, *[3] * case.dims))
        for k, place in enumerate(taps(case.dims)):
            stencil[(slice(None), 0, *place)] = c[:, k]
        y[:, : case.m] += convolution(x[:, : case.m], stencil, case.m, stride, dilation)
        return y
    first = weights["dw0"]
    if computes in ("pointwise", "dense"):
        return convolution(x, first, 1, stride, dilation)
    y = convolution(convolution(x, first, 1), weights["dw1"], len(first), stride, dilation)
    return convolution(y, weights["dw2"], 1) if computes == "expanded" else y


@functools.cache
def _all_outputs(computes: str, problem: Problem) -> dict[str, Any]:
    case, weights, x = problem.case, weights_of(computes, problem), problem.x().astype(np.float64)
    y = layer(computes, case, x, weights)
    dy = problem.dy(y.shape[1])

    def gradient(array: Any, after: Callable[[Any], Any]) -> Any:
        result = np.zeros_like(array)
        for place in np.ndindex(array.shape):
            moved = array.copy()
            moved[place] += 1
            result[place] = np.vdot(dy, after(moved) - y)
        return result

    result = {"y": y, "dx": gradient(x, lambda moved: layer(computes, case, moved, weights))}
    for name, weight in weights.items():
        result[name] = gradient(weight, lambda moved, name=name: layer(computes, case, x, weights | {name: moved}))
    return result


def truth(computes: str, problem: Problem, operation: str) -> dict[str, Any]:
    y = ["y"] if "forward" in operation else []
    dx = ["dx"] if operation in ("backward_data", "backward", "forward_backward") else []
    weight = operation in ("backward_weight", "backward", "forward_backward")
    outputs = _all_outputs(computes, problem)
    names = y + dx + [name for name in outputs if weight and name not in ("y", "dx")]
    return {name: outputs[name] for name in names}


@functools.cache
def integers(case: Case) -> Problem:
    return Problem(case, "integers")


def not_here(reason: str | None) -> bool:
    """It is this machine that lacks something, not the candidate that does not offer this."""
    return reason is not None and ("not installed" in reason or "built without" in reason)


def offered(name: str, operation: str, case: Case) -> bool:
    reason = PEERS[name].missing(case, operation, "cpu")
    return reason is None or not_here(reason)


OFFERED = [
    pytest.param(name, operation, case, id=f"{name}-{operation}-{case.name}")
    for name in PEERS
    for operation in OPERATIONS
    for case in CASES
    if name != "compiled" and offered(name, operation, case)
]


def test_every_candidate_offers_something() -> None:
    assert {param.values[0] for param in OFFERED} == PEERS.keys() - {"compiled"}
    assert {param.values[1:] for param in OFFERED if param.values[0] == "leancore"} == {
        (operation, case) for operation in OPERATIONS for case in CASES
    }


def runnable(name: str, case: Case, operation: str) -> Peer:
    peer = PEERS[name]
    if reason := peer.missing(case, operation, "cpu"):
        pytest.skip(reason)
    return peer


@pytest.mark.parametrize(("name", "operation", "case"), OFFERED)
def test_outputs_are_right(name: str, operation: str, case: Case) -> None:
    peer, problem = runnable(name, case, operation), integers(case)
    prepared = peer.prepare(problem, case)
    outputs = prepared.outputs(operation, prepared.call(operation)())
    wanted = truth(peer.computes, problem, operation)
    assert outputs.keys() == wanted.keys()
    for output, value in wanted.items():
        np.testing.assert_array_equal(np.asarray(outputs[output]), value, err_msg=output)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_compiled_outputs_are_right(operation: str) -> None:
    test_outputs_are_right("compiled", operation, CASES[1])


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("computes", ["lean", "pointwise", "dense", "sequential", "expanded", "expanded-open"])
@pytest.mark.parametrize("case", CASES[:6], ids=lambda case: case.name)
def test_what_candidates_are_checked_against(case: Case, computes: str, operation: str) -> None:
    if computes not in ("lean", "pointwise"):
        pytest.importorskip("torch")
    problem = integers(case)
    wanted = truth(computes, problem, operation)
    found = expected(problem, computes, operation)
    assert found.keys() == wanted.keys()
    for name, (value, magnitude) in found.items():
        full = problem.corner(wanted[name], name[-1]) if name in ("y", "dx") else wanted[name]
        np.testing.assert_array_equal(value, full, err_msg=name)
        assert (magnitude >= np.abs(value)).all()


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("stride", [1, 3])
def test_the_corner_holds_all_that_is_not_zero(monkeypatch: pytest.MonkeyPatch, dims: int, stride: int) -> None:
    monkeypatch.setattr("leancore.bench.problem.CORNER_PIXELS", 4**dims)
    case = Case("", (4, 2, *[13] * dims), 3, stride=stride, dilation=2)
    problem = Problem(case, "integers")
    for operation in OPERATIONS:
        wanted = truth("lean", problem, operation)
        for name, (value, _) in expected(problem, "lean", operation).items():
            if name in ("y", "dx"):
                corner = problem.corner(wanted[name], name[-1])
                assert np.count_nonzero(corner) == np.count_nonzero(wanted[name])
                np.testing.assert_array_equal(value, corner)
            else:
                np.testing.assert_array_equal(value, wanted[name])


class Defective(Lean):
    """leancore with one number of an output off, or one written where there should be a zero."""

    def prepare(self, problem: Problem, case: Case) -> Any:
        prepared = super().prepare(problem, case)
        call = prepared.call

        def spoilt(operation: str) -> Any:
            def run() -> Any:
                raw = call(operation)()
                array = raw[0] if isinstance(raw, tuple) else raw
                array[self.place(array)] += 1
                return raw

            return run

        prepared.call = spoilt  # type: ignore[method-assign]
        return prepared

    def place(self, array: Any) -> Any:
        return (0,) * array.ndim


class WritesElsewhere(Defective):
    def place(self, array: Any) -> Any:
        return (1,) + (0,) * (array.ndim - 1)  # an image that is all zeros


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_wrong_candidate_is_found(operation: str) -> None:
    case = Case("", (2, 3, 4, 4), 3)
    problem = Problem(case, "integers")
    results = expected(problem, "lean", operation)
    check(case, Lean(), operation, problem, results)
    with pytest.raises(WrongOutput, match=r"expected .* within 0; 1 of"):
        check(case, Defective(), operation, problem, results)


class SlightlyOff(Defective):
    """As a transform leaves it: not quite the integers, and not quite zero where there is nothing."""

    def place(self, array: Any) -> Any:
        array += 0.25
        return (slice(0, 0),)  # and nothing else


class FarOff(SlightlyOff):
    def place(self, array: Any) -> Any:
        super().place(array)
        return (0,) * array.ndim


def test_with_slack_results_must_round_to_the_integers() -> None:
    case = Case("", (8, 3, 4, 4), 3)
    problem = Problem(case, "integers")
    results = expected(problem, "lean", "forward")
    with pytest.raises(WrongOutput, match="y is not zero where it should be"):
        check(case, SlightlyOff(), "forward", problem, results)
    check(case, SlightlyOff(), "forward", problem, results, slack=0.49)
    with pytest.raises(WrongOutput, match=r"expected .* within 0\.49; 1 of"):
        check(case, FarOff(), "forward", problem, results, slack=0.49)


def test_what_is_written_elsewhere_is_found() -> None:
    case = Case("", (8, 3, 4, 4), 3)
    problem = Problem(case, "integers")
    with pytest.raises(WrongOutput, match="y is not zero where it should be"):
        check(case, WritesElsewhere(), "forward", problem, expected(problem, "lean", "forward"))


def test_allowed_errors() -> None:
    case = Case("", (1, 8, 4, 4), 8)
    magnitude = np.array([2.0**24, 2.0**25])
    np.testing.assert_array_equal(allowed(magnitude, case, "lean", "y"), [0, 12 * 2.0**-24 * 2.0**25])
    half = Case("", (1, 8, 4, 4), 8, dtype="bfloat16")
    np.testing.assert_array_equal(allowed(np.array([1.0]), half, "lean", "y"), [4 * 2.0**-8])


def test_a_failing_candidate_is_reported_and_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Defective("broken", "leancore, spoilt")
    bench = measure.Bench(measure.Settings(seconds=0, at_least=2, threads=1))
    rows = bench.measure([measure.Entry(Case("", (2, 3, 4, 4), 3), peer) for peer in (broken, Lean())], "forward")
    assert rows[0].note.startswith("WrongOutput: y[0, 0, 0, 0] is ")
    assert rows[0].samples == ()
    assert len(rows[1].samples) == 2
    assert rows[1].note == ""
    assert rows[1].roofline > 0


def test_bfloat16_is_timed_or_refused_with_a_reason() -> None:
    bench = measure.Bench(measure.Settings(seconds=0, at_least=1, threads=1))
    (row,) = bench.measure([measure.Entry(Case("", (2, 3, 4, 4), 3), Lean(dtype="bfloat16"))], "forward")
    assert bool(row.samples) != bool(row.note)


def test_choose() -> None:
    assert [peer.name for peer in choose(["dense"])] == ["leancore", "dense"]
    assert [peer.name for peer in choose(["none"])] == ["leancore"]
    assert {peer.name for peer in choose(["all"])} == set(PEERS) - {"compiled"}
    assert "compiled" in {peer.name for peer in choose(["none"], compiled=True)}
    with pytest.raises(ValueError, match="peers gemm: not among all, none, leancore"):
        choose(["gemm"])


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_implementation_is_a_candidate_by_its_name(operation: str) -> None:
    _, generic = choose(["leancore-generic"])
    case = Case("", (2, 3, 4, 4), 3)
    problem = Problem(case, "integers")
    check(case, generic, operation, problem, expected(problem, "lean", operation))
    assert generic.missing(case, operation, "cuda") == "on the CPU only"
    none = Lean(implementation="no such thing").prepare(problem, case)
    with pytest.raises(RuntimeError, match="implementation 'no such thing'"):
        none.call(operation)()
    with pytest.raises(ValueError, match="peers leancore-avx9: not among"):
        choose(["leancore-avx9"])


def test_leancore_uses_the_combined_backward_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("", (2, 3, 4, 4), 3)
    calls = []

    def backward(x: Any, dy: Any, alpha: Any, c: Any, *, out: Any, **geometry: Any) -> Any:
        calls.append(geometry)
        leancore.backward_data(dy, alpha, c, out=out[0], **geometry)
        leancore.backward_weight(x, dy, out=out[1:], **geometry)
        return out

    monkeypatch.setattr(leancore, "backward", backward, raising=False)
    problem = Problem(case, "integers")
    check(case, Lean(), "backward", problem, expected(problem, "lean", "backward"))
    assert calls == [{"stride": 1, "dilation": 1}]
