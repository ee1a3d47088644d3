"""The instruction table: every form of PTX that the emulation knows, and the C++ that it becomes.

A row is a regular expression that must match an opcode with all its modifiers; an opcode that no row matches is an
error. The functions that rows call are in runtime/instructions.hpp."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .ptx import SIZE, PtxError
from .writer import CPP, FunctionWriter

Emit = Callable[[FunctionWriter, "re.Match[str]", list[str]], str]


@dataclass(frozen=True)
class Row:
    pattern: re.Pattern[str]
    emit: Emit


TABLE: list[Row] = []


def row(pattern: str) -> Callable[[Emit], Emit]:
    def add(emit: Emit) -> Emit:
        TABLE.append(Row(re.compile(pattern), emit))
        return emit

    return add


def compute(pattern: str, expression: str, result: str, *sources: str) -> None:
    """A row without side effects: result = expression of the sources {0}, {1}, ... Types and the expression may refer
    to groups of the pattern; {t} is the PTX type, {T} its C++ type."""

    def emit(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
        groups = {name: value or "" for name, value in m.groupdict().items()}
        groups |= {name.upper(): CPP[value] for name, value in groups.items() if value in CPP}
        if len(operands) != 1 + len(sources):
            raise PtxError(f"{len(operands)} operands, expected {1 + len(sources)}")
        values = [w.read(o, t.format(**groups)) for o, t in zip(operands[1:], sources, strict=True)]
        return w.write(operands[0], result.format(**groups), expression.format(*values, **groups))

    row(pattern)(emit)


def translate(w: FunctionWriter) -> tuple[str, Row]:
    """The C++ statements of the writer's current instruction, and the row that gave them."""
    for candidate in TABLE:
        if match := candidate.pattern.fullmatch(w.instruction.opcode):
            return candidate.emit(w, match, w.instruction.operands), candidate
    raise PtxError("unknown instruction")


# -- integers

INTEGER = "(?P<t>[us](?:16|32|64))"
# What wraps around is the same with and without sign. C++ makes small integers signed ones: 1u keeps products unsigned.
compute(r"add\.[us](?P<n>16|32|64)", "{0} + {1}", "b{n}", "b{n}", "b{n}")
compute(r"sub\.[us](?P<n>16|32|64)", "{0} - {1}", "b{n}", "b{n}", "b{n}")
compute(r"mul\.lo\.[us](?P<n>16|32|64)", "1u * {0} * {1}", "b{n}", "b{n}", "b{n}")
compute(r"mad\.lo\.[us](?P<n>16|32|64)", "1u * {0} * {1} + {2}", "b{n}", "b{n}", "b{n}", "b{n}")
compute(rf"mul\.hi\.{INTEGER}", "multiply_high<{T}>({0}, {1})", "{t}", "{t}", "{t}")
compute(rf"mad\.hi\.{INTEGER}", "add<{T}>(multiply_high<{T}>({0}, {1}), {2})", "{t}", *["{t}"] * 3)
for _narrow, _wide in ((16, 32), (32, 64)):
    _t, _s = f"{{s}}{_wide}", f"{{s}}{_narrow}"
    compute(rf"mul\.wide\.(?P<s>[us]){_narrow}", f"{_t}({{0}}) * {{1}}", _t, _s, _s)
    compute(
        rf"mad\.wide\.(?P<s>[us]){_narrow}", f"u{_wide}({_t}({{0}}) * {{1}}) + {{2}}", f"b{_wide}", _s, _s, f"b{_wide}"
    )
compute(rf"div\.{INTEGER}", "divide<{T}>({0}, {1})", "{t}", "{t}", "{t}")
compute(rf"rem\.{INTEGER}", "remainder<{T}>({0}, {1})", "{t}", "{t}", "{t}")
compute(rf"(?P<op>min|max)\.{INTEGER}", "std::{op}<{T}>({0}, {1})", "{t}", "{t}", "{t}")
compute(r"neg\.(?P<t>s(?:16|32|64))", "sub<{T}>(0, {0})", "{t}", "{t}")
compute(r"abs\.(?P<t>s(?:16|32|64))", "absolute<{T}>({0})", "{t}", "{t}")
compute(
    r"sad\.(?P<t>[us]32)", "add<{T}>(sub<{T}>(std::max<{T}>({0}, {1}), std::min<{T}>({0}, {1})), {2})", *["{t}"] * 4
)

