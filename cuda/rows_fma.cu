#include "rows_fma.cuh"

#include <cstring>

#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {
namespace {

template <typename Tile>
cudaError_t launch_tile(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  return with_copy_bytes<float>(plan.copy_bytes, [&](auto bytes) {
    return launch(rows_fma<Tile, bytes.value>, plan.launch, stream, parameters);
  });
}

}  // namespace

cudaError_t launch_fma(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream) {
  const char* name = rows_tiles[plan.tile].name;
#define LEANCORE_ROWS_FMA(tile, ...)                                         \
  if (std::strcmp(name, #tile) == 0) {                                       \
    using Tile = FmaTile<__VA_ARGS__>;                                       \
    return plan.volume ? launch_tile<Volume<Tile>>(plan, parameters, stream) \
                       : launch_tile<Tile>(plan, parameters, stream);        \
  }
#include "kernels.def"
  return cudaErrorInvalidValue;
}

}  // namespace leancore::detail::cuda
