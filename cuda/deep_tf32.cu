#include <cstring>

#include "deep_last_tf32.cuh"
#include "deep_rows_tf32.cuh"
#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {

cudaError_t launch_deep_tf32(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream) {
  const char* name = deep_tiles[plan.tile].name;
#define LEANCORE_DEEP_TF32(tile, ...)                                                                  \
  if (std::strcmp(name, #tile) == 0) {                                                                 \
    using Tile = DeepTf32Tile<__VA_ARGS__>;                                                            \
    if (plan.pack.channels_last) return launch(deep_last_tf32<Tile>, plan.launch, stream, parameters); \
    return with_copy_bytes<float>(plan.copy_bytes, [&](auto bytes) {                                   \
      return launch(deep_rows_tf32<Tile, bytes.value>, plan.launch, stream, parameters);               \
    });                                                                                                \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
