// Three back-ends, chosen when building: OpenMP (release: shares one team with torch through libgomp.so.1), std::thread
// (sanitizers, platforms without OpenMP) and serial (fuzzing).
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "leancore/runtime.hpp"

#if defined(LEANCORE_THREADS_OPENMP)
#include <omp.h>

#include <mutex>
#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#elif defined(LEANCORE_THREADS_STD)
#include <system_error>
#include <thread>
#include <vector>
#endif

namespace leancore {
namespace detail {
namespace {

struct Queue {
  std::int64_t count;
  void (*body)(void*, std::int64_t, int);
  void* context;
  std::atomic<std::int64_t> next{0};

  void work(int thread) {
    for (std::int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(context, i, thread);
  }
};

#if defined(LEANCORE_THREADS_OPENMP)
// libgomp's pool does not survive a fork: a child that opens a parallel region waits for threads that are not there.
// Parking the pool before the fork lets the child (and the parent) start a new one.
void park_threads_before_fork() {
#if defined(__unix__) || defined(__APPLE__)
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(
        [] {
          if (!omp_in_parallel()) omp_pause_resource_all(omp_pause_soft);
        },
        nullptr, nullptr);
  });
#endif
}

void run(Queue& queue, int workers) {
  park_threads_before_fork();
  // No num_threads clause: an explicit count would start threads behind omp_set_num_threads and fork handlers.
#pragma omp parallel
  {
    const int thread = omp_get_thread_num();
    if (thread < workers) queue.work(thread);
  }
}
#elif defined(LEANCORE_THREADS_STD)
void run(Queue& queue, int workers) {
  std::vector<std::thread> team;
  try {
    team.reserve(static_cast<std::size_t>(workers - 1));
    for (int thread = 1; thread < workers; ++thread) team.emplace_back([&queue, thread] { queue.work(thread); });
  } catch (const std::exception&) {
    // Fewer threads than wished for: the queue empties all the same.
  }
  queue.work(0);
  for (std::thread& member : team) member.join();
}
#else
void run(Queue& queue, int) {
  queue.work(0);
}
#endif

}  // namespace

void parallel_for(std::int64_t count, int workers, void (*body)(void*, std::int64_t, int), void* context) noexcept {
  Queue queue{count, body, context};
  if (workers > 1 && count > 1) {
    run(queue, workers);
  } else {
    queue.work(0);
  }
}

}  // namespace detail

#if defined(LEANCORE_THREADS_OPENMP)
const char* thread_backend() noexcept {
  return "openmp";
}
int max_threads() noexcept {
  return std::max(1, omp_get_max_threads());
}
#elif defined(LEANCORE_THREADS_STD)
const char* thread_backend() noexcept {
  return "std";
}
int max_threads() noexcept {
  static const int threads = [] {
    const char* text = std::getenv("LEANCORE_NUM_THREADS");
    const int wished = text ? std::atoi(text) : 0;
    return wished > 0 ? wished : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return threads;
}
#else
const char* thread_backend() noexcept {
  return "serial";
}
int max_threads() noexcept {
  return 1;
}
#endif

}  // namespace leancore
