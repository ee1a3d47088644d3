"""Many callers at once, the GIL, forks, and the limits that others set."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import leancore
from helpers import integer_problem, normal_problem, result_bytes, run_script
from leancore import _core


def test_eight_threads_at_once_give_equal_bytes() -> None:
    problems = [normal_problem(2, c_in, c_out, (9, 14), np.float32) for c_in, c_out in ((3, 5), (16, 16), (33, 8))]
    expected = [result_bytes(p) for p in problems]
    start = threading.Barrier(8)

    def work(seed: int) -> bool:
        start.wait()
        return all(result_bytes(problems[i % 3]) == expected[i % 3] for i in range(seed, seed + 60))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_the_gil_is_released() -> None:
    """While one thread is inside a call, another one runs Python code."""
    p = normal_problem(4, 64, 64, (64, 64), np.float32)
    out = np.empty_like(p.dy)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # from now on, the GIL changes hands only where somebody releases it
    try:
        for _ in range(50):
            inside, done = threading.Event(), threading.Event()

            def allocate(shape: tuple[int, ...], inside: Any = inside) -> np.ndarray:
                inside.set()
                return out

            def work(done: Any = done, allocate: Any = allocate) -> None:
                _core.forward(p.x, p.alpha, p.c, None, None, allocate)
                done.set()

            thread = threading.Thread(target=work)
            thread.start()
            inside.wait()
            during = not done.is_set()
            thread.join()
            if during:
                return
    finally:
        sys.setswitchinterval(interval)
    pytest.fail("no other thread ran during any of 50 calls")


FORK = """
import os, sys, threading
import numpy as np
from helpers import normal_problem, result_bytes
p = normal_problem(4, 32, 32, (32, 32), np.float32)
expected = result_bytes(p)

def fork_and_compare():
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0 if result_bytes(p) == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert result_bytes(p) == expected  # and the parent still works

if {from_thread}:
    failures = []
    def work():
        try:
            fork_and_compare()
        except BaseException as error:
            failures.append(error)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures, failures
else:
    fork_and_compare()
print("passed")
"""


@pytest.mark.parametrize("from_thread", [False, True])
def test_fork_after_use_does_not_hang(from_thread: bool) -> None:
    done = run_script("-c", FORK.format(from_thread=from_thread), OMP_NUM_THREADS="2")
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr


LOADER = """
import sys
import numpy as np, torch
from helpers import normal_problem, result_bytes
import leancore
p = normal_problem(4, 32, 32, (32, 32), np.float32)
expected = result_bytes(p)
torch.ones(1000, 1000).relu_().sum()  # torch's own team of threads is up as well

class Data(torch.utils.data.Dataset):
    def __len__(self): return 6
    def __getitem__(self, index):
        assert result_bytes(p) == expected
        return index

for _ in range(2):
    loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork")
    assert sorted(int(i) for i in loader) == list(range(6))
    assert result_bytes(p) == expected
print("passed")
"""


def test_data_loader_workers_do_not_hang() -> None:
    pytest.importorskip("torch")
    done = run_script("-c", LOADER, OMP_NUM_THREADS="2")
    assert (done.returncode, done.stdout.strip()) == (0, "passed"), done.stderr


def _threads(prelude: str = "", **environment: str) -> list[str]:
    """max_threads(), and the threads that the process has after a call that could use them."""
    code = f"""
{prelude}
import os, sys
import numpy as np
import leancore
before = len(os.listdir("/proc/self/task"))
leancore.forward(np.ones((8, 64, 64, 64), "f"), np.ones((64, 64), "f"), np.ones((64, 4), "f"))
print(leancore.max_threads(), len(os.listdir("/proc/self/task")) - before)
"""
    done = run_script("-c", code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
needs_openmp = pytest.mark.skipif(leancore.thread_backend() != "openmp", reason="not built with OpenMP")


@needs_proc
@needs_openmp
def test_omp_num_threads_is_obeyed() -> None:
    assert _threads(OMP_NUM_THREADS="1") == ["1", "0"]
    assert _threads(OMP_NUM_THREADS="3") == ["3", "2"]


@needs_proc
@needs_openmp
def test_torch_set_num_threads_is_obeyed() -> None:
    pytest.importorskip("torch")
    assert _threads("import torch; torch.set_num_threads(1)", OMP_NUM_THREADS="3") == ["1", "0"]


@needs_proc
@needs_openmp
@pytest.mark.parametrize("order", ["import torch, leancore", "import leancore, torch"])
def test_torch_and_leancore_share_one_libgomp(order: str) -> None:
    pytest.importorskip("torch")
    code = f"""
{order}
import numpy as np
leancore.forward(np.ones((1, 1, 1, 1), "f"), np.ones((1, 1), "f"), np.ones((1, 4), "f"))
print(len({{line.split()[-1] for line in open("/proc/self/maps") if "libgomp" in line}}))
"""
    done = run_script("-c", code)
    assert done.returncode == 0, done.stderr
    # A torch that carries a renamed copy, as the wheels of PyPI do, brings a second one along whatever we do.
    renamed = run_script("-c", "import torch; print(any('libgomp-' in line for line in open('/proc/self/maps')))")
    if renamed.stdout.strip() == "True":
        pytest.skip("this torch carries a renamed libgomp")
    assert done.stdout.strip() == "1"


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    code = """
import hashlib, sys
import numpy as np
from helpers import DTYPES, normal_problem, result_bytes
digest = hashlib.sha256()
for c_in, c_out, spatial in ((3, 16, (20, 30)), (64, 64, (16, 16)), (16, 24, (5, 9, 11)), (8, 8, (500,))):
    for dtype in DTYPES:
        for piece in result_bytes(normal_problem(3, c_in, c_out, spatial, dtype)):
            digest.update(piece)
print(digest.hexdigest())
"""
    digests = set()
    for threads in (1, 2, 3, 4):
        done = run_script("-c", code, OMP_NUM_THREADS=str(threads), LEANCORE_NUM_THREADS=str(threads))
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout.strip())
    assert len(digests) == 1


def test_a_large_workspace_is_not_kept() -> None:
    """Calls of very different sizes, in turn, from one thread: right each time."""
    small, large = integer_problem(1, 3, 4, (5, 6)), integer_problem(2, 64, 64, (40, 40))
    for p in (small, large, small, large, small):
        assert np.array_equal(leancore.forward(p.x, p.alpha, p.c, bias=p.bias), p.y())
        assert np.array_equal(leancore.backward_weight(p.x, p.dy)[0], p.weights()[0])
