"""The command `leancore`: `train`, `bench` and `info`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

_TRAIN_NEEDS = ("torch", "lightning_fabric", "jsonargparse", "rich", "safetensors", "matplotlib", "sklearn", "pooch")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (by default that of the process) and return its exit status."""
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["train"]:  # it has a parser of its own, from the options of a training run
        return _train(arguments[1:])
    if arguments[:1] == ["bench"]:
        from leancore.bench.cli import main as bench_main

        return bench_main(None if own_process else arguments[1:])

    parser = argparse.ArgumentParser(prog="leancore", description="The lean convolution.")
    parser.add_argument("--version", action="version", version=f"leancore {metadata.version('leancore')}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train", help="train a network (needs leancore[train]); see leancore train --help")
    commands.add_parser("bench", help="speed, against this machine's limits and other libraries; see leancore bench -h")
    info = commands.add_parser("info", help="versions, instruction sets, threads and CUDA, as seen here")
    info.add_argument(
        "--torch", action="store_true", help="import torch first, to see the thread runtime that the two share"
    )
    options = parser.parse_args(arguments)
    return _info(with_torch=options.torch)


def _train(arguments: Sequence[str]) -> int:
    missing = [name for name in _TRAIN_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"leancore train: error: not installed: {', '.join(missing)}. Install with: pip install 'leancore[train]'",
            file=sys.stderr,
        )
        return 1
    from leancore.torch.train.cli import main as train_main

    return train_main(arguments)


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
