"""The training loop: it learns, it repeats itself, it leaves what it promises, it stops when it must."""

from __future__ import annotations

import csv
import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from leancore.torch.train import (
    DataError,
    TrainConfig,
    TrainingDiverged,
    load_checkpoint,
    load_model,
    train,
)
from leancore.torch.train.data import load_data
from leancore.torch.train.loop import _schedule, evaluate

for package in ("lightning_fabric", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("runs") / "three-epochs"
    return train(TrainConfig(epochs=3, out=str(folder))), folder


def test_it_learns(run: tuple[Any, Path]) -> None:
    result, folder = run
    table = rows(folder)
    losses = [row["train_loss"] for row in table]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]
    # Ten classes: guessing gets a tenth of 364 images right, with a standard deviation of 1.6 % of them.
    assert result.test_accuracy > 0.1 + 6 * math.sqrt(0.1 * 0.9 / 364)


def test_the_table_is_complete(run: tuple[Any, Path]) -> None:
    result, folder = run
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,step,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds"
    table = rows(folder)
    assert [row["epoch"] for row in table] == [1, 2, 3]
    assert [row["step"] for row in table] == [29, 58, 87]
    assert table[-1]["test_accuracy"] == result.test_accuracy
    best = max(row["test_accuracy"] for row in table)
    assert result.best_test_accuracy == best
    assert table[result.best_epoch - 1]["test_accuracy"] == best
    assert all(row["seconds"] > 0 for row in table)
    for row in table:
        assert 0 <= row["train_accuracy"] <= 1
        assert 0 <= row["test_accuracy"] <= 1


def test_the_folder_holds_what_it_should(run: tuple[Any, Path]) -> None:
    result, folder = run
    assert result.folder == folder
    assert result.parameters == 10_202
    suffixes = sorted(p.suffix for p in folder.iterdir())
    assert suffixes == [".csv", ".json", ".json", ".png", ".safetensors", ".safetensors", ".yaml"]
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "epochs: 3\n" in (folder / "config.yaml").read_text()


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_have_the_accuracy_that_they_say(run: tuple[Any, Path], name: str) -> None:
    result, folder = run
    model, about = load_model(folder / f"{name}.json")
    data = load_data("digits")
    loss, accuracy = evaluate(model, data, 50)
    assert (loss, accuracy) == (about["metrics"]["test_loss"], about["metrics"]["test_accuracy"])
    assert accuracy == (result.best_test_accuracy if name == "best" else result.test_accuracy)
    assert about["metrics"]["epoch"] == (result.best_epoch if name == "best" else 3)
    assert about["normalisation"]["mean"] == list(data.normalisation.mean)
    assert about["classes"] == list("0123456789")


def test_training_and_evaluation_normalise_as_they_should(run: tuple[Any, Path]) -> None:
    """Batch statistics are gathered once a training step, and in evaluation neither used nor changed."""
    model, _ = load_model(run[1] / "last.json")
    assert int(model.get_buffer("norm.num_batches_tracked")) == 3 * 29
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    evaluate(model, load_data("digits"), 50)
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_best_is_the_first_of_the_best_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.7, 0.7, 0.6])
    monkeypatch.setattr("leancore.torch.train.loop.evaluate", lambda *arguments: (1.0, next(accuracies)))
    result = train(TrainConfig(epochs=4, batch_size=1433, out=str(tmp_path / "run")))
    assert (result.test_accuracy, result.best_test_accuracy, result.best_epoch) == (0.6, 0.7, 2)
    for name, epoch in (("best", 2), ("last", 4)):
        assert load_checkpoint(tmp_path / "run" / f"{name}.json")[1]["metrics"]["epoch"] == epoch


def outcome(folder: Path) -> tuple[str, list[str]]:
    weights = load_checkpoint(folder / "last.json")[0]
    digest = hashlib.sha256(b"".join(weights[key].numpy().tobytes() for key in sorted(weights))).hexdigest()
    lines = (folder / "metrics.csv").read_text().splitlines()
    return digest, [line.rpartition(",")[0] for line in lines]  # all but the seconds


def test_a_seed_repeats_a_run_to_the_last_bit(run: tuple[Any, Path], tmp_path: Path) -> None:
    torch.manual_seed(123)
    train(TrainConfig(epochs=3, out=str(tmp_path / "again")))
    assert outcome(tmp_path / "again") == outcome(run[1])
    train(TrainConfig(epochs=3, out=str(tmp_path / "other"), seed=1))
    assert outcome(tmp_path / "other")[0] != outcome(run[1])[0]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "schedule": "constant", "lr": 0.05},
        {"schedule": "paper", "lr": 0.01, "epochs": 1, "augment": False},
        {"model": "lean_resnet_b", "batch_size": 200, "weight_decay": 1e-4},
        {"model": "resnet_digits"},
    ],
)
def test_other_options_run(tmp_path: Path, options: dict[str, Any]) -> None:
    result = train(TrainConfig(**{"epochs": 1, "out": str(tmp_path / "run"), **options}))
    assert math.isfinite(rows(tmp_path / "run")[0]["train_loss"])
    assert result.best_epoch == 1


