"""What a training run is told: one dataclass, whose fields are the options of `leancore train`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from leancore.torch.models import list_models
from leancore.torch.train.data import list_data


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass
class TrainConfig:
    """Options of a training run, all keywords. `resolved` fills in what is left out (None)."""

    data: str = _option(
        "digits",
        "name in leancore.torch.train.list_data(): digits (of scikit-learn, no download), cifar10, cifar100, stl10 or "
        "fashion_mnist",
    )
    data_folder: str | None = _option(
        None,
        "folder that has the files of the data set, or has them in a folder of their usual name, or holds the "
        "official archive; left out: the cache, and what is not there is downloaded",
    )
    model: str | None = _option(
        None,
        "name in leancore.torch.models.list_models(); left out: lean_resnet_digits for the digits, else lean_resnet_a",
    )
    epochs: int | None = _option(
        None,
        "passes over the training images; left out: 300 for the schedule paper, else 100 for the digits and 10 for "
        "the others",
    )
    batch_size: int | None = _option(
        None, "images in a step; left out: 50 for the digits under another schedule than paper, else 100"
    )
    optimizer: Literal["adam", "sgd"] = _option("adam", "adam, or sgd with Nesterov momentum 0.9")
    schedule: Literal["onecycle", "paper", "constant"] = _option(
        "onecycle",
        "of the learning rate: onecycle rises to lr and falls to nearly zero, step by step; paper is that of the "
        "LeanResNet paper and halves lr every 75 epochs; constant keeps lr",
    )
    lr: float | None = _option(
        None,
        "(peak) learning rate; left out: 0.1 for the schedule paper and for sgd, else 0.01 for the digits, 0.005 for "
        "the others",
    )
    weight_decay: float = _option(0.0, "L2 penalty of the optimizer, on all parameters")
    augment: bool = _option(True, "random crops and flips of the training images, as is usual for the data set")
    seed: int = _option(0, "of the initial weights, the order of the images and the augmentation")
    out: str | None = _option(None, "folder of the run, new or empty; left out: runs/NAME-TIME")
    name: str | None = _option(None, "of the run; left out: the model's")

    def resolved(self) -> TrainConfig:
        """The same run with only `data_folder` and `out` possibly left out. Raises ValueError for the impossible."""
        paper, digits = self.schedule == "paper", self.data == "digits"
        model = self.model or ("lean_resnet_digits" if digits else "lean_resnet_a")
        defaults: dict[str, Any] = {
            "model": model,
            "name": model,
            "epochs": 300 if paper else 100 if digits else 10,
            "batch_size": 50 if digits and not paper else 100,
            "lr": 0.1 if paper or self.optimizer == "sgd" else 0.01 if digits else 0.005,
        }
        config = dataclasses.replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})
        config._check()
        return config

    def _check(self) -> None:
        def require(ok: bool, name: str, expected: str) -> None:
            if not ok:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {expected}")

        require(self.data in list_data(), "data", "one of " + ", ".join(list_data()))
        require(self.data != "digits" or self.data_folder is None, "data_folder", "none: digits come with scikit-learn")
        require(self.model in list_models(), "model", "one of " + ", ".join(list_models()))
        require(self.optimizer in ("adam", "sgd"), "optimizer", "adam or sgd")
        require(self.schedule in ("onecycle", "paper", "constant"), "schedule", "onecycle, paper or constant")
        require(self.epochs is not None and self.epochs >= 1, "epochs", "at least 1")
        require(self.batch_size is not None and self.batch_size >= 2, "batch_size", "at least 2, to normalise batches")
        require(self.lr is not None and 0 < self.lr < math.inf, "lr", "a positive number")
        require(0 <= self.weight_decay < math.inf, "weight_decay", "a number from 0 up")
        require(0 <= self.seed < 2**32, "seed", "a number from 0 to 2**32 - 1")

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
