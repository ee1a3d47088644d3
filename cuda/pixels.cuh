// What the kernels of channels-last arrays share: the loader of their rings.
//
// A slot holds the pixels of a row-block, each with its channels side by side and 16 bytes more, so that the pitch is
// an odd number of 16-byte pieces; before the first and after the last pixel there is room for the neighbours of a
// strip.
#pragma once

#include "rows.cuh"

namespace leancore::detail::cuda {

// Brings row-blocks of pixels into slots, in copies of `copy_bytes` as RowLoader does. A thread copies the same
// channels of every step-th pixel. With `neighbours` the rows before and after the chunk are read too, and the pixels
// beside the strip. Where 128 bytes, what shared memory takes at once, are several pixels, these are not side by side,
// but so far apart that they lie in different banks.
template <typename T, typename Ring, int threads, int copy_bytes, bool neighbours>
class PixelLoader {
  static constexpr int channels_each = copy_bytes / Ring::element, pieces = Ring::channels / channels_each;
  static constexpr int step = threads / pieces, pixels_each = Ring::pixels / step;
  static_assert(threads % pieces == 0 && Ring::pixels % step == 0 && step >= 2);
  static_assert(sizeof(T) == Ring::element);

 public:
  __device__ PixelLoader(const RowsCut& rows, const RowsSide& array, const RowsUnit& work, int thread)
      : cut(rows),
        side(array),
        unit(work),
        channel(thread % pieces * channels_each),
        first_pixel(spread_apart(thread / pieces)),
        first_row(first_pixel / cut.slot_row),
        first_column(first_pixel - first_row * cut.slot_row),
        step_rows(step / cut.slot_row),
        step_columns(step - step_rows * cut.slot_row),
        image(opaque_global(static_cast<const T*>(array.data) + work.offset(array) + channel)) {
    if constexpr (kept) {
      over_pixels([&](int i, int row, int column) {
        const bool exists = row < cut.rows_per_block && column < cut.width;
        row_in_block[i] = exists ? row : never;
        offset[i] = exists ? row * side.row + column * side.column : 0;
      });
    }
  }

  // Zeros to the channels that there are not. To be called once, before a barrier.
  static __device__ void clear(unsigned char* ring, int channels, int thread) {
    using Words =
        std::conditional_t<copy_bytes == 16, uint4, std::conditional_t<copy_bytes == 4, std::uint32_t, std::uint16_t>>;
    const int absent = pieces - channels / channels_each;
    for (int i = thread; i < Ring::slots * (Ring::pixels + 2) * absent; i += threads) {
      const int pixel = i / absent % (Ring::pixels + 2), slot = i / absent / (Ring::pixels + 2);
      *reinterpret_cast<Words*>(ring + slot * Ring::slot_bytes + pixel * Ring::pitch +
                                (pieces - absent + i % absent) * copy_bytes) = Words{};
    }
  }

  // Starts the copies of a row-block, which may lie outside the image.
  __device__ __forceinline__ void load(int block, unsigned char* slot) const {
    if (channel >= side.channels) return;
    const int block_row = block * cut.rows_per_block;
    if constexpr (kept) {
#pragma unroll
      for (int i = 0; i < pixels_each; ++i) {
        copy(slot, 1 + first_pixel + i * step, block_row + row_in_block[i], true,
             [&] { return block_row * side.row + offset[i]; });
      }
    } else {
      over_pixels([&](int i, int row, int column) {
        copy(slot, 1 + first_pixel + i * step, block_row + row, row < cut.rows_per_block && column < cut.width,
             [&] { return (block_row + row) * side.row + column * side.column; });
      });
    }
    if (neighbours && cut.strips > 1 && first_pixel < 2) {
      const int column = first_pixel == 0 ? unit.first_column - 1 : unit.first_column + Ring::pixels;
      copy(slot, first_pixel == 0 ? 0 : Ring::pixels + 1, block_row, column >= 0 && column < cut.width,
           [&] { return block_row * side.row + column * side.column; });
    }
  }

 private:
  // Of each eight pixels those first of which 128 bytes are: of 32 bytes each 0, 2, 4, 6, of 64 bytes 0, 4.
  static __device__ int spread_apart(int pixel) {
    constexpr int at_once = 128 / (Ring::channels * Ring::element);
    if constexpr (at_once > 1 && step % 8 == 0) {
      const int in_eight = pixel % 8;
      return pixel - in_eight + in_eight % at_once * (8 / at_once) + in_eight / at_once;
    } else {
      return pixel;
    }
  }

  // Calls visit(i, row, column) for the pixels of the thread: where they are, in the row-block and in the image.
  template <typename Visit>
  __device__ __forceinline__ void over_pixels(Visit visit) const {
    int row = first_row, column = first_column;
#pragma unroll 8
    for (int i = 0; i < pixels_each; ++i) {
      visit(i, row, unit.first_column + column);
      row += step_rows;
      column += step_columns;
      if (column >= cut.slot_row) {
        column -= cut.slot_row;
        ++row;
      }
    }
  }

  // `from` answers with the offset in the image of a pixel that exists.
  template <typename From>
  __device__ __forceinline__ void copy(unsigned char* slot, int pixel, int row, bool exists, From from) const {
    constexpr int more = neighbours ? 1 : 0;
    exists = exists && row >= max(unit.first_row - more, 0) && row < min(unit.last_row + more, cut.height);
    copy_to_slot<copy_bytes>(slot + pixel * Ring::pitch + channel * Ring::element, image + (exists ? from() : 0),
                             exists);
  }

  static constexpr bool kept = pixels_each <= 8;  // where pixels are is kept in registers
  static constexpr int never = 1 << 29;           // added to a row it is none of the image's
  const RowsCut& cut;
  const RowsSide& side;
  const RowsUnit& unit;
  int channel, first_pixel;
  int first_row, first_column;  // of first_pixel, in the row-block
  int step_rows, step_columns;  // that `step` pixels are
  const T* image;
  int row_in_block[kept ? pixels_each : 1], offset[kept ? pixels_each : 1];
};

}  // namespace leancore::detail::cuda
