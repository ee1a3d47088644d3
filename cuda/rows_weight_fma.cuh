// Row-marching backward_weight in fp32 on the ordinary multipliers: dalpha and dc from one read of x and dy.
//
// The threads of a team are a grid over the channels of dy and of x. Each takes every so many-th channel of either,
// reads 4 neighbouring pixels (a 16-byte piece) of each of them, and multiplies all with all: neighbouring threads read
// neighbouring channels, which lie in different banks. For dc it takes one channel more and pairs x with the four
// neighbours of dy; what lies outside the image is not multiplied. The teams share the pieces of a slot.
//
// A sum goes to the thread's total after longest_fma_sum products.
#pragma once

#include "rows_weight_units.cuh"

namespace leancore::detail::cuda {

__device__ __forceinline__ void load_four(const unsigned char* from, float (&to)[4]) {
  const float4 four = *reinterpret_cast<const float4*>(from);
  to[0] = four.x;
  to[1] = four.y;
  to[2] = four.z;
  to[3] = four.w;
}

// The sums of a thread; its dc is of `own_channels` channels.
template <typename Tile_, int own_channels>
class FmaWeightSums {
 public:
  using Tile = Tile_;

 protected:
  static constexpr int outputs = Tile::outputs, inputs = Tile::inputs;
  // The grid of a team: neighbouring threads along the channels of x.
  static constexpr int threads_o = Tile::channels / outputs, threads_i = Tile::channels / inputs;

  __device__ FmaWeightSums(const RowsWeightParameters& parameters, int thread)
      : p(parameters),
        team(thread / Tile::channels),
        own(thread % Tile::channels),
        own_o(own / threads_i),
        own_i(own % threads_i),
        stencil(stencil_channels<Tile>(parameters)) {
    over_alpha([](int, float& sum, float& total) { sum = total = 0.0f; });
    over_c([](int, float& sum, float& total) { sum = total = 0.0f; });
  }

  // To be called after every row-block.
  __device__ __forceinline__ void end_block() {
    if (++blocks == Tile::blocks_per_sum) add_to_totals();
  }
  __device__ __forceinline__ void add_to_totals() {
    const auto add = [](int, float& sum, float& total) {
      total += sum;
      sum = 0.0f;
    };
    over_alpha(add);
    over_c(add);
    blocks = 0;
  }

  // dc is summed by groups of `stride` threads, dalpha by teams.
  template <int stride>
  __device__ __forceinline__ void add_groups(unsigned char* shared, int thread) {
    add_to_totals();
    cuda::add_shares<Tile::teams, Tile::channels, outputs * inputs>(
        shared, thread, [&](auto visit) { over_alpha([&](int i, float&, float& total) { visit(i, total); }); });
    cuda::add_shares<Tile::threads / stride, stride, own_channels * 4>(
        shared, thread, [&](auto visit) { over_c([&](int i, float&, float& total) { visit(i, total); }); });
  }

  // channel(i, threads, own) is the i-th channel of a thread that is number `own` of `threads`.
  template <typename Channel>
  __device__ __forceinline__ void store_alpha(Channel channel) const {
    const PartialResult partial(p);
    const int first_o = static_cast<int>(blockIdx.y) * Tile::channels;
    const int first_i = static_cast<int>(blockIdx.z) * Tile::channels;
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
#pragma unroll
      for (int i = 0; i < inputs; ++i) {
        partial.set_alpha(first_o + channel(o, threads_o, own_o), first_i + channel(i, threads_i, own_i),
                          alpha_total[o][i]);
      }
    }
  }
  __device__ __forceinline__ void store_c(int first_channel) const {
    const PartialResult partial(p);
    const int first = static_cast<int>(blockIdx.y) * Tile::channels;
#pragma unroll
    for (int j = 0; j < own_channels; ++j) {
      const float (&sum)[4] = c_total[j];
      if (first_channel + j < stencil) partial.set_c(first + first_channel + j, sum[0], sum[1], sum[2], sum[3]);
    }
  }

  const RowsWeightParameters& p;
  const int team, own, own_o, own_i, stencil;
  float alpha[outputs][inputs], c[own_channels][4];  // taps up, left, right, down

