"""torch.ops.leancore: what torch asks of a registered operator, and who calls it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from helpers import SMALL, geometries
from leancore.torch import LeanConv2d, decompositions, kernels, lean_conv
from torch_helpers import (
    DTYPES,
    SPATIAL,
    channels_last,
    dense_conv,
    integer_arguments,
    integers,
    is_channels_last,
)

# torch's own forward mode still imports what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

OPS = torch.ops.leancore
NAMES = ("forward", "backward_data", "backward_weight")


@pytest.fixture
def precision() -> Iterator[Any]:
    """torch's settings of the precision of float32 on CUDA, put back afterwards."""
    matmul = torch.backends.cuda.matmul
    before = torch.get_float32_matmul_precision(), matmul.fp32_precision, torch.backends.fp32_precision
    torch.set_float32_matmul_precision("highest")  # torch's default, whatever ran before in this process
    yield matmul
    torch.backends.fp32_precision = before[2]
    torch.set_float32_matmul_precision(before[0])
    matmul.fp32_precision = before[1]


def test_tf32_is_asked_for_by_torchs_setting_for_products_of_matrices(precision: Any) -> None:
    with FakeTensorMode():
        x, half = torch.empty(1, device="cuda"), torch.empty(1, device="cuda", dtype=torch.float16)
    assert kernels.implementation_for(x) is None, "the default"
    for turn_on, turn_off in (
        (lambda: torch.set_float32_matmul_precision("high"), lambda: torch.set_float32_matmul_precision("highest")),
        (lambda: setattr(precision, "allow_tf32", True), lambda: setattr(precision, "allow_tf32", False)),
        (lambda: setattr(precision, "fp32_precision", "tf32"), lambda: setattr(precision, "fp32_precision", "ieee")),
    ):
        turn_on()
        assert kernels.implementation_for(x) == "cuda_tf32"
        assert kernels.implementation_for(half) is None
        assert kernels.implementation_for(torch.empty(1)) is None
        turn_off()
        assert kernels.implementation_for(x) is None


def test_what_is_asked_for_reaches_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    x, alpha, c, bias = integer_arguments(3, 4, SPATIAL[2])
    y = lean_conv(x, alpha, c, bias)
    monkeypatch.setattr(kernels, "implementation_for", lambda t: "another")
    for name, arguments in (
        ("forward", (x, alpha, c, bias, (1, 1), (1, 1))),
        ("backward_data", (y, alpha, c, x.shape, (1, 1), (1, 1))),
        ("backward_weight", (x, y, (1, 1), (1, 1))),
        ("backward", (x, y, alpha, c, (1, 1), (1, 1))),
    ):
        with pytest.raises(RuntimeError, match=f"{name}: implementation 'another'"):
            getattr(kernels, name)(*arguments)


def operator_arguments(
    name: str, dims: int, *, stride: int = 1, dilation: int = 1, dtype: torch.dtype = torch.float64, bias: bool = True
) -> tuple[Any, ...]:
    x, alpha, c, b = integer_arguments(3, 4, SPATIAL[dims], dtype=dtype)
    geometry = [stride] * dims, [dilation] * dims
    if name == "forward":
        return (x, alpha, c, b if bias else None, *geometry)
    dy = OPS.forward(x, alpha, c, None, *geometry)
    if name == "backward_data":
        return (dy, alpha, c, list(x.shape), *geometry)
    return (x, dy, *geometry)


def requiring_grad(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.detach().clone().requires_grad_() if isinstance(a, Tensor) else a for a in args)


def same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, Tensor):
        return torch.equal(ours, theirs)
    return all(same(a, b) for a, b in zip(ours, theirs, strict=True))


