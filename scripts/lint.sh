#!/usr/bin/env bash
# Formatting, lint and types, of the tools on the PATH; the rules are in pyproject.toml and .clang-format.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
git ls-files '*.cpp' '*.hpp' '*.inl' '*.h' '*.c' '*.cu' '*.cuh' | xargs clang-format --dry-run --Werror
