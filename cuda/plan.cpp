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

// The partial results of the weights' gradients, and how they are added.
void set_reduction(const ConvDesc& d, bool want_alpha, bool want_c, ReduceParameters& r, LaunchShape& launch) {
  r.taps = 2 * d.dims;
  r.alpha_elements = want_alpha ? d.c_out * d.c_in : 0;
  r.elements = r.alpha_elements + (want_c ? d.diagonal() * r.taps : 0);
  r.c_in = d.c_in;
  std::copy_n(d.alpha_strides, 2, r.dalpha_strides);
  std::copy_n(d.c_strides, 2, r.dc_strides);
  launch = one_thread_each(r.elements);
}

std::size_t workspace_of(const ReduceParameters& r, DType dtype) {
  const std::size_t sum = dtype == DType::f64 ? sizeof(double) : sizeof(float);
  return static_cast<std::size_t>(r.splits) * static_cast<std::size_t>(r.elements) * sum;
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
  ReduceParameters& r = weight.reduce;
  set_reduction(d, want_alpha, want_c, r, weight.reduction);
  p.alpha_elements = r.alpha_elements;
  p.elements = r.elements;
  if (p.elements == 0) return;

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
    plan.workspace_bytes = workspace_of(r, d.dtype);
  }
  plan.steps = weight;
}

// ---- row-marching kernels ----------------------------------------------------------------------------------------

std::int32_t as_int(std::int64_t value) {
  return static_cast<std::int32_t>(value);
}

// Whether everything that an address of the side is made of is a multiple of `bytes`, and the contiguous axis too: the
// width of rows, or the channels of pixels.
bool is_multiple(const RowsSide& side, bool channels_last, std::int64_t width, std::int64_t element,
                 std::int64_t bytes) {
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(side.data) % 16);
  const auto divides = [&](std::int64_t elements) { return elements * element % bytes == 0; };
  return address % bytes == 0 && divides(side.image) && divides(side.plane) && divides(side.row) &&
         (channels_last ? divides(side.channels) && divides(side.column) : divides(width) && divides(side.channel));
}

// A call as rows of pixels.
struct RowsProblem {
  std::int64_t depth, height, width, element;
  bool channels_last;  // the channels of a pixel are contiguous; else the pixels of a row are
  RowsSide x, y;

  // Bytes of the largest copies (16, 4 or 2) that contiguous rows, or channels, allow.
  [[nodiscard]] int copy_bytes() const {
    for (const int bytes : {16, 4}) {
      if (is_multiple(x, channels_last, width, element, bytes) &&
          is_multiple(y, channels_last, width, element, bytes)) {
        return bytes;
      }
    }
    return 2;
  }
};

// The last spatial axes but `from_last`; of an axis that there is not, extent 1 and stride 0.
std::int64_t extent(const ConvDesc& d, int from_last) {
  return from_last < d.dims ? d.extents[d.dims - 1 - from_last] : 1;
}
std::int64_t stride(const ConvDesc& d, const std::int64_t* strides, int from_last) {
  return from_last < d.dims ? strides[d.dims + 1 - from_last] : 0;
}

// An array where offsets within a plane are not negative and fit in 31 bits; nothing where they do not.
std::optional<RowsSide> rows_side(const void* data, std::int64_t channels, const ConvDesc& d,
                                  const std::int64_t* strides) {
  const std::int64_t column = stride(d, strides, 0), row = stride(d, strides, 1), plane = stride(d, strides, 2);
  const std::int64_t shape[] = {channels, extent(d, 1), extent(d, 0)}, inner[] = {strides[1], row, column};
  if (std::min({strides[0], strides[1], plane, row, column}) < 0 || !spans_narrowly(3, shape, inner)) return {};
  return RowsSide{data, as_int(channels), as_int(column), strides[0], as_int(strides[1]), as_int(row), plane};
}

// Planes of volumes count as images.
std::int64_t images(const ConvDesc& d) {
  return d.batch * extent(d, 2);
}

