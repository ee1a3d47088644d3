#include "cpu/plan.hpp"

#include <algorithm>
#include <limits>

#include "cpu/isa.hpp"

namespace leancore::detail::cpu {
namespace {

constexpr std::int64_t cache_bytes = 320 * 1024;  // what a tile may take of a core's second-level cache

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return ceil_div(a, b) * b;
}

// An odd number of 64-byte lines: rows of equal position then spread over all cache sets.
std::int64_t spread_row(std::int64_t elements, std::int64_t element_size) {
  const std::int64_t line = 64 / element_size;
  const std::int64_t lines = ceil_div(elements, line);
  return (lines | 1) * line;
}

std::int64_t inner_pixels(const Problem& p, int slice_axis) {
  std::int64_t inner = 1;
  for (int axis = slice_axis + 1; axis <= p.dims; ++axis) inner *= p.axis_extent(axis);
  return inner;
}

// Work per pixel in units of a vector multiply-add, for choosing among ways to cut; only the order matters.
double cost(const Problem& p, std::int64_t run, std::int64_t halo, int walked_axes, std::int64_t vector) {
  const double pixels = static_cast<double>(run), c_in = static_cast<double>(p.c_in);
  const double packed =
      c_in * (pixels + 2.0 * static_cast<double>(halo)) / pixels * (walked_axes > 1 ? 2.0 * walked_axes - 1.0 : 1.0);
  const double weights = c_in * static_cast<double>(p.c_out) / pixels;
  const double filled = static_cast<double>(round_up(run, 2 * vector)) / pixels;
  const double products = (c_in + 2.0 * p.dims) * static_cast<double>(p.c_out) / static_cast<double>(vector);
  return 0.8 * packed + 0.3 * weights + filled * products;
}

}  // namespace

std::int64_t Problem::pixels() const {
  std::int64_t count = 1;
  for (int a = 0; a < dims; ++a) count *= extents[a];
  return count;
}

bool family_supports(Operation operation, const ConvDesc& d) {
  if (operation == Operation::backward || (d.dtype != DType::f32 && d.dtype != DType::f64)) return false;
  bool unit = d.batch > 0 && d.c_in > 0 && d.c_out > 0;
  for (int a = 0; a < d.dims; ++a) unit = unit && d.extents[a] > 0 && d.stride[a] == 1 && d.dilation[a] == 1;
  return unit;
}

Problem make_problem(Operation operation, const ConvDesc& d) {
  const bool adjoint = operation == Operation::backward_data;
  Problem p;
  p.dims = d.dims;
  p.batch = d.batch;
  p.c_in = adjoint ? d.c_out : d.c_in;
  p.c_out = adjoint ? d.c_in : d.c_out;
  for (int a = 0; a < d.dims; ++a) p.extents[a] = d.extents[a];
  for (int a = 0; a < d.dims + 2; ++a) {
    p.in_strides[a] = adjoint ? d.y_strides[a] : d.x_strides[a];
    p.out_strides[a] = adjoint ? d.x_strides[a] : d.y_strides[a];
  }
  p.alpha_out = d.alpha_strides[adjoint ? 1 : 0];
  p.alpha_in = d.alpha_strides[adjoint ? 0 : 1];
  p.c_channel = d.c_strides[0];
  p.c_tap = adjoint ? -d.c_strides[1] : d.c_strides[1];
  p.c_first = adjoint ? (2 * d.dims - 1) * d.c_strides[1] : 0;
  p.bias_stride = d.bias_stride;
  return p;
}

Plan make_plan(const Problem& p, std::int64_t element_size, std::int64_t vector, bool weight) {
  Plan best;
  const std::int64_t total = p.batch * p.pixels();
  if (total == 0) return best;

  // Lanes bound the parallelism of weight gradients; each costs a pass over a matrix of partial sums.
  std::int64_t lanes = 1;
  while (weight && lanes < 32 && total / (2 * lanes) >= 256) lanes *= 2;

  // Long runs amortise what is done once per tile (for weight gradients: the sums across a vector); enough tiles keep
  // every core busy.
  const std::int64_t longest =
      weight ? std::clamp<std::int64_t>(total / lanes, 64, 1024) : std::clamp<std::int64_t>(total / 16, 64, 512);
  const std::int64_t channels = std::max<std::int64_t>(1, p.c_in + (weight ? p.c_out : 0));
  const std::int64_t budget = std::max<std::int64_t>(1, (weight ? 4 : 1) * cache_bytes / (channels * element_size));

  double best_cost = std::numeric_limits<double>::infinity();
  for (int axis = 0; axis <= p.dims; ++axis) {
    const std::int64_t inner = inner_pixels(p, axis);
    const std::int64_t halo = axis == 0 ? 0 : inner;
    const int walked_axes = std::max(0, axis - 1);
    const int slots = 1 + 2 * walked_axes;
    const std::int64_t fitting = (std::min(longest, budget / slots - 2 * halo)) / inner;
    if (fitting < 1 && axis < p.dims) continue;
    const std::int64_t most = std::clamp<std::int64_t>(fitting, 1, p.axis_extent(axis));
    const std::int64_t slices = ceil_div(p.axis_extent(axis), most);
    const std::int64_t rows = ceil_div(p.axis_extent(axis), slices);
    const std::int64_t used_halo = slices == 1 ? 0 : halo;
    const double this_cost = cost(p, rows * inner, used_halo, walked_axes, vector);
    if (this_cost >= best_cost) continue;
    best_cost = this_cost;
    best.slice_axis = axis;
    best.inner = inner;
    best.rows = rows;
    best.slices = slices;
    best.slots = slots;
  }

  best.run = best.rows * best.inner;
  const std::int64_t line = 64 / element_size;
  // The farthest neighbour within a slot: one step along the slice axis, or along the outermost axis of an image.
  const std::int64_t reach = best.slice_axis == 0 ? inner_pixels(p, 1) : best.inner;
  best.margin = round_up(reach, line);
  best.row_length = spread_row(best.margin + round_up(best.run, 2 * vector) + best.margin + 2 * vector, element_size);
  best.slot_size = best.row_length * p.c_in;
  best.out_row_length = spread_row(best.run + vector, element_size);

  best.walk = 1;
  for (int axis = 0; axis < best.slice_axis; ++axis) best.walk *= p.axis_extent(axis);
  // A new chunk packs its neighbours again, so chunks are as long as a few dozen units allow.
  best.chunk = best.slots > 1 ? std::clamp<std::int64_t>(best.walk * best.slices / 32, 4, 64) : 1;
  best.units = ceil_div(best.walk, best.chunk) * best.slices;

  while (lanes > best.units) lanes /= 2;
  best.lanes = lanes;
  best.many_tiles = best.walk * best.slices / lanes > 8;
  return best;
}

}  // namespace leancore::detail::cpu
