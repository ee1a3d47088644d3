// The one vector type: compiler vectors of LEANCORE_VECTOR_BYTES, which become SSE, AVX or NEON registers by the target
// region that this file is included in. A multiply and add in one expression is contracted to a fused one where the
// instruction set has it (-ffp-contract=fast on these files). What compiler vectors cannot say (masked fused
// operations, streaming stores, half-precision conversion) is in this file alone, by LEANCORE_AVX2 and LEANCORE_AVX512.
//
// T is the type that is computed with, E the type in memory: E = T, or a 16-bit type with T = float. Numeric contract
// of the conversions: to nearest, ties to even, subnormals included, NaN stays NaN; fp32 from 16 bits is exact.

#define LEANCORE_INLINE inline __attribute__((always_inline))
#define LEANCORE_LAMBDA_INLINE __attribute__((always_inline))

template <typename E>
using compute_type = std::conditional_t<sizeof(E) == 2, float, E>;

template <typename T>
using int_like = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

// Two runs of bf16, to be read side by side: element q is a float that holds the bits of low[q] and, above them, those
// of low[distance + q], or zeros where there is no second run.
class PairOfRuns {
 public:
  PairOfRuns(const bf16* low, std::int64_t distance, bool has_high)
      : low_(low), distance_(has_high ? distance : 0), high_bits_(has_high ? -1 : 0) {}

  [[nodiscard]] const bf16* low() const { return low_; }
  [[nodiscard]] const bf16* high() const { return low_ + distance_; }
  [[nodiscard]] std::int32_t high_bits() const { return high_bits_; }

  LEANCORE_INLINE float operator[](std::int64_t q) const {
    const std::uint32_t upper = std::uint32_t{high()[q].bits} << 16 & static_cast<std::uint32_t>(high_bits_);
    return std::bit_cast<float>(low_[q].bits | upper);
  }
  LEANCORE_INLINE PairOfRuns& operator+=(std::int64_t elements) {
    low_ += elements;
    return *this;
  }
  friend LEANCORE_INLINE PairOfRuns operator+(PairOfRuns runs, std::int64_t elements) { return runs += elements; }

 private:
  const bf16* low_;
  std::int64_t distance_;
  std::int32_t high_bits_;
};

