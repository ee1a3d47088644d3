// NaN, infinities and signed zeros come out where the definition puts them: every real product is evaluated (0 * NaN is
// NaN, 0 * Inf is NaN), a neighbour outside the image is not multiplied.
#include <limits>

#include "support.hpp"

namespace {

bool same(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

template <typename T>
void poison_and_compare(test::Random& random) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 2e4);
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d);
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const double specials[] = {std::nan(""), infinity, -infinity, -0.0};
  in.fill(
      [&] { return random.integer(0, 60) == 0 ? random.pick(specials) : static_cast<double>(random.integer(-1, 1)); });
  for (const leancore::Operation operation : test::operations) {
    std::vector<T> expected;
    const std::vector<const char*> names = test::implementations(operation, d);
    for (auto name = names.rbegin(); name != names.rend(); ++name) {  // the reference is last in the list
      const std::vector<T> got = test::compute(operation, d, in, true, test::forced(*name));
      if (expected.empty()) expected = got;
      for (std::size_t i = 0; i < got.size(); ++i) {
        CHECK(same(static_cast<double>(got[i]), static_cast<double>(expected[i])),
              "%s %s element %zu: %g, expected %g, %s", *name, leancore::operation_names[static_cast<int>(operation)],
              i, static_cast<double>(got[i]), static_cast<double>(expected[i]), test::describe(d).c_str());
      }
    }
  }
}

}  // namespace

int main() {
  test::Random random(13);
  for (int round = 0; round < test::rounds(300); ++round) {
    test::for_each_type([&]<typename T>() { poison_and_compare<T>(random); });
  }
  return test::summary("nonfinite");
}
