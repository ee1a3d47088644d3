"""convert: which convolutions become lean, what they start from, what stays as it was, and the report."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d, convert, lean_conv

CONVS = [(nn.Conv1d, LeanConv1d, 1), (nn.Conv2d, LeanConv2d, 2), (nn.Conv3d, LeanConv3d, 3)]
# Where the taps lie, by hand.
TAPS = {
    1: [(0,), (2,)],
    2: [(0, 1), (1, 0), (1, 2), (2, 1)],
    3: [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 2), (1, 2, 1), (2, 1, 1)],
}


def integers(*shape: int) -> Tensor:
    return torch.randint(-3, 4, shape).float()


def kernel_of(alpha: Tensor, c: Tensor) -> Tensor:
    """The dense kernel that a lean layer stands for."""
    dims = c.shape[1] // 2
    weight = torch.zeros(*alpha.shape, *[3] * dims)
    weight[(..., *[1] * dims)] = alpha
    for k, tap in enumerate(TAPS[dims]):
        for j in range(len(c)):
            weight[(j, j, *tap)] = c[j, k]
    return weight


@pytest.mark.parametrize(("conv", "lean", "dims"), CONVS)
@pytest.mark.parametrize(("c_in", "c_out"), [(3, 5), (5, 3), (4, 4), (1, 1)])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_projection(conv: Any, lean: Any, dims: int, c_in: int, c_out: int, stride: int, dilation: int, bias: bool):
    """What is dropped is orthogonal to every lean kernel, so that nothing is nearer; a lean kernel itself is kept."""
    torch.manual_seed(0)
    dense = conv(c_in, c_out, 3, stride, padding=dilation, dilation=dilation, bias=bias)
    with torch.no_grad():
        for p in dense.parameters():
            p.copy_(integers(*p.shape))
    model, report = convert(nn.Sequential(copy.deepcopy(dense)))
    layer = model[0]
    assert type(layer) is lean
    assert (layer.stride, layer.dilation) == (dense.stride, dense.dilation)
    assert [r.init for r in report.replaced] == ["project"]

    kept = kernel_of(layer.alpha, layer.c)
    dropped = dense.weight - kept
    for _ in range(10):
        other = kernel_of(integers(*layer.alpha.shape), integers(*layer.c.shape))
        assert (dropped * other).sum() == 0

    x = integers(2, c_in, *range(5, 5 + dims))
    function = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[dims]
    expected = function(x, kept, dense.bias, dense.stride, dense.padding, dense.dilation)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_random(bias: bool) -> None:
    torch.manual_seed(5)
    expected = LeanConv2d(3, 4, bias=bias)
    dense = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
    torch.manual_seed(5)
    model, report = convert(dense, init="random")
    assert report.replaced[0].init == "random"
    for got, want in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(got, want)


class Pads(nn.Conv2d):
    """Adds to the constructor alone, as many libraries do."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Circular(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(torch.roll(x, 1, 2), weight, bias)


class Gated(nn.Conv2d):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1)
        self.gate = nn.Parameter(torch.ones(1))


def _changed(**attributes: Any) -> nn.Module:
    """As code does that alters a convolution after it was made."""
    conv = nn.Conv2d(4, 4, 3, padding=1)
    for name, value in attributes.items():
        setattr(conv, name, value)
    return conv


def _patched() -> nn.Module:
    conv = nn.Conv2d(4, 4, 3, padding=1)
    conv.forward = lambda x: x  # type: ignore[method-assign]
    return conv


@pytest.mark.parametrize("padding", [1, "same"])
def test_ways_to_pad(padding: Any) -> None:
    assert isinstance(convert(nn.Conv2d(2, 2, 3, padding=padding))[0], LeanConv2d)


def test_a_convolution_is_what_it_computes() -> None:
    """Whatever its attributes said when it was made: pruning tools shrink weights, others set numbers for tuples."""
    x = torch.ones(2, 4, 6, 6)
    for conv in (
        _changed(weight=nn.Parameter(integers(2, 4, 3, 3)), bias=None),
        _changed(kernel_size=3, padding=2, dilation=2, stride=2),
        _changed(kernel_size=[3, 3], padding=[1, 2], dilation=[1, 2], stride=[2, 1]),
    ):
        assert isinstance(conv, nn.Conv2d)
        with torch.no_grad():
            conv.weight.copy_(kernel_of(integers(*conv.weight.shape[:2]), integers(min(conv.weight.shape[:2]), 4)))
            if conv.bias is not None:
                conv.bias.zero_()
        model, report = convert(nn.Sequential(conv))
        assert len(report.replaced) == 1
        assert "LeanConv2d" in str(report)
        assert torch.equal(model(x), conv(x))


