"""On a real CUDA device: arrays of torch, CuPy and JAX; run by scripts/test_cuda_device.sh.

With the environment variable LEANCORE_CUDA_REHEARSAL these tests run on the CPU, as far as that goes, and say nothing
about CUDA: test_rehearsal.py sees to it that they are ready when there is a device.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import leancore
from helpers import DTYPES, SMALL, Problem, geometries, integer_problem, normal_problem

REHEARSAL = "LEANCORE_CUDA_REHEARSAL" in os.environ
pytestmark = pytest.mark.cuda


# torch


@pytest.fixture
def device() -> Any:
    torch = pytest.importorskip("torch")
    if REHEARSAL:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    return torch.device("cuda")


@pytest.fixture
def gpu(device: Any) -> Any:
    """For what a CPU has not: streams, graphs, other devices."""
    if device.type != "cuda":
        pytest.skip("needs a device")
    return device


def tensor(array: np.ndarray, device: Any, *, last: bool = False) -> Any:
    import torch

    if array.dtype.name == "bfloat16":
        made = torch.from_numpy(array.astype(np.float32)).to(device, torch.bfloat16)
    else:
        made = torch.from_numpy(array).to(device)
    return made.movedim(1, -1).contiguous().movedim(-1, 1) if last and made.ndim > 2 else made


def tensors(problem: Problem, device: Any, *, last: bool = False) -> tuple[Any, ...]:
    """x, alpha, c, bias, dy."""
    arrays = (problem.x, problem.alpha, problem.c, problem.bias, problem.dy)
    return tuple(tensor(array, device, last=last) for array in arrays)


def equal(got: Any, want: np.ndarray, dtype: Any) -> bool:
    """Bit for bit but for the sign of zero; `want` is rounded to the dtype."""
    return bool((got.detach().cpu().double().numpy() == want.astype(dtype).astype(np.float64)).all())


#: Beside the small ones, shapes that the tiles take: aligned and ragged rows, up to 128 channels and beyond.
SHAPES = [
    *SMALL,
    (2, 16, 16, (12, 16)),
    (1, 32, 24, (9, 40)),
    (3, 64, 64, (7, 7)),
    (1, 96, 128, (6, 33)),
    (1, 160, 130, (5, 8)),
    (1, 33, 40, (130,)),
    (1, 16, 32, (4, 5, 16)),
]


@pytest.mark.parametrize("last", [False, True], ids=["channels-first", "channels-last"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_operations_are_exact_on_integers(device: Any, shape: Any, dtype: Any, last: bool) -> None:
    for geometry in geometries(len(shape[3])):
        p = integer_problem(*shape, dtype=dtype, **geometry)
        x, alpha, c, bias, dy = tensors(p, device, last=last)
        y = leancore.forward(x, alpha, c, bias=bias, **geometry)
        assert y.device == x.device
        assert equal(y, p.y(), dtype)
        assert equal(leancore.backward_data(dy, alpha, c, x_shape=x.shape, **geometry), p.dx(), dtype)
        for got, want in zip(leancore.backward_weight(x, dy, **geometry), p.weights(), strict=True):
            assert equal(got, want, dtype)
        for got, want in zip(leancore.backward(x, dy, alpha, c, **geometry), p.gradients(), strict=True):
            assert equal(got, want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_layer_and_its_gradients(device: Any, dtype: Any) -> None:
    import torch

    from leancore.torch import lean_conv

    p = integer_problem(2, 16, 24, (9, 12), dtype=dtype)
    *leaves, dy = tensors(p, device)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    y = lean_conv(*leaves)
    dx, dalpha, dc, dbias = torch.autograd.grad(y, leaves, dy)
    assert equal(y, p.y(), dtype)
    assert equal(dx, p.dx(), dtype)
    for got, want in zip((dalpha, dc), p.weights(), strict=True):
        assert equal(got, want, dtype)
    assert torch.equal(dbias, dy.sum((0, 2, 3)))


def test_the_precision_that_torch_is_set_to(gpu: Any) -> None:
    """x is a little more than 1, by less than TF32 tells apart; every sum is exact in float32."""
    import torch

    from leancore.torch import lean_conv

    alpha, c = torch.ones(64, 64, device=gpu), torch.zeros(64, 4, device=gpu)
    x = torch.full((1, 64, 4, 32), 1 + 2**-12, device=gpu, requires_grad=True)
    tf32_exists = torch.cuda.get_device_capability(gpu) >= (8, 0)
    before = torch.get_float32_matmul_precision()
    try:
        for precision, tf32 in (("highest", False), ("high", True)):
            torch.set_float32_matmul_precision(precision)
            y = lean_conv(x, alpha, c)
            (dx,) = torch.autograd.grad(y, x, torch.full_like(y, 1 + 2**-12))
            want = 64 if tf32 and tf32_exists else 64 + 2**-6
            assert (y == want).all()
            assert (dx == want).all()
    finally:
        torch.set_float32_matmul_precision(before)


def test_derivatives_of_derivatives(device: Any) -> None:
    import torch

    from leancore.torch import lean_conv

    x, alpha, c, bias, _ = tensors(integer_problem(1, 2, 3, (3, 4), dtype=np.float64), device)
    inputs = tuple(t.requires_grad_() for t in (x, alpha, c, bias))
    assert torch.autograd.gradcheck(lean_conv, inputs)
    assert torch.autograd.gradgradcheck(lean_conv, inputs)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_autocast(device: Any, half: str) -> None:
    import torch

    from leancore.torch import lean_conv

    dtype = getattr(torch, half)
    *leaves, dy = tensors(integer_problem(2, 16, 16, (12, 16)), device)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    with torch.autocast(device.type, dtype):
        y = lean_conv(*leaves)
    assert y.dtype is dtype
    assert torch.equal(y, lean_conv(*(leaf.to(dtype) for leaf in leaves)))
    gradients = torch.autograd.grad(y, leaves, dy.to(dtype))
    assert [g.dtype for g in gradients] == [torch.float32] * 4


def ternary(module: Any) -> Any:
    """The module with weights -1, 0 and 1: sums are small integers, and the same in any order."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-1, 2, parameter.shape, generator=generator))
    return module


