// Row-marching backward_weight for 16-bit elements on tensor cores: dalpha and dc from one read of x and dy.
//
// Both are sums over pixels, the inner dimension of the products (see ptx.cuh); memory has the pixels of a channel side
// by side, which is how products want it.
//
//   dalpha   a = dy of 16 channels x 16 pixels, b = x of 16 pixels x 8 channels, read by ldmatrix
//   dc       a = dy of 8 channels one tap away (rows 0..7) and the same of another tap (rows 8..15), b = x of these 8
//            channels: the diagonals of the two 8 x 8 halves are two columns of dc. Two products make all four.
//
// The tap that reads x at p + step pairs dy[p] with it: seen from x, dy lies at -step. The order of the summed pixels
// is free, so for dc a lane takes 16 bytes, 8 pixels, of one channel for two products; row and column g are channel
// spread(g), which keeps banks apart.
//
// dy marches with the rows before and after the current one, x with the current one. Each thread block adds up a fixed
// number of units; where several warps share the pixels, their sums are added in the order of the warps.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

// The two row rings, and where their row-blocks are.
template <typename Tile>
struct WeightSlots {
  const unsigned char *dy_above, *dy, *dy_below, *x;
};

template <typename T, typename Tile>
class RowsWeight {
  static constexpr int m_tiles = Tile::m_tiles, n_tiles = Tile::n_tiles, groups = Tile::groups;
  static constexpr int stencil_groups = Tile::stencil_groups;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;

