// Forward on channels-first tiles: a block of up to block_rows output channels times two vectors of positions, kept in
// registers while the 1x1 convolution runs over the packed channels and then while the stencil is added from the same
// packed tile. Every output sums in the same order whatever block it falls into: bias, channels rising, taps by column.

// A neighbour: where it lies relative to the position in the packed tile, and where it exists.
template <typename T>
struct Tap {
  std::int64_t offset;
  const typename Simd<T>::mask_entry* mask;  // for the positions of the run; null: it exists everywhere
  int column;                                // of c
};

template <typename T>
struct TapList {
  Tap<T> taps[max_taps];
  int count = 0;
};

// Where a vector of positions goes in `out`: lanes [0, split) to first + lane, the others to second + lane. split = -1:
// all to first + 2 lane. split = 0: each position has a place of its own.
struct Place {
  std::int64_t first, second;
  std::int64_t split;
};
inline constexpr std::int64_t no_place = std::numeric_limits<std::int64_t>::min();

// What the blocks of one tile share. Paired: packed elements are bf16 of two channels.
template <typename E, typename T = compute_type<E>>
struct Tile {
  const T* x;  // packed channel 0, first position of the run
  std::int64_t row_length;
  std::int64_t depth;  // packed elements of a position
  std::int64_t positions;
  const TapList<T>* taps;
  E* y;  // channel 0, at the tile
  std::int64_t y_channel;
  const Place* places;                 // of each vector of positions in y
  const std::int64_t* position_place;  // of each position in y
  bool stream;                         // whole vectors past the caches
  bool claim;                          // else ask for the lines of y before they are needed
  Prefetch* next;                      // tile
};

// What the blocks of one group of output channels share.
template <typename T>
struct Panel {
  std::int64_t first;  // output channel
  const T* alpha;      // [depth][rows]
  const T* c;          // [columns][rows]
  const T* bias;       // [rows]
};

// Stores vectors that have no contiguous place, or lie over the end: `rows` of them, one for each output channel.
template <typename E, typename T = compute_type<E>>
__attribute__((noinline)) void scatter(const Tile<E>& tile, E* y, std::int64_t first, const T* sums, int rows) {
  using S = Simd<T>;
  const std::int64_t valid = std::min<std::int64_t>(S::width, tile.positions - first);
  if (valid <= 0) return;
  const Place& place = tile.places[first / S::width];
  const std::int64_t split = std::min(place.split, valid);
  // Positions that follow each other in y: [run_begin[i], run_begin[i + 1])
  const std::int64_t* to = tile.position_place + first;
  std::int64_t run_begin[S::width + 1] = {};
  int runs = 0;
  for (std::int64_t p = 0; p < valid && place.split <= 0; ++p) {
    if (p == 0 || to[p] == no_place || to[p] != to[p - 1] + 1) run_begin[runs++] = p;
  }
  run_begin[runs] = valid;
  for (int r = 0; r < rows; ++r, sums += S::width, y += tile.y_channel) {
    if (place.split > 0) {
      const auto v = S::load(sums);
      S::store_lanes(y + place.first, v, 0, split);
      if (split < valid) S::store_lanes(y + place.second, v, split, valid);
    } else if (runs < valid) {
      const auto v = S::load(sums);
      for (int i = 0; i < runs; ++i) {
        const std::int64_t p = run_begin[i];
        if (to[p] != no_place) S::store_lanes(y + to[p] - p, v, p, run_begin[i + 1]);
      }
    } else {
      for (std::int64_t p = 0; p < valid; ++p) {
        if (to[p] != no_place) y[to[p]] = static_cast<E>(sums[p]);
      }
    }
  }
}

template <typename E, typename T, int rows>
LEANCORE_INLINE void store_block(const Tile<E>& tile, E* y, std::int64_t q, const Sums<T, rows, block_vectors>& sums) {
  using S = Simd<T>;
#pragma GCC unroll 4
  for (int v = 0; v < block_vectors; ++v) {
    const std::int64_t first = q + v * S::width;
    const Place& place = tile.places[first / S::width];
    if (first + S::width <= tile.positions && place.split == S::width) {
      E* to = y + place.first;
      if (tile.stream) {
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r, to += tile.y_channel) S::stream(to, sums[r][v]);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r, to += tile.y_channel) S::store(to, sums[r][v]);
      }
    } else if (first + S::width <= tile.positions && place.split < 0) {
      E* to = y + place.first;
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r, to += tile.y_channel) S::store_every_second(to, sums[r][v]);
    } else {
      T lanes[rows * S::width];
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) S::store(lanes + r * S::width, sums[r][v]);
      scatter<E>(tile, y, first, lanes, rows);
    }
  }
}

