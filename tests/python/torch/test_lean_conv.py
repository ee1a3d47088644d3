"""leancore.torch.lean_conv: values, derivatives of every kind, layouts, and what it refuses."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap

import leancore
from helpers import SMALL, geometries, integer_problem
from leancore import _core
from leancore.torch import LeanConv2d, kernels, lean_conv
from torch_helpers import (
    DTYPES,
    HALF_DTYPES,
    SPATIAL,
    channels_last,
    dense_conv,
    integer_arguments,
    integers,
    is_channels_last,
)

# torch's own forward mode still imports what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


# Values: sums of small integers are exact, so every comparison is for equality


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("batch", "c_in", "c_out", "spatial", "geometry"), [(*s, g) for s in SMALL for g in geometries(len(s[3]))]
)
def test_forward_and_gradients_are_exact_on_integers(
    batch: int, c_in: int, c_out: int, spatial: tuple[int, ...], geometry: dict[str, Any], dtype: Any
) -> None:
    p = integer_problem(batch, c_in, c_out, spatial, dtype=dtype, **geometry)
    x, alpha, c, bias = (torch.from_numpy(a.copy()).requires_grad_() for a in (p.x, p.alpha, p.c, p.bias))
    y = lean_conv(x, alpha, c, bias, **geometry)
    assert np.array_equal(y.detach().numpy(), p.y())
    y.backward(torch.from_numpy(p.dy))
    dalpha, dc = p.weights()
    dbias = p.dy.sum((0, *range(2, p.dy.ndim)))
    for gradient, expected in ((x.grad, p.dx()), (alpha.grad, dalpha), (c.grad, dc), (bias.grad, dbias)):
        assert gradient is not None
        assert gradient.dtype == x.dtype
        assert np.array_equal(gradient.numpy(), expected)


def test_it_is_the_dense_convolution_of_torch() -> None:
    for spatial in ((9,), (5, 6), (4, 3, 5)):
        for c_in, c_out in ((3, 5), (5, 3)):
            arguments = integer_arguments(c_in, c_out, spatial)
            for geometry in geometries(len(spatial)):
                assert torch.equal(lean_conv(*arguments, **geometry), dense_conv(*arguments, **geometry))


# Derivatives


DERIVATIVE_CASES = [
    (spatial, channels, bias, stride, dilation)
    for spatial in ((4,), (3, 4), (2, 3, 3), (2, 2, 3, 2))
    for channels in ((2, 3), (3, 2))
    for bias, stride, dilation in ((False, 1, 1), (True, 2, 1), (True, 1, 2))
]


@pytest.mark.parametrize(("spatial", "channels", "bias", "stride", "dilation"), DERIVATIVE_CASES)
def test_gradcheck(spatial: tuple[int, ...], channels: tuple[int, int], bias: bool, stride: int, dilation: int) -> None:
    arguments = [t.requires_grad_() for t in integer_arguments(*channels, spatial, batch=1)][: 4 if bias else 3]

    def operator(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor | None = None) -> Tensor:
        return lean_conv(x, alpha, c, bias, stride, dilation)

    assert gradcheck(operator, arguments, check_forward_ad=True, check_batched_grad=True, nondet_tol=0)
    assert gradgradcheck(operator, arguments, check_fwd_over_rev=True, nondet_tol=0)


def cubed(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A scalar function that has derivatives of every order in each argument, and integer ones at integers."""
    return lambda x, alpha, c, bias: (operator(x, alpha, c, bias) ** 3).sum()


@pytest.mark.parametrize("modes", list(itertools.product((jacrev, jacfwd), repeat=2)))
def test_second_derivatives_in_any_mixture_of_modes(modes: tuple[Any, Any]) -> None:
    arguments = integer_arguments(2, 3, (3,), batch=1)
    everything = (0, 1, 2, 3)
    outer, inner = modes
    ours = outer(inner(cubed(lean_conv), everything), everything)(*arguments)
    theirs = jacrev(jacrev(cubed(dense_conv), everything), everything)(*arguments)
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine, other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("modes", list(itertools.product("rf", repeat=3)))
def test_third_derivatives_in_any_mixture_of_modes(modes: tuple[str, ...]) -> None:
    """Three directional derivatives, all arguments moving in each; reverse mode contracts a gradient."""
    arguments = integer_arguments(3, 2, (3, 2), batch=1)
    directions = [tuple(integers(*a.shape, seed=10 * k + i) for i, a in enumerate(arguments)) for k in range(3)]

    def derivative(function: Callable[..., Tensor], direction: tuple[Tensor, ...], mode: str) -> Callable[..., Tensor]:
        def forward(*at: Tensor) -> Tensor:
            return jvp(function, at, direction)[1]

        def reverse(*at: Tensor) -> Tensor:
            gradients = grad(function, (0, 1, 2, 3))(*at)
            return sum((g * d).sum() for g, d in zip(gradients, direction, strict=True))  # type: ignore[return-value]

        return forward if mode == "f" else reverse

    ours, theirs = cubed(lean_conv), cubed(dense_conv)
    for mode, direction in zip(modes, directions, strict=True):
        ours, theirs = derivative(ours, direction, mode), derivative(theirs, direction, "r")
    value = ours(*arguments)
    assert torch.equal(value, theirs(*arguments))
    assert value != 0


