#include "plan.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "tiles.hpp"

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

// ---- row-marching kernels ----------------------------------------------------------------------------------------

// One side of a call as rows of pixels.
struct RowsSide {
  const void* data;
  std::int64_t channels, image, channel, row, column;  // strides
};

// The largest copy (16, 4 or 2 bytes) that divides everything that an address of the side is made of.
int copy_bytes_of(const RowsSide& side, std::int64_t width, std::int64_t element) {
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(side.data) % 16);
  for (const std::int64_t bytes : {std::int64_t{16}, std::int64_t{4}}) {
    const auto divides = [&](std::int64_t elements) { return elements * element % bytes == 0; };
    if (address % bytes == 0 && divides(width) && divides(side.image) && divides(side.channel) && divides(side.row)) {
      return static_cast<int>(bytes);
    }
  }
  return 2;
}

// Rows are contiguous, and an offset within an image fits in 31 bits.
bool has_rows(const RowsSide& side, std::int64_t height, std::int64_t width) {
  const std::int64_t shape[] = {side.channels, height, width}, strides[] = {side.channel, side.row, side.column};
  return (width == 1 || side.column == 1) && side.channel >= 0 && side.row >= 0 && side.image >= 0 &&
         spans_narrowly(3, shape, strides) && side.channel <= narrow_limit && side.row <= narrow_limit;
}

// How rows of pixels go into the slots of a tile.
struct RowsCut {
  std::int64_t slot_row = 0, rows_per_block = 0, strips = 1;
  double useful = 0;  // share of a slot's pixels that are pixels of the image
};
RowsCut cut_rows(const RowsTile& tile, std::int64_t height, std::int64_t width, std::int64_t piece) {
  RowsCut cut;
  cut.slot_row = ceil_div(width, piece) * piece;
  if (cut.slot_row <= tile.pixels) {
    cut.rows_per_block = std::min(tile.pixels / cut.slot_row, height);
  } else {
    cut.slot_row = tile.pixels;
    cut.rows_per_block = 1;
    cut.strips = ceil_div(width, tile.pixels);
  }
  const auto slots = static_cast<double>(ceil_div(height, cut.rows_per_block) * cut.strips * tile.pixels);
  cut.useful = static_cast<double>(height) * static_cast<double>(width) / slots;
  return cut;
}

// bf16 on tensor cores needs compute capability 8.0.
bool runs_on(const RowsTile& tile, DType dtype, const DeviceFacts& device) {
  const bool type =
      tile.tensor ? dtype == DType::f16 || (dtype == DType::bf16 && device.architecture >= 80) : dtype == DType::f32;
  return type && static_cast<std::size_t>(tile.shared_bytes) <= device.shared_bytes_per_block;
}

// Chunks of an image's row-blocks: more of them fill more multiprocessors, but each reads two more rows.
std::int64_t rows_chunks(std::int64_t other_blocks, std::int64_t height, std::int64_t rows_per_block) {
  constexpr std::int64_t enough_blocks = 1024, fewest_rows = 16;
  const std::int64_t most = std::max<std::int64_t>(1, height / std::max(fewest_rows, rows_per_block));
  return std::clamp<std::int64_t>(ceil_div(enough_blocks, other_blocks), 1, most);
}

// A call as rows of pixels; nothing where it is none.
struct RowsProblem {
  bool adjoint;
  std::int64_t height, width, element;
  RowsSide in, out;
};
std::optional<RowsProblem> rows_problem(Operation operation, const ConvDesc& d, const Arguments& a) {
  if (d.dims > 2 || d.batch == 0 || d.c_in == 0 || d.c_out == 0) return {};
  if (operation != Operation::forward && operation != Operation::backward_data) return {};
  for (int axis = 0; axis < d.dims; ++axis) {
    if (d.stride[axis] != 1 || d.dilation[axis] != 1 || d.extents[axis] == 0) return {};
  }
  const auto side = [&](const void* data, std::int64_t channels, const std::int64_t* strides) {
    return RowsSide{data, channels, strides[0], strides[1], d.dims == 2 ? strides[2] : 0, strides[d.dims + 1]};
  };
  const bool adjoint = operation == Operation::backward_data;
  const RowsSide x = side(adjoint ? a.dx : a.x, d.c_in, d.x_strides);
  const RowsSide y = side(adjoint ? a.dy : a.y, d.c_out, d.y_strides);
  const std::int64_t height = d.dims == 2 ? d.extents[0] : 1, width = d.extents[d.dims - 1];
  if (!has_rows(x, height, width) || !has_rows(y, height, width)) return {};
  return RowsProblem{adjoint, height, width, info(d.dtype).size, adjoint ? y : x, adjoint ? x : y};
}

