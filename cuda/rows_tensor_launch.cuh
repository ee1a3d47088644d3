// The launch of a tile for one 16-bit type; included by a file for each type, so that they compile side by side.
#pragma once

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"
#include "rows_tensor.cuh"

namespace leancore::detail::cuda {

template <typename T, typename Tile>
cudaError_t launch_tensor_tile(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  return with_copy_bytes<T>(plan.copy_bytes, [&](auto bytes) {
    return launch(rows_tensor<T, Tile, bytes.value>, plan.launch, stream, parameters);
  });
}

template <typename T>
cudaError_t launch_tensor(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  const char* name = rows_tiles[plan.tile].name;
#define LEANCORE_ROWS_TENSOR(tile, ...)                                                                    \
  if (std::strcmp(name, #tile) == 0) {                                                                     \
    using Tile = TensorTile<__VA_ARGS__>;                                                                  \
    return plan.volume ? launch_tensor_tile<T, Volume<typename Tile::InVolumes>>(plan, parameters, stream) \
                       : launch_tensor_tile<T, Tile>(plan, parameters, stream);                            \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