def test_reverse_over_forward_without_functorch() -> None:
    x, alpha, c, _ = integer_arguments(2, 3, (4,))
    x.requires_grad_()
    alpha.requires_grad_()
    with forward_ad.dual_level():
        direction = integers(*x.shape, seed=7)
        y = lean_conv(forward_ad.make_dual(x, direction), alpha, c)
        tangent = forward_ad.unpack_dual(y).tangent
        (dalpha,) = torch.autograd.grad(tangent.sum(), alpha)
    expected, _ = leancore.backward_weight(direction, torch.ones_like(y.detach()))
    assert torch.equal(dalpha, expected)


@pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node")  # of torch's own linearize
def test_pullbacks_outlive_their_transform() -> None:
    """torch.func.vjp returns a function that runs backward when the levels of its call are gone."""
    arguments = integer_arguments(2, 3, (4, 3))
    (y, ours), (_, theirs) = vjp(lean_conv, *arguments), vjp(dense_conv, *arguments)
    dy = integers(*y.shape, seed=8)
    for a, b in zip(ours(dy), theirs(dy), strict=True):
        assert torch.equal(a, b)
    for i in range(4):

        def partly(one: Tensor, i: int = i) -> Tensor:
            return lean_conv(*arguments[:i], one, *arguments[i + 1 :])

        assert torch.equal(vjp(partly, arguments[i])[1](dy)[0], theirs(dy)[i])
    tangent = linearize(lambda alpha: lean_conv(arguments[0], alpha, *arguments[2:]), arguments[1])[1]
    direction = integers(3, 2, seed=9)
    assert torch.equal(tangent(direction), lean_conv(arguments[0], direction, torch.zeros_like(arguments[2])))


def test_hessian_is_that_of_the_dense_convolution() -> None:
    x, alpha, c, bias = integer_arguments(2, 2, (3, 3), batch=1)
    ours = hessian(lambda x: cubed(lean_conv)(x, alpha, c, bias))(x)
    assert torch.equal(ours, hessian(lambda x: cubed(dense_conv)(x, alpha, c, bias))(x))


@pytest.mark.parametrize("in_dims", [(0, None, None, None), (1, None, None, None), (0, 0, 0, 0), (None, 0, None, 1)])
def test_vmap(in_dims: tuple[int | None, ...]) -> None:
    shapes = ((2, 3, 4, 5), (4, 3), (3, 4), (4,))
    arguments = []
    for i, (shape, dim) in enumerate(zip(shapes, in_dims, strict=True)):
        batched = shape if dim is None else (*shape[:dim], 3, *shape[dim:])
        arguments.append(integers(*batched, seed=i))
    y = vmap(lean_conv, in_dims)(*arguments)
    for i in range(3):
        one = [a if d is None else a.select(d, i) for a, d in zip(arguments, in_dims, strict=True)]
        assert torch.equal(y[i], lean_conv(*one))


def test_gradients_of_each_sample() -> None:
    x, alpha, c, bias = integer_arguments(3, 4, (5, 4), batch=3)
    ours = vmap(grad(cubed(lean_conv), (1, 2, 3)), (0, None, None, None))(x[:, None], alpha, c, bias)
    for i in range(3):
        expected = grad(cubed(dense_conv), (1, 2, 3))(x[i : i + 1], alpha, c, bias)
        for a, b in zip(ours, expected, strict=True):
            assert torch.equal(a[i], b)


