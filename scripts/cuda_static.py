"""What can be seen of the CUDA kernels without a GPU; run by check_cuda_static.sh, which see.

Registers and spills are ptxas's own report. The instructions are those of the kernel's main loop, as nvdisasm shows
them: the smallest loop with the most multiplications and a barrier, and so one row-block of a row-marching kernel.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import pathlib
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
LOOPS = (80, 86, 89, 90)  # whose main loops are counted; elsewhere ptxas arranges them otherwise, and 75 has no TF32
REGISTERS = pathlib.Path("cuda/registers.txt")
INSTRUCTIONS = pathlib.Path("cuda/instructions.txt")
REGISTER_SLACK = 8  # another release of nvcc may need a few more registers,
INSTRUCTION_SLACK = 1.1  # and other instructions
FLAGS = ("-std=c++20", "-O3", "-Icuda", "-Icpp/src", "-Icpp/include", '-DLEANCORE_CUDA_ARCHITECTURES=""')


# ---- what the tiles promise ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Loop:
    """Of one thread or warp, in one turn of the main loop of a tile whose copies are of 16 bytes."""

    products: int  # multiply-adds of the kind that the kernel is made of
    outputs: float  # elements of the result of each lane (products of x and dy, in backward_weight)
    # Instructions that move 16 bytes (or as said) for each lane, copy: from global to shared; FFMA beside products.
    moves: dict[str, int]
    inner: int = 0  # loops within that only strips of wide images enter
    planes: dict[str, int] = dataclasses.field(default_factory=dict)  # for taps to other planes: as moves, or products
    turns: Callable[[int], int] = lambda products: 1  # of a rolled loop within, from its products

    def of_volumes(self) -> Loop:
        moves = collections.Counter(self.moves) + collections.Counter(self.planes)
        return dataclasses.replace(self, products=self.products + moves.pop("products", 0), moves=moves)


def rows_fma(channels: int, outputs: int, teams: int, lanes: int, ahead: int) -> Loop:
    pixels = 4
    return Loop(
        products=channels * outputs * pixels + outputs * pixels * 4,
        outputs=outputs * pixels,
        moves={"copy": channels // teams, "STG.128": outputs},
        inner=1,
        planes={"LDG.128": outputs * 2, "products": outputs * pixels * 2},
        turns=lambda products: channels * outputs * pixels // products,
    )


def rows_tensor(k_blocks: int, m_tiles: int, warps_out: int, warps_across: int, pixels: int, ahead: int) -> Loop:
    groups = pixels // (64 * warps_across)
    return Loop(
        products=groups * m_tiles * 8 * (k_blocks + 4),
        outputs=groups * m_tiles * 16 * 64 / 32,
        moves={
            "copy": k_blocks * pixels // (16 * warps_out * warps_across),
            "LDS.128": groups * 4 * (k_blocks + 2 * m_tiles),
            "STG.128": groups * m_tiles * 4,
        },
        inner=1,
        planes={"LDG.128": groups * m_tiles * 8, "FFMA": groups * m_tiles * 64},
    )


def rows_last(k_blocks: int, n_blocks: int, warps_across: int, warps_out: int, pixels: int, ahead: int) -> Loop:
    groups = pixels // (16 * warps_across)
    return Loop(
        products=groups * n_blocks * 2 * (k_blocks + 4),
        outputs=groups * n_blocks * 16 * 16 / 32,
        moves={
            "copy": k_blocks * pixels // (16 * warps_out * warps_across) + 1,  # and one beside a strip
            "LDSM": groups * (k_blocks + 4 * n_blocks),
            "STG.64": groups * n_blocks * 2,
        },
        planes={"LDG.64": groups * n_blocks * 4, "FFMA": groups * n_blocks * 16},
    )


def rows_weight(
    m_tiles: int, n_tiles: int, warps_o: int, warps_i: int, warps_across: int, pixels: int, ahead: int
) -> Loop:
    groups, channels = pixels // (64 * warps_across), 16 * m_tiles * warps_o
    stencil_groups = -(-channels // 8 // (warps_o * warps_i))
    return Loop(
        products=groups * (4 * m_tiles * n_tiles + 8 * stencil_groups),
        outputs=channels * pixels / (32 * warps_o * warps_i * warps_across),
        moves={
            "copy": 2 * channels * pixels // (256 * warps_o * warps_i * warps_across),
            "LDSM": groups * 4 * (m_tiles + n_tiles // 2),
            "LDS.128": groups * stencil_groups * 8,
        },
        inner=1,
        planes={"LDG.128": groups * stencil_groups * 4, "products": groups * stencil_groups * 4},
    )


def rows_tf32(
    products: int, k_blocks: int, m_tiles: int, warps_out: int, warps_across: int, pixels: int, ahead: int
) -> Loop:
    groups = pixels // (32 * warps_across)
    return Loop(
        products=groups * m_tiles * 4 * k_blocks * products,
        outputs=groups * m_tiles * 16 * 32 / 32,
        moves={
            "copy": k_blocks * pixels // (16 * warps_out * warps_across),
            "LDS.128": groups * (2 * k_blocks + 16 * m_tiles),
            "STG.128": groups * m_tiles * 4,
            "FFMA": groups * m_tiles * 64,
        },
        inner=1,
        planes={"LDG.128": groups * m_tiles * 8, "FFMA": groups * m_tiles * 32},
    )


def rows_last_tf32(
    products: int, k_blocks: int, n_blocks: int, warps_across: int, warps_out: int, pixels: int, ahead: int
) -> Loop:
    groups = pixels // (16 * warps_across)
    return Loop(
        products=groups * n_blocks * 2 * k_blocks * products,
        outputs=groups * n_blocks * 16 * 16 / 32,
        moves={
            "copy": k_blocks * pixels // (16 * warps_out * warps_across) + 1,
            "LDSM": groups * k_blocks,
            "LDS.128": groups * n_blocks * 16,
            "STG.128": groups * n_blocks * 2,
            "FFMA": groups * n_blocks * 32,
        },
        # LDS: of taps, those of four channels
        planes={"LDG.128": groups * n_blocks * 4, "LDS.128": groups * n_blocks * 4, "FFMA": groups * n_blocks * 16},
    )


def rows_weight_last(
    m_tiles: int, n_tiles: int, warps_o: int, warps_i: int, warps_across: int, pixels: int, ahead: int
) -> Loop:
    groups, channels = pixels // (16 * warps_across), 16 * m_tiles * warps_o
    stencil_groups = -(-channels // 8 // (warps_o * warps_i))
    pieces = channels * pixels // (256 * warps_o * warps_i * warps_across)  # of 8 channels of a pixel
    return Loop(
        products=groups * (m_tiles * n_tiles + 2 * stencil_groups),
        outputs=channels * pixels / (32 * warps_o * warps_i * warps_across),
        moves={
            "copy": 2 * pieces + 1,
            "LDSM": groups * (m_tiles + n_tiles // 2 + 3 * stencil_groups),
        },
        planes={"LDG.128": pieces * 2, "LDS.128": pieces, "FFMA": pieces * 16},
    )


def rows_weight_fma(outputs: int, inputs: int, teams: int, pixels: int, ahead: int) -> Loop:
    pieces = pixels // 4 // teams
    return Loop(
        products=pieces * (4 * outputs * inputs + 16),
        outputs=pixels / teams,
        moves={"copy": 2 * pieces, "LDS.128": pieces * (outputs + inputs + 4)},
        inner=1,
        planes={"LDG.128": pieces * 2, "products": pieces * 8},
        turns=lambda products: pieces,
    )


def rows_weight_fma_last(outputs: int, inputs: int, teams: int, pixels: int, ahead: int) -> Loop:
    pieces = pixels // 4 // teams
    return Loop(
        products=pieces * (4 * outputs * inputs + 16),
        outputs=pixels / teams,
        moves={"copy": 2 * pieces + 1, "LDS.128": pieces * (outputs + inputs + 5)},
        planes={"LDG.128": pieces * 2, "products": pieces * 8},
        turns=lambda products: pieces,
    )


def deep(m_tiles: int, warps_out: int, warps_across: int, stages: int) -> Loop:
    """A turn is 32 input channels; half of the tiles may meet their own in each 16 of them, and take their stencil."""
    return Loop(products=m_tiles * (16 + 32), outputs=m_tiles * 16 * 64 / 32, moves={}, inner=3)


def deep_tf32(products: int, m_tiles: int, warps_out: int, warps_across: int, stages: int) -> Loop:
    """A turn is 16 input channels; the stencil is not a product."""
    return Loop(products=m_tiles * 16 * products, outputs=m_tiles * 16 * 64 / 32, moves={}, inner=3)


# By the macro of kernels.def: its kernels, the struct of the tile, the instruction that multiplies.
KINDS: dict[str, tuple[dict[str, Callable[..., Loop]], str, str]] = {
    "LEANCORE_ROWS_FMA": ({"rows_fma": rows_fma}, "FmaTile", "FFMA"),
    "LEANCORE_ROWS_TF32": ({"rows_tf32": rows_tf32}, "Tf32Tile", "HMMA"),
    "LEANCORE_ROWS_TENSOR": ({"rows_tensor": rows_tensor}, "TensorTile", "HMMA"),
    "LEANCORE_ROWS_LAST": ({"rows_last": rows_last}, "LastTile", "HMMA"),
    "LEANCORE_ROWS_LAST_TF32": ({"rows_last_tf32": rows_last_tf32}, "LastTf32Tile", "HMMA"),
    "LEANCORE_DEEP": ({"deep_rows": deep, "deep_last": deep}, "DeepTile", "HMMA"),
    "LEANCORE_DEEP_TF32": ({"deep_rows_tf32": deep_tf32, "deep_last_tf32": deep_tf32}, "DeepTf32Tile", "HMMA"),
    "LEANCORE_ROWS_WEIGHT": ({"rows_weight": rows_weight}, "WeightTile", "HMMA"),
    "LEANCORE_ROWS_WEIGHT_LAST": ({"rows_weight_last": rows_weight_last}, "WeightLastTile", "HMMA"),
    "LEANCORE_ROWS_WEIGHT_FMA": ({"rows_weight_fma": rows_weight_fma}, "WeightFmaTile", "FFMA"),
    "LEANCORE_ROWS_WEIGHT_FMA_LAST": ({"rows_weight_fma_last": rows_weight_fma_last}, "WeightFmaLastTile", "FFMA"),
}


@dataclasses.dataclass
class Tile:
    name: str
    loop: Loop
    multiply: str


def in_volumes(struct: str, *values: int) -> tuple[int, ...]:
    """The tile that volumes have instead, as InVolumes of tiles.hpp says."""
    if struct != "TensorTile":
        return values
    k_blocks, m_tiles, warps_out, *others = values
    return (k_blocks, 1, m_tiles * warps_out, *others)


def read_tiles(problems: list[str]) -> dict[str, Tile]:
    """By kernel and tile as the demangler writes them: `rows_fma FmaTile<16, 8, 2, 64, 1>`."""
    tiles = {}
    text = pathlib.Path("cuda/kernels.def").read_text()
    for macro, name, numbers in re.findall(r"^(LEANCORE_\w+)\((\w+), ([\d, ]+)\)", text, re.MULTILINE):
        if macro not in KINDS:
            problems.append(f"{name}: what a main loop of {macro} has is not among KINDS of scripts/cuda_static.py")
            continue
        kernels, struct, multiply = KINDS[macro]
        for kernel, loop_of in kernels.items():
            values = tuple(int(number) for number in numbers.split(", "))
            tiles[f"{kernel} {struct}<{numbers}>"] = Tile(name, loop_of(*values), multiply)
            values = in_volumes(struct, *values)
            loop = loop_of(*values)
            if loop.planes:
                key = f"{kernel} Volume<{struct}<{', '.join(map(str, values))}>>"
                tiles[key] = Tile(f"{name}, 3-D", loop.of_volumes(), multiply)
    return tiles


# ---- what the compiler made ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Kernel:
    name: str  # demangled, without parameters
    architecture: int
    registers: int
    spilled: int  # bytes
    code: list[str] = dataclasses.field(default_factory=list)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)  # to indices into the code

    @property
    def tile(self) -> str:
        """Its key in read_tiles()."""
        found = re.search(r"^(\w+)<(?:\w+, )?(Volume<\w+<[\d, ]+>>|\w+<[\d, ]+>)", self.name)
        return f"{found[1]} {found[2]}" if found else ""

    @property
    def copies(self) -> int:
        """Bytes at once, of the kernels that have this parameter."""
        found = re.search(r">, (\d+)>$", self.name)
        return int(found[1]) if found else 16

    def target(self, index: int) -> int | None:
        """Where an instruction branches to."""
        branch = re.search(r"\bBRA\b.*`\(([^)]+)\)", self.code[index])
        return self.labels[branch[1]] if branch else None

    def loops(self) -> list[tuple[int, int]]:
        """First and last instruction of each, outer ones first."""
        found = set()
        for last in range(len(self.code)):
            if (target := self.target(last)) is not None and target < last:
                found.add((target, last))
        return sorted(found, key=lambda loop: (loop[0], -loop[1]))


def opcode(text: str) -> str:
    return re.sub(r"^@!?\w+\s+", "", text).split()[0]


def count(code: Iterable[str], kind: str) -> int:
    return sum(opcode(text).split(".")[0] == kind for text in code)


def shorten(demangled: str) -> str:
    name = demangled.replace("leancore::detail::cuda::", "").removeprefix("void ").replace("> >", ">>")
    return re.sub(r"\((leancore|\w+Parameters).*|\(.*\)$", "", name)


def run(*command: str | pathlib.Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done


def disassembler() -> pathlib.Path:
    wheel = pathlib.Path(sysconfig.get_path("purelib")) / "nvidia/cu13/bin/nvdisasm"
    return wheel if wheel.exists() else pathlib.Path("nvdisasm")


def compile_kernels(nvcc: str, source: pathlib.Path, architectures: Iterable[int]) -> list[Kernel]:
    """From 8.0 on one PTX serves all, as in a build (cmake/cuda.cmake)."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for architecture in architectures:
            written = pathlib.Path(folder) / f"{min(architecture, 80)}.ptx"
            if not written.exists():
                run(nvcc, *FLAGS, "-ptx", f"-arch=compute_{written.stem}", source, "-o", written)
            kernels = assemble_kernels(nvcc, written, architecture)
            print(f"{source.name} for {architecture}: {len(kernels)} kernels", file=sys.stderr)
            found += kernels
    return found


