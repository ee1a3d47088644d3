// Row-marching forward and backward_data for channels-last fp32 arrays on tensor cores: the 1x1 part as products of
// TF32 numbers, bias and stencil in plain fp32, with the numeric contract of rows_tf32.cuh.
//
// Slots are those of pixels.cuh. A product takes 16 pixels x 8 input channels, read by ldmatrix (which moves 16-byte
// pieces and does not mind what is in them), and 8 input channels x 8 output channels of alpha, which stay in
// registers. Output channels are spread over the products j = 0, 1 as in rows_last.cuh: a lane has 4 channels of a
// pixel side by side, for which it reads its neighbours, and which it stores, in pieces of 16 bytes; of volumes, it
// reads the same piece of the planes before and after from global memory. Row g of a product is pixel spread(g), so
// that the pixels that are read at once lie in different banks.
#pragma once

#include "pixels.cuh"
#include "tf32.cuh"

namespace leancore::detail::cuda {

template <typename Tile>
class RowsLastTf32 {
  static constexpr int k_blocks = Tile::k_blocks, n_blocks = Tile::n_blocks, groups = Tile::groups;
  static constexpr bool split = Tile::products == 3;
  using Ring = typename Tile::Ring;
  using Sums = float[n_blocks][2][4];
  // A pixel's output channels of the lane in the planes before and after.
  using Planes = float4[n_blocks][2];
  // They arrive while the products are taken, unless alpha leaves no registers for that.
  static constexpr bool planes_early = k_blocks <= 8;

 public:
  // The thread block's taps, in shared memory: up, left, right, down, front, back of all channels each.
  __device__ RowsLastTf32(const RowsParameters& parameters, const RowsUnit& work, const float* taps, int thread)
      : p(parameters), unit(work) {
    const int lane = thread % 32, warp = __shfl_sync(0xffffffff, thread / 32, 0);
    g = lane / 4;
    t = lane % 4;
    across = warp % Tile::warps_across;
    const int first = warp / Tile::warps_across * 16 * n_blocks;
    first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs + first;
    c = taps + first + t * 4;
    read_alpha();
    // The lane's row of ldmatrix, and the piece of it: channels 0 to 3 of the first lanes, 4 to 7 of the others.
    read_offset = (group_pixel(0) + lane / 8 % 2 * 8 + spread(lane % 8) + 1) * Ring::pitch + lane / 16 * 16;
#pragma unroll
    for (int i = 0; i < groups * 2; ++i) pieces[i] = PieceOfRow(p.cut, unit, out_pixel(i), Ring::pitch);
  }