// Nothing where the call is not one of rows: the kernels know neither stride nor dilation, and no empty arrays; not all
// know volumes.
std::optional<RowsProblem> rows_problem(const ConvDesc& d, const void* x, const void* y, int most_dims = 2) {
  if (d.dims > most_dims || d.batch == 0 || d.c_in == 0 || d.c_out == 0) return {};
  if (std::max(d.batch, extent(d, 2)) > narrow_limit) return {};
  for (int axis = 0; axis < d.dims; ++axis) {
    if (d.stride[axis] != 1 || d.dilation[axis] != 1 || d.extents[axis] == 0) return {};
  }
  const std::int64_t width = extent(d, 0);
  const std::optional<RowsSide> x_side = rows_side(x, d.c_in, d, d.x_strides);
  const std::optional<RowsSide> y_side = rows_side(y, d.c_out, d, d.y_strides);
  if (!x_side || !y_side) return {};
  const bool rows = width == 1 || (x_side->column == 1 && y_side->column == 1);
  const bool pixels = (d.c_in == 1 || x_side->channel == 1) && (d.c_out == 1 || y_side->channel == 1);
  if (!rows && !pixels) return {};
  return RowsProblem{extent(d, 2), extent(d, 1), width, info(d.dtype).size, !rows, *x_side, *y_side};
}

// Channels-last kernels read 16 bytes and write 4 elements at a time.
bool has_vectors(const RowsSide& in, const RowsSide& out, std::int64_t element) {
  const auto multiple = [element](const RowsSide& side, std::int64_t elements) {
    return reinterpret_cast<std::uintptr_t>(side.data) % static_cast<std::size_t>(element * elements) == 0 &&
           side.channels % elements == 0 && side.image % elements == 0 && side.plane % elements == 0 &&
           side.row % elements == 0 && side.column % elements == 0;
  };
  return multiple(in, 16 / element) && multiple(out, 4);
}

// How the rows go into slots of so many pixels; all row-blocks in one chunk.
RowsCut cut_rows(const RowsProblem& problem, std::int64_t pixels) {
  const std::int64_t piece = problem.channels_last ? 1 : 16 / problem.element;
  const std::int64_t padded = ceil_div(problem.width, piece) * piece;
  const bool narrow = padded <= pixels;
  RowsCut cut;
  cut.depth = as_int(problem.depth);
  cut.height = as_int(problem.height);
  cut.width = as_int(problem.width);
  cut.slot_row = as_int(narrow ? padded : pixels);
  cut.rows_per_block = as_int(narrow ? std::min(pixels / padded, problem.height) : 1);
  cut.strips = as_int(narrow ? 1 : ceil_div(problem.width, pixels));
  cut.blocks = cut.blocks_per_chunk = as_int(ceil_div(problem.height, cut.rows_per_block));
  cut.chunks = 1;
  return cut;
}

// Share of the slots' pixels that are pixels of the image.
double useful(const RowsCut& cut, int pixels) {
  return static_cast<double>(cut.height) * cut.width / (static_cast<double>(cut.blocks) * cut.strips * pixels);
}
// Below this the generic kernels, which waste nothing, are taken.
constexpr double least_useful = 0.1;

void set_chunks(RowsCut& cut, std::int64_t chunks) {
  cut.blocks_per_chunk = as_int(ceil_div(cut.blocks, chunks));
  cut.chunks = as_int(ceil_div(cut.blocks, cut.blocks_per_chunk));
}

// More chunks fill more multiprocessors, but each reads two more rows.
std::int64_t enough_chunks(const RowsCut& cut, std::int64_t other_blocks) {
  constexpr std::int64_t enough_blocks = 1024, fewest_rows = 16;
  const std::int64_t most = cut.height / std::max<std::int64_t>(fewest_rows, cut.rows_per_block);
  return std::clamp<std::int64_t>(ceil_div(enough_blocks, other_blocks), 1, std::max<std::int64_t>(1, most));
}

// Offsets of the columns of c for up, left, right, down, front, back, from `first` on; the adjoint mirrors them. A
// single row has neither up nor down, a plane neither front nor back.
template <int taps>
void set_taps(const ConvDesc& d, bool adjoint, int first, std::int64_t (&offsets)[taps]) {
  constexpr int columns[][6] = {{0, 0, 1, 0, 0, 0}, {0, 1, 2, 3, 0, 0}, {1, 2, 3, 4, 0, 5}};
  for (int tap = 0; tap < taps; ++tap) {
    const int column = columns[d.dims - 1][first + tap];
    offsets[tap] = (adjoint ? 2 * d.dims - 1 - column : column) * d.c_strides[1];
  }
}

