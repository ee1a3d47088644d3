"""The lean convolution for PyTorch: an operator, modules, models and a training command.

Importing this package imports torch and leancore, nothing else. `leancore.torch.models` has the networks,
`leancore.torch.train` the training loop (it needs the extra `leancore[train]`).
"""

from leancore.torch.conversion import ConversionReport, convert
from leancore.torch.decompositions import decompositions
from leancore.torch.functional import lean_conv, shift
from leancore.torch.models import ModelInfo, create_model, list_models, model_info, register_with_timm
from leancore.torch.modules import LeanConv1d, LeanConv2d, LeanConv3d, LeanConv4d
from leancore.torch.standard import to_standard

__all__ = [
    "ConversionReport",
    "LeanConv1d",
    "LeanConv2d",
    "LeanConv3d",
    "LeanConv4d",
    "ModelInfo",
    "convert",
    "create_model",
    "decompositions",
    "lean_conv",
    "list_models",
    "model_info",
    "register_with_timm",
    "shift",
    "to_standard",
]
