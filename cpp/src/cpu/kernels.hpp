// The vectorised kernels: one family (family.inl and the files it includes), compiled once per instruction set.
#pragma once

#include "implementations.hpp"

namespace leancore::detail::cpu {

extern const Implementation generic;      // 128-bit vectors of the baseline: SSE2 on x86-64, NEON on aarch64
extern const Implementation avx2;         // x86-64 with AVX2 and FMA
extern const Implementation avx512;       // x86-64 with AVX-512 F, BW, DQ, VL
extern const Implementation avx512_bf16;  // and BF16

// Builds with LEANCORE_TEST_ISAS alone: vectors wider than the baseline's registers, which the compiler splits, so that
// any processor can test what the kernels do differently when vectors are wide.
extern const Implementation generic256;
extern const Implementation generic512;
extern const Implementation generic512_bf16;

}  // namespace leancore::detail::cpu