 public:
  __device__ RowsWeight(const RowsWeightParameters& parameters, int thread) : p(parameters) {
    lane = thread % 32;
    const int warp = __shfl_sync(0xffffffff, thread / 32, 0);
    channel_warp = warp % Tile::channel_warps;
    across = warp / Tile::channel_warps;
    // ldmatrix takes a row of 16 bytes from each lane. a: rows 0..7 and 8..15 of the first 8 pixels, then of the next;
    // b: the first and the next 8 pixels of 8 channels, then of 8 more.
    const int row = lane % 8, matrix = lane / 8;
    a_offset =
        16 + (channel_warp / Tile::warps_i * 16 * m_tiles + row + matrix % 2 * 8) * DyRing::pitch + matrix / 2 * 16;
    b_offset =
        16 + (channel_warp % Tile::warps_i * 8 * n_tiles + row + matrix / 2 * 8) * XRing::pitch + matrix % 2 * 16;
    // dc belongs to the blocks on the diagonal.
    const int first_channel = static_cast<int>(blockIdx.y) * Tile::channels;
    stencil = blockIdx.y == blockIdx.z ? min(p.stencil_channels - first_channel, Tile::channels) : 0;
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < n_tiles; ++n) alpha[m][n][0] = alpha[m][n][1] = alpha[m][n][2] = alpha[m][n][3] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < stencil_groups; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) vertical[i][e] = horizontal[i][e] = 0.0f;
    }
  }

  __device__ __forceinline__ void compute(const RowsUnit& unit, const WeightSlots<Tile>& at) {
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      const int pixel = (across + i * Tile::warps_across) * 64;
      add_alpha(at, pixel * 2);
      add_stencil(unit, at, pixel);
    }
  }

  // Adds up the warps that share the pixels; all threads take part. The ring is free by now.
  __device__ void add_warps(unsigned char* shared, int thread) {
    if constexpr (Tile::warps_across > 1) {
      constexpr int stride = 32 * Tile::channel_warps;
      auto* sums = reinterpret_cast<float*>(shared) + thread % stride;
      __syncthreads();
      if (across > 0) {
        float* own = sums + (across - 1) * Tile::sums * stride;
        over_sums([&](int i, float& sum) { own[i * stride] = sum; });
      }
      __syncthreads();
      if (across == 0) {
#pragma unroll 1
        for (int other = 0; other < Tile::warps_across - 1; ++other) {
          over_sums([&](int i, float& sum) { sum += sums[(other * Tile::sums + i) * stride]; });
        }
      }
    }
  }

  // The partial result of the thread block.
  __device__ void store() {
    if (across > 0) return;
    float* partial = p.partials + blockIdx.x * p.elements;
    const int g = lane / 4, t = lane % 4;
    const int first_o = static_cast<int>(blockIdx.y) * Tile::channels + channel_warp / Tile::warps_i * 16 * m_tiles;
    const int first_i = static_cast<int>(blockIdx.z) * Tile::channels + channel_warp % Tile::warps_i * 8 * n_tiles;
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < n_tiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int o = first_o + m * 16 + e / 2 * 8 + g, i = first_i + n * 8 + 2 * t + e % 2;
          if (p.alpha_elements > 0 && o < p.dy.channels && i < p.x.channels) {
            partial[static_cast<std::int64_t>(o) * p.x.channels + i] = alpha[m][n][e];
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < stencil_groups; ++i) {
      // The lane has row g and columns 2t, 2t + 1 of the products: the diagonal where one of them is g.
      const int j = stencil_channel(i) + spread(g);
      if (g / 2 != t || j >= stencil) continue;
      float* c = partial + p.alpha_elements + (static_cast<std::int64_t>(blockIdx.y) * Tile::channels + j) * p.taps;
      const float up = g % 2 ? vertical[i][1] : vertical[i][0], left = g % 2 ? vertical[i][3] : vertical[i][2];
      const float right = g % 2 ? horizontal[i][1] : horizontal[i][0],
                  down = g % 2 ? horizontal[i][3] : horizontal[i][2];
      if (p.taps == 4) {
        c[0] = up;
        c[1] = left;
        c[2] = right;
        c[3] = down;
      } else {
        c[0] = left;
        c[1] = right;
      }
    }
  }

 private:
  // The warp's i-th group of 8 stencil channels: its first channel.
  __device__ __forceinline__ int stencil_channel(int i) const { return (channel_warp + i * Tile::channel_warps) * 8; }

  __device__ __forceinline__ void add_alpha(const WeightSlots<Tile>& at, int offset) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {  // 16 pixels each
      std::uint32_t a[m_tiles][4];
#pragma unroll
      for (int m = 0; m < m_tiles; ++m)
        load_matrices(a[m], at.dy + a_offset + offset + s * 32 + m * 16 * DyRing::pitch);
#pragma unroll
      for (int n = 0; n < n_tiles; n += 2) {
        std::uint32_t b[4];
        load_matrices(b, at.x + b_offset + offset + s * 32 + n * 8 * XRing::pitch);
#pragma unroll
        for (int m = 0; m < m_tiles; ++m) {
          multiply_add<T>(alpha[m][n], a[m], b[0], b[1]);
          multiply_add<T>(alpha[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  __device__ __forceinline__ void add_stencil(const RowsUnit& unit, const WeightSlots<Tile>& at, int first_pixel) {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const int pixel = first_pixel + (4 * v + t) * 8;
      const PieceOfRow piece(p.cut, unit, pixel, 2);
      const int column = pixel % p.cut.slot_row;
      const bool first = p.cut.strips == 1 && column == 0, last = p.cut.strips == 1 && column + 8 == p.cut.slot_row;
#pragma unroll
      for (int i = 0; i < stencil_groups; ++i) {
        if (stencil_channel(i) >= stencil) continue;  // the same for the whole warp
        const int channel = stencil_channel(i) + spread(g);
        const int dy_offset = 16 + channel * DyRing::pitch + pixel * 2,
                  x_offset = 16 + channel * XRing::pitch + pixel * 2;
        const uint4 dy = load_piece(at.dy + dy_offset), x = load_piece(at.x + x_offset);
        const uint4 above = load_piece((piece.above_here ? at.dy : at.dy_above) + dy_offset + piece.above);
        const uint4 below = load_piece((piece.below_here ? at.dy : at.dy_below) + dy_offset + piece.below);
        const std::uint32_t before = first ? 0 : load_shared_bits(at.dy + dy_offset - 2);
        const std::uint32_t after = last ? 0 : load_shared_bits(at.dy + dy_offset + 16);
        // dy one pixel to the right of each of x, and one to the left.
        const uint4 to_right =
            make_uint4(second_of(dy.x, dy.y), second_of(dy.y, dy.z), second_of(dy.z, dy.w), second_of(dy.w, after));
        const uint4 to_left =
            make_uint4(before | dy.x << 16, second_of(dy.x, dy.y), second_of(dy.y, dy.z), second_of(dy.z, dy.w));
        const std::uint32_t up_left[2][4] = {{below.x, to_right.x, below.y, to_right.y},
                                             {below.z, to_right.z, below.w, to_right.w}};
        const std::uint32_t right_down[2][4] = {{to_left.x, above.x, to_left.y, above.y},
                                                {to_left.z, above.z, to_left.w, above.w}};
        multiply_add<T>(vertical[i], up_left[0], x.x, x.y);
        multiply_add<T>(horizontal[i], right_down[0], x.x, x.y);
        multiply_add<T>(vertical[i], up_left[1], x.z, x.w);
        multiply_add<T>(horizontal[i], right_down[1], x.z, x.w);
      }
    }
  }

  static __device__ __forceinline__ uint4 load_piece(const unsigned char* from) {
    return *reinterpret_cast<const uint4*>(from);
  }
  // The upper half of one word and the lower half of the next.
  static __device__ __forceinline__ std::uint32_t second_of(std::uint32_t word, std::uint32_t next) {
    return __byte_perm(word, next, 0x5432);
  }

  // Calls visit(index, sum) for every sum of the thread.
  template <typename Visit>
  __device__ __forceinline__ void over_sums(Visit visit) {
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < n_tiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) visit((m * n_tiles + n) * 4 + e, alpha[m][n][e]);
      }
    }
#pragma unroll
    for (int i = 0; i < stencil_groups; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        visit(m_tiles * n_tiles * 4 + i * 8 + e, vertical[i][e]);
        visit(m_tiles * n_tiles * 4 + i * 8 + 4 + e, horizontal[i][e]);
      }
    }
  }

  const RowsWeightParameters& p;
  int lane, channel_warp, across, a_offset, b_offset, stencil;
  float alpha[m_tiles][n_tiles][4];
  float vertical[stencil_groups][4],
      horizontal[stencil_groups][4];  // taps up and left; right and down
};

