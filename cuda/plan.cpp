#include "plan.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace leancore::detail::cuda {
namespace {

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

// Steps that leave the image from every position act alike, however long they are; short ones cannot overflow.
ConvDesc with_short_steps(ConvDesc d) {
  for (int a = 0; a < d.dims; ++a) {
    d.stride[a] = std::min(d.stride[a], std::max<std::int64_t>(1, d.extents[a]));
    d.dilation[a] = std::min(d.dilation[a], std::max<std::int64_t>(1, d.extents[a]));
  }
  return d;
}

// ---- may the kernel count in 32 bits? ----------------------------------------------------------------------------

// Kernels add a step or two to an index before they compare it with a limit.
constexpr std::int64_t narrow_limit = std::numeric_limits<std::int32_t>::max() / 2;

bool spans_narrowly(int axes, const std::int64_t* shape, const std::int64_t* strides) {
  std::int64_t reach = 0;
  for (int a = 0; a < axes; ++a) {
    const std::int64_t steps = shape[a] - 1, stride = strides[a] < 0 ? -strides[a] : strides[a];
    if (steps <= 0) continue;
    if (stride > narrow_limit / steps) return false;
    reach += stride * steps;
    if (reach > narrow_limit) return false;
  }
  return true;
}

// Strides of axes that are never walked may be anything.
void drop_unused_strides(int axes, const std::int64_t* shape, std::int64_t* strides) {
  for (int a = 0; a < axes; ++a) {
    if (shape[a] <= 1) strides[a] = 0;
  }
}

// All arrays of a call: their shapes, and the strides that matter.
struct Shapes {
  std::int64_t x[max_axes] = {}, y[max_axes] = {}, alpha[2] = {}, c[2] = {};

