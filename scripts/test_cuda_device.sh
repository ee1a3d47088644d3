#!/usr/bin/env bash
# All that needs a CUDA device, in one command: builds for it, runs the tests labelled cuda on it, under
# compute-sanitizer too, those of torch, CuPy and JAX, and the benchmarks; writes a folder with report.md, report.json
# and every log. Without a device it says so and fails; --help lists the options.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 scripts/cuda_device.py "$@"
