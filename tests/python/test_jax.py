"""leancore.jax: exact results and gradients in jit, grad and vmap, through XLA's interface and through the callback."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from helpers import DTYPES, SMALL, geometries, integer_problem, run_script
from leancore import reference

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402

import leancore  # noqa: E402
import leancore.jax as adapter  # noqa: E402
import xla_frame  # noqa: E402
from leancore.jax import lean_conv  # noqa: E402


@pytest.fixture(autouse=True)
def _float64() -> Any:
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["interface", "callback"])
def route(request: Any, monkeypatch: Any) -> Any:
    assert adapter._registered(), "this jaxlib does not take the kernels"
    jax.clear_caches()
    if request.param == "callback":
        monkeypatch.setattr(adapter, "_registered", lambda: False)
    yield request.param
    jax.clear_caches()


@pytest.fixture
def calls(monkeypatch: Any) -> list[str]:
    """The operations that ran, one entry for each call of a kernel."""
    jax.clear_caches()
    monkeypatch.setattr(adapter, "_registered", lambda: False)
    names: list[str] = []
    called_back = adapter._called_back

    def counted(name: str, *rest: Any) -> Any:
        names.append(name)
        return called_back(name, *rest)

    monkeypatch.setattr(adapter, "_called_back", counted)
    return names


def equal(got: Any, want: np.ndarray, dtype: Any = None) -> bool:
    want = want if dtype is None else want.astype(dtype)
    return got.shape == want.shape and bool((np.asarray(got) == want).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SMALL)
def test_exact_on_integers(route: str, shape: Any, dtype: Any) -> None:
    for geometry in geometries(len(shape[3])):
        p = integer_problem(*shape, dtype=dtype, **geometry)

        def pulled(x: Any, alpha: Any, c: Any, bias: Any, dy: Any, geometry: Any = geometry) -> Any:
            y, pullback = jax.vjp(lambda *args: lean_conv(*args, **geometry), x, alpha, c, bias)
            return y, pullback(dy)

        y, (dx, dalpha, dc, dbias) = jax.jit(pulled)(p.x, p.alpha, p.c, p.bias, p.dy)
        assert y.dtype == dx.dtype == dalpha.dtype == dc.dtype == dbias.dtype == dtype
        assert equal(y, p.y(), dtype)
        assert equal(dx, p.dx(), dtype)
        for got, want in zip((dalpha, dc), p.weights(), strict=True):
            assert equal(got, want, dtype)
        if dtype in (np.float32, np.float64):
            assert equal(dbias, p.dy.sum((0, *range(2, p.dy.ndim))), dtype)


def test_without_jit(route: str) -> None:
    p = integer_problem(2, 3, 5, (4, 6), stride=2)
    assert equal(lean_conv(p.x, p.alpha, p.c, p.bias, 2), p.y())
    assert equal(lean_conv(p.x, p.alpha, p.c, stride=(2, 2)), reference.forward(p.x, p.alpha, p.c, None, 2, 1))


def test_higher_derivatives(route: str) -> None:
    """The gradients are linear in each argument, so their derivatives are the operations themselves: exact again."""
    geometry = {"stride": (2, 1), "dilation": (1, 2)}
    p = integer_problem(2, 3, 4, (5, 6), **geometry)
    rng = np.random.default_rng(1)
    g = rng.integers(-3, 4, p.x.shape).astype(np.float32)
    galpha = rng.integers(-3, 4, p.alpha.shape).astype(np.float32)
    gc = rng.integers(-3, 4, p.c.shape).astype(np.float32)

    def value(x: Any, alpha: Any, c: Any, dy: Any) -> Any:
        return (lean_conv(x, alpha, c, **geometry) * dy).sum()

    def of_dx(alpha: Any, c: Any, dy: Any) -> Any:
        return (jax.grad(value)(p.x, alpha, c, dy) * g).sum()

    def of_weights(x: Any, dy: Any) -> Any:
        dalpha, dc = jax.grad(value, (1, 2))(x, p.alpha, p.c, dy)
        return (dalpha * galpha).sum() + (dc * gc).sum()

    dalpha, dc, ddy = jax.jit(jax.grad(of_dx, (0, 1, 2)))(p.alpha, p.c, p.dy)
    for got, want in zip((dalpha, dc), reference.backward_weight(g, p.dy, *geometry.values()), strict=True):
        assert equal(got, want)
    assert equal(ddy, reference.forward(g, p.alpha, p.c, None, *geometry.values()))

    dx, ddy = jax.jit(jax.grad(of_weights, (0, 1)))(p.x, p.dy)
    assert equal(dx, reference.backward_data(p.dy, galpha, gc, *geometry.values(), p.x.shape))
    assert equal(ddy, reference.forward(p.x, galpha, gc, None, *geometry.values()))

    third = jax.grad(lambda dy: (jax.grad(of_dx)(p.alpha, p.c, dy) * galpha).sum())(p.dy)
    assert equal(third, reference.forward(g, galpha, np.zeros_like(p.c), None, *geometry.values()))


def examples(count: int) -> tuple[list[Any], list[np.ndarray]]:
    problems = [integer_problem(2, 3, 4, (5, 6), seed=seed) for seed in range(count)]
    return problems, [np.stack([getattr(p, name) for p in problems]) for name in ("x", "alpha", "c", "bias", "dy")]


@pytest.mark.parametrize("batched", ["x", "alpha", "c", "bias", "x alpha c bias", "alpha c"])
def test_vmap(route: str, batched: str) -> None:
    problems, stacked = examples(3)
    names = ("x", "alpha", "c", "bias")
    axes = tuple(0 if name in batched.split() else None for name in names)
    given = [s if a == 0 else s[0] for s, a in zip(stacked, axes, strict=False)]
    y = jax.jit(jax.vmap(lean_conv, axes))(*given)
    want = [
        reference.forward(*(g[i] if a == 0 else g for g, a in zip(given, axes, strict=True)), 1, 1)
        for i in range(len(problems))
    ]
    assert equal(y, np.stack(want))


def test_vmap_of_another_axis_and_nested(route: str) -> None:
    _, (x, alpha, c, *_) = examples(3)
    other = jax.vmap(lambda x: lean_conv(x, alpha[0], c[0]), in_axes=2, out_axes=1)(np.moveaxis(x, 0, 2))
    assert equal(other, np.stack([reference.forward(each, alpha[0], c[0], None, 1, 1) for each in x], 1))
    nested = jax.vmap(jax.vmap(lean_conv, (0, None, None)), (None, 0, 0))(x, alpha, c)
    want = [[reference.forward(each, a, k, None, 1, 1) for each in x] for a, k in zip(alpha, c, strict=True)]
    assert equal(nested, np.array(want))


def test_gradient_of_each_example(route: str) -> None:
    problems, (x, _, _, _, dy) = examples(3)
    p = problems[0]
    gradients = jax.vmap(
        jax.grad(lambda x, alpha, c, dy: (lean_conv(x, alpha, c) * dy).sum(), (0, 1, 2)), (0, None, None, 0)
    )
    dx, dalpha, dc = jax.jit(gradients)(x, p.alpha, p.c, dy)
    for i in range(len(problems)):
        assert equal(dx[i], reference.backward_data(dy[i], p.alpha, p.c, 1, 1, x[i].shape))
        for got, want in zip((dalpha[i], dc[i]), reference.backward_weight(x[i], dy[i], 1, 1), strict=True):
            assert equal(got, want)


def test_a_batch_of_x_is_one_call(calls: list[str]) -> None:
    _, (x, alpha, c, *_) = examples(3)
    jax.block_until_ready(jax.jit(jax.vmap(lean_conv, (0, None, None)))(x, alpha[0], c[0]))
    assert calls == ["forward"]
    calls.clear()
    jax.block_until_ready(jax.jit(jax.vmap(lean_conv))(x, alpha, c))
    assert calls == ["forward"] * 3


def test_gradients_that_nobody_wants_are_not_computed(calls: list[str]) -> None:
    p = integer_problem(2, 3, 4, (5, 6))
    gradient = jax.jit(jax.grad(lambda alpha, c: lean_conv(p.x, alpha, c).sum(), (0, 1)))
    jax.block_until_ready(gradient(p.alpha, p.c))
    assert "backward_data" not in calls
    assert "backward_weight" in calls
    calls.clear()
    jax.block_until_ready(jax.jit(jax.grad(lambda x: lean_conv(x, p.alpha, p.c).sum()))(p.x))
    assert "backward_weight" not in calls
    assert "backward_data" in calls


def test_from_several_threads(route: str) -> None:
    p = integer_problem(4, 16, 16, (16, 16))
    compiled = jax.jit(lean_conv)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: np.asarray(compiled(p.x, p.alpha, p.c, p.bias)), range(32)))
    assert all(equal(result, p.y()) for result in results)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_empty(route: str, shape: Any) -> None:
    x = jnp.ones(shape)
    y, pullback = jax.vjp(lean_conv, x, jnp.ones((5, 3)), jnp.ones((3, 4)))
    dx, dalpha, dc = pullback(y)
    assert (y.shape, dx.shape) == ((shape[0], 5, *shape[2:]), shape)
    assert not dalpha.any()
    assert not dc.any()


X, ALPHA, C = np.ones((2, 3, 4, 4), np.float32), np.ones((5, 3), np.float32), np.ones((3, 4), np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X, ALPHA[:, :2], C), ValueError, r"alpha has shape \(5, 2\), expected \(c_out, c_in\) = \(·, 3\)"),
        ((X, ALPHA, C[:2]), ValueError, r"c has shape \(2, 4\), expected \(3, 4\)"),
        ((X, ALPHA, C, ALPHA[0]), ValueError, r"bias has shape \(3,\), expected \(5,\)"),
        ((X[0, 0], ALPHA, C), ValueError, r"x has shape \(4, 4\), expected \(N, c_in, 1 to 4 spatial axes\)"),
        ((X, ALPHA, C, None, 0), ValueError, "stride = 0, expected a positive number or 2 of them"),
        ((X, ALPHA, C, None, 1, (1, 2, 3)), ValueError, r"dilation = \(1, 2, 3\), expected a positive number or 2"),
        ((X, ALPHA.astype(np.float64), C), TypeError, "alpha is float64, expected float32 like x"),
        ((X.astype(int), ALPHA, C), TypeError, "x is int64, expected one of float32"),
    ],
)
def test_what_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="lean_conv: " + message):
        jax.jit(lambda: lean_conv(*arguments))()


AXES = {"stride": np.ones(2, np.int64), "dilation": np.ones(2, np.int64)}


@pytest.mark.parametrize(
    ("name", "arrays", "axes", "message"),
    [
        ("forward", (X, ALPHA), AXES, "2 arrays, expected 3 to 4"),
        ("forward", (X, ALPHA, C, C, C), AXES, "5 arrays, expected 3 to 4"),
        ("backward_weight", (X,), AXES, "1 arrays, expected 2 to"),
        ("forward", (X, ALPHA.T, C), AXES, "alpha has shape"),
        ("forward", (X[..., None, None, None], ALPHA, C), AXES, "7 axes"),
        ("forward", (X.astype(np.int32), ALPHA, C), AXES, "XLA's type 4"),
        ("forward", (X, ALPHA, C), {}, "stride is not an int64 for each of 2 spatial axes"),
        ("forward", (X, ALPHA, C), {**AXES, "dilation": 1}, "dilation is not an int64"),
        ("forward", (X, ALPHA, C), {**AXES, "stride": np.ones(3, np.int64)}, "stride is not an int64"),
        ("forward", (X, ALPHA, C), {**AXES, "stride": np.ones(2, np.int32)}, "stride is not an int64"),
        ("forward", (X[0, 0], ALPHA, C), AXES, "stride is not an int64 for each of 0"),
        ("forward", (X, ALPHA, C), {**AXES, "stride": np.array([1, -1])}, "stride"),
    ],
)
def test_the_handlers_check_what_they_are_called_with(name: str, arrays: Any, axes: Any, message: str) -> None:
    assert adapter._registered()
    results = [jax.ShapeDtypeStruct((2, 5, 4, 4), np.float32)] * (2 if name == "backward_weight" else 1)
    call = jax.ffi.ffi_call(f"leancore_{name}", results)
    with pytest.raises(Exception, match=message):
        jax.block_until_ready(jax.jit(lambda: call(*arrays, **axes))())


def test_a_frame_made_by_hand() -> None:
    """Of jaxlib's own header: it says that what we declare of XLA's structures is right."""
    p = integer_problem(2, 3, 5, (4, 6))
    y = np.empty(p.y().shape, np.float32)
    arrays = [xla_frame.of_host(array) for array in (p.x, p.alpha, p.c, p.bias)]
    outcome = xla_frame.execute("cpu", "forward", arrays, [xla_frame.of_host(y)], (1, 1), (1, 1))
    assert outcome == (0, "", 0, 0, 0)
    assert equal(y, p.y())
    outcome = xla_frame.execute("cpu", "forward", arrays[:2], [xla_frame.of_host(y)], (1, 1), (1, 1))
    assert outcome[:2] == (3, "forward: 2 arrays, expected 3 to 4")  # XLA's invalid argument
    assert outcome.errors == 0


@pytest.mark.parametrize("platform", ["cpu", "CUDA"])
@pytest.mark.parametrize("name", ["forward", "backward_data", "backward_weight"])
def test_what_a_handler_says_of_itself(platform: str, name: str) -> None:
    """No traits: nothing may be captured once and replayed, when its scratch memory belongs to others."""
    assert xla_frame.describe(platform, name) == (0, "", 0)
    # A runtime that cannot say which device it calls for.
    code, message, _ = xla_frame.describe(platform, name, missing=1)
    assert (code, message) == ((0, "") if platform == "cpu" else (13, "leancore: XLA is too old"))


def test_on_cuda_in_a_build_without_it() -> None:
    if leancore.cuda_status() != "built without CUDA":
        pytest.skip("built with CUDA")
    x, alpha, c = (xla_frame.of_host(array) for array in (X, ALPHA, C))
    y = xla_frame.of_host(np.empty((2, 5, 4, 4), np.float32))
    outcome = xla_frame.execute("CUDA", "forward", [x, alpha, c], [y], (1, 1), (1, 1))
    assert outcome[:2] == (13, "forward: CUDA arrays, but leancore was built without CUDA")


def test_a_platform_that_jax_has_not_is_left_alone(monkeypatch: Any) -> None:
    registered = []
    monkeypatch.setattr(jax.ffi, "register_ffi_target", lambda name, handler, platform: registered.append(platform))
    assert adapter._registered.__wrapped__()
    devices = {device.platform for device in jax.local_devices()}
    assert set(registered) == {"cpu"} | ({"CUDA"} if "gpu" in devices else set())
    monkeypatch.setattr(jax, "local_devices", lambda backend: [backend])
    assert adapter._registered.__wrapped__()
    assert set(registered) == {"cpu", "CUDA"}


def test_a_jaxlib_that_takes_no_handlers() -> None:
    """Refused when registered: the callback computes the same, and JAX itself is not harmed."""
    code = """
