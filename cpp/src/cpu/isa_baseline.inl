// A row of the registry in the baseline instruction set, with vectors of LEANCORE_VECTOR_BYTES, named LEANCORE_ROW.

namespace leancore::detail::cpu {
namespace {
#include "cpu/family.inl"
}  // namespace

#define LEANCORE_TEXT_OF(name) #name
#define LEANCORE_TEXT(name) LEANCORE_TEXT_OF(name)
constinit const Implementation LEANCORE_ROW = {
    LEANCORE_TEXT(LEANCORE_ROW),
    LEANCORE_DESCRIPTION,
    DeviceType::cpu,
    [] { return true; },
    family_supports,
    workspace_bytes,
    run,
};

}  // namespace leancore::detail::cpu
