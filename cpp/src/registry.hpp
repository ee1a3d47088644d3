// The ordered list of implementations and the choice among them.
#pragma once

#include "implementations.hpp"

namespace leancore::detail {

// The first implementation that is available, not excluded by context.implementation or LEANCORE_CPU_ISA, and supports
// the call.
Status choose(Operation operation, const ConvDesc& desc, const Context& context,
              const Implementation*& implementation) noexcept;

}  // namespace leancore::detail
