"""lean_conv and threads: those of torch, those of Python, and forked workers."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

import leancore
from helpers import run_script
from leancore.torch import lean_conv

needs_openmp = pytest.mark.skipif(leancore.thread_backend() != "openmp", reason="not built with OpenMP")


def arguments(seed: int, c_in: int, c_out: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, c_in, 20, 24), (c_out, c_in), (min(c_in, c_out), 4), (c_out,))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def results(seed: int = 0, c_in: int = 16, c_out: int = 24) -> list[bytes]:
    """Output and gradients; the bias's is torch's own sum, and left out."""
    x, alpha, c, bias = arguments(seed, c_in, c_out)
    wanted = [t.requires_grad_() for t in (x, alpha, c)]
    y = lean_conv(x, alpha, c, bias)
    gradients = torch.autograd.grad(y.square().sum(), wanted)
    return [t.detach().numpy().tobytes() for t in (y, *gradients)]


@needs_openmp
def test_results_do_not_depend_on_torch_set_num_threads() -> None:
    before = torch.get_num_threads()
    try:
        seen = []
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            assert leancore.max_threads() == threads
            seen.append(results())
    finally:
        torch.set_num_threads(before)
    assert seen.count(seen[0]) == 4


@needs_openmp
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_one_thread_means_one_thread() -> None:
    code = """
import os, torch
torch.set_num_threads(1)
from leancore.torch import lean_conv
before = len(os.listdir("/proc/self/task"))
x, alpha, c = torch.ones(8, 64, 32, 32), torch.ones(64, 64, requires_grad=True), torch.ones(64, 4)
with torch.autograd.set_multithreading_enabled(False):
    lean_conv(x, alpha, c).sum().backward()
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = run_script("-c", code, OMP_NUM_THREADS="3")
    assert done.stdout.strip() == "0", done.stdout + done.stderr


def test_many_python_threads_at_once() -> None:
    cases = [(seed, c_in, c_out) for seed, (c_in, c_out) in enumerate(((3, 8), (16, 16), (24, 5)))]
    expected = [results(*case) for case in cases]
    start = threading.Barrier(6)

    def work(first: int) -> bool:
        start.wait()
        return all(results(*cases[i % 3]) == expected[i % 3] for i in range(first, first + 30))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


LOADER = """
import torch
from leancore.torch import LeanConv2d

torch.manual_seed(0)
conv = LeanConv2d(16, 16)
x = torch.randn(4, 16, 32, 32)

def train_step():
    conv.zero_grad()
    y = conv(x)
    y.square().sum().backward()
    return y

expected = train_step().detach()
with torch.no_grad():
    assert torch.equal(conv(x), expected)

class Data(torch.utils.data.Dataset):
    def __len__(self): return 6
    def __getitem__(self, index):
        with torch.no_grad():
            assert torch.equal(conv(x), expected)
        return index

for _ in range(2):
    loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork")
    assert sorted(int(i) for i in loader) == list(range(6))
    train_step()
print("passed")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_data_loader_workers_run_a_module_after_training() -> None:
    done = run_script("-c", LOADER, OMP_NUM_THREADS="2")
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr
