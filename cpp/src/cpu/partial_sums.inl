// Sums of weight gradients over many tiles. Each lane, a fixed share of the tiles, has sums of its own, so that the
// result does not depend on the number of threads. What each addition rounds away is summed as well (TwoSum, Knuth)
// and added at the end of the lane: the error does not grow with the number of tiles.

template <typename T>
struct PartialSums {
  T* base;            // dalpha [c_out][row], then dc [diagonal][columns] or as the layout has it
  bool first;         // tile of the lane: sums are written, not added to
  std::int64_t lost;  // distance from a sum to what its additions have lost; 0: not kept

  // V: T or vectors of T; sums are aligned to T only.
  template <typename V>
  LEANCORE_INLINE void add(T* to, V value) const {
    const auto read = [](const T* from) LEANCORE_LAMBDA_INLINE {
      V v;
      std::memcpy(&v, from, sizeof v);
      return v;
    };
    const auto write = [](T* target, V v) LEANCORE_LAMBDA_INLINE { std::memcpy(target, &v, sizeof v); };
    if (first) {
      write(to, value);
      if (lost != 0) write(to + lost, V{});
      return;
    }
    const V before = read(to), after = before + value;
    write(to, after);
    if (lost != 0) {
      const V added = after - before;
      write(to + lost, read(to + lost) + ((before - (after - added)) + (value - added)));
    }
  }
};

// Adds `count` sums of all lanes pairwise, in an order that depends on the number of lanes alone, into the first.
template <typename T>
void sum_lanes(T* base, std::int64_t count, std::int64_t lanes, std::int64_t lane_size, std::int64_t lost) {
  for (std::int64_t lane = 0; lost != 0 && lane < lanes; ++lane) {
    T* sums = base + lane * lane_size;
    for (std::int64_t i = 0; i < count; ++i) {
      // An infinite or NaN sum has lost nothing that means anything.
      const T rest = sums[lost + i];
      if (rest - rest == T{}) sums[i] += rest;
    }
  }
  for (std::int64_t step = 1; step < lanes; step *= 2) {
    for (std::int64_t lane = 0; lane + step < lanes; lane += 2 * step) {
      T* to = base + lane * lane_size;
      const T* from = to + step * lane_size;
      for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
    }
  }
}