template <typename T>
struct Simd {
  static constexpr std::int64_t width = LEANCORE_VECTOR_BYTES / sizeof(T);
  typedef T vec __attribute__((vector_size(LEANCORE_VECTOR_BYTES)));
  typedef int_like<T> ints __attribute__((vector_size(LEANCORE_VECTOR_BYTES)));
  typedef std::uint16_t halves __attribute__((vector_size(LEANCORE_VECTOR_BYTES / 2)));
  // The same in memory, aligned to nothing but the element.
  typedef T vec_in_memory __attribute__((vector_size(LEANCORE_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef int_like<T> ints_in_memory __attribute__((vector_size(LEANCORE_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef std::uint16_t halves_in_memory __attribute__((vector_size(LEANCORE_VECTOR_BYTES / 2), aligned(2), may_alias));
  typedef T pairs_in_memory __attribute__((vector_size(LEANCORE_VECTOR_BYTES), aligned(2), may_alias));
  typedef std::int16_t half_mask __attribute__((vector_size(LEANCORE_VECTOR_BYTES)));

  static LEANCORE_INLINE vec load(const T* p) { return *reinterpret_cast<const vec_in_memory*>(p); }
  static LEANCORE_INLINE void store(T* p, vec v) { *reinterpret_cast<vec_in_memory*>(p) = v; }
  static LEANCORE_INLINE vec broadcast(T value) { return value - vec{}; }

  // ---- masks: which lanes take part ----

#if defined(LEANCORE_AVX512)
  using mask = std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>;
  // In a row of masks: one entry for each vector of elements.
  using mask_entry = mask;
  static constexpr std::int64_t elements_per_entry = width;

  static LEANCORE_INLINE mask mask_at(const mask_entry* row, std::int64_t element) {
    if constexpr (sizeof(T) == 4) {
      return _load_mask16(const_cast<mask_entry*>(row) + element / width);
    } else {
      return _load_mask8(const_cast<mask_entry*>(row) + element / width);
    }
  }
  static void set_mask(mask_entry* row, std::int64_t element, bool exists) {
    const auto bit = static_cast<mask_entry>(1u << element % width);
    mask_entry& entry = row[element / width];
    entry = static_cast<mask_entry>(exists ? entry | bit : entry & ~bit);
  }
  static LEANCORE_INLINE mask first_lanes(std::int64_t count) { return static_cast<mask>((1u << count) - 1); }
  // The elements [begin, end) of a row of `count`.
  static void set_range(mask_entry* row, std::int64_t begin, std::int64_t end, std::int64_t count) {
    for (std::int64_t base = 0; base < count; base += width) {
      const auto lanes_below = [base](std::int64_t element) {
        return first_lanes(std::clamp<std::int64_t>(element - base, 0, width));
      };
      row[base / width] = static_cast<mask_entry>(lanes_below(end) & ~lanes_below(begin));
    }
  }
  // sum + a b in the lanes of the mask, sum in the others.
  static LEANCORE_INLINE vec add_product(mask where, vec sum, vec a, vec b) {
    if constexpr (sizeof(T) == 4) {
      return (vec)_mm512_mask3_fmadd_ps((__m512)a, (__m512)b, (__m512)sum, where);
    } else {
      return (vec)_mm512_mask3_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)sum, where);
    }
  }
  static LEANCORE_INLINE vec keep(mask where, vec v) {
    if constexpr (sizeof(T) == 4) {
      return (vec)_mm512_maskz_mov_ps(where, (__m512)v);
    } else {
      return (vec)_mm512_maskz_mov_pd(where, (__m512d)v);
    }
  }
#else
  using mask = ints;
  using mask_entry = int_like<T>;  // one entry for each element
  static constexpr std::int64_t elements_per_entry = 1;

  static LEANCORE_INLINE mask mask_at(const mask_entry* row, std::int64_t element) {
    return *reinterpret_cast<const ints_in_memory*>(row + element);
  }
  static void set_mask(mask_entry* row, std::int64_t element, bool exists) {
    row[element] = exists ? static_cast<mask_entry>(-1) : mask_entry{};
  }
  static void set_range(mask_entry* row, std::int64_t begin, std::int64_t end, std::int64_t count) {
    begin = std::clamp<std::int64_t>(begin, 0, count);
    end = std::clamp<std::int64_t>(end, begin, count);
    std::fill(row, row + begin, mask_entry{});
    std::fill(row + begin, row + end, static_cast<mask_entry>(-1));
    std::fill(row + end, row + count, mask_entry{});
  }
  static LEANCORE_INLINE mask first_lanes(std::int64_t count) {
    ints lane{};
    for (std::int64_t i = 0; i < width; ++i) lane[i] = static_cast<int_like<T>>(i);
    return lane < static_cast<int_like<T>>(count);
  }
  static LEANCORE_INLINE vec add_product(mask where, vec sum, vec a, vec b) {
    const vec with = sum + a * b;
    return where ? with : sum;
  }
  static LEANCORE_INLINE vec keep(mask where, vec v) { return where ? v : vec{}; }
#endif
  static constexpr std::int64_t mask_entries(std::int64_t elements) {
    return (elements + width) / elements_per_entry + width;
  }

  // ---- memory of any element type ----

  static LEANCORE_INLINE vec load(const f16* p)
    requires(sizeof(T) == 4)
  {
#if defined(LEANCORE_AVX512)
    return (vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(LEANCORE_AVX2)
    return (vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    const ints bits = widen(p), magnitude = bits & 0x7fff, sign = (bits & 0x8000) << 16;
    const ints rebias = (magnitude < 0x7c00 ? broadcast_int(127 - 15) : broadcast_int(255 - 31)) << 23;
    const ints normal = (magnitude << 13) + rebias;
    const ints subnormal = reinterpret_cast<ints>(__builtin_convertvector(magnitude, vec) * 0x1p-24f);
    return reinterpret_cast<vec>((magnitude < 0x0400 ? subnormal : normal) | sign);
#endif
  }
  static LEANCORE_INLINE vec load(const bf16* p)
    requires(sizeof(T) == 4)
  {
    return reinterpret_cast<vec>(widen(p) << 16);
  }

  static LEANCORE_INLINE vec load(PairOfRuns p)
    requires(sizeof(T) == 4)
  {
    return reinterpret_cast<vec>(widen(p.low()) | ((widen(p.high()) << 16) & p.high_bits()));
  }

  static LEANCORE_INLINE void store(f16* p, vec v)
    requires(sizeof(T) == 4)
  {
    store_halves(p, to_f16(v));
  }
  static LEANCORE_INLINE void store(bf16* p, vec v)
    requires(sizeof(T) == 4)
  {
    store_halves(p, to_bf16(v));
  }

  // Past the caches: for arrays so large that nobody will find them there. p is aligned to the vector in memory; a
  // fence ends a sequence of them.
  template <typename E>
  static constexpr bool can_stream =
#if defined(LEANCORE_AVX512) || defined(LEANCORE_AVX2)
      true;
#else
      false;
#endif
  template <typename E>
  static LEANCORE_INLINE void stream(E* p, vec v) {
#if defined(LEANCORE_AVX512)
    if constexpr (sizeof(E) == 2) {
      _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)rounded(p, v));
    } else {
      _mm512_stream_ps(reinterpret_cast<float*>(p), (__m512)v);
    }
#elif defined(LEANCORE_AVX2)
    if constexpr (sizeof(E) == 2) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)rounded(p, v));
    } else {
      _mm256_stream_ps(reinterpret_cast<float*>(p), (__m256)v);
    }
#else
    store(p, v);
#endif
  }
  static void fence() {
#if defined(LEANCORE_AVX512) || defined(LEANCORE_AVX2)
    _mm_sfence();
#endif
  }

  // Lanes [first, last) alone, lane 0 at p; nothing else is touched.
  template <typename E>
  static LEANCORE_INLINE void store_lanes(E* p, vec v, std::int64_t first, std::int64_t last) {
#if defined(LEANCORE_AVX512)
    const auto where = static_cast<mask>(first_lanes(last) & ~first_lanes(first));
    if constexpr (sizeof(E) == 8) {
      _mm512_mask_storeu_pd(p, where, (__m512d)v);
    } else if constexpr (sizeof(E) == 4) {
      _mm512_mask_storeu_ps(p, where, (__m512)v);
    } else {
      _mm256_mask_storeu_epi16(p, where, (__m256i)rounded(p, v));
    }
#else
#if defined(LEANCORE_AVX2)
    if constexpr (sizeof(E) == 4) {
      return _mm256_maskstore_ps(p, (__m256i)(first_lanes(last) & ~first_lanes(first)), (__m256)v);
    } else if constexpr (sizeof(E) == 8) {
      return _mm256_maskstore_pd(p, (__m256i)(first_lanes(last) & ~first_lanes(first)), (__m256d)v);
    }
#endif
    E lanes[width];
    store(lanes, v);
    for (std::int64_t i = first; i < last; ++i) p[i] = lanes[i];
#endif
  }
  // The first `count` lanes from memory that ends there, the others 0.
  template <typename E>
  static LEANCORE_INLINE vec load_lanes(const E* p, std::int64_t count) {
#if defined(LEANCORE_AVX512)
    const mask where = first_lanes(count);
    if constexpr (sizeof(E) == 8) {
      return (vec)_mm512_maskz_loadu_pd(where, p);
    } else if constexpr (sizeof(E) == 4) {
      return (vec)_mm512_maskz_loadu_ps(where, p);
    } else {
      E lanes[width] = {};
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), _mm256_maskz_loadu_epi16(where, p));
      return load(lanes);
    }
#else
#if defined(LEANCORE_AVX2)
    if constexpr (sizeof(E) == 4) {
      return (vec)_mm256_maskload_ps(p, (__m256i)first_lanes(count));
    } else if constexpr (sizeof(E) == 8) {
      return (vec)_mm256_maskload_pd(p, (__m256i)first_lanes(count));
    }
#endif
    E lanes[width];
    std::memset(static_cast<void*>(lanes), 0, sizeof lanes);
    for (std::int64_t i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
#endif
  }

