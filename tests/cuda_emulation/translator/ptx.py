"""Reads PTX, as nvcc emits it, into functions, variables and statements. Whatever it does not know is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field


class PtxError(Exception):
    """PTX that the emulation does not know, with where it stands."""


@dataclass(frozen=True)
class Location:
    """A line of the source; for inlined code also the line that it was inlined at."""

    file: str
    line: int
    inlined_at: tuple[str, int] | None = None

    def __str__(self) -> str:
        own = f"{self.file}:{self.line}"
        return own if self.inlined_at is None else f"{own} (inlined at {self.inlined_at[0]}:{self.inlined_at[1]})"


NOWHERE = Location("(unknown)", 0)


@dataclass(frozen=True)
class Instruction:
    opcode: str
    operands: list[str]
    predicate: str  # "", "%p1" or "!%p1"
    location: Location

    def __str__(self) -> str:
        return f"{self.opcode} {', '.join(self.operands)}"


@dataclass(frozen=True)
class Label:
    name: str


@dataclass(frozen=True)
class BranchTargets:
    """The list of labels that brx.idx chooses from."""

    name: str
    labels: list[str]


@dataclass(frozen=True)
class Registers:
    type: str
    names: list[str]


@dataclass(frozen=True)
class Variable:
    """A variable or parameter; count is None for the array of dynamic size."""

    space: str
    type: str
    name: str
    align: int
    count: int | None = 1
    initial: list[str] | None = None

    @property
    def bytes(self) -> int:
        return SIZE[self.type] * (self.count or 0)


@dataclass(frozen=True)
class OpenScope:
    pass


@dataclass(frozen=True)
class CloseScope:
    pass


Statement = Instruction | Label | BranchTargets | Registers | Variable | OpenScope | CloseScope


@dataclass(frozen=True)
class Function:
    name: str
    is_entry: bool
    results: list[Variable]
    parameters: list[Variable]
    max_threads: int  # 0: not limited
    body: list[Statement]


@dataclass
class Module:
    target: int = 0  # 80 for sm_80
    variables: list[Variable] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)


SIZE = {"pred": 1, "f16": 2, "bf16": 2, "f16x2": 4, "bf16x2": 4, "f32": 4, "f64": 8}
SIZE |= {f"{kind}{bits}": bits // 8 for kind in "bus" for bits in (8, 16, 32, 64)}


def split_operands(text: str) -> list[str]:
    """Splits at the commas that stand outside of any brackets."""
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        if character in "{[(":
            depth += 1
        elif character in "}])":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


_VARIABLE = re.compile(
    r"\.(?P<space>shared|global|const|local|param)\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+"
    r"(?:\.ptr\s+(?:\.(?:global|shared|const|local)\s+)?(?:\.align\s+\d+\s+)?)?"
    r"(?P<name>[\w$]+)(?P<array>\s*\[\s*(?P<count>\d*)\s*\])?(?:\s*=\s*(?P<initial>.+))?",
    re.S,
)


def _variable(text: str) -> Variable:
    match = _VARIABLE.fullmatch(text)
    if match is None or match["type"] not in SIZE:
        raise PtxError(f"unknown declaration: {text}")
    count: int | None = 1
    if match["array"]:
        count = int(match["count"]) if match["count"] else None
    initial = match["initial"]
    values = None if initial is None else split_operands(initial.strip().strip("{}"))
    align = int(match["align"] or SIZE[match["type"]])
    return Variable(match["space"], match["type"], match["name"], align, count, values)


def _registers(text: str) -> Registers:
    match = re.fullmatch(r"\.reg\s+\.(\w+)\s+(.+)", text, re.S)
    if match is None or match[1] not in SIZE:
        raise PtxError(f"unknown declaration: {text}")
    names = []
    for name in split_operands(match[2]):
        numbered = re.fullmatch(r"(.+)<(\d+)>", name)
        names += [f"{numbered[1]}{i}" for i in range(int(numbered[2]))] if numbered else [name]
    return Registers(match[1], names)


# One statement: a line number, a brace of a scope, a label or anything up to a semicolon (vectors have braces inside).
_STATEMENT = re.compile(r"\s*(?:(?P<loc>\.loc\s[^\n]*)|(?P<brace>[{}])|(?P<label>[\w$]+):|(?P<rest>[^;]*);)")
_LOC = re.compile(
    r"\.loc\s+(\d+)\s+(\d+)\s+\d+(?:\s*,\s*function_name\s+[\w$+]+\s*,\s*inlined_at\s+(\d+)\s+(\d+)\s+\d+)?\s*"
)
_INSTRUCTION = re.compile(r"(?:@(?P<predicate>!?%?[\w$]+)\s+)?(?P<opcode>[a-zA-Z][\w.:]*)\s*(?P<operands>.*)", re.S)


def _body(text: str, files: dict[int, str]) -> Iterator[Statement]:
    location, label, position, text = NOWHERE, "", 0, text.rstrip()
    while position < len(text):
        match = _STATEMENT.match(text, position)
        if match is None:
            raise PtxError(f"cannot read: {text[position : position + 80].strip()}")
        position = match.end()
        if match["loc"]:
            location = _location(match["loc"].strip(), files, location)
        elif match["brace"]:
            yield OpenScope() if match["brace"] == "{" else CloseScope()
        elif match["label"]:
            label = match["label"]
            yield Label(label)
        elif statement := match["rest"].strip():
            yield from _statement(statement, label, location)


def _location(text: str, files: dict[int, str], previous: Location) -> Location:
    match = _LOC.fullmatch(text)
    if match is None:
        raise PtxError(f"unknown directive: {text}")
    if int(match[2]) == 0:  # what the compiler made belongs to the line before it
        return previous
    inlined_at = (files[int(match[3])], int(match[4])) if match[3] else None
    return Location(files[int(match[1])], int(match[2]), inlined_at)


def _statement(text: str, label: str, location: Location) -> Iterator[Statement]:
    if text.startswith(".pragma"):  # hints about unrolling
        return
    if text.startswith(".reg"):
        yield _registers(text)
    elif text.startswith(".branchtargets"):
        yield BranchTargets(label, split_operands(text.removeprefix(".branchtargets")))
    elif text.startswith("."):
        yield _variable(text)
    else:
        match = _INSTRUCTION.fullmatch(text)
        if match is None:
            raise PtxError(f"cannot read: {text}")
        yield Instruction(match["opcode"], split_operands(match["operands"]), match["predicate"] or "", location)


def _closing_brace(text: str, opening: int) -> int:
    depth = 0
    for match in re.compile(r"[{}]").finditer(text, opening):
        depth += 1 if match[0] == "{" else -1
        if depth == 0:
            return match.start()
    raise PtxError("a brace is not closed")


_LINKAGE = r"(?:\.(?:visible|weak|extern|common)\s+)*"
_FUNCTION = re.compile(
    rf"\s*{_LINKAGE}\.(?P<kind>entry|func)\s*(?:\((?P<results>[^)]*)\)\s*)?(?P<name>[\w$]+)\s*"
    r"(?:\((?P<parameters>[^)]*)\))?(?P<directives>[^{;]*)(?P<end>[{;])"
)
_DIRECTIVE = re.compile(r"\s*\.(?:version\s+[\d.]+|address_size\s+64|target\s+sm_(?P<target>\d+)[^\n]*)")
_MODULE_VARIABLE = re.compile(rf"\s*{_LINKAGE}(?P<text>\.(?:shared|global|const)\s[^;]+);")
_LIMIT = re.compile(
    r"\.(?:maxntid\s+(?P<threads>[\d,\s]+)|minnctapersm\s+\d+|noreturn|reqntid\s+(?P<exact>[\d,\s]+))\s*"
)


def _max_threads(directives: str) -> int:
    limit, position, text = 0, 0, directives.strip()
    while position < len(text):
        match = _LIMIT.match(text, position)
        if match is None:
            raise PtxError(f"unknown directive: {text[position:]}")
        if numbers := match["threads"] or match["exact"]:
            limit = 1
            for number in numbers.split(","):
                limit *= int(number)
        position = match.end()
    return limit


def parse(text: str) -> Module:
    """The module that PTX text describes."""
    files = {int(m[1]): m[2].rsplit("/", 1)[-1] for m in re.finditer(r'\.file\s+(\d+)\s+"([^"]+)"', text)}
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.S)
    text = re.sub(r"\.section\s.*", "", text, flags=re.S)  # debug information: the last part of the text
    text = re.sub(r"\.file\s[^\n]*", "", text)
    module, position, text = Module(), 0, text.rstrip()
    while position < len(text):
        if match := _DIRECTIVE.match(text, position):
            module.target = int(match["target"] or module.target)
        elif match := _MODULE_VARIABLE.match(text, position):
            module.variables.append(_variable(match["text"].strip()))
        elif match := _FUNCTION.match(text, position):
            if match["end"] == "{":
                closing = _closing_brace(text, match.end() - 1)
                module.functions.append(_function(match, text[match.end() : closing], files))
                position = closing + 1
                continue
        else:
            raise PtxError(f"cannot read: {text[position : position + 80].strip()}")
        position = match.end()
    return module


def _function(match: re.Match[str], body: str, files: dict[int, str]) -> Function:
    results, parameters = (
        [_variable(text) for text in split_operands(match[part] or "")] for part in ("results", "parameters")
    )
    threads = _max_threads(match["directives"])
    return Function(match["name"], match["kind"] == "entry", results, parameters, threads, list(_body(body, files)))
