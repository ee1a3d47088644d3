// Launches of the row-marching kernels, whose instances are compiled in files of their own.
#include "launch.cuh"
#include "rows_kernels.hpp"
#include "tiles.hpp"

namespace leancore::detail::cuda {

cudaError_t run(const RowsPlan& plan, DType dtype, const Call& call) {
  const Arguments& a = call.arguments;
  RowsParameters parameters = plan.parameters;
  parameters.in.data = plan.adjoint ? a.dy : a.x;
  parameters.out.data = plan.adjoint ? a.dx : a.y;
  parameters.alpha = a.alpha;
  parameters.c = a.c;
  parameters.bias = plan.adjoint ? nullptr : a.bias;
  switch (rows_tiles[plan.tile].kind) {
    case RowsKind::fma:
      return launch_fma(plan, parameters, call.stream);
    case RowsKind::last:
      return launch_last(plan, dtype, parameters, call.stream);
    case RowsKind::tensor:
      break;
  }
  return dtype == DType::f16 ? launch_tensor_f16(plan, parameters, call.stream)
                             : launch_tensor_bf16(plan, parameters, call.stream);
}

cudaError_t run(const RowsWeightPlan& plan, DType dtype, const Call& call) {
  RowsWeightParameters parameters = plan.parameters;
  parameters.x.data = call.arguments.x;
  parameters.dy.data = call.arguments.dy;
  parameters.partials = static_cast<float*>(call.workspace);
  const auto launch_kind = [&] {
    switch (weight_tiles[plan.tile].kind) {
      case WeightKind::fma:
        return launch_weight_fma(plan, parameters, call.stream);
      case WeightKind::fma_last:
        return launch_weight_fma_last(plan, parameters, call.stream);
      case WeightKind::last:
        return launch_weight_last(plan, dtype, parameters, call.stream);
      case WeightKind::tensor:
        break;
    }
    return launch_rows_weight(plan, dtype, parameters, call.stream);
  };
  const cudaError_t error = launch_kind();
  return error == cudaSuccess ? add_partials(plan.reduce, plan.reduction, dtype, call) : error;
}

}  // namespace leancore::detail::cuda
