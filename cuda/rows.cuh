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

// A strip and a chunk of an image, or of a plane of a volume. Of volumes, neighbouring units are neighbouring planes,
// so that what a thread block reads of the planes before and after is on its way to the second-level cache anyway.
struct RowsUnit {
  int image, plane, first_column;
  int first_block, last_block;  // row-blocks [first, last)
  int first_row, last_row;      // rows [first, last) of the chunk

  __device__ RowsUnit(const RowsCut& cut, int pixels, int unit, bool volume = false) {
    plane = volume ? unit % cut.depth : 0;
    if (volume) unit /= cut.depth;
    const int chunk = unit % cut.chunks, strip = unit / cut.chunks % cut.strips;
    image = unit / cut.chunks / cut.strips;
    first_column = strip * pixels;
    first_block = chunk * cut.blocks_per_chunk;
    last_block = min(first_block + cut.blocks_per_chunk, cut.blocks);
    first_row = first_block * cut.rows_per_block;
    last_row = min(last_block * cut.rows_per_block, cut.height);
  }

  // Of the image, or of the plane, in elements.
  [[nodiscard]] __device__ __forceinline__ std::int64_t offset(const RowsSide& side) const {
    return image * side.image + plane * side.plane;
  }
  // The planes before and after.
  [[nodiscard]] __device__ __forceinline__ bool has_plane(const RowsCut& cut, int which) const {
    return which == 0 ? plane > 0 : plane + 1 < cut.depth;
  }
};

// Copies `copy_bytes` to a slot, or writes zeros: 16 or 4 asynchronously, fewer by the thread itself.
template <int copy_bytes, typename T>
__device__ __forceinline__ void copy_to_slot(unsigned char* to, const T* from, bool exists) {
  if constexpr (copy_bytes >= 4) {
    copy_async<copy_bytes>(to, from, exists);
  } else {
    *reinterpret_cast<T*>(to) = exists ? *from : T(0.0f);
  }
}

// Brings row-blocks of a side into slots, in copies of `copy_bytes`: 16 or 4 asynchronously, 2 (16-bit elements of
// unaligned arrays) by the thread itself. A thread copies one column of the slot, of every `step`-th channel. With
// `neighbours` the rows before and after the chunk are read too, and the columns beside the strip.
template <typename T, typename Ring, int threads, int copy_bytes, bool neighbours>
class RowLoader {
  static constexpr int copy = copy_bytes / Ring::element;  // pixels
  static constexpr int columns = Ring::pixels / copy;
  // More columns than threads: a thread has several, one channel at a time.
  static constexpr int step = columns >= threads ? 1 : threads / columns;
  static constexpr int columns_each = columns >= threads ? columns / threads : 1;
  static_assert(columns >= threads ? columns % threads == 0 : threads % columns == 0);
  static_assert(sizeof(T) == Ring::element);

 public:
  __device__ RowLoader(const RowsCut& rows, const RowsSide& array, const RowsUnit& work, int thread_index)
      : cut(rows),
        side(array),
        unit(work),
        thread(thread_index),
        image(static_cast<const T*>(array.data) + work.offset(array)) {
#pragma unroll
    for (int i = 0; i < columns_each; ++i) {
      const int pixel = (thread % columns + i * threads) * copy, column_in_row = pixel % cut.slot_row;
      const bool exists = pixel / cut.slot_row < cut.rows_per_block && unit.first_column + column_in_row < cut.width;
      row_in_block[i] = exists ? pixel / cut.slot_row : never;
      column[i] = unit.first_column + column_in_row;
    }
  }

