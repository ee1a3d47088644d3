"""What a run shows: tables, as text or Markdown, one JSON document, the plot of Figure 1, and progress."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import leancore
from leancore.bench.devices import CPU, Device
from leancore.bench.limits import Probe, instruction_set, last_level_cache, meminfo
from leancore.bench.measure import Row
from leancore.bench.timing import Spread, memory_is_reused, ratios

FORMAT = "leancore-bench-1"

COLUMNS = """\
layer       channels @ extents, the batch after x; a dtype other than float32, and stride and dilation, behind it
ms          median of all rounds, and their quartiles
/ leancore  the time over leancore's, by rounds: above 1 leancore is faster
GFLOP/s     of the candidate's own arithmetic, a multiply and an add counted as two
GB/s        of one read of every input image and one write of every output image of the lean operator
roofline    the least time that the lean operator could take here, over the time: its arithmetic at the speed of
            multiply-adds on registers, or its memory traffic at the speed of a streaming copy, whichever is slower,
            both measured in the same rounds

With --device cuda, arithmetic at the speed of torch's product of two large matrices takes the place of multiply-adds on
registers. Times are those between two events around a call, the L2 cache overwritten before it; a kernel that is
shorter than its launch is measured by its launch.
"""


# The JSON document


def document(command: str, device: Device = CPU) -> dict[str, Any]:
    """An empty document: the machine, and lists that results are added to."""
    return {
        "format": FORMAT,
        "command": command,
        "line": shlex.join(["leancore", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(device),
        "limits": [],
        "results": [],
    }


def machine(device: Device = CPU) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "cpus": _cpus(),
        "threads": leancore.max_threads(),
        "last_level_cache_bytes": last_level_cache(),
        "memory_bytes": meminfo("MemTotal"),
        "system": platform.platform(),
        "huge_pages": _text("/sys/kernel/mm/transparent_hugepage/enabled") or "unknown",
        "memory_reused": memory_is_reused(),
        "instruction_set_of_limits": instruction_set(),
        "LEANCORE_CPU_ISA": os.environ.get("LEANCORE_CPU_ISA", ""),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("leancore", "numpy", "torch", "onnxruntime", "onnx")},
        **device.facts(),
    }


def row_record(row: Row, first: Row | None) -> dict[str, Any]:
    """A result as JSON; `first` is the row of leancore that took turns with it, if any."""
    case = row.case
    record: dict[str, Any] = {
        "layer": case.name,
        "shape": list(case.shape),
        "c_out": case.c_out,
        "dtype": case.dtype,
        "layout": row.layout,
        "stride": case.stride,
        "dilation": case.dilation,
        "operation": row.operation,
        "peer": row.peer,
        "description": row.description,
        "threads": row.threads,
        "note": row.note,
        "flops": row.flops,
        "bytes": row.bytes,
    }
    if row.samples:
        seconds = row.seconds
        record |= {
            "seconds": _spread(seconds),
            "samples": [float(f"{each:.6g}") for each in row.samples],
            "gflops_per_second": row.flops / seconds.median * 1e-9,
            "gbytes_per_second": row.bytes / seconds.median * 1e-9,
            "roofline_seconds": row.roofline,
            "roofline_fraction": row.roofline / seconds.median,
        }
        if first is not None and first.samples:
            record["over_leancore"] = _spread(ratios(row.samples, first.samples))
    return record


def limit_record(probe: Probe, samples: Sequence[float]) -> dict[str, Any]:
    return {
        "name": probe.name,
        "unit": f"{probe.unit}/s",
        "threads": probe.threads,
        "rate": _spread(probe.rate(list(samples))),
    }


def save(report: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> dict[str, Any]:
    """A document that :func:`save` wrote.

    Raises:
        ValueError: it is something else.
    """
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ValueError(f"{path}: not written by leancore bench --json, or by another version of it")
    return report


def _spread(spread: Spread) -> dict[str, float]:
    return {"median": spread.median, "low": spread.low, "high": spread.high, "count": spread.count}


# Tables


class Table:
    """Rows of text under fixed columns, printed one by one: results appear while a long run goes on."""

    def __init__(self, columns: Sequence[tuple[str, int]], *, markdown: bool) -> None:
        self._columns = columns
        self._markdown = markdown
        self._begun = False

    def add(self, *cells: str) -> None:
        """Columns of a positive width are aligned to the left, of a negative one to the right."""
        if not self._begun:
            self._begun = True
            self._print([name for name, _ in self._columns])
            if self._markdown:
                print("|" + "|".join("---" if width > 0 else "--:" for _, width in self._columns) + "|")
        self._print(cells)

    def _print(self, cells: Sequence[str]) -> None:
        if self._markdown:
            print("| " + " | ".join(cells) + " |", flush=True)
            return
        padded = [
            cell.ljust(width) if width > 0 else cell.rjust(-width)
            for cell, (_, width) in zip(cells, self._columns, strict=False)
        ]
        print("  ".join(padded).rstrip(), flush=True)


def result_table(*, markdown: bool) -> Table:
    columns = [("layer", 20), ("operation", 16), ("candidate", 18), ("ms", -9), ("quartiles", 17)]
    return Table([*columns, ("/ leancore", -10), ("GFLOP/s", -8), ("GB/s", -6), ("roofline", -8)], markdown=markdown)


def add_result(table: Table, record: dict[str, Any]) -> None:
    name = f"{record['layer']} x{record['shape'][0]}"
    if record["dtype"] != "float32":
        name += f" {record['dtype']}"
    for key, letter in (("stride", "s"), ("dilation", "d")):
        name += f" {letter}{record[key]}" if record[key] != 1 else ""
    peer = record["peer"]
    if peer == "leancore" and record["layout"] == "channels-last":
        peer += " (c. last)"
    if "seconds" not in record:
        table.add(name, record["operation"], peer, "-", record["note"])
        return
    seconds, over = record["seconds"], record.get("over_leancore")
    table.add(
        name,
        record["operation"],
        peer,
        f"{seconds['median'] * 1e3:.3f}",
        f"{seconds['low'] * 1e3:.3f}-{seconds['high'] * 1e3:.3f}",
        f"{over['median']:.2f}" if over else "",
        f"{record['gflops_per_second']:.1f}",
        f"{record['gbytes_per_second']:.1f}",
        f"{100 * record['roofline_fraction']:.0f} %",
    )


def limits_table(records: Sequence[dict[str, Any]], *, markdown: bool) -> None:
    table = Table([("limit", 24), ("threads", -7), ("median", -8), ("quartiles", 17), ("", 8)], markdown=markdown)
    for record in records:
        rate = {key: value * 1e-9 for key, value in record["rate"].items()}
        unit = "GFLOP/s" if record["unit"] == "flop/s" else "GB/s"
        table.add(
            record["name"],
            str(record["threads"]),
            f"{rate['median']:.1f}",
            f"{rate['low']:.1f}-{rate['high']:.1f}",
            unit,
        )


def heading(report: dict[str, Any], *, markdown: bool) -> None:
    """The machine, in a few lines."""
    facts = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items() if version)
    host = f"{facts['processor']}, CPUs: {facts['cpus']}"
    lines = [f"{host}, threads: {facts['threads']}, limits by {facts['instruction_set_of_limits']}"]
    if "device" in facts:
        lines = [
            f"{facts['device']}, compute capability {facts['compute_capability']}, "
            f"multiprocessors: {facts['multiprocessors']}, L2 cache: {facts['L2_cache_bytes'] / 2**20:.0f} MiB, "
            "overwritten before each call; TF32 off; limits by torch",
            f"{facts['leancore_cuda']}; torch for CUDA {facts['torch_cuda']}, cuDNN {facts['cudnn']}; on {host}",
        ]
    lines.append(f"{versions}, Python {facts['python']}")
    for line in lines:
        print(line + ("  " if markdown else ""))
    print()


def warnings(report: dict[str, Any]) -> list[str]:
    """What makes the numbers of a run doubtful."""
    found = []
    if not report["machine"]["memory_reused"] and "device" not in report["machine"]:
        found.append("memory is not reused between calls: large outputs take longer (see docs/performance.md)")
    peaks = {r["threads"]: r["rate"]["median"] for r in report["limits"] if r["name"] == "multiply-add float32"}
    threads = max(peaks, default=1)
    if threads > 1 and peaks[threads] < 0.75 * threads * peaks[1]:
        found.append(
            f"{threads} threads multiply only {peaks[threads] / peaks[1]:.1f} times as fast as one: something else "
            "uses the processors, or there are fewer of them than threads"
        )
    return found


# Figure 1


def relative_times(report: dict[str, Any], operation: str) -> tuple[list[str], dict[str, list[float]]]:
    """Layers, and for each candidate its times over those of the dense 3x3; NaN where there is none."""
    times: dict[str, dict[str, list[float]]] = {}
    for record in report["results"]:
        if record["operation"] == operation and "samples" in record:
            times.setdefault(record["layer"], {})[record["peer"]] = record["samples"]
    layers = list(dict.fromkeys(r["layer"] for r in report["results"] if r["operation"] == operation))
    peers = list(dict.fromkeys(r["peer"] for r in report["results"] if r["operation"] == operation))

    def relative(layer: str, peer: str) -> float:
        found = times.get(layer, {})
        return ratios(found[peer], found["dense"]).median if peer in found and "dense" in found else math.nan

    return layers, {peer: [relative(layer, peer) for layer in layers] for peer in peers}


def figure1_tables(report: dict[str, Any], *, markdown: bool) -> None:
    for operation, title in FIGURE1_PANELS:
        layers, lines = relative_times(report, operation)
        print(f"\n{title}: time over that of the dense 3x3. {report['caption']}\n")
        table = Table([("candidate", 18), *((layer, -8) for layer in layers)], markdown=markdown)
        for peer, values in lines.items():
            table.add(peer, *("-" if math.isnan(value) else f"{value:.3f}" for value in values))


FIGURE1_PANELS = (("forward", "forward"), ("forward_backward", "forward and both backwards"))


def figure1_plot(report: dict[str, Any], path: Path) -> None:
    """Time relative to the dense 3x3, by layer: a panel for forward, one for forward and both backwards.

    Raises:
        ImportError: without matplotlib.
    """
    from matplotlib.figure import Figure

    panels = [(title, *relative_times(report, operation)) for operation, title in FIGURE1_PANELS]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    for axes, (title, layers, lines) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        drawn = {peer: values for peer, values in lines.items() if peer != "dense" and not all(map(math.isnan, values))}
        families = list(dict.fromkeys(peer.removesuffix("-cl") for peer in drawn if peer != "leancore"))
        width = 0.8 / max(1, len(drawn))
        for k, (peer, values) in enumerate(drawn.items()):
            places = [i + (k - (len(drawn) - 1) / 2) * width for i in range(len(layers))]
            color = "black" if peer == "leancore" else f"C{families.index(peer.removesuffix('-cl')) % 10}"
            axes.bar(places, values, width, label=peer, color=color, alpha=0.5 if peer.endswith("-cl") else 1)
        axes.axhline(1, color="grey", linewidth=1, label="dense 3x3")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xticks(range(len(layers)), layers)
        axes.set_xlabel("channels @ side")
        axes.set_title(title)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    figure.axes[0].set_ylabel("time / time of the dense 3x3")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, max(1, len(labels))), fontsize="small")
    figure.suptitle(report["caption"], fontsize="small")
    figure.savefig(path, dpi=150)


# Progress


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], Callable[[float], None]]]:
    """A bar with the remaining time on a terminal (with rich installed), and nothing elsewhere.

    Yields a function that begins a step of that name and returns its ticker: told a fraction, it moves the bar.
    """
    if not sys.stderr.isatty():
        yield lambda name: lambda fraction: None
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    except ImportError:
        yield lambda name: lambda fraction: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    # The table goes to stdout: through the bar's console only where both are the same terminal.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty(), transient=True) as bar:
        task = bar.add_task("", total=steps)
        done = -1

        def begin(name: str) -> Callable[[float], None]:
            nonlocal done
            done += 1
            bar.update(task, description=name, completed=done)
            return lambda fraction: bar.update(task, completed=done + fraction)

        yield begin


# The machine


def _processor() -> str:
    for line in _text("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""
