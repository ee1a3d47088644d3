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
//
// An implementation that flushes (docs/numerics.md) may lose less than 2^-126 with every term, with the bias before the
// first and with the rounding at the end, and all of a product of which one factor is subnormal.
#pragma once

#include <limits>
#include <type_traits>

#include "support.hpp"

namespace test {

enum class Data { normal, log_normal, positive, cancelling, denormal, large, small };
inline constexpr Data all_data[] = {Data::normal,   Data::log_normal, Data::positive, Data::cancelling,
                                    Data::denormal, Data::large,      Data::small};

// The type that sums of T are taken in.
template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
inline constexpr double smallest_normal = std::numeric_limits<Accumulator<T>>::min();
template <>
inline constexpr double smallest_normal<f16> = 0x1p-14;

// Products of such data leave the format's range rarely or, in fp16, now and then.
template <typename T>
inline constexpr double large_data = 1e15;
template <>
inline constexpr double large_data<double> = 1e100;
template <>
inline constexpr double large_data<f16> = 50;

template <typename T>
double draw(Data data, Random& random) {
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

// Without stencil and bias, what is left are the products with alpha; of these, those of two numbers that are not
// subnormal in fp32.
enum class Terms { all, products_with_alpha, normal_products };

template <typename T>
std::vector<double> reference_in_double(leancore::Operation operation, const leancore::ConvDesc& d, const Arrays<T>& in,
                                        bool absolute, Terms which = Terms::all) {
  leancore::ConvDesc wide = d;
  wide.dtype = leancore::DType::f64;
  Arrays<double> arrays(wide);
  const auto copy = [&](const Array<T>& from, Array<double>& to) {
    std::vector<double> values;
    from.each([&](T& element) {
      const double value = static_cast<double>(element);
      const bool wanted = which != Terms::normal_products || std::abs(value) >= 0x1p-126;
      values.push_back(!wanted ? 0 : absolute ? std::abs(value) : value);
    });
    to.assign(values);
  };
  copy(in.x, arrays.x);
  copy(in.y, arrays.y);
  copy(in.alpha, arrays.alpha);
  copy(in.c, arrays.c);
  copy(in.bias, arrays.bias);
  if (which != Terms::all) arrays.c.each([](double& element) { element = 0; });
  return compute(operation, wide, arrays, which == Terms::all, forced("reference"));
}

inline double worst_fraction =
    0;  // of the sure bound, for the summary line; of the types that are not rounded once more

// The number of terms in each element of what the operation writes.
inline std::vector<double> terms_of(leancore::Operation operation, const leancore::ConvDesc& d) {
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

// The interval in which every element of a result must lie.
class Bounds {
 public:
  template <typename T>
  Bounds(leancore::Operation operation, const leancore::ConvDesc& d, const Arrays<T>& in)
      : exact_(reference_in_double(operation, d, in, false)),
        sizes_(reference_in_double(operation, d, in, true)),
        terms_(terms_of(operation, d)) {
    if (!std::is_same_v<T, bf16>) return;
    flushed_ = reference_in_double(operation, d, in, true, Terms::products_with_alpha);
    const std::vector<double> normal = reference_in_double(operation, d, in, true, Terms::normal_products);
    const bool of_weights =
        operation == leancore::Operation::backward_weight || operation == leancore::Operation::backward;
    const auto of_taps = static_cast<std::size_t>(of_weights ? d.diagonal() * 2 * d.dims : 0);  // dc, which keeps them
    for (std::size_t i = 0; i < flushed_.size(); ++i) {
      flushed_[i] = i + of_taps < flushed_.size() ? flushed_[i] - normal[i] : 0;
    }
  }

  // Checks a result; `who` is for messages. Tensor cores cut sums off where other units round them: an addition of up
  // to eight products then loses at most 2 u instead of u, always in one direction. With n terms, of which four are
  // taps (in 3-D six, two of them added elsewhere), there are no more than n / 8 + 6 such additions.
  template <typename T>
  void check(const char* who, leancore::Operation operation, const leancore::ConvDesc& d, const std::vector<T>& result,
             bool tensor_cores = false) const {
    const bool flushed = !flushed_.empty() && flushes(who, operation, d);
    compare(who, operation, d, result, [&](std::size_t i, double u, double tiny) {
      if (flushed) tiny += (terms_[i] + 2) * 0x1p-126 + flushed_[i];
      const double sure = (terms_[i] + 1) * u * sizes_[i] + tiny;
      const double likely = 2 * std::sqrt(terms_[i] + 1) * u * sizes_[i] + tiny;
      const double cut_off = (terms_[i] / 4 + 12) * u * sizes_[i] + tiny;
      if (sizeof(T) > 2 && sure > 0) {
        worst_fraction = std::max(worst_fraction, std::abs(static_cast<double>(result[i]) - exact_[i]) / sure);
      }
      return tensor_cores ? std::max(sure, cut_off) : std::min(sure, likely);
    });
  }

  // The same of a forward or backward_data whose products with alpha are sums of products of TF32 numbers on tensor
  // cores: three each, or one with factors rounded to TF32; see docs/numerics.md. `or_rounded`: or in plain fp32.
  void check_tf32(const char* who, leancore::Operation operation, const leancore::ConvDesc& d, const Arrays<float>& in,
                  const std::vector<float>& result, int products, bool or_rounded = false) const {
    const std::vector<double> rounded =
        reference_in_double(operation, d, in, true, Terms::products_with_alpha);  // the sums of their absolute values
    compare(who, operation, d, result, [&](std::size_t i, double u, double tiny) {
      const double losses = std::max(terms_[i] / 2 + 16, or_rounded ? terms_[i] + 1 : 0);
      const double cut_off = losses * u * sizes_[i] + tiny;
      return products == 3 ? cut_off : cut_off + (0x1p-10 + 0x1p-22) * rounded[i];
    });
  }

 private:
  // `bound(i, u, tiny)`: of element i.
  template <typename T, typename Bound>
  void compare(const char* who, leancore::Operation operation, const leancore::ConvDesc& d,
               const std::vector<T>& result, Bound bound) const {
    constexpr bool wide = std::is_same_v<T, double>;
    constexpr double u = std::numeric_limits<Accumulator<T>>::epsilon() / 2.0 * (wide ? 2 : 1);
    CHECK(result.size() == terms_.size(), "%zu results, %zu counts of terms", result.size(), terms_.size());
    for (std::size_t i = 0; i < result.size(); ++i) {
      const auto got = static_cast<double>(result[i]);
      const double tiny = terms_[i] * static_cast<double>(std::numeric_limits<Accumulator<T>>::denorm_min());
      const double off = bound(i, u, tiny);
      const auto lowest = static_cast<double>(T(exact_[i] - off)), highest = static_cast<double>(T(exact_[i] + off));
      CHECK(lowest <= got && got <= highest, "%s %s element %zu: %.9g, expected %.9g to %.9g, %s", who,
            leancore::operation_names[static_cast<int>(operation)], i, got, lowest, highest, describe(d).c_str());
    }
  }

  std::vector<double> exact_, sizes_, terms_, flushed_;
};

}  // namespace test