def test_a_step_of_training_in_16_bits(device: Any) -> None:
    """Autocast, a scaled loss, gradients: bit for bit those of the CPU, and the parameters move."""
    import torch

    from leancore.torch import LeanConv2d

    images = torch.from_numpy(integer_problem(4, 3, 3, (16, 16)).x).clamp(-1, 1)
    found = []
    for where in (torch.device("cpu"), device):
        # Of at most 7, then 140: exact in bfloat16, and so are 64 times as much, the scaled gradients of y.
        model = ternary(torch.nn.Sequential(LeanConv2d(3, 16, bias=False), torch.nn.ReLU()))
        model.append(ternary(LeanConv2d(16, 8, stride=2, bias=False))).to(where)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        scaler = torch.amp.GradScaler(where.type, init_scale=2.0**16)
        with torch.autocast(where.type, torch.bfloat16):
            y = model(images.to(where))
            assert y.dtype is torch.bfloat16
        scaler.scale(y.float().square().mean()).backward()
        gradients = [parameter.grad.cpu() for parameter in model.parameters()]
        assert all(gradient.dtype is torch.float32 and gradient.any() for gradient in gradients)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        scaler.step(optimizer)
        assert not any(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
        found.append([y.detach().cpu(), *gradients])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("last", [False, True])
def test_compiled(device: Any, last: bool) -> None:
    import torch

    from leancore.torch import lean_conv

    def network(x: Any, alpha: Any, c: Any, bias: Any) -> Any:
        return (lean_conv(x + 1, alpha, c, bias, 1, 2) * 2 - 3).relu()

    torch.compiler.reset()
    *arguments, _ = tensors(integer_problem(2, 8, 12, (6, 16)), device, last=last)
    results = []
    for function in (network, torch.compile(network, fullgraph=True)):
        leaves = [t.detach().clone().requires_grad_() for t in arguments]
        y = function(*leaves)
        results.append([y.detach(), *torch.autograd.grad(y, leaves, torch.ones_like(y))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert results[0][0].stride() == results[1][0].stride()


def test_views(device: Any) -> None:
    """Unaligned, transposed and broadcast: what no tile takes, or only in its careful variant."""
    import torch

    for dtype in DTYPES:
        p = integer_problem(2, 16, 16, (10, 19), dtype=dtype)
        x, alpha, c, bias, dy = tensors(p, device)
        wide = torch.zeros(2, 16, 12, 23, dtype=x.dtype, device=device)
        for row, column in itertools.product((0, 1), range(4)):
            view = wide[..., row : row + 10, column : column + 19].copy_(x)
            assert equal(leancore.forward(view, alpha, c, bias=bias), p.y(), dtype)
            for got, want in zip(leancore.backward_weight(view, dy), p.weights(), strict=True):
                assert equal(got, want, dtype)
            view.zero_()
        assert equal(leancore.forward(x.mT.contiguous().mT, alpha.mT.contiguous().mT, c, bias=bias), p.y(), dtype)
        one = x[:1].expand_as(x)
        assert torch.equal(leancore.forward(one, alpha, c), leancore.forward(one.contiguous(), alpha, c))


def test_the_same_bits_every_time(device: Any) -> None:
    import torch

    for dtype in DTYPES:
        p = normal_problem(4, 32, 32, (24, 24), dtype)
        x, alpha, c, _, dy = tensors(p, device)
        first = leancore.backward(x, dy, alpha, c)
        for _ in range(5):
            again = leancore.backward(x, dy, alpha, c)
            assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_devices_do_not_mix(gpu: Any) -> None:
    p = integer_problem(1, 2, 2, (3, 4))
    x, alpha, c, *_ = tensors(p, gpu)
    with pytest.raises(ValueError, match="forward: alpha"):
        leancore.forward(x, alpha.cpu(), c)


def test_another_device_than_the_current_one(gpu: Any) -> None:
    import torch

    from leancore.torch import lean_conv

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two devices")
    p = integer_problem(2, 16, 16, (12, 16))
    with torch.cuda.device(0):
        x, alpha, c, bias, _ = tensors(p, torch.device("cuda", 1))
        y = lean_conv(x, alpha, c, bias)
        assert torch.cuda.current_device() == 0
    assert y.device.index == 1
    assert equal(y, p.y(), np.float32)


def test_work_waits_for_its_stream_and_nobody_waits_for_it(gpu: Any) -> None:
    """x is written late, on the same stream: the call returns before, and reads what was written."""
    import torch

    p = integer_problem(2, 16, 16, (12, 16))
    x, alpha, c, bias, dy = tensors(p, gpu)
    for operation in (
        lambda late: leancore.forward(late, alpha, c, bias=bias),
        lambda late: leancore.backward_weight(late, dy)[0],
    ):
        expected = operation(x)
        torch.cuda.synchronize()
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            late = torch.full_like(x, float("nan"))
            torch.cuda._sleep(int(2e8))  # cycles: some tenths of a second
            late.copy_(x)
            result = operation(late)
            assert not stream.query(), "the call waited for the device"
        stream.synchronize()
        assert torch.equal(result, expected)


def test_scratch_memory_is_not_shared_between_streams(gpu: Any) -> None:
    """Weights' gradients of several streams at once, again and again, in memory that torch hands out again."""
    import torch

    x, _, _, _, dy = tensors(integer_problem(4, 32, 32, (24, 24)), gpu)
    expected = leancore.backward_weight(x, dy)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(4)]
    results = []
    for _ in range(20):
        for stream in streams:
            with torch.cuda.stream(stream):
                results.append(leancore.backward_weight(x, dy))
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for pair in results for a, b in zip(pair, expected, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_captured_in_a_graph(gpu: Any, dtype: Any) -> None:
    import torch

    problems = [integer_problem(2, 16, 16, (12, 16), dtype=dtype, seed=seed) for seed in range(3)]
    x, alpha, c, _, dy = tensors(problems[0], gpu)

    def operations() -> list[Any]:
        return [leancore.forward(x, alpha, c), *leancore.backward(x, dy, alpha, c)]

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        operations()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = operations()
    for p in problems:
        for kept, new in zip((x, alpha, c, dy), (p.x, p.alpha, p.c, p.dy), strict=True):
            kept.copy_(tensor(new, gpu))
        graph.replay()
        torch.cuda.synchronize()
        wanted = [integer_forward(p), *p.gradients()]
        assert all(equal(got, want, dtype) for got, want in zip(results, wanted, strict=True))


def integer_forward(p: Problem) -> np.ndarray:
    """y without the bias."""
    return p.y() - p.bias.astype(np.float64).reshape(1, -1, *[1] * (p.x.ndim - 2))


def test_training_in_a_graph(gpu: Any) -> None:
    """torch.compile in its mode that captures graphs, forward and backward."""
    import torch

    from leancore.torch import LeanConv2d

    torch.compiler.reset()
    model = ternary(torch.nn.Sequential(LeanConv2d(8, 16), torch.nn.ReLU(), LeanConv2d(16, 8))).to(gpu)
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    x = torch.randint(-1, 2, (4, 8, 16, 16), device=gpu).float()

    def gradients(function: Any) -> list[Any]:
        function(x).square().sum().backward()
        taken = [parameter.grad.clone() for parameter in model.parameters()]
        model.zero_grad()
        return taken

    expected = gradients(model)
    for _ in range(4):  # warm-up, capture, replays
        torch.compiler.cudagraph_mark_step_begin()
        assert all(torch.equal(a, b) for a, b in zip(gradients(compiled), expected, strict=True))


def test_more_elements_than_32_bits_count(gpu: Any) -> None:
    import torch

    side, channels = 46400, 1  # more than 2^31 pixels, an image of more than 4 GiB in 16 bits
    if torch.cuda.mem_get_info()[0] < 12 * 2**30:
        pytest.skip("needs 12 GiB of memory on the device")
    x = torch.zeros(1, channels, side, side, dtype=torch.float16, device=gpu)
    places = [(0, 0), (side // 2, 3), (side - 1, side - 1), (side - 2, side - 1)]
    for row, column in places:
        x[0, 0, row, column] = 1
    alpha = torch.tensor([[2.0]], dtype=x.dtype, device=gpu)
    c = torch.tensor([[3.0, 5.0, 7.0, 11.0]], dtype=x.dtype, device=gpu)  # up, left, right, down
    y = leancore.forward(x, alpha, c)
    for row, column in places:
        low, left = max(row - 2, 0), max(column - 2, 0)
        part = np.s_[low : row + 3, left : column + 3]
        alone = leancore.forward(*(t.cpu() for t in (x[(..., *part)].contiguous(), alpha, c)))
        inner = np.s_[..., row - low : row - low + 1, column - left : column - left + 1]
        assert torch.equal(y[(..., *part)][inner].cpu(), alone[inner])


# CuPy


@pytest.fixture
def cupy() -> Iterator[Any]:
    if REHEARSAL:
        pytest.skip("needs a device; test_cuda.py has arrays like CuPy's on the emulated runtime")
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy sees no CUDA device")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        yield cupy
        stream.synchronize()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cupy(cupy: Any, shape: Any, dtype: Any) -> None:
    p = integer_problem(*shape, dtype=dtype)
    q = p.map(cupy.asarray)
    y = leancore.forward(q.x, q.alpha, q.c, bias=q.bias)
    assert type(y) is cupy.ndarray
    results = [y, *leancore.backward(q.x, q.dy, q.alpha, q.c)]
    out = cupy.empty_like(y)
    assert leancore.forward(q.x, q.alpha, q.c, bias=q.bias, out=out) is out
    for got, want in zip([*results, out], [p.y(), *p.gradients(), p.y()], strict=True):
        assert (cupy.asnumpy(got) == want.astype(dtype)).all()


# JAX


@pytest.fixture
def jax() -> Iterator[Any]:
    jax = pytest.importorskip("jax")
    platform = "cpu" if REHEARSAL else "cuda"
    try:
        device = jax.local_devices(backend=platform)[0]
    except RuntimeError as error:
        pytest.skip(f"JAX sees no CUDA device: {error}")
    with jax.enable_x64(True), jax.default_device(device):
        yield jax


def arrays_of(jax: Any, p: Problem) -> tuple[Any, ...]:
    return tuple(jax.numpy.asarray(array) for array in (p.x, p.alpha, p.c, p.bias, p.dy))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[::2], ids=str)
def test_jax(jax: Any, shape: Any, dtype: Any) -> None:
    from leancore.jax import _registered, lean_conv

    assert _registered(), "this jaxlib does not take the kernels"
    for geometry in geometries(len(shape[3])):
        p = integer_problem(*shape, dtype=dtype, **geometry)

        def pulled(x: Any, alpha: Any, c: Any, bias: Any, dy: Any, geometry: Any = geometry) -> Any:
            y, pullback = jax.vjp(lambda *arrays: lean_conv(*arrays, **geometry), x, alpha, c, bias)
            return y, *pullback(dy)[:3]

        results = jax.jit(pulled)(*arrays_of(jax, p))
        for got, want in zip(results, (p.y(), *p.gradients()), strict=True):
            assert got.dtype == dtype
            assert (np.asarray(got) == want.astype(dtype)).all()


def test_jax_vmap_and_many_calls(jax: Any) -> None:
    """Gradients of weights for each example: many calls of the kernel and of its scratch memory in one program."""
    from leancore.jax import lean_conv

    problems = [integer_problem(1, 8, 8, (6, 8), seed=seed) for seed in range(16)]
    alpha, c = (jax.numpy.asarray(a) for a in (problems[0].alpha, problems[0].c))
    x, dy = (jax.numpy.stack([getattr(p, name) for p in problems]) for name in ("x", "dy"))

    def weights(x: Any, dy: Any) -> Any:
        return jax.grad(lambda a, k: (lean_conv(x, a, k) * dy).sum(), (0, 1))(alpha, c)

    dalpha, dc = jax.jit(jax.vmap(weights))(x, dy)
    for k, p in enumerate(problems):
        for got, want in zip((dalpha[k], dc[k]), p.weights(), strict=True):
            assert (np.asarray(got) == want).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES[1::2], ids=str)
def test_jax_arrays_in_the_array_functions(jax: Any, shape: Any, dtype: Any) -> None:
    for geometry in geometries(len(shape[3])):
        p = integer_problem(*shape, dtype=dtype, **geometry)
        x, alpha, c, bias, dy = arrays_of(jax, p)
        y = leancore.forward(x, alpha, c, bias=bias, **geometry)
        results = [y, *leancore.backward(x, dy, alpha, c, **geometry)]
        for got, want in zip(results, (p.y(), *p.gradients()), strict=True):
            assert isinstance(got, jax.Array)
            assert got.device == x.device
            assert (np.asarray(got) == want.astype(dtype)).all()
