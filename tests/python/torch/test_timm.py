"""The networks in timm's registry. Needs the extra `zoo`; each test has a process, for timm registers only once."""

from __future__ import annotations

import importlib.util

import pytest

from helpers import run_script

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs the extra leancore[zoo]"),
]


def run(code: str) -> str:
    done = run_script("-W", "error::UserWarning:timm", "-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_timm_makes_the_same_networks() -> None:
    code = """
import torch, leancore.torch
added = leancore.torch.register_with_timm()
import timm
assert added == leancore.torch.list_models() and leancore.torch.register_with_timm() == []
for name, options in (
    ("lean_resnet_a", {"num_classes": 7, "in_chans": 4}),
    ("lean_resnet_a", {"dense_blocks": 1, "drop_rate": 0.0}),
    ("shift_resnet_a", {"num_classes": 10}),
    ("shufflenet_v2_x0_5", {}),
    ("lean_resnet3d_b", {}),
):
    torch.manual_seed(0)
    through_timm = timm.create_model(name, pretrained=False, **options)
    torch.manual_seed(0)
    if "in_chans" in options:
        options["in_channels"] = options.pop("in_chans")
    options.pop("drop_rate", None)
    own = leancore.torch.create_model(name, **options)
    assert type(through_timm) is type(own)
    pairs = zip(through_timm.state_dict().items(), own.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(t, u) for (a, t), (b, u) in pairs)
assert set(timm.list_models("*lean_resnet*")) == {name for name in added if name.startswith("lean")}
assert "resnet18" in timm.list_models("resnet18*")
"""
    run(code)


def test_what_timm_asks_for_and_is_not_there_is_refused() -> None:
    code = """
import leancore.torch
leancore.torch.register_with_timm()
import timm
for kind, options in ((ValueError, {"pretrained": True}), (TypeError, {"drop_rate": 0.5}), (TypeError, {"lean": 1})):
    try:
        timm.create_model("lean_resnet_a", **options)
    except kind as error:
        print(error)
"""
    assert run(code).splitlines() == [
        "lean_resnet_a: leancore has no pretrained weights, expected pretrained=False",
        "create_model: lean_resnet_a has no option drop_rate",
        "create_model: lean_resnet_a has no option lean",
    ]


def test_timm_imported_first_is_found() -> None:
    code = """
import importlib.util, sys
spec = importlib.util.find_spec("leancore")
folder = spec.submodule_search_locations[0]
helper = importlib.util.spec_from_file_location("helper", folder + "/torch/_torchvision.py")
module = importlib.util.module_from_spec(helper)
helper.loader.exec_module(module)
module.import_torchvision()
import timm
assert not timm.is_model("lean_resnet_a") and "leancore.torch" not in sys.modules
import leancore.torch
assert timm.create_model("lean_resnet_a", num_classes=10).classifier.out_features == 10
"""
    run(code)


def test_timm_is_not_imported_by_itself() -> None:
    code = """
import sys, leancore.torch
leancore.torch.create_model("lean_resnet_a")
print("timm" in sys.modules, "torchvision" in sys.modules)
"""
    assert run(code) == "False False"