// Nothing where the tile cannot take the call.
std::optional<RowsPlan> plan_rows(int tile_index, Operation operation, const RowsProblem& problem, const ConvDesc& d) {
  const RowsTile& tile = rows_tiles[tile_index];
  RowsPlan rows;
  rows.tile = tile_index;
  rows.adjoint = operation == Operation::backward_data;
  rows.volume = d.dims == 3;
  rows.copy_bytes = problem.copy_bytes();
  RowsParameters& p = rows.parameters;
  p.in = rows.adjoint ? problem.y : problem.x;
  p.out = rows.adjoint ? problem.x : problem.y;
  if (tile.channels < p.in.channels || problem.channels_last != is_channels_last(tile.kind)) return {};
  if (rows.volume && !tile.takes_volumes) return {};
  if (problem.channels_last && !has_vectors(p.in, p.out, problem.element)) return {};
  p.cut = cut_rows(problem, tile.pixels);
  const std::int64_t output_blocks = ceil_div(p.out.channels, tile.block_outputs);
  set_chunks(p.cut, enough_chunks(p.cut, images(d) * p.cut.strips * output_blocks));
  const std::int64_t units_per_image = std::int64_t{p.cut.strips} * p.cut.chunks;
  if (images(d) > most_blocks_x / units_per_image || output_blocks > most_blocks_yz) return {};

  p.stencil_channels = as_int(d.diagonal());
  p.alpha_out = d.alpha_strides[rows.adjoint ? 1 : 0];
  p.alpha_in = d.alpha_strides[rows.adjoint ? 0 : 1];
  p.c_channel = d.c_strides[0];
  p.bias_stride = d.bias_stride;
  set_taps(d, rows.adjoint, 0, p.c_tap);
  set_taps(d, rows.adjoint, 4, p.c_plane);
  rows.launch.grid[0] = static_cast<std::uint32_t>(images(d) * units_per_image);
  rows.launch.grid[1] = static_cast<std::uint32_t>(output_blocks);
  rows.launch.block = static_cast<std::uint32_t>(rows.volume ? tile.volume_threads : tile.threads);
  rows.launch.shared_bytes = static_cast<std::uint32_t>(tile.shared_bytes);
  return rows;
}

// Tensor cores know bf16 and TF32 from compute capability 8.0 on.
bool runs_on(const RowsTile& tile, DType dtype, const DeviceFacts& device) {
  const bool bf16_and_tf32 = device.architecture >= 80;
  bool type = false;
  switch (tile.kind) {
    case RowsKind::fma:
      type = dtype == DType::f32;
      break;
    case RowsKind::tf32x3:
    case RowsKind::tf32:
    case RowsKind::last_tf32x3:
    case RowsKind::last_tf32:
      type = dtype == DType::f32 && bf16_and_tf32;
      break;
    case RowsKind::tensor:
    case RowsKind::last:
      type = dtype == DType::f16 || (dtype == DType::bf16 && bf16_and_tf32);
      break;
  }
  return type && static_cast<std::size_t>(tile.shared_bytes) <= device.shared_bytes_per_block;
}

// Of fp32, by the peaks of the data sheets: the ordinary multipliers keep up with memory at up to 32 channels
// everywhere, and at up to 64, or nearly, but in data centres, where tensor cores do three products of TF32 numbers in
// less time than those take for one. Channels-last, there are tiles on tensor cores alone.
RowsKind rows_kind(const ConvDesc& d, bool channels_last, std::int32_t channels, const DeviceFacts& device,
                   Choice choice) {
  if (d.dtype != DType::f32) return channels_last ? RowsKind::last : RowsKind::tensor;
  const bool coarse = choice == Choice::tf32 && channels > 32;
  if (channels_last) return coarse ? RowsKind::last_tf32 : RowsKind::last_tf32x3;
  const int architecture = device.architecture;
  if (architecture < 80 || channels <= 32) return RowsKind::fma;
  if (coarse) return RowsKind::tf32;
  const bool fast_tf32 = architecture == 80 || architecture == 90 || architecture == 100 || architecture == 103;
  return channels > 64 || fast_tf32 ? RowsKind::tf32x3 : RowsKind::fma;
}

