// How much memory every tile moves, counted by the emulation on aligned shapes: sectors of global memory and wavefronts
// of shared memory, against the fewest that would do.
//
// The fewest sectors of images: each array once, the columns beside a strip of a wide image, for which a sector is read
// to get a pixel, and of volumes each plane for either neighbour again; rows beside a chunk are not allowed for. Of
// weights: once for each thread block; that share is printed and has no bound, because lanes read single weights, and
// the emulation has no cache to keep their sectors.
#include <cuda_runtime.h>

#include <optional>

#include "emulation.h"
#include "launch.cuh"
#include "support.hpp"
#include "tiles.hpp"
#include "topics.hpp"

namespace {

namespace cuda = leancore::detail::cuda;
using leancore::Operation;

constexpr double most_sectors = 1.15, most_wavefronts = 1.25;

struct Count {
  std::int64_t moved = 0, fewest = 0;
  // Of an array that is to be moved once, and of more beside it.
  template <typename T>
  void add(const test::DeviceCopy<T>& array, std::int64_t bytes_more = 0, std::int64_t times = 1) {
    moved += static_cast<std::int64_t>(cuda_emulation_sectors(array.origin()));
    fewest += (static_cast<std::int64_t>(array.bytes()) + 31) / 32 * times + bytes_more / 32;
  }
  [[nodiscard]] double ratio() const { return static_cast<double>(moved) / static_cast<double>(fewest); }
};

// Bytes that the columns beside strips cost: a sector for each channel of each row, or all channels of a pixel.
std::int64_t beside_strips(const cuda::RowsCut& cut, const cuda::RowsSide& side, std::int64_t batch, int element) {
  const bool pixels = side.channel == 1;
  const std::int64_t column = pixels ? std::int64_t{side.channels} * element : std::int64_t{side.channels} * 32;
  return batch * cut.depth * cut.height * (cut.strips - 1) * 2 * column;
}

// Bytes of the planes that are read as neighbours of others; every channel has a stencil.
template <typename T>
std::int64_t neighbouring_planes(const cuda::RowsCut& cut, const test::DeviceCopy<T>& in) {
  return static_cast<std::int64_t>(in.bytes()) / cut.depth * (cut.depth - 1) * 2;
}

void check(const char* tile, const char* operation, const leancore::ConvDesc& d, const Count& images,
           const Count& weights) {
  unsigned long long fewest = 0;
  const auto wavefronts = static_cast<double>(cuda_emulation_wavefronts(&fewest)) / static_cast<double>(fewest);
  const std::string call = std::string(tile) + " " + operation + " " + test::describe(d);
  std::printf("%s: sectors of images %.3f, of weights %.3f; wavefronts %.3f\n", call.c_str(), images.ratio(),
              weights.ratio(), wavefronts);
  CHECK(images.ratio() <= most_sectors, "%s: %.3f", call.c_str(), images.ratio());
  CHECK(wavefronts <= most_wavefronts, "%s: %.3f", call.c_str(), wavefronts);
}

template <typename T>
void fill(test::Arrays<T>& arrays) {
  arrays.fill([] { return 1.0; });
}

template <typename T>
void count_rows(int index, const leancore::ConvDesc& d) {
  const cuda::RowsTile& tile = cuda::rows_tiles[index];
  test::Arrays<T> in(d);
  fill(in);
  const test::DeviceArrays<T> arrays(in, 0);
  const leancore::detail::Arguments a = test::arguments_of(arrays, arrays);
  for (const Operation operation : {Operation::forward, Operation::backward_data}) {
    const std::optional<cuda::RowsPlan> plan = cuda::plan_tile(index, operation, d, a);
    CHECK(plan.has_value(), "%s %s", tile.name, test::describe(d).c_str());
    if (!plan) continue;
    cuda_emulation_count();
    REQUIRE_CUDA(cuda::run(*plan, d.dtype, cuda::Call{a, nullptr, nullptr}));
    const bool forward = operation == Operation::forward;
    Count images, weights;
    const cuda::RowsCut& cut = plan->parameters.cut;
    const std::int64_t more = beside_strips(cut, plan->parameters.in, d.batch, sizeof(T)) +
                              neighbouring_planes(cut, forward ? arrays.x : arrays.y);
    images.add(arrays.x, forward ? more : 0);
    images.add(arrays.y, forward ? 0 : more);
    const std::int64_t blocks = std::int64_t{plan->launch.grid[0]} * plan->launch.grid[1];
    weights.add(arrays.alpha, 0, blocks);
    weights.add(arrays.c, 0, blocks);
    if (forward) weights.add(arrays.bias, 0, blocks);
    check(tile.name, leancore::operation_names[static_cast<int>(operation)], d, images, weights);
  }
}

template <typename T>
void count_weight(int index, const leancore::ConvDesc& d) {
  const cuda::WeightTileFacts& tile = cuda::weight_tiles[index];
  test::Arrays<T> in(d);
  fill(in);
  const test::DeviceArrays<T> arrays(in, 0);
  const leancore::detail::Arguments a = test::arguments_of(arrays, arrays);
  const std::optional<cuda::RowsWeightPlan> plan = cuda::plan_weight_tile(index, d, a);
  CHECK(plan.has_value(), "%s %s", tile.name, test::describe(d).c_str());
  if (!plan) return;
  const test::DeviceMemory workspace(static_cast<std::size_t>(plan->reduce.splits * plan->reduce.elements) * 4);
  cuda_emulation_count();
  REQUIRE_CUDA(cuda::run(*plan, d.dtype, cuda::Call{a, workspace.data(), nullptr}));
  Count images, weights;
  images.add(arrays.x);
  const cuda::RowsCut& cut = plan->parameters.cut;
  images.add(arrays.y,
             beside_strips(cut, plan->parameters.dy, d.batch, sizeof(T)) + neighbouring_planes(cut, arrays.y));
  // Written, and read again by the reduction.
  weights.moved = static_cast<std::int64_t>(cuda_emulation_sectors(workspace.data()));
  weights.fewest = plan->reduce.splits * plan->reduce.elements * 4 / 32 * 2;
  weights.add(arrays.alpha);
  weights.add(arrays.c);
  check(tile.name, "backward_weight", d, images, weights);
}

// Sectors that tiles read beside their own pixels, of the channels whose stencil they add: the rows above and below,
// and the pixels beside strips.
std::int64_t beside_tiles(const cuda::DeepPlan& plan) {
  const cuda::DeepParameters& p = plan.parameters;
  const cuda::DeepCut& cut = p.cut;
  const std::int64_t element = cuda::deep_tiles[plan.tile].element, bytes = element * p.stencil_channels;
  std::int64_t rows = 0;
  for (int row = cut.tile_rows; row < cut.rows; row += cut.tile_rows) rows += row % cut.height != 0 ? 2 : 0;
  const std::int64_t sides = std::int64_t{cut.rows} * (cut.strips - 1) * 2;
  return rows * cut.width * bytes / 32 + sides * (plan.pack.channels_last ? bytes / 32 : p.stencil_channels);
}

template <typename T>
void count_deep(int index, const leancore::ConvDesc& d) {
  const cuda::DeepTileFacts& tile = cuda::deep_tiles[index];
  test::Arrays<T> in(d);
  fill(in);
  const test::DeviceArrays<T> arrays(in, 0);
  const leancore::detail::Arguments a = test::arguments_of(arrays, arrays);
  for (const Operation operation : {Operation::forward, Operation::backward_data}) {
    const std::optional<cuda::DeepPlan> plan = cuda::plan_deep_tile(index, operation, d, a);
    CHECK(plan.has_value(), "%s %s", tile.name, test::describe(d).c_str());
    if (!plan) continue;
    const test::DeviceMemory workspace(cuda::workspace_of(*plan));
    cuda_emulation_count();
    REQUIRE_CUDA(cuda::run(*plan, d.dtype, cuda::Call{a, workspace.data(), nullptr}));
    // The pixels are read once for each block of output channels.
    const bool forward = operation == Operation::forward;
    const std::int64_t blocks = (plan->parameters.out.channels + tile.block_outputs - 1) / tile.block_outputs;
    Count images, weights;
    images.add(forward ? arrays.x : arrays.y, beside_tiles(*plan) * 32, blocks);
    images.add(forward ? arrays.y : arrays.x);
    weights.add(arrays.alpha);
    weights.add(arrays.c, 0, plan->launch.grid[0]);
    if (forward) weights.add(arrays.bias, 0, plan->launch.grid[0]);
    // Written, and read again by every tile.
    weights.moved += static_cast<std::int64_t>(cuda_emulation_sectors(workspace.data()));
    weights.fewest += static_cast<std::int64_t>(cuda::workspace_of(*plan)) / 32 * (1 + plan->launch.grid[0] / blocks);
    check(tile.name, leancore::operation_names[static_cast<int>(operation)], d, images, weights);
  }
}

// Strips, several rows of an image in a tile, several images in a tile; the channels of two blocks or more, and of
// another number.
template <typename T>
void count_deep_layers(int index) {
  const cuda::DeepTileFacts& t = cuda::deep_tiles[index];
  const std::int64_t shapes[][5] = {
      {1, 256, 256, 8, 4 * t.strip}, {1, 192, 256, 16, 32}, {1, 256, 192, 16, 16}, {4, 256, 256, 8, 8}};
  for (const auto& [batch, c_in, c_out, height, width] : shapes) {
    const std::int64_t extents[] = {height, width};
    leancore::ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 2, batch, c_in, c_out, extents);
    count_deep<T>(index, d);
    leancore::set_channels_last(d);
    count_deep<T>(index, d);
  }
}

