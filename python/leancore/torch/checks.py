"""What lean_conv accepts, and the messages for what it does not."""

from __future__ import annotations

import itertools
from operator import index
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_STRIDED = torch.strided
_LARGEST = 2**63 - 1  # that an operator of torch takes as an int


def check_kinds(x: Any, alpha: Any, c: Any, bias: Any) -> None:
    """TypeError unless all are dense floating-point tensors; bias may be None."""
    for t in (x, alpha, c) if bias is None else (x, alpha, c, bias):
        # The usual case in few words: a layer's call is mostly such checks where the input is tiny.
        if not isinstance(t, Tensor) or t.layout is not _STRIDED or t.dtype not in DTYPES or t.is_nested:
            break
    else:
        return
    for name, t in (("x", x), ("alpha", alpha), ("c", c), ("bias", bias)):
        if t is not None or name != "bias":
            check_kind(name, t)


def check_kind(name: str, t: Any, caller: str = "lean_conv") -> None:
    """TypeError unless it is a dense floating-point tensor."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{caller}: {name} is {type(t).__name__}, expected a torch.Tensor")
    if t.layout != torch.strided or t.is_quantized or t.is_nested:
        kind = "quantised" if t.is_quantized else "nested" if t.is_nested else t.layout
        raise TypeError(f"{caller}: {name} is {kind}, expected a dense tensor")
    if not t.is_floating_point():
        raise TypeError(f"{caller}: {name} is {t.dtype}, expected a floating-point tensor")


def check_dtype(name: str, t: Tensor, caller: str = "lean_conv") -> None:
    """TypeError unless there are kernels for it; on tensors without data too, where no kernel would say so."""
    if t.dtype not in DTYPES:
        raise TypeError(f"{caller}: {name} is {t.dtype}, expected float32, float64, bfloat16 or float16")


def check_alike(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None) -> None:
    """TypeError unless all have the dtype of x, one of ours, ValueError unless all are on its device."""
    check_dtype("x", x)
    dtype, device = x.dtype, x.device
    for name, t in (("alpha", alpha), ("c", c), ("bias", bias)):
        if t is None:
            continue
        if t.dtype != dtype:
            raise TypeError(f"lean_conv: {name} is {t.dtype}, expected {dtype} like x")
        if t.device != device:
            raise ValueError(f"lean_conv: {name} is on {t.device}, expected {device} like x")


def per_axis(name: str, value: Any, dims: int, caller: str = "lean_conv") -> tuple[int, ...]:
    """The number for each of dims axes. TypeError unless it is an int or ints, ValueError unless dims positive ones.

    Positive ones of 64 bits, that is.
    """
    if type(value) is tuple and len(value) == dims:  # as a layer keeps it
        for v in value:
            if type(v) is not int or not 0 < v <= _LARGEST:
                break
        else:
            return value
    try:
        values = tuple(map(index, value)) if isinstance(value, (tuple, list)) else (index(value),) * dims
    except TypeError:
        raise TypeError(f"{caller}: {name} is {value!r}, expected an int, or {dims} of them") from None
    if len(values) != dims or min(values) < 1 or max(values) > _LARGEST:
        raise ValueError(f"{caller}: {name} is {value}, expected a positive number, or {dims} of them for {dims}-D")
    return values


# By the number of axes: {-1, 0, 1}^dims, the last axis quickest, one after the other as the operator takes them.
_EVERY_OFFSET = {
    dims: tuple(itertools.chain.from_iterable(itertools.product((-1, 0, 1), repeat=dims))) for dims in range(1, 5)
}


def offsets_of(offsets: Any, dims: int) -> tuple[int, ...]:
    """One offset after the other. TypeError unless they are sequences of ints, ValueError unless each has dims."""
    if offsets is None:
        return _EVERY_OFFSET[dims]
    try:
        each = [tuple(map(index, offset)) for offset in offsets]
    except TypeError:
        raise TypeError(f"shift: offsets is {offsets!r}, expected a sequence of offsets, {dims} ints each") from None
    if not each or any(len(offset) != dims for offset in each):
        raise ValueError(f"shift: offsets is {offsets}, expected at least one offset, of {dims} ints each")
    numbers = tuple(itertools.chain.from_iterable(each))
    if max(map(abs, numbers)) > _LARGEST:
        raise ValueError(f"shift: offsets is {offsets}, expected ints of 64 bits, whose opposites are too")
    return numbers
