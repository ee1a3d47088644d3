// Plans of CUDA calls, which are made without CUDA: launches stay within the limits of every GPU and occupy it, cover
// every output and every position once, count in 32 bits only where that is enough, and ask for no more workspace than
// announced.
#include "plan.hpp"

#include <algorithm>
#include <optional>

#include "support.hpp"
#include "tiles.hpp"

namespace {

using leancore::ConvDesc;
using leancore::DType;
using leancore::Operation;
using leancore::detail::Arguments;
namespace cuda = leancore::detail::cuda;
using cuda::Choice;

// Never read.
alignas(16) const char somewhere[64] = {};

Arguments arguments_of(bool want_alpha, bool want_c) {
  Arguments a;
  a.x = a.alpha = a.c = a.bias = a.dy = somewhere;
  a.y = a.dx = const_cast<char*>(somewhere);
  a.dalpha = want_alpha ? a.y : nullptr;
  a.dc = want_c ? a.y : nullptr;
  return a;
}

constexpr cuda::DeviceFacts devices[] = {{75, 64 << 10},  {80, 163 << 10},  {86, 99 << 10}, {89, 99 << 10},
                                         {90, 227 << 10}, {100, 227 << 10}, {120, 99 << 10}};

// That is all that a plan can know of a device: not how many multiprocessors it has, on which results would then
// depend.
constexpr int architecture_of(const cuda::DeviceFacts& device) {
  const auto [architecture, shared_bytes_per_block] = device;
  return shared_bytes_per_block > 0 ? architecture : 0;
}
static_assert(architecture_of(devices[1]) == 80);

// At least so many warps does a multiprocessor hold, even with 255 registers for each thread.
int resident_warps(const cuda::LaunchShape& launch, const cuda::DeviceFacts& device) {
  const bool large = device.shared_bytes_per_block >= (163 << 10);
  const int most_warps = device.architecture < 80 ? 32 : large ? 64 : 48, warps = static_cast<int>(launch.block / 32);
  const std::size_t reserved = device.architecture < 80 ? 0 : 1024;  // of shared memory, for each thread block
  const std::size_t of_each = std::max<std::size_t>(launch.shared_bytes + reserved, 1);
  const auto by_shared_memory = static_cast<int>((device.shared_bytes_per_block + reserved) / of_each);
  const int by_registers = std::max(1, 8 / warps);
  return warps * std::min({by_shared_memory, most_warps / warps, by_registers});
}

void check_launch(const cuda::LaunchShape& launch, const cuda::DeviceFacts& device, const ConvDesc& d) {
  CHECK(launch.grid[0] >= 1 && launch.grid[0] <= cuda::most_blocks_x, "%u blocks, %s", launch.grid[0],
        test::describe(d).c_str());
  for (int a = 1; a < 3; ++a) {
    CHECK(launch.grid[a] >= 1 && launch.grid[a] <= cuda::most_blocks_yz, "%u blocks along %d, %s", launch.grid[a], a,
          test::describe(d).c_str());
  }
  CHECK(launch.block >= 32 && launch.block <= 1024 && launch.block % 32 == 0, "%u threads", launch.block);
  CHECK(launch.shared_bytes <= device.shared_bytes_per_block, "%u bytes of shared memory of %zu", launch.shared_bytes,
        device.shared_bytes_per_block);
  // One for each scheduler, where there is shared memory enough.
  const int warps = resident_warps(launch, device), fewest = device.shared_bytes_per_block >= (163 << 10) ? 4 : 2;
  CHECK(warps >= fewest, "%d warps on a multiprocessor of %d, %s", warps, device.architecture,
        test::describe(d).c_str());
}

std::int64_t product(const std::int64_t (&extents)[leancore::max_dims]) {
  return extents[0] * extents[1] * extents[2] * extents[3];
}

// The farthest element of an array of such extents.
std::int64_t reach(std::int64_t batch, std::int64_t channels, const std::int64_t (&extents)[leancore::max_dims],
                   const std::int64_t (&strides)[leancore::max_axes]) {
  std::int64_t sum = (batch - 1) * std::abs(strides[0]) + (channels - 1) * std::abs(strides[1]);
  for (int a = 0; a < leancore::max_dims; ++a) sum += (extents[a] - 1) * std::abs(strides[a + 2]);
  return sum;
}

void check(const cuda::ApplyPlan& plan, const ConvDesc& d) {
  const auto& p = plan.parameters;
  CHECK(p.outputs == p.batch * p.out_channels * product(p.out_extents), "%s", test::describe(d).c_str());
  const std::int64_t farthest =
      std::max(reach(p.batch, p.out_channels, p.out_extents, p.out_strides),
               reach(p.batch, std::max<std::int64_t>(p.in_channels, 1), p.in_extents, p.in_strides));
  const std::int64_t threads = std::int64_t{plan.launch.grid[0]} * plan.launch.block;
  // An index and the step to the thread's next output.
  CHECK(plan.wide || (farthest < (1LL << 31) && p.outputs + threads < (1LL << 31)), "%s", test::describe(d).c_str());
  CHECK(threads >= p.outputs || plan.launch.grid[0] == cuda::most_blocks_x, "%s", test::describe(d).c_str());
}

void check(const cuda::WeightPlan& plan, const ConvDesc& d, bool want_alpha, bool want_c) {
  const auto& p = plan.parameters;
  const auto& r = plan.reduce;
  const std::int64_t alpha_elements = want_alpha ? d.c_in * d.c_out : 0;
  const std::int64_t elements = alpha_elements + (want_c ? d.diagonal() * 2 * d.dims : 0);
  CHECK(r.elements == elements && r.alpha_elements == alpha_elements, "%s", test::describe(d).c_str());
  CHECK(std::int64_t{plan.reduction.grid[0]} * plan.reduction.block >= elements, "%s", test::describe(d).c_str());
  if (r.splits == 0) {
    CHECK(p.positions == 0, "%s", test::describe(d).c_str());
    return;
  }
  // The shares are disjoint, none is empty, together they are all.
  CHECK((r.splits - 1) * p.positions_per_split < p.positions && r.splits * p.positions_per_split >= p.positions,
        "%d splits of %ld, %s", r.splits, static_cast<long>(p.positions_per_split), test::describe(d).c_str());
  CHECK(p.positions == d.batch * product(p.y_extents), "%s", test::describe(d).c_str());
  const std::int64_t tiles_down = (d.c_out + cuda::weight_tile - 1) / cuda::weight_tile;
  CHECK(p.alpha_tiles == (want_alpha ? p.alpha_tiles_across * tiles_down : 0) &&
            p.alpha_tiles_across * cuda::weight_tile >= d.c_in,
        "%s", test::describe(d).c_str());
  const std::int64_t stencil_tiles = plan.launch.grid[0] - p.alpha_tiles;
  CHECK(!want_c || stencil_tiles * cuda::stencil_tile >= d.diagonal(), "%s", test::describe(d).c_str());
  CHECK(plan.launch.grid[1] == static_cast<std::uint32_t>(r.splits), "%s", test::describe(d).c_str());
}

// Every pixel of an image belongs to one place of one slot of one thread block.
void check_cut(const cuda::RowsCut& cut, int pixels, bool channels_last, const ConvDesc& d) {
  const std::int64_t piece = channels_last ? 1 : 16 / info(d.dtype).size;
  const std::string text = test::describe(d);
  CHECK(cut.depth == (d.dims == 3 ? d.extents[0] : 1) && cut.height == (d.dims > 1 ? d.extents[d.dims - 2] : 1) &&
            cut.width == d.extents[d.dims - 1],
        "%s", text.c_str());
  CHECK(cut.slot_row % piece == 0 && cut.rows_per_block >= 1 && cut.rows_per_block * cut.slot_row <= pixels,
        "%d rows of %d, %s", cut.rows_per_block, cut.slot_row, text.c_str());
  CHECK(cut.strips == 1 ? cut.slot_row >= cut.width
                        : cut.rows_per_block == 1 && cut.slot_row == pixels && (cut.strips - 1) * pixels < cut.width &&
                              cut.strips * pixels >= cut.width,
        "%d strips, %s", cut.strips, text.c_str());
  CHECK((cut.blocks - 1) * cut.rows_per_block < cut.height && cut.blocks * cut.rows_per_block >= cut.height,
        "%d row-blocks, %s", cut.blocks, text.c_str());
  CHECK((cut.chunks - 1) * cut.blocks_per_chunk < cut.blocks && cut.chunks * cut.blocks_per_chunk >= cut.blocks,
        "%d chunks, %s", cut.chunks, text.c_str());
}

// Vectors of so many bytes, along rows or along channels.
void check_side(const cuda::RowsSide& side, const ConvDesc& d, bool channels_last, int bytes) {
  const std::int64_t size = info(d.dtype).size, inner = channels_last ? side.column : side.channel;
  const std::int64_t contiguous = channels_last ? side.channel : side.column;
  const std::int64_t length = channels_last ? side.channels : d.extents[d.dims - 1];
  CHECK(length == 1 || contiguous == 1, "%s", test::describe(d).c_str());
  for (const std::int64_t stride : {side.image, side.plane, inner, std::int64_t{side.row}, length}) {
    CHECK(stride >= 0 && stride * size % bytes == 0, "stride %ld for vectors of %d bytes, %s",
          static_cast<long>(stride), bytes, test::describe(d).c_str());
  }
}

// Every column of c is one tap, and of volumes the first and the last are the other planes.
void check_taps(const std::int64_t (&c_tap)[4], const std::int64_t (&c_plane)[2], bool adjoint, const ConvDesc& d) {
  std::vector<std::int64_t> taps;
  if (d.dims == 1) taps.assign(c_tap + 1, c_tap + 3);
  if (d.dims > 1) taps.assign(c_tap, c_tap + 4);
  if (d.dims == 3) taps.insert(taps.begin(), c_plane[0]), taps.push_back(c_plane[1]);
  if (adjoint) std::reverse(taps.begin(), taps.end());
  for (int column = 0; column < 2 * d.dims; ++column) {
    CHECK(taps[column] == column * d.c_strides[1], "tap %d at %ld, %s", column, static_cast<long>(taps[column]),
          test::describe(d).c_str());
  }
}

void check(const cuda::RowsPlan& plan, const ConvDesc& d, const cuda::DeviceFacts& device) {
  const cuda::RowsTile& tile = cuda::rows_tiles[plan.tile];
  const cuda::RowsParameters& p = plan.parameters;
  const bool last = is_channels_last(tile.kind);
  check_cut(p.cut, tile.pixels, last, d);
  check_side(p.in, d, last, last ? 16 : plan.copy_bytes);
  check_side(p.out, d, last, last ? 4 * static_cast<int>(info(d.dtype).size) : plan.copy_bytes);
  CHECK(p.in.channels == (plan.adjoint ? d.c_out : d.c_in) && p.in.channels <= tile.channels, "%s %s", tile.name,
        test::describe(d).c_str());
  CHECK(p.out.channels == (plan.adjoint ? d.c_in : d.c_out) &&
            std::int64_t{plan.launch.grid[1]} * tile.block_outputs >= p.out.channels,
        "%s %s", tile.name, test::describe(d).c_str());
  CHECK(plan.launch.grid[0] == d.batch * p.cut.depth * p.cut.strips * p.cut.chunks, "%s", test::describe(d).c_str());
  CHECK(plan.volume == (d.dims == 3) && (!plan.volume || tile.takes_volumes), "%s", test::describe(d).c_str());
  const int threads = plan.volume ? tile.volume_threads : tile.threads;
  CHECK(plan.launch.block == static_cast<std::uint32_t>(threads), "%s %s", tile.name, test::describe(d).c_str());
  check_taps(p.c_tap, p.c_plane, plan.adjoint, d);
  const bool ampere = device.architecture >= 80;
  bool runs = false;
  switch (tile.kind) {
    case cuda::RowsKind::fma:
      runs = d.dtype == DType::f32;
      break;
    case cuda::RowsKind::tf32x3:
    case cuda::RowsKind::tf32:
    case cuda::RowsKind::last_tf32x3:
    case cuda::RowsKind::last_tf32:
      runs = d.dtype == DType::f32 && ampere;
      break;
    case cuda::RowsKind::tensor:
    case cuda::RowsKind::last:
      runs = d.dtype == DType::f16 || (d.dtype == DType::bf16 && ampere);
      break;
  }
  CHECK(runs, "%s on %d, %s", tile.name, device.architecture, test::describe(d).c_str());
}

// Every pixel of every image belongs to one place of one tile, and what a tile needs fits in a channel of a stage.
void check(const cuda::DeepPlan& plan, const ConvDesc& d, const cuda::DeviceFacts& device, std::size_t workspace) {
  const cuda::DeepTileFacts& tile = cuda::deep_tiles[plan.tile];
  const cuda::DeepParameters& p = plan.parameters;
  const cuda::DeepCut& cut = p.cut;
  const std::string text = test::describe(d);
  const std::int64_t height = d.dims > 1 ? d.extents[d.dims - 2] : 1, width = d.extents[d.dims - 1];
  const std::int64_t depth = d.dims == 3 ? d.extents[0] : 1;
  CHECK(cut.height == height && cut.width == width && cut.depth == depth && cut.rows == d.batch * depth * height, "%s",
        text.c_str());
  check_taps(p.c_tap, p.c_plane, plan.adjoint, d);
  const bool last = plan.pack.channels_last, strips = cut.strips > 1;
  const int element = static_cast<int>(info(d.dtype).size);
  CHECK(tile.element == element, "%s %s", tile.name, text.c_str());
  CHECK(cut.tile_columns * (last ? 16 : element) % 16 == 0 && cut.tile_rows >= 1 &&
            cut.tile_rows * cut.tile_columns <= tile.pixels,
        "%d rows of %d, %s", cut.tile_rows, cut.tile_columns, text.c_str());
  CHECK((cut.strips - 1) * cut.tile_columns < width && cut.strips * cut.tile_columns >= width, "%d strips, %s",
        cut.strips, text.c_str());
  // Rows, and beside those of strips a pixel; where rows end before the tile does, pixels go on.
  const int pixel = last ? cuda::deep_pixel_pitch : element, side = !strips ? 0 : last ? 2 * pixel : 16;
  CHECK(p.row_pitch == cut.tile_columns * pixel + side, "%s", text.c_str());
  CHECK(p.below >= cut.tile_rows * p.row_pitch && (strips || p.below >= tile.pixels * pixel), "%s", text.c_str());
  const int all_rows = p.row_pitch + p.below + p.row_pitch;
  CHECK(last ? p.pixel_bytes >= all_rows
             : p.pitch >= all_rows && p.pixel_bytes >= tile.step * p.pitch && p.pitch / 16 % 2 == 1,
        "%s", text.c_str());
  CHECK(p.row_pitch % 16 == 0 && p.below % 16 == 0 && p.pitch % 16 == 0 && p.pixel_bytes % 16 == 0, "%s", text.c_str());
  CHECK(plan.launch.shared_bytes == static_cast<std::uint32_t>(tile.shared_bytes(p.pixel_bytes)), "%s", text.c_str());
  check_side(p.in, d, last, last ? 16 : plan.copy_bytes);
  check_side(p.out, d, last, last ? 4 * element : plan.copy_bytes);
  CHECK(p.in.channels == (plan.adjoint ? d.c_out : d.c_in) && p.in.channels > 128 &&
            p.out.channels == (plan.adjoint ? d.c_in : d.c_out) && p.stencil_channels == d.diagonal(),
        "%s", text.c_str());
  const std::int64_t tiles = (cut.rows + cut.tile_rows - 1) / cut.tile_rows * cut.strips;
  const std::int64_t blocks = (p.out.channels + tile.block_outputs - 1) / tile.block_outputs;
  CHECK(plan.launch.grid[0] == tiles * blocks, "%u blocks, %s", plan.launch.grid[0], text.c_str());
  CHECK(plan.pack.outputs == p.out.channels && plan.pack.inputs == p.in.channels, "%s", text.c_str());
  const std::int64_t steps = (p.in.channels + tile.step - 1) / tile.step, parts = plan.pack.two_parts ? 2 : 1;
  const std::int64_t alpha_bytes = (p.out.channels + 15) / 16 * 16 * steps * cuda::deep_step_bytes * parts;
  CHECK(parts == (tile.products == 3 ? 2 : 1) && plan.pack.input_blocks == steps * 2, "%s", text.c_str());
  CHECK(workspace >= static_cast<std::size_t>(alpha_bytes), "%zu bytes, %s", workspace, text.c_str());
  CHECK(std::int64_t{plan.packing.grid[0]} * plan.packing.block * 16 * parts >= alpha_bytes, "%s", text.c_str());
  CHECK(d.dtype == DType::f16 || device.architecture >= 80, "%s on %d", text.c_str(), device.architecture);
}

void check(const cuda::RowsWeightPlan& plan, const ConvDesc& d, const cuda::DeviceFacts& device, bool want_alpha,
           bool want_c) {
  const cuda::WeightTileFacts& tile = cuda::weight_tiles[plan.tile];
  const cuda::RowsWeightParameters& p = plan.parameters;
  const bool last = cuda::is_last(tile.kind);
  check_cut(p.cut, tile.pixels, last, d);
  check_side(p.x, d, last, plan.copy_bytes);
  check_side(p.dy, d, last, plan.copy_bytes);
  CHECK(cuda::is_fma(tile.kind) ? d.dtype == DType::f32
                                : d.dtype == DType::f16 || (d.dtype == DType::bf16 && device.architecture >= 80),
        "%s on %d, %s", tile.name, device.architecture, test::describe(d).c_str());
  // What a thread block adds up keeps to the error bound.
  CHECK(std::int64_t{p.units_per_split} * p.cut.blocks_per_chunk <= tile.most_blocks, "%d units of %d row-blocks, %s",
        p.units_per_split, p.cut.blocks_per_chunk, test::describe(d).c_str());
  CHECK(p.units == d.batch * p.cut.depth * p.cut.strips * p.cut.chunks, "%s", test::describe(d).c_str());
  CHECK(plan.volume == (d.dims == 3) && p.taps == 2 * d.dims && plan.reduce.taps == p.taps, "%s",
        test::describe(d).c_str());
  CHECK((plan.reduce.splits - 1) * std::int64_t{p.units_per_split} < p.units &&
            plan.reduce.splits * std::int64_t{p.units_per_split} >= p.units,
        "%d splits of %d, %s", plan.reduce.splits, p.units_per_split, test::describe(d).c_str());
  CHECK(plan.launch.grid[0] == static_cast<std::uint32_t>(plan.reduce.splits) &&
            std::int64_t{plan.launch.grid[1]} * tile.channels >= d.c_out &&
            std::int64_t{plan.launch.grid[2]} * tile.channels >= d.c_in,
        "%s", test::describe(d).c_str());
  CHECK(plan.reduce.alpha_elements == (want_alpha ? d.c_in * d.c_out : 0) &&
            plan.reduce.elements - plan.reduce.alpha_elements == (want_c ? d.diagonal() * 2 * d.dims : 0),
        "%s", test::describe(d).c_str());
  CHECK(p.stencil_channels == (want_c ? d.diagonal() : 0) && p.elements == plan.reduce.elements &&
            p.alpha_elements == plan.reduce.alpha_elements,
        "%s", test::describe(d).c_str());
}

long tiled = 0;  // plans that are not generic

void check(const ConvDesc& d) {
  for (const Operation operation : {Operation::forward, Operation::backward_data, Operation::backward_weight}) {
    for (const cuda::DeviceFacts& device : devices) {
      for (const auto& [want_alpha, want_c] : {std::pair{true, true}, {true, false}, {false, true}}) {
        for (const cuda::Choice choice : {Choice::all, Choice::tf32, Choice::generic}) {
          const std::size_t announced = cuda::most_workspace(operation, d, choice);
          const cuda::Plan plan = cuda::make_plan(operation, d, arguments_of(want_alpha, want_c), device, choice);
          CHECK(plan.workspace_bytes <= announced, "%zu of %zu, %s", plan.workspace_bytes, announced,
                test::describe(d).c_str());
          CHECK(!std::holds_alternative<cuda::TooLargePlan>(plan.steps), "%s", test::describe(d).c_str());
          if (const auto* apply = std::get_if<cuda::ApplyPlan>(&plan.steps)) {
            check_launch(apply->launch, device, d);
            check(*apply, d);
          }
          if (const auto* weight = std::get_if<cuda::WeightPlan>(&plan.steps)) {
            if (weight->reduce.splits > 0) check_launch(weight->launch, device, d);
            check_launch(weight->reduction, device, d);
            check(*weight, d, want_alpha, want_c);
          }
          if (const auto* rows = std::get_if<cuda::RowsPlan>(&plan.steps)) {
            check_launch(rows->launch, device, d);
            check(*rows, d, device);
            // Precision is given up only where it was asked for.
            const cuda::RowsKind kind = cuda::rows_tiles[rows->tile].kind;
            CHECK(choice == cuda::Choice::tf32 || (kind != cuda::RowsKind::tf32 && kind != cuda::RowsKind::last_tf32),
                  "%s", test::describe(d).c_str());
          }
          if (const auto* deep = std::get_if<cuda::DeepPlan>(&plan.steps)) {
            check_launch(deep->packing, device, d);
            check_launch(deep->launch, device, d);
            check(*deep, d, device, plan.workspace_bytes);
            const bool coarse = d.dtype == DType::f32 && choice == cuda::Choice::tf32;
            const int products = d.dtype == DType::f32 && !coarse ? 3 : 1;
            CHECK(cuda::deep_tiles[deep->tile].products == products, "%s", test::describe(d).c_str());
          }
          if (const auto* weight = std::get_if<cuda::RowsWeightPlan>(&plan.steps)) {
            check_launch(weight->launch, device, d);
            check_launch(weight->reduction, device, d);
            check(*weight, d, device, want_alpha, want_c);
          }
          const bool generic = plan.steps.index() <= 3;
          CHECK(choice != cuda::Choice::generic || generic, "%s", test::describe(d).c_str());
          tiled += generic ? 0 : 1;
        }
      }
    }
  }
}

ConvDesc square(DType dtype, std::int64_t batch, std::int64_t c_in, std::int64_t c_out, std::int64_t side) {
  const std::int64_t extents[] = {side, side};
  return leancore::compact_desc(dtype, 2, batch, c_in, c_out, extents);
}

bool is_wide(Operation operation, const ConvDesc& d) {
  const cuda::Plan plan = cuda::make_plan(operation, d, arguments_of(true, true), devices[1], Choice::generic);
  if (const auto* apply = std::get_if<cuda::ApplyPlan>(&plan.steps)) return apply->wide;
  return std::get<cuda::WeightPlan>(plan.steps).wide;
}

// Around the limit of 32 bits, and far beyond.
void check_large() {
  const std::int64_t limit = std::int64_t{1} << 30;
  for (const Operation operation : {Operation::forward, Operation::backward_data, Operation::backward_weight}) {
    CHECK(!is_wide(operation, square(DType::f32, 64, 16, 16, 512)), "2^28 elements fit in 32 bits");
    CHECK(is_wide(operation, square(DType::f16, 1 << 11, 16, 16, 512)), "2^33 elements do not fit in 32 bits");
    ConvDesc sparse = square(DType::bf16, 2, 3, 3, 8);
    for (const std::int64_t stride : {limit - 300, limit + 1, -(limit + 1), limit << 20}) {
      sparse.x_strides[0] = stride;
      CHECK(is_wide(operation, sparse) == (stride != limit - 300), "%ld", static_cast<long>(stride));
      check(sparse);
    }
  }
  for (const std::int64_t images : {std::int64_t{1}, std::int64_t{1} << 12, std::int64_t{1} << 24}) {
    for (const std::int64_t channels : {1, 16, 512}) check(square(DType::f16, images, channels, channels, 512));
  }
  ConvDesc far = square(DType::f32, 1, 2, 2, 5);  // steps that leave the image from anywhere
  far.stride[0] = far.dilation[1] = std::int64_t{1} << 62;
  check(far);
}

// Partial results are cut by the shape: the workspace of a large layer stays small beside its arrays.
void check_workspace() {
  for (const auto& [channels, side] : {std::pair<int, int>{16, 512}, {64, 128}, {128, 64}, {512, 16}}) {
    const std::size_t bytes =
        cuda::most_workspace(Operation::backward_weight, square(DType::f32, 64, channels, channels, side), Choice::all);
    CHECK(bytes > 0 && bytes <= (std::size_t{128} << 20), "%zu bytes", bytes);
  }
  // forward and backward_data need none but for alpha of many channels.
  for (const Operation operation : {Operation::forward, Operation::backward_data}) {
    for (const Choice choice : {Choice::all, Choice::generic}) {
      CHECK(cuda::most_workspace(operation, square(DType::f16, 4, 128, 128, 16), choice) == 0, "128 channels");
      const std::size_t bytes = cuda::most_workspace(operation, square(DType::f16, 4, 512, 512, 16), choice);
      CHECK(bytes == (choice == Choice::all ? 512 * 512 * 2 : 0), "%zu bytes", bytes);
    }
    // Of fp32 alpha is there in two parts, for TF32 in one.
    for (const auto& [choice, size] : {std::pair{Choice::all, 8}, {Choice::tf32, 4}, {Choice::generic, 0}}) {
      const std::size_t bytes = cuda::most_workspace(operation, square(DType::f32, 4, 512, 512, 16), choice);
      CHECK(bytes == static_cast<std::size_t>(512 * 512 * size), "%zu bytes", bytes);
    }
  }
}

// The kind of tile that a call gets; nothing where it is run by the generic kernels.
std::optional<cuda::RowsKind> kind_of(const ConvDesc& d, const cuda::DeviceFacts& device, cuda::Choice choice) {
  for (const Operation operation : {Operation::backward_data, Operation::forward}) {
    const cuda::Plan plan = cuda::make_plan(operation, d, arguments_of(true, true), device, choice);
    const auto* rows = std::get_if<cuda::RowsPlan>(&plan.steps);
    if (rows == nullptr) return {};
    if (operation == Operation::forward) return cuda::rows_tiles[rows->tile].kind;
  }
  return {};
}

// fp32 by channels and architecture: tensor cores where they are faster, TF32 alone where it is asked for; of volumes
// as of images.
void check_fp32() {
  using enum cuda::RowsKind;
  using Kind = std::optional<cuda::RowsKind>;
  const struct {
    int channels;
    Kind kinds[7];  // by device: 7.5, which has too little shared memory for most, 8.0, 8.6, 8.9, 9.0, 10.0, 12.0
  } rows[] = {
      {16, {fma, fma, fma, fma, fma, fma, fma}},
      {32, {Kind(), fma, fma, fma, fma, fma, fma}},
      {33, {Kind(), tf32x3, fma, fma, tf32x3, tf32x3, fma}},
      {64, {Kind(), tf32x3, fma, fma, tf32x3, tf32x3, fma}},
      {65, {Kind(), tf32x3, tf32x3, tf32x3, tf32x3, tf32x3, tf32x3}},
      {128, {Kind(), tf32x3, tf32x3, tf32x3, tf32x3, tf32x3, tf32x3}},
      {129, {}},
  };
  for (const auto& row : rows) {
    for (const auto& [dims, side] : {std::pair{2, 7}, {2, 32}, {2, 100}, {3, 7}, {3, 32}, {3, 100}}) {
      const std::int64_t extents[] = {5, side, side};
      const ConvDesc d = leancore::compact_desc(DType::f32, dims, 64, row.channels, row.channels, extents + 3 - dims);
      for (std::size_t i = 0; i < std::size(devices); ++i) {
        const Kind coarse = row.kinds[i] && row.channels > 32 && devices[i].architecture >= 80 ? tf32 : row.kinds[i];
        CHECK(kind_of(d, devices[i], cuda::Choice::all) == row.kinds[i], "%s on %d", test::describe(d).c_str(),
              devices[i].architecture);
        CHECK(kind_of(d, devices[i], cuda::Choice::tf32) == coarse, "%s on %d", test::describe(d).c_str(),
              devices[i].architecture);
        CHECK(!kind_of(d, devices[i], cuda::Choice::generic), "%s", test::describe(d).c_str());
        ConvDesc last = d;
        leancore::set_channels_last(last);
        const bool vectors = row.channels % 4 == 0 && row.channels <= 128 && devices[i].architecture >= 80;
        CHECK(kind_of(last, devices[i], cuda::Choice::all) == (vectors ? Kind(last_tf32x3) : Kind()), "%s on %d",
              test::describe(last).c_str(), devices[i].architecture);
        CHECK(kind_of(last, devices[i], cuda::Choice::tf32) == (!vectors            ? Kind()
                                                                : row.channels > 32 ? last_tf32
                                                                                    : last_tf32x3),
              "%s on %d", test::describe(last).c_str(), devices[i].architecture);
      }
    }
  }
}

// The layers of the paper's Figure 1 are run by tiled kernels where they have few enough channels.
void check_layers() {
  for (const auto& [channels, side] : {std::pair<int, int>{16, 512}, {32, 256}, {64, 128}, {128, 64}}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const ConvDesc d = square(dtype, 64, channels, channels, side);
      check(d);
      const cuda::Plan plan = cuda::make_plan(Operation::forward, d, arguments_of(true, true), devices[1], Choice::all);
      const bool tile = std::holds_alternative<cuda::RowsPlan>(plan.steps);
      CHECK(tile, "%s", test::describe(d).c_str());
      ConvDesc last = d;
      leancore::set_channels_last(last);
      for (const ConvDesc& each : {d, last}) {
        const cuda::Plan weight =
            cuda::make_plan(Operation::backward_weight, each, arguments_of(true, true), devices[1], Choice::all);
        CHECK(std::holds_alternative<cuda::RowsWeightPlan>(weight.steps), "%s", test::describe(each).c_str());
      }
      check(last);
      const cuda::Plan last_plan =
          cuda::make_plan(Operation::backward_data, last, arguments_of(true, true), devices[1], Choice::all);
      const auto* rows = std::get_if<cuda::RowsPlan>(&last_plan.steps);
      CHECK(rows && is_channels_last(cuda::rows_tiles[rows->tile].kind), "%s", test::describe(last).c_str());
    }
  }
}

