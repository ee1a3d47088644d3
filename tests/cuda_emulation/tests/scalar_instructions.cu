// Every instruction of one thread, one by one: a kernel with its PTX, run on all combinations of telling values,
// against its meaning written out on the host.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <limits>

#include "support.cuh"

namespace {

using u16 = std::uint16_t;
using s16 = std::int16_t;
using u32 = std::uint32_t;
using s32 = std::int32_t;
using u64 = std::uint64_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;

// Halves are their bits; the types tell which values to try and how to compare.
struct f16 {
  u16 bits;
};
struct bf16 {
  u16 bits;
};
struct f16x2 {
  u32 bits;
};
struct bf16x2 {
  u32 bits;
};

// -- telling values

template <typename T>
std::vector<T> values(int = 0) {
  std::vector<T> list;
  for (const u64 v : {0x0ull,
                      0x1ull,
                      0x2ull,
                      0x3ull,
                      0x7ull,
                      0x1full,
                      0x20ull,
                      0x21ull,
                      0x3full,
                      0x64ull,
                      0xffull,
                      0x7fffull,
                      0x8000ull,
                      0xffffull,
                      0x12345678ull,
                      0x7fffffffull,
                      0x80000000ull,
                      0xdeadbeefull,
                      0xffffffffull,
                      0x7fffffffffffffffull,
                      0x8000000000000000ull,
                      0x123456789abcdef0ull,
                      0xffffffffffffff85ull,
                      0xffffffffffffffffull}) {
    const T value = static_cast<T>(v);
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
  }
  return list;
}
template <>
std::vector<f32> values<f32>(int) {
  const f32 inf = std::numeric_limits<f32>::infinity();
  std::vector<f32> list = {0.0f,           1.0f,          0.5f,
                           1.5f,           2.5f,          3.25f,
                           0.1f,           1e-40f,        1.17549435e-38f,
                           3.4028235e38f,  65504.0f,      65519.9f,
                           65520.0f,       6e-8f,         2.98e-8f,
                           1e10f,          2147483520.0f, 2147483648.0f,
                           4294967296.0f,  1e20f,         0.999f,
                           1.00048828125f, 1.001464844f,  1.00390625f,
                           1.01171875f,    32767.5f,      inf};
  for (std::size_t i = 0, n = list.size(); i < n; ++i) list.push_back(-list[i]);
  list.push_back(std::numeric_limits<f32>::quiet_NaN());
  return list;
}
template <>
std::vector<f64> values<f64>(int) {
  std::vector<f64> list;
  for (const f32 v : values<f32>()) list.push_back(v);
  for (const f64 v :
       {0x1.000000000001p0, 0x1.ffffffffffffp30, 1e300, 1e-310, 0x1.000001p0, 0x1.000003p0, 0x1.0000010000001p0,
        65519.99999999999, 0x1.002p0, 0x1.002000000001p0, 0x1p-150, 0x1.8p-150, 4294967295.5, 1.8446744073709552e19}) {
    list.push_back(v);
    list.push_back(-v);
  }
  return list;
}
template <>
std::vector<f16> values<f16>(int) {
  std::vector<f16> list;
  for (const u32 v : {0x0000, 0x0001, 0x0002, 0x03ff, 0x0400, 0x1400, 0x2e66, 0x3800, 0x3bff, 0x3c00,
                      0x3c01, 0x3c03, 0x4100, 0x4200, 0x6400, 0x6bff, 0x7bfe, 0x7bff, 0x7c00, 0x7e00}) {
    list.push_back({static_cast<u16>(v)});
    list.push_back({static_cast<u16>(v | 0x8000)});
  }
  return list;
}
template <>
std::vector<bf16> values<bf16>(int) {
  std::vector<bf16> list;
  // Exponents that a long double holds the exact products and sums of, and special values.
  for (const u32 v : {0x0000, 0x3f80, 0x3f81, 0x3f83, 0x3fff, 0x4000, 0x4049, 0x3e80, 0x2e00, 0x3c00, 0x4b00, 0x3b7f,
                      0x7f80, 0x7fc0}) {
    list.push_back({static_cast<u16>(v)});
    list.push_back({static_cast<u16>(v | 0x8000)});
  }
  return list;
}
template <typename Pair, typename Half>
std::vector<Pair> pairs() {
  std::vector<Pair> list;
  const auto halves = values<Half>();
  for (std::size_t i = 0; i < halves.size(); ++i) {
    list.push_back({halves[i].bits | static_cast<u32>(halves[(i * 7 + 3) % halves.size()].bits) << 16});
  }
  return list;
}
template <>
std::vector<f16x2> values<f16x2>(int) {
  return pairs<f16x2, f16>();
}
template <>
std::vector<bf16x2> values<bf16x2>(int) {
  return pairs<bf16x2, bf16>();
}

// -- the meaning of number formats, by arithmetic: the emulation has it by bits

enum class Mode { nearest, zero, down, up, away };

struct Format {
  int digits, lowest;  // bits with the hidden one, exponent of the smallest subnormal
  long double largest;
};
constexpr Format half = {11, -24, 65504.0L}, bfloat = {8, -133, 0x1.fep127L}, tfloat = {11, -136, 0x1.ffcp127L},
                 single = {24, -149, 0x1.fffffep127L};

long double rounded(long double x, const Format& format, Mode mode) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int ulp = std::max(std::ilogb(x) - (format.digits - 1), format.lowest);
  const long double q = std::ldexp(x, -ulp);
  const long double whole = mode == Mode::nearest ? std::rint(q)
                            : mode == Mode::zero  ? std::trunc(q)
                            : mode == Mode::down  ? std::floor(q)
                            : mode == Mode::up    ? std::ceil(q)
                                                  : std::round(q);
  const long double result = std::ldexp(whole, ulp);
  if (std::fabs(result) <= format.largest) return std::copysign(result, x);
  const bool stays = mode == Mode::zero || (mode == Mode::down && x > 0) || (mode == Mode::up && x < 0);
  return std::copysign(stays ? format.largest : std::numeric_limits<long double>::infinity(), x);
}

long double value(f16 v) {
  const int exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
  const long double sign = v.bits >> 15 ? -1 : 1;
  if (exponent == 31) return fraction ? std::nanl("") : sign * std::numeric_limits<long double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(fraction * 1.0L, -24) : std::ldexp(1024.0L + fraction, exponent - 25));
}
long double value(bf16 v) {
  const u32 bits = static_cast<u32>(v.bits) << 16;
  f32 result;
  std::memcpy(&result, &bits, 4);
  return result;
}

