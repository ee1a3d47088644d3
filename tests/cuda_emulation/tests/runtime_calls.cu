// The stand-in for the CUDA runtime: what it grants and what it refuses, as the real one.
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include "support.cuh"

namespace {

__global__ void fill(int* x, int value) {
  x[blockIdx.x * blockDim.x + threadIdx.x] = value;
}
__global__ void __launch_bounds__(64) small_blocks(int* x) {
  x[threadIdx.x] = 1;
}
__global__ void dynamic_shared(int* x) {
  extern __shared__ int memory[];
  memory[threadIdx.x] = 3;
  x[threadIdx.x] = memory[threadIdx.x];
}

void expect(cudaError_t expected, const char* what) {
  const cudaError_t error = cudaGetLastError();
  CHECK(error == expected, "%s: %s, expected %s", what, cudaGetErrorName(error), cudaGetErrorName(expected));
  CHECK(cudaGetLastError() == cudaSuccess, "%s: an error of a call is reported once", what);
}

void test_launch_limits() {
  test::DeviceArray<int> x(4096);
  fill<<<4, 1024>>>(x.data(), 7);
  expect(cudaSuccess, "largest block");
  CHECK(x.values()[4095] == 7, "%d", x.values()[4095]);
  fill<<<1, 1025>>>(x.data(), 7);
  expect(cudaErrorInvalidConfiguration, "too many threads");
  fill<<<1, dim3(1, 1, 65)>>>(x.data(), 7);
  expect(cudaErrorInvalidConfiguration, "too deep a block");
  fill<<<0, 32>>>(x.data(), 7);
  expect(cudaErrorInvalidConfiguration, "no blocks");
  fill<<<dim3(1, 65536), 32>>>(x.data(), 7);
  expect(cudaErrorInvalidConfiguration, "too high a grid");
  small_blocks<<<1, 64>>>(x.data());
  expect(cudaSuccess, "launch bounds");
  small_blocks<<<1, 65>>>(x.data());
  expect(cudaErrorLaunchOutOfResources, "beyond launch bounds");
}

void test_shared_limits() {
  struct Limit {
    const char* device;
    int optin;
  };
  for (const Limit limit : {Limit{"sm_80", 163 * 1024}, Limit{"sm_86", 99 * 1024}, Limit{"sm_90", 227 * 1024}}) {
    CHECK(cuda_emulation_set_devices(limit.device) == 0, "%s", limit.device);
    int optin = 0;
    CHECK_CUDA(cudaDeviceGetAttribute(&optin, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    CHECK(optin == limit.optin, "%s: %d", limit.device, optin);
    CHECK(cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, optin + 1) ==
              cudaErrorInvalidValue,
          "%s", limit.device);
    expect(cudaErrorInvalidValue, "more shared memory than there is");
    CHECK_CUDA(cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, optin));
    test::DeviceArray<int> x(32);
    dynamic_shared<<<1, 32, optin>>>(x.data());
    expect(cudaSuccess, "all shared memory");
    dynamic_shared<<<1, 32, optin + 1>>>(x.data());
    expect(cudaErrorInvalidValue, "more shared memory than was asked for");
    CHECK_CUDA(cudaFuncSetAttribute(dynamic_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 1024));
    dynamic_shared<<<1, 32, 2048>>>(x.data());
    expect(cudaErrorInvalidValue, "more shared memory than the attribute");
  }
  cuda_emulation_set_devices("sm_80");
}

void test_devices() {
  for (const char* wrong : {"sm_99", "sm_80:", "sm_80:x", "sm_80:0", "sm_80:7x", "sm_80:-1", ""}) {
    CHECK(cuda_emulation_set_devices(wrong) == -1, "'%s' is no device", wrong);
  }
  CHECK(cuda_emulation_set_devices("none") == 0, "no devices");
  int count = 77;
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice && count == 77, "%d", count);
  expect(cudaErrorNoDevice, "no device");
  void* nothing = nullptr;
  CHECK(cudaMalloc(&nothing, 4) == cudaErrorNoDevice, "no device");
  expect(cudaErrorNoDevice, "no device");