 private:
  template <typename Visit>
  __device__ __forceinline__ void over_alpha(Visit visit) {
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
#pragma unroll
      for (int i = 0; i < inputs; ++i) visit(o * inputs + i, alpha[o][i], alpha_total[o][i]);
    }
  }
  template <typename Visit>
  __device__ __forceinline__ void over_c(Visit visit) {
#pragma unroll
    for (int j = 0; j < own_channels; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) visit(j * 4 + k, c[j][k], c_total[j][k]);
    }
  }

  int blocks = 0;  // of the current sums
  float alpha_total[outputs][inputs], c_total[own_channels][4];
};

template <typename Tile, int copy_bytes>
class RowsWeightFma : public FmaWeightSums<Tile, 1> {
  using Base = FmaWeightSums<Tile, 1>;
  using Base::alpha, Base::c, Base::own, Base::own_i, Base::own_o, Base::p, Base::stencil, Base::team, Base::threads_i,
      Base::threads_o;
  static constexpr int outputs = Tile::outputs, inputs = Tile::inputs;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;

 public:
  __device__ RowsWeightFma(const RowsWeightParameters& parameters, unsigned char*, int thread)
      : Base(parameters, thread) {}

  __device__ __forceinline__ void compute(const RowsUnit& unit, int block, const WeightSlots& at) {
#pragma unroll 1
    for (int piece = team; piece < Tile::pixels / 4; piece += Tile::teams) {
      if (p.alpha_elements > 0) add_alpha(at, 16 + piece * 16);
      if (own < stencil) add_stencil(unit, block, at, piece * 4);
    }
    Base::end_block();
  }

  __device__ void add_shares(unsigned char* shared, int thread) {
    Base::template add_groups<Tile::channels>(shared, thread);
  }

  __device__ void store() const {
    if (team > 0) return;
    Base::store_alpha([](int i, int threads, int own) { return own + i * threads; });
    Base::store_c(own);
  }

 private:
  __device__ __forceinline__ void add_alpha(const WeightSlots& at, int offset) {
    float x[inputs][4];
#pragma unroll
    for (int i = 0; i < inputs; ++i) load_four(at.x + (own_i + i * threads_i) * XRing::pitch + offset, x[i]);
#pragma unroll
    for (int o = 0; o < outputs; ++o) {
      float dy[4];
      load_four(at.dy + (own_o + o * threads_o) * DyRing::pitch + offset, dy);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
#pragma unroll
        for (int i = 0; i < inputs; ++i) alpha[o][i] += dy[e] * x[i][e];
      }
    }
  }

  // The tap that reads x at p + step pairs dy[p] with it: seen from x, dy lies at -step.
  __device__ __forceinline__ void add_stencil(const RowsUnit& unit, int block, const WeightSlots& at, int pixel) {
    const PieceOfRow piece(p.cut, unit, pixel, 4);
    const int row = block * p.cut.rows_per_block + piece.row;
    if (row >= unit.last_row) return;
    const bool has_above = row > 0, has_below = row + 1 < p.cut.height;
    const int offset = 16 + own * DyRing::pitch + pixel * 4;
    float x[4], dy[4], above[4], below[4];
    load_four(at.x + 16 + own * XRing::pitch + pixel * 4, x);
    load_four(at.dy + offset, dy);
    load_four((piece.above_here ? at.dy : at.dy_above) + offset + piece.above, above);
    load_four((piece.below_here ? at.dy : at.dy_below) + offset + piece.below, below);
    const float before = *reinterpret_cast<const float*>(at.dy + offset - 4);
    const float after = *reinterpret_cast<const float*>(at.dy + offset + 16);
    const float beside[6] = {before, dy[0], dy[1], dy[2], dy[3], after};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool exists = copy_bytes == 16 || piece.column + e < p.cut.width;
      const bool has_left = exists && (e > 0 || piece.column > 0);
      const bool has_right = copy_bytes == 16 && e < 3 ? true : piece.column + e + 1 < p.cut.width;
      if (has_below) c[0][0] += below[e] * x[e];
      if (has_right) c[0][1] += beside[e + 2] * x[e];
      if (has_left) c[0][2] += beside[e] * x[e];
      if (has_above) c[0][3] += above[e] * x[e];
    }
  }
};

template <typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_weight_fma(const RowsWeightParameters p) {
  add_units<RowsWeightFma<Tile, copy_bytes>, RowLoader<float, typename Tile::DyRing, Tile::threads, copy_bytes, true>,
            RowLoader<float, typename Tile::XRing, Tile::threads, copy_bytes, false>>(p);
}

}  // namespace leancore::detail::cuda
