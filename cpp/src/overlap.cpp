#include "overlap.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

namespace leancore::detail {
namespace {

// One bounded unknown of a linear Diophantine equation: factor * k, 0 <= k <= last, factor > 0.
struct Term {
  std::int64_t factor;
  std::int64_t last;
};

// Insertion by rising factor: a dozen terms at most.
void sort_by_factor(Term* terms, int count) {
  for (int i = 1; i < count; ++i) {
    for (int j = i; j > 0 && terms[j].factor < terms[j - 1].factor; --j) std::swap(terms[j], terms[j - 1]);
  }
}

class Equation {
 public:
  // Is there a choice of k with sum factor * k = target?
  static bool solvable(Term* terms, int count, std::int64_t target) {
    sort_by_factor(terms, count);
    Equation equation;
    for (int i = 0; i < count; ++i) equation.add(terms[i]);
    return equation.search(equation.count_ - 1, target);
  }

 private:
  // Terms arrive by rising factor; one that continues the progression of the last (a compact axis) joins it.
  void add(Term term) {
    if (count_ > 0) {
      Term& top = terms_[count_ - 1];
      if (term.factor % top.factor == 0 && term.factor / top.factor <= top.last + 1) {
        top.last += term.factor / top.factor * term.last;
        reach_[count_ - 1] += term.factor * term.last;
        return;
      }
    }
    terms_[count_] = term;
    reach_[count_] = (count_ > 0 ? reach_[count_ - 1] : 0) + term.factor * term.last;
    divisor_[count_] = count_ > 0 ? std::gcd(divisor_[count_ - 1], term.factor) : term.factor;
    ++count_;
  }

  bool search(int i, std::int64_t rest) {
    if (i < 0) return rest == 0;
    if (rest < 0 || rest > reach_[i] || rest % divisor_[i] != 0) return false;
    const Term term = terms_[i];
    const std::int64_t below = i > 0 ? reach_[i - 1] : 0;
    const std::int64_t first = rest > below ? (rest - below + term.factor - 1) / term.factor : 0;
    const std::int64_t last = std::min(term.last, rest / term.factor);
    for (std::int64_t k = last; k >= first; --k) {
      if (--effort_ < 0) return true;
      if (search(i - 1, rest - k * term.factor)) return true;
    }
    return false;
  }

  Term terms_[2 * max_axes] = {};
  std::int64_t reach_[2 * max_axes] = {};
  std::int64_t divisor_[2 * max_axes] = {};
  int count_ = 0;
  int effort_ = 200'000;
};

}  // namespace

bool Footprint::empty() const noexcept {
  return std::any_of(shape, shape + axes, [](std::int64_t extent) { return extent == 0; });
}

bool span_of(const Footprint& array, std::int64_t element_size, std::int64_t& lowest, std::int64_t& highest) noexcept {
  lowest = highest = 0;
  std::int64_t elements = element_size;
  for (int a = 0; a < array.axes; ++a) {
    if (array.shape[a] > 0 && __builtin_mul_overflow(elements, array.shape[a], &elements)) return false;
  }
  if (array.empty()) return true;
  for (int a = 0; a < array.axes; ++a) {
    std::int64_t distance = 0;
    if (__builtin_mul_overflow(array.strides[a], array.shape[a] - 1, &distance)) return false;
    std::int64_t& side = distance < 0 ? lowest : highest;
    if (__builtin_add_overflow(side, distance, &side)) return false;
  }
  std::int64_t bytes = 0;
  if (__builtin_sub_overflow(highest, lowest, &bytes)) return false;
  return !__builtin_add_overflow(bytes, 1, &bytes) && !__builtin_mul_overflow(bytes, element_size, &bytes);
}

bool overlaps_itself(const Footprint& array) noexcept {
  if (array.empty()) return false;
  Term terms[max_axes];
  int count = 0;
  for (int a = 0; a < array.axes; ++a) {
    if (array.shape[a] < 2) continue;
    terms[count++] = {std::abs(array.strides[a]), array.shape[a] - 1};
  }
  sort_by_factor(terms, count);
  std::int64_t reach = 0;
  for (int i = 0; i < count; ++i) {
    if (terms[i].factor <= reach) return true;
    reach += terms[i].factor * terms[i].last;
  }
  return false;
}

bool overlap(const Footprint& a, const Footprint& b, std::int64_t element_size) noexcept {
  if (a.empty() || b.empty()) return false;
  std::int64_t a_low = 0, a_high = 0, b_low = 0, b_high = 0;
  if (!span_of(a, element_size, a_low, a_high) || !span_of(b, element_size, b_low, b_high)) return true;
  // Compare lowest addresses: both arrays are whole elements apart, or they are of no concern to this equation.
  const std::intptr_t a_first = a.base + a_low * element_size, a_last = a.base + a_high * element_size;
  const std::intptr_t b_first = b.base + b_low * element_size, b_last = b.base + b_high * element_size;
  if (a_last < b_first || b_last < a_first) return false;
  if ((b_first - a_first) % element_size != 0) return true;

  // sum_a |s| i - sum_b |t| j = b_first - a_first; with j' = last - j all factors are positive.
  Term terms[2 * max_axes];
  int count = 0;
  std::int64_t target = (b_first - a_first) / element_size;
  for (int axis = 0; axis < a.axes; ++axis) {
    if (a.shape[axis] > 1 && a.strides[axis] != 0) terms[count++] = {std::abs(a.strides[axis]), a.shape[axis] - 1};
  }
  for (int axis = 0; axis < b.axes; ++axis) {
    if (b.shape[axis] > 1 && b.strides[axis] != 0) {
      const Term term{std::abs(b.strides[axis]), b.shape[axis] - 1};
      target += term.factor * term.last;
      terms[count++] = term;
    }
  }
  return Equation::solvable(terms, count, target);
}

}  // namespace leancore::detail
