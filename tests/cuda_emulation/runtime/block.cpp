#include "block.hpp"

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>

#include "memory.hpp"
#include "statistics.hpp"

namespace emulation {

namespace {

constexpr u64 shared_capacity = 1 << 20;  // more than any device's, for the holes between arrays

std::string text_of(const Dim3& index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

std::string demangle(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

}  // namespace

const char* name_of(Defect defect) {
  switch (defect) {
    case Defect::race:
      return "race";
    case Defect::out_of_bounds:
      return "out of bounds";
    case Defect::misaligned:
      return "misaligned";
    case Defect::uninitialised:
      return "uninitialised";
    case Defect::pending_copy:
      return "pending copy";
    case Defect::divergent_barrier:
      return "divergent barrier";
    case Defect::collective:
      return "warp collective";
    case Defect::deadlock:
      return "deadlock";
    case Defect::trap:
      return "trap";
  }
  return "?";
}

Block::Block() : shared_("shared", shared_capacity) {}

std::string Block::describe(const Thread& t) const {
  return "thread " + text_of(t.index);
}

std::string Block::describe(Site site) const {
  const SourceLine& line = launch_->kernel->sites[site];
  std::string text = std::string(line.file) + ":" + std::to_string(line.line);
  if (*line.inlined_file)
    text += " (inlined at " + std::string(line.inlined_file) + ":" + std::to_string(line.inlined_line) + ")";
  return text + " [" + line.opcode + "]";
}

void Block::report(const Thread& t, Defect defect, const std::string& text, Site site) {
  report_ = std::string(name_of(defect)) + ": " + text + "\n  by " + describe(t) + " of block " + text_of(index_) +
            " at " + describe(site) + "\n  in " + demangle(launch_->kernel->name);
  defect_ = defect;
}

void Block::fail(Thread& t, Defect defect, const std::string& text, Site site) {
  if (report_.empty() || defect == Defect::race) report(t, defect, text, site);
  t.fiber.switch_to(scheduler_);
  std::abort();  // a failed block is not resumed
}

void Block::stop(Thread& t, Defect defect, const std::string& text, Site site) {
  if (report_.empty()) report(t, defect, text, site);
  t.state = Thread::State::stopped;
  t.fiber.switch_to(next());
  std::abort();  // a stopped thread is not resumed
}

void Block::report_deadlock() {
  report_ = "deadlock: no thread can go on";
  defect_ = Defect::deadlock;
  for (std::size_t i = 0, listed = 0; i < count_ && listed < 4; ++i) {
    const Thread& t = threads_[i];
    if (t.state == Thread::State::done) continue;
    report_ += "\n  " + describe(t) + " of block " + text_of(index_) + " waits at " + describe(t.waits_at);
    ++listed;
  }
  report_ += "\n  in " + demangle(launch_->kernel->name);
}

// -- the schedule

void Block::run(const Launch& launch, Schedule& schedule) {
  static u32 next_serial = 0;
  launch_ = &launch;
  schedule_ = &schedule;
  count_ = u64{launch.shape.x} * launch.shape.y * launch.shape.z;
  if (threads_.size() < count_) threads_ = std::vector<Thread>(count_);
  const u64 blocks = u64{launch.grid.x} * launch.grid.y * launch.grid.z;
  std::vector<u64> order(blocks);
  for (u64 i = 0; i < blocks; ++i) order[i] = i;
  schedule.arrange(order);

  const Kernel& kernel = *launch.kernel;
  const u64 used = u64{kernel.dynamic_offset} + launch.dynamic_bytes;
  global_memory().space().set_oldest(next_serial + 1);
  for (const u64 block : order) {
    serial_ = ++next_serial;
    index_ = {static_cast<u32>(block % launch.grid.x), static_cast<u32>(block / launch.grid.x % launch.grid.y),
              static_cast<u32>(block / launch.grid.x / launch.grid.y)};
    shared_.set_oldest(serial_);
    shared_.forget(used);
    for (const Range& range : kernel.shared) shared_.allocate(range.offset, range.bytes);
    shared_.allocate(kernel.dynamic_offset, launch.dynamic_bytes);
    run_block();
  }
}

void Block::run_block() {
  order_.start(threads());
  ready_.clear();
  ready_first_ = 0;
  meetings_.clear();
  for (Barrier& barrier : barriers_) barrier = {};
  report_.clear();
  alive_ = count_;
  for (u32 warp = 0; warp < 32; ++warp) {
    const u64 lanes = count_ > u64{warp} * 32 ? std::min<u64>(count_ - u64{warp} * 32, 32) : 0;
    lanes_alive_[warp] = static_cast<u32>((u64{1} << lanes) - 1);
  }
  start_threads();
  scheduler_.switch_to(next());
  if (Statistics* statistics = Statistics::active()) statistics->flush(*this);
  if (report_.empty() && alive_ > 0) report_deadlock();
  if (report_.empty()) return;
  for (std::size_t i = 0; i < count_; ++i) {
    for (const Copy& copy : threads_[i].copies.started) {
      global_memory().space().cancel_copy_from(copy.source, copy.source_bytes);
    }
  }
  throw DefectFound(defect_, report_);
}

void Block::start_threads() {
  const Dim3& shape = launch_->shape;
  std::vector<u16> warps((count_ + 31) / 32);
  for (std::size_t w = 0; w < warps.size(); ++w) warps[w] = static_cast<u16>(w);
  schedule_->arrange(warps);
  for (const u16 warp : warps) {
    std::vector<u16> lanes;
    for (u32 i = warp * 32u; i < (warp + 1u) * 32 && i < count_; ++i) {
      Thread& t = threads_[i];
      t.index = {i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y};
      t.number = i;
      t.lane = i % 32;
      t.warp = warp;
      t.block = this;
      t.state = Thread::State::ready;
      t.trips = 0;
      t.copies.forget();
      // Stacks start at different places of a page, so that they do not compete for the same lines of the cache.
      const std::size_t shift = i * 7 % 61 * 320;
      t.fiber.prepare(fiber_stack(i), fiber_stack_bytes - shift / 16 * 16, run_thread, &t);
      lanes.push_back(static_cast<u16>(i));
    }
    release(lanes);
  }
}

void Block::run_thread(void* thread) {
  Thread& t = *static_cast<Thread*>(thread);
  t.block->launch_->kernel->run(t, const_cast<unsigned char*>(t.block->launch_->parameters.data()));
  t.block->leave(t);
}

void Block::leave(Thread& t) {
  if (!t.copies.started.empty()) {
    fail(t, Defect::pending_copy, "the thread exits before its asynchronous copy has been waited for",
         t.copies.started.front().site);
  }
  for (const Barrier& barrier : barriers_) {
    if (!barrier.waiting.empty() && barrier.expected == count_) {
      fail(t, Defect::divergent_barrier, "the thread exits while others wait for it at " + describe(barrier.site),
           barrier.site);
    }
  }
  t.state = Thread::State::done;
  --alive_;
  lanes_alive_[t.warp] &= ~(1u << t.lane);
  for (std::size_t i = 0; i < meetings_.size(); ++i) {
    Meeting& meeting = meetings_[i];
    if (meeting.warp != t.warp || (meeting.mask >> t.lane & 1) == 0) continue;
    if (meeting.whole_warp) {
      fail(t, Defect::collective, "the lane exits while others wait for it at " + describe(meeting.site), meeting.site);
    }
    meeting.mask &= ~(1u << t.lane);  // lanes that have exited are not waited for
    if (meeting.arrived == meeting.mask) {
      const Meeting complete = meeting;
      meetings_.erase(meetings_.begin() + static_cast<std::ptrdiff_t>(i));
      conclude(complete, nullptr);
      break;
    }
  }
  t.fiber.switch_to(next());
  std::abort();  // a thread that is done is not resumed
}

void Block::release(std::vector<u16>& threads) {
  schedule_->arrange(threads);
  for (const u16 i : threads) {
    threads_[i].state = Thread::State::ready;
    ready_.push_back(i);
  }
}

Fiber& Block::next() {
  if (ready_first_ == ready_.size()) return scheduler_;
  Thread& t = threads_[ready_[ready_first_++]];
  if (ready_first_ == ready_.size()) {
    ready_.clear();
    ready_first_ = 0;
  }
  return t.fiber;
}

void Block::suspend(Thread& t) {
  Fiber& other = next();
  if (&other != &t.fiber) t.fiber.switch_to(other);
}

// -- barriers

u32 Block::barrier_count(Thread& t, u32 id, u32 threads, bool condition, Site site) {
  if (id >= 16) fail(t, Defect::divergent_barrier, "there is no barrier " + std::to_string(id), site);
  const u32 expected = threads == 0 ? this->threads() : threads;
  const bool whole_block = expected == count_;
  Barrier& barrier = barriers_[id];
  if (!whole_block && (expected % 32 != 0 || expected > count_)) {
    fail(t, Defect::divergent_barrier, "a barrier of " + std::to_string(expected) + " threads", site);
  }
  if (whole_block && alive_ != count_) {
    fail(t, Defect::divergent_barrier, "other threads of the block have exited", site);
  }
  if (!barrier.waiting.empty() && (barrier.expected != expected || (whole_block && barrier.site != site))) {
    fail(t, Defect::divergent_barrier, "other threads wait at another barrier, " + describe(barrier.site), site);
  }
  for (const Meeting& meeting : meetings_) {
    if (meeting.warp == t.warp && meeting.mask >> t.lane & 1) {
      fail(t, Defect::collective, "other lanes of the warp wait for this one at " + describe(meeting.site), site);
    }
  }
  barrier.expected = expected;
  barrier.site = site;
  barrier.holds += condition;
  barrier.waiting.push_back(static_cast<u16>(t.number));
  t.state = Thread::State::at_barrier;
  t.waits_at = site;
  if (barrier.waiting.size() == expected) release_barrier(barrier, t);
  suspend(t);
  return t.barrier_count;
}

void Block::release_barrier(Barrier& barrier, Thread& t) {
  u32 lanes[32] = {}, warps = 0;
  for (const u16 i : barrier.waiting) {
    const Thread& other = threads_[i];
    lanes[other.warp] |= 1u << other.lane;
    warps |= 1u << other.warp;
    if (other.waits_at != threads_[other.warp * 32].waits_at) {
      fail(t, Defect::divergent_barrier,
           "lanes of one warp wait at different barriers, one at " + describe(other.waits_at), barrier.site);
    }
  }
  for (u32 w = 0; w < 32; ++w) {
    if ((warps >> w & 1) && lanes[w] != lanes_alive(w)) {
      fail(t, Defect::divergent_barrier, "only some lanes of a warp have come", barrier.site);
    }
  }
  if (Statistics* statistics = Statistics::active(); statistics && barrier.expected == count_) statistics->flush(*this);
  if (order_.now() + 1 >= clock_end) throw std::length_error("cuda emulation: too many barriers in a block");
  order_.barrier(warps);
  std::vector<u16> released;
  released.swap(barrier.waiting);
  for (const u16 i : released) {
    threads_[i].barrier_count = barrier.holds;
    if (barrier.expected == count_) threads_[i].trips = 0;
  }
  barrier = {};
  release(released);
}

// -- warp collectives

void Block::meet(Thread& t, u32 mask, bool whole_warp, void* payload, Collective compute, Site site) {
  const u32 alive = lanes_alive(t.warp);
  if ((mask >> t.lane & 1) == 0) fail(t, Defect::collective, "the lane is not in the mask that it gives", site);
  if (whole_warp && alive != ~0u) fail(t, Defect::collective, "not all 32 lanes of the warp are there", site);
  mask &= alive;

  Meeting* meeting = nullptr;
  for (Meeting& other : meetings_) {
    if (other.warp != t.warp || (other.mask & mask) == 0) continue;
    if (other.mask != mask || other.compute != compute || other.site != site) {
      fail(t, Defect::collective, "lanes of the mask wait elsewhere or with another mask, at " + describe(other.site),
           site);
    }
    meeting = &other;
  }
  if (meeting == nullptr) {
    for (u32 lane = 0; lane < 32; ++lane) {
      if ((mask >> lane & 1) && threads_[t.warp * 32 + lane].state == Thread::State::at_barrier) {
        fail(t, Defect::collective,
             "a lane of the mask waits at a barrier, " + describe(threads_[t.warp * 32 + lane].waits_at), site);
      }
    }
    meetings_.push_back({t.warp, mask, 0, whole_warp, compute, site});
    meeting = &meetings_.back();
  }
  meeting->arrived |= 1u << t.lane;
  t.payload = payload;
  t.waits_at = site;
  if (meeting->arrived == meeting->mask) {
    const Meeting complete = *meeting;
    meetings_.erase(meetings_.begin() + (meeting - meetings_.data()));
    conclude(complete, &t);
    return;  // the lane that came last simply goes on
  }
  t.state = Thread::State::in_collective;
  suspend(t);
}

// All lanes have come: computes, and lets all but the last one (if any) be scheduled.
void Block::conclude(Meeting meeting, Thread* last) {
  void* payloads[32] = {};
  std::vector<u16> released;
  released.reserve(32);
  for (u32 lane = 0; lane < 32; ++lane) {
    if ((meeting.mask >> lane & 1) == 0) continue;
    Thread& t = threads_[meeting.warp * 32 + lane];
    payloads[lane] = t.payload;
    if (&t != last) released.push_back(static_cast<u16>(t.number));
  }
  if (order_.now() + 1 >= clock_end) throw std::length_error("cuda emulation: too many barriers in a block");
  meeting.compute(*this, meeting.warp, meeting.mask, payloads);
  release(released);
}

}  // namespace emulation