# No wasted work


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels as they are called."""
    seen: list[str] = []

    def spy(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            return kernel(*args, **kwargs)

        return called

    for name in ("forward", "backward_data", "backward_weight", "backward"):
        monkeypatch.setattr(_core, name, spy(name, getattr(_core, name)))
    return seen


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (("x",), ["backward_data"]),
        (("alpha",), ["backward_weight"]),
        (("c",), ["backward_weight"]),
        (("alpha", "c", "bias"), ["backward_weight"]),
        (("bias",), []),
        (("x", "alpha", "c", "bias"), ["backward"]),
    ],
)
def test_only_the_wanted_gradients_are_computed(calls: list[str], wanted: tuple[str, ...], expected: list[str]) -> None:
    arguments = dict(zip(("x", "alpha", "c", "bias"), integer_arguments(3, 4, (5, 4)), strict=True))
    for name in wanted:
        arguments[name].requires_grad_()
    lean_conv(**arguments).sum().backward()  # type: ignore[arg-type]
    assert calls == ["forward", *expected]


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("last", [False, True])
def test_all_gradients_come_from_one_call(calls: list[str], dims: int, last: bool) -> None:
    x, *rest = integer_arguments(3, 4, SPATIAL[dims])
    leaves = [t.clone().requires_grad_() for t in (channels_last(x) if last else x, *rest)]
    dy = integers(*lean_conv(*leaves, stride=2).shape, seed=8)
    dy = channels_last(dy) if last else dy
    calls.clear()
    ours = torch.autograd.grad(lean_conv(*leaves, stride=2), leaves, dy)
    assert calls == ["forward", "backward"]
    # With a graph of the gradients, each of them is an operation of its own.
    expected = torch.autograd.grad(lean_conv(*leaves, stride=2), leaves, dy, create_graph=True)
    assert calls == ["forward", "backward", "forward", "backward_data", "backward_weight"]
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(a, b)
        assert a.stride() == b.stride()


def test_parameters_reach_the_kernel_as_tensors() -> None:
    """Of a subclass, an exporter of its own might be meant, so DLPack's C interface, the quick one, is not taken."""
    for requires_grad in (False, True):
        parameter = torch.nn.Parameter(integers(3, 4), requires_grad=requires_grad)
        plain = kernels._plain("alpha", parameter)
        assert type(plain) is Tensor
        assert plain.data_ptr() == parameter.data_ptr()


def test_x_is_not_kept_for_frozen_weights() -> None:
    x, alpha, c, _ = integer_arguments(3, 4, (5, 4))
    x.requires_grad_()
    before = x * 2
    y = lean_conv(before, alpha, c)
    alive = weakref.ref(before)
    del before
    gc.collect()
    assert alive() is None
    y.sum().backward()
    assert torch.equal(x.grad, 2 * leancore.backward_data(torch.ones_like(y.detach()), alpha, c))  # type: ignore[arg-type]


# Other ways in which torch runs a function


