"""One process, or as many as torchrun started: the same loop runs in each, on its slice of every batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from inspect import signature

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from leancore.torch.train.config import TrainConfig

# DDP's option to take running statistics from the first process before each step. They are averaged instead, after it.
_BUFFERS = next(o for o in ("forward_sync_buffers", "broadcast_buffers") if o in signature(DDP).parameters)


def launch(config: TrainConfig) -> Fabric:
    """Lightning Fabric for this process and, under torchrun, for those beside it."""
    if not torch.distributed.is_torchelastic_launched():
        fabric = Fabric(accelerator="cpu", devices=1, precision=config.precision)
    else:
        here, everywhere = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
        fabric = Fabric(
            accelerator="cpu",
            devices=here,
            num_nodes=everywhere // here,
            strategy=DDPStrategy(process_group_backend="gloo", **{_BUFFERS: False}),  # type: ignore[arg-type]
            precision=config.precision,
        )
    fabric.launch()
    return fabric


def sums(fabric: Fabric, values: Sequence[float]) -> list[float]:
    """Each value summed over the processes, in double: exact for counts below 2**53, the same in every process."""
    if fabric.world_size == 1:
        return list(values)
    total = fabric.all_reduce(torch.tensor(values, dtype=torch.float64), reduce_op="sum")
    assert isinstance(total, Tensor)
    result: list[float] = total.tolist()
    return result


def average_buffers(fabric: Fabric, network: nn.Module) -> None:
    """Give all processes the mean of their running statistics, so that they hold the same network."""
    buffers = [b for b in network.buffers() if b.is_floating_point()]
    if fabric.world_size == 1 or not buffers:
        return
    mean = fabric.all_reduce(torch.cat([b.flatten() for b in buffers]), reduce_op="mean")
    assert isinstance(mean, Tensor)
    with torch.no_grad():
        for buffer, part in zip(buffers, torch.split(mean, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.view_as(buffer))


def end(status: int) -> int:
    """Return the exit status to one process; end those of torchrun with it at once.

    A thread of torch's gloo backend may still be about to drop a Python object of the last averaged gradients, and
    at times aborts the process when the interpreter is shutting down by then (torch 2.13). All files are closed.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return status
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
