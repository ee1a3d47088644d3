"""python3 -m translator INPUT.ptx OUTPUT.cpp [--used FILE]: writes the C++ of a PTX module.

--used lists the rows of the instruction table that the module needed, so that tests can show that none is left out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import instructions, ptx
from .writer import CPP, FunctionWriter, literal


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class ModuleWriter:
    def __init__(self, module: ptx.Module):
        self._module = module
        self._sites: list[tuple[str, ...]] = []
        self.used: set[str] = set()
        self._symbols = {v.name: f"symbol_{i}" for i, v in enumerate(module.variables) if v.space != "shared"}

    def _translate(self, writer: FunctionWriter) -> str:
        try:
            code, row = instructions.translate(writer)
        except (ptx.PtxError, ValueError, IndexError, KeyError) as error:
            instruction = writer.instruction
            raise ptx.PtxError(
                f"{instruction.location}: {instruction}\n  in {writer.function.name}: {error}"
            ) from error
        self.used.add(row.pattern.pattern)
        return code

    def _signature(self, function: ptx.Function) -> str:
        count = len(function.results) + len(function.parameters)
        arguments = "".join(f", unsigned char* argument_{i}" for i in range(count))
        return f"void {instructions.function_name(function.name)}(Thread& t{arguments})"

    def _variables(self) -> list[str]:
        """Definitions of the module's variables: their addresses, first contents and the table of them."""
        lines: list[str] = []
        entries: list[str] = []
        for variable in self._module.variables:
            if variable.name not in self._symbols:
                continue
            name, type_ = self._symbols[variable.name], variable.type
            values = [literal(value, type_) for value in variable.initial or []]
            count = variable.count or 1
            lines.append(f"u64 {name};  // {variable.name}")
            lines.append(f"const {CPP[type_]} {name}_initial[{count}] = {{{', '.join(values)}}};")
            entries.append(f"{{{_quote(variable.name)}, &{name}, {name}_initial, sizeof {name}_initial}}")
        return [*lines, f"const Variable variables[] = {{{', '.join([*entries, '{}'])}}};"]

    def text(self) -> str:
        functions = [f for f in self._module.functions if not f.is_entry]
        kernels = [f for f in self._module.functions if f.is_entry]
        lines = ['#include "instructions.hpp"', "", "namespace {", "using namespace emulation;"]
        lines += self._variables()
        lines += [self._signature(function) + ";" for function in functions]
        entries: list[str] = []
        for function in [*functions, *kernels]:
            writer = FunctionWriter(function, self._module, self._symbols, self._sites)
            body = writer.run(self._translate)
            signature = self._signature(function)
            if function.is_entry:
                name = f"kernel_{len(entries)}"
                signature = f"void {name}(Thread& t, unsigned char* parameters)"
                offsets = "".join(f"{{{offset}, {size}}}, " for offset, size in writer.parameter_offsets)
                ranges = "".join(f"{{{offset}, {size}}}, " for offset, size in writer.shared.ranges)
                entries.append(
                    f"{{{_quote(function.name)}, {name}, {{{offsets}}}, {{{ranges}}}, {writer.shared.dynamic_offset}, "
                    f"{writer.shared.bytes}, {function.max_threads}, {self._module.target}, sites}}"
                )
            lines += ["", f"// {function.name}", signature + " {", *body, "}"]
        sites = ",\n".join(f"  {{{_quote(f)}, {n}, {_quote(g)}, {k}, {_quote(op)}}}" for f, n, g, k, op in self._sites)
        lines += ["", "const SourceLine sites[] = {", sites or "{}", "};"]
        lines += [
            f"const Kernel kernels[] = {{{', '.join([*entries, '{}'])}}};",
            "const RegisterModule registered(kernels, variables);",
        ]
        return "\n".join([*lines, "}  // namespace", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--used", type=Path)
    arguments = parser.parse_args()
    try:
        writer = ModuleWriter(ptx.parse(arguments.input.read_text()))
        text = writer.text()
    except ptx.PtxError as error:
        sys.exit(f"{arguments.input}: {error}")
    arguments.output.write_text(text)
    if arguments.used:
        arguments.used.write_text("".join(f"{pattern}\n" for pattern in sorted(writer.used)))


if __name__ == "__main__":
    main()
