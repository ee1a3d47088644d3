// The kernels of many channels in fp32 for channels-last arrays: stages as in deep_last.cuh, products of TF32 numbers
// as in rows_last_tf32.cuh, with the numeric contract of rows_tf32.cuh. Row n of a product, and n + 8, are the pixels
// spread(n) and 8 + spread(n), so that the lanes that read neighbours together meet different banks.
#pragma once

#include "deep_last.cuh"
#include "tf32.cuh"

namespace leancore::detail::cuda {

template <typename Tile>
class DeepLastTf32 {
  static constexpr int n_blocks = Tile::m_tiles;  // of 16 output channels of the warp
  static constexpr int m_tiles = 4;               // of 16 pixels of the warp
  static constexpr bool split = Tile::products == 3;

 public:
  struct Sums {
    float sum[m_tiles][n_blocks][2][4], rest[split ? m_tiles : 1][n_blocks][2][4];
  };
  static constexpr bool taps_apart = true;

  // `extra`: c of the block's channels.
  __device__ DeepLastTf32(const DeepParameters& parameters, const DeepUnit& work, const unsigned char* extra,
                          int thread)
      : p(parameters), unit(work) {
    const int warp = __shfl_sync(0xffffffff, thread / 32, 0);
    lane = thread % 32;
    across = warp % Tile::warps_across;
    first_block = warp / Tile::warps_across * n_blocks;
    alpha_offset = first_block * Tile::alpha_step + lane * 16;
    c = extra + (first_block * 16 + lane % 4 * 4) * 4;
    const int row = across * 64 + lane % 16 / 8 * 8 + spread(lane % 8);
    centre = Tile::alpha_bytes + deep_pixel_offset<Tile>(p, row) + lane / 16 * 16;
    own = Tile::alpha_bytes + deep_pixel_offset<Tile>(p, out_pixel(0, 0)) + lane % 4 * 16;
  }

  __device__ __forceinline__ void start(Sums& sums) const {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int o = output(b) + i;
        const bool biased = p.bias != nullptr && o < p.out.channels;
        const float bias = biased ? static_cast<const float*>(p.bias)[o * p.bias_stride] : 0.0f;
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) {
          sums.sum[m][b][i / 2][i % 2] = sums.sum[m][b][i / 2][i % 2 + 2] = bias;
          if constexpr (split) sums.rest[m][b][i / 2][i % 2] = sums.rest[m][b][i / 2][i % 2 + 2] = 0.0f;
        }
      }
    }
  }

  __device__ __forceinline__ void add(const unsigned char* stage, int slab, bool is_own, Sums& sums) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 high[n_blocks], low[split ? n_blocks : 1];
#pragma unroll
      for (int b = 0; b < n_blocks; ++b) {
        high[b] = alpha_words<Tile>(stage + alpha_offset, b, half);
        if constexpr (split) low[b] = alpha_words<Tile>(stage + alpha_offset, b, half, 1);
      }
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        std::uint32_t x[4], x_low[4];
        load_matrices(x, stage + centre + pixels_between(m, 0) + half * 32);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if constexpr (split) {
            const Tf32Pair parts = split_to_tf32(__uint_as_float(x[i]));
            x[i] = parts.high;
            x_low[i] = parts.low;
          } else {
            x[i] = round_to_tf32(__uint_as_float(x[i]));
          }
        }
