"""torch.compile of the operator: one graph, forward and backward, and the numbers of the eager run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap

from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d, lean_conv
from torch_helpers import (
    DTYPES,
    HALF_DTYPES,
    SPATIAL,
    channels_last,
    integer_arguments,
    integers,
    is_channels_last,
)

# Of torch's own compiler.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counter:
    """A backend that counts graphs."""

    def __init__(self) -> None:
        self.graphs: list[Any] = []

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs.append(graph)
        return graph


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return torch.compile(function, fullgraph=True, **options)


def network(x: Tensor, alpha: Tensor, c: Tensor, bias: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The operator between others that a compiler fuses; of integers, exactly."""
    return (lean_conv(x + 1, alpha, c, bias, stride, dilation) * 2 - 3).relu()


def results(function: Callable[..., Tensor], arguments: tuple[Tensor, ...], **options: Any) -> list[Tensor]:
    """y and the gradients."""
    leaves = [t.detach().clone(memory_format=torch.preserve_format).requires_grad_() for t in arguments]
    y = function(*leaves, **options)
    return [y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))]


@pytest.mark.parametrize(
    ("backend", "dims", "last"),
    [("inductor", 1, False), ("inductor", 2, False), ("inductor", 2, True), ("inductor", 3, True)]
    + [("aot_eager", dims, last) for dims in (1, 2, 3, 4) for last in (False, True)],
)
def test_forward_and_backward_are_exact(backend: str, dims: int, last: bool) -> None:
    arguments = integer_arguments(3, 4, SPATIAL[dims])
    if last:
        arguments = (channels_last(arguments[0]), *arguments[1:])
    ours = results(compiled(network, backend=backend), arguments)
    expected = results(network, arguments)
    for a, b in zip(ours, expected, strict=True):
        assert torch.equal(a, b)
    assert is_channels_last(ours[0]) == last
    assert ours[0].stride() == expected[0].stride()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize(
    ("dims", "stride", "dilation"),
    [(dims, *geometry) for dims in (1, 2, 3) for geometry in ((2, 1), (1, 2), (2, 2))] + [(2, (2, 1), (1, 3))],
)
def test_strides_and_dilations(backend: str, dims: int, stride: Any, dilation: Any) -> None:
    arguments = integer_arguments(3, 4, (6, 7, 5)[:dims])
    options = {"stride": stride, "dilation": dilation}
    ours = results(compiled(network, backend=backend), arguments, **options)
    for a, b in zip(ours, results(network, arguments, **options), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype: torch.dtype) -> None:
    arguments = integer_arguments(3, 4, (6, 5), dtype=dtype)
    ours = results(compiled(lean_conv, backend="aot_eager"), arguments)
    for a, b in zip(ours, results(lean_conv, arguments), strict=True):
        assert a.dtype == dtype
        assert torch.equal(a, b)


def test_the_graph_is_one_and_has_the_operator() -> None:
    arguments = integer_arguments(3, 4, (5, 4))
    counter = Counter()
    torch.compile(network, backend=counter)(*arguments)
    (graph,) = counter.graphs
    targets = [node.target for node in graph.graph.nodes]
    assert targets.count(torch.ops.leancore.forward.default) == 1


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_one_graph_for_all_sizes(dims: int, last: bool) -> None:
    """Batch and every spatial extent change; dynamic=True compiles once."""
    counter = Counter()
    function = compiled(network, backend=counter, dynamic=True)
    for more in (0, 1, 3):
        # No two sizes are equal in the first call, or torch would take them for one.
        x, *rest = integer_arguments(3, 5, tuple(n + more for n in (17, 13, 11)[:dims]), batch=8 + more)
        x = channels_last(x) if last else x
        y, expected = (f(x, *rest, stride=2) for f in (function, network))
        assert torch.equal(y, expected)
        assert y.stride() == expected.stride()
    assert len(counter.graphs) == 1


