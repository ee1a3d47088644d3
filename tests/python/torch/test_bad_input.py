"""What lean_conv refuses, with a message that names the argument, and unusual tensors that it gets right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from leancore.torch import LeanConv2d, lean_conv, shift
from torch_helpers import integer_arguments

NAMES = ("x", "alpha", "c", "bias")


def arguments() -> dict[str, Any]:
    return dict(zip(NAMES, integer_arguments(3, 4, (5, 4)), strict=True))


def quantised(t: Tensor) -> Tensor:
    return torch.quantize_per_tensor(t.float(), 1.0, 0, torch.qint8)


NOT_TENSORS = {
    "list": (lambda t: t.tolist(), "list"),
    "array": (lambda t: t.numpy(), "ndarray"),
    "number": (lambda t: 1.0, "float"),
    "type": (lambda t: type(t), "_?TensorMeta"),
}
WRONG_KINDS = {
    "coo": (lambda t: t.to_sparse(), r"torch\.sparse_coo"),
    "csr": (lambda t: t.flatten(1).to_sparse_csr() if t.dim() > 1 else t.to_sparse(), r"torch\.sparse_c"),
    "mkldnn": (lambda t: t.float().to_mkldnn(), r"torch\._mkldnn"),
    "quantised": (quantised, "quantised"),
    "int64": (lambda t: t.long(), r"torch\.int64"),
    "uint8": (lambda t: t.abs().to(torch.uint8), r"torch\.uint8"),
    "bool": (lambda t: t.bool(), r"torch\.bool"),
    "complex64": (lambda t: t.to(torch.complex64), r"torch\.complex64"),
    "complex128": (lambda t: t.to(torch.complex128), r"torch\.complex128"),
    "conjugate": (lambda t: t.to(torch.complex128).conj(), r"torch\.complex128"),
    "nested": (lambda t: torch.nested.nested_tensor([t, t]), "nested"),
    "jagged": (lambda t: torch.nested.nested_tensor([t, t], layout=torch.jagged), r"nested|torch\.jagged"),
}
noisy = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:.*nested tensors", "ignore:.*CSR")


@noisy
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [*NOT_TENSORS, *WRONG_KINDS])
def test_wrong_kinds(name: str, kind: str) -> None:
    make, text = {**NOT_TENSORS, **WRONG_KINDS}[kind]
    given = arguments()
    with pytest.raises(TypeError, match=rf"lean_conv: {name} is {text}.*, expected"):
        lean_conv(**{**given, name: make(given[name])})
    lean_conv(**given)


def test_gradients_of_the_wrong_kind() -> None:
    given = arguments()
    y = lean_conv(**{**given, "x": given["x"].requires_grad_()})
    with pytest.raises(TypeError, match=r"dy is torch\.sparse_coo, expected a dense tensor"):
        torch.autograd.grad(y, given["x"], torch.ones_like(y).to_sparse())


def test_none_is_a_bias_only() -> None:
    assert lean_conv(**{**arguments(), "bias": None}).shape == (2, 4, 5, 4)
    for name in ("x", "alpha", "c"):
        with pytest.raises(TypeError, match=f"lean_conv: {name} is NoneType, expected"):
            lean_conv(**{**arguments(), name: None})


@pytest.mark.parametrize("name", ["alpha", "c", "bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_mixed_dtypes(name: str, dtype: torch.dtype) -> None:
    given = arguments()
    with pytest.raises(TypeError, match=rf"lean_conv: {name} is {dtype}, expected torch\.float64 like x"):
        lean_conv(**{**given, name: given[name].to(dtype)})


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float8_e4m3fn])
def test_dtypes_without_kernels(dtype: torch.dtype, device: str) -> None:
    given = {name: t.to(dtype).to(device) for name, t in arguments().items()}
    with pytest.raises(TypeError, match=rf"lean_conv: x is {dtype}, expected float32, float64"):
        lean_conv(**given)
    with pytest.raises(TypeError, match=rf"shift: x is {dtype}, expected float32, float64"):
        shift(given["x"])


@pytest.mark.parametrize("name", ["alpha", "c", "bias"])
def test_mixed_devices(name: str) -> None:
    given = arguments()
    with pytest.raises(ValueError, match=f"lean_conv: {name} is on meta, expected cpu like x"):
        lean_conv(**{**given, name: given[name].to("meta")})
    with pytest.raises(ValueError, match="lean_conv: alpha is on cpu, expected meta like x"):
        lean_conv(**{**given, "x": given["x"].to("meta")})


@pytest.mark.parametrize("how", ["real", "meta", "fake", "compiled"])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x", lambda x: x[0, 0]),
        ("x", lambda x: x[None, None, None]),
        ("x", lambda x: x[:, :2]),
        ("alpha", lambda alpha: alpha[:, :2]),
        ("alpha", lambda alpha: alpha[0]),
        ("alpha", lambda alpha: alpha[..., None]),
        ("c", lambda c: c[:, :3]),
        ("c", lambda c: c[:2]),
        ("c", lambda c: c.flatten()),
        ("bias", lambda bias: bias[:3]),
        ("bias", lambda bias: bias[:, None]),
        ("bias", lambda bias: bias[0]),
    ],
)
def test_shapes_that_do_not_fit(how: str, name: str, change: Any) -> None:
    given = arguments()
    wrong = {**given, name: change(given[name])}
    # Of x and alpha that do not fit, it is alpha that does not fit x.
    named = "x|alpha" if name == "x" else name
    with FakeTensorMode() as mode:
        fakes = {key: mode.from_tensor(t) for key, t in wrong.items()}
    calls: dict[str, Any] = {
        "real": lambda: lean_conv(**wrong),
        "meta": lambda: lean_conv(**{key: t.to("meta") for key, t in wrong.items()}),
        "fake": lambda: lean_conv(**fakes),
        "compiled": lambda: torch.compile(lean_conv, backend="eager")(**wrong),
    }
    expected = Exception if how == "compiled" else ValueError  # dynamo has its own classes around what it traced
    with pytest.raises(expected, match=rf"({named}) has shape .*, expected"):
        calls[how]()
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (2**63, ValueError),
        ((1, 0), ValueError),
        ((1,), ValueError),
        ((1, 1, 1), ValueError),
        ((), ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (None, TypeError),
        ((1, 1.5), TypeError),
        ((1, "2"), TypeError),
        (torch.tensor(1.5), TypeError),
    ],
)
def test_stride_and_dilation(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"lean_conv: {name}"):
        lean_conv(**arguments(), **{name: value})


def test_stride_and_dilation_of_other_integer_types() -> None:
    given = arguments()
    expected = lean_conv(**given, stride=2)
    for value in (np.int64(2), [2, 2], (np.int32(2), 2), torch.Size((2, 2)), torch.tensor(2), True + 1):
        assert torch.equal(lean_conv(**given, stride=value), expected)


# Subclasses of Tensor


class Tagged(Tensor):
    """Follows torch's rule for subclasses: what is made of one is one."""


