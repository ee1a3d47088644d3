"""For the tests of leancore.torch: arguments of small integers, the dense convolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from leancore.torch import LeanConv1d, LeanConv2d, LeanConv3d

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
HALF_DTYPES = (torch.bfloat16, torch.float16)

LAYERS = (LeanConv1d, LeanConv2d, LeanConv3d)

# One for each number of dimensions, of extents that a mix-up of axes would not survive.
SPATIAL = {1: (7,), 2: (5, 6), 3: (4, 3, 5), 4: (3, 2, 4, 3)}


def integers(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-3, 4, shape, generator=generator).to(dtype)


def integer_arguments(
    c_in: int, c_out: int, spatial: tuple[int, ...], batch: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """x, alpha, c, bias."""
    dims = len(spatial)
    return (
        integers(batch, c_in, *spatial, seed=1, dtype=dtype),
        integers(c_out, c_in, seed=2, dtype=dtype),
        integers(min(c_in, c_out), 2 * dims, seed=3, dtype=dtype),
        integers(c_out, seed=4, dtype=dtype),
    )


def channels_last(x: Tensor) -> Tensor:
    """The same values with the channels adjacent in memory, in any number of dimensions."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)


def is_channels_last(x: Tensor) -> bool:
    return x.movedim(1, -1).is_contiguous()


def dense_kernel(alpha: Tensor, c: Tensor, dims: int) -> Tensor:
    """The same operator as one dense 3-wide kernel."""
    diagonal = torch.arange(min(alpha.shape))
    kernel = torch.zeros(*alpha.shape, *[3] * dims, dtype=alpha.dtype, device=alpha.device)
    kernel[(slice(None), slice(None), *[1] * dims)] = alpha
    for axis in range(dims):
        for offset, column in ((0, axis), (2, 2 * dims - 1 - axis)):
            tap = [1] * dims
            tap[axis] = offset
            kernel = kernel.index_put((diagonal, diagonal, *map(torch.tensor, tap)), c[:, column])
    return kernel


def dense_conv(x: Tensor, alpha: Tensor, c: Tensor, bias: Any = None, stride: Any = 1, dilation: Any = 1) -> Tensor:
    dims = x.dim() - 2
    conv = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}[dims]
    return conv(x, dense_kernel(alpha, c, dims), bias, stride, dilation, dilation)


def network(layer: Any) -> nn.Sequential:
    """Integer weights: any correct run of it gives the same bits."""
    model = nn.Sequential(layer(3, 4, bias=True), nn.ReLU(), layer(4, 5, stride=2), nn.ReLU(), layer(5, 2, dilation=2))
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(integers(*parameter.shape, dtype=torch.float32, seed=i))
    return model
