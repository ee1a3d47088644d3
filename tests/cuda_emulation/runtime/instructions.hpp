// What the C++ of a translated module is made of: one function for each row of the instruction table.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "memory.hpp"
#include "numbers.hpp"
#include "registry.hpp"
#include "warp.hpp"

namespace emulation {

template <typename T>
T get(const unsigned char* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename T>
void put(unsigned char* to, T value) {
  std::memcpy(to, &value, sizeof value);
}

// -- integers: they wrap around

template <typename T>
using Unsigned = std::make_unsigned_t<T>;
// Arithmetic on types below int would be promoted to a signed type.
template <typename T>
using Wide = std::conditional_t<(sizeof(T) < 4), u32, Unsigned<T>>;
template <typename T>
using Double =
    std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>,
                       std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, s64, u64>,
                                          std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

template <typename T>
constexpr T add(T a, T b) {
  return static_cast<T>(Wide<T>(a) + Wide<T>(b));
}
template <typename T>
constexpr T sub(T a, T b) {
  return static_cast<T>(Wide<T>(a) - Wide<T>(b));
}
template <typename T>
constexpr T multiply_high(T a, T b) {
  return static_cast<T>((Double<T>(a) * Double<T>(b)) >> (8 * sizeof(T)));
}
// The device does not trap: the quotient of a division by zero has all bits set.
template <typename T>
constexpr T divide(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return sub<T>(0, a);
  return static_cast<T>(a / b);
}
template <typename T>
constexpr T remainder(T a, T b) {
  if (b == 0) return a;
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
  return static_cast<T>(a % b);
}
template <typename T>
constexpr T absolute(T a) {
  return a < 0 ? sub<T>(0, a) : a;
}

// -- bits

template <typename T>
constexpr T shift_shl(T a, u32 amount) {
  return amount >= 8 * sizeof(T) ? T{0} : static_cast<T>(Wide<T>(a) << amount);
}
template <typename T>
constexpr T shift_shr(T a, u32 amount) {
  if (amount >= 8 * sizeof(T)) return a < 0 ? static_cast<T>(-1) : T{0};
  return static_cast<T>(a >> amount);
}
constexpr u32 funnel_l(u32 low, u32 high, u32 amount) {
  return static_cast<u32>(((u64{high} << 32 | low) << amount) >> 32);
}
constexpr u32 funnel_r(u32 low, u32 high, u32 amount) {
  return static_cast<u32>((u64{high} << 32 | low) >> amount);
}
constexpr u32 funnel_l_wrap(u32 low, u32 high, u32 amount) {
  return funnel_l(low, high, amount & 31);
}
constexpr u32 funnel_r_wrap(u32 low, u32 high, u32 amount) {
  return funnel_r(low, high, amount & 31);
}
constexpr u32 funnel_l_clamp(u32 low, u32 high, u32 amount) {
  return funnel_l(low, high, std::min(amount, 32u));
}
constexpr u32 funnel_r_clamp(u32 low, u32 high, u32 amount) {
  return funnel_r(low, high, std::min(amount, 32u));
}

template <typename T>
constexpr T extract_bits(T a, u32 position, u32 length) {
  constexpr u32 highest = 8 * sizeof(T) - 1;
  position &= 255;
  length &= 255;
  const bool filler = std::is_signed_v<T> && length != 0 && (a >> std::min(position + length - 1, highest) & 1);
  T result = 0;
  for (u32 i = 0; i <= highest; ++i) {
    const bool bit = i < length && position + i <= highest ? (a >> (position + i) & 1) : filler;
    result = static_cast<T>(result | static_cast<T>(Unsigned<T>(bit) << i));
  }
  return result;
}
template <typename T>
constexpr T insert_bits(T a, T b, u32 position, u32 length) {
  position &= 255;
  length &= 255;
  for (u32 i = 0; i < length && position + i < 8 * sizeof(T); ++i) {
    const T bit = static_cast<T>(T{1} << (position + i));
    b = static_cast<T>((a >> i & 1) ? b | bit : b & ~bit);
  }
  return b;
}
template <typename T>
constexpr T reverse_bits(T a) {
  T result = 0;
  for (u32 i = 0; i < 8 * sizeof(T); ++i) result = static_cast<T>(result << 1 | (a >> i & 1));
  return result;
}
// The highest bit that differs from the sign, or how far it must be shifted to get to the top.
template <typename T>
constexpr u32 find_bit(T a, bool as_shift) {
  const auto bits = static_cast<Unsigned<T>>(a < 0 ? ~a : a);
  if (bits == 0) return ~0u;
  const u32 zeros = static_cast<u32>(std::countl_zero(bits));
  return as_shift ? zeros : static_cast<u32>(8 * sizeof(T) - 1) - zeros;
}
// Bit by bit the entry of the table at a, b, c.
[[gnu::always_inline]] constexpr u32 lop3(u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (u32 entry = 0; entry < 8; ++entry) {
    if (table >> entry & 1) result |= (entry & 4 ? a : ~a) & (entry & 2 ? b : ~b) & (entry & 1 ? c : ~c);
  }
  return result;
}
constexpr u32 permute_bytes(u32 a, u32 b, u32 selectors) {
  const u64 bytes = u64{b} << 32 | a;
  u32 result = 0;
  for (u32 i = 0; i < 4; ++i) {
    const u32 selector = selectors >> 4 * i & 15;
    u32 byte = bytes >> 8 * (selector & 7) & 255;
    if (selector & 8) byte = byte & 128 ? 255 : 0;
    result |= byte << 8 * i;
  }
  return result;
}
template <typename T, typename... Parts>
constexpr T join(Parts... parts) {
  T result = 0;
  u32 shift = 0;
  ((result = static_cast<T>(result | T{parts} << shift), shift += 8 * sizeof(Parts)), ...);
  return result;
}

// -- comparisons that C++ has no sign for; those that end in u hold if a number is NaN

#define COMPARE(name, operation)              \
  template <typename T>                       \
  constexpr bool compare_##name(T a, T b) {   \
    return a != a || b != b || a operation b; \
  }
COMPARE(equ, ==)
COMPARE(ltu, <)
COMPARE(leu, <=)
COMPARE(gtu, >)
COMPARE(geu, >=)
#undef COMPARE
template <typename T>
constexpr bool compare_ne(T a, T b) {
  return a == a && b == b && a != b;
}
template <typename T>
constexpr bool compare_neu(T a, T b) {
  return a != b;
}
template <typename T>
constexpr bool compare_num(T a, T b) {
  return a == a && b == b;
}
template <typename T>
constexpr bool compare_nan(T a, T b) {
  return a != a || b != b;
}
// -- floating point

// The number if one of the two is NaN, unless NaN is asked for; -0 is below +0.
template <typename T>
T min_real(T a, T b, bool nan_wins) {
  if (a != a || b != b) return nan_wins || (a != a && b != b) ? std::numeric_limits<T>::quiet_NaN() : a != a ? b : a;
  return a < b || (a == b && std::signbit(a)) ? a : b;
}
template <typename T>
T max_real(T a, T b, bool nan_wins) {
  if (a != a || b != b) return nan_wins || (a != a && b != b) ? std::numeric_limits<T>::quiet_NaN() : a != a ? b : a;
  return a > b || (a == b && !std::signbit(a)) ? a : b;
}
template <Rounding mode>
f32 fma_directed(f32 a, f32 b, f32 c) {
  return std::bit_cast<f32>(round_f64<F32, mode>(fma_to_odd(a, b, c)));
}
template <Rounding mode>
f32 mul_directed(f32 a, f32 b) {
  return std::bit_cast<f32>(round_f64<F32, mode>(f64{a} * f64{b}));
}
// Where the device only promises an approximation, this is a better one: kernels must not count on its last bits.
inline f32 approximate_rcp(f32 x) {
  return 1 / x;
}
inline f32 approximate_sqrt(f32 x) {
  return std::sqrt(x);
}
inline f32 approximate_rsqrt(f32 x) {
  return static_cast<f32>(1 / std::sqrt(f64{x}));
}
inline f32 approximate_ex2(f32 x) {
  return static_cast<f32>(std::exp2(f64{x}));
}
inline f32 approximate_lg2(f32 x) {
  return static_cast<f32>(std::log2(f64{x}));
}
inline f32 approximate_sin(f32 x) {
  return static_cast<f32>(std::sin(f64{x}));
}
inline f32 approximate_cos(f32 x) {
  return static_cast<f32>(std::cos(f64{x}));
}
inline f32 approximate_tanh(f32 x) {
  return static_cast<f32>(std::tanh(f64{x}));
}
inline f32 flush(f32 x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

template <typename T>
bool test_finite(T x) {
  return std::isfinite(x);
}
template <typename T>
bool test_infinite(T x) {
  return std::isinf(x);
}
template <typename T>
bool test_number(T x) {
  return !std::isnan(x);
}
template <typename T>
bool test_notanumber(T x) {
  return std::isnan(x);
}
template <typename T>
bool test_normal(T x) {
  return std::isnormal(x);
}
template <typename T>
bool test_subnormal(T x) {
  return std::fpclassify(x) == FP_SUBNORMAL;
}

// -- halves, by their bits

template <typename F>
u16 half_fma(u16 a, u16 b, u16 c) {
  return round_f64<F, Rounding::rn>(fma_to_odd(half_value<F>(a), half_value<F>(b), half_value<F>(c)));
}
template <typename F>
u16 half_add(u16 a, u16 b) {
  return round_f64<F, Rounding::rn>(fma_to_odd(half_value<F>(a), 1, half_value<F>(b)));
}
template <typename F>
u16 half_neg(u16 a) {
  return a ^ F::sign;
}
template <typename F>
u16 half_abs(u16 a) {
  return static_cast<u16>(a & ~F::sign);
}
template <typename F>
u16 half_sub(u16 a, u16 b) {
  return half_add<F>(a, half_neg<F>(b));
}
template <typename F>
u16 half_mul(u16 a, u16 b) {
  return round_f64<F, Rounding::rn>(f64{half_value<F>(a)} * f64{half_value<F>(b)});
}
template <typename F>
u16 relu(u16 a) {
  const f32 value = half_value<F>(a);
  return value != value ? F::nan : value > 0 ? a : u16{0};
}
template <typename F>
u16 half_fma_relu(u16 a, u16 b, u16 c) {
  return relu<F>(half_fma<F>(a, b, c));
}
template <typename F, bool nan_wins>
u16 half_min(u16 a, u16 b) {
  return round_f64<F, Rounding::rn>(min_real(half_value<F>(a), half_value<F>(b), nan_wins));
}
template <typename F, bool nan_wins>
u16 half_max(u16 a, u16 b) {
  return round_f64<F, Rounding::rn>(max_real(half_value<F>(a), half_value<F>(b), nan_wins));
}
template <auto operation, typename... Pairs>
u32 for_both(Pairs... pairs) {
  const u32 low = operation(static_cast<u16>(pairs)...), high = operation(static_cast<u16>(pairs >> 16)...);
  return high << 16 | low;
}

// -- conversions

template <typename T, typename S>
constexpr T saturate(S value) {
  using Limits = std::numeric_limits<T>;
  if (std::cmp_less(value, Limits::min())) return Limits::min();
  if (std::cmp_greater(value, Limits::max())) return Limits::max();
  return static_cast<T>(value);
}
template <typename T>
T round_rn(T x) {
  return std::nearbyint(x);
}
template <typename T>
T round_rz(T x) {
  return std::trunc(x);
}
template <typename T>
T round_rm(T x) {
  return std::floor(x);
}
template <typename T>
T round_rp(T x) {
  return std::ceil(x);
}
// From a whole number; what does not fit becomes the nearest that does, NaN zero.
template <typename T, typename S>
T to_integer(S x) {
  using Limits = std::numeric_limits<T>;
  if (x != x) return 0;
  if (x <= static_cast<S>(Limits::min())) return Limits::min();
  if (x >= static_cast<S>(Limits::max())) return Limits::max();
  return static_cast<T>(x);
}
inline f32 saturate_unit(f32 x) {
  return x > 0 ? std::min(x, 1.0f) : 0.0f;
}
template <typename F, Rounding mode>
u32 round_pair(f32 high, f32 low) {
  return u32{round_f64<F, mode>(high)} << 16 | round_f64<F, mode>(low);
}
template <typename F, typename S>
u16 round_integer(S value) {
  return round_f64<F, Rounding::rn>(static_cast<f64>(value));
}

// -- what redux and atomic updates do

struct Reduce_add {
  template <typename T>
  static T apply(T a, T b) {
    return static_cast<T>(Wide<T>(a) + Wide<T>(b));
  }
};
struct Reduce_min {
  template <typename T>
  static T apply(T a, T b) {
    return std::min(a, b);
  }
};
struct Reduce_max {
  template <typename T>
  static T apply(T a, T b) {
    return std::max(a, b);
  }
};
struct Reduce_and {
  static u32 apply(u32 a, u32 b) { return a & b; }
};
struct Reduce_or {
  static u32 apply(u32 a, u32 b) { return a | b; }
};
struct Reduce_xor {
  static u32 apply(u32 a, u32 b) { return a ^ b; }
};

struct Update_add {
  template <typename T>
  static T apply(T old, T value) {
    if constexpr (std::is_floating_point_v<T>) {
      return old + value;
    } else {
      return add<T>(old, value);
    }
  }
};
struct Update_min {
  template <typename T>
  static T apply(T old, T value) {
    return std::min(old, value);
  }
};
struct Update_max {
  template <typename T>
  static T apply(T old, T value) {
    return std::max(old, value);
  }
};
struct Update_and {
  template <typename T>
  static T apply(T old, T value) {
    return old & value;
  }
};
struct Update_or {
  template <typename T>
  static T apply(T old, T value) {
    return old | value;
  }
};
struct Update_xor {
  template <typename T>
  static T apply(T old, T value) {
    return old ^ value;
  }
};
struct Update_exch {
  template <typename T>
  static T apply(T, T value) {
    return value;
  }
};
struct Update_inc {
  static u32 apply(u32 old, u32 limit) { return old >= limit ? 0 : old + 1; }
};
struct Update_dec {
  static u32 apply(u32 old, u32 limit) { return old == 0 || old > limit ? limit : old - 1; }
};

template <typename T, typename Operation>
T update(unsigned char* where, T value) {
  const T old = get<T>(where);
  put<T>(where, Operation::apply(old, value));
  return old;
}
template <typename T>
T compare_and_swap(unsigned char* where, T expected, T desired) {
  const T old = get<T>(where);
  if (old == expected) put<T>(where, desired);
  return old;
}

}  // namespace emulation