def test_without_a_graph() -> None:
    x, alpha, c, bias = (t.requires_grad_() for t in integer_arguments(3, 4, (5, 4)))
    expected = lean_conv(x, alpha, c, bias).detach()
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            y = lean_conv(x, alpha, c, bias)
        assert not y.requires_grad
        assert torch.equal(y, expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_the_old_tracer_records_the_operator() -> None:
    arguments = integer_arguments(3, 4, (5, 4))
    traced = torch.jit.trace(lambda *args: lean_conv(*args, stride=2) + 1, arguments)
    others = integer_arguments(3, 4, (7, 4), batch=3)
    assert torch.equal(traced(*others), lean_conv(*others, stride=2) + 1)


def test_symbolic_tracing_records_the_function() -> None:
    model = torch.nn.Sequential(LeanConv2d(3, 4, stride=2), torch.nn.ReLU())
    graph = torch.fx.symbolic_trace(model)
    assert lean_conv in [node.target for node in graph.graph.nodes]
    x = torch.randn(2, 3, 5, 4)
    assert torch.equal(graph(x), model(x))


def test_arguments_changed_before_backward_are_noticed() -> None:
    x, alpha, c, _ = integer_arguments(3, 4, (5, 4))
    for changed in (x, alpha, c):
        leaves = [t.clone().requires_grad_() for t in (x, alpha, c)]
        arguments = [leaf * 1 for leaf in leaves]
        y = lean_conv(*arguments)
        with torch.no_grad():
            next(a for a, t in zip(arguments, (x, alpha, c), strict=True) if t is changed).add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


# Layouts, views, and tensors without data


def layouts(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The same values in memory of several kinds."""
    plain = integers(*shape)
    reordered = plain.movedim(1, -1).contiguous().movedim(-1, 1)
    wide = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=plain.dtype)
    wide[..., ::2] = plain
    padded = torch.zeros(shape[0], shape[1] + 1, *shape[2:], dtype=plain.dtype)
    padded[:, 1:] = plain
    return {
        "plain": plain,
        "channels last": reordered,
        "every second": wide[..., ::2],
        "some channels": padded[:, 1:],
        "transposed": plain.transpose(0, -1).contiguous().transpose(0, -1),
        "one channel repeated": plain[:, :1].expand(shape),
        "one value": integers(1)[0].expand(shape),
    }


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 3), (1, 1, 4, 4), (2, 3, 1, 1), (0, 3, 4, 4)])
def test_fake_and_real_results_have_one_layout(shape: tuple[int, ...]) -> None:
    dims = len(shape) - 2
    alpha, c = integers(4, shape[1]), integers(min(4, shape[1]), 2 * dims)
    for name, x in layouts(shape).items():
        for stride in (1, 2):
            y = lean_conv(x, alpha, c, stride=stride)
            assert torch.equal(y, lean_conv(x.contiguous(), alpha, c, stride=stride)), name
            meta = lean_conv(x.to("meta"), alpha.to("meta"), c.to("meta"), stride=stride)
            with FakeTensorMode() as mode:
                fake = lean_conv(*map(mode.from_tensor, (x, alpha, c)), stride=stride)
            for abstract in (meta, fake):
                assert abstract.shape == y.shape, name
                assert abstract.dtype == y.dtype, name
                if x.stride() == x.to("meta").stride() or abstract is fake:
                    assert abstract.stride() == y.stride(), name
            assert fake.device == y.device


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
def test_channels_last_in_channels_last_out(dims: int, stride: int) -> None:
    x, alpha, c, bias = integer_arguments(3, 4, SPATIAL[dims])
    if dims == 2:
        assert channels_last(x).is_contiguous(memory_format=torch.channels_last)
    for last in (False, True):
        leaf = (channels_last(x) if last else x).clone().requires_grad_()
        y = lean_conv(leaf, alpha, c, bias, stride)
        assert (is_channels_last(y), y.is_contiguous()) == (last, not last)
        assert torch.equal(y, lean_conv(x, alpha, c, bias, stride))
        (dx,) = torch.autograd.grad(y, leaf, torch.ones_like(y))
        assert (is_channels_last(dx), dx.is_contiguous()) == (last, not last)


def test_channels_last_survives_slices_of_channels() -> None:
    """As a DenseNet makes them."""
    x = channels_last(integers(2, 6, 4, 5))[:, 1:4]
    alpha, c = integers(4, 3), integers(3, 4)
    y = lean_conv(x, alpha, c)
    assert is_channels_last(y)
    assert torch.equal(y, lean_conv(x.contiguous(), alpha, c))


def test_shapes_of_all_derivatives_on_meta() -> None:
    arguments = [t.to("meta").requires_grad_() for t in integer_arguments(3, 4, (5, 7))]
    y = lean_conv(*arguments, stride=(2, 3))
    assert y.shape == (2, 4, 3, 3)
    first = torch.autograd.grad(y.sum(), arguments, create_graph=True)
    assert [g.shape for g in first] == [a.shape for a in arguments]
    second = torch.autograd.grad(sum(g.sum() for g in first[:3]), arguments[:3])
    assert [g.shape for g in second] == [a.shape for a in arguments[:3]]


def test_lazily_negated_views_are_resolved() -> None:
    values = torch.complex(integers(2, 3, 4, 5), integers(2, 3, 4, 5, seed=9))
    x = values.conj().imag
    assert x.is_neg()
    _, alpha, c, _ = integer_arguments(3, 4, (4, 5))
    assert torch.equal(lean_conv(x, alpha, c), lean_conv(x.clone(), alpha, c))
    y = lean_conv(integers(2, 3, 4, 5).requires_grad_(), alpha, c)
    dy = torch.complex(integers(*y.shape), integers(*y.shape, seed=9)).conj().imag
    (dx,) = torch.autograd.grad(y, y.grad_fn.next_functions[0][0].variable, dy)  # type: ignore[union-attr]
    assert torch.equal(dx, leancore.backward_data(dy.resolve_neg(), alpha, c))


@pytest.mark.parametrize("name", ["alpha", "c", "bias"])
def test_lazily_negated_weights_are_resolved(name: str) -> None:
    arguments = dict(zip(("x", "alpha", "c", "bias"), integer_arguments(3, 4, (4, 5)), strict=True))
    expected = lean_conv(**{**arguments, name: -arguments[name]})  # type: ignore[arg-type]
    negated = torch.complex(torch.zeros_like(arguments[name]), arguments[name]).conj().imag
    assert negated.is_neg()
    assert torch.equal(lean_conv(**{**arguments, name: negated}), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["x", "alpha", "c", "bias"])
def test_tensors_known_to_be_zero(name: str) -> None:
    """Forward mode makes tensors without memory for derivatives that it knows to be zero."""
    arguments = dict(zip(("x", "alpha", "c", "bias"), integer_arguments(3, 4, (4, 5)), strict=True))
    expected = lean_conv(**{**arguments, name: torch.zeros_like(arguments[name])})  # type: ignore[arg-type]
    zero = torch._efficientzerotensor(arguments[name].shape, dtype=expected.dtype)
    assert torch.equal(lean_conv(**{**arguments, name: zero}), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 3, 0, 5), (2, 0, 4, 5)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    x = torch.zeros(shape, requires_grad=True)
    alpha = torch.ones(4, shape[1], requires_grad=True)
    c = torch.ones(min(4, shape[1]), 4, requires_grad=True)
    y = lean_conv(x, alpha, c)
    assert y.shape == (shape[0], 4, *shape[2:])
    y.sum().backward()
    for t in (x, alpha, c):
        assert torch.equal(t.grad, torch.zeros_like(t))  # type: ignore[arg-type]


# Dtypes and autocast


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_each_dtype_rounds_once(dtype: torch.dtype, dims: int) -> None:
    """The sums of small integers are exact where they are accumulated, whatever the result is rounded to."""
    exact = [t.requires_grad_() for t in integer_arguments(3, 4, SPATIAL[dims])]
    ours = [t.detach().to(dtype).requires_grad_() for t in exact]
    y, expected = lean_conv(*ours), lean_conv(*exact)
    assert torch.equal(y, expected.to(dtype))
    dy = integers(*y.shape, seed=9)
    gradients = torch.autograd.grad(y, ours[:3], dy.to(dtype))
    for a, b in zip(gradients, torch.autograd.grad(expected, exact[:3], dy), strict=True):
        assert torch.equal(a, b.to(dtype))


@pytest.mark.parametrize("half", HALF_DTYPES)
@pytest.mark.parametrize("given", [torch.float32, *HALF_DTYPES])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_autocast(half: torch.dtype, given: torch.dtype, dims: int) -> None:
    """Integers are exact in every dtype: results and gradients are those in the dtype of the region, rounded once."""
    exact = [t.to(half).requires_grad_() for t in integer_arguments(3, 4, SPATIAL[dims])]
    ours = [t.detach().to(given).requires_grad_() for t in exact]
    with torch.autocast("cpu", dtype=half):
        y = lean_conv(*ours)
    expected = lean_conv(*exact)
    assert y.dtype == half
    assert torch.equal(y, expected)
    for a, b in zip(
        *(torch.autograd.grad(r, t, torch.ones_like(r)) for r, t in ((y, ours), (expected, exact))), strict=True
    ):
        assert a.dtype == given
        assert torch.equal(a, b.to(given))


def test_autocast_of_mixed_dtypes_and_of_the_registered_operator() -> None:
    x, alpha, c, bias = (t.float() for t in integer_arguments(3, 4, (5, 4)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = lean_conv(x.bfloat16(), alpha, c, bias)
        registered = torch.ops.leancore.forward(x.bfloat16(), alpha, c, bias, [1, 1], [1, 1])
    expected = lean_conv(x, alpha, c, bias).to(torch.bfloat16)
    assert torch.equal(y, expected)
    assert torch.equal(registered, expected)


def test_autocast_leaves_float64_alone() -> None:
    arguments = integer_arguments(3, 4, (5, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert lean_conv(*arguments).dtype == torch.float64


def test_autocast_on_cuda() -> None:
    """Of tensors without memory, for which no device is needed; torch.autocast itself would want one."""
    before = torch.get_autocast_dtype("cuda")
    with FakeTensorMode(), torch.no_grad():
        x, alpha, c = (torch.empty(shape, device="cuda") for shape in ((2, 8, 6, 6), (16, 8), (8, 4)))
        assert lean_conv(x, alpha, c).dtype == torch.float32
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", True)
        try:
            for y in (lean_conv(x, alpha, c), torch.ops.leancore.forward(x, alpha, c, None, [1, 1], [1, 1])):
                assert (y.dtype, y.device.type, y.shape) == (torch.bfloat16, "cuda", (2, 16, 6, 6))
        finally:
            torch.set_autocast_enabled("cuda", False)
            torch.set_autocast_dtype("cuda", before)


@pytest.mark.parametrize("inside", [False, True])
def test_a_network_under_autocast(inside: bool) -> None:
    """Gradients arrive in the parameters' dtype, wherever backward is called."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), LeanConv2d(4, 4, bias=True), torch.nn.Conv2d(4, 2, 1)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.randn(2, 3, 6, 6)).float().square().mean()
        if inside:
            loss.backward()
    if not inside:
        loss.backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert bool(parameter.grad.isfinite().all())
