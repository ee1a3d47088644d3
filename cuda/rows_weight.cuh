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
// Of volumes there is a third such product of two taps, those to the planes before and after. Its dy is read from
// global memory while the products of dalpha are taken; of a plane that there is not it is zero.
//
#pragma once

#include "rows_weight_units.cuh"

namespace leancore::detail::cuda {

// The sums of a thread of a warp: those of its products; `with_planes`: of the taps to other planes, too.
template <typename Tile_, bool with_planes>
class TensorWeightSums {
 public:
  using Tile = Tile_;

  // Adds up the warps that share the pixels.
  __device__ void add_shares(unsigned char* shared, int thread) {
    constexpr int sums = Tile::sums + (with_planes ? Tile::plane_sums : 0);
    cuda::add_shares<Tile::warps_across, 32 * Tile::channel_warps, sums>(shared, thread,
                                                                         [&](auto visit) { over_sums(visit); });
  }

  __device__ void store() const {
    if (across > 0) return;
    const PartialResult<Tile::volume> partial(p);
    const int g = lane / 4, t = lane % 4;
    const int first_o = static_cast<int>(blockIdx.y) * Tile::channels + channel_warp / Tile::warps_i * 16 * m_tiles;
    const int first_i = static_cast<int>(blockIdx.z) * Tile::channels + channel_warp % Tile::warps_i * 8 * n_tiles;
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) {
#pragma unroll
      for (int n = 0; n < n_tiles; ++n) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          partial.set_alpha(first_o + m * 16 + e / 2 * 8 + g, first_i + n * 8 + 2 * t + e % 2, alpha[m][n][e]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < stencil_groups; ++i) {
      // The lane has row g and columns 2t, 2t + 1 of the products: the diagonal where one of them is g.
      const int j = stencil_channel(i) + row_channel;
      if (g / 2 != t || j >= stencil) continue;
      const float up = g % 2 ? vertical[i][1] : vertical[i][0], left = g % 2 ? vertical[i][3] : vertical[i][2];
      const float right = g % 2 ? horizontal[i][1] : horizontal[i][0],
                  down = g % 2 ? horizontal[i][3] : horizontal[i][2];
      const int channel = static_cast<int>(blockIdx.y) * Tile::channels + j;
      partial.set_c(channel, up, left, right, down);
      if constexpr (with_planes) {
        partial.set_planes(channel, g % 2 ? planes[i][1] : planes[i][0], g % 2 ? planes[i][3] : planes[i][2]);
      }
    }
  }

 protected:
  static constexpr int m_tiles = Tile::m_tiles, n_tiles = Tile::n_tiles, stencil_groups = Tile::stencil_groups;

  // own_channel: that of row lane / 4 in the products of dc, among its 8 channels.
  __device__ TensorWeightSums(const RowsWeightParameters& parameters, int thread, int own_channel)
      : p(parameters), lane(thread % 32), row_channel(own_channel), stencil(stencil_channels<Tile>(parameters)) {
    const int warp = __shfl_sync(0xffffffff, thread / 32, 0);
    channel_warp = warp % Tile::channel_warps;
    across = warp / Tile::channel_warps;
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
    if constexpr (with_planes) {
#pragma unroll
      for (int i = 0; i < stencil_groups; ++i) planes[i][0] = planes[i][1] = planes[i][2] = planes[i][3] = 0.0f;
    }
  }

  // The warp's i-th group of 8 stencil channels: its first channel.
  __device__ __forceinline__ int stencil_channel(int i) const { return (channel_warp + i * Tile::channel_warps) * 8; }

  const RowsWeightParameters& p;
  const int lane, row_channel, stencil;
  int channel_warp, across;
  float alpha[m_tiles][n_tiles][4];
  float vertical[stencil_groups][4], horizontal[stencil_groups][4];  // taps up and left; right and down
  float planes[with_planes ? stencil_groups : 1][4];                 // taps front and back

 private:
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
        if constexpr (with_planes) visit(Tile::sums + i * 4 + e, planes[i][e]);
      }
    }
  }
};

template <typename T, typename Tile, int copy_bytes>
class RowsWeight : public TensorWeightSums<Tile, Tile::volume> {
  using Base = TensorWeightSums<Tile, Tile::volume>;
  using Base::across, Base::alpha, Base::channel_warp, Base::horizontal, Base::lane, Base::p, Base::planes,
      Base::row_channel, Base::stencil, Base::stencil_channel, Base::vertical;
  static constexpr int m_tiles = Tile::m_tiles, n_tiles = Tile::n_tiles, groups = Tile::groups;
  static constexpr int stencil_groups = Tile::stencil_groups;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;
  // dy of the taps front and back, for a piece of x of each group.
  using Planes = uint4[2][stencil_groups];
  static constexpr bool planes_early = copy_bytes > 2;  // single elements take too many registers