def test_a_subclass_with_the_forward_of_its_base() -> None:
    model, report = convert(nn.Sequential(Pads(3, 4)))
    assert isinstance(model[0], LeanConv2d)
    assert report.replaced[0].before == "Pads(3, 4, 3x3)"


LEFT = [
    (lambda: nn.Conv2d(4, 4, 1), "kernel 1x1"),
    (lambda: nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 1, 1)), "kernel 1x3x3"),
    (lambda: nn.Conv2d(4, 4, 3), "padding (0, 0) is not the dilation (1, 1)"),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, dilation=2), "padding (1, 1) is not the dilation (2, 2)"),
    (lambda: nn.Conv2d(4, 4, 3, padding="valid"), "padding valid is not the dilation (1, 1)"),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2), "groups"),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), "depthwise"),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode reflect"),
    (lambda: nn.ConvTranspose2d(4, 4, 3, padding=1), "transposed"),
    (lambda: nn.LazyConv2d(4, 3, padding=1), "lazy: its sizes are not known before it has run"),
    (
        lambda: parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1)),
        "its weight is computed (parametrised or pruned)",
    ),
    (
        lambda: nn.utils.spectral_norm(nn.Conv2d(4, 4, 3, padding=1)),
        "its weight is computed (parametrised or pruned)",
    ),
    (
        lambda: prune.l1_unstructured(nn.Conv2d(4, 4, 3, padding=1), "weight", 0.5),
        "its weight is computed (parametrised or pruned)",
    ),
    (lambda: nn.Conv2d(4, 4, 3, padding=1, dtype=torch.complex64), "its weight is a Parameter of torch.complex64"),
    (lambda: _changed(weight=nn.Parameter(torch.ones(4, 4, 5, 5))), "kernel 5x5"),
    (lambda: nn.Conv2d(4, 4, 3, padding=1).to(torch.float8_e5m2), "its weight is a Parameter of torch.float8_e5m2"),
    (
        lambda: _changed(bias=nn.Parameter(torch.ones(4, dtype=torch.float64))),
        "its weight and bias differ in dtype or device",
    ),
    (lambda: Standardised(4, 4, 3, padding=1), "Standardised has a forward of its own"),
    (lambda: Circular(4, 4, 3, padding=1), "Circular has a forward of its own"),
    (lambda: Gated(4, 4), "Gated has gate besides weight and bias"),
    (_patched, "Conv2d has a forward of its own"),
]


@pytest.mark.parametrize(("make", "reason"), LEFT)
@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning", "ignore:.*spectral_norm:FutureWarning")
def test_left_and_why(make: Any, reason: str) -> None:
    conv = make()
    model = nn.Sequential(conv, nn.ReLU())
    converted, report = convert(model)
    assert converted is model
    assert model[0] is conv
    assert report.replaced == ()
    assert [(left.names, left.reason) for left in report.left] == [(("0",), reason)]
    assert reason in str(report)
    assert report.parameters_before == report.parameters_after


@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_model_is_left_and_said_to_be(how: str) -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), torch.ones(1, 3, 4, 4)
    scripted = torch.jit.script(model) if how == "script" else torch.jit.trace(model, x)
    converted, report = convert(scripted)
    assert converted is scripted
    assert [(left.names, left.layer) for left in report.left] == [(("0",), "Conv2d")]
    assert "scripted or traced" in str(report)
    assert torch.equal(converted(x), model(x))


