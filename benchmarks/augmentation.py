"""What making a batch costs beside the training step that it feeds: choosing images, augmenting, normalising.

    python benchmarks/augmentation.py                                    # LeanResNet-A, 100 images of 3x32x32
    python benchmarks/augmentation.py --size 96 --steps 8                # as large as STL-10's

Batch and step take turns, as in training; medians in milliseconds, and the batch's as a percentage of the step's. Needs
`leancore[train]`; images are random bytes, as many as CIFAR-10's 50,000 or STL-10's 5,000 have.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from leancore.torch.models import create_model, list_models
from leancore.torch.train.data import Augmentation, DataSet, Normalisation, Split, train_batches

AUGMENTATIONS = {
    "none": None,
    "padded crop, flip": Augmentation("padded", padding=4, flip=True),
    "resized crop, flip": Augmentation("resized", flip=True),
}


def random_data(size: int) -> DataSet:
    count = 50_000 if size <= 32 else 5_000
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    split = Split(images, torch.randint(0, 10, (count,)))
    normalisation = Normalisation(255.0, (0.5,) * 3, (0.25,) * 3)
    return DataSet("random", "random", tuple("0123456789"), split, split, normalisation, Augmentation())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default="lean_resnet_a", choices=list_models(), metavar="MODEL", help="(default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=32, help="height and width of the images (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="of each augmentation (default: %(default)s)")
    options = parser.parse_args()

    data = random_data(options.size)
    model = create_model(options.model, 10, 3).train()
    optimizer = torch.optim.Adam(model.parameters())
    image = f"3x{options.size}x{options.size}"
    print(f"{options.model}, {options.batch_size} images of {image}, {torch.get_num_threads()} threads")
    print(f"{'augmentation':20}{'batch, ms':>11}{'step, ms':>11}{'share':>9}")
    for name, augmentation in AUGMENTATIONS.items():
        making, stepping = [], []
        batches = train_batches(data, batch_size=options.batch_size, seed=0, epoch=0, augmentation=augmentation)
        for step in range(options.steps + 2):
            began = time.perf_counter()
            images, labels = next(batches)
            made = time.perf_counter()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step >= 2:  # the first ones warm up
                making.append(1e3 * (made - began))
                stepping.append(1e3 * (time.perf_counter() - made))
        batch, training = statistics.median(making), statistics.median(stepping)
        print(f"{name:20}{batch:11.2f}{training:11.1f}{batch / training:9.2%}", flush=True)


if __name__ == "__main__":
    main()