def assemble_kernels(nvcc: str, ptx: pathlib.Path, architecture: int) -> list[Kernel]:
    cubin = ptx.with_suffix(".cubin")
    log = run(nvcc, "-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v", ptx, "-o", cubin).stderr
    report = re.compile(
        r"Compiling entry function '(\w+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads.*?"
        r"Used (\d+) registers",
        re.DOTALL,
    )
    found = report.findall(log)
    if not found:
        return []
    symbols = [symbol for symbol, *_ in found]
    names = map(shorten, run("c++filt", text="\n".join(symbols)).stdout.splitlines())
    kernels = {
        symbol: Kernel(name, architecture, int(registers), int(stores) + int(loads))
        for (symbol, stores, loads, registers), name in zip(found, names, strict=True)
    }
    read_code(run(disassembler(), "-c", cubin).stdout, kernels)
    return list(kernels.values())


def read_code(listing: str, kernels: dict[str, Kernel]) -> None:
    kernel = None
    for line in listing.splitlines():
        if section := re.match(r"\.text\.(\w+):|\s+\.section\b", line):
            kernel = kernels.get(section[1]) if section[1] else None
        elif kernel is None:
            continue
        elif label := re.match(r"\s*(\.L[\w.]+):", line):
            kernel.labels[label[1]] = len(kernel.code)
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.+?)\s*;", line):
            kernel.code.append(instruction[1])


