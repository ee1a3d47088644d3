// Row-marching forward and backward_data for 16-bit channels-last arrays, on tensor cores, the stencil included.
//
// A product takes 16 pixels x 16 input channels, read by ldmatrix, and 16 input channels x 8 output channels of
// alpha, which stay in registers.
//
// A tap is a product with diag(c[., k]) whose 16 rows are read at the neighbouring pixels; a neighbour outside the row
// is a pixel of zeros behind the ring. Of each 16 output channels, those of column n of the product j = 0, 1 are 4 (n /
// 2) + 2 j + n % 2: a lane then has 4 channels of a pixel side by side, and stores 8 bytes. Of volumes, it reads the
// same 8 bytes of the planes before and after from global memory, and multiplies them on the ordinary multipliers.
#pragma once

#include "pixels.cuh"

namespace leancore::detail::cuda {

template <typename T, typename Tile>
class RowsLast {
  static constexpr int k_blocks = Tile::k_blocks, n_blocks = Tile::n_blocks, groups = Tile::groups;
  using Ring = typename Tile::Ring;
  using Sums = float[n_blocks][2][4];
  // Another plane's elements of the lane's results.
  using Plane = uint2[n_blocks][2];

 public:
  __device__ RowsLast(const RowsParameters& parameters, const RowsUnit& work, int thread) : p(parameters), unit(work) {
    lane = thread % 32;
    const int warp = __shfl_sync(0xffffffff, thread / 32, 0);
    across = warp % Tile::warps_across;
    first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs + warp / Tile::warps_across * 16 * n_blocks;
    out =
        opaque_global(static_cast<T*>(const_cast<void*>(p.out.data)) + unit.offset(p.out) + output(0, 0, lane % 4 * 2));
    read_weights();
    read_bias();
#pragma unroll
    for (int i = 0; i < groups; ++i) locate(i);
  }

