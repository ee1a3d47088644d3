"""Checkpoints: what goes in comes out, damage is found and named, and a dying process breaks nothing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pickle
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leancore.torch.models import create_model
from leancore.torch.train import CheckpointError, load_checkpoint, load_model, save_checkpoint
from leancore.torch.train.checkpoint import State, load_state

pytest.importorskip("safetensors")

ABOUT = {"model": "lean_resnet_digits", "num_classes": 10, "in_channels": 1, "metrics": {"test_accuracy": 0.5}}


STATE = State({"random": torch.arange(7), "a.b": torch.tensor(0.1)}, {"loss": 0.1 + 0.2, "rows": [1, 2]})


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    model = small_model()
    path = save_checkpoint(tmp_path, "best", model, ABOUT)
    assert path == tmp_path / "best.json"
    weights, about = load_checkpoint(path)
    assert about == ABOUT
    assert equal(weights, model.state_dict())


def test_a_model_comes_back_ready_for_use(tmp_path: Path) -> None:
    model = create_model("lean_resnet_digits")
    model(torch.randn(8, 1, 8, 8))  # so that the running statistics are not those of a fresh model
    loaded, about = load_model(save_checkpoint(tmp_path, "last", model, ABOUT))
    assert about == ABOUT
    assert not loaded.training
    images = torch.randn(4, 1, 8, 8)
    assert torch.equal(loaded(images), model.eval()(images))


def test_a_new_checkpoint_replaces_the_old_one_and_no_other(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "best", small_model(1), ABOUT)
    save_checkpoint(tmp_path, "best-of-all", small_model(2), ABOUT)
    for stale in ("best-0123456789abcdef.safetensors", "best-0123456789abcdef.safetensors.tmp"):
        (tmp_path / stale).write_bytes(b"left by a process that died")
    (tmp_path / "best-notes.safetensors").write_bytes(b"the user's own")
    save_checkpoint(tmp_path, "best", small_model(3), ABOUT)
    assert len([n for n in files(tmp_path) if n.startswith("best-") and len(n) == len("best-") + 16 + 12]) == 1
    assert "best-notes.safetensors" in files(tmp_path)
    assert not [n for n in files(tmp_path) if n.endswith(".tmp")]
    assert equal(load_checkpoint(tmp_path / "best.json")[0], small_model(3).state_dict())
    assert equal(load_checkpoint(tmp_path / "best-of-all.json")[0], small_model(2).state_dict())


def test_saving_the_same_weights_again_keeps_them(tmp_path: Path) -> None:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, "last", small_model(), {"epoch": epoch})
    weights, about = load_checkpoint(tmp_path / "last.json")
    assert about == {"epoch": 2}
    assert equal(weights, small_model().state_dict())


def test_a_state_comes_out_as_it_went_in(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "last", small_model(), ABOUT, STATE)
    state = load_state(path)
    assert equal(state.tensors, STATE.tensors)
    assert state.values == STATE.values
    assert equal(load_checkpoint(path)[0], small_model().state_dict())
    assert len(files(tmp_path)) == 3
    save_checkpoint(tmp_path, "last", small_model(), ABOUT)
    assert len(files(tmp_path)) == 2
    with pytest.raises(CheckpointError, match=r"last\.json: holds no state"):
        load_state(path)


def test_the_first_format_is_read(tmp_path: Path) -> None:
    """It had no state; its `about` no options of the model."""
    path = save_checkpoint(tmp_path, "best", create_model("lean_resnet_digits"), ABOUT)
    forge(path, format="leancore checkpoint 1")
    load_model(path)
    with pytest.raises(CheckpointError, match=r"best\.json: holds no state"):
        load_state(path)


# Damage


@pytest.mark.parametrize("kind", ["weights", "state", "json"])
def test_every_flipped_bit_and_every_truncation_is_found_and_named(tmp_path: Path, kind: str) -> None:
    path = save_checkpoint(tmp_path, "best", small_model(), ABOUT, STATE)
    victim = path if kind == "json" else next(tmp_path.glob(f"best-{'state-' * (kind == 'state')}{'[0-9a-f]' * 16}.*"))
    load = load_state if kind == "state" else load_checkpoint
    intact = victim.read_bytes()
    rng = random.Random(0)
    damaged = []
    for _ in range(200):
        position, bit = rng.randrange(len(intact)), rng.randrange(8)
        damaged.append(intact[:position] + bytes([intact[position] ^ 1 << bit]) + intact[position + 1 :])
    damaged += [intact[: rng.randrange(len(intact))] for _ in range(198)] + [b"", intact + b"\0"]
    for content in damaged:
        victim.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            load(path)
        # A flipped bit in the JSON file may change the name of the other one, but not without changing its own hash.
        assert str(victim) in str(caught.value)
    victim.write_bytes(intact)
    load(path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.json: cannot be read"):
        load_checkpoint(tmp_path / "none.json")
    path = save_checkpoint(tmp_path, "best", small_model(), ABOUT)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match=r"best-[0-9a-f]{16}\.safetensors: cannot be read"):
        load_checkpoint(path)


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


def test_no_pickle_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint(tmp_path, "best", small_model(), ABOUT)
    for victim in (next(tmp_path.glob("*.safetensors")), path):
        victim.write_bytes(pickle.dumps(Bomb()))
        with pytest.raises(CheckpointError):
            load_checkpoint(path)
    assert "exploded" not in files(tmp_path)


def forge(path: Path, **changes: Any) -> None:
    """A JSON file with other entries and the right hash."""
    from leancore.torch.train import checkpoint

    record = json.loads(path.read_bytes())
    del record["sha256"]
    record.update(changes)
    path.write_bytes(checkpoint._encode(record))


def test_a_forged_file_reaches_no_other_folder(tmp_path: Path) -> None:
    inner = tmp_path / "run"
    inner.mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    path = save_checkpoint(inner, "best", small_model(), ABOUT)
    entry = json.loads(path.read_bytes())["weights"]
    for name in ("../secret", str(tmp_path / "secret"), "", ".", "..", 7):
        forge(path, weights={**entry, "file": name})
        with pytest.raises(CheckpointError, match=r"best\.json: names a weights file outside"):
            load_checkpoint(path)
        forge(path, weights=entry, state={**entry, "file": name})
        with pytest.raises(CheckpointError, match=r"best\.json: names a weights file outside"):
            load_checkpoint(path)


def test_a_forged_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "best", small_model(), ABOUT)
    for changes in (
        {"format": "leancore checkpoint 3"},
        {"weights": []},
        {"weights": {"file": "x"}},
        {"about": None},
        {"state": []},
    ):
        forge(path, **changes)
        with pytest.raises(CheckpointError, match=r"best\.json: not "):
            load_model(path)
        save_checkpoint(tmp_path, "best", small_model(), ABOUT)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, "best", small_model(), ABOUT)
    with pytest.raises(CheckpointError, match=r"best\.json: not the weights of a model"):
        load_model(path)


# Interruptions


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_a_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    """The disk fills up while the weights (1), the state (2) or the JSON file (3) are written, each synced in turn."""
    save_checkpoint(tmp_path, "best", small_model(1), ABOUT)
    flushed = 0

    def fsync(descriptor: int, real: Any = os.fsync) -> None:
        nonlocal flushed
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            flushed += 1
            if flushed == failing_call:
                raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, "best", small_model(2), ABOUT, STATE)
    monkeypatch.undo()
    assert flushed == failing_call
    assert equal(load_checkpoint(tmp_path / "best.json")[0], small_model(1).state_dict())
    assert not [n for n in files(tmp_path) if n.endswith(".tmp")]


@pytest.mark.parametrize("failing_call", [1, 2, 3])
def test_stopping_before_a_rename_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    """Only a rename puts a file in its place: until that of the JSON file, the third one, nothing has changed."""
    save_checkpoint(tmp_path, "best", small_model(1), ABOUT)
    renames = 0

    def replace(path: Path, target: Path, real: Any = Path.replace) -> Path:
        nonlocal renames
        renames += 1
        if renames == failing_call:
            raise KeyboardInterrupt
        return real(path, target)  # type: ignore[no-any-return]

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, "best", small_model(2), ABOUT, STATE)
    monkeypatch.undo()
    assert equal(load_checkpoint(tmp_path / "best.json")[0], small_model(1).state_dict())


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
# The children only write files and are killed soon, so that a lock lost in the fork cannot hold anything up.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:os.fork\\(\\) was called:RuntimeWarning")
def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    models = [nn.Linear(500, 200) for _ in range(2)]

    def save(number: int) -> None:
        save_checkpoint(tmp_path, "last", models[number], {"model": number}, State({"n": torch.tensor(number)}, {}))

    began = time.perf_counter()
    save(0)
    duration = time.perf_counter() - began
    rng = random.Random(0)
    seen: set[int] = set()
    for turn in itertools.count():
        if turn >= 40 and seen == {0, 1}:
            break
        child = os.fork()
        if child == 0:
            try:
                for step in itertools.count(turn):
                    save(step % 2)
            finally:
                os._exit(1)
        time.sleep(rng.uniform(0, 3 * duration) * max(1, turn - 40))  # on a machine that has become slower, ever longer
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        weights, about = load_checkpoint(tmp_path / "last.json")
        assert equal(weights, models[about["model"]].state_dict())
        assert load_state(tmp_path / "last.json").tensors["n"] == about["model"]
        seen.add(about["model"])
    save_checkpoint(tmp_path, "last", models[0], {"model": 0})
    assert len(files(tmp_path)) == 2
