// The launch of a tile for one 16-bit type; included by a file for each type, so that they compile side by side.
#pragma once

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"
#include "rows_tensor.cuh"

namespace leancore::detail::cuda {

template <typename T, typename Tile>
cudaError_t launch_tensor_tile(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  switch (plan.copy_bytes) {
    case 16:
      return launch(rows_tensor<T, Tile, 16>, plan.launch, stream, parameters);
    case 4:
      return launch(rows_tensor<T, Tile, 4>, plan.launch, stream, parameters);
    default:
      return launch(rows_tensor<T, Tile, 2>, plan.launch, stream, parameters);
  }
}

template <typename T>
cudaError_t launch_tensor(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  const char* name = rows_tiles[plan.tile].name;
#define LEANCORE_ROWS_TENSOR(tile, ...)                                                      \
  if (std::strcmp(name, #tile) == 0) {                                                       \
    using Tile = TensorTile<__VA_ARGS__>;                                                    \
    if constexpr (Tile::takes_volumes) {                                                     \
      if (plan.volume) return launch_tensor_tile<T, Volume<Tile>>(plan, parameters, stream); \
    }                                                                                        \
    return launch_tensor_tile<T, Tile>(plan, parameters, stream);                            \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
