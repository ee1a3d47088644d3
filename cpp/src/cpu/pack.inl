// Copying a slice of an array into a packed slot, [channel][position] with positions contiguous.

// From: a pointer, or a PairOfRuns.
template <typename T, typename From>
LEANCORE_INLINE void copy_run(T* to, From from, std::int64_t count) {
  if constexpr (sizeof(T) == 2) {
    std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
  } else {
    using S = Simd<T>;
    if (count < S::width) {
      for (std::int64_t q = 0; q < count; ++q) to[q] = static_cast<T>(from[q]);
      return;
    }
    std::int64_t q = 0;
    for (; q + S::width <= count; q += S::width) S::store(to + q, S::load(from + q));
    // The rest overlaps what has been copied, so that nothing past either end is touched.
    if (q < count) S::store(to + count - S::width, S::load(from + (count - S::width)));
  }
}

// One plane of one side of a call as packing sees it: rows of lines of elements.
struct PackedShape {
  std::int64_t channels, channel_step;
  std::int64_t rows, row_step;  // along the slice axis; a packed row has `inner` positions
  std::int64_t inner;
  std::int64_t lines;             // of a row
  const std::int64_t* line_from;  // elements from the row's first
  const std::int64_t* line_to;    // positions
  std::int64_t count, step;       // elements of a line
  bool dense;                     // all rows are one run in both places
};

// Calls copy(to, from) for every line of one channel.
template <typename From, typename T, typename Copy>
LEANCORE_INLINE void over_lines(const PackedShape& shape, From from, T* to, Copy copy) {
  for (std::int64_t row = 0; row < shape.rows; ++row, from += shape.row_step, to += shape.inner) {
    for (std::int64_t line = 0; line < shape.lines; ++line)
      copy(to + shape.line_to[line], from + shape.line_from[line]);
  }
}

// Lines of every second element. A line shorter than a vector is stored as a whole one: what follows it in the packed
// row is the next line, or a place that nothing reads.
template <typename E, typename T>
LEANCORE_INLINE void pack_every_second(const PackedShape& shape, const E* from, T* to) {
  using S = Simd<T>;
  const std::int64_t count = shape.count;
  if (count >= S::width) {
    over_lines(shape, from, to, [count](T* line_to, const E* line) LEANCORE_LAMBDA_INLINE {
      for (std::int64_t q = 0; q + S::width <= count; q += S::width) {
        S::store(line_to + q, S::load_every_second(line + 2 * q));
      }
      if (count % S::width == 0) return;
      S::store(line_to + count - S::width, S::load_every_second(line + 2 * (count - S::width)));
    });
  } else if (2 * count > S::width) {
    over_lines(shape, from, to, [count](T* line_to, const E* line) LEANCORE_LAMBDA_INLINE {
      const auto high = S::load_lanes(line + S::width - 1, 2 * count - S::width);
      S::store(line_to, S::every_second(S::load(line), high));
    });
  } else {
    over_lines(shape, from, to, [count](T* line_to, const E* line) LEANCORE_LAMBDA_INLINE {
      const auto both = S::load_lanes(line, 2 * count - 1);
      S::store(line_to, S::every_second(both, both));
    });
  }
}

// The same of two lattices at once, which take turns along the lines: each pair of elements goes to two places.
template <typename E, typename T = compute_type<E>>
void pack_pairs(const PackedShape& shape, const E* from, T* first, T* second) {
  using S = Simd<T>;
  const std::int64_t count = shape.count;
  const auto to_both = [&](T* line_to, typename S::vec low, typename S::vec high) LEANCORE_LAMBDA_INLINE {
    S::store(line_to, S::template of_pairs<0>(low, high));
    S::store(line_to + (second - first), S::template of_pairs<1>(low, high));
  };
  const auto whole = [&](T* line_to, const E* line)
                         LEANCORE_LAMBDA_INLINE { to_both(line_to, S::load(line), S::load(line + S::width)); };
  if (count >= S::width) {
    over_lines(shape, from, first, [&](T* line_to, const E* line) LEANCORE_LAMBDA_INLINE {
      for (std::int64_t q = 0; q + S::width <= count; q += S::width) whole(line_to + q, line + 2 * q);
      if (count % S::width != 0) whole(line_to + count - S::width, line + 2 * (count - S::width));
    });
  } else if (2 * count > S::width) {
    over_lines(shape, from, first, [&](T* line_to, const E* line) LEANCORE_LAMBDA_INLINE {
      to_both(line_to, S::load(line), S::load_lanes(line + S::width, 2 * count - S::width));
    });
  } else {
    over_lines(shape, from, first, [&](T* line_to, const E* line) LEANCORE_LAMBDA_INLINE {
      const auto both = S::load_lanes(line, 2 * count);
      to_both(line_to, both, both);
    });
  }
}

// Asks for the lines of memory that packing a channel will read. Channels often lie a power of two apart, so that what
// was fetched into the second-level cache long before has in part been driven out by then.
template <typename E>
LEANCORE_INLINE void fetch_channel(const PackedShape& shape, const E* from) {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(E));
  const auto fetch = [](const E* run, std::int64_t count) LEANCORE_LAMBDA_INLINE {
    for (std::int64_t q = 0; q < count; q += line) __builtin_prefetch(run + q, 0, 3);
  };
  if (shape.dense) {
    fetch(from, shape.rows * shape.inner);
  } else if (0 < shape.step && shape.step <= line) {
    for (std::int64_t row = 0; row < shape.rows; ++row, from += shape.row_step) {
      for (std::int64_t i = 0; i < shape.lines; ++i) fetch(from + shape.line_from[i], shape.count * shape.step);
    }
  }
}

template <typename E, typename T = compute_type<E>>
void pack_channel(const PackedShape& shape, const E* from, T* to) {
  if (shape.dense) {
    copy_run(to, from, shape.rows * shape.inner);
  } else if (shape.count <= 0) {
    return;
  } else if (shape.step == 1) {
    over_lines(shape, from, to, [&](T* line_to, const E* line) { copy_run(line_to, line, shape.count); });
  } else if (shape.step == 2 && sizeof(T) > 2 && Simd<compute_type<T>>::width > 4) {
    if constexpr (sizeof(T) > 2) pack_every_second(shape, from, to);
  } else {
    over_lines(shape, from, to, [&](T* line_to, const E* line) {
      for (std::int64_t q = 0; q < shape.count; ++q) line_to[q] = static_cast<T>(line[q * shape.step]);
    });
  }
}

// Two channels whose elements follow each other along the lines.
template <typename T>
void pack_two_channels(const PackedShape& shape, PairOfRuns from, T* to) {
  if (shape.dense) {
    copy_run(to, from, shape.rows * shape.inner);
  } else if (shape.count > 0) {
    over_lines(shape, from, to, [&](T* line_to, PairOfRuns line) { copy_run(line_to, line, shape.count); });
  }
}
