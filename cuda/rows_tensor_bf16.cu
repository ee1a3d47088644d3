#include "rows_tensor_launch.cuh"

namespace leancore::detail::cuda {

cudaError_t launch_tensor_bf16(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  return launch_tensor<__nv_bfloat16>(plan, parameters, stream);
}

}  // namespace leancore::detail::cuda
