// Weight gradients of one channels-first tile: sums over its positions, which lie along the vectors of both operands.
// P is the type of a packed element: that of the sums, or bf16, whose products are added in pairs of positions.

// Sums, one vector of every row and one of a column: all of 16 registers, or 31 of 32.
inline constexpr int weight_rows = LEANCORE_VECTOR_BYTES == 64 ? 6 : 3;  // channels of dy
inline constexpr int weight_columns = 4;                                 // channels of x

// Packed positions of one tile; both operands start at the first position of channel 0.
template <typename P>
struct WeightTile {
  const P* x;
  std::int64_t x_row_length;
  const P* dy;
  std::int64_t dy_row_length;
  std::int64_t positions;
  PartialSums<compute_type<P>> sums;
  Prefetch* next[2];  // the two sides of the tile that comes next

  LEANCORE_INLINE void fetch() const {
    for (Prefetch* side : next) side->fetch();
  }
};

// Partial sums of dalpha lie by blocks, as they come out of the sums across vectors: groups of rows one after the
// other, in each the blocks of weight_columns columns, and in a block as `place` says.
template <typename T>
struct DalphaBlocks {
  Split rows;
  std::int64_t columns;

  DalphaBlocks(std::int64_t all_rows, std::int64_t all_columns) : rows(all_rows, weight_rows), columns(all_columns) {}
  [[nodiscard]] std::int64_t width(std::int64_t column) const {
    return std::min<std::int64_t>(weight_columns, columns - column);
  }
  // Of a block, by its group of rows and its first column.
  [[nodiscard]] std::int64_t begin(std::int64_t group, std::int64_t column) const {
    return rows.first(group) * columns + rows.size(group) * column;
  }
  // Four rows of sixteen lanes are summed together, and come out column by column.
  static constexpr bool four_rows = Simd<T>::width == 16;
  static constexpr std::int64_t place(std::int64_t row_count, std::int64_t column_count, std::int64_t row,
                                      std::int64_t column) {
    const std::int64_t first = four_rows && column_count == weight_columns ? row / 4 * 4 : row_count;
    return first + 4 <= row_count ? first * column_count + column * 4 + row - first : row * column_count + column;
  }
};

// dalpha[r][k] (+)= sum over positions of dy[row + r] x[column + k], one block
template <typename P, int rows, int columns>
void weight_block(const WeightTile<P>& tile, std::int64_t row, std::int64_t column, compute_type<P>* dalpha) {
  using T = compute_type<P>;
  using S = Simd<T>;
  using vec = typename S::vec;
  constexpr bool paired = !std::is_same_v<P, T>;
  constexpr std::int64_t width = LEANCORE_VECTOR_BYTES / sizeof(P);
  const auto load = [](const P* from) LEANCORE_LAMBDA_INLINE {
    if constexpr (paired) return S::load_pairs(from);
    return S::load(from);
  };
  const auto add = [](vec& sum, vec left, vec right) LEANCORE_LAMBDA_INLINE {
    if constexpr (paired) {
      sum = S::add_pair_products(sum, left, right);
    } else {
      sum += left * right;
    }
  };
  vec sums[rows][columns] = {};
  const P* dy = tile.dy + row * tile.dy_row_length;
  const P* x = tile.x + column * tile.x_row_length;
  const std::int64_t full = tile.positions - tile.positions % width;
  for (std::int64_t q = 0; q < full;) {
    for (const std::int64_t end = std::min(full, q + steps_per_turn * width); q < end; q += width) {
      vec left[rows];
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) left[r] = load(dy + r * tile.dy_row_length + q);
#pragma GCC unroll 16
      for (int k = 0; k < columns; ++k) {
        const vec right = load(x + k * tile.x_row_length + q);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) add(sums[r][k], left[r], right);
      }
    }
    tile.fetch();
  }
  if (full < tile.positions) {
    const auto exists = S::template first_elements<P>(tile.positions - full);
#pragma GCC unroll 16
    for (int k = 0; k < columns; ++k) {
      const vec right = S::keep(exists, load(x + k * tile.x_row_length + full));
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        add(sums[r][k], S::keep(exists, load(dy + r * tile.dy_row_length + full)), right);
      }
    }
  }
  constexpr int together = DalphaBlocks<T>::four_rows && columns == 4 ? rows / 4 * 4 : 0;
  if constexpr (together == 4) {
    tile.sums.add(dalpha, S::sum_sixteen(sums[0], sums[1], sums[2], sums[3]));
  }
#pragma GCC unroll 16
  for (int r = together; r < rows; ++r) {
    T* target = dalpha + r * columns;
    if constexpr (columns == 4) {
      tile.sums.add(target, S::sum_four(sums[r][0], sums[r][1], sums[r][2], sums[r][3]));
    } else {
#pragma GCC unroll 16
      for (int k = 0; k < columns; ++k) tile.sums.add(target + k, S::sum(sums[r][k]));
    }
  }
}

template <typename P>
using WeightBlock = void (*)(const WeightTile<P>&, std::int64_t, std::int64_t, compute_type<P>*);