# ---- the checks ------------------------------------------------------------------------------------------------------


class Problems(list[str]):
    def expect(self, kernel: Kernel, what: str, got: float, expected: float) -> None:
        if got != expected:
            self.append(f"{kernel.name} on {kernel.architecture}: {what} {got}, expected {expected}")


def executed(kernel: Kernel, first: int, weights: list[int]) -> collections.Counter[str]:
    """How many instructions of each kind a turn of a loop executes, at most over the ways through its branches.

    weights: for each instruction from `first` on, how often it comes, if its branch is taken.
    """
    # From each instruction on; backwards, with an empty rest behind the last.
    rest = {first + len(weights): collections.Counter[str]()}
    for index in range(first + len(weights) - 1, first - 1, -1):
        text, after = kernel.code[index], rest[index + 1]
        if (target := kernel.target(index)) is not None and target > index:
            there = rest.get(target, collections.Counter())
            after = there if text.startswith("BRA `") else after | there
        kind, *modifiers = opcode(text).split(".")
        if kind not in ("HMMA", "FFMA", "LDSM"):
            kind += "." + next((modifier for modifier in modifiers if modifier in ("64", "128")), "32")
        never = text.startswith("@!PT")
        rest[index] = after + collections.Counter({kind: 0 if never else weights[index - first]})
    return rest[first]


