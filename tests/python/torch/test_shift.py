"""The shift in torch: values, layouts, derivatives of every mode, the compiler, export, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from leancore.torch import decompositions, shift
from torch_helpers import DTYPES, SPATIAL, channels_last, integers, is_channels_last

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

OP = torch.ops.leancore.shift.default
OWN = [(0, 1), (-2, 0), (9, 0)]
FLAT = [0, 1, -2, 0, 9, 0]


def slices(x: Tensor, offsets: Any = None) -> Tensor:
    """One slice of x into one of zeros for each group."""
    dims = x.dim() - 2
    groups = list(itertools.product((-1, 0, 1), repeat=dims)) if offsets is None else offsets
    parts = []
    for source, offset in zip(torch.tensor_split(x, len(groups), 1), groups, strict=True):
        extents = x.shape[2:]
        moved = [max(-n, min(o, n)) for o, n in zip(offset, extents, strict=True)]
        at = tuple(slice(max(o, 0), n + min(o, 0)) for o, n in zip(moved, extents, strict=True))
        of = tuple(slice(max(-o, 0), n - max(o, 0)) for o, n in zip(moved, extents, strict=True))
        part = torch.zeros_like(source)
        part[(..., *at)] = source[(..., *of)]
        parts.append(part)
    return torch.cat(parts, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_values_and_layout(dims: int, dtype: torch.dtype) -> None:
    x = integers(2, 85, *SPATIAL[dims], dtype=dtype)
    y = shift(x)
    assert torch.equal(y, slices(x))
    assert y.is_contiguous()
    last = shift(channels_last(x))
    assert is_channels_last(last)
    assert torch.equal(last, y)
    assert torch.equal(shift(x.transpose(0, 2)), slices(x.transpose(0, 2)))


@pytest.mark.parametrize("offsets", [OWN, [[1, 0]], ((0, 0),), [torch.Size((1, -1))] * 7])
def test_offsets_of_ones_own(offsets: Any) -> None:
    x = integers(2, 5, 5, 6)
    assert torch.equal(shift(x, offsets), slices(x, offsets))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_opcheck(dims: int, last: bool) -> None:
    x = integers(2, 5, *SPATIAL[dims])
    x = (channels_last(x) if last else x).requires_grad_()
    offsets = list(range(-1, 2 * dims - 1))
    assert set(opcheck(OP, (x, offsets)).values()) == {"SUCCESS"}


@pytest.mark.parametrize("run", [lambda x: shift(x, OWN), lambda x: OP(x, FLAT)])
def test_derivatives_of_every_mode(run: Any) -> None:
    x = integers(2, 4, 3, 4).requires_grad_()
    checks: dict[str, Any] = {"nondet_tol": 0, "fast_mode": False}
    assert gradcheck(run, x, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True, **checks)
    assert gradgradcheck(run, x, check_fwd_over_rev=True, check_batched_grad=True, **checks)


def test_the_gradient_is_exact() -> None:
    x, dy = integers(2, 11, 5, 6).requires_grad_(), integers(2, 11, 5, 6, seed=1)
    y = shift(x)
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    (expected,) = torch.autograd.grad(slices(x), x, dy)
    assert torch.equal(dx, expected)
    assert (y * dy).sum() == (x * dx).sum()
    last = channels_last(x.detach()).requires_grad_()
    (dx,) = torch.autograd.grad(shift(last), last, channels_last(dy))
    assert is_channels_last(dx)
    assert torch.equal(dx, expected)


def test_torch_func() -> None:
    x, t = integers(2, 11, 5, 6), integers(2, 11, 5, 6, seed=1)
    y, slope = jvp(shift, (x,), (t,))
    assert torch.equal(y, slices(x))
    assert torch.equal(slope, slices(t))
    _, pull = vjp(shift, x)
    dx = pull(t)[0]
    assert torch.equal(grad(lambda x: (shift(x) * t).sum())(x), dx)
    assert torch.equal(grad(lambda x: (OP(x, FLAT) * t).sum())(x), vjp(lambda x: slices(x, OWN), x)[1](t)[0])
    many = integers(3, 2, 11, 5, 6)
    assert torch.equal(vmap(shift)(many), torch.stack([slices(each) for each in many]))
    assert torch.equal(vmap(shift, 2, 1)(many.movedim(0, 2)), torch.stack([slices(each) for each in many], 1))
    gradients = vmap(grad(lambda x, t: (shift(x) * t).sum()))(many, many)
    assert torch.equal(gradients, torch.stack([vjp(shift, each)[1](each)[0] for each in many]))


@pytest.mark.parametrize("last", [False, True])
def test_compiled(last: bool) -> None:
    x = integers(2, 11, 5, 6, dtype=torch.float32)
    x = (channels_last(x) if last else x).requires_grad_()
    compiled = torch.compile(lambda x: shift(x.relu()) * 2, backend="aot_eager", fullgraph=True, dynamic=True)
    for result in (compiled(x), shift(x.relu()) * 2):
        result.square().sum().backward()
        (gradient, x.grad) = (x.grad, None)
        assert gradient is not None
        assert torch.equal(result, slices(x.relu()) * 2)
        assert torch.equal(gradient, torch.autograd.grad((slices(x.relu()) * 2).square().sum(), x)[0])


def test_exported_and_decomposed_into_stock_operators() -> None:
    class Moved(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return shift(x)

    x = integers(2, 11, 5, 6, dtype=torch.float32)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Moved(), (x,), dynamic_shapes={"x": {0: batch}})
    assert "leancore.shift" in str(program.graph)
    stock = program.run_decompositions(decompositions())
    assert "leancore" not in str(stock.graph)
    other = integers(3, 11, 5, 6, dtype=torch.float32)
    for module in (program.module(), stock.module()):
        assert torch.equal(module(other), slices(other))


@pytest.mark.parametrize("dims", [1, 2, 3, 4])
def test_the_decomposition_is_the_operator(dims: int) -> None:
    x = integers(2, 5, *SPATIAL[dims])
    offsets = [(0,) * dims, (1,) + (-2,) * (dims - 1), (99,) * dims]
    flat = list(itertools.chain.from_iterable(offsets))
    stock = make_fx(lambda x: OP(x, flat), decomposition_table=decompositions())(x)
    assert "leancore" not in str(stock.graph)
    assert torch.equal(stock(x), slices(x, offsets))


def test_it_has_no_arithmetic() -> None:
    with FlopCounterMode(display=False) as counter:
        shift(integers(2, 11, 5, 6))
    assert counter.get_total_flops() == 0


def test_autocast_leaves_it_alone() -> None:
    x = integers(2, 11, 5, 6, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(shift(x), slices(x))


def test_meta_and_negated_and_empty_tensors() -> None:
    assert shift(torch.empty(2, 11, 5, 6, device="meta")).shape == (2, 11, 5, 6)
    x = torch.complex(integers(2, 11, 5, 6), integers(2, 11, 5, 6, seed=1)).conj().imag
    assert x.is_neg()
    assert torch.equal(shift(x), slices(x.resolve_neg()))
    assert shift(torch.empty(0, 11, 5, 6)).shape == (0, 11, 5, 6)


@pytest.mark.parametrize(
    ("kind", "text", "args"),
    [
        (TypeError, "shift: x is list, expected a torch.Tensor", ([1.0],)),
        (TypeError, "shift: x is torch.int64, expected a floating", (torch.zeros(1, 1, 2, dtype=torch.int64),)),
        (TypeError, "shift: x is torch.sparse_coo, expected a dense", (torch.zeros(1, 1, 2).to_sparse(),)),
        (ValueError, r"shift: x has shape \(1, 2\), expected", (torch.zeros(1, 2),)),
        (ValueError, "shift: x has shape", (torch.zeros(1, 1, 1, 1, 1, 1, 1),)),
        (TypeError, "shift: offsets is 3, expected a sequence", (torch.zeros(1, 1, 2, 2), 3)),
        (TypeError, "expected a sequence of offsets, 2 ints", (torch.zeros(1, 1, 2, 2), [(0.5, 1)])),
        (ValueError, "expected at least one offset, of 2 ints", (torch.zeros(1, 1, 2, 2), [])),
        (ValueError, "expected at least one offset, of 2 ints", (torch.zeros(1, 1, 2, 2), [(1,)])),
        # Backward would ask for the opposite, which no int64 is.
        (ValueError, "expected ints of 64 bits", (torch.zeros(1, 1, 2, 2), [(0, -(2**63))])),
    ],
)
def test_what_does_not_fit_is_refused(kind: type[Exception], text: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(kind, match=text):
        shift(*args)


def test_the_operator_refuses_offsets_that_do_not_fit() -> None:
    for x in (torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2, device="meta")):
        for offsets in ([], [1]):
            with pytest.raises(ValueError, match="expected a multiple of 2"):
                OP(x, offsets)
