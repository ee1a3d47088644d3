// Row-marching forward and backward_data in fp32 on the ordinary multipliers: at most `channels` input channels.
//
// A thread computes 4 neighbouring pixels (a 16-byte piece) of `outputs` output channels. alpha, channels of `in`
// outermost, and c lie in shared memory, where all threads of a team read the same address; x comes from the ring.
// Order of every sum: bias, channels rising, taps by column. Of volumes, the pixels of the planes before and after,
// which are those of the thread's results, come from global memory.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

template <typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_fma(const RowsParameters p) {
  using Ring = typename Tile::Ring;
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % Tile::lanes, team = thread / Tile::lanes;
  const int first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs;
  const RowsUnit unit(p.cut, Tile::pixels, static_cast<int>(blockIdx.x), Tile::volume);
  using Loader = RowLoader<float, Ring, Tile::threads, copy_bytes, true>;
  const Loader loader(p.cut, p.in, unit, thread);

  // Weights that there are not are zero, and so are the channels that they would be multiplied with.
  auto* alpha = reinterpret_cast<float*>(shared + Tile::alpha_offset);
  auto* c = reinterpret_cast<float*>(shared + Tile::c_offset);
  for (int i = thread; i < Tile::channels * Tile::block_outputs; i += Tile::threads) {
    const int k = i / Tile::block_outputs, o = first_output + i % Tile::block_outputs;
    const bool exists = o < p.out.channels && k < p.in.channels;
    alpha[i] = exists ? static_cast<const float*>(p.alpha)[o * p.alpha_out + k * p.alpha_in] : 0.0f;
  }
  load_taps<4, 1, Tile::block_outputs, Tile::threads>(c, p, first_output, thread);
  auto* c_plane = reinterpret_cast<float*>(shared + Tile::c_plane_offset);
  if constexpr (Tile::volume)
    load_plane_taps<2, 1, Tile::block_outputs, Tile::threads>(c_plane, p, first_output, thread);
  Loader::clear(shared, p.in.channels, thread);
  __syncthreads();

  const float* team_alpha = alpha + team * Tile::outputs;
  const int team_output = first_output + team * Tile::outputs;
  float* out = static_cast<float*>(const_cast<void*>(p.out.data)) + unit.offset(p.out) +
               static_cast<std::int64_t>(team_output) * p.out.channel;
  const PieceOfRow piece(p.cut, unit, lane * 4, 4);
  const int offset = 16 + lane * 16;
  const auto compute = [&](int block, const unsigned char* above, const unsigned char* current,
                           const unsigned char* below) {
    float sum[Tile::outputs][4];
#pragma unroll
    for (int o = 0; o < Tile::outputs; ++o) {
      const bool biased = p.bias != nullptr && team_output + o < p.out.channels;
      const float bias = biased ? static_cast<const float*>(p.bias)[(team_output + o) * p.bias_stride] : 0.0f;
      sum[o][0] = sum[o][1] = sum[o][2] = sum[o][3] = bias;
    }
#pragma unroll 8
    for (int k = 0; k < Tile::channels; ++k) {
      const float4 x = load_piece(current + offset + k * Ring::pitch);
#pragma unroll
      for (int o = 0; o < Tile::outputs; o += 4) {
        const float4 weights = *reinterpret_cast<const float4*>(team_alpha + k * Tile::block_outputs + o);
        const float a[4] = {weights.x, weights.y, weights.z, weights.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[o + i][0] += a[i] * x.x;
          sum[o + i][1] += a[i] * x.y;
          sum[o + i][2] += a[i] * x.z;
          sum[o + i][3] += a[i] * x.w;
        }
      }
    }

    const int row = block * p.cut.rows_per_block + piece.row;
    const bool has_above = row > 0, has_below = row + 1 < p.cut.height;
    const unsigned char* at_above = (piece.above_here ? current : above) + offset + piece.above;
    const unsigned char* at_below = (piece.below_here ? current : below) + offset + piece.below;
#pragma unroll
    for (int o = 0; o < Tile::outputs; ++o) {
      const int channel = team_output + o;
      if (channel < p.stencil_channels) {  // the same for the whole team
        float4 front, back;
        if constexpr (Tile::volume) {
          front = load_plane<copy_bytes>(p, unit, 0, channel, row, piece.column);
          back = load_plane<copy_bytes>(p, unit, 1, channel, row, piece.column);
          const float tap = c_plane[(team * Tile::outputs + o) * 2];
          if (unit.has_plane(p.cut, 0)) add_product(tap, front, sum[o]);
        }
        const float4 taps = *reinterpret_cast<const float4*>(c + (team * Tile::outputs + o) * 4);
        const int at = channel * Ring::pitch;
        add_stencil<copy_bytes>(sum[o], taps, current + offset + at, at_above + at, has_above, at_below + at, has_below,
                                piece.column, p.cut.width);
        if constexpr (Tile::volume) {
          const float tap = c_plane[(team * Tile::outputs + o) * 2 + 1];
          if (unit.has_plane(p.cut, 1)) add_product(tap, back, sum[o]);
        }
      }
      if (row < unit.last_row && channel < p.out.channels) {
        store_piece<copy_bytes>(out + o * p.out.channel + row * p.out.row + piece.column, sum[o],
                                p.cut.width - piece.column);
      }
    }
  };
  march<Ring>(
      shared, unit.first_block, unit.last_block, [&](int block, unsigned char* slot) { loader.load(block, slot); },
      compute);
}

}  // namespace leancore::detail::cuda
