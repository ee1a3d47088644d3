"""The lean convolution as a torch operator, differentiable to any order.

The operator is linear in x and linear in (alpha, c), so its three kernels are closed under differentiation: every
derivative of forward, backward-data and backward-weight is again one of them. Each is one autograd Function whose
backward, jvp and vmap are written in terms of the other two.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch._subclasses.fake_tensor import FakeTensor
from torch.autograd import Function, forward_ad
from torch.fx.experimental.proxy_tensor import get_proxy_mode

import leancore

_DTYPES = (torch.float32, torch.float64)
_HALF = (torch.bfloat16, torch.float16)


def lean_conv(
    x: Tensor,
    alpha: Tensor,
    c: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Full 1x1 convolution plus depthwise cross stencil, added, in one pass.

    With m = min(c_in, c_out) and d spatial dimensions (1 to 4):

    Args:
        x: (N, c_in, *spatial), float32 or float64, any strides.
        alpha: (c_out, c_in), the 1x1 convolution.
        c: (m, 2 d), the stencil. Its columns are the -1 taps from the outermost axis in, then the +1 taps from the
            innermost out (2-D: up, left, right, down). The centre belongs to alpha.
        bias: (c_out,) or None.
        stride: of the output, one number or one for each spatial axis.
        dilation: distance of the taps, one number or one for each spatial axis.

    Returns:
        y: (N, c_out, *spatial), in the memory layout of x, of the spatial size of a 3-wide convolution with
        padding = dilation; at stride 1 that of x. A neighbour outside x counts as zero.

    Reverse mode, forward mode and vmap work to any order. Under autocast the operator runs in float32: bfloat16 and
    float16 arguments are cast, their gradients come back in their own dtype. torch.compile breaks the graph at this
    operator and runs it eagerly. Meta and fake tensors give a result of the right shape, dtype and layout.

    Raises:
        TypeError: an argument is not a plain, dense floating-point tensor, or the dtypes differ.
        ValueError: shapes, stride, dilation or devices that do not fit.
        NotImplementedError: bfloat16 or float16 outside of autocast; tracing (torch.export, make_fx).
        RuntimeError: x is on a CUDA device that leancore cannot use.
    """
    if torch.compiler.is_compiling():
        return _outside_the_graph(x, alpha, c, bias, stride, dilation)
    return _lean_conv(x, alpha, c, bias, stride, dilation)


def _lean_conv(
    x: Tensor,
    alpha: Tensor,
    c: Tensor,
    bias: Tensor | None,
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
) -> Tensor:
    if get_proxy_mode() is not None:
        # A trace records torch operators only; it would keep an uninitialised result in our place.
        raise NotImplementedError("lean_conv: cannot be traced (torch.export, make_fx); run it eagerly")
    for name, t in (("x", x), ("alpha", alpha), ("c", c), ("bias", bias)):
        if t is not None or name != "bias":
            _check_tensor(name, t)
    if x.device.type in ("cpu", "cuda") and torch.is_autocast_enabled(x.device.type):
        x, alpha, c = _from_half(x), _from_half(alpha), _from_half(c)
        bias = None if bias is None else _from_half(bias)
    if x.dtype not in _DTYPES:
        raise NotImplementedError(
            f"lean_conv: x is {x.dtype}; there are kernels for float32 and float64 only. Cast x, alpha and c, "
            "or use torch.autocast, under which the operator runs in float32"
        )
    for name, t in (("alpha", alpha), ("c", c), ("bias", bias)):
        if t is not None and t.dtype != x.dtype:
            raise TypeError(f"lean_conv: {name} is {t.dtype}, expected {x.dtype} like x")
    dims = x.dim() - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"lean_conv: x has shape {tuple(x.shape)}, expected (N, c_in, 1 to 4 spatial axes)")
    geometry = (_per_axis("stride", stride, dims), _per_axis("dilation", dilation, dims))
    y: Tensor = _Forward.apply(x, alpha, c, bias, *geometry)
    return y


