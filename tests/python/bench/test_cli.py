"""The commands: what they print, write and refuse. Nothing here looks at how long anything took."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import leancore.cli
from leancore.bench import bars, cli, devices, report
from leancore.bench.cases import layer
from leancore.bench.peers import PEERS, installed
from leancore.bench.timing import ENVIRONMENT, Spread, ratios

FAST = ["--quick", "--seconds", "0.001"]
OP = ["op", "--shape", "2,4,6,6", *FAST]


def bench(*arguments: str | Path) -> int:
    return leancore.cli.main(["bench", *map(str, arguments)])


def blocked(tmp_path: Path, *modules: str) -> dict[str, str]:
    """The environment of a process that cannot import these."""
    lines = ["import sys", *(f"sys.modules[{module!r}] = None" for module in modules)]
    (tmp_path / "sitecustomize.py").write_text("\n".join(lines))
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def run(*arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    command = [sys.executable, "-m", "leancore", "bench", *arguments]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=600)


def check_spread(spread: dict[str, Any]) -> None:
    assert set(spread) == {"median", "low", "high", "count"}
    assert 0 < spread["low"] <= spread["median"] <= spread["high"] < math.inf


def check_document(document: dict[str, Any], command: str) -> None:
    """The schema, whatever the values."""
    assert document["format"] == "leancore-bench-1"
    assert document["command"] == command
    assert {"line", "date", "machine", "limits", "results"} <= set(document)
    machine = document["machine"]
    assert machine["cpus"] >= 1
    assert machine["versions"]["leancore"] == leancore.__version__
    assert machine["last_level_cache_bytes"] > 0
    assert len({(r["name"], r["threads"]) for r in document["limits"]}) == len(document["limits"]) >= 4
    for record in document["limits"]:
        assert record["unit"] in ("flop/s", "byte/s")
        check_spread(record["rate"])
    for record in document["results"]:
        assert {"layer", "shape", "c_out", "dtype", "layout", "stride", "dilation", "operation"} <= set(record)
        assert {"peer", "description", "threads", "note", "flops", "bytes"} <= set(record)
        assert ("seconds" in record) != bool(record["note"])
        if "seconds" in record:
            check_spread(record["seconds"])
            assert record["seconds"]["count"] == len(record["samples"])
            for key in ("gflops_per_second", "gbytes_per_second", "roofline_seconds", "roofline_fraction"):
                assert 0 < record[key] < math.inf, key


def test_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("limits", *FAST, "--threads", "2", "--json", tmp_path / "limits.json") == 0
    document = report.load(tmp_path / "limits.json")
    check_document(document, "limits")
    names = {"multiply-add float32", "multiply-add float64", "copy, plain", "copy, streaming"}
    assert {(r["name"], r["threads"]) for r in document["limits"]} == {(name, n) for name in names for n in (1, 2)}
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_op(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "op.json"
    geometry = ["--c-out", "3", "--dtype", "float64", "--layout", "channels-last", "--stride", "2", "--dilation", "2"]
    assert bench(*OP, *geometry, "--op", "forward", "backward", "--peers", "composition", "--json", path) == 0
    document = json.loads(path.read_text())
    check_document(document, "op")
    records = document["results"]
    peers = ["leancore", "composition"]
    assert [(r["operation"], r["peer"]) for r in records] == [(o, p) for o in ("forward", "backward") for p in peers]
    for record in records:
        assert (record["shape"], record["c_out"], record["dtype"]) == ([2, 4, 6, 6], 3, "float64")
        assert (record["stride"], record["dilation"]) == (2, 2)
        if installed("torch") or record["peer"] == "leancore":
            assert record["note"] == ""
    assert records[0]["layout"] == "channels-last"
    assert records[0]["over_leancore"]["median"] == 1
    printed = capsys.readouterr().out
    assert "4-3@6x6 x2 float64 s2 d2" in printed
    assert "leancore (c. last)" in printed


def test_strides_side_by_side(tmp_path: Path) -> None:
    """Rounds are shared, and every ratio is to leancore at the first stride."""
    path = tmp_path / "op.json"
    assert bench(*OP, "--stride", "1", "2", "3", "--op", "forward", "--peers", "none", "--json", path) == 0
    records = report.load(path)["results"]
    assert [r["stride"] for r in records] == [1, 2, 3]
    assert len({len(r["samples"]) for r in records}) == 1
    for record in records:
        expected = ratios(record["samples"], records[0]["samples"]).median
        assert record["over_leancore"]["median"] == pytest.approx(expected, rel=1e-5)  # samples are written rounded


@pytest.mark.parametrize("shape", ["2,4,6", "1,4,3,3,3", "1,2,3,3,3,3"])
def test_op_in_other_dimensions(shape: str, tmp_path: Path) -> None:
    path = tmp_path / "op.json"
    assert bench("op", "--shape", shape, *FAST, "--op", "forward", "--peers", "composition", "--json", path) == 0
    ours, theirs = json.loads(path.read_text())["results"]
    assert ours["note"] == ""
    assert ("4-D" in theirs["note"]) == (shape.count(",") == 5 and installed("torch"))


def test_markdown_and_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "op.json"
    assert bench(*OP, "--op", "forward", "--peers", "none", "--markdown", "--json", path) == 0
    printed = capsys.readouterr().out
    assert "| layer | operation | candidate | ms |" in printed
    assert "|---|---|---|--:|" in printed
    assert bench("show", path, "--markdown") == 0
    assert capsys.readouterr().out.split() == printed.split()
    assert bench("show", path) == 0
    assert "|" not in capsys.readouterr().out


def test_figure1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(cli, "figure1", lambda batch: [layer("4@16", batch), layer("8@8", batch)])
    path, plot = tmp_path / "figure1.json", tmp_path / "figure1.png"
    peers = ["dense", "expanded", "expanded-open-cl"]
    assert bench("figure1", *FAST, "--batch", "3", "--peers", *peers, "--json", path, "--plot", plot) == 0
    document = report.load(path)
    check_document(document, "figure1")
    assert document["caption"].startswith("Batch 3; float32; ")
    wanted = [(c, o, p) for c in ("4@16", "8@8") for o in ("forward", "forward_backward") for p in ("leancore", *peers)]
    assert [(r["layer"], r["operation"], r["peer"]) for r in document["results"]] == wanted
    layers, lines = report.relative_times(document, "forward_backward")
    assert layers == ["4@16", "8@8"]
    assert lines["dense"] == [1, 1]
    assert all(value > 0 for value in lines["leancore"])
    assert plot.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "forward and both backwards: time over that of the dense 3x3. Batch 3" in printed

    again = tmp_path / "again.png"
    assert bench("show", path, "--plot", again) == 0
    assert again.read_bytes().startswith(b"\x89PNG")


def test_figure1_takes_the_batch_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    options = cli._parser().parse_args(["figure1"])
    image = 4 * 16 * 512 * 512
    monkeypatch.setattr(devices.Cpu, "free_memory", lambda self: 100 * image * 20)
    assert cli._fitting(layer("16@512", 64), ["expanded"], options).batch == 16
    assert cli._fitting(layer("16@512", 64), ["dense"], options).batch == 32
    assert cli._fitting(layer("512@16", 64), ["expanded"], options).batch == 64
    cases = [layer("16@512", 16), layer("32@256", 32), layer("64@128", 32)]
    facts = {"processor": "P", "threads": 2, "versions": {"torch": "2"}}
    assert cli._caption(cases, {"machine": facts}).startswith("Batch 16 for 16@512; 32 for 32@256, 64@128; float32; P")


def test_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "networks", lambda: [layer("4@8", 3, 6), layer("4@3x5", 2)])
    path = tmp_path / "layers.json"
    assert bench("layers", *FAST, "--peers", "none", "--json", path) == 0
    records = report.load(path)["results"]
    operations = ("forward", "backward_data", "backward_weight")
    assert [(r["layer"], r["operation"]) for r in records] == [(c, o) for c in ("4-6@8", "4@3x5") for o in operations]


def test_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bars, "development", lambda: [layer("4@8", 3), layer("64@4", 2), layer("4@3^3", 1)])
    monkeypatch.setattr(bars, "ragged", lambda: [(layer("3@5", 2), layer("4@5", 2))])
    path = tmp_path / "bars.json"
    assert bench("bars", *FAST, "--threads", "2", "--json", path) == 0
    document = report.load(path)
    check_document(document, "bars")
    found = {(r["goal"], r["subject"]): r for r in document["bars"]}
    assert len(found) == len(document["bars"])
    assert found["time / roofline", "4@8 forward"]["limit"] == 1.6
    assert found["time / roofline", "64@4 forward"]["limit"] == 1.25
    assert found["time / roofline", "64@4 backward_weight"]["limit"] == 1.5
    assert found["best channels-first peer / leancore", "4@3^3 backward_data"]["limit"] == 20
    assert ("one thread / all threads", "4@8 forward") not in found
    assert found["one thread / all threads", "64@4 forward"]["value"] is not None
    assert found["time per flop / that of the power of two", "3@5 and 4@5 forward"]["value"] is not None
    assert found["microseconds of a Python call", "NumPy (1, 4, 4, 4) forward"]["value"] is not None
    for record in document["bars"]:
        assert (record["met"] is None) == (record["value"] is None)
        assert record["value"] is not None or record["note"]
    printed = capsys.readouterr().out
    assert f"{sum(r['met'] is True for r in document['bars'])} met, " in printed
    assert bench("show", path) == 0
    assert capsys.readouterr().out.splitlines()[-1] == printed.splitlines()[-1]


def test_bars_are_judged_by_the_median() -> None:
    value = Spread(1.5, 1.0, 2.0, 9)
    assert bars.Bar("", "", 1.5, True, value).met
    assert not bars.Bar("", "", 1.4, True, value).met
    assert bars.Bar("", "", 1.5, False, value).met
    assert not bars.Bar("", "", 1.6, False, value).met
    assert bars.Bar("", "", 1.6, False).met is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["op", "--shape", "1,2"], "shape (1, 2): expected (N, c_in, *spatial)"),
        (["op", "--shape", "1,2,0"], "shape (1, 2, 0)"),
        (["op", "--shape", "1,2,3", "--stride", "0"], "stride 0"),
        (["op", "--shape", "1,2,3", "--peers", "gemm"], "peers gemm: not among all, none, leancore"),
        (["op", "--shape", "1,2,3", "--threads", "-1"], "threads: -1 asked for"),
        (["figure1", "--quick", "--peers", "composition"], "name it among --peers"),
        (["bars", "--json", "no-such-folder/bars.json"], "no-such-folder/bars.json: not a file in a folder"),
        (["show", "no-such-file.json"], "no-such-file.json"),
    ],
)
def test_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    if arguments[0] == "figure1":
        pytest.importorskip("torch")
    assert bench(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("leancore bench: error: ")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["op", "--shape", "1,2,x"], "'1,2,x' is not N,c_in,extents"),
        (["op", "--shape", "1,2,3", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["limits", "--seconds", "0"], "0 is not a positive number"),
        ([], "required: command"),
    ],
)
def test_usage_errors(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench(*arguments)
    assert message in capsys.readouterr().err


def test_cuda_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    if installed("torch"):
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a CUDA device")
    assert bench(*OP, "--device", "cuda") == 1
    assert "--device cuda" in capsys.readouterr().err


def test_show_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "other.json"
    for text in ("{", "[]", '{"format": "leancore-bench-0"}'):
        path.write_text(text)
        assert bench("show", path) == 1
        assert "other.json: not " in capsys.readouterr().err


def test_the_help_lists_every_peer(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        bench("--help")
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in PEERS)


def test_the_process_is_started_anew_with_reused_memory(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    finished = run(*OP, "--op", "forward", "--peers", "none", "--json", str(tmp_path / "op.json"), env=bare)
    assert finished.returncode == 0, finished.stderr
    assert report.load(tmp_path / "op.json")["machine"]["memory_reused"] is True


def test_without_torch(tmp_path: Path) -> None:
    env = blocked(tmp_path, "torch", "matplotlib", "rich")
    finished = run(*OP, "--dtype", "float32", "--op", "forward", "backward", "--json", "op.json", env=env, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    document = report.load(tmp_path / "op.json")
    check_document(document, "op")
    by_peer = {(r["peer"], r["operation"]): r for r in document["results"]}
    assert by_peer["leancore", "forward"]["note"] == by_peer["leancore", "backward"]["note"] == ""
    assert by_peer["dense", "forward"]["note"] == "torch is not installed"
    assert run("limits", *FAST, env=env).returncode == 0

    for arguments, message in (
        (["figure1"], "pip install"),
        ([*OP, "--device", "cuda"], "torch, which is not installed"),
    ):
        finished = run(*arguments, env=env)
        assert finished.returncode == 1
        assert message in finished.stderr


def test_importing_the_benchmark_imports_no_torch() -> None:
    code = "import sys, leancore.bench.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.slow
def test_quick_figure1_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    finished = run("figure1", "--quick", "--json", "figure1.json", cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    document = report.load(tmp_path / "figure1.json")
    check_document(document, "figure1")
    assert {record["note"][:9] for record in document["results"]} <= {"", "not timed"}  # too slow on a busy machine
    assert len(document["results"]) == 6 * 2 * 8
    assert (tmp_path / "figure1.png").exists()
