#include "rows_weight_fma.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {
namespace {

template <typename Tile>
cudaError_t launch_tile(const RowsWeightPlan& plan, const RowsWeightParameters& parameters, cudaStream_t stream) {
  return with_copy_bytes<float>(plan.copy_bytes, [&](auto bytes) {
    return launch(rows_weight_fma<Tile, bytes.value>, plan.launch, stream, parameters);
  });
}

}  // namespace

cudaError_t launch_weight_fma(const RowsWeightPlan& plan, const RowsWeightParameters& parameters, cudaStream_t stream) {
  const char* name = weight_tiles[plan.tile].name;
#define LEANCORE_ROWS_WEIGHT_FMA(tile, ...)                                  \
  if (std::strcmp(name, #tile) == 0) {                                       \
    using Tile = WeightFmaTile<__VA_ARGS__>;                                 \
    return plan.volume ? launch_tile<Volume<Tile>>(plan, parameters, stream) \
                       : launch_tile<Tile>(plan, parameters, stream);        \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
