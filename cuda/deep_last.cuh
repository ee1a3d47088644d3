// The kernels of many channels for channels-last arrays: as deep_rows.cuh, with the products of rows_last.cuh.
//
// A stage, after alpha:
//
//   row above | row 0 | row 1 | ... | row below        of pixels, each 64 bytes of channels and 16 bytes more
//
// so that the pitch is an odd number of 16-byte pieces: eight pixels side by side lie in different banks, and so do all
// four pieces of pixels 4 apart. In strips a row has one pixel more before and after it.
#pragma once

#include "deep.cuh"

namespace leancore::detail::cuda {

// Brings pixels into stages, 16 bytes at a time; a thread copies the same channels of every step-th pixel. Threads side
// by side take pixels in the order of spread(), for the sake of the banks.
template <typename T, typename Tile>
class DeepPixelLoader {
  static constexpr int pieces = deep_step_bytes / 16, channels_each = 16 / Tile::element;
  static constexpr int step = Tile::threads / pieces, pixels_each = Tile::pixels / step;
  static_assert(sizeof(T) == Tile::element && step % 8 == 0 && Tile::pixels % step == 0);

 public:
  __device__ DeepPixelLoader(const DeepParameters& parameters, const DeepUnit& work, int thread_index)
      : p(parameters),
        unit(work),
        piece(thread_index % pieces),
        first(thread_index / pieces / 8 * 8 + spread(thread_index / pieces % 8)) {
    side = p.cut.strips > 1 ? 1 : 0;
#pragma unroll
    for (int i = 0; i < pixels_each; ++i) {
      const DeepPixel place(p.cut, unit, first + i * step);
      from[i] = place.exists ? address(place.image, place.row, place.column) : nullptr;
      // Behind the last row of the tile, where the row below is not yet, pixels lie one after the other.
      to[i] = (1 + place.tile_row) * p.row_pitch + (side + place.tile_column) * deep_pixel_pitch + piece * 16;
    }
  }

  // Starts the copies of a stage's channels.
  __device__ __forceinline__ void load(int slab, bool own, unsigned char* pixels) const {
    const bool present = slab * Tile::step + piece * channels_each < p.in.channels;
#pragma unroll
    for (int i = 0; i < pixels_each; ++i) {
      const bool exists = present && from[i] != nullptr;
      copy_async<16>(pixels + to[i], exists ? from[i] + slab * Tile::step : static_cast<const T*>(p.in.data), exists);
    }
    if (!own) return;
    const int below = unit.first_row + p.cut.tile_rows;
    if (unit.first_row % p.cut.height != 0) load_row(slab, unit.first_row - 1, pixels);
    if (below < p.cut.rows && below % p.cut.height != 0) load_row(slab, below, pixels + p.row_pitch + p.below);
    if (side != 0) load_sides(slab, pixels + p.row_pitch);
  }

 private:
  __device__ const T* address(int image, int row, int column) const {
    return static_cast<const T*>(p.in.data) + image_offset(p.cut, p.in, image) + row * p.in.row + column * p.in.column +
           piece * channels_each;
  }
  __device__ void copy(int slab, int stacked_row, int column, unsigned char* pixel) const {
    const bool exists = stacked_row < p.cut.rows && column >= 0 && column < p.cut.width &&
                        slab * Tile::step + piece * channels_each < p.in.channels;
    const int image = exists ? stacked_row / p.cut.height : 0;
    const T* source = exists ? address(image, stacked_row - image * p.cut.height, column) + slab * Tile::step
                             : static_cast<const T*>(p.in.data);
    copy_async<16>(pixel + piece * 16, source, exists);
  }
  // The row above or below the tile.
  __device__ void load_row(int slab, int stacked_row, unsigned char* row) const {
#pragma unroll 1
    for (int i = first; i < p.cut.tile_columns; i += step) {
      copy(slab, stacked_row, unit.first_column + i, row + (side + i) * deep_pixel_pitch);
    }
  }
  // The pixels beside a strip.
  __device__ void load_sides(int slab, unsigned char* rows) const {
#pragma unroll 1
    for (int i = first; i < 2 * p.cut.tile_rows; i += step) {
      const int row = i / 2, column = i % 2 == 0 ? -1 : p.cut.tile_columns;
      copy(slab, unit.first_row + row, unit.first_column + column,
           rows + row * p.row_pitch + (1 + column) * deep_pixel_pitch);
    }
  }

