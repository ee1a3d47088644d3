// What the loops use from outside, included before the target region of each instruction set opens.
#pragma once

#include <cstddef>
#include <cstdint>
#if defined(LEANCORE_X86_64)
#include <immintrin.h>
#endif

#include "limits/limits.hpp"

namespace leancore::detail::limits {

extern const LimitLoops generic;  // the baseline: SSE2 on x86-64, NEON on aarch64
extern const LimitLoops avx2;     // x86-64 with AVX2 and FMA
extern const LimitLoops avx512;   // x86-64 with AVX-512 F

}  // namespace leancore::detail::limits
