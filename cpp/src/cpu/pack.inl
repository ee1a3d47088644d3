// Copying a slice of an array into a packed slot, [channel][position] with positions contiguous.

template <typename E, typename T = compute_type<E>>
LEANCORE_INLINE void copy_run(T* to, const E* from, std::int64_t count) {
  using S = Simd<T>;
  if (count < S::width) {
    for (std::int64_t q = 0; q < count; ++q) to[q] = static_cast<T>(from[q]);
    return;
  }
  std::int64_t q = 0;
  for (; q + S::width <= count; q += S::width) S::store(to + q, S::load(from + q));
  // The rest overlaps what has been copied, so that nothing past either end is touched.
  if (q < count) S::store(to + count - S::width, S::load(from + count - S::width));
}

template <typename E, typename T = compute_type<E>>
LEANCORE_INLINE void copy_every(T* to, const E* from, std::int64_t count, std::int64_t step) {
  if (step == 1) return copy_run(to, from, count);
  if (step == 2) {  // a distance that the compiler knows, and so vectorises
    for (std::int64_t q = 0; q < count; ++q) to[q] = static_cast<T>(from[2 * q]);
    return;
  }
  for (std::int64_t q = 0; q < count; ++q) to[q] = static_cast<T>(from[q * step]);
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

template <typename E, typename T = compute_type<E>>
void pack(const PackedShape& shape, const E* from, T* to, std::int64_t row_length) {
  for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
    const E* row_from = from + channel * shape.channel_step;
    T* row_to = to + channel * row_length;
    if (shape.dense) {
      copy_run(row_to, row_from, shape.rows * shape.inner);
      continue;
    }
    for (std::int64_t row = 0; row < shape.rows; ++row, row_from += shape.row_step, row_to += shape.inner) {
      for (std::int64_t line = 0; line < shape.lines; ++line) {
        copy_every(row_to + shape.line_to[line], row_from + shape.line_from[line], shape.count, shape.step);
      }
    }
  }
}
