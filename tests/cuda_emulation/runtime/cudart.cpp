// A stand-in for libcudart whose devices are emulated. Everything is done when it is called, so that errors of kernels
// come back from the launch, as with CUDA_LAUNCH_BLOCKING=1. Functions that are not here are meant to fail to link.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "block.hpp"
#include "devices.hpp"
#include "emulation.h"
#include "memory.hpp"
#include "registry.hpp"
#include "statistics.hpp"

struct CUstream_st {
  int device = 0;
  std::size_t launches = 0;
  struct CUgraph_st* capturing = nullptr;
  bool invalid = false;  // the capture: something was called that cannot be captured
};
struct CUevent_st {
  int device = 0;
  bool recorded = false;
};
// What a captured stream recorded: everything in order.
struct CUgraph_st {
  struct Node {
    emulation::Launch launch;
    void* memset_target = nullptr;
    int memset_value = 0;
    std::size_t memset_bytes = 0;
  };
  std::vector<Node> nodes;
};
struct CUgraphExec_st {
  CUgraph_st graph;
};

namespace {

using emulation::Device;
using emulation::GlobalMemory;
using emulation::Kernel;
using emulation::Launch;
using emulation::u32;
using emulation::u64;

// All that the runtime keeps. Never destroyed, as programs may call it until their very end.
struct Runtime {
  std::recursive_mutex mutex;
  std::vector<Device> devices;
  emulation::Schedule schedule;
  std::unique_ptr<emulation::Block> block = std::make_unique<emulation::Block>();
  std::unordered_map<const void*, std::string> kernels, variables;  // host symbol -> mangled name
  std::map<std::pair<std::string, int>, u32> dynamic_limits;        // [kernel, device], where it was raised
  std::map<u64, int> device_of;                                     // allocation -> device
  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  CUstream_st default_stream;
  cudaError_t sticky = cudaSuccess;  // of a kernel that failed
  std::string defect, taken;

  Runtime() {
    const char* list = std::getenv("CUDA_EMULATION_DEVICES");
    if (!parse_devices(list ? list : "sm_80", devices)) {
      std::fprintf(stderr, "cuda emulation: CUDA_EMULATION_DEVICES is '%s'\n", list);
      std::abort();
    }
    const char* order = std::getenv("CUDA_EMULATION_SCHEDULE");
    if (order && !set_schedule(order)) {
      std::fprintf(stderr, "cuda emulation: CUDA_EMULATION_SCHEDULE is '%s'\n", order);
      std::abort();
    }
  }

