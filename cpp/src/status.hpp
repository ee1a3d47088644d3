// Building Status values.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "leancore/types.hpp"

namespace leancore::detail {

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
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

}  // namespace leancore::detail
