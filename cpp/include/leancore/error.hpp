// For those who like exceptions: check(forward(...)) throws what a failing Status says.
#pragma once

#include <stdexcept>

#include "leancore/types.hpp"

namespace leancore {

class Error : public std::runtime_error {
 public:
  explicit Error(const Status& status) : std::runtime_error(status.message), code_(status.code) {}
  [[nodiscard]] StatusCode code() const noexcept { return code_; }

 private:
  StatusCode code_;
};

inline void check(const Status& status) {
  if (!status.ok()) throw Error(status);
}

}  // namespace leancore
