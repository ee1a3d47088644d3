"""The kernels of leancore on torch tensors: no graph, no dispatcher, outputs allocated by torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import leancore
from leancore import _core, arrays
from leancore.torch import shapes

_dispatch_stack_length = torch._C._len_torch_dispatch_stack
_functorch_active = torch._C._are_functorch_transforms_active
_jit_tracing = torch._C._get_tracing_state
_key_is_included = torch._C._dispatch_tls_is_dispatch_key_included
_PRE_DISPATCH = torch._C.DispatchKey.PreDispatch
_is_functorch_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor
_STRIDED = torch.strided
_stream = arrays._torch(Tensor).stream
_torch_dispatch = Tensor.__torch_dispatch__
_matmul = torch.backends.cuda.matmul
_new_precision_api = hasattr(_matmul, "fp32_precision")  # torch 2.9


def implementation_for(t: Tensor) -> str | None:
    """What torch's own setting for products of float32 matrices on CUDA asks for, at the time of the call.

    Not that of its convolutions, whose default is TF32: without being asked, nothing here is less precise than float32.
    """
    if not t.is_cuda or t.dtype is not torch.float32:
        return None
    tf32 = _matmul.fp32_precision == "tf32" if _new_precision_api else _matmul.allow_tf32
    return "cuda_tf32" if tf32 else None


def readable(*tensors: Tensor | None) -> bool:
    """Whether a kernel may read the tensors right here: no mode, transform or subclass of torch's waits for the call.

    Where it is False, the registered operators do the right thing.
    """
    if (
        torch.compiler.is_compiling()  # first: this is as far as the compiler can read
        or _dispatch_stack_length()
        or _functorch_active()
        or _jit_tracing()
        or _key_is_included(_PRE_DISPATCH)
    ):
        return False
    for t in tensors:
        if t is not None and (
            not (t.is_cpu or t.is_cuda)
            or type(t).__torch_dispatch__ is not _torch_dispatch
            or _is_functorch_wrapped(t)  # left over from a transform that has ended
            or _is_legacy_batched(t)
        ):
            return False
    return True


def forward(
    x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    y = shapes.empty_in_layout_of(x, shapes.shape_of_y(x, alpha, c, bias, stride, dilation))
    # Not leancore.forward, whose look at each argument _plain has taken: of a tiny layer's time that would be a tenth.
    return _core.forward(  # type: ignore[no-any-return]
        _plain("x", x),
        _plain("alpha", alpha),
        _plain("c", c),
        None if bias is None else _plain("bias", bias),
        y,
        None,
        stride,
        dilation,
        implementation_for(x),
        _stream(x),
    )


def backward_data(
    dy: Tensor, alpha: Tensor, c: Tensor, x_shape: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    shapes.check_backward_data(dy, alpha, c, x_shape, stride, dilation)
    return leancore.backward_data(
        _plain("dy", dy),
        _plain("alpha", alpha),
        _plain("c", c),
        stride=stride,
        dilation=dilation,
        x_shape=tuple(x_shape),
        out=shapes.empty_in_layout_of(dy, x_shape),
        implementation=implementation_for(dy),
    )


def backward_weight(x: Tensor, dy: Tensor, stride: Sequence[int], dilation: Sequence[int]) -> tuple[Tensor, Tensor]:
    alpha_shape, c_shape = shapes.shapes_of_weights(x, dy, stride, dilation)
    out = tuple(torch.empty(shape, dtype=x.dtype, device=x.device) for shape in (alpha_shape, c_shape))
    return leancore.backward_weight(
        _plain("x", x),
        _plain("dy", dy),
        stride=stride,
        dilation=dilation,
        out=(out[0], out[1]),
        implementation=implementation_for(x),
    )


def backward(
    x: Tensor, dy: Tensor, alpha: Tensor, c: Tensor, stride: Sequence[int], dilation: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dalpha, dc)."""
    shapes.check_backward_data(dy, alpha, c, x.shape, stride, dilation)
    dx = shapes.empty_in_layout_of(dy, x.shape)
    dalpha, dc = (torch.empty(t.shape, dtype=x.dtype, device=x.device) for t in (alpha, c))
    leancore.backward(
        _plain("x", x),
        _plain("dy", dy),
        _plain("alpha", alpha),
        _plain("c", c),
        stride=stride,
        dilation=dilation,
        out=(dx, dalpha, dc),
        implementation=implementation_for(x),
    )
    return dx, dalpha, dc


def shift(x: Tensor, offsets: Sequence[int]) -> Tensor:
    shapes.check_offsets(x, offsets)
    groups = list(zip(*[iter(offsets)] * (x.dim() - 2), strict=True))
    return leancore.shift(_plain("x", x, "shift"), groups, out=shapes.empty_in_layout_of(x, x.shape))


def _plain(name: str, t: Tensor, caller: str = "lean_conv") -> Tensor:
    """The same values in memory that a kernel may read, off the graph."""
    if type(t).__torch_dispatch__ is not _torch_dispatch:
        raise TypeError(
            f"{caller}: {name} is a {type(t).__name__}, which keeps its data elsewhere: expected a plain torch.Tensor"
        )
    if t.layout is not _STRIDED:
        raise TypeError(f"{caller}: {name} is {t.layout}, expected a dense tensor")
    if t.requires_grad or type(t) is not Tensor:  # a frozen parameter too: DLPack's quick way is for Tensor alone
        t = t.detach()
    if t.is_neg():
        t = t.resolve_neg()
    if t._is_zerotensor():  # what forward mode passes for a derivative known to be zero; it has no memory
        t = torch.zeros(t.shape, dtype=t.dtype, device=t.device)
    return t
