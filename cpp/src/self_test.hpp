#pragma once

#include "implementations.hpp"

namespace leancore::detail {

// Runs a CPU implementation on a small problem whose answer is exact, against the reference. An instruction set that
// the developers' machines may lack is used only after it has passed on the user's.
bool passes_self_test(const Implementation& implementation) noexcept;

}  // namespace leancore::detail
