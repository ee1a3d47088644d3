"""Calibration: the closed form against the explicit least-squares problem, and what it does in a network."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d, convert
from leancore.torch.calibrate import Moments

SHAPES = [
    # layer, c_in, c_out, spatial
    (LeanConv1d, 3, 5, (9,)),
    (LeanConv2d, 4, 4, (6, 7)),
    (LeanConv2d, 5, 3, (5, 6)),
    (LeanConv2d, 2, 6, (6, 5)),
    (LeanConv3d, 3, 4, (4, 5, 3)),
]


def layer(kind: Any, c_in: int, c_out: int, *, bias: bool = False, **geometry: Any) -> Any:
    return kind(c_in, c_out, bias=bias, dtype=torch.float64, **geometry)


def squares(lean: Any, x: Tensor, y: Tensor) -> Tensor:
    """Of the residual, for each output channel."""
    with torch.no_grad():
        return (y - lean(x)).square().transpose(0, 1).flatten(1).sum(1)


def features(lean: Any, x: Tensor, o: int) -> Tensor:
    """The columns that output channel o is a combination of: the layer's answers to unit weights."""
    unit, columns = copy.deepcopy(lean), []
    with torch.no_grad():
        for name in ("alpha", "c", "bias"):
            weights = getattr(unit, name)
            if weights is None or o >= len(weights):
                continue
            for i in range(weights[o].numel()):
                for p in unit.parameters():
                    p.zero_()
                weights[o].view(-1)[i] = 1
                columns.append(unit(x)[:, o].flatten())
    return torch.stack(columns, 1)


@pytest.mark.parametrize(("kind", "c_in", "c_out", "spatial"), SHAPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("geometry", [{}, {"stride": 2}, {"dilation": 2}])
def test_fit_is_the_minimum(kind: Any, c_in: int, c_out: int, spatial: Any, bias: bool, geometry: Any) -> None:
    """With a ridge on the step from the old weights, f(w) = |y - A w|^2 + ridge |D (w - old)|^2, D the columns' norms
    (without their mean, where there is a bias): so f(fit) <= f(any), that of the least-squares solution above all."""
    torch.manual_seed(0)
    lean = layer(kind, c_in, c_out, bias=bias, **geometry)
    old = copy.deepcopy(lean)
    x = torch.randn(6, c_in, *spatial, dtype=torch.float64) + 0.5
    y = torch.randn_like(lean(x))
    moments = Moments(lean)
    for part_x, part_y in zip(x.split(4), y.split(4), strict=True):
        moments.add(part_x, part_y.detach())
    moments.fit(lean)
    after, before = squares(lean, x, y), squares(old, x, y)
    ridge = (c_in + lean.c.shape[1]) * torch.finfo(torch.float32).eps
    for o in range(c_out):
        columns = features(lean, x, o)
        best = torch.linalg.lstsq(columns, y[:, o].flatten()).solution
        least = (y[:, o].flatten() - columns @ best).square().sum()
        weights = torch.cat([t[o].flatten() for t in (old.alpha, old.c) if o < len(t)])
        scaled = columns[:, : len(weights)]
        norms = (scaled - scaled.mean(0) if bias else scaled).square().sum(0)
        allowed = ridge * (norms * (best[: len(weights)] - weights).square()).sum()
        assert least < before[o]
        assert after[o] <= least + allowed, (o, after[o] - least, allowed)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("positions", [1, 2, 7])
def test_too_few_positions(bias: bool, positions: int) -> None:
    """More weights than equations: finite, and the residual does not grow."""
    torch.manual_seed(0)
    lean = layer(LeanConv2d, 8, 8, bias=bias)
    x = torch.randn(1, 8, 1, positions, dtype=torch.float64)
    y = torch.randn(1, 8, 1, positions, dtype=torch.float64)
    before = squares(lean, x, y)
    moments = Moments(lean)
    moments.add(x, y)
    moments.fit(lean)
    assert all(p.isfinite().all() for p in lean.parameters())
    assert (squares(lean, x, y) <= before).all()


def test_dead_channels_keep_their_weights() -> None:
    torch.manual_seed(0)
    lean = layer(LeanConv2d, 4, 5)
    old = copy.deepcopy(lean)
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    x[:, 1] = 0
    moments = Moments(lean)
    moments.add(x, torch.randn(3, 5, 5, 5, dtype=torch.float64))
    moments.fit(lean)
    assert torch.equal(lean.alpha[:, 1], old.alpha[:, 1])
    assert torch.equal(lean.c[1], old.c[1])
    assert not torch.equal(lean.alpha[:, 0], old.alpha[:, 0])


def test_channels_of_very_different_scale() -> None:
    """Scaling an input channel by s scales its weights by 1 / s: the ridge is relative, channel by channel."""
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 6, 6, dtype=torch.float64), torch.randn(4, 3, 6, 6, dtype=torch.float64)
    scale = torch.tensor([2.0**-30, 1.0, 2.0**30], dtype=torch.float64)  # powers of two: exact
    fitted = []
    for s in (torch.ones(3, dtype=torch.float64), scale):
        lean = layer(LeanConv2d, 3, 3)
        with torch.no_grad():
            lean.alpha.zero_()
            lean.c.zero_()
        moments = Moments(lean)
        moments.add(x * s.view(1, 3, 1, 1), y)
        moments.fit(lean)
        fitted.append((lean.alpha * s, lean.c * s[:, None]))
    for plain, scaled in zip(*fitted, strict=True):
        assert torch.equal(plain, scaled)


