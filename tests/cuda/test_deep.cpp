// The kernels of many channels: every tile on shapes that lead it every way (small images that share a tile, rows that
// do not fill one, strips, ragged channels, odd widths, unaligned memory, gaps, NaN and infinities), in both
// directions; volumes of one plane, of two and of more; and calls that the plan gives to them, with exactly the
// workspace that is asked for.
#include <cmath>
#include <limits>
#include <optional>

#include "contents.hpp"
#include "launch.cuh"
#include "tiles.hpp"
#include "topics.hpp"

namespace {

namespace cuda = leancore::detail::cuda;
using leancore::ConvDesc;
using leancore::Operation;
using test::Contents;

long cases = 0;

// Runs one tile, whatever the plan would have chosen; nothing where it cannot take the call.
template <typename T>
std::vector<T> run_tile(int tile, Operation operation, const ConvDesc& d, const test::Arrays<T>& in,
                        std::int64_t shift) {
  test::Outputs<T> host(operation, d, test::GuardedMemory::Flush::to_end);
  const test::DeviceArrays<T> from(in, shift), out(host, shift);
  const leancore::detail::Arguments a = test::arguments_of(from, out);
  const std::optional<cuda::DeepPlan> plan = cuda::plan_deep_tile(tile, operation, d, a);
  if (!plan) return {};
  const test::DeviceMemory workspace(cuda::workspace_of(*plan));
  REQUIRE_CUDA(cuda::run(*plan, d.dtype, cuda::Call{a, workspace.data(), nullptr}));
  REQUIRE_CUDA(cudaDeviceSynchronize());
  (operation == Operation::forward ? out.y : out.x).download();
  ++cases;
  return host.values();
}

template <typename T>
void compare(int tile, const ConvDesc& d, std::int64_t shift, Contents contents, test::Random& random) {
  const cuda::DeepTileFacts& t = cuda::deep_tiles[tile];
  test::Arrays<T> in(d);
  test::fill(in, contents, random);
  for (const Operation operation : {Operation::forward, Operation::backward_data}) {
    const std::vector<T> got = run_tile(tile, operation, d, in, shift);
    test::check_contents(t.name, operation, d, in, got, contents, t.element == 4 ? t.products : 0);
  }
}

// Of 16 bits, zeros are multiplied that the definition does not have: check_nan is theirs.
template <typename T>
void compare_each(int tile, const ConvDesc& d, std::int64_t shift, test::Random& random) {
  compare<T>(tile, d, shift, random.integer(0, 2) != 0 ? Contents::integers : Contents::random, random);
  if (sizeof(T) == 4) compare<T>(tile, d, shift, random.pick({Contents::infinite, Contents::nan}), random);
}

struct Shape {
  std::int64_t batch, c_in, c_out, extents[2];
};

// Contiguous rows with gaps between them.
void leave_gaps(std::int64_t (&strides)[leancore::max_axes], std::int64_t channels, const std::int64_t (&extents)[2],
                std::int64_t gap) {
  strides[3] = 1;
  strides[2] = extents[1] + gap;
  strides[1] = extents[0] * strides[2] + gap;
  strides[0] = channels * strides[1] + 2 * gap;
}

template <typename T>
void check_tile(int tile, test::Random& random) {
  const Shape shapes[] = {
      {1, 160, 128, {4, 32}},  // one tile
      {3, 136, 144, {9, 8}},   // images end within tiles; one output block more than a full one
      {2, 129, 131, {7, 7}},   // odd channels and width
      {5, 160, 130, {4, 4}},   // four images in a tile
      {1, 130, 264, {5, 64}},  // rows as long as a strip; a third output block
      {1, 144, 150, {5, 72}},  // strips, the second one narrow
      {2, 130, 40, {3, 130}},  // strips of even width; few output channels, many in backward_data
      {1, 135, 5, {3, 131}},   // strips of odd width
      {1, 300, 20, {7, 20}},   // rows that do not fill the tile, even width
      {1, 7, 300, {6, 12}},    // few channels
  };
  for (const Shape& s : shapes) {
    for (const std::int64_t gap : {0, 8, 3}) {
      if (gap != 0 && random.integer(0, 3) != 0) continue;
      ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 2, s.batch, s.c_in, s.c_out, s.extents);
      leave_gaps(d.x_strides, d.c_in, s.extents, gap);
      leave_gaps(d.y_strides, d.c_out, s.extents, gap);
      const std::int64_t shift = random.integer(0, 2) == 0 ? random.integer(1, 3) : 0;
      compare_each<T>(tile, d, shift, random);
    }
  }
  for (const std::int64_t channels : {129, 136, 160, 192, 200, 256, 384}) {
    const std::int64_t extents[] = {random.integer(1, 4), random.integer(1, 9)};
    compare_each<T>(tile, leancore::compact_desc(test::dtype_of<T>, 2, 2, channels, channels, extents), 0, random);
  }
  // alpha, c and bias of any strides.
  ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 2, 2, 140, 133, shapes[1].extents);
  d.alpha_strides[0] = 1;
  d.alpha_strides[1] = d.c_out + 3;
  d.c_strides[0] = -1;
  d.c_strides[1] = d.diagonal() + 1;
  d.bias_stride = -2;
  compare<T>(tile, d, 0, Contents::integers, random);
  for (const std::int64_t length : {1, 100, 200}) {
    compare<T>(tile, leancore::compact_desc(test::dtype_of<T>, 1, 3, 150, 140, &length), 0, Contents::integers, random);
  }
}

