"""The training loop: it learns, it repeats itself, it leaves what it promises, it stops when it must."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from leancore.torch.models import create_model
from leancore.torch.train import (
    RECIPES,
    DataError,
    OptionError,
    TrainConfig,
    TrainingDiverged,
    load_checkpoint,
    load_data,
    load_model,
    parts,
    train,
)
from leancore.torch.train import loop as training
from leancore.torch.train.average import averaged_model
from leancore.torch.train.parts import make_optimizer
from leancore.torch.train.schedule import learning_rate
from training_helpers import metrics, outcome

for package in ("lightning_fabric", "rich", "safetensors", "sklearn"):
    pytest.importorskip(package)


@pytest.fixture(scope="module", autouse=True)
def without_summary() -> Iterator[None]:
    """Its plots take longer than the training; test_summary.py is about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_summary", lambda folder, **what: None)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    folder = tmp_path_factory.mktemp("runs") / "three-epochs"
    return train(TrainConfig(epochs=3, out=str(folder))), folder


def test_it_learns(run: tuple[Any, Path]) -> None:
    result, folder = run
    table = metrics(folder)
    losses = [row["train_loss"] for row in table]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > losses[-1]
    # Ten classes: guessing gets a tenth of 364 images right, with a standard deviation of 1.6 % of them.
    assert result.test_accuracy > 0.1 + 6 * math.sqrt(0.1 * 0.9 / 364)


def test_the_table_is_complete(run: tuple[Any, Path]) -> None:
    result, folder = run
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,step,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds"
    table = metrics(folder)
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
    names = {p.name for p in folder.iterdir()}
    assert {"config.yaml", "metrics.csv", "best.json", "last.json"} <= names
    for name, count in (("best", 1), ("last", 2)):  # the weights, and of `last` the state
        assert len([n for n in names if n.startswith(f"{name}-") and n.endswith(".safetensors")]) == count
    assert "epochs: 3\n" in (folder / "config.yaml").read_text()


@torch.no_grad()
def figures(model: nn.Module) -> tuple[float, float]:
    """Loss and accuracy on the test images, all at once."""
    data = load_data("digits")
    scores = model(data.normalisation(data.test.images))
    correct = int((scores.argmax(1) == data.test.labels).sum())
    return F.cross_entropy(scores.double(), data.test.labels).item(), correct / len(data.test)


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_have_the_accuracy_that_they_say(run: tuple[Any, Path], name: str) -> None:
    result, folder = run
    model, about = load_model(folder / f"{name}.json")
    data = load_data("digits")
    loss, accuracy = figures(model)
    assert accuracy == about["metrics"]["test_accuracy"]
    assert accuracy == (result.best_test_accuracy if name == "best" else result.test_accuracy)
    # Scores of other batches may differ in their last bits, by which a loss changes about as much.
    assert about["metrics"]["test_loss"] == pytest.approx(loss, rel=2**-20)
    assert about["metrics"]["epoch"] == (result.best_epoch if name == "best" else 3)
    assert about["normalisation"]["mean"] == list(data.normalisation.mean)
    assert about["classes"] == list("0123456789")
    assert (about["data"], about["image_size"], about["in_channels"]) == ("digits", [8, 8], 1)
    assert about["config"]["lr"] == 0.01


def test_batch_statistics_are_gathered_once_a_training_step(run: tuple[Any, Path]) -> None:
    """And in the tests of each epoch neither used nor changed."""
    model, _ = load_model(run[1] / "last.json")
    assert int(model.get_buffer("norm.num_batches_tracked")) == 3 * 29


def test_best_is_the_first_of_the_best_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.5, 0.7, 0.7, 0.6])
    monkeypatch.setattr(training, "_test", lambda *arguments: (1.0, next(accuracies)))
    result = train(TrainConfig(epochs=4, batch_size=1433, out=str(tmp_path / "run")))
    assert (result.test_accuracy, result.best_test_accuracy, result.best_epoch) == (0.6, 0.7, 2)
    for name, epoch in (("best", 2), ("last", 4)):
        assert load_checkpoint(tmp_path / "run" / f"{name}.json")[1]["metrics"]["epoch"] == epoch


