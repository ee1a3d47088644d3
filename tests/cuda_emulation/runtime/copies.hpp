// The asynchronous copies (cp.async) that a thread has started and not yet waited for.
#pragma once

#include <vector>

#include "types.hpp"

namespace emulation {

struct Copy {
  u64 target;  // offset in shared memory
  u64 source;  // offset in global memory
  u32 bytes, source_bytes;
  u32 group;
  Site site;
};

struct Copies {
  std::vector<Copy> started;  // in order
  u32 group = 0;              // the one that is being filled

  void commit() { ++group; }
  void forget() {
    started.clear();
    group = 0;
  }
};

}  // namespace emulation
