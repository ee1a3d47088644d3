"""The networks: exact parameter counts, structure, any image size."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import leancore.torch
from leancore.torch import LeanConv2d, LeanConv3d, shift
from leancore.torch.models import MobileNetV2, ResNet, ShiftResNet, create_model, list_models, model_info
from leancore.torch.models.mobilenet_v2 import InvertedStep
from leancore.torch.models.resnet import Step
from leancore.torch.models.shift_resnet import ShiftStep

# The counts that the paper's Table 1 rounds, and those of the networks that it leaves out.
PARAMETERS = {
    "lean_resnet_a": 496_746,
    "lean_resnet_b": 74_446,
    "lean_resnet_c": 3_138_596,
    "lean_resnet_d": 466_636,
    "lean_resnet_e": 1_958_506,
    "lean_resnet_f": 284_686,
    "lean_resnet_digits": 10_202,
    "resnet_a": 4_303_850,
    "resnet_b": 607_390,
    "resnet_c": 27_351_332,
    "resnet_d": 3_863_212,
    "resnet_e": 17_288_682,
    "resnet_f": 2_435_422,
    "resnet_digits": 75_034,
    "mobilenet_v2_a": 526_543,
    "mobilenet_v2_c": 3_211_920,
    "mobilenet_v2_e": 2_019_843,
    "shift_resnet_a": 488_593,
    "shift_resnet_c": 3_085_926,
    "shift_resnet_e": 1_940_511,
    "shufflenet_v2_x0_5": 352_042,
    "shufflenet_v2_x1_5": 2_581_124,
    "lean_resnet3d_a": 501_930,
    "lean_resnet3d_b": 76_390,
    "resnet3d_a": 12_893_162,
    "resnet3d_b": 1_815_262,
}
OWN = [name for name in PARAMETERS if not name.startswith("shufflenet")]
IN_TORCHVISION = [name for name in PARAMETERS if name.startswith("shufflenet")]
needs_torchvision = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="needs the extra leancore[zoo]"
)
ALL = [*OWN, *(pytest.param(name, marks=[pytest.mark.zoo, needs_torchvision]) for name in IN_TORCHVISION)]

# widths, steps, classes
ROWS = {
    "a": ((32, 64, 128, 256), (2, 3, 3, 3), 10),
    "b": ((12, 24, 48, 96), (2, 3, 3, 3), 10),
    "c": ((64, 128, 256, 512), (3, 5, 7, 4), 100),
    "d": ((24, 48, 96, 192), (3, 5, 7, 4), 100),
    "e": ((32, 64, 128, 256, 512), (2, 3, 3, 3, 3), 10),
    "f": ((12, 24, 48, 96, 192), (2, 3, 3, 3, 3), 10),
    "digits": ((16, 32, 64), (1, 1, 1), 10),
}


def by_hand(name: str, classes: int, channels: int) -> int:
    """Counted from the recipe, without building anything."""
    family, _, row = name.rpartition("_")
    widths, steps, _ = ROWS[row]
    taps = 27 if "3d" in family else 9
    if family in ("mobilenet_v2", "shift_resnet"):
        widths = tuple(round(width / 6**0.5) for width in widths)

    def dense(c_in: int, c_out: int) -> int:
        return taps * c_in * c_out

    def lean(c_in: int, c_out: int) -> int:
        return c_in * c_out + (6 if taps == 27 else 4) * min(c_in, c_out)

    def step(c_in: int, c_out: int) -> int:
        hidden = 6 * c_out
        pointwise = c_in * hidden + 2 * hidden + hidden * c_out + 2 * c_out
        if family == "shift_resnet":
            return pointwise
        if family == "mobilenet_v2":
            return pointwise + 9 * hidden + 2 * hidden
        conv = lean if family.startswith("lean") else dense
        return 2 * c_in + conv(c_in, c_out) + 2 * c_out + conv(c_out, c_out)

    before = widths[0]
    total = dense(channels, before) + 2 * before
    for width, count in zip(widths, steps, strict=True):
        for _ in range(count):
            total += step(before, width)
            before = width
    if "resnet" in family and family != "shift_resnet":
        total += 2 * before
    return total + before * classes + classes


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def images(name: str, count: int = 2, side: int = 8, channels: int | None = None) -> torch.Tensor:
    info = model_info(name)
    return torch.randn(count, channels or info.in_channels, *[side] * info.dims)


def test_the_list() -> None:
    assert list_models() == list(PARAMETERS)
    assert leancore.torch.list_models() == list_models()
    assert leancore.torch.create_model is create_model


@pytest.mark.parametrize("name", ALL)
def test_exact_parameter_counts(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
        model.eval()
        scores = model(images(name, side=32))
    info = model_info(name)
    assert parameters(model) == PARAMETERS[name] == info.parameters
    assert scores.shape == (2, info.num_classes)


@pytest.mark.parametrize("name", OWN)
def test_counts_by_hand(name: str) -> None:
    info = model_info(name)
    assert PARAMETERS[name] == by_hand(name, info.num_classes, info.in_channels)
    assert info.num_classes == ROWS[name.rpartition("_")[2]][2]
    assert info.in_channels == (1 if info.dims == 3 or name.endswith("digits") else 3)


@pytest.mark.zoo
@needs_torchvision
def test_shufflenet_for_stl10_has_the_paper_s_2_5_million() -> None:
    assert parameters(create_model("shufflenet_v2_x1_5", num_classes=10)) == 2_488_874


def test_what_is_known_of_a_network() -> None:
    info = model_info("lean_resnet_a")
    assert dataclasses.asdict(info) == {
        "name": "lean_resnet_a",
        "family": "lean_resnet",
        "row": "a",
        "dims": 2,
        "num_classes": 10,
        "in_channels": 3,
        "parameters": 496_746,
        "paper_parameters": "0.5M",
        "paper_accuracy": {"cifar10": 92.8},
    }
    assert pickle.loads(pickle.dumps(info)) == copy.deepcopy(info) == info
    info.paper_accuracy.clear()  # type: ignore[attr-defined]
    assert model_info("lean_resnet_a").paper_accuracy == {"cifar10": 92.8}
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.parameters = 1  # type: ignore[misc]
    assert [name for name in list_models() if model_info(name).row is None] == [
        name for name in PARAMETERS if "digits" in name or "3d" in name or "shuffle" in name
    ]
    in_the_paper = [name for name in list_models() if model_info(name).paper_parameters]
    assert len(in_the_paper) == 17
    assert sum(len(model_info(name).paper_accuracy) for name in in_the_paper) == 18


SMALL = [
    "lean_resnet_b",
    "resnet_b",
    "mobilenet_v2_a",
    "shift_resnet_a",
    pytest.param("shufflenet_v2_x0_5", marks=[pytest.mark.zoo, needs_torchvision]),
    "lean_resnet3d_b",
    "resnet3d_b",
]


@pytest.mark.parametrize("name", SMALL)
def test_other_classes_and_channels(name: str) -> None:
    model = create_model(name, num_classes=7, in_channels=4)
    usual = create_model(name)
    last = next(m for m in usual.modules() if isinstance(m, nn.Linear))
    first = next(m for m in usual.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)))
    per_channel = first.weight[:, 0].numel()
    assert parameters(model) == (PARAMETERS[name] - 3 * (last.in_features + 1) + (4 - first.in_channels) * per_channel)
    assert model(images(name, channels=4)).shape == (2, 7)


def test_unknown_names_are_refused_with_the_list() -> None:
    for name in ("lean_resnet", "resnet_g", "lean_resnet_A", "mobilenet_v2_b", ""):
        for function in (create_model, model_info):
            with pytest.raises(ValueError, match=r"lean_resnet_a, .*resnet_digits"):
                function(name)
    with pytest.raises(ValueError, match="must pair"):
        ResNet((8, 4), (1, 1), lean=True, num_classes=2, in_channels=3)
    with pytest.raises(ValueError, match="must pair"):
        ResNet((4, 8), (1,), lean=True, num_classes=2, in_channels=3)
    with pytest.raises(ValueError, match="must pair"):
        ResNet((), (), lean=True, num_classes=2, in_channels=3)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"num_classes": 0}, "num_classes is 0"),
        ({"in_channels": 0}, "in_channels is 0"),
        ({"steps": (1, 0)}, "steps is 0"),
        ({"dims": 4}, "dims is 4"),
    ],
)
@pytest.mark.parametrize("kind", [ResNet, MobileNetV2, ShiftResNet])
def test_arguments_out_of_range_are_refused(kind: Any, wrong: dict[str, Any], what: str) -> None:
    arguments = {"widths": (4, 8), "steps": (1, 1), "num_classes": 2, "in_channels": 3, "dims": 2}
    if kind is ResNet:
        arguments["lean"] = True
    kind(**arguments)
    with pytest.raises(ValueError, match=f"{kind.__name__}: {what}"):
        kind(**{**arguments, **wrong})


@pytest.mark.parametrize("name", ["lean_resnet_b", "lean_resnet_f", "resnet_b", "lean_resnet_digits", *SMALL[2:]])
@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 32, 33])
def test_any_side_works(name: str, side: int) -> None:
    model = create_model(name).eval()
    info = model_info(name)
    if info.dims == 3:
        side = min(side, 17)
    assert model(torch.randn(2, info.in_channels, *range(side, side + info.dims))).shape == (2, 10)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_every_kind_in_every_dimension(dims: int) -> None:
    sizes = {"widths": (4, 6), "steps": (1, 1), "num_classes": 3, "in_channels": 2, "dims": dims}
    for model in (ResNet(lean=True, **sizes), ResNet(lean=False, **sizes), MobileNetV2(**sizes), ShiftResNet(**sizes)):
        assert model(torch.randn(2, 2, *range(4, 4 + dims))).shape == (2, 3)


def test_the_first_blocks_dense_where_asked_for() -> None:
    widths, steps, _ = ROWS["a"]
    counts = [parameters(create_model("lean_resnet_a", dense_blocks=k)) for k in range(5)]
    assert counts[0] == PARAMETERS["lean_resnet_a"]
    assert counts[4] == PARAMETERS["resnet_a"]
    before = widths[0]
    for k, (width, count) in enumerate(zip(widths, steps, strict=True)):
        pairs = [(before, width)] + [(width, width)] * (2 * count - 1)
        assert counts[k + 1] - counts[k] == sum(8 * c_in * c_out - 4 * c_in for c_in, c_out in pairs)
        before = width
    model = create_model("lean_resnet_a", dense_blocks=1)
    assert not any(isinstance(m, LeanConv2d) for m in model.blocks[0].modules())
    assert not any(isinstance(m, nn.Conv2d) for block in model.blocks[1:] for m in block.modules())


def test_options_that_a_network_does_not_have_are_refused() -> None:
    for name, options in (
        ("resnet_a", {"dense_blocks": 1}),
        ("shift_resnet_a", {"dense_blocks": 1}),
        ("lean_resnet_a", {"dims": 3}),
        ("lean_resnet_a", {"lean": False}),
        ("lean_resnet_a", {"dense_block": 1}),
    ):
        with pytest.raises(TypeError, match=f"{name} has no option {next(iter(options))}"):
            create_model(name, **options)
    for k in (-1, 5):
        with pytest.raises(ValueError, match=f"dense_blocks is {k}, expected 0 to 4"):
            create_model("lean_resnet_a", dense_blocks=k)


def test_volumes_have_lean_convolutions_of_volumes() -> None:
    model = create_model("lean_resnet3d_a")
    assert sum(isinstance(m, LeanConv3d) for m in model.modules()) == 2 * (2 + 3 + 3 + 3)
    assert sum(isinstance(m, nn.Conv3d) for m in model.modules()) == 1


def test_lean_networks_have_no_dense_convolution_but_the_first() -> None:
    model = create_model("lean_resnet_a")
    convolutions = [m for m in model.modules() if isinstance(m, (nn.Conv2d, LeanConv2d))]
    assert isinstance(convolutions[0], nn.Conv2d)
    assert len(convolutions) == 1 + 2 * (2 + 3 + 3 + 3)
    assert all(isinstance(m, LeanConv2d) for m in convolutions[1:])
    assert all(m.bias is None for m in convolutions)


@pytest.mark.parametrize("lean", [True, False])
def test_a_step_without_its_second_convolution_is_the_padded_shortcut(lean: bool) -> None:
    step = Step(3, 5, lean=lean)
    for parameter in step.conv2.parameters():
        nn.init.zeros_(parameter)
    y = torch.randn(2, 3, 4, 5)
    result = step(y)
    assert torch.equal(result[:, :3], y)
    assert torch.equal(result[:, 3:], torch.zeros(2, 2, 4, 5))


def test_a_step_is_its_formula() -> None:
    step = Step(4, 4, lean=True)
    y = torch.randn(2, 4, 5, 6)
    relu = torch.relu
    assert torch.equal(step(y.clone()), y + step.conv2(relu(step.norm2(step.conv1(relu(step.norm1(y)))))))


@pytest.mark.parametrize("c_out", [4, 6])
def test_inverted_and_shift_steps_are_their_formulas(c_out: int) -> None:
    y = torch.randn(2, 4, 5, 6)
    shortcut = nn.functional.pad(y, (0, 0, 0, 0, 0, c_out - 4))

    expand, norm1, _, depthwise, norm2, _, project, norm3 = (inverted := InvertedStep(4, c_out)).residual
    z = norm1(expand(y)).clamp(0, 6)
    z = norm2(depthwise(z)).clamp(0, 6)
    assert torch.equal(inverted(y.clone()), shortcut + norm3(project(z)))
    assert (depthwise.groups, depthwise.in_channels) == (6 * c_out, 6 * c_out)

    expand, norm1, _, _, project, norm2, _ = (shifting := ShiftStep(4, c_out)).residual
    z = torch.relu(norm2(project(shift(torch.relu(norm1(expand(y)))))))
    assert torch.equal(shifting(y.clone()), shortcut + z)


def test_odd_sides_average_the_pixels_that_there_are() -> None:
    """Without its steps a network is: opening, pool, pool, norm, mean. A constant image must stay constant."""
    model = create_model("lean_resnet_digits").eval()
    seen: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        for step in block:
            for parameter in step.conv2.parameters():
                nn.init.zeros_(parameter)
    nn.init.zeros_(model.opening[0].weight)
    model.opening[0].weight.data[:, 0, 1, 1] = 1  # each channel is the image
    model(torch.full((1, 1, 5, 3), 2.0))
    assert [tuple(t.shape[2:]) for t in seen] == [(5, 3), (3, 2), (2, 1)]
    # Averages of equal numbers, of 1, 2 or 4 of them, are exact.
    assert all(bool((t[:, :16] == t[0, 0, 0, 0]).all()) for t in seen)


@pytest.mark.parametrize("dims", [1, 3])
def test_odd_sides_average_in_other_dimensions(dims: int) -> None:
    model = ResNet((2, 2), (1, 1), lean=True, num_classes=2, in_channels=1, dims=dims).eval()
    seen: list[torch.Tensor] = []
    model.blocks[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for step in model.blocks[0]:
        for parameter in step.conv2.parameters():
            nn.init.zeros_(parameter)
    nn.init.zeros_(model.opening[0].weight)
    model.opening[0].weight.data.flatten(2)[:, 0, 3**dims // 2] = 1
    model(torch.full((1, 1, *[5] * dims), 2.0))
    assert seen[0].shape == (1, 2, *[3] * dims)
    # Sums of at most 2^dims equal numbers, divided: 2^dims roundings.
    value = seen[0].flatten()[0]
    assert bool(((seen[0] - value).abs() <= 2**dims * 2.0**-24 * value.abs()).all())


def train_a_step(model: nn.Module, x: torch.Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    nn.functional.cross_entropy(model(x), torch.arange(len(x))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name
    optimizer.step()


@pytest.mark.parametrize("name", ALL)
def test_a_training_step_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name)
    # The last maps must have more than one pixel, or their stencils have nothing to learn.
    side = 64 if name in IN_TORCHVISION else 32 if len(getattr(model, "blocks", ())) == 5 else 16
    train_a_step(model, images(name, count=4, side=side))


# Without resnet3d_b: the bfloat16 gradient of torch 2.13's own Conv3d, on maps of 2x2x2, is at times not finite.
@pytest.mark.parametrize("name", [name for name in SMALL if name != "resnet3d_b"])
def test_channels_last_and_bfloat16_train(name: str) -> None:
    torch.manual_seed(0)
    layout: Any = torch.channels_last_3d if model_info(name).dims == 3 else torch.channels_last
    model = create_model(name).to(memory_format=layout)
    x = images(name, count=4, side=32 if name.startswith("shuffle") else 16).to(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(x)
        loss = nn.functional.cross_entropy(scores, torch.arange(4))
    assert scores.dtype == torch.bfloat16
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_channels_last_stays_channels_last() -> None:
    for name in ("lean_resnet_b", "mobilenet_v2_a", "shift_resnet_a"):
        model = create_model(name).to(memory_format=torch.channels_last)
        y = model.opening(images(name, side=32).to(memory_format=torch.channels_last))
        for block in model.blocks:
            y = block(y)
            assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", ["lean", "mobile", "shift", "volumes"])
def test_compiled_is_the_same_network(kind: str) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"widths": (4, 6), "steps": (1, 1), "num_classes": 3, "in_channels": 2}
    model: nn.Module = {
        "lean": lambda: ResNet(lean=True, **sizes),
        "mobile": lambda: MobileNetV2(**sizes),
        "shift": lambda: ShiftResNet(**sizes),
        "volumes": lambda: ResNet(lean=True, dims=3, **sizes),
    }[kind]()
    x = torch.randn(2, 2, *[6] * (3 if kind == "volumes" else 2))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    results = []
    for network in (model, compiled):
        model.zero_grad()
        y = network(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad for p in model.parameters())])
    for eager, other in zip(*results, strict=True):
        torch.testing.assert_close(eager, other)


@pytest.mark.parametrize("name", SMALL)
def test_weights_move_between_two_models(name: str) -> None:
    first, second = create_model(name).eval(), create_model(name).eval()
    x = images(name, count=3)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


ROW = re.compile(
    r"^\| `(\w+)`(, 10 classes)? \| ([\w-]+) \| ([\d,]+) \| (\S+) \| ([\d,]+) \| ([\d.]+) \|$", re.MULTILINE
)


def test_the_table_of_the_documentation() -> None:
    rows = ROW.findall((Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8"))
    assert len(rows) == 18
    for name, ten_classes, data, count, printed, products, accuracy in rows:
        info = model_info(name)
        assert printed == info.paper_parameters
        assert float(accuracy) == info.paper_accuracy[data.lower().replace("-", "")]
        if name.startswith("shufflenet") and importlib.util.find_spec("torchvision") is None:
            continue
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = create_model(name, 10 if ten_classes else None).eval()
            model(images(name, count=1, side=96 if data == "STL-10" else 32))
        assert int(count.replace(",", "")) == parameters(model)
        assert int(products.replace(",", "")) * 2 == counter.get_total_flops()
