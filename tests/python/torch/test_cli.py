"""The command `leancore`: train and info, their output, their errors and their exit status."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leancore
from helpers import run_script
from leancore.cli import main
from leancore.torch.train import RECIPES, load_model

for package in ("lightning_fabric", "jsonargparse", "rich", "matplotlib", "safetensors", "sklearn"):
    pytest.importorskip(package)

MAIN = "import sys; from leancore.cli import main; sys.exit(main())"


def options_of(folder: Path) -> dict[str, Any]:
    """config.yaml, whose lines are name: JSON."""
    pairs = (line.split(": ", 1) for line in (folder / "config.yaml").read_text().splitlines())
    return {name: json.loads(value) for name, value in pairs}


# info


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = dict(
        re.split(r"\s{2,}", line.strip(), maxsplit=1)
        for line in capsys.readouterr().out.splitlines()
        if "  " in line.strip()
    )
    assert lines["leancore"].startswith(leancore.__version__)
    assert lines["python"].startswith(sys.version.split()[0])
    for name, text, available in leancore.implementations():
        assert lines[name] == f"{'available' if available else 'not on this processor'}: {text}"
    assert lines["selected"] in [name for name, _, available in leancore.implementations() if available]
    assert lines["threads"] == f"up to {leancore.max_threads()} ({leancore.thread_backend()})"
    assert lines["CUDA"] == leancore.cuda_status()


def test_info_says_what_the_environment_forces() -> None:
    done = run_script("-c", MAIN, "info", LEANCORE_CPU_ISA="reference")
    assert re.search(r"^selected +reference$", done.stdout, re.M), done.stdout
    assert re.search(r"^LEANCORE_CPU_ISA +reference$", done.stdout, re.M)
    wrong = run_script("-c", MAIN, "info", LEANCORE_CPU_ISA="nonsense")
    assert wrong.returncode == 0
    assert re.search(r"^selected .*nonsense", wrong.stdout, re.M), wrong.stdout


def test_info_is_light() -> None:
    code = "import sys; from leancore.cli import main; main(['info']); print(*({'torch', 'numpy'} & set(sys.modules)))"
    done = run_script("-c", code)
    assert done.stdout.splitlines()[-1] == "", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(leancore.thread_backend() != "openmp", reason="not built with OpenMP")
def test_info_shows_the_thread_runtime_that_is_loaded() -> None:
    for arguments in ((), ("--torch",)):
        done = run_script("-c", MAIN, "info", *arguments)
        assert re.search(r"^libgomp .*libgomp.*\.so", done.stdout, re.M), done.stdout + done.stderr


# The command line itself


@pytest.mark.parametrize("arguments", [[], ["fly"], ["info", "--fast"], ["train", "--fast"], ["train", "extra"]])
def test_unknown_commands_and_options(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: leancore" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, text in (
        (["--version"], f"leancore {leancore.__version__}"),
        (["--help"], "train a network"),
        (["train", "--help"], "--batch-size"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert text in capsys.readouterr().out


def test_missing_packages_are_named_with_the_way_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *a: None if name in ("rich", "sklearn") else real(name, *a)
    )
    assert main(["train"]) == 1
    error = capsys.readouterr().err
    assert "not installed: rich, sklearn" in error
    assert "pip install 'leancore[train]'" in error


# train


def test_a_run_ends_with_its_closing_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["train", "--epochs", "2", "--batch-size", "200", "--out", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("lean_resnet_digits on digits: 10,202 parameters, 1,433 training and 364 test images")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["epoch 1/2", "epoch 2/2"]
    assert "left" in lines[1]
    closing = re.fullmatch(
        r"lean_resnet_digits on digits: test accuracy (\d+\.\d\d)% \(best (\d+\.\d\d)% after epoch [12]\), "
        r"10,202 parameters, \d+\.\d s",
        lines[-1],
    )
    assert closing, lines[-1]
    _, about = load_model(folder / "last.json")
    assert closing[1] == f"{100 * about['metrics']['test_accuracy']:.2f}"


def test_a_configuration_repeats_a_run(tmp_path: Path) -> None:
    """config.yaml of a run is a --config; options on the command line come after it."""
    first, second = tmp_path / "first", tmp_path / "second"
    options = ["--epochs", "1", "--lr", "1e-05", "--optimizer", "sgd", "--augment", "false", "--batch-size", "300"]
    assert main(["train", *options, "--out", str(first)]) == 0
    assert main(["train", "--config", str(first / "config.yaml"), "--seed", "5", "--out", str(second)]) == 0
    assert options_of(first)["lr"] == 1e-5
    assert options_of(first)["augment"] is False
    assert options_of(second) == {**options_of(first), "seed": 5, "out": str(second)}


def test_the_command_line_goes_before_the_file_and_the_file_before_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("lr: 0.07\nclip: 3.0\nepochs: 1\n")
    common = ["--batch-size", "700", "--out", str(tmp_path / "run")]
    assert main(["train", "--config", str(tmp_path / "mine.yaml"), "--recipe", "modern", "--clip", "2", *common]) == 0
    options = options_of(tmp_path / "run")
    assert (options["clip"], options["lr"], options["epochs"], options["batch_size"]) == (2.0, 0.07, 1, 700)
    recipe = RECIPES["modern"]
    for name in recipe.keys() - {"lr", "epochs", "batch_size"}:
        assert options[name] == recipe[name]


def test_switches(tmp_path: Path) -> None:
    command = ["train", "--epochs", "1", "--batch-size", "1433", "--out", str(tmp_path / "run")]
    assert main([*command, "--no-augment"]) == 0
    assert options_of(tmp_path / "run")["augment"] is False
    assert main([*command, "--augment", "false"]) == 1  # not empty
    assert main([*command, "--augment", "false", "--resume"]) == 0
    assert main([*command, "--resume", "true"]) == 1  # a run that augments is another one


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--recipe", "soup"], "invalid choice: 'soup'"),
        (["--model-options", "{wings: 2}"], "lean_resnet_digits has no option wings"),
        (["--resume"], "resume is True, expected a folder in `out`"),
        (["--epochs", "0"], "epochs is 0, expected at least 1"),
        (["--epochs", "many"], "epochs"),
        (["--model", "alexnet"], "expected one of lean_resnet_a"),
        (["--optimizer", "lion"], "optimizer"),
        (["--lr", "-1"], "lr is -1.0, expected a positive number"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_impossible_options(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", *options])
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


def test_failures_end_with_one_line_and_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for options, text in (
        (["--data", "cifar10", "--data-folder", str(tmp_path / "nowhere")], "nowhere: no such folder"),
        (["--data", "cifar10", "--data-folder", str(tmp_path)], "holds no data_batch_1.bin"),
        (["--out", str(tmp_path / "full")], "full: not empty"),
        (["--lr", "1e30", "--schedule", "constant", "--out", str(tmp_path / "bad")], "step"),
    ):
        assert main(["train", *options]) == 1
        error = capsys.readouterr().err
        assert error.startswith("leancore train: error: ")
        assert text in error
        assert error.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals")
def test_on_a_terminal_there_are_bars_with_the_remaining_time(tmp_path: Path) -> None:
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "train", "--epochs", "3", "--out", str(tmp_path / "run")],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "TERM": "xterm-256color", "COLUMNS": "150"},
    )
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(leader, 65536):
            shown += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(leader)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "all steps" in text
    assert re.search(r"\d+/87 0:00:\d\d 0:00:\d\d", text), text[-2000:]
    assert "10,202 parameters" in text
