// Row-marching backward_weight for fp32 channels-last arrays on the ordinary multipliers.
//
// As rows_weight_fma.cuh, but here 16 bytes are 4 channels of a pixel: a thread of a team takes every so many-th four
// of dy and of x, and goes through a piece of 4 pixels one by one. For dc it takes 4 channels of a single pixel, of
// volumes also of the planes before and after, in an order of pixels that keeps banks apart.
#pragma once

#include "pixels.cuh"
#include "rows_weight_fma.cuh"

namespace leancore::detail::cuda {

template <typename Tile, int copy_bytes>
class RowsWeightFmaLast : public FmaWeightSums<Tile, 4> {
  using Base = FmaWeightSums<Tile, 4>;
  using Base::alpha, Base::c, Base::own, Base::own_i, Base::own_o, Base::p, Base::planes_early, Base::stencil,
      Base::team, Base::threads_i, Base::threads_o;
  static constexpr int outputs = Tile::outputs, inputs = Tile::inputs;
  static constexpr int quads = Tile::channels / 4;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;
  // dy of the taps to other planes.
  struct Planes {
    float4 front, back;
  };

 public:
  __device__ RowsWeightFmaLast(const RowsWeightParameters& parameters, unsigned char*, int thread)
      : Base(parameters, thread), stencil_pixel(spread(team % 2 * 4 + own / quads) - team % 2 * 4) {}

  __device__ __forceinline__ void compute(const RowsUnit& unit, int block, const WeightSlots& at) {
#pragma unroll 1
    for (int piece = team; piece < Tile::pixels / 4; piece += Tile::teams) {
      const int pixel = piece * 4 + stencil_pixel;
      Planes planes;
      if constexpr (Tile::volume && planes_early) {
        planes.front = load_plane(unit, block, pixel, true);
        planes.back = load_plane(unit, block, pixel, false);
      }
      if (p.alpha_elements > 0) add_alpha(at, piece * 4);
      if (own % quads * 4 < stencil) add_stencil(unit, block, at, pixel, planes);
    }
    Base::end_block();
  }

  __device__ void add_shares(unsigned char* shared, int thread) { Base::template add_groups<quads>(shared, thread); }

  __device__ void store() const {
    if (team > 0) return;
    Base::store_alpha([](int i, int threads, int own) { return (own + i / 4 * threads) * 4 + i % 4; });
    if (own < quads) Base::store_c(own * 4);
  }

 private:
  __device__ __forceinline__ void add_alpha(const WeightSlots& at, int first_pixel) {
#pragma unroll
    for (int pixel = 0; pixel < 4; ++pixel) {
      const unsigned char* x_from = at.x + (1 + first_pixel + pixel) * XRing::pitch + own_i * 16;
      const unsigned char* dy_from = at.dy + (1 + first_pixel + pixel) * DyRing::pitch + own_o * 16;
      float x[inputs / 4][4];
#pragma unroll
      for (int i = 0; i < inputs / 4; ++i) load_four(x_from + i * threads_i * 16, x[i]);
#pragma unroll
      for (int o = 0; o < outputs / 4; ++o) {
        float dy[4];
        load_four(dy_from + o * threads_o * 16, dy);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
#pragma unroll
          for (int i = 0; i < inputs; ++i) alpha[o * 4 + e][i] += dy[e] * x[i / 4][i % 4];
        }
      }
    }
  }

  // dy of a tap; zeros where there is nothing.
  __device__ __forceinline__ float4 load_plane(const RowsUnit& unit, int block, int pixel, bool front) const {
    const PieceOfRow place(p.cut, unit, pixel, DyRing::pitch);
    const int row = block * p.cut.rows_per_block + place.row, channel = own % quads * 4;
    const bool in_chunk = row < unit.last_row;
    const float* from = dy_plane<float>(p, unit, front, static_cast<int>(blockIdx.y) * Tile::channels + channel);
    const int offset = in_chunk ? row * p.dy.row + place.column * p.dy.column : 0;
    return load_global_quad<copy_bytes>(from + offset, in_chunk && has_dy(p, unit, front) ? stencil - channel : 0);
  }

  __device__ __forceinline__ void add_stencil(const RowsUnit& unit, int block, const WeightSlots& at, int pixel,
                                              const Planes& planes) {
    const PieceOfRow place(p.cut, unit, pixel, DyRing::pitch);
    const int row = block * p.cut.rows_per_block + place.row;
    if (row >= unit.last_row) return;
    const int channel = own % quads * 16, offset = (1 + pixel) * DyRing::pitch + channel;
    float x[4];
    load_four(at.x + (1 + pixel) * XRing::pitch + channel, x);
    const unsigned char* above = (place.above_here ? at.dy : at.dy_above) + offset + place.above;
    const unsigned char* below = (place.below_here ? at.dy : at.dy_below) + offset + place.below;
    if (row + 1 < p.cut.height) add_tap(0, below, x);
    if (place.column + 1 < p.cut.width) add_tap(1, at.dy + offset + DyRing::pitch, x);
    if (place.column > 0) add_tap(2, at.dy + offset - DyRing::pitch, x);
    if (row > 0) add_tap(3, above, x);
    if constexpr (Tile::volume) {
      const auto plane = [&](bool front) {
        return !planes_early ? load_plane(unit, block, pixel, front) : front ? planes.front : planes.back;
      };
      if (has_dy(p, unit, true)) add_products(4, plane(true), x);
      if (has_dy(p, unit, false)) add_products(5, plane(false), x);
    }
  }

  __device__ __forceinline__ void add_tap(int tap, const unsigned char* from, const float (&x)[4]) {
    add_products(tap, *reinterpret_cast<const float4*>(from), x);
  }
  __device__ __forceinline__ void add_products(int tap, const float4& dy, const float (&x)[4]) {
    c[0][tap] += dy.x * x[0];
    c[1][tap] += dy.y * x[1];
    c[2][tap] += dy.z * x[2];
    c[3][tap] += dy.w * x[3];
  }

  static_assert(Tile::teams % 2 == 0);  // the pieces of a team are all even, or all odd
  int stencil_pixel;                    // of a piece, or of the one beside it
};

template <typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_weight_fma_last(const RowsWeightParameters p) {
  add_units<RowsWeightFmaLast<Tile, copy_bytes>,
            PixelLoader<float, typename Tile::DyRing, Tile::threads, copy_bytes, true>,
            PixelLoader<float, typename Tile::XRing, Tile::threads, copy_bytes, false>>(p);
}

}  // namespace leancore::detail::cuda
