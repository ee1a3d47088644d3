"""The data sets: the layouts of their files, what can be wrong with them, and data sets made by hand."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from data_files import CIFAR10, FASHION_MNIST, FILES, STL10, TEST, TRAIN, pack, shrink, write, write_idx
from leancore.torch.train.data import (
    Augmentation,
    DataError,
    DataSet,
    Normalisation,
    Split,
    list_data,
    load_data,
)

NAMED = list(FILES)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


# Digits


def test_digits_are_split_the_same_way_always_and_evenly() -> None:
    pytest.importorskip("sklearn")
    first, second = load_data("digits"), load_data("digits")
    assert (len(first.train), len(first.test)) == (1433, 364)
    for a, b in ((first.train, second.train), (first.test, second.test)):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
    for label in range(10):
        train, test = int((first.train.labels == label).sum()), int((first.test.labels == label).sum())
        assert test == (train + test + 4) // 5
    assert first.train.images.shape[1:] == (1, 8, 8)
    assert int(first.train.images.max()) == 16


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    loaded, ours = datasets.load_digits(), load_data("digits")
    theirs = sorted(
        (int(label), image.astype(np.uint8).tobytes())
        for label, image in zip(loaded.target, loaded.images, strict=True)
    )
    both = [(s.labels[i], s.images[i]) for s in (ours.train, ours.test) for i in range(len(s))]
    assert sorted((int(label), image.numpy().tobytes()) for label, image in both) == theirs


def test_digits_are_normalised_by_the_training_images() -> None:
    pytest.importorskip("sklearn")
    loaded = load_data("digits")
    images = loaded.normalisation(loaded.train.images).double()
    n = images.numel()
    # Each value carries a few roundings of float32, and the mean of n of them no more than each.
    assert abs(images.mean().item()) < 8 * 2**-24 * images.abs().max().item()
    assert abs(images.square().sum().item() / (n - 1) - 1) < 32 * 2**-24 * images.square().max().item()


# Layouts


def splits(name: str, folder: Path) -> list[tuple[Split, list[Path]]]:
    """Each split with its files."""
    loaded, files = load_data(name, folder), [folder / file for file in FILES[name]]
    cut = {"cifar10": 5, "cifar100": 1}.get(name, 2)
    return [(loaded.train, files[:cut]), (loaded.test, files[cut:])]


@pytest.mark.parametrize(("name", "labels"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_is_read_to_the_last_byte(tmp_path: Path, name: str, labels: int) -> None:
    write(name, tmp_path)
    for split, files in splits(name, tmp_path):
        records = np.concatenate([np.fromfile(file, np.uint8).reshape(-1, labels + 3072) for file in files])
        # CIFAR-100's records begin with the coarse label; the fine one is used.
        assert np.array_equal(split.labels.numpy(), records[:, labels - 1])
        assert split.images.shape == (len(records), 3, 32, 32)
        # Byte 1024 c + 32 row + column of the pixels belongs to channel c.
        assert np.array_equal(split.images.numpy().reshape(-1, 3072), records[:, labels:])
        assert int(split.images[3, 2, 5, 7]) == records[3, labels + 2 * 1024 + 5 * 32 + 7]


def test_stl10_is_read_to_the_last_byte(tmp_path: Path) -> None:
    write("stl10", tmp_path)
    for split, (pixels, labels) in splits("stl10", tmp_path):
        raw = np.fromfile(pixels, np.uint8)
        assert raw.size == split.images.numel()
        # Byte 9216 c + 96 column + row of an image belongs to channel c: columns come one after the other.
        for image, channel, row, column in ((0, 0, 0, 0), (1, 2, 5, 7), (4, 1, 95, 0), (5, 2, 95, 95)):
            byte = 3 * 9216 * image + 9216 * channel + 96 * column + row
            assert int(split.images[image, channel, row, column]) == raw[byte]
        assert np.array_equal(np.swapaxes(split.images.numpy(), 2, 3).reshape(-1), raw)
        assert np.array_equal(split.labels.numpy() + 1, np.fromfile(labels, np.uint8))


@pytest.mark.parametrize("packed", [False, True])
def test_fashion_mnist_is_read_to_the_last_byte(tmp_path: Path, packed: bool) -> None:
    write("fashion_mnist", tmp_path)
    raw = {file: (tmp_path / file).read_bytes() for file in FASHION_MNIST}
    if packed:
        for file in FASHION_MNIST:
            pack(tmp_path / file)
    for split, (images, labels) in splits("fashion_mnist", tmp_path):
        assert split.images.shape[1:] == (1, 28, 28)
        assert split.images.numpy().tobytes() == raw[images.name][16:]
        assert split.labels.numpy().astype(np.uint8).tobytes() == raw[labels.name][8:]


@pytest.mark.parametrize("name", NAMED)
def test_a_data_set_says_what_it_is(tmp_path: Path, name: str) -> None:
    loaded = load_data(name, write(name, tmp_path))
    assert loaded.name == name
    assert len(loaded.classes) == len(set(loaded.classes)) == (100 if name == "cifar100" else 10)
    assert len(loaded.train) == (5 * TRAIN if name == "cifar10" else TRAIN)
    assert len(loaded.test) == (TRAIN if name == "cifar10" else TEST)
    for split in (loaded.train, loaded.test):
        assert split.images.is_contiguous()
    images = loaded.augmentation(loaded.train.images, torch.Generator())
    assert images.shape == loaded.train.images.shape


def test_classes_have_their_names() -> None:
    from leancore.torch.train.data import cifar, fashion_mnist, stl10

    assert [cifar._CIFAR10_CLASSES[i] for i in (0, 3, 9)] == ["airplane", "cat", "truck"]
    names = cifar._CIFAR100_NAMES.split()
    assert [names[i] for i in (0, 41, 99)] == ["apple", "lawn_mower", "worm"]
    assert names == sorted(names)
    assert [stl10._CLASSES[i] for i in (0, 7, 9)] == ["airplane", "monkey", "truck"]
    assert [fashion_mnist._CLASSES[i] for i in (0, 8, 9)] == ["T-shirt/top", "Bag", "Ankle boot"]


# What is wrong with a file


@pytest.mark.parametrize(("name", "file"), [(name, file) for name in NAMED for file in FILES[name]])
def test_a_missing_file_is_named(tmp_path: Path, name: str, file: str) -> None:
    (write(name, tmp_path) / file).unlink()
    with pytest.raises(DataError, match=rf"{file}: missing"):
        load_data(name, tmp_path)


@pytest.mark.parametrize(("name", "file"), [(name, file) for name in NAMED for file in FILES[name]])
@pytest.mark.parametrize("change", [-1, 1, 5000, "empty"])
def test_a_file_of_the_wrong_size_is_named(tmp_path: Path, name: str, file: str, change: int | str) -> None:
    path = write(name, tmp_path) / file
    size = path.stat().st_size
    content = path.read_bytes() + bytes(5000)
    path.write_bytes(b"" if change == "empty" else content[: size + int(change)])
    found = rf"more than {size:,}" if change in (1, 5000) else f"{path.stat().st_size:,}"
    with pytest.raises(DataError, match=rf"{file}: {found} bytes, expected {size:,} \("):
        load_data(name, tmp_path)


def test_an_error_says_what_a_file_is_made_of(tmp_path: Path) -> None:
    for name, file, text in (
        ("cifar10", "test_batch.bin", r"expected 30,730 \(10 records of 3,073\)"),
        ("cifar100", "test.bin", r"expected 18,444 \(6 records of 3,074\)"),
        ("stl10", "test_X.bin", r"expected 165,888 \(6 images of 27,648\)"),
        ("stl10", "test_y.bin", r"expected 6 \(6 labels\)"),
        ("fashion_mnist", "t10k-images-idx3-ubyte", r"4,720 \(a header of 16 and an array of \(6, 28, 28\)\)"),
    ):
        (write(name, tmp_path / name) / file).write_bytes(b"")
        with pytest.raises(DataError, match=rf"{file}: 0 bytes, .*{text}"):
            load_data(name, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "file", "byte", "value", "text"),
    [
        ("cifar10", "data_batch_3.bin", 7 * 3073, 10, "record 7 has label 10, expected 0 to 9"),
        ("cifar100", "test.bin", 4 * 3074, 20, "record 4 has coarse label 20, expected 0 to 19"),
        ("cifar100", "train.bin", 9 * 3074 + 1, 100, "record 9 has label 100, expected 0 to 99"),
        ("stl10", "train_y.bin", 2, 0, "record 2 has label 0, expected 1 to 10"),
        ("stl10", "test_y.bin", 5, 11, "record 5 has label 11, expected 1 to 10"),
        ("fashion_mnist", "t10k-labels-idx1-ubyte", 8 + 3, 10, "record 3 has label 10, expected 0 to 9"),
    ],
)
def test_a_label_out_of_range_is_named(tmp_path: Path, name: str, file: str, byte: int, value: int, text: str) -> None:
    path = write(name, tmp_path) / file
    content = bytearray(path.read_bytes())
    content[byte] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"{file}: {text}"):
        load_data(name, tmp_path)


def test_an_idx_file_of_another_kind_is_named(tmp_path: Path) -> None:
    images, labels = write("fashion_mnist", tmp_path) / FASHION_MNIST[0], tmp_path / FASHION_MNIST[1]
    content = images.read_bytes()
    for header, text in (
        (struct.pack(">4I", 0x0801, TRAIN, 28, 28), r"magic number is 0x00000801, expected 0x00000803 \(unsigned"),
        (struct.pack(">4I", 0x0D03, TRAIN, 28, 28), r"magic number is 0x00000d03, expected"),
        (struct.pack("<4I", 0x0803, TRAIN, 28, 28), r"magic number is 0x03080000, expected"),
        (struct.pack(">4I", 0x0803, TRAIN, 32, 32), r"an array of \(10, 32, 32\), expected \(10, 28, 28\)"),
        (struct.pack(">4I", 0x0803, 2**32 - 1, 28, 28), r"an array of \(4294967295, 28, 28\), expected"),
    ):
        images.write_bytes(header + content[16:])
        with pytest.raises(DataError, match=f"{images.name}: .*{text}"):
            load_data("fashion_mnist", tmp_path)
    images.write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match=rf"{images.name}: its IDX magic number is 0x00000801"):
        load_data("fashion_mnist", tmp_path)


def test_a_damaged_gzip_file_is_named(tmp_path: Path) -> None:
    path = pack(write("fashion_mnist", tmp_path) / FASHION_MNIST[2])
    whole = path.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 0x10
    for damaged in (whole[: len(whole) // 2], whole[:-4], b"not gzip at all", bytes(middle), whole[:-8] + bytes(8)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=rf"{path.name}: damaged: "):
            load_data("fashion_mnist", tmp_path)


def test_a_gzip_file_that_would_fill_the_memory_is_read_only_so_far(tmp_path: Path) -> None:
    path = write("fashion_mnist", tmp_path) / FASHION_MNIST[0]
    write_idx(path, np.zeros((TRAIN * 10_000, 28, 28), np.uint8))
    with pytest.raises(DataError, match=r"an array of \(100000, 28, 28\), expected \(10, 28, 28\)"):
        load_data("fashion_mnist", tmp_path)
    content = bytearray(path.read_bytes())
    content[4:8] = struct.pack(">I", TRAIN)
    path.write_bytes(content)
    pack(path)
    with pytest.raises(DataError, match="more than 7,856 bytes, expected 7,856"):
        load_data("fashion_mnist", tmp_path)


@pytest.mark.parametrize(("name", "file"), [("cifar10", CIFAR10[1]), ("stl10", STL10[1])])
def test_what_is_no_file_is_named(tmp_path: Path, name: str, file: str) -> None:
    path = write(name, tmp_path) / file
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=rf"{file}: cannot be read: Is a directory"):
        load_data(name, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads any file")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    (write("cifar10", tmp_path) / "data_batch_4.bin").chmod(0)
    with pytest.raises(DataError, match=r"data_batch_4\.bin: cannot be read"):
        load_data("cifar10", tmp_path)


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    """The Python version of CIFAR-10 is a pickle. It has other names and another size, and is never unpickled."""
    path = write("cifar10", tmp_path) / "data_batch_1.bin"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.".ljust(30_730, b"\xff"))
    with pytest.raises(DataError, match="label 99"):  # the first byte, read as what it is
        load_data("cifar10", tmp_path)


# Names


def test_names() -> None:
    assert list_data() == ["digits", "cifar10", "cifar100", "stl10", "fashion_mnist"]
    with pytest.raises(ValueError, match="data is 'mnist', expected one of digits, cifar10"):
        load_data("mnist")
    with pytest.raises(ValueError, match="digits come with scikit-learn"):
        load_data("digits", "somewhere")


# By hand


def by_hand(**changes: object) -> DataSet:
    def split(n: int) -> Split:
        return Split(torch.zeros(n, 2, 4, 5, 6, dtype=torch.uint8), torch.arange(n) % 3)

    parts: dict[str, object] = {
        "name": "volumes", "title": "Volumes", "classes": ("a", "b", "c"), "train": split(6), "test": split(3),
        "normalisation": Normalisation(255.0, (0.5, 0.5), (0.25, 0.25)), "augmentation": Augmentation(flip=True),
    }  # fmt: skip
    return DataSet(**{**parts, **changes})  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_refused() -> None:
    images, labels = torch.zeros(4, 2, 4, 5, 6, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    assert by_hand().train.images.shape == (6, 2, 4, 5, 6)
    for arrays, text in (
        ((images.float(), labels), r"images are torch.float32 \(4, 2, 4, 5, 6\), expected uint8"),
        ((images[:, 0, 0, 0], labels), r"images are torch.uint8 \(4, 6\), expected"),
        ((images, labels[:3]), r"labels are torch.int64 \(3,\), expected int64 \(4,\)"),
        ((images, labels.int()), r"labels are torch.int32 \(4,\), expected int64"),
    ):
        with pytest.raises(ValueError, match=text):
            Split(*arrays)
    for change, text in (
        ({"test": Split(images[..., 1:], labels)}, r"test images are \(2, 4, 5, 5\), expected \(2, 4, 5, 6\)"),
        ({"normalisation": Normalisation(255.0, (0.5,), (0.5,))}, "2 channels, expected as many means"),
        ({"classes": ("a", "b")}, "training labels from 0 to 2, expected 0 to 1"),
        ({"test": Split(images, labels - 1)}, "test labels from -1 to -1, expected 0 to 2"),
    ):
        with pytest.raises(ValueError, match=text):
            by_hand(**change)


@pytest.mark.parametrize("spatial", [(3,), (1, 3), (1, 1, 3)])
def test_normalisation_is_its_formula(spatial: tuple[int, ...]) -> None:
    normalise = Normalisation(255.0, (0.25, 0.5), (0.5, 0.125))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, *spatial).expand(1, 2, *spatial)
    result = normalise(images)
    assert result.dtype == torch.float32
    assert result.shape == images.shape
    for channel, (mean, std) in enumerate(zip(normalise.mean, normalise.std, strict=True)):
        for i, byte in enumerate((0, 51, 255)):
            exact = (byte / 255 - mean) / std
            # Rounded: the scale, the shift, the product and the sum, none of them above 4 in size here.
            error = abs(result[0, channel].flatten()[i].item() - exact)
            assert error <= 4 * 2**-24 * (byte / 255 / std + mean / std + 4)
