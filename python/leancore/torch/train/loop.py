"""The training loop, visible from the first line to the last; Lightning Fabric carries it."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from leancore.torch.train.average import averaged_model
from leancore.torch.train.checkpoint import CheckpointError, State, load_checkpoint, load_state, save_checkpoint
from leancore.torch.train.config import OptionError, TrainConfig
from leancore.torch.train.data import Augmentation, DataSet, load_data, steps_per_epoch, test_batches, train_batches
from leancore.torch.train.folder import open_folder, write_config
from leancore.torch.train.parts import in_layout, make_network, make_optimizer
from leancore.torch.train.progress import EpochRow, Progress
from leancore.torch.train.schedule import learning_rate
from leancore.torch.train.stop import Interrupted, Stop, stop_on_signals
from leancore.torch.train.summary import write_summary

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class TrainingDiverged(Exception):
    """The loss or its gradient is not finite any more; the text gives the step and the learning rate."""


@dataclass(frozen=True)
class Result:
    test_accuracy: float  # after the last epoch, 0 to 1
    best_test_accuracy: float
    best_epoch: int
    parameters: int
    seconds: float  # of all epochs
    folder: Path

    def __str__(self) -> str:
        return (
            f"test accuracy {self.test_accuracy:.2%} (best {self.best_test_accuracy:.2%} after epoch "
            f"{self.best_epoch}), {self.parameters:,} parameters, {self.seconds:.1f} s"
        )


@dataclass
class _Position:
    """Where a run stands: finished epochs, and of the one at hand the steps done and their sums."""

    rows: list[EpochRow] = dataclasses.field(default_factory=list)
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    images: int = 0
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        return len(self.rows) + 1

    @property
    def best(self) -> EpochRow:
        """The first of the epochs of the highest test accuracy."""
        return max(self.rows, key=lambda row: row.test_accuracy)


def train(config: TrainConfig) -> Result:
    """Run a training and write its folder: config.yaml, metrics.csv, the checkpoints `best` and `last`, the summary.

    The figures are those of the test images, and `best` is chosen by them: it is the best epoch on this test set and
    no unbiased estimate. Training accuracy and loss are means over the epoch, of augmented images, in training mode,
    the loss with label smoothing. With `ema`, test figures and checkpoints are those of the averaged weights.

    The same seed gives the same run to the last bit on the same machine with the same packages, number of threads and
    number of processes; also when it was stopped and resumed on the way.

    Raises:
        OptionError: an option makes no sense.
        DataError: files of the data set are missing or damaged.
        FileExistsError: `out` is not empty, or holds something else than a run to resume.
        CheckpointError: the checkpoint to resume from is damaged, or is that of a run with other options.
        TrainingDiverged: a loss or gradient that is not finite; the last checkpoint before it is there.
        Interrupted: SIGTERM or SIGINT came, and `last` holds the state.
    """
    from leancore.torch.train.processes import average_buffers, launch, sums

    config = config.resolved()
    assert config.model
    assert config.epochs
    assert config.batch_size
    epochs, batch_size = config.epochs, config.batch_size
    fabric = launch(config)
    data = load_data(config.data, config.data_folder)
    steps = steps_per_epoch(data, batch_size)
    total_steps = epochs * steps
    _check_sizes(config, data, steps, fabric.world_size)

    # The network, its optimizer and its average.
    network = make_network(config, data)
    channels, *image_size = data.train.images.shape[1:]
    parameters = sum(p.numel() for p in network.parameters())
    plain_optimizer = make_optimizer(config, network)
    stepped = cast(nn.Module, torch.compile(network)) if config.compile else network
    model, optimizer = fabric.setup(stepped, plain_optimizer)
    average = averaged_model(network, config.ema) if config.ema else None
    tested: nn.Module = network if average is None else average.module

    # Where the run begins, or goes on.
    folder = _folder(config, fabric)
    config = dataclasses.replace(config, out=str(folder))
    now = _Position()
    resumed = config.resume and (folder / "last.json").exists()
    if resumed:
        now = _restore(folder / "last.json", config, network, average, plain_optimizer)
    elif fabric.is_global_zero:
        write_config(folder, config)

    def save(name: str, *, with_state: bool = False) -> None:
        if not fabric.is_global_zero:
            return
        about = {
            "model": config.model,
            "model_options": config.model_options,
            "num_classes": len(data.classes),
            "in_channels": channels,
            "image_size": image_size,
            "parameters": parameters,
            "data": data.name,
            "classes": list(data.classes),
            "normalisation": vars(data.normalisation),
            "metrics": now.rows[-1].as_dict() if now.rows and now.step == 0 else None,  # None within an epoch
            "config": config.as_dict(),
        }
        save_checkpoint(
            folder, name, tested, about, _state(now, network, average, plain_optimizer) if with_state else None
        )

    def stopped() -> Interrupted:
        save("last", with_state=True)
        fabric.barrier()  # no process may end before the state is on the disk
        step = len(now.rows) * steps + now.step
        where = (
            f"after step {step:,} of {total_steps:,}; to go on: leancore train --config {folder}/config.yaml --resume"
        )
        return Interrupted(stop.number or signal.SIGTERM, where)

    progress = Progress(
        folder if fabric.is_global_zero else None,
        f"{config.model} on {data.title}",
        epochs=epochs,
        steps_per_epoch=steps,
        tensorboard=config.tensorboard,
    )
    with progress, stop_on_signals() as stop, _deterministic(config.deterministic):
        progress.begin(
            f"{parameters:,} parameters, {len(data.train):,} training and {len(data.test):,} test images, "
            f"{epochs} epochs of {steps} steps, in {folder}"
            + (f", resumed after step {len(now.rows) * steps + now.step:,}" if resumed else ""),
            now.rows,
            len(now.rows) * steps + now.step,
        )
        while now.epoch <= epochs:
            began = time.perf_counter() - now.seconds
            model.train()
            batches = train_batches(
                data,
                batch_size=batch_size,
                seed=config.seed,
                epoch=now.epoch,
                augmentation=_augmentation(config, data),
                start=now.step,
                rank=fabric.global_rank,
                world_size=fabric.world_size,
            )
            for images, labels in batches:
                step = len(now.rows) * steps + now.step
                lr = learning_rate(config, step, total_steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr

                # The loss is the mean over the images of all parts and processes, whatever the size of each.
                size = min(batch_size, len(data.train) - now.step * batch_size)
                loss, correct = 0.0, 0
                for part in range(config.accumulate):
                    x = in_layout(images.tensor_split(config.accumulate)[part], config)
                    target = labels.tensor_split(config.accumulate)[part]
                    last = part == config.accumulate - 1
                    with nullcontext() if last or fabric.world_size == 1 else fabric.no_backward_sync(model):
                        scores = model(x)
                        summed = F.cross_entropy(
                            scores, target, reduction="sum", label_smoothing=config.label_smoothing
                        )
                        # DDP takes the mean over the processes, so that each of them counts world_size times.
                        fabric.backward(summed * (fabric.world_size / size))
                    loss += summed.item()
                    correct += _count_correct(scores, target)
                loss, correct_everywhere, stopping = sums(fabric, (loss, correct, bool(stop.number)))
                norm = get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
                if not math.isfinite(loss) or not torch.isfinite(norm):
                    raise TrainingDiverged(
                        f"the loss is {loss / size}, the norm of its gradient {norm.item()}, at step {step + 1} "
                        f"(epoch {now.epoch}), learning rate {lr:g}"
                    )
                if config.clip is not None:
                    clip_grads_with_norm_(network.parameters(), config.clip, norm)
                optimizer.step()
                optimizer.zero_grad()
                average_buffers(fabric, network)
                if average is not None:
                    average.update_parameters(network)

                now.step += 1
                now.loss += loss
                now.correct += int(correct_everywhere)
                now.images += size
                now.seconds = time.perf_counter() - began
                progress.step(loss / size)
                if stopping:
                    raise stopped()
                if config.checkpoint_every and (step + 1) % config.checkpoint_every == 0:
                    save("last", with_state=True)

            tested_as = _test(tested, data, config, fabric, stop)
            if tested_as is None:
                raise stopped()
            test_loss, test_accuracy = tested_as
            row = EpochRow(
                epoch=now.epoch,
                step=now.epoch * steps,
                lr=learning_rate(config, now.epoch * steps - 1, total_steps),
                train_loss=now.loss / now.images,
                train_accuracy=now.correct / now.images,
                test_loss=test_loss,
                test_accuracy=test_accuracy,
                seconds=time.perf_counter() - began,
            )
            if not math.isfinite(test_loss):
                raise TrainingDiverged(
                    f"the test loss is {test_loss} after step {row.step} (epoch {row.epoch}), learning rate {row.lr:g}"
                )
            now = _Position([*now.rows, row])
            progress.epoch(row, sum(row.seconds for row in now.rows))
            # `last` comes last: whenever it is there, so is what it says.
            if now.best is row:
                save("best")
            if config.keep_every and row.epoch % config.keep_every == 0:
                save(f"epoch-{row.epoch:04}")
            save("last", with_state=True)

        result = Result(
            now.rows[-1].test_accuracy,
            now.best.test_accuracy,
            now.best.epoch,
            parameters,
            sum(row.seconds for row in now.rows),
            folder,
        )
        if fabric.is_global_zero and not (folder / "summary.json").exists():
            write_summary(folder, config=config.as_dict(), data=data, model=tested, rows=now.rows, result=result)
        fabric.barrier()
        progress.end(str(result))
    return result


@torch.no_grad()
def _test(
    model: nn.Module, data: DataSet, config: TrainConfig, fabric: Fabric, stop: Stop
) -> tuple[float, float] | None:
    """Mean loss and accuracy (0 to 1) on the test images, without autocast. Leaves the model in eval mode.

    None when a signal came meanwhile.
    """
    from leancore.torch.train.processes import sums

    assert config.batch_size
    model.eval()
    dtype = next(model.parameters()).dtype
    loss, correct = 0.0, 0
    for images, labels in test_batches(data, config.batch_size, rank=fabric.global_rank, world_size=fabric.world_size):
        if stop.number:
            break
        scores = model(in_layout(images, config).to(dtype))
        loss += F.cross_entropy(scores.double(), labels, reduction="sum").item()
        correct += _count_correct(scores, labels)
    loss, total_correct, stopping = sums(fabric, (loss, correct, bool(stop.number)))
    return None if stopping else (loss / len(data.test), total_correct / len(data.test))


def _count_correct(scores: Tensor, labels: Tensor) -> int:
    return int((scores.argmax(1) == labels).sum())


def _augmentation(config: TrainConfig, data: DataSet) -> Augmentation | None:
    """That of the data set, with what the options say otherwise."""
    usual = data.augmentation
    if not config.augment:
        return None
    return dataclasses.replace(
        usual,
        crop=usual.crop if config.crop is None else config.crop,
        padding=usual.padding or data.train.images.shape[-1] // 8,
        flip=usual.flip if config.flip is None else config.flip,
    )


def _check_sizes(config: TrainConfig, data: DataSet, steps: int, processes: int) -> None:
    assert config.batch_size
    if steps == 0:
        raise OptionError(f"{data.title} has too few training images ({len(data.train)})")
    smallest = min(config.batch_size, len(data.train) - (steps - 1) * config.batch_size)
    parts = processes * config.accumulate
    if smallest < parts:
        raise OptionError(
            f"the smallest batch has {smallest} images, expected one for each of the {parts} parts "
            f"({processes} processes, accumulate {config.accumulate})"
        )


# State


def _state(now: _Position, network: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> State:
    """All that a run continues from, beside the weights that are tested."""
    tensors: dict[str, Tensor] = {"random": torch.get_rng_state()}
    for number, entries in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{number}.{key}": value for key, value in entries.items()})
    if average is not None:
        tensors["updates"] = average.get_buffer("n_averaged")
        tensors.update({f"network.{name}": value for name, value in network.state_dict().items()})
    return State(tensors, dataclasses.asdict(now))


def _restore(
    path: Path,
    config: TrainConfig,
    network: nn.Module,
    average: torch.optim.swa_utils.AveragedModel | None,
    optimizer: torch.optim.Optimizer,
) -> _Position:
    weights, about = load_checkpoint(path)
    state = load_state(path)
    try:
        differences = config.differences(about["config"])
        if differences:
            raise CheckpointError(f"{path}: the run had other options: {'; '.join(differences)}")
        parts: dict[str, dict[str, Tensor]] = {"optimizer": {}, "network": {}}
        for name, tensor in state.tensors.items():
            part, _, rest = name.partition(".")
            if rest:
                parts[part][rest] = tensor
        if average is None:
            network.load_state_dict(weights)
        else:
            network.load_state_dict(parts["network"])
            average.module.load_state_dict(weights)
            average.n_averaged.copy_(state.tensors["updates"])
        entries: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimizer"].items():
            number, _, key = name.partition(".")
            entries.setdefault(int(number), {})[key] = tensor
        optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
        torch.set_rng_state(state.tensors["random"])
        values = dict(state.values)
        return _Position([EpochRow(**row) for row in values.pop("rows")], **values)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: not the state of a run of this version: {error}") from error


# The end and the surroundings of a run


def _folder(config: TrainConfig, fabric: Fabric) -> Path:
    """The folder that the first process opened; its error in all of them."""
    outcome: Any = None
    if fabric.is_global_zero:
        try:
            outcome = open_folder(config)
        except OSError as error:
            outcome = error
    outcome = fabric.broadcast(outcome)
    if isinstance(outcome, OSError):
        raise outcome
    return Path(outcome)


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