@pytest.mark.parametrize(
    ("backend", "dims", "last"),
    [("aot_eager", dims, dims == 3) for dims in (1, 2, 3)] + [("inductor", 2, True)],
)
def test_gradients_with_dynamic_sizes(backend: str, dims: int, last: bool) -> None:
    function = compiled(network, backend=backend, dynamic=True)
    for size in (4, 5, 9):
        x, *rest = integer_arguments(3, 4, tuple(range(size, size + dims)), batch=size)
        arguments = (channels_last(x) if last else x, *rest)
        options = {"stride": 2, "dilation": 2}
        for a, b in zip(results(function, arguments, **options), results(network, arguments, **options), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("last", [False, True])
def test_a_batch_whose_size_depends_on_data(last: bool) -> None:
    x, alpha, c, _ = integer_arguments(3, 4, (5, 4), batch=6)
    chosen = torch.tensor([True, False, True, True, False, True])

    def function(x: Tensor) -> Tensor:
        some = x[chosen]
        return lean_conv(some.to(memory_format=torch.channels_last) if last else some, alpha, c)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        y = compiled(function, backend="aot_eager")(x)
    assert torch.equal(y, function(x))
    assert is_channels_last(y) == last


def test_compiled_autograd_reads_the_backward_of_an_eager_run() -> None:
    arguments = integer_arguments(3, 4, (5, 4))
    expected = results(network, arguments)[1:]
    leaves = [t.clone().requires_grad_() for t in arguments]
    y = network(*leaves)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager", fullgraph=True)):
        y.backward(torch.ones_like(y))
    for leaf, gradient in zip(leaves, expected, strict=True):
        assert torch.equal(leaf.grad, gradient)  # type: ignore[arg-type]


def test_permuted_and_sliced_inputs() -> None:
    """The strides that inductor hands over are those that the fake kernel saw."""
    x, alpha, c, bias = integer_arguments(3, 4, (6, 5))

    def function(x: Tensor) -> Tensor:
        y = lean_conv(x.transpose(2, 3), alpha, c, bias)
        y = lean_conv(y[:, 1:][..., ::2], alpha, c, bias)
        return lean_conv(y[:, :1].expand(-1, 3, -1, -1), alpha, c, bias) + 1

    for given in (x, channels_last(x), x[:, :, ::2], x[:, :1].expand(x.shape)):
        y, expected = compiled(function)(given), function(given)
        assert torch.equal(y, expected)
        assert y.stride() == expected.stride()


@pytest.mark.parametrize(
    ("backend", "module"),
    [("inductor", LeanConv2d), *(("aot_eager", module) for module in (LeanConv1d, LeanConv2d, LeanConv3d))],
)
def test_a_training_step_of_a_network(backend: str, module: Any) -> None:
    torch.manual_seed(0)
    dims = module.dims
    model = nn.Sequential(module(3, 4, bias=True), nn.ReLU(), module(4, 4, stride=2), nn.ReLU(), module(4, 2))
    for parameter in model.parameters():
        nn.init._no_grad_fill_(parameter, 1.0)
    x = integers(2, 3, *[5] * dims, dtype=torch.float32)
    gradients = []
    for run in (model, compiled(model, backend=backend)):
        model.zero_grad()
        run(x).sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", HALF_DTYPES)
def test_autocast_inside_and_around(dtype: torch.dtype) -> None:
    arguments = integer_arguments(3, 4, (5, 4), dtype=torch.float32)

    def inside(*args: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return lean_conv(*args)

    expected = results(inside, arguments)
    assert expected[0].dtype == dtype
    with torch.autocast("cpu", dtype=dtype):
        around = results(compiled(lean_conv, backend="aot_eager"), arguments)
    for ours in (results(compiled(inside, backend="aot_eager"), arguments), around):
        for a, b in zip(ours, expected, strict=True):
            assert a.dtype == b.dtype
            assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_torch_func_in_a_compiled_function(backend: str) -> None:
    arguments = integer_arguments(3, 4, (5, 4))
    directions = tuple(integers(*t.shape, seed=9) for t in arguments)

    def loss(*args: Tensor) -> Tensor:
        return network(*args).square().sum()

    def gradients(*args: Tensor) -> Any:
        return grad(loss, (0, 1, 2, 3))(*args)

    def tangent(*args: Tensor) -> Any:
        return (jvp(network, args, directions)[1],)

    def batch(*args: Tensor) -> Any:
        return (vmap(lambda x: network(x, *args[1:]))(torch.stack([args[0], -args[0]])),)

    for function in (gradients, tangent, batch):
        for a, b in zip(compiled(function, backend=backend)(*arguments), function(*arguments), strict=True):
            assert torch.equal(a, b)
            assert a.count_nonzero()


def test_gradients_of_each_sample_of_a_compiled_layer() -> None:
    layer = LeanConv2d(3, 4, bias=True, dtype=torch.float64)
    parameters = {name: integers(*p.shape, seed=i) for i, (name, p) in enumerate(layer.named_parameters())}
    x = integers(3, 3, 5, 4, seed=7)

    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(layer, parameters, (sample[None],)).square().sum()

    each = vmap(grad(loss), (None, 0))
    expected = each(parameters, x)
    for name, gradient in compiled(each, backend="aot_eager")(parameters, x).items():
        assert torch.equal(gradient, expected[name])
