#include "rows_weight.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {
namespace {

template <typename T, typename Tile>
cudaError_t launch_tile(const RowsWeightPlan& plan, const RowsWeightParameters& parameters, cudaStream_t stream) {
  return with_copy_bytes<T>(plan.copy_bytes, [&](auto bytes) {
    return launch(rows_weight<T, Tile, bytes.value>, plan.launch, stream, parameters);
  });
}

template <typename T>
cudaError_t launch_type(const RowsWeightPlan& plan, const RowsWeightParameters& parameters, cudaStream_t stream) {
  const char* name = weight_tiles[plan.tile].name;
#define LEANCORE_ROWS_WEIGHT(tile, ...)                                         \
  if (std::strcmp(name, #tile) == 0) {                                          \
    using Tile = WeightTile<__VA_ARGS__>;                                       \
    return plan.volume ? launch_tile<T, Volume<Tile>>(plan, parameters, stream) \
                       : launch_tile<T, Tile>(plan, parameters, stream);        \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_rows_weight(const RowsWeightPlan& plan, DType dtype, const RowsWeightParameters& parameters,
                               cudaStream_t stream) {
  return dtype == DType::f16 ? launch_type<__half>(plan, parameters, stream)
                             : launch_type<__nv_bfloat16>(plan, parameters, stream);
}

}  // namespace leancore::detail::cuda
