// What the arrays of a test hold, and what is asked of the results.
#pragma once

#include <bit>
#include <limits>

#include "../cpp/bounds.hpp"
#include "support.hpp"

namespace test {

// integers: the same bits as the reference's. random: within the bounds. infinite, nan: infinities and NaN where the
// reference has them; of fp32 alone, in which no zeros are multiplied that the definition does not have.
enum class Contents { integers, random, infinite, nan };

template <typename T>
void fill(Arrays<T>& in, Contents contents, Random& random) {
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  const double all_bits_set = std::bit_cast<double>(~std::uint64_t{0} >> 1);  // the NaN that GPUs make
  const Data data = random.pick(all_data);
  const std::int64_t rarity = random.integer(3, 3000);
  in.fill([&] {
    if (contents == Contents::random) return draw<T>(data, random);
    if (contents == Contents::integers || random.integer(0, rarity) != 0) {
      return static_cast<double>(random.integer(-4, 4));
    }
    return contents == Contents::nan ? all_bits_set : random.pick({infinity, -infinity, nan});
  });
}

// Of a forward or backward_data of `in`. `products`: of TF32 numbers, for one of fp32; 0 where there are none.
template <typename T>
void check_contents(const char* who, leancore::Operation operation, const leancore::ConvDesc& d, const Arrays<T>& in,
                    const std::vector<T>& got, Contents contents, int products) {
  if (contents == Contents::random) {
    const Bounds bounds(operation, d, in);
    if constexpr (std::is_same_v<T, float>) {
      if (products > 0) return bounds.check_tf32(who, operation, d, in, got, products);
    }
    return bounds.check(who, operation, d, got, sizeof(T) == 2);
  }
  const std::vector<T> expected = compute(operation, d, in, true, forced("reference"));
  const char* name = leancore::operation_names[static_cast<int>(operation)];
  if (contents == Contents::integers) {
    CHECK(got == expected, "%s %s %s", who, name, describe(d).c_str());
    return;
  }
  CHECK(got.size() == expected.size(), "%s %s: %zu results", who, name, got.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CHECK(same_value(got[i], expected[i]), "%s %s element %zu: %g, expected %g, %s", who, name, i,
          static_cast<double>(got[i]), static_cast<double>(expected[i]), describe(d).c_str());
  }
}

}  // namespace test
