#include "limits/limits.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "limits/loops.hpp"
#include "parallel.hpp"

namespace leancore::detail {

std::span<const LimitLoops* const> limit_loops() noexcept {
  static constexpr const LimitLoops* list[] = {
#if defined(LEANCORE_X86_64)
      &limits::avx512,
      &limits::avx2,
#endif
      &limits::generic,
  };
  return list;
}

const LimitLoops* find_limit_loops(const char* name) noexcept {
  for (const LimitLoops* loops : limit_loops()) {
    if ((name == nullptr || std::strcmp(name, loops->name) == 0) && loops->available()) return loops;
  }
  return nullptr;
}

double run_multiply_add(const LimitLoops& loops, DType dtype, std::int64_t rounds, int threads) noexcept {
  const bool single = dtype == DType::f32;
  const auto body = single ? loops.multiply_add_f32 : loops.multiply_add_f64;
  // More pieces than threads, so that a thread that is held up does not hold up the rest.
  const std::int64_t pieces = threads == 1 ? 1 : std::int64_t{16} * threads,
                     each = std::max<std::int64_t>(1, rounds * threads / pieces);
  std::atomic<std::int64_t> settled{0};
  parallel_for(pieces, threads, [&](std::int64_t, int) { settled += body(each) > 0; });
  return static_cast<double>(settled * each) *
         static_cast<double>(single ? loops.flops_per_round_f32 : loops.flops_per_round_f64);
}

void run_copy(const LimitLoops& loops, void* to, const void* from, std::size_t bytes, bool streaming,
              int threads) noexcept {
  constexpr std::size_t piece = std::size_t{1} << 20;
  const auto body = streaming ? loops.copy_streaming : loops.copy;
  parallel_for(static_cast<std::int64_t>((bytes + piece - 1) / piece), threads, [&](std::int64_t index, int) {
    const std::size_t at = static_cast<std::size_t>(index) * piece;
    body(static_cast<char*>(to) + at, static_cast<const char*>(from) + at, std::min(piece, bytes - at));
  });
}

}  // namespace leancore::detail
