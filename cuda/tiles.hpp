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
#include <limits>

#include "leancore/types.hpp"

namespace leancore::detail::cuda {

// Of the kernels of many channels, in bytes: the input channels of a stage of their ring, the columns of a strip, and
// from pixel to pixel of channels-last arrays.
inline constexpr int deep_step_bytes = 64, deep_strip_bytes = 128, deep_pixel_pitch = deep_step_bytes + 16;

template <int element_, int channels_, int pixels_, int slots_>
struct RowRing {
  static constexpr int element = element_;    // bytes
  static constexpr int channels = channels_;  // of a slot
  static constexpr int pixels = pixels_;      // of a slot
  static constexpr int slots = slots_;
  static constexpr int pitch = pixels * element + 16;
  static constexpr int slot_bytes = (channels * pitch + 16 + 127) / 128 * 128;
  static constexpr int bytes = slots * slot_bytes;
  static_assert(pitch / 16 % 2 == 1);
};

// Of volumes, the plane is the image, and what the two other taps need of the planes before and after is read from
// global memory. A tile does so in an instance of its own.
template <typename Tile>
struct Volume : Tile {
  static constexpr bool volume = true;
};

// fp32 sums over pixels: a thread adds so many products one after the other, and adds up as many such sums. A term then
// passes through 128 additions, and a few more where the sums of threads and of thread blocks meet.
inline constexpr int longest_fma_sum = 64, most_fma_sums = 64;

// rows_fma.cuh
template <int channels_, int outputs_, int teams_, int lanes_, int ahead_>
struct FmaTile {
  static constexpr bool volume = false, takes_volumes = true;

  static constexpr int channels = channels_;  // of `in`, at most
  static constexpr int outputs = outputs_;    // channels of `out` of a thread
  static constexpr int teams = teams_;        // of threads, each with output channels of its own
  static constexpr int lanes = lanes_;        // threads of a team, side by side, with 4 pixels each
  static constexpr int ahead = ahead_;
  static constexpr int pixels = 4 * lanes;  // of a slot

  using Ring = RowRing<4, channels, pixels, 3 + ahead>;
  static constexpr int threads = teams * lanes;
  static constexpr int block_outputs = outputs * teams;
  static constexpr int alpha_offset = Ring::bytes, c_offset = alpha_offset + channels * block_outputs * 4;
  static constexpr int c_plane_offset = c_offset + block_outputs * 16;
  static constexpr int shared_bytes = c_plane_offset + block_outputs * 8;
  static_assert(outputs % 4 == 0 && threads % 32 == 0);
};

// rows_tf32.cuh
template <int products_, int k_blocks_, int m_tiles_, int warps_out_, int warps_across_, int pixels_, int ahead_>
struct Tf32Tile {
  static constexpr bool volume = false, takes_volumes = true;

  static constexpr int products = products_;          // of TF32 numbers, for one of fp32: 3, or 1
  static constexpr int k_blocks = k_blocks_;          // of 8 channels of `in`, at most
  static constexpr int m_tiles = m_tiles_;            // of 16 channels of `out` of a warp
  static constexpr int warps_out = warps_out_;        // over channels of `out`
  static constexpr int warps_across = warps_across_;  // over pixels
  static constexpr int pixels = pixels_;              // of a slot
  static constexpr int ahead = ahead_;

  static constexpr int channels = 8 * k_blocks;
  using Ring = RowRing<4, channels, pixels, 3 + ahead>;
  static constexpr int threads = 32 * warps_out * warps_across;
  static constexpr int block_outputs = 16 * m_tiles * warps_out;
  static constexpr int groups = pixels / (32 * warps_across);  // of 32 pixels, of a warp
  static constexpr int c_offset = Ring::bytes, c_plane_offset = c_offset + block_outputs * 16;
  static constexpr int shared_bytes = c_plane_offset + block_outputs * 8;
  static_assert((products == 1 || products == 3) && pixels % (32 * warps_across) == 0);
};

// rows_tensor.cuh
template <int k_blocks_, int m_tiles_, int warps_out_, int warps_across_, int pixels_, int ahead_>
struct TensorTile {
  static constexpr bool volume = false, takes_volumes = true;
  // Of volumes, a warp has one tile of 16 channels of `out`, and the thread block more warps: more would not fit in
  // registers.
  using InVolumes = TensorTile<k_blocks_, 1, warps_out_ * m_tiles_, warps_across_, pixels_, ahead_>;

