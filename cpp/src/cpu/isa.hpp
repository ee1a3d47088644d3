// Everything that the kernels use from outside, included by each instruction set's file before its target region opens:
// what is compiled inside the region must not leak into functions that other files share.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#include "cpu/kernels.hpp"
#include "cpu/plan.hpp"
#include "cpu/problem.hpp"
#include "cpu/workspace.hpp"
#include "half.hpp"
#include "parallel.hpp"

namespace leancore::detail::cpu {

// What every instruction set of this family supports; the rest is the reference's.
bool family_supports(Operation operation, const ConvDesc& desc);

// Whether the channels of a position are contiguous on both sides, so that channels-last kernels apply.
bool is_channels_last(Operation operation, const ConvDesc& desc);

// Whether products of pairs of bf16 can run the call, and are faster (docs/performance.md).
bool takes_pairs(Operation operation, const ConvDesc& desc);

// Where the weights' gradients go.
struct WeightStrides {
  std::int64_t dalpha[2], dc[2];
};
inline WeightStrides weight_strides(const ConvDesc& d, bool of_gradients) {
  const std::int64_t* alpha = of_gradients ? d.dalpha_strides : d.alpha_strides;
  const std::int64_t* c = of_gradients ? d.dc_strides : d.c_strides;
  return {{alpha[0], alpha[1]}, {c[0], c[1]}};
}

}  // namespace leancore::detail::cpu
