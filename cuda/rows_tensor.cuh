// Row-marching forward and backward_data for 16-bit elements, on tensor cores, the stencil included.
//
// A product (see ptx.cuh) takes 16 output channels x 16 input channels x 8 pixels. Shared memory has the pixels of a
// channel side by side, so a lane reads 16 bytes, 8 pixels, at once, and uses them for 8 products: product e takes
// pixel e of every piece.
//
//   pieces (8 pixels each) of a group of 64 pixels     product e, column g  <->  pixel e of piece spread(g)
//   +----+----+----+----+----+----+----+----+          input channels 2t, 2t+1, 2t+8, 2t+9 of the product's 16
//   | 0  | 1  | 2  | 3  | 4  | 5  | 6  | 7  |                       <->  channels t, t+4, t+8, t+12
//   +----+----+----+----+----+----+----+----+          output channels g, g + 8  <->  spread(g), 8 + spread(g)
//
// Any order of columns, and any order of the summed channels, gives the same product; with these, the eight lanes that
// a shared-memory access serves at once lie in different banks, and a lane's results for v = 0, 1 are the 8 pixels of
// piece 4v + t of its output channels: one 16-byte store, four lanes to a contiguous 64 bytes.
//
// The stencil: tap k is a product with the matrix diag(c[., k]) and the neighbouring pixels. Those to the left and
// right are in registers already: the left neighbour of pixel e is pixel e - 1 of the same piece, so product e takes
// the operand of product e - 1; beyond the piece, it is with the lane that has the next one, and only beyond the group
// it is read anew. c is used as it is, a 16-bit number; all sums are in fp32. A NaN or an infinity reaches, through the
// zeros of diag, the 16 channels of its product.
//
// Of volumes, the pixels that the other two taps need of a plane before or after are those of the lane's results: a tap
// is a 16-byte read, from global memory, for every store, and a multiplication on the ordinary multipliers.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

// The operands b of 8 products: product e takes pixel e of a piece, of 16 input channels.
struct PixelOperands {
  std::uint32_t low[8], high[8];

  // `from`: the lane's piece of channel t.
  __device__ __forceinline__ void load(const unsigned char* from, int pitch) {
    const auto piece = [&](int channel) { return *reinterpret_cast<const uint4*>(from + channel * pitch); };
    const uint4 r0 = piece(0), r1 = piece(4), r2 = piece(8), r3 = piece(12);
    const std::uint32_t w0[4] = {r0.x, r0.y, r0.z, r0.w}, w1[4] = {r1.x, r1.y, r1.z, r1.w};
    const std::uint32_t w2[4] = {r2.x, r2.y, r2.z, r2.w}, w3[4] = {r3.x, r3.y, r3.z, r3.w};
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      const unsigned halves = e % 2 == 0 ? 0x5410 : 0x7632;  // the lower or the upper 16 bits of both
      low[e] = __byte_perm(w0[e / 2], w1[e / 2], halves);
      high[e] = __byte_perm(w2[e / 2], w3[e / 2], halves);
    }
  }
};

// The same of one pixel beside a piece.
struct EdgeOperands {
  std::uint32_t low, high;

  __device__ __forceinline__ EdgeOperands(const unsigned char* from, int pitch, bool outside) {
    const auto pixel = [&](int channel) { return load_shared_bits(from + channel * pitch); };
    low = outside ? 0 : pair(pixel(0), pixel(4));
    high = outside ? 0 : pair(pixel(8), pixel(12));
  }
  // Of a pixel that another lane has; all lanes take part.
  __device__ __forceinline__ EdgeOperands(std::uint32_t own_low, std::uint32_t own_high, int lane)
      : low(__shfl_sync(0xffffffff, own_low, lane)), high(__shfl_sync(0xffffffff, own_high, lane)) {}
};

// Writes a piece, of which `pixels` exist, in parts of copy_bytes.
template <int copy_bytes, typename T>
__device__ __forceinline__ void store_piece(T* to, const std::uint32_t (&words)[4], int pixels) {
  if constexpr (copy_bytes == 16) {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  } else {
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (copy_bytes == 4) {
        if (2 * w < pixels) reinterpret_cast<std::uint32_t*>(to)[w] = words[w];
      } else {
        auto* bits = reinterpret_cast<std::uint16_t*>(to) + 2 * w;
        if (2 * w < pixels) bits[0] = static_cast<std::uint16_t>(words[w] & 0xffff);
        if (2 * w + 1 < pixels) bits[1] = static_cast<std::uint16_t>(words[w] >> 16);
      }
    }
  }
}

