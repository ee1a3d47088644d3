// Every implementation gives the same bits as the reference on small integers, whose sums are exact in fp32 in any
// order (of 16-bit results, the exact sum rounded once): over random shapes in 1-D to 4-D, all types, operations,
// layouts, strides and dilations, subsets of the gradients, thread counts, between unreadable pages.
#include <set>

#include "cpu/plan.hpp"
#include "support.hpp"

namespace {

using test::GuardedMemory;

std::set<std::pair<int, int>> tilings;  // (dims, slice axis) that the sweep has met

template <typename T>
void compare(leancore::ConvDesc d, test::Random& random) {
  d.dtype = test::dtype_of<T>;
  if (random.integer(0, 9) == 0) d.stencil = 0;
  const auto layout = static_cast<test::Layout>(random.integer(0, 2));
  test::set_layout(d, layout, random);
  const auto flush = random.integer(0, 1) ? GuardedMemory::Flush::to_end : GuardedMemory::Flush::to_start;
  test::Arrays<T> in(d, flush);
  in.fill([&] { return random.integer(-4, 4); });
  const bool with_bias = random.integer(0, 1) != 0;

  for (const leancore::Operation operation : test::operations) {
    std::vector<T> expected;
    const auto unwanted = random.integer(0, 2) == 0 ? static_cast<int>(random.integer(1, 7)) : 0;
    const std::vector<const char*> names = test::implementations(operation, d);
    for (auto name = names.rbegin(); name != names.rend(); ++name) {  // the reference is last in the list
      leancore::Context context = test::forced(*name);
      context.threads = static_cast<std::int32_t>(random.integer(0, 4));
      const std::vector<T> got = test::compute(operation, d, in, with_bias, context, flush, unwanted);
      if (name == names.rbegin()) expected = got;
      const auto is_nan = [](T value) { return std::isnan(static_cast<double>(value)); };
      CHECK(got == expected && std::none_of(got.begin(), got.end(), is_nan), "%s %s %s layout %d without %d", *name,
            leancore::operation_names[static_cast<int>(operation)], test::describe(d).c_str(), static_cast<int>(layout),
            unwanted);
    }
  }
  if (!std::is_same_v<T, float> && !std::is_same_v<T, double>) return;
  const auto problem = leancore::detail::cpu::make_problem(leancore::Operation::forward, d);
  const auto plan = leancore::detail::cpu::make_plan(problem, sizeof(T), 8, leancore::detail::cpu::Work::out);
  if (plan.units > 0) tilings.insert({d.dims, plan.slice_axis});
}

// The instruction that multiplies pairs of bf16 rounds as its model in the baseline instruction set does: the same bits
// on data whose sums are not exact. Without stencil, whose products are fused in one of them alone.
void pairs_round_alike(test::Random& random) {
  leancore::ConvDesc d = test::random_problem(random, leancore::DType::bf16, 1e5);
  d.stencil = 0;
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 1)), random);
  test::Arrays<test::bf16> in(d);
  in.fill([&] { return random.normal(); });
  for (const leancore::Operation operation : test::operations) {
    const std::vector<const char*> names = test::implementations(operation, d);
    const auto has = [&](const char* name) {
      return std::any_of(names.begin(), names.end(), [name](const char* n) { return std::strcmp(n, name) == 0; });
    };
    if (!has("avx512_bf16") || !has("generic512_bf16")) continue;
    CHECK(test::compute(operation, d, in, true, test::forced("avx512_bf16")) ==
              test::compute(operation, d, in, true, test::forced("generic512_bf16")),
          "%s %s", leancore::operation_names[static_cast<int>(operation)], test::describe(d).c_str());
  }
}

}  // namespace

int main() {
  test::Random random(20260801);
  for (int round = 0; round < test::rounds(1200); ++round) {
    compare<float>(test::random_problem(random, leancore::DType::f32, 4e5), random);
    compare<double>(test::random_problem(random, leancore::DType::f64, 2e5), random);
    compare<test::f16>(test::random_problem(random, leancore::DType::f16, 1e5), random);
    compare<test::bf16>(test::random_problem(random, leancore::DType::bf16, 1e5), random);
  }
  for (int round = 0; round < test::rounds(300); ++round) pairs_round_alike(random);
  // Shapes that the networks run, and long thin ones.
  const std::int64_t fixed[][5] = {{3, 32, 32, 32, 32}, {2, 16, 48, 12, 12}, {7, 64, 32, 4, 4}, {1, 8, 8, 1, 3000},
                                   {1, 3, 12, 96, 64},  {5, 130, 7, 6, 6},   {1, 1, 1, 700, 1}, {2, 600, 2, 7, 9}};
  for (const auto& f : fixed) {
    leancore::ConvDesc d;
    d.dims = 2;
    d.batch = f[0];
    d.c_in = f[1];
    d.c_out = f[2];
    d.extents[0] = f[3];
    d.extents[1] = f[4];
    for (int i = 0; i < test::rounds(3); ++i) compare<float>(d, random);
    compare<test::bf16>(d, random);
    test::random_geometry(d, random);
    compare<float>(d, random);
  }
  // Maps so small that every second position of a line is a part of a vector, and images so many that they fill some.
  for (int round = 0; round < test::rounds(150); ++round) {
    leancore::ConvDesc d;
    d.dims = static_cast<std::int32_t>(random.integer(1, 3));
    d.batch = random.integer(1, 40);
    d.c_in = random.integer(1, 40);
    d.c_out = random.integer(1, 24);
    for (int a = 0; a < d.dims; ++a) {
      d.extents[a] = random.integer(1, d.dims == 3 ? 5 : 9);
      d.stride[a] = random.integer(0, 3) == 0 ? random.integer(1, 3) : 2;
      d.dilation[a] = random.integer(0, 3) == 0 ? random.integer(1, 6) : 1;
    }
    compare<float>(d, random);
    if (round % 3 == 0) compare<double>(d, random);
    if (round % 3 == 1) compare<test::f16>(d, random);
    if (round % 3 == 2) compare<test::bf16>(d, random);
  }
  // Rows so long that a tile is a part of one, and its neighbours are other tiles.
  const std::int64_t walked[][7] = {{3, 40, 5, 3, 4, 900, 0}, {3, 3, 2, 4, 3, 2000, 0}, {4, 30, 3, 2, 3, 2, 600},
                                    {4, 9, 4, 3, 2, 3, 1200}, {4, 40, 6, 3, 4, 30, 20}, {4, 64, 2, 2, 3, 40, 40}};
  for (const auto& w : walked) {
    leancore::ConvDesc d;
    d.dims = static_cast<std::int32_t>(w[0]);
    d.batch = 1;
    d.c_in = w[1];
    d.c_out = w[2];
    std::copy_n(w + 3, d.dims, d.extents);
    for (int i = 0; i < test::rounds(3); ++i) compare<float>(d, random);
    compare<test::f16>(d, random);
    test::random_geometry(d, random);
    compare<float>(d, random);
  }
  // The whole sweep means little unless it has been through every way of cutting a call into tiles.
  for (int dims = 1; test::share_of_rounds() >= 1 && dims <= leancore::max_dims; ++dims) {
    for (int axis = 0; axis <= dims; ++axis)
      CHECK(tilings.count({dims, axis}), "no case had %d-D, slice axis %d", dims, axis);
  }
  return test::summary("exact");
}
