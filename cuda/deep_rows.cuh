// The kernels of many channels for contiguous rows of pixels. Products take pixels and channels in the order that
// rows_tensor.cuh explains. A stage, after alpha:
//
//   channel 0  | row above | row 0 | row 1 | ...              | row below | 16 B |
//   channel 1  ...
//
// Rows are as long as the tile has columns, a multiple of a piece (16 bytes of pixels). In strips each is followed by
// 16 bytes more: in the first of them the pixel to its right, in the last the one to the left of the next row.
#pragma once

#include "deep.cuh"
#include "rows_tensor.cuh"

namespace leancore::detail::cuda {

// Brings pixels into stages, in copies of `copy_bytes`, as RowLoader does. A thread copies one column of the tile, of
// every `step`-th channel.
template <typename T, typename Tile, int copy_bytes>
class DeepRowLoader {
  static constexpr int threads = Tile::threads;
  static constexpr int copy = copy_bytes / Tile::element;  // pixels
  static constexpr int columns = Tile::pixels / copy, step = threads / columns;
  static_assert(sizeof(T) == Tile::element && threads % columns == 0 && Tile::step % step == 0);

 public:
  __device__ DeepRowLoader(const DeepParameters& parameters, const DeepUnit& work, int thread_index)
      : p(parameters), unit(work), thread(thread_index) {
    const int pixel = thread % columns * copy, channel = thread / columns;
    const DeepPixel place(p.cut, unit, pixel);
    exists = place.exists;
    pixels = address(place.exists ? place.image : 0, place.exists ? place.row : 0, place.exists ? place.column : 0) +
             channel * p.in.channel;
    // Behind the last row of the tile, where the row below is not yet, pixels lie one after the other.
    offset = channel * p.pitch + (1 + place.tile_row) * p.row_pitch + place.tile_column * Tile::element;
  }

  // Starts the copies of a stage's channels.
  __device__ __forceinline__ void load(int slab, bool own, unsigned char* stage_pixels) const {
    const int first = slab * Tile::step, channel = first + thread / columns;
    const T* from = pixels + first * p.in.channel;
    unsigned char* to = stage_pixels + offset;
#pragma unroll(copy_bytes == 16 ? Tile::step / step : 2)
    for (int k = 0; k < Tile::step; k += step) {
      copy_pixels<copy_bytes>(to, from, exists && channel + k < p.in.channels);
      to += step * p.pitch;
      from += step * p.in.channel;
    }
    if (!own) return;
    const int first_row = opaque(unit.first_row), below = first_row + p.cut.tile_rows;
    if (first_row % p.cut.height != 0) load_row(first, first_row - 1, stage_pixels);
    if (below < p.cut.rows && below % p.cut.height != 0) load_row(first, below, stage_pixels + p.row_pitch + p.below);
    if (p.cut.strips > 1) load_sides(first, stage_pixels + p.row_pitch);
  }

 private:
  __device__ const T* address(int image, int row, int column) const {
    return static_cast<const T*>(p.in.data) + image_offset(p.cut, p.in, image) + row * p.in.row + column;
  }
  template <int bytes>
  static __device__ __forceinline__ void copy_pixels(unsigned char* to, const T* from, bool exists) {
    if constexpr (bytes >= 4) {
      copy_async<bytes>(to, from, exists);
    } else {
      *reinterpret_cast<T*>(to) = exists ? *from : T(0.0f);
    }
  }

  // The row above or below the tile.
  __device__ void load_row(int first_channel, int stacked_row, unsigned char* to) const {
    const int row_columns = opaque(p.cut.tile_columns) / copy, channels = threads / row_columns;
    const int k0 = thread / row_columns, column = thread % row_columns * copy, image = stacked_row / p.cut.height;
    if (k0 >= channels) return;
    const bool inside = unit.first_column + column < p.cut.width;
    const T* from = address(image, stacked_row - image * p.cut.height, inside ? unit.first_column + column : 0);
#pragma unroll 1
    for (int k = k0; k < Tile::step; k += channels) {
      const bool present = inside && first_channel + k < p.in.channels;
      copy_pixels<copy_bytes>(to + k * p.pitch + column * Tile::element,
                              from + (present ? first_channel + k : 0) * p.in.channel, present);
    }
  }

  // The pixels beside a strip; an asynchronous copy has at least 4 bytes, so that one of 16 bits comes with one more.
  __device__ void load_sides(int first_channel, unsigned char* to) const {
    constexpr int bytes = copy_bytes >= 4 ? 4 : 2, count = bytes / Tile::element;
    const int rows = opaque(p.cut.tile_rows);
#pragma unroll 1
    for (int i = thread; i < Tile::step * rows * 2; i += threads) {
      const int right = i % 2, row = i / 2 % rows, k = i / 2 / rows, stacked = unit.first_row + row;
      const int column = unit.first_column + (right != 0 ? p.cut.tile_columns : -count);
      const bool present =
          stacked < p.cut.rows && column >= 0 && column < p.cut.width && first_channel + k < p.in.channels;
      const int image = present ? stacked / p.cut.height : 0;
      const T* from = address(image, present ? stacked - image * p.cut.height : 0, present ? column : 0) +
                      (present ? first_channel + k : 0) * p.in.channel;
      copy_pixels<bytes>(
          to + k * p.pitch + row * p.row_pitch + (right != 0 ? p.cut.tile_columns * Tile::element : -bytes), from,
          present);
    }
  }

