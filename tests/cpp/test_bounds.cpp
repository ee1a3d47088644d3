// Rounding errors of every implementation stay within the bounds of bounds.hpp.
#include "bounds.hpp"

namespace {

// fill(arrays)
template <typename T, typename Fill>
void compare(test::Random& random, Fill fill) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 1e5);
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d);
  fill(in);
  for (const leancore::Operation operation : test::operations) {
    const test::Bounds bounds(operation, d, in);
    for (const char* name : test::implementations(operation, d)) {
      bounds.check(name, operation, d, test::compute(operation, d, in, true, test::forced(name)));
    }
  }
}

// Data on both sides of the smallest normal number, times weights that take the sums far above it.
template <typename T>
void fill_near_smallest(test::Arrays<T>& in, test::Random& random) {
  in.fill([&] { return 4096 * random.normal(); });
  for (test::Array<T>* array : {&in.x, &in.y, &in.bias})
    array->each([&](T& element) { element = T(random.normal() * test::smallest_normal<T>); });
}

// Sums of millions of positive terms, as weight gradients of large images are: within 64 u S.
template <typename T>
void long_sums(std::int64_t stride) {
  const std::int64_t extents[] = {test::rounds(1 << 22)};
  leancore::ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 1, 1, 1, 1, extents);
  d.stride[0] = stride;
  test::Random random(3);
  test::Arrays<T> in(d);
  in.fill([&] { return (0.5 + random.uniform()) / 512; });  // the sums stay finite in fp16
  for (const auto operation : {leancore::Operation::backward_weight, leancore::Operation::backward}) {
    const std::vector<double> exact = test::reference_in_double(operation, d, in, false);
    for (const char* name : test::implementations(operation, d)) {
      const std::vector<T> got = test::compute(operation, d, in, false, test::forced(name));
      for (std::size_t i = exact.size() - 3; i < got.size(); ++i) {  // dalpha and dc
        const double bound = 64 * 0x1p-24 * exact[i], value = static_cast<double>(got[i]);
        CHECK(static_cast<double>(T(exact[i] - bound)) <= value && value <= static_cast<double>(T(exact[i] + bound)),
              "%s %s: %.9g, exact %.9g", name, info(d.dtype).name, value, exact[i]);
      }
    }
  }
}

}  // namespace

int main() {
  test::Random random(77);
  for (int round = 0; round < test::rounds(40); ++round) {
    for (const test::Data data : test::all_data) {
      test::for_each_type([&]<typename T>() {
        compare<T>(random, [&](auto& in) { in.fill([&] { return test::draw<T>(data, random); }); });
      });
    }
    test::for_each_type(
        [&]<typename T>() { compare<T>(random, [&](auto& in) { fill_near_smallest<T>(in, random); }); });
  }
  long_sums<float>(1);
  long_sums<float>(2);
  long_sums<test::f16>(1);
  long_sums<test::bf16>(1);
  std::printf("largest error: %.3f of the sure bound\n", test::worst_fraction);
  return test::summary("bounds");
}