// The bits of a value that the format holds.
f16 to_f16(long double x, Mode mode = Mode::nearest) {
  x = rounded(x, half, mode);
  const u16 sign = std::signbit(x) ? 0x8000 : 0;
  x = std::fabs(x);
  if (std::isnan(x)) return {0x7fff};
  if (std::isinf(x)) return {static_cast<u16>(sign | 0x7c00)};
  if (x < 0x1p-14L) return {static_cast<u16>(sign | static_cast<u16>(std::ldexp(x, 24)))};
  const int exponent = std::ilogb(x);
  return {static_cast<u16>(sign | (exponent + 15) << 10 | (static_cast<int>(std::ldexp(x, 10 - exponent)) - 1024))};
}
bf16 to_bf16(long double x, Mode mode = Mode::nearest) {
  if (std::isnan(x)) return {0x7fff};
  const f32 result = static_cast<f32>(rounded(x, bfloat, mode));
  u32 bits;
  std::memcpy(&bits, &result, 4);
  return {static_cast<u16>(bits >> 16)};
}
f32 to_f32(long double x, Mode mode) {
  return static_cast<f32>(rounded(x, single, mode));
}
u32 to_tf32(f32 x) {
  const f32 result = static_cast<f32>(rounded(x, tfloat, Mode::away));
  u32 bits;
  std::memcpy(&bits, &result, 4);
  return std::isnan(x) ? 0x7fffffff : bits;
}
f16 make(long double x, f16) {
  return to_f16(x);
}
bf16 make(long double x, bf16) {
  return to_bf16(x);
}

template <typename Half, typename Pair, typename F>
Pair both(F function, Pair a) {
  return {function(Half{static_cast<u16>(a.bits)}).bits |
          static_cast<u32>(function(Half{static_cast<u16>(a.bits >> 16)}).bits) << 16};
}
template <typename Half, typename Pair, typename F>
Pair both(F function, Pair a, Pair b) {
  const auto low = [](Pair p) { return Half{static_cast<u16>(p.bits)}; };
  const auto high = [](Pair p) { return Half{static_cast<u16>(p.bits >> 16)}; };
  return {function(low(a), low(b)).bits | static_cast<u32>(function(high(a), high(b)).bits) << 16};
}
template <typename Half, typename Pair, typename F>
Pair both(F function, Pair a, Pair b, Pair c) {
  const auto low = [](Pair p) { return Half{static_cast<u16>(p.bits)}; };
  const auto high = [](Pair p) { return Half{static_cast<u16>(p.bits >> 16)}; };
  return {function(low(a), low(b), low(c)).bits | static_cast<u32>(function(high(a), high(b), high(c)).bits) << 16};
}

template <typename T>
T smaller(T a, T b, bool nan_wins) {
  if (std::isnan(a) || std::isnan(b)) return nan_wins ? a + b : std::isnan(a) ? b : a;
  return a == b ? (std::signbit(a) ? a : b) : std::min(a, b);
}
template <typename T>
T larger(T a, T b, bool nan_wins) {
  return -smaller<T>(-a, -b, nan_wins);
}
template <typename T>
T directed(int direction, T (*function)(T, T, T), T a, T b, T c) {
  volatile T x = a, y = b, z = c;
  std::fesetround(direction);
  volatile T result = function(x, y, z);
  std::fesetround(FE_TONEAREST);
  return result;
}
f32 fused(f32 a, f32 b, f32 c) {
  return std::fma(a, b, c);
}
f32 product(f32 a, f32 b, f32) {
  return a * b;
}
f32 sum(f32 a, f32 b, f32) {
  return a + b;
}
f32 flushed(f32 x) {
  return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x;
}

// To an integer type: NaN is zero, what is too large the nearest.
template <typename T>
T clamped(long double whole) {
  if (std::isnan(whole)) return 0;
  const auto lowest = static_cast<long double>(std::numeric_limits<T>::min());
  const auto highest = static_cast<long double>(std::numeric_limits<T>::max());
  return whole <= lowest    ? std::numeric_limits<T>::min()
         : whole >= highest ? std::numeric_limits<T>::max()
                            : static_cast<T>(whole);
}

template <typename T>
int bit(T x, int i) {
  return static_cast<int>(x >> i & 1);
}
template <typename T>
T field(T x, u32 position, u32 length) {  // bfe, by its definition in the PTX manual
  const int top = static_cast<int>(8 * sizeof(T)) - 1;
  const int start = static_cast<int>(position & 255), count = static_cast<int>(length & 255);
  const int fill = std::is_signed_v<T> && count > 0 ? bit(x, std::min(start + count - 1, top)) : 0;
  u64 result = 0;
  for (int i = 0; i <= top; ++i) {
    result |= static_cast<u64>(i < count && start + i <= top ? bit(x, start + i) : fill) << i;
  }
  return static_cast<T>(result);
}
template <typename T>
T with_field(T from, T into, u32 position, u32 length) {
  u64 result = into;
  for (u32 i = 0; i < (length & 255) && (position & 255) + i < 8 * sizeof(T); ++i) {
    const u64 mask = 1ull << ((position & 255) + i);
    result = bit(from, static_cast<int>(i)) ? result | mask : result & ~mask;
  }
  return static_cast<T>(result);
}

// -- comparing

template <typename T>
bool equal(T a, T b) {
  return a == b;
}
template <typename T>
bool equal_real(T a, T b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}
bool equal(f32 a, f32 b) {
  return equal_real(a, b);
}
bool equal(f64 a, f64 b) {
  return equal_real(a, b);
}
bool equal(f16 a, f16 b) {
  return a.bits == b.bits || (std::isnan(value(a)) && std::isnan(value(b)));
}
bool equal(bf16 a, bf16 b) {
  return a.bits == b.bits || (std::isnan(value(a)) && std::isnan(value(b)));
}
bool equal(f16x2 a, f16x2 b) {
  return equal(f16{static_cast<u16>(a.bits)}, f16{static_cast<u16>(b.bits)}) &&
         equal(f16{static_cast<u16>(a.bits >> 16)}, f16{static_cast<u16>(b.bits >> 16)});
}
bool equal(bf16x2 a, bf16x2 b) {
  return equal(bf16{static_cast<u16>(a.bits)}, bf16{static_cast<u16>(b.bits)}) &&
         equal(bf16{static_cast<u16>(a.bits >> 16)}, bf16{static_cast<u16>(b.bits >> 16)});
}

// -- tests

struct Test {
  const char* name;
  void (*run)(const char* name);
};
std::vector<Test> tests;