  const DeepParameters& p;
  const DeepUnit& unit;
  int thread;
  bool exists;
  const T* pixels;  // of the thread's first channel
  int offset;       // in the pixels of a stage
};

// The taps of the planes before and after, of a piece of a channel.
template <typename T, int copy_bytes, int count>
__device__ __forceinline__ void add_planes_to_piece(float (&sum)[count], const DeepParameters& p,
                                                    const DeepPixel& piece, int channel) {
  const int pixels = p.cut.width - piece.column;
  const auto load = [&](float (&x)[count], const T* from) {
    if constexpr (sizeof(T) == 2) {
      const uint4 bits = load_global_piece<copy_bytes>(from, pixels);
      const std::uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float2 both = widen_pair<T>(words[i / 2]);
        x[i] = i % 2 == 0 ? both.x : both.y;
      }
    } else if constexpr (copy_bytes == 16) {
      const float4 all = *reinterpret_cast<const float4*>(from);
      x[0] = all.x, x[1] = all.y, x[2] = all.z, x[3] = all.w;
    } else {
#pragma unroll
      for (int i = 0; i < count; ++i) x[i] = i < pixels ? from[i] : 0.0f;
    }
  };
  const float taps[2] = {plane_tap<T>(p, channel, 0), plane_tap<T>(p, channel, 1)};
  add_planes<T>(sum, p, piece, channel, load, [&](int, int side) { return taps[side]; });
}

template <typename T, typename Tile, int copy_bytes>
class DeepRows {
  static constexpr int m_tiles = Tile::m_tiles;

 public:
  using Sums = float[m_tiles][8][4];
  static constexpr bool taps_apart = false;

  // `extra`: c of the block's channels, then 16 bytes of zeros.
  __device__ DeepRows(const DeepParameters& parameters, const DeepUnit& work, const unsigned char* extra, int thread)
      : p(parameters), unit(work) {
    const int lane = thread % 32, warp = __shfl_sync(0xffffffff, thread / 32, 0);
    g = lane / 4;
    t = lane % 4;
    across = warp % Tile::warps_across;
    first_m = warp / Tile::warps_across * m_tiles;
    alpha_offset = first_m * Tile::alpha_step + lane * 16;
    zeros = extra + Tile::block_outputs * 8;
    c = extra + (first_m * 16 + spread(g)) * 8;
    // Channel 8 half + spread(g) meets channel 8 half + t in the lower half of a word, + 4 in the upper.
    const bool diagonal = g / 2 == t;
    which = !diagonal ? 0x4444 : g % 2 == 0 ? 0x4410 : 0x1044;

    const DeepPixel piece(p.cut, unit, across * 64 + spread(g) * 8);
    centre = Tile::alpha_bytes + t * p.pitch + (1 + piece.tile_row) * p.row_pitch + piece.tile_column * 2;
    below = piece.tile_row + 1 < p.cut.tile_rows ? p.row_pitch : p.below - piece.tile_row * p.row_pitch;
    const bool strips = p.cut.strips > 1;
    const bool taps[4] = {piece.row > 0, piece.column > 0,
                          piece.column + 8 < (strips ? p.cut.width : p.cut.tile_columns), piece.row + 1 < p.cut.height};
    has = 0;
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) has |= (piece.exists && taps[tap] ? 1u : 0u) << tap;
  }

  __device__ __forceinline__ void start(Sums& sum) const {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
      const float bias[2] = {bias_of(output(m, 0)), bias_of(output(m, 1))};
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        sum[m][e][0] = sum[m][e][1] = bias[0];
        sum[m][e][2] = sum[m][e][3] = bias[1];
      }
    }
  }

  __device__ __forceinline__ void add(const unsigned char* stage, int slab, bool own, Sums& sum) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const unsigned char* from = stage + centre + half * 16 * p.pitch;
      PixelOperands x;
      x.load(from, p.pitch);
      std::uint32_t alpha[m_tiles][4];
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        const uint4 words = alpha_words<Tile>(stage + alpha_offset, m, half);
        alpha[m][0] = words.x;
        alpha[m][1] = words.y;
        alpha[m][2] = words.z;
        alpha[m][3] = words.w;
      }
