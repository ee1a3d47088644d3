// Every tile of the row-marching kernels, on the shapes that lead it every way: rows side by side in a slot, strips,
// several chunks, ragged channels and widths, unaligned memory, gaps between rows, channels and images; volumes of one
// plane, of two and of more; both directions.
#include <map>
#include <optional>

#include "contents.hpp"
#include "launch.cuh"
#include "tiles.hpp"
#include "topics.hpp"

namespace {

namespace cuda = leancore::detail::cuda;
using leancore::Operation;
using test::Contents;

std::map<int, int> cases;  // by tile

// Strides with gaps that keep rows contiguous.
void leave_gaps(std::int64_t* strides, const leancore::ConvDesc& d, std::int64_t channels, std::int64_t gap) {
  std::int64_t stride = d.extents[d.dims - 1] + gap;
  strides[d.dims + 1] = 1;
  for (int axis = d.dims - 2; axis >= 0; --axis) {
    strides[axis + 2] = stride;
    stride = d.extents[axis] * stride + gap;
  }
  strides[1] = stride;
  strides[0] = channels * stride + 2 * gap;
}

// Of TF32 numbers, for one of fp32.
int products_of(cuda::RowsKind kind) {
  switch (kind) {
    case cuda::RowsKind::tf32x3:
    case cuda::RowsKind::last_tf32x3:
      return 3;
    case cuda::RowsKind::tf32:
    case cuda::RowsKind::last_tf32:
      return 1;
    default:
      return 0;
  }
}

// Runs one tile, whatever the plan would have chosen: only that tile is offered.
template <typename T>
void compare(int tile, leancore::ConvDesc d, std::int64_t shift, Contents contents, test::Random& random) {
  test::Arrays<T> in(d);
  test::fill(in, contents, random);
  for (const Operation operation : {Operation::forward, Operation::backward_data}) {
    test::Outputs<T> host(operation, d, test::GuardedMemory::Flush::to_end);
    const test::DeviceArrays<T> from(in, shift), out(host, shift);
    const leancore::detail::Arguments a = test::arguments_of(from, out);
    const std::optional<cuda::RowsPlan> plan = cuda::plan_tile(tile, operation, d, a);
    CHECK(plan.has_value(), "%s %s", cuda::rows_tiles[tile].name, test::describe(d).c_str());
    if (!plan) continue;
    REQUIRE_CUDA(cuda::run(*plan, d.dtype, cuda::Call{a, nullptr, nullptr}));
    REQUIRE_CUDA(cudaDeviceSynchronize());
    (operation == Operation::forward ? out.y : out.x).download();
    test::check_contents(cuda::rows_tiles[tile].name, operation, d, in, host.values(), contents,
                         products_of(cuda::rows_tiles[tile].kind));
    ++cases[tile];
  }
}

struct Shape {
  std::int64_t batch, c_in, c_out;
  std::vector<std::int64_t> extents;

