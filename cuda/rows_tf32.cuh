// Row-marching forward and backward_data in fp32 on tensor cores: the 1x1 part as products of TF32 numbers (ptx.cuh);
// bias and stencil in plain fp32.
//
// Numeric contract (docs/numerics.md), by Tile::products:
//   3  three products of TF32 numbers for each of fp32 (tf32.cuh): as precise as fp32
//   1  x and alpha are rounded to TF32
//
// Which lane has what is as in rows_tensor.cuh, with pieces of 4 pixels, hence 4 products for each 8 input channels,
// and groups of 32 pixels:
//
//   product e, column g  <->  pixel e of piece spread(g)          input channels as they come
//   output channels g, g + 8  <->  spread(g), 8 + spread(g)
//
// so that a lane's results for v = 0, 1 are piece 4v + t of its output channels. Of volumes, it reads these pieces of
// the planes before and after from global memory.
#pragma once

#include "rows.cuh"
#include "tf32.cuh"

namespace leancore::detail::cuda {

template <typename Tile, int copy_bytes>
class RowsTf32 {
  static constexpr int k_blocks = Tile::k_blocks, m_tiles = Tile::m_tiles, groups = Tile::groups;
  static constexpr bool split = Tile::products == 3;
  using Ring = typename Tile::Ring;
  using Sums = float[m_tiles][4][4];
  // A piece of the lane's output channels in the planes before and after.
  using Planes = float4[m_tiles][2][2];
  // They arrive while the products are taken, unless alpha leaves no registers for that.
  static constexpr bool planes_early = k_blocks <= 8;

 public:
  // The thread block's taps, in shared memory.
  __device__ RowsTf32(const RowsParameters& parameters, const RowsUnit& work, const float* taps,
                      const float* plane_taps, int thread)
      : p(parameters), unit(work) {
    // From lane 0, so that the compiler knows it to be the same for all lanes.
    const int lane = thread % 32, warp = __shfl_sync(0xffffffff, thread / 32, 0);
    g = lane / 4;
    t = lane % 4;
    across = warp % Tile::warps_across;
    const int first = warp / Tile::warps_across * 16 * m_tiles;
    first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs + first;
    c = taps + (first + spread(g)) * 4;
    c_plane = plane_taps + (first + spread(g)) * 2;
    read_alpha();
#pragma unroll
    for (int i = 0; i < groups * 2; ++i) {
      pieces[i] = PieceOfRow(p.cut, unit, out_pixel(i), 4);
    }
  }

