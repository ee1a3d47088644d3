// Weight gradients of one tile: sums over its pixels, pixels along the vectors of both operands.
//
// The sums of the tiles of a lane may be many, so what each addition rounds away is summed as well (TwoSum, Knuth) and
// added at the end of the lane: the error does not grow with the number of tiles.

// Sums, one vector of every row and one of a column: all of 16 registers, or 31 of 32.
inline constexpr int weight_rows = LEANCORE_VECTOR_BYTES == 64 ? 6 : 3;  // channels of dy
inline constexpr int weight_columns = 4;                                 // channels of x

// Packed pixels of one tile; both operands start at the first pixel of channel 0.
template <typename T>
struct WeightTile {
  const T* x;
  std::int64_t x_row_length;
  const T* dy;
  std::int64_t dy_row_length;
  std::int64_t pixels;
  const mask_element<T>* tail;  // which pixels of the last, partial vector exist
  bool first;                   // of its lane: partial sums are written, not added to
  std::int64_t lost;            // distance from a partial sum to what its additions have lost; 0: not kept
};

// V: T, or four T side by side; the partial sums are aligned to T only.
template <typename T, typename V>
LEANCORE_INLINE void accumulate(const WeightTile<T>& tile, T* to, V value) {
  const auto read = [](const T* from) LEANCORE_LAMBDA_INLINE {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
  };
  const auto write = [](T* target, V v) LEANCORE_LAMBDA_INLINE { std::memcpy(target, &v, sizeof v); };
  if (tile.first) {
    write(to, value);
    if (tile.lost != 0) write(to + tile.lost, V{});
    return;
  }
  const V before = read(to), after = before + value;
  write(to, after);
  if (tile.lost != 0) {
    const V added = after - before;
    write(to + tile.lost, read(to + tile.lost) + ((before - (after - added)) + (value - added)));
  }
}

template <typename T>
LEANCORE_INLINE typename Simd<T>::vec keep(typename Simd<T>::mask exists, typename Simd<T>::vec v) {
  return exists ? v : typename Simd<T>::vec{};
}

// dalpha[r][k] (+)= sum over pixels of dy[row + r] x[column + k]
template <typename T, int rows, int columns>
void weight_block(const WeightTile<T>& tile, std::int64_t row, std::int64_t column, T* dalpha,
                  std::int64_t dalpha_row) {
  using S = Simd<T>;
  using vec = typename S::vec;
  vec sums[rows][columns] = {};
  const T* dy = tile.dy + row * tile.dy_row_length;
  const T* x = tile.x + column * tile.x_row_length;
  const std::int64_t full = tile.pixels - tile.pixels % S::width;
  for (std::int64_t q = 0; q < full; q += S::width) {
    vec left[rows];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) left[r] = S::load(dy + r * tile.dy_row_length + q);
#pragma GCC unroll 16
    for (int k = 0; k < columns; ++k) {
      const vec right = S::load(x + k * tile.x_row_length + q);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) sums[r][k] += left[r] * right;
    }
  }
  if (full < tile.pixels) {
    const auto exists = S::load(tile.tail);
#pragma GCC unroll 16
    for (int k = 0; k < columns; ++k) {
      const vec right = keep<T>(exists, S::load(x + k * tile.x_row_length + full));
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        sums[r][k] += keep<T>(exists, S::load(dy + r * tile.dy_row_length + full)) * right;
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    T* target = dalpha + (row + r) * dalpha_row + column;
    if constexpr (columns == 4) {
      accumulate(tile, target, S::sum_four(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
    } else {
#pragma GCC unroll 16
      for (int k = 0; k < columns; ++k) accumulate(tile, target + k, S::sum(sums[r][k]));
    }
  }
}

template <typename T>
using WeightBlock = void (*)(const WeightTile<T>&, std::int64_t, std::int64_t, T*, std::int64_t);

// By rows and columns, from 1: [(rows - 1) * weight_columns + columns - 1].
template <typename T>
inline constexpr auto weight_blocks = []<std::size_t... i>(std::index_sequence<i...>) {
  return std::array<WeightBlock<T>, sizeof...(i)>{
      weight_block<T, static_cast<int>(i) / weight_columns + 1, static_cast<int>(i) % weight_columns + 1>...};
}(std::make_index_sequence<weight_rows * weight_columns>{});

// dalpha (c_out, c_in) (+)= dy xT
template <typename T>
void add_dalpha(const WeightTile<T>& tile, std::int64_t c_out, std::int64_t c_in, T* dalpha) {
  // As many channels of x as stay in half of the first-level cache while all of dy passes by.
  const std::int64_t bytes_per_row = tile.pixels * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t held = std::max<std::int64_t>(1, 16 * 1024 / bytes_per_row / weight_columns) * weight_columns;
  const Split row_split(c_out, weight_rows);
  for (std::int64_t begin = 0; begin < c_in; begin += held) {
    const Split column_split(std::min(held, c_in - begin), weight_columns);
    for (std::int64_t i = 0; i < row_split.parts; ++i) {
      for (std::int64_t j = 0; j < column_split.parts; ++j) {
        const std::int64_t block = (row_split.size(i) - 1) * weight_columns + column_split.size(j) - 1;
        weight_blocks<T>[static_cast<std::size_t>(block)](tile, row_split.first(i), begin + column_split.first(j),
                                                          dalpha, c_in);
      }
    }
  }
}

// sum over pixels of dy x where the neighbour exists
template <typename T, bool masked>
T tap_sum(const T* dy, const T* neighbour, const mask_element<T>* mask, std::int64_t pixels,
          const mask_element<T>* tail) {
  using S = Simd<T>;
  using vec = typename S::vec;
  constexpr int chains = 4;  // additions have a latency of several cycles
  vec sums[chains] = {};
  const auto step = [&](vec& sum, std::int64_t q) LEANCORE_LAMBDA_INLINE {
    const vec with = sum + S::load(dy + q) * S::load(neighbour + q);
    if constexpr (masked) {
      sum = S::load(mask + q) ? with : sum;
    } else {
      sum = with;
    }
  };
  std::int64_t q = 0;
  for (; q + chains * S::width <= pixels; q += chains * S::width) {
#pragma GCC unroll 4
    for (int chain = 0; chain < chains; ++chain) step(sums[chain], q + chain * S::width);
  }
  for (; q + S::width <= pixels; q += S::width) step(sums[0], q);
  if (q < pixels) {
    const auto exists = S::load(tail);
    vec with = sums[0];
    step(with, q);
    sums[0] = exists ? with : sums[0];
  }
  return S::sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// dc (diagonal, columns) (+)= dy times the neighbours; columns without neighbours are zero.
template <typename T>
void add_dc(const WeightTile<T>& tile, const TapList<T>& taps, std::int64_t diagonal, int columns, T* dc) {
  for (std::int64_t j = 0; j < diagonal; ++j) {
    const T* dy = tile.dy + j * tile.dy_row_length;
    const T* own = tile.x + j * tile.x_row_length;
    T sums[2 * max_dims] = {};
    for (int t = 0; t < taps.count; ++t) {
      const Tap<T>& tap = taps.taps[t];
      const T* neighbour = own + tap.offset;
      sums[tap.column] = tap.mask == nullptr ? tap_sum<T, false>(dy, neighbour, nullptr, tile.pixels, tile.tail)
                                             : tap_sum<T, true>(dy, neighbour, tap.mask, tile.pixels, tile.tail);
    }
    for (int k = 0; k < columns; ++k) accumulate(tile, dc + j * columns + k, sums[k]);
  }
}