  // PTX of compute_80 does not run on 7.5.
  CHECK(cuda_emulation_set_devices("sm_75:7,sm_90") == 0, "two devices");
  CHECK_CUDA(cudaGetDeviceCount(&count));
  CHECK(count == 2, "%d", count);
  int multiprocessors = 0;
  CHECK_CUDA(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
  CHECK(multiprocessors == 7, "%d", multiprocessors);
  test::DeviceArray<int> x(32);
  fill<<<1, 32>>>(x.data(), 1);
  expect(cudaErrorNoKernelImageForDevice, "an old device");
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice, "a third device");
  expect(cudaErrorInvalidDevice, "a third device");

  cudaStream_t of_first = nullptr;
  CHECK_CUDA(cudaStreamCreate(&of_first));
  CHECK_CUDA(cudaSetDevice(1));
  cudaDeviceProp properties;
  CHECK_CUDA(cudaGetDeviceProperties(&properties, 1));
  CHECK(properties.major == 9 && properties.minor == 0 && properties.multiProcessorCount == 132, "%d.%d",
        properties.major, properties.minor);
  fill<<<1, 32>>>(x.data(), 5);
  expect(cudaSuccess, "a new device");
  fill<<<1, 32, 0, of_first>>>(x.data(), 5);
  expect(cudaErrorInvalidResourceHandle, "a stream of another device");
  CHECK_CUDA(cudaStreamDestroy(of_first));
  cuda_emulation_set_devices("sm_80");
}

void test_memory() {
  const std::size_t before = cuda_emulation_allocations();
  int* x = nullptr;
  CHECK_CUDA(cudaMalloc(&x, 100));
  CHECK(reinterpret_cast<std::uintptr_t>(x) % 256 == 0, "alignment of cudaMalloc");
  CHECK(cuda_emulation_allocations() == before + 1, "allocations");
  cudaPointerAttributes attributes;
  CHECK_CUDA(cudaPointerGetAttributes(&attributes, x + 3));
  CHECK(attributes.type == cudaMemoryTypeDevice && attributes.device == 0, "%d", attributes.type);
  int host = 5;
  CHECK_CUDA(cudaPointerGetAttributes(&attributes, &host));
  CHECK(attributes.type == cudaMemoryTypeUnregistered, "%d", attributes.type);

  CHECK(!cuda_emulation_is_initialised(x, 4), "fresh memory");
  CHECK_CUDA(cudaMemset(x, 0x11, 40));
  CHECK(cuda_emulation_is_initialised(x, 40) && !cuda_emulation_is_initialised(x, 41), "after a memset");
  CHECK_CUDA(cudaMemcpy(x + 15, x + 5, 40, cudaMemcpyDeviceToDevice));
  CHECK(cuda_emulation_is_initialised(x + 15, 20) && !cuda_emulation_is_initialised(x + 15, 21), "after a copy");
  CHECK_CUDA(cudaMemcpy(&host, x + 15, 4, cudaMemcpyDefault));
  CHECK(host == 0x11111111, "%x", host);
  CHECK(cudaMemcpy(x, &host, 4, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue, "the wrong direction");
  expect(cudaErrorInvalidValue, "the wrong direction");
  CHECK(cudaMemcpy(x + 24, &host, 8, cudaMemcpyHostToDevice) == cudaErrorInvalidValue, "past the end");
  expect(cudaErrorInvalidValue, "past the end");
  CHECK(cudaFree(x + 1) == cudaErrorInvalidValue, "the middle of an allocation");
  expect(cudaErrorInvalidValue, "the middle of an allocation");

  auto* view = static_cast<int*>(cuda_emulation_host_view(x + 2));
  CHECK(view != nullptr && *view == 0x11111111, "the host's view");
  CHECK(cuda_emulation_host_view(&host) == nullptr, "no device memory");

  // A device address is none for the host.
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    _exit(*reinterpret_cast<volatile int*>(x) == 0 ? 1 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV, "the host reads device memory: %d", status);

  CHECK_CUDA(cudaFree(x));
  CHECK(cudaFree(x) == cudaErrorInvalidValue, "freed twice");
  expect(cudaErrorInvalidValue, "freed twice");
  CHECK(cuda_emulation_allocations() == before, "allocations");
  fill<<<1, 1>>>(x, 1);
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress, "freed memory");
  CHECK(cudaMalloc(&x, 4) == cudaErrorIllegalAddress, "a failed kernel spoils every call");
  CHECK(std::string(cuda_emulation_take_defect()).starts_with("out of bounds"), "freed memory");
  void* huge = &host;
  CHECK(cudaMalloc(&huge, std::size_t{1} << 40) == cudaErrorMemoryAllocation && huge == nullptr, "a terabyte");
  expect(cudaErrorMemoryAllocation, "a terabyte");
}