# Not torch.compiler.disable: that imports the whole compiler together with this file.
_outside_the_graph = _disable_dynamo(_lean_conv)


def _for_outer_levels(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """torch turns forward mode off, at every level, while it calls a jvp; nested forward mode would get zeros."""

    @functools.wraps(jvp)
    def enabled(*args: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(*args)

    return enabled


def _primals(ctx: Any) -> list[Tensor]:
    """What was saved, without the tangents of this level, which would otherwise be counted twice."""
    return [forward_ad.unpack_dual(t).primal for t in ctx.saved_tensors]


class _Forward(Function):
    """(x, alpha, c, bias) -> y."""

    @staticmethod
    def forward(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Any, dilation: Any) -> Tensor:
        if _abstract(x, alpha, c, bias):
            return _abstract_forward(x, alpha, c, bias, stride)
        return leancore.forward(
            _plain(x),
            _plain(alpha),
            _plain(c),
            bias=None if bias is None else _plain(bias),
            stride=stride,
            dilation=dilation,
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        x, alpha, c, _, stride, dilation = inputs
        # Keep for backward only what the wanted gradients read: x alone can be most of a network's memory.
        need_x = ctx.needs_input_grad[0]
        need_weights = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ctx.save_for_backward(x if need_weights else None, alpha if need_x else None, c if need_x else None)
        ctx.save_for_forward(x, alpha, c)
        ctx.set_materialize_grads(False)
        ctx.x_shape, ctx.y_shape = x.shape, output.shape
        ctx.geometry = (stride, dilation)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        dx = dalpha = dc = dbias = None
        if dy is not None:
            x, alpha, c = ctx.saved_tensors
            need = ctx.needs_input_grad
            if need[0]:
                dx = _BackwardData.apply(dy, alpha, c, ctx.x_shape, *ctx.geometry)
            if need[1] or need[2]:
                dalpha, dc = _BackwardWeight.apply(x, dy, *ctx.geometry)
            if need[3]:
                dbias = dy.sum([0, *range(2, dy.dim())])
        return dx, dalpha, dc, dbias, None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, x_t: Any, alpha_t: Any, c_t: Any, bias_t: Any, *_: Any) -> Any:
        x, alpha, c = _primals(ctx)
        terms = []
        if x_t is not None:
            terms.append(_Forward.apply(x_t, alpha, c, None, *ctx.geometry))
        if alpha_t is not None or c_t is not None:
            weights_t = _or_zeros(alpha_t, alpha), _or_zeros(c_t, c)
            terms.append(_Forward.apply(x, *weights_t, None, *ctx.geometry))
        if bias_t is not None:
            terms.append(bias_t.view(-1, *[1] * (x.dim() - 2)).expand(ctx.y_shape))
        return _sum(terms)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, alpha: Any, c: Any, bias: Any, stride: Any, dilation: Any) -> Any:
        if in_dims[1:4] == (None, None, None):
            y = _Forward.apply(_fold(x, in_dims[0]), alpha, c, bias, stride, dilation)
            return _unfold(y, info), 0
        return _one_by_one(_Forward, info, in_dims, x, alpha, c, bias, stride, dilation)


class _BackwardData(Function):
    """(dy, alpha, c) -> dx, the adjoint of forward in x."""

    @staticmethod
    def forward(dy: Tensor, alpha: Tensor, c: Tensor, x_shape: Any, stride: Any, dilation: Any) -> Tensor:
        if _abstract(dy, alpha, c):
            return _empty_in_layout_of(dy, x_shape)
        return leancore.backward_data(
            _plain(dy), _plain(alpha), _plain(c), stride=stride, dilation=dilation, x_shape=tuple(x_shape)
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        dy, alpha, c, _, stride, dilation = inputs
        need_dy = ctx.needs_input_grad[0]
        need_weights = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        ctx.save_for_backward(dy if need_weights else None, alpha if need_dy else None, c if need_dy else None)
        ctx.save_for_forward(dy, alpha, c)
        ctx.set_materialize_grads(False)
        ctx.x_shape = output.shape
        ctx.geometry = (stride, dilation)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> Any:
        ddy = dalpha = dc = None
        if g is not None:
            dy, alpha, c = ctx.saved_tensors
            if ctx.needs_input_grad[0]:
                ddy = _Forward.apply(g, alpha, c, None, *ctx.geometry)
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                dalpha, dc = _BackwardWeight.apply(g, dy, *ctx.geometry)
        return ddy, dalpha, dc, None, None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, dy_t: Any, alpha_t: Any, c_t: Any, *_: Any) -> Any:
        dy, alpha, c = _primals(ctx)
        terms = []
        if dy_t is not None:
            terms.append(_BackwardData.apply(dy_t, alpha, c, ctx.x_shape, *ctx.geometry))
        if alpha_t is not None or c_t is not None:
            weights_t = _or_zeros(alpha_t, alpha), _or_zeros(c_t, c)
            terms.append(_BackwardData.apply(dy, *weights_t, ctx.x_shape, *ctx.geometry))
        return _sum(terms)

    @staticmethod
    def vmap(info: Any, in_dims: Any, dy: Any, alpha: Any, c: Any, x_shape: Any, stride: Any, dilation: Any) -> Any:
        if in_dims[1:3] == (None, None):
            shape = (info.batch_size * x_shape[0], *x_shape[1:])
            dx = _BackwardData.apply(_fold(dy, in_dims[0]), alpha, c, shape, stride, dilation)
            return _unfold(dx, info), 0
        return _one_by_one(_BackwardData, info, in_dims, dy, alpha, c, x_shape, stride, dilation)


class _BackwardWeight(Function):
    """(x, dy) -> (dalpha, dc), the adjoint of forward in (alpha, c)."""

    @staticmethod
    def forward(x: Tensor, dy: Tensor, stride: Any, dilation: Any) -> tuple[Tensor, Tensor]:
        if _abstract(x, dy):
            c_in, c_out = x.shape[1], dy.shape[1]
            return x.new_empty((c_out, c_in)), x.new_empty((min(c_in, c_out), 2 * (x.dim() - 2)))
        return leancore.backward_weight(_plain(x), _plain(dy), stride=stride, dilation=dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, dy, stride, dilation = inputs
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, dy if ctx.needs_input_grad[0] else None)
        ctx.save_for_forward(x, dy)
        ctx.set_materialize_grads(False)
        ctx.x_shape, ctx.alpha_shape, ctx.c_shape = x.shape, output[0].shape, output[1].shape
        ctx.geometry = (stride, dilation)

    @staticmethod
    def backward(ctx: Any, galpha: Tensor | None, gc: Tensor | None) -> Any:
        dx = ddy = None
        given = galpha if galpha is not None else gc
        if given is not None:
            x, dy = ctx.saved_tensors
            weights = (
                given.new_zeros(ctx.alpha_shape) if galpha is None else galpha,
                given.new_zeros(ctx.c_shape) if gc is None else gc,
            )
            if ctx.needs_input_grad[0]:
                dx = _BackwardData.apply(dy, *weights, ctx.x_shape, *ctx.geometry)
            if ctx.needs_input_grad[1]:
                ddy = _Forward.apply(x, *weights, None, *ctx.geometry)
        return dx, ddy, None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, x_t: Any, dy_t: Any, *_: Any) -> Any:
        x, dy = _primals(ctx)
        terms = []
        if x_t is not None:
            terms.append(_BackwardWeight.apply(x_t, dy, *ctx.geometry))
        if dy_t is not None:
            terms.append(_BackwardWeight.apply(x, dy_t, *ctx.geometry))
        return tuple(_sum(list(parts)) for parts in zip(*terms, strict=True))

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Any, dy: Any, stride: Any, dilation: Any) -> Any:
        return _one_by_one(_BackwardWeight, info, in_dims, x, dy, stride, dilation)