template <typename T, typename Tile, int copy_bytes>
class RowsTensor {
  static constexpr int k_blocks = Tile::k_blocks, m_tiles = Tile::m_tiles, groups = Tile::groups;
  using Ring = typename Tile::Ring;
  using Sums = float[m_tiles][8][4];
  // Another plane's pixels, where the lane's results are.
  struct Plane {
    uint4 piece[2][2];  // half, v
  };
  static_assert(!Tile::volume || m_tiles == 1);

 public:
  __device__ RowsTensor(const RowsParameters& parameters, const RowsUnit& work, int thread)
      : p(parameters), unit(work) {
    // From lane 0, so that the compiler knows it to be the same for all lanes.
    const int lane = thread % 32, warp = __shfl_sync(0xffffffff, thread / 32, 0);
    g = lane / 4;
    t = lane % 4;
    across = warp % Tile::warps_across;
    first_output = static_cast<int>(blockIdx.y) * Tile::block_outputs + warp / Tile::warps_across * 16 * m_tiles;
    // The warp's own channels, of which its stencil is, are block own_block of the input channels and those after it.
    own_block = first_output / 16;
    stencil = first_output < p.stencil_channels;
    read_weights();
#pragma unroll
    for (int i = 0; i < groups; ++i) locate(i);
  }

