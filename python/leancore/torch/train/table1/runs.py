"""Finished runs: in their folders, or collected into a folder of CSV files that a repository can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancore.torch.models import list_models
from leancore.torch.train.config import OF_NO_CONSEQUENCE
from leancore.torch.train.files import write_file, write_json
from leancore.torch.train.metrics import parse_metrics
from leancore.torch.train.summary import FORMAT

COLLECTED = "runs.json"
# Options in which the runs of a table may differ.
OF_A_SYSTEM = frozenset({"model", "model_options", "seed", "lr"})
_FACTS = ("parameters", "paper_parameters", "paper_accuracy_percent", "multiply_adds", "data", "environment")


class RunError(Exception):
    """Runs cannot be read or do not belong in one table; the text names the folder or the file."""


@dataclass(frozen=True)
class Run:
    """One finished run."""

    model: str
    seed: int
    config: Mapping[str, Any]
    metrics: str  # the text of metrics.csv
    facts: Mapping[str, Any]  # of its summary.json, those named in _FACTS

    @property
    def rows(self) -> list[dict[str, float]]:
        return parse_metrics(self.metrics)

    @property
    def lr(self) -> float:
        return float(self.config["lr"])


def run_folder(out: str | Path, model: str, seed: int) -> Path:
    return Path(out) / model / f"seed{seed}"


def read_run(folder: str | Path) -> Run | None:
    """The run in a folder; None if it has not finished. Raises RunError if its files are not what they should be."""
    folder = Path(folder)
    try:
        summary = json.loads((folder / "summary.json").read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(f"{folder / 'summary.json'}: cannot be read: {error}") from error
    try:
        if summary["format"] != FORMAT:
            raise ValueError(f"the format is {summary['format']!r}, expected {FORMAT!r}")
        config, metrics = summary["config"], (folder / "metrics.csv").read_text()
        parse_metrics(metrics)
        return Run(config["model"], config["seed"], config, metrics, {key: summary[key] for key in _FACTS})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: not a finished run: {error}") from error


def read_runs(out: str | Path) -> list[Run]:
    """The finished runs below a folder of `leancore table1`, or those that `collect` wrote there, `ordered`.

    Raises RunError.
    """
    if (Path(out) / COLLECTED).exists():
        return read_collected(out)
    folders = [path.parent for path in Path(out).glob("*/seed*/summary.json")]
    return ordered([run for folder in folders if (run := read_run(folder)) is not None])


def collect(runs: Sequence[Run], folder: str | Path) -> None:
    """Copy metrics.csv of each run, and what the table needs beside them in runs.json; no paths of this machine."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for run in runs:
        file = f"{run.model}-seed{run.seed}"
        if any(other is not run and (other.model, other.seed) == (run.model, run.seed) for other in runs):
            file += f"-lr{run.lr:g}"
        write_file(folder / f"{file}.csv", run.metrics)
        config = {key: value for key, value in run.config.items() if key not in OF_NO_CONSEQUENCE}
        records.append({"metrics": f"{file}.csv", "config": config, **run.facts})
    if len({record["metrics"] for record in records}) != len(records):
        raise RunError(f"{folder}: one run is to be collected twice")
    write_json(folder / COLLECTED, records)


def read_collected(folder: str | Path) -> list[Run]:
    """What `collect` wrote. Raises RunError."""
    folder = Path(folder)
    try:
        runs = []
        for record in json.loads((folder / COLLECTED).read_text()):
            metrics = (folder / record["metrics"]).read_text()
            parse_metrics(metrics)
            config = record["config"]
            runs.append(Run(config["model"], config["seed"], config, metrics, {key: record[key] for key in _FACTS}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: no collected runs: {error}") from error
    return ordered(runs)


def differences(a: Mapping[str, Any], b: Mapping[str, Any], *, besides: frozenset[str] = frozenset()) -> list[str]:
    """What differs between two configurations as JSON holds them, in words; where a run is does not count."""
    keys = [key for key in {**a, **b} if key not in OF_NO_CONSEQUENCE and key not in besides]
    absent = object()
    return [
        f"{key}: {_shown(a, key)} and {_shown(b, key)}"
        for key in keys
        if _plain(a.get(key, absent)) != _plain(b.get(key, absent))
    ]


def shared_config(runs: Sequence[Run]) -> dict[str, Any]:
    """The options that all runs of a table have in common. Raises RunError where their budget or recipe differs."""
    first = runs[0]
    for run in runs[1:]:
        if found := differences(first.config, run.config, besides=OF_A_SYSTEM):
            raise RunError(
                f"{first.model} seed {first.seed} and {run.model} seed {run.seed} had no equal budget: "
                + "; ".join(found)
            )
    return {key: value for key, value in first.config.items() if key not in OF_NO_CONSEQUENCE | OF_A_SYSTEM}


def ordered(runs: Sequence[Run]) -> list[Run]:
    """By model, as list_models has them, then learning rate, then seed."""
    names = list_models()
    place = {name: index for index, name in enumerate(names)}
    return sorted(runs, key=lambda run: (place.get(run.model, math.inf), run.model, run.lr, run.seed))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "not there"