  __device__ __forceinline__ void compute(int block, const unsigned char* zeros, const unsigned char* above,
                                          const unsigned char* current, const unsigned char* below) const {
    const int part = lane / 16 * 16;  // of the 32 bytes of 16 channels that the lane's row of ldmatrix is
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      Plane front, back;
      if constexpr (Tile::volume) {  // they arrive while the products are taken
        load_plane(block, i, 0, front);
        load_plane(block, i, 1, back);
      }
      Sums sum;
      start(sum);
      const unsigned char* centre = current + offset[i] + part;
#pragma unroll
      for (int k = 0; k < k_blocks; ++k) {
        std::uint32_t x[4];
        load_matrices(x, centre + k * 32);
#pragma unroll
        for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
          for (int j = 0; j < 2; ++j) multiply_add<T>(sum[b][j], x, alpha[b][j][k][0], alpha[b][j][k][1]);
        }
      }
      const int flags = place_flags[i];
      add_tap((flags & above_here ? current : above) + above_offset[i] + part, 0, sum);
      add_tap(flags & first_of_row ? zeros + part : centre - Ring::pitch, 1, sum);
      add_tap(flags & last_of_row ? zeros + part : centre + Ring::pitch, 2, sum);
      add_tap((flags & below_here ? current : below) + below_offset[i] + part, 3, sum);
      if constexpr (Tile::volume) {
        add_plane(front, 0, sum);
        add_plane(back, 1, sum);
      }
      store(block, i, sum);
    }
  }

 private:
  // Of column n of the product j of the n_block-th 16 output channels.
  __device__ __forceinline__ int output(int n_block, int j, int n) const {
    return first_output + n_block * 16 + n / 2 * 4 + j * 2 + n % 2;
  }

  __device__ void read_weights() {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int o = output(b, j, g);
        const auto weight = [&](int k) {
          return o < p.out.channels && k < p.in.channels ? load_bits(p.alpha, o * p.alpha_out + k * p.alpha_in) : 0;
        };
#pragma unroll
        for (int k = 0; k < k_blocks; ++k) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int first = k * 16 + half * 8 + 2 * t;
            alpha[b][j][k][half] = pair(weight(first), weight(first + 1));
          }
        }
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) {
          const std::uint32_t value = o < p.stencil_channels ? load_bits(p.c, o * p.c_channel + p.c_tap[tap]) : 0;
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int first = first_output + b * 16 + half * 8 + 2 * t;
            c[b][j][tap][half] = pair(first == o ? value : 0, first + 1 == o ? value : 0);
          }
        }
      }
      if constexpr (Tile::volume) {
        const int o = output(b, 0, 2 * t);
        const auto tap = [&](int plane, int channel) {
          return o < p.stencil_channels ? load_bits(p.c, (o + channel) * p.c_channel + p.c_plane[plane]) : 0;
        };
#pragma unroll
        for (int plane = 0; plane < 2; ++plane) {
          c_plane[b][plane] = make_uint2(pair(tap(plane, 0), tap(plane, 1)), pair(tap(plane, 2), tap(plane, 3)));
        }
      }
    }
  }

  // The pixels of group i: the one whose channels the lane's row of ldmatrix is, and the two that the lane writes.
  __device__ void locate(int i) {
    const int first = (across + i * Tile::warps_across) * 16, pixel = first + lane % 16;
    const PieceOfRow place(p.cut, unit, pixel, Ring::pitch);
    offset[i] = (pixel + 1) * Ring::pitch;
    above_offset[i] = offset[i] + place.above;
    below_offset[i] = offset[i] + place.below;
    const bool absent = place.row >= p.cut.rows_per_block;  // behind the last row of the slot, where nothing is
    const bool begins = p.cut.strips == 1 && (place.column == 0 || absent);
    const bool ends = p.cut.strips == 1 && (place.column + 1 == p.cut.width || absent);
    place_flags[i] = opaque((place.above_here ? above_here : 0) | (place.below_here ? below_here : 0) |
                            (begins ? first_of_row : 0) | (ends ? last_of_row : 0));
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const PieceOfRow to(p.cut, unit, first + lane / 4 + half * 8, Ring::pitch);
      row_in_block[i][half] = to.row;
      out_column[i][half] = to.column;
      out_offset[i][half] = to.row < p.cut.rows_per_block ? to.row * p.out.row + to.column * p.out.column : 0;
    }
  }

  __device__ void read_bias() {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int o = output(b, j, lane % 4 * 2 + n);
          const bool biased = p.bias != nullptr && o < p.out.channels;
          bias[b][j][n] = biased ? Element<T>::widen(static_cast<const T*>(p.bias)[o * p.bias_stride]) : 0.0f;
        }
      }
    }
  }

  __device__ __forceinline__ void start(Sums& sum) const {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
#pragma unroll
        for (int n = 0; n < 2; ++n) sum[b][j][n] = sum[b][j][n + 2] = bias[b][j][n];
      }
    }
  }

  __device__ __forceinline__ void add_tap(const unsigned char* from, int tap, Sums& sum) const {
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
      const int own = first_output + b * 16;  // the same for the whole warp
      if (own >= p.stencil_channels) continue;
      std::uint32_t x[4];
      load_matrices(x, from + own * 2);
#pragma unroll
      for (int j = 0; j < 2; ++j) multiply_add<T>(sum[b][j], x, c[b][j][tap][0], c[b][j][tap][1]);
    }
  }

  // `to` stays as it is where there is no such plane.
  __device__ __forceinline__ void load_plane(int block, int i, int plane, Plane& to) const {
    if (!unit.has_plane(p.cut, plane)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = block * p.cut.rows_per_block + row_in_block[i][half];
      const bool in_chunk = row < unit.last_row;
      const T* from = static_cast<const T*>(p.in.data) + unit.offset(p.in) + (plane == 0 ? -p.in.plane : p.in.plane) +
                      (in_chunk ? row * p.in.row + out_column[i][half] * p.in.column : 0);
#pragma unroll
      for (int b = 0; b < n_blocks; ++b) {
        const int o = output(b, 0, lane % 4 * 2);
        const bool exists = in_chunk && o < p.stencil_channels;
        to[b][half] = exists ? *reinterpret_cast<const uint2*>(from + o) : uint2{};
      }
    }
  }

  // What is outside the volume is not multiplied.
  __device__ __forceinline__ void add_plane(const Plane& from, int plane, Sums& sum) const {
    if (!unit.has_plane(p.cut, plane)) return;
#pragma unroll
    for (int b = 0; b < n_blocks; ++b) {
      const float2 taps[2] = {widen_pair<T>(c_plane[b][plane].x), widen_pair<T>(c_plane[b][plane].y)};
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 x[2] = {widen_pair<T>(from[b][half].x), widen_pair<T>(from[b][half].y)};
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          sum[b][j][2 * half] += taps[j].x * x[j].x;
          sum[b][j][2 * half + 1] += taps[j].y * x[j].y;
        }
      }
    }
  }

  __device__ __forceinline__ void store(int block, int i, const Sums& sum) const {
    const int block_row = block * p.cut.rows_per_block;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (block_row + row_in_block[i][half] >= unit.last_row) continue;
      T* to = out + (block_row * p.out.row + out_offset[i][half]);
#pragma unroll
      for (int b = 0; b < n_blocks; ++b) {
        const int o = output(b, 0, lane % 4 * 2);
        if (o >= p.out.channels) continue;
        *reinterpret_cast<uint2*>(to + b * 16) =
            make_uint2(round_pair<T>(sum[b][0][2 * half], sum[b][0][2 * half + 1]),
                       round_pair<T>(sum[b][1][2 * half], sum[b][1][2 * half + 1]));
      }
    }
  }

  const RowsParameters& p;
  const RowsUnit& unit;
  int lane, across, first_output;
  T* out;  // the lane's first channel of the first pixel
  float bias[n_blocks][2][2];
  std::uint32_t alpha[n_blocks][2][k_blocks][2];
  std::uint32_t c[n_blocks][2][4][2];  // diag(c[., tap])
  uint2 c_plane[n_blocks][2];          // c of the planes before and after, of volumes
  int offset[groups], above_offset[groups], below_offset[groups];
  int row_in_block[groups][2], out_column[groups][2], out_offset[groups][2];
  // What holds for the pixel whose channels the lane reads.
  static constexpr int above_here = 1, below_here = 2, first_of_row = 4, last_of_row = 8;
  int place_flags[groups];
};

template <typename T, typename Tile>
__global__ void __launch_bounds__(Tile::threads, 1) rows_last(const RowsParameters p) {
  using Ring = typename Tile::Ring;
  using Loader = PixelLoader<T, Ring, Tile::threads, 16, true>;
  extern __shared__ __align__(128) unsigned char shared[];
  unsigned char* zeros = shared + Ring::bytes;
  const int thread = static_cast<int>(threadIdx.x);
  const RowsUnit unit(p.cut, Tile::pixels, static_cast<int>(blockIdx.x), Tile::volume);
  const Loader loader(p.cut, p.in, unit, thread);
  const RowsLast<T, Tile> warp(p, unit, thread);
  Loader::clear(shared, p.in.channels, thread);
  for (int i = thread; i < Tile::channels / 8; i += Tile::threads) reinterpret_cast<uint4*>(zeros)[i] = uint4{};
  __syncthreads();
  march<Ring>(
      shared, unit.first_block, unit.last_block, [&](int block, unsigned char* slot) { loader.load(block, slot); },
      [&](int block, const unsigned char* above, const unsigned char* current, const unsigned char* below) {
        warp.compute(block, zeros, above, current, below);
      });
}

}  // namespace leancore::detail::cuda