// Many channels, from large maps to tiny ones, rows of any width and alignment: all on every device that has the shared
// memory; and with the larger tile where that fills the device.
void check_deep_layers() {
  const std::int64_t shapes[][4] = {{64, 256, 32, 256}, {64, 512, 16, 512}, {100, 256, 4, 256}, {100, 128, 4, 256},
                                    {8, 960, 7, 160},   {2, 192, 96, 192},  {1, 144, 131, 384}, {64, 320, 8, 1280}};
  for (const auto& [batch, c_in, side, c_out] : shapes) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      const ConvDesc d = square(dtype, batch, c_in, c_out, side);
      ConvDesc last = d;
      leancore::set_channels_last(last);
      for (const ConvDesc& layout : {d, last}) {
        check(layout);
        for (const cuda::DeviceFacts& device : devices) {
          const cuda::Plan plan =
              cuda::make_plan(Operation::backward_data, layout, arguments_of(true, true), device, Choice::all);
          CHECK(device.architecture == 75 || std::holds_alternative<cuda::DeepPlan>(plan.steps), "%d %s",
                device.architecture, test::describe(layout).c_str());
        }
      }
    }
  }
  const auto tile_of = [](const ConvDesc& d, Choice choice = Choice::all) {
    const cuda::Plan plan = cuda::make_plan(Operation::forward, d, arguments_of(true, true), devices[1], choice);
    return cuda::deep_tiles[std::get<cuda::DeepPlan>(plan.steps).tile].block_outputs;
  };
  CHECK(tile_of(square(DType::f16, 64, 512, 512, 16)) == 256, "512 channels");
  CHECK(tile_of(square(DType::f16, 1, 512, 512, 16)) == 128, "one image");
  CHECK(tile_of(square(DType::f16, 64, 512, 384, 16)) == 128, "384 output channels");
  CHECK(tile_of(square(DType::f32, 64, 512, 512, 16)) == 128, "512 channels");
  CHECK(tile_of(square(DType::f32, 1, 512, 512, 16)) == 64, "one image");
  CHECK(tile_of(square(DType::f32, 64, 512, 192, 16)) == 64, "192 output channels");
  CHECK(tile_of(square(DType::f32, 64, 512, 512, 16), Choice::tf32) == 256, "512 channels");
}

