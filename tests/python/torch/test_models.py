"""The networks: exact parameter counts, structure, any image size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leancore.torch import LeanConv2d
from leancore.torch.models import ResNet, create_model, list_models
from leancore.torch.models.resnet import Step

# The counts that the paper's Table 1 rounds, and those of the rows that it leaves out.
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
}

# widths, steps, classes, channels of the images
ROWS = {
    "a": ((32, 64, 128, 256), (2, 3, 3, 3), 10, 3),
    "b": ((12, 24, 48, 96), (2, 3, 3, 3), 10, 3),
    "c": ((64, 128, 256, 512), (3, 5, 7, 4), 100, 3),
    "d": ((24, 48, 96, 192), (3, 5, 7, 4), 100, 3),
    "e": ((32, 64, 128, 256, 512), (2, 3, 3, 3, 3), 10, 3),
    "f": ((12, 24, 48, 96, 192), (2, 3, 3, 3, 3), 10, 3),
    "digits": ((16, 32, 64), (1, 1, 1), 10, 1),
}


def by_hand(name: str) -> int:
    """Counted from the recipe, without building anything."""
    family, _, row = name.rpartition("_")
    widths, steps, classes, channels = ROWS[row]

    def conv(c_in: int, c_out: int) -> int:
        return c_in * c_out + 4 * min(c_in, c_out) if family == "lean_resnet" else 9 * c_in * c_out

    total = 9 * channels * widths[0] + 2 * widths[0]
    before = widths[0]
    for width, count in zip(widths, steps, strict=True):
        total += 2 * before + conv(before, width) + 2 * width + conv(width, width)
        total += (count - 1) * (4 * width + 2 * conv(width, width))
        before = width
    return total + 2 * before + before * classes + classes


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_list() -> None:
    assert list_models() == list(PARAMETERS)


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_exact_parameter_counts(name: str) -> None:
    model = create_model(name)
    assert parameters(model) == PARAMETERS[name] == by_hand(name)
    _, _, classes, channels = ROWS[name.rpartition("_")[2]]
    assert model.classifier.out_features == classes
    assert model.opening[0].in_channels == channels


def test_other_classes_and_channels() -> None:
    model = create_model("lean_resnet_b", num_classes=7, in_channels=4)
    assert parameters(model) == PARAMETERS["lean_resnet_b"] - 3 * (96 + 1) + 9 * 12
    assert model(torch.zeros(2, 4, 8, 8)).shape == (2, 7)


def test_unknown_names_are_refused_with_the_list() -> None:
    for name in ("lean_resnet", "resnet_g", "lean_resnet_A", ""):
        with pytest.raises(ValueError, match=r"lean_resnet_a, .*resnet_digits"):
            create_model(name)
    with pytest.raises(ValueError, match="must pair"):
        ResNet((8, 4), (1, 1), lean=True, num_classes=2, in_channels=3)
    with pytest.raises(ValueError, match="must pair"):
        ResNet((4, 8), (1,), lean=True, num_classes=2, in_channels=3)


@pytest.mark.parametrize("name", ["lean_resnet_b", "lean_resnet_f", "resnet_b", "lean_resnet_digits"])
@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 32, 33])
def test_any_side_works(name: str, side: int) -> None:
    model = create_model(name).eval()
    channels = ROWS[name.rpartition("_")[2]][3]
    images = torch.randn(2, channels, side, side + 1)
    assert model(images).shape == (2, 10)


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


def test_gradients_reach_every_parameter() -> None:
    torch.manual_seed(0)
    model = create_model("lean_resnet_b")
    nn.functional.cross_entropy(model(torch.randn(4, 3, 16, 16)), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert bool((parameter.grad != 0).any()), name


def test_weights_move_between_two_models() -> None:
    first, second = create_model("lean_resnet_digits").eval(), create_model("lean_resnet_digits").eval()
    images = torch.randn(3, 1, 8, 8)
    assert not torch.equal(first(images), second(images))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images), second(images))
