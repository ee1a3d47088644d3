"""The data of a training run: digits, CIFAR-10's binary files and what can be wrong with them, augmentation."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from leancore.torch.train import data
from leancore.torch.train.data import (
    DataError,
    Normalisation,
    TrainBatches,
    cifar10,
    digits,
    load_data,
    random_crop_and_flip,
    test_batches,
)

test_batches.__test__ = False  # type: ignore[attr-defined]  # the name is not that of a test

FILES = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10 in small: ten records in a file, not ten thousand, of random bytes."""
    monkeypatch.setattr(data, "_RECORDS", 10)
    rng = np.random.default_rng(0)
    for name in FILES:
        records = rng.integers(0, 256, (10, 3073), dtype=np.uint8)
        records[:, 0] = rng.permutation(10)
        records.tofile(tmp_path / name)
    return tmp_path


# Digits


def test_digits_are_split_the_same_way_always_and_evenly() -> None:
    pytest.importorskip("sklearn")
    first, second = digits(), load_data(None)
    assert (len(first.train), len(first.test)) == (1433, 364)
    for a, b in ((first.train, second.train), (first.test, second.test)):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    for label in range(10):
        train, test = int((first.train.labels == label).sum()), int((first.test.labels == label).sum())
        assert test == (train + test + 4) // 5
    assert first.train.images.shape[1:] == (1, 8, 8)
    assert first.train.images.dtype == torch.uint8
    assert int(first.train.images.max()) == 16


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    loaded, ours = datasets.load_digits(), digits()
    theirs = sorted(
        (int(label), image.astype(np.uint8).tobytes())
        for label, image in zip(loaded.target, loaded.images, strict=True)
    )
    both = [(s.labels[i], s.images[i]) for s in (ours.train, ours.test) for i in range(len(s))]
    assert sorted((int(label), image.numpy().tobytes()) for label, image in both) == theirs


def test_digits_are_normalised_by_the_training_images() -> None:
    pytest.importorskip("sklearn")
    loaded = digits()
    images = loaded.normalisation(loaded.train.images).double()
    n = images.numel()
    # Each value carries a few roundings of float32, and the mean of n of them no more than each.
    assert abs(images.mean().item()) < 8 * 2**-24 * images.abs().max().item()
    assert abs(images.square().sum().item() / (n - 1) - 1) < 32 * 2**-24 * images.square().max().item()


# CIFAR-10


def test_cifar10_reads_every_byte(folder: Path) -> None:
    for where in (str(folder), folder):
        loaded = cifar10(where)
        for split, names in ((loaded.train, FILES[:5]), (loaded.test, FILES[5:])):
            records = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(10, 3073) for name in names])
            assert np.array_equal(split.labels.numpy(), records[:, 0])
            assert split.images.shape == (10 * len(names), 3, 32, 32)
            # Byte 1 + 1024 c + 32 row + column of a record is a pixel of channel c.
            assert np.array_equal(split.images.numpy().reshape(-1, 3072), records[:, 1:])
            assert int(split.images[3, 2, 5, 7]) == records[3, 1 + 2 * 1024 + 5 * 32 + 7]
    assert loaded.classes[:3] == ("airplane", "automobile", "bird")


def test_cifar10_finds_the_official_folder_inside(folder: Path) -> None:
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir()
    for name in FILES:
        (folder / name).rename(inner / name)
    assert len(cifar10(folder).train) == 50


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; expected data_batch_1\.bin"):
        cifar10(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 1, 30_729, 30_731, 61_460])
def test_a_file_of_the_wrong_size_is_named(folder: Path, name: str, size: int) -> None:
    (folder / name).write_bytes(bytes(size))
    with pytest.raises(DataError, match=rf"{name}: {size:,} bytes, expected 30,730 \(10 records of 3,073\)"):
        cifar10(folder)


def test_a_label_out_of_range_is_named(folder: Path) -> None:
    records = np.fromfile(folder / "data_batch_3.bin", np.uint8).reshape(10, 3073)
    records[7, 0] = 10
    records.tofile(folder / "data_batch_3.bin")
    with pytest.raises(DataError, match=r"data_batch_3\.bin: record 7 has label 10, expected 0 to 9"):
        cifar10(folder)