// Volumes are run by tiled kernels, whatever the channels.
void check_volumes() {
  for (const int channels : {16, 32, 48, 64, 128, 256}) {
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      for (const std::int64_t width : {64, 63}) {
        const std::int64_t extents[] = {16, 48, width};
        for (const bool channels_last : {false, true}) {
          ConvDesc d = leancore::compact_desc(dtype, 3, 2, channels, channels, extents);
          if (channels_last) leancore::set_channels_last(d);
          check(d);
          for (const Choice choice : {Choice::all, Choice::tf32, Choice::generic}) {
            const cuda::Plan plan =
                cuda::make_plan(Operation::backward_weight, d, arguments_of(true, true), devices[1], choice);
            const auto* weight = std::get_if<cuda::RowsWeightPlan>(&plan.steps);
            CHECK((weight != nullptr) == (choice != Choice::generic), "%s", test::describe(d).c_str());
            CHECK(!weight || weight->copy_bytes == (channels_last || width == 64 ? 16 : info(dtype).size), "%s",
                  test::describe(d).c_str());
          }
          for (const Operation operation : {Operation::forward, Operation::backward_data}) {
            for (const Choice choice : {Choice::all, Choice::tf32}) {
              const cuda::Plan plan = cuda::make_plan(operation, d, arguments_of(true, true), devices[1], choice);
              const auto* rows = std::get_if<cuda::RowsPlan>(&plan.steps);
              CHECK(channels > 128 ? std::holds_alternative<cuda::DeepPlan>(plan.steps) : rows != nullptr, "%s",
                    test::describe(d).c_str());
              CHECK(!rows || channels_last || rows->copy_bytes == (width == 64 ? 16 : info(dtype).size), "%s",
                    test::describe(d).c_str());
            }
          }
        }
      }
    }
  }
  // Planes count as images: more of them than a launch has blocks, or a thread block counts.
  const std::int64_t extents[] = {std::int64_t{1} << 20, 1, 64};
  for (const std::int64_t batch : {1 << 12, 1 << 9}) check(leancore::compact_desc(DType::f16, 3, batch, 1, 1, extents));
  check(leancore::compact_desc(DType::f16, 3, 1 << 12, 160, 1, extents));
  // Workspace and splits are those of as many images, but for two more columns of dc.
  const std::int64_t volume[] = {32, 64, 64}, image[] = {64, 64};
  for (const DType dtype : {DType::f32, DType::f16}) {
    const auto splits = [&](const ConvDesc& d) {
      const cuda::Plan plan =
          cuda::make_plan(Operation::backward_weight, d, arguments_of(true, true), devices[1], Choice::all);
      const auto& weight = std::get<cuda::RowsWeightPlan>(plan.steps);
      CHECK(plan.workspace_bytes == static_cast<std::size_t>(weight.reduce.splits * weight.reduce.elements) * 4, "%s",
            test::describe(d).c_str());
      return weight.reduce.splits;
    };
    CHECK(splits(leancore::compact_desc(dtype, 3, 2, 32, 32, volume)) ==
              splits(leancore::compact_desc(dtype, 2, 64, 32, 32, image)),
          "32 planes of 2 volumes, and 64 images");
  }
}

