// The kernels of many channels: alpha is put in order first, into the workspace.
#include "deep.cuh"
#include "launch.cuh"
#include "rows_kernels.hpp"

namespace leancore::detail::cuda {

// A thread writes what one lane takes of 16 output and 16 input channels.
__global__ void __launch_bounds__(generic_threads) pack(const PackParameters p, const void* alpha, uint4* packed) {
  const std::int64_t index = std::int64_t{blockIdx.x} * generic_threads + threadIdx.x;
  const int lane = static_cast<int>(index % 32), g = lane / 4, t = lane % 4;
  const int input_blocks = (p.inputs + deep_step - 1) / deep_step * (deep_step / 16);
  const std::int64_t block = index / 32;
  const int first_output = static_cast<int>(block / input_blocks) * 16;
  const int first_input = static_cast<int>(block % input_blocks) * 16;
  if (first_output >= p.outputs) return;
  const auto weight = [&](int o, int k) {
    return o < p.outputs && k < p.inputs ? load_bits(alpha, o * p.alpha_out + k * p.alpha_in) : 0;
  };
  std::uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (p.channels_last) {  // b of two products; their columns as rows_last.cuh has them
      const int o = first_output + g / 2 * 4 + i / 2 * 2 + g % 2, k = first_input + i % 2 * 8 + 2 * t;
      words[i] = pair(weight(o, k), weight(o, k + 1));
    } else {  // a of one product, in the order of rows_tensor.cuh
      const int o = first_output + i % 2 * 8 + spread(g), k = first_input + i / 2 * 8 + t;
      words[i] = pair(weight(o, k), weight(o, k + 4));
    }
  }
  packed[index] = make_uint4(words[0], words[1], words[2], words[3]);
}

cudaError_t run(const DeepPlan& plan, DType dtype, const Call& call) {
  const Arguments& a = call.arguments;
  const cudaError_t error =
      launch(pack, plan.packing, call.stream, plan.pack, a.alpha, static_cast<uint4*>(call.workspace));
  if (error != cudaSuccess) return error;
  DeepParameters parameters = plan.parameters;
  parameters.in.data = plan.adjoint ? a.dy : a.x;
  parameters.out.data = plan.adjoint ? a.dx : a.y;
  parameters.alpha = call.workspace;
  parameters.c = a.c;
  parameters.bias = plan.adjoint ? nullptr : a.bias;
  return dtype == DType::f16 ? launch_deep_f16(plan, parameters, call.stream)
                             : launch_deep_bf16(plan, parameters, call.stream);
}

}  // namespace leancore::detail::cuda
