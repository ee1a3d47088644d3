"""Exports a lean network to ONNX, runs it in ONNX Runtime, and prints how far the two are apart.

    pip install 'leancore[examples]'
    python examples/export_onnx.py --out lean.onnx

`to_standard` rewrites the lean layers as plain convolutions, so the file needs no custom operator: any runtime can
read it. The network is a LeanResNet of `leancore.torch.models` with random weights; batch size and image size are
dynamic in the file.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import nn

from leancore.torch import to_standard
from leancore.torch.models import create_model


def export(model: nn.Module, images: torch.Tensor, path: Path) -> None:
    """Writes the model, whose lean layers are made standard in a copy. images: an example (N, channels, H, W)."""
    standard = to_standard(copy.deepcopy(model).eval())
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
    torch.onnx.export(
        standard,
        (images,),
        path,
        dynamo=True,
        input_names=["images"],
        output_names=["scores"],
        dynamic_shapes=(dynamic,),
        external_data=False,
        verbose=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lean_resnet_a", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, help="where to keep the file (default: it is removed)")
    parser.add_argument("--quick", action="store_true", help="a small network and small images")
    options = parser.parse_args()

    import onnx
    import onnxruntime

    torch.manual_seed(0)
    model = create_model("lean_resnet_digits" if options.quick else options.model, 10, 3).eval()
    side = 8 if options.quick else 32
    with tempfile.TemporaryDirectory() as folder:
        path = options.out or Path(folder) / "lean.onnx"
        export(model, torch.rand(2, 3, side, side), path)
        size = path.stat().st_size
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        nodes = Counter(node.op_type for node in onnx.load(path).graph.node)
    print(f"{size / 2**20:.2f} MiB; " + ", ".join(f"{count} {name}" for name, count in sorted(nodes.items())))
    for shape in ((4, 3, side, side), (1, 3, side + 4, 2 * side)):
        images = torch.rand(shape)
        [theirs] = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            ours = model(images).numpy()
        print(f"{shape}: largest difference {np.abs(theirs - ours).max():.2e} of scores up to {np.abs(ours).max():.2f}")


if __name__ == "__main__":
    main()
