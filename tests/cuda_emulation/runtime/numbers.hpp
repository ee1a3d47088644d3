// Number formats of the device and the rounding into them, by bits and exact.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>

#include "types.hpp"

namespace emulation {

// To nearest even, toward zero, down, up, to nearest with ties away from zero.
enum class Rounding { rn, rz, rm, rp, rna };

// A binary format: bits of the fraction and bias of the exponent, kept in the high bits of Bits. TF32 has the bits of
// an f32 of which the last 13 are zero.
template <typename Bits_, int fraction_, int bias_, int padding_>
struct Format {
  using Bits = Bits_;
  static constexpr int fraction = fraction_, bias = bias_, padding = padding_;
  static constexpr u64 infinity = u64(2 * bias_ + 1) << fraction_;  // before padding
  static constexpr Bits sign = Bits(Bits{1} << (8 * sizeof(Bits) - 1));
  static constexpr Bits nan = Bits(sign - 1);  // the one that the device gives
};
using F32 = Format<u32, 23, 127, 0>;
using TF32 = Format<u32, 10, 127, 13>;
using F16 = Format<u16, 10, 15, 0>;
using BF16 = Format<u16, 7, 127, 0>;

template <typename F, Rounding mode>
constexpr typename F::Bits round_f64(f64 value) {
  using Bits = typename F::Bits;
  const u64 bits = std::bit_cast<u64>(value);
  const bool negative = bits >> 63;
  const Bits sign = negative ? F::sign : Bits{0};
  const int exponent = static_cast<int>(bits >> 52 & 0x7ff);
  u64 mantissa = bits & ((u64{1} << 52) - 1);
  if (exponent == 0x7ff) return mantissa ? F::nan : Bits(sign | Bits(F::infinity << F::padding));
  if (exponent != 0) mantissa |= u64{1} << 52;

  int target = exponent - 1023 + F::bias, drop = 52 - F::fraction;
  if (target < 1) {  // subnormal: fewer bits stay
    drop = std::min(drop + 1 - target, 63);
    target = 1;
  }
  const u64 kept = mantissa >> drop, rest = mantissa & ((u64{1} << drop) - 1), half = u64{1} << (drop - 1);
  bool up = false;
  switch (mode) {
    case Rounding::rn:
      up = rest > half || (rest == half && (kept & 1));
      break;
    case Rounding::rna:
      up = rest >= half;
      break;
    case Rounding::rz:
      break;
    case Rounding::rm:
      up = negative && rest != 0;
      break;
    case Rounding::rp:
      up = !negative && rest != 0;
      break;
  }
  // The hidden bit adds one to the exponent; so does a carry.
  u64 result = (static_cast<u64>(target - 1) << F::fraction) + kept + up;
  if (result >= F::infinity) {
    const bool to_infinity = mode == Rounding::rn || mode == Rounding::rna || (mode == Rounding::rm && negative) ||
                             (mode == Rounding::rp && !negative);
    result = F::infinity - !to_infinity;
  }
  return Bits(sign | Bits(result << F::padding));
}

// The value of an f16 or bf16.
template <typename F>
f32 half_value(u16 bits);
template <>
inline f32 half_value<BF16>(u16 bits) {
  return std::bit_cast<f32>(u32{bits} << 16);
}
template <>
inline f32 half_value<F16>(u16 bits) {
  const u32 sign = u32{bits} >> 15 << 31, exponent = bits >> 10 & 31, fraction = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<f32>(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) {
    const f32 magnitude = static_cast<f32>(fraction) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<f32>(sign | (exponent + 112) << 23 | fraction << 13);
}

// a b + c, rounded to odd: the last bit tells whether more would follow, so that rounding the result once more, to any
// format of at most 51 bits, gives what rounding the exact value gives. a b must be exact.
inline f64 fma_to_odd(f64 a, f64 b, f64 c) {
  const f64 product = a * b, sum = product + c;
  if (!std::isfinite(sum)) return sum;
  const f64 part = sum - product;
  const f64 error = (product - (sum - part)) + (c - part);
  u64 bits = std::bit_cast<u64>(sum);
  if (error == 0 || (bits & 1)) return sum;
  // Away from zero if the error has the sum's sign, toward zero otherwise.
  bits += (error > 0) == (sum > 0) ? 1 : -1;
  return std::bit_cast<f64>(bits);
}

}  // namespace emulation