# What torch asks for


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize(("stride", "dilation", "last", "bias"), [(1, 1, False, False), (2, 2, True, True)])
def test_opcheck(name: str, dims: int, stride: int, dilation: int, last: bool, bias: bool) -> None:
    args = operator_arguments(name, dims, stride=stride, dilation=dilation, bias=bias)
    if last:
        args = (channels_last(args[0]), *args[1:])
    results = opcheck(getattr(OPS, name).default, requiring_grad(args))
    assert len(results) == 4
    assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_dtypes(name: str, dtype: torch.dtype) -> None:
    args = operator_arguments(name, 2, dtype=dtype)
    assert set(opcheck(getattr(OPS, name).default, requiring_grad(args)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradients_of_the_operator_itself(name: str, dims: int) -> None:
    """Reverse, forward and batched; gradcheck batches with torch's old vmap."""
    args = operator_arguments(name, dims, stride=2, dilation=1)
    where = [i for i, a in enumerate(args) if isinstance(a, Tensor)]

    def operator(*tensors: Tensor) -> Any:
        full = list(args)
        for i, t in zip(where, tensors, strict=True):
            full[i] = t
        return getattr(OPS, name)(*full)

    tensors = [a for a in requiring_grad(args) if isinstance(a, Tensor)]
    checks: dict[str, Any] = {"nondet_tol": 0, "fast_mode": True}
    assert gradcheck(operator, tensors, check_forward_ad=True, check_batched_grad=True, **checks)
    assert gradcheck(operator, tensors, check_forward_ad=True, check_batched_forward_grad=True, **checks)
    assert gradgradcheck(operator, tensors, check_fwd_over_rev=True, check_batched_grad=True, **checks)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("registered", [False, True])
def test_torch_func(dims: int, stride: int, dilation: int, registered: bool) -> None:
    """torch.library.register_autograd would fail below grad and give zeros for jvp."""
    x, alpha, c, bias = integer_arguments(2, 3, SPATIAL[dims], batch=1)

    def ours(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor) -> Tensor:
        if registered:
            return (OPS.forward(x, alpha, c, bias, [stride] * dims, [dilation] * dims) ** 3).sum()
        return (lean_conv(x, alpha, c, bias, stride, dilation) ** 3).sum()

    def theirs(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor) -> Tensor:
        return (dense_conv(x, alpha, c, bias, stride, dilation) ** 3).sum()

    at = (x, alpha, c, bias)
    directions = tuple(integers(*t.shape, seed=9) for t in at)
    assert same(grad(ours, (0, 1, 2, 3))(*at), grad(theirs, (0, 1, 2, 3))(*at))
    tangent = jvp(ours, at, directions)[1]
    assert same(tangent, jvp(theirs, at, directions)[1])
    assert tangent != 0
    for transform in (jacrev, jacfwd):
        assert same(transform(ours, (0, 1, 2, 3))(*at), grad(theirs, (0, 1, 2, 3))(*at))
    assert same(hessian(ours, (1, 2))(*at), hessian(theirs, (1, 2))(*at))
    with forward_ad.dual_level():
        dual = ours(*map(forward_ad.make_dual, at, directions))
        assert same(forward_ad.unpack_dual(dual).tangent, tangent)


# Who calls it


class Seen(TorchDispatchMode):
    """The operators of leancore that torch's dispatcher saw."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "leancore":
            self.names.append(function._opname)
        return function(*args, **(kwargs or {}))


def test_a_dispatch_mode_sees_every_call() -> None:
    arguments = [t.requires_grad_() for t in integer_arguments(3, 4, (5, 4))]
    with Seen() as seen:
        y = lean_conv(*arguments)
        y.sum().backward()
    assert seen.names == ["forward", "backward_data", "backward_weight"]


def test_a_dispatch_mode_does_not_hide_derivatives() -> None:
    """The combination in which a rule without forward mode would give zeros."""
    x, alpha, c, _ = integer_arguments(3, 4, (5, 4))
    direction = integers(*x.shape, seed=9)
    expected = lean_conv(direction, alpha, c)
    with Seen() as seen:
        tangent = jvp(lambda x: lean_conv(x, alpha, c), (x,), (direction,))[1]
        gradient = grad(lambda x: lean_conv(x, alpha, c).sum())(x)
    assert torch.equal(tangent, expected)
    assert torch.equal(gradient, grad(lambda x: dense_conv(x, alpha, c).sum())(x))
    assert seen.names.count("forward") >= 2


@pytest.mark.parametrize("options", [{}, {"tracing_mode": "symbolic"}, {"pre_dispatch": True}])
def test_make_fx_records_the_operator(options: dict[str, Any]) -> None:
    x, alpha, c, bias = integer_arguments(3, 4, (5, 4))
    graph = make_fx(lambda *args: lean_conv(*args, stride=2), **options)(x, alpha, c, bias)
    assert OPS.forward.default in [node.target for node in graph.graph.nodes]
    assert torch.equal(graph(x, alpha, c, bias), lean_conv(x, alpha, c, bias, stride=2))


def test_make_fx_records_the_operators_of_a_gradient() -> None:
    x, alpha, c, _ = integer_arguments(3, 4, (5, 4))
    graph = make_fx(grad(lambda alpha: lean_conv(x, alpha, c).square().sum()))(alpha)
    targets = [node.target for node in graph.graph.nodes]
    assert OPS.forward.default in targets
    assert OPS.backward_weight.default in targets
    assert torch.equal(graph(alpha), grad(lambda alpha: dense_conv(x, alpha, c).square().sum())(alpha))


def test_batched_gradients_with_the_old_vmap() -> None:
    x, alpha, c, bias = (t.requires_grad_() for t in integer_arguments(3, 4, (5, 4)))
    y = lean_conv(x, alpha, c, bias)
    dy = integers(3, *y.shape, seed=8)
    together = torch.autograd.grad(y, (x, alpha, c, bias), dy, is_grads_batched=True, retain_graph=True)
    for i in range(3):
        one = torch.autograd.grad(y, (x, alpha, c, bias), dy[i], retain_graph=True)
        assert same([t[i] for t in together], one)


# Batches of calls


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_vmap_of_the_operator_itself(name: str, dims: int) -> None:
    args = operator_arguments(name, dims, stride=2)
    tensors = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
    for chosen in itertools.product((None, 0, 1), repeat=len(tensors)):
        if not any(d is not None for d in chosen):
            continue
        in_dims = dict(zip(tensors, chosen, strict=True))
        batched = [
            torch.stack([a, -2 * a, a.flip(0)], in_dims[i]) if in_dims.get(i) is not None else a
            for i, a in enumerate(args)
        ]
        results = vmap(getattr(OPS, name), tuple(in_dims.get(i) for i in range(len(args))))(*batched)
        for i in range(3):
            one = [
                a.select(in_dims[k], i) if in_dims.get(k) is not None else a  # type: ignore[arg-type]
                for k, a in enumerate(batched)
            ]
            expected = getattr(OPS, name)(*one)
            assert same(results[i] if isinstance(results, Tensor) else [r[i] for r in results], expected)


def test_gradients_of_each_sample_of_a_layer() -> None:
    layer = LeanConv2d(3, 4, bias=True, dtype=torch.float64)
    parameters = {name: integers(*p.shape, seed=i) for i, (name, p) in enumerate(layer.named_parameters())}
    x = integers(3, 3, 5, 4, seed=7)

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(layer, parameters, (sample[None],)).square().sum()

    together = vmap(grad(loss), (None, 0))(parameters, x)
    for i in range(3):
        one = grad(loss)(parameters, x[i])
        for name, gradient in together.items():
            assert torch.equal(gradient[i], one[name])


# Tensors without data


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("last", [False, True])
def test_meta_results_are_like_real_ones(name: str, dims: int, last: bool) -> None:
    args = operator_arguments(name, dims, stride=2)
    if last:
        args = (channels_last(args[0]), *args[1:])
    real = getattr(OPS, name)(*args)
    meta = getattr(OPS, name)(*(a.to("meta") if isinstance(a, Tensor) else a for a in args))
    for a, b in zip(*((r,) if isinstance(r, Tensor) else r for r in (real, meta)), strict=True):
        assert (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
        assert b.is_meta
    if name != "backward_weight":
        assert is_channels_last(real) == last


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_arguments_of_the_operators_are_checked(device: str) -> None:
    x, alpha, c, bias = (t.to(device) for t in integer_arguments(3, 4, (5, 4)))
    dy = torch.ones(2, 4, 5, 4, dtype=x.dtype, device=device)
    one, shape = [1, 1], [2, 3, 5, 4]
    for operator, args, text in (
        (OPS.forward, (x[0, 0], alpha, c, bias, one, one), "x has shape"),
        (OPS.forward, (x, alpha[:, :2], c, bias, one, one), "alpha has shape"),
        (OPS.forward, (x, alpha[0], c, bias, one, one), "alpha has shape"),
        (OPS.forward, (x, alpha, c[:, :2], bias, one, one), "c has shape"),
        (OPS.forward, (x, alpha, c, bias[:3], one, one), "bias has shape"),
        (OPS.forward, (x, alpha, c, bias, [1], one), "stride is"),
        (OPS.forward, (x, alpha, c, bias, one, [1, 0]), "dilation is"),
        (OPS.backward_data, (dy, alpha, c, shape[:2], one, one), "x_shape is"),
        (OPS.backward_data, (dy, alpha, c, [2, 9, 5, 4], one, one), "alpha has shape"),
        (OPS.backward_data, (dy, alpha, c[:2], shape, one, one), "c has shape"),
        (OPS.backward_data, (dy[:1], alpha, c, shape, one, one), "dy has shape"),
        (OPS.backward_data, (dy, alpha, c, shape, [0, 1], one), "stride is"),
        (OPS.backward_weight, (x, dy[..., :3], one, one), "dy has shape"),
        (OPS.backward_weight, (x, dy[0, 0, 0], one, one), "dy has shape"),
        (OPS.backward_weight, (x[0, 0], dy, one, one), "x has shape"),
        (OPS.backward_weight, (x, dy, one, [1]), "dilation is"),
    ):
        with pytest.raises(ValueError, match=text):
            operator(*args)


# Decompositions


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("batch", "c_in", "c_out", "spatial", "geometry"), [(*s, g) for s in SMALL for g in geometries(len(s[3]))]
)
def test_decompositions_are_exact_on_integers(
    name: str, batch: int, c_in: int, c_out: int, spatial: tuple[int, ...], geometry: dict[str, Any]
) -> None:
    dims = len(spatial)
    x, alpha, c, bias = integer_arguments(c_in, c_out, spatial, batch)
    stride, dilation = (
        [v] * dims if isinstance(v, int) else list(v) for v in (geometry["stride"], geometry["dilation"])
    )
    dy = integers(*OPS.forward(x, alpha, c, None, stride, dilation).shape, seed=8)
    args = {
        "forward": (x, alpha, c, bias, stride, dilation),
        "backward_data": (dy, alpha, c, x.shape, stride, dilation),
        "backward_weight": (x, dy, stride, dilation),
    }[name]
    operator = getattr(OPS, name).default
    assert same(decompositions()[operator](*args), operator(*args))


def test_a_decomposed_gradient_has_stock_operators_only() -> None:
    x, alpha, c, bias = integer_arguments(3, 4, (5, 4))

    def loss(x: Tensor, alpha: Tensor, c: Tensor) -> Tensor:
        return lean_conv(x, alpha, c, bias, stride=2).square().sum()

    graph = make_fx(grad(loss, (0, 1, 2)), decomposition_table=decompositions())(x, alpha, c)
    namespaces = {node.target.namespace for node in graph.graph.nodes if node.op == "call_function"}
    assert namespaces == {"aten"}
    assert same(graph(x, alpha, c), grad(loss, (0, 1, 2))(x, alpha, c))


# FLOPs


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_flops_are_those_of_the_dot_products(dims: int, stride: int) -> None:
    x, alpha, c, bias = (t.requires_grad_() for t in integer_arguments(3, 4, SPATIAL[dims]))
    with FlopCounterMode(display=False) as counter:
        y = lean_conv(x, alpha, c, bias, stride)
        forward_flops = counter.get_total_flops()
        y.sum().backward()
    positions = y.numel() // 4
    assert forward_flops == 2 * positions * (alpha.numel() + c.numel())
    assert counter.get_total_flops() == 3 * forward_flops


def test_the_1x1_part_counts_as_torch_counts_it() -> None:
    x, alpha, c, _ = integer_arguments(3, 4, (5, 4))
    m, dims = 3, 2
    with FlopCounterMode(display=False) as ours:
        lean_conv(x, alpha, c)
    with FlopCounterMode(display=False) as theirs:
        torch.conv2d(x, alpha[:, :, None, None])
    stencil = 2 * (2 * 5 * 4) * m * 2 * dims
    assert ours.get_total_flops() == theirs.get_total_flops() + stencil