  // p[0], p[2], ..., and nothing past the last one.
  template <typename E>
  static LEANCORE_INLINE vec load_every_second(const E* p) {
    return every_second(load(p), load(p + width - 1));
  }
  // To p[0], p[2], ..., and to nothing between or after them.
  template <typename E>
  static LEANCORE_INLINE void store_every_second(E* p, vec v) {
#if defined(LEANCORE_AVX512)
    if constexpr (std::is_same_v<E, T>) {
      constexpr int half = static_cast<int>(width) / 2;
      [&]<int... lane>(std::integer_sequence<int, lane...>) LEANCORE_LAMBDA_INLINE {
        const vec low = __builtin_shufflevector(v, v, lane / 2 ...);
        const vec high = __builtin_shufflevector(v, v, half + lane / 2 ...);
        if constexpr (sizeof(T) == 4) {
          _mm512_mask_storeu_ps(p, 0x5555, (__m512)low);
          _mm512_mask_storeu_ps(p + width, 0x5555, (__m512)high);
        } else {
          _mm512_mask_storeu_pd(p, 0x55, (__m512d)low);
          _mm512_mask_storeu_pd(p + width, 0x55, (__m512d)high);
        }
      }(std::make_integer_sequence<int, static_cast<int>(width)>());
      return;
    }
#endif
    for (std::int64_t i = 0; i < width; ++i) p[2 * i] = static_cast<E>(v[i]);
  }
  // The even lanes of one vector, then the odd ones of another.
  static LEANCORE_INLINE vec every_second(vec low, vec high) {
    return [&]<int... lane>(std::integer_sequence<int, lane...>) LEANCORE_LAMBDA_INLINE {
      constexpr int half = static_cast<int>(width) / 2;
      return __builtin_shufflevector(low, high, (lane < half ? 2 * lane : 2 * lane + 1)...);
    }(std::make_integer_sequence<int, static_cast<int>(width)>());
  }

