"""What `--device cuda` does, as far as it can be seen without one: torch.cuda and its events are played."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import leancore
import leancore.cli
from leancore.bench import cli, devices, report
from leancore.bench.cases import layer

torch = pytest.importorskip("torch")

FAST = ["--quick", "--seconds", "0.001", "--device", "cuda"]
CACHE = 2**16


class Event:
    """Of a device that has done everything as soon as it is asked to."""

    log: list[Any] = []  # noqa: RUF012
    now: Callable[[], float] = time.perf_counter

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        self.at = -1.0

    def record(self) -> None:
        self.at = Event.now()
        self.log.append(self)

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def elapsed_time(self, end: Event) -> float:
        assert self.log[-1] == "synchronize"
        return (end.at - self.at) * 1e3


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[devices.Cuda]:
    """The class itself, its tensors on the CPU; leancore and the peers compute there."""
    properties = SimpleNamespace(
        name="Played", major=9, minor=0, multi_processor_count=4, total_memory=2**30, L2_cache_size=CACHE
    )
    monkeypatch.setattr(Event, "log", [])
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (2**29, 2**30))
    monkeypatch.setattr(leancore, "implementations", lambda: [("cuda", "played", True)])
    played = devices.Cuda()
    monkeypatch.setattr(played, "place", "cpu", raising=False)
    monkeypatch.setattr(played, "side", 32, raising=False)
    monkeypatch.setitem(devices.DEVICES, "cuda", played)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield played
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def bench(*arguments: str | Path) -> int:
    return leancore.cli.main(["bench", *map(str, arguments)])


def test_the_clock_sees_the_call_and_not_what_empties_the_cache(
    cuda: devices.Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, seconds = Event.log, {"cache": 20.0, "call": 2.0}
    monkeypatch.setattr(Event, "now", lambda: sum(seconds.get(each, 0.0) for each in log if isinstance(each, str)))
    cuda.__dict__["_overwritten"] = SimpleNamespace(zero_=lambda: log.append("cache"))
    assert cuda.clock(lambda: log.append("call"), 3) == pytest.approx(2.0)
    kinds = [each if isinstance(each, str) else "event" for each in log]
    assert kinds == ["cache", "event", "call", "event"] * 3 + ["synchronize"]


def test_buffers_are_larger_than_the_cache(cuda: devices.Cuda) -> None:
    assert cuda._overwritten.nbytes >= 2 * CACHE
    assert all(row.nbytes >= 8 * CACHE for row in cuda._rows)


def test_probes_do_what_they_are_counted_for(cuda: devices.Cuda) -> None:
    probes = {probe.name: probe for probe in cuda.probes([("float32", 1), ("bfloat16", 1), ("float32", 1)])}
    assert probes.keys() == {"matrix product float32", "matrix product bfloat16", "copy on the device"}
    assert probes["matrix product float32"].amount == 2 * 32**3
    assert (probes["matrix product float32"].call() == 32).all()
    copy = probes["copy on the device"]
    source, target = cuda._rows
    source += 1
    copy.call()
    assert (target == 1).all()
    assert copy.amount == 2 * source.nbytes


def test_float32_means_float32(cuda: devices.Cuda) -> None:
    cuda.require()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark
    assert cuda.facts()["tf32"] is False


def check_results(document: dict[str, Any]) -> None:
    assert document["machine"]["device"] == "Played"
    assert document["machine"]["L2_cache_bytes"] == CACHE
    assert {record["name"] for record in document["limits"]} == {
        "copy on the device",
        *(f"matrix product {dtype}" for dtype in ("float32", "float16", "bfloat16")),
    }
    for record in document["results"]:
        if record["peer"].startswith("on"):  # oneDNN and ONNX Runtime
            assert record["note"]
        elif record["peer"] == "leancore-1x1" and record["operation"] != "forward":
            assert record["note"] == "only forward"
        else:
            assert record["note"] == ""
            assert record["roofline_fraction"] > 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_op(cuda: devices.Cuda, tmp_path: Path, capsys: pytest.CaptureFixture[str], dtype: str) -> None:
    path = tmp_path / "op.json"
    shape = ["--shape", "2,4,6,6", "--dtype", dtype]
    assert bench("op", *shape, "--op", "forward", "backward_weight", *FAST, "--json", path) == 0
    document = report.load(path)
    check_results(document)
    assert {"composition", "composition-cl", "dense", "pointwise", "sequential", "expanded"} <= {
        record["peer"] for record in document["results"]
    }
    printed = capsys.readouterr().out
    assert printed.startswith("Played, compute capability 9.0, multiprocessors: 4, L2 cache: 0 MiB, overwritten before")
    assert bench("show", path) == 0
    assert capsys.readouterr().out.split() == printed.split()


def test_layers_and_figure1(cuda: devices.Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "networks", lambda: [layer("4@8", 3, 6)])
    monkeypatch.setattr(cli, "figure1", lambda batch: [layer("4@16", batch)])
    path = tmp_path / "bench.json"
    assert bench("layers", *FAST, "--json", path) == 0
    check_results(report.load(path))
    assert bench("figure1", *FAST, "--peers", "dense", "--json", path, "--plot", tmp_path / "figure1.png") == 0
    document = report.load(path)
    check_results(document)
    assert "; Played; torch" in document["caption"]
    options = cli._parser().parse_args(["figure1", "--device", "cuda"])
    assert cli._fitting(layer(f"{2**20}@1", 64), ["dense"], options).batch == 2  # of 4 MiB images, in 30 units


def test_bars_are_those_of_the_cpu(cuda: devices.Cuda, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("bars", *FAST) == 1
    assert "bars are those of the CPU kernels" in capsys.readouterr().err


@pytest.mark.parametrize(("in_torch", "in_leancore"), [(True, False), (False, True), (False, False)])
def test_what_is_missing_is_said(
    cuda: devices.Cuda,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    in_torch: bool,
    in_leancore: bool,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: in_torch)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(leancore, "implementations", lambda: [("cuda", "played", in_leancore), ("avx2", "", True)])
    assert bench("limits", *FAST) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("leancore bench: error: --device cuda: ")
    assert (f"torch {torch.__version__} is one without CUDA" in said.err) == (not in_torch)
    assert (f"leancore: {leancore.cuda_status()}" in said.err) == (not in_leancore)