// Runs a kernel on n rows of arguments.
template <typename R, typename... Args>
void run(const char* name, void (*kernel)(R*, int, const Args*...), const std::vector<std::tuple<Args...>>& rows,
         R (*meaning)(Args...)) {
  const int n = static_cast<int>(rows.size());
  test::DeviceArray<R> results(rows.size());
  const auto column = [&]<std::size_t i>(std::integral_constant<std::size_t, i>) {
    std::vector<std::tuple_element_t<i, std::tuple<Args...>>> list;
    for (const auto& row : rows) list.push_back(std::get<i>(row));
    return list;
  };
  [&]<std::size_t... i>(std::index_sequence<i...>) {
    const std::tuple<test::DeviceArray<Args>...> arguments(column(std::integral_constant<std::size_t, i>{})...);
    kernel<<<1, 64>>>(results.data(), n, std::get<i>(arguments).data()...);
  }(std::index_sequence_for<Args...>{});
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::string defect = cuda_emulation_take_defect();
  CHECK(defect.empty(), "%s: %s", name, defect.c_str());
  const std::vector<R> got = results.values();
  for (int i = 0; i < n; ++i) {
    const R expected = std::apply(meaning, rows[i]);
    u64 bits[2] = {};
    std::memcpy(bits, &got[i], sizeof(R));
    std::memcpy(bits + 1, &expected, sizeof(R));
    CHECK(equal(got[i], expected), "%s, row %d: 0x%llx, expected 0x%llx", name, i,
          static_cast<unsigned long long>(bits[0]), static_cast<unsigned long long>(bits[1]));
  }
}

template <typename R, typename A>
void run_all(const char* name, void (*kernel)(R*, int, const A*), R (*meaning)(A)) {
  std::vector<std::tuple<A>> rows;
  for (const A a : values<A>()) rows.push_back({a});
  run(name, kernel, rows, meaning);
}
template <typename R, typename A, typename B>
void run_all(const char* name, void (*kernel)(R*, int, const A*, const B*), R (*meaning)(A, B)) {
  std::vector<std::tuple<A, B>> rows;
  for (const A a : values<A>()) {
    for (const B b : values<B>()) rows.push_back({a, b});
  }
  run(name, kernel, rows, meaning);
}
template <typename R, typename A, typename B, typename C>
void run_all(const char* name, void (*kernel)(R*, int, const A*, const B*, const C*), R (*meaning)(A, B, C)) {
  std::vector<std::tuple<A, B, C>> rows;
  int number = 0;
  for (const A a : values<A>()) {
    for (const B b : values<B>()) {
      for (const C c : values<C>()) {
        if (number++ % 5 == 0) rows.push_back({a, b, c});
      }
    }
  }
  run(name, kernel, rows, meaning);
}
template <typename R, typename A, typename B, typename C, typename D>
void run_all(const char* name, void (*kernel)(R*, int, const A*, const B*, const C*, const D*),
             R (*meaning)(A, B, C, D)) {
  std::vector<std::tuple<A, B, C, D>> rows;
  test::Random random(1);
  const auto pick = [&](const auto& list) { return list[random.next() % list.size()]; };
  for (int i = 0; i < 2000; ++i)
    rows.push_back({pick(values<A>()), pick(values<B>()), pick(values<C>()), pick(values<D>())});
  run(name, kernel, rows, meaning);
}

// How a type goes into and out of inline assembly.
#define LETTER_u16 "h"
#define LETTER_s16 "h"
#define LETTER_u32 "r"
#define LETTER_s32 "r"
#define LETTER_u64 "l"
#define LETTER_s64 "l"
#define LETTER_f32 "f"
#define LETTER_f64 "d"
#define LETTER_f16 "h"
#define LETTER_bf16 "h"
#define LETTER_f16x2 "r"
#define LETTER_bf16x2 "r"
template <typename T>
__device__ auto& register_of(T& value) {
  if constexpr (std::is_arithmetic_v<T>) {
    return value;
  } else {
    return value.bits;
  }
}

