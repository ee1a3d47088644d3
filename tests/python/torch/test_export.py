"""torch.export, and what becomes of an exported program."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

from helpers import run_script
from leancore.torch import LeanConv2d, LeanConv3d, decompositions
from torch_helpers import LAYERS, channels_last, integers, network

# Of torch's own exporter and compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def example(layer: Any, more: int = 0) -> Tensor:
    return integers(2 + more, 3, *(n + more for n in (9, 7, 6)[: layer.dims]), dtype=torch.float32, seed=more)


def dynamic_batch_and_size(layer: Any) -> dict[int, Any]:
    return {0: Dim("batch"), **{axis + 2: Dim(f"n{axis}", min=4) for axis in range(layer.dims)}}


def exported(layer: Any, model: nn.Module, **options: Any) -> ExportedProgram:
    return export(model, (example(layer),), dynamic_shapes=(dynamic_batch_and_size(layer),), **options)


def namespaces(program: ExportedProgram) -> set[str]:
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    return {target.namespace for target in calls if isinstance(target, torch._ops.OpOverload)}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("strict", [False, True])
def test_save_and_load_with_dynamic_batch_and_size(layer: Any, strict: bool) -> None:
    model = network(layer).eval()
    file = io.BytesIO()
    torch.export.save(exported(layer, model, strict=strict), file)
    file.seek(0)
    loaded = torch.export.load(file)
    assert "leancore" in namespaces(loaded)
    for more in (0, 1, 4):
        x = example(layer, more)
        assert torch.equal(loaded.module()(x), model(x))


def test_channels_last_in_channels_last_out() -> None:
    model = network(LeanConv2d).eval()
    x = channels_last(example(LeanConv2d))
    program = export(model, (x,), dynamic_shapes=(dynamic_batch_and_size(LeanConv2d),))
    y = program.module()(x)
    assert torch.equal(y, model(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_autocast_is_exported() -> None:
    class Cast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network(LeanConv2d).eval()

        def forward(self, x: Tensor) -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.inner(x)

    model, x = Cast(), example(LeanConv2d)
    y = export(model, (x,)).module()(x)
    assert y.dtype == model(x).dtype
    assert torch.equal(y, model(x))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_decomposed_program_has_stock_operators_only(layer: Any) -> None:
    model = network(layer).eval()
    program = exported(layer, model).run_decompositions({**torch.export.default_decompositions(), **decompositions()})
    assert namespaces(program) == {"aten"}
    for more in (0, 1, 4):
        x = example(layer, more)
        assert torch.equal(program.module()(x), model(x))


def test_a_decomposed_program_runs_without_leancore(tmp_path: Path) -> None:
    model, x = network(LeanConv2d).eval(), example(LeanConv2d, 3)
    torch.export.save(exported(LeanConv2d, model).run_decompositions(decompositions()), tmp_path / "model.pt2")
    torch.save([x, model(x).detach()], tmp_path / "data.pt")
    code = """
import sys, torch
folder = sys.argv[1]
x, y = torch.load(folder + "/data.pt", weights_only=True)
assert torch.equal(torch.export.load(folder + "/model.pt2").module()(x), y)
print("leancore" in sys.modules)
"""
    done = run_script("-c", code, tmp_path)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("layer", LAYERS)
def test_aot_inductor_of_the_decomposed_program(layer: Any, tmp_path: Path) -> None:
    model = network(layer).eval()
    if layer is LeanConv3d:
        # Inductor of torch 2.13 compiles no Conv3d, not a stock one either, of what another with a stride has made of
        # dynamic sizes: ValueRangeError. So one layer, with stride and dilation.
        model = nn.Sequential(layer(3, 4, stride=2, dilation=2), nn.ReLU())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(integers(*parameter.shape, dtype=torch.float32))
    program = exported(layer, model).run_decompositions(decompositions())
    package = str(tmp_path / "model.pt2")
    torch._inductor.aoti_compile_and_package(program, package_path=package)
    runner = torch._inductor.aoti_load_package(package)
    for more in (0, 1, 4):
        x = example(layer, more)
        assert torch.equal(runner(x), model(x))


def test_a_program_in_training_has_gradients() -> None:
    model = network(LeanConv2d).train()
    program = export(model, (example(LeanConv2d),), dynamic_shapes=(dynamic_batch_and_size(LeanConv2d),))
    x = example(LeanConv2d, 1)
    module = program.module()
    module(x).sum().backward()
    model(x).sum().backward()
    expected = dict(model.named_parameters())
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter.grad, expected[name].grad)  # type: ignore[arg-type]
