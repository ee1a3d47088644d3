#include "cpu/isa.hpp"

#define LEANCORE_AVX512
#define LEANCORE_VECTOR_BYTES 64

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
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

constinit const Implementation avx512 = {
    "avx512",
    "512-bit vectors, AVX-512 F, BW, DQ and VL",
    DeviceType::cpu,
    [] {
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    },
    family_supports,
    workspace_bytes,
    run,
};

}  // namespace leancore::detail::cpu