// Of the tiles of the fewest channels, the one that wastes least of its slots, the first of equals; nothing where none
// is any good.
std::optional<RowsPlan> choose_rows(Operation operation, ConvDesc d, const Arguments& a, const DeviceFacts& device,
                                    Choice choice) {
  const Shapes shapes(d);
  const bool adjoint = operation == Operation::backward_data;
  const std::optional<RowsProblem> problem = rows_problem(d, adjoint ? a.dx : a.x, adjoint ? a.dy : a.y, 3);
  if (!problem) return {};
  const std::int32_t channels = (adjoint ? problem->y : problem->x).channels;
  const RowsKind kind = rows_kind(d, problem->channels_last, channels, device, choice);
  double most_useful = least_useful;
  int best = -1, fewest_channels = 0;
  for (int i = 0; i < static_cast<int>(std::size(rows_tiles)); ++i) {
    const RowsTile& tile = rows_tiles[i];
    if (tile.kind != kind || tile.channels < channels || !runs_on(tile, d.dtype, device)) continue;
    if (d.dims == 3 && !tile.takes_volumes) continue;
    if (fewest_channels != 0 && tile.channels > fewest_channels) break;
    fewest_channels = tile.channels;
    const double share = useful(cut_rows(*problem, tile.pixels), tile.pixels);
    if (share <= most_useful) continue;
    most_useful = share;
    best = i;
  }
  return best < 0 ? std::nullopt : plan_rows(best, operation, *problem, d);
}

// ---- kernels of many channels ------------------------------------------------------------------------------------

// Rows of tiles, nothing wasted but the end of narrow rows. In strips, wide images need no more of rows above and below
// than narrow ones.
DeepCut cut_deep(const RowsProblem& problem, std::int64_t all_images, const DeepTileFacts& tile) {
  const std::int64_t piece = problem.channels_last ? 1 : 16 / problem.element;
  const std::int64_t padded = ceil_div(problem.width, piece) * piece;
  DeepCut cut;
  cut.height = as_int(problem.height);
  cut.width = as_int(problem.width);
  cut.depth = as_int(problem.depth);
  cut.rows = as_int(all_images * problem.height);
  cut.tile_columns = as_int(std::min<std::int64_t>(padded, tile.strip));
  cut.tile_rows = tile.pixels / cut.tile_columns;
  cut.strips = as_int(ceil_div(problem.width, cut.tile_columns));
  return cut;
}

std::int64_t tiles_of(const DeepCut& cut) {
  return ceil_div(cut.rows, cut.tile_rows) * cut.strips;
}

// Nothing where the tile cannot take the call.
std::optional<DeepPlan> plan_deep(int tile_index, Operation operation, const RowsProblem& problem, const ConvDesc& d) {
  const DeepTileFacts& tile = deep_tiles[tile_index];
  if (problem.element != tile.element || problem.height > narrow_limit / images(d)) return {};
  DeepPlan deep;
  deep.tile = tile_index;
  deep.adjoint = operation == Operation::backward_data;
  deep.copy_bytes = problem.copy_bytes();
  DeepParameters& p = deep.parameters;
  p.in = deep.adjoint ? problem.y : problem.x;
  p.out = deep.adjoint ? problem.x : problem.y;
  p.cut = cut_deep(problem, images(d), tile);
  if (problem.channels_last && !has_vectors(p.in, p.out, problem.element)) return {};
  // Between the rows of strips there is room for the pixels beside them.
  const bool strips = p.cut.strips > 1;
  if (problem.channels_last) {
    p.row_pitch = (p.cut.tile_columns + (strips ? 2 : 0)) * deep_pixel_pitch;
    p.below = strips ? p.cut.tile_rows * p.row_pitch : tile.pixels * deep_pixel_pitch;
    p.pixel_bytes = p.below + 2 * p.row_pitch;
  } else {
    p.row_pitch = p.cut.tile_columns * tile.element + (strips ? 16 : 0);
    p.below = strips ? p.cut.tile_rows * p.row_pitch : tile.pixels * tile.element;
    p.pitch = p.below + 2 * p.row_pitch + 16;
    p.pixel_bytes = tile.step * p.pitch;
  }
  p.stencil_channels = as_int(d.diagonal());
  p.c_channel = d.c_strides[0];
  p.bias_stride = d.bias_stride;
  set_taps(d, deep.adjoint, 0, p.c_tap);
  set_taps(d, deep.adjoint, 4, p.c_plane);
  deep.pack.alpha_out = d.alpha_strides[deep.adjoint ? 1 : 0];
  deep.pack.alpha_in = d.alpha_strides[deep.adjoint ? 0 : 1];
  deep.pack.outputs = p.out.channels;
  deep.pack.inputs = p.in.channels;
  deep.pack.input_blocks = as_int(ceil_div(p.in.channels, tile.step) * 2);
  deep.pack.channels_last = problem.channels_last;
  deep.pack.two_parts = tile.products == 3;

  constexpr std::int64_t most_alpha = std::int64_t{1} << 30;
  const std::int64_t output_blocks = ceil_div(p.out.channels, tile.block_outputs);
  const std::int64_t alpha_bytes = static_cast<std::int64_t>(workspace_of(deep));
  if (tiles_of(p.cut) > most_blocks_x / output_blocks || alpha_bytes > most_alpha) return {};
  deep.packing = one_thread_each(alpha_bytes / (deep.pack.two_parts ? 32 : 16));
  deep.launch.grid[0] = static_cast<std::uint32_t>(tiles_of(p.cut) * output_blocks);
  deep.launch.block = static_cast<std::uint32_t>(tile.threads);
  deep.launch.shared_bytes = static_cast<std::uint32_t>(tile.shared_bytes(p.pixel_bytes));
  return deep;
}

