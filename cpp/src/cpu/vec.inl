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
  typedef mask_element<T> mask_in_memory __attribute__((vector_size(LEANCORE_VECTOR_BYTES), aligned(sizeof(T)),
                                                        may_alias));

  static LEANCORE_INLINE vec load(const T* p) { return *reinterpret_cast<const vec_in_memory*>(p); }
  static LEANCORE_INLINE mask load(const mask_element<T>* p) { return *reinterpret_cast<const mask_in_memory*>(p); }
  static LEANCORE_INLINE void store(T* p, vec v) { *reinterpret_cast<vec_in_memory*>(p) = v; }

  // Always the same tree, so that a sum has the same bits wherever it is taken.
  static LEANCORE_INLINE T sum(vec v) {
    if constexpr (width == 16) {
      return sum_of_8(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    } else if constexpr (width == 8) {
      return sum_of_8(v);
    } else if constexpr (width == 4) {
      return sum_of_4(v);
    } else {
      return v[0] + v[1];
    }
  }

 private:
  template <typename V>
  static LEANCORE_INLINE T sum_of_8(V v) {
    return sum_of_4(__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7));
  }
  template <typename V>
  static LEANCORE_INLINE T sum_of_4(V v) {
    const auto pair = __builtin_shufflevector(v, v, 0, 1) + __builtin_shufflevector(v, v, 2, 3);
    return pair[0] + pair[1];
  }
};
