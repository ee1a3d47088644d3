"""The lean convolution for JAX: in jit, grad and vmap, on CPUs and on CUDA devices.

Importing this module imports jax. Compiled programs call the kernels directly, on XLA's own buffers and, on a CUDA
device, its stream, through its foreign function interface; where a jaxlib does not accept these functions, through a
callback into Python, which copies to the host and computes there.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from leancore import _core

_Static = tuple[int, ...]
_DTYPES = ("float32", "float64", "float16", "bfloat16")


def lean_conv(
    x: jax.Array,
    alpha: jax.Array,
    c: jax.Array,
    bias: jax.Array | None = None,
    stride: int | Sequence[int] = 1,
    dilation: int | Sequence[int] = 1,
) -> jax.Array:
    """Full 1x1 convolution plus depthwise cross stencil, added, in one pass.

    With m = min(c_in, c_out) and d spatial dimensions (1 to 4):

    Args:
        x: (N, c_in, *spatial), float32, float64, float16 or bfloat16.
        alpha: (c_out, c_in), the 1x1 convolution.
        c: (m, 2 d), the stencil. Its columns are the -1 taps from the outermost axis in, then the +1 taps from the
            innermost out (2-D: up, left, right, down). The centre belongs to alpha.
        bias: (c_out,) or None.
        stride: of the output, one number or one for each spatial axis; a Python value, not a traced one.
        dilation: distance of the taps, likewise.

    Returns:
        y: (N, c_out, *spatial), of the spatial size of a 3-wide convolution with padding = dilation. 16-bit types are
        summed in float32 and rounded once.

    Reverse mode works to any order; forward mode (jvp, jacfwd) does not, as of every `jax.custom_vjp`. Under vmap, a
    batch of x alone, or of dy alone, becomes part of N and costs one call; where weights are batched, or gradients of
    weights taken for each example, the kernel runs once for each.

    Raises:
        TypeError: the dtypes differ, or are none of the four.
        ValueError: shapes, stride or dilation that do not fit.
        RuntimeError: from XLA, when it runs: on a CUDA device in a build without CUDA.
    """
    arrays = {"x": x, "alpha": alpha, "c": c, **({} if bias is None else {"bias": bias})}
    converted = {name: jnp.asarray(array) for name, array in arrays.items()}
    geometry = _check(converted, stride, dilation)
    y: jax.Array = _forward(*map(converted.get, ("x", "alpha", "c", "bias")), *geometry)
    return y


# Three functions, closed under differentiation: the operator is linear in x and in (alpha, c), and each derivative of
# forward, backward-data and backward-weight is again one of them. Gradients that nothing uses are calls that nothing
# uses, which the compiler removes.


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _forward(x: Any, alpha: Any, c: Any, bias: Any, stride: _Static, dilation: _Static) -> Any:
    extents = ((n - 1) // s + 1 if n else 0 for n, s in zip(x.shape[2:], stride, strict=True))
    weights = (alpha, c) if bias is None else (alpha, c, bias)
    [y] = _call("forward", [(x.shape[0], alpha.shape[0], *extents)], stride, dilation, x, *weights)
    return y


def _forward_fwd(x: Any, alpha: Any, c: Any, bias: Any, stride: _Static, dilation: _Static) -> Any:
    return _forward(x, alpha, c, bias, stride, dilation), (x, alpha, c, bias)


def _forward_bwd(stride: _Static, dilation: _Static, saved: Any, dy: Any) -> Any:
    x, alpha, c, bias = saved
    dx = _data(dy, alpha, c, x.shape, stride, dilation)
    dbias = None if bias is None else dy.sum((0, *range(2, dy.ndim)))
    return dx, *_weight(x, dy, stride, dilation), dbias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _data(dy: Any, alpha: Any, c: Any, x_shape: _Static, stride: _Static, dilation: _Static) -> Any:
    [dx] = _call("backward_data", [(dy.shape[0], *x_shape[1:])], stride, dilation, dy, alpha, c)
    return dx


def _data_fwd(dy: Any, alpha: Any, c: Any, x_shape: _Static, stride: _Static, dilation: _Static) -> Any:
    return _data(dy, alpha, c, x_shape, stride, dilation), (dy, alpha, c)


def _data_bwd(x_shape: _Static, stride: _Static, dilation: _Static, saved: Any, g: Any) -> Any:
    dy, alpha, c = saved
    return _forward(g, alpha, c, None, stride, dilation), *_weight(g, dy, stride, dilation)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _weight(x: Any, dy: Any, stride: _Static, dilation: _Static) -> Any:
    c_in, c_out = x.shape[1], dy.shape[1]
    shapes = [(c_out, c_in), (min(c_in, c_out), 2 * (x.ndim - 2))]
    return _call("backward_weight", shapes, stride, dilation, x, dy)


def _weight_fwd(x: Any, dy: Any, stride: _Static, dilation: _Static) -> Any:
    return _weight(x, dy, stride, dilation), (x, dy)


def _weight_bwd(stride: _Static, dilation: _Static, saved: Any, g: Any) -> Any:
    x, dy = saved
    return _data(dy, *g, x.shape, stride, dilation), _forward(x, *g, None, stride, dilation)


_forward.defvjp(_forward_fwd, _forward_bwd)
_data.defvjp(_data_fwd, _data_bwd)
_weight.defvjp(_weight_fwd, _weight_bwd)


# The way out of the compiled program


@functools.cache
def _registered() -> bool:
    """Whether this jaxlib takes the kernels as functions of its interface, on all platforms of ours; asked once."""
    try:
        for platform, handlers in _core.xla_handlers().items():
            if not _initialised(platform):
                continue
            for name, handler in handlers.items():
                jax.ffi.register_ffi_target(f"leancore_{name}", handler, platform=platform)
    except Exception:  # whatever it is, the callback is there
        return False
    return True


def _initialised(platform: str) -> bool:
    """Whether JAX has such devices. Before they are initialised it takes everything, and fails when they are."""
    try:
        return bool(jax.local_devices(backend=platform.lower()))
    except RuntimeError:
        return False


def _call(name: str, shapes: Sequence[_Static], stride: _Static, dilation: _Static, *arrays: Any) -> tuple[Any, ...]:
    """The results of an operation, of the given shapes and the arrays' dtype."""
    results = tuple(jax.ShapeDtypeStruct(shape, arrays[0].dtype) for shape in shapes)

    @jax.custom_batching.custom_vmap
    def run(*given: Any) -> tuple[Any, ...]:
        if _registered():
            call = jax.ffi.ffi_call(f"leancore_{name}", results)
            axes = {"stride": np.array(stride, np.int64), "dilation": np.array(dilation, np.int64)}
            return tuple(call(*given, **axes))
        back = functools.partial(_called_back, name, stride, dilation, results)
        return tuple(jax.pure_callback(back, results, *given))

    @run.def_vmap
    def rule(size: int, batched: Sequence[bool], *given: Any) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
        if name != "backward_weight" and not any(batched[1:]):
            # A batch of x or dy alone is a larger N.
            folded = given[0].reshape(-1, *given[0].shape[2:])
            [y] = _call(name, [(size * shapes[0][0], *shapes[0][1:])], stride, dilation, folded, *given[1:])
            return (y.reshape(size, *shapes[0]),), (True,)

        def one(each: tuple[Any, ...]) -> tuple[Any, ...]:
            mine = iter(each)
            return run(*(next(mine) if b else g for b, g in zip(batched, given, strict=True)))  # type: ignore[no-any-return]

        return jax.lax.map(one, tuple(g for b, g in zip(batched, given, strict=True) if b)), (True,) * len(shapes)

    return run(*arrays)  # type: ignore[no-any-return]


