// How a call is cut into tiles that fit the cache. Depends on the shape alone, never on the number of threads.
//
// Forward, and backward_data with alpha transposed and the taps mirrored, are one problem: `in` is read with a halo,
// `out` is written. backward_weight reads x as `in` and dy as `out`.
//
// The axes are: 0 the batch, 1..dims the spatial ones. One of them, the slice axis, is cut into slices of `rows`
// steps. Axes inside it are taken whole, so the pixels of a tile form one run of up to `run` = rows * inner pixels in
// row-major order, and a neighbour along an inner axis lies at a fixed distance in that run. Axes outside it are
// walked: a neighbour along one of them lies in the tile before or after, in another slot of the packed buffer.
//
//   slice axis 0          several whole images, no halo                 small maps
//   slice axis 1 of 2-D   `rows` image rows plus a halo row each side   many channels
//   slice axis 2 of 2-D   one image row (or a part), marching down      few channels: every row is packed once
//
// The packed tile is [channel][margin | run | margin], pixels contiguous, with a row length that keeps the channels
// apart in the cache. Neighbours outside the image are masked, never stored.
#pragma once

#include <cstdint>

#include "leancore/types.hpp"

namespace leancore::detail::cpu {

// A call, with backward_data already turned into a forward.
struct Problem {
  int dims = 0;
  std::int64_t batch = 0;
  std::int64_t c_in = 0;   // channels of `in`
  std::int64_t c_out = 0;  // channels of `out`
  std::int64_t extents[max_dims] = {};
  std::int64_t in_strides[max_axes] = {};
  std::int64_t out_strides[max_axes] = {};
  // alpha[o * alpha_out + i * alpha_in] takes channel i of `in` to channel o of `out`.
  std::int64_t alpha_out = 0, alpha_in = 0;
  // c[j * c_channel + k * c_tap + c_first], k in the order of the taps of this problem.
  std::int64_t c_channel = 0, c_tap = 0, c_first = 0;
  std::int64_t bias_stride = 0;

  [[nodiscard]] std::int64_t diagonal() const { return c_in < c_out ? c_in : c_out; }
  [[nodiscard]] std::int64_t pixels() const;  // of one image
  [[nodiscard]] std::int64_t axis_extent(int axis) const { return axis == 0 ? batch : extents[axis - 1]; }
  // Strides of the axes as numbered above; the arrays hold the channel's between batch and space.
  [[nodiscard]] std::int64_t in_stride(int axis) const { return in_strides[axis == 0 ? 0 : axis + 1]; }
  [[nodiscard]] std::int64_t out_stride(int axis) const { return out_strides[axis == 0 ? 0 : axis + 1]; }
};

Problem make_problem(Operation operation, const ConvDesc& desc);

struct Plan {
  int slice_axis = 0;
  std::int64_t inner = 0;  // pixels in one step along the slice axis
  std::int64_t rows = 0;   // steps in a slice; the last slice may have fewer
  std::int64_t slices = 0;
  std::int64_t run = 0;         // rows * inner
  std::int64_t margin = 0;      // elements before and after the run in a packed row
  std::int64_t row_length = 0;  // distance of two channels in a slot
  std::int64_t slot_size = 0;   // elements
  int slots = 0;                // 1 + 2 per walked spatial axis
  std::int64_t walk = 0;        // positions of all axes outside the slice axis
  std::int64_t chunk = 0;       // successive positions that one unit of work walks
  std::int64_t units = 0;       // chunks * slices

  // backward_weight: units are dealt in order to `lanes`, each with partial sums of its own.
  std::int64_t lanes = 0;
  bool many_tiles = false;          // in a lane: what additions of their sums lose is kept
  std::int64_t out_row_length = 0;  // packed dy: [channel][run], no margins
};

// vector: elements per vector register; a tile may be read that much past its end.
Plan make_plan(const Problem& problem, std::int64_t element_size, std::int64_t vector, bool weight);

}  // namespace leancore::detail::cpu