  const DeepParameters& p;
  const DeepUnit& unit;
  int piece, first;  // the thread's piece of a pixel, and its first pixel
  int side;          // pixels before a row of a stage
  const T* from[pixels_each];
  int to[pixels_each];
};

// Where a pixel of the tile lies in the pixels of a stage. Without strips there is nothing between rows, with them a
// row is Tile::strip pixels.
template <typename Tile>
__device__ __forceinline__ int deep_pixel_offset(const DeepParameters& p, int pixel) {
  const int side = p.cut.strips > 1 ? 1 : 0;
  return p.row_pitch + (pixel + side * (1 + pixel / Tile::strip * 2)) * deep_pixel_pitch;
}

// The taps of the planes before and after, of four channels of a pixel.
template <typename T>
__device__ __forceinline__ void add_planes_to_channels(float (&sum)[4], const DeepParameters& p, const DeepPixel& pixel,
                                                       int channel) {
  const auto load = [&](float (&x)[4], const T* from) {
    if constexpr (sizeof(T) == 2) {
      const uint2 words = *reinterpret_cast<const uint2*>(from);
      const float2 low = widen_pair<T>(words.x), high = widen_pair<T>(words.y);
      x[0] = low.x, x[1] = low.y, x[2] = high.x, x[3] = high.y;
    } else {
      const float4 all = *reinterpret_cast<const float4*>(from);
      x[0] = all.x, x[1] = all.y, x[2] = all.z, x[3] = all.w;
    }
  };
  add_planes<T>(sum, p, pixel, channel, load, [&](int i, int side) { return plane_tap<T>(p, channel + i, side); });
}

template <typename T, typename Tile>
class DeepLast {
  static constexpr int n_blocks = Tile::m_tiles;  // of 16 output channels of the warp
  static constexpr int m_tiles = 4;               // of 16 pixels of the warp

 public:
  using Sums = float[m_tiles][n_blocks][2][4];
  static constexpr bool taps_apart = false;

  // `extra`: c of the block's channels, then 16 bytes of zeros.
  __device__ DeepLast(const DeepParameters& parameters, const DeepUnit& work, const unsigned char* extra, int thread)
      : p(parameters), unit(work) {
    const int warp = __shfl_sync(0xffffffff, thread / 32, 0);
    lane = thread % 32;
    across = warp % Tile::warps_across;
    first_block = warp / Tile::warps_across * n_blocks;
    alpha_offset = first_block * Tile::alpha_step + lane * 16;
    zeros = extra + Tile::block_outputs * 8;
    c = extra + first_block * 16 * 8;
    centre = Tile::alpha_bytes + deep_pixel_offset<Tile>(p, across * 64 + lane % 16) + lane / 16 * 16;
    has = 0;
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
      const DeepPixel pixel(p.cut, unit, across * 64 + m * 16 + lane % 16);
      const bool taps[4] = {pixel.row > 0, pixel.column > 0, pixel.column + 1 < p.cut.width,
                            pixel.row + 1 < p.cut.height};
#pragma unroll
      for (int tap = 0; tap < 4; ++tap) has |= (pixel.exists && taps[tap] ? 1u : 0u) << (m * 4 + tap);
      has |= (pixel.tile_row + 1 == p.cut.tile_rows ? 1u : 0u) << (16 + m);
    }
  }

  __device__ __forceinline__ void start(Sums& sum) const {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int o = output(b) + j * 2 + n;
          const bool biased = p.bias != nullptr && o < p.out.channels;
          const float bias = biased ? Element<T>::widen(static_cast<const T*>(p.bias)[o * p.bias_stride]) : 0.0f;
#pragma unroll
          for (int m = 0; m < m_tiles; ++m) sum[m][b][j][n] = sum[m][b][j][n + 2] = bias;
        }
      }
    }
  }

  __device__ __forceinline__ void add(const unsigned char* stage, int slab, bool own, Sums& sum) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 alpha[n_blocks];
#pragma unroll
      for (int b = 0; b < n_blocks; ++b) alpha[b] = alpha_words<Tile>(stage + alpha_offset, b, half);
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        std::uint32_t x[4];
        load_matrices(x, stage + centre + m * (16 * deep_pixel_pitch) + half * 32);
