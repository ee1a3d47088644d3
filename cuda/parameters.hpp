// What a launch passes to a kernel, by value: plain data that host compilers and nvcc read alike.
#pragma once

#include <cstdint>

#include "leancore/types.hpp"

namespace leancore::detail::cuda {

// The generic kernels work in four spatial dimensions. Fewer are padded in front with axes of extent 1; `first_axis` is
// the first that is real. Index is int32 where every offset and count fits, else int64.

// out = alpha applied to `in`, plus the stencil: forward (in x, out y) and its adjoint backward_data (in dy, out dx).
template <typename Index>
struct ApplyParameters {
  Index outputs = 0;  // elements of out
  Index batch = 0, out_channels = 0, in_channels = 0, stencil_channels = 0;
  Index out_extents[max_dims] = {}, in_extents[max_dims] = {};
  Index stride[max_dims] = {}, dilation[max_dims] = {};
  Index out_strides[max_axes] = {}, in_strides[max_axes] = {};  // batch, channel, spatial axes
  Index alpha_out = 0,
        alpha_in = 0;  // alpha[o * alpha_out + i * alpha_in] takes i to o
  Index c_channel = 0, c_tap = 0, bias_stride = 0;
  std::int32_t first_axis = 0;
  bool channels_last = false;  // neighbouring threads take neighbouring
                               // channels, else neighbouring positions
};

// Partial sums of dalpha and dc over a share of the positions of y, to be added by `reduce`.
template <typename Index>
struct WeightParameters {
  Index positions = 0;  // of y, all images
  Index positions_per_split = 0;
  Index c_in = 0, c_out = 0, stencil_channels = 0;
  Index y_extents[max_dims] = {}, x_extents[max_dims] = {};
  Index stride[max_dims] = {}, dilation[max_dims] = {};
  Index y_strides[max_axes] = {}, x_strides[max_axes] = {};
  std::int32_t first_axis = 0;
  std::int32_t alpha_tiles = 0,
               alpha_tiles_across = 0;  // no tiles where dalpha is not wanted
  Index alpha_elements = 0,
        elements = 0;  // of one partial result: dalpha, then dc
};

// dalpha and dc from `splits` partial results, added in their order.
struct ReduceParameters {
  std::int64_t elements = 0, alpha_elements = 0;
  std::int32_t splits = 0;
  std::int64_t c_in = 0, taps = 0;
  std::int64_t dalpha_strides[2] = {}, dc_strides[2] = {};
};

// Tiles of the generic weight kernel.
inline constexpr int generic_threads = 256;
inline constexpr int weight_tile = 16;   // channels of dy by channels of x
inline constexpr int weight_chunk = 32;  // positions in shared memory
inline constexpr int stencil_tile = 32;  // channels
inline constexpr int longest_sum = 128;  // terms added one after the other before the rest is kept apart

// ---- row-marching kernels: images (1-D ones of one row, 3-D ones plane by plane), stride and dilation 1 ------------

// How an image is cut. A thread block takes a strip of its columns and a chunk of its rows and marches down the chunk,
// row-block by row-block. Narrow images are one strip, and a row-block is as many rows as fit in a slot of shared
// memory; of wide ones, a row-block is a piece of one row.
struct RowsCut {
  std::int32_t height = 0, width = 0;
  std::int32_t slot_row = 0;  // elements from one image row to the next within a slot
  std::int32_t rows_per_block = 0;
  std::int32_t blocks = 0;  // row-blocks of an image, or of a plane of a volume
  std::int32_t blocks_per_chunk = 0, chunks = 0, strips = 0;
  std::int32_t depth = 1;  // planes of a volume
};

// An array of images, of which either the pixels of a row or the channels of a pixel are contiguous; offsets within
// one, or within a plane of a volume, fit in 31 bits.
struct RowsSide {
  const void* data = nullptr;
  std::int32_t channels = 0;
  std::int32_t column = 0;  // this and the next three are strides, in elements
  std::int64_t image = 0;
  std::int32_t channel = 0, row = 0;
  std::int64_t plane = 0;  // of volumes
};

// `out = alpha applied to in, plus the stencil` as in ApplyParameters. A thread block takes one image, or one
// plane of a volume, and a block of output channels.
struct RowsParameters {
  RowsCut cut;
  RowsSide in, out;
  const void* alpha = nullptr;
  const void* c = nullptr;
  const void* bias = nullptr;
  std::int32_t stencil_channels = 0;
  std::int64_t alpha_out = 0, alpha_in = 0, c_channel = 0, bias_stride = 0;
  std::int64_t c_tap[4] = {};    // offsets within a row of c: up, left, right, down
  std::int64_t c_plane[2] = {};  // front, back: of volumes
};

// Partial sums of dalpha and dc. A unit of work is a strip and a chunk of one image; thread block s of the first grid
// axis takes units_per_split units from s * units_per_split on and writes the s-th partial result, in the layout that
// `reduce` expects; the others are blocks of output and of input channels.
struct RowsWeightParameters {
  RowsCut cut;
  RowsSide x, dy;
  float* partials = nullptr;
  std::int32_t stencil_channels = 0;  // none where dc is not wanted
  std::int32_t taps = 0;              // columns of dc: 4, or 2 of images of one row
  std::int32_t units = 0, units_per_split = 0;
  std::int64_t alpha_elements = 0;  // none where dalpha is not wanted
  std::int64_t elements = 0;        // of a partial result: dalpha, then dc
};

// ---- kernels of many channels: images and arrays as above -----------------------------------------------------------

// The rows of all images, one image after the other, are cut into tiles of so many rows by the columns of a strip.
// Narrow images are one strip. Planes of volumes are images.
struct DeepCut {
  std::int32_t height = 0, width = 0;  // of an image
  std::int32_t rows = 0;               // of all images
  std::int32_t tile_rows = 0, tile_columns = 0, strips = 0;
  std::int32_t depth = 1;  // planes of a volume
};

// The operation of RowsParameters, with alpha as `pack` leaves it: see deep.cuh.
struct DeepParameters {
  DeepCut cut;
  RowsSide in, out;
  const void* alpha = nullptr;
  const void* c = nullptr;
  const void* bias = nullptr;
  std::int32_t stencil_channels = 0;
  std::int64_t c_channel = 0, bias_stride = 0;
  std::int64_t c_tap[4] = {}, c_plane[2] = {};  // as in RowsParameters
  // Bytes in shared memory: from row to row, from channel to channel (of contiguous rows), from the first row of a tile
  // to the row below it, and of all pixels of a stage.
  std::int32_t row_pitch = 0, pitch = 0, below = 0, pixel_bytes = 0;
};

// alpha in the order in which lanes take it.
struct PackParameters {
  std::int64_t alpha_out = 0, alpha_in = 0;
  std::int32_t outputs = 0, inputs = 0;  // channels
  std::int32_t input_blocks = 0;         // of 32 bytes of input channels, whole stages of them
  bool channels_last = false;            // the order of deep_last.cuh, else that of deep_rows.cuh
  bool two_parts = false;                // of fp32: as sums of two TF32 numbers, else rounded to one
};

}  // namespace leancore::detail::cuda
