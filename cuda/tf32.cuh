// fp32 numbers as sums of two TF32 numbers (ptx.cuh): x alpha = high high + high low + low high, to within 2^-21, is
// then three products on tensor cores. docs/numerics.md derives the bounds.
//
// Kernels keep the sums of the small products, the last two, apart until the end: tensor cores cut off what they add,
// which of small sums is little.
#pragma once

#include "ptx.cuh"

namespace leancore::detail::cuda {

// high + low is x to within 2^-23 |x|, both as products read them. An infinity's rest is not a number; neither is that
// of a NaN, of which high may be anything.
struct Tf32Pair {
  std::uint32_t high, low;
};
__device__ __forceinline__ Tf32Pair split_to_tf32(float x) {
  const std::uint32_t high = (__float_as_uint(x) + 0x1000) & 0xffffe000;
  return {high, __float_as_uint(x - __uint_as_float(high))};
}

// The whole sum. What has become infinite has a rest that is not a number.
__device__ __forceinline__ void add_rest(float& sum, float rest) {
  if (!isinf(sum)) sum += rest;
}

}  // namespace leancore::detail::cuda
