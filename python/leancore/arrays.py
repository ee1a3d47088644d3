"""The operator on arrays of any framework that speaks DLPack.

Notation of all functions, with m = min(c_in, c_out): x ``(N, c_in, *spatial)``, alpha ``(c_out, c_in)``, c
``(m, 2 * dims)``, bias ``(c_out,)``, y ``(N, c_out, *spatial of y)``; dx, dalpha, dc, dy are shaped like x, alpha, c,
y. An array of three axes is the 1-D operator, four the 2-D one, five the 3-D one, six the 4-D one. All arrays of one
call have one dtype, float32, float64, float16 or bfloat16 (in NumPy that of ``ml_dtypes``); there are no implicit
casts. 16-bit types are summed in float32 or wider and rounded once. Strided, broadcast and reversed inputs are fine.

``implementation`` is the name of the one to run, of those that :func:`leancore.implementations` lists for the device of
the arrays; by default it is the best of them. A CPU implementation leaves what it does not support to ``reference``.
``"cuda_tf32"`` multiplies float32 numbers on CUDA as TF32, with 11 significant bits, where there is a kernel for that;
it never runs unless it is asked for (docs/cuda.md).

Errors, the same for all functions, each naming the function and the argument; no output is touched:

- ``TypeError``: not an array, not floating point, or mixed dtypes
- ``ValueError``: a shape, stride, device or alignment that does not fit; an output overlaps itself or another argument
- ``BufferError``: an output is read-only or immutable; a tensor requires grad or has a lazy negative bit; an array
  describes itself inconsistently
- ``OverflowError``: more elements or bytes than 63 bits count
- ``MemoryError``: no memory for the output or the workspace
- ``RuntimeError``: a CUDA array in a build without CUDA; an ``implementation`` that is not there, or not for the device
  of the arrays
- ``NotImplementedError``: a CUDA array of a framework whose stream is not known: neither torch, nor CuPy, nor JAX; or,
  of a JAX array on a CUDA device, ``c=None`` or an ``implementation`` but ``"cuda"``
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from leancore import _core


class SupportsDLPack(Protocol):
    """An array: whatever has the two methods of the DLPack protocol."""

    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


Array = TypeVar("Array", bound=SupportsDLPack)


def forward(
    x: Array,
    alpha: SupportsDLPack,
    c: SupportsDLPack | None,
    *,
    bias: SupportsDLPack | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    out: Array | None = None,
    implementation: str | None = None,
) -> Array:
    """The lean convolution: a full 1x1 convolution plus a depthwise cross stencil.

    ``y[n,o,p] = bias[o] + sum_i alpha[o,i] x[n,i,p] + [o < m] sum_k c[o,k] x[n,o,p + tap_k]``

    The columns of c are the taps, read left to right and top to bottom: left, right in 1-D; up, left, right, down in
    2-D; front, up, left, right, down, back in 3-D. Neighbours outside x contribute nothing.

    Args:
        x: ``(N, c_in, *spatial)``.
        alpha: ``(c_out, c_in)``, the 1x1 convolution, and with its diagonal the centre of the stencil.
        c: ``(min(c_in, c_out), 2 * dims)``, the stencils; None for a plain 1x1 convolution.
        bias: ``(c_out,)``.
        stride: outputs at every stride-th position; an int, or one for each spatial axis.
        dilation: distance of the taps from the centre; an int, or one for each spatial axis.
        out: the array to write y to, ``(N, c_out, *((n - 1) // stride + 1))``. It must overlap no argument.
        implementation: the name of the one to run.

    Returns:
        ``out``, or a new array of the framework, device, dtype and memory layout of x.
    """
    framework = _enter("forward", "x", x)
    _enter("forward", "alpha", alpha)
    if c is not None:
        _enter("forward", "c", c)
    if bias is not None:
        _enter("forward", "bias", bias)
    if out is not None:
        _enter("forward", "out", out).refuse_immutable("forward")
    if framework.program is not None and (run := framework.program("forward", x)):
        return run({"x": x, "alpha": alpha, "c": c, "bias": bias}, out, stride, dilation, implementation)  # type: ignore[no-any-return]
    y: Array = _core.forward(
        x,
        alpha,
        c,
        bias,
        out,
        functools.partial(framework.like, x),
        stride,
        dilation,
        implementation,
        framework.stream(x),
    )
    return y if out is not None else framework.finish(x, y)


def backward_data(
    dy: Array,
    alpha: SupportsDLPack,
    c: SupportsDLPack | None,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    x_shape: Sequence[int] | None = None,
    out: Array | None = None,
    implementation: str | None = None,
) -> Array:
    """dx: the adjoint of :func:`forward` in x, applied to dy.

    Args:
        dy: ``(N, c_out, *spatial of y)``.
        alpha: as in :func:`forward`.
        c: as in :func:`forward`.
        stride: as in :func:`forward`.
        dilation: as in :func:`forward`.
        x_shape: the shape of x. With a stride above 1 several shapes lead to the same y; the default is that of
            ``out``, else the spatial extents of dy times the stride.
        out: the array to write dx to. It must overlap no argument.
        implementation: as in :func:`forward`.

    Returns:
        ``out``, or a new array of the framework, device, dtype and memory layout of dy.
    """
    framework = _enter("backward_data", "dy", dy)
    _enter("backward_data", "alpha", alpha)
    if c is not None:
        _enter("backward_data", "c", c)
    if out is not None:
        _enter("backward_data", "out", out).refuse_immutable("backward_data")
    if framework.program is not None and (run := framework.program("backward_data", dy)):
        return run({"dy": dy, "alpha": alpha, "c": c}, out, stride, dilation, implementation, x_shape)  # type: ignore[no-any-return]
    dx: Array = _core.backward_data(
        dy,
        alpha,
        c,
        x_shape,
        out,
        functools.partial(framework.like, dy),
        stride,
        dilation,
        implementation,
        framework.stream(dy),
    )
    return dx if out is not None else framework.finish(dy, dx)


def backward_weight(
    x: Array,
    dy: SupportsDLPack,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    out: tuple[Array, Array] | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array]:
    """The gradients of the weights, in one read of x and dy.

    ``dalpha[o,i] = sum_{n,p} dy[n,o,p] x[n,i,p]`` and ``dc[j,k] = sum_{n,p} dy[n,j,p] x[n,j,p + tap_k]``

    Args:
        x: ``(N, c_in, *spatial)``.
        dy: ``(N, c_out, *spatial of y)``.
        stride: as in :func:`forward`.
        dilation: as in :func:`forward`.
        out: the arrays ``(dalpha, dc)`` to write to, ``(c_out, c_in)`` and ``(min(c_in, c_out), 2 * dims)``. They must
            overlap neither each other nor an argument.
        implementation: as in :func:`forward`.

    Returns:
        The pair ``(dalpha, dc)``: ``out``, or new arrays of the framework, device and dtype of x.
    """
    framework = _enter("backward_weight", "x", x)
    _enter("backward_weight", "dy", dy)
    _enter_outputs("backward_weight", out)
    if framework.program is not None and (run := framework.program("backward_weight", x)):
        return run({"x": x, "dy": dy}, out, stride, dilation, implementation)  # type: ignore[no-any-return]
    dalpha, dc = _core.backward_weight(
        x, dy, out, functools.partial(framework.compact, x), stride, dilation, implementation, framework.stream(x)
    )
    return (dalpha, dc) if out is not None else (framework.finish(x, dalpha), framework.finish(x, dc))


def backward(
    x: Array,
    dy: SupportsDLPack,
    alpha: SupportsDLPack,
    c: SupportsDLPack,
    *,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
    out: tuple[Array, Array, Array] | None = None,
    implementation: str | None = None,
) -> tuple[Array, Array, Array]:
    """All gradients of :func:`forward` in one call: what :func:`backward_data` and :func:`backward_weight` compute.

    Args:
        x: ``(N, c_in, *spatial)``.
        dy: ``(N, c_out, *spatial of y)``.
        alpha: ``(c_out, c_in)``.
        c: ``(min(c_in, c_out), 2 * dims)``.
        stride: as in :func:`forward`.
        dilation: as in :func:`forward`.
        out: the arrays ``(dx, dalpha, dc)`` to write to, shaped like x, alpha and c. They must overlap neither each
            other nor an argument.
        implementation: as in :func:`forward`.

    Returns:
        The triple ``(dx, dalpha, dc)``: ``out``, or new arrays of the framework, device and dtype of x, dx in the
        memory layout of x. The gradient of a bias is the sum of dy over all axes but the second.
    """
    framework = _enter("backward", "x", x)
    for name, array in (("dy", dy), ("alpha", alpha), ("c", c)):
        _enter("backward", name, array)
    _enter_outputs("backward", out)
    if framework.program is not None and (run := framework.program("backward", x)):
        return run({"x": x, "dy": dy, "alpha": alpha, "c": c}, out, stride, dilation, implementation)  # type: ignore[no-any-return]
    like, compact = functools.partial(framework.like, x), functools.partial(framework.compact, x)
    gradients: tuple[Array, Array, Array] = _core.backward(
        x, dy, alpha, c, out, like, compact, stride, dilation, implementation, framework.stream(x)
    )
    if out is not None:
        return gradients
    dx, dalpha, dc = (framework.finish(x, gradient) for gradient in gradients)
    return dx, dalpha, dc


def shift(x: Array, offsets: Sequence[Sequence[int]] | None = None, *, out: Array | None = None) -> Array:
    """Moves groups of channels, each by its own offset: ``y[n,j,p] = x[n,j,p - offset of j]``, zeros moving in.

    Elements are moved bit by bit, never computed with. The adjoint is the shift by the opposite offsets.

    Args:
        x: ``(N, c, *spatial)``.
        offsets: the offset of each group, one number for each spatial axis; by default all of {-1, 0, 1}^dims, the last
            axis quickest. The channels are split in their order; where c is not a multiple of the number of groups,
            the first (c mod groups) have one channel more.
        out: the array to write y to, of the shape of x. It must not overlap x.

    Returns:
        ``out``, or a new array of the framework, device, dtype and memory layout of x.

    Beside the errors of all functions: NotImplementedError for a CUDA array.
    """
    framework = _enter("shift", "x", x)
    if out is not None:
        _enter("shift", "out", out).refuse_immutable("shift")
    y: Array = _core.shift(x, offsets, out, functools.partial(framework.like, x))
    return y if out is not None else framework.finish(x, y)


# What differs between frameworks: which arrays must be refused although their DLPack export would succeed, and how to
# make an output. Everything else, shapes above all, is checked in C++.


_CUDA = 2  # DLPack's number


def _nothing(function: str, name: str, array: Any) -> None:
    pass


def _as_it_is(like: Any, result: Any) -> Any:
    return result


def _no_stream(array: Any) -> int | None:
    return None


class _Framework(NamedTuple):
    like: Callable[[Any, tuple[int, ...]], Any]  # (x, shape) -> a new array in the memory layout of x
    compact: Callable[[Any, tuple[int, ...]], Any]  # (x, shape) -> a new C-contiguous array
    check: Callable[[str, str, Any], None] = _nothing
    finish: Callable[[Any, Any], Any] = _as_it_is  # (x, what like or compact made) -> what the caller gets
    immutable: bool = False
    stream: Callable[[Any], int | None] = _no_stream  # the current stream of a CUDA array's device, as its handle
    # (function, x) -> what runs the whole call, where only the framework can order work on such arrays, or None
    program: Callable[[str, Any], Callable[..., Any] | None] | None = None

    def refuse_immutable(self, function: str) -> None:
        if self.immutable:
            raise BufferError(f"{function}: out is a JAX array, which is immutable; take the returned array instead")


_frameworks: dict[type, _Framework] = {}


def _enter(function: str, name: str, array: Any) -> _Framework:
    kind = type(array)
    framework = _frameworks.get(kind)
    if framework is None:
        framework = _frameworks[kind] = _framework_of(kind)
    framework.check(function, name, array)
    return framework


def _enter_outputs(function: str, out: Any) -> None:
    if isinstance(out, (tuple, list)):  # what else it may be is refused in C++
        for each in out:
            _enter(function, "out", each).refuse_immutable(function)


def _framework_of(kind: type) -> _Framework:
    for base in kind.__mro__:
        root = base.__module__.partition(".")[0]
        if root == "numpy" and base.__name__ == "ndarray":
            return _numpy()
        if root == "torch" and base.__name__ == "Tensor":
            return _torch(kind)
        if root == "cupy" and base.__name__ == "ndarray":
            return _cupy()
        if root in ("jax", "jaxlib"):
            return _jax()
    return _Framework(_empty_of_namespace, _empty_of_namespace)


def _empty_of_namespace(like: Any, shape: tuple[int, ...]) -> Any:
    """The array API standard's way, for frameworks that are not known here."""
    if not hasattr(like, "__array_namespace__"):
        raise TypeError(
            f"no way to make an output for an array of type {type(like).__qualname__}, which has no "
            "__array_namespace__: pass out"
        )
    return like.__array_namespace__().empty(shape, dtype=like.dtype, device=like.device)


@functools.cache
def _numpy() -> _Framework:
    import numpy as np

    float32, float64, float16 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)

    def check(function: str, name: str, array: Any) -> None:
        dtype = array.dtype
        if (
            dtype is not float32
            and dtype is not float64
            and dtype not in (float32, float64, float16)
            and dtype.name != "bfloat16"
        ):
            raise TypeError(
                f"{function}: {name} has dtype {dtype!r}, expected native float32, float64, float16 or bfloat16"
            )
        if isinstance(array, np.ma.MaskedArray):
            raise TypeError(f"{function}: {name} is a masked array, whose mask would be ignored")

    return _Framework(
        like=lambda x, shape: np.empty_like(x, subok=False, shape=shape),
        compact=lambda x, shape: np.empty(shape, x.dtype),
        check=check,
    )


@functools.cache
def _torch(kind: type) -> _Framework:
    import torch

    plain = kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__  # type: ignore[attr-defined]

    def check(function: str, name: str, tensor: torch.Tensor) -> None:
        if not plain or tensor.is_meta:
            raise TypeError(f"{function}: {name} is a {kind.__qualname__} on {tensor.device}, without data to read")
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise TypeError(f"{function}: {name} is a sparse or quantised tensor, expected a dense one")
        if tensor.requires_grad:
            raise BufferError(
                f"{function}: {name} requires grad, which would be lost here: use leancore.torch.lean_conv, or pass "
                f"{name}.detach()"
            )
        if tensor.is_neg():
            raise BufferError(f"{function}: {name} is a lazily negated view: pass {name}.resolve_neg()")

    def like(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if x.is_contiguous():
            # The quicker call of the two, where a tiny layer's time is mostly that of making y.
            return torch.empty_like(x) if x.shape == shape else torch.empty(shape, dtype=x.dtype, device=x.device)
        strides = x.stride()
        order = sorted(range(len(shape)), key=lambda axis: -strides[axis])
        return torch.empty_permuted(shape, order, dtype=x.dtype, device=x.device)

    def compact(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.empty(shape, dtype=x.dtype, device=x.device)

    def stream(x: torch.Tensor) -> int | None:
        return torch.cuda.current_stream(x.device).cuda_stream if x.is_cuda else None

    return _Framework(like, compact, check, stream=stream)


@functools.cache
def _cupy() -> _Framework:
    import cupy

    def like(x: Any, shape: tuple[int, ...]) -> Any:
        with x.device:
            return cupy.empty_like(x, shape=shape)

    def compact(x: Any, shape: tuple[int, ...]) -> Any:
        with x.device:
            return cupy.empty(shape, x.dtype)

    def stream(x: Any) -> int:
        return int(cupy.cuda.get_current_stream(x.device.id).ptr)

    return _Framework(like, compact, stream=stream)


@functools.cache
def _jax() -> _Framework:
    import jax
    import numpy as np

    def empty(x: Any, shape: tuple[int, ...]) -> Any:
        return np.empty(shape, np.dtype(x.dtype))

    def finish(x: Any, result: Any) -> Any:
        # No one else holds the NumPy buffer, so that it is safe for JAX to keep it where it is.
        if result.dtype.name == "bfloat16":  # NumPy does not export it
            return jax.device_put(result, x.device)
        return jax.dlpack.from_dlpack(result, device=x.device)

    def on_cpu(array: Any) -> bool:
        # A tracer is refused in C++.
        return isinstance(array, jax.core.Tracer) or all(device.platform == "cpu" for device in array.devices())

    def on_one_cuda_device(array: Any) -> bool:
        platforms = [device.platform for device in array.devices()]
        return platforms == ["gpu"] and array.__dlpack_device__()[0] == _CUDA

    def check(function: str, name: str, array: Any) -> None:
        if not (on_cpu(array) or on_one_cuda_device(array)):
            raise NotImplementedError(
                f"{function}: {name} is a JAX array on {', '.join(sorted(map(str, array.devices())))}, expected the "
                "CPU or one CUDA device"
            )

    def program(function: str, x: Any) -> Callable[..., Any] | None:
        """XLA alone can order work after and before its own, and write to memory of its."""
        if on_cpu(x):
            return None
        if not any(name == "cuda" and available for name, _, available in _core.implementations()):
            raise RuntimeError(
                f"{function}: JAX arrays on {x.device}, which this leancore cannot use ({_core.cuda_status()})"
            )
        from leancore.jax import _run

        return functools.partial(_run, function)

    return _Framework(empty, empty, check=check, finish=finish, immutable=True, program=program)
