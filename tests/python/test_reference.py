"""The NumPy definition against something that was written by others: torch's convolution with a dense kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import SMALL, Problem, geometries, integer_problem

torch = pytest.importorskip("torch")


def taps(dims: int) -> list[tuple[int, ...]]:
    """Positions in the 3-wide kernel of the columns of c, written down from the figure of the stencil."""
    return {
        1: [(0,), (2,)],  # left, right
        2: [(0, 1), (1, 0), (1, 2), (2, 1)],  # up, left, right, down
        3: [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 2), (1, 2, 1), (2, 1, 1)],  # front, the four of 2-D, back
    }[dims]


def dense_kernel(p: Problem) -> np.ndarray:
    dims = p.x.ndim - 2
    kernel = np.zeros((*p.alpha.shape, *(3,) * dims))
    kernel[(..., *(1,) * dims)] = p.alpha
    for k, tap in enumerate(taps(dims)):
        for j in range(len(p.c)):
            kernel[(j, j, *tap)] += p.c[j, k]
    return kernel


CASES = [(*sizes, g) for sizes in SMALL if len(sizes[3]) <= 3 for g in geometries(len(sizes[3]))]


@pytest.mark.parametrize(("batch", "c_in", "c_out", "spatial", "geometry"), CASES)
def test_reference_is_the_dense_convolution(
    batch: int, c_in: int, c_out: int, spatial: tuple[int, ...], geometry: dict[str, Any]
) -> None:
    p = integer_problem(batch, c_in, c_out, spatial, dtype=np.float64, **geometry)
    dims = len(spatial)
    x = torch.tensor(p.x, requires_grad=True)
    kernel = torch.tensor(dense_kernel(p), requires_grad=True)
    convolve = getattr(torch.nn.functional, f"conv{dims}d")
    y = convolve(x, kernel, torch.tensor(p.bias), stride=p.stride, padding=p.dilation, dilation=p.dilation)
    assert np.array_equal(p.y(), y.detach().numpy())

    y.backward(torch.tensor(p.dy))
    assert np.array_equal(p.dx(), x.grad.numpy())
    dalpha, dc = p.weights()
    assert all(np.array_equal(a, b) for a, b in zip(p.gradients(), (p.dx(), dalpha, dc), strict=True))
    gradient = kernel.grad.numpy()
    assert np.array_equal(dalpha, gradient[(..., *(1,) * dims)])
    for k, tap in enumerate(taps(dims)):
        assert np.array_equal(dc[:, k], [gradient[(j, j, *tap)] for j in range(len(p.c))])


@pytest.mark.parametrize("geometry", list(geometries(4)))
def test_reference_in_4d_contains_3d(geometry: dict[str, Any]) -> None:
    """No framework has a 4-D convolution: of an extent of 1 in the first axis, the two outer columns of c are idle."""
    p = integer_problem(2, 3, 4, (1, 4, 3, 5), dtype=np.float64, **geometry)
    inner = {k: v if isinstance(v, int) else v[1:] for k, v in geometry.items()}
    flat = Problem(p.x[:, :, 0], p.alpha, p.c[:, 1:-1], p.bias, p.dy[:, :, 0], **inner)
    assert np.array_equal(p.y()[:, :, 0], flat.y())
    assert np.array_equal(p.dx()[:, :, 0], flat.dx())
    dalpha, dc = p.weights()
    assert np.array_equal(dalpha, flat.weights()[0])
    assert np.array_equal(dc[:, 1:-1], flat.weights()[1])
    assert not dc[:, [0, -1]].any()


def test_reference_in_4d_treats_its_axes_alike() -> None:
    """Exchanging two axes of x and their columns of c exchanges those of y."""
    p = integer_problem(1, 3, 2, (3, 4, 2, 5), dtype=np.float64)
    swapped = Problem(p.x.swapaxes(2, 5), p.alpha, p.c[:, [3, 1, 2, 0, 7, 5, 6, 4]], p.bias, p.dy.swapaxes(2, 5), 1, 1)
    assert np.array_equal(p.y().swapaxes(2, 5), swapped.y())
    assert np.array_equal(p.dx().swapaxes(2, 5), swapped.dx())
