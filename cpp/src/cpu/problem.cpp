#include "cpu/problem.hpp"

#include <algorithm>

#include "cpu/isa.hpp"

namespace leancore::detail::cpu {
namespace {

std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - (a % b != 0 && a % b < 0 ? 1 : 0);
}
std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return -floor_div(-a, b);
}

// Steps that leave the image from every position act alike, however long they are; short ones cannot overflow.
ConvDesc with_short_steps(ConvDesc d) {
  for (int a = 0; a < d.dims; ++a) {
    d.stride[a] = std::min(d.stride[a], std::max<std::int64_t>(1, d.extents[a]));
    d.dilation[a] = std::min(d.dilation[a], std::max<std::int64_t>(1, d.extents[a]));
  }
  return d;
}

// Tap k in the order of the columns of c.
int tap_axis(int k, int dims) {
  return k < dims ? k + 1 : 2 * dims - k;
}

// Tap k of the operator, its distance split into whole strides and a rest: step = whole * stride + residue.
struct Reach {
  GridTap tap;
  std::int64_t stride, step, whole, residue;
};
Reach reach_of(int k, const ConvDesc& d) {
  Reach reach = {};
  reach.tap.column = k;
  reach.tap.axis = tap_axis(k, d.dims);
  const int a = reach.tap.axis - 1;
  reach.stride = d.stride[a];
  reach.step = (k < d.dims ? -1 : 1) * d.dilation[a];
  reach.whole = floor_div(reach.step, reach.stride);
  reach.residue = reach.step - reach.whole * reach.stride;
  return reach;
}

// The member of `list` that lies `residue` along `axis`, made when it is new. Members lie off one axis at most.
struct Residue {
  int axis = 0;
  std::int64_t value = 0;
};
int find_or_add(Residue (&list)[1 + max_taps], int& count, int axis, std::int64_t residue) {
  for (int i = 0; i < count; ++i) {
    if (list[i].value == residue && (residue == 0 || list[i].axis == axis)) return i;
  }
  list[count] = {axis, residue};
  return count++;
}

// Positions of x at every stride-th, `residue` off: the elements of a plane, or those that a phase writes.
void set_lattice(const Residue& residue, const ConvDesc& d, std::int64_t& offset, std::int64_t (&extents)[max_dims]) {
  for (int a = 0; a < d.dims; ++a) {
    const std::int64_t first = residue.axis == a + 1 ? residue.value : 0;
    offset += first * d.x_strides[a + 2];
    extents[a] = std::max<std::int64_t>(0, ceil_div(d.extents[a] - first, d.stride[a]));
  }
}

// Taps that reach far get planes of their own.
void separate_far_taps(Problem& p) {
  for (GridTap& tap : p.taps) {
    if (-longest_shift <= tap.shift && tap.shift <= longest_shift) continue;
    Plane& plane = p.planes[p.plane_count] = p.planes[tap.plane];
    plane.axis = tap.axis;
    plane.offset += tap.shift * p.in_steps[tap.axis];
    plane.begin[tap.axis - 1] = tap.begin;
    plane.extents[tap.axis - 1] = tap.end;
    tap.plane = p.plane_count++;
    tap.shift = 0;
  }
}

void add_forward_taps(Problem& p, const ConvDesc& d) {
  Residue planes[1 + max_taps];
  p.plane_count = 0;
  find_or_add(planes, p.plane_count, 1, 0);
  for (int k = 0; k < p.columns() && p.diagonal() > 0; ++k) {
    auto [tap, stride, step, whole, residue] = reach_of(k, d);
    const int a = tap.axis - 1;
    tap.shift = whole;
    tap.begin = std::max<std::int64_t>(0, ceil_div(-step, stride));
    tap.end = std::min(p.extents[a], floor_div(d.extents[a] - 1 - step, stride) + 1);
    tap.offset = step * d.x_strides[a + 2];
    if (tap.begin >= tap.end) continue;  // no position has this neighbour
    tap.plane = find_or_add(planes, p.plane_count, tap.axis, residue);
    p.taps[p.phases[0].tap_count++] = tap;
  }
  for (int i = 0; i < p.plane_count; ++i) {
    p.planes[i].axis = planes[i].value == 0 ? 0 : planes[i].axis;
    set_lattice(planes[i], d, p.planes[i].offset, p.planes[i].extents);
  }
}

void add_adjoint_taps(Problem& p, const ConvDesc& d) {
  Residue phases[1 + max_taps];
  GridTap taps[max_taps];
  int phase_of[max_taps], count = 0;
  p.phase_count = 0;
  find_or_add(phases, p.phase_count, 1, 0);
  for (int k = 0; k < p.columns() && p.diagonal() > 0; ++k) {
    auto [tap, stride, step, whole, residue] = reach_of(k, d);
    const int a = tap.axis - 1;
    tap.shift = -whole;
    tap.begin = std::max<std::int64_t>(0, -tap.shift);
    // Position q of the phase, and position q + shift of dy.
    tap.end = std::min(ceil_div(d.extents[a] - residue, stride), p.extents[a] - tap.shift);
    tap.offset = tap.shift * d.y_strides[a + 2];
    if (tap.begin >= tap.end) continue;
    taps[count] = tap;
    phase_of[count++] = find_or_add(phases, p.phase_count, tap.axis, residue);
  }
  int sorted = 0;
  for (int i = 0; i < p.phase_count; ++i) {
    Phase& phase = p.phases[i];
    phase.full = i == 0;
    phase.first_tap = sorted;
    for (int t = 0; t < count; ++t) {
      if (phase_of[t] == i) p.taps[sorted++] = taps[t];
    }
    phase.tap_count = sorted - phase.first_tap;
    set_lattice(phases[i], d, phase.offset, phase.extents);
  }
  for (int a = 0; a < p.dims; ++a) {
    p.zero_rest = p.zero_rest || d.stride[a] > 1;
    p.cell[a] = d.stride[a];
    p.out_extents[a] = d.extents[a];
    p.out_strides[a] = d.x_strides[a + 2];
    p.planes[0].extents[a] = p.extents[a];
  }
}

}  // namespace

