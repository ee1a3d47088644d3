#include "limits/loops.hpp"

#define LEANCORE_VECTOR_BYTES 32
#define LEANCORE_CHAINS 14
#define LEANCORE_STREAM(pointer, vector) _mm256_stream_ps(reinterpret_cast<float*>(pointer), (__m256)(vector))
#define LEANCORE_FENCE _mm_sfence

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace leancore::detail::limits {
namespace {
#include "limits/loops.inl"
}  // namespace
}  // namespace leancore::detail::limits
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace leancore::detail::limits {

constinit const LimitLoops avx2 = {
    "avx2",
    [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); },
    multiply_add<float>,
    multiply_add<double>,
    flops_per_round<float>,
    flops_per_round<double>,
    copy<false>,
    copy<true>,
};

}  // namespace leancore::detail::limits
