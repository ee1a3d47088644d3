// Do two strided arrays share an element?
#pragma once

#include <cstdint>

#include "leancore/types.hpp"

namespace leancore::detail {

// An array as a set of element addresses: base + sum_a index_a * strides[a], 0 <= index_a < shape[a].
struct Footprint {
  std::intptr_t base = 0;  // bytes
  int axes = 0;
  std::int64_t shape[max_axes] = {};
  std::int64_t strides[max_axes] = {};  // elements

  [[nodiscard]] bool empty() const noexcept;
};

// Distance in elements from `base` to the lowest and the highest element; false when they or the element count leave
// 63 bits (for elements of `element_size` bytes).
bool span_of(const Footprint& array, std::int64_t element_size, std::int64_t& lowest, std::int64_t& highest) noexcept;

// Two indices may lead to one address. Says so of some odd stride combinations that would be harmless; never misses.
bool overlaps_itself(const Footprint& array) noexcept;

// Exact for the arrays that occur (slices, transposes, interleaved halves of one buffer); beyond a fixed search effort
// the answer is yes. Both arrays must have spans (span_of) and be aligned to their elements.
bool overlap(const Footprint& a, const Footprint& b, std::int64_t element_size) noexcept;

}  // namespace leancore::detail
