// A call as the kernels see it: one grid of positions, read through taps on one side and written on the other.
//
//                     grid          `in`                       `out`
//   forward           that of y     x at every stride-th       y
//   backward_data     that of dy    dy                         dx: `stride` classes of positions along each axis
//   backward_weight   that of y     x at every stride-th       (dy is read at the grid's positions)
//
// Forward with stride s and dilation d reads x at s q (the 1x1 convolution) and at s q + d, s q - d along each axis
// (the taps). These positions lie on a few lattices of step s: one is called a plane, and within its plane a tap is a
// whole number of steps, `shift`, away. With stride 1 there is one plane.
//
// The adjoint writes dx at s q + phase. Only the phase (0, ..., 0) has a 1x1 part; those that a tap reaches have taps;
// all others are zero. With stride 1 there is one phase, and backward_data is a forward with alpha transposed and the
// taps mirrored.
//
// A tap of many steps (a large dilation) reads a plane of its own, which is that of the position itself moved by the
// whole distance: its shift is then 0, and tiles need no wide margins.
#pragma once

#include <cstdint>

#include "implementations.hpp"
#include "leancore/types.hpp"

namespace leancore::detail::cpu {

inline constexpr int max_taps = 2 * max_dims;
inline constexpr std::int64_t longest_shift = 4;

struct GridTap {
  int column = 0;          // of c
  int axis = 0;            // 1..dims, as axes are numbered below
  int plane = 0;           // of `in`
  std::int64_t shift = 0;  // steps along the axis, within the plane
  std::int64_t begin = 0;  // the neighbour exists at the positions [begin, end) along the axis
  std::int64_t end = 0;
  std::int64_t offset = 0;  // elements of `in` from the position's own element
};

// Elements of `in` at offset + sum of position * in_step, for begin <= position < extents along each axis.
struct Plane {
  int axis = 0;  // along which it lies off the positions; 0: it does not
  std::int64_t offset = 0;
  std::int64_t begin[max_dims] = {};
  std::int64_t extents[max_dims] = {};
};

// Positions of `out` that are computed alike.
struct Phase {
  std::int64_t offset = 0;
  std::int64_t extents[max_dims] = {};
  bool full = true;  // has the 1x1 part
  int first_tap = 0;
  int tap_count = 0;
};

// Axes: 0 the batch, 1..dims the spatial ones.
struct Problem {
  int dims = 0;
  std::int64_t batch = 0;
  std::int64_t c_in = 0;   // channels of `in`
  std::int64_t c_out = 0;  // channels of `out`
  std::int64_t stencil_channels = 0;
  std::int64_t extents[max_dims] = {};
  std::int64_t in_channel = 0, out_channel = 0;  // strides
  std::int64_t in_extents[max_dims] = {};        // of the whole array, not only of the positions that are read
  std::int64_t in_strides[max_dims] = {};
  std::int64_t in_steps[max_dims + 1] = {};  // by axis, from one position to the next
  std::int64_t out_steps[max_dims + 1] = {};
  int plane_count = 1;
  Plane planes[1 + max_taps];
  int phase_count = 1;
  Phase phases[1 + max_taps];
  GridTap taps[max_taps];  // by phase
  // backward_data with stride: `out` has positions that no phase reaches, which are zero.
  bool zero_rest = false;
  std::int64_t cell[max_dims] = {};  // positions of `out` along each axis that belong to one of the grid
  std::int64_t out_extents[max_dims] = {};
  std::int64_t out_strides[max_dims] = {};
  // alpha[o * alpha_out + i * alpha_in] takes channel i of `in` to channel o of `out`.
  std::int64_t alpha_out = 0, alpha_in = 0;
  std::int64_t c_channel = 0, c_tap = 0;
  std::int64_t bias_stride = 0;

  [[nodiscard]] std::int64_t diagonal() const { return stencil_channels; }
  [[nodiscard]] const GridTap* taps_of(const Phase& phase) const { return taps + phase.first_tap; }
  [[nodiscard]] int columns() const { return 2 * dims; }
  [[nodiscard]] std::int64_t axis_extent(int axis) const { return axis == 0 ? batch : extents[axis - 1]; }
  [[nodiscard]] std::int64_t inner_positions(int axis) const;  // of one step along the axis
  [[nodiscard]] std::int64_t positions() const { return batch * inner_positions(0); }
};

Problem make_problem(Operation operation, const ConvDesc& desc);

// Calls visit(tap) for the taps of all phases.
template <typename Visit>
void over_taps(const Problem& p, Visit visit) {
  for (const GridTap& tap : p.taps) {
    if (tap.begin < tap.end) visit(tap);
  }
}

// What a call computes from its tiles: `out`, the weights' gradients, or both.
enum class Work { out, weight, both };
Work work_of(Operation operation);

// What a call reads beside `in`, position by position: dy in backward_weight, x in the combined backward.
struct OtherSide {
  std::int64_t channels = 0;
  std::int64_t channel_step = 0;
  std::int64_t steps[max_dims + 1] = {};
};
OtherSide other_side_of(Operation operation, const ConvDesc& desc, const Problem& problem);

}  // namespace leancore::detail::cpu