  // The lanes of two vectors, one after the other, that come first in pairs (which = 0) or second (1).
  template <int which>
  static LEANCORE_INLINE vec of_pairs(vec low, vec high) {
    return [&]<int... lane>(std::integer_sequence<int, lane...>) LEANCORE_LAMBDA_INLINE {
      return __builtin_shufflevector(low, high, (2 * lane + which)...);
    }(std::make_integer_sequence<int, static_cast<int>(width)>());
  }

  // `into`, but in the lanes of the mask that lane of v which `index` names.
  static LEANCORE_INLINE vec pick(vec into, mask where, ints index, vec v) {
#if defined(LEANCORE_AVX512)
    if constexpr (sizeof(T) == 4) {
      return (vec)_mm512_mask_permutexvar_ps((__m512)into, where, (__m512i)index, (__m512)v);
    } else {
      return (vec)_mm512_mask_permutexvar_pd((__m512d)into, where, (__m512i)index, (__m512d)v);
    }
#else
#if defined(LEANCORE_AVX2)
    if constexpr (sizeof(T) == 4) {
      const vec picked = (vec)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
      return where ? picked : into;
    }
#endif
    for (std::int64_t i = 0; i < width; ++i) into[i] = where[i] ? v[index[i]] : into[i];
    return into;
#endif
  }