class Branches(nn.Module):
    """Calls its layers in another order than it registers them; one twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Conv2d(6, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.never = nn.Conv2d(6, 6, 3, padding=1)
        self.early = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        y = self.norm(self.early(x)).relu()
        y = self.twice(self.twice(y).relu()) + y
        return gain * self.late(y)


@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_in_a_network(form: str) -> None:
    torch.manual_seed(0)
    dense = Branches()
    images = [torch.randn(n, 3, 8, 8) for n in (4, 3)]
    dense(torch.cat(images))  # some statistics for the normalisation
    batches: list[Any] = {
        "tensor": images,
        "tuple": [(image, 2.0) for image in images],
        "dict": [{"x": image, "gain": 2.0} for image in images],
    }[form]
    projected, _ = convert(copy.deepcopy(dense))
    model, report = convert(copy.deepcopy(dense), init="calibrate", batches=batches)
    assert {r.names[0]: r.init for r in report.replaced} == {
        "late": "calibrate",
        "twice": "calibrate",
        "never": "project",
        "early": "calibrate",
    }
    assert torch.equal(model.never.alpha, projected.never.alpha)
    assert all(module.training for module in model.modules())
    assert torch.equal(model.norm.running_mean, dense.norm.running_mean)
    x = torch.cat(images)
    with torch.no_grad():
        wanted = dense.eval()(x)
        errors = {n: (m.eval()(x) - wanted).square().sum() for n, m in (("project", projected), ("calibrate", model))}
    # The last layer is fitted with a bias, and the constant that is its target's mean is among its candidates.
    by_the_mean = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().sum()
    assert errors["calibrate"] < min(errors["project"], by_the_mean)


def test_a_lean_network_stays_as_it_is() -> None:
    """Dense kernels that are lean already: the projection is right, and least squares has nothing to correct."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1, bias=False))
    with torch.no_grad():
        for conv in (model[0], model[2]):
            lean = torch.zeros_like(conv.weight)
            lean[:, :, 1, 1] = torch.randint(-3, 4, conv.weight.shape[:2])
            lean[range(3), range(3), 0, 1] = 1
            lean[range(3), range(3), 1, 2] = -2
            conv.weight.copy_(lean)
        model[0].bias.copy_(torch.tensor([1.0, -1.0, 2.0, 0.0]))
    x = torch.randint(-3, 4, (4, 3, 6, 6)).float()
    expected = model(x)
    converted, _ = convert(model, init="calibrate", batches=[x])
    assert torch.equal(converted(x).round(), expected)


def test_hooks_take_part() -> None:
    """A hook that changes what comes out of one layer changes what the next one is fitted to."""
    torch.manual_seed(0)

    def network() -> nn.Sequential:
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1, bias=False))

    x = torch.randn(2, 3, 6, 6)
    plain, _ = convert(network(), init="calibrate", batches=[x])
    doubled = network()
    doubled[0].register_forward_hook(lambda module, args, y: 2 * y)
    hooked, _ = convert(doubled, init="calibrate", batches=[x])
    # All inputs and outputs of the second layer are doubled, exactly: so are the sums, by four, and not the weights.
    assert torch.equal(hooked[1].alpha, plain[1].alpha)
    assert torch.equal(hooked[1](hooked[0](x)), 2 * plain[1](plain[0](x)))
