#include "cpu/isa.hpp"

#define LEANCORE_VECTOR_BYTES 64

namespace leancore::detail::cpu {
namespace {
#include "cpu/family.inl"
}  // namespace
}  // namespace leancore::detail::cpu

namespace leancore::detail::cpu {

constinit const Implementation generic512 = {
    "generic512",
    "512-bit vectors of the baseline instruction set, for tests",
    DeviceType::cpu,
    [] { return true; },
    family_supports,
    workspace_bytes,
    run,
};

}  // namespace leancore::detail::cpu
