// The kernels of many channels in fp32 for contiguous rows of pixels: stages as in deep_rows.cuh, products of TF32
// numbers and which lane has what as in rows_tf32.cuh, with its numeric contract. A warp has two groups of 32 pixels.
#pragma once

#include "deep_rows.cuh"
#include "tf32.cuh"

namespace leancore::detail::cuda {

template <typename Tile, int copy_bytes>
class DeepRowsTf32 {
  static constexpr int m_tiles = Tile::m_tiles, groups = 2;
  static constexpr bool split = Tile::products == 3;

 public:
  struct Sums {
    float sum[m_tiles][groups][4][4], rest[split ? m_tiles : 1][groups][4][4];
  };
  static constexpr bool taps_apart = false;

  // `extra`: c of the block's channels.
  __device__ DeepRowsTf32(const DeepParameters& parameters, const DeepUnit& work, const unsigned char* extra,
                          int thread)
      : p(parameters), unit(work) {
    const int lane = thread % 32, warp = __shfl_sync(0xffffffff, thread / 32, 0);
    g = lane / 4;
    t = lane % 4;
    across = warp % Tile::warps_across;
    first_m = warp / Tile::warps_across * m_tiles;
    alpha_offset = first_m * Tile::alpha_step + lane * 16;
    c = extra + (first_m * 16 + spread(g)) * 16;
    // A group is a row of a strip; without strips there is nothing between rows.
    const int row = p.row_pitch + across * (groups * group_pitch());
    centre = Tile::alpha_bytes + t * p.pitch + row + spread(g) * 16;
    pieces = Tile::alpha_bytes + spread(g) * p.pitch + row + t * 16;
  }

  __device__ __forceinline__ void start(Sums& sums) const {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
      const float bias[2] = {bias_of(output(m, 0)), bias_of(output(m, 1))};
#pragma unroll
      for (int i = 0; i < groups * 16; ++i) {
        sums.sum[m][i / 16][i / 4 % 4][i % 4] = bias[i % 4 / 2];
        if constexpr (split) sums.rest[m][i / 16][i / 4 % 4][i % 4] = 0.0f;
      }
    }
  }

  __device__ __forceinline__ void add(const unsigned char* stage, int slab, bool own, Sums& sums) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      std::uint32_t high[m_tiles][4], low[split ? m_tiles : 1][4];
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        set(high[m], alpha_words<Tile>(stage + alpha_offset, m, half));
        if constexpr (split) set(low[m], alpha_words<Tile>(stage + alpha_offset, m, half, 1));
      }
