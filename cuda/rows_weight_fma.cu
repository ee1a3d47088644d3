#include "rows_weight_fma.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {

cudaError_t launch_weight_fma(const RowsWeightPlan& plan, const RowsWeightParameters& parameters, cudaStream_t stream) {
  const char* name = weight_tiles[plan.tile].name;
#define LEANCORE_ROWS_WEIGHT_FMA(tile, ...)                                                           \
  if (std::strcmp(name, #tile) == 0) {                                                                \
    using Tile = WeightFmaTile<__VA_ARGS__>;                                                          \
    return plan.copy_bytes == 16 ? launch(rows_weight_fma<Tile, 16>, plan.launch, stream, parameters) \
                                 : launch(rows_weight_fma<Tile, 4>, plan.launch, stream, parameters); \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
