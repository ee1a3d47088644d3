// Launching kernels: on the caller's stream, nothing allocated, nothing waited for, every launch checked.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "plan.hpp"

namespace leancore::detail::cuda {

// What every launch of a call needs beside its plan.
struct Call {
  const Arguments& arguments;
  void* workspace;
  cudaStream_t stream;
};

// More than this of dynamic shared memory a kernel must ask for.
inline constexpr std::uint32_t shared_bytes_unasked = 48 * 1024;

// The error is that of this launch, whatever errors other code has left behind.
template <typename... Parameters>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   std::type_identity_t<Parameters>... parameters) {
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shape.shared_bytes > shared_bytes_unasked) {
    const cudaError_t error = cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                   static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
  }
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&parameters))...};
  return cudaLaunchKernel(function, dim3(shape.grid[0], shape.grid[1], shape.grid[2]), dim3(shape.block), pointers,
                          shape.shared_bytes, stream);
}

// Calls visit(e) with a value of the element type as CUDA has it.
template <typename Visit>
auto with_element(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::f64:
      return visit(double{});
    case DType::f16:
      return visit(__half{});
    case DType::bf16:
      return visit(__nv_bfloat16{});
    case DType::f32:
      break;
  }
  return visit(float{});
}

// Calls visit(std::integral_constant<int, bytes>) for what a tile of elements T copies at a time: 16 bytes, 4, or of
// 16-bit elements 2.
template <typename T, typename Visit>
cudaError_t with_copy_bytes(int bytes, Visit visit) {
  if (bytes == 16) return visit(std::integral_constant<int, 16>{});
  if constexpr (sizeof(T) == 2) {
    if (bytes == 2) return visit(std::integral_constant<int, 2>{});
  }
  return visit(std::integral_constant<int, 4>{});
}

// One for each alternative of Plan::steps that launches something; each is defined beside its kernels.
cudaError_t run(const ApplyPlan& plan, DType dtype, const Call& call);
cudaError_t run(const WeightPlan& plan, DType dtype, const Call& call);
cudaError_t run(const RowsPlan& plan, DType dtype, const Call& call);
cudaError_t run(const DeepPlan& plan, DType dtype, const Call& call);
cudaError_t run(const RowsWeightPlan& plan, DType dtype, const Call& call);

// dalpha and dc from the partial results in the workspace.
cudaError_t add_partials(const ReduceParameters& parameters, const LaunchShape& shape, DType dtype, const Call& call);

}  // namespace leancore::detail::cuda
