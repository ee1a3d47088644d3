// What the row-marching kernels share: a ring of row-blocks in shared memory, and its loader.
//
// Its layout is drawn in tiles.hpp.
//
// The ring holds the row-blocks before, at and after the current one, and `ahead` further ones under way. There is one
// barrier for each row-block: behind it, the slot of the row-block before the last is free to be loaded anew.
#pragma once

#include "elements.cuh"
#include "parameters.hpp"
#include "ptx.cuh"
#include "tiles.hpp"

namespace leancore::detail::cuda {

// What a thread block works on.
template <int pixels>
struct RowsUnit {
  int image, first_column;
  int first_block, last_block;  // row-blocks [first, last)
  int last_row;                 // the first row that is not computed here
  int lowest_row, highest_row;  // rows that are read, the neighbours above and below included

  __device__ RowsUnit(const RowsParameters& p, int unit) {
    const int chunk = unit % p.chunks, strip = unit / p.chunks % p.strips;
    image = unit / p.chunks / p.strips;
    first_column = strip * pixels;
    first_block = chunk * p.blocks_per_chunk;
    last_block = min(first_block + p.blocks_per_chunk, p.blocks);
    last_row = min(last_block * p.rows_per_block, p.height);
    lowest_row = max(first_block * p.rows_per_block - 1, 0);
    highest_row = min(last_row, p.height - 1);
  }
};

// Brings row-blocks into slots, in copies of `copy_bytes`: 16 or 4 asynchronously, 2 (16-bit elements of unaligned
// arrays) by the thread itself. A thread copies one column of the slot, of every `step`-th channel.
template <typename T, int channels, int pixels, int ahead, int threads, int copy_bytes>
class RowLoader {
  using Ring = RowRing<sizeof(T), channels, pixels, ahead>;
  static constexpr int element = static_cast<int>(sizeof(T));
  static constexpr int copy = copy_bytes / element;  // pixels
  static constexpr int columns = pixels / copy;
  // More columns than threads: a thread has several, one channel at a time.
  static constexpr int step = columns >= threads ? 1 : threads / columns;
  static constexpr int columns_each = columns >= threads ? columns / threads : 1;
  static_assert(columns >= threads ? columns % threads == 0 : threads % columns == 0);

 public:
  __device__ RowLoader(const RowsParameters& parameters, const RowsUnit<pixels>& work, int thread_index)
      : p(parameters),
        unit(work),
        thread(thread_index),
        image(static_cast<const T*>(parameters.in) + work.image * parameters.in_image) {
#pragma unroll
    for (int i = 0; i < columns_each; ++i) {
      const int pixel = (thread % columns + i * threads) * copy, column_in_row = pixel % p.slot_row;
      const bool exists = pixel / p.slot_row < p.rows_per_block && unit.first_column + column_in_row < p.width;
      row_in_block[i] = exists ? pixel / p.slot_row : never;
      column[i] = unit.first_column + column_in_row;
    }
  }

  // Zeros to all pads, and to the channels that there are not; the copies never write there, except to the pads of
  // strips. To be called once, before a barrier.
  __device__ void clear(unsigned char* ring) const {
    const uint4 zeros = {};
    for (int i = thread; i < Ring::slots * (channels + 1); i += threads) {
      store(ring + i / (channels + 1) * Ring::slot_bytes + i % (channels + 1) * Ring::pitch, zeros);
    }
    const int absent = channels - p.in_channels;
    constexpr int pieces = pixels * element / 16;
    for (int i = thread; i < Ring::slots * absent * pieces; i += threads) {
      const int row = i / pieces, channel = p.in_channels + row % absent;
      store(ring + row / absent * Ring::slot_bytes + channel * Ring::pitch + 16 + i % pieces * 16, zeros);
    }
  }

