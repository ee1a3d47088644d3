// Row-marching backward_weight in fp32 on the ordinary multipliers: dalpha and dc from one read of x and dy.
//
// The threads of a team are a grid over the channels of dy and of x. Each takes every so many-th channel of either,
// reads 4 neighbouring pixels (a 16-byte piece) of each of them, and multiplies all with all: neighbouring threads read
// neighbouring channels, which lie in different banks. For dc it takes one channel more and pairs x with the four
// neighbours of dy; what lies outside the image is not multiplied. The teams share the pieces of a slot.
//
// Of volumes, dy of the planes before and after comes from global memory, while x is multiplied with dy of its own
// plane. There, for dc, neighbouring threads take neighbouring pieces of a channel, two by two, so that they read whole
// sectors.
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
  static constexpr int outputs = Tile::outputs, inputs = Tile::inputs, taps = Tile::volume ? 6 : 4;
  // dy of other planes is on its way while dalpha is summed, unless its sums leave no registers for that.
  static constexpr bool planes_early = outputs * inputs < 64;
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

  // dc is summed by groups of `stride` threads, and by twos where these share a channel, dalpha by teams.
  template <int stride, bool in_twos = false>
  __device__ __forceinline__ void add_groups(unsigned char* shared, int thread) {
    add_to_totals();
    cuda::add_shares<Tile::teams, Tile::channels, outputs * inputs>(
        shared, thread, [&](auto visit) { over_alpha([&](int i, float&, float& total) { visit(i, total); }); });
    cuda::add_shares<Tile::threads / stride, stride, own_channels * taps>(
        shared, thread, [&](auto visit) { over_c([&](int i, float&, float& total) { visit(i, total); }); });
    if constexpr (in_twos) {
      over_c([](int, float&, float& total) { total += __shfl_xor_sync(0xffffffff, total, 1); });
    }
  }

  // channel(i, threads, own) is the i-th channel of a thread that is number `own` of `threads`.
  template <typename Channel>
  __device__ __forceinline__ void store_alpha(Channel channel) const {
    const PartialResult<Tile::volume> partial(p);
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
    const PartialResult<Tile::volume> partial(p);
    const int first = static_cast<int>(blockIdx.y) * Tile::channels;
#pragma unroll
    for (int j = 0; j < own_channels; ++j) {
      const float (&sum)[taps] = c_total[j];
      if (first_channel + j >= stencil) continue;
      partial.set_c(first + first_channel + j, sum[0], sum[1], sum[2], sum[3]);
      if constexpr (Tile::volume) partial.set_planes(first + first_channel + j, sum[4], sum[5]);
    }
  }

  const RowsWeightParameters& p;
  const int team, own, own_o, own_i, stencil;
  float alpha[outputs][inputs], c[own_channels][taps];  // taps up, left, right, down, front, back

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
      for (int k = 0; k < taps; ++k) visit(j * taps + k, c[j][k], c_total[j][k]);
    }
  }

  int blocks = 0;  // of the current sums
  float alpha_total[outputs][inputs], c_total[own_channels][taps];
};

template <typename Tile, int copy_bytes>
class RowsWeightFma : public FmaWeightSums<Tile, 1> {
  using Base = FmaWeightSums<Tile, 1>;
  using Base::alpha, Base::c, Base::own, Base::own_i, Base::own_o, Base::p, Base::planes_early, Base::stencil,
      Base::team, Base::threads_i, Base::threads_o;
  static constexpr int outputs = Tile::outputs, inputs = Tile::inputs;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;
  // dy of the taps to other planes, for a piece of x.
  struct Planes {
    float4 front, back;
  };

 public:
  __device__ RowsWeightFma(const RowsWeightParameters& parameters, unsigned char*, int thread)
      : Base(parameters, thread), channel(own) {
    if constexpr (Tile::volume) {
      // Channels two apart, and neighbouring pieces, lie in different banks.
      constexpr int channels = Tile::channels;
      static_assert(Tile::teams % 2 == 0);
      const int pair = thread % (2 * channels) / 2;
      channel = pair % (channels / 2) * 2 + pair / (channels / 2);
      pieces_on = team / 2 * 2 + thread % 2 - team;
      stores = thread % 2 == 0 && team < 2;
    }
  }

