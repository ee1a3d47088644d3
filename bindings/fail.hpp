// A failing Status with a formatted message.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "leancore/types.hpp"

namespace leancore::python {

#if defined(__GNUC__)
[[gnu::format(printf, 2, 3)]]
#endif
inline Status fail(StatusCode code, const char* format, ...) noexcept {
  Status status;
  status.code = code;
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(status.message, sizeof status.message, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace leancore::python
