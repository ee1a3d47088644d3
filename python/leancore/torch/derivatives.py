"""Derivatives of every order and mode, closed: those of the operators are the operators again.

The operator is linear in x and linear in (alpha, c). Each of forward, backward_data, backward_weight and shift has one
autograd Function, whose backward and jvp are written in terms of the functions of this module. It is the autograd rule
of the registered operator, and in plain eager execution it runs around the kernel itself, which saves the dispatcher's
time.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import Function, forward_ad

from leancore.torch import kernels, operators


def forward(
    x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int]
) -> Any:
    """y, differentiable."""
    if not kernels.readable(x, alpha, c, bias):
        return operators.forward(x, alpha, c, bias, stride, dilation)
    if _differentiates(x, alpha, c, bias):
        return _apply_forward(x, alpha, c, bias, stride, dilation, kernels.forward)
    return kernels.forward(x, alpha, c, bias, stride, dilation)


def backward_data(
    dy: Tensor, alpha: Tensor, c: Tensor, x_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Any:
    """dx, differentiable."""
    if not kernels.readable(dy, alpha, c):
        return operators.backward_data(dy, alpha, c, x_shape, stride, dilation)
    if _differentiates(dy, alpha, c):
        return _apply_backward_data(dy, alpha, c, x_shape, stride, dilation, kernels.backward_data)
    return kernels.backward_data(dy, alpha, c, x_shape, stride, dilation)


def backward_weight(x: Tensor, dy: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> Any:
    """(dalpha, dc), differentiable."""
    if not kernels.readable(x, dy):
        return operators.backward_weight(x, dy, stride, dilation)
    if _differentiates(x, dy):
        return _apply_backward_weight(x, dy, stride, dilation, kernels.backward_weight)
    return kernels.backward_weight(x, dy, stride, dilation)


def shift(x: Tensor, offsets: Sequence[int]) -> Any:
    """y, differentiable."""
    if not kernels.readable(x) or not x.is_cpu:
        return operators.shift(x, offsets)
    if _differentiates(x):
        return _apply_shift(x, offsets, kernels.shift)
    return kernels.shift(x, offsets)


def _differentiates(*tensors: Tensor | None) -> bool:
    """Whether torch wants to know of this call, given that no functorch transform is active."""
    if forward_ad._current_level >= 0:
        return True
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                return True
    return False


def _for_outer_levels(jvp: Callable[..., Any]) -> Callable[..., Any]:
    """torch turns forward mode off, at every level, while it calls a jvp; nested forward mode would get zeros."""

    @functools.wraps(jvp)
    def enabled(*args: Any) -> Any:
        with forward_ad._set_fwd_grad_enabled(True):
            return jvp(*args)

    return enabled


def _primals(ctx: Any) -> list[Tensor]:
    """What was saved, without the tangents of this level, which would otherwise be counted twice."""
    return [forward_ad.unpack_dual(t, level=0).primal for t in ctx.saved_tensors]


class _Forward(Function):
    """(x, alpha, c, bias) -> y. The last argument of each Function is what computes the result."""

    @staticmethod
    def forward(
        ctx: Any, x: Any, alpha: Any, c: Any, bias: Any, stride: Any, dilation: Any, run: Callable[..., Any]
    ) -> Any:
        y = run(x, alpha, c, bias, stride, dilation)
        # Keep for backward only what the wanted gradients read: x alone can be most of a network's memory.
        need = ctx.needs_input_grad
        need_x, need_weights = need[0], need[1] or need[2]
        ctx.save_for_backward(x if need_weights else None, alpha if need_x else None, c if need_x else None)
        ctx.save_for_forward(x, alpha, c)
        ctx.set_materialize_grads(False)
        ctx.x_shape, ctx.y_shape = x.shape, y.shape
        ctx.geometry = (stride, dilation)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        dx = dalpha = dc = dbias = None
        if dy is not None:
            x, alpha, c = ctx.saved_tensors
            need = ctx.needs_input_grad
            if need[0] and need[1] and need[2] and _in_one_pass(x, dy, alpha, c):
                dx, dalpha, dc = kernels.backward(x, dy, alpha, c, *ctx.geometry)
            else:
                if need[0]:
                    dx = backward_data(dy, alpha, c, ctx.x_shape, *ctx.geometry)
                if need[1] or need[2]:
                    dalpha, dc = backward_weight(x, dy, *ctx.geometry)
            if need[3]:
                dbias = dy.sum([0, *range(2, dy.dim())])
        return dx, dalpha, dc, dbias, None, None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, x_t: Any, alpha_t: Any, c_t: Any, bias_t: Any, *_: Any) -> Any:
        x, alpha, c = _primals(ctx)
        terms = []
        if x_t is not None:
            terms.append(forward(x_t, alpha, c, None, *ctx.geometry))
        if alpha_t is not None or c_t is not None:
            terms.append(forward(x, _or_zeros(alpha_t, alpha), _or_zeros(c_t, c), None, *ctx.geometry))
        if bias_t is not None:
            terms.append(bias_t.view(-1, *[1] * (x.dim() - 2)).expand(ctx.y_shape))
        return _sum(terms)


class _BackwardData(Function):
    """(dy, alpha, c) -> dx, the adjoint of forward in x."""

    @staticmethod
    def forward(
        ctx: Any, dy: Any, alpha: Any, c: Any, x_shape: Any, stride: Any, dilation: Any, run: Callable[..., Any]
    ) -> Any:
        need = ctx.needs_input_grad
        need_dy, need_weights = need[0], need[1] or need[2]
        ctx.save_for_backward(dy if need_weights else None, alpha if need_dy else None, c if need_dy else None)
        ctx.save_for_forward(dy, alpha, c)
        ctx.set_materialize_grads(False)
        ctx.x_shape = x_shape
        ctx.geometry = (stride, dilation)
        return run(dy, alpha, c, x_shape, stride, dilation)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> Any:
        ddy = dalpha = dc = None
        if g is not None:
            dy, alpha, c = ctx.saved_tensors
            if ctx.needs_input_grad[0]:
                ddy = forward(g, alpha, c, None, *ctx.geometry)
            if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
                dalpha, dc = backward_weight(g, dy, *ctx.geometry)
        return ddy, dalpha, dc, None, None, None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, dy_t: Any, alpha_t: Any, c_t: Any, *_: Any) -> Any:
        dy, alpha, c = _primals(ctx)
        terms = []
        if dy_t is not None:
            terms.append(backward_data(dy_t, alpha, c, ctx.x_shape, *ctx.geometry))
        if alpha_t is not None or c_t is not None:
            weights_t = _or_zeros(alpha_t, alpha), _or_zeros(c_t, c)
            terms.append(backward_data(dy, *weights_t, ctx.x_shape, *ctx.geometry))
        return _sum(terms)


class _BackwardWeight(Function):
    """(x, dy) -> (dalpha, dc), the adjoint of forward in (alpha, c)."""

    @staticmethod
    def forward(ctx: Any, x: Any, dy: Any, stride: Any, dilation: Any, run: Callable[..., Any]) -> Any:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, dy if ctx.needs_input_grad[0] else None)
        ctx.save_for_forward(x, dy)
        ctx.set_materialize_grads(False)
        ctx.geometry = (stride, dilation)
        dalpha, dc = run(x, dy, stride, dilation)
        ctx.x_shape, ctx.alpha_shape, ctx.c_shape = x.shape, dalpha.shape, dc.shape
        return dalpha, dc

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
                dx = backward_data(dy, *weights, ctx.x_shape, *ctx.geometry)
            if ctx.needs_input_grad[1]:
                ddy = forward(x, *weights, None, *ctx.geometry)
        return dx, ddy, None, None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, x_t: Any, dy_t: Any, *_: Any) -> Any:
        x, dy = _primals(ctx)
        terms = []
        if x_t is not None:
            terms.append(backward_weight(x_t, dy, *ctx.geometry))
        if dy_t is not None:
            terms.append(backward_weight(x, dy_t, *ctx.geometry))
        return tuple(_sum(list(parts)) for parts in zip(*terms, strict=True))


class _Shift(Function):
    """x -> y, linear; its adjoint is the shift by the opposite offsets."""

    @staticmethod
    def forward(ctx: Any, x: Any, offsets: Any, run: Callable[..., Any]) -> Any:
        ctx.set_materialize_grads(False)
        ctx.offsets = offsets
        return run(x, offsets)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None) -> Any:
        return None if dy is None else shift(dy, [-offset for offset in ctx.offsets]), None, None

    @staticmethod
    @_for_outer_levels
    def jvp(ctx: Any, x_t: Any, *_: Any) -> Any:
        return shift(x_t, ctx.offsets)


def _in_one_pass(*tensors: Tensor) -> bool:
    """Whether nobody is to differentiate or watch the gradients, so that one call may compute all three."""
    return kernels.readable(*tensors) and not _differentiates(*tensors)


def _or_zeros(t: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if t is None else t


def _sum(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


# Function.apply of torch's C++ code. The Python method around it binds signatures at every call, for functorch, whose
# levels the registered operators take care of.
_apply_forward = super(Function, _Forward).apply
_apply_backward_data = super(Function, _BackwardData).apply
_apply_backward_weight = super(Function, _BackwardWeight).apply
_apply_shift = super(Function, _Shift).apply


def _register(operator: Any, apply: Callable[..., Any]) -> None:
    """Makes a Function the autograd rule of a registered operator.

    torch.library.register_autograd knows no forward mode, silently giving zeros, and fails below torch.func.
    """

    def run(*args: Any) -> Any:
        # torch turned gradients off at every level for the duration of the Function. Below autograd only the outer
        # functorch levels are left to see them.
        with (
            torch.enable_grad(),
            forward_ad._set_fwd_grad_enabled(True),
            torch._C._AutoDispatchBelowAutograd(),
        ):
            return operator(*args)

    def differentiate(*args: Any) -> Any:
        with enable_single_level_autograd_function():
            return apply(*args, run)

    operators.library.impl(operator, differentiate, "Autograd")


_register(operators.forward, _apply_forward)
_register(operators.backward_data, _apply_backward_data)
_register(operators.backward_weight, _apply_backward_weight)
_register(operators.shift, _apply_shift)