def test_a_seed_repeats_a_run_to_the_last_bit(run: tuple[Any, Path], tmp_path: Path) -> None:
    torch.manual_seed(123)
    train(TrainConfig(epochs=3, out=str(tmp_path / "again")))
    assert outcome(tmp_path / "again") == outcome(run[1])
    train(TrainConfig(epochs=3, out=str(tmp_path / "other"), seed=1))
    assert outcome(tmp_path / "other")[0] != outcome(run[1])[0]


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adamw", "schedule": "constant", "lr": 0.05, "flip": True},
        {"schedule": "paper", "lr": 0.01, "epochs": 1, "crop": "resized"},
        {"model": "lean_resnet_b", "batch_size": 200, "weight_decay": 1e-4},
        {"model": "resnet_digits", "precision": "64-true"},
        RECIPES["modern"],
    ],
)
def test_other_options_run(tmp_path: Path, options: dict[str, Any]) -> None:
    result = train(TrainConfig(**{**options, "epochs": 1, "out": str(tmp_path / "run")}))
    assert math.isfinite(metrics(tmp_path / "run")[0]["train_loss"])
    assert result.best_epoch == 1


def test_default_folders_do_not_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda *arguments: "20260101-000000")
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
        TrainingDiverged,
        match=r"the loss is \S+, the norm of its gradient \S+, at step (\d+) \(epoch 1\), learning rate 1e\+30",
    ):
        train(TrainConfig(epochs=2, schedule="constant", lr=1e30, out=str(tmp_path / "run")))
    assert not list((tmp_path / "run").glob("*.json"))
    assert metrics(tmp_path / "run") == []


def test_earlier_epochs_survive_a_divergence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    real, steps = F.cross_entropy, 0

    def sabotaged(scores: torch.Tensor, labels: torch.Tensor, **options: Any) -> torch.Tensor:
        nonlocal steps
        loss = real(scores, labels, **options)
        steps += torch.is_grad_enabled()
        return loss * math.nan if steps == 29 + 4 else loss

    monkeypatch.setattr(training.F, "cross_entropy", sabotaged)
    with pytest.raises(TrainingDiverged, match=r"the loss is nan, .* at step 33 \(epoch 2\), learning rate"):
        train(TrainConfig(epochs=3, out=str(folder)))
    monkeypatch.undo()
    assert [row["epoch"] for row in metrics(folder)] == [1]
    model, about = load_model(folder / "last.json")
    assert about["metrics"]["epoch"] == 1
    assert figures(model)[1] == about["metrics"]["test_accuracy"]


def test_a_gradient_that_is_not_finite_stops_the_run_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sabotaged(scores: torch.Tensor, labels: torch.Tensor, real: Any = F.cross_entropy, **options: Any) -> Any:
        loss = real(scores, labels, **options)
        return loss + (scores.sum() * 0).clamp(min=0).sqrt()  # adds 0, and to the derivative 0 / 0

    monkeypatch.setattr(training.F, "cross_entropy", sabotaged)
    with pytest.raises(TrainingDiverged, match=r"the loss is \d\S+, the norm of its gradient nan, at step 1 "):
        train(TrainConfig(epochs=1, out=str(tmp_path / "run")))
    assert not list((tmp_path / "run").glob("*.json"))


# Options


def rates(config: TrainConfig, total: int) -> list[float]:
    config = config.resolved()
    return [learning_rate(config, step, total) for step in range(total)]


def test_schedules() -> None:
    paper = rates(TrainConfig(schedule="paper"), 3000)  # 300 epochs of 10 steps
    assert paper == [0.1] * 750 + [0.05] * 750 + [0.025] * 750 + [0.0125] * 750

    assert set(rates(TrainConfig(schedule="constant", lr=0.3), 1000)) == {0.3}

    onecycle = rates(TrainConfig(lr=0.5), 100)
    assert max(onecycle) == onecycle[30] == 0.5
    assert onecycle[:31] == sorted(onecycle[:31])
    assert onecycle[30:] == sorted(onecycle[30:], reverse=True)
    assert onecycle[0] == pytest.approx(0.5 / 25, rel=1e-12)
    assert 0 < onecycle[-1] < 0.5 / 100

    cosine = rates(TrainConfig(schedule="cosine", lr=0.5, warmup=0.1), 100)
    assert max(cosine) == cosine[10] == 0.5
    assert cosine[:11] == pytest.approx([0.5 * k / 11 for k in range(1, 12)], rel=1e-12)
    assert cosine[10:] == pytest.approx([0.25 * (1 + math.cos(math.pi * k / 90)) for k in range(90)], rel=1e-12)
    assert rates(TrainConfig(schedule="cosine", lr=0.5, warmup=0.0), 100)[0] == 0.5


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "paper", "constant"])
def test_the_smallest_runs_have_a_learning_rate(schedule: Any) -> None:
    for total in (1, 2, 6):
        assert all(0 < rate <= 0.01 for rate in rates(TrainConfig(schedule=schedule, lr=0.01), total))


