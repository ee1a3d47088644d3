// Element types of arrays, and the type that their sums are taken in.
//
// Numeric contract: products of 16-bit elements are exact in fp32, sums are taken in fp32 (fp64 for fp64), results are
// rounded once, to nearest with ties to even.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace leancore::detail::cuda {

template <typename T>
struct Element {  // float and double
  using Sum = T;
  static __device__ Sum widen(T value) { return value; }
  static __device__ T round(Sum value) { return value; }
};

template <>
struct Element<__half> {
  using Sum = float;
  static __device__ Sum widen(__half value) { return __half2float(value); }
  static __device__ __half round(Sum value) { return __float2half_rn(value); }
};

template <>
struct Element<__nv_bfloat16> {
  using Sum = float;
  static __device__ Sum widen(__nv_bfloat16 value) { return __bfloat162float(value); }
  static __device__ __nv_bfloat16 round(Sum value) { return __float2bfloat16_rn(value); }
};

// A sum of many terms whose rounding errors are themselves summed (TwoSum), so that its error does not grow with their
// number.
template <typename Sum>
struct LongSum {
  Sum sum = 0, rest = 0;

  __device__ void add(Sum term) {
    const Sum next = sum + term, added = next - sum;
    rest += (sum - (next - added)) + (term - added);
    sum = next;
  }
  // An infinite sum leaves a rest that is not a number.
  [[nodiscard]] __device__ Sum value() const {
    const Sum total = sum + rest;
    return rest == rest ? total : sum;
  }
};

}  // namespace leancore::detail::cuda
