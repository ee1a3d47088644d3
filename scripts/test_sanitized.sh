#!/usr/bin/env bash
# The slow second command: the C++ tests under AddressSanitizer with UndefinedBehaviorSanitizer, those about threads
# under ThreadSanitizer, and one under valgrind where it is installed. With the std::thread back-end, since
# ThreadSanitizer does not understand libgomp.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh
make_build_tools
build="$(mktemp -d)"
trap 'rm -rf "$build"' EXIT
export LEANCORE_NUM_THREADS=4

# build_with NAME FLAGS TARGETS...: in its own folder; -O1 keeps the reports readable.
build_with() {
  local name="$1" flags="$2"
  shift 2
  cmake -S . -B "$build/$name" -G Ninja -DLEANCORE_THREADS=std -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DCMAKE_C_FLAGS_RELWITHDEBINFO="-O1 -g $flags" -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g $flags" >/dev/null
  cmake --build "$build/$name" --target "$@"
}

build_with address "-fsanitize=address,undefined -fno-sanitize-recover=all -D_GLIBCXX_ASSERTIONS" all
# `large` takes minutes there, for what the others show as well.
LEANCORE_TEST_ROUNDS=0.2 ctest --test-dir "$build/address" --output-on-failure -j "$(nproc)" -E large

build_with thread "-fsanitize=thread" test_threads test_exact
for topic in threads exact; do
  # Without address space randomisation, which some kernels make too strong for it.
  LEANCORE_TEST_ROUNDS=0.02 setarch -R "$build/thread/tests/cpp/test_$topic"
done

if type valgrind >/dev/null 2>&1; then
  build_with plain "" test_adjoint
  # Addresses alone: of two conditions written with &&, the compiler may test the one that has no meaning first.
  # The tests poison their workspaces with NaN instead. AVX-512 does not run there.
  LEANCORE_TEST_ROUNDS=0.05 valgrind -q --error-exitcode=9 --undef-value-errors=no "$build/plain/tests/cpp/test_adjoint"
fi
