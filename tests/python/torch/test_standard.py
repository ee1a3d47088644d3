"""to_standard: plain convolutions with the output of the lean layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from helpers import SMALL, absolute, bound, geometries, integer_problem, normal_problem
from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d, LeanConv4d, to_standard

MODULES = {1: LeanConv1d, 2: LeanConv2d, 3: LeanConv3d}
CASES = [(shape, geometry) for shape in SMALL if len(shape[3]) <= 3 for geometry in geometries(len(shape[3]))]


def layer_of(p: Any) -> Any:
    dims = p.x.ndim - 2
    dtype = torch.from_numpy(p.x).dtype
    layer = MODULES[dims](p.alpha.shape[1], p.alpha.shape[0], bias=True, dtype=dtype, **p.geometry)
    state = {"alpha": p.alpha, "c": p.c, "bias": p.bias}
    layer.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return layer


@pytest.mark.parametrize(("shape", "geometry"), CASES)
def test_exact_on_integers(shape: Any, geometry: Any) -> None:
    p = integer_problem(*shape, **geometry)
    standard = to_standard(layer_of(p))
    assert {type(m).__name__ for m in standard.modules()} <= {"StandardLeanConv", "Conv1d", "Conv2d", "Conv3d"}
    assert (standard(torch.from_numpy(p.x)).detach().numpy() == p.y()).all()


@pytest.mark.parametrize("shape", [shape for shape in SMALL if len(shape[3]) <= 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_within_the_bound_of_the_sum(shape: Any, dtype: str) -> None:
    p = normal_problem(*shape, dtype)
    y = to_standard(layer_of(p))(torch.from_numpy(p.x)).detach().numpy()
    terms = p.alpha.shape[1] + 3 ** (p.x.ndim - 2) + 1
    assert (abs(y - p.y()) <= bound(terms, p.y(), absolute(p).y(), p.x.dtype)).all()


def test_in_a_model() -> None:
    lean = LeanConv2d(3, 3, bias=True)
    lean.c.requires_grad_(False)
    seen: list[str] = []
    lean.register_forward_hook(lambda module, args, y: seen.append(type(module).__name__))
    model = nn.Sequential(lean, nn.BatchNorm2d(3), nn.Sequential(lean, nn.ReLU()), LeanConv2d(3, 5)).eval()
    before = copy.deepcopy(model)
    assert to_standard(model) is model
    assert model[0] is model[2][0]
    assert not any(isinstance(m, LeanConv2d) for m in model.modules())
    assert not any(m.training for m in model.modules())
    assert {name: p.requires_grad for name, p in model[0].named_parameters()} == {
        "pointwise.weight": True,
        "pointwise.bias": True,
        "cross.weight": False,
    }
    x = torch.ones(1, 3, 4, 4)
    assert model(x).shape == before(x).shape
    assert seen == ["StandardLeanConv"] * 2 + ["LeanConv2d"] * 2


def test_export_has_stock_operators_alone() -> None:
    model = to_standard(nn.Sequential(LeanConv2d(3, 4, bias=True), nn.ReLU(), LeanConv2d(4, 2, stride=2))).eval()
    program = torch.export.export(model, (torch.rand(1, 3, 8, 8),))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert called
    assert all(name.startswith("aten.") for name in called), called


def test_no_lean_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    modules = list(model.modules())
    assert to_standard(model) is model
    assert list(model.modules()) == modules


@pytest.mark.parametrize("name", ["alpha", "c"])
@pytest.mark.parametrize("make", ["pruned", "parametrised"])
def test_computed_weights_are_refused(name: str, make: str) -> None:
    """The hook that computes a pruned weight would be carried over to a module without it."""
    layer = LeanConv2d(3, 3)
    if make == "pruned":
        prune.l1_unstructured(layer, name, 0.5)
    else:
        parametrizations.orthogonal(layer, name)
    model = nn.Sequential(LeanConv2d(3, 3), layer)
    with pytest.raises(NotImplementedError, match=rf"to_standard: of 1, {name} is computed"):
        to_standard(model)
    assert type(model[0]) is LeanConv2d
    if make == "pruned":
        prune.remove(layer, name)
    else:
        parametrize.remove_parametrizations(layer, name)
    x = torch.ones(1, 3, 4, 4)
    before = copy.deepcopy(model)(x)
    assert to_standard(model)(x).shape == before.shape


def test_called_by_keyword_like_a_convolution() -> None:
    lean, x = LeanConv2d(3, 4), torch.ones(1, 3, 4, 4)
    assert torch.equal(lean(input=x), lean(x))
    standard = to_standard(lean)
    assert torch.equal(standard(input=x), standard(x))


class Own(LeanConv2d):
    pass


@pytest.mark.parametrize("odd", [LeanConv4d(2, 2), Own(2, 2)])
def test_what_is_refused(odd: nn.Module) -> None:
    model = nn.Sequential(LeanConv2d(2, 2), odd)
    with pytest.raises(NotImplementedError, match=rf"to_standard: 1 is {type(odd).__name__}, without standard form"):
        to_standard(model)
    assert type(model[0]) is LeanConv2d
    with pytest.raises(TypeError, match=r"to_standard: model is int, expected an nn\.Module"):
        to_standard(3)  # type: ignore[type-var]
