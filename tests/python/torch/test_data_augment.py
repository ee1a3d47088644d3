"""Augmentation: what it does to pixels, against one image at a time; and how what is random is distributed."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from leancore.torch.train.data import Augmentation
from leancore.torch.train.data.augment import Draws


def random_images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(0))


def boxes(draws: Draws) -> list[tuple[int, int, int, int, bool]]:
    columns = (draws.top, draws.left, draws.height, draws.width, draws.mirrored)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def draw(augmentation: Augmentation, *shape: int, seed: int = 1) -> Draws:
    return augmentation.draw(torch.Size(shape), Generator().manual_seed(seed))


def distance_to_uniform(samples: Tensor) -> float:
    """Kolmogorov-Smirnov's: the largest distance of the samples' distribution function to that of [0, 1]."""
    ordered, n = samples.double().sort().values, len(samples)
    above = torch.arange(1, n + 1) / n - ordered
    return float(torch.maximum(above, ordered - torch.arange(n) / n).max())


def bound_on_distance(n: int) -> float:
    """Exceeded by samples that are uniform with a probability of 1e-9 at most (Dvoretzky, Kiefer, Wolfowitz)."""
    return math.sqrt(math.log(2 / 1e-9) / (2 * n))


# Pixels


@pytest.mark.parametrize("shape", [(4, 3, 5, 7), (4, 1, 8, 8), (4, 3, 32, 32), (4, 2, 6), (4, 2, 3, 4, 5)])
def test_nothing_changes_nothing(shape: tuple[int, ...]) -> None:
    images = random_images(*shape)
    assert torch.equal(Augmentation()(images, Generator()), images)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 9])
@pytest.mark.parametrize("shape", [(60, 3, 5, 7), (60, 1, 8, 8), (7, 3, 96, 96)])
def test_padded_crops_equal_those_of_one_image_at_a_time(flip: bool, padding: int, shape: tuple[int, ...]) -> None:
    augmentation, images = Augmentation("padded", padding=padding, flip=flip), random_images(*shape)
    draws = draw(augmentation, *shape)
    before = images.clone()
    result = augmentation.apply(images, draws)
    assert torch.equal(images, before)
    assert torch.equal(augmentation(images, Generator().manual_seed(1)), result)
    assert result.dtype == torch.uint8
    assert result.shape == images.shape
    for image, ours, (top, left, _, _, mirrored) in zip(images, result, boxes(draws), strict=True):
        expected = torch.zeros_like(image)
        for row in range(shape[2]):
            for column in range(shape[3]):
                y, x = row + top - padding, column + left - padding
                if 0 <= y < shape[2] and 0 <= x < shape[3]:
                    expected[:, row, column] = image[:, y, x]
        assert torch.equal(ours, expected.flip(-1) if mirrored else expected)


def taps(m: int, n: int) -> list[tuple[int, int, Fraction]]:
    """Of n pixels made of m: the two pixels that each is read from, and the weight of the second one."""
    result = []
    for i in range(n):
        exact = (i + Fraction(1, 2)) * m / n - Fraction(1, 2)
        position = Fraction(math.floor(256 * exact + Fraction(1, 2)), 256)
        position = min(max(position, Fraction(0)), Fraction(m - 1))
        first = math.floor(position)
        result.append((first, min(first + 1, m - 1), position - first))
    return result


@pytest.mark.parametrize(("shape", "count"), [((3, 5, 7), 30), ((1, 8, 8), 30), ((3, 32, 32), 4), ((2, 31, 9), 6)])
def test_resized_crops_are_exact(shape: tuple[int, int, int], count: int) -> None:
    """Not a bit of difference to rational numbers, rounded once."""
    augmentation = Augmentation("resized", scale=(0.02, 1.0), ratio=(0.3, 3.0), flip=True)
    images = random_images(count, *shape)
    images[::3] = (images[::3] > 127) * 255  # the largest differences and sums
    draws = draw(augmentation, count, *shape)
    result = augmentation.apply(images, draws)
    for image, ours, (top, left, height, width, mirrored) in zip(images, result, boxes(draws), strict=True):
        box = image[:, top : top + height, left : left + width].tolist()
        expected = torch.empty_like(image)
        for channel in range(shape[0]):
            for row, (y0, y1, v) in enumerate(taps(height, shape[1])):
                for column, (x0, x1, u) in enumerate(taps(width, shape[2])):
                    pixels = box[channel]
                    value = (1 - v) * ((1 - u) * pixels[y0][x0] + u * pixels[y0][x1])
                    value += v * ((1 - u) * pixels[y1][x0] + u * pixels[y1][x1])
                    expected[channel, row, column] = math.floor(value + Fraction(1, 2))
        assert torch.equal(ours, expected.flip(-1) if mirrored else expected)


@pytest.mark.parametrize("shape", [(40, 3, 32, 32), (10, 3, 96, 96), (40, 1, 28, 28)])
def test_resized_crops_are_bilinear(shape: tuple[int, ...]) -> None:
    """Beside torch's interpolation in float64: positions are rounded by at most 1/512 of a pixel, each way, and bytes
    by 1/2; neighbours differ by at most 255."""
    augmentation = Augmentation("resized")
    images = random_images(*shape)
    draws = draw(augmentation, *shape)
    result = augmentation.apply(images, draws)
    for image, ours, (top, left, height, width, _) in zip(images, result, boxes(draws), strict=True):
        box = image[None, :, top : top + height, left : left + width].double()
        exact = F.interpolate(box, shape[2:], mode="bilinear", align_corners=False)[0]
        assert (ours - exact).abs().max() <= 0.5 + 2 * 255 / 512 + 1e-9  # and float64's own roundings


def test_a_box_that_is_the_image_leaves_it() -> None:
    augmentation, images = Augmentation("resized", scale=(1, 1), ratio=(1, 1)), random_images(5, 3, 33, 33)
    assert torch.equal(augmentation(images, Generator()), images)


@pytest.mark.parametrize("crop", ["none", "padded", "resized"])
def test_a_part_of_the_images_is_augmented_as_in_the_whole(crop: Any) -> None:
    augmentation, images = Augmentation(crop, padding=3, flip=True), random_images(20, 3, 16, 12)
    draws = draw(augmentation, *images.shape)
    whole = augmentation.apply(images, draws)
    for part in (slice(0, 7), slice(7, 20), slice(19, 20)):
        assert torch.equal(augmentation.apply(images[part], draws[part]), whole[part])


@pytest.mark.parametrize("crop", ["none", "padded", "resized"])
def test_the_number_of_threads_changes_nothing(crop: Any) -> None:
    augmentation, images = Augmentation(crop, padding=3, flip=True), random_images(4000, 3, 12, 16)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(augmentation(images, Generator().manual_seed(3)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(result, results[0]) for result in results)


# What is random


def test_half_of_the_images_are_mirrored() -> None:
    n = 100_000
    mirrored = draw(Augmentation(flip=True), n, 1, 1, 1).mirrored
    assert abs(int(mirrored.sum()) - n / 2) < 6 * math.sqrt(n) / 2  # six standard deviations
    assert not draw(Augmentation(), n, 1, 1, 1).mirrored.any()


def test_all_shifts_are_equally_likely() -> None:
    n, padding = 100_000, 2
    draws = draw(Augmentation("padded", padding=padding, flip=True), n, 1, 8, 8)
    cells = (draws.top * 5 + draws.left) * 2 + draws.mirrored
    counts = torch.bincount(cells, minlength=50)
    assert len(counts) == 50
    p = 1 / 50
    assert (counts - n * p).abs().max() < 6 * math.sqrt(n * p * (1 - p))


def test_boxes_are_those_of_random_resized_crop() -> None:
    """torchvision's rule, image by image and try by try, from the same uniform numbers."""
    augmentation = Augmentation("resized", scale=(0.3, 1.0), ratio=(0.5, 3.0), flip=True)
    n, height, width = 500, 12, 16
    uniform = torch.rand((22, n), dtype=torch.float64, generator=Generator().manual_seed(1)).tolist()
    low, high = math.log(0.5), math.log(3.0)
    tries = set()
    for i, (top, left, h, w, _) in enumerate(boxes(draw(augmentation, n, 3, height, width))):
        for attempt in range(10):
            area = height * width * (0.3 + (1.0 - 0.3) * uniform[attempt][i])
            ratio = math.exp(low + (high - low) * uniform[10 + attempt][i])
            expected_w, expected_h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < expected_w <= width and 0 < expected_h <= height:
                break
        else:
            raise AssertionError("ten tries fail with a probability below 1e-4, and not with this seed")
        tries.add(attempt)
        assert (h, w) == (expected_h, expected_w)
        assert top == math.floor(uniform[20][i] * (height - h + 1))
        assert left == math.floor(uniform[21][i] * (width - w + 1))
    assert max(tries) >= 2


