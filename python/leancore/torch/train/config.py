"""What a training run is told: one dataclass, whose fields are the options of `leancore train`."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from leancore.torch.models import list_models
from leancore.torch.train.data import list_data


class OptionError(ValueError):
    """An option of a run makes no sense; the text names it."""


def _option(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass
class TrainConfig:
    """Options of a training run, all keywords. `resolved` fills in what is left out (None)."""

    # What is trained, and on what
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
        "name in leancore.torch.list_models(); left out: the LeanResNet made for the data set",
    )
    model_options: dict[str, Any] | None = _option(  # noqa: RUF009
        None, "keyword arguments of leancore.torch.create_model, such as '{dense_blocks: 1}'"
    )

    # How long, in which steps
    epochs: int | None = _option(
        None,
        "passes over the training images; left out: 300 for the schedule paper, else 100 for the digits and 10 for "
        "other data",
    )
    batch_size: int | None = _option(
        None,
        "images in a step of the optimizer, those of all processes together; left out: 50 for the digits under "
        "another schedule than paper, else 100",
    )
    accumulate: int = _option(
        1, "parts into which a process divides its images of a step, one after the other, to save memory"
    )

    # The optimizer
    optimizer: Literal["adam", "adamw", "sgd"] = _option(
        "adam", "adam, adamw (decoupled weight decay), or sgd with Nesterov momentum 0.9"
    )
    lr: float | None = _option(
        None,
        "(peak) learning rate; left out: 0.1 for the schedule paper and for sgd, else 0.01 for the digits, 0.005 for "
        "other data",
    )
    schedule: Literal["onecycle", "cosine", "paper", "constant"] = _option(
        "onecycle",
        "of the learning rate: onecycle rises to lr and falls to nearly zero in half cosines; cosine rises to lr in a "
        "line and falls to zero in half a cosine; paper halves lr after each quarter of the steps, which is every 75 "
        "of its 300 epochs; constant keeps lr",
    )
    warmup: float | None = _option(
        None, "part of the steps in which onecycle and cosine rise to lr; left out: 0.3 for onecycle, 0.2 for cosine"
    )
    weight_decay: float = _option(
        0.0, "of the weights of convolutions and linear layers; biases and normalisation layers have none"
    )
    clip: float | None = _option(None, "largest norm of the gradient of a step, that of all parameters together")
    label_smoothing: float = _option(
        0.0, "share of the target probability that is spread over all classes, in training only"
    )
    ema: float = _option(
        0.0,
        "decay a step of the average of the weights that is tested and saved, such as 0.999; smaller in the first "
        "steps; 0: no average",
    )

    # Augmentation
    augment: bool = _option(True, "random crops and flips of the training images")
    crop: Literal["none", "padded", "resized"] | None = _option(
        None, "padded: shifts; resized: random sizes and shapes, as in the paper; left out: what suits the data set"
    )
    flip: bool | None = _option(None, "mirror half of the images; left out: if that suits the data set")

    # How it is computed
    precision: Literal["32-true", "bf16-mixed", "64-true"] = _option(
        "32-true", "of the training steps, by the names of Lightning Fabric"
    )
    channels_last: bool = _option(False, "channels adjacent in memory")
    compile: bool = _option(False, "torch.compile the training steps")
    seed: int = _option(0, "of the initial weights, the order of the images and the augmentation")
    deterministic: bool = _option(
        False, "refuse operators of torch that are not deterministic; the CPU uses none in the models here"
    )

    # What a run leaves
    out: str | None = _option(None, "folder of the run, new or empty unless --resume; left out: runs/NAME-TIME")
    name: str | None = _option(None, "of the run; left out: the model's")
    resume: bool = _option(False, "continue the run in `out` from its last checkpoint; start it if there is none")
    checkpoint_every: int | None = _option(
        None, "save `last` every so many steps too; left out: at the end of each epoch and when stopped by a signal"
    )
    keep_every: int | None = _option(None, "keep a checkpoint of every so many epochs, beside `last` and `best`")
    tensorboard: bool = _option(True, "write TensorBoard events too, if the package tensorboard is installed")

    def resolved(self) -> TrainConfig:
        """The same run with only what may be left out left out. Raises OptionError."""
        paper, digits = self.schedule == "paper", self.data == "digits"
        model = self.model or _MODELS.get(self.data, "lean_resnet_a")
        defaults: dict[str, Any] = {
            "model": model,
            "model_options": {},
            "name": model,
            "epochs": 300 if paper else 100 if digits else 10,
            "batch_size": 50 if digits and not paper else 100,
            "lr": 0.1 if paper or self.optimizer == "sgd" else 0.01 if digits else 0.005,
            "warmup": _WARMUP.get(self.schedule),
        }
        config = dataclasses.replace(self, **{k: v for k, v in defaults.items() if getattr(self, k) is None})
        config._check()
        return config

    def _check(self) -> None:
        def require(ok: bool, name: str, expected: str) -> None:
            if not ok:
                raise OptionError(f"{name} is {getattr(self, name)!r}, expected {expected}")

        def among(name: str, values: list[str]) -> None:
            require(getattr(self, name) in values, name, "one of " + ", ".join(values))

        among("data", list_data())
        require(self.data != "digits" or self.data_folder is None, "data_folder", "none: digits come with scikit-learn")
        among("model", list_models())
        for name, hint in get_type_hints(TrainConfig).items():
            choices = [c for part in (hint, *get_args(hint)) if get_origin(part) is Literal for c in get_args(part)]
            if choices and getattr(self, name) is not None:
                among(name, choices)
        require(self.epochs is not None and self.epochs >= 1, "epochs", "at least 1")
        require(self.batch_size is not None and self.batch_size >= 2, "batch_size", "at least 2, to normalise batches")
        require(self.accumulate >= 1, "accumulate", "at least 1")
        require(self.lr is not None and 0 < self.lr < math.inf, "lr", "a positive number")
        if self.schedule in _WARMUP:
            require(self.warmup is not None and 0 <= self.warmup < 1, "warmup", "a number from 0 to less than 1")
        else:
            require(self.warmup is None, "warmup", f"nothing: the schedule {self.schedule} has none")
        require(0 <= self.weight_decay < math.inf, "weight_decay", "a number from 0 up")
        require(self.clip is None or 0 < self.clip < math.inf, "clip", "a positive number")
        require(0 <= self.label_smoothing < 1, "label_smoothing", "a number from 0 to less than 1")
        require(0 <= self.ema < 1, "ema", "a number from 0 to less than 1")
        require(0 <= self.seed < 2**32, "seed", "a number from 0 to 2**32 - 1")
        require(not self.resume or self.out is not None, "resume", "a folder in `out` to resume from")
        for name in ("checkpoint_every", "keep_every"):
            require(getattr(self, name) is None or getattr(self, name) >= 1, name, "at least 1")

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def differences(self, earlier: dict[str, Any]) -> list[str]:
        """What a resumed run would compute otherwise than the run of the config `earlier`, in words."""
        return [
            f"{name} was {earlier.get(name)!r} and is {value!r}"
            for name, value in self.as_dict().items()
            if name not in OF_NO_CONSEQUENCE and earlier.get(name) != value
        ]


# The LeanResNet of the paper's Table 1 for each data set.
_MODELS = {"digits": "lean_resnet_digits", "cifar100": "lean_resnet_c", "stl10": "lean_resnet_e"}
_WARMUP = {"onecycle": 0.3, "cosine": 0.2}
# Options that say where a run is and what it keeps, not what it computes: they may change when it is resumed.
OF_NO_CONSEQUENCE = frozenset({"data_folder", "out", "name", "resume", "checkpoint_every", "keep_every", "tensorboard"})

# Sets of options by name; `leancore train --recipe NAME` makes them the defaults.
RECIPES: dict[str, dict[str, Any]] = {
    # The protocol of the LeanResNet paper, as far as it is stated.
    "paper": {"optimizer": "adam", "schedule": "paper", "lr": 0.1, "epochs": 300, "batch_size": 100, "crop": "resized"},
    # A short modern one.
    "modern": {
        "optimizer": "sgd",
        "schedule": "cosine",
        "lr": 0.1,
        "warmup": 0.2,
        "epochs": 20,
        "batch_size": 100,
        "weight_decay": 5e-4,
        "ema": 0.999,
        "crop": "padded",
    },
}
