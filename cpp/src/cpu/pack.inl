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

// Rows of lines of a quarter of a vector or less. A packed vector takes each of its elements from one of a few vectors
// of memory, by tables that are made once per call and then serve many channels.
inline constexpr int max_picks = 6;  // of a packed vector; more would gain nothing over single elements
inline constexpr std::int64_t channels_at_once = 16;

template <typename T>
struct Pick {
  typename Simd<T>::ints index;  // which lane of the vector in memory
  typename Simd<T>::mask_entry where[Simd<T>::width / Simd<T>::elements_per_entry];
  std::int64_t from;  // elements from the first of the rows
};
template <typename T>
struct PickedVector {
  std::int64_t to;  // positions
  const Pick<T>* picks;
  int count;
};
template <typename T>
struct Picks {
  std::int64_t rows = 0;   // at once
  std::int64_t lanes = 0;  // that exist of a vector in memory
  const PickedVector<T>* begin = nullptr;
  const PickedVector<T>* end = nullptr;
};

// One vector of `channels` channels.
template <typename E, int count, typename T = compute_type<E>>
void pack_picked(const Pick<T>* picks, std::int64_t lanes, const E* from, std::int64_t channel_step, T* to,
                 std::int64_t row_length, std::int64_t channels) {
  using S = Simd<T>;
  typename S::ints index[count];
  typename S::mask where[count];
  const E* at[count];
#pragma GCC unroll 8
  for (int i = 0; i < count; ++i) {
    index[i] = picks[i].index;
    where[i] = S::mask_at(picks[i].where, 0);
    at[i] = from + picks[i].from;
  }
  const auto pack = [&](auto load) LEANCORE_LAMBDA_INLINE {
    for (std::int64_t channel = 0; channel < channels; ++channel, to += row_length) {
      typename S::vec packed = {};
#pragma GCC unroll 8
      for (int i = 0; i < count; ++i) {
        packed = S::pick(packed, where[i], index[i], load(at[i] + channel * channel_step));
      }
      S::store(to, packed);
    }
  };
  if (lanes == S::width) {
    pack([](const E* p) LEANCORE_LAMBDA_INLINE { return S::load(p); });
  } else {
    pack([lanes](const E* p) LEANCORE_LAMBDA_INLINE { return S::load_lanes(p, lanes); });
  }
}

template <typename E, typename T = compute_type<E>>
using PackPicked = void (*)(const Pick<T>*, std::int64_t, const E*, std::int64_t, T*, std::int64_t, std::int64_t);

// By the number of picks - 1.
template <typename E>
inline constexpr auto pack_picked_table = []<std::size_t... i>(std::index_sequence<i...>) {
  return std::array<PackPicked<E>, sizeof...(i)>{pack_picked<E, static_cast<int>(i) + 1>...};
}(std::make_index_sequence<max_picks>{});

// Several rows at a time while there are as many, then one by one. The last vector of either is stored as a whole one:
// what follows it in the packed row is the next row, or a place that nothing reads.
template <typename E, typename T>
void pack_short_lines(const PackedShape& shape, const Picks<T>& several, const Picks<T>& one, const E* from, T* to,
                      std::int64_t row_length, std::int64_t channels) {
  std::int64_t row = 0;
  for (const Picks<T>* picks : {&several, &one}) {
    for (; row + picks->rows <= shape.rows; row += picks->rows) {
      for (const PickedVector<T>* v = picks->begin; v != picks->end; ++v) {
        pack_picked_table<E>[static_cast<std::size_t>(v->count - 1)](v->picks, picks->lanes, from + row* shape.row_step,
                                                                     shape.channel_step, to + row* shape.inner + v->to,
                                                                     row_length, channels);
      }
    }
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
  } else if (shape.lines > 0 && 0 < shape.step && shape.step <= line) {
    const std::int64_t length = shape.count * shape.step, rest = shape.line_from[shape.lines - 1] - shape.line_from[0];
    const bool together = 0 <= rest && rest <= (shape.lines - 1) * line;
    for (std::int64_t row = 0; row < shape.rows; ++row, from += shape.row_step) {
      if (together) {
        fetch(from + shape.line_from[0], rest + length);
      } else {
        for (std::int64_t i = 0; i < shape.lines; ++i) fetch(from + shape.line_from[i], length);
      }
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
