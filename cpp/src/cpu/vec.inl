// The one vector type: compiler vectors of LEANCORE_VECTOR_BYTES, which become SSE, AVX or NEON registers by the target
// region that this file is included in. A multiply and add in one expression is contracted to a fused one where the
// instruction set has it (-ffp-contract=fast on these files).

#define LEANCORE_INLINE inline __attribute__((always_inline))
#define LEANCORE_LAMBDA_INLINE __attribute__((always_inline))

template <typename T>
using mask_element = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

template <typename T>
struct Simd {
  static constexpr std::int64_t width = LEANCORE_VECTOR_BYTES / sizeof(T);
  typedef T vec __attribute__((vector_size(LEANCORE_VECTOR_BYTES)));
  typedef mask_element<T> mask __attribute__((vector_size(LEANCORE_VECTOR_BYTES)));
  // The same in memory, aligned to nothing but the element.
  typedef T vec_in_memory __attribute__((vector_size(LEANCORE_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  typedef mask_element<T> mask_in_memory
      __attribute__((vector_size(LEANCORE_VECTOR_BYTES), aligned(sizeof(T)), may_alias));

  static LEANCORE_INLINE vec load(const T* p) { return *reinterpret_cast<const vec_in_memory*>(p); }
  static LEANCORE_INLINE mask load(const mask_element<T>* p) { return *reinterpret_cast<const mask_in_memory*>(p); }
  static LEANCORE_INLINE void store(T* p, vec v) { *reinterpret_cast<vec_in_memory*>(p) = v; }

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
      const vec v01 = halves<0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23>(v0, v1);
      const vec v23 = halves<0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23>(v2, v3);
      vec all = __builtin_shufflevector(v01, v23, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                __builtin_shufflevector(v01, v23, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
      all += __builtin_shufflevector(all, all, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
      all += __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
      sums = __builtin_shufflevector(all, all, 0, 4, 8, 12);
    } else if constexpr (width == 8) {
      const vec v01 = halves<0, 1, 2, 3, 8, 9, 10, 11>(v0, v1), v23 = halves<0, 1, 2, 3, 8, 9, 10, 11>(v2, v3);
      vec all = __builtin_shufflevector(v01, v23, 0, 1, 4, 5, 8, 9, 12, 13) +
                __builtin_shufflevector(v01, v23, 2, 3, 6, 7, 10, 11, 14, 15);
      all += __builtin_shufflevector(all, all, 1, 0, 3, 2, 5, 4, 7, 6);
      sums = __builtin_shufflevector(all, all, 0, 2, 4, 6);
    } else if constexpr (width == 4) {
      const vec v01 = halves<0, 1, 4, 5>(v0, v1), v23 = halves<0, 1, 4, 5>(v2, v3);
      sums = __builtin_shufflevector(v01, v23, 0, 2, 4, 6) + __builtin_shufflevector(v01, v23, 1, 3, 5, 7);
    } else {
      const vec v01 = halves<0, 2>(v0, v1), v23 = halves<0, 2>(v2, v3);
      sums = __builtin_shufflevector(v01, v23, 0, 1, 2, 3);
    }
    return sums;
  }

 private:
  // The lower halves of two vectors plus their upper halves.
  template <int... lower>
  static LEANCORE_INLINE vec halves(vec a, vec b) {
    return __builtin_shufflevector(a, b, lower...) +
           __builtin_shufflevector(a, b, (lower + static_cast<int>(width) / 2)...);
  }
};

// `count` channels dealt to the fewest parts of at most `most`, of nearly equal size: no thin remainder at the end.
struct Split {
  std::int64_t count;
  std::int64_t parts;

  Split(std::int64_t channels, std::int64_t most) : count(channels), parts((channels + most - 1) / most) {}
  [[nodiscard]] std::int64_t first(std::int64_t part) const { return part * count / parts; }
  [[nodiscard]] std::int64_t size(std::int64_t part) const { return first(part + 1) - first(part); }
};