def test_inside_of_a_compiled_model() -> None:
    """The compiled code must not go on with the layers that are gone."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    compiled, x = torch.compile(model, backend="eager"), torch.ones(1, 3, 4, 4)
    compiled(x)
    converted, report = convert(compiled)
    assert [r.names for r in report.replaced] == [("_orig_mod.0",)]
    assert isinstance(model[0], LeanConv2d)
    assert torch.equal(converted(x), model(x))


def test_called_by_keyword() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(input=x)

    x = torch.ones(1, 3, 4, 4)
    for options in ({}, {"init": "calibrate", "batches": [x]}):
        model, _ = convert(Keyword(), **options)  # type: ignore[arg-type]
        assert model(x).shape == (1, 4, 4, 4)


def test_nothing_to_convert() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    converted, report = convert(model, example_inputs=torch.ones(2, 3))
    assert converted is model
    assert str(report) == "0 of 0 convolutions replaced"
    assert (report.parameters_before, report.parameters_after) == (16, 16)
    assert report.flops_before == report.flops_after == 2 * 2 * 3 * 4
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_the_model_itself_is_a_convolution() -> None:
    dense = nn.Conv3d(2, 3, 3, padding=1)
    model, report = convert(dense)
    assert isinstance(model, LeanConv3d)
    assert report.replaced[0].names == ("(model)",)


def test_twice_is_once() -> None:
    model, _ = convert(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)))
    layer = model[0]
    again, report = convert(model)
    assert again[0] is layer
    assert report.replaced == report.left == ()


def test_a_module_registered_twice_stays_one() -> None:
    conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
    block = nn.Sequential(conv, nn.ReLU())
    model, report = convert(nn.ModuleDict({"a": conv, "b": block, "c": block}))
    assert isinstance(model["a"], LeanConv2d)
    assert model["a"] is model["b"][0]
    assert model["b"] is model["c"]
    assert [r.names for r in report.replaced] == [("a", "b.0", "c.0")]
    assert (report.parameters_before, report.parameters_after) == (81, 9 + 12)


def test_a_shared_weight_is_left() -> None:
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    _, report = convert(nn.Sequential(first, second, nn.Conv2d(3, 3, 3, padding=1)))
    assert [r.names for r in report.replaced] == [("2",)]
    assert {left.reason for left in report.left} == {"a parameter is shared with another module"}


def test_filter_fn_sees_the_eligible_ones() -> None:
    seen: list[tuple[str, nn.Module]] = []

    def filter_fn(name: str, module: nn.Module) -> bool:
        seen.append((name, module))
        return name != "0"

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.Sequential(nn.Conv1d(4, 4, 3, padding=1))
    )
    expected = [("0", model[0]), ("2.0", model[2][0])]
    _, report = convert(model, filter_fn)
    assert seen == expected
    assert [r.names for r in report.replaced] == [("2.0",)]
    assert [left.reason for left in report.left] == ["filter_fn", "kernel 1x1"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("init", ["random", "project"])
def test_dtype_device_and_flags(device: str, dtype: torch.dtype, init: Any) -> None:
    dense = nn.Conv2d(3, 4, 3, padding=1, device=device, dtype=dtype).eval()
    dense.weight.requires_grad_(False)
    model, _ = convert(nn.Sequential(dense), init=init)
    layer = model[0]
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {(device, dtype)}
    assert not layer.training
    assert model.training
    assert {name: p.requires_grad for name, p in layer.named_parameters()} == {"alpha": False, "c": False, "bias": True}


def test_hooks_stay_and_can_be_removed() -> None:
    calls: list[str] = []
    dense = nn.Conv2d(3, 4, 3, padding=1)
    handles = [
        dense.register_forward_pre_hook(lambda module, args: calls.append("before " + type(module).__name__)),
        dense.register_forward_hook(lambda module, args, y: 2 * y),
        dense.register_forward_hook(lambda module, args, kwargs, y: calls.append("after"), with_kwargs=True),
        dense.register_full_backward_hook(lambda module, dx, dy: calls.append("backward")),
    ]
    model, _ = convert(nn.Sequential(dense))
    layer, x = model[0], torch.ones(1, 3, 4, 4, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert calls == ["before LeanConv2d", "after", "backward"]
    plain = lean_conv(x, layer.alpha, layer.c, layer.bias)
    assert torch.equal(y, 2 * plain)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(x), plain)
    assert len(calls) == 3


def test_a_converted_model_trains_copies_and_saves() -> None:
    torch.manual_seed(0)
    model, _ = convert(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, 2, 1)))
    x = torch.randn(4, 1, 6, 6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    first = model(x).square().mean()
    first.backward()
    optimizer.step()
    assert model(x).square().mean() < first
    other, _ = convert(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3, 2, 1)))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(x), copy.deepcopy(model).eval()(x))


class TwoCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2)
        self.head = nn.Conv2d(2, 3, 1, bias=False)

    def forward(self, x: Tensor, *, small: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x))) + self.head(self.conv(small)).sum()


def test_flops() -> None:
    model = TwoCalls()
    inputs = {"x": torch.ones(2, 2, 5, 4), "small": torch.ones(1, 2, 3, 3)}
    state = copy.deepcopy(model.state_dict())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(model)(**inputs)
    model, report = convert(model, example_inputs=inputs)
    positions = 2 * 5 * 4 + 3 * 3
    assert report.flops_before == counter.get_total_flops() == 2 * positions * (2 * 2 * 9 + 2 * 3)
    assert report.flops_after == 2 * positions * (2 * 2 + 2 * 4 + 2 * 3)
    [replaced] = report.replaced
    assert (replaced.flops_before, replaced.flops_after) == (2 * positions * 36, 2 * positions * 12)
    assert (replaced.parameters_before, replaced.parameters_after) == (36, 12)
    assert (report.parameters_before, report.parameters_after) == (36 + 4 + 6, 12 + 4 + 6)
    # It was run, in evaluation mode: no statistics moved, and it trains as before.
    assert all(torch.equal(model.state_dict()[name], state[name]) for name in state if name.startswith("norm"))
    assert all(module.training for module in model.modules())


def test_the_report_as_a_table() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 64, 7), nn.Conv2d(64, 128, 3, stride=2, padding=1, bias=False), *[nn.Conv2d(128, 128, 1)] * 2
    )
    for _ in range(4):
        model.append(nn.Conv2d(128, 8, 1))
    _, report = convert(model)
    assert (
        str(report)
        == """\
