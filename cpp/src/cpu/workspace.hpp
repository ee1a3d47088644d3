// What a call keeps in the caller's workspace. Sizing it and carving it up are the same code: a null base only counts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "implementations.hpp"

namespace leancore::detail::cpu {

class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <typename T>
  T* take(std::int64_t count) {
    const std::size_t at = used_;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + workspace_alignment - 1) / workspace_alignment *
             workspace_alignment;
    return base_ ? reinterpret_cast<T*>(base_ + at) : nullptr;
  }
  [[nodiscard]] std::size_t used() const { return used_; }

 private:
  char* base_;
  std::size_t used_ = 0;
};

}  // namespace leancore::detail::cpu