#pragma unroll
      for (int e = 0; e < 8; ++e) {
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) multiply_add<T>(sum[m][e], alpha[m], x.low[e], x.high[e]);
      }
      // The same for the whole warp.
      const int m = slab * 2 + half - unit.first_output / 16 - first_m;
      if (own && m >= 0 && m < m_tiles) add_stencil(from, m, x, sum);
    }
  }

  __device__ __forceinline__ void store(const Sums& sum) const {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const DeepPixel piece(p.cut, unit, across * 64 + (4 * v + t) * 8);
      if (!piece.exists) continue;
      T* to = static_cast<T*>(const_cast<void*>(p.out.data)) + image_offset(p.cut, p.out, piece.image) +
              piece.row * p.out.row + piece.column + output(0, 0) * p.out.channel;
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (output(m, half) >= p.out.channels) continue;
          float result[8];
#pragma unroll
          for (int e = 0; e < 8; ++e) result[e] = sum[m][e][half * 2 + v];
          if (p.cut.depth > 1 && output(m, half) < p.stencil_channels) {
            add_planes_to_piece<T, copy_bytes>(result, p, piece, output(m, half));
          }
          std::uint32_t words[4];
#pragma unroll
          for (int w = 0; w < 4; ++w) words[w] = round_pair<T>(result[2 * w], result[2 * w + 1]);
          store_piece<copy_bytes>(to + (m * 16 + half * 8) * p.out.channel, words, p.cut.width - piece.column);
        }
      }
    }
  }

 private:
  // The lane's output channels, two for each tile of 16.
  __device__ __forceinline__ int output(int m, int half) const {
    return unit.first_output + (first_m + m) * 16 + half * 8 + spread(g);
  }
  __device__ __forceinline__ float bias_of(int o) const {
    if (p.bias == nullptr || o >= p.out.channels) return 0.0f;
    return Element<T>::widen(static_cast<const T*>(p.bias)[o * p.bias_stride]);
  }

  // The taps of tile m, whose own channels x is. What is outside the image is read from the zeros.
  __device__ __forceinline__ void add_stencil(const unsigned char* from, int m, const PixelOperands& x,
                                              Sums& sum) const {
    uint2 taps[2];  // up and left, right and down, of both halves of the tile's channels
#pragma unroll
    for (int half = 0; half < 2; ++half) taps[half] = *reinterpret_cast<const uint2*>(c + (m * 16 + half * 8) * 8);
    const auto diagonal = [&](std::uint32_t (&a)[4], int tap) {
      const int shift = tap % 2 * 16;
      a[0] = __byte_perm((tap < 2 ? taps[0].x : taps[0].y) >> shift, 0, which);
      a[3] = __byte_perm((tap < 2 ? taps[1].x : taps[1].y) >> shift, 0, which);
      a[1] = a[2] = 0;
    };
    // sum[m] without an index that is not known when compiling.
    const auto multiply = [&](const std::uint32_t (&a)[4], int e, std::uint32_t low, std::uint32_t high) {
#pragma unroll
      for (int i = 0; i < m_tiles; ++i) {
        if (i == m) multiply_add<T>(sum[i][e], a, low, high);
      }
    };
    {
      const bool has_left = (has >> 1 & 1) != 0, has_right = (has >> 2 & 1) != 0;
      const EdgeOperands left(has_left ? from - 2 : zeros, has_left ? p.pitch : 0, false);
      const EdgeOperands right(has_right ? from + 16 : zeros, has_right ? p.pitch : 0, false);
      std::uint32_t to_left[4], to_right[4];
      diagonal(to_left, 1);
      diagonal(to_right, 2);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        multiply(to_left, e, e == 0 ? left.low : x.low[e == 0 ? 0 : e - 1],
                 e == 0 ? left.high : x.high[e == 0 ? 0 : e - 1]);
        multiply(to_right, e, e == 7 ? right.low : x.low[e == 7 ? 7 : e + 1],
                 e == 7 ? right.high : x.high[e == 7 ? 7 : e + 1]);
      }
    }
    if (p.cut.height == 1) return;
#pragma unroll
    for (int tap = 0; tap < 4; tap += 3) {
      const bool exists = (has >> tap & 1) != 0;
      PixelOperands row;
      row.load(exists ? from + (tap == 0 ? -p.row_pitch : below) : zeros, exists ? p.pitch : 0);
      std::uint32_t a[4];
      diagonal(a, tap);
#pragma unroll
      for (int e = 0; e < 8; ++e) multiply(a, e, row.low[e], row.high[e]);
    }
  }

  const DeepParameters& p;
  const DeepUnit& unit;
  int g, t, across;
  int first_m;                      // tile of 16 output channels, of the block
  int alpha_offset, centre, below;  // bytes in a stage
  const unsigned char *zeros, *c;
  unsigned which;  // where a lane has the diagonal, for __byte_perm
  unsigned has;    // bit tap: that neighbour of the lane's piece exists
};

template <typename T, typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) deep_rows(const DeepParameters p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const DeepUnit unit(p, Tile::block_outputs, Tile::step, static_cast<int>(blockIdx.x));
  const DeepRowLoader<T, Tile, copy_bytes> loader(p, unit, static_cast<int>(threadIdx.x));
  deep_product<DeepRows<T, Tile, copy_bytes>, Tile>(p, unit, loader, shared);
}

}  // namespace leancore::detail::cuda