  // Starts the copies of a row-block, which may lie outside the image.
  __device__ void load(int block, unsigned char* slot) const {
#pragma unroll
    for (int i = 0; i < columns_each; ++i) {
      const int pixel = (thread % columns + i * threads) * copy, first_channel = thread / columns;
      const int row = block * p.rows_per_block + row_in_block[i];
      const bool exists = row >= unit.lowest_row && row <= unit.highest_row;
      const T* from = image + (exists ? row * p.in_row + column[i] : 0) + first_channel * p.in_channel;
      unsigned char* to = slot + 16 + first_channel * Ring::pitch + pixel * element;
#pragma unroll
      for (int channel = 0; channel < channels; channel += step) {
        if (first_channel + channel < p.in_channels) copy_pixels(to, from, exists);
        to += step * Ring::pitch;
        from += step * p.in_channel;
      }
    }
    if (p.strips > 1) load_neighbours(block, slot);
  }

 private:
  static __device__ void store(unsigned char* to, const uint4& value) { *reinterpret_cast<uint4*>(to) = value; }

  static __device__ void copy_pixels(unsigned char* to, const T* from, bool exists) {
    if constexpr (copy_bytes >= 4) {
      copy_async<copy_bytes>(to, from, exists);
    } else {
      *reinterpret_cast<T*>(to) = exists ? *from : T(0.0f);
    }
  }

  // The pixels on either side of a strip, into the pads. An asynchronous copy has at least 4 bytes, so that of 16-bit
  // elements the neighbour comes with one more.
  __device__ void load_neighbours(int block, unsigned char* slot) const {
    constexpr int bytes = copy_bytes >= 4 ? 4 : element, count = bytes / element;
    const bool row_exists = block >= unit.lowest_row && block <= unit.highest_row;
    const int right = unit.first_column + pixels;
    for (int i = thread; i < 2 * p.in_channels; i += threads) {
      const int channel = i / 2, side = i % 2;
      const bool exists = row_exists && (side == 0 ? unit.first_column > 0 : right < p.width);
      const int column = side == 0 ? unit.first_column - count : right;
      const T* from = image + (exists ? channel * p.in_channel + block * p.in_row + column : 0);
      unsigned char* to = slot + (channel + side) * Ring::pitch + (side == 0 ? 16 - bytes : 0);
      if constexpr (copy_bytes >= 4) {
        copy_async<4>(to, from, exists);
      } else {
        *reinterpret_cast<T*>(to) = exists ? *from : T(0.0f);
      }
    }
  }

  const RowsParameters& p;
  const RowsUnit<pixels>& unit;
  static constexpr int never = 1 << 30;  // added to a row it is none of the image's
  int thread;
  const T* image;
  int row_in_block[columns_each], column[columns_each];
};

// Calls load(block, slot) and compute(block, above, current, below) down the row-blocks [first, last).
template <typename Ring, int ahead, typename Load, typename Compute>
__device__ void march(unsigned char* ring, int first, int last, Load load, Compute compute) {
  const int needed = last - first + 2;  // with the row-blocks before and after
#pragma unroll
  for (int b = 0; b < ahead + 2; ++b) {
    if (b < needed) load(first - 1 + b, ring + b * Ring::slot_bytes);
    commit_copies();
  }
  constexpr int end = Ring::bytes;
  int above = 0, current = Ring::slot_bytes, below = 2 * Ring::slot_bytes, target = (ahead + 2) * Ring::slot_bytes;
  const auto next = [](int slot) { return slot + Ring::slot_bytes == end ? 0 : slot + Ring::slot_bytes; };
#pragma unroll 1
  for (int block = first; block < last; ++block) {
    wait_for_copies<ahead - 1>();
    __syncthreads();
    if (block - first + ahead + 2 < needed) load(block + 1 + ahead, ring + target);
    commit_copies();
    compute(block, ring + above, ring + current, ring + below);
    above = current;
    current = below;
    below = next(below);
    target = next(target);
  }
}

}  // namespace leancore::detail::cuda
