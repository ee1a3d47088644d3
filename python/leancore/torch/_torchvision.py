"""Importing torchvision beside a CPU build of torch.

The wheel of torchvision on PyPI is built for CUDA. Beside a torch without CUDA its library of operators does not load,
and the import ends at the first operator that it wants to describe. Its models and transforms need none of these.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_declared: list[torch.library.Library] = []  # alive as long as the process, or the declarations would go away


def import_torchvision() -> ModuleType:
    """The module torchvision. Where it matches torch this is `import torchvision` and nothing else.

    Otherwise `torchvision::nms` and `torchvision::qnms` are declared without implementation, and the import is tried
    again: calling them fails, all that does not is there. Packages that import torchvision themselves, such as timm,
    can be imported afterwards.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: it does not load for another reason.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if torch.version.cuda is not None or "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _declared.append(library)
    return importlib.import_module("torchvision")