  [[nodiscard]] leancore::ConvDesc desc(leancore::DType dtype) const {
    return leancore::compact_desc(dtype, static_cast<int>(extents.size()), batch, c_in, c_out, extents.data());
  }
};

template <typename T>
void check_rows(int tile, test::Random& random) {
  const cuda::RowsTile& t = cuda::rows_tiles[tile];
  const std::int64_t pixels = t.pixels, most = t.channels;
  const Shape shapes[] = {
      {1, most, most, {5, pixels}},                                     // one row fills the slot
      {2, most - 3, most, {40, 8}},                                     // several rows side by side, several chunks
      {1, most, std::min<std::int64_t>(most, 5), {3, 2 * pixels + 8}},  // strips
      {1, 5, most, {34, pixels / 2 + 4}},                               // rows that do not fill the slot
      {1, most, 3, {7, 13}},                                            // odd width
      {2, most - 1, 7, {2, pixels + 6}},                                // strips, width even only
      {1, 7, 11, {1, pixels + 1}},                                      // one row, strips, odd width
      {3, 1, 1, {9, 1}},
      {2, most, most, {3, 5, pixels}},  // volumes
      {1, most - 3, most, {2, 40, 8}},  // two planes, several chunks
      {1, most, std::min<std::int64_t>(most, 5), {3, 1, 2 * pixels + 8}},
      {2, 5, most, {1, 9, pixels / 2 + 4}},  // one plane
      {1, most, 3, {4, 7, 13}},
      {1, most - 1, 7, {3, 2, pixels + 6}},
      {2, 2, 2, {5, 3, 1}},
  };
  for (const Shape& s : shapes) {
    if (s.extents.size() == 3 && !t.takes_volumes) continue;
    for (const std::int64_t gap : {0, 8, 3}) {
      if (gap != 0 && random.integer(0, 2) != 0) continue;
      leancore::ConvDesc d = s.desc(test::dtype_of<T>);
      leave_gaps(d.x_strides, d, d.c_in, gap);
      leave_gaps(d.y_strides, d, d.c_out, gap);
      const std::int64_t shift = random.integer(0, 2) == 0 ? random.integer(1, 3) : 0;
      compare<T>(tile, d, shift, random.integer(0, 2) != 0 ? Contents::integers : Contents::random, random);
      if (sizeof(T) == 4) compare<T>(tile, d, shift, random.pick({Contents::infinite, Contents::nan}), random);
    }
  }
  // A row of pixels is a 1-D problem.
  const std::int64_t length[] = {pixels + 20};
  compare<T>(tile, leancore::compact_desc(test::dtype_of<T>, 1, 2, most, most, length), 0, Contents::integers, random);
}

template <typename T>
void check_last(int tile, test::Random& random) {
  const cuda::RowsTile& t = cuda::rows_tiles[tile];
  const std::int64_t pixels = t.pixels, most = t.channels;
  constexpr std::int64_t piece = 16 / sizeof(T);
  const Shape shapes[] = {
      {1, most, most, {5, pixels}},            // one row fills the slot
      {2, most - piece, most, {40, 7}},        // several rows side by side, several chunks
      {1, most, piece, {3, 2 * pixels + 3}},   // strips
      {1, piece, most, {34, pixels / 2 + 1}},  // rows that do not fill the slot
      {2, most, most, {1, pixels + 1}},        // one row, strips
      {1, piece, piece, {3, 2}},
      {2, most, most, {3, 5, pixels}},  // volumes
      {1, most, piece, {2, 40, 7}},     // two planes, several chunks
      {1, piece, most, {3, 2, pixels + 3}},
      {2, piece, piece, {1, 3, 2}},  // one plane
  };
  for (const Shape& s : shapes) {
    if (s.c_in == 0 || (s.extents.size() == 3 && !t.takes_volumes)) continue;
    leancore::ConvDesc d = s.desc(test::dtype_of<T>);
    leancore::set_channels_last(d);
    if (random.integer(0, 1) != 0) {  // a slice of the channels of a larger array
      for (int axis = 0; axis < d.dims + 2; ++axis) {
        if (axis != 1) d.x_strides[axis] += piece * d.x_strides[axis] / d.c_in;
      }
    }
    const std::int64_t shift = random.integer(0, 2) == 0 ? piece : 0;
    compare<T>(tile, d, shift, random.integer(0, 2) != 0 ? Contents::integers : Contents::random, random);
    if (sizeof(T) == 4) compare<T>(tile, d, shift, random.pick({Contents::infinite, Contents::nan}), random);
  }
  const std::int64_t length[] = {pixels + 20};
  leancore::ConvDesc row = leancore::compact_desc(test::dtype_of<T>, 1, 2, most, most, length);
  leancore::set_channels_last(row);
  compare<T>(tile, row, 0, Contents::integers, random);
}

}  // namespace

int test_cuda::rows() {
  test::Random random(13);
  int shared_bytes = 0;
  REQUIRE_CUDA(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  for (int tile = 0; tile < static_cast<int>(std::size(cuda::rows_tiles)); ++tile) {
    const cuda::RowsTile& t = cuda::rows_tiles[tile];
    if (t.shared_bytes > shared_bytes) {
      std::printf("%s: not on this device, which has %d of %d bytes of shared memory\n", t.name, shared_bytes,
                  t.shared_bytes);
      continue;
    }
    switch (t.kind) {
      case cuda::RowsKind::fma:
      case cuda::RowsKind::tf32x3:
      case cuda::RowsKind::tf32:
        check_rows<float>(tile, random);
        break;
      case cuda::RowsKind::tensor:
        check_rows<test::f16>(tile, random);
        check_rows<test::bf16>(tile, random);
        break;
      case cuda::RowsKind::last:
        check_last<test::f16>(tile, random);
        check_last<test::bf16>(tile, random);
        break;
      case cuda::RowsKind::last_tf32x3:
      case cuda::RowsKind::last_tf32:
        check_last<float>(tile, random);
        break;
    }
    std::printf("%s: %d cases\n", t.name, cases[tile]);
  }
  return test::summary("cuda rows");
}
