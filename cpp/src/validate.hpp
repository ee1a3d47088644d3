// Every rule about extents, strides, pointers and overlap that a call must obey.
#pragma once

#include "implementations.hpp"
#include "leancore/shift.hpp"
#include "leancore/types.hpp"

namespace leancore::detail {

const char* name(Operation operation) noexcept;

// The descriptor alone: what workspace_bytes needs to be safe.
Status validate(Operation operation, const ConvDesc& desc, const Context& context) noexcept;

// The descriptor and the arrays it describes.
Status validate(Operation operation, const ConvDesc& desc, const Arguments& arguments, const Context& context) noexcept;

// All there is to check of a shift.
Status validate(const ShiftDesc& desc, const void* x, const void* y, const Context& context) noexcept;

}  // namespace leancore::detail