// Calls that these kernels are made for; with fewer channels the row-marching ones read the pixels once.
std::optional<RowsProblem> deep_problem(Operation operation, const ConvDesc& d, const Arguments& a) {
  constexpr std::int64_t few_channels = 128;
  const bool adjoint = operation == Operation::backward_data;
  if (d.dtype == DType::f64 || (adjoint ? d.c_out : d.c_in) <= few_channels) return {};
  return rows_problem(d, adjoint ? a.dx : a.x, adjoint ? a.dy : a.y, 3);
}

// fp32 is three products of TF32 numbers, or one where that was asked for.
bool takes(const DeepTileFacts& tile, DType dtype, Choice choice) {
  if (dtype != DType::f32) return tile.element == 2;
  return tile.element == 4 && tile.products == (choice == Choice::tf32 ? 1 : 3);
}

// The tile that fits the device and wastes least, the larger of equals unless its thread blocks are few; nothing where
// most of every tile is wasted.
std::optional<DeepPlan> choose_deep(Operation operation, ConvDesc d, const Arguments& a, const DeviceFacts& device,
                                    Choice choice) {
  constexpr std::uint32_t enough_blocks = 128;
  if (d.dtype != DType::f16 && device.architecture < 80) return {};
  const Shapes shapes(d);
  const std::optional<RowsProblem> problem = deep_problem(operation, d, a);
  if (!problem) return {};
  std::optional<DeepPlan> best;
  std::int64_t fewest_products = 0;
  for (int i = 0; i < static_cast<int>(std::size(deep_tiles)); ++i) {
    const DeepTileFacts& tile = deep_tiles[i];
    if (!takes(tile, d.dtype, choice)) continue;
    const std::optional<DeepPlan> deep = plan_deep(i, operation, *problem, d);
    if (!deep || deep->launch.shared_bytes > device.shared_bytes_per_block) continue;
    const DeepCut& cut = deep->parameters.cut;
    const double pixels = static_cast<double>(cut.rows) * cut.width;
    if (pixels < least_useful * static_cast<double>(tiles_of(cut)) * tile.pixels) continue;
    const std::int64_t products = std::int64_t{deep->launch.grid[0]} * tile.block_outputs * tile.pixels;
    if (best && (products > fewest_products || deep->launch.grid[0] < enough_blocks)) continue;
    best = deep;
    fewest_products = products;
  }
  return best;
}

bool takes(const WeightTileFacts& tile, const RowsProblem& problem, DType dtype) {
  const bool type = is_fma(tile.kind) ? dtype == DType::f32 : dtype == DType::f16 || dtype == DType::bf16;
  return type && problem.channels_last == is_last(tile.kind);
}

