"""The workloads: which layers, and how much arithmetic and memory traffic an operation on one of them needs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

OPERATIONS = ("forward", "backward_data", "backward_weight", "backward", "forward_backward")
ITEM_SIZES = {"float32": 4, "float64": 8, "bfloat16": 2, "float16": 2}
LAYOUTS = ("channels-first", "channels-last")


@dataclass(frozen=True)
class Case:
    """A layer: x ``shape`` = (N, c_in, *spatial) to y of ``c_out`` channels; the same stride and dilation on each axis.

    Raises:
        ValueError: a value that there is not, or a shape that is no batch of 1-D to 4-D images.
    """

    name: str
    shape: tuple[int, ...]
    c_out: int
    dtype: str = "float32"
    layout: str = "channels-first"
    stride: int = 1
    dilation: int = 1

    def __post_init__(self) -> None:
        if not 3 <= len(self.shape) <= 6 or min(self.shape) < 1:
            raise ValueError(f"shape {self.shape}: expected (N, c_in, *spatial), 3 to 6 positive numbers")
        if self.c_out < 1 or self.stride < 1 or self.dilation < 1:
            raise ValueError(f"c_out {self.c_out}, stride {self.stride}, dilation {self.dilation}: expected 1 or more")
        if self.dtype not in ITEM_SIZES:
            raise ValueError(f"dtype {self.dtype!r}: expected one of {', '.join(ITEM_SIZES)}")
        if self.layout not in LAYOUTS:
            raise ValueError(f"layout {self.layout!r}: expected one of {', '.join(LAYOUTS)}")

    @property
    def batch(self) -> int:
        return self.shape[0]

    @property
    def c_in(self) -> int:
        return self.shape[1]

    @property
    def spatial(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def dims(self) -> int:
        return len(self.spatial)

    @property
    def m(self) -> int:
        """Channels that the stencil works on."""
        return min(self.c_in, self.c_out)

    @property
    def y_spatial(self) -> tuple[int, ...]:
        return tuple((n - 1) // self.stride + 1 for n in self.spatial)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.batch, self.c_out, *self.y_spatial)

    def with_batch(self, batch: int) -> Case:
        return replace(self, shape=(batch, *self.shape[1:]))

    def small(self, elements: int = 2**18) -> Case:
        """The same layer on fewer images: at most `elements` numbers in x and in y, but one image at least."""
        image = max(math.prod(self.shape[1:]), math.prod(self.y_shape[1:]))
        return self.with_batch(max(1, min(self.batch, elements // image)))


@dataclass(frozen=True)
class Work:
    """Operations (a multiply and an add are two) and bytes that cannot be avoided."""

    flops: int
    bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def work(case: Case, operation: str) -> Work:
    """Of the lean operator, with m = min(c_in, c_out), d axes, N images of P pixels of y.

    ================  ==================================  ============================
    operation         flops                               each read or written once
    ================  ==================================  ============================
    forward           2 N P (c_in c_out + 2 d m)          x, y
    backward_data     the same                            dy, dx
    backward_weight   the same                            x, dy
    backward          twice that                          x, dy, dx
    forward_backward  forward and backward, one by one
    ================  ==================================  ============================

    Weights and their gradients are small against the images and left out of the bytes.
    """
    if operation == "forward_backward":
        return work(case, "forward") + work(case, "backward")
    x_bytes = math.prod(case.shape) * ITEM_SIZES[case.dtype]
    y_bytes = math.prod(case.y_shape) * ITEM_SIZES[case.dtype]
    flops = lean_flops(case)
    if operation == "backward":
        return Work(2 * flops, 2 * x_bytes + y_bytes)
    return Work(flops, x_bytes + y_bytes)


def lean_flops(case: Case) -> int:
    return 2 * case.batch * math.prod(case.y_spatial) * (case.c_in * case.c_out + 2 * case.dims * case.m)


def arithmetic_bound(case: Case) -> bool:
    """Whether the bars of the kernels count the layer among those bound by arithmetic: 64 channels or more."""
    return case.m >= 64


def layer(text: str, batch: int, c_out: int | None = None, prefix: str = "") -> Case:
    """A case from c@side, c@side^dims or c@heightxwidth: 32@16, 32@64^3, 64@13x17."""
    match = re.fullmatch(r"(\d+)@(\d+(?:x\d+)*)(?:\^(\d))?", text)
    if match is None:
        raise ValueError(f"layer {text!r}: expected c@side, c@side^dims or c@heightxwidth, such as 32@16")
    extents = [int(n) for n in match[2].split("x")]
    if len(extents) == 1:
        extents *= int(match[3] or 2)
    c_in = int(match[1])
    name = text if c_out in (None, c_in) else text.replace("@", f"-{c_out}@", 1)
    return Case(prefix + name, (batch, c_in, *extents), c_out or c_in)


def figure1(batch: int) -> list[Case]:
    """The six layers of the paper's Figure 1, which it runs with batch 64."""
    return [layer(text, batch) for text in ("16@512", "32@256", "64@128", "128@64", "256@32", "512@16")]


def _blocks(prefix: str, widths: Sequence[int], side: int) -> list[Case]:
    """The lean layers of a network: within each block, and on entering it from the one before."""
    cases = [layer(f"{widths[0]}@{side}", 100, prefix=prefix)]
    for before, width in itertools.pairwise(widths):
        side //= 2
        cases.append(layer(f"{before}@{side}", 100, width, prefix=prefix))
        cases.append(layer(f"{width}@{side}", 100, prefix=prefix))
    return cases


def networks() -> list[Case]:
    """What the networks of the paper's Table 1 really run, batch 100, and the odd widths and maps among it."""
    return [
        *_blocks("A ", (32, 64, 128, 256), 32),
        *_blocks("C ", (64, 128, 256, 512), 32),
        *_blocks("E ", (32, 64, 128, 256, 512), 96),
        *_blocks("F ", (12, 24, 48, 96, 192), 96),
        *(layer(text, 100) for text in ("64@6x6", "64@7x7", "64@13x17")),
        layer("32@64^3", 2),
    ]


def development() -> list[Case]:
    """The rows that the kernels are developed against."""
    batches = {"16@512": 8, "32@256": 8, "64@128": 16, "128@64": 64, "256@32": 64, "512@16": 64}
    cifar = ("32@32", "64@16", "128@8", "256@4")
    return [
        *(layer(text, batch) for text, batch in batches.items()),
        *(layer(text, 100) for text in cifar),
        layer("32@64^3", 2),
    ]


def ragged() -> list[tuple[Case, Case]]:
    """Odd widths and maps, each with the nearest power of two."""
    pairs = [
        ("12@32", "16@32"),
        ("24@32", "32@32"),
        ("48@16", "64@16"),
        ("96@8", "128@8"),
        ("192@4", "256@4"),
        ("64@6x6", "64@8x8"),
        ("64@7x7", "64@8x8"),
        ("64@13x17", "64@16x16"),
    ]
    return [(layer(odd, 100), layer(even, 100)) for odd, even in pairs]
