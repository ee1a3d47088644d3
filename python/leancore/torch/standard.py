"""Lean layers as plain convolutions, for exporters and quantisers which know no others."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from leancore.torch.modules import LeanConv1d, LeanConv2d, LeanConv3d, LeanConv4d
from leancore.torch.replace import Slot, carry_over, root_of, slots_of
from leancore.torch.stencil import entry, tap_indices

_Module = TypeVar("_Module", bound=nn.Module)
_Lean = LeanConv1d | LeanConv2d | LeanConv3d
_CONVS: dict[type[nn.Module], Any] = {LeanConv1d: nn.Conv1d, LeanConv2d: nn.Conv2d, LeanConv3d: nn.Conv3d}


class StandardLeanConv(nn.Module):
    """What a lean layer computes, of two or three `nn.Conv` modules; made by `to_standard`.

    With m = min(c_in, c_out): `pointwise`, 1x1 from c_in to m channels, plus `cross`, a depthwise 3-wide convolution of
    the first m channels whose kernel is zero but for the taps; and, where c_out > m, `rest`, 1x1 to the other output
    channels, which have no stencil. No output is computed to be dropped and none is padded, so a graph has
    convolutions, one addition, and at most one slice or one concatenation. (One dense 3-wide convolution would be a
    single node, with 9 times the weights and the multiplications.)
    """

    def __init__(self, lean: _Lean) -> None:
        super().__init__()
        conv, dims, m = _CONVS[type(lean)], lean.dims, min(lean.c_in, lean.c_out)
        self.m, self.c_in = m, lean.c_in
        kind = {"device": lean.alpha.device, "dtype": lean.alpha.dtype}

        def pointwise(rows: slice) -> nn.Conv2d:
            alpha = lean.alpha[rows]
            made = nn.utils.skip_init(
                conv, lean.c_in, len(alpha), 1, stride=lean.stride, bias=lean.bias is not None, **kind
            )
            made.weight.copy_(alpha.reshape(made.weight.shape)).requires_grad_(lean.alpha.requires_grad)
            if lean.bias is not None:
                made.bias.copy_(lean.bias[rows]).requires_grad_(lean.bias.requires_grad)
            return cast(nn.Conv2d, made)

        with torch.no_grad():
            self.pointwise = pointwise(slice(m))
            self.rest = pointwise(slice(m, None)) if lean.c_out > m else None
            self.cross = nn.utils.skip_init(
                conv,
                m,
                m,
                3,
                stride=lean.stride,
                padding=lean.dilation,
                dilation=lean.dilation,
                groups=m,
                bias=False,
                **kind,
            )
            self.cross.weight.zero_()
            for k, index in enumerate(tap_indices(dims)):
                entry(self.cross.weight, index)[:, 0] = lean.c[:, k]
            self.cross.weight.requires_grad_(lean.c.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        """input, called as torch's convolutions call it: x (N, c_in, *spatial) -> y (N, c_out, *spatial)."""
        x = input
        y: Tensor = self.pointwise(x) + self.cross(x if self.m == self.c_in else x[:, : self.m])
        return y if self.rest is None else torch.cat((y, self.rest(x)), 1)


def to_standard(model: _Module) -> _Module | StandardLeanConv:
    """Replaces every LeanConv1d, 2d and 3d of a model, in place, by plain `nn.Conv` modules with the same output.

    For what knows no custom operator: ONNX, TensorRT, Core ML, quantisers. The result computes what the model computed,
    up to the rounding of a sum taken in another order (of infinities, NaN where they meet zero taps), at the speed of
    stock convolutions. Parameters keep dtype, device and requires_grad; training mode, forward and backward hooks are
    carried over; a layer registered twice stays one layer. It is meant for deployment: its zero taps are parameters
    like the others, so training would fill them, and its state_dict is not that of the lean model. Copy the model first
    (`copy.deepcopy`) to keep the lean one.

    Args:
        model: any module; it may itself be a lean layer.

    Returns:
        The same model, or what takes its place if it is itself a lean layer.

    Raises:
        TypeError: model is not an nn.Module.
        NotImplementedError: it contains a LeanConv4d, of which there is no standard form, a subclass of a lean
            layer, whose forward may be its own, or a lean layer whose weights are computed (pruned, parametrised).
            Nothing is changed then.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"to_standard: model is {type(model).__name__}, expected an nn.Module")
    root = root_of(model)
    lean = [slot for slot in slots_of(root) if isinstance(slot.module, (*_CONVS, LeanConv4d))]
    for slot in lean:
        computed = {"alpha", "c", "bias"} - slot.module._parameters.keys()
        if computed:
            raise NotImplementedError(
                f"to_standard: of {slot.name}, {', '.join(sorted(computed))} is computed (parametrised or pruned); "
                "make it a plain parameter first, for example by torch.nn.utils.parametrize.remove_parametrizations"
            )
        if type(slot.module) not in _CONVS:
            raise NotImplementedError(
                f"to_standard: {slot.name} is {type(slot.module).__name__}, without standard form"
            )
    for slot in lean:
        _replace(slot)
    return root[0]  # type: ignore[return-value]


def _replace(slot: Slot) -> None:
    lean = slot.module
    standard = StandardLeanConv(lean)  # type: ignore[arg-type]
    carry_over(lean, standard)
    slot.install(standard)