void test_streams_and_events() {
  cudaStream_t stream = nullptr;
  cudaEvent_t start = nullptr, end = nullptr;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaEventCreate(&start));
  CHECK_CUDA(cudaEventCreateWithFlags(&end, cudaEventDisableTiming));
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, start, end) == cudaErrorInvalidResourceHandle, "events not recorded");
  expect(cudaErrorInvalidResourceHandle, "events not recorded");
  test::DeviceArray<int> x(32);
  CHECK_CUDA(cudaEventRecord(start, stream));
  fill<<<1, 32, 0, stream>>>(x.data(), 9);
  CHECK_CUDA(cudaEventRecord(end, stream));
  CHECK_CUDA(cudaStreamWaitEvent(stream, end, 0));
  CHECK_CUDA(cudaEventSynchronize(end));
  CHECK_CUDA(cudaEventElapsedTime(&milliseconds, start, end));
  CHECK(milliseconds == 0, "%g", milliseconds);
  CHECK(cuda_emulation_launches(stream) == 1, "launches on a stream");
  int host[32];
  CHECK_CUDA(cudaMemcpyAsync(host, x.data(), sizeof host, cudaMemcpyDeviceToHost, stream));
  CHECK_CUDA(cudaStreamSynchronize(stream));
  CHECK(host[31] == 9, "%d", host[31]);
  CHECK_CUDA(cudaStreamDestroy(stream));
  fill<<<1, 32, 0, stream>>>(x.data(), 9);
  expect(cudaErrorInvalidResourceHandle, "a destroyed stream");
  CHECK_CUDA(cudaEventDestroy(start));
  CHECK_CUDA(cudaEventDestroy(end));
}

void test_graphs() {
  cudaStream_t stream = nullptr;
  CHECK_CUDA(cudaStreamCreate(&stream));
  test::DeviceArray<int> x(64);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CHECK_CUDA(cudaMemsetAsync(x.data(), 0, 256, stream));
  fill<<<1, 32, 0, stream>>>(x.data(), 4);
  CHECK_CUDA(cudaGetLastError());
  CHECK(!cuda_emulation_is_initialised(x.data(), 4), "a captured kernel has not run");
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  for (int round = 0; round < 2; ++round) {
    CHECK_CUDA(cudaMemset(x.data(), 0xff, 256));
    CHECK_CUDA(cudaGraphLaunch(executable, stream));
    CHECK(x.values()[31] == 4 && x.values()[32] == 0, "round %d", round);
  }
  CHECK_CUDA(cudaGraphExecDestroy(executable));
  CHECK_CUDA(cudaGraphDestroy(graph));

  // What allocates or waits ends a capture.
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  void* more = nullptr;
  CHECK(cudaMalloc(&more, 4) == cudaErrorStreamCaptureUnsupported, "an allocation while capturing");
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CHECK_CUDA(cudaStreamIsCapturing(stream, &status));
  CHECK(status == cudaStreamCaptureStatusInvalidated, "%d", status);
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated && graph == nullptr,
        "a spoilt capture");
  expect(cudaErrorStreamCaptureInvalidated, "a spoilt capture");
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  CHECK(cudaStreamSynchronize(stream) == cudaErrorStreamCaptureUnsupported, "waiting while capturing");
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated, "a spoilt capture");
  expect(cudaErrorStreamCaptureInvalidated, "a spoilt capture");
  CHECK_CUDA(cudaStreamDestroy(stream));
}

}  // namespace

int main() {
  test_launch_limits();
  test_shared_limits();
  test_devices();
  test_memory();
  test_streams_and_events();
  test_graphs();
  CHECK(std::string(cudaGetErrorString(cudaErrorIllegalAddress)) == "an illegal memory access was encountered",
        "error text");
  return test::summary("runtime_calls");
}
