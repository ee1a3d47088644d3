"""Writes one function of PTX as a C++ function: its registers, its operands and its control flow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from . import ptx
from .ptx import SIZE, PtxError

# The type in C++ of a value of a PTX type. Registers of integers are kept unsigned, halves as their bits.
CPP = {"pred": "bool", "f32": "f32", "f64": "f64", "f16": "u16", "bf16": "u16", "f16x2": "u32", "bf16x2": "u32"}
CPP |= {f"b{bits}": f"u{bits}" for bits in (8, 16, 32, 64)}
CPP |= {f"{sign}{bits}": f"{sign}{bits}" for sign in "us" for bits in (8, 16, 32, 64)}

SPECIAL = {
    "%laneid": "t.lane",
    "%lanemask_eq": "(1u << t.lane)",
    "%lanemask_lt": "((1u << t.lane) - 1)",
    "%lanemask_le": "((2u << t.lane) - 1)",
    "%lanemask_gt": "~((2u << t.lane) - 1)",
    "%lanemask_ge": "~((1u << t.lane) - 1)",
    "WARP_SZ": "32u",
    "%dynamic_smem_size": "t.block->dynamic_bytes()",
}
for _axis in "xyz":
    SPECIAL[f"%tid.{_axis}"] = f"t.index.{_axis}"
    SPECIAL[f"%ntid.{_axis}"] = f"t.block->shape().{_axis}"
    SPECIAL[f"%ctaid.{_axis}"] = f"t.block->index().{_axis}"
    SPECIAL[f"%nctaid.{_axis}"] = f"t.block->grid().{_axis}"

_HOLE = 128  # bytes that belong to nobody between arrays in shared memory; a multiple keeps every bank


_LITERAL = re.compile(
    r"0[fF](?P<f32>[0-9A-Fa-f]{8})|0[dD](?P<f64>[0-9A-Fa-f]{16})|(?P<integer>-?(?:0[xX][0-9A-Fa-f]+|\d+))U?"
)


def literal(text: str, type_: str) -> str:
    """The C++ expression of a constant as a value of a PTX type."""
    match = _LITERAL.fullmatch(text)
    if match is None:
        raise PtxError(f"unknown constant {text}")
    if bits := match["f32"] or match["f64"]:
        real = "f32" if match["f32"] else "f64"
        return convert(f"0x{bits}{'u' if real == 'f32' else 'ull'}", real.replace("f", "u"), CPP[type_])
    number = int(match["integer"], 0)
    if type_ == "pred":
        return "true" if number else "false"
    if type_ in ("f32", "f64"):
        raise PtxError(f"integer {text} where a {type_} belongs")
    width = 8 * SIZE[type_]
    number &= (1 << width) - 1
    if type_.startswith("s"):
        return f"s{width}({number - (number >> (width - 1) << width)}ll)" if number != 1 << 63 else "s64(1ull << 63)"
    return f"{number}u" if width == 32 else f"u{width}({number}ull)"


def convert(expression: str, source: str, target: str) -> str:
    """A C++ value as one of another type: its bits if one of them is real, else cut off or extended by its sign."""
    if source == target:
        return expression
    if "f" not in source + target:
        return f"{target}({expression})"
    if source[1:] != target[1:]:
        raise PtxError(f"a {source} where a {target} belongs")
    return f"__builtin_bit_cast({target}, {expression})"


def _round_up(value: int, align: int) -> int:
    return (value + align - 1) // align * align


@dataclass
class SharedLayout:
    """Where a kernel's static arrays lie in shared memory, and where the dynamic one begins."""

    offsets: dict[str, int] = field(default_factory=dict)
    ranges: list[tuple[int, int]] = field(default_factory=list)  # (offset, bytes)
    dynamic_offset: int = 0
    bytes: int = 0  # without holes: what counts against the device's limit

    @staticmethod
    def of(variables: list[ptx.Variable]) -> SharedLayout:
        layout, end = SharedLayout(), 0
        for variable in variables:
            if variable.count is None:
                continue
            offset = _round_up(end, max(variable.align, 16))
            layout.offsets[variable.name] = offset
            layout.ranges.append((offset, variable.bytes))
            layout.bytes = _round_up(layout.bytes, variable.align) + variable.bytes
            end = offset + variable.bytes + _HOLE
        dynamic = [variable for variable in variables if variable.count is None]
        layout.dynamic_offset = _round_up(end, max([128, *(variable.align for variable in dynamic)]))
        layout.offsets |= {variable.name: layout.dynamic_offset for variable in dynamic}
        return layout