def test_a_subclass_comes_out_as_it_went_in() -> None:
    given = arguments()
    y = lean_conv(**{**given, "x": given["x"].as_subclass(Tagged)})
    assert type(y) is Tagged
    assert torch.equal(y.as_subclass(Tensor), lean_conv(**given))
    x = given["x"].clone().as_subclass(Tagged).requires_grad_()
    lean_conv(**{**given, "x": x}).sum().backward()
    assert x.grad is not None


def test_a_function_mode_and_a_subclass_may_take_over() -> None:
    class Replaced(Tensor):
        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return "replaced" if function is lean_conv else super().__torch_function__(function, types, args, kwargs)

    given = arguments()
    assert lean_conv(**{**given, "c": given["c"].as_subclass(Replaced)}) == "replaced"


def test_a_subclass_of_two_tensors_computes_both() -> None:
    """One of torch's own tests of subclasses, whose operators arrive at its __torch_dispatch__."""
    given = arguments()
    x = given["x"]
    y = lean_conv(**{**given, "x": TwoTensor(x, 2 * x)})
    assert torch.equal(y.a, lean_conv(**given))
    assert torch.equal(y.b, lean_conv(**{**given, "x": 2 * x}))


def test_a_subclass_without_data() -> None:
    class Elsewhere(Tensor):
        @staticmethod
        def __new__(cls, like: Tensor) -> Any:
            return Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)  # type: ignore[attr-defined]

        def __init__(self, like: Tensor) -> None:
            pass

        @classmethod
        def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            with torch._C._DisableTorchDispatch():
                return function(*args, **(kwargs or {}))

    given = arguments()
    for name in NAMES:
        with pytest.raises(TypeError, match=f"{name} is a Elsewhere, which keeps its data elsewhere"):
            lean_conv(**{**given, name: Elsewhere(given[name])})


def test_parameters_and_buffers_are_tensors() -> None:
    given = arguments()
    expected = lean_conv(**given)
    for wrap in (nn.Parameter, nn.Buffer):
        assert torch.equal(lean_conv(**{name: wrap(t) for name, t in given.items()}), expected)


def test_an_uninitialised_parameter() -> None:
    given = arguments()
    for name in NAMES:
        with pytest.raises((TypeError, ValueError, RuntimeError), match=r"[Uu]ninitialized"):
            lean_conv(**{**given, name: nn.UninitializedParameter(dtype=torch.float64)})


def test_a_layer_names_itself() -> None:
    with pytest.raises(ValueError, match=r"LeanConv2d: x has shape .* expected \(N, 3\) and 2 spatial axes"):
        LeanConv2d(3, 4)(torch.ones(3, 5, 5))
