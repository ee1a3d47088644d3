#include "rows_last.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {
namespace {

template <typename Tile>
cudaError_t launch_tile(const RowsPlan& plan, DType dtype, const RowsParameters& parameters, cudaStream_t stream) {
  return dtype == DType::f16 ? launch(rows_last<__half, Tile>, plan.launch, stream, parameters)
                             : launch(rows_last<__nv_bfloat16, Tile>, plan.launch, stream, parameters);
}

}  // namespace

cudaError_t launch_last(const RowsPlan& plan, DType dtype, const RowsParameters& parameters, cudaStream_t stream) {
  const char* name = rows_tiles[plan.tile].name;
#define LEANCORE_ROWS_LAST(tile, ...)                                               \
  if (std::strcmp(name, #tile) == 0) {                                              \
    using Tile = LastTile<__VA_ARGS__>;                                             \
    return plan.volume ? launch_tile<Volume<Tile>>(plan, dtype, parameters, stream) \
                       : launch_tile<Tile>(plan, dtype, parameters, stream);        \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