  __device__ __forceinline__ void compute(int block, const unsigned char* above, const unsigned char* current,
                                          const unsigned char* below) const {
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      Plane front, back;
      if constexpr (Tile::volume) {  // they arrive while the products are taken
        if (stencil) {
          load_plane(block, i, 0, front);
          load_plane(block, i, 1, back);
        }
      }
      Sums sum;
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          sum[m][e][0] = sum[m][e][1] = bias[m][0];
          sum[m][e][2] = sum[m][e][3] = bias[m][1];
        }
      }
      const int offset = 16 + t * Ring::pitch + group_pixel(i) * 2 + spread(g) * 16;
      multiply(current + offset, i, sum);
      if (stencil) {
        const int own = (own_block < k_blocks ? own_block : 0) * 16 * Ring::pitch;
        add_rows((above_here[i] ? current : above) + offset + above_offset[i] + own, 0, sum);
        add_rows((below_here[i] ? current : below) + offset + below_offset[i] + own, 3, sum);
        if constexpr (Tile::volume) {
          add_plane(front, 0, sum[0]);
          add_plane(back, 1, sum[0]);
        }
      }
      store(block, i, sum);
    }
  }

 private:
  __device__ __forceinline__ int group_pixel(int i) const { return (across + i * Tile::warps_across) * 64; }

  // The lane that has a piece of the group, of the same channels: undoes `spread`.
  __device__ __forceinline__ int lane_of_piece(int piece) const { return (piece % 4 * 2 + piece / 4) * 4 + t; }

  // The lane's output channels, two for each tile of 16.
  __device__ __forceinline__ int output(int m, int half) const { return first_output + m * 16 + half * 8 + spread(g); }

  __device__ __forceinline__ float bias_of(int o) const {
    if (p.bias == nullptr || o >= p.out.channels) return 0.0f;
    return Element<T>::widen(static_cast<const T*>(p.bias)[o * p.bias_stride]);
  }

  // Block i of the input channels in the order of the sum, the warp's own last.
  __device__ __forceinline__ int input_block(int i) const {
    const int block = i + m_tiles + own_block % k_blocks;
    return block >= 2 * k_blocks ? block - 2 * k_blocks : block >= k_blocks ? block - k_blocks : block;
  }

  __device__ void read_weights() {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int o = output(m, half);
        bias[m][half] = bias_of(o);
        const auto weight = [&](int k) {
          return o < p.out.channels && k < p.in.channels ? load_bits(p.alpha, o * p.alpha_out + k * p.alpha_in) : 0;
        };
#pragma unroll
        for (int i = 0; i < k_blocks; ++i) {
          const int k = input_block(i) * 16 + t;
          alpha[m][i][half] = pair(weight(k), weight(k + 4));
          alpha[m][i][half + 2] = pair(weight(k + 8), weight(k + 12));
        }
        // Output channel 8 half + spread(g) meets input channel 8 half + t in the lower half of a word, + 4 in the
        // upper: only one lane of four has the diagonal, and only in one half.
        const bool diagonal = o < p.stencil_channels && g / 2 == t;
#pragma unroll
        for (int tap = 0; tap < 4; ++tap) {
          const std::uint32_t value = diagonal ? load_bits(p.c, o * p.c_channel + p.c_tap[tap]) : 0;
          c[m][tap][half] = g % 2 == 0 ? value : value << 16;
        }
        if constexpr (Tile::volume) {
          const auto tap = [&](int plane) {
            return o < p.stencil_channels ? load_bits(p.c, o * p.c_channel + p.c_plane[plane]) : 0;
          };
          c_plane[half] = pair(tap(0), tap(1));
        }
      }
    }
  }

  // Where the pieces of group i lie: the one that the lane reads, and the two that it writes.
  __device__ void locate(int i) {
    const int pixel = group_pixel(i) + spread(g) * 8;
    const PieceOfRow piece(p.cut, unit, pixel, 2);
    above_here[i] = piece.above_here;
    below_here[i] = piece.below_here;
    above_offset[i] = piece.above;
    below_offset[i] = piece.below;
    const int column = pixel % p.cut.slot_row;
    first_of_row[i] = p.cut.strips == 1 && column == 0;
    last_of_row[i] = p.cut.strips == 1 && column + 8 == p.cut.slot_row;
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const int out_pixel = group_pixel(i) + (4 * v + t) * 8, out_row = out_pixel / p.cut.slot_row;
      out_column[i][v] = unit.first_column + out_pixel - out_row * p.cut.slot_row;
      constexpr int never = 1 << 29;
      row_in_block[i][v] = out_row < p.cut.rows_per_block && out_column[i][v] < p.cut.width ? out_row : never;
    }
  }

  // The 1x1 part, and the taps to the left and right when the own channels pass by.
  __device__ __forceinline__ void multiply(const unsigned char* from, int group, Sums& sum) const {
#pragma unroll
    for (int i = 0; i < k_blocks; ++i) {
      const unsigned char* channels = from + input_block(i) * 16 * Ring::pitch;
      PixelOperands x;
      x.load(channels, Ring::pitch);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) multiply_add<T>(sum[m][e], alpha[m][i], x.low[e], x.high[e]);
      }
      constexpr int first_own = k_blocks - m_tiles;
      if (i >= first_own && stencil) {
        const int m = i - first_own;
        EdgeOperands left(x.low[7], x.high[7], lane_of_piece((spread(g) + 7) % 8));
        EdgeOperands right(x.low[0], x.high[0], lane_of_piece((spread(g) + 1) % 8));
        const EdgeOperands beyond(channels + (g == 0 ? -2 : 16), Ring::pitch, g != 0 && g != 7);
        if (g == 0) left = beyond;
        if (g == 7) right = beyond;
        if (first_of_row[group]) left.low = left.high = 0;
        if (last_of_row[group]) right.low = right.high = 0;
        const std::uint32_t to_left[4] = {c[m][1][0], 0, 0, c[m][1][1]}, to_right[4] = {c[m][2][0], 0, 0, c[m][2][1]};
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          multiply_add<T>(sum[m][e], to_left, e == 0 ? left.low : x.low[e == 0 ? 0 : e - 1],
                          e == 0 ? left.high : x.high[e == 0 ? 0 : e - 1]);
          multiply_add<T>(sum[m][e], to_right, e == 7 ? right.low : x.low[e == 7 ? 7 : e + 1],
                          e == 7 ? right.high : x.high[e == 7 ? 7 : e + 1]);
        }
      }
    }
  }

  // The tap above or below: `from` is the piece there, of the warp's own channels.
  __device__ __forceinline__ void add_rows(const unsigned char* from, int tap, Sums& sum) const {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
      const std::uint32_t diagonal[4] = {c[m][tap][0], 0, 0, c[m][tap][1]};
      PixelOperands x;
      x.load(from + m * 16 * Ring::pitch, Ring::pitch);
#pragma unroll
      for (int e = 0; e < 8; ++e) multiply_add<T>(sum[m][e], diagonal, x.low[e], x.high[e]);
    }
  }

  // `to` stays as it is where there is no such plane.
  __device__ __forceinline__ void load_plane(int block, int i, int plane, Plane& to) const {
    if (!unit.has_plane(p.cut, plane)) return;
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const int row = block * p.cut.rows_per_block + row_in_block[i][v];
      const bool in_chunk = row < unit.last_row;
      const T* from = static_cast<const T*>(p.in.data) + unit.offset(p.in) + (plane == 0 ? -p.in.plane : p.in.plane) +
                      (first_output + spread(g)) * p.in.channel + (in_chunk ? row * p.in.row + out_column[i][v] : 0);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bool exists = in_chunk && output(0, half) < p.stencil_channels;
        to.piece[half][v] =
            load_global_piece<copy_bytes>(from + half * 8 * p.in.channel, exists ? p.cut.width - out_column[i][v] : 0);
      }
    }
  }

  // What is outside the volume is not multiplied.
  __device__ __forceinline__ void add_plane(const Plane& from, int plane, float (&sum)[8][4]) const {
    if (!unit.has_plane(p.cut, plane)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float2 taps = widen_pair<T>(c_plane[half]);
      const float tap = plane == 0 ? taps.x : taps.y;
#pragma unroll
      for (int v = 0; v < 2; ++v) {
        const uint4& piece = from.piece[half][v];
        const std::uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
        for (int w = 0; w < 4; ++w) {
          const float2 x = widen_pair<T>(words[w]);
          sum[2 * w][half * 2 + v] += tap * x.x;
          sum[2 * w + 1][half * 2 + v] += tap * x.y;
        }
      }
    }
  }

  __device__ __forceinline__ void store(int block, int i, const Sums& sum) const {
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const int row = block * p.cut.rows_per_block + row_in_block[i][v];
      if (row >= unit.last_row) continue;
      T* to = static_cast<T*>(const_cast<void*>(p.out.data)) + unit.offset(p.out) +
              (first_output + spread(g)) * p.out.channel + row * p.out.row + out_column[i][v];
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (output(m, half) >= p.out.channels) continue;
          std::uint32_t words[4];
#pragma unroll
          for (int w = 0; w < 4; ++w) {
            words[w] = round_pair<T>(sum[m][2 * w][half * 2 + v], sum[m][2 * w + 1][half * 2 + v]);
          }
          store_piece<copy_bytes>(to + (m * 16 + half * 8) * p.out.channel, words, p.cut.width - out_column[i][v]);
        }
      }
    }
  }

  const RowsParameters& p;
  const RowsUnit& unit;
  int g, t, across, first_output, own_block;
  bool stencil;
  float bias[m_tiles][2];
  std::uint32_t alpha[m_tiles][k_blocks][4];
  std::uint32_t c[m_tiles][4][2];  // diag(c[., tap]): the two words that are not zero
  std::uint32_t c_plane[2];        // c of the planes before and after, of volumes
  int above_offset[groups], below_offset[groups], row_in_block[groups][2], out_column[groups][2];
  bool above_here[groups], below_here[groups], first_of_row[groups], last_of_row[groups];
};

template <typename T, typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_tensor(const RowsParameters p) {
  extern __shared__ __align__(128) unsigned char shared[];
  const int thread = static_cast<int>(threadIdx.x);
  const RowsUnit unit(p.cut, Tile::pixels, static_cast<int>(blockIdx.x), Tile::volume);
  using Loader = RowLoader<T, typename Tile::Ring, Tile::threads, copy_bytes, true>;
  const Loader loader(p.cut, p.in, unit, thread);
  const RowsTensor<T, Tile, copy_bytes> warp(p, unit, thread);
  Loader::clear(shared, p.in.channels, thread);
  __syncthreads();
  march<typename Tile::Ring>(
      shared, unit.first_block, unit.last_block, [&](int block, unsigned char* slot) { loader.load(block, slot); },
      [&](int block, const unsigned char* above, const unsigned char* current, const unsigned char* below) {
        warp.compute(block, above, current, below);
      });
}

}  // namespace leancore::detail::cuda
