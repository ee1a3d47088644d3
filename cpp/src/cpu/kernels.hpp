// The vectorised kernels: one family (drive.inl and the files it includes), compiled once per instruction set.
#pragma once

#include "implementations.hpp"

namespace leancore::detail::cpu {

extern const Implementation generic;  // 128-bit vectors of the baseline: SSE2 on x86-64, NEON on aarch64
extern const Implementation avx2;     // x86-64 with AVX2 and FMA
extern const Implementation avx512;   // x86-64 with AVX-512 F, BW, DQ, VL

}  // namespace leancore::detail::cpu
