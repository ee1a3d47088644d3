// forward and backward_data of many channels: a product of matrices on tensor cores, the stencil added within. What its
// kernels share; deep_rows.cuh and deep_last.cuh have the two layouts of 16-bit elements, deep_rows_tf32.cuh and
// deep_last_tf32.cuh those of fp32.
//
// A thread block takes a tile of pixels and a block of output channels, and goes through the input channels 64 bytes
// (32 channels, of fp32 16) at a time. A ring of stages in shared memory has their part of alpha and their pixels, the
// next ones under way. The channels that are also the block's own come last, with the rows above and below the tile:
// their stencil is added while they pass.
//
// Planes of volumes are images; the pixels that the other two taps need of the planes before and after come from global
// memory, when the results are written.
//
// alpha has been put in the order in which lanes take it: for 16 output channels, the input channels of a stage, in two
// blocks of 32 bytes, with 16 bytes for each lane; of three products for one, each block has its large part first, then
// the small one.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

// What a thread block does.
struct DeepUnit {
  int first_row, first_column;  // of the tile; rows are those of all images
  int first_output;
  int slabs;  // of the input channels of a stage
  int own;    // the last of the order: those that have the block's stencil
  int shift;  // where the order starts

  __device__ DeepUnit(const DeepParameters& p, int block_outputs, int step, int index) {
    const int blocks = (p.out.channels + block_outputs - 1) / block_outputs, tile = index / blocks;
    first_output = (index - tile * blocks) * block_outputs;
    first_row = tile / p.cut.strips * p.cut.tile_rows;
    first_column = tile % p.cut.strips * p.cut.tile_columns;
    slabs = (p.in.channels + step - 1) / step;
    const int stencil = min(p.stencil_channels - first_output, block_outputs);
    own = stencil > 0 ? (stencil + step - 1) / step : 0;
    shift = own > 0 ? first_output / step + own : 0;
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

// Where an image of an array begins.
__device__ __forceinline__ std::int64_t image_offset(const DeepCut& cut, const RowsSide& side, int image) {
  if (cut.depth == 1) return image * side.image;
  const int volume = image / cut.depth;
  return volume * side.image + (image - volume * cut.depth) * side.plane;
}

// Adds the taps of the planes before and after to results of the pixel and those after it, or of the channel and those
// after it. What is outside the volume is not multiplied. load(x, from) reads as many elements, of which some may not
// exist; tap(i, plane) is c of the i-th.
template <typename T, int count, typename Load, typename Tap>
__device__ __forceinline__ void add_planes(float (&sum)[count], const DeepParameters& p, const DeepPixel& pixel,
                                           int channel, Load load, Tap tap) {
  const int plane = pixel.image % p.cut.depth;
  const T* centre = static_cast<const T*>(p.in.data) + image_offset(p.cut, p.in, pixel.image) + pixel.row * p.in.row +
                    pixel.column * p.in.column + channel * p.in.channel;
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    if (side == 0 ? plane == 0 : plane + 1 == p.cut.depth) continue;
    float x[count];
    load(x, centre + (side == 0 ? -p.in.plane : p.in.plane));
#pragma unroll
    for (int i = 0; i < count; ++i) sum[i] += tap(i, side) * x[i];
  }
}
template <typename T>
__device__ __forceinline__ float plane_tap(const DeepParameters& p, int channel, int side) {
  return Element<T>::widen(static_cast<const T*>(p.c)[channel * p.c_channel + p.c_plane[side]]);
}

// The part of alpha of a stage.
template <typename Tile>
class DeepAlphaLoader {
 public:
  __device__ DeepAlphaLoader(const DeepParameters& p, const DeepUnit& unit, int thread_index)
      : thread(thread_index),
        pitch(unit.slabs * Tile::alpha_step),
        blocks((p.out.channels - unit.first_output + 15) / 16 - thread / lanes),
        alpha(static_cast<const unsigned char*>(p.alpha) +
              std::int64_t{unit.first_output / 16 + thread / lanes} * pitch + thread % lanes * 16) {}

  __device__ __forceinline__ void load(int slab, unsigned char* stage) const {
#pragma unroll
    for (int i = 0; i < Tile::alpha_bytes / 16 / Tile::threads; ++i) {
      const int m = i * (Tile::threads / lanes);
      copy_async<16>(stage + (thread + i * Tile::threads) * 16, alpha + m * pitch + slab * Tile::alpha_step,
                     m < blocks);
    }
  }

 private:
  static constexpr int lanes = Tile::alpha_lanes;
  int thread, pitch;
  int blocks;                  // of 16 output channels, from the thread's first on
  const unsigned char* alpha;  // of the thread's first block
};

// What a lane takes for the m-th 16 output channels and the half of the input channels; the large or the small part.
template <typename Tile>
__device__ __forceinline__ uint4 alpha_words(const unsigned char* lane_alpha, int m, int half, int part = 0) {
  return *reinterpret_cast<const uint4*>(lane_alpha + m * Tile::alpha_step + half * (Tile::alpha_step / 2) +
                                         part * (Tile::alpha_step / 4));
}

// c of the block's channels, of each up, left, right, down side by side, or tap by tap; then 16 bytes of zeros: what is
// read outside the image.
template <typename Tile, bool by_tap>
__device__ void load_taps(const DeepParameters& p, const DeepUnit& unit, int thread, unsigned char* to) {
  using Bits = std::conditional_t<Tile::element == 2, std::uint16_t, std::uint32_t>;
  auto* c = reinterpret_cast<Bits*>(to);
  for (int i = thread; i < Tile::block_outputs; i += Tile::threads) {
    const int channel = unit.first_output + i;
#pragma unroll
    for (int tap = 0; tap < 4; ++tap) {
      const std::int64_t at = channel * p.c_channel + p.c_tap[tap];
      c[by_tap ? tap * Tile::block_outputs + i : i * 4 + tap] =
          channel < p.stencil_channels ? static_cast<const Bits*>(p.c)[at] : Bits{0};
    }
  }
  if (thread < 4) reinterpret_cast<std::uint32_t*>(to + Tile::extra_bytes - 16)[thread] = 0;
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
  load_taps<Tile, Product::taps_apart>(p, unit, thread, shared + ring_bytes);
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
