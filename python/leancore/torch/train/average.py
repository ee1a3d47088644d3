"""The exponential moving average of a network's weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged_model(network: nn.Module, decay: float) -> AveragedModel:
    """A copy of the network that follows its weights: average <- w * average + (1 - w) * weights at each update.

    w is (1 + n) / (10 + n) at update n = 1, 2, ... until that reaches `decay`, so that the initial weights are
    soon forgotten, in short runs too. The running statistics of normalisation layers are averaged alike, as they
    belong to the weights; integers (counts of batches) are copied.
    """

    def update(averages: list[Tensor], values: list[Tensor], updates: Tensor | int) -> None:
        if averages[0].is_floating_point():
            n = int(updates)
            step = get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))  # type: ignore[no-untyped-call]
            step(averages, values, n)
        else:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)  # type: ignore[arg-type]
