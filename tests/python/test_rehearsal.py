"""The tests and the script for a CUDA device, gone through without one: that they run, not that CUDA works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import REPOSITORY, run_script

sys.path.insert(0, str(REPOSITORY / "scripts"))
import cuda_device
from cuda_device import Result, Step

DEVICES = {
    "devices": [{"name": "Played", "compute_capability": "9.0", "memory_bytes": 2**30}],
    "driver": "1.2",
    "driver_cuda": "13.0",
}


@pytest.mark.slow
def test_the_tests_for_a_device_run_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    junit = tmp_path / "rehearsal.xml"
    tests = REPOSITORY / "tests/python/test_cuda_device.py"
    done = run_script(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, f"--junitxml={junit}", "-c",
        REPOSITORY / "pyproject.toml", timeout=3600, LEANCORE_CUDA_REHEARSAL="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    checks = cuda_device.read_junit(junit)
    assert {check.reason for check in checks if check.status == "left out"} <= {
        "needs a device",
        "needs a device; test_cuda.py has arrays like CuPy's on the emulated runtime",
    }
    ran = {check.name.partition("[")[0].rpartition(".")[2] for check in checks if check.status == "passed"}
    assert {"test_operations_are_exact_on_integers", "test_autocast", "test_compiled", "test_jax"} <= ran


# The driver


class Driver:
    """libcuda, with these devices."""

    def __init__(self, *names: str, error: int = 0) -> None:
        self._names, self._error = names, error

    def cuInit(self, flags: int) -> int:
        return self._error

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 13010
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = len(self._names)
        return 0

    def cuDeviceGet(self, handle: Any, index: int) -> int:
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, handle: Any) -> int:
        name.value = self._names[handle.value].encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = 2**34
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, handle: Any) -> int:
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0


def test_devices_are_found() -> None:
    facts = cuda_device.find_devices(lambda name: Driver("A", "B"))
    assert facts["devices"][1] == {"name": "B", "compute_capability": "8.9", "memory_bytes": 2**34}
    assert facts["driver_cuda"] == "13.1"


def no_library(name: str) -> Any:
    raise OSError(name)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (no_library, r"there is no CUDA driver: libcuda\.so\.1 cannot be loaded"),
        (lambda name: Driver(), "the CUDA driver finds no device"),
        (lambda name: Driver("A", error=100), "finds no usable device: cuInit returns error 100"),
    ],
)
def test_no_device(load: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        cuda_device.find_devices(load)


def test_without_a_device_nothing_is_run_and_no_report_is_written(tmp_path: Path) -> None:
    try:
        cuda_device.find_devices()
    except RuntimeError:
        pass
    else:
        pytest.skip("there is a CUDA device")
    out = tmp_path / "report"
    command = [str(REPOSITORY / "scripts/test_cuda_device.sh"), "--out", str(out), "--build", str(tmp_path / "build")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "nothing was run and no report was written" in done.stderr
    assert [*tmp_path.iterdir()] == []


# Steps and the report


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_step_is_judged_by_its_exit_status_and_its_time(tmp_path: Path) -> None:
    done: dict[str, Result] = {}
    for step in (
        Step("good", python("print('said')")),
        Step("bad", python("raise SystemExit(3)")),
        Step("slow", python("import time; time.sleep(600)"), minutes=0.01),
        Step("impossible", ["no-such-program"], missing="there is no such program"),
        Step("after good", python(""), needs=["good"]),
        Step("after bad", python(""), needs=["good", "bad"]),
    ):
        done[step.name] = cuda_device.run(step, tmp_path, done)
    found = {name: (result.status, result.reason) for name, result in done.items()}
    assert found == {
        "good": ("passed", ""),
        "bad": ("failed", "exit status 3"),
        "slow": ("failed", "stopped after 0.01 minutes"),
        "impossible": ("not run", "there is no such program"),
        "after good": ("passed", ""),
        "after bad": ("not run", "without bad"),
    }
    assert (tmp_path / "good.log").read_text() == "said\n"


TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert False, "why"
def test_device(): pytest.skip("torch sees no CUDA device")
def test_other(): pytest.skip("needs two devices")
"""