for _function in (_Forward, _BackwardData, _BackwardWeight):
    # torch asks for the signature at every call, and inspect would build it anew: half of the time of a small call.
    _function.forward.__signature__ = inspect.signature(_function.forward)  # type: ignore[union-attr]


# What comes in


def _check_tensor(name: str, t: Any) -> None:
    if not isinstance(t, Tensor):
        raise TypeError(f"lean_conv: {name} is {type(t).__name__}, expected a torch.Tensor")
    if t.layout != torch.strided or t.is_quantized:
        kind = "quantised" if t.is_quantized else t.layout
        raise TypeError(f"lean_conv: {name} is {kind}, expected a dense tensor")
    if not t.is_floating_point():
        raise TypeError(f"lean_conv: {name} is {t.dtype}, expected a floating-point tensor")


def _per_axis(name: str, value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims:
        raise ValueError(f"lean_conv: {name} has {len(values)} entries, expected one or {dims} for {dims}-D")
    return values


def _from_half(t: Tensor) -> Tensor:
    return t.float() if t.dtype in _HALF else t


def _plain(t: Tensor) -> Tensor:
    """The same values in memory that a kernel may read, off the graph."""
    if type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise TypeError(f"lean_conv: {type(t).__name__} keeps its data elsewhere, expected a plain torch.Tensor")
    if torch._C._functorch.is_legacy_batchedtensor(t):
        raise NotImplementedError(
            "lean_conv: not under is_grads_batched=True or vectorize=True; use torch.func (vmap, jacrev, hessian)"
        )
    if t.requires_grad:
        t = t.detach()
    if t.is_neg():
        t = t.resolve_neg()
    if t._is_zerotensor():  # what forward mode passes for a derivative known to be zero; it has no memory
        t = torch.zeros(t.shape, dtype=t.dtype, device=t.device)
    return t


# Tensors without data


def _abstract(*tensors: Tensor | None) -> bool:
    return any(t is not None and (t.is_meta or isinstance(t, FakeTensor)) for t in tensors)


def _abstract_forward(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> Tensor:
    dims = x.dim() - 2
    if alpha.dim() != 2 or alpha.shape[1] != x.shape[1]:
        raise ValueError(
            f"forward: alpha has shape {tuple(alpha.shape)}, expected (c_out, c_in) = (·, {x.shape[1]}) "
            f"from x of shape {tuple(x.shape)}"
        )
    diagonal = (min(alpha.shape[0], alpha.shape[1]), 2 * dims)
    if tuple(c.shape) != diagonal:
        raise ValueError(f"forward: c has shape {tuple(c.shape)}, expected (min(c_in, c_out), 2 dims) = {diagonal}")
    if bias is not None and tuple(bias.shape) != (alpha.shape[0],):
        raise ValueError(f"forward: bias has shape {tuple(bias.shape)}, expected (c_out,) = ({alpha.shape[0]},)")
    extents = [(n - 1) // s + 1 if n else 0 for n, s in zip(x.shape[2:], stride, strict=True)]
    return _empty_in_layout_of(x, (x.shape[0], alpha.shape[0], *extents))


def _empty_in_layout_of(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Dense, with the axes in memory in the order that `like` has them: the rule of the array functions."""
    order = list(range(like.dim()))
    if not like.is_contiguous():
        order.sort(key=like.stride, reverse=True)
    strides, step = [0] * len(order), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(int(shape[axis]), 1)
    return like.new_empty_strided(tuple(shape), tuple(strides))


# Small parts of the derivatives


def _or_zeros(t: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if t is None else t


def _sum(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _fold(t: Tensor, dim: int) -> Tensor:
    return t.movedim(dim, 0).flatten(0, 1)


def _unfold(t: Tensor, info: Any) -> Tensor:
    return t.view(info.batch_size, t.shape[0] // info.batch_size, *t.shape[1:])


def _one_by_one(function: Any, info: Any, in_dims: Any, *args: Any) -> Any:
    results = [
        function.apply(*(a.select(d, i) if isinstance(d, int) else a for a, d in zip(args, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    if isinstance(results[0], tuple):
        return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0,) * len(results[0])
    return torch.stack(results), 0
