"""Quantises an exported lean network to 8 bits with ONNX Runtime, and prints size, agreement and error.

    pip install 'leancore[examples]'
    python examples/quantize.py

Trains LeanResNet-A on scikit-learn's digits, exports it (`export_onnx.py`), and quantises the convolutions of the file
statically: 8-bit activations, whose ranges are measured on training images, and 8-bit weights with a scale for each
output channel. No operator of leancore is left by then.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from export_onnx import export
from leancore.torch.models import create_model
from leancore.torch.train.data import DataSet, load_data, steps_per_epoch, test_batches, train_batches


def train(model: nn.Module, data: DataSet, epochs: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-2, epochs=epochs, steps_per_epoch=steps_per_epoch(data, 100)
    )
    model.train()
    for epoch in range(epochs):
        batches = train_batches(data, batch_size=100, seed=0, epoch=epoch, augmentation=data.augmentation)
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()


def quantize(source: Path, target: Path, batches: Iterator[np.ndarray]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            images = next(batches, None)
            return None if images is None else {"images": images}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Batches(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="one epoch: shows that it runs")
    options = parser.parse_args()

    import onnxruntime

    torch.manual_seed(0)
    data = load_data("digits")
    model = create_model("lean_resnet_digits" if options.quick else "lean_resnet_a", in_channels=1)
    train(model, data, 1 if options.quick else options.epochs)
    model.eval()
    labels = data.test.labels.numpy()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = next(iter(test_batches(data, len(data.test))))[0]
        export(model, images[:2], folder / "float.onnx")
        calibration = train_batches(data, batch_size=100, seed=0, epoch=0)
        quantize(folder / "float.onnx", folder / "int8.onnx", (batch.numpy() for batch, _ in calibration))

        with torch.no_grad():
            exact = model(images).numpy()
        print(f"{'':14}{'KiB':>8}{'test accuracy':>15}{'same class':>12}{'rms error / rms':>17}")
        print(f"{'leancore':14}{'':8}{np.mean(exact.argmax(1) == labels):15.2%}")
        for file in ("float.onnx", "int8.onnx"):
            session = onnxruntime.InferenceSession(folder / file, providers=["CPUExecutionProvider"])
            [scores] = session.run(None, {"images": images.numpy()})
            kib = (folder / file).stat().st_size / 1024
            error = np.sqrt(np.mean((scores - exact) ** 2) / np.mean(exact**2))
            same = np.mean(scores.argmax(1) == exact.argmax(1))
            print(f"{file:14}{kib:8.1f}{np.mean(scores.argmax(1) == labels):15.2%}{same:12.2%}{error:17.2e}")


if __name__ == "__main__":
    main()