#pragma unroll
        for (int b = 0; b < n_blocks; ++b) {
          multiply_add_tf32(sums.sum[m][b][0], x, high[b].x, high[b].y);
          multiply_add_tf32(sums.sum[m][b][1], x, high[b].z, high[b].w);
          if constexpr (split) {
            multiply_add_tf32(sums.rest[m][b][0], x_low, high[b].x, high[b].y);
            multiply_add_tf32(sums.rest[m][b][1], x_low, high[b].z, high[b].w);
          }
        }
        if constexpr (split) {
#pragma unroll
          for (int b = 0; b < n_blocks; ++b) {
            multiply_add_tf32(sums.rest[m][b][0], x, low[b].x, low[b].y);
            multiply_add_tf32(sums.rest[m][b][1], x, low[b].z, low[b].w);
          }
        }
      }
    }
    // The same for the whole warp.
    const int b = slab - unit.first_output / 16 - first_block;
    if (is_own && b >= 0 && b < n_blocks) add_stencil(stage, b, sums);
  }

  __device__ __forceinline__ void store(const Sums& sums) const {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const DeepPixel pixel(p.cut, unit, out_pixel(m, half));
        if (!pixel.exists) continue;
        float* to = static_cast<float*>(const_cast<void*>(p.out.data)) + image_offset(p.cut, p.out, pixel.image) +
                    pixel.row * p.out.row + pixel.column * p.out.column;
#pragma unroll
        for (int b = 0; b < n_blocks; ++b) {
          if (output(b) >= p.out.channels) continue;
          float result[4];
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            result[i] = sums.sum[m][b][i / 2][2 * half + i % 2];
            if constexpr (split) add_rest(result[i], sums.rest[m][b][i / 2][2 * half + i % 2]);
          }
          if (p.cut.depth > 1 && output(b) < p.stencil_channels) {
            add_planes_to_channels<float>(result, p, pixel, output(b));
          }
          *reinterpret_cast<float4*>(to + output(b)) = make_float4(result[0], result[1], result[2], result[3]);
        }
      }
    }
  }

 private:
  // The first of the lane's four channels in a block of 16.
  __device__ __forceinline__ int output(int b) const {
    return unit.first_output + (first_block + b) * 16 + lane % 4 * 4;
  }
  __device__ __forceinline__ int out_pixel(int m, int half) const {
    return across * 64 + m * 16 + half * 8 + spread(lane / 4);
  }
  // Bytes in a stage from the warp's first pixel to that one; a strip is two of its rows.
  __device__ __forceinline__ int pixels_between(int m, int half) const {
    const int beside = p.cut.strips > 1 ? 2 * deep_pixel_pitch : 0;
    return (m * 16 + half * 8) * deep_pixel_pitch + m * 16 / Tile::strip * beside;
  }

  // The taps of block b, whose own channels the stage has.
  __device__ __forceinline__ void add_stencil(const unsigned char* stage, int b, Sums& sums) const {
    if (output(b) >= p.stencil_channels) return;
    float4 taps[4];
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) {
      taps[tap] = *reinterpret_cast<const float4*>(c + tap * Tile::block_outputs * 4 + b * 64);
    }
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const DeepPixel pixel(p.cut, unit, opaque(out_pixel(m, half)));
        const bool last = pixel.tile_row + 1 == p.cut.tile_rows;
        const bool exists[4] = {pixel.row > 0, pixel.column > 0, pixel.column + 1 < p.cut.width,
                                pixel.row + 1 < p.cut.height};
        const int offset[4] = {-p.row_pitch, -deep_pixel_pitch, deep_pixel_pitch,
                               last ? p.below - pixel.tile_row * p.row_pitch : p.row_pitch};
        float sum[4] = {};
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) {
          if (!pixel.exists || !exists[tap]) continue;
          const float4 x = load_piece(stage + own + pixels_between(m, half) + offset[tap]);
          sum[0] += taps[tap].x * x.x;
          sum[1] += taps[tap].y * x.y;
          sum[2] += taps[tap].z * x.z;
          sum[3] += taps[tap].w * x.w;
        }
#pragma unroll
        for (int j = 0; j < n_blocks; ++j) {  // no index that is not known when compiling
          if (j != b) continue;
#pragma unroll
          for (int i = 0; i < 4; ++i) sums.sum[m][j][i / 2][2 * half + i % 2] += sum[i];
        }
      }
    }
  }

  const DeepParameters& p;
  const DeepUnit& unit;
  const unsigned char* c;
  int lane, across;
  int first_block;                // of 16 output channels, of the thread block's
  int alpha_offset, centre, own;  // bytes in a stage: of the lane's row of ldmatrix, and of its results' channels
};

template <typename Tile>
__global__ void __launch_bounds__(Tile::threads, 1) deep_last_tf32(const DeepParameters p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const DeepUnit unit(p, Tile::block_outputs, Tile::step, static_cast<int>(blockIdx.x));
  const DeepPixelLoader<float, Tile> loader(p, unit, static_cast<int>(threadIdx.x));
  deep_product<DeepLastTf32<Tile>, Tile>(p, unit, loader, shared);
}

}  // namespace leancore::detail::cuda