// A split is 32 row-blocks: at most 128 products are added one after the other, as many as the error bound allows. It
// is a chunk of a large image, or several small images. Thirty million partial sums are enough, however: beyond, splits
// grow, as far as the tile may add up more.
std::optional<RowsWeightPlan> plan_rows_weight(int tile_index, const RowsProblem& problem, const ConvDesc& d,
                                               bool want_alpha, bool want_c) {
  constexpr std::int64_t blocks_per_split = 32, most_sums = std::int64_t{1} << 25;
  const WeightTileFacts& tile = weight_tiles[tile_index];
  RowsWeightPlan weight;
  weight.tile = tile_index;
  weight.volume = d.dims == 3;
  weight.copy_bytes = problem.copy_bytes();
  ReduceParameters& r = weight.reduce;
  set_reduction(d, want_alpha, want_c, r, weight.reduction);
  RowsWeightParameters& p = weight.parameters;
  p.x = problem.x;
  p.dy = problem.y;
  p.cut = cut_rows(problem, tile.pixels);
  set_chunks(p.cut, ceil_div(p.cut.blocks, blocks_per_split));
  p.stencil_channels = want_c ? as_int(d.diagonal()) : 0;
  p.taps = as_int(r.taps);
  p.alpha_elements = r.alpha_elements;
  p.elements = r.elements;
  if (r.elements == 0 || r.elements > most_sums) return {};

  const std::int64_t units_per_image = std::int64_t{p.cut.strips} * p.cut.chunks;
  if (images(d) > narrow_limit / units_per_image) return {};
  const std::int64_t units = images(d) * units_per_image;
  const std::int64_t units_per_split = std::max(std::max<std::int64_t>(1, blocks_per_split / p.cut.blocks_per_chunk),
                                                ceil_div(units, most_sums / r.elements));
  if (units_per_split * p.cut.blocks_per_chunk > tile.most_blocks) return {};
  p.units = as_int(units);
  p.units_per_split = as_int(units_per_split);
  r.splits = as_int(ceil_div(units, units_per_split));
  const std::int64_t o_blocks = ceil_div(d.c_out, tile.channels), i_blocks = ceil_div(d.c_in, tile.channels);
  if (o_blocks > most_blocks_yz || i_blocks > most_blocks_yz) return {};
  weight.launch.grid[0] = static_cast<std::uint32_t>(r.splits);
  weight.launch.grid[1] = static_cast<std::uint32_t>(o_blocks);
  weight.launch.grid[2] = static_cast<std::uint32_t>(i_blocks);
  weight.launch.block = static_cast<std::uint32_t>(tile.threads);
  weight.launch.shared_bytes = static_cast<std::uint32_t>(tile.shared_bytes);
  return weight;
}

// By the shape alone, so that the workspace is known before the device and the arrays are; every device has the shared
// memory of these tiles. Of more channels than the largest tile has, several thread blocks take a part each.
std::optional<RowsWeightPlan> choose_rows_weight(ConvDesc d, const Arguments& a, bool want_alpha, bool want_c) {
  const Shapes shapes(d);
  const std::optional<RowsProblem> problem = rows_problem(d, a.x, a.dy, 3);
  if (!problem) return {};
  int tile = -1;
  for (int i = 0; i < static_cast<int>(std::size(weight_tiles)); ++i) {
    if (!takes(weight_tiles[i], *problem, d.dtype)) continue;
    if (tile < 0 || weight_tiles[tile].channels < std::max(d.c_in, d.c_out)) tile = i;
  }
  if (tile < 0) return {};
  const int pixels = weight_tiles[tile].pixels;
  if (useful(cut_rows(*problem, pixels), pixels) < least_useful) return {};
  return plan_rows_weight(tile, *problem, d, want_alpha, want_c);
}

}  // namespace