 public:
  __device__ RowsWeight(const RowsWeightParameters& parameters, unsigned char*, int thread)
      : Base(parameters, thread, spread(thread % 32 / 4)) {
    // ldmatrix takes a row of 16 bytes from each lane. a: rows 0..7 and 8..15 of the first 8 pixels, then of the next;
    // b: the first and the next 8 pixels of 8 channels, then of 8 more.
    const int row = lane % 8, matrix = lane / 8;
    a_offset =
        16 + (channel_warp / Tile::warps_i * 16 * m_tiles + row + matrix % 2 * 8) * DyRing::pitch + matrix / 2 * 16;
    b_offset =
        16 + (channel_warp % Tile::warps_i * 8 * n_tiles + row + matrix / 2 * 8) * XRing::pitch + matrix % 2 * 16;
  }

  __device__ __forceinline__ void compute(const RowsUnit& unit, int block, const WeightSlots& at) {
#pragma unroll
    for (int i = 0; i < groups; ++i) {
      const int pixel = (across + i * Tile::warps_across) * 64;
      if constexpr (Tile::volume) {  // by halves, for want of registers
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          Planes dy_planes;
          const PlanePiece place = plane_piece(unit, block, pixel + v * 32);
          if constexpr (planes_early) {
#pragma unroll
            for (int i = 0; i < stencil_groups; ++i) {
              dy_planes[0][i] = load_plane(unit, place, true, i);
              dy_planes[1][i] = load_plane(unit, place, false, i);
            }
          }
          add_alpha<2>(at, (pixel + v * 32) * 2);
          add_stencil(unit, at, pixel + v * 32, place, dy_planes);
        }
      } else {
        add_alpha<4>(at, pixel * 2);
        add_stencil(unit, at, pixel, {}, {});
        add_stencil(unit, at, pixel + 32, {}, {});
      }
    }
  }

 private:
  template <int steps>
  __device__ __forceinline__ void add_alpha(const WeightSlots& at, int offset) {
#pragma unroll
    for (int s = 0; s < steps; ++s) {  // 16 pixels each
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

  // The lane's piece in a plane.
  struct PlanePiece {
    int offset, pixels;  // of them, so many exist
  };
  __device__ __forceinline__ PlanePiece plane_piece(const RowsUnit& unit, int block, int first_pixel) const {
    const PieceOfRow piece(p.cut, unit, first_pixel + lane % 4 * 8, 2);
    const int row = block * p.cut.rows_per_block + piece.row;
    if (row >= unit.last_row) return {0, 0};
    return {row * p.dy.row + piece.column, p.cut.width - piece.column};
  }
  // dy of a tap; zeros where there is nothing.
  __device__ __forceinline__ uint4 load_plane(const RowsUnit& unit, const PlanePiece& piece, bool front, int i) const {
    const int channel = stencil_channel(i) + row_channel;
    const T* from = dy_plane<T>(p, unit, front, static_cast<int>(blockIdx.y) * Tile::channels + channel);
    const bool exists = has_dy(p, unit, front) && channel < stencil;
    return load_global_piece<copy_bytes>(from + piece.offset, exists ? piece.pixels : 0);
  }

  // The taps of 32 pixels; the last two arguments of volumes alone.
  __device__ __forceinline__ void add_stencil(const RowsUnit& unit, const WeightSlots& at, int first_pixel,
                                              const PlanePiece& place, const Planes& dy_planes) {
    const int pixel = first_pixel + lane % 4 * 8;
    const PieceOfRow piece(p.cut, unit, pixel, 2);
    const int column = pixel % p.cut.slot_row;
    const bool first = p.cut.strips == 1 && column == 0, last = p.cut.strips == 1 && column + 8 == p.cut.slot_row;
#pragma unroll
    for (int i = 0; i < stencil_groups; ++i) {
      if (stencil_channel(i) >= stencil) continue;  // the same for the whole warp
      const int channel = stencil_channel(i) + row_channel;
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
      if constexpr (Tile::volume) {
        const uint4 front = planes_early ? dy_planes[0][i] : load_plane(unit, place, true, i);
        const uint4 back = planes_early ? dy_planes[1][i] : load_plane(unit, place, false, i);
        const std::uint32_t front_back[2][4] = {{front.x, back.x, front.y, back.y}, {front.z, back.z, front.w, back.w}};
        multiply_add<T>(planes[i], front_back[0], x.x, x.y);
        multiply_add<T>(planes[i], front_back[1], x.z, x.w);
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

  int a_offset, b_offset;
};

template <typename T, typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_weight(const RowsWeightParameters p) {
  add_units<RowsWeight<T, Tile, copy_bytes>, RowLoader<T, typename Tile::DyRing, Tile::threads, copy_bytes, true>,
            RowLoader<T, typename Tile::XRing, Tile::threads, copy_bytes, false>>(p);
}

}  // namespace leancore::detail::cuda