import numpy as np
from leancore import _core
_core.xla_handlers = lambda: {"cpu": {"forward": "not a capsule"}}
import jax
from leancore.jax import _registered, lean_conv
y = jax.jit(lean_conv)(np.ones((1, 2, 3)), np.ones((2, 2)), np.ones((2, 2)))
print(_registered(), np.asarray(y).tolist())
"""
    done = run_script("-c", code)
    assert done.stdout.strip() == "False [[[3.0, 4.0, 3.0], [3.0, 4.0, 3.0]]]", done.stderr


def test_importing_leancore_imports_no_jax() -> None:
    done = run_script("-c", "import sys, leancore; print('jax' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


# The functions of leancore on arrays of a CUDA device: compiled programs. The device is played by the CPU.


def on_a_device(monkeypatch: Any) -> None:
    class Device:
        platform = "gpu"

    kind = type(jnp.ones(1))
    monkeypatch.setattr(kind, "devices", lambda self: {Device})
    monkeypatch.setattr(kind, "__dlpack_device__", lambda self: (2, 0))
    monkeypatch.setattr(leancore.arrays._core, "implementations", lambda: [("cuda", "played", True)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SMALL[::2])
def test_the_array_functions_on_a_device(monkeypatch: Any, shape: Any, dtype: Any) -> None:
    ran = []
    call = adapter._call
    monkeypatch.setattr(adapter, "_call", lambda name, *rest: ran.append(name) or call(name, *rest))
    on_a_device(monkeypatch)
    jax.clear_caches()
    for geometry in geometries(len(shape[3])):
        p = integer_problem(*shape, dtype=dtype, **geometry)
        q = p.map(jnp.asarray)
        results = [
            leancore.forward(q.x, q.alpha, q.c, bias=q.bias, **geometry),
            leancore.backward_data(q.dy, q.alpha, q.c, x_shape=p.x.shape, **geometry),
            *leancore.backward_weight(q.x, q.dy, **geometry),
            *leancore.backward(q.x, q.dy, q.alpha, q.c, implementation="cuda", **geometry),
        ]
        for got, want in zip(results, [p.y(), p.dx(), *p.weights(), *p.gradients()], strict=True):
            assert isinstance(got, jax.Array)
            assert got.dtype == dtype
            assert equal(got, want, dtype)
    assert set(ran) == {"forward", "backward_data", "backward_weight"}
    without_bias = leancore.forward(q.x, q.alpha, q.c, **geometry)
    assert equal(without_bias + q.bias.reshape(-1, *[1] * (q.x.ndim - 2)), p.y(), dtype)


def test_the_shape_of_dx_is_by_default_that_of_dy_times_the_stride(monkeypatch: Any) -> None:
    p = integer_problem(2, 3, 4, (5, 6), stride=(2, 3))
    expected = leancore.backward_data(p.dy, p.alpha, p.c, stride=(2, 3))
    q = p.map(jnp.asarray)
    on_a_device(monkeypatch)
    assert equal(leancore.backward_data(q.dy, q.alpha, q.c, stride=(2, 3)), expected)


def test_what_the_array_functions_refuse_on_a_device(monkeypatch: Any) -> None:
    p = integer_problem(2, 3, 4, (5, 6))
    q = p.map(jnp.asarray)
    on_a_device(monkeypatch)
    for error, message, call in (
        (ValueError, r"forward: alpha has shape \(3, 4\), .* \(2, 3, 5, 6\)", lambda: (q.x, q.alpha.T, q.c)),
        (TypeError, "forward: c is float64, expected float32", lambda: (q.x, q.alpha, q.c.astype(np.float64))),
        (TypeError, "forward: x has elements of type int32", lambda: (q.x.astype(np.int32), q.alpha, q.c)),
        (ValueError, "forward: alpha is not a JAX array on .*, as x is", lambda: (q.x, p.alpha, q.c)),
        (NotImplementedError, "forward: c is None", lambda: (q.x, q.alpha, None)),
    ):
        with pytest.raises(error, match=message):
            leancore.forward(*call())
    with pytest.raises(ValueError, match=r"backward_weight: dy has shape \(1, 4, 5, 6\)"):
        leancore.backward_weight(q.x, q.dy[:1])
    with pytest.raises(ValueError, match="forward: out is not a JAX array"):
        leancore.forward(q.x, q.alpha, q.c, out=p.dy)
    with pytest.raises(BufferError, match="forward: out is a JAX array, which is immutable"):
        leancore.forward(q.x, q.alpha, q.c, out=q.dy)
    with pytest.raises(NotImplementedError, match="forward: implementation 'cuda_tf32', XLA's programs have 'cuda'"):
        leancore.forward(q.x, q.alpha, q.c, implementation="cuda_tf32")
    monkeypatch.setattr(leancore.arrays._core, "implementations", lambda: [("generic", "", True)])
    with pytest.raises(RuntimeError, match=r"backward_data: JAX arrays on .*, which this leancore cannot use \(.*CUDA"):
        leancore.backward_data(q.dy, q.alpha, q.c)
