"""A dense and a lean 3-D U-Net find brain structures in a real head volume.

    apt-get install mricron-data
    pip install 'leancore[examples]'
    python examples/unet_3d_mri.py

The volume (ch2, T1-weighted, 1 mm) and its label map (aal, whose regions were drawn on this very head) come from
Debian's mricron-data, and are used at every second voxel. The left hemisphere is for training, the right one, mirrored,
for testing. This is ONE subject: a test on the other half of the same head says that the networks learn, and how they
compare here, not how they would do on another person or scanner.

Printed is the Dice coefficient of each structure: 2 |A and B| / (|A| + |B|), 1 being perfect.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leancore.torch import convert

FOLDER = Path("/usr/share/mricron/templates")
# Regions of the aal map, both sides: see aal.nii.txt beside it.
STRUCTURES = {
    "cortex": [*range(1, 37), *range(43, 71), *range(79, 91)],
    "limbic": range(37, 43),  # hippocampus, parahippocampal gyrus, amygdala
    "deep grey": range(71, 79),  # caudate, putamen, pallidum, thalamus
    "cerebellum": range(91, 117),
}
MIDPLANE, GAP = 45, 2  # in the first axis, left to right, of the volume at every second voxel


@dataclass(frozen=True)
class Half:
    image: Tensor  # (x, y, z), zero mean and unit variance over the head
    labels: Tensor  # (x, y, z), 0 or 1 + the index of the structure


def load(folder: Path) -> tuple[Half, Half]:
    """The left and the right hemisphere, of the same orientation, without the voxels next to the plane between them."""
    import nibabel

    def volume(name: str) -> Tensor:
        return torch.from_numpy(nibabel.load(folder / name).get_fdata(dtype="float32"))[::2, ::2, ::2]

    image, regions = volume("ch2.nii.gz"), volume("aal.nii.gz").long()
    head = image[image > 0]
    image = (image - head.mean()) / head.std()
    labels = torch.zeros_like(regions)
    for i, numbers in enumerate(STRUCTURES.values()):
        labels[torch.isin(regions, torch.tensor(list(numbers)))] = 1 + i
    left, right = slice(0, MIDPLANE - GAP), slice(MIDPLANE + 1 + GAP, None)
    return Half(image[left], labels[left]), Half(image[right].flip(0), labels[right].flip(0))


class Stage(nn.Sequential):
    """Two 3x3x3 convolutions, each with normalisation and ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        layers: list[nn.Module] = []
        for c in (c_in, c_out):
            layers += [nn.Conv3d(c, c_out, 3, padding=1, bias=False), nn.BatchNorm3d(c_out), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """Three resolutions: stages going down, stages going up that see the one of the same resolution too."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([Stage(1, width), Stage(width, 2 * width), Stage(2 * width, 4 * width)])
        self.up = nn.ModuleList([Stage(6 * width, 2 * width), Stage(3 * width, width)])
        self.head = nn.Conv3d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen: list[Tensor] = []
        for stage in self.down:
            x = stage(F.max_pool3d(x, 2, ceil_mode=True) if seen else x)
            seen.append(x)
        for stage, skip in zip(self.up, reversed(seen[:-1]), strict=True):
            x = stage(torch.cat((F.interpolate(x, skip.shape[2:]), skip), 1))
        scores: Tensor = self.head(x)
        return scores


def crops(half: Half, count: int, side: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (count, 1, side, side, side) and labels, each around a voxel of a structure, all structures as often."""
    images, labels = [], []
    for _ in range(count):
        structure = int(torch.randint(1, len(STRUCTURES) + 1, (), generator=generator))
        voxels = (half.labels == structure).nonzero()
        middle = voxels[torch.randint(len(voxels), (), generator=generator)]
        corner = [min(max(int(m) - side // 2, 0), n - side) for m, n in zip(middle, half.image.shape, strict=True)]
        where = tuple(slice(start, start + side) for start in corner)
        images.append(half.image[where][None])
        labels.append(half.labels[where])
    return torch.stack(images), torch.stack(labels)


def train(model: nn.Module, half: Half, steps: int, side: int, rate: float) -> float:
    """Returns the seconds it took."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    began = time.perf_counter()
    for _ in range(steps):
        images, labels = crops(half, 4, side, generator)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return time.perf_counter() - began


@torch.no_grad()
def dice(model: nn.Module, half: Half) -> list[float]:
    found = model.eval()(half.image[None, None]).argmax(1)[0]
    scores = []
    for i in range(1, len(STRUCTURES) + 1):
        mine, truth = found == i, half.labels == i
        scores.append(2 * float((mine & truth).sum()) / float(mine.sum() + truth.sum()))
    return scores


def not_the_first(name: str, _: nn.Module) -> bool:
    """The convolution that sees the image stays dense: it has one channel, so there is little to save."""
    return name != "down.0.0"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=FOLDER, metavar="FOLDER", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of 4 crops, for each network (default: %(default)s)")
    parser.add_argument("--width", type=int, default=16, help="channels at full resolution (default: %(default)s)")
    parser.add_argument("--side", type=int, default=32, help="of the crops (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="10 steps, width 4, side 16: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.width, options.side = 10, 4, 16
    if not (options.data / "ch2.nii.gz").exists():
        sys.exit(
            f"{options.data / 'ch2.nii.gz'} is missing: apt-get install mricron-data, or name its folder by --data"
        )

    left, right = load(options.data)
    print(f"one subject; training on the left hemisphere, {tuple(left.image.shape)} voxels, testing on the right")
    print(f"{'':30}{'parameters':>11}{'training':>11}" + "".join(f"{name:>12}" for name in STRUCTURES))

    def row(name: str, model: nn.Module, seconds: float) -> None:
        parameters = sum(p.numel() for p in model.parameters())
        scores = "".join(f"{score:12.3f}" for score in dice(model, right))
        print(f"{name:30}{parameters:11,}{f'{seconds:.0f} s':>11}{scores}", flush=True)

    def fresh() -> UNet:
        torch.manual_seed(0)
        return UNet(1 + len(STRUCTURES), options.width)

    dense = fresh()
    row("dense", dense, train(dense, left, options.steps, options.side, 1e-2))
    lean, _ = convert(fresh(), not_the_first, init="random")
    row("lean, from the start", lean, train(lean, left, options.steps, options.side, 1e-2))
    generator = torch.Generator().manual_seed(1)
    batches = [crops(left, 4, options.side, generator)[0] for _ in range(4)]
    began = time.perf_counter()
    lean, report = convert(
        copy.deepcopy(dense), not_the_first, init="calibrate", batches=batches, example_inputs=batches[0][:1]
    )
    row("lean, calibrated", lean, time.perf_counter() - began)
    steps = max(options.steps // 4, 2)
    row(f"  and {steps} steps of training", lean, train(lean, left, steps, options.side, 3e-3))
    print(f"\n{report}")


if __name__ == "__main__":
    main()
