// Everything that the kernels use from outside, included by each instruction set's file before its target region opens:
// what is compiled inside the region must not leak into functions that other files share.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "cpu/kernels.hpp"
#include "cpu/plan.hpp"
#include "cpu/workspace.hpp"
#include "parallel.hpp"

namespace leancore::detail::cpu {

// What every instruction set of this family supports; the rest is the reference's.
bool family_supports(Operation operation, const ConvDesc& desc);

}  // namespace leancore::detail::cpu
