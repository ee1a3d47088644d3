"""`leancore predict`: what a trained network sees in image files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from leancore.torch.train.checkpoint import CheckpointError
from leancore.torch.train.commands import add_checkpoint, count, fail
from leancore.torch.train.trained import Trained, load_trained

if TYPE_CHECKING:
    from PIL import Image

_MODES = {1: "L", 3: "RGB"}  # of Pillow, by the channels of the network


class ImageError(Exception):
    """An image cannot be read or used; the text names the file."""


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 where a file could not be used, 2 (by SystemExit) for wrong options.

    The other images are classified all the same.
    """
    options = _parser().parse_args(list(arguments))
    try:
        trained = load_trained(options.checkpoint)
    except CheckpointError as error:
        return fail("predict", error)
    found, status = [], 0
    for path in options.images:
        try:
            predictions = predict(trained, path, options.top)
        except ImageError as error:
            status = fail("predict", error)
            continue
        if options.json:
            found.append({"file": path, "predictions": predictions})
        else:
            print(f"{path}: " + ", ".join(f"{p['class']} {p['probability']:.2%}" for p in predictions))
    if options.json:
        print(json.dumps(found, indent=2))
    return status


@torch.no_grad()
def predict(trained: Trained, path: str | Path, top: int = 5) -> list[dict[str, Any]]:
    """The `top` most probable classes of an image file, the most probable first. Raises ImageError."""
    scores = trained.model(read_image(trained, path)).double()
    probabilities, order = scores.softmax(1)[0].sort(descending=True, stable=True)
    return [
        {"class": trained.classes[index], "index": index, "probability": probability}
        for index, probability in zip(order[:top].tolist(), probabilities[:top].tolist(), strict=True)
    ]


def read_image(trained: Trained, path: str | Path) -> Tensor:
    """An image file as the network wants it: float32 (1, channels, H, W), normalised.

    Turned upright by its EXIF data, made grey or RGB, and resized (antialiased, without keeping its proportions) to the
    size of the images that the network was trained on. Transparency is dropped. Raises ImageError.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if trained.in_channels not in _MODES or len(trained.image_size) != 2:
        raise ImageError(f"{trained.path}: a network for input of shape {trained.image_shape}, which no image has")
    height, width = trained.image_size
    try:
        with Image.open(path) as file:
            image = _eight_bits(ImageOps.exif_transpose(file), path).convert(_MODES[trained.in_channels])
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not an image that Pillow can read") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"{path}: cannot be read: {reason}") from error
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8)).view(height, width, trained.in_channels)
    scale = trained.normalisation.full_scale / 255  # the digits of scikit-learn run from 0 to 16
    return trained.normalisation(pixels.permute(2, 0, 1).unsqueeze(0).float() * scale)


def _eight_bits(image: Image.Image, path: str | Path) -> Image.Image:
    """Pillow clips what is wider than 8 bits when it converts: 16 bits are scaled here, others have no known range."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.array(image).astype(np.uint32) // 257).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ImageError(f"{path}: pixels of 32 bits, whose full scale is not known; expected 8 or 16 bits")
    return image


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leancore predict",
        description="The most probable classes of images, of any file type that Pillow reads, resized to the size that "
        "the network was trained on.",
    )
    add_checkpoint(parser)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--top", type=count, default=5, help="how many classes of each (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
