#!/usr/bin/env bash
# Sets up an environment and trains a network: the digits of scikit-learn, or whatever the options say
# (scripts/train.sh --data cifar10 trains LeanResNet-A on CIFAR-10).
set -euo pipefail
invoked_from="$PWD"
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_environment train
cd "$invoked_from"
exec "$venv/bin/leancore" train "$@"
