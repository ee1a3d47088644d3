"""leancore export: a file of standard operators that computes what the network does, for any batch."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from leancore.cli import main
from leancore.torch.train.data import load_data
from leancore.torch.train.export_onnx import OPSET, ExportError, check, export
from leancore.torch.train.trained import Trained, load_trained
from training_helpers import checkpoint_by_hand, digits_run

for package in ("lightning_fabric", "jsonargparse", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)
onnx = pytest.importorskip("onnx", reason="needs onnx (extra leancore[examples])")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime (extra leancore[examples])")
pytest.importorskip("onnxscript", reason="needs onnxscript (extra leancore[examples])")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("runs") / "run"
    digits_run(folder)
    return load_trained(folder / "last.json")


def scores(path: Path, images: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["scores"], {"images": images.numpy()})[0])


def test_floats(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    assert main(["export", str(trained.path), "--onnx", str(path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{path}: ")
    assert f"opset {OPSET}, images float32 (N, 1, 8, 8) -> scores float32 (N, 10); images must come norm" in first
    assert second.startswith("largest error of a score on 64 images, against float64: ")
    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}
    assert [(o.domain, o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")] == [("", OPSET)]
    assert [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim][1:] == [
        1,
        8,
        8,
    ]
    # Errors of a few units in the last place change no class of a test image that is not a near tie.
    data = load_data("digits")
    images = data.normalisation(data.test.images)
    with torch.no_grad():
        ours = trained.model(images)
    top = ours.topk(2).values
    clear = top[:, 0] - top[:, 1] > 1e-3
    assert clear.sum() > 300
    for batch in (1, 7, len(images)):
        theirs = torch.cat([scores(path, part) for part in images.split(batch)])
        assert torch.equal(theirs.argmax(1)[clear], ours.argmax(1)[clear])


def test_bytes(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    assert main(["export", str(trained.path), "--onnx", str(path), "--bytes"]) == 0
    printed = capsys.readouterr().out
    assert "images uint8 (N, 1, 8, 8) -> scores float32 (N, 10)\n" in printed
    data = load_data("digits")
    with torch.no_grad():
        ours = trained.model(data.normalisation(data.test.images))
    top = ours.topk(2).values
    clear = top[:, 0] - top[:, 1] > 1e-3
    assert torch.equal(scores(path, data.test.images).argmax(1)[clear], ours.argmax(1)[clear])


def test_the_network_is_left_as_it_was(trained: Trained, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    export(trained, tmp_path / "net.onnx")
    assert trained.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in trained.model.state_dict().items())


def test_a_file_that_computes_something_else_is_found(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    export(trained, path)
    assert check(trained, path).images == 64
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[values.size // 2] += 0.05  # one weight
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, path)
    with pytest.raises(ExportError, match="computes something else: largest error"):
        check(trained, path)
    path.write_bytes(b"not a model")
    with pytest.raises(ExportError, match="does not run"):
        check(trained, path)


@pytest.mark.parametrize("model", ["lean_resnet_digits", "shift_resnet_a"])
def test_three_channels_and_two_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    checkpoint = checkpoint_by_hand(tmp_path, model=model)
    assert main(["export", str(checkpoint), "--onnx", str(tmp_path / "net.onnx"), "--bytes"]) == 0
    assert "(N, 3, 6, 8) -> scores float32 (N, 3)" in capsys.readouterr().out
    assert {node.domain for node in onnx.load(tmp_path / "net.onnx").graph.node} == {""}


def test_what_cannot_be_exported_is_said(trained: Trained, tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(x.flatten(2)).abs()

    with pytest.raises(ExportError, match=r"last\.json: cannot be exported: \w+: .*eig"):
        export(dataclasses.replace(trained, model=Odd()), tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_errors(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(trained.path)
    for arguments, text in (
        ([path, "--onnx", str(tmp_path / "nowhere" / "net.onnx")], "No such file"),
        (
            [path, "--onnx", str(tmp_path / "net.onnx"), "--opset", "3"],
            f"cannot be exported to opset 3, only to {OPSET}",
        ),
        ([str(tmp_path / "none.json"), "--onnx", str(tmp_path / "net.onnx")], "none.json: cannot be read"),
    ):
        assert main(["export", *arguments]) == 1
        error = capsys.readouterr().err
        assert error.startswith("leancore export: error: ")
        assert text in error
        assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_missing_packages(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == missing else real(name, *a))
    arguments: list[Any] = ["export", str(trained.path), "--onnx", str(tmp_path / "net.onnx")]
    if missing == "onnxruntime":
        assert main(arguments) == 0
        assert "not checked: onnxruntime is not installed" in capsys.readouterr().out
    else:
        assert main(arguments) == 1
        assert f"not installed: {missing}. Install with: pip install onnx onnxscript" in capsys.readouterr().err
        assert not (tmp_path / "net.onnx").exists()
