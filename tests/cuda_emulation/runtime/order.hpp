// Which accesses of the threads of a block happened before which: by barriers, and by __syncwarp within a warp.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "types.hpp"

namespace emulation {

// The time of a block: it counts the barriers of all kinds that have been passed.
using Clock = u32;
constexpr Clock clock_end = Clock{1} << 22;

class Order {
 public:
  void start(u32 threads) {
    now_ = 1;
    warps_ = (threads + 31) / 32;
    for (u32 w = 0; w < warps_; ++w) known_[w].fill(0);
    floor_.fill(0);
    // Lanes that a short last warp lacks are known for ever.
    lanes_.assign(warps_ * 32, {});
    for (u32 thread = 0; thread < warps_ * 32; ++thread) {
      for (u32 lane = 0; lane < 32; ++lane) {
        if ((thread / 32) * 32 + lane >= threads) lanes_[thread][lane] = std::numeric_limits<Clock>::max();
      }
    }
  }

  [[nodiscard]] Clock now() const { return now_; }
  // Every access of the block up to this time happened before what the warp does now.
  [[nodiscard]] Clock floor(u32 warp) const { return floor_[warp]; }

  // Did the access of thread `other` at `time` happen before what `thread` does now?
  [[nodiscard]] bool before(u32 other, Clock time, u32 thread) const {
    const u32 warp = thread / 32;
    if (time <= floor_[warp] || other == thread || time <= known_[warp][other / 32]) return true;
    return other / 32 == warp && time <= lanes_[thread][other % 32];
  }

  // The same for some threads of each of the warps in the mask.
  [[nodiscard]] bool all_before(u32 warp_mask, Clock time, u32 thread) const {
    const u32 warp = thread / 32;
    if (time <= floor_[warp]) return true;
    for (u32 w = 0; w < warps_; ++w) {
      if ((warp_mask >> w & 1) == 0 || time <= known_[warp][w]) continue;
      if (w != warp || time > *std::min_element(lanes_[thread].begin(), lanes_[thread].end())) return false;
    }
    return true;
  }

  // All threads of the warps in the mask pass a barrier: each learns what any of them knew.
  void barrier(u32 warp_mask) {
    std::array<Clock, 32> joined{};
    for_each_bit(warp_mask, [&](u32 w) {
      for (u32 v = 0; v < warps_; ++v) joined[v] = std::max(joined[v], known_[w][v]);
    });
    for_each_bit(warp_mask, [&](u32 w) { joined[w] = now_; });
    const Clock floor = *std::min_element(joined.begin(), joined.begin() + warps_);
    for_each_bit(warp_mask, [&](u32 w) {
      known_[w] = joined;
      floor_[w] = floor;
    });
    ++now_;
  }

  // The lanes in the mask pass a barrier of their warp.
  void warp_barrier(u32 warp, u32 lane_mask) {
    std::array<Clock, 32> joined{};
    for_each_bit(lane_mask, [&](u32 lane) {
      const auto& known = lanes_[warp * 32 + lane];
      for (u32 l = 0; l < 32; ++l) joined[l] = std::max(joined[l], known[l]);
    });
    for_each_bit(lane_mask, [&](u32 lane) { joined[lane] = now_; });
    for_each_bit(lane_mask, [&](u32 lane) { lanes_[warp * 32 + lane] = joined; });
    ++now_;
  }

 private:
  template <typename Visit>
  static void for_each_bit(u32 mask, Visit visit) {
    for (u32 i = 0; i < 32; ++i) {
      if (mask >> i & 1) visit(i);
    }
  }

  Clock now_ = 1;
  u32 warps_ = 0;
  std::array<std::array<Clock, 32>, 32> known_{};  // [warp][of which warp]
  std::array<Clock, 32> floor_{};                  // [warp], the least of its row of known_
  std::vector<std::array<Clock, 32>> lanes_;       // [thread][of which lane of its warp]
};

}  // namespace emulation
