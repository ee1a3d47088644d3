"""The shift against a copy of the same tensor, and against one slice for each of the nine offsets.

    python benchmarks/shift.py

Shapes are those inside the steps of shift_resnet_a at batch 100. Every candidate writes to memory that exists, and they
take turns; printed are medians of the processor time of one thread, in which other programs do not count.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import leancore

SHAPES = [(100, 78, 32, 32), (100, 156, 16, 16), (100, 312, 8, 8), (100, 630, 4, 4)]


def nine_slices(x: Tensor, y: Tensor) -> None:
    y.zero_()
    groups = itertools.product((-1, 0, 1), repeat=2)
    for source, target, (down, right) in zip(
        torch.tensor_split(x, 9, 1), torch.tensor_split(y, 9, 1), groups, strict=True
    ):
        height, width = x.shape[2:]
        target[:, :, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = source[
            :, :, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)
        ]


def medians(candidates: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for call in candidates.values():
        call()
    for _ in range(rounds):
        for name, call in candidates.items():
            began = time.thread_time()
            call()
            times[name].append(time.thread_time() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("milliseconds, and in brackets times the copy")
    for shape, layout in itertools.product(SHAPES, ("contiguous_format", "channels_last")):
        x = torch.randn(shape).to(memory_format=getattr(torch, layout))
        y, expected = torch.empty_like(x), torch.empty_like(x)
        leancore.shift(x, out=y)
        nine_slices(x, expected)
        assert torch.equal(y, expected)
        result = medians(
            {
                "copy": lambda x=x, y=y: y.copy_(x),
                "shift": lambda x=x, y=y: leancore.shift(x, out=y),
                "nine slices": lambda x=x, y=y: nine_slices(x, y),
            },
            rounds,
        )
        text = ", ".join(f"{name} {t * 1e3:.2f} ({t / result['copy']:.1f})" for name, t in result.items())
        print(f"{'x'.join(map(str, shape))} {layout}: {text}", flush=True)


if __name__ == "__main__":
    main()
