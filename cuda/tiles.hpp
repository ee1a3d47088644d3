// How the tiled kernels cut their work: plain constants, for the kernels and for the host code that plans them.
//
// A slot of the ring holds one row-block of all input channels:
//
//        16 B    pixels of the slot           16 B
//       +-----+----------------------------+-----+
//   0   | pad |  channel 0                 | pad |          The pad behind a channel is the one before the next.
//       +-----+----------------------------+-----+          In the pads lie the neighbours of the first and the last
//   1   | pad |  channel 1                 | pad |          pixel where a row-block is a piece of a row; else zeros.
//       +-----+----------------------------+-----+
//
// so that the pitch of a channel is an odd number of 16-byte pieces, and a column of channels lies in different banks.
// Where a row-block is several image rows, they lie side by side, `slot_row` pixels apart, a multiple of the 16-byte
// piece; what is not in the image is zero.
#pragma once

#include <cstddef>
#include <iterator>

#include "leancore/types.hpp"

namespace leancore::detail::cuda {

template <int element_bytes, int channels, int pixels, int ahead>
struct RowRing {
  static constexpr int pitch = pixels * element_bytes + 16;
  static constexpr int slot_bytes = (channels * pitch + 16 + 127) / 128 * 128;
  static constexpr int slots = 3 + ahead;
  static constexpr int bytes = slots * slot_bytes;
  static_assert(pitch / 16 % 2 == 1);
};

// rows_fma.cuh
template <int channels_, int outputs_, int teams_, int lanes_, int ahead_>
struct FmaTile {
  static constexpr int channels = channels_;  // of `in`, at most
  static constexpr int outputs = outputs_;    // channels of `out` of a thread
  static constexpr int teams = teams_;        // of threads, each with output channels of its own
  static constexpr int lanes = lanes_;        // threads of a team, side by side, with 4 pixels each
  static constexpr int ahead = ahead_;
  static constexpr int pixels = 4 * lanes;  // of a slot

  using Ring = RowRing<4, channels, pixels, ahead>;
  static constexpr int threads = teams * lanes;
  static constexpr int block_outputs = outputs * teams;
  static constexpr int alpha_offset = Ring::bytes, c_offset = alpha_offset + channels * block_outputs * 4;
  static constexpr int shared_bytes = c_offset + block_outputs * 16;
  static_assert(outputs % 4 == 0 && threads % 32 == 0);
};

// The tiles of kernels.def as the plan sees them, in its order.
struct RowsTile {
  const char* name;
  bool tensor;        // 16-bit elements, on tensor cores; else fp32
  int channels;       // of `in`, at most
  int block_outputs;  // channels of `out` of a thread block
  int pixels;         // of a slot
  int threads, shared_bytes;
};
inline constexpr RowsTile rows_tiles[] = {
#define LEANCORE_ROWS_FMA(name, ...)    \
  {#name,                               \
   false,                               \
   FmaTile<__VA_ARGS__>::channels,      \
   FmaTile<__VA_ARGS__>::block_outputs, \
   FmaTile<__VA_ARGS__>::pixels,        \
   FmaTile<__VA_ARGS__>::threads,       \
   FmaTile<__VA_ARGS__>::shared_bytes},
#include "kernels.def"
};

}  // namespace leancore::detail::cuda