template <typename T, int rows, bool paired>
LEANCORE_INLINE void add_taps(Sums<T, rows, block_vectors>& sums, const TapList<T>& taps, const T* own,
                              std::int64_t row_length, const T* c, std::int64_t q) {
  using S = Simd<T>;
  const auto channel = [row_length](const T* first, int r, int v) LEANCORE_LAMBDA_INLINE {
    constexpr int each = static_cast<int>(channels_per_element<paired>);
    const auto packed = S::load(first + r / each * row_length + v * S::width);
    if constexpr (paired) return S::half_of_pairs(packed, r % each);
    return packed;
  };
  for (int t = 0; t < taps.count; ++t) {
    const Tap<T>& tap = taps.taps[t];
    const T* neighbour = own + tap.offset;
    const T* weights = c + tap.column * rows;
    if (tap.mask == nullptr) {
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        const T weight = weights[r];
#pragma GCC unroll 4
        for (int v = 0; v < block_vectors; ++v) sums[r][v] += weight * channel(neighbour, r, v);
      }
    } else {
      // The sum is selected, not the neighbour: a neighbour outside is not multiplied (no 0 * Inf).
      typename S::mask exists[block_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < block_vectors; ++v) exists[v] = S::mask_at(tap.mask, q + v * S::width);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        const auto weight = S::broadcast(weights[r]);
#pragma GCC unroll 4
        for (int v = 0; v < block_vectors; ++v) {
          sums[r][v] = S::add_product(exists[v], sums[r][v], weight, channel(neighbour, r, v));
        }
      }
    }
  }
}

// The lines that a block will write, but for the first, which is the last of the block before.
template <typename E, int rows>
LEANCORE_INLINE void claim_block(const Tile<E>& tile, const E* y) {
  constexpr std::int64_t line = 64 / static_cast<std::int64_t>(sizeof(E));
  constexpr std::int64_t count = block_vectors * Simd<compute_type<E>>::width;
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r, y += tile.y_channel) {
#pragma GCC unroll 4
    for (std::int64_t q = line; q < count; q += line) __builtin_prefetch(y + q, 1, 3);
    __builtin_prefetch(y + count - 1, 1, 3);
  }
}

// The positions [begin, end) of a panel, a block at a time.
template <typename E, int rows, bool with_stencil, bool paired>
void forward_blocks(const Tile<E>& tile, const Panel<compute_type<E>>& panel, std::int64_t begin, std::int64_t end) {
  using T = compute_type<E>;
  using S = Simd<T>;
  for (std::int64_t q = begin; q < end; q += block_vectors * S::width) {
    if (tile.claim) claim_block<E, rows>(tile, tile.y + panel.first * tile.y_channel + tile.places[q / S::width].first);
    Sums<T, rows, block_vectors> sums;
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < block_vectors; ++v) sums[r][v] = S::broadcast(panel.bias[r]);
    }
    multiply_add<T, rows, block_vectors, paired>(sums, ByColumns<T, rows>{panel.alpha, rows}, tile.x + q,
                                                 tile.row_length, tile.depth,
                                                 [&]() LEANCORE_LAMBDA_INLINE { tile.next->fetch(); });
    if constexpr (with_stencil) {
      const T* own = tile.x + panel.first / channels_per_element<paired> * tile.row_length + q;
      add_taps<T, rows, paired>(sums, *tile.taps, own, tile.row_length, panel.c, q);
    }
    store_block<E, T, rows>(tile, tile.y + panel.first * tile.y_channel, q, sums);
  }
}

template <typename E>
using ForwardBlocks = void (*)(const Tile<E>&, const Panel<compute_type<E>>&, std::int64_t, std::int64_t);

template <typename E, bool with_stencil, bool paired>
inline constexpr auto forward_table =
    by_rows([](auto rows) -> ForwardBlocks<E> { return forward_blocks<E, rows.value, with_stencil, paired>; });
