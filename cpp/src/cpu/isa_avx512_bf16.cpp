#include "cpu/isa.hpp"

#define LEANCORE_AVX512
#define LEANCORE_AVX512_BF16
#define LEANCORE_VECTOR_BYTES 64

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")
#endif
namespace leancore::detail::cpu {
namespace {
#include "cpu/paired.inl"
}  // namespace
}  // namespace leancore::detail::cpu
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace leancore::detail::cpu {

// Whatever has no use for the instruction is run by avx512.
constinit const Implementation avx512_bf16 = {
    "avx512_bf16",
    "512-bit vectors, AVX-512 F, BW, DQ, VL and BF16",
    DeviceType::cpu,
    [] { return avx512.available() && __builtin_cpu_supports("avx512bf16"); },
    family_supports,
    [](Operation operation, const ConvDesc& d, int threads) {
      return takes_pairs(operation, d) ? workspace_bytes(operation, d, threads)
                                       : avx512.workspace_bytes(operation, d, threads);
    },
    [](Operation operation, const ConvDesc& d, const Arguments& arguments, const Context& context, void* workspace,
       int threads) {
      const auto run_it = takes_pairs(operation, d) ? run : avx512.run;
      return run_it(operation, d, arguments, context, workspace, threads);
    },
    takes_pairs,
};

}  // namespace leancore::detail::cpu
