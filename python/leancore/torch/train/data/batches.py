"""Batches of a data set. No state: what a batch holds follows from the seed, the epoch and the step alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator, Tensor

from leancore.torch.train.data.augment import Augmentation
from leancore.torch.train.data.sets import DataSet

Batches = Iterator[tuple[Tensor, Tensor]]


def steps_per_epoch(data: DataSet, batch_size: int) -> int:
    """Batches of an epoch. The last one is smaller; one of a single image is left out: normalisation needs two."""
    full, rest = divmod(len(data.train), batch_size)
    return full + (rest > 1)


def train_batches(
    data: DataSet,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    augmentation: Augmentation | None = None,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """The training images of an epoch in batches (float32 images, int64 labels), in an order of its own.

    The order follows from (seed, epoch), the augmentation of a batch from (seed, epoch, step) and nothing else. So a
    run resumed at step `start` of an epoch sees the batches that it would have seen.

    Args:
        batch_size: images in a step, of all processes together.
        augmentation: usually `data.augmentation`; None for the images as they are.
        rank, world_size: this process gets the part of each batch from image n rank // world_size up to image
            n (rank + 1) // world_size, augmented as it is in the whole batch.

    Raises:
        ValueError: no such step or rank, or a batch with fewer images than processes.
    """
    n, steps = len(data.train), steps_per_epoch(data, batch_size)
    if not 0 <= start <= steps:
        raise ValueError(f"start is {start}, expected 0 to {steps}, the number of steps of an epoch")
    _check_rank(rank, world_size)
    smallest = min(batch_size, n - (steps - 1) * batch_size)
    if steps and smallest < world_size:
        raise ValueError(
            f"a batch of {smallest} images for {world_size} processes; choose another batch_size than {batch_size}"
        )

    def batches() -> Batches:
        order = torch.randperm(n, generator=_generator(seed, epoch, 0))
        for step in range(start, steps):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            part = _part(len(chosen), rank, world_size)
            images = data.train.images[chosen[part]]
            if augmentation is not None:
                shape = torch.Size((len(chosen), *images.shape[1:]))
                draws = augmentation.draw(shape, _generator(seed, epoch, step + 1))
                images = augmentation.apply(images, draws[part])
            yield data.normalisation(images), data.train.labels[chosen[part]]

    return batches()


def test_batches(data: DataSet, batch_size: int, *, rank: int = 0, world_size: int = 1) -> Batches:  # noqa: PT028
    """The test images in batches (float32 images, int64 labels), in the order of the files.

    With several processes each gets a contiguous part of the images, as train_batches cuts a batch; every image
    belongs to exactly one. Raises ValueError for no such rank.
    """
    _check_rank(rank, world_size)
    part = _part(len(data.test), rank, world_size)
    images, labels = data.test.images[part], data.test.labels[part]
    starts = range(0, len(labels), batch_size)
    return ((data.normalisation(images[i : i + batch_size]), labels[i : i + batch_size]) for i in starts)


def derive_seed(*numbers: int) -> int:
    """A seed of 64 bits for each sequence of non-negative numbers: SplitMix64's step over them, one after the other.

    state <- mix(state + number + 0x9E3779B97F4A7C15), from 0, modulo 2**64. Sequences that differ in one number get
    different seeds. (torch's generator on a CPU keeps the lower 32 bits, so that two streams are the same by a chance
    of 2**-32.)
    """
    state, mask = 0, 2**64 - 1
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state


def _generator(*numbers: int) -> Generator:
    return Generator().manual_seed(derive_seed(*numbers))


def _part(n: int, rank: int, world_size: int) -> slice:
    return slice(n * rank // world_size, n * (rank + 1) // world_size)


def _check_rank(rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}, expected 0 to {world_size - 1}, below world_size")