#pragma unroll
      for (int i = 0; i < groups; ++i) {
        const unsigned char* from = stage + centre + i * group_pitch() + half * 8 * p.pitch;
        const float4 r0 = load_piece(from), r1 = load_piece(from + 4 * p.pitch);
        const float x0[4] = {r0.x, r0.y, r0.z, r0.w}, x1[4] = {r1.x, r1.y, r1.z, r1.w};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (split) {
            const Tf32Pair first = split_to_tf32(x0[e]), second = split_to_tf32(x1[e]);
#pragma unroll
            for (int m = 0; m < m_tiles; ++m) {
              multiply_add_tf32(sums.sum[m][i][e], high[m], first.high, second.high);
              multiply_add_tf32(sums.rest[m][i][e], high[m], first.low, second.low);
            }
#pragma unroll
            for (int m = 0; m < m_tiles; ++m) {
              multiply_add_tf32(sums.rest[m][i][e], low[m], first.high, second.high);
            }
          } else {
            const std::uint32_t first = round_to_tf32(x0[e]), second = round_to_tf32(x1[e]);
#pragma unroll
            for (int m = 0; m < m_tiles; ++m) multiply_add_tf32(sums.sum[m][i][e], high[m], first, second);
          }
        }
      }
    }
    // The same for the whole warp.
    const int m = slab - unit.first_output / 16 - first_m;
    if (own && m >= 0 && m < m_tiles) add_stencil(stage, m, sums);
  }

  __device__ __forceinline__ void store(const Sums& sums) const {
#pragma unroll
    for (int i = 0; i < groups * 2; ++i) {
      const DeepPixel piece(p.cut, unit, out_pixel(i));
      if (!piece.exists) continue;
      float* to = static_cast<float*>(const_cast<void*>(p.out.data)) + image_offset(p.cut, p.out, piece.image) +
                  piece.row * p.out.row + piece.column + output(0, 0) * p.out.channel;
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (output(m, half) >= p.out.channels) continue;
          float result[4];
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            result[e] = sums.sum[m][i / 2][e][half * 2 + i % 2];
            if constexpr (split) add_rest(result[e], sums.rest[m][i / 2][e][half * 2 + i % 2]);
          }
          if (p.cut.depth > 1 && output(m, half) < p.stencil_channels) {
            add_planes_to_piece<float, copy_bytes>(result, p, piece, output(m, half));
          }
          store_piece<copy_bytes>(to + (m * 16 + half * 8) * p.out.channel, result, p.cut.width - piece.column);
        }
      }
    }
  }

 private:
  // Bytes from a group to the next.
  __device__ __forceinline__ int group_pitch() const { return 128 + (p.cut.strips > 1 ? 16 : 0); }
  // The first pixel of piece v = i % 2 that the lane has of group i / 2.
  __device__ __forceinline__ int out_pixel(int i) const { return (across * groups + i / 2) * 32 + (i % 2 * 4 + t) * 4; }
  // The lane's output channels, two for each tile of 16.
  __device__ __forceinline__ int output(int m, int half) const {
    return unit.first_output + (first_m + m) * 16 + half * 8 + spread(g);
  }
  __device__ __forceinline__ float bias_of(int o) const {
    if (p.bias == nullptr || o >= p.out.channels) return 0.0f;
    return static_cast<const float*>(p.bias)[o * p.bias_stride];
  }
  static __device__ __forceinline__ void set(std::uint32_t (&to)[4], const uint4& words) {
    to[0] = words.x;
    to[1] = words.y;
    to[2] = words.z;
    to[3] = words.w;
  }

  // The taps of tile m, whose own channels the stage has.
  __device__ __forceinline__ void add_stencil(const unsigned char* stage, int m, Sums& sums) const {
#pragma unroll
    for (int i = 0; i < groups * 2; ++i) {
      const DeepPixel piece(p.cut, unit, opaque(out_pixel(i)));
      if (!piece.exists) continue;
      const bool has_up = piece.row > 0, has_left = piece.column > 0, has_down = piece.row + 1 < p.cut.height;
      const bool has_right = piece.column + 4 < p.cut.width, last = piece.tile_row + 1 == p.cut.tile_rows;
      const int up = has_up ? -p.row_pitch : 0;
      const int down = !has_down ? 0 : last ? p.below - piece.tile_row * p.row_pitch : p.row_pitch;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (output(m, half) >= p.stencil_channels) continue;
        const unsigned char* at = stage + pieces + half * 8 * p.pitch + i / 2 * group_pitch() + i % 2 * 64;
        const float4 taps = *reinterpret_cast<const float4*>(c + (m * 16 + half * 8) * 16);
        float sum[4] = {};
        // What is not there may never have been written.
        cuda::add_stencil<copy_bytes>(sum, taps, at, has_left ? at - 4 : at, has_right ? at + 16 : at, at + up, has_up,
                                      at + down, has_down, piece.column, p.cut.width);
#pragma unroll
        for (int j = 0; j < m_tiles; ++j) {  // no index that is not known when compiling
          if (j != m) continue;
#pragma unroll
          for (int e = 0; e < 4; ++e) sums.sum[j][i / 2][e][half * 2 + i % 2] += sum[e];
        }
      }
    }
  }

  const DeepParameters& p;
  const DeepUnit& unit;
  const unsigned char* c;
  int g, t, across;
  int first_m;                       // tile of 16 output channels, of the block
  int alpha_offset, centre, pieces;  // bytes in a stage; the latter of the lane's first piece of its output channel
};

template <typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) deep_rows_tf32(const DeepParameters p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const DeepUnit unit(p, Tile::block_outputs, Tile::step, static_cast<int>(blockIdx.x));
  const DeepRowLoader<float, Tile, copy_bytes> loader(p, unit, static_cast<int>(threadIdx.x));
  deep_product<DeepRowsTf32<Tile, copy_bytes>, Tile>(p, unit, loader, shared);
}

}  // namespace leancore::detail::cuda
