#!/usr/bin/env bash
# What can be seen of the CUDA kernels without a GPU: compiles every one for every architecture (or those given as
# arguments, e.g. 80 90) and compares registers and spills, as ptxas reports them, with cuda/registers.txt. Fails on a
# spill, on a kernel with more registers than its row allows, and on one without a row. With --write it writes the table.
# Needs nvcc; see docs/cuda.md.
set -euo pipefail
cd "$(dirname "$0")/.."
write=false
if [ "${1:-}" = --write ]; then
  write=true
  shift
fi
architectures=("$@")
[ "${#architectures[@]}" -gt 0 ] || architectures=(75 80 86 89 90 100 120)
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
for source in cuda/*.cu; do
  for architecture in "${architectures[@]}"; do
    echo "$source for $architecture" >&2
    nvcc -std=c++20 -O3 -Icuda -Icpp/src -Icpp/include '-DLEANCORE_CUDA_ARCHITECTURES=""' -cubin -Xptxas -v \
      -gencode="arch=compute_$architecture,code=sm_$architecture" "$source" -o "$work/kernel.cubin" 2>>"$work/ptxas.log"
  done
done
python3 - "$work/ptxas.log" "$write" <<'PY'
"""From ptxas's report to rows of the table: the kernel, and its most registers on any architecture."""
import pathlib
import re
import subprocess
import sys

TABLE = pathlib.Path("cuda/registers.txt")
SLACK = 8  # another release of nvcc may need a few more

log = pathlib.Path(sys.argv[1]).read_text()
entry = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<architecture>\w+)'.*?"
    r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)
found = list(entry.finditer(log))
names = "\n".join(match["name"] for match in found)
demangled = subprocess.run(["c++filt"], input=names, capture_output=True, text=True, check=True).stdout.splitlines()
most: dict[str, int] = {}
problems = []
for match, name in zip(found, demangled, strict=True):
    kernel = re.sub(r"\(leancore.*|\(.*\)$", "", name.replace("leancore::detail::cuda::", "").removeprefix("void "))
    most[kernel] = max(most.get(kernel, 0), int(match["registers"]))
    if match["stores"] != "0" or match["loads"] != "0":
        problems.append(f"{kernel} spills on sm_{match['architecture']}: {match['stores']} and {match['loads']} bytes")
if sys.argv[2] == "true":
    TABLE.write_text("".join(f"{registers:4} {kernel}\n" for kernel, registers in sorted(most.items())))
else:
    allowed = {line[5:]: int(line[:4]) for line in TABLE.read_text().splitlines()}
    problems += [f"{kernel} has no row in {TABLE}" for kernel in most if kernel not in allowed]
    problems += [
        f"{kernel} has {registers} registers, expected at most {allowed[kernel] + SLACK}"
        for kernel, registers in most.items()
        if kernel in allowed and registers > allowed[kernel] + SLACK
    ]
print("\n".join(problems))
print(f"{len(most)} kernels, {len(found)} compilations, {len(problems)} failed")
sys.exit(1 if problems or not most else 0)
PY