@dataclass(frozen=True)
class Register:
    name: str
    type: str


class FunctionWriter:
    """Holds what is known while the statements of a function are written; used by the rows of the instruction table."""

    def __init__(
        self, function: ptx.Function, module: ptx.Module, symbols: dict[str, str], sites: list[tuple[str, ...]]
    ):
        self.function = function
        self.symbols = symbols  # module variable -> C++ variable with its address
        self.sites = sites
        self.instruction = ptx.Instruction("", [], "", ptx.NOWHERE)
        self.functions = {f.name: f for f in module.functions if not f.is_entry}
        self.branch_targets = {s.name: s.labels for s in function.body if isinstance(s, ptx.BranchTargets)}
        self._scopes: list[dict[str, Register]] = [{}]
        self._parameters: dict[str, str] = {}  # parameter or .param buffer -> C++ expression of its address
        self._locals: dict[str, str] = {}
        self._labels_passed: set[str] = set()
        self._declarations: list[str] = []
        self._code: list[str] = []
        self._registers = self._buffers = 0
        self.shared = SharedLayout.of(self._shared_variables(module))
        if not function.is_entry and self.shared.offsets:
            raise PtxError(f"{function.name}: shared memory in a function that is not inlined")
        self.parameter_offsets = self._declare_parameters()

    # -- declarations

    def _shared_variables(self, module: ptx.Module) -> list[ptx.Variable]:
        own = [s for s in self.function.body if isinstance(s, ptx.Variable) and s.space == "shared"]
        used = {
            word
            for s in self.function.body
            if isinstance(s, ptx.Instruction)
            for operand in s.operands
            for word in re.findall(r"[\w$]+", operand)
        }
        return [v for v in module.variables if v.space == "shared" and v.name in used] + own

    def _declare_parameters(self) -> list[tuple[int, int]]:
        """Offsets and bytes of a kernel's parameters in its block of parameters."""
        if not self.function.is_entry:
            for i, variable in enumerate([*self.function.results, *self.function.parameters]):
                self._parameters[variable.name] = f"argument_{i}"
            return []
        offsets, end = [], 0
        for variable in self.function.parameters:
            offset = _round_up(end, max(variable.align, SIZE[variable.type]))
            self._parameters[variable.name] = f"(parameters + {offset})"
            offsets.append((offset, variable.bytes))
            end = offset + variable.bytes
        return offsets

    def _declare(self, statement: ptx.Registers) -> None:
        for name in statement.names:
            register = Register(f"r{self._registers}", statement.type)
            self._registers += 1
            self._scopes[-1][name] = register
            self._declarations.append(f"{self._storage(register)} {register.name}{{}};  // {name}")

    def _declare_variable(self, variable: ptx.Variable) -> None:
        if variable.space == "shared":
            return
        if variable.space not in ("local", "param") or variable.count is None or variable.initial:
            raise PtxError(f"unknown declaration of {variable.name} in {self.function.name}")
        name = f"buffer_{self._buffers}"
        self._buffers += 1
        if variable.space == "local":
            self._locals[variable.name] = name
        else:
            self._parameters[variable.name] = name
        self._declarations.append(f"alignas({max(variable.align, 16)}) unsigned char {name}[{variable.bytes}];")

    @staticmethod
    def _storage(register: Register) -> str:
        return re.sub(r"^s", "u", CPP[register.type])

    # -- operands

    def _find(self, operand: str) -> Register | None:
        return next((scope[operand] for scope in reversed(self._scopes) if operand in scope), None)

    def read(self, operand: str, type_: str) -> str:
        """The C++ expression of an operand as a value of a PTX type."""
        if operand.startswith("!"):
            return f"!{self.read(operand[1:], type_)}"
        cpp = CPP[type_]
        register = self._find(operand)
        if register is not None:
            if (register.type == "pred") != (type_ == "pred"):
                raise PtxError(f"{operand} is of type {register.type}, not {type_}")
            return convert(register.name, self._storage(register), cpp)
        if operand in SPECIAL:
            return convert(SPECIAL[operand], "u32", cpp)
        if _LITERAL.fullmatch(operand):
            return literal(operand, type_)
        return convert(self._symbol(operand), "u64", cpp)

    def _symbol(self, operand: str) -> str:
        """The address of a variable, with an offset or not."""
        match = re.fullmatch(r"([\w$]+)(?:\s*\+\s*(-?\d+))?", operand)
        if match is None:
            raise PtxError(f"unknown operand {operand}")
        name, offset = match[1], int(match[2] or 0)
        if name in self.shared.offsets:
            return f"u64({self.shared.offsets[name] + offset}ull)"
        for addresses in (self._locals, self._parameters):
            if name in addresses:
                return f"(reinterpret_cast<u64>({addresses[name]}) + u64({offset}ll))"
        if name in self.symbols:
            return f"({self.symbols[name]} + u64({offset}ll))"
        raise PtxError(f"unknown operand {operand}")

    def _target(self, operand: str, type_: str) -> Register:
        register = self._find(operand)
        if register is None or (register.type == "pred") != (type_ == "pred") or SIZE[register.type] < SIZE[type_]:
            raise PtxError(f"{operand} is no register for a {type_}")
        return register

    def write(self, operand: str, type_: str, expression: str) -> str:
        """The C++ statement that gives a register a value of a PTX type; wider registers extend it by its sign."""
        if operand == "_":
            return f"static_cast<void>({expression});"
        register = self._target(operand, type_)
        storage, value = self._storage(register), CPP[type_]
        if SIZE[register.type] == SIZE[type_] and "f" not in storage + value:
            return f"{register.name} = {expression};"
        if SIZE[register.type] > SIZE[type_]:
            expression = f"{value}({expression})"
        return f"{register.name} = {convert(expression, value, storage)};"

    def load(self, operand: str, type_: str, source: str) -> str:
        """The C++ statement that gives a register a value of a PTX type from memory."""
        if operand != "_" and SIZE[self._target(operand, type_).type] == SIZE[type_]:
            return f"__builtin_memcpy(&{self._target(operand, type_).name}, {source}, {SIZE[type_]});"
        return self.write(operand, type_, f"get<{CPP[type_]}>({source})")

    def store(self, target: str, operand: str, type_: str) -> str:
        """The C++ statement that puts an operand as a value of a PTX type into memory."""
        register = self._find(operand)
        if register is not None and SIZE[register.type] == SIZE[type_]:
            return f"__builtin_memcpy({target}, &{register.name}, {SIZE[type_]});"
        return f"put<{CPP[type_]}>({target}, {self.read(operand, type_)});"

    def address(self, operand: str) -> str:
        """The C++ expression, 64 bits, of the address in brackets."""
        match = re.fullmatch(r"\[\s*(%?[\w$]+)\s*(?:\+\s*(-?\d+)\s*)?\]", operand)
        if match is None:
            raise PtxError(f"unknown address {operand}")
        base = self.read(match[1], "u64")
        return f"({base} + u64({match[2]}ll))" if match[2] and match[2] != "0" else base

    def vector(self, operand: str) -> list[str]:
        return ptx.split_operands(operand[1:-1]) if operand.startswith("{") else [operand]

    def site(self) -> str:
        """The number by which the runtime names the line of the current instruction."""
        where = self.instruction.location
        inlined_at = where.inlined_at or ("", 0)
        self.sites.append((where.file, str(where.line), inlined_at[0], str(inlined_at[1]), self.instruction.opcode))
        return str(len(self.sites) - 1)

    def parameter_buffer(self, name: str) -> str:
        return self._parameters[name]

    # -- control flow

    @staticmethod
    def label(name: str) -> str:
        return "label_" + re.sub(r"\W", "_", name)

    def jump(self, name: str) -> str:
        """A goto; one that goes back counts the trip, by which statistics tell the turns of a loop apart."""
        back = "++t.trips; " if name in self._labels_passed else ""
        return f"{back}goto {self.label(name)};"

    # -- the whole

    def run(self, translate: Callable[[FunctionWriter], str]) -> list[str]:
        """The lines of the C++ function; `translate` gives the statements of the current instruction."""
        for statement in self.function.body:
            match statement:
                case ptx.OpenScope():
                    self._scopes.append({})
                case ptx.CloseScope():
                    self._scopes.pop()
                case ptx.Label(name):
                    self._labels_passed.add(name)
                    self._code.append(f"{self.label(name)}:;")
                case ptx.Registers():
                    self._declare(statement)
                case ptx.Variable():
                    self._declare_variable(statement)
                case ptx.Instruction():
                    self.instruction = statement
                    condition = f"if ({self.read(statement.predicate, 'pred')}) " if statement.predicate else ""
                    self._code.append(f"{condition}{{ {translate(self)} }}")
        return [f"  {line}" for line in [*self._declarations, *self._code]]
