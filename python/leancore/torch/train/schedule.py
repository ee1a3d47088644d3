"""The learning rate as a function of the step alone.

torch.optim.lr_scheduler has these curves too, as objects with a state that steps along. A function of the step has
none: a resumed run needs only its step to continue with the same bits.
"""

from __future__ import annotations

import math

from leancore.torch.train.config import TrainConfig


def learning_rate(config: TrainConfig, step: int, total: int) -> float:
    """Of step 0, 1, ..., total - 1 of a run; `config` is resolved."""
    assert config.lr
    peak = config.lr
    if config.schedule == "constant":
        return peak
    if config.schedule == "paper":  # lr halved every 75 of 300 epochs
        return peak * 0.5 ** (4 * step // total)
    assert config.warmup is not None
    rise = config.warmup * total
    part = (step - rise) / (total - rise)  # of the way down
    if config.schedule == "cosine":
        # From 0 before the first step up to the peak at step `rise`; down to 0 after the last step.
        return peak * (step + 1) / (rise + 1) if step < rise else _half_cosine(peak, 0.0, part)
    # From peak / 25 up, and down to peak / 250,000, as torch's OneCycleLR does by default.
    return _half_cosine(peak / 25, peak, step / rise) if step < rise else _half_cosine(peak, peak / 250_000, part)


def _half_cosine(begin: float, end: float, part: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * part)) / 2