  static constexpr int k_blocks = k_blocks_;          // of 16 channels of `in`, at most
  static constexpr int m_tiles = m_tiles_;            // of 16 channels of `out` of a warp
  static constexpr int warps_out = warps_out_;        // over channels of `out`
  static constexpr int warps_across = warps_across_;  // over pixels
  static constexpr int pixels = pixels_;              // of a slot
  static constexpr int ahead = ahead_;

  static constexpr int channels = 16 * k_blocks;
  using Ring = RowRing<2, channels, pixels, 3 + ahead>;
  static constexpr int threads = 32 * warps_out * warps_across;
  static constexpr int block_outputs = 16 * m_tiles * warps_out;
  static constexpr int groups = pixels / (64 * warps_across);  // of 64 pixels, of a warp
  static constexpr int shared_bytes = Ring::bytes;
  static_assert(m_tiles <= k_blocks && pixels % (64 * warps_across) == 0);
};

// The ring of channels-last arrays: pixels one after the other, with one more before and after them.
template <int element_, int channels_, int pixels_, int slots_>
struct PixelRing {
  static constexpr int element = element_;  // bytes
  static constexpr int channels = channels_;
  static constexpr int pixels = pixels_;
  static constexpr int slots = slots_;
  static constexpr int pitch = channels * element + 16;
  static constexpr int slot_bytes = ((pixels + 2) * pitch + 127) / 128 * 128;
  static constexpr int bytes = slots * slot_bytes;
  static_assert(pitch / 16 % 2 == 1);
};

// rows_last.cuh
template <int k_blocks_, int n_blocks_, int warps_across_, int warps_out_, int pixels_, int ahead_>
struct LastTile {
  static constexpr bool volume = false, takes_volumes = true;

  static constexpr int k_blocks = k_blocks_;          // of 16 channels of `in`, at most
  static constexpr int n_blocks = n_blocks_;          // of 16 channels of `out` of a warp
  static constexpr int warps_across = warps_across_;  // over pixels
  static constexpr int warps_out = warps_out_;        // over channels of `out`
  static constexpr int pixels = pixels_;              // of a slot
  static constexpr int ahead = ahead_;

  static constexpr int channels = 16 * k_blocks;
  using Ring = PixelRing<2, channels, pixels, 3 + ahead>;
  static constexpr int threads = 32 * warps_across * warps_out;
  static constexpr int block_outputs = 16 * n_blocks * warps_out;
  static constexpr int groups = pixels / (16 * warps_across);  // of 16 pixels, of a warp
  static constexpr int shared_bytes = Ring::bytes + channels * 2;
  static_assert(pixels % (16 * warps_across) == 0);
};

// rows_last_tf32.cuh
template <int products_, int k_blocks_, int n_blocks_, int warps_across_, int warps_out_, int pixels_, int ahead_>
struct LastTf32Tile {
  static constexpr bool volume = false, takes_volumes = true;

  static constexpr int products = products_;          // of TF32 numbers, for one of fp32: 3, or 1
  static constexpr int k_blocks = k_blocks_;          // of 8 channels of `in`, at most
  static constexpr int n_blocks = n_blocks_;          // of 16 channels of `out` of a warp
  static constexpr int warps_across = warps_across_;  // over pixels
  static constexpr int warps_out = warps_out_;        // over channels of `out`
  static constexpr int pixels = pixels_;              // of a slot
  static constexpr int ahead = ahead_;

  static constexpr int channels = 8 * k_blocks;
  using Ring = PixelRing<4, channels, pixels, 3 + ahead>;
  static constexpr int threads = 32 * warps_across * warps_out;
  static constexpr int block_outputs = 16 * n_blocks * warps_out;
  static constexpr int groups = pixels / (16 * warps_across);  // of 16 pixels, of a warp
  static constexpr int c_offset = Ring::bytes, c_plane_offset = c_offset + block_outputs * 16;
  static constexpr int shared_bytes = c_plane_offset + block_outputs * 8;
  static_assert((products == 1 || products == 3) && pixels % (16 * warps_across) == 0);
};

// deep.cuh; a warp takes 64 pixels
template <int element_, int products_, int m_tiles_, int warps_out_, int warps_across_, int stages_>
struct DeepTileOf {
  static constexpr int element = element_;            // bytes
  static constexpr int products = products_;          // of tensor cores, for one of elements: 3, or 1
  static constexpr int m_tiles = m_tiles_;            // of 16 channels of `out` of a warp
  static constexpr int warps_out = warps_out_;        // over channels of `out`
  static constexpr int warps_across = warps_across_;  // over pixels
  static constexpr int stages = stages_;              // of the ring