std::int64_t Problem::inner_positions(int axis) const {
  std::int64_t count = 1;
  for (int inner = axis + 1; inner <= dims; ++inner) count *= axis_extent(inner);
  return count;
}

bool family_supports(Operation operation, const ConvDesc& d) {
  bool any = d.batch > 0 && d.c_in > 0 && d.c_out > 0, dense = true;
  for (int a = 0; a < d.dims; ++a) {
    any = any && d.extents[a] > 0;
    dense = dense && d.stride[a] == 1;
  }
  return any && (operation != Operation::backward || dense);
}

bool is_channels_last(Operation operation, const ConvDesc& d) {
  // One channel is contiguous in any layout; two such sides have nothing to gain.
  const auto contiguous = [](std::int64_t channels, std::int64_t stride) { return channels == 1 || stride == 1; };
  if (d.c_in == 1 && d.c_out == 1) return false;
  return contiguous(d.c_in, d.x_strides[1]) && contiguous(d.c_out, d.y_strides[1]) &&
         (operation != Operation::backward || contiguous(d.c_in, d.dx_strides[1]));
}

bool takes_pairs(Operation operation, const ConvDesc& d) {
  if (d.dtype != DType::bf16 || !family_supports(operation, d)) return false;
  if (is_channels_last(operation, d)) return true;
  // Channels first, lines are copied as they are, and with very few channels there is nothing to gain.
  const int last = d.dims - 1;
  const bool x = d.stride[last] * d.x_strides[last + 2] == 1, y = d.y_strides[last + 2] == 1;
  switch (operation) {
    case Operation::forward:
      return x && d.c_in > 1;
    case Operation::backward_data:
      return y && d.c_out > 1;
    case Operation::backward_weight:
      return x && y && d.c_out >= 8;
    case Operation::backward:
      break;
  }
  return std::min(d.c_in, d.c_out) >= 16 && takes_pairs(Operation::backward_data, data_part(d)) &&
         takes_pairs(Operation::backward_weight, weight_part(d));
}

Work work_of(Operation operation) {
  return operation == Operation::backward_weight ? Work::weight
         : operation == Operation::backward      ? Work::both
                                                 : Work::out;
}

OtherSide other_side_of(Operation operation, const ConvDesc& d, const Problem& p) {
  OtherSide other;
  if (work_of(operation) == Work::out) return other;
  // Of both problems, c_out is the number of channels of the side that `in` is not.
  const bool weight = operation == Operation::backward_weight;
  other.channels = p.c_out;
  other.channel_step = weight ? p.out_channel : d.x_strides[1];
  other.steps[0] = weight ? p.out_steps[0] : d.x_strides[0];
  for (int a = 0; a < d.dims; ++a) other.steps[a + 1] = weight ? p.out_steps[a + 1] : d.x_strides[a + 2];
  return other;
}

Problem make_problem(Operation operation, const ConvDesc& desc) {
  const ConvDesc d = with_short_steps(operation == Operation::backward ? data_part(desc) : desc);
  const bool adjoint = operation == Operation::backward_data || operation == Operation::backward;
  Problem p;
  p.dims = d.dims;
  p.batch = d.batch;
  p.c_in = adjoint ? d.c_out : d.c_in;
  p.c_out = adjoint ? d.c_in : d.c_out;
  p.stencil_channels = d.diagonal();
  p.in_channel = adjoint ? d.y_strides[1] : d.x_strides[1];
  p.out_channel = adjoint ? d.x_strides[1] : d.y_strides[1];
  p.in_steps[0] = adjoint ? d.y_strides[0] : d.x_strides[0];
  p.out_steps[0] = adjoint ? d.x_strides[0] : d.y_strides[0];
  for (int a = 0; a < d.dims; ++a) {
    p.extents[a] = d.y_extent(a);
    const std::int64_t x_step = d.stride[a] * d.x_strides[a + 2];
    p.in_extents[a] = adjoint ? d.y_extent(a) : d.extents[a];
    p.in_strides[a] = adjoint ? d.y_strides[a + 2] : d.x_strides[a + 2];
    p.in_steps[a + 1] = adjoint ? d.y_strides[a + 2] : x_step;
    p.out_steps[a + 1] = adjoint ? x_step : d.y_strides[a + 2];
    p.phases[0].extents[a] = p.extents[a];
  }
  p.alpha_out = d.alpha_strides[adjoint ? 1 : 0];
  p.alpha_in = d.alpha_strides[adjoint ? 0 : 1];
  p.c_channel = d.c_strides[0];
  p.c_tap = d.c_strides[1];
  p.bias_stride = d.bias_stride;
  adjoint ? add_adjoint_taps(p, d) : add_forward_taps(p, d);
  separate_far_taps(p);
  return p;
}

}  // namespace leancore::detail::cpu
