#include "fiber.hpp"

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <vector>

namespace emulation {

#ifdef CUDA_EMULATION_UCONTEXT

namespace {
void start(unsigned entry_low, unsigned entry_high, unsigned argument_low, unsigned argument_high) {
  const auto join = [](unsigned low, unsigned high) { return std::uintptr_t{high} << 32 | low; };
  reinterpret_cast<void (*)(void*)>(join(entry_low, entry_high))(
      reinterpret_cast<void*>(join(argument_low, argument_high)));
}
}  // namespace

void Fiber::prepare(void* stack, std::size_t bytes, void (*entry)(void*), void* argument) {
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  const auto low = [](std::uintptr_t value) { return static_cast<unsigned>(value); };
  const auto high = [](std::uintptr_t value) { return static_cast<unsigned>(value >> 32); };
  const auto e = reinterpret_cast<std::uintptr_t>(entry), a = reinterpret_cast<std::uintptr_t>(argument);
  makecontext(&context_, reinterpret_cast<void (*)()>(start), 4, low(e), high(e), low(a), high(a));
}

void Fiber::switch_to(Fiber& next) {
  swapcontext(&context_, &next.context_);
}

#else

// Saves what the System V ABI lets a call keep, so that a switch costs a few nanoseconds.
extern "C" void cuda_emulation_switch(void** save, void* load);
extern "C" void cuda_emulation_start();
asm(R"(
.text
.globl cuda_emulation_switch
.hidden cuda_emulation_switch
.type cuda_emulation_switch, @function
cuda_emulation_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_emulation_switch, .-cuda_emulation_switch
.globl cuda_emulation_start
.hidden cuda_emulation_start
.type cuda_emulation_start, @function
cuda_emulation_start:
  movq %r12, %rdi
  call *%r13
  ud2
.size cuda_emulation_start, .-cuda_emulation_start
)");

void Fiber::prepare(void* stack, std::size_t bytes, void (*entry)(void*), void* argument) {
  auto** top = reinterpret_cast<void**>(static_cast<char*>(stack) + bytes);
  *--top = nullptr;
  *--top = nullptr;  // keeps the stack aligned at the call
  *--top = reinterpret_cast<void*>(cuda_emulation_start);
  *--top = nullptr;                         // rbp
  *--top = nullptr;                         // rbx
  *--top = argument;                        // r12
  *--top = reinterpret_cast<void*>(entry);  // r13
  *--top = nullptr;                         // r14
  *--top = nullptr;                         // r15
  stack_pointer_ = top;
}

void Fiber::switch_to(Fiber& next) {
  cuda_emulation_switch(&stack_pointer_, next.stack_pointer_);
}

#endif

void* fiber_stack(std::size_t i) {
  constexpr std::size_t page = 4096;
  static std::vector<void*> stacks;
  while (stacks.size() <= i) {
    void* mapped = mmap(nullptr, fiber_stack_bytes + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED || mprotect(mapped, page, PROT_NONE) != 0) throw std::bad_alloc();
    stacks.push_back(static_cast<char*>(mapped) + page);
  }
  return stacks[i];
}

}  // namespace emulation