// Channels-last arrays: vectors of 16 bytes of channels of `in`, and of 4 channels of `out`.
template <typename T>
void check_last(int tile, test::Random& random) {
  constexpr std::int64_t piece = 16 / sizeof(T);
  const Shape shapes[] = {
      {1, 160, 128, {4, 32}},  // one tile
      {3, 136, 144, {9, 7}},   // images end within tiles; one output block more than a full one
      {5, 160, 136, {4, 4}},   // eight images in a tile
      {1, 136, 264, {5, 64}},  // rows as long as a strip; a third output block
      {1, 144, 152, {5, 65}},  // strips, the last of one pixel
      {2, 8, 136, {3, 131}},   // few input channels, strips
      {1, 128 + piece, 192 + piece, {3, 21}},
      {2, 200, 384, {1, 5}},
  };
  for (const Shape& s : shapes) {
    ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 2, s.batch, s.c_in, s.c_out, s.extents);
    leancore::set_channels_last(d);
    if (random.integer(0, 1) != 0) {  // a slice of the channels of a larger array
      for (const int axis : {0, 2, 3}) d.x_strides[axis] += piece * d.x_strides[axis] / d.c_in;
    }
    compare_each<T>(tile, d, random.integer(0, 2) == 0 ? piece : 0, random);
  }
  for (const std::int64_t length : {1, 100, 200}) {
    ConvDesc row = leancore::compact_desc(test::dtype_of<T>, 1, 3, 152, 144, &length);
    leancore::set_channels_last(row);
    compare<T>(tile, row, 0, Contents::integers, random);
  }
}

// Volumes, whose planes share tiles as images do; both layouts.
template <typename T>
void check_volumes(int tile, test::Random& random) {
  constexpr std::int64_t piece = 16 / sizeof(T);
  const struct {
    std::int64_t batch, c_in, c_out, extents[3];
  } shapes[] = {
      {2, 136, 72, {3, 5, 8}},     // planes end within tiles
      {1, 48, 136, {2, 3, 72}},    // two planes, strips
      {2, 24, 40, {5, 4, 4}},      // many planes in a tile
      {1, 136, 40, {4, 1, 33}},    // planes of one row
      {3, 40, 24, {1, 6, 7}},      // one plane
      {1, piece, 24, {7, 2, 131}}  // few channels, odd strips
  };
  for (const auto& s : shapes) {
    ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 3, s.batch, s.c_in, s.c_out, s.extents);
    ConvDesc last = d;
    const std::int64_t gap = random.pick({std::int64_t{0}, std::int64_t{8}, std::int64_t{3}});
    for (std::int64_t* strides : {d.x_strides, d.y_strides}) {  // between planes, channels and volumes
      strides[2] += gap;
      strides[1] = s.extents[0] * strides[2] + gap;
      strides[0] = (strides == d.x_strides ? s.c_in : s.c_out) * strides[1] + gap;
    }
    compare_each<T>(tile, d, random.integer(0, 2) == 0 ? random.integer(1, 3) : 0, random);
    leancore::set_channels_last(last);
    last.x_strides[2] += piece * random.integer(0, 1);
    last.x_strides[0] = s.extents[0] * last.x_strides[2] + piece;
    compare_each<T>(tile, last, 0, random);
  }
}

// The first and the last rows and columns, and those beside them, wherever in a tile they come to lie.
template <typename T>
void check_borders(int tile, test::Random& random) {
  for (const std::int64_t width : {1, 2, 3, 5, 8, 9, 15, 16, 17, 24, 31, 40, 63, 64, 65, 66, 80, 127, 128, 129, 136}) {
    const std::int64_t extents[] = {random.integer(1, 5), width};
    compare<T>(tile, leancore::compact_desc(test::dtype_of<T>, 2, random.integer(1, 3), 40, 35, extents), 0,
               Contents::integers, random);
    ConvDesc last = leancore::compact_desc(test::dtype_of<T>, 2, random.integer(1, 3), 40, 24, extents);
    leancore::set_channels_last(last);
    compare<T>(tile, last, 0, Contents::integers, random);
  }
}