#pragma unroll
        for (int b = 0; b < n_blocks; ++b) {
          multiply_add<T>(sum[m][b][0], x, alpha[b].x, alpha[b].y);
          multiply_add<T>(sum[m][b][1], x, alpha[b].z, alpha[b].w);
        }
      }
      // The same for the whole warp.
      const int b = slab * 2 + half - unit.first_output / 16 - first_block;
      if (own && b >= 0 && b < n_blocks) add_stencil(stage + half * 32, b, sum);
    }
  }

  __device__ __forceinline__ void store(const Sums& sum) const {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const DeepPixel pixel(p.cut, unit, across * 64 + m * 16 + half * 8 + lane / 4);
        if (!pixel.exists) continue;
        T* to = static_cast<T*>(const_cast<void*>(p.out.data)) + image_offset(p.cut, p.out, pixel.image) +
                pixel.row * p.out.row + pixel.column * p.out.column;
#pragma unroll
        for (int b = 0; b < n_blocks; ++b) {
          if (output(b) >= p.out.channels) continue;
          float result[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) result[i] = sum[m][b][i / 2][2 * half + i % 2];
          if (p.cut.depth > 1 && output(b) < p.stencil_channels) add_planes_to_channels<T>(result, p, pixel, output(b));
          *reinterpret_cast<uint2*>(to + output(b)) =
              make_uint2(round_pair<T>(result[0], result[1]), round_pair<T>(result[2], result[3]));
        }
      }
    }
  }

 private:
  // The first of the lane's four channels in a block of 16.
  __device__ __forceinline__ int output(int b) const {
    return unit.first_output + (first_block + b) * 16 + lane % 4 * 4;
  }

  // The taps of block b, whose own channels lie at `stage`. What is outside the image is read from the zeros.
  __device__ __forceinline__ void add_stencil(const unsigned char* stage, int b, Sums& sum) const {
    const int g = lane / 4, t = lane % 4;
    uint2 taps[2];  // up and left, right and down, of column g of both products
    unsigned which[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int o = g / 2 * 4 + j * 2 + g % 2;
      taps[j] = *reinterpret_cast<const uint2*>(c + (b * 16 + o) * 8);
      // Row o of the product is in one lane of four, in the lower half of a word where it is even.
      which[j] = o / 2 % 4 != t ? 0x4444 : o % 2 == 0 ? 0x4410 : 0x1044;
    }
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) {
      if (p.cut.height == 1 && (tap == 0 || tap == 3)) continue;
      std::uint32_t low[2], high[2];
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const std::uint32_t pair_of_taps = tap < 2 ? taps[j].x : taps[j].y;
        const std::uint32_t word = __byte_perm(tap % 2 == 0 ? pair_of_taps : pair_of_taps >> 16, 0, which[j]);
        low[j] = g < 4 ? word : 0;
        high[j] = g < 4 ? 0 : word;
      }
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        const int below = p.row_pitch + ((has >> (16 + m) & 1) != 0 ? p.below - p.cut.tile_rows * p.row_pitch : 0);
        const int offset[4] = {-p.row_pitch, -deep_pixel_pitch, deep_pixel_pitch, below};
        const unsigned char* from = stage + centre + m * (16 * deep_pixel_pitch) + offset[tap];
        std::uint32_t x[4];
        load_matrices(x, (has >> (m * 4 + tap) & 1) != 0 ? from : zeros);
#pragma unroll
        for (int i = 0; i < n_blocks; ++i) {  // no index that is not known when compiling
          if (i != b) continue;
#pragma unroll
          for (int j = 0; j < 2; ++j) multiply_add<T>(sum[m][i][j], x, low[j], high[j]);
        }
      }
    }
  }

  const DeepParameters& p;
  const DeepUnit& unit;
  int lane, across;
  int first_block;   // of 16 output channels, of the thread block's
  int alpha_offset;  // bytes in a stage
  const unsigned char *zeros, *c;
  int centre;    // bytes in a stage, of the first pixel that the lane's row of ldmatrix is
  unsigned has;  // bit 4 m + tap: that neighbour exists; 16 + m: it is in the tile's last row
};

template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::threads, 1) deep_last(const DeepParameters p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const DeepUnit unit(p, Tile::block_outputs, Tile::step, static_cast<int>(blockIdx.x));
  const DeepPixelLoader<T, Tile> loader(p, unit, static_cast<int>(threadIdx.x));
  deep_product<DeepLast<T, Tile>, Tile>(p, unit, loader, shared);
}

}  // namespace leancore::detail::cuda
