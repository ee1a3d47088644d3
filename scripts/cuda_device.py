"""What scripts/test_cuda_device.sh does. Needs Python, a C++20 compiler, nvcc and, for Python's part, PyPI."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
FORMAT = "leancore-cuda-device-1"
SANITIZERS = ("memcheck", "racecheck", "initcheck", "synccheck")
REHEARSAL = "REHEARSAL on the CPU, without compute-sanitizer and CuPy: this report says nothing about any GPU"


# The device


def find_devices(load: Callable[[str], Any] = ctypes.CDLL) -> dict[str, Any]:
    """What the driver says of its devices.

    Raises:
        RuntimeError: there is none, and why.
    """
    try:
        driver = load("libcuda.so.1")
    except OSError:
        raise RuntimeError("there is no CUDA driver: libcuda.so.1 cannot be loaded") from None

    def ask(function: str, *arguments: Any) -> None:
        if error := getattr(driver, function)(*arguments):
            raise RuntimeError(f"the CUDA driver finds no usable device: {function} returns error {error}")

    ask("cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    ask("cuDriverGetVersion", ctypes.byref(version))
    ask("cuDeviceGetCount", ctypes.byref(count))
    if not count.value:
        raise RuntimeError("the CUDA driver finds no device")
    devices = []
    for index in range(count.value):
        handle, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
        ask("cuDeviceGet", ctypes.byref(handle), index)
        ask("cuDeviceGetName", name, len(name), handle)
        ask("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        capability = []
        for attribute in (75, 76):  # major and minor
            value = ctypes.c_int()
            ask("cuDeviceGetAttribute", ctypes.byref(value), attribute, handle)
            capability.append(value.value)
        devices.append(
            {
                "name": name.value.decode(),
                "compute_capability": "{}.{}".format(*capability),
                "memory_bytes": memory.value,
            }
        )
    kernel = Path("/sys/module/nvidia/version")
    return {
        "devices": devices,
        "driver": kernel.read_text().strip() if kernel.exists() else "unknown",
        "driver_cuda": f"{version.value // 1000}.{version.value % 1000 // 10}",
    }


# Steps and what became of them


@dataclass
class Check:
    """One test of a step."""

    name: str
    status: str  # "passed", "failed" or "left out"
    reason: str = ""
    seconds: float = 0.0


@dataclass
class Step:
    """One command, whose exit status counts, and the results that it leaves in a file."""

    name: str
    command: Sequence[str | Path]
    minutes: float = 30
    junit: Path | None = None  # the checks
    document: Path | None = None  # of leancore bench
    environment: dict[str, str] = field(default_factory=dict)
    missing: str = ""  # why it cannot be run
    needs: Sequence[str] = ()  # steps that must have passed


@dataclass
class Result:
    name: str
    command: str
    status: str  # "passed", "failed" or "not run"
    reason: str = ""
    seconds: float = 0.0
    log: str = ""
    document: str = ""
    checks: list[Check] = field(default_factory=list)


def read_junit(path: Path) -> list[Check]:
    """As CTest and pytest write it. What lacks a condition of its own ("needs two devices") was left out, what was
    skipped for any other reason, such as that no device was seen, has failed."""
    checks = []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = ".".join(dict.fromkeys(filter(None, (case.get("classname"), case.get("name")))))
        bad = [each for each in case if each.tag in ("failure", "error")]
        skipped = [each for each in case if each.tag == "skipped"]
        status, reason = "passed", ""
        if bad or case.get("status") in ("fail", "disabled"):
            status, reason = "failed", bad[0].get("message", "") if bad else ""
        elif skipped or case.get("status") == "notrun":
            reason = (skipped[0].get("message") or "") if skipped else ""
            status = "left out" if reason.startswith("needs ") else "failed"
            reason = reason if status == "left out" else f"skipped: {reason}"
        checks.append(Check(name, status, first_line(reason), float(case.get("time") or 0)))
    return checks


def first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]


def run(step: Step, folder: Path, done: dict[str, Result]) -> Result:
    result = Result(step.name, shlex.join(map(str, step.command)), "not run")
    lacking = [name for name in step.needs if done[name].status != "passed"]
    if step.missing or lacking:
        result.reason = step.missing or f"without {', '.join(lacking)}"
        return result
    log = folder / f"{re.sub(r'[^a-z0-9]+', '-', step.name.lower()).strip('-')}.log"
    result.log = log.name
    for path in (step.junit, step.document):
        if path is not None:
            path.unlink(missing_ok=True)
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            [*map(str, step.command)],
            cwd=REPOSITORY,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | step.environment,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(step.minutes * 60)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
    result.seconds = time.monotonic() - began
    result.status = "passed" if code == 0 else "failed"
    if code is None:
        result.reason = f"stopped after {step.minutes:g} minutes"
    elif code != 0:
        result.reason = f"exit status {code}"
    if step.junit is not None:
        judge(step.junit, result)
    if step.document is not None and result.status == "passed":
        if step.document.exists():
            result.document = step.document.name
            judge_bench(json.loads(step.document.read_text()), result)
        else:
            result.status, result.reason = "failed", f"{step.document.name} was not written"
    return result


def judge(junit: Path, result: Result) -> None:
    result.checks = read_junit(junit) if junit.exists() else []
    failed = sum(check.status == "failed" for check in result.checks)
    if failed:
        result.status, result.reason = "failed", f"{failed} of {len(result.checks)} checks"
    elif not any(check.status == "passed" for check in result.checks):
        result.status, result.reason = "failed", result.reason or "nothing was checked"


def judge_bench(document: dict[str, Any], result: Result) -> None:
    """leancore itself must have been timed wherever it was among the candidates: its outputs are then right."""
    ours = [record for record in document["results"] if record["peer"] == "leancore"]
    for record in ours:
        name = f"{record['layer']} {record['dtype']} {record['layout']} {record['operation']}"
        result.checks.append(Check(name, "failed" if record["note"] else "passed", record["note"]))
    if any(check.status == "failed" for check in result.checks):
        result.status, result.reason = "failed", "leancore could not be timed everywhere"


# What there is to do


def steps(facts: dict[str, Any], options: argparse.Namespace) -> list[Step]:
    build, out, rehearse, quick = options.build, options.out, options.rehearse, options.quick
    capabilities = sorted({device["compute_capability"].replace(".", "") for device in facts["devices"]}, key=int)
    architectures = ";".join(f"{capability}-real" for capability in capabilities)
    cmake = {"LEANCORE_CUDA_EMULATION": "ON"} if rehearse else {
        "LEANCORE_CUDA": "ON", "LEANCORE_CUDA_ARCHITECTURES": architectures,
    }  # fmt: skip
    label = "cuda_emulation" if rehearse else "cuda"
    target = "cuda_emulation_tests" if rehearse else "test_cuda"
    tools, torch_venv, jax_venv = (build / name for name in ("tools", "torch", "jax"))
    if options.venv:
        torch_venv = jax_venv = options.venv
    major = facts["driver_cuda"].partition(".")[0]
    emulation = build / "extension" / "tests" / "cuda_emulation"
    environment = {
        "LEANCORE_CUDA_REHEARSAL": "1",
        "LEANCORE_CUDA_EMULATED": str(emulation / "libcuda_emulation.so"),
        "LD_LIBRARY_PATH": str(emulation),
    } if rehearse else {}  # fmt: skip

    def shell(*lines: str) -> list[str]:
        return ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]

    def in_venv(venv: Path, *lines: str) -> list[str]:
        return shell(f"[ -x {venv}/bin/python ] || python3 -m venv {venv}", f"export PATH={venv}/bin:$PATH", *lines)

    def install(venv: Path, *requirements: str) -> list[str]:
        return in_venv(venv, *(f"pip install --quiet {each}" for each in requirements))

    def pytest(framework: str, venv: Path, which: str, *, needs: str) -> Step:
        junit = out / f"{framework}.xml"
        command = [venv / "bin/python", "-m", "pytest", "-q", "-m", "cuda", "-k", which, f"--junitxml={junit}"]
        file = "tests/python/test_cuda_device.py"
        return Step(f"Python on {framework}", [*command, file], 60, junit, environment=environment, needs=[needs])

    bench_options = ["--device", "cpu" if rehearse else "cuda", *(["--quick"] if quick or rehearse else [])]

    def bench(name: str, *arguments: str) -> Step:
        document = out / f"bench-{name}.json"
        command = [torch_venv / "bin/leancore", "bench", *arguments, *bench_options, "--json", document]
        return Step(f"bench {name}", command, 60, document=document, environment=environment, needs=["torch installed"])

    tests = build / "cmake"
    defined = [f"-D{key}={value}" for key, value in (cmake | {"LEANCORE_WERROR": "ON"}).items()]
    wheel_defined = " ".join(f"-C cmake.define.{key}='{value}'" for key, value in cmake.items())
    wheel = f"--no-deps --force-reinstall {build}/wheel/leancore-*.whl"
    packages = "pytest ml_dtypes rich matplotlib nanobind-backend"
    junit = out / "kernels.xml"
    sanitizer = find_sanitizer()
    jax = "jax" if rehearse else f"'jax[cuda{major}]'"
    size = "2,16,32,32" if rehearse else "16,64,128,128"  # 16-bit peers are slow on a CPU
    shape = ["--shape", size, "--op", "forward", "backward_data", "backward_weight", "backward"]
    result = [
        Step("tools", install(tools, "'cmake>=3.22' 'ninja>=1.11'")),
        Step(
            "kernels built",
            shell(
                f"export PATH={tools}/bin:$PATH",
                shlex.join(["cmake", "-S", ".", "-B", str(tests), "-G", "Ninja", *defined]),
                f"cmake --build {tests} --target {target}",
            ),
            120,
            needs=["tools"],
        ),
        Step(
            "kernels",
            [tools / "bin/ctest", "--test-dir", tests, "-L", f"^{label}$", "--no-tests=error", "--output-on-failure",
             "--timeout", "3600", "--output-junit", junit],
            120,
            junit,
            needs=["kernels built"],
        ),
    ]  # fmt: skip
    for tool in () if rehearse else ("memcheck", "racecheck") if quick else SANITIZERS:
        for topic in topics():
            result.append(
                Step(
                    f"compute-sanitizer {tool} {topic}",
                    [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "99",
                     tests / "tests/cuda/test_cuda", topic],
                    60,
                    missing="" if sanitizer else "compute-sanitizer is neither on the PATH nor beside nvcc",
                    needs=["kernels"],
                )
            )  # fmt: skip
    result += [
        Step(
            "wheel built",
            in_venv(
                build / "wheel-tools",
                f"rm -rf {build}/wheel",
                f"pip wheel --quiet --no-deps -w {build}/wheel -C build-dir={build}/extension "
                f"-C cmake.define.LEANCORE_BUILD_TESTS=OFF {wheel_defined} .",
            ),
            120,
        ),
        Step(
            "torch installed",
            install(torch_venv, "-c constraints.txt torch", f"-c constraints.txt {packages}", wheel),
            60,
            needs=["wheel built"],
        ),
        Step("CuPy installed", install(torch_venv, f"cupy-cuda{major}x"), needs=["torch installed"]),
        Step("JAX installed", install(jax_venv, f"{jax} {packages}", wheel), 60, needs=["wheel built"]),
        Step("info", [torch_venv / "bin/leancore", "info", "--torch"], environment=environment,
             needs=["torch installed"]),
        pytest("torch", torch_venv, "not cupy and not jax", needs="torch installed"),
        pytest("CuPy", torch_venv, "cupy", needs="CuPy installed"),
        pytest("JAX", jax_venv, "jax", needs="JAX installed"),
        bench("limits", "limits"),
        *(
            bench(f"op {dtype} {layout}", "op", *shape, "--dtype", dtype, "--layout", layout)
            for dtype in ("float32", "bfloat16", "float16")
            for layout in ("channels-first", "channels-last")
        ),
        bench("layers", "layers"),
        bench("figure1", "figure1", "--plot", str(out / "figure1.png")),
    ]  # fmt: skip
    if rehearse:
        result = [step for step in result if "CuPy" not in step.name]
        junit = out / "emulated.xml"
        command = [jax_venv / "bin/python", "-m", "pytest", "-q", f"--junitxml={junit}", "tests/python/test_cuda.py"]
        result.append(
            Step("Python on emulated arrays", command, 60, junit, environment=environment, needs=["JAX installed"])
        )
    return result


def topics() -> list[str]:
    """Those of the program test_cuda."""
    text = (REPOSITORY / "tests/cuda/CMakeLists.txt").read_text()
    found = re.search(r"^set\(topics ([^)]*)\)", text, re.MULTILINE)
    if found is None:
        raise RuntimeError("tests/cuda/CMakeLists.txt does not list its topics")
    return found[1].split()


def find_nvcc() -> str | None:
    found = os.environ.get("CUDACXX") or shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    return found if found and shutil.which(found) else None


def find_sanitizer() -> str | None:
    nvcc = find_nvcc()
    beside = str(Path(nvcc).resolve().parent / "compute-sanitizer") if nvcc else ""
    return shutil.which("compute-sanitizer") or shutil.which(beside)


# The report


def document_of(facts: dict[str, Any], results: Sequence[Result], *, rehearsal: bool, quick: bool) -> dict[str, Any]:
    left_out = [step for step in results if step.status == "not run"]
    failed = [step for step in results if step.status == "failed"]
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return {
        "format": FORMAT,
        "rehearsal": rehearsal,
        "quick": quick,
        "verdict": "failed" if failed else "incomplete" if left_out else "passed",
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": git.stdout.strip() or "unknown",
        "system": platform.platform(),
        "nvcc": nvcc_version(),
        **facts,
        "steps": [asdict(result) for result in results],
    }


def nvcc_version() -> str:
    text = subprocess.run([find_nvcc() or "true", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release .*, V([0-9.]+)", text)
    return found[1] if found else "unknown"


def markdown_of(document: dict[str, Any], folder: Path) -> str:
    lines = [f"# leancore on {', '.join(device['name'] for device in document['devices'])}: {document['verdict']}", ""]
    if document["rehearsal"]:
        lines += [f"**{REHEARSAL}.**", ""]
    for device in document["devices"]:
        lines.append(
            f"- {device['name']}: compute capability {device['compute_capability']}, "
            f"{device['memory_bytes'] / 2**30:.1f} GiB"
        )
    lines += [
        f"- driver {document['driver']}, for CUDA {document['driver_cuda']}; nvcc {document['nvcc']}",
        f"- commit {document['commit']}, {document['date']}, {document['system']}" + (", quick" * document["quick"]),
        "",
        "| step | result | checks | seconds | log |",
        "|---|---|--:|--:|---|",
    ]
    for step in document["steps"]:
        passed = sum(check["status"] == "passed" for check in step["checks"])
        checks = f"{passed} of {len(step['checks'])}" if step["checks"] else ""
        said = step["status"] + (f": {step['reason']}" if step["reason"] else "")
        log = f"[{step['log']}]({step['log']})" if step["log"] else ""
        lines.append(f"| {step['name']} | {cell(said)} | {checks} | {step['seconds']:.0f} | {log} |")
    for status, title in (("failed", "Failed"), ("left out", "Left out")):
        found = [
            f"- {step['name']}: {cell(check['name'])}: {cell(check['reason'])}"
            for step in document["steps"]
            for check in step["checks"]
            if check["status"] == status
        ]
        lines += ["", f"## {title}", "", *found] if found else []
    for step in document["steps"]:
        if step["document"]:
            lines += ["", f"## {step['name']}", "", *bench_table(json.loads((folder / step["document"]).read_text()))]
    return "\n".join(lines) + "\n"


def bench_table(bench: dict[str, Any]) -> list[str]:
    """The medians; `leancore bench show FILE` has all."""
    lines = []
    if not bench["results"]:
        lines = ["| limit | median, 10^9 / s |", "|---|--:|"]
        for record in bench["limits"]:
            lines.append(f"| {record['name']}, {record['unit']} | {record['rate']['median'] / 1e9:.1f} |")
        return lines
    lines = ["| layer | operation | candidate | ms | / leancore | of the roofline |", "|---|---|---|--:|--:|--:|"]
    for record in bench["results"]:
        name = f"{record['layer']} x{record['shape'][0]} {record['dtype']}"
        start = f"| {name} | {record['operation']} | {record['peer']} |"
        if "seconds" not in record:
            lines.append(f"{start} {cell(record['note'])} | | |")
            continue
        over = record.get("over_leancore")
        lines.append(
            f"{start} {record['seconds']['median'] * 1e3:.4f} | {over['median'] if over else float('nan'):.2f} | "
            f"{100 * record['roofline_fraction']:.0f} % |"
        )
    return lines


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/test_cuda_device.sh", description=__doc__)
    build = REPOSITORY / "build-cuda-device"
    parser.add_argument("--out", type=Path, default=build / "report", help="folder of the report")
    parser.add_argument("--build", type=Path, default=build, help="folder to work in")
    parser.add_argument("--venv", type=Path, help="one environment for all of Python's part; default: two new ones")
    parser.add_argument("--quick", action="store_true", help="two of the four sanitizers, benchmarks on few images")
    parser.add_argument(
        "--rehearse", action="store_true", help="go through the steps without a device, on the emulated CUDA runtime"
    )
    options = parser.parse_args(arguments)
    options.out, options.build = options.out.resolve(), options.build.resolve()
    try:
        if options.rehearse:
            emulated = {"name": "no device", "compute_capability": "8.0", "memory_bytes": 0}
            facts: dict[str, Any] = {"devices": [emulated], "driver": "none", "driver_cuda": "13.0"}
        else:
            facts = find_devices()
        nvcc = find_nvcc()
        if nvcc is None:
            raise RuntimeError("nvcc is neither on the PATH nor named by CUDACXX")
    except RuntimeError as error:
        print(f"{error}; nothing was run and no report was written", file=sys.stderr)
        return 2
    os.environ["CUDACXX"] = nvcc
    options.out.mkdir(parents=True, exist_ok=True)
    options.build.mkdir(parents=True, exist_ok=True)
    if options.rehearse:
        print(REHEARSAL)
    done: dict[str, Result] = {}
    document: dict[str, Any] = {}
    to_do = steps(facts, options)
    for step in to_do:
        print(f"{step.name} ...", end=" ", flush=True)
        result = done[step.name] = run(step, options.out, done)
        print(f"{result.status} ({result.seconds:.0f} s){': ' if result.reason else ''}{result.reason}", flush=True)
        # Written after each step: what is known is not lost with what comes.
        document = document_of(facts, [*done.values()], rehearsal=options.rehearse, quick=options.quick)
        if len(done) < len(to_do) and document["verdict"] == "passed":
            document["verdict"] = "incomplete"
        (options.out / "report.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        (options.out / "report.md").write_text(markdown_of(document, options.out), encoding="utf-8")
    print(f"{document['verdict']}: {options.out / 'report.md'}")
    return 0 if document["verdict"] == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
