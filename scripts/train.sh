#!/usr/bin/env bash
# Sets up an environment and trains a network: the digits of scikit-learn, or whatever the options say
# (scripts/train.sh --data cifar10 trains LeanResNet-A on CIFAR-10).
set -euo pipefail
invoked_from="$PWD"
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment train
# Large tensors reuse their memory, in huge pages, instead of returning it to the system in every step.
tunables=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=17179869184
tunables=$tunables:glibc.malloc.trim_threshold=34359738368:glibc.malloc.top_pad=268435456
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-$tunables}"
cd "$invoked_from"
exec "$venv/bin/leancore" train "$@"
