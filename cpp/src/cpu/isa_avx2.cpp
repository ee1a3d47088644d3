#include "cpu/isa.hpp"

#define LEANCORE_AVX2
#define LEANCORE_VECTOR_BYTES 32

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
namespace leancore::detail::cpu {
namespace {
#include "cpu/family.inl"
}  // namespace
}  // namespace leancore::detail::cpu
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace leancore::detail::cpu {
namespace {

// __builtin_cpu_supports does not know of F16C before clang 15.
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

constinit const Implementation avx2 = {
    "avx2",
    "256-bit vectors, AVX2, FMA and F16C",
    DeviceType::cpu,
    [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); },
    family_supports,
    workspace_bytes,
    run,
};

}  // namespace leancore::detail::cpu
