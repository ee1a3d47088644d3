"""Batches: every image once, in an order that the seed and the epoch decide, the same for a resumed or a shared run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from leancore.torch.train.data import (
    Augmentation,
    DataSet,
    Normalisation,
    Split,
    steps_per_epoch,
    test_batches,
    train_batches,
)
from leancore.torch.train.data.batches import derive_seed

test_batches.__test__ = False  # type: ignore[attr-defined]  # the name is not that of a test

AUGMENTATIONS = [None, Augmentation("padded", padding=2, flip=True), Augmentation("resized", flip=True)]


@pytest.fixture(scope="module")
def data() -> DataSet:
    """50 training and 11 test images, all different."""
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        images = torch.randint(0, 256, (n, 3, 8, 6), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(0, 4, (n,), generator=generator))

    return DataSet(
        name="small",
        title="Small",
        classes=("a", "b", "c", "d"),
        train=split(50),
        test=split(11),
        normalisation=Normalisation(255.0, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
        augmentation=Augmentation(),
    )


def epoch_of(data: DataSet, **options: Any) -> list[tuple[Tensor, Tensor]]:
    return list(train_batches(data, **{"batch_size": 8, "seed": 3, "epoch": 0, **options}))


def same(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True)
    )


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(data: DataSet) -> None:
    normalised = data.normalisation(data.train.images)
    index = {image.numpy().tobytes(): i for i, image in enumerate(normalised)}
    orders = set()
    for seed, epoch in ((3, 0), (3, 1), (4, 0)):
        order: list[int] = []
        batches = epoch_of(data, seed=seed, epoch=epoch)
        for images, labels in batches:
            order += [index[image.numpy().tobytes()] for image in images]
            assert torch.equal(labels, data.train.labels[order[-len(labels) :]])
        assert [len(labels) for _, labels in batches] == [8] * 6 + [2]
        assert steps_per_epoch(data, 8) == 7
        assert sorted(order) == list(range(50))
        orders.add(tuple(order))
    assert len(orders) == 3


def test_a_last_batch_of_one_is_left_out(data: DataSet) -> None:
    for batch_size, steps, last in ((7, 7, 7), (6, 9, 2), (100, 1, 50), (50, 1, 50), (49, 1, 49), (2, 25, 2)):
        batches = epoch_of(data, batch_size=batch_size)
        assert len(batches) == steps_per_epoch(data, batch_size) == steps
        assert len(batches[-1][1]) == last


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_batches_come_from_the_seed_the_epoch_and_the_step_alone(
    data: DataSet, augmentation: Augmentation | None
) -> None:
    torch.manual_seed(1)
    first = epoch_of(data, augmentation=augmentation)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert same(epoch_of(data, augmentation=augmentation), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(epoch_of(data, augmentation=augmentation, seed=4), first)
    assert not same(epoch_of(data, augmentation=augmentation, epoch=1), first)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize("start", range(8))
def test_a_resumed_epoch_goes_on_with_the_same_batches(
    data: DataSet, augmentation: Augmentation | None, start: int
) -> None:
    whole = epoch_of(data, augmentation=augmentation)
    assert same(epoch_of(data, augmentation=augmentation, start=start), whole[start:])


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 8), (2, 8), (2, 9), (3, 11), (5, 9)])
def test_processes_share_the_batches_of_one(
    data: DataSet, augmentation: Augmentation | None, world_size: int, batch_size: int
) -> None:
    options = {"augmentation": augmentation, "batch_size": batch_size, "epoch": 5}
    whole = epoch_of(data, **options)
    parts = [epoch_of(data, **options, rank=rank, world_size=world_size) for rank in range(world_size)]
    sizes = {len(labels) for part in parts for _, labels in part[:-1]}
    assert max(sizes) - min(sizes) <= 1
    joined = [
        (torch.cat([images for images, _ in step]), torch.cat([labels for _, labels in step]))
        for step in zip(*parts, strict=True)
    ]
    assert same(joined, whole)


def test_augmented_batches_are_the_augmented_images(data: DataSet) -> None:
    """Each image is one of its shifts, mirrored or not, and each batch has draws of its own."""
    augmentation = Augmentation("padded", padding=1, flip=True)
    plain, augmented = epoch_of(data), epoch_of(data, augmentation=augmentation)
    padded = {
        image.numpy().tobytes(): torch.nn.functional.pad(raw, (1,) * 4)
        for image, raw in zip(data.normalisation(data.train.images), data.train.images, strict=True)
    }
    done = []
    for (images, labels), (changed, their_labels) in zip(plain, augmented, strict=True):
        assert torch.equal(labels, their_labels)
        for image, result in zip(images, changed, strict=True):
            around = padded[image.numpy().tobytes()]
            crops = {
                (row, column, mirrored): data.normalisation((crop.flip(-1) if mirrored else crop)[None])[0]
                for row in range(3)
                for column in range(3)
                for crop in [around[:, row : row + 8, column : column + 6]]
                for mirrored in (False, True)
            }
            [what] = [key for key, crop in crops.items() if torch.equal(crop, result)]
            done.append(what)
    steps = [tuple(done[i : i + 8]) for i in range(0, 48, 8)]
    assert len(set(steps)) == len(steps)


def test_volumes_are_batched_and_mirrored() -> None:
    images = torch.arange(2 * 1 * 2 * 3 * 4, dtype=torch.uint8).view(2, 1, 2, 3, 4)
    split = Split(images, torch.tensor([0, 1]))
    volumes = DataSet(
        "volumes", "Volumes", ("a", "b"), split, split, Normalisation(1.0, (0.0,), (1.0,)), Augmentation(flip=True)
    )
    seen = set()
    for epoch in range(20):
        [(batch, labels)] = epoch_of(volumes, epoch=epoch, augmentation=volumes.augmentation)
        for volume, label in zip(batch, labels, strict=True):
            mirrored = torch.equal(volume, images[label].flip(-1).float())
            assert mirrored or torch.equal(volume, images[label].float())
            seen.add(mirrored)
    assert seen == {False, True}


def test_test_images_come_in_order_and_whole(data: DataSet) -> None:
    normalised = data.normalisation(data.test.images)
    for world_size in (1, 2, 3, 12):
        parts = [list(test_batches(data, 4, rank=rank, world_size=world_size)) for rank in range(world_size)]
        flat = [batch for part in parts for batch in part]
        assert torch.equal(torch.cat([labels for _, labels in flat]), data.test.labels)
        assert torch.equal(torch.cat([images for images, _ in flat]), normalised)
        assert all(len(labels) <= 4 for _, labels in flat)
    assert [len(labels) for _, labels in test_batches(data, 4)] == [4, 4, 3]


def test_impossible_requests_are_refused_at_once(data: DataSet) -> None:
    def ask(**options: Any) -> Any:
        return train_batches(data, **{"batch_size": 8, "seed": 0, "epoch": 0, **options})

    for options, text in (
        ({"start": 8}, "start is 8, expected 0 to 7, the number of steps of an epoch"),
        ({"start": -1}, "start is -1"),
        ({"rank": 2, "world_size": 2}, "rank is 2, expected 0 to 1, below world_size"),
        ({"rank": -1}, "rank is -1"),
        ({"world_size": 3}, "a batch of 2 images for 3 processes; choose another batch_size than 8"),
        ({"world_size": 9}, "a batch of 2 images for 9 processes"),
    ):
        with pytest.raises(ValueError, match=text):
            ask(**options)
    with pytest.raises(ValueError, match="rank is 1, expected 0 to 0"):
        test_batches(data, 4, rank=1)


def test_seeds_are_those_of_splitmix64() -> None:
    """The first numbers that its author's program gives from the seed 1234567, whose state grows by the constant."""
    golden = 0x9E3779B97F4A7C15
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [derive_seed((1234567 + i * golden) % 2**64) for i in range(4)] == known
    assert derive_seed(1, 2) == derive_seed((derive_seed(1) + 2) % 2**64)
    seeds = {derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000
