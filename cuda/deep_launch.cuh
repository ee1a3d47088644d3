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
  switch (plan.copy_bytes) {
    case 16:
      return launch(deep_rows<T, Tile, 16>, plan.launch, stream, parameters);
    case 4:
      return launch(deep_rows<T, Tile, 4>, plan.launch, stream, parameters);
    default:
      return launch(deep_rows<T, Tile, 2>, plan.launch, stream, parameters);
  }
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
