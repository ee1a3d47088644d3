// The one place that starts threads.
#pragma once

#include <cstdint>
#include <type_traits>

namespace leancore::detail {

// Calls body(index, thread) for every index in [0, count), indices handed out one by one, on at most `workers` threads
// numbered from 0. Returns when all are done. The body must not throw.
void parallel_for(std::int64_t count, int workers, void (*body)(void*, std::int64_t, int), void* context) noexcept;

template <typename Body>
void parallel_for(std::int64_t count, int workers, Body&& body) noexcept {
  parallel_for(
      count, workers,
      [](void* context, std::int64_t index, int thread) {
        (*static_cast<std::remove_reference_t<Body>*>(context))(index, thread);
      },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace leancore::detail
