"""The operators registered with torch: torch.ops.leancore.forward, backward_data, backward_weight and shift.

Here are their schemas and what they do on each kind of tensor except for their derivatives, which
`leancore.torch.derivatives` registers.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from leancore.torch import kernels, shapes

library = torch.library.Library("leancore", "DEF")
for _schema in (
    "forward(Tensor x, Tensor alpha, Tensor c, Tensor? bias, int[] stride, int[] dilation) -> Tensor",
    "backward_data(Tensor dy, Tensor alpha, Tensor c, SymInt[] x_shape, int[] stride, int[] dilation) -> Tensor",
    "backward_weight(Tensor x, Tensor dy, int[] stride, int[] dilation) -> (Tensor, Tensor)",
    "shift(Tensor x, int[] offsets) -> Tensor",
):
    library.define(_schema, tags=torch.Tag.pt2_compliant_tag)

forward = torch.ops.leancore.forward.default
backward_data = torch.ops.leancore.backward_data.default
backward_weight = torch.ops.leancore.backward_weight.default
shift = torch.ops.leancore.shift.default

for _device in ("CPU", "CUDA"):
    library.impl("forward", kernels.forward, _device)
    library.impl("backward_data", kernels.backward_data, _device)
    library.impl("backward_weight", kernels.backward_weight, _device)
library.impl("shift", kernels.shift, "CPU")  # elsewhere: decompositions.py


# Tensors without data


def _fake_forward(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Any, dilation: Any) -> Tensor:
    return shapes.empty_in_layout_of(x, shapes.shape_of_y(x, alpha, c, bias, stride, dilation))


def _fake_backward_data(dy: Tensor, alpha: Tensor, c: Tensor, x_shape: Any, stride: Any, dilation: Any) -> Tensor:
    shapes.check_backward_data(dy, alpha, c, x_shape, stride, dilation)
    return shapes.empty_in_layout_of(dy, x_shape)


def _fake_backward_weight(x: Tensor, dy: Tensor, stride: Any, dilation: Any) -> tuple[Tensor, Tensor]:
    alpha_shape, c_shape = shapes.shapes_of_weights(x, dy, stride, dilation)
    return x.new_empty(alpha_shape), x.new_empty(c_shape)


def _fake_shift(x: Tensor, offsets: Any) -> Tensor:
    shapes.check_offsets(x, offsets)
    return shapes.empty_in_layout_of(x, x.shape)


torch.library.register_fake("leancore::forward", _fake_forward, lib=library)
torch.library.register_fake("leancore::backward_data", _fake_backward_data, lib=library)
torch.library.register_fake("leancore::backward_weight", _fake_backward_weight, lib=library)
torch.library.register_fake("leancore::shift", _fake_shift, lib=library)


# Batches of calls


def _batch_forward(info: Any, in_dims: Any, x: Any, alpha: Any, c: Any, bias: Any, stride: Any, dilation: Any) -> Any:
    if in_dims[1:4] == (None, None, None):
        return _unfold(forward(_fold(x, in_dims[0]), alpha, c, bias, stride, dilation), info), 0
    return _one_by_one(forward, info, in_dims, x, alpha, c, bias, stride, dilation)


def _batch_backward_data(info: Any, in_dims: Any, dy: Any, alpha: Any, c: Any, x_shape: Any, *geometry: Any) -> Any:
    if in_dims[1:3] == (None, None):
        folded = [info.batch_size * x_shape[0], *x_shape[1:]]
        return _unfold(backward_data(_fold(dy, in_dims[0]), alpha, c, folded, *geometry), info), 0
    return _one_by_one(backward_data, info, in_dims, dy, alpha, c, x_shape, *geometry)


def _batch_backward_weight(info: Any, in_dims: Any, x: Any, dy: Any, stride: Any, dilation: Any) -> Any:
    return _one_by_one(backward_weight, info, in_dims, x, dy, stride, dilation)


def _batch_shift(info: Any, in_dims: Any, x: Any, offsets: Any) -> Any:
    return _unfold(shift(_fold(x, in_dims[0]), offsets), info), 0


torch.library.register_vmap("leancore::forward", _batch_forward, lib=library)
torch.library.register_vmap("leancore::backward_data", _batch_backward_data, lib=library)
torch.library.register_vmap("leancore::backward_weight", _batch_backward_weight, lib=library)
torch.library.register_vmap("leancore::shift", _batch_shift, lib=library)


def _fold(t: Tensor, dim: int) -> Tensor:
    return t.movedim(dim, 0).flatten(0, 1)


def _unfold(t: Tensor, info: Any) -> Tensor:
    return t.view(info.batch_size, t.shape[0] // info.batch_size, *t.shape[1:])


def _one_by_one(operator: Any, info: Any, in_dims: Any, *args: Any) -> Any:
    results = [
        operator(*(a.select(d, i) if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])
    return torch.stack(results), 0


# Autocast


def autocast(device_type: str, *tensors: Tensor | None) -> Any:
    """The tensors in the dtype of the autocast region, as torch does it for its convolutions; float64 stays."""
    dtype = torch.get_autocast_dtype(device_type)
    return [t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors]


def _register_autocast(device_type: str, key: str) -> None:
    # Not torch.library.register_autocast: it wants one dtype, whatever the region's is.
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def cast_then_forward(
        x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int]
    ) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return forward(*autocast(device_type, x, alpha, c, bias), stride, dilation)

    library.impl("forward", cast_then_forward, key)


_register_autocast("cpu", "AutocastCPU")
_register_autocast("cuda", "AutocastCUDA")


# FLOPs, a multiplication and an addition each, at every position of y; those of the bias are not counted, as in torch


@register_flop_formula(torch.ops.leancore.forward)
def _(x: Any, alpha: Any, c: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(out_shape, alpha, c)


@register_flop_formula(torch.ops.leancore.backward_data)
def _(dy: Any, alpha: Any, c: Any, *_: Any, **__: Any) -> int:
    return _flops(dy, alpha, c)


@register_flop_formula(torch.ops.leancore.backward_weight)
def _(x: Any, dy: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return _flops(dy, *out_shape)


def _flops(y: Sequence[int], alpha: Sequence[int], c: Sequence[int]) -> int:
    positions = y[0]
    for extent in y[2:]:
        positions *= extent
    return 2 * positions * (alpha[0] * alpha[1] + c[0] * c[1])
