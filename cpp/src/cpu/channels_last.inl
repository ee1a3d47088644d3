// Forward on channels-last arrays, where they lie: a block of up to block_rows positions times two vectors of output
// channels. Neither operand is packed, since the channels of a position are contiguous; a neighbour is another
// position, so the stencil needs no masks, only to know which positions have it. Sums are in the same order as in
// channels_first.inl.

// Positions that are computed together.
template <typename E>
struct Group {
  int rows;
  const void* x;                // channel 0 of the first position: of `in`, or of a copy
  std::int64_t x_bytes;         // from one position to the next
  std::int64_t in[block_rows];  // elements from the origins of `in` and `out`
  std::int64_t out[block_rows];
  std::uint32_t exists[max_taps];  // by tap: bit r is set where position r has the neighbour
};

// What the blocks of one pass over output channels share.
template <typename E, typename T = compute_type<E>>
struct ChannelPanel {
  std::int64_t first;  // output channel
  std::int64_t count;  // channels: the last vector may be partial
  const T* alpha;      // [depth][vectors * width]
  const T* c;          // [columns][vectors * width]
  const T* bias;       // [vectors * width]
  std::int64_t depth;  // packed elements of a position: c_in, or pairs of channels
  const E* in;
  E* out;
  const GridTap* taps;
  int tap_count;
  bool stream;
  Prefetch* next;  // unit
};

template <typename E, int rows, int vectors, bool with_stencil, bool paired>
void position_block(const Group<E>& group, const ChannelPanel<E>& panel) {
  using T = compute_type<E>;
  using S = Simd<T>;
  constexpr std::int64_t width = vectors * S::width;
  const std::int64_t last = panel.count - (vectors - 1) * S::width;  // lanes of the last vector
  Sums<T, rows, vectors> sums;
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    const auto bias = S::load(panel.bias + v * S::width);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sums[r][v] = bias;
  }
  multiply_add<T, rows, vectors, paired>(sums, ByRows<T, rows>(group.x, group.x_bytes), panel.alpha, width, panel.depth,
                                         [&]() LEANCORE_LAMBDA_INLINE { panel.next->fetch(); });
  if constexpr (with_stencil) {
    for (int t = 0; t < panel.tap_count; ++t) {
      const GridTap& tap = panel.taps[t];
      const std::uint32_t exists = group.exists[t];
      if (exists == 0) continue;
      const E* neighbour = panel.in + tap.offset + panel.first;
      typename S::vec weight[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) weight[v] = S::load(panel.c + tap.column * width + v * S::width);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        if ((exists >> r & 1) == 0) continue;
        const E* at = neighbour + group.in[r];
#pragma GCC unroll 4
        for (int v = 0; v < vectors - 1; ++v) sums[r][v] += weight[v] * S::load(at + v * S::width);
        const E* tail = at + (vectors - 1) * S::width;
        sums[r][vectors - 1] += weight[vectors - 1] * (last == S::width ? S::load(tail) : S::load_lanes(tail, last));
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    E* to = panel.out + group.out[r] + panel.first;
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v, to += S::width) {
      if (v == vectors - 1 && last < S::width) {
        S::store_lanes(to, sums[r][v], 0, last);
      } else if (panel.stream) {
        S::stream(to, sums[r][v]);
      } else {
        S::store(to, sums[r][v]);
      }
    }
  }
}

template <typename E>
using PositionBlock = void (*)(const Group<E>&, const ChannelPanel<E>&);

// By vectors - 1, then rows - 1.
template <typename E, bool with_stencil, bool paired>
inline constexpr std::array<std::array<PositionBlock<E>, block_rows>, block_vectors> position_blocks = {
    by_rows([](auto rows) -> PositionBlock<E> { return position_block<E, rows.value, 1, with_stencil, paired>; }),
    by_rows([](auto rows) -> PositionBlock<E> { return position_block<E, rows.value, 2, with_stencil, paired>; })};
static_assert(block_vectors == 2);

// ---- weight gradients ----

// The two sides of the unit that comes next.
struct Ahead {
  Prefetch sides[2];

  void spread(std::int64_t turns) {
    for (Prefetch& side : sides) side.spread(turns);
  }
  LEANCORE_INLINE void fetch() {
    for (Prefetch& side : sides) side.fetch();
  }
};

// dalpha[r][vectors] (+)= sum over positions of dy[position][r] x[position][vectors]; paired: two positions at a time
template <typename T, int rows, int vectors, bool paired>
void weight_panel(const T* dy, std::int64_t dy_step, const T* x, std::int64_t x_step, std::int64_t positions,
                  const PartialSums<T>& partial, T* dalpha, std::int64_t dalpha_row, Ahead& ahead) {
  using S = Simd<T>;
  Sums<T, rows, vectors> sums = {};
  multiply_add<T, rows, vectors, paired>(sums, ByColumns<T, rows>{dy, dy_step}, x, x_step, positions,
                                         [&]() LEANCORE_LAMBDA_INLINE { ahead.fetch(); });
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) partial.add(dalpha + r * dalpha_row + v * S::width, sums[r][v]);
  }
}

template <typename T>
using WeightPanel = void (*)(const T*, std::int64_t, const T*, std::int64_t, std::int64_t, const PartialSums<T>&, T*,
                             std::int64_t, Ahead&);

template <typename T, bool paired>
inline constexpr std::array<std::array<WeightPanel<T>, block_rows>, block_vectors> weight_panels = {
    by_rows([](auto rows) -> WeightPanel<T> { return weight_panel<T, rows.value, 1, paired>; }),
    by_rows([](auto rows) -> WeightPanel<T> { return weight_panel<T, rows.value, 2, paired>; })};

// sums[t] += sum over positions of near[position] far[position + offsets[t]], one vector of channels.
template <typename E, int taps, bool whole>
void tap_products(const E* near, std::int64_t near_step, const E* far, std::int64_t far_step,
                  const std::int64_t* offsets, std::int64_t positions, std::int64_t lanes,
                  typename Simd<compute_type<E>>::vec* sums) {
  using S = Simd<compute_type<E>>;
  const auto load = [lanes](const E* p) LEANCORE_LAMBDA_INLINE {
    if constexpr (whole) return S::load(p);
    return S::load_lanes(p, lanes);
  };
  typename S::vec local[taps];
#pragma GCC unroll 8
  for (int t = 0; t < taps; ++t) local[t] = sums[t];
  for (std::int64_t q = 0; q < positions; ++q, near += near_step, far += far_step) {
    const auto own = load(near);
#pragma GCC unroll 8
    for (int t = 0; t < taps; ++t) local[t] += own * load(far + offsets[t]);
  }
#pragma GCC unroll 8
  for (int t = 0; t < taps; ++t) sums[t] = local[t];
}

template <typename E>
using TapProducts = void (*)(const E*, std::int64_t, const E*, std::int64_t, const std::int64_t*, std::int64_t,
                             std::int64_t, typename Simd<compute_type<E>>::vec*);

// By the number of taps - 1.
template <typename E, bool whole>
inline constexpr auto tap_product_table = []<std::size_t... i>(std::index_sequence<i...>) {
  return std::array<TapProducts<E>, sizeof...(i)>{tap_products<E, static_cast<int>(i) + 1, whole>...};
}(std::make_index_sequence<max_taps>{});
