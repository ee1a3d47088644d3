"""The table of finished runs, and accuracy against parameters."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leancore.bench.timing import Spread
from leancore.torch.train.figures import new_figure, save_figure
from leancore.torch.train.files import write_file, write_json
from leancore.torch.train.metrics import step_seconds
from leancore.torch.train.table1.curves import draw_runs
from leancore.torch.train.table1.runs import Run, RunError, shared_config


@dataclass(frozen=True)
class System:
    """One line of the table. Times are seconds; accuracies are those after the last epoch, 0 to 1."""

    model: str
    parameters: int
    paper_parameters: str | None
    multiply_adds: int
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    paper_accuracy_percent: float | None
    lr: float
    run_step: float  # median over the epochs of all runs of the time of an epoch by its steps
    side_by_side_step: Spread | None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def deviation(self) -> float | None:
        """Of a sample; None for one run."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None


def systems(runs: Sequence[Run], timing: Mapping[str, Sequence[float]]) -> list[System]:
    """The runs by model, and by learning rate where one model was trained with several.

    timing: seconds of training steps, side by side, by model. Raises RunError where the runs do not belong together.
    """
    shared_config(runs)
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.model, run.lr), []).append(run)
    return [_system(model, lr, group, timing.get(model, ())) for (model, lr), group in groups.items()]


def _system(model: str, lr: float, runs: Sequence[Run], samples: Sequence[float]) -> System:
    facts = runs[0].facts
    for run in runs[1:]:
        if any(run.facts[key] != facts[key] for key in ("parameters", "multiply_adds", "data")):
            raise RunError(f"{model}: the runs of seeds {runs[0].seed} and {run.seed} trained different networks")
    return System(
        model=model,
        parameters=facts["parameters"],
        paper_parameters=facts["paper_parameters"],
        multiply_adds=facts["multiply_adds"],
        seeds=tuple(run.seed for run in runs),
        accuracies=tuple(run.rows[-1]["test_accuracy"] for run in runs),
        paper_accuracy_percent=facts["paper_accuracy_percent"],
        lr=lr,
        run_step=statistics.median(seconds for run in runs for seconds in step_seconds(run.rows)),
        side_by_side_step=Spread.of(samples) if samples else None,
    )


# Numbers, as the table has them


def show_accuracy(system: System) -> str:
    deviation = "" if system.deviation is None else f" ± {100 * system.deviation:.2f}"
    return f"{100 * system.mean:.2f}{deviation} ({len(system.seeds)})"


def show_spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    return f"{1e3 * spread.median:.0f} ({1e3 * spread.low:.0f}-{1e3 * spread.high:.0f})"


def markdown(lines: Sequence[System], runs: Sequence[Run]) -> str:
    """The table and, below it, how it came about."""
    timed = any(line.side_by_side_step for line in lines)
    header = ["system", "parameters", "paper", "multiply-adds", "test accuracy, % (runs)", "paper, 300 epochs, %"]
    header += ["ms a step, side by side"] * timed + ["ms a step, in its runs", "learning rate"]
    body = []
    for line in lines:
        paper = "" if line.paper_accuracy_percent is None else f"{line.paper_accuracy_percent}"
        cells = [line.model, f"{line.parameters:,}", line.paper_parameters or "", f"{line.multiply_adds / 1e6:.1f}M"]
        cells += [show_accuracy(line), paper]
        cells += [show_spread(line.side_by_side_step)] * timed + [f"{1e3 * line.run_step:.0f}", f"{line.lr:g}"]
        body.append(cells)
    ruler = ["---", *["---:"] * (len(header) - 1)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ruler, *body))
    figures = "![Accuracy against parameters](table1.png)\n\n![Loss and accuracy over the epochs](curves.png)"
    return f"{table}\n\n{conditions(runs, timed=timed)}\n\n{figures}\n"


