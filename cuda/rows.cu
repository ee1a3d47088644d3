// Launches of the row-marching kernels, whose instances are compiled in files of their own.
#include "rows_kernels.hpp"

#include "launch.cuh"

namespace leancore::detail::cuda {

cudaError_t run(const RowsPlan& plan, DType, const Call& call) {
  const Arguments& a = call.arguments;
  RowsParameters parameters = plan.parameters;
  parameters.in = plan.adjoint ? a.dy : a.x;
  parameters.alpha = a.alpha;
  parameters.c = a.c;
  parameters.bias = plan.adjoint ? nullptr : a.bias;
  parameters.out = plan.adjoint ? a.dx : a.y;
  return launch_fma(plan, parameters, call.stream);
}

}  // namespace leancore::detail::cuda