  static constexpr int step = deep_step_bytes / element;  // channels of `in` of a stage
  static constexpr int strip = deep_strip_bytes / element;
  static constexpr int pixels = 64 * warps_across;
  static constexpr int threads = 32 * warps_out * warps_across;
  static constexpr int block_outputs = 16 * m_tiles * warps_out;
  // Of 16 channels of `out` in a stage. For three products alpha is in two parts.
  static constexpr int alpha_step = 16 * deep_step_bytes * (products == 3 ? 2 : 1);
  static constexpr int alpha_bytes = alpha_step * m_tiles * warps_out;  // of a stage
  static constexpr int extra_bytes = block_outputs * 4 * element + 16;  // beside the ring: c, and zeros
  static constexpr int alpha_lanes = alpha_step / 16;                   // threads that bring those 16 channels
  // Pitches of a channel are odd numbers of 16-byte pieces where a tile of strips has an even number of rows.
  static_assert(pixels / strip % 2 == 0 && alpha_bytes % (16 * threads) == 0 && threads % alpha_lanes == 0);
};
template <int m_tiles, int warps_out, int warps_across, int stages>
struct DeepTile : DeepTileOf<2, 1, m_tiles, warps_out, warps_across, stages> {};
// deep_rows_tf32.cuh, deep_last_tf32.cuh
template <int products, int m_tiles, int warps_out, int warps_across, int stages>
struct DeepTf32Tile : DeepTileOf<4, products, m_tiles, warps_out, warps_across, stages> {};

// rows_weight.cuh
template <int m_tiles_, int n_tiles_, int warps_o_, int warps_i_, int warps_across_, int pixels_, int ahead_>
struct WeightTile {
  static constexpr bool volume = false;

  static constexpr int m_tiles = m_tiles_;            // of 16 channels of dy of a warp
  static constexpr int n_tiles = n_tiles_;            // of 8 channels of x of a warp
  static constexpr int warps_o = warps_o_;            // over channels of dy
  static constexpr int warps_i = warps_i_;            // over channels of x
  static constexpr int warps_across = warps_across_;  // over pixels
  static constexpr int pixels = pixels_;              // of a slot
  static constexpr int ahead = ahead_;

  static constexpr int channels = 16 * m_tiles * warps_o;  // of a thread block, of dy and of x
  using DyRing = RowRing<2, channels, pixels, 3 + ahead>;
  using XRing = RowRing<2, channels, pixels, 1 + ahead>;
  static constexpr int channel_warps = warps_o * warps_i, threads = 32 * channel_warps * warps_across;
  static constexpr int groups = pixels / (64 * warps_across);                                // of 64 pixels, of a warp
  static constexpr int stencil_groups = (channels / 8 + channel_warps - 1) / channel_warps;  // of 8 channels, of a warp
  // Of a thread: those of images, and more of volumes.
  static constexpr int sums = m_tiles * n_tiles * 4 + stencil_groups * 8, plane_sums = stencil_groups * 4;
  static constexpr int ring_bytes = DyRing::bytes + XRing::bytes;
  static constexpr int reduction_bytes = (warps_across - 1) * 32 * channel_warps * (sums + plane_sums) * 4;
  static constexpr int shared_bytes = ring_bytes > reduction_bytes ? ring_bytes : reduction_bytes;
  static_assert(8 * n_tiles * warps_i == channels && n_tiles % 2 == 0 && pixels % (64 * warps_across) == 0);
};

// rows_weight_last.cuh
template <int m_tiles_, int n_tiles_, int warps_o_, int warps_i_, int warps_across_, int pixels_, int ahead_>
struct WeightLastTile : WeightTile<m_tiles_, n_tiles_, warps_o_, warps_i_, warps_across_, pixels_, ahead_> {
  using Rows = WeightTile<m_tiles_, n_tiles_, warps_o_, warps_i_, warps_across_, pixels_, ahead_>;
  using DyRing = PixelRing<2, Rows::channels, pixels_, 3 + ahead_>;
  using XRing = PixelRing<2, Rows::channels, pixels_, 1 + ahead_>;
  static constexpr int groups = pixels_ / (16 * warps_across_);  // of 16 pixels, of a warp
  static constexpr int zeros_offset = DyRing::bytes + XRing::bytes, ring_bytes = zeros_offset + Rows::channels * 2;
  static constexpr int shared_bytes = ring_bytes > Rows::reduction_bytes ? ring_bytes : Rows::reduction_bytes;
  // Of volumes: pieces of 8 channels of a pixel, and threads that share one.
  static constexpr int pieces = Rows::channels / 8, piece_threads = Rows::threads / pieces;
  static_assert(groups % 2 == 0 && pixels_ % (2 * piece_threads) == 0);
  static_assert((piece_threads - 1) * pieces * 16 * 4 <= shared_bytes);
};

// rows_weight_fma.cuh
template <int outputs_, int inputs_, int teams_, int pixels_, int ahead_>
struct WeightFmaTile {
  static constexpr bool volume = false;

