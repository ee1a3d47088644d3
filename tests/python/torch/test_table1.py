"""leancore table1: runs that are done, skipped, continued and added; the table's numbers; the page in docs/."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest

from helpers import REPOSITORY
from leancore.cli import main
from leancore.torch import create_model
from leancore.torch.models import model_info
from leancore.torch.train import TrainConfig
from leancore.torch.train.evaluation import multiply_adds
from leancore.torch.train.summary import FORMAT
from leancore.torch.train.table1 import report, timing
from leancore.torch.train.table1.page import replace_section, section_of
from leancore.torch.train.table1.runs import Run, RunError, collect, read_collected, read_runs
from leancore.torch.train.table1.schedule import A_ROW, configs
from training_helpers import metrics

for package in ("lightning_fabric", "jsonargparse", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)

SMALL = ["--models", "lean_resnet_digits", "resnet_digits", "--epochs", "1", "--batch-size", "300"]


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both small networks with one seed."""
    out = tmp_path_factory.mktemp("runs") / "table"
    assert main(["table1", *SMALL, "--out", str(out)]) == 0
    return out


# Trainings


def test_runs_are_in_their_folders_and_the_table_beside(done: Path) -> None:
    for model in ("lean_resnet_digits", "resnet_digits"):
        assert (done / model / "seed0" / "summary.json").exists()
    lines = (done / "table1.md").read_text().splitlines()
    accuracy = metrics(done / "lean_resnet_digits" / "seed0")[-1]["test_accuracy"]
    [line] = [line for line in lines if line.startswith("| lean_resnet_digits |")]
    assert f"| 10,202 |  | 0.1M | {100 * accuracy:.2f} (1) |" in line
    [record, _] = json.loads((done / "table1.json").read_text())["systems"]
    assert record["test_accuracies"] == [accuracy]
    with (done / "table1.csv").open() as file:
        assert [row["model"] for row in csv.DictReader(file)] == ["lean_resnet_digits", "resnet_digits"]
    assert (done / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_a_later_call_skips_and_adds(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(done / "lean_resnet_digits" / "seed0") | files(done / "resnet_digits")
    assert main(["table1", "--out", str(done), *SMALL, "--seeds", "0", "1", "--models", "lean_resnet_digits"]) == 0
    printed = capsys.readouterr().out
    assert "[1/2] lean_resnet_digits, seed 0: finished before" in printed
    assert "[2/2] lean_resnet_digits, seed 1: in" in printed
    after = files(done)
    assert all(after[path] == known for path, known in before.items())
    accuracies = [metrics(done / "lean_resnet_digits" / f"seed{k}")[-1]["test_accuracy"] for k in (0, 1)]
    mean, deviation = statistics.fmean(accuracies), statistics.stdev(accuracies)
    text = (done / "table1.md").read_text()
    assert f"| {100 * mean:.2f} ± {100 * deviation:.2f} (2) |" in text
    assert "| resnet_digits |" in text


def test_other_options_are_refused_before_anything_is_trained(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(done)
    arguments = ["--models", "resnet_digits", "lean_resnet_digits", "--batch-size", "300", "--seeds", "7", "0"]
    assert main(["table1", "--out", str(done), *arguments, "--epochs", "2"]) == 1
    error = capsys.readouterr().err
    assert "holds a finished run of another configuration" in error
    assert "epochs was 1 and is 2" in error
    assert files(done) == before


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call is stopped in the second epoch; the second one ends with the numbers of an uninterrupted run."""
    from leancore.torch.train.progress import Progress

    arguments = ["table1", "--models", "lean_resnet_digits", "--epochs", "3", "--batch-size", "300", "--out"]
    real, steps = Progress.step, 0

    def interrupted(self: Any, loss: float) -> None:
        nonlocal steps
        steps += 1
        real(self, loss)
        if steps == 7:  # of 5 in an epoch
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Progress, "step", interrupted)
    assert main([*arguments, str(tmp_path / "cut")]) == 128 + signal.SIGTERM
    monkeypatch.undo()
    folder = tmp_path / "cut" / "lean_resnet_digits" / "seed0"
    assert not (folder / "summary.json").exists()
    assert main([*arguments, str(tmp_path / "cut")]) == 0
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in metrics(place)]
        for place in (folder, tmp_path / "whole" / "lean_resnet_digits" / "seed0")
    ]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 3


def test_a_run_without_its_summary_gets_one(tmp_path: Path) -> None:
    """A process that died between the last checkpoint and the summary."""
    arguments = ["table1", *SMALL, "--models", "lean_resnet_digits", "--out", str(tmp_path)]
    assert main(arguments) == 0
    folder = tmp_path / "lean_resnet_digits" / "seed0"
    rows = metrics(folder)
    (folder / "summary.json").unlink()
    assert main(arguments) == 0
    assert json.loads((folder / "summary.json").read_text())["test_accuracy"] == rows[-1]["test_accuracy"]
    assert metrics(folder) == rows


def test_a_diverged_run_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rates = ["--lr-of", "lean_resnet_digits=1e30", "--schedule", "constant"]
    assert main(["table1", *SMALL, *rates, "--out", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert re.search(r"error: lean_resnet_digits, seed 0: the loss is (nan|inf), ", captured.err)
    text = (tmp_path / "table1.md").read_text()
    assert "| resnet_digits |" in text
    assert "| lean_resnet_digits |" not in text


def test_learning_rates_of_single_systems() -> None:
    recipe = TrainConfig(lr=0.5, epochs=3)
    made = configs(recipe, ["resnet_digits", "lean_resnet_digits"], [4, 2], {"resnet_digits": 0.25}, "runs")
    assert [(c.model, c.seed, c.lr, c.epochs, c.resume) for c in made] == [
        ("resnet_digits", 4, 0.25, 3, True),
        ("lean_resnet_digits", 4, 0.5, 3, True),
        ("resnet_digits", 2, 0.25, 3, True),
        ("lean_resnet_digits", 2, 0.5, 3, True),
    ]
    assert made[0].out == str(Path("runs/resnet_digits/seed4"))
    assert len({c.model for c in configs(TrainConfig(), A_ROW, [0], {}, "runs")}) == 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], "--out"),
        (["--out", "runs", "--models", "alexnet"], "alexnet"),
        (["--out", "runs", "--models", "resnet_a", "resnet_a"], "models: resnet_a, resnet_a, expected each once"),
        (["--out", "runs", "--seeds", "1", "1"], "seeds: 1, 1"),
        (["--out", "runs", "--lr-of", "resnet_a"], "--lr-of resnet_a: expected NAME=NUMBER"),
        (["--out", "runs", "--lr-of", "resnet_b=1"], "a learning rate for resnet_b, which is not among the models"),
        (["--out", "runs", "--epochs", "0"], "epochs is 0"),
        (["--out", "runs", "--seed", "0"], "seed"),
        (["--out", "runs", "--time-steps", "0"], "time-steps"),
        (["--out", "runs", "--page", "page.md"], "--page needs --collect"),
    ],
)
def test_impossible_options(
    options: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["table1", *options])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# The table


def made_up(model: str, seed: int, accuracies: list[float], seconds: list[float], **options: Any) -> Run:
    lines = ["epoch,step,lr,train_loss,train_accuracy,test_loss,test_accuracy,seconds"]
    pairs = zip(accuracies, seconds, strict=True)
    lines += [f"{k},{10 * k},0.1,1,0,1,{accuracy},{s}" for k, (accuracy, s) in enumerate(pairs, 1)]
    info = model_info(model)
    facts = {
        "parameters": info.parameters,
        "paper_parameters": info.paper_parameters,
        "paper_accuracy_percent": info.paper_accuracy.get("cifar10"),
        "multiply_adds": 12_345_678,
        "data": {"name": "cifar10", "title": "CIFAR-10", "train_images": 50_000, "test_images": 10_000},
        "environment": {"processor": "none", "threads": 2, "versions": {"torch": "2"}},
    }
    config = {"model": model, "seed": seed, "lr": 0.1, "epochs": len(accuracies), "out": f"/somewhere/{seed}"}
    return Run(model, seed, {**config, **options}, "\n".join(lines) + "\n", facts)


def test_the_numbers() -> None:
    runs = [
        made_up("lean_resnet_a", 0, [0.5, 0.8], [1.0, 3.0]),
        made_up("lean_resnet_a", 1, [0.5, 0.9], [2.0, 4.0]),
        made_up("resnet_a", 0, [0.5, 0.75], [5.0, 5.0]),
    ]
    first, second = report.systems(runs, {"resnet_a": [0.25, 0.5, 0.375]})
    assert first.accuracies == (0.8, 0.9)
    assert first.deviation == statistics.stdev((0.8, 0.9))
    assert first.run_step == 0.25  # of 0.1, 0.3, 0.2 and 0.4
    assert first.side_by_side_step is None
    assert second.deviation is None
    assert second.side_by_side_step is not None
    assert second.side_by_side_step.median == 0.375
    text = report.markdown([first, second], runs)
    assert "| lean_resnet_a | 496,746 | 0.5M | 12.3M | 85.00 ± 7.07 (2) | 92.8 |  | 250 | 0.1 |\n" in text
    assert "| resnet_a | 4,303,850 | 4.3M | 12.3M | 75.00 (1) | 94.7 | 375 (312-438) | 500 | 0.1 |\n" in text
    assert "Options: epochs 2. Ran on none, 2 threads, torch 2." in text
    assert "/somewhere" not in text


def test_learning_rates_are_lines_of_their_own() -> None:
    runs = [made_up("lean_resnet_a", 0, [0.5], [1.0], lr=lr) for lr in (0.1, 0.001)]
    assert [(line.lr, len(line.accuracies)) for line in report.systems(runs, {})] == [(0.1, 1), (0.001, 1)]
    assert report.labels(runs) == ["lean_resnet_a, rate 0.1", "lean_resnet_a, rate 0.001"]
    runs = [
        made_up(model, seed, [0.5], [1.0])
        for model, seed in (("lean_resnet_a", 0), ("lean_resnet_a", 1), ("resnet_a", 0))
    ]
    assert report.labels(runs) == ["lean_resnet_a, seed 0", "lean_resnet_a, seed 1", "resnet_a"]


def test_unequal_budgets_are_refused() -> None:
    runs = [made_up("lean_resnet_a", 0, [0.5], [1.0]), made_up("resnet_a", 0, [0.5, 0.6], [1.0, 1.0])]
    with pytest.raises(RunError, match="lean_resnet_a seed 0 and resnet_a seed 0 had no equal budget: epochs: 1 and 2"):
        report.systems(runs, {})


def test_only_the_report(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table1", "--only-report", "--out", str(done)]) == 0
    assert "| resnet_digits |" in capsys.readouterr().out
    assert main(["table1", "--only-report", "--out", str(tmp_path)]) == 1
    assert "no finished run" in capsys.readouterr().err


def test_damaged_runs_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "resnet_a" / "seed0"
    folder.mkdir(parents=True)
    for text in ("", "[]", "{}", json.dumps({"format": "another"}), json.dumps({"format": FORMAT, "config": {}})):
        (folder / "summary.json").write_text(text)
        with pytest.raises(RunError, match="seed0"):
            read_runs(tmp_path)


def test_collected_runs_make_the_same_table(done: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n<!-- t -->\nold\n<!-- /t -->\nafter\n")
    target = tmp_path / "collected"
    arguments = ["--only-report", "--out", str(done), "--collect", str(target), "--page", str(page), "--section", "t"]
    assert main(["table1", *arguments]) == 0
    text = (done / "table1.md").read_text()
    linked = text.replace("](", "](collected/")
    assert page.read_text() == f"# Page\n\n<!-- t -->\n{linked}<!-- /t -->\nafter\n"
    assert all((tmp_path / link).exists() for link in re.findall(r"\]\((.*?)\)", linked))
    assert (target / "table1.md").read_text() == text
    runs = read_collected(target)
    assert read_runs(target) == runs
    assert main(["table1", "--only-report", "--out", str(tmp_path / "other"), "--with", str(target)]) == 0
    assert "| resnet_digits |" in (tmp_path / "other" / "table1.md").read_text()
    assert report.markdown(report.systems(runs, timing.read(target)), runs) == text
    assert (target / "resnet_digits-seed0.csv").read_text() == (done / "resnet_digits/seed0/metrics.csv").read_text()
    assert not [p for p in target.rglob("*") if p.is_file() and str(done).encode() in p.read_bytes()]
    with pytest.raises(RunError, match="no collected runs"):
        read_collected(tmp_path)


def test_runs_that_differ_in_learning_rate_alone_are_collected_apart(tmp_path: Path) -> None:
    runs = [made_up("lean_resnet_a", 0, [0.5], [1.0], lr=lr) for lr in (0.1, 0.001)]
    collect(runs, tmp_path)
    assert {p.name for p in tmp_path.glob("*.csv")} == {
        "lean_resnet_a-seed0-lr0.1.csv",
        "lean_resnet_a-seed0-lr0.001.csv",
    }
    assert [run.lr for run in read_collected(tmp_path)] == [0.001, 0.1]
    with pytest.raises(RunError, match="twice"):
        collect([runs[0], runs[0]], tmp_path / "other")


def test_a_section_must_be_there_once(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text in ("", "<!-- t -->\n", "<!-- t -->\n<!-- /t -->\n" * 2):
        page.write_text(text)
        with pytest.raises(ValueError, match=r"page\.md: . sections from <!-- t --> to <!-- /t -->, expected one"):
            replace_section(page, "t", "new\n")
        assert page.read_text() == text


# Side by side, and curves


def test_steps_side_by_side(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["table1", "--only-report", "--out", str(done), *SMALL, "--time-steps", "3"]) == 0
    samples = timing.read(done)
    assert {model: len(seconds) for model, seconds in samples.items()} == {"lean_resnet_digits": 3, "resnet_digits": 3}
    assert all(second > 0 for seconds in samples.values() for second in seconds)
    shown = f"| {1e3 * statistics.median(samples['resnet_digits']):.0f} ("
    assert shown in capsys.readouterr().out
    (done / "timing.csv").write_text("model,seconds\na,b\n")
    assert main(["table1", "--only-report", "--out", str(done)]) == 1
    assert "timing.csv: not a table of step times" in capsys.readouterr().err
    (done / "timing.csv").unlink()


def test_curves(done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = done / "resnet_digits" / "seed0"
    out = tmp_path / "curves.png"
    assert main(["table1", "curves", f"one={run}", str(run / "metrics.csv"), "--out", str(out), "--title", "t"]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    assert main(["table1", "curves", str(tmp_path), "--out", str(out)]) == 1
    assert "metrics.csv" in capsys.readouterr().err
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert main(["table1", "curves", f"x={tmp_path / 'other.csv'}", "--out", str(out)]) == 1
    assert "other.csv: not the metrics.csv of a training run" in capsys.readouterr().err


# The page


PAGE = REPOSITORY / "docs" / "table1.md"
SECTIONS = re.findall(r"^<!-- (?!/)(.*) -->$", PAGE.read_text(), re.M)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_number_of_the_page_follows_from_its_csv_files(section: str) -> None:
    """Recomputed here from the files, not by the code that wrote the table."""
    text, folder = section_of(PAGE.read_text(), section), PAGE.parent / "table1" / section
    if text == "Not run yet.\n":
        assert not folder.exists()
        return
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    header, body = table[0], [dict(zip(table[0], line, strict=True)) for line in table[2:]]
    links = re.findall(r"\]\((.*?)\)", text)
    assert links
    assert all((PAGE.parent / link).is_relative_to(folder) and (PAGE.parent / link).exists() for link in links)
    described = json.loads((folder / "runs.json").read_text())
    assert len(body) == len({(run["config"]["model"], run["config"]["lr"]) for run in described})
    for line in body:
        model, lr = line["system"], float(line["learning rate"])
        mine = [r for r in described if r["config"]["model"] == model and f"{r['config']['lr']:g}" == f"{lr:g}"]
        accuracies, steps = [], []
        for run in mine:
            with (folder / run["metrics"]).open() as file:
                rows = list(csv.DictReader(file))
            assert len(rows) == run["config"]["epochs"]
            accuracies.append(100 * float(rows[-1]["test_accuracy"]))
            each = float(rows[0]["step"])
            assert [float(row["step"]) for row in rows] == [each * k for k in range(1, len(rows) + 1)]
            steps += [1e3 * float(row["seconds"]) / each for row in rows]
        shown = f"{statistics.fmean(accuracies):.2f}"
        shown += f" ± {statistics.stdev(accuracies):.2f}" if len(mine) > 1 else ""
        assert line["test accuracy, % (runs)"] == f"{shown} ({len(mine)})"
        assert line["ms a step, in its runs"] == f"{statistics.median(steps):.0f}"
        info, data = model_info(model), mine[0]["data"]
        network = create_model(model, len(data["classes"]), data["image_shape"][0])
        assert line["parameters"] == f"{sum(p.numel() for p in network.parameters()):,}"
        assert line["multiply-adds"] == f"{multiply_adds(network, data['image_shape']) / 1e6:.1f}M"
        assert line["paper"] == (info.paper_parameters or "")
        paper = info.paper_accuracy.get(data["name"])
        assert line["paper, 300 epochs, %"] == ("" if paper is None else f"{paper}")
    if "ms a step, side by side" in header:
        with (folder / "timing.csv").open() as file:
            times = list(csv.DictReader(file))
        for line in body:
            samples = [1e3 * float(row["seconds"]) for row in times if row["model"] == line["system"]]
            low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
            assert line["ms a step, side by side"] == f"{middle:.0f} ({low:.0f}-{high:.0f})"


def test_accuracies_of_both_initialisations_follow_from_their_csv_files() -> None:
    rows = re.findall(r"^\| (\d+), .* \| ([\d.]+) \| \[CSV\]\((.*)\) \|$", PAGE.read_text(), re.M)
    assert len(rows) == 4
    for epochs, accuracy, link in rows:
        with (PAGE.parent / link).open() as file:
            last = list(csv.DictReader(file))[-1]
        assert (last["epoch"], f"{100 * float(last['test_accuracy']):.2f}") == (epochs, accuracy)