def test_areas_ratios_and_positions_are_distributed_as_they_should() -> None:
    """Boxes in an image so large that rounding to pixels is invisible, and of which each fits at the first try."""
    n, side = 40_000, 10**7
    scale, ratio = (0.08, 0.5), (3 / 4, 4 / 3)
    draws = draw(Augmentation("resized", scale=scale, ratio=ratio), n, 3, side, side)
    h, w = draws.height.double(), draws.width.double()
    areas = (h * w / side**2 - scale[0]) / (scale[1] - scale[0])
    ratios = (torch.log(w / h) - math.log(ratio[0])) / (math.log(ratio[1]) - math.log(ratio[0]))
    positions = [draws.top / (side - h + 1), draws.left / (side - w + 1)]
    for samples in (areas, ratios, *positions):
        assert distance_to_uniform(samples) < bound_on_distance(n)
    together = torch.stack([areas, ratios, *positions])
    # Independent: a correlation of n pairs has a standard deviation of 1 / sqrt(n).
    assert (torch.corrcoef(together) - torch.eye(4)).abs().max() < 6 / math.sqrt(n)
    assert distance_to_uniform(areas**1.05) > bound_on_distance(n)  # so small a difference would be seen


@pytest.mark.parametrize(("shape", "box"), [((8, 64), (8, 11)), ((64, 8), (11, 8)), ((9, 9), (9, 9)), ((1, 1), (1, 1))])
def test_where_no_box_fits_the_largest_central_one_is_taken(shape: tuple[int, int], box: tuple[int, int]) -> None:
    for top, left, height, width, _ in boxes(draw(Augmentation("resized", scale=(1, 1)), 3000, 1, *shape)):
        if (height, width) == box:  # for squares, a first try of a ratio near 1 ends here as well
            assert (top, left) == ((shape[0] - height) // 2, (shape[1] - width) // 2)
        else:
            assert shape == (9, 9)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 3), (8, 8), (28, 28)])