  bool set_schedule(const std::string& text) {
    using emulation::Arrangement;
    if (text == "round-robin" || text == "reverse") {
      schedule.set(text == "reverse" ? Arrangement::reverse : Arrangement::round_robin, 0);
      return true;
    }
    if (text != "random" && text.rfind("random:", 0) != 0) return false;
    schedule.set(Arrangement::random, text == "random" ? 1 : std::strtoull(text.c_str() + 7, nullptr, 10));
    return true;
  }
};

Runtime& runtime() {
  static auto* instance = new Runtime;
  return *instance;
}

thread_local int current_device = 0;
thread_local cudaError_t last_error = cudaSuccess;

cudaError_t remember(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// Runs an API function under the lock, unless there is no device or a kernel has failed.
template <typename Body>
cudaError_t call(Body body) {
  Runtime& r = runtime();
  const std::lock_guard lock(r.mutex);
  if (r.sticky != cudaSuccess) return remember(r.sticky);
  if (r.devices.empty()) return remember(cudaErrorNoDevice);
  return remember(body(r));
}

// Null if the handle is of no stream.
CUstream_st* find_stream(Runtime& r, cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread) return &r.default_stream;
  return r.streams.count(stream) ? stream : nullptr;
}

// What may not be called while some stream is being captured ends the capture.
bool capture_forbids(Runtime& r) {
  bool capturing = false;
  for (CUstream_st* stream : r.streams) {
    if (stream->capturing) stream->invalid = capturing = true;
  }
  return capturing;
}

template <typename Body>
cudaError_t call_uncaptured(Body body) {
  return call([&](Runtime& r) { return capture_forbids(r) ? cudaErrorStreamCaptureUnsupported : body(r); });
}

template <typename Body>
cudaError_t call_on_stream(cudaStream_t handle, Body body) {
  return call([&](Runtime& r) {
    CUstream_st* stream = find_stream(r, handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (stream == &r.default_stream && capture_forbids(r)) return cudaErrorStreamCaptureImplicit;
    return body(r, *stream);
  });
}

const Device& device(Runtime& r) {
  return r.devices[static_cast<std::size_t>(current_device)];
}

// -- launches

cudaError_t check_launch(Runtime& r, const Kernel& kernel, dim3 grid, dim3 block, std::size_t dynamic_bytes) {
  const u64 threads = u64{block.x} * block.y * block.z;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 ||
      threads == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 || threads > 1024) {
    return cudaErrorInvalidConfiguration;
  }
  if (kernel.max_threads != 0 && threads > kernel.max_threads) return cudaErrorLaunchOutOfResources;
  if (kernel.target > device(r).capability) return cudaErrorNoKernelImageForDevice;
  const auto raised = r.dynamic_limits.find({kernel.name, current_device});
  const u32 limit = raised != r.dynamic_limits.end()
                        ? raised->second
                        : device(r).shared_per_block - std::min(kernel.shared_bytes, device(r).shared_per_block);
  return dynamic_bytes > limit ? cudaErrorInvalidValue : cudaSuccess;
}

cudaError_t error_of(emulation::Defect defect) {
  switch (defect) {
    case emulation::Defect::out_of_bounds:
      return cudaErrorIllegalAddress;
    case emulation::Defect::misaligned:
      return cudaErrorMisalignedAddress;
    case emulation::Defect::trap:
      return cudaErrorAssert;
    default:
      return cudaErrorLaunchFailure;
  }
}

cudaError_t execute(Runtime& r, const Launch& launch, CUstream_st& stream) {
  ++stream.launches;
  try {
    r.block->run(launch, r.schedule);
  } catch (const emulation::DefectFound& found) {
    r.defect = found.what();
    std::fprintf(stderr, "cuda emulation: %s\n", found.what());
    r.sticky = error_of(found.defect);
  }
  return r.sticky;
}

cudaError_t launch_kernel(const void* symbol, dim3 grid, dim3 block, void** arguments, std::size_t dynamic_bytes,
                          cudaStream_t handle) {
  return call_on_stream(handle, [&](Runtime& r, CUstream_st& stream) {
    const auto name = r.kernels.find(symbol);
    const Kernel* kernel = name == r.kernels.end() ? nullptr : emulation::find_kernel(name->second.c_str());
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (&stream != &r.default_stream && stream.device != current_device) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t error = check_launch(r, *kernel, grid, block, dynamic_bytes)) return error;
    Launch launch;
    launch.kernel = kernel;
    launch.grid = {grid.x, grid.y, grid.z};
    launch.shape = {block.x, block.y, block.z};
    launch.dynamic_bytes = static_cast<u32>(dynamic_bytes);
    for (std::size_t i = 0; i < kernel->parameters.size(); ++i) {
      const auto [offset, bytes] = kernel->parameters[i];
      launch.parameters.resize(offset + bytes);
      std::memcpy(launch.parameters.data() + offset, arguments[i], bytes);
    }
    if (stream.capturing) {
      stream.capturing->nodes.push_back({launch, nullptr, 0, 0});
      return cudaSuccess;
    }
    return execute(r, launch, stream);
  });
}

// -- memory