// Rows that fill a slot, strips of wider ones, several rows side by side; 2-D, or volumes of a few such planes.
template <typename Visit>
void over_shapes(leancore::DType dtype, bool channels_last, int dims, std::int64_t channels, std::int64_t pixels,
                 Visit visit) {
  const std::int64_t extents[][3] = {{3, 32, pixels}, {3, 32, 2 * pixels}, {3, 32, 32}};
  for (const auto& e : extents) {
    leancore::ConvDesc d = leancore::compact_desc(dtype, dims, 1, channels, channels, e + 3 - dims);
    if (channels_last) leancore::set_channels_last(d);
    visit(d);
  }
}

}  // namespace

int test_cuda::traffic() {
  for (int tile = 0; tile < static_cast<int>(std::size(cuda::rows_tiles)); ++tile) {
    const cuda::RowsTile& t = cuda::rows_tiles[tile];
    const bool last = cuda::is_channels_last(t.kind);
    for (int dims = 2; dims <= (t.takes_volumes ? 3 : 2); ++dims) {
      if (t.kind == cuda::RowsKind::tensor || t.kind == cuda::RowsKind::last) {
        over_shapes(leancore::DType::bf16, last, dims, t.channels, t.pixels,
                    [&](const auto& d) { count_rows<test::bf16>(tile, d); });
      } else {
        over_shapes(leancore::DType::f32, last, dims, t.channels, t.pixels,
                    [&](const auto& d) { count_rows<float>(tile, d); });
      }
    }
  }
  for (int tile = 0; tile < static_cast<int>(std::size(cuda::weight_tiles)); ++tile) {
    const cuda::WeightTileFacts& t = cuda::weight_tiles[tile];
    const bool last = cuda::is_last(t.kind);
    for (int dims = 2; dims <= 3; ++dims) {
      if (cuda::is_fma(t.kind)) {
        over_shapes(leancore::DType::f32, last, dims, t.channels, t.pixels,
                    [&](const auto& d) { count_weight<float>(tile, d); });
      } else {
        over_shapes(leancore::DType::bf16, last, dims, t.channels, t.pixels,
                    [&](const auto& d) { count_weight<test::bf16>(tile, d); });
      }
    }
  }
  for (int tile = 0; tile < static_cast<int>(std::size(cuda::deep_tiles)); ++tile) {
    cuda::deep_tiles[tile].element == 4 ? count_deep_layers<float>(tile) : count_deep_layers<test::bf16>(tile);
  }
  return test::summary("cuda traffic");
}
