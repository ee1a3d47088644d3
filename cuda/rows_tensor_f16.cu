#include "rows_tensor_launch.cuh"

namespace leancore::detail::cuda {

cudaError_t launch_tensor_f16(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  return launch_tensor<__half>(plan, parameters, stream);
}

}  // namespace leancore::detail::cuda
