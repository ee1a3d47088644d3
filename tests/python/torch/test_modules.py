"""LeanConv1d to LeanConv4d: parameters, initialisation, printing, copying and saving."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from helpers import run_script
from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d, LeanConv4d, lean_conv

MODULES = [(LeanConv1d, 1), (LeanConv2d, 2), (LeanConv3d, 3), (LeanConv4d, 4)]
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize(("module", "dims"), MODULES)
@pytest.mark.parametrize(("c_in", "c_out"), [(3, 5), (5, 3), (1, 1)])
@pytest.mark.parametrize("bias", [False, True])
def test_shapes_and_result(module: Any, dims: int, c_in: int, c_out: int, bias: bool) -> None:
    stride, dilation = tuple(range(1, dims + 1)), tuple(range(dims, 0, -1))
    conv = module(c_in, c_out, stride=stride, dilation=dilation, bias=bias)
    assert conv.alpha.shape == (c_out, c_in)
    assert conv.c.shape == (min(c_in, c_out), 2 * dims)
    assert sum(p.numel() for p in conv.parameters()) == c_in * c_out + 2 * dims * min(c_in, c_out) + bias * c_out
    x = torch.randn(2, c_in, *range(3, 3 + dims))
    y = conv(x)
    assert y.shape == (2, c_out, *((n - 1) // s + 1 for n, s in zip(x.shape[2:], stride, strict=True)))
    assert torch.equal(y, lean_conv(x, conv.alpha, conv.c, conv.bias, stride, dilation))


@pytest.mark.parametrize(("module", "dims"), MODULES)
@pytest.mark.parametrize("c_out", [2, 3])
def test_he_initialisation(module: Any, dims: int, c_out: int) -> None:
    """The mean square of n normal values lies within 6 of its standard deviations, sqrt(2 / n), of the variance."""
    torch.manual_seed(0)
    conv = module(2, c_out, bias=True)
    variances = {"with a stencil": 1 / 2, "without one": 2 / 2, "c": 1 / (2 * dims)}
    drawn: dict[str, list[torch.Tensor]] = {name: [] for name in variances}
    for _ in range(500):
        conv.reset_parameters()
        parts = conv.alpha[:2], conv.alpha[2:], conv.c
        for values, part in zip(drawn.values(), parts, strict=True):
            values.append(part.detach().flatten().clone())
        assert torch.equal(conv.bias, torch.zeros(c_out))
    for name, variance in variances.items():
        sample = torch.cat(drawn[name]).double()
        n = sample.numel()
        if n == 0:
            assert (name, c_out) == ("without one", 2)
            continue
        assert abs(sample.square().mean().item() / variance - 1) < 6 * math.sqrt(2 / n)
        assert abs(sample.mean().item()) < 6 * math.sqrt(variance / n)


def test_repr() -> None:
    assert repr(LeanConv2d(3, 4)) == "LeanConv2d(3, 4)"
    conv = LeanConv3d(3, 4, stride=2, dilation=(1, 2, 3), bias=True)
    assert repr(conv) == "LeanConv3d(3, 4, stride=(2, 2, 2), dilation=(1, 2, 3), bias=True)"


@pytest.mark.parametrize(("module", "dims"), MODULES)
def test_copies_of_a_trained_layer_compute_the_same(module: Any, dims: int) -> None:
    conv = module(3, 4, stride=2, bias=True)
    x = torch.randn(2, 3, *[5] * dims)
    optimizer = torch.optim.AdamW(conv.parameters())
    conv(x).sum().backward()
    optimizer.step()
    saved = io.BytesIO()
    torch.save(conv.state_dict(), saved)
    saved.seek(0)
    loaded = module(3, 4, stride=2, bias=True)
    loaded.load_state_dict(torch.load(saved, weights_only=True))
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), loaded):
        assert torch.equal(other(x), conv(x))
        gradients = (torch.autograd.grad(each(x).sum(), list(each.parameters())) for each in (other, conv))
        for a, b in zip(*gradients, strict=True):
            assert torch.equal(a, b)
        assert other.alpha is not conv.alpha
    assert list(conv.state_dict()) == ["alpha", "c", "bias"]
    assert list(module(3, 4).state_dict()) == ["alpha", "c"]


def test_device_and_dtype() -> None:
    conv = LeanConv2d(3, 4, bias=True, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in conv.parameters()} == {("meta", torch.float64)}
    conv = conv.to_empty(device="cpu")
    conv.reset_parameters()
    assert conv(torch.ones(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64
    assert LeanConv2d(3, 4).double()(torch.ones(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    "wrong",
    [
        {"c_in": 0},
        {"c_out": -1},
        {"stride": 0},
        {"stride": (1, 2, 3)},
        {"dilation": -1},
        {"dilation": (1, 0)},
    ],
)
def test_impossible_options(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"LeanConv2d: .*expected"):
        LeanConv2d(**{"c_in": 3, "c_out": 4, **wrong})


@pytest.mark.parametrize("shape", [(3, 5, 5), (2, 3, 5), (2, 3, 5, 5, 5)])
def test_input_of_another_dimension(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"LeanConv2d: x has shape .* expected \(N, 3\) and 2 spatial axes"):
        LeanConv2d(3, 4)(torch.ones(shape))


def test_a_step_of_an_optimizer_goes_downhill() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(LeanConv2d(3, 8, bias=True), nn.ReLU(), LeanConv2d(8, 2))
    x, target = torch.randn(4, 3, 6, 6), torch.randn(4, 2, 6, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (model(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_import_brings_torch_alone() -> None:
    code = """
import sys, torch
before = set(sys.modules)
import leancore.torch, leancore.torch.models
new = {name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)
print(sorted(new - {"leancore", "nanobind_backend", "torch"}), "torch._dynamo" in sys.modules)
"""
    done = run_script("-c", code)
    assert done.stdout.strip() == "[] False", done.stderr
