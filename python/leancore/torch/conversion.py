"""Making a network lean: every convolution that a lean one can stand for is replaced, in place."""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from leancore.torch.calibrate import LeanConv, calibrate, check_batched
from leancore.torch.checks import DTYPES
from leancore.torch.modules import LeanConv1d, LeanConv2d, LeanConv3d
from leancore.torch.replace import Slot, carry_over, root_of, slots_of
from leancore.torch.stencil import project

Init = Literal["random", "project", "calibrate"]
_Module = TypeVar("_Module", bound=nn.Module)
_Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
_LEAN: dict[type[_Conv], type[LeanConv]] = {nn.Conv1d: LeanConv1d, nn.Conv2d: LeanConv2d, nn.Conv3d: LeanConv3d}


@dataclass(frozen=True)
class Replaced:
    """A convolution that was replaced. FLOPs are those of all its calls together, None without example inputs."""

    names: tuple[str, ...]  # every name that it has in the model
    before: str
    after: str
    init: Init  # "project" for a layer that the calibration batches did not reach
    parameters_before: int
    parameters_after: int
    flops_before: int | None = None
    flops_after: int | None = None


@dataclass(frozen=True)
class Left:
    """A convolution that was left as it is."""

    names: tuple[str, ...]
    layer: str
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """What `convert` did; str() of it is a table. The totals are those of the whole model.

    A multiplication and an addition are two FLOPs, as torch.utils.flop_counter counts.
    """

    replaced: tuple[Replaced, ...]
    left: tuple[Left, ...]
    parameters_before: int
    parameters_after: int
    flops_before: int | None = None
    flops_after: int | None = None

    def __str__(self) -> str:
        found = len(self.replaced) + len(self.left)
        lines = [f"{len(self.replaced)} of {found} convolutions replaced"]
        if self.replaced:
            rows = [["name", "was", "is", "init", "parameters", "now", "FLOPs", "now"]]
            for r in self.replaced:
                counts = (r.parameters_before, r.parameters_after, r.flops_before, r.flops_after)
                rows.append([r.names[0], r.before, r.after, r.init, *map(_number, counts)])
            counts = (self.parameters_before, self.parameters_after, self.flops_before, self.flops_after)
            rows.append(["whole model", "", "", "", *map(_number, counts)])
            lines += ["", *_aligned(rows, left=4)]
        reasons: dict[str, list[str]] = {}
        for each in self.left:
            reasons.setdefault(each.reason, []).append(each.names[0])
        if reasons:
            lines += ["", "left:"]
        for reason, names in reasons.items():
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"  {reason}: {', '.join(names[:3])}{more}")
        return "\n".join(lines)


