"""Where the taps of the lean convolution lie in the 3-wide kernel that it stands for."""

from __future__ import annotations

from torch import Tensor


def taps(dims: int) -> list[tuple[int, ...]]:
    """Offsets from the centre, -1, 0 or 1 along each axis, in the order of the columns of c."""
    before = [tuple(-(axis == a) for axis in range(dims)) for a in range(dims)]
    return before + [tuple(-offset for offset in tap) for tap in reversed(before)]


def centre(dims: int) -> tuple[int, ...]:
    """The index of the centre in a 3-wide kernel."""
    return (1,) * dims


def tap_indices(dims: int) -> list[tuple[int, ...]]:
    """The index of each tap in a 3-wide kernel, in the order of the columns of c."""
    return [tuple(1 + offset for offset in tap) for tap in taps(dims)]


def project(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The lean convolution nearest to a dense one: (c_out, c_in, 3, ...) -> alpha (c_out, c_in), c (m, 2 dims).

    Lean convolutions are the dense kernels that vanish at all corners (in 3-D and 4-D edges too) and, off the diagonal
    o = i, at the cross taps: a linear subspace spanned by single entries of the kernel. These are orthonormal in the
    Frobenius inner product, so the nearest element keeps the entries of the subspace and drops the others. What is lost
    is the norm of the dropped entries.
    """
    dims = weight.dim() - 2
    alpha = weight[(slice(None), slice(None), *centre(dims))]
    c = [weight[(slice(None), slice(None), *index)].diagonal() for index in tap_indices(dims)]
    stacked = weight.new_empty(min(weight.shape[:2]), 2 * dims)
    for k, column in enumerate(c):
        stacked[:, k] = column
    return alpha, stacked