  static constexpr int outputs = outputs_;  // channels of dy of a thread
  static constexpr int inputs = inputs_;    // channels of x of a thread
  static constexpr int teams = teams_;      // that share the pixels; a thread of each for every outputs x inputs sums
  static constexpr int pixels = pixels_;    // of a slot
  static constexpr int ahead = ahead_;

  static constexpr int channels = outputs * inputs;  // of a thread block, of dy and of x
  using DyRing = RowRing<4, channels, pixels, 3 + ahead>;
  using XRing = RowRing<4, channels, pixels, 1 + ahead>;
  static constexpr int threads = channels * teams;
  static constexpr int pieces = pixels / 4 / teams;  // of 4 pixels, of a thread
  // A thread adds up products of so many row-blocks before it adds the sum to its total.
  static constexpr int blocks_per_sum = longest_fma_sum / (4 * pieces);
  static constexpr int ring_bytes = DyRing::bytes + XRing::bytes;
  static constexpr int reduction_bytes = (teams - 1) * channels * outputs * inputs * 4;
  static constexpr int shared_bytes = ring_bytes > reduction_bytes ? ring_bytes : reduction_bytes;
  static_assert(threads % 32 == 0 && pixels % (4 * teams) == 0 && blocks_per_sum * 4 * pieces == longest_fma_sum);
};

// rows_weight_fma_last.cuh
template <int outputs_, int inputs_, int teams_, int pixels_, int ahead_>
struct WeightFmaLastTile : WeightFmaTile<outputs_, inputs_, teams_, pixels_, ahead_> {
  using Rows = WeightFmaTile<outputs_, inputs_, teams_, pixels_, ahead_>;
  using DyRing = PixelRing<4, Rows::channels, pixels_, 3 + ahead_>;
  using XRing = PixelRing<4, Rows::channels, pixels_, 1 + ahead_>;
  static constexpr int ring_bytes = DyRing::bytes + XRing::bytes;
  static constexpr int shared_bytes = ring_bytes > Rows::reduction_bytes ? ring_bytes : Rows::reduction_bytes;
  static_assert(outputs_ % 4 == 0 && inputs_ % 4 == 0 && (4 * teams_ - 1) * Rows::channels * 24 <= shared_bytes);
};

// The tiles of kernels.def as the plan sees them, in its order.
enum class RowsKind {
  fma,          // fp32, contiguous rows
  tf32x3,       // the same as three products of TF32 numbers for each of fp32
  tf32,         // the same as one, less precise
  tensor,       // 16-bit, contiguous rows
  last,         // 16-bit, contiguous channels
  last_tf32x3,  // fp32, contiguous channels, as tf32x3
  last_tf32,    // the same as tf32
};
constexpr bool is_channels_last(RowsKind kind) {
  return kind == RowsKind::last || kind == RowsKind::last_tf32x3 || kind == RowsKind::last_tf32;
}
struct RowsTile {
  const char* name;
  RowsKind kind;
  int channels;       // of `in`, at most
  int block_outputs;  // channels of `out` of a thread block
  int pixels;         // of a slot
  int threads, shared_bytes;
  bool takes_volumes;
  int volume_threads;
};
template <typename Tile>
constexpr RowsTile rows_tile(const char* name, RowsKind kind) {
  int volume_threads = Tile::threads;
  if constexpr (requires { typename Tile::InVolumes; }) volume_threads = Tile::InVolumes::threads;
  return {name,          kind,          Tile::channels,     Tile::block_outputs,
          Tile::pixels,  Tile::threads, Tile::shared_bytes, Tile::takes_volumes,
          volume_threads};
}
inline constexpr RowsTile rows_tiles[] = {
#define LEANCORE_ROWS_FMA(name, ...) rows_tile<FmaTile<__VA_ARGS__>>(#name, RowsKind::fma),
#define LEANCORE_ROWS_TF32(name, products, ...) \
  rows_tile<Tf32Tile<products, __VA_ARGS__>>(#name, products == 3 ? RowsKind::tf32x3 : RowsKind::tf32),
#define LEANCORE_ROWS_TENSOR(name, ...) rows_tile<TensorTile<__VA_ARGS__>>(#name, RowsKind::tensor),
#define LEANCORE_ROWS_LAST(name, ...) rows_tile<LastTile<__VA_ARGS__>>(#name, RowsKind::last),
#define LEANCORE_ROWS_LAST_TF32(name, products, ...) \
  rows_tile<LastTf32Tile<products, __VA_ARGS__>>(#name, products == 3 ? RowsKind::last_tf32x3 : RowsKind::last_tf32),
#include "kernels.def"
};

struct DeepTileFacts {
  const char* name;
  int element;        // bytes
  int products;       // of tensor cores, for one of elements
  int block_outputs;  // channels of `out` of a thread block
  int pixels;         // of a tile
  int step;           // channels of `in` of a stage
  int strip;          // columns
  int threads, stages, alpha_step, alpha_bytes, extra_bytes;

  [[nodiscard]] constexpr int shared_bytes(int pixel_bytes) const {
    return stages * (alpha_bytes + pixel_bytes) + extra_bytes;
  }
};
template <typename Tile>
constexpr DeepTileFacts deep_facts(const char* name) {
  return {name,        Tile::element, Tile::products, Tile::block_outputs, Tile::pixels,      Tile::step,
          Tile::strip, Tile::threads, Tile::stages,   Tile::alpha_step,    Tile::alpha_bytes, Tile::extra_bytes};
}
inline constexpr DeepTileFacts deep_tiles[] = {
#define LEANCORE_DEEP(name, ...) deep_facts<DeepTile<__VA_ARGS__>>(#name),
#define LEANCORE_DEEP_TF32(name, ...) deep_facts<DeepTf32Tile<__VA_ARGS__>>(#name),
#include "kernels.def"
};

enum class WeightKind {
  tensor,    // 16-bit, contiguous rows
  last,      // 16-bit, contiguous channels
  fma,       // fp32, contiguous rows
  fma_last,  // fp32, contiguous channels
};
constexpr bool is_last(WeightKind kind) {
  return kind == WeightKind::last || kind == WeightKind::fma_last;
}
constexpr bool is_fma(WeightKind kind) {
  return kind == WeightKind::fma || kind == WeightKind::fma_last;
}
struct WeightTileFacts {
  const char* name;
  WeightKind kind;
  int channels;     // of a thread block, of dy and of x
  int pixels;       // of a slot
  int most_blocks;  // row-blocks that a thread block may add up
  int threads, shared_bytes;
};
template <typename Tile>
constexpr WeightTileFacts weight_facts(const char* name, WeightKind kind) {
  int most_blocks = std::numeric_limits<int>::max();
  if constexpr (requires { Tile::blocks_per_sum; }) most_blocks = most_fma_sums * Tile::blocks_per_sum;
  return {name, kind, Tile::channels, Tile::pixels, most_blocks, Tile::threads, Tile::shared_bytes};
}
inline constexpr WeightTileFacts weight_tiles[] = {
#define LEANCORE_ROWS_WEIGHT(name, ...) weight_facts<WeightTile<__VA_ARGS__>>(#name, WeightKind::tensor),
#define LEANCORE_ROWS_WEIGHT_LAST(name, ...) weight_facts<WeightLastTile<__VA_ARGS__>>(#name, WeightKind::last),
#define LEANCORE_ROWS_WEIGHT_FMA(name, ...) weight_facts<WeightFmaTile<__VA_ARGS__>>(#name, WeightKind::fma),
#define LEANCORE_ROWS_WEIGHT_FMA_LAST(name, ...) \
  weight_facts<WeightFmaLastTile<__VA_ARGS__>>(#name, WeightKind::fma_last),
#include "kernels.def"
};

}  // namespace leancore::detail::cuda