#define TEST_1(name, ptx, R, A, ...)                                                   \
  __global__ void name(R* y, int n, const A* x) {                                      \
    for (int i = threadIdx.x; i < n; i += blockDim.x) {                                \
      R r;                                                                             \
      A a = x[i];                                                                      \
      asm volatile(ptx : "=" LETTER_##R(register_of(r)) : LETTER_##A(register_of(a))); \
      y[i] = r;                                                                        \
    }                                                                                  \
  }                                                                                    \
  R meaning_of_##name([[maybe_unused]] A a) {                                          \
    return __VA_ARGS__;                                                                \
  }                                                                                    \
  const bool added_##name =                                                            \
      (tests.push_back({#name, [](const char* n) { run_all(n, name, meaning_of_##name); }}), true);

#define TEST_2(name, ptx, R, A, B, ...)                                                                            \
  __global__ void name(R* y, int n, const A* x0, const B* x1) {                                                    \
    for (int i = threadIdx.x; i < n; i += blockDim.x) {                                                            \
      R r;                                                                                                         \
      A a = x0[i];                                                                                                 \
      B b = x1[i];                                                                                                 \
      asm volatile(ptx : "=" LETTER_##R(register_of(r)) : LETTER_##A(register_of(a)), LETTER_##B(register_of(b))); \
      y[i] = r;                                                                                                    \
    }                                                                                                              \
  }                                                                                                                \
  R meaning_of_##name([[maybe_unused]] A a, [[maybe_unused]] B b) {                                                \
    return __VA_ARGS__;                                                                                            \
  }                                                                                                                \
  const bool added_##name =                                                                                        \
      (tests.push_back({#name, [](const char* n) { run_all(n, name, meaning_of_##name); }}), true);

#define TEST_3(name, ptx, R, A, B, C, ...)                                                                \
  __global__ void name(R* y, int n, const A* x0, const B* x1, const C* x2) {                              \
    for (int i = threadIdx.x; i < n; i += blockDim.x) {                                                   \
      R r;                                                                                                \
      A a = x0[i];                                                                                        \
      B b = x1[i];                                                                                        \
      C c = x2[i];                                                                                        \
      asm volatile(ptx                                                                                    \
                   : "=" LETTER_##R(register_of(r))                                                       \
                   : LETTER_##A(register_of(a)), LETTER_##B(register_of(b)), LETTER_##C(register_of(c))); \
      y[i] = r;                                                                                           \
    }                                                                                                     \
  }                                                                                                       \
  R meaning_of_##name([[maybe_unused]] A a, [[maybe_unused]] B b, [[maybe_unused]] C c) {                 \
    return __VA_ARGS__;                                                                                   \
  }                                                                                                       \
  const bool added_##name =                                                                               \
      (tests.push_back({#name, [](const char* n) { run_all(n, name, meaning_of_##name); }}), true);

#define TEST_4(name, ptx, R, A, B, C, D, ...)                                                     \
  __global__ void name(R* y, int n, const A* x0, const B* x1, const C* x2, const D* x3) {         \
    for (int i = threadIdx.x; i < n; i += blockDim.x) {                                           \
      R r;                                                                                        \
      asm volatile(ptx                                                                            \
                   : "=" LETTER_##R(r)                                                            \
                   : LETTER_##A(x0[i]), LETTER_##B(x1[i]), LETTER_##C(x2[i]), LETTER_##D(x3[i])); \
      y[i] = r;                                                                                   \
    }                                                                                             \
  }                                                                                               \
  R meaning_of_##name(A a, B b, C c, D d) {                                                       \
    return __VA_ARGS__;                                                                           \
  }                                                                                               \
  const bool added_##name =                                                                       \
      (tests.push_back({#name, [](const char* n) { run_all(n, name, meaning_of_##name); }}), true);

// -- integers

#define INTEGER(T, U, W)                                                                                              \
  TEST_2(add_##T, "add." #T " %0, %1, %2;", T, T, T, static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b)))       \
  TEST_2(sub_##T, "sub." #T " %0, %1, %2;", T, T, T, static_cast<T>(static_cast<u64>(a) - static_cast<u64>(b)))       \
  TEST_2(mul_lo_##T, "mul.lo." #T " %0, %1, %2;", T, T, T, static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b))) \
  TEST_2(mul_hi_##T, "mul.hi." #T " %0, %1, %2;", T, T, T,                                                            \
         static_cast<T>((static_cast<W>(a) * static_cast<W>(b)) >> (8 * sizeof(T))))                                  \
  TEST_3(mad_lo_##T, "mad.lo." #T " %0, %1, %2, %3;", T, T, T, T,                                                     \
         static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b) + static_cast<u64>(c)))                             \
  TEST_2(div_##T, "div." #T " %0, %1, %2;", T, T, T,                                                                  \
         static_cast<T>(b == 0 ? ~W{0} : static_cast<W>(a) / static_cast<W>(b)))                                      \
  TEST_2(rem_##T, "rem." #T " %0, %1, %2;", T, T, T,                                                                  \
         static_cast<T>(b == 0 ? a : static_cast<W>(a) % static_cast<W>(b)))                                          \
  TEST_2(min_##T, "min." #T " %0, %1, %2;", T, T, T, a < b ? a : b)                                                   \
  TEST_2(max_##T, "max." #T " %0, %1, %2;", T, T, T, a < b ? b : a)                                                   \
  TEST_2(shr_##T, "shr." #T " %0, %1, %2;", T, T, u32, static_cast<T>(static_cast<W>(a) >> std::min(b, 100u)))        \
  TEST_1(shr_5_##T, "shr." #T " %0, %1, 5;", T, T, static_cast<T>(a >> 5))
INTEGER(u16, u16, __int128)
INTEGER(s16, u16, __int128)
INTEGER(u32, u32, __int128)
INTEGER(s32, u32, __int128)
INTEGER(u64, u64, unsigned __int128)
INTEGER(s64, u64, __int128)
TEST_3(mad_hi_s32, "mad.hi.s32 %0, %1, %2, %3;", s32, s32, s32, s32,
       static_cast<s32>(((static_cast<s64>(a) * b) >> 32) + static_cast<s64>(c)))
TEST_2(mul_wide_u16, "mul.wide.u16 %0, %1, %2;", u32, u16, u16, static_cast<u32>(a) * b)
TEST_2(mul_wide_s16, "mul.wide.s16 %0, %1, %2;", s32, s16, s16, static_cast<s32>(a) * b)
TEST_2(mul_wide_u32, "mul.wide.u32 %0, %1, %2;", u64, u32, u32, static_cast<u64>(a) * b)
TEST_2(mul_wide_s32, "mul.wide.s32 %0, %1, %2;", s64, s32, s32, static_cast<s64>(a) * b)
TEST_3(mad_wide_s16, "mad.wide.s16 %0, %1, %2, %3;", s32, s16, s16, s32, static_cast<s32>(static_cast<s64>(a) * b + c))
TEST_3(mad_wide_u32, "mad.wide.u32 %0, %1, %2, %3;", u64, u32, u32, u64, static_cast<u64>(a) * b + c)
TEST_3(mad_wide_s32, "mad.wide.s32 %0, %1, %2, %3;", s64, s32, s32, s64,
       static_cast<s64>(static_cast<u64>(static_cast<s64>(a) * b) + static_cast<u64>(c)))
TEST_1(neg_s16, "neg.s16 %0, %1;", s16, s16, static_cast<s16>(-a))
TEST_1(neg_s32, "neg.s32 %0, %1;", s32, s32, static_cast<s32>(-static_cast<s64>(a)))
TEST_1(neg_s64, "neg.s64 %0, %1;", s64, s64, static_cast<s64>(0 - static_cast<u64>(a)))
TEST_1(abs_s32, "abs.s32 %0, %1;", s32, s32, static_cast<s32>(std::abs(static_cast<s64>(a))))
TEST_1(abs_s64, "abs.s64 %0, %1;", s64, s64, static_cast<s64>(a < 0 ? 0 - static_cast<u64>(a) : static_cast<u64>(a)))
TEST_3(sad_u32, "sad.u32 %0, %1, %2, %3;", u32, u32, u32, u32, c + (a < b ? b - a : a - b))
TEST_3(sad_s32, "sad.s32 %0, %1, %2, %3;", s32, s32, s32, s32,
       static_cast<s32>(c + std::abs(static_cast<s64>(a) - static_cast<s64>(b))))

// -- bits

#define BITS(T, n)                                                                                                \
  TEST_2(and_##T, "and.b" #n " %0, %1, %2;", T, T, T, static_cast<T>(a & b))                                      \
  TEST_2(or_##T, "or.b" #n " %0, %1, %2;", T, T, T, static_cast<T>(a | b))                                        \
  TEST_2(xor_##T, "xor.b" #n " %0, %1, %2;", T, T, T, static_cast<T>(a ^ b))                                      \
  TEST_1(not_##T, "not.b" #n " %0, %1;", T, T, static_cast<T>(~a))                                                \
  TEST_2(shl_##T, "shl.b" #n " %0, %1, %2;", T, T, u32, b >= n ? T{0} : static_cast<T>(static_cast<u64>(a) << b)) \
  TEST_1(shl_3_##T, "shl.b" #n " %0, %1, 3;", T, T, static_cast<T>(static_cast<u64>(a) << 3))                     \
  TEST_1(mov_##T, "mov.b" #n " %0, %1;", T, T, a)
BITS(u16, 16)
BITS(u32, 32)
BITS(u64, 64)
TEST_2(xor_pred,
       "{.reg .pred p, q; setp.ne.u32 p, %1, 0; setp.gt.u32 q, %2, 31; xor.pred p, p, q; selp.u32 %0, 1, 0, p;}", u32,
       u32, u32, (a != 0) != (b > 31))
TEST_2(and_pred,
       "{.reg .pred p, q; setp.ne.u32 p, %1, 0; setp.gt.u32 q, %2, 31; and.pred p, p, q; selp.u32 %0, 1, 0, p;}", u32,
       u32, u32, a != 0 && b > 31)
TEST_2(or_pred,
       "{.reg .pred p, q; setp.ne.u32 p, %1, 0; setp.gt.u32 q, %2, 31; or.pred p, p, q; selp.u32 %0, 1, 0, p;}", u32,
       u32, u32, a != 0 || b > 31)
TEST_1(not_pred, "{.reg .pred p, q; setp.ne.u32 p, %1, 0; not.pred q, p; mov.pred p, q; selp.u32 %0, 7, 9, p;}", u32,
       u32, a != 0 ? 9 : 7)
TEST_1(predicated, "{.reg .pred p; setp.gt.s32 p, %1, 5; mov.u32 %0, 1; @p mov.u32 %0, 2; @!p add.u32 %0, %0, 2;}", u32,
       s32, a > 5 ? 2 : 3)
TEST_3(shf_l_wrap, "shf.l.wrap.b32 %0, %1, %2, %3;", u32, u32, u32, u32,
       (c & 31) == 0 ? b : (b << (c & 31)) | (a >> (32 - (c & 31))))
TEST_3(shf_r_wrap, "shf.r.wrap.b32 %0, %1, %2, %3;", u32, u32, u32, u32,
       (c & 31) == 0 ? a : (b << (32 - (c & 31))) | (a >> (c & 31)))
TEST_3(shf_l_clamp, "shf.l.clamp.b32 %0, %1, %2, %3;", u32, u32, u32, u32,
       c >= 32  ? a
       : c == 0 ? b
                : (b << c) | (a >> (32 - c)))
TEST_3(shf_r_clamp, "shf.r.clamp.b32 %0, %1, %2, %3;", u32, u32, u32, u32,
       c >= 32  ? b
       : c == 0 ? a
                : (b << (32 - c)) | (a >> c))
TEST_3(bfe_u32, "bfe.u32 %0, %1, %2, %3;", u32, u32, u32, u32, field(a, b, c))
TEST_3(bfe_s32, "bfe.s32 %0, %1, %2, %3;", s32, s32, u32, u32, field(a, b, c))
TEST_3(bfe_u64, "bfe.u64 %0, %1, %2, %3;", u64, u64, u32, u32, field(a, b, c))
TEST_3(bfe_s64, "bfe.s64 %0, %1, %2, %3;", s64, s64, u32, u32, field(a, b, c))
TEST_4(bfi_b32, "bfi.b32 %0, %1, %2, %3, %4;", u32, u32, u32, u32, u32, with_field(a, b, c, d))
TEST_4(bfi_b64, "bfi.b64 %0, %1, %2, %3, %4;", u64, u64, u64, u32, u32, with_field(a, b, c, d))
TEST_1(brev_b32, "brev.b32 %0, %1;", u32, u32, [&] {
  u32 r = 0;
  for (int i = 0; i < 32; ++i) r |= static_cast<u32>(bit(a, i)) << (31 - i);
  return r;
}())
TEST_1(brev_b64, "brev.b64 %0, %1;", u64, u64, [&] {
  u64 r = 0;
  for (int i = 0; i < 64; ++i) r |= static_cast<u64>(bit(a, i)) << (63 - i);
  return r;
}())
TEST_1(popc_b32, "popc.b32 %0, %1;", u32, u32, static_cast<u32>(__builtin_popcount(a)))
TEST_1(popc_b64, "popc.b64 %0, %1;", u32, u64, static_cast<u32>(__builtin_popcountll(a)))
TEST_1(clz_b32, "clz.b32 %0, %1;", u32, u32, a == 0 ? 32 : static_cast<u32>(__builtin_clz(a)))
TEST_1(clz_b64, "clz.b64 %0, %1;", u32, u64, a == 0 ? 64 : static_cast<u32>(__builtin_clzll(a)))
template <typename T>
u32 highest(T a) {  // bfind
  const int sign = std::is_signed_v<T> ? bit(a, static_cast<int>(8 * sizeof(T)) - 1) : 0;
  for (int i = static_cast<int>(8 * sizeof(T)) - 1; i >= 0; --i) {
    if (bit(a, i) != sign) return static_cast<u32>(i);
  }
  return ~0u;
}
TEST_1(bfind_u32, "bfind.u32 %0, %1;", u32, u32, highest(a))
TEST_1(bfind_s32, "bfind.s32 %0, %1;", u32, s32, highest(a))
TEST_1(bfind_s64, "bfind.s64 %0, %1;", u32, s64, highest(a))
TEST_1(bfind_shiftamt, "bfind.shiftamt.u32 %0, %1;", u32, u32, highest(a) == ~0u ? ~0u : 31 - highest(a))
TEST_3(lop3_majority, "lop3.b32 %0, %1, %2, %3, 0xe8;", u32, u32, u32, u32, (a & b) | (b & c) | (a & c))
TEST_3(lop3_choice, "lop3.b32 %0, %1, %2, %3, 0xca;", u32, u32, u32, u32, (a & b) | (~a & c))
TEST_3(lop3_parity, "lop3.b32 %0, %1, %2, %3, 0x96;", u32, u32, u32, u32, a ^ b ^ c)
TEST_3(prmt, "prmt.b32 %0, %1, %2, %3;", u32, u32, u32, u32, [&] {
  unsigned char bytes[8], r[4];
  std::memcpy(bytes, &a, 4);
  std::memcpy(bytes + 4, &b, 4);
  for (int i = 0; i < 4; ++i) {
    const u32 selector = c >> 4 * i;
    r[i] = bytes[selector & 7];
    if (selector & 8) r[i] = r[i] > 127 ? 255 : 0;
  }
  u32 word;
  std::memcpy(&word, r, 4);
  return word;
}())

// -- moves and comparisons

TEST_2(pack_b32, "mov.b32 %0, {%1, %2};", u32, u16, u16, a | static_cast<u32>(b) << 16)
TEST_2(pack_b64, "mov.b64 %0, {%1, %2};", u64, u32, u32, a | static_cast<u64>(b) << 32)
TEST_1(unpack_b32, "{.reg .b16 low; mov.b32 {low, %0}, %1;}", u16, u32, static_cast<u16>(a >> 16))
TEST_1(unpack_b64, "mov.b64 {%0, _}, %1;", u32, u64, static_cast<u32>(a))
TEST_1(mov_f32, "mov.f32 %0, %1;", f32, f32, a)
TEST_1(mov_f64, "mov.f64 %0, 0d3FF8000000000000;", f64, f64, 1.5)
TEST_1(mov_b32_f32, "mov.b32 %0, %1;", u32, f32, [&] {
  u32 bits;
  std::memcpy(&bits, &a, 4);
  return bits;
}())
TEST_3(selp_f32, "{.reg .pred p; setp.ne.s32 p, %3, 0; selp.f32 %0, %1, %2, p;}", f32, f32, f32, s32, c != 0 ? a : b)
TEST_3(selp_b16, "{.reg .pred p; setp.ne.s32 p, %3, 0; selp.b16 %0, %1, %2, p;}", u16, u16, u16, s32, c != 0 ? a : b)
#define COMPARE(name, T, holds)                                                                                  \
  TEST_2(setp_##name##_##T, "{.reg .pred p; setp." #name "." #T " p, %1, %2; selp.u32 %0, 1, 0, p;}", u32, T, T, \
         (holds) ? 1 : 0)
#define COMPARE_INTEGER(T) \
  COMPARE(eq, T, a == b)   \
  COMPARE(ne, T, a != b)   \
  COMPARE(lt, T, a < b)    \
  COMPARE(le, T, a <= b)   \
  COMPARE(gt, T, a > b)    \
  COMPARE(ge, T, a >= b)
COMPARE_INTEGER(u16)
COMPARE_INTEGER(s16)
COMPARE_INTEGER(u32)
COMPARE_INTEGER(s32)
COMPARE_INTEGER(u64)
COMPARE_INTEGER(s64)
COMPARE(lo, u32, a < b)
COMPARE(ls, u32, a <= b)
COMPARE(hi, u32, a > b)
COMPARE(hs, u32, a >= b)
#define NAN_OF(a, b) (std::isnan(a) || std::isnan(b))
#define COMPARE_REAL(T)                   \
  COMPARE(eq, T, a == b)                  \
  COMPARE(ne, T, !NAN_OF(a, b) && a != b) \
  COMPARE(lt, T, a < b)                   \
  COMPARE(le, T, a <= b)                  \
  COMPARE(gt, T, a > b)                   \
  COMPARE(ge, T, a >= b)                  \
  COMPARE(equ, T, NAN_OF(a, b) || a == b) \
  COMPARE(neu, T, NAN_OF(a, b) || a != b) \
  COMPARE(ltu, T, NAN_OF(a, b) || a < b)  \
  COMPARE(leu, T, NAN_OF(a, b) || a <= b) \
  COMPARE(gtu, T, NAN_OF(a, b) || a > b)  \
  COMPARE(geu, T, NAN_OF(a, b) || a >= b) \
  COMPARE(num, T, !NAN_OF(a, b))          \
  COMPARE(nan, T, NAN_OF(a, b))
COMPARE_REAL(f32)
COMPARE_REAL(f64)
COMPARE(lt, f16, value(a) < value(b))
COMPARE(gtu, bf16, NAN_OF(value(a), value(b)) || value(a) > value(b))
TEST_3(setp_and, "{.reg .pred p, q; setp.ne.s32 q, %3, 0; setp.lt.and.f32 p, %1, %2, q; selp.u32 %0, 1, 0, p;}", u32,
       f32, f32, s32, a < b && c != 0)
TEST_3(setp_or, "{.reg .pred p, q; setp.ne.s32 q, %3, 0; setp.lt.or.s32 p, %1, %2, q; selp.u32 %0, 1, 0, p;}", u32, s32,
       s32, s32, a < b || c != 0)
TEST_3(setp_xor_two,
       "{.reg .pred p, q, s; .reg .u32 t; setp.ne.s32 q, %3, 0; setp.lt.xor.s32 p|s, %1, %2, q; selp.u32 %0, 1, 0, p;"
       " selp.u32 t, 2, 0, s; add.u32 %0, %0, t;}",
       u32, s32, s32, s32, ((a < b) != (c != 0) ? 1 : 0) + (!(a < b) != (c != 0) ? 2 : 0))

// -- floating point

#define REAL(T)                                                                                                        \
  TEST_2(add_##T, "add." #T " %0, %1, %2;", T, T, T, a + b)                                                            \
  TEST_2(sub_##T, "sub.rn." #T " %0, %1, %2;", T, T, T, a - b)                                                         \
  TEST_2(mul_##T, "mul." #T " %0, %1, %2;", T, T, T, a* b)                                                             \
  TEST_2(div_##T, "div.rn." #T " %0, %1, %2;", T, T, T, a / b)                                                         \
  TEST_3(fma_##T, "fma.rn." #T " %0, %1, %2, %3;", T, T, T, T, std::fma(a, b, c))                                      \
  TEST_1(rcp_##T, "rcp.rn." #T " %0, %1;", T, T, 1 / a)                                                                \
  TEST_1(sqrt_##T, "sqrt.rn." #T " %0, %1;", T, T, std::sqrt(a))                                                       \
  TEST_2(min_##T, "min." #T " %0, %1, %2;", T, T, T, smaller(a, b, false))                                             \
  TEST_2(max_##T, "max." #T " %0, %1, %2;", T, T, T, larger(a, b, false))                                              \
  TEST_1(neg_##T, "neg." #T " %0, %1;", T, T, -a)                                                                      \
  TEST_1(abs_##T, "abs." #T " %0, %1;", T, T, std::fabs(a))                                                            \
  TEST_2(copysign_##T, "copysign." #T " %0, %1, %2;", T, T, T, std::copysign(b, a))                                    \
  TEST_1(testp_finite_##T, "{.reg .pred p; testp.finite." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T,                 \
         std::isfinite(a))                                                                                             \
  TEST_1(testp_infinite_##T, "{.reg .pred p; testp.infinite." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T,             \
         std::isinf(a))                                                                                                \
  TEST_1(testp_number_##T, "{.reg .pred p; testp.number." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T, !std::isnan(a)) \
  TEST_1(testp_nan_##T, "{.reg .pred p; testp.notanumber." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T, std::isnan(a)) \
  TEST_1(testp_normal_##T, "{.reg .pred p; testp.normal." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T,                 \
         std::isnormal(a))                                                                                             \
  TEST_1(testp_subnormal_##T, "{.reg .pred p; testp.subnormal." #T " p, %1; selp.u32 %0, 1, 0, p;}", u32, T,           \
         a != 0 && std::fabs(a) < std::numeric_limits<T>::min())
REAL(f32)
REAL(f64)
TEST_2(min_nan_f32, "min.NaN.f32 %0, %1, %2;", f32, f32, f32, smaller(a, b, true))
TEST_2(max_nan_f32, "max.NaN.f32 %0, %1, %2;", f32, f32, f32, larger(a, b, true))
TEST_2(div_full_f32, "div.full.f32 %0, %1, %2;", f32, f32, f32, a / b)
// The sign of an exact zero differs by mode; the values here give none.
TEST_3(fma_rz_f32, "fma.rz.f32 %0, %1, %2, %3;", f32, f32, f32, f32, directed(FE_TOWARDZERO, fused, a, b, c))
TEST_2(mul_rm_f32, "mul.rm.f32 %0, %1, %2;", f32, f32, f32, directed(FE_DOWNWARD, product, a, b, 0.0f))
TEST_2(mul_rp_f32, "mul.rp.f32 %0, %1, %2;", f32, f32, f32, directed(FE_UPWARD, product, a, b, 0.0f))
TEST_2(add_rz_f32, "add.rz.f32 %0, %1, %2;", f32, f32, f32, directed(FE_TOWARDZERO, sum, a, b, 0.0f))
#define APPROXIMATE(name, formula)                                           \
  TEST_1(name##_approx, #name ".approx.f32 %0, %1;", f32, f32, [&] {         \
    const f64 x = a;                                                         \
    return static_cast<f32>(formula);                                        \
  }())                                                                       \
  TEST_1(name##_approx_ftz, #name ".approx.ftz.f32 %0, %1;", f32, f32, [&] { \
    const f64 x = flushed(a);                                                \
    return flushed(static_cast<f32>(formula));                               \
  }())
APPROXIMATE(rcp, 1 / x)
APPROXIMATE(sqrt, std::sqrt(x))
APPROXIMATE(rsqrt, 1 / std::sqrt(x))
APPROXIMATE(ex2, std::exp2(x))
APPROXIMATE(lg2, std::log2(x))
APPROXIMATE(sin, std::sin(x))
APPROXIMATE(cos, std::cos(x))
TEST_1(tanh_approx, "tanh.approx.f32 %0, %1;", f32, f32, static_cast<f32>(std::tanh(static_cast<f64>(a))))

// -- halves

#define HALF(T)                                                                                                   \
  T plus_##T(T a, T b) {                                                                                          \
    return make(value(a) + value(b), T{});                                                                        \
  }                                                                                                               \
  T minus_##T(T a, T b) {                                                                                         \
    return make(value(a) - value(b), T{});                                                                        \
  }                                                                                                               \
  T times_##T(T a, T b) {                                                                                         \
    return make(value(a) * value(b), T{});                                                                        \
  }                                                                                                               \
  T fused_##T(T a, T b, T c) {                                                                                    \
    return make(value(a) * value(b) + value(c), T{});                                                             \
  }                                                                                                               \
  T relu_##T(T a, T b, T c) {                                                                                     \
    const long double r = value(fused_##T(a, b, c));                                                              \
    return make(std::isnan(r) ? r : r > 0 ? r : 0.0L, T{});                                                       \
  }                                                                                                               \
  T min_of_##T(T a, T b) {                                                                                        \
    return make(smaller(value(a), value(b), false), T{});                                                         \
  }                                                                                                               \
  T max_of_##T(T a, T b) {                                                                                        \
    return make(larger(value(a), value(b), false), T{});                                                          \
  }                                                                                                               \
  T min_nan_of_##T(T a, T b) {                                                                                    \
    return make(smaller(value(a), value(b), true), T{});                                                          \
  }                                                                                                               \
  T max_nan_of_##T(T a, T b) {                                                                                    \
    return make(larger(value(a), value(b), true), T{});                                                           \
  }                                                                                                               \
  TEST_2(add_##T, "add.rn." #T " %0, %1, %2;", T, T, T, plus_##T(a, b))                                           \
  TEST_2(sub_##T, "sub." #T " %0, %1, %2;", T, T, T, minus_##T(a, b))                                             \
  TEST_2(mul_##T, "mul." #T " %0, %1, %2;", T, T, T, times_##T(a, b))                                             \
  TEST_1(neg_##T, "neg." #T " %0, %1;", T, T, T{static_cast<u16>(a.bits ^ 0x8000)})                               \
  TEST_1(abs_##T, "abs." #T " %0, %1;", T, T, T{static_cast<u16>(a.bits & 0x7fff)})                               \
  TEST_3(fma_##T, "fma.rn." #T " %0, %1, %2, %3;", T, T, T, T, fused_##T(a, b, c))                                \
  TEST_3(fma_relu_##T, "fma.rn.relu." #T " %0, %1, %2, %3;", T, T, T, T, relu_##T(a, b, c))                       \
  TEST_2(min_##T, "min." #T " %0, %1, %2;", T, T, T, min_of_##T(a, b))                                            \
  TEST_2(max_##T, "max." #T " %0, %1, %2;", T, T, T, max_of_##T(a, b))                                            \
  TEST_2(min_nan_##T, "min.NaN." #T " %0, %1, %2;", T, T, T, min_nan_of_##T(a, b))                                \
  TEST_2(max_nan_##T, "max.NaN." #T " %0, %1, %2;", T, T, T, max_nan_of_##T(a, b))                                \
  TEST_2(add_##T##x2, "add." #T "x2 %0, %1, %2;", T##x2, T##x2, T##x2, both<T>(plus_##T, a, b))                   \
  TEST_2(sub_##T##x2, "sub." #T "x2 %0, %1, %2;", T##x2, T##x2, T##x2, both<T>(minus_##T, a, b))                  \
  TEST_2(mul_##T##x2, "mul.rn." #T "x2 %0, %1, %2;", T##x2, T##x2, T##x2, both<T>(times_##T, a, b))               \
  TEST_1(neg_##T##x2, "neg." #T "x2 %0, %1;", T##x2, T##x2, T##x2{a.bits ^ 0x80008000u})                          \
  TEST_1(abs_##T##x2, "abs." #T "x2 %0, %1;", T##x2, T##x2, T##x2{a.bits & 0x7fff7fffu})                          \
  TEST_3(fma_##T##x2, "fma.rn." #T "x2 %0, %1, %2, %3;", T##x2, T##x2, T##x2, T##x2, both<T>(fused_##T, a, b, c)) \
  TEST_3(fma_relu_##T##x2, "fma.rn.relu." #T "x2 %0, %1, %2, %3;", T##x2, T##x2, T##x2, T##x2,                    \
         both<T>(relu_##T, a, b, c))                                                                              \
  TEST_2(min_##T##x2, "min." #T "x2 %0, %1, %2;", T##x2, T##x2, T##x2, both<T>(min_of_##T, a, b))                 \
  TEST_2(max_nan_##T##x2, "max.NaN." #T "x2 %0, %1, %2;", T##x2, T##x2, T##x2, both<T>(max_nan_of_##T, a, b))
HALF(f16)
HALF(bf16)

// -- conversions

TEST_1(cvt_s64_s32, "cvt.s64.s32 %0, %1;", s64, s32, a)
TEST_1(cvt_u64_u32, "cvt.u64.u32 %0, %1;", u64, u32, a)
TEST_1(cvt_u32_u64, "cvt.u32.u64 %0, %1;", u32, u64, static_cast<u32>(a))
TEST_1(cvt_s32_s16, "cvt.s32.s16 %0, %1;", s32, s16, a)
TEST_1(cvt_u16_u32, "cvt.u16.u32 %0, %1;", u16, u32, static_cast<u16>(a))
TEST_1(cvt_s32_s8, "cvt.s32.s8 %0, %1;", s32, u32, static_cast<signed char>(a))
TEST_1(cvt_u32_u8, "cvt.u32.u8 %0, %1;", u32, u32, a & 255)
TEST_1(cvt_sat_s16_s32, "cvt.sat.s16.s32 %0, %1;", s16, s32, clamped<s16>(a))
TEST_1(cvt_sat_u32_s64, "cvt.sat.u32.s64 %0, %1;", u32, s64, clamped<u32>(a))
#define FROM_INTEGER(T)                                                         \
  TEST_1(cvt_f32_##T, "cvt.rn.f32." #T " %0, %1;", f32, T, static_cast<f32>(a)) \
  TEST_1(cvt_f64_##T, "cvt.rn.f64." #T " %0, %1;", f64, T, static_cast<f64>(a)) \
  TEST_1(cvt_f16_##T, "cvt.rn.f16." #T " %0, %1;", f16, T, to_f16(a))
FROM_INTEGER(u16)
FROM_INTEGER(s16)
FROM_INTEGER(u32)
FROM_INTEGER(s32)
FROM_INTEGER(u64)
FROM_INTEGER(s64)
#define TO_INTEGER(T)                                                                        \
  TEST_1(cvt_rzi_##T##_f32, "cvt.rzi." #T ".f32 %0, %1;", T, f32, clamped<T>(std::trunc(a))) \
  TEST_1(cvt_rni_##T##_f32, "cvt.rni." #T ".f32 %0, %1;", T, f32, clamped<T>(std::rint(a)))  \
  TEST_1(cvt_rmi_##T##_f64, "cvt.rmi." #T ".f64 %0, %1;", T, f64, clamped<T>(std::floor(a))) \
  TEST_1(cvt_rpi_##T##_f64, "cvt.rpi." #T ".f64 %0, %1;", T, f64, clamped<T>(std::ceil(a)))  \
  TEST_1(cvt_rzi_##T##_f16, "cvt.rzi." #T ".f16 %0, %1;", T, f16, clamped<T>(std::trunc(value(a))))
TO_INTEGER(u16)
TO_INTEGER(s16)
TO_INTEGER(u32)
TO_INTEGER(s32)
TO_INTEGER(u64)
TO_INTEGER(s64)
TEST_1(cvt_rni_f32_f32, "cvt.rni.f32.f32 %0, %1;", f32, f32, std::rint(a))
TEST_1(cvt_rmi_f64_f64, "cvt.rmi.f64.f64 %0, %1;", f64, f64, std::floor(a))
TEST_1(cvt_sat_f32_f32, "cvt.sat.f32.f32 %0, %1;", f32, f32, std::isnan(a) || a <= 0 ? 0.0f : a >= 1 ? 1.0f : a)
TEST_1(cvt_f64_f32, "cvt.f64.f32 %0, %1;", f64, f32, a)
TEST_1(cvt_rn_f32_f64, "cvt.rn.f32.f64 %0, %1;", f32, f64, to_f32(a, Mode::nearest))
TEST_1(cvt_rz_f32_f64, "cvt.rz.f32.f64 %0, %1;", f32, f64, to_f32(a, Mode::zero))
TEST_1(cvt_rm_f32_f64, "cvt.rm.f32.f64 %0, %1;", f32, f64, to_f32(a, Mode::down))
TEST_1(cvt_rp_f32_f64, "cvt.rp.f32.f64 %0, %1;", f32, f64, to_f32(a, Mode::up))
TEST_1(cvt_f32_f16, "cvt.f32.f16 %0, %1;", f32, f16, static_cast<f32>(value(a)))
TEST_1(cvt_f64_f16, "cvt.f64.f16 %0, %1;", f64, f16, static_cast<f64>(value(a)))
TEST_1(cvt_f32_bf16, "cvt.f32.bf16 %0, %1;", f32, bf16, static_cast<f32>(value(a)))
TEST_1(cvt_rn_f16_f32, "cvt.rn.f16.f32 %0, %1;", f16, f32, to_f16(a))
TEST_1(cvt_rz_f16_f32, "cvt.rz.f16.f32 %0, %1;", f16, f32, to_f16(a, Mode::zero))
TEST_1(cvt_rn_f16_f64, "cvt.rn.f16.f64 %0, %1;", f16, f64, to_f16(a))
TEST_1(cvt_rn_bf16_f32, "cvt.rn.bf16.f32 %0, %1;", bf16, f32, to_bf16(a))
TEST_1(cvt_rz_bf16_f32, "cvt.rz.bf16.f32 %0, %1;", bf16, f32, to_bf16(a, Mode::zero))
long double positive(long double x) {
  return std::isnan(x) ? x : x > 0 ? x : 0;
}
TEST_1(cvt_relu_f16_f32, "cvt.rn.relu.f16.f32 %0, %1;", f16, f32, to_f16(positive(a)))
TEST_1(cvt_relu_bf16_f32, "cvt.rn.relu.bf16.f32 %0, %1;", bf16, f32, to_bf16(positive(a)))
#define PAIR(T)                                                                                  \
  TEST_2(cvt_rn_##T##x2, "cvt.rn." #T "x2.f32 %0, %1, %2;", T##x2, f32, f32,                     \
         T##x2{static_cast<u32>(to_##T(a).bits) << 16 | to_##T(b).bits})                         \
  TEST_2(cvt_rz_##T##x2, "cvt.rz." #T "x2.f32 %0, %1, %2;", T##x2, f32, f32,                     \
         T##x2{static_cast<u32>(to_##T(a, Mode::zero).bits) << 16 | to_##T(b, Mode::zero).bits}) \
  TEST_2(cvt_relu_##T##x2, "cvt.rn.relu." #T "x2.f32 %0, %1, %2;", T##x2, f32, f32,              \
         T##x2{static_cast<u32>(to_##T(positive(a)).bits) << 16 | to_##T(positive(b)).bits})
PAIR(f16)
PAIR(bf16)
TEST_1(cvt_rna_tf32, "cvt.rna.tf32.f32 %0, %1;", u32, f32, to_tf32(a))

}  // namespace

int main() {
  for (const auto& [name, run] : tests) run(name);
  return test::summary("scalar_instructions");
}
