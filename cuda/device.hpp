// The devices of this process, as far as calls need to know them.
#pragma once

#include <cuda_runtime.h>

#include "plan.hpp"

namespace leancore::detail::cuda {

// A message in the words of the CUDA runtime, and nothing left behind for other code's error checks.
Status failure(const char* call, const char* what, cudaError_t error);

// The number of devices, asked once; 0 without a driver.
int device_count();

// What the runtime knows of an existing device, asked once each.
Status facts_of(const char* call, int device, DeviceFacts& facts);

// Makes a device the thread's current one, and the earlier one again at the end.
class DeviceGuard {
 public:
  DeviceGuard(const char* call, int device, Status& status);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int earlier_ = -1;  // -1: nothing to restore
};

}  // namespace leancore::detail::cuda
