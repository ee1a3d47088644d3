"""The networks of the LeanResNet paper's Table 1 and relatives, by name; docs/models.md describes them."""

from leancore.torch.models._timm import register_with_timm, register_with_timm_if_imported
from leancore.torch.models.mobilenet_v2 import MobileNetV2
from leancore.torch.models.registry import ModelInfo, create_model, list_models, model_info
from leancore.torch.models.resnet import ResNet
from leancore.torch.models.shift_resnet import ShiftResNet

__all__ = [
    "MobileNetV2",
    "ModelInfo",
    "ResNet",
    "ShiftResNet",
    "create_model",
    "list_models",
    "model_info",
    "register_with_timm",
]

register_with_timm_if_imported()
