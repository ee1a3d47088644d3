// Loops that reach what this machine can do at most, and nothing else: fused multiply-adds on registers, and copies of
// memory. `leancore bench` compares the operator with them; no operation uses them, and they are no part of the public
// API. They count work and take no time themselves: the caller holds the clock, so that limits and operators are timed
// in turns by the same one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "leancore/types.hpp"

namespace leancore::detail {

// The loops of one instruction set.
struct LimitLoops {
  const char* name;  // that of the kernels compiled for it: "avx512", "avx2", "generic"
  bool (*available)();
  // Each of the calls does rounds · flops_per_round operations and returns a number that depends on all of them.
  double (*multiply_add_f32)(std::int64_t rounds);
  double (*multiply_add_f64)(std::int64_t rounds);
  std::int64_t flops_per_round_f32;
  std::int64_t flops_per_round_f64;
  // `bytes` is a multiple of limit_block; both pointers are aligned to 64 bytes.
  void (*copy)(void* to, const void* from, std::size_t bytes);
  void (*copy_streaming)(void* to, const void* from,
                         std::size_t bytes);  // past the caches, where there is a store for it
};

inline constexpr std::size_t limit_block = 256;

// In the order of preference; the last one runs everywhere.
std::span<const LimitLoops* const> limit_loops() noexcept;

// The first of the list that this processor runs; with a name, that one. Null: no such row, or not on this processor.
const LimitLoops* find_limit_loops(const char* name) noexcept;

// Keeps `threads` threads (at most max_threads()) multiplying for `rounds` rounds each; returns the operations done.
double run_multiply_add(const LimitLoops& loops, DType dtype, std::int64_t rounds, int threads) noexcept;

// Copies `bytes` (a multiple of limit_block; 64-byte aligned) in pieces that are handed to `threads` threads.
void run_copy(const LimitLoops& loops, void* to, const void* from, std::size_t bytes, bool streaming,
              int threads) noexcept;

}  // namespace leancore::detail
