// As rows_tensor_launch.cuh.
#pragma once

#include <cstring>

#include "deep_last.cuh"
#include "deep_rows.cuh"
#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {

template <typename T, typename Tile>
cudaError_t launch_deep_tile(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream) {
  if (plan.pack.channels_last) return launch(deep_last<T, Tile>, plan.launch, stream, parameters);
  return with_copy_bytes<T>(plan.copy_bytes, [&](auto bytes) {
    return launch(deep_rows<T, Tile, bytes.value>, plan.launch, stream, parameters);
  });
}

template <typename T>
cudaError_t launch_deep(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream) {
  const char* name = deep_tiles[plan.tile].name;
#define LEANCORE_DEEP(tile, ...)                                                 \
  if (std::strcmp(name, #tile) == 0) {                                           \
    return launch_deep_tile<T, DeepTile<__VA_ARGS__>>(plan, parameters, stream); \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