def test_no_folder_or_no_file(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        cifar10(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"test_batch\.bin: no such folder"):
        cifar10(folder / "test_batch.bin")
    (folder / "data_batch_2.bin").unlink()
    (folder / "data_batch_2.bin").mkdir()
    with pytest.raises(DataError, match=r"data_batch_2\.bin: "):
        cifar10(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads any file")
def test_a_file_that_may_not_be_read_is_named(folder: Path) -> None:
    (folder / "data_batch_4.bin").chmod(0)
    with pytest.raises(DataError, match=r"data_batch_4\.bin: cannot be read"):
        cifar10(folder)


def test_no_pickle_is_opened(folder: Path) -> None:
    """The Python version of CIFAR-10 is a pickle. It has other names and another size, and is never unpickled."""
    (folder / "data_batch_1.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.".ljust(30_730, b"\xff"))
    with pytest.raises(DataError, match="label 99"):  # the first byte, read as what it is
        cifar10(folder)


# Normalisation, batches, augmentation


def test_normalisation_is_its_formula() -> None:
    normalise = Normalisation(255.0, (0.25, 0.5), (0.5, 0.125))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    result = normalise(images)
    assert result.dtype == torch.float32
    for channel, (mean, std) in enumerate(zip(normalise.mean, normalise.std, strict=True)):
        for i, byte in enumerate((0, 51, 255)):
            exact = (byte / 255 - mean) / std
            # Rounded: the scale, the shift, the product and the sum, none of them above 4 in size here.
            assert abs(result[0, channel, 0, i].item() - exact) <= 4 * 2**-24 * (byte / 255 / std + mean / std + 4)


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own(folder: Path) -> None:
    loaded = cifar10(folder)
    batches = TrainBatches(loaded, 8, augment=False, seed=3)
    normalised = loaded.normalisation(loaded.train.images)
    index = {image.numpy().tobytes(): i for i, image in enumerate(normalised)}
    orders = []
    for _ in range(2):
        sizes, order = [], []
        for images, labels in batches:
            sizes.append(len(labels))
            order += [index[image.numpy().tobytes()] for image in images]
            assert torch.equal(labels, loaded.train.labels[order[-len(labels) :]])
        assert sizes == [8] * 6 + [2]
        assert len(sizes) == len(batches)
        assert sorted(order) == list(range(50))
        orders.append(order)
    assert orders[0] != orders[1]


def test_a_last_batch_of_one_is_left_out(folder: Path) -> None:
    batches = TrainBatches(cifar10(folder), 7, augment=True, seed=0)
    assert len(batches) == len(list(batches)) == 7
    assert len(TrainBatches(cifar10(folder), 100, augment=True, seed=0)) == 1


def test_batches_come_from_the_seed_alone(folder: Path) -> None:
    loaded = cifar10(folder)

    def epochs(seed: int) -> list[torch.Tensor]:
        batches = TrainBatches(loaded, 16, augment=True, seed=seed)
        return [images for _ in range(2) for images, _ in batches]

    torch.manual_seed(1)
    first = epochs(0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first, epochs(0), strict=True))
    assert not torch.equal(first[0], epochs(1)[0])


def test_test_images_come_in_order_and_whole(folder: Path) -> None:
    loaded = cifar10(folder)
    batches = list(test_batches(loaded, 4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([labels for _, labels in batches]), loaded.test.labels)
    assert torch.equal(torch.cat([images for images, _ in batches]), loaded.normalisation(loaded.test.images))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("shape", [(400, 3, 5, 7), (400, 1, 8, 8)])
def test_augmentation_shifts_and_mirrors_and_nothing_else(flip: bool, shape: tuple[int, ...]) -> None:
    padding = 2
    images = torch.randint(1, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    results = random_crop_and_flip(images, padding, flip, torch.Generator().manual_seed(1))
    assert results.shape == images.shape
    assert results.dtype == torch.uint8
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    height, width = shape[2:]
    seen = set()
    for image, result in zip(padded, results, strict=True):
        crops = {
            (row, column, mirrored): crop.flip(-1) if mirrored else crop
            for row in range(2 * padding + 1)
            for column in range(2 * padding + 1)
            for crop in [image[:, row : row + height, column : column + width]]
            for mirrored in ((False, True) if flip else (False,))
        }
        matching = [key for key, crop in crops.items() if torch.equal(crop, result)]
        assert len(matching) == 1
        seen.add(matching[0])
    # 400 draws among at most 50 equally likely ones: all seen, but for a chance of 50 (1 - 1/50)^400 < 2 %, and the
    # seed is fixed.
    assert len(seen) == (2 * padding + 1) ** 2 * (2 if flip else 1)
