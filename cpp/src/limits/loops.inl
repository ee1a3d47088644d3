// The loops, written once over compiler vectors of LEANCORE_VECTOR_BYTES and compiled in the target region of each
// instruction set that includes this file. LEANCORE_CHAINS independent sums hide the latency of the multiply-add: at
// least latency · units of them, and two registers less than there are. LEANCORE_STREAM(pointer, vector) is a store
// past the caches.

template <typename T>
struct Lanes {
  static constexpr int width = LEANCORE_VECTOR_BYTES / static_cast<int>(sizeof(T));
  static constexpr int chains = LEANCORE_CHAINS;
  typedef T vec __attribute__((vector_size(LEANCORE_VECTOR_BYTES), may_alias));
};

constexpr int unroll = 16;  // multiply-adds of each chain between two looks at the counter

template <typename T>
double multiply_add(std::int64_t rounds) {
  using vec = typename Lanes<T>::vec;
  // Read from memory that the compiler must not know; the sums settle at shift / (1 - scale), far from any special
  // value.
  volatile T seed[3] = {T(0.5), T(1), T(0.25)};
  const vec scale = vec{} + seed[0], shift = vec{} + seed[1];
  vec sums[LEANCORE_CHAINS];
#pragma GCC unroll 32
  for (int i = 0; i < LEANCORE_CHAINS; ++i) sums[i] = vec{} + seed[2];
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (int step = 0; step < unroll; ++step) {
#pragma GCC unroll 32
      for (int i = 0; i < LEANCORE_CHAINS; ++i) sums[i] = sums[i] * scale + shift;
    }
  }
  vec all = sums[0];
  for (int i = 1; i < LEANCORE_CHAINS; ++i) all += sums[i];
  double total = 0;
  for (int lane = 0; lane < Lanes<T>::width; ++lane) total += static_cast<double>(all[lane]);
  return total;
}

template <typename T>
constexpr std::int64_t flops_per_round = std::int64_t{2} * unroll * Lanes<T>::chains * Lanes<T>::width;

template <bool streaming>
void copy(void* to, const void* from, std::size_t bytes) {
  using vec = Lanes<float>::vec;
  constexpr std::size_t vectors = limit_block / sizeof(vec);
  vec* target = static_cast<vec*>(to);
  const vec* source = static_cast<const vec*>(from);
  for (std::size_t block = 0; block < bytes / limit_block; ++block, target += vectors, source += vectors) {
#pragma GCC unroll 16
    for (std::size_t i = 0; i < vectors; ++i) {
      if constexpr (streaming) {
        LEANCORE_STREAM(target + i, source[i]);
      } else {
        target[i] = source[i];
      }
    }
    asm volatile("" ::: "memory");  // or the compiler calls memcpy, which chooses its stores itself
  }
  if constexpr (streaming) LEANCORE_FENCE();
}
