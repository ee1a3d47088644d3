"""Where the taps of the lean convolution lie in the 3-wide kernel that it stands for."""

from __future__ import annotations

import torch
from torch import Tensor


def taps(dims: int) -> list[tuple[int, ...]]:
    """Offsets from the centre, -1, 0 or 1 along each axis, in the order of the columns of c."""
    before = [tuple(-(axis == a) for axis in range(dims)) for a in range(dims)]
    return before + [tuple(-offset for offset in tap) for tap in reversed(before)]


def tap_indices(dims: int) -> list[tuple[int, ...]]:
    """The index of each tap in a 3-wide kernel, in the order of the columns of c."""
    return [tuple(1 + offset for offset in tap) for tap in taps(dims)]


def entry(weight: Tensor, index: tuple[int, ...]) -> Tensor:
    """One spatial entry of a kernel (c_out, c_in, 3, ...), for all channels: a view (c_out, c_in)."""
    for i in reversed(index):
        weight = weight.select(-1, i)
    return weight


def project(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The lean convolution nearest to a dense one: (c_out, c_in, 3, ...) -> alpha (c_out, c_in), c (m, 2 dims).

    Lean convolutions are the dense kernels that vanish at all corners (in 3-D and 4-D edges too) and, off the diagonal
    o = i, at the cross taps: a linear subspace spanned by single entries of the kernel. These are orthonormal in the
    Frobenius inner product, so the nearest element keeps the entries of the subspace and drops the others. What is lost
    is the norm of the dropped entries.
    """
    dims = weight.dim() - 2
    alpha = entry(weight, (1,) * dims)
    c = torch.stack([entry(weight, index).diagonal() for index in tap_indices(dims)], 1)
    return alpha, c
