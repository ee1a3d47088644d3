#!/usr/bin/env bash
# What can be seen of the CUDA kernels without a GPU. Compiles every one for every architecture (or those given as
# arguments, e.g. 80 90) and fails on
#   - a spill, or more registers than cuda/registers.txt has;
#   - accesses to local memory; a main loop that has other than the expected number of multiplications, or of 16-byte
#     loads and stores; more instructions for each output than cuda/instructions.txt has.
# --update writes both tables, --only NAME takes the sources with NAME in their names; see --help. Needs nvcc, and fetches
# nvdisasm from PyPI (any later one reads the code of an earlier nvcc). See docs/cuda.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_venv
"$venv/bin/pip" install --quiet "nvidia-cuda-nvdisasm>=13.2"
exec "$venv/bin/python" scripts/cuda_static.py --nvcc "${CUDACXX:-nvcc}" "$@"