  // ---- pairs of bf16 in the bits of a lane ----

  // The lower or the upper halves, widened.
  static LEANCORE_INLINE vec half_of_pairs(vec pairs, int half)
    requires(sizeof(T) == 4)
  {
    const ints bits = reinterpret_cast<ints>(pairs);
    return reinterpret_cast<vec>(half == 0 ? bits << 16 : bits & ~0xffff);
  }
  static LEANCORE_INLINE vec broadcast_pair(T pair)
    requires(sizeof(T) == 4)
  {
    return reinterpret_cast<vec>(broadcast_int(std::bit_cast<std::int32_t>(pair)));
  }
  static LEANCORE_INLINE vec load_pairs(const bf16* p) { return *reinterpret_cast<const pairs_in_memory*>(p); }

  // The first `count` elements of type P in a vector of them, for keep().
  template <typename P>
  static LEANCORE_INLINE auto first_elements(std::int64_t count) {
    if constexpr (sizeof(P) == sizeof(T)) {
      return first_lanes(count);
    } else {
#if defined(LEANCORE_AVX512)
      return static_cast<__mmask32>((std::uint64_t{1} << count) - 1);
#else
      half_mask half{};
      for (std::int64_t i = 0; i < 2 * width; ++i) half[i] = static_cast<std::int16_t>(i);
      return half < static_cast<std::int16_t>(count);
#endif
    }
  }
#if defined(LEANCORE_AVX512)
  static LEANCORE_INLINE vec keep(__mmask32 halves_kept, vec pairs) {
    return (vec)_mm512_maskz_mov_epi16(halves_kept, (__m512i)pairs);
  }
#else
  static LEANCORE_INLINE vec keep(half_mask halves_kept, vec pairs) { return (vec)((half_mask)pairs & halves_kept); }
#endif

  // sum + the product of the upper halves of each lane + that of the lower halves. Numeric contract: docs/numerics.md.
#if defined(LEANCORE_AVX512_BF16)
  static LEANCORE_INLINE vec add_pair_products(vec sum, vec left, vec right)
    requires(sizeof(T) == 4)
  {
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)left, (__m512bh)right);
  }
#else
  // For tests, and so long that copies of it would take minutes to compile.
  static __attribute__((noinline)) vec add_pair_products(vec sum, vec left, vec right)
    requires(sizeof(T) == 4)
  {
    sum = flushed(sum);
    for (const int half : {1, 0}) {
      sum = flushed(sum + flushed(half_of_pairs(left, half)) * flushed(half_of_pairs(right, half)));
    }
    return sum;
  }
