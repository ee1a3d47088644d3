// Every tile of the row-marching backward_weight, on the shapes that lead it every way: rows side by side in a slot,
// strips, several chunks, several units to a split and splits to a result, several blocks of channels, ragged channels
// and widths, unaligned memory; volumes of one plane, of two and of more; one of the gradients alone.
#include <optional>

#include "../cpp/bounds.hpp"
#include "launch.cuh"
#include "support.hpp"
#include "tiles.hpp"
#include "topics.hpp"

namespace {

namespace cuda = leancore::detail::cuda;
constexpr auto operation = leancore::Operation::backward_weight;

long cases = 0;

// Runs one tile, whatever the plan would have chosen.
template <typename T>
void compare(int tile, const leancore::ConvDesc& d, std::int64_t shift, int unwanted, bool exact,
             test::Random& random) {
  test::Arrays<T> in(d);
  in.fill([&] { return exact ? static_cast<double>(random.integer(-4, 4)) : random.normal(); });
  test::Outputs<T> host(operation, d, test::GuardedMemory::Flush::to_end, unwanted);
  const test::DeviceArrays<T> from(in, shift), out(host, 0);
  leancore::detail::Arguments a = test::arguments_of(from, out);
  if (unwanted & test::dalpha) a.dalpha = nullptr;
  if (unwanted & test::dc) a.dc = nullptr;
  const std::optional<cuda::RowsWeightPlan> plan = cuda::plan_weight_tile(tile, d, a);
  CHECK(plan.has_value(), "%s %s", cuda::weight_tiles[tile].name, test::describe(d).c_str());
  if (!plan) return;
  const test::DeviceMemory workspace(static_cast<std::size_t>(plan->reduce.splits * plan->reduce.elements) * 4);
  REQUIRE_CUDA(cuda::run(*plan, d.dtype, cuda::Call{a, workspace.data(), nullptr}));
  REQUIRE_CUDA(cudaDeviceSynchronize());
  out.alpha.download();
  out.c.download();
  const std::vector<T> got = host.values();
  if (exact) {
    const std::vector<T> expected =
        test::compute(operation, d, in, false, test::forced("reference"), test::GuardedMemory::Flush::to_end, unwanted);
    CHECK(got == expected, "%s %s, %ld elements off, without %d", cuda::weight_tiles[tile].name,
          test::describe(d).c_str(), static_cast<long>(shift), unwanted);
  } else {
    test::Bounds(operation, d, in).check(cuda::weight_tiles[tile].name, operation, d, got, sizeof(T) == 2);
  }
  ++cases;
}

template <typename T>
void check_tile(int tile, test::Random& random) {
  const cuda::WeightTileFacts& t = cuda::weight_tiles[tile];
  const std::int64_t pixels = t.pixels, most = t.channels;
  const struct {
    std::int64_t batch, c_in, c_out;
    std::vector<std::int64_t> extents;
  } shapes[] = {
      {1, most, most, {3, pixels}},           // one row fills the slot
      {2, most - 3, most, {5, 8}},            // several rows side by side
      {1, 5, most - 1, {2, 2 * pixels + 8}},  // strips
      {1, 3, 9, {35, pixels}},                // two chunks
      {35, 2, 3, {1, pixels / 2}},            // more images than a split has row-blocks
      {1, most + 5, 2 * most, {2, 16}},       // several blocks of channels
      {1, most, 3, {7, 13}},                  // odd width
      {2, 7, most, {2, pixels + 6}},          // strips, width even only
      {1, most - 8, 8, {6, 7}},               // channels last: whole pieces of 16 bytes
      {1, 6, most - 2, {2, pixels + 3}},      // channels last: strips, even channels only
      {3, 2, 1, {9, 2}},
      {3, 1, 1, {9, 1}},
      // Volumes.
      {2, most, most, {3, 3, pixels}},
      {1, most, most, {2, 5, 16}},               // two planes, whole pieces
      {2, most - 3, most, {1, 5, 8}},            // one plane
      {1, 5, most - 1, {3, 2, 2 * pixels + 8}},  // strips
      {1, 8, 16, {2, 35, pixels}},               // two chunks
      {2, 2, 3, {36, 1, pixels / 2}},            // more planes than a split has row-blocks
      {1, most + 5, 2 * most, {2, 2, 16}},       // several blocks of channels
      {1, most + 8, 2 * most + 8, {3, 2, 8}},    // the same, whole pieces
      {1, most, 3, {4, 7, 13}},                  // odd width
      {1, 7, most, {3, 2, pixels + 6}},          // strips, width even only
      {1, most - 8, 8, {3, 6, 7}},               // channels last: whole pieces
      {2, 6, most - 2, {2, 2, pixels + 3}},      // channels last: strips, even channels only
      {2, 2, 2, {5, 3, 1}},
  };
  for (const auto& s : shapes) {
    if (cuda::is_last(t.kind) && s.extents.back() == 1) continue;  // pixels side by side are rows, too
    leancore::ConvDesc d = leancore::compact_desc(test::dtype_of<T>, static_cast<int>(s.extents.size()), s.batch,
                                                  s.c_in, s.c_out, s.extents.data());
    if (cuda::is_last(t.kind)) leancore::set_channels_last(d);
    const std::int64_t shift = random.integer(0, 2) == 0 ? random.integer(1, 3) : 0;
    const bool exact = random.integer(0, 2) != 0;
    compare<T>(tile, d, shift, exact ? static_cast<int>(random.pick({0, 0, 2, 4})) : 0, exact, random);
  }
  const std::int64_t length[] = {pixels + 20};
  leancore::ConvDesc row = leancore::compact_desc(test::dtype_of<T>, 1, 2, most, most, length);
  if (cuda::is_last(t.kind)) leancore::set_channels_last(row);
  compare<T>(tile, row, 0, 0, true, random);
}

}  // namespace

int test_cuda::rows_weight() {
  test::Random random(14);
  for (int tile = 0; tile < static_cast<int>(std::size(cuda::weight_tiles)); ++tile) {
    if (cuda::is_fma(cuda::weight_tiles[tile].kind)) {
      check_tile<float>(tile, random);
    } else {
      check_tile<test::f16>(tile, random);
      check_tile<test::bf16>(tile, random);
    }
  }
  std::printf("%ld cases\n", cases);
  return test::summary("cuda rows weight");
}