def _called_back(
    name: str, stride: _Static, dilation: _Static, results: Sequence[Any], *arrays: Any
) -> tuple[Any, ...]:
    given = [np.asarray(array) for array in arrays]
    outs = tuple(np.empty(r.shape, r.dtype) for r in results)
    function = getattr(_core, name)
    function(*given, out=outs if name == "backward_weight" else outs[0], stride=stride, dilation=dilation)
    return outs


# The functions of `leancore` on JAX's arrays on a CUDA device: compiled programs, which XLA runs on its stream and for
# whose results it has memory.


def _run(
    function: str,
    arrays: dict[str, Any],
    out: Any,
    stride: int | Sequence[int],
    dilation: int | Sequence[int],
    implementation: str | None,
    x_shape: Sequence[int] | None = None,
) -> Any:
    """What the function of `leancore` returns; `arrays` are its positional arguments and the bias."""
    if implementation not in (None, "cuda"):
        raise NotImplementedError(f"{function}: implementation {implementation!r}, XLA's programs have 'cuda' alone")
    first, x = next(iter(arrays.items()))
    for name, array in {**arrays, "out": out}.items():
        if name == "c" and array is None:
            raise NotImplementedError(f"{function}: c is None, which XLA's programs do not take: pass zeros")
        if array is not None and not (isinstance(array, jax.Array) and array.devices() == x.devices()):
            raise ValueError(f"{function}: {name} is not a JAX array on {x.device}, as {first} is")
    shapes = [_first_shape(function, arrays, stride, dilation, x_shape)]
    if function in ("backward", "backward_weight"):
        c_out, c_in = arrays["dy"].shape[1], x.shape[1]
        shapes = [*shapes[: function == "backward"], (c_out, c_in), (min(c_in, c_out), 2 * (x.ndim - 2))]
    geometry = (_per_axis(name, value, x.ndim - 2) for name, value in (("stride", stride), ("dilation", dilation)))
    here = jax.device_put(x, x.device)  # whatever jax.default_device says
    given = [array for array in arrays.values() if array is not None]
    results = _program(function, tuple(shapes), *geometry, here, *given[1:])
    return results if len(results) > 1 else results[0]


