#include "limits/loops.hpp"

#define LEANCORE_VECTOR_BYTES 64
#define LEANCORE_CHAINS 24
#define LEANCORE_STREAM(pointer, vector) _mm512_stream_ps(reinterpret_cast<float*>(pointer), (__m512)(vector))
#define LEANCORE_FENCE _mm_sfence

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,fma")
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

constinit const LimitLoops avx512 = {
    "avx512",
    [] { return __builtin_cpu_supports("avx512f") != 0; },
    multiply_add<float>,
    multiply_add<double>,
    flops_per_round<float>,
    flops_per_round<double>,
    copy<false>,
    copy<true>,
};

}  // namespace leancore::detail::limits
