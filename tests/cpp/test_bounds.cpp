// Rounding errors stay within the bounds that follow from the number of terms.
//
// With n terms, unit round-off u and S the sum of the terms' absolute values, recursive summation of rounded products
// is within (n + 1) u S of the exact value in any order; on data whose roundings are not correlated, within
// 2 sqrt(n + 1) u S. Below the normal range every rounding adds at most half the smallest subnormal.
// S itself comes from the reference on absolute values, the exact value from the reference in double: for fp32 its own
// error is negligible, for fp64 it obeys the same bound, which doubles the bound on the difference.
//
// 16-bit types accumulate in fp32, so u is that of fp32, and are then rounded once. Rounding is monotone: a sum within
// B of the exact value e is stored as something between the roundings of e - B and e + B, and no other allowance is
// made, for subnormal and overflowing results neither.
#include <limits>
#include <type_traits>

#include "support.hpp"

namespace {

enum class Data { normal, log_normal, positive, cancelling, denormal, large, small };
constexpr Data all_data[] = {Data::normal,   Data::log_normal, Data::positive, Data::cancelling,
                             Data::denormal, Data::large,      Data::small};

// The type that sums of T are taken in.
template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
constexpr double smallest_normal = std::numeric_limits<Accumulator<T>>::min();
template <>
constexpr double smallest_normal<test::f16> = 0x1p-14;

// Products of such data leave the format's range rarely or, in fp16, now and then.
template <typename T>
constexpr double large_data = 1e15;
template <>
constexpr double large_data<double> = 1e100;
template <>
constexpr double large_data<test::f16> = 50;

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
      return random.normal() * std::sqrt(smallest_normal<T>) * 0.1;
    case Data::large:
      return random.normal() * large_data<T>;
    case Data::small:
      return random.normal() / large_data<T>;
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

double worst_fraction = 0;  // of the sure bound, for the summary line; of the types that are not rounded once more

// The number of terms in each element of what the operation writes.
std::vector<double> terms_of(leancore::Operation operation, const leancore::ConvDesc& d) {
  using leancore::Operation;
  const auto channels = static_cast<double>(operation == Operation::forward ? d.c_in : d.c_out);
  double inputs = static_cast<double>(d.batch * d.c_in), outputs = static_cast<double>(d.batch);
  for (int a = 0; a < d.dims; ++a) {
    inputs *= static_cast<double>(d.extents[a]);
    outputs *= static_cast<double>(d.y_extent(a));
  }
  std::vector<double> terms;
  const auto add = [&](double count, double each) {
    terms.resize(terms.size() + static_cast<std::size_t>(count), each);
  };
  if (operation == Operation::forward) add(outputs * static_cast<double>(d.c_out), channels + 2 * d.dims + 1);
  if (operation == Operation::backward_data || operation == Operation::backward) add(inputs, channels + 2 * d.dims);
  if (operation == Operation::backward_weight || operation == Operation::backward) {
    add(static_cast<double>(d.c_out * d.c_in + d.diagonal() * 2 * d.dims), outputs);
  }
  return terms;
}

template <typename T>
void compare(Data data, test::Random& random) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 1e5);
  test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  test::Arrays<T> in(d);
  in.fill([&] { return draw<T>(data, random); });
  constexpr bool wide = std::is_same_v<T, double>;
  constexpr double u = std::numeric_limits<Accumulator<T>>::epsilon() / 2.0 * (wide ? 2 : 1);
  for (const leancore::Operation operation : test::operations) {
    const std::vector<double> exact = reference_in_double(operation, d, in, false);
    const std::vector<double> sizes = reference_in_double(operation, d, in, true);
    const std::vector<double> terms = terms_of(operation, d);
    for (const char* name : test::implementations(operation, d)) {
      const std::vector<T> result = test::compute(operation, d, in, true, test::forced(name));
      CHECK(result.size() == terms.size(), "%zu results, %zu counts of terms", result.size(), terms.size());
      for (std::size_t i = 0; i < result.size(); ++i) {
        const auto got = static_cast<double>(result[i]);
        const double tiny = terms[i] * static_cast<double>(std::numeric_limits<Accumulator<T>>::denorm_min());
        const double sure = (terms[i] + 1) * u * sizes[i] + tiny;
        const double likely = 2 * std::sqrt(terms[i] + 1) * u * sizes[i] + tiny, bound = std::min(sure, likely);
        const auto lowest = static_cast<double>(T(exact[i] - bound)),
                   highest = static_cast<double>(T(exact[i] + bound));
        CHECK(lowest <= got && got <= highest, "%s %s element %zu: %.9g, expected %.9g to %.9g, %s", name,
              leancore::operation_names[static_cast<int>(operation)], i, got, lowest, highest,
              test::describe(d).c_str());
        if (sizeof(T) > 2 && sure > 0) worst_fraction = std::max(worst_fraction, std::abs(got - exact[i]) / sure);
      }
    }
  }
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
    const std::vector<double> exact = reference_in_double(operation, d, in, false);
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
    for (const Data data : all_data) {
      test::for_each_type([&]<typename T>() { compare<T>(data, random); });
    }
  }
  long_sums<float>(1);
  long_sums<float>(2);
  long_sums<test::f16>(1);
  long_sums<test::bf16>(1);
  std::printf("largest error: %.3f of the sure bound\n", worst_fraction);
  return test::summary("bounds");
}
