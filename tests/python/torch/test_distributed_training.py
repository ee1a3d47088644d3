"""Training in two processes, started by torchrun as users start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from leancore.torch.train import load_data, load_model
from training_helpers import ENVIRONMENT, metrics, outcome

for package in ("lightning_fabric", "jsonargparse", "rich", "safetensors", "sklearn"):
    pytest.importorskip(package)
pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
TRAIN = ["-m", "leancore", "train", "--epochs", "4", "--batch-size", "100", "--ema", "0.9"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run(*arguments: str) -> str:
    process = start(*arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    return output


# The gradients

# A network of non-negative numbers with frozen normalisation, and a loss whose derivatives are not negative either. A
# learning rate of 1e-300 keeps all weights as they are, so that the gradients of every step can be compared.
GRADIENTS = """
import sys
import safetensors.torch
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from leancore.torch.train import TrainConfig, data, loop, parts, train
from leancore.torch.train.processes import end

nn.BatchNorm2d.train = lambda self, mode=True: nn.Module.train(self, False)
data.Normalisation.__call__ = lambda self, images: images.double() / 16

def create(*arguments, real=parts.create_model, **options):
    model = real(*arguments, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    return model

def loss(scores, labels, **options):
    return (scores * (1 + labels[:, None])).sum()

def keep(optimizer, arguments, options):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    step = len(gradients) // len(parameters)
    gradients.update({f"{step}.{i}": p.grad.clone() for i, p in enumerate(parameters)})

parts.create_model, loop.F.cross_entropy = create, loss
register_optimizer_step_pre_hook(keep)
for parts in map(int, sys.argv[2:]):
    gradients = {}
    train(TrainConfig(epochs=1, schedule="constant", optimizer="sgd", lr=1e-300, precision="64-true", batch_size=95,
                      out=f"{sys.argv[1]}-{parts}", accumulate=parts))
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    safetensors.torch.save_file(gradients, f"{sys.argv[1]}-{parts}-{rank}.safetensors")
end(0)
"""


def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    """Frozen statistics: two processes, or parts one after the other, only add in another order.

    1,433 images make 15 batches of 95 and one of 8, of which two processes get 47 and 48, and parts 31, 32 and 32. As
    no term is negative, each rounding changes a result by at most u = 2**-53 of itself, and a gradient by L u, where L
    is the number of additions and multiplications that a term passes through.
    """
    safetensors = pytest.importorskip("safetensors.torch")
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    done = subprocess.run([sys.executable, script, tmp_path / "one", "1", "3"], env=ENVIRONMENT, capture_output=True)
    assert done.returncode == 0, done.stderr
    run(str(script), str(tmp_path / "two"), "1")
    one, parts, first, second = (
        safetensors.load_file(tmp_path / f"{name}.safetensors") for name in ("one-1-0", "one-3-0", "two-1-0", "two-1-1")
    )
    assert {int(name.split(".")[0]) for name in one} == set(range(16))
    # The sums over the images and the pixels, and over the channels and taps of each layer forward and backward, at
    # most 64 + 4; each layer has a normalisation (4) and each block a pool (4).
    additions = 95 * 64 + 2 * 8 * (64 + 4 + 4 + 4)
    bound = 2 * additions * 2**-53
    for name, gradient in one.items():
        assert gradient.min() >= 0
        assert gradient.max() > 0
        assert torch.equal(first[name], second[name])
        for other in (first, parts):
            assert ((other[name] - gradient).abs() <= bound * gradient).all(), name
    # Ranks that each took the mean of their own images would be off by far more than that in the batches of 95.
    assert bound < 1e-11


# Whole runs

SAME_NETWORK = """
import hashlib, sys
from leancore.cli import main
from leancore.torch.train import parts
from leancore.torch.train.processes import end

networks = []
parts.create_model = lambda *a, real=parts.create_model, **k: networks.append(real(*a, **k)) or networks[-1]
status = main(sys.argv[2:])
state = b"".join(value.numpy().tobytes() for value in networks[0].state_dict().values())
import torch
with open(f"{sys.argv[1]}-{torch.distributed.get_rank()}", "w") as file:
    file.write(hashlib.sha256(state).hexdigest())
end(status)
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    """A run in two processes: its folder, what it printed, and a hash of the network in each of them."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "same.py").write_text(SAME_NETWORK)
    output = run(str(folder / "same.py"), str(folder / "hash"), *TRAIN[2:], "--out", str(folder / "run"))
    return folder / "run", output, [(folder / f"hash-{rank}").read_text() for rank in range(2)]


def test_two_processes_train_one_network(two: tuple[Path, str, list[str]]) -> None:
    """With live statistics, which then are not those of one process."""
    folder, output, hashes = two
    losses = [row["train_loss"] for row in metrics(folder)]
    assert losses == sorted(losses, reverse=True)
    assert metrics(folder)[-1]["test_accuracy"] > 0.5
    assert hashes[0] == hashes[1]
    assert [line.split("  ")[0] for line in output.splitlines() if line.startswith("epoch")] == [
        f"epoch {epoch}/4" for epoch in range(1, 5)
    ]


def test_the_test_figures_are_those_of_all_test_images(two: tuple[Path, str, list[str]]) -> None:
    data = load_data("digits")
    model, about = load_model(two[0] / "last.json")
    with torch.no_grad():
        scores = model(data.normalisation(data.test.images))
    correct = int((scores.argmax(1) == data.test.labels).sum())
    assert about["metrics"]["test_accuracy"] == correct / 364


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_job_that_was_stopped_and_lost_a_process_ends_as_if_it_had_not(
    two: tuple[Path, str, list[str]], tmp_path: Path
) -> None:
    """SIGTERM reaches both processes through torchrun; later SIGKILL one of them alone."""
    folder = tmp_path / "run"
    command = [*TRAIN, "--out", str(folder), "--resume"]

    def saved() -> int:
        return (folder / "last.json").stat().st_mtime_ns if (folder / "last.json").exists() else 0

    for number in (signal.SIGTERM, signal.SIGKILL):
        before = saved()
        process = start(*command, "--checkpoint-every", "2")
        while saved() == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        os.kill(process.pid if number == signal.SIGTERM else workers[-1], number)
        output, errors = process.communicate(timeout=300)
        assert process.returncode != 0, output + errors
        assert ("stopped by SIGTERM after step" in errors) == (number == signal.SIGTERM)
        assert len(metrics(folder)) < 4, "it was over before the signal came"
    assert "resumed after step" in run(*command)
    assert outcome(folder) == outcome(two[0])