  // Zeros to all pads, and to the channels that there are not; the copies never write there, except to the pads of
  // strips. To be called once, before a barrier.
  static __device__ void clear(unsigned char* ring, int channels, int thread) {
    const uint4 zeros = {};
    for (int i = thread; i < Ring::slots * (Ring::channels + 1); i += threads) {
      store(ring + i / (Ring::channels + 1) * Ring::slot_bytes + i % (Ring::channels + 1) * Ring::pitch, zeros);
    }
    const int absent = Ring::channels - channels;
    constexpr int pieces = Ring::pixels * Ring::element / 16;
    for (int i = thread; i < Ring::slots * absent * pieces; i += threads) {
      const int row = i / pieces, channel = channels + row % absent;
      store(ring + row / absent * Ring::slot_bytes + channel * Ring::pitch + 16 + i % pieces * 16, zeros);
    }
  }

  // Starts the copies of a row-block, which may lie outside the image.
  __device__ __forceinline__ void load(int block, unsigned char* slot) const {
#pragma unroll
    for (int i = 0; i < columns_each; ++i) {
      const int pixel = (thread % columns + i * threads) * copy, first_channel = thread / columns;
      const int row = block * cut.rows_per_block + row_in_block[i];
      const bool exists = reads(row);
      const T* from = image + (exists ? row * side.row + column[i] : 0) + first_channel * side.channel;
      unsigned char* to = slot + 16 + first_channel * Ring::pitch + pixel * Ring::element;
      // Smaller copies are many; all at once, their addresses would crowd out what the kernel keeps in registers.
      constexpr int at_once = copy_bytes == 16 ? (Ring::channels + step - 1) / step : 4;
#pragma unroll at_once
      for (int channel = 0; channel < Ring::channels; channel += step) {
        if (first_channel + channel < side.channels) copy_to_slot<copy_bytes>(to, from, exists);
        to += step * Ring::pitch;
        from += step * side.channel;
      }
    }
    if (neighbours && cut.strips > 1) load_neighbours(block, slot);
  }

 private:
  __device__ __forceinline__ bool reads(int row) const {
    constexpr int more = neighbours ? 1 : 0;
    return row >= max(unit.first_row - more, 0) && row < min(unit.last_row + more, cut.height);
  }
  static __device__ void store(unsigned char* to, const uint4& value) { *reinterpret_cast<uint4*>(to) = value; }

  // The pixels on either side of a strip, into the pads. An asynchronous copy has at least 4 bytes, so that of 16-bit
  // elements the neighbour comes with one more.
  __device__ __forceinline__ void load_neighbours(int block, unsigned char* slot) const {
    constexpr int bytes = copy_bytes >= 4 ? 4 : Ring::element, count = bytes / Ring::element;
    const int right = unit.first_column + Ring::pixels;
    for (int i = thread; i < 2 * side.channels; i += threads) {
      const int channel = i / 2, where = i % 2;
      const bool exists = reads(block) && (where == 0 ? unit.first_column > 0 : right < cut.width);
      const int from_column = where == 0 ? unit.first_column - count : right;
      const T* from = image + (exists ? channel * side.channel + block * side.row + from_column : 0);
      unsigned char* to = slot + (channel + where) * Ring::pitch + (where == 0 ? 16 - bytes : 0);
      copy_to_slot<bytes>(to, from, exists);
    }
  }

  static constexpr int never = 1 << 30;  // added to a row it is none of the image's
  const RowsCut& cut;
  const RowsSide& side;
  const RowsUnit& unit;
  int thread;
  const T* image;
  int row_in_block[columns_each], column[columns_each];
};

// A piece of 16 bytes in a slot: how far the pieces of the rows above and below are, and in which slots.
struct PieceOfRow {
  int above, below;             // bytes to those pieces, within their slots
  bool above_here, below_here;  // those slots are the current one
  int row;                      // in the row-block; out of reach where there is no such pixel
  int column;                   // in the image

  PieceOfRow() = default;
  __device__ PieceOfRow(const RowsCut& cut, const RowsUnit& unit, int pixel, int element) {
    constexpr int never = 1 << 29;
    const int in_block = pixel / cut.slot_row, used = cut.rows_per_block * cut.slot_row;
    const bool exists = in_block < cut.rows_per_block;
    above_here = in_block > 0;
    below_here = in_block + 1 < cut.rows_per_block || !exists;
    above = !exists ? 0 : (above_here ? -cut.slot_row : used - cut.slot_row) * element;
    below = !exists ? 0 : (below_here ? cut.slot_row : cut.slot_row - used) * element;
    column = unit.first_column + pixel - in_block * cut.slot_row;
    row = exists && column < cut.width ? in_block : never;
  }
};

