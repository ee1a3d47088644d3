// Forward: a block of up to `panel_rows` output channels times two vectors of pixels, kept in registers while the
// 1x1 convolution runs over the packed channels and then while the stencil is added from the same packed tile.
// Every output sums in the same order whatever block it falls into: bias, channels rising, taps by column.

// Sums, two vectors of pixels and one weight: 15 of 16 registers, or 27 of the 32 that come with 512-bit vectors.
inline constexpr int panel_rows = LEANCORE_VECTOR_BYTES == 64 ? 12 : 6;
inline constexpr int panel_vectors = 2;

// A neighbour: where it lies relative to the pixel in the packed tile, and where it exists.
template <typename T>
struct Tap {
  std::int64_t offset;
  const mask_element<T>* mask;  // one entry per pixel of the run; null: it exists everywhere
  int column;                   // of c
};

template <typename T>
struct TapList {
  Tap<T> taps[2 * max_dims];
  int count = 0;
};

// What the blocks of one tile share.
template <typename T>
struct Tile {
  const T* x;  // packed channel 0, first pixel of the run
  std::int64_t row_length;
  std::int64_t c_in;
  std::int64_t pixels;
  const TapList<T>* taps;
  int columns;  // of c
  T* y;         // channel 0, at the tile
  std::int64_t y_channel;
  const std::int64_t* vector_offset;  // of each vector of pixels in y; negative: not contiguous there
  const std::int64_t* pixel_offset;   // of each pixel in y
};

// What the blocks of one group of output channels share.
template <typename T>
struct Panel {
  std::int64_t first;  // output channel
  const T* alpha;      // [c_in][rows]
  const T* c;          // [rows][columns]
  const T* bias;       // [rows]
};

template <typename T, int rows>
LEANCORE_INLINE void store_block(const Tile<T>& tile, T* y, std::int64_t q,
                                 const typename Simd<T>::vec (&sums)[rows][panel_vectors]) {
  using S = Simd<T>;
  for (int v = 0; v < panel_vectors; ++v) {
    const std::int64_t first = q + v * S::width;
    const std::int64_t valid = std::min<std::int64_t>(S::width, tile.pixels - first);
    if (valid <= 0) return;
    const std::int64_t offset = tile.vector_offset[first / S::width];
    if (valid == S::width && offset >= 0) {
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) S::store(y + r * tile.y_channel + offset, sums[r][v]);
    } else {
      T row[S::width];
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        S::store(row, sums[r][v]);
        for (std::int64_t p = 0; p < valid; ++p) y[r * tile.y_channel + tile.pixel_offset[first + p]] = row[p];
      }
    }
  }
}

template <typename T, int rows, bool with_stencil>
void forward_block(const Tile<T>& tile, const Panel<T>& panel, std::int64_t q) {
  using S = Simd<T>;
  using vec = typename S::vec;
  vec sums[rows][panel_vectors];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r) {
    const vec start = panel.bias[r] - vec{};
    sums[r][0] = start;
    sums[r][1] = start;
  }

  const T* x = tile.x + q;
  const T* alpha = panel.alpha;
  for (std::int64_t i = 0; i < tile.c_in; ++i, x += tile.row_length, alpha += rows) {
    const vec x0 = S::load(x), x1 = S::load(x + S::width);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      sums[r][0] += alpha[r] * x0;
      sums[r][1] += alpha[r] * x1;
    }
  }

  if constexpr (with_stencil) {
    const T* own = tile.x + panel.first * tile.row_length + q;
    for (int t = 0; t < tile.taps->count; ++t) {
      const Tap<T>& tap = tile.taps->taps[t];
      const T* neighbour = own + tap.offset;
      const T* c = panel.c + tap.column;
      if (tap.mask == nullptr) {
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
          const T* n = neighbour + r * tile.row_length;
          const T weight = c[r * tile.columns];
          sums[r][0] += weight * S::load(n);
          sums[r][1] += weight * S::load(n + S::width);
        }
      } else {
        // The sum is selected, not the neighbour: a neighbour outside is not multiplied (no 0 * Inf).
        const auto exists0 = S::load(tap.mask + q), exists1 = S::load(tap.mask + q + S::width);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
          const T* n = neighbour + r * tile.row_length;
          const T weight = c[r * tile.columns];
          const vec with0 = sums[r][0] + weight * S::load(n);
          const vec with1 = sums[r][1] + weight * S::load(n + S::width);
          sums[r][0] = exists0 ? with0 : sums[r][0];
          sums[r][1] = exists1 ? with1 : sums[r][1];
        }
      }
    }
  }
  store_block<T, rows>(tile, tile.y + panel.first * tile.y_channel, q, sums);
}

template <typename T>
using ForwardBlock = void (*)(const Tile<T>&, const Panel<T>&, std::int64_t);

// By number of rows, from 1.
template <typename T, bool with_stencil>
inline constexpr auto forward_blocks = []<std::size_t... i>(std::index_sequence<i...>) {
  return std::array<ForwardBlock<T>, sizeof...(i)>{forward_block<T, static_cast<int>(i) + 1, with_stencil>...};
}(std::make_index_sequence<panel_rows>{});