#endif

  // ---- sums across lanes ----

  static LEANCORE_INLINE T sum(vec v) {
    T parts[width];
    store(parts, v);
    for (std::int64_t half = width / 2; half > 0; half /= 2) {
      for (std::int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
    }
    return parts[0];
  }

  typedef T four __attribute__((vector_size(4 * sizeof(T))));
  // The sums of four vectors at once: each step halves the number of parts that a sum is in.
  static LEANCORE_INLINE four sum_four(vec v0, vec v1, vec v2, vec v3) {
    four sums;
    if constexpr (width == 16) {
      vec all = quarters_added(v0, v1, v2, v3);
      all += __builtin_shufflevector(all, all, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
      all += __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
      sums = __builtin_shufflevector(all, all, 0, 4, 8, 12);
    } else if constexpr (width == 8) {
      const vec v01 = halves_added<0, 1, 2, 3, 8, 9, 10, 11>(v0, v1);
      const vec v23 = halves_added<0, 1, 2, 3, 8, 9, 10, 11>(v2, v3);
      vec all = __builtin_shufflevector(v01, v23, 0, 1, 4, 5, 8, 9, 12, 13) +
                __builtin_shufflevector(v01, v23, 2, 3, 6, 7, 10, 11, 14, 15);
      all += __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6);
      sums = __builtin_shufflevector(all, all, 0, 2, 4, 6);
    } else if constexpr (width == 4) {
      const vec v01 = halves_added<0, 1, 4, 5>(v0, v1), v23 = halves_added<0, 1, 4, 5>(v2, v3);
      sums = __builtin_shufflevector(v01, v23, 0, 2, 4, 6) + __builtin_shufflevector(v01, v23, 1, 3, 5, 7);
    } else {
      const vec v01 = halves_added<0, 2>(v0, v1), v23 = halves_added<0, 2>(v2, v3);
      sums = __builtin_shufflevector(v01, v23, 0, 1, 2, 3);
    }
    return sums;
  }

  // The same of four rows of four: [column][row].
  typedef T sixteen __attribute__((vector_size(16 * sizeof(T))));
  static LEANCORE_INLINE sixteen sum_sixteen(const vec (&r0)[4], const vec (&r1)[4], const vec (&r2)[4],
                                             const vec (&r3)[4])
    requires(width == 16)
  {
    const auto pairs_added = []<int... lane>(std::integer_sequence<int, lane...>, vec a, vec b) LEANCORE_LAMBDA_INLINE {
      return __builtin_shufflevector(a, b, (lane / 4 * 4 + lane % 4 / 2 + lane % 2 * 16)...) +
             __builtin_shufflevector(a, b, (lane / 4 * 4 + lane % 4 / 2 + lane % 2 * 16 + 2)...);
    };
    const auto fours_added = []<int... lane>(std::integer_sequence<int, lane...>, vec a, vec b) LEANCORE_LAMBDA_INLINE {
      return __builtin_shufflevector(a, b, (lane / 4 * 4 + lane % 2 + lane % 4 / 2 * 16)...) +
             __builtin_shufflevector(a, b, (lane / 4 * 4 + lane % 2 + lane % 4 / 2 * 16 + 2)...);
    };
    constexpr auto lanes = std::make_integer_sequence<int, 16>();
    return fours_added(
        lanes,
        pairs_added(lanes, quarters_added(r0[0], r0[1], r0[2], r0[3]), quarters_added(r1[0], r1[1], r1[2], r1[3])),
        pairs_added(lanes, quarters_added(r2[0], r2[1], r2[2], r2[3]), quarters_added(r3[0], r3[1], r3[2], r3[3])));
  }

 private:
  // The lower halves of two vectors plus their upper halves.
  template <int... lower>
  static LEANCORE_INLINE vec halves_added(vec a, vec b) {
    return __builtin_shufflevector(a, b, lower...) +
           __builtin_shufflevector(a, b, (lower + static_cast<int>(width) / 2)...);
  }

  // Quarter k of the result: the four quarters of vector k, added.
  static LEANCORE_INLINE vec quarters_added(vec v0, vec v1, vec v2, vec v3)
    requires(width == 16)
  {
    const vec v01 = halves_added<0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23>(v0, v1);
    const vec v23 = halves_added<0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23>(v2, v3);
    return __builtin_shufflevector(v01, v23, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
           __builtin_shufflevector(v01, v23, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
  }

  static LEANCORE_INLINE ints broadcast_int(std::int32_t value) { return value - ints{}; }
  template <typename E>
  static LEANCORE_INLINE ints widen(const E* p) {
    return __builtin_convertvector(*reinterpret_cast<const halves_in_memory*>(p), ints);
  }
  template <typename E>
  static LEANCORE_INLINE void store_halves(E* p, halves bits) {
    *reinterpret_cast<halves_in_memory*>(p) = bits;
  }
  static LEANCORE_INLINE halves rounded(const f16*, vec v) { return to_f16(v); }
  static LEANCORE_INLINE halves rounded(const bf16*, vec v) { return to_bf16(v); }

  // Of the bits of some NaNs it overflows; it is not selected there.
  static LEANCORE_INLINE ints wrapping_sum(ints a, ints b) {
    typedef std::make_unsigned_t<int_like<T>> bits __attribute__((vector_size(LEANCORE_VECTOR_BYTES)));
    return reinterpret_cast<ints>(reinterpret_cast<bits>(a) + reinterpret_cast<bits>(b));
  }
  // Zeros for subnormal numbers.
  static LEANCORE_INLINE vec flushed(vec v) {
    const ints bits = reinterpret_cast<ints>(v), sign = std::numeric_limits<std::int32_t>::min() - ints{};
    return reinterpret_cast<vec>((bits & ~sign) < 0x00800000 ? bits & sign : bits);
  }
  static LEANCORE_INLINE halves to_bf16(vec v) {
#if defined(LEANCORE_AVX512_BF16)
    return (halves)_mm512_cvtneps_pbh((__m512)v);
#else
    const ints bits = reinterpret_cast<ints>(v), magnitude = bits & 0x7fffffff;
    const ints nearest = wrapping_sum(bits, ((bits >> 16) & 1) + 0x7fff), quiet = bits | 0x00400000;
    return __builtin_convertvector(((magnitude > 0x7f800000 ? quiet : nearest) >> 16) & 0xffff, halves);
#endif
  }
  static LEANCORE_INLINE halves to_f16(vec v) {
#if defined(LEANCORE_AVX512)
    return (halves)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(LEANCORE_AVX2)
    return (halves)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const ints bits = reinterpret_cast<ints>(v), magnitude = bits & 0x7fffffff, sign = (bits >> 16) & 0x8000;
    const ints normal = wrapping_sum(magnitude, ((magnitude >> 13) & 1) + (0xfff - ((127 - 15) << 23))) >> 13;
    // Adding 1/2 leaves the significand rounded to multiples of 2^-24.
    const ints subnormal = reinterpret_cast<ints>(reinterpret_cast<vec>(magnitude) + 0.5f) - 0x3f000000;
    ints result = magnitude < 0x38800000 ? subnormal : normal;          // below 2^-14
    result = magnitude >= 0x477ff000 ? broadcast_int(0x7c00) : result;  // 65520 and above
    result = magnitude > 0x7f800000 ? ((magnitude >> 13) & 0x3ff) | 0x7e00 : result;
    return __builtin_convertvector(result | sign, halves);
#endif
  }
};

// How many channels of `in` one packed element holds.
template <bool paired>
inline constexpr std::int64_t channels_per_element = paired ? 2 : 1;

// Packed element k of the weights that lead to one output channel. Where the second of a pair is missing, the packed
// values are +0 and the weight is -0: their product changes no sum, not even one that is -0.
template <bool paired, typename E, typename T = compute_type<E>>
LEANCORE_INLINE T packed_weight(const E* alpha, std::int64_t step, std::int64_t k, std::int64_t channels) {
  if constexpr (paired) {
    const std::uint32_t low = alpha[2 * k * step].bits;
    const std::uint32_t high = 2 * k + 1 < channels ? alpha[(2 * k + 1) * step].bits : 0x8000u;
    return std::bit_cast<T>(low | high << 16);
  } else {
    return static_cast<T>(alpha[k * step]);
  }
}

// From so many weights on, threads share their packing.
inline constexpr std::int64_t many_weights = 32 * 1024;

// `count` channels dealt to the fewest parts of at most `most`, of nearly equal size: no thin remainder at the end.
struct Split {
  std::int64_t count;
  std::int64_t parts;

  Split(std::int64_t channels, std::int64_t most) : count(channels), parts((channels + most - 1) / most) {}
  [[nodiscard]] std::int64_t first(std::int64_t part) const { return part * count / parts; }
  [[nodiscard]] std::int64_t size(std::int64_t part) const { return first(part + 1) - first(part); }
};