def test_what_is_left_out_depends_on_the_data_and_the_schedule() -> None:
    def defaults(**options: Any) -> tuple[Any, ...]:
        c = TrainConfig(**options).resolved()
        return c.model, c.epochs, c.batch_size, c.lr, c.name

    assert defaults() == ("lean_resnet_digits", 100, 50, 0.01, "lean_resnet_digits")
    assert defaults(data="cifar10") == ("lean_resnet_a", 10, 100, 0.005, "lean_resnet_a")
    assert defaults(data="cifar10", schedule="paper")[1:4] == (300, 100, 0.1)
    assert defaults(schedule="paper")[1:4] == (300, 100, 0.1)
    assert defaults(optimizer="sgd")[3] == 0.1
    assert [defaults(data=name)[0] for name in ("cifar100", "stl10")] == ["lean_resnet_c", "lean_resnet_e"]
    assert TrainConfig(schedule="cosine").resolved().warmup == 0.2
    again = TrainConfig(schedule="paper", data="cifar10").resolved()
    assert again.resolved() == again
    assert defaults(model="resnet_f", name="mine", lr=0.3, epochs=2, batch_size=7) == ("resnet_f", 2, 7, 0.3, "mine")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data": "mnist"}, "data is 'mnist', expected one of digits, cifar10"),
        ({"data_folder": "somewhere"}, "data_folder is 'somewhere', expected none: digits"),
        ({"model": "alexnet"}, "model is 'alexnet', expected one of lean_resnet_a"),
        ({"optimizer": "lion"}, "optimizer is 'lion', expected one of adam, adamw, sgd"),
        ({"schedule": "linear"}, "schedule is 'linear', expected one of onecycle, cosine, paper, constant"),
        ({"precision": "8"}, "precision is '8', expected one of 32-true"),
        ({"crop": "random"}, "crop is 'random', expected one of none, padded, resized"),
        ({"warmup": 1.0}, "warmup is 1.0, expected a number from 0 to less than 1"),
        ({"schedule": "paper", "warmup": 0.1}, "warmup is 0.1, expected nothing: the schedule paper has none"),
        ({"clip": 0.0}, "clip is 0.0, expected a positive number"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0, expected"),
        ({"ema": 1.0}, "ema is 1.0, expected"),
        ({"model": "lean_resnet3d_a"}, "model is 'lean_resnet3d_a', expected one for images of 2 dimensions"),
        ({"accumulate": 0}, "accumulate is 0, expected at least 1"),
        ({"accumulate": 40}, "the smallest batch has 33 images, expected one for each of the 40 parts"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0, expected at least 1"),
        ({"keep_every": 0}, "keep_every is 0, expected at least 1"),
        ({"model_options": {"wings": 2}}, "model_options is {'wings': 2}: .*wings"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"batch_size": 1}, "batch_size is 1, expected at least 2"),
        ({"lr": 0.0}, "lr is 0.0, expected a positive number"),
        ({"lr": math.nan}, "lr is nan, expected a positive number"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0, expected"),
        ({"seed": -1}, "seed is -1, expected"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        train(TrainConfig(**options))


def test_recipes_are_complete_and_make_sense() -> None:
    for recipe in RECIPES.values():
        assert TrainConfig(**recipe, data="cifar10").resolved().model == "lean_resnet_a"
    paper = TrainConfig(**RECIPES["paper"]).resolved()
    assert (paper.optimizer, paper.lr, paper.epochs, paper.batch_size) == ("adam", 0.1, 300, 100)


# What each option does

ONE_STEP: dict[str, Any] = {"epochs": 1, "batch_size": 1433, "augment": False, "schedule": "constant"}


@pytest.fixture
def observe(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[nn.Module]]:
    """A function that has a forward pre-hook put on the networks that are made from then on, and returns their list."""

    def arrange(hook: Callable[[nn.Module, Any], None]) -> list[nn.Module]:
        networks: list[nn.Module] = []

        def create(*arguments: Any, real: Any = create_model, **options: Any) -> nn.Module:
            networks.append(real(*arguments, **options))
            networks[-1].register_forward_pre_hook(hook)
            return networks[-1]

        monkeypatch.setattr(parts, "create_model", create)
        return networks

    return arrange


def step_of_sgd(tmp_path: Path, observe: Any, name: str, **options: Any) -> tuple[list[torch.Tensor], list[float]]:
    """The gradients of one step from the same weights, as the optimizer got them, and its row of metrics.csv."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    gradients: list[torch.Tensor] = []
    networks = observe(lambda module, arguments: None)
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: gradients.extend(p.grad.clone() for p in networks[-1].parameters())
    )
    try:
        train(TrainConfig(**ONE_STEP, optimizer="sgd", lr=0.1, out=str(tmp_path / name), **options))
    finally:
        handle.remove()
    return gradients, list(metrics(tmp_path / name)[0].values())


def test_clipping_scales_the_whole_gradient(tmp_path: Path, observe: Any) -> None:
    free, _ = step_of_sgd(tmp_path, observe, "free")
    clipped, _ = step_of_sgd(tmp_path, observe, "clipped", clip=0.25)
    untouched, _ = step_of_sgd(tmp_path, observe, "untouched", clip=1e6)
    assert all(torch.equal(a, b) for a, b in zip(free, untouched, strict=True))
    parameters = [nn.Parameter(g) for g in free]
    for parameter, gradient in zip(parameters, free, strict=True):
        parameter.grad = gradient.clone()
    assert nn.utils.clip_grad_norm_(parameters, 0.25) > 0.25
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, clipped, strict=True) if p.grad is not None)


def test_label_smoothing_is_in_the_training_loss_alone(tmp_path: Path) -> None:
    """With a learning rate that changes nothing; the loss is that of the network as it was made."""
    data = load_data("digits")
    torch.manual_seed(0)
    model = create_model("lean_resnet_digits").train()
    order = torch.cat([labels for _, labels in training.train_batches(data, batch_size=1433, seed=0, epoch=1)])
    images = torch.cat([images for images, _ in training.train_batches(data, batch_size=1433, seed=0, epoch=1)])
    train(TrainConfig(**ONE_STEP, lr=1e-30, label_smoothing=0.3, out=str(tmp_path / "run")))
    row = metrics(tmp_path / "run")[0]
    smooth = F.cross_entropy(model(images), order, reduction="sum", label_smoothing=0.3).item() / 1433
    assert row["train_loss"] == smooth
    assert row["test_loss"] == pytest.approx(figures(model.eval())[0], rel=2**-20)


def test_weight_decay_is_that_of_weights(tmp_path: Path) -> None:
    model = create_model("lean_resnet_digits")
    for optimizer in ("adam", "adamw", "sgd"):
        config = TrainConfig(optimizer=optimizer, weight_decay=0.25).resolved()
        decayed, others = make_optimizer(config, model).param_groups
        assert (decayed["weight_decay"], others["weight_decay"]) == (0.25, 0)
        names = {id(p): name for name, p in model.named_parameters()}
        plain = {names[id(p)] for p in others["params"]}
        assert plain == {n for n in names.values() if "norm" in n or n.endswith("bias") or n.startswith("opening.1")}
        assert {names[id(p)] for p in decayed["params"]} == set(names.values()) - plain


def test_the_average_follows_the_weights() -> None:
    """Its decay grows as (1 + n) / (10 + n); statistics are averaged, counts are copied."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = averaged_model(network, decay=0.5)
    expected = None
    for n in range(20):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn_like(parameter))
        network(torch.randn(5, 3))
        average.update_parameters(network)
        state = network.state_dict()
        decay = 0.0 if expected is None else min(0.5, (1 + n) / (10 + n))
        expected = {
            name: value.clone()
            if expected is None or not value.is_floating_point()
            else expected[name].lerp(value, 1 - decay)
            for name, value in state.items()
        }
        assert all(torch.equal(average.module.state_dict()[name], value) for name, value in expected.items())


def test_the_average_is_what_is_tested_and_saved(tmp_path: Path, observe: Any) -> None:
    networks = observe(lambda module, arguments: None)
    result = train(TrainConfig(epochs=2, ema=0.999, out=str(tmp_path / "run")))
    model, _ = load_model(tmp_path / "run" / "last.json")
    assert figures(model)[1] == result.test_accuracy
    assert not torch.equal(model.get_parameter("classifier.weight"), networks[0].get_parameter("classifier.weight"))


def test_channels_last(tmp_path: Path, observe: Any) -> None:
    seen = []
    networks = observe(lambda module, x: seen.append(x[0].is_contiguous(memory_format=torch.channels_last)))
    train(TrainConfig(epochs=1, data="digits", batch_size=100, channels_last=True, out=str(tmp_path / "run")))
    assert len(seen) == 15 + 4
    assert all(seen)
    kernel = networks[0].get_parameter("opening.0.weight")
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_is_for_the_training_steps(tmp_path: Path, observe: Any) -> None:
    seen = []
    networks = observe(lambda module, x: seen.append((module.training, torch.is_autocast_enabled("cpu"), x[0].dtype)))
    train(TrainConfig(epochs=1, batch_size=100, precision="bf16-mixed", out=str(tmp_path / "run")))
    assert seen == [(True, True, torch.bfloat16)] * 15 + [(False, False, torch.float32)] * 4
    assert {p.dtype for p in networks[0].parameters()} == {torch.float32}


def test_compiled_steps(run: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the backend that runs the captured graph as it is, the bits are those of the run that is not compiled."""
    compiled = []

    def compile(module: nn.Module, real: Any = torch.compile, **options: Any) -> Any:
        compiled.append(real(module, backend="eager"))
        return compiled[-1]

    monkeypatch.setattr(torch, "compile", compile)
    train(TrainConfig(epochs=3, compile=True, out=str(tmp_path / "run")))
    assert compiled
    assert outcome(tmp_path / "run") == outcome(run[1])


def test_deterministic_algorithms_are_asked_for_during_the_run(tmp_path: Path, observe: Any) -> None:
    seen = []
    observe(lambda module, x: seen.append(torch.are_deterministic_algorithms_enabled()))
    train(TrainConfig(**ONE_STEP, deterministic=True, out=str(tmp_path / "run")))
    assert set(seen) == {True}
    assert not torch.are_deterministic_algorithms_enabled()


def test_augmentation_is_that_of_the_data_set_unless_told_otherwise() -> None:
    data = load_data("digits")
    assert training._augmentation(TrainConfig(), data) == data.augmentation
    assert training._augmentation(TrainConfig(augment=False), data) is None
    other = training._augmentation(TrainConfig(crop="resized", flip=True), data)
    assert other is not None
    assert (other.crop, other.flip) == ("resized", True)


def test_options_of_the_model_reach_it_and_its_checkpoint(tmp_path: Path) -> None:
    result = train(TrainConfig(**ONE_STEP, model_options={"dense_blocks": 1}, out=str(tmp_path / "run")))
    assert result.parameters > 10_202
    model, about = load_model(tmp_path / "run" / "last.json")
    assert about["model_options"] == {"dense_blocks": 1}
    assert sum(p.numel() for p in model.parameters()) == result.parameters


def test_a_history_is_kept(tmp_path: Path) -> None:
    train(TrainConfig(**{**ONE_STEP, "epochs": 5}, keep_every=2, out=str(tmp_path / "run")))
    names = {p.name for p in (tmp_path / "run").glob("*.json")} - {"summary.json"}
    assert names == {"best.json", "last.json", "epoch-0002.json", "epoch-0004.json"}
    assert load_model(tmp_path / "run" / "epoch-0004.json")[1]["metrics"]["epoch"] == 4


def test_the_summary_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def write_summary(folder: Path, **what: Any) -> None:
        calls.append(what)
        (folder / "summary.json").write_text("{}")

    monkeypatch.setattr(training, "write_summary", write_summary)
    config = TrainConfig(**ONE_STEP, ema=0.5, resume=True, out=str(tmp_path / "run"))
    results = [train(config), train(config)]
    assert len(calls) == 1
    assert calls[0].keys() == {"config", "data", "model", "rows", "result"}
    assert calls[0]["result"] == results[0] == results[1]
    assert figures(calls[0]["model"].eval())[1] == results[0].test_accuracy


def test_tensorboard_gets_the_figures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(TrainConfig(**{**ONE_STEP, "epochs": 2}, out=str(tmp_path / "run")))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    table = metrics(tmp_path / "run")
    for tag, column in (("lr", "lr"), ("train/loss", "train_loss"), ("test/accuracy", "test_accuracy")):
        written = [(event.step, event.value) for event in events.Scalars(tag)]
        assert written == [(row["step"], torch.tensor(row[column]).item()) for row in table]
    train(TrainConfig(**ONE_STEP, tensorboard=False, out=str(tmp_path / "without")))
    assert not (tmp_path / "without" / "tensorboard").exists()
