#include "rows_last_tf32.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {

cudaError_t launch_last_tf32(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  const char* name = rows_tiles[plan.tile].name;
#define LEANCORE_ROWS_LAST_TF32(tile, ...)                                                     \
  if (std::strcmp(name, #tile) == 0) {                                                         \
    using Tile = LastTf32Tile<__VA_ARGS__>;                                                    \
    return plan.volume ? launch(rows_last_tf32<Volume<Tile>>, plan.launch, stream, parameters) \
                       : launch(rows_last_tf32<Tile>, plan.launch, stream, parameters);        \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
