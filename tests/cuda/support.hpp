// Shared by the CUDA tests: the arrays of a problem in device memory, and calls on them.
#pragma once

#include <cuda_runtime.h>

#include <memory>

#include "../cpp/support.hpp"

namespace test {

#define REQUIRE_CUDA(call)                                                                           \
  do {                                                                                               \
    if (const cudaError_t error = (call); error != cudaSuccess) {                                    \
      std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error)); \
      std::exit(1);                                                                                  \
    }                                                                                                \
  } while (0)

// Exits with the status that CTest takes for "skipped" where there is no device.
inline void require_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return;
  std::printf("skipped: %s\n", leancore::cuda_status());
  std::exit(77);
}

class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) {
    if (bytes > 0) REQUIRE_CUDA(cudaMalloc(&data_, bytes));
  }
  ~DeviceMemory() { cudaFree(data_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  [[nodiscard]] char* data() const { return static_cast<char*>(data_); }

 private:
  void* data_ = nullptr;
};

// A copy in device memory of the bytes that a host array spans, `shift` elements away from an aligned address.
template <typename T>
class DeviceCopy {
 public:
  DeviceCopy(const Array<T>& host, std::int64_t shift)
      : host_(host), shift_(static_cast<std::size_t>(shift) * sizeof(T)), memory_(host.span_bytes() + shift_) {
    upload();
  }
  [[nodiscard]] T* origin() const {
    if (host_.origin() == nullptr) return nullptr;
    return reinterpret_cast<T*>(memory_.data() + shift_ +
                                (reinterpret_cast<const char*>(host_.origin()) - host_.raw()));
  }
  [[nodiscard]] std::size_t bytes() const { return host_.span_bytes(); }
  void upload() const {
    if (host_.span_bytes() == 0) return;
    REQUIRE_CUDA(cudaMemcpy(memory_.data() + shift_, host_.raw(), host_.span_bytes(), cudaMemcpyHostToDevice));
  }
  void download() const {
    if (host_.span_bytes() == 0) return;
    REQUIRE_CUDA(cudaMemcpy(const_cast<char*>(host_.raw()), memory_.data() + shift_, host_.span_bytes(),
                            cudaMemcpyDeviceToHost));
  }

 private:
  const Array<T>& host_;
  std::size_t shift_;
  DeviceMemory memory_;
};

inline leancore::Context on_device(const char* implementation) {
  leancore::Context context = forced(implementation);
  context.device = {leancore::DeviceType::cuda, 0};
  return context;
}

// All arrays of a problem on the device, at the same distance from aligned addresses.
template <typename T>
struct DeviceArrays {
  DeviceCopy<T> x, y, alpha, c, bias;
  DeviceArrays(const Arrays<T>& host, std::int64_t shift)
      : x(host.x, shift), y(host.y, shift), alpha(host.alpha, shift), c(host.c, shift), bias(host.bias, shift) {}
};

// The arguments of any operation; all gradients are wanted.
template <typename T>
leancore::detail::Arguments arguments_of(const DeviceArrays<T>& in, const DeviceArrays<T>& out) {
  leancore::detail::Arguments a;
  a.x = in.x.origin();
  a.dy = in.y.origin();
  a.alpha = in.alpha.origin();
  a.c = in.c.origin();
  a.bias = in.bias.origin();
  a.y = out.y.origin();
  a.dx = out.x.origin();
  a.dalpha = out.alpha.origin();
  a.dc = out.c.origin();
  return a;
}

// Starts a call.
template <typename T>
leancore::Status start(leancore::Operation operation, const leancore::ConvDesc& d, const DeviceArrays<T>& in,
                       const DeviceArrays<T>& out, bool with_bias, int unwanted, const leancore::Context& context) {
  const auto gradient = [&](const DeviceCopy<T>& copy, Gradient which) {
    return unwanted & which ? nullptr : copy.origin();
  };
  switch (operation) {
    case leancore::Operation::forward:
      return forward(d, in.x.origin(), in.alpha.origin(), in.c.origin(), with_bias ? in.bias.origin() : nullptr,
                     out.y.origin(), context);
    case leancore::Operation::backward_data:
      return backward_data(d, in.y.origin(), in.alpha.origin(), in.c.origin(), out.x.origin(), context);
    case leancore::Operation::backward_weight:
      return backward_weight(d, in.x.origin(), in.y.origin(), gradient(out.alpha, dalpha), gradient(out.c, dc),
                             context);
    case leancore::Operation::backward:
      return backward(d, in.x.origin(), in.y.origin(), in.alpha.origin(), in.c.origin(), gradient(out.x, dx),
                      gradient(out.alpha, dalpha), gradient(out.c, dc), context);
  }
  std::abort();
}

// What an operation writes, computed on the device with a workspace of exactly the size that is asked for; what it does
// not write is NaN.
template <typename T>
std::vector<T> compute_on_device(leancore::Operation operation, const leancore::ConvDesc& d, const Arrays<T>& in,
                                 bool with_bias, leancore::Context context, int unwanted = 0, std::int64_t shift = 0) {
  Outputs<T> host(operation, d, GuardedMemory::Flush::to_end, unwanted);
  const DeviceArrays<T> from(in, shift), out(host, shift);
  leancore::check(workspace_bytes(operation, d, context, context.workspace_bytes));
  const DeviceMemory workspace(context.workspace_bytes);
  context.workspace = workspace.data();
  leancore::check(start(operation, d, from, out, with_bias, unwanted, context));
  REQUIRE_CUDA(cudaDeviceSynchronize());
  for (const DeviceCopy<T>* copy : {&out.x, &out.y, &out.alpha, &out.c}) copy->download();
  return host.values();
}

// Bits do not matter, only which values are NaN, which are infinite and what the others are.
template <typename T>
bool same_value(T a, T b) {
  const auto left = static_cast<double>(a), right = static_cast<double>(b);
  return std::isnan(left) ? std::isnan(right) : left == right;
}

// Names of the CUDA implementations that take a call, a combined backward as two; the generic one is last.
inline std::vector<const char*> cuda_implementations(leancore::Operation operation, const leancore::ConvDesc& d) {
  std::vector<const char*> names;
  for (const leancore::detail::Implementation* candidate : leancore::detail::cuda_implementations()) {
    if (operation == leancore::Operation::backward || candidate->supports(operation, d)) {
      names.push_back(candidate->name);
    }
  }
  return names;
}

}  // namespace test
