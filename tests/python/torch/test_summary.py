"""What a finished run leaves: the figures it draws, the numbers it states, and that they are the run's."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leancore.torch import LeanConv2d, LeanConv3d, create_model
from leancore.torch.train import figures, load_model, summary
from leancore.torch.train.data import load_data
from leancore.torch.train.environment import environment
from leancore.torch.train.evaluation import Evaluation, evaluate_model, multiply_adds
from leancore.torch.train.files import write_file, write_json
from leancore.torch.train.metrics import parse_metrics, step_seconds
from training_helpers import digits_run, metrics

for package in ("lightning_fabric", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return digits_run(folder), folder


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


# The folder of a run


def test_the_figures_are_images_and_nothing_is_left_over(run: tuple[Any, Path]) -> None:
    _, folder = run
    for name in ("curves.png", "confusion.png", "misclassified.png"):
        content = (folder / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert content.endswith(b"IEND\xaeB`\x82")
    assert not list(folder.glob("*.tmp"))
    assert not list(folder.glob(".*"))


def test_the_numbers_are_those_of_the_last_epoch(run: tuple[Any, Path]) -> None:
    result, folder = run
    rows, stated = metrics(folder), read(folder)
    for name in ("test_accuracy", "test_loss", "train_accuracy", "train_loss"):
        assert stated[name] == rows[-1][name]
    assert stated["best_test_accuracy"] == max(row["test_accuracy"] for row in rows) == result.best_test_accuracy
    assert rows[stated["best_epoch"] - 1]["test_accuracy"] == stated["best_test_accuracy"]
    assert (stated["epochs"], stated["steps"]) == (len(rows), rows[-1]["step"])
    steps = rows[0]["step"]
    assert stated["seconds_per_step"] == statistics.median(row["seconds"] / steps for row in rows)
    assert stated["parameters"] == result.parameters == 10_202
    assert stated["config"]["epochs"] == 2
    assert stated["config"]["model"] == stated["model"] == "lean_resnet_digits"
    assert stated["data"] == {
        "name": "digits",
        "title": load_data("digits").title,
        "train_images": 1433,
        "test_images": 364,
        "image_shape": [1, 8, 8],
        "classes": list("0123456789"),
    }


def test_the_confusion_matrix_is_that_of_the_last_weights(run: tuple[Any, Path]) -> None:
    _, folder = run
    with (folder / "confusion.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == ["true class", *"0123456789"]
    counts = torch.tensor([[int(cell) for cell in line[1:]] for line in lines])
    data = load_data("digits")
    assert counts.sum(1).tolist() == torch.bincount(data.test.labels).tolist()
    model, _ = load_model(folder / "last.json")
    with torch.no_grad():
        predicted = model(data.normalisation(data.test.images)).argmax(1)
    expected = torch.zeros(10, 10, dtype=torch.int64)
    for label, guess in zip(data.test.labels.tolist(), predicted.tolist(), strict=True):
        expected[label, guess] += 1
    assert torch.equal(counts, expected)
    stated = read(folder)
    assert counts.diagonal().sum() / 364 == stated["test_accuracy"]
    assert list(stated["class_accuracies"].values()) == [int(counts[i, i]) / int(counts[i].sum()) for i in range(10)]


def test_the_markdown_says_the_same(run: tuple[Any, Path]) -> None:
    _, folder = run
    text, stated = (folder / "summary.md").read_text(), read(folder)
    assert text.startswith("# lean_resnet_digits on ")
    assert f"| test accuracy | {stated['test_accuracy']:.2%} |" in text
    assert f"| multiply-adds of an image | {stated['multiply_adds']:,} |" in text
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (folder / link).exists()
    for name, value in stated["config"].items():
        assert f"| {name} | {value} |" in text
    assert stated["environment"]["processor"] in text


def test_the_command_repeats_the_run(run: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shlex

    from leancore.cli import main

    _, folder = run
    program, *arguments = shlex.split(read(folder)["command"].replace("ANOTHER_FOLDER", str(tmp_path / "again")))
    monkeypatch.chdir(folder)
    assert program == "leancore"
    assert main(arguments) == 0
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in metrics(place)]
        for place in (folder, tmp_path / "again")
    ]
    assert timeless[0] == timeless[1]


def test_a_summary_is_there_only_when_all_of_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summary, "draw_mistakes", full)
    with pytest.raises(OSError, match="No space left"):
        digits_run(tmp_path / "run", epochs=1)
    assert (tmp_path / "run" / "confusion.csv").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


# What an evaluation says


def by_hand() -> Evaluation:
    """Three classes, none of whose images is of the last one. Scores are logarithms of probabilities."""
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.75, 0.125], [0.25, 0.5, 0.25], [0.0625, 0.0625, 0.875]])
    return Evaluation(probabilities.double().log(), torch.tensor([0, 0, 1, 1]))


def test_an_evaluation_by_hand() -> None:
    found = by_hand()
    assert found.predicted.tolist() == [0, 1, 1, 2]
    assert found.accuracy == 0.5
    assert found.confusion().tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert found.class_accuracies() == [0.5, 0.5, None]
    assert [(m.index, m.label, m.predicted) for m in found.most_confident_mistakes(5)] == [(3, 1, 2), (1, 0, 1)]
    assert [m.index for m in found.most_confident_mistakes(1)] == [3]
    # -log of 1/2, 1/8, 1/2 and 1/16: each score, log-sum-exp and sum is off by a few units in the last place of 4 log 2
    assert abs(found.loss - (1 + 3 + 1 + 4) / 4 * math.log(2)) <= 16 * 2.0**-53 * 4 * math.log(2)


def test_an_evaluation_leaves_the_mode_of_the_model() -> None:
    data = load_data("digits")
    model = create_model("lean_resnet_digits")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for training in (True, False):
        model.train(training)
        assert len(evaluate_model(model, data).labels) == 364
        assert model.training is training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = create_model("lean_resnet_digits").to(dtype)
    assert len(evaluate_model(model, load_data("digits")).labels) == 364
    assert multiply_adds(model, (1, 8, 8)) == multiply_adds(create_model("lean_resnet_digits"), (1, 8, 8))


def test_multiply_adds() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), LeanConv2d(4, 6), nn.Flatten())
    model.append(nn.Linear(6 * 5 * 7, 10))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = 35 * (9 * 3 * 4) + 35 * (4 * 6 + 4 * 4) + 6 * 35 * 10
    assert multiply_adds(model, (3, 5, 7)) == expected
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert multiply_adds(LeanConv3d(2, 3), (2, 3, 4, 5)) == 60 * (2 * 3 + 2 * 6)


# Pieces


def test_step_seconds() -> None:
    header = "epoch,step,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds\n"
    rows = parse_metrics(header + "1,10,0.1,1,0,1,0,5\n2,14,0.1,1,0,1,0,8\n")
    assert step_seconds(rows) == [0.5, 2.0]
    for text in ("", header, "a,b\n1,2\n", header + "1,10,nonsense,1,0,1,0,5\n"):
        with pytest.raises((ValueError, TypeError)):
            parse_metrics(text)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_file(path, "old")

    def broken(self: Path, target: Path) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="broken"):
        write_file(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    write_file(path, b"new")
    assert path.read_text() == "new"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": math.nan})
    assert path.read_text() == "new"


def test_figures_of_every_shape(tmp_path: Path) -> None:
    """Many classes, no mistake, colour: drawn without complaint."""
    figures.draw_confusion(torch.eye(100, dtype=torch.int64), [str(i) for i in range(100)], "t", tmp_path / "a.png")
    data = load_data("digits")
    figures.draw_mistakes([], data, "t", tmp_path / "b.png")
    figures.draw_mistakes(by_hand().most_confident_mistakes(9), data, "t", tmp_path / "c.png")
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "b.png", "c.png"}


def test_the_environment_is_plain(run: tuple[Any, Path]) -> None:
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(, modified)?", facts["commit"])
