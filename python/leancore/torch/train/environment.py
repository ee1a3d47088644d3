"""What the figures of a run depend on beside its options: versions, processor, threads, commit."""

from __future__ import annotations

import json
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import leancore
from leancore.bench.report import machine

_PACKAGES = ("leancore", "torch", "lightning-fabric", "safetensors", "numpy", "matplotlib")


def environment() -> dict[str, Any]:
    """Plain values, for JSON. `commit` is None where leancore was not installed from a version control system."""
    import torch

    facts = machine()
    described: dict[str, Any] = {
        key: facts[key] for key in ("processor", "cpus", "memory_bytes", "memory_reused", "system", "python")
    }
    described |= {
        "threads": torch.get_num_threads(),
        "leancore_threads": leancore.max_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }
    return described


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Of the installation (pip notes it when it installs from a repository), else of the checkout that is imported."""
    try:
        origin = json.loads(metadata.distribution("leancore").read_text("direct_url.json") or "{}")
        if commit := origin.get("vcs_info", {}).get("commit_id"):
            return str(commit)
    except (metadata.PackageNotFoundError, ValueError):
        pass
    here = Path(__file__).resolve()
    # Tracked, not only below: an environment may lie inside the repository of something else.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    commit = _git(here.parent, "rev-parse", "HEAD")
    return f"{commit}, modified" if commit and _git(here.parent, "status", "--porcelain", "-uno") else commit


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
