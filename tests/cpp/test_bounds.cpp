// Rounding errors stay within the bounds that follow from the number of terms.
//
// With n terms, unit round-off u and S the sum of the terms' absolute values, recursive summation of rounded products
// is within (n + 1) u S of the exact value in any order; on data whose roundings are not correlated, within
// 2 sqrt(n + 1) u S. Below the normal range every rounding adds at most half the smallest subnormal.
// S itself comes from the reference on absolute values, the exact value from the reference in double: for fp32 its own
// error is negligible, for fp64 it obeys the same bound, which doubles the bound on the difference.
#include <limits>

#include "support.hpp"

namespace {

enum class Data { normal, log_normal, positive, cancelling, denormal, large, small };
constexpr Data all_data[] = {Data::normal,   Data::log_normal, Data::positive, Data::cancelling,
                             Data::denormal, Data::large,      Data::small};

template <typename T>
double draw(Data data, test::Random& random) {
  switch (data) {
    case Data::normal:
      return random.normal();
    case Data::log_normal:
      return std::exp(2 * random.normal());
    case Data::positive:
      return 0.5 + random.uniform();
    case Data::cancelling:
      return (random.integer(0, 1) ? 1.0 : -1.0) * (1.0 + 1e-3 * random.normal());
    case Data::denormal:
      return random.normal() * std::sqrt(static_cast<double>(std::numeric_limits<T>::min())) * 0.1;
    case Data::large:
      return random.normal() * (sizeof(T) == 4 ? 1e15 : 1e100);
    case Data::small:
      return random.normal() * (sizeof(T) == 4 ? 1e-15 : 1e-100);
  }
  std::abort();
}

template <typename T>
std::vector<double> reference_in_double(leancore::Operation operation, const leancore::ConvDesc& d,
                                        const test::Arrays<T>& in, bool absolute) {
  leancore::ConvDesc wide = d;
  wide.dtype = leancore::DType::f64;
  test::Arrays<double> arrays(wide);
  const auto copy = [&](const test::Array<T>& from, test::Array<double>& to) {
    std::vector<double> values;
    from.each([&](T& element) {
      const double value = static_cast<double>(element);
      values.push_back(absolute ? std::abs(value) : value);
    });
    to.assign(values);
  };
  copy(in.x, arrays.x);
  copy(in.y, arrays.y);
  copy(in.alpha, arrays.alpha);
  copy(in.c, arrays.c);
  copy(in.bias, arrays.bias);
  return test::compute(operation, wide, arrays, true, test::forced("reference"));
}

double worst_fraction = 0;  // of the sure bound, for the summary line

template <typename T>
void compare(const leancore::ConvDesc& d, Data data, test::Random& random) {
  test::Arrays<T> in(d);
  in.fill([&] { return draw<T>(data, random); });
  for (const leancore::Operation operation : test::operations) {
    const std::vector<double> exact = reference_in_double(operation, d, in, false);
    const std::vector<double> sizes = reference_in_double(operation, d, in, true);
    double terms = static_cast<double>(operation == leancore::Operation::forward ? d.c_in : d.c_out) + 2 * d.dims + 1;
    if (operation == leancore::Operation::backward_weight) {
      terms = static_cast<double>(d.batch);
      for (int a = 0; a < d.dims; ++a) terms *= static_cast<double>(d.extents[a]);
    }
    const double u = std::numeric_limits<T>::epsilon() / 2 * (sizeof(T) == 4 ? 1 : 2);
    const double tiny = terms * static_cast<double>(std::numeric_limits<T>::denorm_min());
    for (const char* name : test::implementations()) {
      const std::vector<T> got = test::compute(operation, d, in, true, test::forced(name));
      for (std::size_t i = 0; i < got.size(); ++i) {
        const double error = std::abs(static_cast<double>(got[i]) - exact[i]);
        const double sure = (terms + 1) * u * sizes[i] + tiny, likely = 2 * std::sqrt(terms + 1) * u * sizes[i] + tiny;
        CHECK(error <= sure && error <= likely, "%s %s element %zu: error %.3e, bounds %.3e and %.3e, %s", name,
              test::operation_names[static_cast<int>(operation)], i, error, sure, likely, test::describe(d).c_str());
        if (sure > 0) worst_fraction = std::max(worst_fraction, error / sure);
      }
    }
  }
}

// Sums of millions of positive terms, as weight gradients of large images are: within 64 u S.
void long_sums() {
  const std::int64_t extents[] = {std::int64_t{1} << 22};
  const leancore::ConvDesc d = leancore::compact_desc(leancore::DType::f32, 1, 1, 1, 1, extents);
  test::Random random(3);
  test::Arrays<float> in(d);
  in.fill([&] { return 0.5 + random.uniform(); });
  const std::vector<double> exact = reference_in_double(leancore::Operation::backward_weight, d, in, false);
  for (const char* name : test::implementations()) {
    const std::vector<float> got =
        test::compute(leancore::Operation::backward_weight, d, in, false, test::forced(name));
    for (std::size_t i = 0; i < got.size(); ++i) {
      CHECK(std::abs(got[i] - exact[i]) <= 64 * 0x1p-24 * exact[i], "%s: %.9g, exact %.9g", name,
            static_cast<double>(got[i]), exact[i]);
    }
  }
}

}  // namespace

int main() {
  test::Random random(77);
  for (int round = 0; round < 40; ++round) {
    for (const Data data : all_data) {
      leancore::ConvDesc d = test::random_problem(random, leancore::DType::f32, 1e5);
      test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
      compare<float>(d, data, random);
      d = test::random_problem(random, leancore::DType::f64, 1e5);
      test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
      compare<double>(d, data, random);
    }
  }
  long_sums();
  std::printf("largest error: %.3f of the sure bound\n", worst_fraction);
  return test::summary("bounds");
}
