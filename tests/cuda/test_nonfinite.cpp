// NaN and infinities go where the definition sends them, and nowhere else: every product of elements that exist is
// evaluated, a neighbour outside the image is not multiplied. Except of 16-bit types on tensor cores: there the zeros
// of diagonal matrices, and outside of the image, are multiplied too, and more results may be NaN.
#include "support.hpp"
#include "topics.hpp"

namespace {

template <typename T>
void compare(test::Random& random) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 2e4);
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d);
  constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const double strange[] = {inf, -inf, nan};
  const std::int64_t rarity = random.integer(3, 300);
  in.fill([&] {
    return random.integer(0, rarity) == 0 ? random.pick(strange) : static_cast<double>(random.integer(-3, 3));
  });
  for (const leancore::Operation operation : test::operations) {
    const std::vector<T> expected = test::compute(operation, d, in, true, test::forced("reference"));
    for (const char* name : test::cuda_implementations(operation, d)) {
      const std::vector<T> got = test::compute_on_device(operation, d, in, true, test::on_device(name));
      const bool tensor_cores = sizeof(T) == 2 && std::strcmp(name, "cuda_generic") != 0;
      for (std::size_t i = 0; i < got.size(); ++i) {
        const bool more = tensor_cores && std::isnan(static_cast<double>(got[i]));
        CHECK(more || test::same_value(got[i], expected[i]), "%s %s element %zu: %g, expected %g, %s", name,
              leancore::operation_names[static_cast<int>(operation)], i, static_cast<double>(got[i]),
              static_cast<double>(expected[i]), test::describe(d).c_str());
      }
    }
  }
}

}  // namespace

int test_cuda::nonfinite() {
  test::Random random(11);
  for (int round = 0; round < test::rounds(12); ++round) {
    test::for_each_type([&]<typename T>() { compare<T>(random); });
  }
  return test::summary("cuda nonfinite");
}
