#!/usr/bin/env bash
# The CUDA part without a GPU: builds the kernels for the emulator in tests/cuda_emulation and runs every test that is
# labelled cuda_emulation, the emulator's own included. Needs nvcc, on the PATH or as $CUDACXX; arguments go to ctest.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_build_tools
nvcc="${CUDACXX:-$(command -v nvcc || true)}"
if [ ! -x "$nvcc" ]; then
  echo "nvcc is neither on the PATH nor named by CUDACXX; nothing was tested" >&2
  exit 1
fi
build="$(realpath -m "${LEANCORE_BUILD:-build-cuda-emulation}")"
CUDACXX="$nvcc" cmake -S . -B "$build" -G Ninja -DLEANCORE_CUDA_EMULATION=ON -DLEANCORE_WERROR=ON
cmake --build "$build" --target cuda_emulation_tests
log="$build/cuda_emulation.log"
ctest --test-dir "$build" -L '^cuda_emulation$' --output-on-failure --no-tests=error -j "$(nproc)" "$@" | tee "$log"
# A test that did not run is no test passed.
if grep -qE 'Not Run|Skipped|Disabled' "$log"; then
  echo "tests were left out" >&2
  exit 1
fi

# The Python functions on CUDA arrays, with an extension of its own that has the emulated kernels.
CUDACXX="$nvcc" "$venv/bin/pip" install --quiet --upgrade --target "$build/python" -C build-dir="$build/extension" \
  -C cmake.define.LEANCORE_CUDA_EMULATION=ON -C cmake.define.LEANCORE_BUILD_TESTS=OFF . pytest ml_dtypes jax
emulation="$build/extension/tests/cuda_emulation"
LD_LIBRARY_PATH="$emulation" LEANCORE_CUDA_EMULATED="$emulation/libcuda_emulation.so" PYTHONPATH="$build/python" \
  "$venv/bin/python" -m pytest -q -m "not cuda" tests/python/test_cuda.py

echo "every emulated test ran; nothing of this has run on a GPU"