// The offset of a range of device memory; false if it is not all in one allocation.
bool device_range(const void* address, std::size_t bytes, u64& offset) {
  GlobalMemory& memory = emulation::global_memory();
  const u64 first = reinterpret_cast<u64>(address);
  const auto [start, size] = memory.allocation(first);
  if (size == 0 || first + bytes > start + size) return false;
  offset = memory.offset(first);
  return true;
}

bool on_device(const void* address) {
  return emulation::global_memory().contains(reinterpret_cast<u64>(address));
}

cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const bool to_device = on_device(to), from_device = on_device(from);
  const auto expected = to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
                                  : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  if (kind != cudaMemcpyDefault && kind != expected) return cudaErrorInvalidValue;
  if (bytes == 0) return cudaSuccess;
  emulation::Space& space = emulation::global_memory().space();
  u64 target = 0, source = 0;
  if ((to_device && !device_range(to, bytes, target)) || (from_device && !device_range(from, bytes, source))) {
    return cudaErrorInvalidValue;
  }
  std::memmove(to_device ? space.data(target) : to, from_device ? space.data(source) : from, bytes);
  if (to_device && from_device) {
    space.copy_initialised(target, source, bytes);
  } else if (to_device) {
    space.initialise(target, bytes);
  }
  return cudaSuccess;
}

cudaError_t fill(void* to, int value, std::size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  u64 target = 0;
  if (!device_range(to, bytes, target)) return cudaErrorInvalidValue;
  emulation::Space& space = emulation::global_memory().space();
  std::memset(space.data(target), value, bytes);
  space.initialise(target, bytes);
  return cudaSuccess;
}

cudaError_t allocate(Runtime& r, void** address, std::size_t bytes) {
  if (address == nullptr) return cudaErrorInvalidValue;
  *address = nullptr;
  if (bytes == 0) return cudaSuccess;
  const u64 start = emulation::global_memory().allocate(bytes);
  if (start == 0) return cudaErrorMemoryAllocation;
  r.device_of[start] = current_device;
  *address = reinterpret_cast<void*>(start);
  return cudaSuccess;
}

cudaError_t release(Runtime& r, void* address) {
  if (address == nullptr) return cudaSuccess;
  if (!emulation::global_memory().free(reinterpret_cast<u64>(address))) return cudaErrorInvalidValue;
  r.device_of.erase(reinterpret_cast<u64>(address));
  return cudaSuccess;
}

// The symbol's variable in device memory, from an offset on; null if it does not fit.
void* symbol_address(Runtime& r, const void* symbol, std::size_t bytes, std::size_t offset) {
  const auto name = r.variables.find(symbol);
  const auto* variable = name == r.variables.end() ? nullptr : emulation::find_variable(name->second.c_str());
  if (variable == nullptr || offset > variable->bytes || bytes > variable->bytes - offset) return nullptr;
  return reinterpret_cast<void*>(*variable->address + offset);
}

thread_local struct {
  dim3 grid, block;
  std::size_t dynamic_bytes;
  cudaStream_t stream;
} configuration;

}  // namespace

extern "C" {

// -- what nvcc's host code calls

void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) {
  return 0;
}

