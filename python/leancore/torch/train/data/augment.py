"""Random crops and flips of a batch of images at once, on bytes; what is random is drawn first and then applied.

Drawn apart, because the processes of a run each draw for the whole batch and apply their own part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Crop = Literal["none", "padded", "resized"]

_ATTEMPTS = 10  # at a box that fits, of each image


@dataclass(frozen=True)
class Augmentation:
    """What may be done to a training image without changing its class. `Augmentation()` does nothing.

    crop:
        none: the image as it is.
        padded: the image shifted by up to `padding` pixels each way, all shifts equally likely, zeros moving in.
        resized: a box inside of the image, resized bilinearly to the size of the image. The box is distributed as
            torchvision's RandomResizedCrop: area / image area uniform in `scale`, the logarithm of width / height
            uniform in those of `ratio`, sides rounded to pixels, position uniform; the first of ten tries that fits,
            else the largest central box of a permitted ratio.
    flip: mirrored left to right with probability 1/2.

    Raises ValueError for values outside of these rules.
    """

    crop: Crop = "none"
    padding: int = 0
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False

    def __post_init__(self) -> None:
        if self.crop not in get_args(Crop):
            raise ValueError(f"crop is {self.crop!r}, expected {', '.join(get_args(Crop))}")
        if self.padding < 0:
            raise ValueError(f"padding is {self.padding}, expected at least 0")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is {self.scale}, expected two numbers in ascending order, above 0 and up to 1")
        if not 0 < self.ratio[0] <= self.ratio[1] < math.inf:
            raise ValueError(f"ratio is {self.ratio}, expected two positive numbers in ascending order")

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """images: uint8 (N, channels, H, W), of any spatial dimensions for the crop `none`; the result is alike."""
        return self.apply(images, self.draw(images.shape, generator))

    def draw(self, shape: torch.Size, generator: Generator) -> Draws:
        """All that is random in the augmentation of images of this shape. Always takes as much of the generator."""
        n = shape[0]
        box = torch.zeros(4, n, dtype=torch.int64)
        if self.crop != "none":
            if len(shape) != 4:
                raise ValueError(f"images are {tuple(shape)}, expected (N, channels, H, W) to crop them")
            if self.crop == "padded":
                box[:2] = torch.randint(0, 2 * self.padding + 1, (2, n), generator=generator)
                box[2], box[3] = shape[2], shape[3]
            else:
                box = self._draw_boxes(n, shape[2], shape[3], generator)
        mirrored = torch.rand(n, generator=generator) < 0.5 if self.flip else torch.zeros(n, dtype=torch.bool)
        top, left, height, width = box
        return Draws(top, left, height, width, mirrored)

    def apply(self, images: Tensor, draws: Draws) -> Tensor:
        """As __call__, with what is random given: one entry for each image."""
        if self.crop == "padded":
            images = _crop(F.pad(images, (self.padding,) * 4), images.shape, draws)
        elif self.crop == "resized":
            images = _resize(images, draws)
        if self.flip:
            images = torch.where(draws.mirrored.view(-1, *(1,) * (images.dim() - 1)), images.flip(-1), images)
        return images

    def _draw_boxes(self, n: int, height: int, width: int, generator: Generator) -> Tensor:
        """int64 (4, n): top, left, height and width."""
        # In NumPy, where the number of threads has no say in how a logarithm is rounded.
        uniform = torch.rand((2 * _ATTEMPTS + 2, n), dtype=torch.float64, generator=generator).numpy()
        low, high = self.scale
        areas = height * width * (low + (high - low) * uniform[:_ATTEMPTS])
        low, high = np.log(self.ratio)
        ratios = np.exp(low + (high - low) * uniform[_ATTEMPTS:-2])
        heights, widths = np.rint(np.sqrt(areas / ratios)), np.rint(np.sqrt(areas * ratios))
        fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
        first = fits.argmax(0), np.arange(n)
        central = self._central_box(height, width)
        sides = np.where(fits.any(0), (heights[first], widths[first]), np.reshape(central, (2, 1)))
        free = np.reshape((height, width), (2, 1)) - sides
        corners = np.where(fits.any(0), np.floor(uniform[-2:] * (free + 1)), free // 2)
        return torch.from_numpy(np.concatenate((corners, sides)).astype(np.int64))

    def _central_box(self, height: int, width: int) -> tuple[int, int]:
        low, high = self.ratio
        if width < height * low:
            return max(1, round(width / low)), width
        if width > height * high:
            return height, max(1, round(height * high))
        return height, width


@dataclass(frozen=True)
class Draws:
    """A box for each image, in pixels of the (padded) image, and whether it is mirrored: tensors (N,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    mirrored: Tensor

    def __getitem__(self, part: slice) -> Draws:
        return Draws(self.top[part], self.left[part], self.height[part], self.width[part], self.mirrored[part])


def _crop(padded: Tensor, shape: torch.Size, draws: Draws) -> Tensor:
    """The box of each image, all boxes of the size in `shape` (N, channels, H, W): one gather of whole rows."""
    n, _, height, width = shape
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, channels, tops, lefts, H, W), a view
    return windows[torch.arange(n), :, draws.top, draws.left]


def _resize(images: Tensor, draws: Draws) -> Tensor:
    """The box of each image, resized to the size of the image.

    Pixel i of a side of n pixels, made of m pixels, is read at (i + 1/2) m / n - 1/2, rounded to the next multiple of
    1/256 (half up) and clamped to the box, between the two pixels around; first in each column and then in each row.
    With such weights every product and sum below 2**24 is exact in float32: the only rounding, half up, is that of the
    result to bytes, and nothing depends on the machine.
    """
    n, channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(n, height, width * channels)
    pixels = _interpolate(pixels, draws.top, draws.height)
    pixels = pixels.view(n, height, width, channels).transpose(1, 2).reshape(n, width, height * channels)
    pixels = _interpolate(pixels, draws.left, draws.width)
    pixels = pixels.add_(2**15).mul_(2**-16).to(torch.uint8)
    return pixels.view(n, width, height, channels).permute(0, 3, 2, 1).contiguous()


def _interpolate(rows: Tensor, start: Tensor, length: Tensor) -> Tensor:
    """256 times the part of `length` rows from `start` on, resized to all rows: (N, rows, anything) to float32."""
    n, size, inner = rows.shape
    # All positions in 1/256 of a row, as integers.
    centres = (2 * torch.arange(size) + 1) * length[:, None] * 256
    position = (centres + size).div(2 * size, rounding_mode="floor") - 128
    position = position.clamp(min=0).minimum(256 * (length[:, None] - 1))
    first = start[:, None] + position // 256
    second = (first + 1).minimum((start + length)[:, None] - 1)
    weight = (position % 256).float().unsqueeze(2)
    flat, offset = rows.reshape(n * size, inner), size * torch.arange(n)[:, None]

    def pick(index: Tensor) -> Tensor:
        return flat.index_select(0, (index + offset).view(-1)).view(n, size, inner).float()

    return pick(first).mul_(256 - weight).add_(pick(second).mul_(weight))
