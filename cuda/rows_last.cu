#include "rows_last.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {

cudaError_t launch_last(const RowsPlan& plan, DType dtype, const RowsParameters& parameters, cudaStream_t stream) {
  const char* name = rows_tiles[plan.tile].name;
#define LEANCORE_ROWS_LAST(tile, ...)                                                                     \
  if (std::strcmp(name, #tile) == 0) {                                                                    \
    using Tile = LastTile<__VA_ARGS__>;                                                                   \
    return dtype == DType::f16 ? launch(rows_last<__half, Tile>, plan.launch, stream, parameters)         \
                               : launch(rows_last<__nv_bfloat16, Tile>, plan.launch, stream, parameters); \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