def convert(
    model: _Module,
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
    init: Init = "project",
    *,
    batches: Iterable[Any] = (),
    example_inputs: Any = None,
) -> tuple[_Module | LeanConv, ConversionReport]:
    """Replaces the eligible convolutions of a model by lean ones, in place.

    Eligible is an `nn.Conv1d`, `2d` or `3d` with a kernel of 3 in every dimension, groups = 1, padding = dilation (or
    "same") and padding_mode "zeros", of any stride and channels. So is one of a subclass that keeps the forward of its
    base and has no parameters, buffers or modules of its own: then it computes what its base computes. Not eligible,
    with the reason in the report: transposed ones; those whose weight is computed (weight_norm, spectral_norm, pruning,
    any parametrisation), not there yet (lazy modules), of another tensor type, or shared with another module; those
    with a forward of their own.

    A lean layer has `alpha` and `c` instead of `weight`, and takes batched input only: exclude by `filter_fn` layers
    whose weight is read from elsewhere. A module registered at several places stays one module. Dtype, device,
    requires_grad and training mode are carried over, and so are the hooks of forward and backward, with the handles
    that remove them; hooks on parameters and of state_dict are not, and gradients are not. An optimiser must be made
    anew, as its parameters are gone.

    Args:
        model: any module; it may itself be a convolution.
        filter_fn: called with the first name and the module of each eligible convolution; those for which it returns
            False are left. The paper keeps a network's first convolution dense.
        init: what the lean layers start from.
            "random": as a new layer, see `LeanConv2d.reset_parameters`; bias zero.
            "project": the lean convolution nearest to the dense one in the Frobenius norm: alpha is the centre tap of
            the kernel and c the cross taps of its diagonal; corners, and the neighbours in other channels, are dropped.
            The bias is kept.
            "calibrate": least squares on activations: each layer, in the order of the calls, is fitted to what the
            dense network has at its output from what the network so far made lean has at its input. In closed form; no
            gradients, no steps. A layer that the batches do not reach is projected. On them, batch normalisation runs
            with the dense network's statistics: estimate them anew afterwards, see torch.optim.swa_utils.update_bn.
        batches: for "calibrate", inputs of the model, each a tensor, a tuple of positional or a dict of keyword
            arguments. All are kept; activations are not, beyond one batch of one layer.
        example_inputs: one such input, to count FLOPs. The model runs on it once, before the conversion.

    The model runs in evaluation mode and without gradients, and is as before afterwards.

    Returns:
        (model, report): the same model, unless it is itself replaced. If there is nothing to convert the model is
        returned as it was, and `report.replaced` is empty.

    Raises:
        TypeError: model is not an nn.Module.
        ValueError: init is none of the three, or "calibrate" without batches, or batches without "calibrate".
            Or a convolution to be replaced is called without a batch axis, or on activations that are not finite.
        What the model raises on the inputs is passed on. The model is unchanged after any error.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model is {type(model).__name__}, expected an nn.Module")
    if init not in ("random", "project", "calibrate"):
        raise ValueError(f'convert: init is {init!r}, expected "random", "project" or "calibrate"')
    batches = list(batches)
    if (init == "calibrate") != bool(batches):
        raise ValueError(
            f'convert: init is "{init}" and there are {len(batches)} batches; "calibrate" alone needs some'
        )

    root = root_of(model)
    dense, left = _eligible(root, filter_fn)
    flops = None if example_inputs is None else _count_flops(root, dense, example_inputs)
    parameters = _parameters(model)
    layers = [(slot, _lean(slot.module, init)) for slot in dense]
    for slot, lean in layers:
        carry_over(slot.module, lean)
    fitted = _calibrate(root, batches, layers) if batches else set()
    for slot, lean in layers:
        slot.install(lean)

    def replaced(slot: Slot, lean: LeanConv) -> Replaced:
        used: Init = "project" if init == "calibrate" and lean not in fitted else init
        sizes = _parameters(slot.module), _parameters(lean)
        counted = (None, None) if flops is None else flops.of(slot.module, lean)
        return Replaced(slot.names, _text(slot.module), _text(lean), used, *sizes, *counted)

    rows = tuple(replaced(slot, lean) for slot, lean in layers)
    totals = (None, None) if flops is None else (flops.total, flops.total - sum(map(_saved_flops, rows)))
    return root[0], ConversionReport(rows, tuple(left), parameters, _parameters(root), *totals)  # type: ignore[return-value]


# Which convolutions


def _eligible(root: nn.Sequential, filter_fn: Callable[[str, nn.Module], bool] | None) -> tuple[list[Slot], list[Left]]:
    owners: dict[nn.Parameter, int] = {}
    for module in root.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[parameter] = owners.get(parameter, 0) + 1
    dense, left = [], []
    for slot in slots_of(root):
        module = slot.module
        if isinstance(module, torch.jit.ScriptModule) and module.original_name in {base.__name__ for base in _LEAN}:
            left.append(Left(slot.names, module.original_name, "scripted or traced: convert before that"))
        if not isinstance(module, (*_LEAN, _ConvTransposeNd)):
            continue
        reason = _obstacle(module)
        if reason is None and any(owners[parameter] > 1 for parameter in module.parameters()):
            reason = "a parameter is shared with another module"
        if reason is None and filter_fn is not None and not filter_fn(slot.name, module):
            reason = "filter_fn"
        if reason is None:
            dense.append(slot)
        else:
            left.append(Left(slot.names, _text(module), reason))
    return dense, left


def _base(module: nn.Module) -> type[_Conv]:
    return next(base for base in _LEAN if isinstance(module, base))


def _obstacle(module: nn.Module) -> str | None:
    """Why no lean layer can stand for this convolution, or None."""
    if isinstance(module, _ConvTransposeNd):
        return "transposed"
    if isinstance(module, LazyModuleMixin):
        return "lazy: its sizes are not known before it has run"
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight, bias = module._parameters.get("weight"), module.bias
    if weight is None:
        return "its weight is computed (parametrised or pruned)"
    if type(weight) is not nn.Parameter or weight.dtype not in DTYPES:
        return f"its weight is a {type(weight).__name__} of {weight.dtype}"
    if bias is not None and (bias.dtype, bias.device) != (weight.dtype, weight.device):
        return "its weight and bias differ in dtype or device"
    base = _base(module)
    kind = type(module)
    overridden = any(
        getattr(kind, name) is not getattr(base, name) for name in ("forward", "_conv_forward", "__call__")
    )
    if overridden or "forward" in module.__dict__:
        return f"{kind.__name__} has a forward of its own"
    own = {**module._parameters, **module._buffers, **module._modules}.keys() - {"weight", "bias"}
    if own:
        return f"{kind.__name__} has {', '.join(sorted(own))} besides weight and bias"
    # The kernel and the channels are those of the weight, which forward looks at, not those in attributes.
    kernel, dims = tuple(weight.shape[2:]), _LEAN[base].dims
    if kernel != (3,) * dims:
        return f"kernel {_by(kernel)}"
    if module.groups != 1:
        # Not the number of groups: depthwise layers of all widths have one reason.
        return "depthwise" if module.groups == module.in_channels else "groups"
    padding, dilation = _axes(module.padding, dims), _axes(module.dilation, dims)
    if padding not in ("same", dilation):
        return f"padding {padding} is not the dilation {dilation}"
    if module.padding_mode != "zeros":
        return f"padding_mode {module.padding_mode}"
    return None


def _axes(value: Any, dims: int) -> Any:
    """What torch's convolutions make of an option: a number for each axis; a name stays one."""
    if isinstance(value, (str, tuple)):
        return value
    return tuple(value) if isinstance(value, list) else (value,) * dims


