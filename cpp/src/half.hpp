// The 16-bit element types: IEEE 754 half precision and bfloat16, as memory and as scalar conversions.
//
// Numeric contract of every implementation: a product of two of them is exact in fp32 (barring underflow there), sums
// are taken in fp32 or wider, and the result is rounded once, to nearest with ties to even, when it is stored.
#pragma once

#include <bit>
#include <cstdint>

namespace leancore::detail {

// The 16 bits of the value nearest to `value`, ties to even, in the binary format of so many exponent and fraction
// bits. One rounding, subnormals included; what is too large becomes infinite; a NaN stays one and becomes quiet.
template <int exponent_bits, int fraction_bits>
constexpr std::uint16_t round_to_half(double value) noexcept {
  static_assert(1 + exponent_bits + fraction_bits == 16);
  constexpr int wide_fraction_bits = 52, wide_bias = 1023, bias = (1 << (exponent_bits - 1)) - 1;
  constexpr std::uint64_t one = 1, wide_fraction = (one << wide_fraction_bits) - 1,
                          wide_infinity = ~(one << 63) - wide_fraction;
  constexpr std::uint64_t infinity = ((one << exponent_bits) - 1) << fraction_bits;

  const auto bits = std::bit_cast<std::uint64_t>(value);
  const std::uint64_t sign = bits >> 63 << 15, magnitude = bits & ~(one << 63);
  std::uint64_t result = infinity;
  if (magnitude > wide_infinity) {
    const std::uint64_t payload = (bits & wide_fraction) >> (wide_fraction_bits - fraction_bits);
    result |= payload | one << (fraction_bits - 1);
  } else {
    // The power of two of the leading bit, and how far below the format's normal range it lies.
    const int exponent = static_cast<int>(magnitude >> wide_fraction_bits) - wide_bias;
    const int below = exponent < 1 - bias ? 1 - bias - exponent : 0;
    if (below > fraction_bits + 1) {
      result = 0;  // less than half the smallest subnormal
    } else if (exponent <= bias) {
      const std::uint64_t significand = (magnitude & wide_fraction) | one << wide_fraction_bits;
      const int shift = wide_fraction_bits - fraction_bits + below;
      const std::uint64_t rest = significand & ((one << shift) - 1), tie = one << (shift - 1);
      result = significand >> shift;
      // The leading bit is the lowest bit of a normal number's exponent; carries go where they should.
      if (below == 0) result += static_cast<std::uint64_t>(exponent + bias - 1) << fraction_bits;
      if (rest > tie || (rest == tie && result % 2 == 1)) ++result;
    }
  }
  return static_cast<std::uint16_t>(sign | result);
}

// Comparison is that of the values: -0 == 0, and a NaN equals nothing.
struct f16 {
  std::uint16_t bits;

  f16() = default;
  explicit constexpr f16(double value) noexcept : bits(round_to_half<5, 10>(value)) {}
  explicit constexpr operator float() const noexcept {
    const std::uint32_t sign = std::uint32_t{bits} >> 15 << 31, magnitude = bits & 0x7fffu;
    if (magnitude < 0x0400) {  // subnormal: multiples of 2^-24
      return std::bit_cast<float>(std::bit_cast<std::uint32_t>(static_cast<float>(magnitude) * 0x1p-24f) | sign);
    }
    const std::uint32_t rebias = magnitude < 0x7c00 ? 127 - 15 : 255 - 31;
    return std::bit_cast<float>(sign | ((magnitude << 13) + (rebias << 23)));
  }
  explicit constexpr operator double() const noexcept { return static_cast<float>(*this); }
  friend constexpr bool operator==(f16 a, f16 b) noexcept { return static_cast<float>(a) == static_cast<float>(b); }
};

struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  explicit constexpr bf16(double value) noexcept : bits(round_to_half<8, 7>(value)) {}
  explicit constexpr operator float() const noexcept { return std::bit_cast<float>(std::uint32_t{bits} << 16); }
  explicit constexpr operator double() const noexcept { return static_cast<float>(*this); }
  friend constexpr bool operator==(bf16 a, bf16 b) noexcept { return static_cast<float>(a) == static_cast<float>(b); }
};

}  // namespace leancore::detail