def test_what_pytest_writes(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)

    def run(which: str) -> Result:
        junit = tmp_path / "it.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(tmp_path), f"--junitxml={junit}", "-k", which]
        return cuda_device.run(Step("it", command, junit=junit), tmp_path, {})

    result = run("test")
    assert (result.status, result.reason) == ("failed", "2 of 4 checks")
    found = {check.name.rpartition(".")[2]: (check.status, check.reason) for check in result.checks}
    assert found["test_good"] == ("passed", "")
    assert found["test_bad"][0] == "failed"
    assert "why" in found["test_bad"][1]
    assert found["test_device"] == ("failed", "skipped: torch sees no CUDA device")
    assert found["test_other"] == ("left out", "needs two devices")
    assert run("good or other").status == "passed"
    assert (run("other").status, run("other").reason) == ("failed", "nothing was checked")
    assert run("device").status == "failed"
    assert (run("none").status, run("none").reason) == ("failed", "exit status 5")


CTEST = """<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="all" tests="3" failures="1" disabled="0" skipped="1">
  <testcase name="cuda_rows" classname="cuda_rows" time="1.5" status="run"/>
  <testcase name="cuda_exact" classname="cuda_exact" time="0.1" status="notrun">
    <skipped message="SKIP_RETURN_CODE=77"/>
  </testcase>
  <testcase name="cuda_wide" classname="cuda_wide" time="0.2" status="fail"><failure message="Failed"/></testcase>
</testsuite>
"""


def test_what_ctest_writes(tmp_path: Path) -> None:
    (tmp_path / "kernels.xml").write_text(CTEST)
    checks = cuda_device.read_junit(tmp_path / "kernels.xml")
    assert [(check.name, check.status, check.reason) for check in checks] == [
        ("cuda_rows", "passed", ""),
        ("cuda_exact", "failed", "skipped: SKIP_RETURN_CODE=77"),
        ("cuda_wide", "failed", "Failed"),
    ]


def test_what_bench_writes(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    document = tmp_path / "bench-op.json"
    arguments = ["--shape", "2,4,6,6", "--quick", "--seconds", "0.001", "--peers", "composition", "--op", "forward"]
    command = [sys.executable, "-m", "leancore", "bench", "op", *arguments, "--json", str(document)]
    result = cuda_device.run(Step("bench op", command, document=document), tmp_path, {})
    assert (result.status, result.reason) == ("passed", ""), (tmp_path / "bench-op.log").read_text()
    assert [check.status for check in result.checks] == ["passed"]
    report = cuda_device.document_of(DEVICES, [result], rehearsal=False, quick=True)
    assert report["verdict"] == "passed"
    text = cuda_device.markdown_of(report, tmp_path)
    assert text.startswith("# leancore on Played: passed\n")
    assert "| 4@6x6 x2 float32 | forward | composition | " in text

    bench = json.loads(document.read_text())
    bench["results"][0]["note"] = "WrongOutput: y"
    failed = Result("bench", "", "passed")
    cuda_device.judge_bench(bench, failed)
    assert failed.status == "failed"


def test_the_verdict() -> None:
    good, bad, absent = (Result(status, "command", status) for status in ("passed", "failed", "not run"))

    def verdict(*results: Result) -> Any:
        document = cuda_device.document_of(DEVICES, results, rehearsal=True, quick=False)
        text = cuda_device.markdown_of(document, Path())
        assert cuda_device.REHEARSAL in text
        return document["verdict"]

    assert verdict(good) == "passed"
    assert verdict(good, absent) == "incomplete"
    assert verdict(good, absent, bad) == "failed"


@pytest.mark.parametrize("rehearse", [False, True])
def test_the_steps_follow_one_another(tmp_path: Path, rehearse: bool) -> None:
    options = SimpleNamespace(build=tmp_path / "build", out=tmp_path, rehearse=rehearse, quick=False, venv=None)
    steps = cuda_device.steps(DEVICES, options)  # type: ignore[arg-type]
    names = [step.name for step in steps]
    assert len(set(names)) == len(names)
    for position, step in enumerate(steps):
        assert set(step.needs) <= set(names[:position])
    text = "\n".join(" ".join(map(str, step.command)) for step in steps)
    assert ("LEANCORE_CUDA_ARCHITECTURES=90-real" in text) == (not rehearse)
    assert ("--device cuda" in text) == (not rehearse)
    assert "cuda_rows" not in cuda_device.topics()
    assert {"exact", "rows"} <= set(cuda_device.topics())
