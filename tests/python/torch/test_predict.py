"""leancore predict: image files of every kind as the network is used to them, and what is no image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers import run_script
from leancore.cli import main
from leancore.torch.train.data import load_data
from leancore.torch.train.predict import ImageError, predict, read_image
from leancore.torch.train.trained import Trained, load_trained
from training_helpers import IMAGE_CLASSES, checkpoint_by_hand, digits_run

for package in ("lightning_fabric", "jsonargparse", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)
Image = pytest.importorskip("PIL.Image")

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_by_hand(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def trained(checkpoint: Path) -> Trained:
    return load_trained(checkpoint)


def expected(trained: Trained, pixels: np.ndarray) -> torch.Tensor:
    return trained.normalisation(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None])


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


# Reading


def test_pixels_arrive_unchanged(trained: Trained, tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    for name in ("a.png", "a.bmp", "a.tiff", "a.ppm"):
        assert torch.equal(read_image(trained, saved(image, tmp_path / name)), expected(trained, PIXELS))


def test_kinds_of_pixels(trained: Trained, tmp_path: Path) -> None:
    grey = PIXELS[:, :, :1]
    three = np.repeat(grey, 3, 2)
    image = Image.fromarray(grey[:, :, 0])
    assert torch.equal(read_image(trained, saved(image, tmp_path / "grey.png")), expected(trained, three))
    wide = Image.fromarray(grey[:, :, 0].astype(np.uint16) * 257)
    assert torch.equal(read_image(trained, saved(wide, tmp_path / "wide.png")), expected(trained, three))
    bits = Image.fromarray(PIXELS[:, :, 0] > 127)
    black_and_white = np.repeat((PIXELS[:, :, :1] > 127) * np.uint8(255), 3, 2)
    assert torch.equal(read_image(trained, saved(bits, tmp_path / "bits.png")), expected(trained, black_and_white))
    alpha = Image.fromarray(np.concatenate((PIXELS, grey), 2))
    assert torch.equal(read_image(trained, saved(alpha, tmp_path / "alpha.png")), expected(trained, PIXELS))
    palette = Image.fromarray(PIXELS).quantize(16)
    shown = np.array(palette.convert("RGB"))
    assert torch.equal(read_image(trained, saved(palette, tmp_path / "palette.gif")), expected(trained, shown))


def test_an_image_is_turned_upright(trained: Trained, tmp_path: Path) -> None:
    turned = Image.fromarray(PIXELS).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    path = saved(turned, tmp_path / "turned.png", exif=exif)
    assert torch.equal(read_image(trained, path), expected(trained, PIXELS))


def test_other_sizes_are_resized(trained: Trained, tmp_path: Path) -> None:
    for size in ((1, 1), (500, 3), (64, 48)):
        image = Image.new("RGB", size, (10, 200, 30))
        flat = np.broadcast_to(np.array([10, 200, 30], dtype=np.uint8), (6, 8, 3))
        assert torch.equal(read_image(trained, saved(image, tmp_path / "flat.png")), expected(trained, flat))


def test_a_full_scale_that_is_not_255(tmp_path: Path) -> None:
    about = {"normalisation": {"full_scale": 16.0, "mean": [0.0] * 3, "std": [1.0] * 3}}
    trained = load_trained(checkpoint_by_hand(tmp_path, **about))
    white = saved(Image.new("RGB", (8, 6), "white"), tmp_path / "white.png")
    assert torch.equal(read_image(trained, white), torch.ones(1, 3, 6, 8))


# Predicting


def test_the_classes_are_the_networks(trained: Trained, tmp_path: Path) -> None:
    path = saved(Image.fromarray(PIXELS), tmp_path / "a.png")
    with torch.no_grad():
        scores = trained.model(expected(trained, PIXELS)).double()[0]
    found = predict(trained, path)
    assert [p["index"] for p in found] == scores.argsort(descending=True).tolist()
    assert [p["class"] for p in found] == [IMAGE_CLASSES[p["index"]] for p in found]
    assert [p["probability"] for p in found] == scores.softmax(0).sort(descending=True).values.tolist()
    assert predict(trained, path, 2) == found[:2]


def test_digits_as_image_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits_run(tmp_path / "run")
    capsys.readouterr()
    checkpoint = tmp_path / "run" / "last.json"
    data = load_data("digits")
    paths = []
    for i in range(20):  # 0 to 16 as 0 to 255
        grey = (data.test.images[i, 0].double() * (255 / 16)).round().byte().numpy()
        paths.append(str(saved(Image.fromarray(grey), tmp_path / f"{i}.png")))
    assert main(["predict", str(checkpoint), *paths, "--json", "--top", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [entry["file"] for entry in found] == paths
    trained = load_trained(checkpoint)
    # A grey value is off by half a step of 255 at most, less than what separates the two best classes of most images.
    with torch.no_grad():
        two = trained.model(data.normalisation(data.test.images[:20])).softmax(1).topk(2)
    clear = (two.values[:, 0] - two.values[:, 1] > 0.2).tolist()
    assert sum(clear) >= 5
    for entry, sure, index in zip(found, clear, two.indices[:, 0].tolist(), strict=True):
        assert len(entry["predictions"]) == 1
        assert not sure or entry["predictions"][0]["index"] == index


def test_text_by_the_command_itself(checkpoint: Path, tmp_path: Path) -> None:
    path = saved(Image.fromarray(PIXELS), tmp_path / "a.png")
    code = "import sys; from leancore.cli import main; sys.exit(main())"
    done = run_script("-c", code, "predict", checkpoint, path, path, "--top", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    best, second = predict(load_trained(checkpoint), path, 2)
    shown = ", ".join(f"{p['class']} {p['probability']:.2%}" for p in (best, second))
    assert lines == [f"{path}: {shown}"] * 2


# Errors


def test_what_is_no_image(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is named in one line, and the images beside it are classified all the same."""
    good = saved(Image.fromarray(PIXELS), tmp_path / "good.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:-40])
    saved(Image.fromarray(PIXELS[:, :, 0].astype(np.float32)), tmp_path / "float.tiff")
    bad = ["text.png", "empty.png", "cut.png", "float.tiff", "missing.png", "."]
    assert main(["predict", str(checkpoint), *(str(tmp_path / name) for name in bad), str(good), "--json"]) == 1
    captured = capsys.readouterr()
    assert [entry["file"] for entry in json.loads(captured.out)] == [str(good)]
    errors = captured.err.splitlines()
    assert len(errors) == len(bad)
    for name, error in zip(bad, errors, strict=True):
        assert error.startswith(f"leancore predict: error: {tmp_path / name}: ")
    reasons = ("not an image", "not an image", "cannot be read", "32 bits", "No such file", "directory")
    for error, text in zip(errors, reasons, strict=True):
        assert text in error


def test_an_enormous_image_is_refused(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match="decompression bomb"):
        read_image(trained, saved(Image.fromarray(PIXELS), tmp_path / "bomb.png"))


def test_a_network_that_takes_no_images(tmp_path: Path) -> None:
    trained = load_trained(checkpoint_by_hand(tmp_path, image_size=[4, 4, 4]))
    with pytest.raises(ImageError, match=r"input of shape \(3, 4, 4, 4\), which no image has"):
        read_image(trained, saved(Image.fromarray(PIXELS), tmp_path / "a.png"))


def test_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path / "none.json"), "a.png"]) == 1
    assert "none.json: cannot be read" in capsys.readouterr().err
