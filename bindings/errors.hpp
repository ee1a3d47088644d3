// Status to Python exception.
#pragma once

#include "leancore/types.hpp"

namespace leancore::python {

// Both throw nanobind's python_error, with the Python exception already set.
[[noreturn]] void raise(const Status& status);
inline void raise_if_failed(const Status& status) {
  if (!status.ok()) [[unlikely]]
    raise(status);
}

}  // namespace leancore::python
