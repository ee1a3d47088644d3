"""The command `leancore table1`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leancore.torch.train.checkpoint import CheckpointError
from leancore.torch.train.commands import count, fail
from leancore.torch.train.config import TrainConfig
from leancore.torch.train.data import DataError
from leancore.torch.train.metrics import read_metrics
from leancore.torch.train.options import parse_training, recipe_fields, training_parser
from leancore.torch.train.stop import Interrupted
from leancore.torch.train.table1 import timing
from leancore.torch.train.table1.curves import draw_runs
from leancore.torch.train.table1.page import replace_section
from leancore.torch.train.table1.report import write_report
from leancore.torch.train.table1.runs import Run, RunError, collect, ordered, read_runs
from leancore.torch.train.table1.schedule import A_ROW, configs, run_all

# Options of a training run that the command sets itself.
_OWN = frozenset({"model", "seed", "out", "name", "resume"})


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a failure or a run that diverged, 2 (by SystemExit) for wrong options."""
    if arguments[:1] == ["curves"]:
        return _curves(arguments[1:])
    parser = _parser()
    own = parse_training(parser, arguments)
    recipe = TrainConfig(**{name: own.pop(name) for name in recipe_fields(_OWN)})
    try:
        rates = _rates(own["lr_of"] or [])
        runs = configs(recipe, own["models"], own["seeds"], rates, own["out"])
        if own["page"] and not own["collect"]:
            raise ValueError("--page needs --collect, the folder of the figures that it shows")
    except ValueError as error:
        parser.error(str(error))
    out, diverged = Path(own["out"]), []
    try:
        if not own["only_report"]:
            diverged = run_all(runs, lambda text: print(text, flush=True))
        if own["time_steps"]:
            out.mkdir(parents=True, exist_ok=True)
            first = [config for config in runs if config.seed == runs[0].seed]
            timing.write(timing.measure(first, own["time_steps"]), out)
        finished = [run for folder in (out, *(own["with"] or [])) for run in read_runs(folder)]
        _report(ordered(finished), timing.read(out), out, own)
    except (RunError, CheckpointError, DataError, OSError, ValueError) as error:
        return fail("table1", error)
    except Interrupted as stop:
        print(f"leancore table1: {stop}; or call leancore table1 again", file=sys.stderr)
        return 128 + stop.signal
    for text in diverged:
        fail("table1", text)
    return 1 if diverged else 0


def _report(runs: Sequence[Run], samples: Mapping[str, Sequence[float]], out: Path, own: Mapping[str, Any]) -> None:
    if runs:
        out.mkdir(parents=True, exist_ok=True)
    text = write_report(runs, samples, out)
    print(f"\n{text}\nwritten to {out / 'table1.md'}, .csv, .json, .png and curves.png")
    if own["collect"]:
        collect(runs, own["collect"])
        timing.copy(out, own["collect"])
        write_report(runs, samples, own["collect"])
        print(f"collected in {own['collect']}")
    if own["page"]:
        collected = Path(os.path.relpath(own["collect"], Path(own["page"]).parent)).as_posix()
        replace_section(own["page"], own["section"], re.sub(r"\]\((\w+\.png)\)", rf"]({collected}/\1)", text))
        print(f"section {own['section']} of {own['page']} replaced")


def _rates(given: Sequence[str]) -> dict[str, float]:
    rates = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            rates[name] = float(value)
        except ValueError:
            raise ValueError(f"--lr-of {text}: expected NAME=NUMBER") from None
    return rates


def _parser() -> Any:
    parser = training_parser(
        "leancore table1",
        "Train the systems of the LeanResNet paper's Table 1, one after the other, with an equal budget, each in "
        "OUT/MODEL/seedK; write the table of those that have finished. Called again, it skips finished runs, goes on "
        "with an interrupted one and adds missing ones. `leancore table1 curves` draws the curves of any runs.",
        besides=_OWN,
    )
    parser.add_argument("--out", type=str, required=True, help="folder of the runs and the table")
    parser.add_argument("--models", nargs="+", type=str, default=list(A_ROW), help="systems, by name in list_models()")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the runs of each system")
    parser.add_argument("--lr-of", nargs="+", type=str, metavar="NAME=RATE", help="learning rates of single systems")
    parser.add_argument("--only-report", action="store_true", help="train nothing; the table of what has finished")
    parser.add_argument(
        "--time-steps", type=count, metavar="N", help="then time N training steps of each system, in turns"
    )
    parser.add_argument(
        "--with", nargs="+", type=str, metavar="OUT", help="such folders, or collected runs, to add to the table"
    )
    parser.add_argument("--collect", type=str, metavar="FOLDER", help="copy the runs' CSVs and the table there")
    parser.add_argument("--page", type=str, metavar="FILE", help="write the table into a section of this Markdown file")
    parser.add_argument("--section", type=str, default="table1", help="from the line <!-- NAME --> to <!-- /NAME -->")
    return parser


def _curves(arguments: Sequence[str]) -> int:
    import argparse

    parser = argparse.ArgumentParser(
        prog="leancore table1 curves", description="Training loss and test accuracy of several runs in one figure."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run's folder or CSV file, or LABEL=PATH",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="PNG file to write")
    parser.add_argument("--title", default="")
    options = parser.parse_args(list(arguments))
    drawn = {}
    try:
        for text in options.runs:
            label, separator, path = text.rpartition("=")
            place = Path(path if separator else text)
            drawn[label or text] = read_metrics(place / "metrics.csv" if place.is_dir() else place)
        draw_runs(drawn, options.out, options.title)
    except (OSError, ValueError) as error:
        return fail("table1 curves", error)
    return 0