def test_boxes_lie_inside(shape: tuple[int, int]) -> None:
    augmentation = Augmentation("resized", scale=(0.001, 1.0), ratio=(0.1, 10.0))
    draws = draw(augmentation, 3000, 1, *shape)
    for start, length, side in ((draws.top, draws.height, shape[0]), (draws.left, draws.width, shape[1])):
        assert (start >= 0).all()
        assert (length >= 1).all()
        assert (start + length <= side).all()
    images = random_images(3000, 1, *shape)
    assert augmentation.apply(images, draws).shape == images.shape


@pytest.mark.parametrize("crop", ["none", "padded", "resized"])
def test_only_the_generator_counts(crop: Any) -> None:
    augmentation, images = Augmentation(crop, padding=2, flip=True), random_images(10, 3, 8, 8)
    torch.manual_seed(1)
    first = augmentation(images, Generator().manual_seed(7))
    torch.manual_seed(2)
    assert torch.equal(augmentation(images, Generator().manual_seed(7)), first)
    assert not torch.equal(augmentation(images, Generator().manual_seed(8)), first)


# Values that make no sense


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"crop": "random"}, "crop is 'random', expected none, padded, resized"),
        ({"padding": -1}, "padding is -1, expected at least 0"),
        ({"scale": (0.0, 1.0)}, r"scale is \(0.0, 1.0\), expected two numbers in ascending order, above 0"),
        ({"scale": (0.5, 0.1)}, "scale is"),
        ({"scale": (0.5, 1.1)}, "scale is"),
        ({"scale": (math.nan, 1.0)}, "scale is"),
        ({"ratio": (0.0, 1.0)}, r"ratio is \(0.0, 1.0\), expected two positive numbers"),
        ({"ratio": (2.0, 1.0)}, "ratio is"),
        ({"ratio": (1.0, math.inf)}, "ratio is"),
    ],
)
def test_impossible_values_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Augmentation(**options)


@pytest.mark.parametrize("crop", ["padded", "resized"])
def test_volumes_cannot_be_cropped(crop: Any) -> None:
    with pytest.raises(ValueError, match=r"images are \(2, 1, 3, 4, 5\), expected \(N, channels, H, W\) to crop"):
        Augmentation(crop)(random_images(2, 1, 3, 4, 5), Generator())
