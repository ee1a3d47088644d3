#!/usr/bin/env bash
# What this machine's processor cannot show, under user-mode emulation: the C++ tests on 64-bit ARM (NEON), and on
# x86-64 processors without AVX and without AVX-512; and that no code outside the kernels of an instruction set needs
# that instruction set. As root on Debian or Ubuntu it installs the cross compiler and the emulator.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_build_tools
type aarch64-linux-gnu-g++ qemu-aarch64 qemu-x86_64 >/dev/null 2>&1 || install_packages g++-aarch64-linux-gnu qemu-user
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

# run_tests SHARE BUILD EMULATOR...: all C++ tests but `large`, with that share of the random rounds.
run_tests() {
  local share="$1" build="$2"
  shift 2
  find "$build/tests/cpp" -name 'test_*' -type f -executable ! -name test_large -print0 |
    LEANCORE_TEST_ROUNDS="$share" OMP_NUM_THREADS=4 xargs -0 -n 1 -P "$(nproc)" "$@"
}
# expect_selected NAME BUILD EMULATOR...: what the emulated processor makes the library choose.
expect_selected() {
  local name="$1" build="$2"
  shift 2
  "$@" "$build/tests/cpp/test_registry" | grep -x "selected: $name"
}

if [ "$(uname -m)" = x86_64 ]; then
  build="$work/x86_64"
  cmake -S . -B "$build" -G Ninja -DLEANCORE_WERROR=ON >/dev/null
  cmake --build "$build"
  scripts/vector_instructions.sh "$build/cpp/libleancore.a"
  # Features of a Haswell that the emulator lacks are left out: it would warn of each in every run.
  for row in "generic Nehalem" "avx2 Haswell-noTSX,pcid=off,x2apic=off,tsc-deadline=off,invpcid=off"; do
    read -r name cpu <<<"$row"
    echo "x86-64, ${cpu%%,*}"
    expect_selected "$name" "$build" qemu-x86_64 -cpu "$cpu"
    # QEMU 7.2 reads all of the vector in a masked load, past the end of the array too.
    LEANCORE_TEST_SLACK=32 run_tests 0.05 "$build" qemu-x86_64 -cpu "$cpu"
  done
fi

echo "aarch64"
build="$work/aarch64"
cmake -S . -B "$build" -G Ninja -DLEANCORE_WERROR=ON -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake >/dev/null
cmake --build "$build"
expect_selected generic "$build" qemu-aarch64 -L /usr/aarch64-linux-gnu
run_tests 0.1 "$build" qemu-aarch64 -L /usr/aarch64-linux-gnu
