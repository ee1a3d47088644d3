// Where the tiled kernels are instantiated.
#pragma once

#include <cuda_runtime.h>

#include "plan.hpp"

namespace leancore::detail::cuda {

// rows_fma.cu, rows_tf32.cu, rows_tensor_f16.cu, rows_tensor_bf16.cu
cudaError_t launch_fma(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream);
cudaError_t launch_tf32(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream);
cudaError_t launch_tensor_f16(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream);
cudaError_t launch_tensor_bf16(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream);

// rows_last.cu, rows_last_tf32.cu
cudaError_t launch_last(const RowsPlan& plan, DType dtype, const RowsParameters& parameters, cudaStream_t stream);
cudaError_t launch_last_tf32(const RowsPlan& plan, const RowsParameters& parameters, cudaStream_t stream);

// deep_f16.cu, deep_bf16.cu, deep_tf32.cu
cudaError_t launch_deep_f16(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream);
cudaError_t launch_deep_bf16(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream);
cudaError_t launch_deep_tf32(const DeepPlan& plan, const DeepParameters& parameters, cudaStream_t stream);

// rows_weight.cu
cudaError_t launch_rows_weight(const RowsWeightPlan& plan, DType dtype, const RowsWeightParameters& parameters,
                               cudaStream_t stream);

// rows_weight_last.cu
cudaError_t launch_weight_last(const RowsWeightPlan& plan, DType dtype, const RowsWeightParameters& parameters,
                               cudaStream_t stream);

// rows_weight_fma.cu, rows_weight_fma_last.cu
cudaError_t launch_weight_fma(const RowsWeightPlan& plan, const RowsWeightParameters& parameters, cudaStream_t stream);
cudaError_t launch_weight_fma_last(const RowsWeightPlan& plan, const RowsWeightParameters& parameters,
                                   cudaStream_t stream);

}  // namespace leancore::detail::cuda
