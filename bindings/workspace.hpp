#pragma once

#include <cstddef>
#include <cstdlib>

namespace leancore::python {

// Scratch memory of one thread, kept between calls unless it is large.
class Workspace {
 public:
  Workspace() = default;
  ~Workspace() { std::free(memory_); }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* reserve(std::size_t bytes) noexcept {
    if (bytes > size_) {
      drop();
      if (bytes > std::size_t(-1) - alignment) return nullptr;
      const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
      memory_ = std::aligned_alloc(alignment, rounded);
      if (memory_ != nullptr) size_ = rounded;
    }
    return memory_;
  }
  void trim() noexcept {
    if (size_ > kept) drop();
  }

 private:
  static constexpr std::size_t alignment = 64;
  static constexpr std::size_t kept = std::size_t{64} << 20;

  void drop() noexcept {
    std::free(memory_);
    memory_ = nullptr;
    size_ = 0;
  }

  void* memory_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace leancore::python
