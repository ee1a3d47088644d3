// Fibers: stacks of their own, switched between by one another.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) || defined(CUDA_EMULATION_UCONTEXT)
#define CUDA_EMULATION_UCONTEXT 1
#include <ucontext.h>
#endif

namespace emulation {

class Fiber {
 public:
  // The first switch to it calls entry(argument), which must not return.
  void prepare(void* stack, std::size_t bytes, void (*entry)(void*), void* argument);
  // Suspends the running fiber, which must be *this, and resumes `next`.
  void switch_to(Fiber& next);

 private:
#ifdef CUDA_EMULATION_UCONTEXT
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
};

// The stack number i; below it lies a page that cannot be touched.
void* fiber_stack(std::size_t i);
constexpr std::size_t fiber_stack_bytes = 256 * 1024;

}  // namespace emulation
