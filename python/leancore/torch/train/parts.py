"""What the options of a run make of a data set: the network, its optimizer and the layout of its batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from leancore.torch.models import create_model, model_info
from leancore.torch.train.config import OptionError, TrainConfig
from leancore.torch.train.data import DataSet


def make_network(config: TrainConfig, data: DataSet) -> nn.Module:
    """The network of a resolved configuration, initialised from its seed, in its layout. Raises OptionError."""
    assert config.model
    channels, *image_size = data.train.images.shape[1:]
    if model_info(config.model).dims != len(image_size):
        raise OptionError(f"model is {config.model!r}, expected one for images of {len(image_size)} dimensions")
    torch.manual_seed(config.seed)
    try:
        network = create_model(config.model, len(data.classes), channels, **(config.model_options or {}))
    except (TypeError, ValueError) as error:
        raise OptionError(f"model_options is {config.model_options}: {error}") from error
    if config.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def make_optimizer(config: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Weight decay on weights, which have two axes or more; not on biases and normalisation layers, which have one."""
    assert config.lr
    decayed = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    return torch.optim.Adam(groups, lr=config.lr)


def in_layout(images: Tensor, config: TrainConfig) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last) if config.channels_last else images
