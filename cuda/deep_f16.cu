#include "deep_launch.cuh"

namespace leancore::detail::cuda {

cudaError_t launch_deep_f16(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream) {
  return launch_deep<__half>(plan, parameters, stream);
}

}  // namespace leancore::detail::cuda
