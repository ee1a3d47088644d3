// What a call keeps in the caller's workspace. Sizing it and carving it up are the same code: a null base only counts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/plan.hpp"
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

template <typename T, typename Mask>
struct Workspace {
  T* alpha = nullptr;     // by panels of output channels, each [c_in][rows]
  T* c = nullptr;         // [diagonal][columns]
  T* bias = nullptr;      // [c_out]
  Mask* masks = nullptr;  // [column of c][mask_length]: which pixels of the run have this neighbour
  Mask* tail = nullptr;   // which pixels of the last, partial vector of a whole tile exist, and of the last
  std::int64_t mask_length = 0;
  std::int64_t* in_inner = nullptr;  // offsets in `in` of the pixels of a row
  std::int64_t* out_inner = nullptr;
  std::int64_t* pixel_offset = nullptr;   // offsets in `out` of the pixels of the run
  std::int64_t* vector_offset = nullptr;  // the same of whole vectors, negative where they are not contiguous
  T* slots = nullptr;                     // [thread][slot][channel][row_length]
  T* out_tile = nullptr;                  // [thread][channel][out_row_length]
  T* partial = nullptr;                   // [lane][partial_size]: dalpha, dc; where kept, the same of what was lost
  std::int64_t partial_size = 0;
  std::int64_t lost = 0;  // where in a lane that begins; 0: not kept

  Workspace(Arena& arena, const Problem& p, const Plan& plan, std::int64_t vector, int threads, bool weight) {
    const std::int64_t columns = 2 * p.dims, padded = plan.run + 4 * vector;
    mask_length = padded;
    masks = arena.take<Mask>(columns * mask_length);
    tail = arena.take<Mask>(vector);
    in_inner = arena.take<std::int64_t>(plan.inner);
    out_inner = arena.take<std::int64_t>(plan.inner);
    slots = arena.take<T>(threads * plan.slots * plan.slot_size);
    if (weight) {
      out_tile = arena.take<T>(threads * p.c_out * plan.out_row_length);
      const std::int64_t sums = p.c_in * p.c_out + p.diagonal() * columns;
      lost = plan.many_tiles ? sums : 0;
      partial_size = sums + lost;
      partial = arena.take<T>(plan.lanes * partial_size);
    } else {
      alpha = arena.take<T>(p.c_in * p.c_out);
      c = arena.take<T>(p.diagonal() * columns);
      bias = arena.take<T>(p.c_out);
      pixel_offset = arena.take<std::int64_t>(padded);
      vector_offset = arena.take<std::int64_t>(padded / vector);
    }
  }
};

}  // namespace leancore::detail::cpu
