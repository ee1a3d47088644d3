#pragma once

#include "leancore/shift.hpp"

namespace leancore::detail {

// Validated arguments; on at most so many threads.
void shift_on_cpu(const ShiftDesc& desc, const void* x, void* y, int threads) noexcept;

}  // namespace leancore::detail
