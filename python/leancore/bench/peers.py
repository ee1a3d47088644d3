"""The candidates: leancore, and other ways to compute the same or what a network would use in its place.

A :class:`Peer` says what it is and whether it can run a case; :meth:`Peer.prepare` puts the weights and inputs where it
wants them and returns a :class:`Prepared`, whose calls are what is timed: nothing but the operation, from arrays that
are there already to outputs in the same layout. leancore writes into reused arrays (``out=``); libraries that have no
such argument get an allocator that reuses memory.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import leancore
from leancore import _core
from leancore.bench.cases import Case
from leancore.bench.devices import kernels_run_on_cuda
from leancore.bench.networks import build
from leancore.bench.problem import Problem, at_tap, taps

Outputs = dict[str, Any]


class Prepared(Protocol):
    """A candidate with its inputs in place."""

    def call(self, operation: str) -> Callable[[], Any]:
        """What is timed."""

    def outputs(self, operation: str, raw: Any) -> Outputs:
        """What the call returned, by name: y, dx, and dalpha and dc or dw0, dw1, ... in the shapes of the weights."""


class Peer(Protocol):
    """A way to compute a layer."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def computes(self) -> str:
        """Which layer: "lean", or another one of :func:`leancore.bench.networks.build`."""

    @property
    def layout(self) -> str | None:
        """Of its input and output; None: that of the case."""

    @property
    def dtype(self) -> str | None:
        """None: that of the case."""

    def missing(self, case: Case, operation: str, device: str) -> str | None:
        """Why it cannot run this, or None."""

    def prepare(self, problem: Problem, case: Case) -> Prepared:
        """Put everything in place. `case` is that of the problem with this candidate's dtype and layout."""
        ...


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _without_torch(case: Case) -> str | None:
    if not installed("torch"):
        return "torch is not installed"
    return "torch has no 4-D convolution" if case.dims > 3 else None


# leancore itself


@dataclass(frozen=True)
class Lean:
    """leancore, on torch tensors where torch is installed and on NumPy arrays elsewhere."""

    name: str = "leancore"
    description: str = "this library"
    layout: str | None = None
    dtype: str | None = None
    stencil: bool = True
    implementation: str | None = None  # of the CPU; None: the best one

    @property
    def computes(self) -> str:
        return "lean" if self.stencil else "pointwise"

    def missing(self, case: Case, operation: str, device: str) -> str | None:
        if device != "cpu" and self.implementation:
            return "on the CPU only"
        if device == "cuda" and not kernels_run_on_cuda():
            return f"leancore {leancore.cuda_status()}"
        if not self.stencil and operation != "forward":
            return "only forward"
        return None

    def prepare(self, problem: Problem, case: Case) -> Prepared:
        return _PreparedLean(self, problem, case)


class _PreparedLean:
    def __init__(self, peer: Lean, problem: Problem, case: Case) -> None:
        self._stencil = peer.stencil
        self._geometry: dict[str, Any] = {"stride": case.stride, "dilation": case.dilation}
        self._functions: Any = leancore
        if peer.implementation:
            self._functions = _core
            self._geometry["implementation"] = peer.implementation
        self._convert = functools.partial(
            problem.torch if installed("torch") else problem.numpy, dtype=case.dtype, layout=case.layout
        )
        self._problem = problem
        self.x, self.alpha, self.c = (self._convert(a) for a in (problem.x(), problem.alpha(), problem.c()))

    def _like(self, array: Any, shape: Sequence[int]) -> Any:
        """An output: in the layout of the array where it has as many axes, and compact elsewhere."""
        if isinstance(array, np.ndarray):
            compact = len(shape) != array.ndim
            return np.empty(shape, array.dtype) if compact else np.empty_like(array, shape=tuple(shape))
        import torch

        if len(shape) != array.ndim:
            return torch.empty(tuple(shape), dtype=array.dtype, device=array.device)
        order = sorted(range(array.ndim), key=lambda axis: -array.stride()[axis])
        return torch.empty_permuted(tuple(shape), order, dtype=array.dtype, device=array.device)

    def call(self, operation: str) -> Callable[[], Any]:
        x, alpha, c, functions, geometry = self.x, self.alpha, self.c, self._functions, self._geometry
        if operation == "forward":
            y = self._like(x, self._problem.case.y_shape)
            return functools.partial(functions.forward, x, alpha, c if self._stencil else None, out=y, **geometry)
        dy = self._convert(self._problem.dy())
        dx, dalpha, dc = self._like(x, x.shape), self._like(alpha, alpha.shape), self._like(c, c.shape)
        data = functools.partial(functions.backward_data, dy, alpha, c, out=dx, **geometry)
        weight = functools.partial(functions.backward_weight, x, dy, out=(dalpha, dc), **geometry)
        if operation == "backward_data":
            return data
        if operation == "backward_weight":
            return weight
        both = functools.partial(functions.backward, x, dy, alpha, c, out=(dx, dalpha, dc), **geometry)
        if operation == "backward":
            return both
        forward = self.call("forward")
        return lambda: (forward(), *both())

    def outputs(self, operation: str, raw: Any) -> Outputs:
        names = {
            "forward": ("y",),
            "backward_data": ("dx",),
            "backward_weight": ("dalpha", "dc"),
            "backward": ("dx", "dalpha", "dc"),
            "forward_backward": ("y", "dx", "dalpha", "dc"),
        }[operation]
        return dict(zip(names, raw if isinstance(raw, tuple) else (raw,), strict=True))


