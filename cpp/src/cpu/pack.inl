// Copying a slice of an array into a packed slot, [channel][pixel] with pixels contiguous.

template <typename T>
LEANCORE_INLINE void copy_run(T* to, const T* from, std::int64_t count) {
  using S = Simd<T>;
  if (count < S::width) {
    for (std::int64_t q = 0; q < count; ++q) to[q] = from[q];
    return;
  }
  std::int64_t q = 0;
  for (; q + S::width <= count; q += S::width) S::store(to + q, S::load(from + q));
  // The rest overlaps what has been copied, so that nothing past either end is touched.
  if (q < count) S::store(to + count - S::width, S::load(from + count - S::width));
}

// One side of a call (`in` or `out`) as packing sees it.
template <typename T>
struct Source {
  const T* base;
  std::int64_t channels;
  std::int64_t channel_stride;
  std::int64_t row_stride;           // along the slice axis
  const std::int64_t* inner_offset;  // of each pixel in a row; null when the inner axes are compact
};

// Rows [0, rows) of `inner` pixels, from `offset` elements into the source, to `to` with `row_length` per channel.
template <typename T>
void pack(const Source<T>& source, std::int64_t offset, std::int64_t rows, std::int64_t inner, T* to,
          std::int64_t row_length) {
  const bool compact = source.inner_offset == nullptr;
  const bool one_run = compact && (source.row_stride == inner || rows == 1);
  for (std::int64_t channel = 0; channel < source.channels; ++channel, to += row_length) {
    const T* from = source.base + offset + channel * source.channel_stride;
    if (one_run) {
      copy_run(to, from, rows * inner);
      continue;
    }
    for (std::int64_t row = 0; row < rows; ++row, from += source.row_stride) {
      if (compact) {
        copy_run(to + row * inner, from, inner);
      } else {
        for (std::int64_t p = 0; p < inner; ++p) to[row * inner + p] = from[source.inner_offset[p]];
      }
    }
  }
}
