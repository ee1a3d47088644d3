"""A layer under the tools around training: checkpointing, DDP, loaders, determinism, parametrisations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from helpers import run_script
from leancore.torch import LeanConv2d, lean_conv
from torch_helpers import LAYERS, integers, network


def example(layer: Any) -> Tensor:
    return integers(2, 3, *(6, 5, 4)[: layer.dims], dtype=torch.float32, seed=9)


def gradients(model: nn.Module, run: Any, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    return list(torch.autograd.grad(run(leaf).sum(), [leaf, *model.parameters()]))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(layer: Any, use_reentrant: bool) -> None:
    model, x = network(layer), example(layer).requires_grad_()
    expected = gradients(model, model, x)
    for run in (
        lambda x: checkpoint(model, x, use_reentrant=use_reentrant),
        lambda x: checkpoint_sequential(model, 2, x, use_reentrant=use_reentrant),
    ):
        model.zero_grad()
        x.grad = None
        run(x).sum().backward()
        for t, gradient in zip([x, *model.parameters()], expected, strict=True):
            assert torch.equal(t.grad, gradient)  # type: ignore[arg-type]


def test_checkpointing_saves_only_the_input() -> None:
    model, x = network(LeanConv2d), example(LeanConv2d).requires_grad_()
    saved: list[tuple[int, ...]] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.shape) or t, lambda t: t)
    with hooks:
        checkpoint(model, x, use_reentrant=False)
    assert set(saved) <= {x.shape}


@pytest.mark.parametrize("layer", LAYERS)
def test_deterministic_algorithms(layer: Any) -> None:
    model, x = network(layer), torch.randn(2, 3, *[9] * layer.dims)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        once, again = gradients(model, model, x), gradients(model, model, x)
    finally:
        torch.use_deterministic_algorithms(before)
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a, b)


class Scaled(nn.Module):
    def forward(self, t: Tensor) -> Tensor:
        return 2 * t

    def right_inverse(self, t: Tensor) -> Tensor:
        return t / 2


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", ["alpha", "c", "bias"])
def test_parametrize(layer: Any, name: str) -> None:
    conv = network(layer)[0]
    x = example(layer)
    expected = conv(x)
    conv(x).sum().backward()
    plain = getattr(conv, name).grad
    conv.zero_grad()
    parametrize.register_parametrization(conv, name, Scaled())
    assert torch.equal(conv(x), expected)
    conv(x).sum().backward()
    assert torch.equal(conv.parametrizations[name].original.grad, 2 * plain)  # type: ignore[union-attr,index]
    parametrize.remove_parametrizations(conv, name)
    assert torch.equal(conv(x), expected)


@pytest.mark.parametrize(
    ("name", "constrain"), [("alpha", parametrizations.spectral_norm), ("c", parametrizations.weight_norm)]
)
def test_normalised_weights(name: str, constrain: Any) -> None:
    conv = constrain(LeanConv2d(3, 4, bias=True), name).eval()
    x = torch.randn(2, 3, 5, 6)
    y = conv(x)
    assert torch.equal(y, lean_conv(x, conv.alpha, conv.c, conv.bias))
    y.square().sum().backward()
    for parameter in conv.parameters():
        assert parameter.grad is not None
        assert parameter.grad.count_nonzero()


DDP = """
import os, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d
from torch_helpers import integers

def gradients(rank, layer):
    model = torch.nn.Sequential(layer(3, 4, bias=True), torch.nn.ReLU(), layer(4, 2, stride=2))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(integers(*p.shape, dtype=torch.float32, seed=i + (0 if rank in (0, None) else 50)))
    x = integers(4, 3, *(6, 5, 4)[: layer.dims], dtype=torch.float32, seed=9)
    if rank is None:
        model(x).sum().backward()  # the mean over two ranks of sums over halves is half of it
        return [p.grad / 2 for p in model.parameters()]
    parallel = DistributedDataParallel(model)
    parallel(x[2 * rank : 2 * rank + 2]).sum().backward()
    return [p.grad for p in model.parameters()]

def work(rank, file):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + file, rank=rank, world_size=2)
    for layer in (LeanConv1d, LeanConv2d, LeanConv3d):
        for ours, expected in zip(gradients(rank, layer), gradients(None, layer), strict=True):
            assert torch.equal(ours, expected)
    dist.destroy_process_group()
    os._exit(0)  # while the interpreter shuts down, gloo's threads may abort: leancore.torch.train.processes.end

if __name__ == "__main__":
    torch.multiprocessing.spawn(work, (sys.argv[1],), nprocs=2)
    print("passed")
"""


def test_ddp_with_two_processes(tmp_path: Path) -> None:
    """Ranks start from different weights; of integers, averaged gradients are exact."""
    script = tmp_path / "ddp.py"
    script.write_text(DDP)
    done = run_script(script, tmp_path / "rendezvous")
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr


LOADER = """
import sys, torch
from leancore.torch import LeanConv2d
from torch_helpers import integers

class Data(torch.utils.data.Dataset):
    def __init__(self, conv):
        self.conv = conv
    def __len__(self):
        return 6
    def __getitem__(self, index):
        y = self.conv(integers(1, 3, 32, 32, dtype=torch.float32, seed=index))
        y.sum().backward()
        return y.detach()[0]

def main(how):
    conv = LeanConv2d(3, 4)
    with torch.no_grad():
        for i, p in enumerate(conv.parameters()):
            p.copy_(integers(*p.shape, dtype=torch.float32, seed=i))
    data = Data(conv)
    expected = [data[i] for i in range(6)]  # so that threads ran before any fork
    loader = torch.utils.data.DataLoader(data, num_workers=2, multiprocessing_context=how, persistent_workers=True)
    for _ in range(2):
        for i, y in enumerate(loader):
            assert torch.equal(y[0], expected[i])
    print("passed")

if __name__ == "__main__":
    main(sys.argv[1])
"""


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_data_loader_workers_run_and_differentiate_a_layer(how: str, tmp_path: Path) -> None:
    script = tmp_path / "loader.py"
    script.write_text(LOADER)
    done = run_script(script, how, OMP_NUM_THREADS="2")
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr
