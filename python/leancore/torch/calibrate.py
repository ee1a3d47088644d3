"""Least squares: the lean layers whose outputs are nearest to those of dense ones, on given activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leancore.torch.modules import LeanConv1d, LeanConv2d, LeanConv3d
from leancore.torch.replace import Slot
from leancore.torch.stencil import taps

LeanConv = LeanConv1d | LeanConv2d | LeanConv3d


class Moments:
    """What the fit of one layer needs to know of its activations, and no more: second moments, in float64.

    The features of every output channel are the c_in inputs at its position, x; an output channel o < m has the 2 dims
    neighbours in input channel o besides, t. Both are shared or small, so there is one Gram matrix of x, and for each
    channel its 2 dims rows against x and among themselves: with c_in = c_out = c, (1 + 2 dims) c^2 numbers in all,
    instead of c matrices of (c + 2 dims)^2.
    """

    def __init__(self, lean: LeanConv) -> None:
        self.stride, self.dilation, self.dims = lean.stride, lean.dilation, lean.dims
        c_out, c_in = lean.alpha.shape
        m, k = lean.c.shape
        zeros = lean.alpha.new_zeros
        self.count = 0
        self.eps = torch.finfo(torch.float32).eps
        double = torch.float64
        self.x, self.t, self.y = (zeros(s, dtype=double) for s in ((c_in,), (m, k), (c_out,)))
        self.xx, self.xy = zeros((c_in, c_in), dtype=double), zeros((c_in, c_out), dtype=double)
        self.tx, self.tt = zeros((m, k, c_in), dtype=double), zeros((m, k, k), dtype=double)
        self.ty = zeros((m, k), dtype=double)

    def add(self, x: Tensor, y: Tensor) -> None:
        """x: (N, c_in, *spatial), what the layer gets; y: (N, c_out, *spatial), what it should answer."""
        self.eps = max(self.eps, torch.finfo(x.dtype).eps)
        m, k = self.ty.shape
        at_centre, at_taps = self._neighbours(x.double(), m)
        x, t, y = _rows(at_centre), torch.stack([_rows(tap) for tap in at_taps], 1), _rows(y.double())
        self.count += x.shape[1]
        self.x += x.sum(1)
        self.t += t.sum(2)
        self.y += y.sum(1)
        self.xx += x @ x.T
        self.xy += x @ y.T
        self.tx += (t.flatten(0, 1) @ x.T).view(m, k, -1)
        self.tt += t @ t.mT
        self.ty += (t @ y[:m, :, None])[..., 0]

    def _neighbours(self, x: Tensor, m: int) -> tuple[Tensor, list[Tensor]]:
        """x at the positions of y, and the first m channels of x at each tap of those positions."""
        padding = [d for d in reversed(self.dilation) for _ in range(2)]
        padded = F.pad(x, padding)

        def shifted(offsets: Sequence[int]) -> Tensor:
            axes = zip(offsets, self.dilation, x.shape[2:], self.stride, strict=True)
            where: list[Any] = [...]
            where += [slice((1 + o) * d, (1 + o) * d + n, s) for o, d, n, s in axes]
            return padded[tuple(where)]

        return shifted((0,) * self.dims), [shifted(tap)[:, :m] for tap in taps(self.dims)]

    def finite(self) -> bool:
        """Of activations with NaN or infinity no weights could be made. True on meta, where there are no values."""
        sums = torch.cat((self.xx.diagonal(), self.y))
        return sums.is_meta or bool(sums.isfinite().all())

    def fit(self, lean: LeanConv) -> None:
        """Sets alpha, c and bias of a layer to the minimum of sum |y - lean(x)|^2, near to what they are.

        The minimum is that of the sum plus a ridge on the distance from the present weights, so the sum never grows,
        and where the activations do not determine a weight (a dead channel, too few positions) it keeps its value.
        Rounding the activations to unit eps perturbs the matrix of n features, scaled to a unit diagonal, by at most
        n eps: this is the ridge; directions weaker than it are noise.

        The taps are eliminated channel by channel (a Schur complement of 2 dims rows), so that one Cholesky
        factorisation, of the Gram matrix of x, serves all output channels. A bias makes the moments central.
        """
        alpha, c = lean.alpha.detach().double(), lean.c.detach().double()
        m, k = c.shape
        xx, xy, tx, tt, ty = self.xx, self.xy, self.tx, self.tt, self.ty
        if lean.bias is not None:
            n = max(self.count, 1)
            xx = xx - torch.outer(self.x, self.x) / n
            xy = xy - torch.outer(self.x, self.y) / n
            tx = tx - self.t[..., None] * self.x / n
            tt = tt - self.t[:, :, None] * self.t[:, None, :] / n
            ty = ty - self.t * self.y[:m, None] / n
        # What the present weights leave unexplained, against the features.
        xr = xy - xx @ alpha.T
        xr[:, :m] -= torch.einsum("mk,mki->im", c, tx)
        tr = ty - (tx @ alpha[:m, :, None])[..., 0] - (tt @ c[..., None])[..., 0]

        ridge = (xx.shape[0] + k) * self.eps
        scale, tap_scale = _inverse_root(xx.diagonal()), _inverse_root(tt.diagonal(dim1=1, dim2=2))
        xx = scale[:, None] * xx * scale + ridge * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
        tx = tap_scale[..., None] * tx * scale
        tt = tap_scale[:, :, None] * tt * tap_scale[:, None, :] + ridge * torch.eye(k, dtype=tt.dtype, device=tt.device)
        xr, tr = scale[:, None] * xr, tap_scale * tr

        factor = torch.linalg.cholesky(xx)
        dalpha = torch.cholesky_solve(xr, factor)  # (c_in, c_out), as if without taps
        tap_weights = torch.cholesky_solve(tx.flatten(0, 1).T, factor).T.view_as(tx)  # x's best account of each tap
        schur = tt - tx @ tap_weights.mT
        left = tr - (tx @ dalpha.T[:m, :, None])[..., 0]
        dc = torch.linalg.solve(schur, left[..., None])[..., 0]
        dalpha[:, :m] -= torch.einsum("mki,mk->im", tap_weights, dc)

        alpha, c = alpha + (scale[:, None] * dalpha).T, c + tap_scale * dc
        with torch.no_grad():
            lean.alpha.copy_(alpha)
            lean.c.copy_(c)
            if lean.bias is not None and self.count:
                explained = alpha @ self.x
                explained[:m] += (c * self.t).sum(1)
                lean.bias.copy_((self.y - explained) / self.count)


def check_batched(name: str, dense: nn.Module, y: Tensor) -> None:
    """ValueError where a convolution, which gave y, was called without a batch axis."""
    weight = dense.weight
    assert isinstance(weight, Tensor)
    if y.dim() != weight.dim():
        raise ValueError(
            f"convert: {name} gives {tuple(y.shape)}, without a batch axis, which lean layers need; is an input of the "
            "model batched?"
        )


def _rows(t: Tensor) -> Tensor:
    """(N, channels, *spatial) -> (channels, N positions)."""
    return t.transpose(0, 1).flatten(1)


def _inverse_root(diagonal: Tensor) -> Tensor:
    return torch.where(diagonal > 0, diagonal, 1).rsqrt()


@dataclass(frozen=True)
class _Call:
    x: Tensor
    y: Tensor


class _Reached(Exception):
    """Ends a forward pass behind the last layer of interest."""


def _calls(run: Callable[[], Any], module: nn.Module, last: int) -> list[_Call]:
    """What comes into the module and out of it, without the effect of its own hooks on y, in the first calls."""
    calls: list[_Call] = []

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> None:
        calls.append(_Call(args[0] if args else kwargs["input"], y))
        if len(calls) == last:
            raise _Reached

    handle = module.register_forward_hook(hook, with_kwargs=True, prepend=True)
    try:
        run()
    except _Reached:
        pass
    finally:
        handle.remove()
    return calls


def calibrate(
    run: Callable[[Any], Any], batches: Sequence[Any], layers: Sequence[tuple[Slot, LeanConv]]
) -> set[LeanConv]:
    """Fits the lean layers one after the other, in the order in which the model calls them; returns those it calls.

    Each is fitted to what the dense network has at its output, from what the network made lean so far has at its
    input, so that it also corrects, as far as it can, for the error of all before it. That takes two passes over the
    batches for each layer, up to that layer. Fitting all layers from the activations of the dense network would take
    one pass in all, but lets the errors add up.

    The model has the dense layers installed on entry, and the lean ones on return.
    """
    order: dict[nn.Module, list[int]] = {}
    lean_of = {slot.module: (slot, lean) for slot, lean in layers}

    def count(module: nn.Module, args: Any, y: Tensor) -> None:
        check_batched(lean_of[module][0].name, module, y)
        order.setdefault(module, [0])[0] += 1

    def count_all(batch: Any) -> dict[nn.Module, int]:
        order.clear()
        handles = [slot.module.register_forward_hook(count, prepend=True) for slot, _ in layers]
        try:
            run(batch)
        finally:
            for handle in handles:
                handle.remove()
        return {module: times[0] for module, times in order.items()}

    counts = [count_all(batch) for batch in batches]
    sequence = list(dict.fromkeys(module for each in counts for module in each))
    done: list[nn.Module] = []

    def install(lean: bool) -> None:
        for module in done:
            slot, replacement = lean_of[module]
            slot.install(replacement if lean else module)

    for module in sequence:
        slot, lean = lean_of[module]
        moments = Moments(lean)
        for batch, times in zip(batches, counts, strict=True):
            last = times.get(module, 0)
            if last == 0:
                continue
            install(lean=False)
            wanted = _calls(lambda b=batch: run(b), module, last)  # type: ignore[misc]
            install(lean=True)
            given = _calls(lambda b=batch: run(b), module, last)  # type: ignore[misc]
            for g, w in zip(given, wanted, strict=True):
                moments.add(g.x, w.y)
        if not moments.finite():
            raise ValueError(f"convert: on the batches, the activations at {slot.name} are not finite")
        moments.fit(lean)
        done.append(module)
    install(lean=True)
    for slot, lean in layers:
        slot.install(lean)
    return {lean_of[module][1] for module in sequence}
