// What the row-marching kernels of backward_weight share: how a thread block goes through its units, and where its
// partial result goes.
//
// dy marches with the rows before and after the current one, x with the current one. Each thread block adds up a fixed
// number of units; where several groups of its threads share the pixels, their sums are added in the order of the
// groups.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

// Where the current row-block is in the two rings.
struct WeightSlots {
  const unsigned char *dy_above, *dy, *dy_below, *x;
};

// The partial result of the thread block.
template <bool volume>
class PartialResult {
 public:
  __device__ explicit PartialResult(const RowsWeightParameters& parameters)
      : p(parameters), alpha(p.partials + blockIdx.x * p.elements) {}

  __device__ void set_alpha(int o, int i, float sum) const {
    if (p.alpha_elements > 0 && o < p.dy.channels && i < p.x.channels) {
      alpha[static_cast<std::int64_t>(o) * p.x.channels + i] = sum;
    }
  }
  __device__ void set_c(int channel, float up, float left, float right, float down) const {
    float* c = taps_of(channel);
    if constexpr (volume) {
      c[1] = up;
      c[2] = left;
      c[3] = right;
      c[4] = down;
    } else if (p.taps == 4) {
      c[0] = up;
      c[1] = left;
      c[2] = right;
      c[3] = down;
    } else {
      c[0] = left;
      c[1] = right;
    }
  }
  __device__ void set_planes(int channel, float front, float back) const {
    static_assert(volume);
    taps_of(channel)[0] = front;
    taps_of(channel)[5] = back;
  }

 private:
  __device__ float* taps_of(int channel) const {
    return alpha + p.alpha_elements + static_cast<std::int64_t>(channel) * p.taps;
  }

  const RowsWeightParameters& p;
  float* alpha;
};

// Channels of the thread block that the stencil has: dc belongs to the blocks on the diagonal.
template <typename Tile>
__device__ int stencil_channels(const RowsWeightParameters& p) {
  const int first_channel = static_cast<int>(blockIdx.y) * Tile::channels;
  return blockIdx.y == blockIdx.z ? min(p.stencil_channels - first_channel, Tile::channels) : 0;
}

// Adds to the `sums` sums of the first `stride` threads those of the next, and so on, `shares` times; all threads take
// part. over_sums calls its argument with the index of every sum and the sum. The rings are free by now.
template <int shares, int stride, int sums, typename OverSums>
__device__ __forceinline__ void add_shares(unsigned char* shared, int thread, OverSums over_sums) {
  if constexpr (shares > 1) {
    const int share = thread / stride;
    auto* all = reinterpret_cast<float*>(shared) + thread % stride;
    __syncthreads();
    if (share > 0) {
      float* own = all + (share - 1) * sums * stride;
      over_sums([&](int i, float& sum) { own[i * stride] = sum; });
    }
    __syncthreads();
    if (share == 0) {
#pragma unroll 1
      for (int other = 0; other < shares - 1; ++other) {
        over_sums([&](int i, float& sum) { sum += all[(other * sums + i) * stride]; });
      }
    }
  }
}

// Of volumes: whether the tap to the plane before (front), or after, has a dy for x of the unit's plane, and where dy
// of `channel`, of all, lies. The front tap reads x of the plane before: seen from x, its dy is in the plane after.
__device__ __forceinline__ bool has_dy(const RowsWeightParameters& p, const RowsUnit& unit, bool front) {
  return unit.has_plane(p.cut, front ? 1 : 0);
}
template <typename T>
__device__ __forceinline__ const T* dy_plane(const RowsWeightParameters& p, const RowsUnit& unit, bool front,
                                             int channel) {
  return static_cast<const T*>(p.dy.data) + unit.offset(p.dy) + (front ? p.dy.plane : -p.dy.plane) +
         static_cast<std::int64_t>(channel) * p.dy.channel;
}

// The channels of a side that a thread block takes.
__device__ inline RowsSide channels_of(RowsSide side, int first, int count, int element) {
  side.data = static_cast<const unsigned char*>(side.data) + static_cast<std::int64_t>(first) * side.channel * element;
  side.channels = min(side.channels - first, count);
  return side;
}

// The body of the kernels: the thread block's units go through a Sums of each thread.
template <typename Sums, typename DyLoader, typename XLoader>
__device__ __forceinline__ void add_units(const RowsWeightParameters& p) {
  using Tile = typename Sums::Tile;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;
  extern __shared__ __align__(128) unsigned char shared[];
  unsigned char* x_ring = shared + DyRing::bytes;
  const int thread = static_cast<int>(threadIdx.x);
  const RowsSide dy = channels_of(p.dy, static_cast<int>(blockIdx.y) * Tile::channels, Tile::channels, DyRing::element);
  const RowsSide x = channels_of(p.x, static_cast<int>(blockIdx.z) * Tile::channels, Tile::channels, XRing::element);
  DyLoader::clear(shared, dy.channels, thread);
  XLoader::clear(x_ring, x.channels, thread);
  Sums sums(p, shared, thread);

  const int first = static_cast<int>(blockIdx.x) * p.units_per_split, last = min(first + p.units_per_split, p.units);
#pragma unroll 1
  for (int index = first; index < last; ++index) {
    const RowsUnit unit(p.cut, Tile::pixels, index, Tile::volume);
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
                    sums.compute(unit, block, WeightSlots{above, current, below, x_slot(block)});
                  });
    wait_for_copies<0>();
  }
  sums.add_shares(shared, thread);
  sums.store();
}

}  // namespace leancore::detail::cuda