def conditions(runs: Sequence[Run], *, timed: bool) -> str:
    """What the table's numbers are and what they depend on."""
    data = runs[0].facts["data"]
    options = ", ".join(
        f"{key} {value}" for key, value in shared_config(runs).items() if value is not None and key != "data"
    )
    where = sorted({_where(run.facts["environment"]) for run in runs})
    text = (
        f"{data['title']}: {data['train_images']:,} training and {data['test_images']:,} test images. Accuracy after "
        "the last epoch, mean over the runs (different seeds), ± the standard deviation of the sample where there are "
        "several. "
    )
    if timed:
        text += "Side by side: training steps in turns in one process, median and quartiles. "
    text += (
        "In its runs: the median over the epochs of the time of an epoch, by its steps, test images included; runs at "
        f"different hours of a shared machine are not comparable. Options: {options}. Ran on {'; '.join(where)}."
    )
    return text


def _where(facts: Mapping[str, Any]) -> str:
    return f"{facts['processor']}, {facts['threads']} threads, torch {facts['versions'].get('torch')}"


def records(lines: Sequence[System]) -> list[dict[str, Any]]:
    """The table as plain values."""
    return [
        {
            "model": line.model,
            "parameters": line.parameters,
            "paper_parameters": line.paper_parameters,
            "multiply_adds": line.multiply_adds,
            "lr": line.lr,
            "seeds": list(line.seeds),
            "test_accuracies": list(line.accuracies),
            "test_accuracy_mean": line.mean,
            "test_accuracy_deviation": line.deviation,
            "paper_accuracy_percent": line.paper_accuracy_percent,
            "step_seconds_in_runs": line.run_step,
            "step_seconds_side_by_side": line.side_by_side_step and line.side_by_side_step.median,
            "step_seconds_side_by_side_low": line.side_by_side_step and line.side_by_side_step.low,
            "step_seconds_side_by_side_high": line.side_by_side_step and line.side_by_side_step.high,
        }
        for line in lines
    ]


def as_csv(lines: Sequence[System]) -> str:
    table = records(lines)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
    writer.writeheader()
    for record in table:
        writer.writerow({key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in record.items()})
    return text.getvalue()


def write_report(runs: Sequence[Run], timing: Mapping[str, Sequence[float]], folder: str | Path) -> str:
    """Write table1.md, .csv, .json and .png, and curves.png; returns the Markdown. Raises RunError, OSError."""
    if not runs:
        raise RunError(f"{folder}: no finished run")
    folder = Path(folder)
    lines = systems(runs, timing)
    text = markdown(lines, runs)
    write_file(folder / "table1.md", text)
    write_file(folder / "table1.csv", as_csv(lines))
    write_json(folder / "table1.json", {"systems": records(lines), "options": shared_config(runs)})
    draw(lines, runs, folder / "table1.png")
    draw_runs(dict(zip(labels(runs), (run.rows for run in runs), strict=True)), folder / "curves.png", _title(runs))
    return text


def labels(runs: Sequence[Run]) -> list[str]:
    """Model, seed and learning rate of each run, the latter two only where the runs of the model differ in them."""
    found = []
    for run in runs:
        like = [other for other in runs if other.model == run.model]
        parts = [run.model]
        parts += [f"rate {run.lr:g}"] * (len({other.lr for other in like}) > 1)
        parts += [f"seed {run.seed}"] * (len({other.seed for other in like}) > 1)
        found.append(", ".join(parts))
    return found


def _title(runs: Sequence[Run]) -> str:
    return f"{runs[0].facts['data']['title']}, {runs[0].config['epochs']} epochs"


def draw(lines: Sequence[System], runs: Sequence[Run], path: Path) -> None:
    """Accuracy against parameters; bars are the deviation."""
    figure = new_figure(7, 4.6, _title(runs))
    axes = figure.subplots()
    for line in lines:
        accuracy, deviation = 100 * line.mean, 100 * (line.deviation or 0)
        axes.errorbar(line.parameters, accuracy, yerr=deviation or None, fmt="o", capsize=3)
        label = (
            line.model
            if len({other.lr for other in lines if other.model == line.model}) == 1
            else (f"{line.model}, {line.lr:g}")
        )
        axes.annotate(label, (line.parameters, accuracy), xytext=(6, 4), textcoords="offset points", fontsize="small")
    axes.set_xscale("log")
    axes.margins(x=0.25, y=0.15)
    axes.set_xlabel("parameters")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3, which="both")
    save_figure(figure, path)
