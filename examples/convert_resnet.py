"""Makes a trained ResNet lean, and shows the test accuracy before, after each way to start, and after fine-tuning.

    python examples/convert_resnet.py                   # scikit-learn's digits
    python examples/convert_resnet.py --data cifar10    # downloaded, or from --data-folder

The network has the blocks of torchvision's resnet18 (which `convert` takes as well) at a width for small images, and is
trained here. Needs `leancore[train]`.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from leancore.torch import convert
from leancore.torch.train.data import DataSet, load_data, steps_per_epoch, test_batches, train_batches


class BasicBlock(nn.Module):
    """torchvision's: relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), where the first convolution may stride."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample = nn.Sequential()
        if stride > 1 or c_in != c_out:
            self.downsample.append(nn.Conv2d(c_in, c_out, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


def resnet(c_in: int, classes: int, width: int, stages: int) -> nn.Module:
    """Stages of two blocks; each but the first halves the image and doubles the channels."""
    layers: list[nn.Module] = [nn.Conv2d(c_in, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for stage in range(stages):
        c_out = width * 2**stage
        layers.append(BasicBlock(c_out // 2 if stage else width, c_out, 2 if stage else 1))
        layers.append(BasicBlock(c_out, c_out, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c_out, classes))


def train(model: nn.Module, data: DataSet, epochs: int, rate: float, seed: int = 0) -> None:
    steps = steps_per_epoch(data, 100)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, epochs=epochs, steps_per_epoch=steps)
    model.train()
    for epoch in range(epochs):
        batches = train_batches(data, batch_size=100, seed=seed, epoch=epoch, augmentation=data.augmentation)
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: DataSet) -> float:
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in test_batches(data, 256))
    return right / len(data.test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="a name in leancore.torch.train.list_data() (default: digits)")
    parser.add_argument("--data-folder", metavar="FOLDER", help="with its files (default: the cache, or a download)")
    parser.add_argument("--epochs", type=int, default=5, help="of the dense network (default: %(default)s)")
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=8, help="of 100 images, to calibrate on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one epoch, width 8: shows that it runs")
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.width, options.batches = 1, 8, 2

    torch.manual_seed(options.seed)
    data = load_data(options.data, options.data_folder)
    dense = resnet(data.train.images.shape[1], len(data.classes), options.width, stages=3)
    print(f"{data.title}: training the dense network, {options.epochs} epochs", flush=True)
    train(dense, data, options.epochs, rate=1e-2, seed=options.seed)
    print(f"\n{'test accuracy':26}{'converted':>12}{'new statistics':>16}{'one epoch':>12}")
    print(f"{'dense':26}{accuracy(dense, data):12.2%}", flush=True)

    fresh = train_batches(data, batch_size=100, seed=options.seed + 1, epoch=0, augmentation=data.augmentation)
    some = [images for images, _ in itertools.islice(fresh, options.batches)]

    for init in ("random", "project", "calibrate"):
        began = time.perf_counter()
        # The opening convolution stays dense, as in the paper: it sees few channels.
        model, report = convert(
            copy.deepcopy(dense),
            filter_fn=lambda name, _: name != "0",
            init=init,
            batches=some if init == "calibrate" else (),
            example_inputs=some[0][:1],
        )
        took = time.perf_counter() - began
        after = accuracy(model, data)
        update_bn(some, model)
        restored = accuracy(model, data)
        train(model, data, 1, rate=3e-3, seed=options.seed + 1)
        row = f"{after:12.2%}{restored:16.2%}{accuracy(model, data):12.2%}"
        print(f"{f'{init} ({took:.1f} s)':26}{row}", flush=True)
    print(f"\n{report}")


if __name__ == "__main__":
    main()
