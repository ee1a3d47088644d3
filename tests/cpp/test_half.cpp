// The scalar conversions of the 16-bit types: every bit pattern, and around every point where the rounding changes.
#include "half.hpp"

#include <limits>

#include "support.hpp"

namespace {

// The definition: (-1)^sign 2^(exponent - bias) 1.fraction, and multiples of the smallest subnormal below that.
template <int exponent_bits, int fraction_bits>
double value_of(int bits) {
  constexpr int bias = (1 << (exponent_bits - 1)) - 1, fractions = 1 << fraction_bits;
  const int exponent = (bits & 0x7fff) / fractions, fraction = bits % fractions;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 2 * bias + 1) return sign * (fraction ? std::nan("") : std::numeric_limits<double>::infinity());
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - bias - fraction_bits);
  return sign * std::ldexp(fractions + fraction, exponent - bias - fraction_bits);
}

template <typename T, int exponent_bits, int fraction_bits>
void check_format(const char* name) {
  constexpr int infinity = ((1 << exponent_bits) - 1) << fraction_bits;
  const auto value = value_of<exponent_bits, fraction_bits>;
  const auto widened = [](int bits) {
    T half;
    half.bits = static_cast<std::uint16_t>(bits);
    return static_cast<double>(half);
  };
  for (int bits = 0; bits < 0x10000; ++bits) {
    if ((bits & 0x7fff) > infinity) {
      const int back = T(widened(bits)).bits;
      CHECK(std::isnan(widened(bits)) && (back == (bits | 1 << (fraction_bits - 1))), "%s %04x: %04x", name, bits,
            back);
    } else {
      CHECK(widened(bits) == value(bits) && T(widened(bits)).bits == bits, "%s %04x: %g", name, bits, widened(bits));
    }
  }
  // Between neighbours: the middle goes to the even one, everything else to the nearer. The neighbour of the largest
  // number is what would come after it with a larger exponent range, and stands for infinity.
  for (int low = 0; low < infinity; ++low) {
    const double after = low + 1 < infinity ? value(low + 1) : std::ldexp(1, 1 << (exponent_bits - 1));
    const double middle = (value(low) + after) / 2;
    const int even = low % 2 == 0 ? low : low + 1;
    for (const double sign : {1.0, -1.0}) {
      const int bit = sign < 0 ? 0x8000 : 0;
      CHECK(T(sign * middle).bits == (even | bit), "%s: the middle above %04x", name, low);
      CHECK(T(sign * std::nextafter(middle, 0)).bits == (low | bit), "%s: below the middle above %04x", name, low);
      CHECK(T(sign * std::nextafter(middle, after)).bits == ((low + 1) | bit), "%s: above the middle above %04x", name,
            low);
    }
  }
  constexpr double huge = std::numeric_limits<double>::max(), tiny = std::numeric_limits<double>::denorm_min();
  CHECK(T(huge).bits == infinity && T(-std::numeric_limits<double>::infinity()).bits == (infinity | 0x8000), "%s",
        name);
  CHECK(T(tiny).bits == 0 && T(-tiny).bits == 0x8000 && T(-0.0) == T(0.0), "%s", name);
  CHECK(!(T(std::nan("")) == T(std::nan(""))), "%s", name);
}

}  // namespace

int main() {
  check_format<leancore::detail::f16, 5, 10>("f16");
  check_format<leancore::detail::bf16, 8, 7>("bf16");
  return test::summary("half");
}
