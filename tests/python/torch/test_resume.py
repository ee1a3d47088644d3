"""A run that was interrupted and resumed ends with the same bits as one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leancore.torch.train import (
    CheckpointError,
    Interrupted,
    OptionError,
    TrainConfig,
    load_checkpoint,
    load_model,
    parts,
    train,
)
from leancore.torch.train import loop as training
from leancore.torch.train.checkpoint import State, load_state, save_checkpoint
from training_helpers import ENVIRONMENT, metrics, outcome

for package in ("lightning_fabric", "jsonargparse", "rich", "safetensors", "sklearn"):
    pytest.importorskip(package)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")

# 15 steps an epoch. Everything that has a state is on.
OPTIONS: dict[str, Any] = {"epochs": 3, "batch_size": 100, "ema": 0.9, "weight_decay": 1e-3, "keep_every": 2}
MAIN = "import sys; from leancore.cli import main; sys.exit(main())"
COMMAND = [sys.executable, "-c", MAIN, "train"]


def flags(options: dict[str, Any]) -> list[str]:
    return [part for name, value in options.items() for part in ("--" + name.replace("_", "-"), str(value))]


@pytest.fixture(scope="module", autouse=True)
def without_summary() -> Iterator[None]:
    """Its plots take longer than the training; test_summary.py is about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "write_summary", lambda folder, **what: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes of ENVIRONMENT: the same bits are promised for the same number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "whole"
    train(TrainConfig(**OPTIONS, out=str(folder)))
    return folder


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that makes the next run get a signal while it computes that step, or that test batch."""

    def arrange(step: int, number: int = signal.SIGTERM, *, testing: bool = False) -> None:
        calls = 0

        def cross_entropy(*arguments: Any, real: Any = torch.nn.functional.cross_entropy, **options: Any) -> Any:
            nonlocal calls
            calls += torch.is_grad_enabled() != testing
            if calls == step:
                calls = -(10**9)
                os.kill(os.getpid(), number)
            return real(*arguments, **options)

        monkeypatch.setattr(training.F, "cross_entropy", cross_entropy)

    return arrange


def interrupt(config: TrainConfig) -> Interrupted:
    with pytest.raises(Interrupted) as caught:
        train(config)
    return caught.value


def same(folder: Path, whole: Path) -> bool:
    """Not the last weights alone: all of the state, every checkpoint and every line of metrics.csv."""
    states = [load_state(path / "last.json") for path in (folder, whole)]
    tensors = [state.tensors for state in states]
    assert tensors[0].keys() == tensors[1].keys()
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
    for name in ("best", "epoch-0002"):
        weights = [load_checkpoint(path / f"{name}.json")[0] for path in (folder, whole)]
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1])
    return outcome(folder) == outcome(whole)


@pytest.mark.parametrize("step", [1, 15, 22, 44])
def test_a_run_continues_after_any_step(whole: Path, tmp_path: Path, stop_at: Any, step: int) -> None:
    """The first one, the last one of an epoch, one in the middle, the last but one of all."""
    config = TrainConfig(**OPTIONS, out=str(tmp_path / "run"), resume=True)
    stop_at(step)
    stopped = interrupt(config)
    assert stopped.signal == signal.SIGTERM
    assert f"stopped by SIGTERM after step {step} of 45; to go on: leancore train --config " in str(stopped)
    train(config)
    assert same(tmp_path / "run", whole)


def test_a_run_may_be_stopped_again_and_again_and_while_it_is_tested(whole: Path, tmp_path: Path, stop_at: Any) -> None:
    config = TrainConfig(**OPTIONS, out=str(tmp_path / "run"), resume=True)
    for steps in (7, 9):
        stop_at(steps)
        interrupt(config)
    stop_at(2, testing=True)
    assert "after step 30 of 45" in str(interrupt(config))
    assert [row["epoch"] for row in metrics(tmp_path / "run")] == [1]
    train(config)
    assert same(tmp_path / "run", whole)


def test_another_optimizer_and_no_average(tmp_path: Path, stop_at: Any) -> None:
    options = {"epochs": 2, "batch_size": 200, "optimizer": "sgd", "schedule": "cosine", "augment": False}
    train(TrainConfig(**options, out=str(tmp_path / "whole")))
    config = TrainConfig(**options, out=str(tmp_path / "run"), resume=True)
    stop_at(10)
    interrupt(config)
    train(config)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_random_numbers_of_the_network_continue_too(
    tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_dropout(*arguments: Any, real: Any = parts.create_model, **options: Any) -> nn.Module:
        model = real(*arguments, **options)
        model.classifier = nn.Sequential(nn.Dropout(), model.classifier)
        return model  # type: ignore[no-any-return]

    monkeypatch.setattr(parts, "create_model", with_dropout)
    train(TrainConfig(epochs=1, batch_size=200, out=str(tmp_path / "whole")))
    config = TrainConfig(epochs=1, batch_size=200, out=str(tmp_path / "run"), resume=True)
    stop_at(4)
    interrupt(config)
    torch.manual_seed(1)
    train(config)
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("part", ["random", "updates", "network", "optimizer", "step", "loss"])
def test_every_part_of_the_state_matters(
    whole: Path, tmp_path: Path, stop_at: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A run resumed from a state with one part wrong ends elsewhere, or is refused: the tests above can fail."""
    folder = tmp_path / "run"
    config = TrainConfig(**OPTIONS, out=str(folder), resume=True)
    stop_at(22)
    interrupt(config)
    monkeypatch.undo()
    state = load_state(folder / "last.json")
    tensors = {name: torch.zeros_like(v) if name.split(".")[0] == part else v for name, v in state.tensors.items()}
    values = {name: 0 if name == part else value for name, value in state.values.items()}
    assert values != state.values or any(not torch.equal(v, tensors[name]) for name, v in state.tensors.items())
    model, about = load_model(folder / "last.json")
    save_checkpoint(folder, "last", model, about, State(tensors, values))
    if part == "random":  # not a state of the generator
        with pytest.raises(CheckpointError, match="not the state of a run"):
            train(config)
        return
    train(config)
    assert outcome(folder) != outcome(whole)


