"""The commands of `leancore bench`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leancore.bench import bars, report
from leancore.bench.cases import ITEM_SIZES, LAYOUTS, OPERATIONS, Case, figure1, networks
from leancore.bench.devices import DEVICES
from leancore.bench.measure import Bench, Entry, Row, Settings
from leancore.bench.peers import PEERS, Peer, choose, installed
from leancore.bench.timing import interleave, restart_with_reused_memory, set_threads

DEFAULT_PEERS = {
    "op": ["all"],
    "layers": ["composition", "composition-cl", "dense"],
    "figure1": [
        *("dense", "composition", "composition-cl", "sequential", "sequential-cl"),
        *("expanded", "expanded-cl", "expanded-open", "expanded-open-cl"),
    ],
}
FIGURE1_BATCH = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `leancore bench` with these arguments and return the exit status.

    None: those of the process, which is started anew with an allocator that reuses memory (see timing.py).
    """
    own_process = arguments is None
    options = _parser().parse_args(sys.argv[2:] if arguments is None else list(arguments))
    try:
        if options.command == "show":
            return _show(options)
        _require_folders(options)
        DEVICES[options.device].require()
        if own_process:
            restart_with_reused_memory()
        set_threads(options.threads or DEVICES[options.device].threads())
        commands = {"limits": _limits, "op": _op, "layers": _layers, "figure1": _figure1, "bars": _bars}
        return commands[options.command](options)
    except BrokenPipeError:  # whoever read the table has seen enough
        sys.stderr.close()
        return 1
    except (ValueError, OSError) as error:
        print(f"leancore bench: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="leancore bench",
        description="Measures leancore against this machine's limits and against other ways to compute the same. "
        "Candidates take turns in one run and are checked before they are timed.",
        epilog=f"columns:\n{report.COLUMNS}\npeers:\n"
        + "\n".join(f"{name:19} {peer.description}" for name, peer in PEERS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quick", action="store_true", help="few images and rounds: all in under a minute")
    common.add_argument("--seconds", type=_positive, help="for each layer and operation, all candidates (default 2)")
    common.add_argument("--threads", type=int, default=0, help="default: as many as leancore would use")
    common.add_argument("--device", choices=list(DEVICES), default="cpu")
    common.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    common.add_argument("--markdown", action="store_true", help="print the tables as Markdown")

    peers = argparse.ArgumentParser(add_help=False)
    peers.add_argument(
        "--peers", nargs="+", metavar="NAME", help="names from the list of `leancore bench -h`, all, none"
    )
    peers.add_argument("--compile", action="store_true", help="torch.compile as well, which takes long to begin")

    commands.add_parser("limits", parents=[common], help="multiply-adds and copies, on one thread and on all")

    op = commands.add_parser("op", parents=[common, peers], help="one layer")
    op.add_argument("--shape", required=True, type=_shape, help="of x: N,c_in,extents, such as 16,32,256,256")
    op.add_argument("--c-out", type=int, help="default: c_in")
    op.add_argument("--dtype", choices=list(ITEM_SIZES), default="float32")
    op.add_argument("--layout", choices=LAYOUTS, default="channels-first", help="of leancore's x and y")
    op.add_argument("--stride", type=int, nargs="+", default=[1], help="several take turns; ratios are to the first")
    op.add_argument("--dilation", type=int, default=1)
    op.add_argument("--op", nargs="+", choices=OPERATIONS, default=["forward", "backward_data", "backward_weight"])

    commands.add_parser("layers", parents=[common, peers], help="the layers that the paper's networks really run")

    figure = commands.add_parser("figure1", parents=[common, peers], help="the paper's Figure 1")
    figure.add_argument("--batch", type=int, help=f"default: as large as fits in memory, at most {FIGURE1_BATCH}")
    figure.add_argument("--plot", type=Path, default=Path("figure1.png"), metavar="FILE", help="default figure1.png")

    bar = commands.add_parser("bars", parents=[common], help="the goals of the CPU kernels, and whether they are met")
    bar.add_argument("--compile", action="store_true", help="torch.compile as well, which takes long to begin")

    show = commands.add_parser("show", help="the tables, and the plot, of a file written by --json")
    show.add_argument("file", type=Path)
    show.add_argument("--markdown", action="store_true")
    show.add_argument("--plot", type=Path, metavar="FILE", help="Figure 1, where the file has it")
    return parser


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _shape(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not N,c_in,extents, such as 16,32,256,256") from None


def _require_folders(options: argparse.Namespace) -> None:
    """Before minutes of measuring rather than after."""
    for path in (options.json, getattr(options, "plot", None)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise ValueError(f"{path}: not a file in a folder that exists")


def _settings(options: argparse.Namespace) -> Settings:
    quick = Settings(seconds=0.1, at_least=3, patience=1.0)
    settings = replace(quick if options.quick else Settings(), threads=options.threads, device=DEVICES[options.device])
    return replace(settings, seconds=options.seconds) if options.seconds else settings


def _peers(options: argparse.Namespace) -> list[Peer]:
    names = options.peers or DEFAULT_PEERS[options.command]
    if options.quick and not options.peers:  # the slowest ones in one layout only
        names = [name for name in names if not (name.startswith("expanded") and name.endswith("-cl"))]
    return choose(names, compiled=options.compile)


def _begin(options: argparse.Namespace, seconds: float = 0.5) -> dict[str, Any]:
    """A document with the machine and its limits, which are printed."""
    device = DEVICES[options.device]
    document = report.document(options.command, device)
    report.heading(document, markdown=options.markdown)
    settings = _settings(options).resolved()
    probes = device.limits(settings.threads)
    samples = interleave(
        [probe.turn() for probe in probes],
        min(seconds, settings.seconds),
        at_least=settings.at_least,
        clock=device.clock,
    )
    set_threads(settings.threads)
    document["limits"] = [report.limit_record(p, s) for p, s in zip(probes, samples, strict=True)]
    report.limits_table(document["limits"], markdown=options.markdown)
    print()
    for warning in report.warnings(document):
        print(f"leancore bench: warning: {warning}", file=sys.stderr)
    return document


def _end(options: argparse.Namespace, document: dict[str, Any]) -> int:
    if options.json:
        report.save(document, options.json)
        print(f"written to {options.json}", file=sys.stderr)
    return 0


def _add(document: dict[str, Any], table: report.Table | None, rows: Sequence[Row]) -> None:
    """Rows that took turns, the first of which is leancore's."""
    for row in rows:
        record = report.row_record(row, rows[0])
        document["results"].append(record)
        if table is not None:
            report.add_result(table, record)


def _run(
    options: argparse.Namespace, document: dict[str, Any], layers: Sequence[Sequence[Case]], operations: Sequence[str]
) -> None:
    """The cases of a layer take turns, and what is said of them is relative to leancore on the first."""
    bench, peers = Bench(_settings(options)), _peers(options)
    table = report.result_table(markdown=options.markdown)
    with report.progress(len(layers) * len(operations)) as begin:
        for cases in layers:
            for operation in operations:
                tick = begin(f"{cases[0].name} {operation}")
                entries = [Entry(case, peer) for case in cases for peer in peers]
                _add(document, table, bench.measure(entries, operation, tick))


def _limits(options: argparse.Namespace) -> int:
    return _end(options, _begin(options, seconds=math.inf))


def _op(options: argparse.Namespace) -> int:
    c_out = options.c_out or (options.shape[1] if len(options.shape) > 1 else 0)
    channels = str(options.shape[1]) if c_out == options.shape[1] else f"{options.shape[1]}-{c_out}"
    name = f"{channels}@{'x'.join(str(n) for n in options.shape[2:])}"
    cases = [
        Case(name, options.shape, c_out, options.dtype, options.layout, stride, options.dilation)
        for stride in options.stride
    ]
    _peers(options)  # an unknown name is an error before anything is measured
    document = _begin(options)
    _run(options, document, [[case.small() if options.quick else case for case in cases]], options.op)
    return _end(options, document)


def _layers(options: argparse.Namespace) -> int:
    _peers(options)
    document = _begin(options)
    layers = [[case.small() if options.quick else case] for case in networks()]
    _run(options, document, layers, ["forward", "backward_data", "backward_weight"])
    return _end(options, document)


def _figure1(options: argparse.Namespace) -> int:
    if not installed("torch"):
        raise ValueError("figure1 compares with torch's dense convolution: pip install 'leancore[bench]'")
    names = [peer.name for peer in _peers(options)]
    if "dense" not in names:
        raise ValueError("figure1 is relative to the peer dense: name it among --peers")
    document = _begin(options)
    cases = [_fitting(case, names, options) for case in figure1(options.batch or FIGURE1_BATCH)]
    document["caption"] = _caption(cases, document)
    _run(options, document, [[case] for case in cases], [operation for operation, _ in report.FIGURE1_PANELS])
    report.figure1_tables(document, markdown=options.markdown)
    _plot(document, options.plot)
    return _end(options, document)


def _fitting(case: Case, peers: Sequence[str], options: argparse.Namespace) -> Case:
    """The case on as many images as fit in memory, by halves; what the user asked for is left as it is."""
    if options.batch:
        return case
    if options.quick:
        return case.small()
    # The most that a run holds, in units of x (84 were measured with the expanded peers): inputs and outputs in two
    # layouts, for the check as well, and the 6 times wider images inside and behind the expanded peers.
    units = 30 + 70 * any(name.startswith("expanded") for name in peers)
    image = math.prod(case.shape[1:]) * ITEM_SIZES[case.dtype]
    batch = case.batch
    while batch > 1 and batch * image * units > 0.9 * DEVICES[options.device].free_memory():
        batch //= 2
    return case.with_batch(batch)


def _caption(cases: Sequence[Case], document: dict[str, Any]) -> str:
    by_batch: dict[int, list[str]] = {}
    for case in cases:
        by_batch.setdefault(case.batch, []).append(case.name)
    batches = "; ".join(f"{batch} for {', '.join(names)}" for batch, names in by_batch.items())
    facts = document["machine"]
    batch = f"Batch {cases[0].batch}" if len(by_batch) == 1 else f"Batch {batches}"
    where = facts.get("device", f"{facts['processor']}, {facts['threads']} threads")
    return f"{batch}; float32; {where}; torch {facts['versions']['torch']}; medians of interleaved rounds."


def _plot(document: dict[str, Any], path: Path) -> None:
    if not installed("matplotlib"):
        print(f"{path} is not drawn: matplotlib is not installed", file=sys.stderr)
        return
    report.figure1_plot(document, path)
    print(f"drawn in {path}", file=sys.stderr)


def _bars(options: argparse.Namespace) -> int:
    if options.device != "cpu":
        raise ValueError("bars are those of the CPU kernels: leave --device out")
    document, bench = _begin(options), Bench(_settings(options))
    document["bars"] = []
    table = bars.table(markdown=options.markdown)
    steps = bars.steps(quick=options.quick, compiled=options.compile)
    with report.progress(len(steps)) as begin:
        for name, step in steps:
            rows, judged = step(bench, begin(name))
            _add(document, None, rows)
            for bar in judged:
                document["bars"].append(bar.record())
                bars.add(table, document["bars"][-1])
    _summary(document)
    return _end(options, document)


def _summary(document: dict[str, Any]) -> None:
    verdicts = [record["met"] for record in document["bars"]]
    print(f"\n{verdicts.count(True)} met, {verdicts.count(False)} not met, {verdicts.count(None)} not measured")


def _show(options: argparse.Namespace) -> int:
    document = report.load(options.file)
    report.heading(document, markdown=options.markdown)
    if document["limits"]:
        report.limits_table(document["limits"], markdown=options.markdown)
    if "bars" in document:
        table = bars.table(markdown=options.markdown)
        for record in document["bars"]:
            bars.add(table, record)
        _summary(document)
    elif document["results"]:
        table = report.result_table(markdown=options.markdown)
        for record in document["results"]:
            report.add_result(table, record)
    if "caption" in document:
        report.figure1_tables(document, markdown=options.markdown)
        if options.plot:
            _plot(document, options.plot)
    elif options.plot:
        raise ValueError(f"--plot: {options.file} does not hold Figure 1")
    return 0
