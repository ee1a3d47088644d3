"""The layers that stand against the lean one, as stock convolutions of torch with their backwards.

Written over ``aten`` with explicit gradients, so that each operation can be timed by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from leancore.bench.cases import Case, lean_flops
from leancore.bench.problem import Problem

EXPANSION = 6


@dataclass
class Convolution:
    """One stock convolution."""

    weight: Any
    groups: int
    dims: int
    stride: int = 1
    dilation: int = 1

    @property
    def _padding(self) -> list[int]:
        return [self.dilation if width == 3 else 0 for width in self.weight.shape[2:]]

    def forward(self, x: Any) -> Any:
        import torch

        return torch.ops.aten.convolution(
            x, self.weight, None, [self.stride] * self.dims, self._padding, [self.dilation] * self.dims, False,
            [0] * self.dims, self.groups,
        )  # fmt: skip

    def backward(self, x: Any, dy: Any, data: bool, weight: bool) -> tuple[Any, Any]:
        import torch

        dx, dw, _ = torch.ops.aten.convolution_backward(
            dy, x, self.weight, None, [self.stride] * self.dims, self._padding, [self.dilation] * self.dims, False,
            [0] * self.dims, self.groups, [data, weight, False],
        )  # fmt: skip
        return dx, dw


class Series:
    """One convolution after the other."""

    def __init__(self, *convolutions: Convolution) -> None:
        self.convolutions = convolutions
        self.channels = int(convolutions[-1].weight.shape[0])

    def forward(self, x: Any) -> tuple[Any, list[Any]]:
        """y, and what backward needs: the input of each."""
        inputs = []
        for convolution in self.convolutions:
            inputs.append(x)
            x = convolution.forward(x)
        return x, inputs

    def backward(self, inputs: list[Any], dy: Any, data: bool, weight: bool) -> tuple[Any, list[Any]]:
        """dx (None unless `data`) and the gradient of each weight (None unless `weight`)."""
        gradients = []
        for k in reversed(range(len(inputs))):
            dy, dw = self.convolutions[k].backward(inputs[k], dy, data or k > 0, weight)
            gradients.append(dw)
        return dy, gradients[::-1]


class Composition:
    """The lean layer: a 1x1 convolution, and a depthwise one on the first m channels, added."""

    def __init__(self, pointwise: Convolution, depthwise: Convolution) -> None:
        self.convolutions = (pointwise, depthwise)
        self.channels = int(pointwise.weight.shape[0])
        self._m = depthwise.groups

    def _first(self, images: Any) -> Any:
        return images if images.shape[1] == self._m else images[:, : self._m]

    def forward(self, x: Any) -> tuple[Any, list[Any]]:
        pointwise, depthwise = self.convolutions
        y = pointwise.forward(x)
        self._first(y).add_(depthwise.forward(self._first(x)))
        return y, [x]

    def backward(self, inputs: list[Any], dy: Any, data: bool, weight: bool) -> tuple[Any, list[Any]]:
        pointwise, depthwise = self.convolutions
        dx, dpointwise = pointwise.backward(inputs[0], dy, data, weight)
        stencil_dx, ddepthwise = depthwise.backward(self._first(inputs[0]), self._first(dy), data, weight)
        if data:
            self._first(dx).add_(stencil_dx)
        return dx, [dpointwise, ddepthwise]


Network = Series | Composition


def build(computes: str, problem: Problem, convert: Callable[[Any], Any]) -> Network:
    """One of the layers with the weights of the problem, each turned into a tensor by `convert`.

    lean: 1x1 plus depthwise cross · pointwise: the 1x1 alone · dense: 3x3 · sequential: 1x1, then depthwise 3x3 ·
    expanded: 1x1 to 6 c_in, depthwise 3x3, 1x1 to c_out · expanded-open: the same without its last 1x1
    """
    case = problem.case
    ones, threes = [1] * case.dims, [3] * case.dims
    hidden = EXPANSION * case.c_in
    spatial = {"stride": case.stride, "dilation": case.dilation}

    def pointwise(name: str, c_in: int, c_out: int, **geometry: int) -> Convolution:
        weight = problem.weight(name, (c_out, c_in)).reshape(c_out, c_in, *ones)
        return Convolution(convert(weight), 1, case.dims, **geometry)

    def depthwise(name: str, channels: int) -> Convolution:
        return Convolution(convert(problem.weight(name, (channels, 1, *threes))), channels, case.dims, **spatial)

    if computes == "lean":
        full = pointwise("alpha", case.c_in, case.c_out, stride=case.stride)
        return Composition(full, Convolution(convert(problem.cross()), case.m, case.dims, **spatial))
    if computes == "pointwise":
        return Series(pointwise("alpha", case.c_in, case.c_out, stride=case.stride))
    if computes == "dense":
        weight = problem.weight("dense", (case.c_out, case.c_in, *threes))
        return Series(Convolution(convert(weight), 1, case.dims, **spatial))
    if computes == "sequential":
        return Series(pointwise("alpha", case.c_in, case.c_out), depthwise("depthwise", case.c_out))
    if computes in ("expanded", "expanded-open"):
        opened = (pointwise("expand", case.c_in, hidden), depthwise("depthwise", hidden))
        if computes == "expanded-open":
            return Series(*opened)
        return Series(*opened, pointwise("project", hidden, case.c_out))
    raise ValueError(f"no layer {computes!r}")


def flops(case: Case, computes: str, operation: str) -> int:
    """Of the layer's own arithmetic, a multiply and an add counted as two."""
    x, y = (case.batch * math.prod(extents) for extents in (case.spatial, case.y_spatial))
    hidden, taps = EXPANSION * case.c_in, 3**case.dims
    forward: dict[str, int] = {
        "lean": lean_flops(case),
        "pointwise": 2 * y * case.c_in * case.c_out,
        "dense": 2 * y * taps * case.c_in * case.c_out,
        "sequential": 2 * (x * case.c_in * case.c_out + y * taps * case.c_out),
        "expanded-open": 2 * (x * case.c_in * hidden + y * taps * hidden),
        "expanded": 2 * (x * case.c_in * hidden + y * taps * hidden + y * hidden * case.c_out),
    }
    return forward[computes] * {"backward": 2, "forward_backward": 3}.get(operation, 1)


def terms(case: Case, computes: str) -> int:
    """How many products are summed, at most, on the way to one number of y or dx."""
    taps, hidden = 3**case.dims, EXPANSION * case.c_in
    widest = max(case.c_in, case.c_out)
    sums: dict[str, int] = {
        "lean": widest + 2 * case.dims,
        "pointwise": widest,
        "dense": taps * widest,
        "sequential": widest + taps,
        "expanded-open": widest + taps + hidden,
        "expanded": widest + taps + hidden,
    }
    return sums[computes]


def roundings(computes: str) -> int:
    """How many times a product is rounded to the dtype of the arrays, at most, on its way to an output."""
    stages = {"lean": 2, "pointwise": 1, "dense": 1, "sequential": 2, "expanded-open": 2, "expanded": 3}[computes]
    return 2 * stages
