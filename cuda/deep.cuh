// forward and backward_data of many channels, for 16-bit elements: a product of matrices on tensor cores, the stencil
// included. What its kernels share; deep_rows.cuh and deep_last.cuh have the two layouts.
//
// A thread block takes a tile of pixels and a block of output channels, and goes through the input channels 32 at a
// time. A ring of stages in shared memory has their part of alpha and their pixels, the next ones under way. The
// channels that are also the block's own come last, with the rows above and below the tile: their stencil is added
// while they pass.
//
// alpha has been put in the order in which lanes take it: for 16 output channels, 32 at a time of the input channels,
// in two blocks of 16, with 16 bytes for each lane.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

inline constexpr int deep_alpha_step = 16 * deep_step * 2;  // bytes of 16 output channels in a stage

// What a thread block does.
struct DeepUnit {
  int first_row, first_column;  // of the tile; rows are those of all images
  int first_output;
  int slabs;  // of deep_step input channels
  int own;    // the last of the order: those that have the block's stencil
  int shift;  // where the order starts

  __device__ DeepUnit(const DeepParameters& p, int block_outputs, int index) {
    const int blocks = (p.out.channels + block_outputs - 1) / block_outputs, tile = index / blocks;
    first_output = (index - tile * blocks) * block_outputs;
    first_row = tile / p.cut.strips * p.cut.tile_rows;
    first_column = tile % p.cut.strips * p.cut.tile_columns;
    slabs = (p.in.channels + deep_step - 1) / deep_step;
    const int stencil = min(p.stencil_channels - first_output, block_outputs);
    own = stencil > 0 ? (stencil + deep_step - 1) / deep_step : 0;
    shift = own > 0 ? first_output / deep_step + own : 0;
  }
  __device__ int slab(int i) const { return i + shift >= slabs ? i + shift - slabs : i + shift; }
  __device__ bool is_own(int i) const { return i >= slabs - own; }
};

// Where a pixel of the tile is.
struct DeepPixel {
  int tile_row, tile_column, image, row, column;
  bool exists;

  __device__ DeepPixel(const DeepCut& cut, const DeepUnit& unit, int pixel) {
    tile_row = pixel / cut.tile_columns;
    tile_column = pixel - tile_row * cut.tile_columns;
    image = (unit.first_row + tile_row) / cut.height;
    row = unit.first_row + tile_row - image * cut.height;
    column = unit.first_column + tile_column;
    exists = tile_row < cut.tile_rows && unit.first_row + tile_row < cut.rows && column < cut.width;
  }
};

// The part of alpha of a stage.
template <typename Tile>
class DeepAlphaLoader {
 public:
  __device__ DeepAlphaLoader(const DeepParameters& p, const DeepUnit& unit, int thread_index)
      : thread(thread_index),
        pitch(unit.slabs * deep_alpha_step),
        blocks((p.out.channels - unit.first_output + 15) / 16 - thread / 64),
        alpha(static_cast<const unsigned char*>(p.alpha) + std::int64_t{unit.first_output / 16 + thread / 64} * pitch +
              thread % 64 * 16) {}

  __device__ __forceinline__ void load(int slab, unsigned char* stage) const {
#pragma unroll
    for (int i = 0; i < Tile::alpha_bytes / 16 / Tile::threads; ++i) {
      const int m = i * (Tile::threads / 64);
      copy_async<16>(stage + (thread + i * Tile::threads) * 16, alpha + m * pitch + slab * deep_alpha_step, m < blocks);
    }
  }

 private:
  int thread, pitch;
  int blocks;                  // of 16 output channels, from the thread's first on
  const unsigned char* alpha;  // of the thread's first block
};

// What a lane takes for the m-th 16 output channels and the half of the input channels.
__device__ __forceinline__ uint4 alpha_words(const unsigned char* lane_alpha, int m, int half) {
  return *reinterpret_cast<const uint4*>(lane_alpha + m * deep_alpha_step + half * (deep_alpha_step / 2));
}

// c of the block's channels, for each up, left, right, down, and 16 bytes of zeros: what is read outside the image.
template <typename Tile>
__device__ void load_taps(const DeepParameters& p, const DeepUnit& unit, int thread, unsigned char* to) {
  auto* c = reinterpret_cast<std::uint16_t*>(to);
  for (int i = thread; i < Tile::block_outputs; i += Tile::threads) {
    const int channel = unit.first_output + i;
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) {
      const std::int64_t at = channel * p.c_channel + p.c_tap[tap];
      c[i * 4 + tap] = channel < p.stencil_channels ? static_cast<std::uint16_t>(load_bits(p.c, at)) : 0;
    }
  }
  if (thread < 4) reinterpret_cast<std::uint32_t*>(to + Tile::block_outputs * 8)[thread] = 0;
}

// The whole of a kernel. Lanes add up and write what Product says, pixels come from a loader.
template <typename Product, typename Tile, typename Loader>
__device__ __forceinline__ void deep_product(const DeepParameters& p, const DeepUnit& unit, const Loader& loader,
                                             unsigned char* shared) {
  constexpr int stages = Tile::stages;
  const int thread = static_cast<int>(threadIdx.x);
  const int stage_bytes = Tile::alpha_bytes + p.pixel_bytes, ring_bytes = stages * stage_bytes;
  const DeepAlphaLoader<Tile> alpha(p, unit, thread);
  // Behind the barrier of a step, the stage of the step before is free to be loaded anew.
  const auto load = [&](int step, unsigned char* stage) {
    if (step < unit.slabs) {
      alpha.load(unit.slab(step), stage);
      loader.load(unit.slab(step), unit.is_own(step), stage + Tile::alpha_bytes);
    }
    commit_copies();
  };
#pragma unroll
  for (int step = 0; step < stages - 1; ++step) load(step, shared + step * stage_bytes);
  load_taps<Tile>(p, unit, thread, shared + ring_bytes);
  const Product product(p, unit, shared + ring_bytes, thread);
  typename Product::Sums sum;
  product.start(sum);
  int current = 0, target = (stages - 1) * stage_bytes;
#pragma unroll 1
  for (int step = 0; step < unit.slabs; ++step) {
    wait_for_copies<stages - 2>();
    __syncthreads();
    load(step + stages - 1, shared + target);
    product.add(shared + current, unit.slab(step), unit.is_own(step), sum);
    current = current + stage_bytes == ring_bytes ? 0 : current + stage_bytes;
    target = target + stage_bytes == ring_bytes ? 0 : target + stage_bytes;
  }
  product.store(sum);
}

}  // namespace leancore::detail::cuda