  explicit Shapes(ConvDesc& d) {
    x[0] = y[0] = d.batch;
    x[1] = alpha[1] = d.c_in;
    y[1] = alpha[0] = d.c_out;
    c[0] = d.diagonal();
    c[1] = 2 * d.dims;
    for (int a = 0; a < d.dims; ++a) {
      x[a + 2] = d.extents[a];
      y[a + 2] = d.y_extent(a);
    }
    drop_unused_strides(d.dims + 2, x, d.x_strides);
    drop_unused_strides(d.dims + 2, y, d.y_strides);
    drop_unused_strides(2, alpha, d.alpha_strides);
    drop_unused_strides(2, c, d.c_strides);
    if (d.c_out <= 1) d.bias_stride = 0;
  }
  [[nodiscard]] bool narrow(const ConvDesc& d) const {
    return spans_narrowly(d.dims + 2, x, d.x_strides) && spans_narrowly(d.dims + 2, y, d.y_strides) &&
           spans_narrowly(2, alpha, d.alpha_strides) && spans_narrowly(2, c, d.c_strides) &&
           spans_narrowly(1, &d.c_out, &d.bias_stride) && count(d, x) <= narrow_limit && count(d, y) <= narrow_limit;
  }
  // Elements; validated to fit in 63 bits.
  [[nodiscard]] static std::int64_t count(const ConvDesc& d, const std::int64_t* shape) {
    std::int64_t product = 1;
    for (int a = 0; a < d.dims + 2; ++a) {
      if (shape[a] == 0) return 0;
    }
    for (int a = 0; a < d.dims + 2; ++a) product *= shape[a];
    return product;
  }
};

// ---- generic kernels ---------------------------------------------------------------------------------------------

// Spatial axes to the four of the generic kernels, padding in front.
void pad_axes(int dims, const std::int64_t* from, std::int64_t padding, std::int64_t (&to)[max_dims]) {
  std::fill_n(to, max_dims - dims, padding);
  std::copy_n(from, dims, to + max_dims - dims);
}
void pad_strides(int dims, const std::int64_t* from, std::int64_t (&to)[max_axes]) {
  std::copy_n(from, 2, to);
  std::fill_n(to + 2, max_dims - dims, std::int64_t{0});
  std::copy_n(from + 2, dims, to + 2 + max_dims - dims);
}

LaunchShape one_thread_each(std::int64_t count) {
  LaunchShape shape;
  shape.block = generic_threads;
  shape.grid[0] = static_cast<std::uint32_t>(std::min(ceil_div(count, generic_threads), most_blocks_x));
  return shape;
}

void plan_apply(Operation operation, ConvDesc d, Plan& plan) {
  const bool adjoint = operation == Operation::backward_data;
  const Shapes shapes(d);
  const std::int64_t* out_shape = adjoint ? shapes.x : shapes.y;
  ApplyPlan apply;
  ApplyParameters<std::int64_t>& p = apply.parameters;
  p.outputs = Shapes::count(d, out_shape);
  if (p.outputs == 0) return;

  p.batch = d.batch;
  p.out_channels = adjoint ? d.c_in : d.c_out;
  p.in_channels = adjoint ? d.c_out : d.c_in;
  p.stencil_channels = d.diagonal();
  pad_axes(d.dims, out_shape + 2, 1, p.out_extents);
  pad_axes(d.dims, (adjoint ? shapes.y : shapes.x) + 2, 1, p.in_extents);
  pad_axes(d.dims, d.stride, 1, p.stride);
  pad_axes(d.dims, d.dilation, 1, p.dilation);
  pad_strides(d.dims, adjoint ? d.x_strides : d.y_strides, p.out_strides);
  pad_strides(d.dims, adjoint ? d.y_strides : d.x_strides, p.in_strides);
  p.alpha_out = d.alpha_strides[adjoint ? 1 : 0];
  p.alpha_in = d.alpha_strides[adjoint ? 0 : 1];
  p.c_channel = d.c_strides[0];
  p.c_tap = d.c_strides[1];
  p.bias_stride = d.bias_stride;
  p.first_axis = max_dims - d.dims;
  p.channels_last = p.out_channels > 1 && p.out_strides[1] == 1;
  apply.adjoint = adjoint;
  apply.wide = !shapes.narrow(d);
  apply.launch = one_thread_each(p.outputs);
  plan.steps = apply;
}

// Enough blocks for the largest GPUs, as far as each has a few hundred positions to add and the partial results stay
// below 128 MiB.
std::int64_t generic_splits(std::int64_t positions, std::int64_t tiles, std::int64_t elements) {
  constexpr std::int64_t blocks = 2048, fewest_positions = 4 * longest_sum, most_elements = std::int64_t{1} << 24;
  const std::int64_t splits = std::min(
      {ceil_div(blocks, tiles), ceil_div(positions, fewest_positions), most_elements / elements, most_blocks_yz});
  return std::max<std::int64_t>(1, splits);
}

void plan_weight(ConvDesc d, bool want_alpha, bool want_c, Plan& plan) {
  const Shapes shapes(d);
  WeightPlan weight;
  WeightParameters<std::int64_t>& p = weight.parameters;
  const std::int64_t taps = 2 * d.dims;
  p.alpha_elements = want_alpha ? d.c_out * d.c_in : 0;
  p.elements = p.alpha_elements + (want_c ? d.diagonal() * taps : 0);
  if (p.elements == 0) return;

  ReduceParameters& r = weight.reduce;
  r.elements = p.elements;
  r.alpha_elements = p.alpha_elements;
  r.c_in = d.c_in;
  r.taps = taps;
  std::copy_n(d.alpha_strides, 2, r.dalpha_strides);
  std::copy_n(d.c_strides, 2, r.dc_strides);
  weight.reduction = one_thread_each(p.elements);

  p.positions = d.c_out == 0 ? 0 : Shapes::count(d, shapes.y) / d.c_out;
  if (p.positions > 0) {
    p.c_in = d.c_in;
    p.c_out = d.c_out;
    p.stencil_channels = d.diagonal();
    pad_axes(d.dims, shapes.y + 2, 1, p.y_extents);
    pad_axes(d.dims, shapes.x + 2, 1, p.x_extents);
    pad_axes(d.dims, d.stride, 1, p.stride);
    pad_axes(d.dims, d.dilation, 1, p.dilation);
    pad_strides(d.dims, d.y_strides, p.y_strides);
    pad_strides(d.dims, d.x_strides, p.x_strides);
    p.first_axis = max_dims - d.dims;
    const std::int64_t across = ceil_div(d.c_in, weight_tile);
    const std::int64_t alpha_tiles = want_alpha ? across * ceil_div(d.c_out, weight_tile) : 0;
    const std::int64_t tiles = alpha_tiles + (want_c ? ceil_div(d.diagonal(), stencil_tile) : 0);
    if (tiles > most_blocks_x) {
      plan.steps = TooLargePlan{};
      return;
    }
    const std::int64_t splits = generic_splits(p.positions, tiles, p.elements);
    p.alpha_tiles_across = static_cast<std::int32_t>(across);
    p.alpha_tiles = static_cast<std::int32_t>(alpha_tiles);
    p.positions_per_split = ceil_div(ceil_div(p.positions, splits), longest_sum) * longest_sum;
    r.splits = static_cast<std::int32_t>(ceil_div(p.positions, p.positions_per_split));
    weight.launch.grid[0] = static_cast<std::uint32_t>(tiles);
    weight.launch.grid[1] = static_cast<std::uint32_t>(r.splits);
    weight.launch.block = generic_threads;
    weight.wide = !shapes.narrow(d) || p.elements > narrow_limit;
    const std::size_t accumulator = d.dtype == DType::f64 ? sizeof(double) : sizeof(float);
    plan.workspace_bytes = static_cast<std::size_t>(r.splits) * static_cast<std::size_t>(p.elements) * accumulator;
  }
  plan.steps = weight;
}

}  // namespace

Plan make_plan(Operation operation, const ConvDesc& desc, const Arguments& arguments, const DeviceFacts&) {
  const ConvDesc d = with_short_steps(desc);
  Plan plan;
  plan.dtype = d.dtype;
  if (operation == Operation::backward_weight) {
    plan_weight(d, arguments.dalpha != nullptr, arguments.dc != nullptr, plan);
  } else {
    plan_apply(operation, d, plan);
  }
  return plan;
}

std::size_t most_workspace(Operation operation, const ConvDesc& desc) {
  if (operation != Operation::backward_weight) return 0;
  std::size_t most = 0;
  // Without one of the gradients there are fewer elements and therefore, perhaps, more splits.
  for (const auto& [want_alpha, want_c] : {std::pair{true, true}, {true, false}, {false, true}}) {
    Plan plan;
    plan_weight(with_short_steps(desc), want_alpha, want_c, plan);
    most = std::max(most, plan.workspace_bytes);
  }
  return most;
}

}  // namespace leancore::detail::cuda
