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
std::int64_t tap_step(int k, const ConvDesc& d) {
  return (k < d.dims ? -1 : 1) * d.dilation[tap_axis(k, d.dims) - 1];
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

// A neighbour that would lie past the grid for every position needs no tap.
void add_tap(Phase& phase, GridTap tap) {
  if (tap.begin < tap.end) phase.taps[phase.tap_count++] = tap;
}

// Taps that reach far get planes of their own.
void separate_far_taps(Problem& p) {
  for (int i = 0; i < p.phase_count; ++i) {
    for (int t = 0; t < p.phases[i].tap_count; ++t) {
      GridTap& tap = p.phases[i].taps[t];
      if (-longest_shift <= tap.shift && tap.shift <= longest_shift) continue;
      Plane& plane = p.planes[p.plane_count] = p.planes[tap.plane];
      plane.offset += tap.shift * p.in_steps[tap.axis];
      plane.begin[tap.axis - 1] = tap.begin;
      plane.extents[tap.axis - 1] = tap.end;
      tap.plane = p.plane_count++;
      tap.shift = 0;
    }
  }
}

void add_forward_taps(Problem& p, const ConvDesc& d) {
  Residue planes[1 + max_taps];
  p.plane_count = 0;
  find_or_add(planes, p.plane_count, 1, 0);
  for (int k = 0; k < p.columns(); ++k) {
    GridTap tap;
    tap.column = k;
    tap.axis = tap_axis(k, p.dims);
    const int a = tap.axis - 1;
    const std::int64_t step = tap_step(k, d), residue = step - floor_div(step, d.stride[a]) * d.stride[a];
    tap.shift = floor_div(step, d.stride[a]);
    tap.begin = std::max<std::int64_t>(0, ceil_div(-step, d.stride[a]));
    tap.end = std::min(p.extents[a], floor_div(d.extents[a] - 1 - step, d.stride[a]) + 1);
    tap.offset = step * d.x_strides[a + 2];
    if (tap.begin < tap.end) tap.plane = find_or_add(planes, p.plane_count, tap.axis, residue);
    add_tap(p.phases[0], tap);
  }
  for (int i = 0; i < p.plane_count; ++i) {
    for (int a = 0; a < p.dims; ++a) {
      const std::int64_t first = planes[i].axis == a + 1 ? planes[i].value : 0;
      p.planes[i].offset += first * d.x_strides[a + 2];
      p.planes[i].extents[a] = std::max<std::int64_t>(0, ceil_div(d.extents[a] - first, d.stride[a]));
    }
  }
}

void add_adjoint_taps(Problem& p, const ConvDesc& d) {
  Residue phases[1 + max_taps];
  p.phase_count = 0;
  find_or_add(phases, p.phase_count, 1, 0);
  for (int k = 0; k < p.columns(); ++k) {
    GridTap tap;
    tap.column = k;
    tap.axis = tap_axis(k, p.dims);
    const int a = tap.axis - 1;
    const std::int64_t step = tap_step(k, d), residue = step - floor_div(step, d.stride[a]) * d.stride[a];
    tap.shift = -floor_div(step, d.stride[a]);
    tap.begin = std::max<std::int64_t>(0, -tap.shift);
    // Position q of the phase, and position q + shift of dy.
    const std::int64_t extent = std::max<std::int64_t>(0, ceil_div(d.extents[a] - residue, d.stride[a]));
    tap.end = std::min(extent, p.extents[a] - tap.shift);
    tap.offset = tap.shift * d.y_strides[a + 2];
    if (tap.begin < tap.end) add_tap(p.phases[find_or_add(phases, p.phase_count, tap.axis, residue)], tap);
  }
  for (int i = 0; i < p.phase_count; ++i) {
    p.phases[i].full = i == 0;
    for (int a = 0; a < p.dims; ++a) {
      const std::int64_t first = phases[i].axis == a + 1 ? phases[i].value : 0;
      p.phases[i].offset += first * d.x_strides[a + 2];
      p.phases[i].extents[a] = std::max<std::int64_t>(0, ceil_div(d.extents[a] - first, d.stride[a]));
    }
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

Problem make_problem(Operation operation, const ConvDesc& desc) {
  const ConvDesc d = with_short_steps(operation == Operation::backward ? data_part(desc) : desc);
  const bool adjoint = operation == Operation::backward_data || operation == Operation::backward;
  Problem p;
  p.dims = d.dims;
  p.batch = d.batch;
  p.c_in = adjoint ? d.c_out : d.c_in;
  p.c_out = adjoint ? d.c_in : d.c_out;
  p.in_channel = adjoint ? d.y_strides[1] : d.x_strides[1];
  p.out_channel = adjoint ? d.x_strides[1] : d.y_strides[1];
  p.in_steps[0] = adjoint ? d.y_strides[0] : d.x_strides[0];
  p.out_steps[0] = adjoint ? d.x_strides[0] : d.y_strides[0];
  for (int a = 0; a < d.dims; ++a) {
    p.extents[a] = d.y_extent(a);
    const std::int64_t x_step = d.stride[a] * d.x_strides[a + 2];
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
