// Where the row-marching kernels are instantiated.
#pragma once

#include <cuda_runtime.h>

#include "plan.hpp"

namespace leancore::detail::cuda {

// rows_fma.cu
cudaError_t launch_fma(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream);

}  // namespace leancore::detail::cuda
