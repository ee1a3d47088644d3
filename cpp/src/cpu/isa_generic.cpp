#include "cpu/isa.hpp"

#define LEANCORE_VECTOR_BYTES 16

namespace leancore::detail::cpu {
namespace {
#include "cpu/family.inl"
}  // namespace
}  // namespace leancore::detail::cpu

namespace leancore::detail::cpu {

constinit const Implementation generic = {
    "generic",
    "128-bit vectors of the baseline instruction set",
    DeviceType::cpu,
    [] { return true; },
    family_supports,
    workspace_bytes,
    run,
};

}  // namespace leancore::detail::cpu