RowsParameters rows_parameters(const RowsProblem& problem, const ConvDesc& d) {
  const auto as_int = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
  const auto& [adjoint, height, width, element, in, out] = problem;
  RowsParameters p;
  p.height = as_int(height);
  p.width = as_int(width);
  p.in_channels = as_int(in.channels);
  p.out_channels = as_int(out.channels);
  p.stencil_channels = as_int(d.diagonal());
  p.in_image = in.image;
  p.in_channel = as_int(in.channel);
  p.in_row = as_int(in.row);
  p.out_image = out.image;
  p.out_channel = as_int(out.channel);
  p.out_row = as_int(out.row);
  p.alpha_out = d.alpha_strides[adjoint ? 1 : 0];
  p.alpha_in = d.alpha_strides[adjoint ? 0 : 1];
  p.c_channel = d.c_strides[0];
  p.bias_stride = d.bias_stride;
  // Columns of c for up, left, right, down; the adjoint mirrors them. A single row has neither up nor down.
  const int two[] = {0, 1, 2, 3}, one[] = {0, 0, 1, 0}, last = 2 * d.dims - 1;
  for (int tap = 0; tap < 4; ++tap) {
    const int column = (d.dims == 2 ? two : one)[tap];
    p.c_tap[tap] = (adjoint ? last - column : column) * d.c_strides[1];
  }
  return p;
}

std::optional<RowsPlan> plan_rows(int tile_index, const RowsProblem& problem, const ConvDesc& d) {
  const RowsTile& tile = rows_tiles[tile_index];
  if (tile.channels < problem.in.channels) return {};
  const RowsCut cut = cut_rows(tile, problem.height, problem.width, 16 / problem.element);
  const std::int64_t blocks = ceil_div(problem.height, cut.rows_per_block);
  const std::int64_t output_blocks = ceil_div(problem.out.channels, tile.block_outputs);
  const std::int64_t chunks = rows_chunks(d.batch * cut.strips * output_blocks, problem.height, cut.rows_per_block);
  RowsPlan rows;
  rows.tile = tile_index;
  rows.adjoint = problem.adjoint;
  rows.copy_bytes = std::min(copy_bytes_of(problem.in, problem.width, problem.element),
                             copy_bytes_of(problem.out, problem.width, problem.element));
  RowsParameters& p = rows.parameters;
  p = rows_parameters(problem, d);
  p.slot_row = static_cast<std::int32_t>(cut.slot_row);
  p.rows_per_block = static_cast<std::int32_t>(cut.rows_per_block);
  p.strips = static_cast<std::int32_t>(cut.strips);
  p.blocks = static_cast<std::int32_t>(blocks);
  p.blocks_per_chunk = static_cast<std::int32_t>(ceil_div(blocks, chunks));
  p.chunks = static_cast<std::int32_t>(ceil_div(blocks, p.blocks_per_chunk));
  if (d.batch > most_blocks_x / (cut.strips * p.chunks) || output_blocks > most_blocks_yz) return {};
  rows.launch.grid[0] = static_cast<std::uint32_t>(d.batch * cut.strips * p.chunks);
  rows.launch.grid[1] = static_cast<std::uint32_t>(output_blocks);
  rows.launch.block = static_cast<std::uint32_t>(tile.threads);
  rows.launch.shared_bytes = static_cast<std::uint32_t>(tile.shared_bytes);
  return rows;
}

// The tile of the fewest channels that wastes least of its slots, the first of equals; nothing where none is any good.
std::optional<RowsPlan> choose_rows(Operation operation, const ConvDesc& desc, const Arguments& a,
                                    const DeviceFacts& device) {
  ConvDesc d = desc;
  const Shapes shapes(d);
  const std::optional<RowsProblem> problem = rows_problem(operation, d, a);
  if (!problem) return {};
  constexpr double least_useful = 0.1;
  double most_useful = least_useful;
  int best = -1;
  for (int i = 0; i < static_cast<int>(std::size(rows_tiles)); ++i) {
    const RowsTile& tile = rows_tiles[i];
    if (tile.channels < problem->in.channels || !runs_on(tile, d.dtype, device)) continue;
    if (best >= 0 && tile.channels > rows_tiles[best].channels) break;
    const double useful = cut_rows(tile, problem->height, problem->width, 16 / problem->element).useful;
    if (useful <= most_useful) continue;
    most_useful = useful;
    best = i;
  }
  return best < 0 ? std::nullopt : plan_rows(best, *problem, d);
}

}  // namespace

Plan make_plan(Operation operation, const ConvDesc& desc, const Arguments& arguments, const DeviceFacts& device,
               Choice choice) {
  const ConvDesc d = with_short_steps(desc);
  Plan plan;
  plan.dtype = d.dtype;
  if (operation == Operation::backward_weight) {
    plan_weight(d, arguments.dalpha != nullptr, arguments.dc != nullptr, plan);
    return plan;
  }
  const std::optional<RowsPlan> rows =
      choice == Choice::generic ? std::nullopt : choose_rows(operation, d, arguments, device);
  if (rows) {
    plan.steps = *rows;
  } else {
    plan_apply(operation, d, plan);
  }
  return plan;
}

std::optional<RowsPlan> plan_tile(int tile, Operation operation, const ConvDesc& desc, const Arguments& arguments) {
  ConvDesc d = with_short_steps(desc);
  const Shapes shapes(d);
  const std::optional<RowsProblem> problem = rows_problem(operation, d, arguments);
  return problem ? plan_rows(tile, *problem, d) : std::nullopt;
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