# The command


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_stop_the_command_which_says_how_to_go_on(
    whole: Path, tmp_path: Path, number: int, status: int
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, *flags({**OPTIONS, "epochs": 100_000}), "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    while not (folder / "last.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status, errors
    assert errors.startswith(f"leancore train: stopped by {signal.Signals(number).name} after step ")
    assert errors.endswith(f"to go on: leancore train --config {folder}/config.yaml --resume\n")
    assert errors.count("\n") == 1
    load_model(folder / "last.json")
    load_model(folder / "best.json")


def test_kill_at_any_moment_loses_nothing_but_time(whole: Path, tmp_path: Path) -> None:
    """SIGKILL, at random moments, until the run has come to its end in spite of it."""
    folder = tmp_path / "run"
    command = [*COMMAND, *flags(OPTIONS), "--out", str(folder), "--checkpoint-every", "1", "--resume"]
    rng = random.Random(0)
    for _ in range(2):
        before = (folder / "last.json").stat().st_mtime_ns if (folder / "last.json").exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        while not (folder / "last.json").exists() or (folder / "last.json").stat().st_mtime_ns == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.communicate()
        load_model(folder / "last.json")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "resumed after step" in done.stdout
    assert same(folder, whole)


# What can be resumed


def test_a_finished_run_is_not_run_again(whole: Path) -> None:
    before = (whole / "last.json").stat().st_mtime_ns, outcome(whole)
    result = train(TrainConfig(**OPTIONS, out=str(whole), resume=True))
    assert ((whole / "last.json").stat().st_mtime_ns, outcome(whole)) == before
    table = metrics(whole)
    assert result.test_accuracy == table[-1]["test_accuracy"]
    assert result.best_test_accuracy == max(row["test_accuracy"] for row in table)
    assert result.seconds == sum(row["seconds"] for row in table)


def test_a_new_folder_is_started(tmp_path: Path) -> None:
    for folder in (tmp_path / "missing", tmp_path):
        assert train(TrainConfig(epochs=1, batch_size=1433, out=str(folder), resume=True)).best_epoch == 1
        shutil.rmtree(folder)


def test_a_run_with_other_options_is_refused(whole: Path) -> None:
    with pytest.raises(CheckpointError, match=r"had other options: epochs was 3 and is 4; lr was 0.01 and is 0.5$"):
        train(TrainConfig(**{**OPTIONS, "epochs": 4, "lr": 0.5}, out=str(whole), resume=True))
    train(TrainConfig(**{**OPTIONS, "keep_every": None}, out=str(whole), resume=True, name="another"))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match="not the folder of a run"):
        train(TrainConfig(epochs=1, out=str(tmp_path), resume=True))
    with pytest.raises(OptionError, match="resume is True, expected a folder in `out`"):
        train(TrainConfig(epochs=1, resume=True))


def test_a_damaged_state_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    file = next((tmp_path / "run").glob("last-state-*.safetensors"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file.name}: damaged"):
        train(TrainConfig(**OPTIONS, out=str(tmp_path / "run"), resume=True))


def test_training_outside_of_the_main_thread_works(tmp_path: Path) -> None:
    """Python lets only the main thread install handlers of signals."""
    config = TrainConfig(epochs=1, batch_size=1433, out=str(tmp_path / "run"))
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(train(config)))
    thread.start()
    thread.join()
    assert results[0].best_epoch == 1
