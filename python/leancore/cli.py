"""The command `leancore`: what it can do, and `info`; the other commands have modules of their own."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_NEEDS = ("torch", "lightning_fabric", "jsonargparse", "rich", "safetensors", "matplotlib", "sklearn", "pooch")


@dataclass(frozen=True)
class _Command:
    """A command with a parser of its own, in a module that is imported when it is called."""

    module: str  # its `main` takes the arguments after the command's name and returns the exit status
    help: str
    needs: tuple[str, ...] = _NEEDS


_COMMANDS = {
    "train": _Command("leancore.torch.train.cli", "train a network"),
    "evaluate": _Command("leancore.torch.train.evaluate", "accuracy of a trained network, and that of each class"),
    "predict": _Command("leancore.torch.train.predict", "what a trained network sees in image files", (*_NEEDS, "PIL")),
    "export": _Command("leancore.torch.train.export_onnx", "a trained network as an ONNX file"),
    "table1": _Command("leancore.torch.train.table1.cli", "train the systems of the paper's Table 1 and compare them"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default that of the process) and return its exit status."""
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["bench"]:
        from leancore.bench.cli import main as bench_main

        return bench_main(None if own_process else arguments[1:])
    if arguments and arguments[0] in _COMMANDS:
        status = _run(arguments[0], arguments[1:])
        processes = sys.modules.get("leancore.torch.train.processes")  # None where nothing was trained
        return processes.end(status) if own_process and processes else status

    parser = argparse.ArgumentParser(
        prog="leancore",
        description="The lean convolution. Each command has its own --help; all but bench and info need "
        "leancore[train].",
    )
    parser.add_argument("--version", action="version", version=f"leancore {metadata.version('leancore')}")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in _COMMANDS.items():
        commands.add_parser(name, help=command.help)
    commands.add_parser("bench", help="speed, against this machine's limits and other libraries")
    info = commands.add_parser("info", help="versions, instruction sets, threads and CUDA, as seen here")
    info.add_argument(
        "--torch", action="store_true", help="import torch first, to see the thread runtime that the two share"
    )
    options = parser.parse_args(arguments)
    return _info(with_torch=options.torch)


def _run(name: str, arguments: Sequence[str]) -> int:
    command = _COMMANDS[name]
    missing = [package for package in command.needs if importlib.util.find_spec(package) is None]
    if missing:
        print(
            f"leancore {name}: error: not installed: {', '.join(missing)}. Install with: pip install 'leancore[train]'",
            file=sys.stderr,
        )
        return 1
    try:
        status: int = importlib.import_module(command.module).main(arguments)
        return status
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
        return 1


def _info(*, with_torch: bool) -> int:
    if with_torch:
        try:
            import torch  # noqa: F401
        except ImportError as error:
            print(f"leancore info: error: {error}. Install with: pip install 'leancore[torch]'", file=sys.stderr)
            return 1
    import leancore

    rows = [
        ("leancore", f"{leancore.__version__}, {Path(leancore.__file__).parent}"),
        ("python", f"{platform.python_version()}, {platform.platform()}"),
        *((name, _installed(name)) for name in ("numpy", "torch", "jax")),
        ("instruction sets", ""),
        *((f"  {name}", f"{'available' if available else 'not on this processor'}: {text}")
          for name, text, available in leancore.implementations()),
        ("selected", _selected()),
        ("LEANCORE_CPU_ISA", os.environ.get("LEANCORE_CPU_ISA", "not set")),
        ("threads", f"up to {leancore.max_threads()} ({leancore.thread_backend()})"),
        ("libgomp", ", ".join(_loaded("libgomp")) or "not loaded"),
        ("CUDA", leancore.cuda_status()),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name:<{width}}  {text}".rstrip())
    return 0


def _installed(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _selected() -> str:
    """What runs a typical layer; the environment variable may name something that there is not."""
    import leancore

    try:
        name: str = leancore.selected_implementation("forward", "float32", (1, 64, 32, 32), 64)
    except RuntimeError as error:
        return str(error)
    return name


def _loaded(library: str) -> list[str]:
    """Files of that name mapped into this process; two copies of a thread runtime would compete."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return []
    paths = {line.split(maxsplit=5)[-1].strip() for line in maps.read_text().splitlines() if library in line}
    return sorted(paths)