class _Stopped(Exception):
    pass


def _first_shape(function: str, arrays: dict[str, Any], *options: Any) -> _Static:
    """Of the first result. Asked of the same call on the CPU, whose errors are also those of this one, with arrays of
    one element each in memory; it is stopped where it wants memory for the result."""

    def stop(shape: _Static) -> None:
        raise _Stopped(shape)

    stride, dilation, x_shape = options
    given = [a if a is None else np.broadcast_to(np.zeros((), a.dtype), a.shape) for a in arrays.values()]
    if function == "backward_data":
        given.append(x_shape)
    memory = [stop] * (2 if function == "backward" else 1)
    try:
        getattr(_core, function)(*given, None, *memory, stride, dilation, None, None)
    except _Stopped as stopped:
        return tuple(stopped.args[0])
    raise AssertionError("no result was asked for")


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _program(function: str, shapes: Sequence[_Static], stride: _Static, dilation: _Static, *arrays: Any) -> Any:
    if function != "backward":
        return _call(function, shapes, stride, dilation, *arrays)
    x, dy, *weights = arrays
    dx = _call("backward_data", shapes[:1], stride, dilation, dy, *weights)
    return *dx, *_call("backward_weight", shapes[1:], stride, dilation, x, dy)


# What comes in


def _check(
    arrays: dict[str, Any], stride: int | Sequence[int], dilation: int | Sequence[int]
) -> tuple[_Static, _Static]:
    x = arrays["x"]
    if x.dtype.name not in _DTYPES:
        raise TypeError(f"lean_conv: x is {x.dtype}, expected one of {', '.join(_DTYPES)}")
    for name, array in arrays.items():
        if array.dtype != x.dtype:
            raise TypeError(f"lean_conv: {name} is {array.dtype}, expected {x.dtype} like x")
    dims = x.ndim - 2
    if not 1 <= dims <= 4:
        raise ValueError(f"lean_conv: x has shape {x.shape}, expected (N, c_in, 1 to 4 spatial axes)")
    alpha = arrays["alpha"]
    if alpha.ndim != 2 or alpha.shape[1] != x.shape[1]:
        raise ValueError(
            f"lean_conv: alpha has shape {alpha.shape}, expected (c_out, c_in) = (·, {x.shape[1]}) "
            f"from x of shape {x.shape}"
        )
    expected = {"c": (min(alpha.shape), 2 * dims), "bias": (alpha.shape[0],)}
    for name, shape in expected.items():
        if name in arrays and arrays[name].shape != shape:
            raise ValueError(f"lean_conv: {name} has shape {arrays[name].shape}, expected {shape}")
    return _per_axis("stride", stride, dims), _per_axis("dilation", dilation, dims)


def _per_axis(name: str, value: int | Sequence[int], dims: int) -> _Static:
    values = tuple(value) if isinstance(value, Sequence) else (value,) * dims
    if len(values) != dims or any(v < 1 for v in values):
        raise ValueError(f"lean_conv: {name} = {value}, expected a positive number or {dims} of them")
    return values