def check_loop(kernel: Kernel, tile: Tile, problems: Problems) -> float | None:
    """Lane-instructions for each output; None where the kernel only traps, as bf16 does before 8.0."""
    loops = kernel.loops()
    products = {loop: count(kernel.code[loop[0] : loop[1] + 1], tile.multiply) for loop in loops}
    most = max(products.values(), default=0)
    if most == 0:
        if not (kernel.architecture < 80 and "bfloat16" in kernel.name):
            problems.append(f"{kernel.name} on {kernel.architecture}: no loop with {tile.multiply}")
        return None
    whole = [loop for loop in loops if products[loop] == most and count(kernel.code[loop[0] : loop[1] + 1], "BAR")]
    first, last = min(whole, key=lambda loop: loop[1] - loop[0])

    # Each loop within either multiplies, a known number of turns, or is not run.
    weights = [1] * (last + 1 - first)
    idle = 0
    for inner in loops:
        if first <= inner[0] and inner[1] <= last and inner != (first, last):
            turns = tile.loop.turns(products[inner]) if products[inner] else 0
            idle += products[inner] == 0
            weights[inner[0] - first : inner[1] + 1 - first] = [turns] * (inner[1] + 1 - inner[0])
    made = executed(kernel, first, weights)
    # m16n8k8 before 8.0: two for each product of 16 x 8 x 16.
    halves = 2 if tile.multiply == "HMMA" and kernel.architecture < 80 else 1
    problems.expect(kernel, tile.multiply, made[tile.multiply], tile.loop.products * halves)
    if kernel.copies < 16:
        return None

    problems.expect(kernel, "inner loops", idle, tile.loop.inner)
    made["copy"] = made["LDGSTS.128" if kernel.architecture >= 80 else "LDG.128"]
    for kind, expected in tile.loop.moves.items():
        problems.expect(kernel, kind, made[kind], expected)
    return sum(weights) / tile.loop.outputs