  __device__ __forceinline__ void compute(const RowsUnit& unit, int block, const WeightSlots& at) {
#pragma unroll 1
    for (int piece = team; piece < Tile::pixels / 4; piece += Tile::teams) {
      const int pixel = (Tile::volume ? piece + pieces_on : piece) * 4;
      Planes planes;
      if constexpr (Tile::volume && planes_early) {
        planes.front = load_plane(unit, block, pixel, true);
        planes.back = load_plane(unit, block, pixel, false);
      }
      if (p.alpha_elements > 0) add_alpha(at, 16 + piece * 16);
      if (channel < stencil) add_stencil(unit, block, at, pixel, planes);
    }
    Base::end_block();
  }

  __device__ void add_shares(unsigned char* shared, int thread) {
    Base::template add_groups<(Tile::volume ? 2 : 1) * Tile::channels, Tile::volume>(shared, thread);
  }

  __device__ void store() const {
    if (Tile::volume && stores) Base::store_c(channel);
    if (team > 0) return;
    Base::store_alpha([](int i, int threads, int own) { return own + i * threads; });
    if (!Tile::volume) Base::store_c(channel);
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

  // dy of a tap; zeros where there is nothing.
  __device__ __forceinline__ float4 load_plane(const RowsUnit& unit, int block, int pixel, bool front) const {
    const PieceOfRow piece(p.cut, unit, pixel, 4);
    const int row = block * p.cut.rows_per_block + piece.row;
    const bool exists = row < unit.last_row && channel < stencil && has_dy(p, unit, front);
    const float* from = dy_plane<float>(p, unit, front, static_cast<int>(blockIdx.y) * Tile::channels + channel);
    return load_global_quad<copy_bytes>(from + (exists ? row * p.dy.row + piece.column : 0),
                                        exists ? p.cut.width - piece.column : 0);
  }

  // The tap that reads x at p + step pairs dy[p] with it: seen from x, dy lies at -step.
  __device__ __forceinline__ void add_stencil(const RowsUnit& unit, int block, const WeightSlots& at, int pixel,
                                              const Planes& planes) {
    const PieceOfRow piece(p.cut, unit, pixel, 4);
    const int row = block * p.cut.rows_per_block + piece.row;
    if (row >= unit.last_row) return;
    const bool has_above = row > 0, has_below = row + 1 < p.cut.height;
    const int offset = 16 + channel * DyRing::pitch + pixel * 4;
    float x[4], dy[4], above[4], below[4];
    load_four(at.x + 16 + channel * XRing::pitch + pixel * 4, x);
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
    if constexpr (Tile::volume) {
      const auto add = [&](int tap, const float4& dy_there) {
        c[0][tap] += dy_there.x * x[0];
        c[0][tap] += dy_there.y * x[1];
        c[0][tap] += dy_there.z * x[2];
        c[0][tap] += dy_there.w * x[3];
      };
      const auto plane = [&](bool front) {
        return !planes_early ? load_plane(unit, block, pixel, front) : front ? planes.front : planes.back;
      };
      if (has_dy(p, unit, true)) add(4, plane(true));
      if (has_dy(p, unit, false)) add(5, plane(false));
    }
  }

  int channel;          // whose dc the thread adds up
  int pieces_on = 0;    // from its piece of dalpha to that of dc, of volumes
  bool stores = false;  // has its sums in the end, of volumes
};

template <typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_weight_fma(const RowsWeightParameters p) {
  add_units<RowsWeightFma<Tile, copy_bytes>, RowLoader<float, typename Tile::DyRing, Tile::threads, copy_bytes, true>,
            RowLoader<float, typename Tile::XRing, Tile::threads, copy_bytes, false>>(p);
}

}  // namespace leancore::detail::cuda