// Splits grow with the images, so that partial results do not fill the memory, as far as the error bound of fp32
// allows.
void check_long_splits() {
  for (const DType dtype : {DType::f32, DType::f16}) {
    for (const std::int64_t images : {64, 1 << 11, 1 << 13}) {
      const ConvDesc d = square(dtype, images, 512, 512, 16);
      check(d);
      const cuda::Plan plan =
          cuda::make_plan(Operation::backward_weight, d, arguments_of(true, true), devices[1], Choice::all);
      CHECK(std::holds_alternative<cuda::RowsWeightPlan>(plan.steps) == (dtype == DType::f16 || images < 1 << 13), "%s",
            test::describe(d).c_str());
    }
  }
}

}  // namespace

int main() {
  test::Random random(41);
  for (int round = 0; round < test::rounds(500); ++round) {
    test::for_each_type([&]<typename T>() {
      ConvDesc d = test::random_problem(random, test::dtype_of<T>, 1e7);
      if (random.integer(0, 5) == 0) d.stencil = 0;
      test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
      check(d);
    });
  }
  check_large();
  check_workspace();
  check_layers();
  check_fp32();
  check_deep_layers();
  check_volumes();
  check_long_splits();
  CHECK(tiled > 1000, "only %ld plans with tiled kernels", tiled);
  return test::summary("cuda plan");
}
