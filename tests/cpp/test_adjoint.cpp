// <forward(x), dy> = <x, backward_data(dy)> = <alpha, dalpha> + <c, dc>, exactly, on integers; every implementation,
// stride and dilation.
#include "support.hpp"

namespace {

template <typename T>
double product(const test::Array<T>& a, const test::Array<T>& b) {
  const std::vector<T> left = a.values(), right = b.values();
  double sum = 0;
  for (std::size_t i = 0; i < left.size(); ++i) sum += static_cast<double>(left[i]) * static_cast<double>(right[i]);
  return sum;
}

template <typename T>
void check_adjoint(leancore::ConvDesc d, test::Random& random) {
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  for (const char* name : test::implementations()) {
    leancore::Context context;
    context.implementation = name;
    test::Arrays<T> in(d), out(d);
    in.fill([&] { return random.integer(-3, 3); });
    using leancore::Operation;
    leancore::check(test::run<T>(Operation::forward, d, in, out.y.origin(), nullptr, false, context));
    leancore::check(test::run<T>(Operation::backward_data, d, in, out.x.origin(), nullptr, false, context));
    leancore::check(
        test::run<T>(Operation::backward_weight, d, in, out.alpha.origin(), out.c.origin(), false, context));
    const double forward = product(out.y, in.y), data = product(in.x, out.x);
    const double weight = product(in.alpha, out.alpha) + product(in.c, out.c);
    CHECK(forward == data && forward == weight, "%s: %.17g, %.17g, %.17g, %s", name, forward, data, weight,
          test::describe(d).c_str());
  }
}

}  // namespace

int main() {
  test::Random random(5);
  for (int round = 0; round < 300; ++round) {
    leancore::ConvDesc d = test::random_problem(random, leancore::DType::f32, 5e4);
    if (round % 3 == 0) {
      for (int a = 0; a < d.dims; ++a) {
        d.stride[a] = random.integer(1, 3);
        d.dilation[a] = random.integer(1, 3);
      }
    }
    check_adjoint<float>(d, random);
    d.dtype = leancore::DType::f64;
    check_adjoint<double>(d, random);
  }
  return test::summary("adjoint");
}