void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  const std::lock_guard lock(runtime().mutex);
  runtime().kernels[host] = name;
}
void __cudaRegisterVar(void**, char* host, char*, const char* name, int, std::size_t, int, int) {
  const std::lock_guard lock(runtime().mutex);
  runtime().variables[host] = name;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, std::size_t dynamic_bytes, cudaStream_t stream) {
  configuration = {grid, block, dynamic_bytes, stream};
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, std::size_t* dynamic_bytes, void* stream) {
  *grid = configuration.grid;
  *block = configuration.block;
  *dynamic_bytes = configuration.dynamic_bytes;
  *static_cast<cudaStream_t*>(stream) = configuration.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* symbol) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(symbol));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, std::size_t dynamic_bytes,
                               cudaStream_t stream) {
  return launch_kernel(kernel, grid, block, arguments, dynamic_bytes, stream);
}
cudaError_t cudaLaunchKernel(const void* symbol, dim3 grid, dim3 block, void** arguments, std::size_t dynamic_bytes,
                             cudaStream_t stream) {
  return launch_kernel(symbol, grid, block, arguments, dynamic_bytes, stream);
}
cudaError_t cudaFuncSetAttribute(const void* symbol, cudaFuncAttribute attribute, int value) {
  return call([&](Runtime& r) {
    const auto name = r.kernels.find(symbol);
    const Kernel* kernel = name == r.kernels.end() ? nullptr : emulation::find_kernel(name->second.c_str());
    if (kernel == nullptr) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
      return value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue;  // a hint
    }
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        static_cast<u32>(value) + kernel->shared_bytes > device(r).shared_per_block_optin) {
      return cudaErrorInvalidValue;
    }
    r.dynamic_limits[{kernel->name, current_device}] = static_cast<u32>(value);
    return cudaSuccess;
  });
}

// -- memory

cudaError_t cudaMalloc(void** address, std::size_t bytes) {
  return call_uncaptured([&](Runtime& r) { return allocate(r, address, bytes); });
}
cudaError_t cudaFree(void* address) {
  return call_uncaptured([&](Runtime& r) { return release(r, address); });
}
cudaError_t cudaMallocAsync(void** address, std::size_t bytes, cudaStream_t stream) {
  return call_on_stream(stream, [&](Runtime& r, CUstream_st& s) {
    return s.capturing ? cudaErrorStreamCaptureUnsupported : allocate(r, address, bytes);
  });
}
cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  return call_on_stream(stream, [&](Runtime& r, CUstream_st& s) {
    return s.capturing ? cudaErrorStreamCaptureUnsupported : release(r, address);
  });
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  return call_uncaptured([&](Runtime&) { return copy(to, from, bytes, kind); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call_on_stream(stream, [&](Runtime&, CUstream_st& s) {
    return s.capturing ? cudaErrorStreamCaptureUnsupported : copy(to, from, bytes, kind);
  });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return call_uncaptured([&](Runtime&) { return fill(to, value, bytes); });
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  return call_on_stream(stream, [&](Runtime&, CUstream_st& s) {
    if (!s.capturing) return fill(to, value, bytes);
    s.capturing->nodes.push_back({{}, to, value, bytes});
    return cudaSuccess;
  });
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, std::size_t bytes, std::size_t offset,
                               cudaMemcpyKind kind) {
  return call_uncaptured([&](Runtime& r) {
    void* to = symbol_address(r, symbol, bytes, offset);
    return to ? copy(to, from, bytes, kind) : cudaErrorInvalidSymbol;
  });
}
cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, std::size_t bytes, std::size_t offset,
                                 cudaMemcpyKind kind) {
  return call_uncaptured([&](Runtime& r) {
    const void* from = symbol_address(r, symbol, bytes, offset);
    return from ? copy(to, from, bytes, kind) : cudaErrorInvalidSymbol;
  });
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return call([&](Runtime&) {
    *free = emulation::global_memory().free_bytes();
    *total = emulation::global_memory().space().bytes();
    return cudaSuccess;
  });
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  return call([&](Runtime& r) {
    *attributes = {};
    attributes->device = cudaInvalidDeviceId;
    const auto [start, bytes] = emulation::global_memory().allocation(reinterpret_cast<u64>(address));
    if (bytes == 0) {
      attributes->type = cudaMemoryTypeUnregistered;
      attributes->hostPointer = const_cast<void*>(address);
      return cudaSuccess;
    }
    attributes->type = cudaMemoryTypeDevice;
    attributes->device = r.device_of[start];
    attributes->devicePointer = const_cast<void*>(address);
    return cudaSuccess;
  });
}

// -- devices