# -- bits

for _name, _sign in (("and", "&"), ("or", "|"), ("xor", "^")):
    compute(rf"{_name}\.(?P<t>b(?:16|32|64)|pred)", f"{{0}} {_sign} {{1}}", "{t}", "{t}", "{t}")
compute(r"not\.(?P<t>b(?:16|32|64))", "~{0}", "{t}", "{t}")
compute(r"not\.pred", "!{0}", "pred", "pred")


@row(r"(?P<op>shl|shr)\.(?P<t>[bus](?:16|32|64))")
def _shift(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    """Shifts by constants, by far the most, as C++ has them."""
    type_, (target, value, amount) = m["t"], operands
    if amount.isdigit() and int(amount) < 8 * SIZE[type_]:
        return w.write(target, type_, f"{w.read(value, type_)} {'<<' if m['op'] == 'shl' else '>>'} {amount}")
    return w.write(target, type_, f"shift_{m['op']}<{CPP[type_]}>({w.read(value, type_)}, {w.read(amount, 'u32')})")


compute(r"shf\.(?P<side>l|r)\.(?P<mode>wrap|clamp)\.b32", "funnel_{side}_{mode}({0}, {1}, {2})", "b32", *["b32"] * 3)
compute(r"bfe\.(?P<t>[us](?:32|64))", "extract_bits<{T}>({0}, {1}, {2})", "{t}", "{t}", "u32", "u32")
compute(r"bfi\.(?P<t>b(?:32|64))", "insert_bits<{T}>({0}, {1}, {2}, {3})", "{t}", "{t}", "{t}", "u32", "u32")
compute(r"brev\.(?P<t>b(?:32|64))", "reverse_bits<{T}>({0})", "{t}", "{t}")
compute(r"popc\.(?P<t>b(?:32|64))", "std::popcount({0})", "u32", "{t}")
compute(r"clz\.(?P<t>b(?:32|64))", "std::countl_zero({0})", "u32", "{t}")
compute(
    r"bfind(?P<amount>\.shiftamt)?\.(?P<t>[us](?:32|64))", 'find_bit<{T}>({0}, sizeof("{amount}") > 1)', "u32", "{t}"
)
compute(r"lop3\.b32", "lop3({0}, {1}, {2}, {3})", "b32", "b32", "b32", "b32", "u32")
compute(r"prmt\.b32", "permute_bytes({0}, {1}, {2})", "b32", "b32", "b32", "b32")

# -- moves and choices

MOVABLE = "(?P<t>[bus](?:16|32|64)|f32|f64)"


@row(rf"mov\.(?:{MOVABLE}|(?P<pred>pred))")
def _move(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    type_, (target, source) = m["t"] or m["pred"], operands
    if source.startswith("{"):
        parts = w.vector(source)
        part = f"b{8 * SIZE[type_] // len(parts)}"
        return w.write(
            target,
            f"b{8 * SIZE[type_]}",
            f"join<{CPP[f'b{8 * SIZE[type_]}']}>({', '.join(w.read(p, part) for p in parts)})",
        )
    if target.startswith("{"):
        parts = w.vector(target)
        bits = 8 * SIZE[type_] // len(parts)
        pieces = " ".join(w.write(p, f"b{bits}", f"u{bits}(whole >> {bits * i})") for i, p in enumerate(parts))
        return f"const auto whole = {w.read(source, f'b{8 * SIZE[type_]}')}; {pieces}"
    return w.write(target, type_, w.read(source, type_))


compute(rf"selp\.{MOVABLE}", "({2} ? {0} : {1})", "{t}", "{t}", "{t}", "pred")


@row(r"cvta(?P<to>\.to)?\.(?P<space>global|shared|local|const|param)\.u64")
def _convert_address(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    address = w.read(operands[1], "u64")
    if m["space"] == "shared":
        address = f"generic_to_shared({address})" if m["to"] else f"shared_to_generic({address})"
    return w.write(operands[0], "u64", address)


# Comparisons that C++ has too, the last ones under the names for integers without sign. `ne` is not one: it does not
# hold for NaN.
SIGNS = {"eq": "==", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
COMPARISON = "|".join([*SIGNS, "ne", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"])


@row(rf"setp\.(?P<compare>{COMPARISON})(?:\.(?P<combine>and|or|xor))?\.(?P<t>[bus](?:16|32|64)|f32|f64|f16|bf16)")
def _set_predicate(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    value = {"f16": "half_value<F16>({})", "bf16": "half_value<BF16>({})"}.get(m["t"], "{}")
    a, b = (value.format(w.read(o, m["t"])) for o in operands[1:3])
    sign = SIGNS.get(m["compare"])
    results = ["holds", "!holds"]  # the second one for a second predicate
    if m["combine"]:
        sign_of_combine = {"and": "&", "or": "|", "xor": "^"}[m["combine"]]
        results = [f"({result}) {sign_of_combine} {w.read(operands[3], 'pred')}" for result in results]
    targets = operands[0].split("|")
    writes = [w.write(p, "pred", result) for p, result in zip(targets, results[: len(targets)], strict=True)]
    holds = f"{a} {sign} {b}" if sign else f"compare_{m['compare']}({a}, {b})"
    return f"const bool holds = {holds}; {' '.join(writes)}"


# -- floating point

REAL = "(?P<t>f32|f64)"
for _name, _sign in (("add", "+"), ("sub", "-"), ("mul", "*")):
    compute(rf"{_name}(?:\.rn)?\.{REAL}", f"{{0}} {_sign} {{1}}", "{t}", "{t}", "{t}")
compute(r"fma\.rn\.f32", "__builtin_fmaf({0}, {1}, {2})", "f32", "f32", "f32", "f32")
compute(r"fma\.rn\.f64", "__builtin_fma({0}, {1}, {2})", "f64", "f64", "f64", "f64")
compute(r"fma\.(?P<mode>rz|rm|rp)\.f32", "fma_directed<Rounding::{mode}>({0}, {1}, {2})", "f32", "f32", "f32", "f32")
compute(r"add\.(?P<mode>rz|rm|rp)\.f32", "fma_directed<Rounding::{mode}>({0}, 1.0f, {1})", "f32", "f32", "f32")
compute(r"mul\.(?P<mode>rz|rm|rp)\.f32", "mul_directed<Rounding::{mode}>({0}, {1})", "f32", "f32", "f32")
compute(rf"(?:div\.rn\.{REAL}|div\.(?:full|approx)\.(?P<a>f32))", "({0} / {1})", "{t}{a}", "{t}{a}", "{t}{a}")
compute(rf"rcp\.rn\.{REAL}", "(1 / {0})", "{t}", "{t}")
compute(rf"sqrt\.rn\.{REAL}", "std::sqrt({0})", "{t}", "{t}")
compute(r"(?P<op>rcp|sqrt|rsqrt|ex2|lg2|sin|cos|tanh)\.approx\.f32", "approximate_{op}({0})", "f32", "f32")
compute(
    r"(?P<op>rcp|sqrt|rsqrt|ex2|lg2|sin|cos)\.approx\.ftz\.f32", "flush(approximate_{op}(flush({0})))", "f32", "f32"
)
compute(rf"(?P<op>min|max)(?P<nan>\.NaN)?\.{REAL}", '{op}_real({0}, {1}, sizeof("{nan}") > 1)', "{t}", "{t}", "{t}")
compute(rf"neg\.{REAL}", "-{0}", "{t}", "{t}")
compute(rf"abs\.{REAL}", "std::fabs({0})", "{t}", "{t}")
compute(rf"copysign\.{REAL}", "std::copysign({1}, {0})", "{t}", "{t}", "{t}")
compute(
    rf"testp\.(?P<test>finite|infinite|number|notanumber|normal|subnormal)\.{REAL}", "test_{test}({0})", "pred", "{t}"
)

# -- halves: f16 and bf16, one or two of them

for _half, _format in (("f16", "F16"), ("bf16", "BF16")):
    for _pair, _each in (("", "{}"), ("x2", "for_both<{}>")):
        _t = _half + _pair
        for _name, _count in (("add", 2), ("sub", 2), ("mul", 2), ("neg", 1), ("abs", 1)):
            compute(
                rf"{_name}{'' if _count == 1 else r'(?:.rn)?'}\.{_t}",
                _each.format(f"half_{_name}<{_format}>") + "(" + ", ".join(f"{{{i}}}" for i in range(_count)) + ")",
                _t,
                *[_t] * _count,
            )
        compute(rf"fma\.rn\.{_t}", _each.format(f"half_fma<{_format}>") + "({0}, {1}, {2})", _t, _t, _t, _t)
        compute(rf"fma\.rn\.relu\.{_t}", _each.format(f"half_fma_relu<{_format}>") + "({0}, {1}, {2})", _t, _t, _t, _t)
        compute(rf"(?P<op>min|max)\.{_t}", _each.format(f"half_{{op}}<{_format}, false>") + "({0}, {1})", _t, _t, _t)
        compute(
            rf"(?P<op>min|max)\.NaN\.{_t}", _each.format(f"half_{{op}}<{_format}, true>") + "({0}, {1})", _t, _t, _t
        )

# -- conversions

compute(r"cvt\.(?P<t>[us](?:8|16|32|64))\.(?P<s>[us](?:8|16|32|64))", "{T}({0})", "{t}", "{s}")
compute(r"cvt\.sat\.(?P<t>[us](?:8|16|32|64))\.(?P<s>[us](?:8|16|32|64))", "saturate<{T}>({0})", "{t}", "{s}")
compute(r"cvt\.rn\.(?P<t>f32|f64)\.(?P<s>[us](?:8|16|32|64))", "static_cast<{T}>({0})", "{t}", "{s}")
compute(
    r"cvt\.(?P<mode>rn|rz|rm|rp)i(?P<ftz>\.ftz)?\.(?P<t>[us](?:16|32|64))\.(?P<s>f32|f64)",
    "to_integer<{T}>(round_{mode}({0}))",
    "{t}",
    "{s}",
)
compute(r"cvt\.(?P<mode>rn|rz|rm|rp)i\.(?P<t>f32|f64)\.(?P=t)", "round_{mode}({0})", "{t}", "{t}")
compute(r"cvt\.sat\.f32\.f32", "saturate_unit({0})", "f32", "f32")
compute(r"cvt\.f64\.f32", "static_cast<f64>({0})", "f64", "f32")
compute(r"cvt\.(?P<mode>rn|rz|rm|rp)\.f32\.f64", "round_f64<F32, Rounding::{mode}>({0})", "b32", "f64")
compute(r"cvt\.f32\.f16", "half_value<F16>({0})", "f32", "f16")
compute(r"cvt\.f32\.bf16", "half_value<BF16>({0})", "f32", "bf16")
compute(r"cvt\.f64\.f16", "static_cast<f64>(half_value<F16>({0}))", "f64", "f16")
compute(
    r"cvt\.(?P<mode>rn|rz)i\.(?P<t>[us](?:16|32|64))\.f16",
    "to_integer<{T}>(round_{mode}(half_value<F16>({0})))",
    "{t}",
    "f16",
)
compute(r"cvt\.rn\.f16\.(?P<s>[us](?:8|16|32|64))", "round_integer<F16>({0})", "f16", "{s}")
compute(r"cvt\.(?P<mode>rn|rz)\.f16\.(?P<s>f32|f64)", "round_f64<F16, Rounding::{mode}>({0})", "f16", "{s}")
compute(r"cvt\.(?P<mode>rn|rz)\.bf16\.f32", "round_f64<BF16, Rounding::{mode}>({0})", "bf16", "f32")
compute(r"cvt\.rn\.relu\.f16\.f32", "relu<F16>(round_f64<F16, Rounding::rn>({0}))", "f16", "f32")
compute(r"cvt\.rn\.relu\.bf16\.f32", "relu<BF16>(round_f64<BF16, Rounding::rn>({0}))", "bf16", "f32")
compute(r"cvt\.(?P<mode>rn|rz)\.f16x2\.f32", "round_pair<F16, Rounding::{mode}>({0}, {1})", "b32", "f32", "f32")
compute(r"cvt\.(?P<mode>rn|rz)\.bf16x2\.f32", "round_pair<BF16, Rounding::{mode}>({0}, {1})", "b32", "f32", "f32")
compute(
    r"cvt\.rn\.relu\.f16x2\.f32", "for_both<relu<F16>>(round_pair<F16, Rounding::rn>({0}, {1}))", "b32", "f32", "f32"
)
compute(
    r"cvt\.rn\.relu\.bf16x2\.f32", "for_both<relu<BF16>>(round_pair<BF16, Rounding::rn>({0}, {1}))", "b32", "f32", "f32"
)
compute(r"cvt\.rna\.tf32\.f32", "round_f64<TF32, Rounding::rna>({0})", "b32", "f32")

# -- control flow


@row(r"bra(?:\.uni)?")
def _branch(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return w.jump(operands[0])


@row(r"brx\.idx(?:\.uni)?")
def _branch_by_index(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    cases = " ".join(f"case {i}: {w.jump(label)}" for i, label in enumerate(w.branch_targets[operands[1]]))
    return f"switch ({w.read(operands[0], 'u32')}) {{ {cases} default: t.block->fail_trap(t, {w.site()}); }}"


@row(r"ret(?:\.uni)?|exit")
def _return(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    if w.instruction.opcode == "exit" and not w.function.is_entry:
        raise PtxError("exit in a function that is not inlined")
    return "return;"


@row(r"trap")
def _trap(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return f"t.block->fail_trap(t, {w.site()});"


@row(r"call(?:\.uni)?")
def _call(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    results = w.vector(operands.pop(0).replace("(", "{").replace(")", "}")) if operands[0].startswith("(") else []
    name, *rest = operands
    if name == "__assertfail":
        return f"t.block->fail_trap(t, {w.site()});"
    if name not in w.functions:
        raise PtxError("call of a function that is not in this module, or of none that is known")
    arguments = w.vector(rest[0].replace("(", "{").replace(")", "}")) if rest else []
    buffers = [w.parameter_buffer(buffer) for buffer in [*results, *arguments]]
    return f"{function_name(name)}({', '.join(['t', *buffers])});"


def function_name(name: str) -> str:
    return "function_" + re.sub(r"\W", "_", name)


# -- barriers and warp collectives


@row(r"(?:bar|barrier)\.(?:cta\.)?sync(?:\.aligned)?")
def _barrier(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    threads = w.read(operands[1], "u32") if len(operands) == 2 else "0"
    return f"t.block->barrier(t, {w.read(operands[0], 'u32')}, {threads}, {w.site()});"


@row(r"bar(?:rier\.cta)?\.red(?:\.aligned)?\.(?P<op>popc|and|or)\.(?P<t>u32|pred)")
def _barrier_reduction(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    threads = w.read(operands[2], "u32") if len(operands) == 4 else "0"
    barrier, condition = w.read(operands[1], "u32"), w.read(operands[-1], "pred")
    count = f"t.block->barrier_count(t, {barrier}, {threads}, {condition}, {w.site()})"
    result = {"popc": "count", "and": "count == t.block->threads()", "or": "count != 0"}[m["op"]]
    return f"const u32 count = {count}; {w.write(operands[0], m['t'], result)}"


@row(r"bar\.warp\.sync")
def _warp_barrier(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return f"warp_barrier(t, {w.read(operands[0], 'u32')}, {w.site()});"


@row(r"membar\.(?:cta|gl|sys)|fence\.(?:acq_rel|sc)\.(?:cta|gpu|sys)")
def _fence(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return "/* a fence alone orders nothing here: races between blocks stay races */"


@row(r"shfl\.sync\.(?P<mode>idx|up|down|bfly)\.b32")
def _shuffle(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    targets = operands[0].split("|")
    value, lane, clamp, mask = (w.read(o, "b32") for o in operands[1:5])
    call = f"shuffle(t, Shuffle::{m['mode']}, {mask}, {value}, {lane}, {clamp}, {w.site()})"
    writes = [w.write(targets[0], "b32", "got.value")]
    if len(targets) == 2:
        writes.append(w.write(targets[1], "pred", "got.in_range"))
    return f"const auto got = {call}; {' '.join(writes)}"


@row(r"vote\.sync\.(?:(?P<ballot>ballot)\.b32|(?P<mode>any|all|uni)\.pred)")
def _vote(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    call = f"vote(t, {w.read(operands[2], 'b32')}, {w.read(operands[1], 'pred')}, {w.site()})"
    result = {"any": "got.yes != 0", "all": "got.yes == got.lanes", "uni": "got.yes == 0 || got.yes == got.lanes"}
    return f"const auto got = {call}; " + (
        w.write(operands[0], "b32", "got.yes") if m["ballot"] else w.write(operands[0], "pred", result[m["mode"]])
    )


@row(r"match\.any\.sync\.(?P<t>b32|b64)")
def _match_any(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    value, mask = w.read(operands[1], m["t"]), w.read(operands[2], "b32")
    return w.write(operands[0], "b32", f"match(t, {mask}, {value}, {w.site()}).equal")


@row(r"match\.all\.sync\.(?P<t>b32|b64)")
def _match_all(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    targets, value, mask = operands[0].split("|"), w.read(operands[1], m["t"]), w.read(operands[2], "b32")
    writes = [w.write(targets[0], "b32", "got.equal == got.lanes ? got.lanes : 0")]
    if len(targets) == 2:
        writes.append(w.write(targets[1], "pred", "got.equal == got.lanes"))
    return f"const auto got = match(t, {mask}, {value}, {w.site()}); {' '.join(writes)}"


@row(r"redux\.sync\.(?:(?P<op>add|min|max)\.(?P<t>[us]32)|(?P<logic>and|or|xor)\.(?P<b>b32))")
def _reduce(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    type_, op = m["t"] or m["b"], m["op"] or m["logic"]
    value, mask = w.read(operands[1], type_), w.read(operands[2], "b32")
    return w.write(operands[0], type_, f"reduce<{CPP[type_]}, Reduce_{op}>(t, {mask}, {value}, {w.site()})")


@row(r"activemask\.b32")
def _active_mask(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return w.write(operands[0], "b32", "t.block->lanes_alive(t.warp)")


# -- memory

CACHING = r"(?:\.(?:ca|cg|cs|lu|cv|wb|wt))?(?:\.L1::\w+)?(?:\.L2::(?:64|128|256)B)?"
ELEMENT = r"(?P<vector>\.v2|\.v4)?\.(?P<t>[bus](?:8|16|32|64)|f32|f64)"


def _span(m: re.Match[str]) -> tuple[int, int]:
    """Bytes of an element, and elements of a vector access."""
    count = int(m["vector"][2]) if m["vector"] else 1
    if SIZE[m["t"]] * count > 16:
        raise PtxError("access of more than 16 bytes")
    return SIZE[m["t"]], count


@row(
    rf"ld(?:\.volatile)?(?:\.(?P<space>global|shared|local|const|param)(?:::\w+)?)?{CACHING}(?P<constant>\.nc)?{CACHING}{ELEMENT}"
)
def _load(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    size, count = _span(m)
    space = (m["space"] or "generic") + ("_constant" if m["constant"] else "")
    source = f"read_{space}<{size * count}>(t, {w.address(operands[1])}, {w.site()})"
    targets = w.vector(operands[0])
    writes = " ".join(w.load(r, m["t"], f"from + {size * i}") for i, r in enumerate(targets))
    return f"const unsigned char* from = {source}; {writes}"


@row(rf"st(?:\.volatile)?(?:\.(?P<space>global|shared|local|param)(?:::\w+)?)?{CACHING}{ELEMENT}")
def _store(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    size, count = _span(m)
    target = f"write_{m['space'] or 'generic'}<{size * count}>(t, {w.address(operands[0])}, {w.site()})"
    puts = " ".join(w.store(f"to + {size * i}", value, m["t"]) for i, value in enumerate(w.vector(operands[1])))
    return f"unsigned char* to = {target}; {puts}"


ATOMIC = r"(?:\.relaxed)?(?:\.(?:cta|gpu|sys))?(?:\.(?P<space>global|shared)(?:::cta)?)?"
UPDATE = r"\.(?P<op>add|min|max|and|or|xor|exch|inc|dec)\.(?P<t>[bus](?:32|64)|f32|f64)"


def _update(w: FunctionWriter, m: re.Match[str], address: str, value: str) -> str:
    cpp = CPP[m["t"]]
    where = f"update_{m['space'] or 'generic'}<{SIZE[m['t']]}>(t, {w.address(address)}, {w.site()})"
    return f"update<{cpp}, Update_{m['op']}>({where}, {w.read(value, m['t'])})"


@row(rf"atom{ATOMIC}{UPDATE}")
def _atomic(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return w.write(operands[0], m["t"], _update(w, m, operands[1], operands[2]))


@row(rf"red{ATOMIC}{UPDATE}")
def _reduction(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return _update(w, m, operands[0], operands[1]) + ";"


@row(rf"atom{ATOMIC}\.cas\.(?P<t>b(?:32|64))")
def _compare_and_swap(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    where = f"update_{m['space'] or 'generic'}<{SIZE[m['t']]}>(t, {w.address(operands[1])}, {w.site()})"
    expected, desired = w.read(operands[2], m["t"]), w.read(operands[3], m["t"])
    return w.write(operands[0], m["t"], f"compare_and_swap<{CPP[m['t']]}>({where}, {expected}, {desired})")


@row(r"prefetch(?:\.global)?\.L[12]")
def _prefetch(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return "/* a prefetch has no effect on results */"


# -- asynchronous copies


@row(r"cp\.async\.(?:(?P<ca>ca)|cg)\.shared(?:::cta)?\.global(?:\.L2::(?:64|128|256)B)?")
def _copy(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    size = int(operands[2], 0)
    if size not in ((4, 8, 16) if m["ca"] else (16,)):
        raise PtxError(f"copy of {size} bytes")
    source_size = w.read(operands[3], "u32") if len(operands) == 4 else str(size)
    target, source = w.address(operands[0]), w.address(operands[1])
    return f"start_copy(t, {target}, {source}, {size}, {source_size}, {w.site()});"


@row(r"cp\.async\.commit_group")
def _commit(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return "t.copies.commit();"


@row(r"cp\.async\.wait_(?:group|(?P<all>all))")
def _wait(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    return "wait_for_all_copies(t);" if m["all"] else f"wait_for_copies(t, {w.read(operands[0], 'u32')});"


# -- matrices


@row(r"ldmatrix\.sync\.aligned\.m8n8\.x(?P<count>[124])(?P<transposed>\.trans)?\.shared(?:::cta)?\.b16")
def _load_matrix(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
    transposed = "true" if m["transposed"] else "false"
    call = f"load_matrices<{m['count']}, {transposed}>(t, {w.address(operands[1])}, {w.site()})"
    writes = " ".join(w.write(r, "b32", f"got[{i}]") for i, r in enumerate(w.vector(operands[0])))
    return f"const auto got = {call}; {writes}"


def _multiply(shape: str, inputs: str, a_words: int, b_words: int) -> None:
    """mma.sync with accumulators in f32: shape and inputs as PTX names them, 32-bit words of a lane's fragments."""

    def emit(w: FunctionWriter, m: re.Match[str], operands: list[str]) -> str:
        fragments = [w.vector(operand) for operand in operands]
        if [len(fragment) for fragment in fragments] != [4, a_words, b_words, 4]:
            raise PtxError("fragments of another size")
        a, b = ("{" + ", ".join(w.read(r, "b32") for r in fragment) + "}" for fragment in fragments[1:3])
        c = "{" + ", ".join(w.read(r, "f32") for r in fragments[3]) + "}"
        writes = " ".join(w.write(r, "f32", f"d[{i}]") for i, r in enumerate(fragments[0]))
        return f"f32 d[4] = {c}; const u32 a[] = {a}, b[] = {b}; mma_{shape}_{inputs}(t, d, a, b, {w.site()}); {writes}"

    row(rf"mma\.sync\.aligned\.{shape}\.row\.col\.f32\.{inputs}\.{inputs}\.f32")(emit)


_multiply("m16n8k16", "f16", 4, 2)
_multiply("m16n8k16", "bf16", 4, 2)
_multiply("m16n8k8", "f16", 2, 1)
_multiply("m16n8k8", "bf16", 2, 1)
_multiply("m16n8k8", "tf32", 4, 2)
_multiply("m16n8k4", "tf32", 2, 1)
