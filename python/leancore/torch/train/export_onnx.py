"""`leancore export`: a trained network as an ONNX file of standard operators, checked where it will run."""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib.util
import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from leancore.torch.decompositions import decompositions
from leancore.torch.standard import to_standard
from leancore.torch.train.checkpoint import CheckpointError
from leancore.torch.train.commands import add_checkpoint, fail
from leancore.torch.train.data import Normalisation
from leancore.torch.train.files import write_file
from leancore.torch.train.trained import Trained, load_trained

OPSET = 18
# Sums taken in another order differ by a small factor in their error; a wrong graph by orders of magnitude.
_SUSPICIOUS = 1000


class ExportError(Exception):
    """The network cannot be exported, or the file does not compute what the network does."""


@dataclass(frozen=True)
class Agreement:
    """Of ONNX Runtime with the network: largest errors of a score, against the network in float64."""

    images: int
    onnxruntime: float
    torch: float  # of the network in float32
    largest_score: float

    def __str__(self) -> str:
        return (
            f"largest error of a score on {self.images} images, against float64: {self.onnxruntime:.2e} in ONNX "
            f"Runtime, {self.torch:.2e} in torch; the largest score is {self.largest_score:.2f}"
        )


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a failure, 2 (by SystemExit) for wrong options."""
    options = _parser().parse_args(list(arguments))
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        return fail("export", f"not installed: {', '.join(missing)}. Install with: pip install onnx onnxscript")
    try:
        trained = load_trained(options.checkpoint)
        export(trained, options.onnx, from_bytes=options.bytes, opset=options.opset)
        size = options.onnx.stat().st_size
        print(f"{options.onnx}: {size / 2**20:.2f} MiB, opset {options.opset}, {_signature(trained, options.bytes)}")
        if importlib.util.find_spec("onnxruntime") is None:
            print("not checked: onnxruntime is not installed")
        else:
            print(check(trained, options.onnx, from_bytes=options.bytes))
    except (CheckpointError, ExportError, OSError) as error:
        return fail("export", error)
    return 0


def export(trained: Trained, path: str | Path, *, from_bytes: bool = False, opset: int = OPSET) -> None:
    """Write an ONNX file with the input `images` (N, channels, H, W) and the output `scores` (N, classes), N dynamic.

    Args:
        trained: its lean layers are made standard convolutions, in a copy.
        path: of the file, replaced in one step.
        from_bytes: images are uint8 as in image files, 0 to the full scale of the data set (255, or 16 for the
            digits), and normalised in the graph; else float32 and normalised by the caller.
        opset: version of the ONNX operators.

    Raises:
        ExportError: there is no such operator set, or the network has something that ONNX does not know.
        OSError: the file cannot be written.
    """
    network = to_standard(copy.deepcopy(trained.model)).eval()
    if from_bytes:
        network = FromBytes(network, trained.normalisation).eval()
    example = _images(trained, 2, from_bytes)
    try:
        with _quiet():
            graph = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("N")},))
            program = torch.onnx.export(
                graph.run_decompositions(
                    decompositions()
                ),  # to_standard knows layers; this, what else there is of ours
                dynamo=True,
                opset_version=opset,
                input_names=["images"],
                output_names=["scores"],
                verbose=False,
            )
        import onnx

        assert program is not None
        model = program.model_proto
        onnx.checker.check_model(model)
    except Exception as error:  # whatever the exporter meets, in many classes
        raise ExportError(f"{trained.path}: cannot be exported: {_first_cause(error)}") from error
    written = {entry.domain: entry.version for entry in model.opset_import}.get("")
    if written != opset:  # the exporter leaves what it cannot convert as it is
        raise ExportError(f"{trained.path}: cannot be exported to opset {opset}, only to {written}")
    write_file(path, model.SerializeToString())


class FromBytes(nn.Module):
    """A network behind its normalisation. forward: images uint8 (N, channels, H, W) -> scores (N, classes)."""

    def __init__(self, network: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.normalisation = normalisation

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(self.normalisation(images))
        return scores


def check(trained: Trained, path: str | Path, *, from_bytes: bool = False, images: int = 64) -> Agreement:
    """Run the file in ONNX Runtime on batches of random images, of more than one size.

    Raises:
        ExportError: it does not run, or its error is not that of rounding.
    """
    import onnxruntime

    batch = _images(trained, images, from_bytes)
    network = FromBytes(trained.model, trained.normalisation) if from_bytes else trained.model
    with torch.no_grad():
        ours = network(batch).double()
        exact = copy.deepcopy(trained.model).double()(_normalised(trained, batch, from_bytes).double())
    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        first, rest = batch[:1].numpy(), batch[1:].numpy()
        theirs = torch.cat([torch.from_numpy(session.run(None, {"images": part})[0]) for part in (first, rest)])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise ExportError(f"{path}: does not run: {error}") from error
    largest = float(exact.abs().max())
    agreement = Agreement(
        images, float((theirs.double() - exact).abs().max()), float((ours - exact).abs().max()), largest
    )
    allowed = _SUSPICIOUS * max(agreement.torch, torch.finfo(torch.float32).eps * largest)
    if not agreement.onnxruntime <= allowed:  # also where it is not a number
        raise ExportError(f"{path}: computes something else: {agreement}")
    return agreement


def _first_cause(error: BaseException) -> str:
    """The first line of the error that the others come from."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return f"{type(error).__name__}: {text.partition(chr(10))[0]}"


def _images(trained: Trained, count: int, from_bytes: bool) -> Tensor:
    top = int(trained.normalisation.full_scale)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, top + 1, (count, *trained.image_shape), generator=generator, dtype=torch.uint8)
    return images if from_bytes else trained.normalisation(images)


def _normalised(trained: Trained, images: Tensor, from_bytes: bool) -> Tensor:
    return trained.normalisation(images) if from_bytes else images


def _signature(trained: Trained, from_bytes: bool) -> str:
    shape = ", ".join(map(str, trained.image_shape))
    return (
        f"images {'uint8' if from_bytes else 'float32'} (N, {shape}) -> scores float32 (N, {len(trained.classes)})"
        + ("" if from_bytes else "; images must come normalised, see normalisation in the checkpoint")
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes that torch's exporter and onnxscript have on themselves."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leancore export",
        description="Write a trained network as an ONNX file. Lean layers become standard convolutions, so that any "
        "runtime reads it; the batch size is dynamic. Checked in ONNX Runtime where that is installed.",
    )
    add_checkpoint(parser)
    parser.add_argument("--onnx", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--bytes",
        action="store_true",
        help="normalise in the graph, so that the input is uint8 images as they come from a file",
    )
    parser.add_argument("--opset", type=int, default=OPSET, help="of the ONNX operators (default: %(default)s)")
    return parser