def test_default_folders_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    folders = [train(TrainConfig(epochs=1, batch_size=1433, name="mine")).folder for _ in range(2)]
    assert [str(f) for f in folders] == ["runs/mine-20260101-000000", "runs/mine-20260101-000000-2"]


def test_a_folder_in_use_is_refused(run: tuple[Any, Path]) -> None:
    before = outcome(run[1])
    with pytest.raises(FileExistsError, match="three-epochs: not empty"):
        train(TrainConfig(epochs=1, out=str(run[1])))
    assert outcome(run[1]) == before


def test_nothing_is_left_behind_when_the_data_is_bad(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        train(TrainConfig(data="cifar10", data_folder=str(tmp_path / "nowhere"), out=str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()


# Divergence


def test_a_loss_that_is_not_finite_stops_the_run_at_once(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingDiverged, match=r"the loss is (nan|inf) at step (\d+) \(epoch 1\), learning rate 1e\+30"
    ):
        train(TrainConfig(epochs=2, schedule="constant", lr=1e30, out=str(tmp_path / "run")))
    assert not list((tmp_path / "run").glob("*.json"))
    assert rows(tmp_path / "run") == []


def test_earlier_epochs_survive_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leancore.torch.train import loop

    folder = tmp_path / "run"
    real, steps = loop.F.cross_entropy, 0

    def sabotaged(scores: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        nonlocal steps
        loss = real(scores, labels, **options)
        steps += torch.is_grad_enabled()
        return loss * math.nan if steps == 29 + 4 else loss

    monkeypatch.setattr(loop.F, "cross_entropy", sabotaged)
    with pytest.raises(TrainingDiverged, match=r"nan at step 33 \(epoch 2\), learning rate"):
        train(TrainConfig(epochs=3, out=str(folder)))
    monkeypatch.undo()
    assert [row["epoch"] for row in rows(folder)] == [1]
    model, about = load_model(folder / "last.json")
    assert about["metrics"]["epoch"] == 1
    assert evaluate(model, load_data("digits"), 50)[1] == about["metrics"]["test_accuracy"]
    assert (folder / "curves.png").exists()


# Options


def test_schedules() -> None:
    paper = _schedule(TrainConfig(schedule="paper").resolved(), steps_per_epoch=10)
    assert [paper(10 * epoch + k) for epoch in (0, 74) for k in (0, 9)] == [0.1] * 4
    assert [paper(10 * epoch) for epoch in (75, 149, 150, 224, 225, 299)] == [0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]

    constant = _schedule(TrainConfig(schedule="constant", lr=0.3).resolved(), 10)
    assert {constant(step) for step in range(1000)} == {0.3}

    onecycle = _schedule(TrainConfig(epochs=10, lr=0.5).resolved(), 10)
    rates = [onecycle(step) for step in range(100)]
    assert max(rates) == rates[30] == 0.5
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[0] == pytest.approx(0.5 / 25, rel=1e-12)
    assert 0 < rates[-1] < 0.5 / 100
    for epochs, steps in ((1, 1), (1, 2), (2, 3)):  # the smallest runs: defined and positive at every step
        small = _schedule(TrainConfig(epochs=epochs).resolved(), steps)
        assert all(0 < small(step) <= 0.01 for step in range(epochs * steps))


def test_what_is_left_out_depends_on_the_data_and_the_schedule() -> None:
    def defaults(**options: Any) -> tuple[Any, ...]:
        c = TrainConfig(**options).resolved()
        return c.model, c.epochs, c.batch_size, c.lr, c.name

    assert defaults() == ("lean_resnet_digits", 100, 50, 0.01, "lean_resnet_digits")
    assert defaults(data="cifar10") == ("lean_resnet_a", 10, 100, 0.005, "lean_resnet_a")
    assert defaults(data="cifar10", schedule="paper")[1:4] == (300, 100, 0.1)
    assert defaults(schedule="paper")[1:4] == (300, 100, 0.1)
    assert defaults(optimizer="sgd")[3] == 0.1
    assert defaults(model="resnet_f", name="mine", lr=0.3, epochs=2, batch_size=7) == ("resnet_f", 2, 7, 0.3, "mine")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data": "mnist"}, "data is 'mnist', expected one of digits, cifar10"),
        ({"data_folder": "somewhere"}, "data_folder is 'somewhere', expected none: digits"),
        ({"model": "alexnet"}, "model is 'alexnet', expected one of lean_resnet_a"),
        ({"optimizer": "lion"}, "optimizer is 'lion', expected adam or sgd"),
        ({"schedule": "cosine"}, "schedule is 'cosine', expected onecycle, paper or constant"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"batch_size": 1}, "batch_size is 1, expected at least 2"),
        ({"lr": 0.0}, "lr is 0.0, expected a positive number"),
        ({"lr": math.nan}, "lr is nan, expected a positive number"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, expected"),
        ({"seed": -1}, "seed is -1, expected"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        train(TrainConfig(**options))