// A NaN spreads as the definition says, and at the neighbouring pixels to the 16 channels of its product.
template <typename T>
void check_nan(int tile, test::Random& random) {
  const std::int64_t channels = 56, extents[] = {4, 19};
  for (const bool last : {false, true}) {
    ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 2, 2, channels, channels, extents);
    if (last) leancore::set_channels_last(d);
    test::Arrays<T> in(d);
    in.fill([&] { return static_cast<double>(random.integer(1, 3)); });
    std::vector<T> values = in.x.values();
    const auto at = random.integer(0, static_cast<std::int64_t>(values.size()) - 1);
    values[static_cast<std::size_t>(at)] = T(std::numeric_limits<double>::quiet_NaN());
    in.x.assign(values);
    in.y.assign(values);
    const std::int64_t pixels = extents[0] * extents[1], image = channels * pixels;
    for (const Operation operation : {Operation::forward, Operation::backward_data}) {
      const std::vector<T> expected = test::compute(operation, d, in, true, test::forced("reference"));
      const std::vector<T> got = run_tile(tile, operation, d, in, 0);
      CHECK(got.size() == expected.size(), "%zu results", got.size());
      for (std::int64_t i = 0; i < static_cast<std::int64_t>(got.size()); ++i) {
        const auto value = static_cast<double>(got[static_cast<std::size_t>(i)]);
        const auto wanted = static_cast<double>(expected[static_cast<std::size_t>(i)]);
        const std::int64_t rows = i % pixels / extents[1] - at % pixels / extents[1];
        const std::int64_t columns = i % extents[1] - at % extents[1];
        const bool neighbour = i / image == at / image && std::abs(rows) + std::abs(columns) == 1 &&
                               i % image / pixels / 16 == at % image / pixels / 16;
        CHECK(std::isnan(wanted) ? std::isnan(value) : value == wanted || (neighbour && std::isnan(value)),
              "%s %s element %ld: %g, expected %g, NaN at %ld", cuda::deep_tiles[tile].name,
              leancore::operation_names[static_cast<int>(operation)], static_cast<long>(i), value, wanted,
              static_cast<long>(at));
      }
    }
  }
}

// Through the library.
template <typename T>
void check_calls(test::Random& random) {
  const std::int64_t extents[] = {6, 10};
  for (const auto& [c_in, c_out] : {std::pair<int, int>{200, 160}, {64, 136}, {136, 64}}) {
    ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 2, 3, c_in, c_out, extents);
    if (random.integer(0, 1) != 0) leancore::set_channels_last(d);
    test::Arrays<T> in(d);
    in.fill([&] { return static_cast<double>(random.integer(-4, 4)); });
    for (const Operation operation : {Operation::forward, Operation::backward_data, Operation::backward}) {
      const std::vector<T> expected = test::compute(operation, d, in, true, test::forced("reference"));
      for (const char* name : {"cuda", "cuda_tf32"}) {
        CHECK(test::compute_on_device(operation, d, in, true, test::on_device(name)) == expected, "%s %s %s", name,
              leancore::operation_names[static_cast<int>(operation)], test::describe(d).c_str());
      }
    }
  }
}

}  // namespace

int test_cuda::deep() {
  test::Random random(17);
  int shared_bytes = 0;
  REQUIRE_CUDA(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  for (int tile = 0; tile < static_cast<int>(std::size(cuda::deep_tiles)); ++tile) {
    const cuda::DeepTileFacts& t = cuda::deep_tiles[tile];
    // Channels-last strips need the most.
    if (t.shared_bytes((t.pixels / t.strip + 2) * (t.strip + 2) * cuda::deep_pixel_pitch) > shared_bytes) {
      std::printf("%s: not on this device\n", t.name);
      continue;
    }
    const long before = cases;
    if (t.element == 4) {
      check_tile<float>(tile, random);
      check_last<float>(tile, random);
      check_volumes<float>(tile, random);
      check_borders<float>(tile, random);
    } else {
      check_tile<test::f16>(tile, random);
      check_tile<test::bf16>(tile, random);
      check_last<test::f16>(tile, random);
      check_last<test::bf16>(tile, random);
      check_volumes<test::f16>(tile, random);
      check_volumes<test::bf16>(tile, random);
      check_borders<test::f16>(tile, random);
      check_borders<test::bf16>(tile, random);
      check_nan<test::f16>(tile, random);
      check_nan<test::bf16>(tile, random);
    }
    std::printf("%s: %ld cases\n", t.name, cases - before);
  }
  check_calls<float>(random);
  check_calls<test::f16>(random);
  check_calls<test::bf16>(random);
  return test::summary("cuda deep");
}