  __device__ __forceinline__ void compute(int block, const unsigned char* above, const unsigned char* current,
                                          const unsigned char* below) const {
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      Planes planes[2];
      if constexpr (Tile::volume && planes_early) {
        load_planes(block, i * 2, planes[0]);
        load_planes(block, i * 2 + 1, planes[1]);
      }
      Sums sum;
      start(sum);
      multiply(current + read_offset + (group_pixel(i) - group_pixel(0)) * Ring::pitch, sum);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        finish(block, i * 2 + half, above, current, below, planes[half], sum);
      }
    }
  }

 private:
  __device__ __forceinline__ int group_pixel(int i) const { return (across + i * Tile::warps_across) * 16; }
  // Pixel half = i % 2 that the lane writes of group i / 2.
  __device__ __forceinline__ int out_pixel(int i) const { return group_pixel(i / 2) + i % 2 * 8 + spread(g); }

  // Of column n of the product j of the n_block-th 16 output channels.
  __device__ __forceinline__ int output(int n_block, int j, int n) const {
    return first_output + n_block * 16 + n / 2 * 4 + j * 2 + n % 2;
  }

  __device__ void read_alpha() {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int i = 0; i < k_blocks * 4; ++i) {
        const int j = i % 2, half = i / 2 % 2, k = i / 4, o = output(b, j, g), channel = k * 8 + half * 4 + t;
        const bool exists = o < p.out.channels && channel < p.in.channels;
        const float weight = exists ? static_cast<const float*>(p.alpha)[o * p.alpha_out + channel * p.alpha_in] : 0.0f;
        if constexpr (split) {
          const Tf32Pair parts = split_to_tf32(weight);
          high[b][j][k][half] = parts.high;
          low[b][j][k][half] = parts.low;
        } else {
          high[b][j][k][half] = round_to_tf32(weight);
        }
      }
    }
  }

  __device__ __forceinline__ void start(Sums& sum) const {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int o = output(b, i / 2, 2 * t + i % 2);
        const bool biased = p.bias != nullptr && o < p.out.channels;
        const float bias = biased ? static_cast<const float*>(p.bias)[o * p.bias_stride] : 0.0f;
        sum[b][i / 2][i % 2] = sum[b][i / 2][i % 2 + 2] = bias;
      }
    }
  }

  // The 1x1 part. `from` is the lane's piece of ldmatrix.
  __device__ __forceinline__ void multiply(const unsigned char* from, Sums& sum) const {
    Sums rest = {};
#pragma unroll
    for (int k = 0; k < k_blocks; ++k) {
      std::uint32_t x[4], x_low[4];
      load_matrices(x, from + k * 32);
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
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          multiply_add_tf32(sum[b][j], x, high[b][j][k][0], high[b][j][k][1]);
          if constexpr (split) {
            multiply_add_tf32(rest[b][j], x_low, high[b][j][k][0], high[b][j][k][1]);
            multiply_add_tf32(rest[b][j], x, low[b][j][k][0], low[b][j][k][1]);
          }
        }
      }
    }
    if constexpr (split) {
#pragma unroll
      for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
        for (int i = 0; i < 8; ++i) add_rest(sum[b][i / 4][i % 4], rest[b][i / 4][i % 4]);
      }
    }
  }

  // Zeros where there is nothing.
  __device__ __forceinline__ float4 load_plane(int block, int i, int plane, int o) const {
    const PieceOfRow& place = pieces[i];
    const int row = block * p.cut.rows_per_block + place.row;
    if (row >= unit.last_row || o >= p.stencil_channels || !unit.has_plane(p.cut, plane)) return float4{};
    const float* from = static_cast<const float*>(p.in.data) + unit.offset(p.in) +
                        (plane == 0 ? -p.in.plane : p.in.plane) + row * p.in.row + place.column * p.in.column;
    return *reinterpret_cast<const float4*>(from + o);
  }
  __device__ __forceinline__ void load_planes(int block, int i, Planes& to) const {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
      to[b][0] = load_plane(block, i, 0, output(b, 0, 2 * t));
      to[b][1] = load_plane(block, i, 1, output(b, 0, 2 * t));
    }
  }

  // Adds the stencil to pixel i of the lane's output channels, and writes them.
  __device__ __forceinline__ void finish(int block, int i, const unsigned char* above, const unsigned char* current,
                                         const unsigned char* below, const Planes& planes, const Sums& sum) const {
    const PieceOfRow& place = pieces[i];
    const int row = block * p.cut.rows_per_block + place.row, offset = (out_pixel(i) + 1) * Ring::pitch;
    if (row >= unit.last_row) return;
    const unsigned char* neighbour[4] = {(place.above_here ? current : above) + offset + place.above,
                                         current + offset - Ring::pitch, current + offset + Ring::pitch,
                                         (place.below_here ? current : below) + offset + place.below};
    const bool exists[4] = {row > 0, place.column > 0, place.column + 1 < p.cut.width, row + 1 < p.cut.height};
    float* to = static_cast<float*>(const_cast<void*>(p.out.data)) + unit.offset(p.out) + row * p.out.row +
                place.column * p.out.column;
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
      const int o = output(b, 0, 2 * t), half = i % 2 * 2;
      if (o >= p.out.channels) continue;
      float4 result = make_float4(sum[b][0][half], sum[b][0][half + 1], sum[b][1][half], sum[b][1][half + 1]);
      // Channels without a stencil that share the piece have taps of zero, but their x may be infinite.
      const auto add = [&](int tap, const float4& x) {
        const float4 taps = *reinterpret_cast<const float4*>(c + tap * Tile::block_outputs + b * 16);
        result.x += taps.x * x.x;
        if (o + 1 < p.stencil_channels) result.y += taps.y * x.y;
        if (o + 2 < p.stencil_channels) result.z += taps.z * x.z;
        if (o + 3 < p.stencil_channels) result.w += taps.w * x.w;
      };
      const auto add_plane = [&](int plane) {
        if (o >= p.stencil_channels || !unit.has_plane(p.cut, plane)) return;
        add(4 + plane, planes_early ? planes[b][plane] : load_plane(block, i, plane, o));
      };
      if constexpr (Tile::volume) add_plane(0);
#pragma unroll
      for (int tap = 0; tap < 4; ++tap) {
        if (exists[tap] && o < p.stencil_channels) add(tap, load_piece(neighbour[tap] + o * 4));
      }
      if constexpr (Tile::volume) add_plane(1);
      *reinterpret_cast<float4*>(to + o) = result;
    }
  }

  const RowsParameters& p;
  const RowsUnit& unit;
  const float* c;
  int g, t, across, first_output, read_offset;
  std::uint32_t high[n_blocks][2][k_blocks][2], low[split ? n_blocks : 1][2][split ? k_blocks : 1][2];
  PieceOfRow pieces[groups * 2];
};

template <typename Tile>
__global__ void __launch_bounds__(Tile::threads, 1) rows_last_tf32(const RowsParameters p) {
  using Ring = typename Tile::Ring;
  using Loader = PixelLoader<float, Ring, Tile::threads, 16, true>;
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x), first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs;
  const RowsUnit unit(p.cut, Tile::pixels, static_cast<int>(blockIdx.x), Tile::volume);
  const Loader loader(p.cut, p.in, unit, thread);
  auto* c = reinterpret_cast<float*>(shared + Tile::c_offset);
  const RowsLastTf32<Tile> warp(p, unit, c, thread);
  load_taps<1, Tile::block_outputs, Tile::block_outputs, Tile::threads>(c, p, first_output, thread);
  if constexpr (Tile::volume) {
    auto* c_plane = reinterpret_cast<float*>(shared + Tile::c_plane_offset);
    load_plane_taps<1, Tile::block_outputs, Tile::block_outputs, Tile::threads>(c_plane, p, first_output, thread);
  }
  Loader::clear(shared, p.in.channels, thread);
  __syncthreads();
  march<Ring>(
      shared, unit.first_block, unit.last_block, [&](int block, unsigned char* slot) { loader.load(block, slot); },
      [&](int block, const unsigned char* above, const unsigned char* current, const unsigned char* below) {
        warp.compute(block, above, current, below);
      });
}

}  // namespace leancore::detail::cuda
