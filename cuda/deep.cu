// The kernels of many channels: alpha is put in order first, into the workspace.
#include "deep.cuh"
#include "launch.cuh"
#include "rows_kernels.hpp"
#include "tf32.cuh"

namespace leancore::detail::cuda {

// The block of 16 output channels and 32 bytes of input channels that a thread packs for one lane.
struct PackUnit {
  int lane, first_output, first_input;
  std::int64_t block;

  __device__ PackUnit(const PackParameters& p, int element) {
    const std::int64_t index = std::int64_t{blockIdx.x} * generic_threads + threadIdx.x;
    lane = static_cast<int>(index % 32);
    block = index / 32;
    first_output = static_cast<int>(block / p.input_blocks) * 16;
    first_input = static_cast<int>(block % p.input_blocks) * (32 / element);
  }
};

// A thread writes what one lane takes of 16 output and 16 input channels.
__global__ void __launch_bounds__(generic_threads) pack(const PackParameters p, const void* alpha, uint4* packed) {
  const PackUnit unit(p, 2);
  const int g = unit.lane / 4, t = unit.lane % 4, first_output = unit.first_output, first_input = unit.first_input;
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
  packed[unit.block * 32 + unit.lane] = make_uint4(words[0], words[1], words[2], words[3]);
}

// The same of fp32: 16 output and 8 input channels, once or in two parts.
__global__ void __launch_bounds__(generic_threads) pack_tf32(const PackParameters p, const void* alpha, uint4* packed) {
  const PackUnit unit(p, 4);
  const int g = unit.lane / 4, t = unit.lane % 4;
  if (unit.first_output >= p.outputs) return;
  std::uint32_t high[4], low[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool last = p.channels_last;  // as in rows_last_tf32.cuh, else as in rows_tf32.cuh
    const int o = unit.first_output + (last ? g / 2 * 4 + i / 2 * 2 + g % 2 : i % 2 * 8 + spread(g));
    const int k = unit.first_input + (last ? i % 2 : i / 2) * 4 + t;
    const bool exists = o < p.outputs && k < p.inputs;
    const float weight = exists ? static_cast<const float*>(alpha)[o * p.alpha_out + k * p.alpha_in] : 0.0f;
    const Tf32Pair parts = split_to_tf32(weight);
    high[i] = p.two_parts ? parts.high : round_to_tf32(weight);
    low[i] = parts.low;
  }
  uint4* to = packed + unit.block * (p.two_parts ? 64 : 32) + unit.lane;
  to[0] = make_uint4(high[0], high[1], high[2], high[3]);
  if (p.two_parts) to[32] = make_uint4(low[0], low[1], low[2], low[3]);
}

cudaError_t run(const DeepPlan& plan, DType dtype, const Call& call) {
  const Arguments& a = call.arguments;
  const cudaError_t error = launch(dtype == DType::f32 ? pack_tf32 : pack, plan.packing, call.stream, plan.pack,
                                   a.alpha, static_cast<uint4*>(call.workspace));
  if (error != cudaSuccess) return error;
  DeepParameters parameters = plan.parameters;
  parameters.in.data = plan.adjoint ? a.dy : a.x;
  parameters.out.data = plan.adjoint ? a.dx : a.y;
  parameters.alpha = call.workspace;
  parameters.c = a.c;
  parameters.bias = plan.adjoint ? nullptr : a.bias;
  if (dtype == DType::f32) return launch_deep_tf32(plan, parameters, call.stream);
  return dtype == DType::f16 ? launch_deep_f16(plan, parameters, call.stream)
                             : launch_deep_bf16(plan, parameters, call.stream);
}

}  // namespace leancore::detail::cuda
