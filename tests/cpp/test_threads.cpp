// The same bits for any number of threads, any workspace that suffices and any alignment; many callers at once.
// CTest sets OMP_NUM_THREADS=8, so that more threads than processors take part.
#include <thread>

#include "support.hpp"

namespace {

bool few_rounds() {
  return test::share_of_rounds() < 1;
}

template <typename T>
std::vector<T> compute(leancore::Operation operation, const leancore::ConvDesc& d, const test::Arrays<T>& in,
                       int threads, const char* name) {
  leancore::Context context = test::forced(name);
  context.threads = threads;
  return test::compute(operation, d, in, true, context);
}

// All operations with 1 thread and with each of the given numbers.
template <typename T>
void same_bits(const leancore::ConvDesc& d, const std::vector<int>& counts, test::Random& random) {
  test::Arrays<T> in(d);
  in.fill([&] { return random.normal(); });
  double products = static_cast<double>(d.batch * d.c_in * d.c_out);
  for (int a = 0; a < d.dims; ++a) products *= static_cast<double>(d.y_extent(a));
  for (const leancore::Operation operation : test::operations) {
    for (const char* name : test::implementations(operation, d)) {
      // It is slow, and the same loop for every shape.
      if (products > 6e6 && (few_rounds() || std::strcmp(name, "reference") == 0)) continue;
      const std::vector<T> one = compute(operation, d, in, 1, name);
      for (const int threads : counts) {
        CHECK(compute(operation, d, in, threads, name) == one, "%s %s with %d threads: %s", name,
              leancore::operation_names[static_cast<int>(operation)], threads, test::describe(d).c_str());
      }
    }
  }
}

void smaller_workspace(leancore::Operation operation, const leancore::ConvDesc& d, const test::Arrays<float>& in) {
  leancore::Context all, one;
  one.threads = 1;
  std::size_t most = 0, least = 0;
  leancore::check(workspace_bytes(operation, d, all, most));
  leancore::check(workspace_bytes(operation, d, one, least));
  CHECK(least < most, "%zu and %zu bytes", least, most);
  const std::vector<float> expected = compute(operation, d, in, 0, nullptr);
  for (const std::size_t bytes : {most, (most + least) / 2, least, least - 64}) {
    const test::GuardedMemory workspace(bytes, test::GuardedMemory::Flush::to_end);
    all.workspace = workspace.data();
    all.workspace_bytes = bytes;
    test::Outputs<float> out(operation, d, test::GuardedMemory::Flush::to_end);
    const leancore::Status status =
        operation == leancore::Operation::forward
            ? forward(d, in.x.origin(), in.alpha.origin(), in.c.origin(), in.bias.origin(), out.y.origin(), all)
            : backward(d, in.x.origin(), in.y.origin(), in.alpha.origin(), in.c.origin(), out.x.origin(),
                       out.alpha.origin(), out.c.origin(), all);
    if (bytes >= least) {
      CHECK(status.ok() && out.values() == expected, "%zu bytes: %s", bytes, status.message);
    } else {
      CHECK(status.code == leancore::StatusCode::invalid_argument, "%zu bytes: %s", bytes, status.message);
      for (const float value : out.values()) CHECK(std::isnan(value), "output touched");
    }
  }
}

}  // namespace

int main() {
  std::printf("%s, up to %d threads\n", leancore::thread_backend(), leancore::max_threads());
  test::Random random(8);
  // {dims, batch, c_in, c_out, extents}: small maps, marching rows, 1-D, 3-D, 4-D, weights with many lanes.
  const std::int64_t problems[][8] = {{2, 50, 48, 32, 8, 8, 0, 0},   {2, 2, 24, 40, 70, 90, 0, 0},
                                      {1, 3, 33, 17, 9000, 0, 0, 0}, {3, 1, 16, 16, 20, 22, 24, 0},
                                      {4, 2, 9, 13, 5, 6, 7, 9},     {2, 1, 130, 130, 16, 33, 0, 0}};
  for (const auto& p : problems) {
    leancore::ConvDesc d =
        leancore::compact_desc(leancore::DType::f32, static_cast<int>(p[0]), p[1], p[2], p[3], p + 4);
    for (const auto layout : {test::Layout::channels_first, test::Layout::channels_last}) {
      test::set_layout(d, layout, random);
      same_bits<float>(d, few_rounds() ? std::vector<int>{3} : std::vector<int>{2, 3, 4, 8, 0}, random);
    }
    // The other types and geometries, each in a layout of its own.
    test::for_each_type([&]<typename T>() {
      d.dtype = test::dtype_of<T>;
      std::fill_n(d.stride, leancore::max_dims, 1);
      std::fill_n(d.dilation, leancore::max_dims, 1);
      if (random.integer(0, 1)) test::random_geometry(d, random);
      test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
      same_bits<T>(d, {3, 0}, random);
    });
  }

  const std::int64_t extents[] = {60, 70};
  const leancore::ConvDesc d = leancore::compact_desc(leancore::DType::f32, 2, 2, 24, 40, extents);
  test::Arrays<float> in(d);
  in.fill([&] { return random.normal(); });
  if (leancore::max_threads() > 1) {
    smaller_workspace(leancore::Operation::forward, d, in);
    smaller_workspace(leancore::Operation::backward, d, in);
  }

  const std::vector<float> expected = compute(leancore::Operation::forward, d, in, 0, nullptr);
  bool equal[8] = {};
  std::vector<std::thread> callers;
  for (bool& slot : equal) {
    callers.emplace_back([&] {
      slot = true;
      for (int i = 0; i < test::rounds(20); ++i)
        slot = slot && compute(leancore::Operation::forward, d, in, 0, nullptr) == expected;
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const bool slot : equal) CHECK(slot, "a concurrent caller got other bits");
  return test::summary("threads");
}
