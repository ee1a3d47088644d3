// From a DLPack tensor, which nobody has checked, to a leancore::Array. Knows no Python, so that it can be fuzzed.
#pragma once

#include "dlpack_abi.h"
#include "leancore/arrays.hpp"

namespace leancore::python {

// Names of the called function and of the argument, for messages.
struct ArgumentName {
  const char* function;
  const char* argument;
};

// Everything is checked that can be without touching the elements: the type, the device, the number of axes, negative
// extents, overflowing counts and spans, a missing shape, missing or misaligned data. Strides of axes that cannot be
// walked (extent 0 or 1) are replaced by compact ones, so that odd values there never reach the arithmetic.
Status view_tensor(const dlpack::Tensor& tensor, ArgumentName name, bool read_only, Array& array) noexcept;

}  // namespace leancore::python