Plan make_plan(Operation operation, const ConvDesc& desc, const Arguments& arguments, const DeviceFacts& device,
               Choice choice) {
  const ConvDesc d = with_short_steps(desc);
  Plan plan;
  plan.dtype = d.dtype;
  if (operation == Operation::backward_weight) {
    const bool want_alpha = arguments.dalpha != nullptr, want_c = arguments.dc != nullptr;
    const bool runs = d.dtype != DType::bf16 || device.architecture >= 80;
    const std::optional<RowsWeightPlan> rows =
        choice == Choice::generic || !runs ? std::nullopt : choose_rows_weight(d, arguments, want_alpha, want_c);
    if (rows) {
      plan.steps = *rows;
      plan.workspace_bytes = workspace_of(rows->reduce, d.dtype);
    } else {
      plan_weight(d, want_alpha, want_c, plan);
    }
    return plan;
  }
  const std::optional<RowsPlan> rows =
      choice == Choice::generic ? std::nullopt : choose_rows(operation, d, arguments, device, choice);
  const std::optional<DeepPlan> deep =
      choice == Choice::generic || rows ? std::nullopt : choose_deep(operation, d, arguments, device, choice);
  if (rows) {
    plan.steps = *rows;
  } else if (deep) {
    plan.steps = *deep;
    plan.workspace_bytes = workspace_of(*deep);
  } else {
    plan_apply(operation, d, plan);
  }
  return plan;
}

std::size_t workspace_of(const DeepPlan& plan) {
  const PackParameters& p = plan.pack;
  return static_cast<std::size_t>(ceil_div(p.outputs, 16) * p.input_blocks) *
         static_cast<std::size_t>(deep_tiles[plan.tile].alpha_step / 2);
}

std::optional<DeepPlan> plan_deep_tile(int tile, Operation operation, const ConvDesc& desc, const Arguments& a) {
  ConvDesc d = with_short_steps(desc);
  const Shapes shapes(d);
  const bool adjoint = operation == Operation::backward_data;
  const std::optional<RowsProblem> problem = rows_problem(d, adjoint ? a.dx : a.x, adjoint ? a.dy : a.y, 3);
  return problem ? plan_deep(tile, operation, *problem, d) : std::nullopt;
}

std::optional<RowsPlan> plan_tile(int tile, Operation operation, const ConvDesc& desc, const Arguments& a) {
  ConvDesc d = with_short_steps(desc);
  const Shapes shapes(d);
  const bool adjoint = operation == Operation::backward_data;
  const std::optional<RowsProblem> problem = rows_problem(d, adjoint ? a.dx : a.x, adjoint ? a.dy : a.y, 3);
  return problem ? plan_rows(tile, operation, *problem, d) : std::nullopt;
}

std::optional<RowsWeightPlan> plan_weight_tile(int tile, const ConvDesc& desc, const Arguments& a) {
  ConvDesc d = with_short_steps(desc);
  const Shapes shapes(d);
  const std::optional<RowsProblem> problem = rows_problem(d, a.x, a.dy, 3);
  return problem && takes(weight_tiles[tile], *problem, d.dtype)
             ? plan_rows_weight(tile, *problem, d, a.dalpha != nullptr, a.dc != nullptr)
             : std::nullopt;
}

std::size_t most_workspace(Operation operation, const ConvDesc& desc, Choice choice) {
  ConvDesc d = with_short_steps(desc);
  std::size_t most = 0;
  if (operation != Operation::backward_weight) {
    if (choice == Choice::generic) return 0;
    const Shapes shapes(d);
    const std::optional<RowsProblem> problem = deep_problem(operation, d, Arguments{});
    for (int tile = 0; problem && tile < static_cast<int>(std::size(deep_tiles)); ++tile) {
      if (!takes(deep_tiles[tile], d.dtype, choice)) continue;
      const std::optional<DeepPlan> deep = plan_deep(tile, operation, *problem, d);
      if (deep) most = std::max(most, workspace_of(*deep));
    }
    return most;
  }
  // Without one of the gradients there are fewer elements and therefore, perhaps, more splits.
  for (const auto& [want_alpha, want_c] : {std::pair{true, true}, {true, false}, {false, true}}) {
    Plan plan;
    plan_weight(d, want_alpha, want_c, plan);
    most = std::max(most, plan.workspace_bytes);
    const std::optional<RowsWeightPlan> rows =
        choice == Choice::generic ? std::nullopt : choose_rows_weight(d, Arguments{}, want_alpha, want_c);
    if (rows) most = std::max(most, workspace_of(rows->reduce, d.dtype));
  }
  return most;
}

}  // namespace leancore::detail::cuda
