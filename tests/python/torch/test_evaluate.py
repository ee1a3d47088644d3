"""leancore evaluate: the figures of a checkpoint, and what is no checkpoint or does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import run_script
from leancore.cli import main
from leancore.torch.train import load_checkpoint, load_model
from leancore.torch.train.data import load_data
from training_helpers import checkpoint_by_hand, digits_run

for package in ("lightning_fabric", "jsonargparse", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    digits_run(folder)
    return folder / "last.json"


def test_json(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint), "--json"]) == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    _, about = load_checkpoint(checkpoint)
    assert report["accuracy"] == about["metrics"]["test_accuracy"]
    data = load_data("digits")
    model, _ = load_model(checkpoint)
    with torch.no_grad():  # in the batches of the command
        scores = torch.cat([model(data.normalisation(part)) for part in data.test.images.split(250)])
    assert report["loss"] == torch.nn.functional.cross_entropy(scores.double(), data.test.labels).item()
    assert report["parameters"] == 10_202
    assert report["test_images"] == 364
    assert list(report["class_accuracies"]) == list("0123456789")
    counts = json.loads((checkpoint.parent / "summary.json").read_text())["class_accuracies"]
    assert report["class_accuracies"] == counts


def test_text_by_the_command_itself(checkpoint: Path) -> None:
    code = "import sys; from leancore.cli import main; sys.exit(main())"
    done = run_script("-c", code, "evaluate", checkpoint, "--data", "digits", "--batch-size", "7")
    assert done.returncode == 0, done.stderr
    first, *classes = done.stdout.splitlines()
    accuracy = load_checkpoint(checkpoint)[1]["metrics"]["test_accuracy"]
    assert first.startswith("lean_resnet_digits (10,202 parameters) on 364 test images of digits: accuracy ")
    assert f"accuracy {accuracy:.2%}, loss " in first
    assert [line.split()[0] for line in classes] == list("0123456789")
    assert all(line.endswith("%") for line in classes)


def test_what_cannot_be_evaluated(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.json"
    text.write_text("{}")
    lost = tmp_path / "lost.json"
    lost.write_bytes(checkpoint.read_bytes())
    (tmp_path / "incomplete").mkdir()
    for arguments, expected in (
        (["nowhere.json"], "nowhere.json: cannot be read"),
        ([str(tmp_path)], "cannot be read"),
        ([str(text)], "text.json: damaged"),
        ([str(lost)], ".safetensors: cannot be read"),
        ([str(checkpoint_by_hand(tmp_path / "incomplete", image_size=None))], "not the checkpoint of a training run"),
        ([str(checkpoint), "--data", "cifar10", "--data-folder", str(tmp_path / "nowhere")], "nowhere"),
    ):
        assert main(["evaluate", *arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("leancore evaluate: error: ")
        assert expected in captured.err
        assert captured.err.count("\n") == 1


def test_a_data_set_that_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(checkpoint_by_hand(tmp_path))]) == 1
    error = capsys.readouterr().err
    assert (
        "a network for 3 classes (red, green, blue), but the classes of digits are 10 classes (0, 1, 2, 3, ...)"
        in error
    )
    assert main(["evaluate", str(checkpoint_by_hand(tmp_path, classes=list("0123456789")))]) == 1
    assert "a network for images of shape (3, 6, 8), but those of digits are (1, 8, 8)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["x.json", "--data", "imagenet"], ["x.json", "--batch-size", "0"]])
def test_wrong_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *arguments])
    assert caught.value.code == 2
    assert "usage: leancore evaluate" in capsys.readouterr().err
