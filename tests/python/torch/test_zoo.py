"""Networks of torchvision, timm and MONAI, converted: exact counts, and that they run.

Needs the extra `zoo`; what is missing is skipped. Counting is done on the meta device, where weights cost nothing.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from typing import Any

import pytest
import torch

from leancore.torch import LeanConv2d, LeanConv3d, convert, to_standard
from leancore.torch._torchvision import import_torchvision

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")]


def networks(library: str) -> Any:
    """The namespace with the constructors. Once torchvision is imported, timm and MONAI can import it too."""
    if importlib.util.find_spec("torchvision") is not None:
        import_torchvision()
    if library == "torchvision":
        pytest.importorskip("torchvision", reason="needs the extra leancore[zoo]")
        from torchvision import models

        return models
    found = pytest.importorskip(library, reason="needs the extra leancore[zoo]")
    return found if library == "timm" else importlib.import_module("monai.networks.nets")


MRI: dict[str, Any] = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
NETWORKS = [
    # library, constructor, its options, input; how many 3-wide convolutions are replaced, all other convolutions,
    # parameters before and after
    ("torchvision", "resnet18", {}, (3, 64, 64), 16, {"kernel 7x7": 1, "kernel 1x1": 3}, 11_689_512, 1_938_216),
    ("torchvision", "resnet50", {}, (3, 64, 64), 16, {"kernel 7x7": 1, "kernel 1x1": 36}, 25_557_032, 15_512_360),
    ("torchvision", "vgg11_bn", {}, (3, 64, 64), 8, {}, 132_868_840, 124_684_276),
    ("torchvision", "densenet121", {}, (3, 64, 64), 58, {"kernel 7x7": 1, "kernel 1x1": 61}, 7_978_856, 6_085_736),
    (
        "torchvision",
        "video.r3d_18",
        {},
        (3, 4, 16, 16),
        16,
        {"kernel 3x7x7": 1, "kernel 1x1x1": 3},
        33_371_472,
        1_656_016,
    ),
    (
        "torchvision",
        "resnext50_32x4d",
        {},
        (3, 64, 64),
        0,
        {"kernel 7x7": 1, "kernel 1x1": 36, "groups": 16},
        25_028_904,
        25_028_904,
    ),
    ("timm", "resnet18", {}, (3, 64, 64), 16, {"kernel 7x7": 1, "kernel 1x1": 3}, 11_689_512, 1_938_216),
    ("timm", "resnet50", {}, (3, 64, 64), 16, {"kernel 7x7": 1, "kernel 1x1": 36}, 25_557_032, 15_512_360),
    ("timm", "hrnet_w18", {}, (3, 64, 64), 272, {"kernel 1x1": 53}, 21_299_004, 6_881_560),
    (
        "timm",
        "resnetv2_50x1_bit",
        {},
        (3, 64, 64),
        0,
        {"StdConv2d has a forward of its own": 53, "kernel 1x1": 1},
        25_549_352,
        25_549_352,
    ),
    (
        "timm",
        "tf_efficientnetv2_s",
        {},
        (3, 64, 64),
        8,
        {"kernel 1x1": 129, "depthwise": 28, "Conv2dSame has a forward of its own": 5},
        21_458_488,
        20_836_408,
    ),
    (
        "monai",
        "UNet",
        {**MRI, "channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 2},
        (1, 32, 32, 32),
        14,
        {"transposed": 3, "kernel 1x1x1": 1},
        1_186_765,
        243_389,
    ),
    ("monai", "SegResNet", MRI, (1, 32, 32, 32), 28, {"kernel 1x1x1": 4}, 1_176_186, 53_120),
    (
        "monai",
        "DynUNet",
        {**MRI, "kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3},
        (1, 32, 32, 32),
        14,
        {"transposed": 3, "kernel 1x1x1": 1},
        5_600_930,
        548_456,
    ),
]


def make(library: str, name: str, options: dict[str, Any]) -> Any:
    if library == "timm":
        return networks("timm").create_model(name, **options)
    constructor = networks(library)
    for part in name.split("."):
        constructor = getattr(constructor, part)
    return constructor(**options)


@pytest.mark.parametrize(
    ("library", "name", "options", "shape", "replaced", "left", "before", "after"),
    NETWORKS,
    ids=[f"{row[0]}-{row[1]}" for row in NETWORKS],
)
def test_counts(
    library: str, name: str, options: Any, shape: Any, replaced: int, left: dict[str, int], before: int, after: int
) -> None:
    networks(library)
    with torch.device("meta"):
        model = make(library, name, options)
        model, report = convert(model, example_inputs=torch.empty(1, *shape))
        model.eval()(torch.empty(1, *shape))
    assert len(report.replaced) == replaced
    assert Counter(each.reason for each in report.left) == left
    assert (report.parameters_before, report.parameters_after) == (before, after)
    assert sum(isinstance(m, LeanConv2d | LeanConv3d) for m in model.modules()) == replaced
    # What the lean layers save is what the model saves; everything else is as it was.
    assert before - after == sum(r.parameters_before - r.parameters_after for r in report.replaced)
    assert report.flops_before is not None
    assert report.flops_after is not None
    assert (report.flops_after < report.flops_before) == (replaced > 0)


def test_hrnet_but_for_its_opening_convolution() -> None:
    """As the paper has it; of the networks here whose opening convolution is 3x3."""
    with torch.device("meta"):
        _, report = convert(make("timm", "hrnet_w18", {}), lambda name, module: module.in_channels > 3)
    assert len(report.replaced) == 271
    assert [left.names for left in report.left if left.reason == "filter_fn"] == [("conv1",)]


RUN = [
    ("torchvision", "resnet18", {"num_classes": 3}, (3, 32, 32)),
    ("torchvision", "video.r3d_18", {"num_classes": 3}, (3, 4, 16, 16)),
    ("timm", "hrnet_w18_small", {"num_classes": 3}, (3, 32, 32)),
    ("monai", "UNet", {**MRI, "channels": (4, 8, 16), "strides": (2, 2), "num_res_units": 1}, (1, 16, 16, 16)),
    ("monai", "SegResNet", {**MRI, "init_filters": 8}, (1, 16, 16, 16)),
]


@pytest.mark.parametrize(("library", "name", "options", "shape"), RUN, ids=[f"{row[0]}-{row[1]}" for row in RUN])
def test_runs_trains_and_becomes_standard(library: str, name: str, options: Any, shape: Any) -> None:
    torch.manual_seed(0)
    model, report = convert(make(library, name, options))
    assert report.replaced
    x = torch.randn(2, *shape)
    model(x).square().mean().backward()
    lean = [m for m in model.modules() if isinstance(m, LeanConv2d | LeanConv3d)]
    assert all(m.alpha.grad is not None and m.c.grad is not None for m in lean)
    with torch.no_grad():
        expected = model.eval()(x)
        assert to_standard(model)(x).shape == expected.shape
    assert not any(isinstance(m, LeanConv2d | LeanConv3d) for m in model.modules())


def test_torchvision_is_itself_afterwards() -> None:
    """Beside a CUDA build, or a CPU build of both, importing is all; else the models and transforms are there."""
    pytest.importorskip("PIL")
    models = networks("torchvision")
    import torchvision

    assert import_torchvision() is torchvision
    assert models.resnet18(num_classes=2).fc.out_features == 2