# The lean layer


def _lean(dense: nn.Module, init: Init) -> LeanConv:
    assert isinstance(dense, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    weight = dense.weight
    lean: LeanConv = nn.utils.skip_init(
        _LEAN[_base(dense)],
        weight.shape[1],
        weight.shape[0],
        stride=dense.stride,
        dilation=dense.dilation,
        bias=dense.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    if init == "random":
        lean.reset_parameters()
    else:
        alpha, c = project(weight.detach())
        with torch.no_grad():
            lean.alpha.copy_(alpha)
            lean.c.copy_(c)
            if lean.bias is not None:
                lean.bias.copy_(dense.bias)  # type: ignore[arg-type]
    lean.alpha.requires_grad_(weight.requires_grad)
    lean.c.requires_grad_(weight.requires_grad)
    if lean.bias is not None:
        lean.bias.requires_grad_(dense.bias.requires_grad)  # type: ignore[union-attr]
    return lean


# Running the model


def _calibrate(root: nn.Sequential, batches: list[Any], layers: list[tuple[Slot, LeanConv]]) -> set[LeanConv]:
    try:
        with _evaluating(root):
            return calibrate(lambda batch: _call(root[0], batch), batches, layers)
    except BaseException:
        for slot, _ in layers:
            slot.install(slot.module)
        raise


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@dataclass(frozen=True)
class _Flops:
    total: int
    positions: dict[nn.Module, int]  # of the outputs of each layer, over batch, space and calls

    def of(self, dense: nn.Module, lean: LeanConv) -> tuple[int, int]:
        positions = 2 * self.positions.get(dense, 0)
        weight = dense.weight
        assert isinstance(weight, Tensor)
        return positions * weight.numel(), positions * (lean.alpha.numel() + lean.c.numel())


def _count_flops(root: nn.Sequential, dense: list[Slot], inputs: Any) -> _Flops:
    from torch.utils.flop_counter import FlopCounterMode

    positions: dict[nn.Module, int] = {}
    names = {slot.module: slot.name for slot in dense}

    def count(module: nn.Module, args: Any, y: Tensor) -> None:
        check_batched(names[module], module, y)
        positions[module] = positions.get(module, 0) + y.shape[0] * math.prod(y.shape[2:])

    handles = [slot.module.register_forward_hook(count, prepend=True) for slot in dense]
    try:
        with _evaluating(root), FlopCounterMode(display=False) as counter:
            _call(root[0], inputs)
    finally:
        for handle in handles:
            handle.remove()
    return _Flops(counter.get_total_flops(), positions)


def _saved_flops(replaced: Replaced) -> int:
    return (replaced.flops_before or 0) - (replaced.flops_after or 0)


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if not is_lazy(p))


# Printing


def _by(extents: Iterable[int]) -> str:
    return "x".join(map(str, extents))


def _option(name: str, value: Any) -> str:
    """What differs from the default 1, as one number where one does."""
    values = _axes(value, 1)
    if max(values) == 1:
        return ""
    return f", {name} {values[0] if len(set(values)) == 1 else _by(values)}"


def _text(module: nn.Module) -> str:
    """Short: the channels, and what is unusual."""
    if isinstance(module, LeanConv1d | LeanConv2d | LeanConv3d):
        channels, kernel = (module.c_in, module.c_out), ""
    else:
        assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | _ConvTransposeNd)
        channels, kernel = (module.in_channels, module.out_channels), f", {_by(_axes(module.kernel_size, 1))}"
    options = _option("stride", module.stride) + _option("dilation", module.dilation)
    return f"{type(module).__name__}({channels[0]}, {channels[1]}{kernel}{options})"


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _aligned(rows: list[list[str]], left: int) -> list[str]:
    """Columns two spaces apart, the first few flush left and the others flush right; empty columns are dropped."""
    columns = [(i, column) for i, column in enumerate(zip(*rows, strict=True)) if any(column[1:])]
    padded = []
    for i, column in columns:
        width = max(map(len, column))
        padded.append([cell.ljust(width) if i < left else cell.rjust(width) for cell in column])
    return ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
