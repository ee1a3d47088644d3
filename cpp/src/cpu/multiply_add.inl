// The one inner loop of the 1x1 convolution and of its weights' gradient:
//
//   sums[r][v] += sum over k of a(r, k) * b[k][vector v]
//
// where a and b are numbers, or pairs of bf16 in their bits, whose products are both added.
//
// a is read as scalars, b as whole vectors, sums stay in registers. Every sum adds its terms in the order of k,
// whatever block it falls into.

// Sums, vectors of b and one scalar: 15 of 16 registers, or 27 of the 32 that come with 512-bit vectors.
inline constexpr int block_rows = LEANCORE_VECTOR_BYTES == 64 ? 12 : 6;
inline constexpr int block_vectors = 2;

// a[k * step + r]
template <typename T, int rows>
struct ByColumns {
  const T* at;
  std::int64_t step;
  [[nodiscard]] LEANCORE_INLINE T row(int r) const { return at[r]; }
  LEANCORE_INLINE void next() { at += step; }
};

// a[k] of row r, `bytes` after that of row r - 1. A base for every three rows: two registers more than one base reach
// them all.
template <typename T, int rows>
class ByRows {
 public:
  LEANCORE_INLINE ByRows(const void* a, std::int64_t bytes) : bytes_(bytes) {
    for (int group = 0; group < groups; ++group) bases_[group] = static_cast<const char*>(a) + 3 * group * bytes_;
  }
  [[nodiscard]] LEANCORE_INLINE T row(int r) const {
    T value;
    std::memcpy(&value, bases_[r / 3] + r % 3 * bytes_, sizeof value);
    return value;
  }
  LEANCORE_INLINE void next() {
#pragma GCC unroll 8
    for (int group = 0; group < groups; ++group) bases_[group] += sizeof(T);
  }

 private:
  static constexpr int groups = (rows + 2) / 3;
  const char* bases_[groups];
  std::int64_t bytes_;
};

template <typename T, int rows, int vectors>
using Sums = typename Simd<T>::vec[rows][vectors];

template <typename T, int rows, int vectors, bool paired, typename A>
LEANCORE_INLINE A multiply_add(Sums<T, rows, vectors>& sums, A a, const T* b, std::int64_t b_step, std::int64_t count) {
  using S = Simd<T>;
  for (std::int64_t k = 0; k < count; ++k, a.next(), b += b_step) {
    typename S::vec right[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) right[v] = S::load(b + v * S::width);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      const T left = a.row(r);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        if constexpr (paired) {
          sums[r][v] = S::add_pair_products(sums[r][v], S::broadcast_pair(left), right[v]);
        } else {
          sums[r][v] += left * right[v];
        }
      }
    }
  }
  return a;
}

// A turn of fetching comes with so many steps of an inner loop.
inline constexpr std::int64_t steps_per_turn = 8;
constexpr std::int64_t turns_of(std::int64_t steps) {
  return (steps + steps_per_turn - 1) / steps_per_turn;
}

// The same, with fetch() at every turn.
template <typename T, int rows, int vectors, bool paired, typename A, typename Fetch>
LEANCORE_INLINE void multiply_add(Sums<T, rows, vectors>& sums, A a, const T* b, std::int64_t b_step,
                                  std::int64_t count, Fetch fetch) {
  for (; count > 0; count -= steps_per_turn, b += steps_per_turn * b_step) {
    a = multiply_add<T, rows, vectors, paired>(sums, a, b, b_step, std::min(count, steps_per_turn));
    fetch();
  }
}

// Instances of a block for 1..block_rows rows, by height - 1: make(integral_constant<int, rows>) each.
template <typename Make>
constexpr auto by_rows(Make make) {
  return [&]<std::size_t... i>(std::index_sequence<i...>) {
    return std::array{make(std::integral_constant<int, static_cast<int>(i) + 1>{})...};
  }(std::make_index_sequence<block_rows>{});
}