// ---- fp32: pieces of 4 pixels of a channel -------------------------------------------------------------------------

__device__ __forceinline__ float4 load_piece(const unsigned char* from) {
  return *reinterpret_cast<const float4*>(from);
}
__device__ __forceinline__ float load_pixel(const unsigned char* from) {
  return *reinterpret_cast<const float*>(from);
}

// A piece, of which `pixels` exist, from global memory in reads of `bytes`; the others are zeros.
template <int bytes>
__device__ __forceinline__ float4 load_global_quad(const float* from, int pixels) {
  if constexpr (bytes == 16) {
    return pixels > 0 ? *reinterpret_cast<const float4*>(from) : float4{};
  } else {
    return make_float4(pixels > 0 ? from[0] : 0.0f, pixels > 1 ? from[1] : 0.0f, pixels > 2 ? from[2] : 0.0f,
                       pixels > 3 ? from[3] : 0.0f);
  }
}

// The taps of a thread block's output channels to shared memory; channels without a stencil get zeros.
template <int output_stride, int tap_stride, int outputs, int threads>
__device__ __forceinline__ void load_taps(float* c, const RowsParameters& p, int first_output, int thread) {
  for (int i = thread; i < outputs * 4; i += threads) {
    const int o = first_output + i / 4;
    const std::int64_t tap = i % 4 == 0 ? p.c_tap[0] : i % 4 == 1 ? p.c_tap[1] : i % 4 == 2 ? p.c_tap[2] : p.c_tap[3];
    c[i / 4 * output_stride + i % 4 * tap_stride] =
        o < p.stencil_channels ? static_cast<const float*>(p.c)[o * p.c_channel + tap] : 0.0f;
  }
}

// The same of the taps front and back, of volumes.
template <int output_stride, int tap_stride, int outputs, int threads>
__device__ __forceinline__ void load_plane_taps(float* c, const RowsParameters& p, int first_output, int thread) {
  for (int i = thread; i < outputs * 2; i += threads) {
    const int o = first_output + i / 2;
    const std::int64_t tap = i % 2 == 0 ? p.c_plane[0] : p.c_plane[1];
    c[i / 2 * output_stride + i % 2 * tap_stride] =
        o < p.stencil_channels ? static_cast<const float*>(p.c)[o * p.c_channel + tap] : 0.0f;
  }
}

// Adds the stencil of a channel to one of its pieces, by column; neighbours outside the image are not multiplied. The
// addresses are those of the piece, of the pixels beside it, and of the pieces in the rows above and below.
template <int copy_bytes>
__device__ __forceinline__ void add_stencil(float (&sum)[4], const float4& taps, const unsigned char* current,
                                            const unsigned char* left, const unsigned char* right,
                                            const unsigned char* above, bool has_above, const unsigned char* below,
                                            bool has_below, int column, int width) {
  const float4 centre = load_piece(current), up = load_piece(above), down = load_piece(below);
  const float x[6] = {load_pixel(left), centre.x, centre.y, centre.z, centre.w, load_pixel(right)};
  const float u[4] = {up.x, up.y, up.z, up.w}, d[4] = {down.x, down.y, down.z, down.w};
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const bool has_left = e > 0 || column > 0;
    const bool has_right = copy_bytes == 16 && e < 3 ? true : column + e + 1 < width;
    if (has_above) sum[e] += taps.x * u[e];
    if (has_left) sum[e] += taps.y * x[e];
    if (has_right) sum[e] += taps.z * x[e + 2];
    if (has_below) sum[e] += taps.w * d[e];
  }
}

