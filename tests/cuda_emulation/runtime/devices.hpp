// The devices that can be emulated: limits of real ones.
#pragma once

#include <string>
#include <vector>

#include "types.hpp"

namespace emulation {

struct Device {
  const char* name;
  u32 capability;  // 80 for 8.0
  u32 multiprocessors;
  u32 shared_per_block;  // without opt-in
  u32 shared_per_block_optin;
  u32 shared_per_multiprocessor;
  u32 threads_per_multiprocessor;
  u32 l2_bytes;
};

// Of a list "sm_80,sm_90:7" or "none", 7 being multiprocessors; false for what is neither.
bool parse_devices(const std::string& list, std::vector<Device>& devices);

}  // namespace emulation