1 of 7 convolutions replaced

name         was                             is                             init     parameters     now
1            Conv2d(64, 128, 3x3, stride 2)  LeanConv2d(64, 128, stride 2)  project      73,728   8,448
whole model                                                                             103,840  38,560

left:
  kernel 7x7: 0
  kernel 1x1: 2, 4, 5 and 2 more"""
    )


def test_what_is_refused() -> None:
    dense = nn.Conv2d(2, 2, 3, padding=1)
    with pytest.raises(TypeError, match=r"convert: model is list, expected an nn\.Module"):
        convert([dense])  # type: ignore[type-var]
    with pytest.raises(ValueError, match="convert: init is 'nearest', expected"):
        convert(dense, init="nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='init is "calibrate" and there are 0 batches'):
        convert(dense, init="calibrate")
    with pytest.raises(ValueError, match='init is "project" and there are 1 batches'):
        convert(dense, batches=[torch.ones(1, 2, 3, 3)])


@pytest.mark.parametrize("calibrate", [False, True])
def test_a_failing_run_changes_nothing(calibrate: bool) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 3, 3, padding=1))
    modules = list(model.modules())
    good, bad = torch.ones(1, 2, 3, 3), torch.ones(1, 5, 3, 3)
    options: Any = {"init": "calibrate", "batches": [good, bad]} if calibrate else {"example_inputs": bad}
    with pytest.raises(RuntimeError):
        convert(model, **options)
    assert list(model.modules()) == modules
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in modules)
    assert math.prod(model(good).shape) == 27


@pytest.mark.parametrize("calibrate", [False, True])
def test_input_without_a_batch_axis(calibrate: bool) -> None:
    """What comes of a tensor where a list of them was meant; torch's convolutions take it, and would count channels."""
    model, x = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1)), torch.ones(4, 2, 3, 3)
    options: Any = {"init": "calibrate", "batches": x} if calibrate else {"example_inputs": x[0]}
    with pytest.raises(ValueError, match=r"convert: 0 gives \(2, 3, 3\), without a batch axis"):
        convert(model, **options)
    assert isinstance(model[0], nn.Conv2d)
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["input", "weight"])
def test_activations_that_are_not_finite(value: float, where: str) -> None:
    model, x = nn.Sequential(nn.Identity(), nn.Conv2d(2, 2, 3, padding=1)), torch.ones(1, 2, 3, 3)
    with torch.no_grad():
        (x if where == "input" else model[1].weight)[0, 1, 1, 1] = value
    with pytest.raises(ValueError, match="convert: on the batches, the activations at 1 are not finite"):
        convert(model, init="calibrate", batches=[x])
    assert isinstance(model[1], nn.Conv2d)


def test_failing_half_way_through_the_calibration_changes_nothing() -> None:
    """The third pass through the middle is the one with the first layer lean already."""
    passes: list[int] = []

    def fail_at_the_third(module: nn.Module, args: Any) -> None:
        passes.append(1)
        if len(passes) == 3:
            assert isinstance(model[0], LeanConv2d)
            raise RuntimeError("the third")

    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1))
    modules = list(model.modules())
    model[1].register_forward_pre_hook(fail_at_the_third)
    with pytest.raises(RuntimeError, match="the third"):
        convert(model, init="calibrate", batches=[torch.ones(1, 2, 3, 3)])
    assert list(model.modules()) == modules
    assert all(module.training for module in modules)
