#include "cpu/isa.hpp"

#define LEANCORE_VECTOR_BYTES 64

namespace leancore::detail::cpu {
namespace {
#include "cpu/paired.inl"
}  // namespace

constinit const Implementation generic512_bf16 = {
    "generic512_bf16",
    "products of pairs of bf16 in the baseline instruction set, for tests",
    DeviceType::cpu,
    [] { return true; },
    takes_pairs,
    workspace_bytes,
    run,
    takes_pairs,
};

}  // namespace leancore::detail::cpu
