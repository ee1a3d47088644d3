// <forward(x), dy> = <x, backward_data(dy)> = <alpha, dalpha> + <c, dc>, exactly, on integers, and the same of the
// gradients of backward; every implementation, type, stride and dilation.
#include <memory>

#include "support.hpp"

namespace {

template <typename T>
double product(const test::Array<T>& a, const test::Array<T>& b) {
  const std::vector<T> left = a.values(), right = b.values();
  double sum = 0;
  for (std::size_t i = 0; i < left.size(); ++i) sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
  return sum;
}

// Up to where T counts without a gap.
template <typename T>
constexpr std::int64_t exact_integers = std::int64_t{1} << 24;
template <>
constexpr std::int64_t exact_integers<test::f16> = 1 << 11;
template <>
constexpr std::int64_t exact_integers<test::bf16> = 1 << 8;

// Every result is a sum of so many products of elements from -3 to 3, or of -1 to 1 for the 16-bit types.
template <typename T>
bool representable(const leancore::ConvDesc& d) {
  std::int64_t pixels = d.batch;
  for (int a = 0; a < d.dims; ++a) pixels *= d.extents[a];
  const std::int64_t largest = sizeof(T) == 2 ? 1 : 9;
  return largest * std::max({pixels, d.c_in + 2 * d.dims, d.c_out + 2 * d.dims}) <= exact_integers<T>;
}

template <typename T>
void check_adjoint(test::Random& random) {
  leancore::ConvDesc d;
  do {
    d = test::random_problem(random, test::dtype_of<T>, 5e4);
  } while (!representable<T>(d));
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d);
  const std::int64_t largest = sizeof(T) == 2 ? 1 : 3;
  in.fill([&] { return random.integer(-largest, largest); });
  using leancore::Operation;
  for (const char* name : test::implementations(Operation::backward, d)) {
    const auto outputs = [&](Operation operation) {
      auto out = std::make_unique<test::Outputs<T>>(operation, d, test::GuardedMemory::Flush::to_end);
      leancore::check(test::run(d, in, *out, false, test::forced(name)));
      return out;
    };
    const auto y = outputs(Operation::forward), dx = outputs(Operation::backward_data);
    const auto weights = outputs(Operation::backward_weight), both = outputs(Operation::backward);
    const double forward = product(y->y, in.y);
    for (const double other :
         {product(in.x, dx->x), product(in.x, both->x), product(in.alpha, weights->alpha) + product(in.c, weights->c),
          product(in.alpha, both->alpha) + product(in.c, both->c)}) {
      CHECK(forward == other, "%s: %.17g, %.17g, %s", name, forward, other, test::describe(d).c_str());
    }
  }
}

}  // namespace

int main() {
  test::Random random(5);
  for (int round = 0; round < test::rounds(300); ++round) {
    test::for_each_type([&]<typename T>() { check_adjoint<T>(random); });
  }
  return test::summary("adjoint");
}