cudaError_t cudaGetDeviceCount(int* count) {
  const std::lock_guard lock(runtime().mutex);
  if (runtime().devices.empty()) return remember(cudaErrorNoDevice);
  *count = static_cast<int>(runtime().devices.size());
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* number) {
  return call([&](Runtime&) {
    *number = current_device;
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int number) {
  return call([&](Runtime& r) {
    if (number < 0 || static_cast<std::size_t>(number) >= r.devices.size()) return cudaErrorInvalidDevice;
    current_device = number;
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceSynchronize() {
  return call_uncaptured([](Runtime&) { return cudaSuccess; });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int number) {
  return call([&](Runtime& r) {
    if (number < 0 || static_cast<std::size_t>(number) >= r.devices.size()) return cudaErrorInvalidDevice;
    const Device& d = r.devices[static_cast<std::size_t>(number)];
    const std::map<cudaDeviceAttr, u32> attributes = {
        {cudaDevAttrComputeCapabilityMajor, d.capability / 10},
        {cudaDevAttrComputeCapabilityMinor, d.capability % 10},
        {cudaDevAttrMultiProcessorCount, d.multiprocessors},
        {cudaDevAttrMaxSharedMemoryPerBlock, d.shared_per_block},
        {cudaDevAttrMaxSharedMemoryPerBlockOptin, d.shared_per_block_optin},
        {cudaDevAttrMaxSharedMemoryPerMultiprocessor, d.shared_per_multiprocessor},
        {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
        {cudaDevAttrMaxThreadsPerMultiProcessor, d.threads_per_multiprocessor},
        {cudaDevAttrMaxRegistersPerBlock, 65536},
        {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
        {cudaDevAttrMaxThreadsPerBlock, 1024},
        {cudaDevAttrMaxGridDimX, 0x7fffffff},
        {cudaDevAttrMaxGridDimY, 65535},
        {cudaDevAttrMaxGridDimZ, 65535},
        {cudaDevAttrWarpSize, 32},
        {cudaDevAttrL2CacheSize, d.l2_bytes},
    };
    const auto found = attributes.find(attribute);
    if (found == attributes.end()) return cudaErrorInvalidValue;
    *value = static_cast<int>(found->second);
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int number) {
  return call([&](Runtime& r) {
    if (number < 0 || static_cast<std::size_t>(number) >= r.devices.size()) return cudaErrorInvalidDevice;
    const Device& d = r.devices[static_cast<std::size_t>(number)];
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "Emulated %s", d.name);
    properties->major = static_cast<int>(d.capability / 10);
    properties->minor = static_cast<int>(d.capability % 10);
    properties->multiProcessorCount = static_cast<int>(d.multiprocessors);
    properties->totalGlobalMem = emulation::global_memory().space().bytes();
    properties->sharedMemPerBlock = d.shared_per_block;
    properties->sharedMemPerBlockOptin = d.shared_per_block_optin;
    properties->sharedMemPerMultiprocessor = d.shared_per_multiprocessor;
    properties->reservedSharedMemPerBlock = 1024;
    properties->regsPerBlock = properties->regsPerMultiprocessor = 65536;
    properties->maxThreadsPerBlock = 1024;
    properties->maxThreadsPerMultiProcessor = static_cast<int>(d.threads_per_multiprocessor);
    properties->l2CacheSize = static_cast<int>(d.l2_bytes);
    properties->warpSize = 32;
    const int threads[] = {1024, 1024, 64}, grid[] = {0x7fffffff, 65535, 65535};
    std::copy_n(threads, 3, properties->maxThreadsDim);
    std::copy_n(grid, 3, properties->maxGridSize);
    return cudaSuccess;
  });
}
cudaError_t cudaDriverGetVersion(int* version) {
  const std::lock_guard lock(runtime().mutex);
  *version = runtime().devices.empty() ? 0 : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

// -- streams, events, graphs

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  return call([&](Runtime& r) {
    *stream = new CUstream_st{current_device, 0, nullptr, false};
    r.streams.insert(*stream);
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return call([&](Runtime& r) {
    if (r.streams.erase(stream) == 0) return cudaErrorInvalidResourceHandle;
    delete stream->capturing;
    delete stream;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return call_on_stream(stream, [](Runtime&, CUstream_st& s) {
    if (!s.capturing) return cudaSuccess;
    s.invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  });
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  return cudaStreamSynchronize(stream);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return call_on_stream(stream, [&](Runtime& r, CUstream_st&) {
    return r.events.count(event) ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* number) {
  return call_on_stream(stream, [&](Runtime& r, CUstream_st& s) {
    *number = &s == &r.default_stream ? current_device : s.device;
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return call([&](Runtime& r) {
    *event = new CUevent_st{current_device, false};
    r.events.insert(*event);
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return call([&](Runtime& r) {
    if (r.events.erase(event) == 0) return cudaErrorInvalidResourceHandle;
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call_on_stream(stream, [&](Runtime& r, CUstream_st& s) {
    if (r.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (&s != &r.default_stream && s.device != event->device) return cudaErrorInvalidResourceHandle;
    event->recorded = true;
    return cudaSuccess;
  });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call_uncaptured(
      [&](Runtime& r) { return r.events.count(event) ? cudaSuccess : cudaErrorInvalidResourceHandle; });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return cudaEventSynchronize(event);
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call([&](Runtime& r) {
    if (r.events.count(start) == 0 || r.events.count(end) == 0 || !start->recorded || !end->recorded) {
      return cudaErrorInvalidResourceHandle;
    }
    *milliseconds = 0;  // an emulated device has no time
    return cudaSuccess;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  return call([&](Runtime& r) {
    CUstream_st* s = find_stream(r, stream);
    if (s == nullptr) return cudaErrorInvalidResourceHandle;
    if (s == &r.default_stream) return cudaErrorStreamCaptureUnsupported;
    if (s->capturing) return cudaErrorIllegalState;
    s->capturing = new CUgraph_st;
    s->invalid = false;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call([&](Runtime& r) {
    CUstream_st* s = find_stream(r, stream);
    if (s == nullptr) return cudaErrorInvalidResourceHandle;
    if (s->capturing == nullptr) return cudaErrorIllegalState;
    *graph = std::exchange(s->capturing, nullptr);
    if (!s->invalid) return cudaSuccess;
    delete std::exchange(*graph, nullptr);
    return cudaErrorStreamCaptureInvalidated;
  });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return call([&](Runtime& r) {
    const CUstream_st* s = find_stream(r, stream);
    if (s == nullptr) return cudaErrorInvalidResourceHandle;
    *status = s->capturing == nullptr ? cudaStreamCaptureStatusNone
              : s->invalid            ? cudaStreamCaptureStatusInvalidated
                                      : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return call([&](Runtime&) {
    *executable = new CUgraphExec_st{*graph};
    return cudaSuccess;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return call_on_stream(stream, [&](Runtime& r, CUstream_st& s) {
    for (const CUgraph_st::Node& node : executable->graph.nodes) {
      const cudaError_t error = node.launch.kernel ? execute(r, node.launch, s)
                                                   : fill(node.memset_target, node.memset_value, node.memset_bytes);
      if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

// -- errors

cudaError_t cudaGetLastError() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().sticky != cudaSuccess ? runtime().sticky : std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaPeekAtLastError() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().sticky != cudaSuccess ? runtime().sticky : last_error;
}

#define EACH_ERROR(X)                                                                             \
  X(cudaSuccess, "no error")                                                                      \
  X(cudaErrorInvalidValue, "invalid argument")                                                    \
  X(cudaErrorMemoryAllocation, "out of memory")                                                   \
  X(cudaErrorInvalidConfiguration, "invalid configuration argument")                              \
  X(cudaErrorInvalidSymbol, "invalid device symbol")                                              \
  X(cudaErrorInvalidDeviceFunction, "invalid device function")                                    \
  X(cudaErrorNoDevice, "no CUDA-capable device is detected")                                      \
  X(cudaErrorInvalidDevice, "invalid device ordinal")                                             \
  X(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device")  \
  X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                    \
  X(cudaErrorIllegalState, "the operation cannot be performed in the present state")              \
  X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                          \
  X(cudaErrorLaunchOutOfResources, "too many resources requested for launch")                     \
  X(cudaErrorAssert, "device-side assert triggered")                                              \
  X(cudaErrorMisalignedAddress, "misaligned address")                                             \
  X(cudaErrorLaunchFailure, "unspecified launch failure")                                         \
  X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")        \
  X(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture") \
  X(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream")

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define X(code, text) \
  case code:          \
    return #code;
    EACH_ERROR(X)
#undef X
    default:
      return "unrecognized error code";
  }
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
#define X(code, text) \
  case code:          \
    return text;
    EACH_ERROR(X)
#undef X
    default:
      return "unrecognized error code";
  }
}

// -- beyond the CUDA runtime

const char* cuda_emulation_take_defect() {
  Runtime& r = runtime();
  const std::lock_guard lock(r.mutex);
  r.taken = std::exchange(r.defect, {});
  r.sticky = last_error = cudaSuccess;
  return r.taken.c_str();
}
int cuda_emulation_set_schedule(const char* schedule) {
  const std::lock_guard lock(runtime().mutex);
  return runtime().set_schedule(schedule) ? 0 : -1;
}
int cuda_emulation_set_devices(const char* devices) {
  const std::lock_guard lock(runtime().mutex);
  std::vector<Device> list;
  if (!parse_devices(devices, list)) return -1;
  runtime().devices = list;
  current_device = 0;
  return 0;
}
void* cuda_emulation_host_view(const void* address) {
  u64 offset = 0;
  const std::lock_guard lock(runtime().mutex);
  return device_range(address, 1, offset) ? emulation::global_memory().space().data(offset) : nullptr;
}
void cuda_emulation_mark_initialised(const void* address, std::size_t bytes) {
  u64 offset = 0;
  const std::lock_guard lock(runtime().mutex);
  if (device_range(address, bytes, offset)) emulation::global_memory().space().initialise(offset, bytes);
}
int cuda_emulation_is_initialised(const void* address, std::size_t bytes) {
  u64 offset = 0;
  const std::lock_guard lock(runtime().mutex);
  return device_range(address, bytes, offset) && emulation::global_memory().space().initialised(offset, bytes);
}
void cuda_emulation_write_report() {
  const std::lock_guard lock(runtime().mutex);
  if (const emulation::Statistics* statistics = emulation::Statistics::active()) statistics->write();
}
void cuda_emulation_count() {
  const std::lock_guard lock(runtime().mutex);
  emulation::Statistics::start();
}
unsigned long long cuda_emulation_sectors(const void* allocation) {
  const std::lock_guard lock(runtime().mutex);
  const emulation::Statistics* statistics = emulation::Statistics::active();
  return statistics ? statistics->sectors(reinterpret_cast<emulation::u64>(allocation)) : 0;
}
unsigned long long cuda_emulation_wavefronts(unsigned long long* ideal) {
  const std::lock_guard lock(runtime().mutex);
  const emulation::Statistics* statistics = emulation::Statistics::active();
  const auto [moved, least] = statistics ? statistics->wavefronts() : std::pair<emulation::u64, emulation::u64>{};
  *ideal = least;
  return moved;
}
std::size_t cuda_emulation_allocations() {
  const std::lock_guard lock(runtime().mutex);
  return runtime().device_of.size();
}
std::size_t cuda_emulation_launches(void* stream) {
  Runtime& r = runtime();
  const std::lock_guard lock(r.mutex);
  const CUstream_st* s = find_stream(r, static_cast<cudaStream_t>(stream));
  return s ? s->launches : 0;
}

}  // extern "C"