// The channels of a side that a thread block takes.
__device__ inline RowsSide channels_of(RowsSide side, int first, int count, int element) {
  side.data = static_cast<const unsigned char*>(side.data) + static_cast<std::int64_t>(first) * side.channel * element;
  side.channels = min(side.channels - first, count);
  return side;
}

template <typename T, typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_weight(const RowsWeightParameters p) {
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;
  using DyLoader = RowLoader<T, DyRing, Tile::threads, copy_bytes, true>;
  using XLoader = RowLoader<T, XRing, Tile::threads, copy_bytes, false>;
  extern __shared__ __align__(128) unsigned char shared[];
  unsigned char* x_ring = shared + DyRing::bytes;
  const int thread = static_cast<int>(threadIdx.x);
  const RowsSide dy = channels_of(p.dy, static_cast<int>(blockIdx.y) * Tile::channels, Tile::channels, 2);
  const RowsSide x = channels_of(p.x, static_cast<int>(blockIdx.z) * Tile::channels, Tile::channels, 2);
  DyLoader::clear(shared, dy.channels, thread);
  XLoader::clear(x_ring, x.channels, thread);
  RowsWeight<T, Tile> warp(p, thread);

  const int first = static_cast<int>(blockIdx.x) * p.units_per_split, last = min(first + p.units_per_split, p.units);
#pragma unroll 1
  for (int index = first; index < last; ++index) {
    const RowsUnit unit(p.cut, Tile::pixels, index);
    const DyLoader dy_loader(p.cut, dy, unit, thread);
    const XLoader x_loader(p.cut, x, unit, thread);
    __syncthreads();  // the rings are free
    // x of a row-block comes with dy of the next: both are needed then.
    const auto x_slot = [&](int block) {
      return x_ring + (block - unit.first_block) % XRing::slots * XRing::slot_bytes;
    };
    const auto load = [&](int block, unsigned char* slot) {
      dy_loader.load(block, slot);
      if (block > unit.first_block) x_loader.load(block - 1, x_slot(block - 1));
    };
    march<DyRing>(shared, unit.first_block, unit.last_block, load,
                  [&](int block, const unsigned char* above, const unsigned char* current, const unsigned char* below) {
                    warp.compute(unit, WeightSlots<Tile>{above, current, below, x_slot(block)});
                  });
    wait_for_copies<0>();
  }
  warp.add_warps(shared, thread);
  warp.store();
}

}  // namespace leancore::detail::cuda
