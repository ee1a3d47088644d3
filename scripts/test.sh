#!/usr/bin/env bash
# Sets up an environment and runs every check: lint, C++ build with warnings as errors and CTest, the C++ example
# against the installed package, pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment dev,train,zoo,examples
make_build_tools
# A head volume for an example; where it cannot be had, the example's test is skipped and says so.
[ -e /usr/share/mricron/templates/ch2.nii.gz ] || install_packages mricron-data || true
build="$(mktemp -d)"
trap 'rm -rf "$build"' EXIT

scripts/lint.sh

cmake -S . -B "$build/openmp" -G Ninja -DLEANCORE_WERROR=ON -DLEANCORE_TEST_ISAS=ON >/dev/null
cmake --build "$build/openmp"
ctest --test-dir "$build/openmp" --output-on-failure
cmake -S . -B "$build/std" -G Ninja -DLEANCORE_WERROR=ON -DLEANCORE_THREADS=std >/dev/null
cmake --build "$build/std"
ctest --test-dir "$build/std" --output-on-failure -R "threads|exact"

# From elsewhere, so that the installed package is found and not the sources.
cmake_dir="$(cd "$build" && python -m leancore --cmake-dir)"
cmake -S examples/cpp_consumer -B "$build/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$cmake_dir" >/dev/null
cmake --build "$build/consumer"
find "$build/consumer" -maxdepth 1 -type f -executable -exec {} \;

python -m pytest -n 2 -q tests/python "$@"