# Stock operators of torch


@dataclass(frozen=True)
class Torch:
    """A layer of torch's own convolutions, in one of its two layouts."""

    name: str
    description: str
    computes: str
    layout: str | None = "channels-first"
    dtype: str | None = None
    compiled: bool = False

    def missing(self, case: Case, operation: str, device: str) -> str | None:
        return _without_torch(case)

    def prepare(self, problem: Problem, case: Case) -> Prepared:
        return _PreparedTorch(self, problem, case)


class _PreparedTorch:
    def __init__(self, peer: Torch, problem: Problem, case: Case) -> None:
        import torch

        self._convert = functools.partial(problem.torch, dtype=case.dtype, layout=case.layout)
        self._problem = problem
        self._lean = peer.computes == "lean"
        self._x = self._convert(problem.x())
        self._network = network = build(peer.computes, problem, self._convert)
        self._forward: Callable[[Any], Any] = network.forward
        self._backward: Callable[..., Any] = network.backward
        if peer.compiled:
            torch._dynamo.reset()
            self._forward = torch.compile(network.forward, dynamic=False)
            self._backward = torch.compile(network.backward, dynamic=False)

    def call(self, operation: str) -> Callable[[], Any]:
        x, forward, backward = self._x, self._forward, self._backward
        if operation == "forward":
            return lambda: forward(x)[0]
        dy = self._convert(self._problem.dy(self._network.channels))
        if operation == "forward_backward":

            def both() -> Any:
                y, saved = forward(x)
                return y, backward(saved, dy, True, True)

            return both
        saved = self._network.forward(x)[1]
        data, weight = operation != "backward_weight", operation != "backward_data"
        return lambda: backward(saved, dy, data, weight)

    def outputs(self, operation: str, raw: Any) -> Outputs:
        result: Outputs = {}
        if operation == "forward":
            return {"y": raw}
        if operation == "forward_backward":
            result["y"], raw = raw
        dx, weights = raw
        if operation != "backward_weight":
            result["dx"] = dx
        if operation != "backward_data":
            result |= _named(weights, self._lean, self._problem.case.dims)
        return result


def _named(weights: Sequence[Any], lean: bool, dims: int) -> Outputs:
    if not lean:
        return {f"dw{k}": weight for k, weight in enumerate(weights)}
    import torch

    full, cross = weights
    columns = [cross[at_tap(place)] for place in taps(dims)]
    return {"dalpha": full.reshape(full.shape[:2]), "dc": torch.stack(columns, dim=1)}


@dataclass(frozen=True)
class OneDnn:
    """oneDNN through torch, in its own blocked layout, with or without the conversions from and to channels-first."""

    name: str
    description: str
    converting: bool
    computes: str = "lean"
    dtype: str | None = None

    @property
    def layout(self) -> str:
        return "channels-first" if self.converting else "blocked"

    def missing(self, case: Case, operation: str, device: str) -> str | None:
        if reason := _without_torch(case):
            return reason
        import torch

        if not torch._C._has_mkldnn or device != "cpu":
            return "torch was built without oneDNN" if device == "cpu" else "on the CPU only"
        if operation != "forward":
            return "only forward"
        if case.dtype == "float64" or case.c_in != case.c_out or case.dims == 1:
            return "float32 and 16-bit types, as many channels out as in, 2-D and 3-D only"
        return None

    def prepare(self, problem: Problem, case: Case) -> Prepared:
        return _PreparedOneDnn(self, problem, case)


class _PreparedOneDnn:
    def __init__(self, peer: OneDnn, problem: Problem, case: Case) -> None:
        convert = functools.partial(problem.torch, dtype=case.dtype, layout="channels-first")
        self._network = build("lean", problem, convert)
        for conv in self._network.convolutions:
            conv.weight = conv.weight.to_mkldnn()
        x = convert(problem.x())
        self._x = x if peer.converting else x.to_mkldnn()
        self._converting = peer.converting

    def call(self, operation: str) -> Callable[[], Any]:
        x, forward = self._x, self._network.forward
        if self._converting:
            return lambda: forward(x.to_mkldnn())[0].to_dense()
        return lambda: forward(x)[0]

    def outputs(self, operation: str, raw: Any) -> Outputs:
        return {"y": raw if self._converting else raw.to_dense()}


