"""Time leancore against the same operator composed from torch's 1x1 and depthwise convolutions, on the CPU.

    python benchmarks/against_composition.py [--layers 32@32 64@16 ...] [--seconds 2]

Layers are c@side, batch 100 (the CIFAR layers of the networks), or c@side^3, batch 2. Both sides compute the same
outputs from channels-first fp32 arrays, checked against each other first; they take turns in one run, and memory is
reused for both: leancore writes into `out=`, torch's allocations are kept by the C library (GLIBC_TUNABLES, set by
starting this script anew). Printed: median milliseconds, their ratio, and the middle half of the ratios of turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

TUNABLES = ":".join(
    f"glibc.malloc.{name}"
    for name in (
        "hugetlb=1",
        "mmap_threshold=17179869184",
        "trim_threshold=34359738368",
        "top_pad=268435456",
    )
)
DEFAULT_LAYERS = ["32@32", "64@16", "128@8", "256@4", "32@64^3"]


def with_reused_memory() -> None:
    """Start this process again with an allocator that keeps its memory and threads that do not spin."""
    wanted = {"GLIBC_TUNABLES": TUNABLES, "OMP_WAIT_POLICY": "PASSIVE"}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def parse_layer(text: str) -> tuple[int, ...]:
    """Shape (N, c, *spatial) of a layer such as 32@16 or 32@64^3."""
    channels, _, extent = text.partition("@")
    side, _, dims = extent.partition("^")
    dimensions = int(dims or 2)
    return (100 if dimensions == 2 else 2, int(channels), *[int(side)] * dimensions)


def candidates(shape: tuple[int, ...]) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """For each operation: leancore's call and the composition's, returning comparable outputs."""
    import torch

    import leancore

    torch.manual_seed(0)
    dims, c = len(shape) - 2, shape[1]
    x, dy = torch.randn(shape), torch.randn(shape)
    alpha, taps = torch.randn(c, c) / c**0.5, torch.randn(c, 2 * dims)
    pointwise = alpha.reshape(c, c, *[1] * dims)
    depthwise = torch.zeros(c, 1, *[3] * dims)
    places = []
    for k in range(2 * dims):
        place = [1] * dims
        place[min(k, 2 * dims - 1 - k)] = 0 if k < dims else 2
        places.append((slice(None), 0, *place))
        depthwise[places[-1]] = taps[:, k]
    ones, zeros = [1] * dims, [0] * dims
    conv = (torch.conv1d, torch.conv2d, torch.conv3d)[dims - 1]
    y, dx, dalpha, dc = torch.empty(shape), torch.empty(shape), torch.empty_like(alpha), torch.empty_like(taps)

    def backward(which: list[bool]) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]:
        op = torch.ops.aten.convolution_backward
        return (
            op(dy, x, pointwise, None, ones, zeros, ones, False, zeros, 1, which),
            op(dy, x, depthwise, None, ones, ones, ones, False, zeros, c, which),
        )

    def composed_forward() -> torch.Tensor:
        return conv(x, pointwise).add_(conv(x, depthwise, padding=1, groups=c))

    def composed_data() -> torch.Tensor:
        full, stencil = backward([True, False, False])
        return full[0].add_(stencil[0])

    def composed_weight() -> tuple[torch.Tensor, torch.Tensor]:
        full, stencil = backward([False, True, False])
        return full[1].reshape(c, c), torch.stack([stencil[1][place] for place in places], dim=1)

    return {
        "forward": (lambda: leancore.forward(x, alpha, taps, out=y), composed_forward),
        "backward_data": (lambda: leancore.backward_data(dy, alpha, taps, out=dx), composed_data),
        "backward_weight": (lambda: leancore.backward_weight(x, dy, out=(dalpha, dc)), composed_weight),
    }


def check(ours: object, theirs: object, terms: int) -> None:
    """Outputs agree as far as two fp32 summations of `terms` random terms can differ."""
    import torch

    for a, b in zip(
        ours if isinstance(ours, tuple) else (ours,), theirs if isinstance(theirs, tuple) else (theirs,), strict=True
    ):
        assert isinstance(a, torch.Tensor)
        assert isinstance(b, torch.Tensor)
        bound = 4 * 2.0**-24 * terms * float(b.abs().max())
        worst = float((a - b).abs().max())
        if not worst <= bound:
            raise SystemExit(f"outputs differ by {worst:.2e}, more than {bound:.2e}")


def measure(
    ours: Callable[[], object], theirs: Callable[[], object], seconds: float
) -> tuple[list[float], list[float]]:
    """Seconds of each turn, taken alternately."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (ours, theirs, ours, theirs):
        call()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 7:
        for call, list_ in zip((ours, theirs), times, strict=True):
            start = time.perf_counter()
            call()
            list_.append(time.perf_counter() - start)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=DEFAULT_LAYERS)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each layer and operation (default 2)")
    arguments = parser.parse_args()
    with_reused_memory()

    import torch

    import leancore

    implementation = os.environ.get("LEANCORE_CPU_ISA") or next(
        n for n, _, ok in leancore._core.implementations() if ok
    )
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads;",
        end=" ",
    )
    print(f"leancore {leancore.__version__}, {implementation}")
    print(f"{'layer':>8} {'operation':16} {'leancore ms':>12} {'torch ms':>9} {'ratio':>6}  middle half")
    for text in arguments.layers:
        shape = parse_layer(text)
        for name, (ours, theirs) in candidates(shape).items():
            pixels = shape[0] * int(torch.tensor(shape[2:]).prod())
            check(ours(), theirs(), pixels if name == "backward_weight" else shape[1] + 6)
            a, b = measure(ours, theirs, arguments.seconds)
            low, _, high = statistics.quantiles([t / o for o, t in zip(a, b, strict=True)], n=4)
            mine, other = statistics.median(a), statistics.median(b)
            print(
                f"{text:>8} {name:16} {mine * 1e3:12.3f} {other * 1e3:9.3f} {other / mine:6.2f}  {low:.2f}-{high:.2f}"
            )


if __name__ == "__main__":
    main()