def read_table(path: pathlib.Path, words: int) -> dict[str, list[str]]:
    """Rows by name; a row has `words` words, then the name."""
    if not path.exists():
        return {}
    lines = [line.split(maxsplit=words) for line in path.read_text().splitlines() if not line.startswith("#")]
    return {line[words]: line[:words] for line in lines}


def write_table(path: pathlib.Path, comment: str, columns: Iterable[object], rows: dict[str, list[str]]) -> None:
    lines = [f"# {line}" for line in comment.splitlines()]
    lines.append("#" + "".join(f"{column:>6}" for column in columns)[1:])
    lines += ["".join(f"{word:>6}" for word in words) + f"  {name}" for name, words in sorted(rows.items())]
    path.write_text("\n".join(lines) + "\n")


def check_registers(kernels: list[Kernel], update: bool, complete: bool, problems: Problems) -> None:
    rows = read_table(REGISTERS, len(ARCHITECTURES))
    if update and complete:
        names = {kernel.name for kernel in kernels}
        rows = {name: row for name, row in rows.items() if name in names}
    for kernel in kernels:
        column = ARCHITECTURES.index(kernel.architecture)
        if kernel.spilled:
            problems.append(f"{kernel.name} on {kernel.architecture}: spills {kernel.spilled} bytes")
        if local := count(kernel.code, "LDL") + count(kernel.code, "STL"):
            problems.append(f"{kernel.name} on {kernel.architecture}: {local} accesses to local memory")
        if update:
            rows.setdefault(kernel.name, ["-"] * len(ARCHITECTURES))[column] = str(kernel.registers)
            continue
        row = rows.get(kernel.name)
        if row is None or row[column] == "-":
            problems.append(f"{kernel.name} on {kernel.architecture}: not in {REGISTERS}; --update adds it")
        elif kernel.registers > int(row[column]) + REGISTER_SLACK:
            more = f"{kernel.registers} registers, noted {row[column]}"
            problems.append(f"{kernel.name} on {kernel.architecture}: {more}")
    if update:
        comment = "Registers of every kernel by compute capability. Written by scripts/check_cuda_static.sh --update."
        write_table(REGISTERS, comment, ARCHITECTURES, rows)