template <int copy_bytes>
__device__ __forceinline__ void add_stencil(float (&sum)[4], const float4& taps, const unsigned char* current,
                                            const unsigned char* above, bool has_above, const unsigned char* below,
                                            bool has_below, int column, int width) {
  add_stencil<copy_bytes>(sum, taps, current, current - 4, current + 16, above, has_above, below, has_below, column,
                          width);
}

// A piece of the plane before or after, from global memory; what is not in the volume or the chunk is zero.
template <int copy_bytes>
__device__ __forceinline__ float4 load_plane(const RowsParameters& p, const RowsUnit& unit, int plane, int channel,
                                             int row, int column) {
  const bool exists = row < unit.last_row && unit.has_plane(p.cut, plane);
  const float* from = static_cast<const float*>(p.in.data) + unit.offset(p.in) +
                      (plane == 0 ? -p.in.plane : p.in.plane) + channel * p.in.channel +
                      (exists ? row * p.in.row + column : 0);
  return load_global_quad<copy_bytes>(from, exists ? p.cut.width - column : 0);
}
__device__ __forceinline__ void add_product(float tap, const float4& x, float (&sum)[4]) {
  sum[0] += tap * x.x;
  sum[1] += tap * x.y;
  sum[2] += tap * x.z;
  sum[3] += tap * x.w;
}

// Writes a piece, of which so many pixels exist.
template <int copy_bytes>
__device__ __forceinline__ void store_piece(float* to, const float (&sum)[4], int pixels) {
  if constexpr (copy_bytes == 16) {
    *reinterpret_cast<float4*>(to) = make_float4(sum[0], sum[1], sum[2], sum[3]);
  } else {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (e < pixels) to[e] = sum[e];
    }
  }
}

// ---- 16-bit elements as bits --------------------------------------------------------------------------------------

__device__ __forceinline__ std::uint32_t load_bits(const void* from, std::int64_t index) {
  return static_cast<const std::uint16_t*>(from)[index];
}
__device__ __forceinline__ std::uint32_t load_shared_bits(const unsigned char* from) {
  return *reinterpret_cast<const std::uint16_t*>(from);
}
__device__ __forceinline__ std::uint32_t pair(std::uint32_t low, std::uint32_t high) {
  return low | high << 16;
}
template <typename T>
__device__ __forceinline__ std::uint32_t round_pair(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 both = __floats2half2_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
  } else {
    const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const std::uint32_t*>(&both);
  }
}

template <typename T>
__device__ __forceinline__ float2 widen_pair(std::uint32_t word) {
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(*reinterpret_cast<const __half2*>(&word));
  } else {
    return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000));
  }
}

// A piece of 8 pixels, of which `pixels` exist, from global memory in reads of `bytes`; the others are zeros.
template <int bytes>
__device__ __forceinline__ uint4 load_global_piece(const void* from, int pixels) {
  if constexpr (bytes == 16) {
    return pixels > 0 ? *static_cast<const uint4*>(from) : uint4{};
  } else {
    std::uint32_t words[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      if constexpr (bytes == 4) {
        words[w] = 2 * w < pixels ? static_cast<const std::uint32_t*>(from)[w] : 0;
      } else {
        words[w] =
            pair(2 * w < pixels ? load_bits(from, 2 * w) : 0, 2 * w + 1 < pixels ? load_bits(from, 2 * w + 1) : 0);
      }
    }
    return make_uint4(words[0], words[1], words[2], words[3]);
  }
}

// Where the lane's group g comes in an order that keeps banks apart: 0, 4, 1, 5, 2, 6, 3, 7.
__device__ __forceinline__ int spread(int g) {
  return g / 2 + g % 2 * 4;
}

// Calls load(block, slot) and compute(block, above, current, below) down the row-blocks [first, last).
template <typename Ring, typename Load, typename Compute>
__device__ void march(unsigned char* ring, int first, int last, Load load, Compute compute) {
  constexpr int ahead = Ring::slots - 3;
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
