#!/usr/bin/env bash
# Fails if an x86-64 static library has VEX or EVEX instructions anywhere but in functions that are local to the object
# of the instruction set that they belong to (isa_avx*.cpp): a function that the linker may share with other objects
# would stop every processor without AVX.
#
#   scripts/vector_instructions.sh build/cpp/libleancore.a
set -euo pipefail
objdump --disassemble --no-show-raw-insn "$1" >/dev/null # a file that cannot be read is an error here
objdump --disassemble --no-show-raw-insn "$1" | awk '
  /file format/ { object = $1; sub(/:$/, "", object) }
  /^[0-9a-f]+ <.*>:$/ { symbol = $2 }
  # Only instructions of these encodings begin with v, or with k for the mask registers; but for verr, verw and vm*.
  /^ *[0-9a-f]+:\t(v|k(add|and|mov|not|or|shift|test|unpck|xnor|xor))/ && !/:\tver[rw]/ {
    ++found
    if (object !~ /^isa_avx/ || symbol !~ /_GLOBAL__N_1/) outside[object " " symbol] = $0
  }
  END {
    for (place in outside) { print "a wide-vector instruction in " place " " outside[place]; bad = 1 }
    if (!found) { print "no wide-vector instruction at all"; bad = 1 }
    print found " wide-vector instructions, " (bad ? "some" : "none") " outside the kernels"
    exit bad
  }'
