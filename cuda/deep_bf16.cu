#include "deep_launch.cuh"

namespace leancore::detail::cuda {

cudaError_t launch_deep_bf16(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream) {
  return launch_deep<__nv_bfloat16>(plan, parameters, stream);
}

}  // namespace leancore::detail::cuda
