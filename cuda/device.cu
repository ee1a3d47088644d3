#include "device.hpp"

#include <atomic>
#include <string>

#include "leancore/runtime.hpp"
#include "status.hpp"

namespace leancore {
namespace detail::cuda {

Status failure(const char* call, const char* what, cudaError_t error) {
  cudaGetLastError();
  return fail(error == cudaErrorMemoryAllocation ? StatusCode::out_of_memory : StatusCode::runtime_error,
              "%s: %s: %s (%s)", call, what, cudaGetErrorString(error), cudaGetErrorName(error));
}

namespace {

struct Devices {
  int count = 0;
  cudaError_t error = cudaSuccess;

  Devices() {
    error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {  // the count may be untouched
      count = 0;
      cudaGetLastError();
    }
  }
};

const Devices& devices() {
  static const Devices answer;
  return answer;
}

std::string dotted(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string describe() {
  const std::string built =
      "built with CUDA " + dotted(CUDART_VERSION) + " for compute capabilities " LEANCORE_CUDA_ARCHITECTURES;
  switch (devices().error) {
    case cudaSuccess:
      break;
    case cudaErrorInsufficientDriver:
      return built + "; no CUDA driver is installed, or one too old for it";
    case cudaErrorNoDevice:
      return built + "; the CUDA driver finds no device";
    default:
      return built + "; the CUDA driver says: " + cudaGetErrorString(devices().error);
  }
  int driver = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) cudaGetLastError();
  return built + "; driver for CUDA " + dotted(driver) + ", " + std::to_string(devices().count) +
         (devices().count == 1 ? " device" : " devices");
}

}  // namespace

int device_count() {
  return devices().count;
}

Status facts_of(const char* call, int device, DeviceFacts& facts) {
  constexpr int most_devices = 64;
  static std::atomic<int> architectures[most_devices], shared_bytes[most_devices];  // 0: not asked yet
  if (device < 0 || device >= device_count()) {
    return fail(StatusCode::invalid_argument, "%s: CUDA device %d, expected 0 to %d (%s)", call, device,
                device_count() - 1, cuda_status());
  }
  int architecture = device < most_devices ? architectures[device].load() : 0;
  int bytes = device < most_devices ? shared_bytes[device].load() : 0;
  if (architecture == 0 || bytes == 0) {
    int major = 0, minor = 0;
    cudaError_t error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error == cudaSuccess) {
      error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    }
    if (error != cudaSuccess) return failure(call, "asking for the device's properties", error);
    architecture = 10 * major + minor;
    if (device < most_devices) {
      architectures[device] = architecture;
      shared_bytes[device] = bytes;
    }
  }
  facts = {architecture, static_cast<std::size_t>(bytes)};
  return {};
}

DeviceGuard::DeviceGuard(const char* call, int device, Status& status) {
  int current = 0;
  cudaError_t error = cudaGetDevice(&current);
  if (error == cudaSuccess && current != device) {
    error = cudaSetDevice(device);
    if (error == cudaSuccess) earlier_ = current;
  }
  if (error != cudaSuccess) status = failure(call, "choosing the device", error);
}

DeviceGuard::~DeviceGuard() {
  if (earlier_ >= 0 && cudaSetDevice(earlier_) != cudaSuccess) cudaGetLastError();
}

}  // namespace detail::cuda

const char* cuda_status() noexcept {
  static const std::string text = detail::cuda::describe();
  return text.c_str();
}

}  // namespace leancore
