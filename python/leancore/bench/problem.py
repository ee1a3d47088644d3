"""The inputs of a case, drawn once and handed to the candidates in their dtypes and layouts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leancore.bench.cases import Case

Fill = Literal["normal", "integers"]


CORNER_PIXELS = 2**14


class Problem:
    """Inputs of one case.

    ``normal``: x, dy and weights as a network has them, for timing. ``integers``, for checking: entries -1, 0 and 1 in
    the far corner of a few images, which is all of them up to 128x128 pixels, and zeros elsewhere. Sums are then exact
    in float32, every element of the outputs can be compared, and the expected result costs no more than the corners.
    """

    def __init__(self, case: Case, fill: Fill, device: str = "cpu") -> None:
        self.case = case
        self.device = device
        self._fill = fill
        self._drawn: dict[tuple[Any, ...], NDArray[np.float32]] = {}
        self._converted: dict[tuple[Any, ...], Any] = {}
        self._corner_images = sorted({0, case.batch // 2, case.batch - 1})
        side = max(1, int(CORNER_PIXELS ** (1 / case.dims) + 1e-9))
        # From here on there are integers, and from one tap before on they have an effect; both at positions of y.
        self._begin = [max(0, n - side) // case.stride * case.stride for n in case.spatial]
        self._reach = [max(0, n - case.dilation) // case.stride * case.stride for n in self._begin]

    def x(self) -> NDArray[np.float32]:
        return self._images("x", self.case.shape)

    def dy(self, channels: int | None = None) -> NDArray[np.float32]:
        """The gradient of y, or of another output with that many channels."""
        return self._images("dy", (self.case.batch, channels or self.case.c_out, *self.case.y_spatial))

    def alpha(self) -> NDArray[np.float32]:
        return self.weight("alpha", (self.case.c_out, self.case.c_in))

    def c(self) -> NDArray[np.float32]:
        return self.weight("c", (self.case.m, 2 * self.case.dims))

    def cross(self) -> NDArray[np.float32]:
        """c as the weight of a depthwise convolution, (m, 1, 3, ...), zero beside the taps."""
        weight = np.zeros((self.case.m, 1, *[3] * self.case.dims), np.float32)
        for k, place in enumerate(taps(self.case.dims)):
            weight[at_tap(place)] = self.c()[:, k]
        return weight

    def weight(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Of the name, with the inputs of an output along all axes but the first."""
        return self._draw(name, shape, 1 / math.sqrt(math.prod(shape[1:])))

    def numpy(self, array: NDArray[np.float32], dtype: str, layout: str) -> Any:
        """The array as NumPy has it.

        Raises:
            ImportError: bfloat16, without the package ml_dtypes.
        """

        def convert() -> Any:
            if dtype == "bfloat16":
                import ml_dtypes

                kind = np.dtype(ml_dtypes.bfloat16)
            else:
                kind = np.dtype(dtype)
            if layout == "channels-first" or array.ndim < 3:
                return array.astype(kind, copy=False)
            return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1), kind), -1, 1)

        return self._once(("numpy", dtype, layout), array, convert)

    def torch(self, array: NDArray[np.float32], dtype: str, layout: str) -> Any:
        """The array as a torch tensor on the device; its memory is shared where nothing changes."""

        def convert() -> Any:
            import torch

            tensor = torch.from_numpy(array).to(self.device, getattr(torch, dtype))
            if layout == "channels-last" and array.ndim >= 3:
                tensor = tensor.movedim(1, -1).contiguous().movedim(-1, 1)
            return tensor

        return self._once(("torch", dtype, layout), array, convert)

    def _once(self, how: tuple[str, str, str], array: NDArray[np.float32], convert: Callable[[], Any]) -> Any:
        """What was drawn is converted once and shared by the candidates, what was made from it every time."""
        if not any(array is drawn for drawn in self._drawn.values()):
            return convert()
        key = (*how, id(array))
        if key not in self._converted:
            self._converted[key] = convert()
        return self._converted[key]

    def corner(self, array: Any, like: Literal["x", "y"]) -> Any:
        """The part of x or dx, or of y or dy, that is not zero when filled with integers, and that is filled."""
        step = 1 if like == "x" else self.case.stride
        part: Any = (slice(None), slice(None), *(slice(n // step, None) for n in self._reach))
        return array[self._corner_images][part]

    def _images(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        if self._fill == "normal":
            return self._draw(name, shape, 1.0)
        step = 1 if name == "x" else self.case.stride
        return self._draw(name, shape, 1.0, tuple(slice(n // step, None) for n in self._begin))

    def _draw(
        self, name: str, shape: tuple[int, ...], scale: float, corner: tuple[slice, ...] | None = None
    ) -> NDArray[np.float32]:
        key = (name, shape)
        if key not in self._drawn:
            rng = np.random.default_rng([zlib.crc32(name.encode()), *shape])
            if self._fill == "normal":
                drawn = rng.standard_normal(shape, np.float32)
                drawn *= np.float32(scale)
            elif corner is None:
                drawn = rng.integers(-1, 2, shape).astype(np.float32)
            else:
                drawn = np.zeros(shape, np.float32)
                for image in self._corner_images:
                    at: Any = (image, slice(None), *corner)
                    drawn[at] = rng.integers(-1, 2, drawn[at].shape)
            self._drawn[key] = drawn
        return self._drawn[key]


def taps(dims: int) -> list[tuple[int, ...]]:
    """Where each column of c is in a 3-wide kernel: -1 from the outermost axis in, +1 from the innermost out."""
    places = []
    for k in range(2 * dims):
        place = [1] * dims
        place[min(k, 2 * dims - 1 - k)] = 0 if k < dims else 2
        places.append(tuple(place))
    return places


def at_tap(place: tuple[int, ...]) -> Any:
    """Index of the depthwise weights of all channels at that place of the kernel."""
    return (slice(None), 0, *place)