// By rows and columns, from 1: [(rows - 1) * weight_columns + columns - 1].
template <typename P>
inline constexpr auto weight_blocks = []<std::size_t... i>(std::index_sequence<i...>) {
  return std::array<WeightBlock<P>, sizeof...(i)>{
      weight_block<P, static_cast<int>(i) / weight_columns + 1, static_cast<int>(i) % weight_columns + 1>...};
}(std::make_index_sequence<weight_rows * weight_columns>{});

// dalpha (c_out, c_in) (+)= dy xT
template <typename P>
void add_dalpha(const WeightTile<P>& tile, std::int64_t c_out, std::int64_t c_in, compute_type<P>* dalpha) {
  // As many channels of x as stay in half of the first-level cache while all of dy passes by.
  const std::int64_t bytes_per_row = tile.positions * static_cast<std::int64_t>(sizeof(P));
  const std::int64_t held = std::max<std::int64_t>(1, 16 * 1024 / bytes_per_row / weight_columns) * weight_columns;
  const DalphaBlocks<compute_type<P>> blocks(c_out, c_in);
  for (std::int64_t begin = 0; begin < c_in; begin += held) {
    for (std::int64_t i = 0; i < blocks.rows.parts; ++i) {
      for (std::int64_t column = begin; column < std::min(begin + held, c_in); column += weight_columns) {
        const std::int64_t block = (blocks.rows.size(i) - 1) * weight_columns + blocks.width(column) - 1;
        weight_blocks<P>[static_cast<std::size_t>(block)](tile, blocks.rows.first(i), column,
                                                          dalpha + blocks.begin(i, column));
      }
    }
  }
}

// sums[t] = sum over positions of near times tap t's neighbour in far, where that exists.
template <typename P, int taps, bool masked, typename T = compute_type<P>>
void tap_sums(const P* near, const P* far, const Tap<T>* list, std::int64_t positions, T* sums) {
  using S = Simd<T>;
  using vec = typename S::vec;
  constexpr int chains = taps <= 4 ? 2 : 1;  // additions have a latency of several cycles
  vec partial[chains][taps] = {};
  const auto step = [&](vec(&to)[taps], std::int64_t q) LEANCORE_LAMBDA_INLINE {
    const vec own = S::load(near + q);
#pragma GCC unroll 8
    for (int t = 0; t < taps; ++t) {
      const vec neighbour = S::load(far + list[t].offset + q);
      if (masked && list[t].mask != nullptr) {
        to[t] = S::add_product(S::mask_at(list[t].mask, q), to[t], own, neighbour);
      } else {
        to[t] += own * neighbour;
      }
    }
  };
  std::int64_t q = 0;
  for (; q + chains * S::width <= positions; q += chains * S::width) {
#pragma GCC unroll 2
    for (int chain = 0; chain < chains; ++chain) step(partial[chain], q + chain * S::width);
  }
  for (; q + S::width <= positions; q += S::width) step(partial[0], q);
  vec rest[taps] = {};
  if (q < positions) step(rest, q);
  const auto exists = S::first_lanes(positions - q);
#pragma GCC unroll 8
  for (int t = 0; t < taps; ++t) {
    vec all = partial[0][t];
    if constexpr (chains == 2) all += partial[1][t];
    sums[t] = S::sum(all + S::keep(exists, rest[t]));
  }
}

template <typename P, typename T = compute_type<P>>
using TapSums = void (*)(const P*, const P*, const Tap<T>*, std::int64_t, T*);

// By the number of taps - 1.
template <typename P, bool masked>
inline constexpr auto tap_sums_table = []<std::size_t... i>(std::index_sequence<i...>) {
  return std::array<TapSums<P>, sizeof...(i)>{tap_sums<P, static_cast<int>(i) + 1, masked>...};
}(std::make_index_sequence<max_taps>{});

// dc (diagonal, columns) (+)= one side's own positions times the other's neighbours; columns without neighbours are
// zero.
template <typename P, typename T = compute_type<P>>
void add_dc(const PartialSums<T>& partial, const P* near, std::int64_t near_row_length, const P* far,
            std::int64_t far_row_length, std::int64_t positions, const TapList<T>& taps, std::int64_t diagonal,
            int columns, T* dc) {
  bool masked = false;
  for (int t = 0; t < taps.count; ++t) masked = masked || taps.taps[t].mask != nullptr;
  const auto& table = masked ? tap_sums_table<P, true> : tap_sums_table<P, false>;
  for (std::int64_t j = 0; j < diagonal; ++j) {
    T sums[max_taps] = {}, by_column[max_taps] = {};
    if (taps.count > 0) {
      table[static_cast<std::size_t>(taps.count - 1)](near + j * near_row_length, far + j * far_row_length, taps.taps,
                                                      positions, sums);
    }
    for (int t = 0; t < taps.count; ++t) by_column[taps.taps[t].column] = sums[t];
    for (int k = 0; k < columns; ++k) partial.add(dc + j * columns + k, by_column[k]);
  }
}
