"""The workloads and their arithmetic."""

from __future__ import annotations

import re
from typing import Any

import pytest

from leancore.bench.cases import OPERATIONS, Case, Work, development, figure1, layer, networks, ragged, work


def test_work_by_hand() -> None:
    # 2 images of 4x6 pixels, 3 to 5 channels: alpha has 15 entries, the stencil 3 x 4.
    case = Case("hand", (2, 3, 4, 6), 5)
    flops, x, y = 2 * (2 * 24) * (15 + 12), 4 * 2 * 3 * 24, 4 * 2 * 5 * 24
    for operation in ("forward", "backward_data", "backward_weight"):
        assert work(case, operation) == Work(flops, x + y)
    assert work(case, "backward") == Work(2 * flops, 2 * x + y)
    assert work(case, "forward_backward") == Work(3 * flops, 3 * x + 2 * y)


def test_work_with_stride_counts_the_pixels_of_y() -> None:
    case = Case("strided", (1, 2, 5, 7), 2, dtype="bfloat16", stride=2)
    assert case.y_shape == (1, 2, 3, 4)
    assert work(case, "forward") == Work(2 * 12 * (4 + 8), 2 * (2 * 35 + 2 * 12))


@pytest.mark.parametrize(
    ("text", "shape"),
    [("32@16", (7, 32, 16, 16)), ("8@4^3", (7, 8, 4, 4, 4)), ("8@13x17", (7, 8, 13, 17)), ("8@9^1", (7, 8, 9))],
)
def test_layer(text: str, shape: tuple[int, ...]) -> None:
    assert layer(text, 7).shape == shape


def test_the_lists_hold_what_the_networks_run() -> None:
    assert [case.name for case in figure1(64)] == ["16@512", "32@256", "64@128", "128@64", "256@32", "512@16"]
    names = [case.name for case in networks()]
    a = ["A 32@32", "A 32-64@16", "A 64@16", "A 64-128@8", "A 128@8", "A 128-256@4", "A 256@4"]
    assert names[: len(a)] == a
    assert {"C 64@32", "C 512@4", "E 32@96", "E 512@6", "F 12@96", "F 192@6", "64@13x17", "32@64^3"} <= set(names)
    assert len(development()) == 11
    assert all(odd.name != even.name for odd, even in ragged())


def test_small_keeps_the_layer() -> None:
    case = layer("16@512", 8, 4)
    assert case.small().shape == (1, 16, 512, 512)
    assert layer("16@8", 100).small(elements=16 * 64 * 3).batch == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (1, 2)}, "shape (1, 2)"),
        ({"shape": (1, 2, 0)}, "shape (1, 2, 0)"),
        ({"shape": (1, 2, 3, 3, 3, 3, 3)}, "3 to 6"),
        ({"c_out": 0}, "c_out 0"),
        ({"stride": 0}, "stride 0"),
        ({"dtype": "int8"}, "dtype 'int8': expected one of float32"),
        ({"layout": "nchw"}, "layout 'nchw': expected one of channels-first"),
    ],
)
def test_errors_name_the_value(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Case(**({"name": "", "shape": (1, 2, 3), "c_out": 2} | arguments))


def test_a_layer_that_cannot_be_read() -> None:
    with pytest.raises(ValueError, match="layer '32x16'"):
        layer("32x16", 1)


def test_operations_are_all_counted() -> None:
    assert all(work(layer("2@3", 1), operation).flops > 0 for operation in OPERATIONS)