def check_instructions(kernels: list[Kernel], update: bool, complete: bool, problems: Problems) -> None:
    tiles = read_tiles(problems)
    rows = read_table(INSTRUCTIONS, 1 + len(ARCHITECTURES))
    names = {tile.name for tile in tiles.values()}
    if update:
        rows = {name: row for name, row in rows.items() if name in names}
    measured: dict[tuple[str, int], float] = {}
    seen = set()
    for kernel in kernels:
        if not kernel.tile or kernel.architecture not in LOOPS:
            continue
        if kernel.tile not in tiles:
            problems.append(f"{kernel.name}: not of a tile of cuda/kernels.def")
            continue
        tile = tiles[kernel.tile]
        seen.add(tile.name)
        share = check_loop(kernel, tile, problems)
        if share is not None:
            key = (tile.name, kernel.architecture)
            measured[key] = max(measured.get(key, 0), share)
    if complete and any(kernel.architecture in LOOPS for kernel in kernels):
        problems += [f"{name}: a row of cuda/kernels.def, but no kernel" for name in sorted(names - seen)]
    for (name, architecture), share in sorted(measured.items()):
        column = 1 + ARCHITECTURES.index(architecture)
        row = rows.get(name, ["-"] * (1 + len(ARCHITECTURES)))
        if update:
            row[column] = f"{share:.1f}"
            rows[name] = row
        elif row[column] == "-":
            problems.append(f"{name} on {architecture}: not in {INSTRUCTIONS}; --update adds it")
        elif share > INSTRUCTION_SLACK * float(row[column]):
            problems.append(f"{name} on {architecture}: {share:.1f} lane-instructions, noted {row[column]}")
        if architecture == 80 and row[0] != "-" and share > float(row[0]):
            problems.append(f"{name} on 80: {share:.1f} lane-instructions for each output, allowed {row[0]}")
    if update:
        comment = (
            "Lane-instructions of the main loop for each output, of tiles with copies of 16 bytes (the most of the\n"
            "types), by compute capability; a warp's instruction is 32. Written by scripts/check_cuda_static.sh\n"
            "--update, but for the first column: what is allowed on 8.0, set by hand."
        )
        write_table(INSTRUCTIONS, comment, ("max", *ARCHITECTURES), rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="check_cuda_static.sh", description=__doc__)
    parser.add_argument("architectures", nargs="*", type=int, metavar="ARCHITECTURE")
    parser.add_argument("--only", default="", help="sources whose names contain this")
    parser.add_argument("--update", action="store_true", help="write what was found into the tables")
    parser.add_argument("--jobs", type=int, default=2, help="compilations at once")
    parser.add_argument("--nvcc", default="nvcc")
    options = parser.parse_args()
    architectures = options.architectures or ARCHITECTURES
    if unknown := set(architectures) - set(ARCHITECTURES):
        parser.error(f"{sorted(unknown)} are not among {ARCHITECTURES}")
    sources = sorted(path for path in pathlib.Path("cuda").glob("*.cu") if options.only in path.name)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        jobs = [pool.submit(compile_kernels, options.nvcc, source, architectures) for source in sources]
        kernels = [kernel for job in jobs for kernel in job.result()]
    complete = options.only == ""
    problems = Problems()
    check_registers(kernels, options.update, complete, problems)
    check_instructions(kernels, options.update, complete, problems)
    print("\n".join(problems))
    print(f"{len({kernel.name for kernel in kernels})} kernels, {len(kernels)} compilations, {len(problems)} problems")
    sys.exit(1 if problems or not kernels else 0)


if __name__ == "__main__":
    main()