  __device__ __forceinline__ void compute(int block, const unsigned char* above, const unsigned char* current,
                                          const unsigned char* below) const {
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      Sums sum;
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        const float bias[2] = {bias_of(output(m, 0)), bias_of(output(m, 1))};
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          sum[m][e][0] = sum[m][e][1] = bias[0];
          sum[m][e][2] = sum[m][e][3] = bias[1];
        }
      }
      Planes planes[2];
      if constexpr (Tile::volume && planes_early) {
        load_planes(block, i * 2, planes[0]);
        load_planes(block, i * 2 + 1, planes[1]);
      }
      multiply(current + 16 + t * Ring::pitch + group_pixel(i) * 4 + spread(g) * 16, sum);
#pragma unroll
      for (int v = 0; v < 2; ++v) finish(block, i * 2 + v, above, current, below, planes[v], sum);
    }
  }

 private:
  __device__ __forceinline__ int group_pixel(int i) const { return (across + i * Tile::warps_across) * 32; }
  // The first pixel of piece v = i % 2 that the lane writes of group i / 2.
  __device__ __forceinline__ int out_pixel(int i) const { return group_pixel(i / 2) + (i % 2 * 4 + t) * 4; }

  // The lane's output channels, two for each tile of 16.
  __device__ __forceinline__ int output(int m, int half) const { return first_output + m * 16 + half * 8 + spread(g); }

  __device__ __forceinline__ float bias_of(int o) const {
    if (p.bias == nullptr || o >= p.out.channels) return 0.0f;
    return static_cast<const float*>(p.bias)[o * p.bias_stride];
  }

  __device__ void read_alpha() {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int i = 0; i < k_blocks * 4; ++i) {
        const int o = output(m, i % 2), k = i / 4 * 8 + i / 2 % 2 * 4 + t;
        const bool exists = o < p.out.channels && k < p.in.channels;
        const float weight = exists ? static_cast<const float*>(p.alpha)[o * p.alpha_out + k * p.alpha_in] : 0.0f;
        if constexpr (split) {
          const Tf32Pair parts = split_to_tf32(weight);
          high[m][i / 4][i % 4] = parts.high;
          low[m][i / 4][i % 4] = parts.low;
        } else {
          high[m][i / 4][i % 4] = round_to_tf32(weight);
        }
      }
    }
  }

  // The 1x1 part. `from` is the lane's piece of channel t.
  __device__ __forceinline__ void multiply(const unsigned char* from, Sums& sum) const {
    Sums rest = {};
#pragma unroll
    for (int k = 0; k < k_blocks; ++k) {
      const float4 r0 = load_piece(from + k * 8 * Ring::pitch), r1 = load_piece(from + (k * 8 + 4) * Ring::pitch);
      const float x0[4] = {r0.x, r0.y, r0.z, r0.w}, x1[4] = {r1.x, r1.y, r1.z, r1.w};
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if constexpr (split) {
          const Tf32Pair first = split_to_tf32(x0[e]), second = split_to_tf32(x1[e]);
#pragma unroll
          for (int m = 0; m < m_tiles; ++m) {
            multiply_add_tf32(sum[m][e], high[m][k], first.high, second.high);
            multiply_add_tf32(rest[m][e], high[m][k], first.low, second.low);
            multiply_add_tf32(rest[m][e], low[m][k], first.high, second.high);
          }
        } else {
          const std::uint32_t first = round_to_tf32(x0[e]), second = round_to_tf32(x1[e]);
#pragma unroll
          for (int m = 0; m < m_tiles; ++m) multiply_add_tf32(sum[m][e], high[m][k], first, second);
        }
      }
    }
    if constexpr (split) {
#pragma unroll
      for (int i = 0; i < m_tiles * 16; ++i) {
        add_rest(sum[i / 16][i / 4 % 4][i % 4], rest[i / 16][i / 4 % 4][i % 4]);
      }
    }
  }

  __device__ __forceinline__ float4 load_plane(int block, int i, int plane, int o) const {
    if (o >= p.stencil_channels) return float4{};
    const int row = block * p.cut.rows_per_block + pieces[i].row;
    return cuda::load_plane<copy_bytes>(p, unit, plane, o, row, pieces[i].column);
  }
  __device__ __forceinline__ void load_planes(int block, int i, Planes& to) const {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        to[m][half][0] = load_plane(block, i, 0, output(m, half));
        to[m][half][1] = load_plane(block, i, 1, output(m, half));
      }
    }
  }

  // Adds the stencil to piece i of the lane's output channels, and writes it.
  __device__ __forceinline__ void finish(int block, int i, const unsigned char* above, const unsigned char* current,
                                         const unsigned char* below, const Planes& planes, const Sums& sum) const {
    const PieceOfRow& piece = pieces[i];
    const int row = block * p.cut.rows_per_block + piece.row, offset = 16 + out_pixel(i) * 4;
    if (row >= unit.last_row) return;
    const unsigned char* at_above = (piece.above_here ? current : above) + offset + piece.above;
    const unsigned char* at_below = (piece.below_here ? current : below) + offset + piece.below;
    float* to =
        static_cast<float*>(const_cast<void*>(p.out.data)) + unit.offset(p.out) + row * p.out.row + piece.column;
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int o = output(m, half), column = half * 2 + i % 2, at = o * Ring::pitch;
        if (o >= p.out.channels) continue;
        float result[4] = {sum[m][0][column], sum[m][1][column], sum[m][2][column], sum[m][3][column]};
        if (o < p.stencil_channels) {
          const auto add_plane = [&](int plane) {
            if (!unit.has_plane(p.cut, plane)) return;
            const float4 x = planes_early ? planes[m][half][plane] : load_plane(block, i, plane, o);
            add_product(c_plane[(m * 16 + half * 8) * 2 + plane], x, result);
          };
          if constexpr (Tile::volume) add_plane(0);
          const float4 taps = *reinterpret_cast<const float4*>(c + (m * 16 + half * 8) * 4);
          add_stencil<copy_bytes>(result, taps, current + offset + at, at_above + at, row > 0, at_below + at,
                                  row + 1 < p.cut.height, piece.column, p.cut.width);
          if constexpr (Tile::volume) add_plane(1);
        }
        store_piece<copy_bytes>(to + static_cast<std::int64_t>(o) * p.out.channel, result, p.cut.width - piece.column);
      }
    }
  }

  const RowsParameters& p;
  const RowsUnit& unit;
  const float *c, *c_plane;
  int g, t, across, first_output;
  std::uint32_t high[m_tiles][k_blocks][4], low[split ? m_tiles : 1][split ? k_blocks : 1][4];
  PieceOfRow pieces[groups * 2];
};

template <typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_tf32(const RowsParameters p) {
  using Ring = typename Tile::Ring;
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x), first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs;
  const RowsUnit unit(p.cut, Tile::pixels, static_cast<int>(blockIdx.x), Tile::volume);
  using Loader = RowLoader<float, Ring, Tile::threads, copy_bytes, true>;
  const Loader loader(p.cut, p.in, unit, thread);
  auto* c = reinterpret_cast<float*>(shared + Tile::c_offset);
  auto* c_plane = reinterpret_cast<float*>(shared + Tile::c_plane_offset);
  const RowsTf32<Tile, copy_bytes> warp(p, unit, c, c_plane, thread);
  load_taps<4, 1, Tile::block_outputs, Tile::threads>(c, p, first_output, thread);
  if constexpr (Tile::volume)
    load_plane_taps<2, 1, Tile::block_outputs, Tile::threads>(c_plane, p, first_output, thread);
  Loader::clear(shared, p.in.channels, thread);
  __syncthreads();
  march<Ring>(
      shared, unit.first_block, unit.last_block, [&](int block, unsigned char* slot) { loader.load(block, slot); },
      [&](int block, const unsigned char* above, const unsigned char* current, const unsigned char* below) {
        warp.compute(block, above, current, below);
      });
}

}  // namespace leancore::detail::cuda