# ONNX Runtime


@dataclass(frozen=True)
class OnnxRuntime:
    """The composition as an ONNX model, its output bound to memory that is reused."""

    name: str = "onnxruntime"
    description: str = "1x1 + depthwise in ONNX Runtime"
    computes: str = "lean"
    layout: str | None = "channels-first"
    dtype: str | None = None

    def missing(self, case: Case, operation: str, device: str) -> str | None:
        absent = [package for package in ("onnxruntime", "onnx") if not installed(package)]
        if absent:
            return f"{' and '.join(absent)} not installed"
        if device != "cpu" or operation != "forward" or case.dtype != "float32":
            return "only forward in float32 on the CPU"
        if case.c_in != case.c_out or case.dims > 3:
            return "as many channels out as in, 1-D to 3-D only"
        return None

    def prepare(self, problem: Problem, case: Case) -> Prepared:
        return _PreparedOnnx(problem)


class _PreparedOnnx:
    def __init__(self, problem: Problem) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = leancore.max_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(_onnx_model(problem), options, providers=["CPUExecutionProvider"])
        self._y = np.empty(problem.case.y_shape, np.float32)
        self._values = [ort.OrtValue.ortvalue_from_numpy(problem.x()), ort.OrtValue.ortvalue_from_numpy(self._y)]
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("x", self._values[0])
        self._binding.bind_ortvalue_output("y", self._values[1])

    def call(self, operation: str) -> Callable[[], Any]:
        return functools.partial(self._session.run_with_iobinding, self._binding)

    def outputs(self, operation: str, raw: Any) -> Outputs:
        return {"y": self._values[1].numpy()}


def _onnx_model(problem: Problem) -> bytes:
    from onnx import TensorProto, checker, helper, numpy_helper

    case = problem.case
    ones, threes = [1] * case.dims, [3] * case.dims
    weights = {"pointwise": problem.alpha().reshape(case.c_out, case.c_in, *ones), "stencil": problem.cross()}
    common: dict[str, Any] = {"strides": [case.stride] * case.dims}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "pointwise"], ["full"], kernel_shape=ones, **common),
            helper.make_node(
                "Conv", ["x", "stencil"], ["cross"], kernel_shape=threes, group=case.m,
                pads=[case.dilation] * (2 * case.dims), dilations=[case.dilation] * case.dims, **common,
            ),
            helper.make_node("Add", ["full", "cross"], ["y"]),
        ],
        "lean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, case.y_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


# The list


def _both_layouts(name: str, description: str, computes: str) -> tuple[Torch, Torch]:
    return (
        Torch(name, description, computes),
        Torch(f"{name}-cl", f"{description}, channels-last", computes, layout="channels-last"),
    )


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Lean(),
        Lean("leancore-1x1", "this library with its stencil switched off", stencil=False),
        *_both_layouts("composition", "torch: 1x1 + depthwise, added", "lean"),
        Torch("compiled", "the composition under torch.compile", "lean", compiled=True),
        OneDnn("onednn", "the composition in oneDNN's own layout, conversions left out", converting=False),
        OneDnn("onednn-converted", "the same with conversions from and to channels-first", converting=True),
        OnnxRuntime(),
        *_both_layouts("dense", "torch: dense 3x3", "dense"),
        *_both_layouts("pointwise", "torch: 1x1 alone", "pointwise"),
        *_both_layouts("sequential", "torch: 1x1, then depthwise 3x3", "sequential"),
        *_both_layouts("expanded", "torch: 1x1 to 6c, depthwise 3x3, 1x1 back", "expanded"),
        *_both_layouts("expanded-open", "torch: 1x1 to 6c, depthwise 3x3, left at 6c", "expanded-open"),
    )
}


def _by_name(name: str) -> Peer | None:
    if name not in PEERS:
        for implementation, description, available in leancore.implementations():
            if available and name == f"leancore-{implementation}":
                return Lean(name, f"this library: {description}", implementation=implementation)
    return PEERS.get(name)


def choose(names: Sequence[str], *, compiled: bool = False) -> list[Peer]:
    """Of the list, by name, leancore first: it is always among them.

    Args:
        names: names, "leancore-" and the name of an implementation that this processor has, or "all" or "none".
        compiled: "all" includes torch.compile, which takes long to begin.

    Raises:
        ValueError: a name that is not in the list.
    """
    wanted = [name for name in names if name not in ("all", "none")]
    found = {name: _by_name(name) for name in wanted}
    unknown = [name for name, peer in found.items() if peer is None]
    if unknown:
        raise ValueError(f"peers {', '.join(unknown)}: not among all, none, {', '.join(PEERS)}")
    if "all" in names:
        wanted = [name for name in PEERS if name != "compiled"]
    if compiled:
        wanted.append("compiled")
    return [found.get(name) or PEERS[name] for name in dict.fromkeys(["leancore", *wanted])]
