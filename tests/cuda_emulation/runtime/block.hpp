// A running block: its threads as fibers, their schedule, barriers and warp collectives.
#pragma once

#include <random>
#include <string>
#include <vector>

#include "copies.hpp"
#include "defect.hpp"
#include "fiber.hpp"
#include "order.hpp"
#include "space.hpp"
#include "types.hpp"

namespace emulation {

class Block;

struct Thread {
  enum class State { ready, at_barrier, in_collective, stopped, done };

  Dim3 index{0, 0, 0};
  u32 number = 0, lane = 0, warp = 0;
  Block* block = nullptr;
  State state = State::ready;
  Site waits_at = 0;
  u32 trips = 0;  // backward jumps since the last barrier
  void* payload = nullptr;
  u32 barrier_count = 0;  // the result of the barrier just passed
  Copies copies;
  Fiber fiber;
};

enum class Arrangement { round_robin, reverse, random };

// The order in which threads that could all run are run; blocks too.
class Schedule {
 public:
  void set(Arrangement arrangement, u64 seed) {
    arrangement_ = arrangement;
    random_.seed(seed);
  }
  template <typename T>
  void arrange(std::vector<T>& list) {
    if (arrangement_ == Arrangement::reverse) std::reverse(list.begin(), list.end());
    if (arrangement_ == Arrangement::random) std::shuffle(list.begin(), list.end(), random_);
  }

 private:
  Arrangement arrangement_ = Arrangement::round_robin;
  std::mt19937_64 random_;
};

struct Launch {
  const Kernel* kernel = nullptr;
  Dim3 grid, shape;
  u32 dynamic_bytes = 0;
  std::vector<unsigned char> parameters;
};

// What a warp collective computes once all lanes of its mask have arrived: from their payloads to their payloads.
using Collective = void (*)(Block&, u32 warp, u32 mask, void* const* payloads);

class Block {
 public:
  Block();

  // Runs the whole grid. Throws DefectFound.
  void run(const Launch& launch, Schedule& schedule);

  [[nodiscard]] const Dim3& index() const { return index_; }
  [[nodiscard]] const Dim3& grid() const { return launch_->grid; }
  [[nodiscard]] const Dim3& shape() const { return launch_->shape; }
  [[nodiscard]] u32 threads() const { return static_cast<u32>(count_); }
  [[nodiscard]] u32 dynamic_bytes() const { return launch_->dynamic_bytes; }
  [[nodiscard]] u32 serial() const { return serial_; }
  [[nodiscard]] const Kernel& kernel() const { return *launch_->kernel; }
  [[nodiscard]] const Launch& launch() const { return *launch_; }
  [[nodiscard]] const Thread& thread(u32 number) const { return threads_[number]; }
  // The lanes of a warp that have not exited.
  [[nodiscard]] u32 lanes_alive(u32 warp) const { return lanes_alive_[warp]; }
  Space& shared() { return shared_; }
  Order& order() { return order_; }

  // bar.sync: `threads` 0 stands for all of the block.
  void barrier(Thread& t, u32 id, u32 threads, Site site) { barrier_count(t, id, threads, false, site); }
  // bar.red: for how many threads the condition holds.
  u32 barrier_count(Thread& t, u32 id, u32 threads, bool condition, Site site);
  // Waits for the lanes of the mask at the same instruction. `whole_warp`: PTX demands all 32 lanes.
  void meet(Thread& t, u32 mask, bool whole_warp, void* payload, Collective compute, Site site);

  // Ends the launch with a report.
  [[noreturn]] void fail(Thread& t, Defect defect, const std::string& text, Site site);
  // Stops only this thread: if the others make it a race, that is the better report.
  [[noreturn]] void stop(Thread& t, Defect defect, const std::string& text, Site site);
  [[noreturn]] void fail_trap(Thread& t, Site site) { fail(t, Defect::trap, "trap or failed assertion", site); }

  [[nodiscard]] std::string describe(const Thread& t) const;
  [[nodiscard]] std::string describe(Site site) const;

 private:
  struct Barrier {
    std::vector<u16> waiting;
    u32 expected = 0, holds = 0;
    Site site = 0;
  };
  struct Meeting {
    u32 warp, mask, arrived;
    bool whole_warp;
    Collective compute;
    Site site;
  };

  void run_block();
  void start_threads();
  static void run_thread(void* thread);
  void leave(Thread& t);
  void suspend(Thread& t);
  Fiber& next();
  void release(std::vector<u16>& threads);
  void release_barrier(Barrier& barrier, Thread& t);
  void conclude(Meeting meeting, Thread* last);
  void report(const Thread& t, Defect defect, const std::string& text, Site site);
  void report_deadlock();

  const Launch* launch_ = nullptr;
  Schedule* schedule_ = nullptr;
  Dim3 index_;
  u32 serial_ = 0;
  std::vector<Thread> threads_;
  std::size_t count_ = 0, alive_ = 0;
  u32 lanes_alive_[32] = {};
  std::vector<u16> ready_;
  std::size_t ready_first_ = 0;
  Barrier barriers_[16];
  std::vector<Meeting> meetings_;
  Order order_;
  Space shared_;
  Fiber scheduler_;
  std::string report_;  // "": no defect so far
  Defect defect_{};
};

}  // namespace emulation
