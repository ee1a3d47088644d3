#pragma once

#include "implementations.hpp"

namespace leancore::detail::reference {

// The scalar oracle: every operation as its definition reads, any strides, stride and dilation, sums in double.
extern const Implementation implementation;

}  // namespace leancore::detail::reference
