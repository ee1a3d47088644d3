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
// beside the strip.
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
        first_pixel(thread / pieces),
        first_row(first_pixel / cut.slot_row),
        first_column(first_pixel - first_row * cut.slot_row),
        step_rows(step / cut.slot_row),
        step_columns(step - step_rows * cut.slot_row),
        image(static_cast<const T*>(array.data) + work.offset(array) + channel) {}

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
    int row = first_row, column = first_column;
#pragma unroll 8
    for (int i = 0; i < pixels_each; ++i) {
      copy(slot, 1 + first_pixel + i * step, block_row + row, unit.first_column + column, row < cut.rows_per_block);
      row += step_rows;
      column += step_columns;
      if (column >= cut.slot_row) {
        column -= cut.slot_row;
        ++row;
      }
    }
    if (neighbours && cut.strips > 1 && first_pixel < 2) {
      const int at = first_pixel == 0 ? unit.first_column - 1 : unit.first_column + Ring::pixels;
      copy(slot, first_pixel == 0 ? 0 : Ring::pixels + 1, block_row, at, at >= 0);
    }
  }

 private:
  __device__ __forceinline__ void copy(unsigned char* slot, int pixel, int row, int column, bool exists) const {
    constexpr int more = neighbours ? 1 : 0;
    exists = exists && column < cut.width && row >= max(unit.first_row - more, 0) &&
             row < min(unit.last_row + more, cut.height);
    const T* from = image + (exists ? row * side.row + column * side.column : 0);
    copy_to_slot<copy_bytes>(slot + pixel * Ring::pitch + channel * Ring::element, from, exists);
  }

  const RowsCut& cut;
  const RowsSide& side;
  const RowsUnit& unit;
  int channel, first_pixel;
  int first_row, first_column;  // of first_pixel, in the row-block
  int step_rows, step_columns;  // that `step` pixels are
  const T* image;
};

}  // namespace leancore::detail::cuda
