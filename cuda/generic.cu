#include "generic.cuh"

#include <algorithm>

#include "launch.cuh"

namespace leancore::detail::cuda {
namespace {

using std::int32_t;
using std::int64_t;

// Plans hold 64-bit parameters; those of a narrow one fit in 32.
template <std::size_t n>
void copy(int32_t (&to)[n], const int64_t (&from)[n]) {
  std::transform(from, from + n, to, [](int64_t value) { return static_cast<int32_t>(value); });
}
void copy(int32_t& to, int64_t from) {
  to = static_cast<int32_t>(from);
}

ApplyParameters<int32_t> narrow(const ApplyParameters<int64_t>& wide) {
  ApplyParameters<int32_t> p;
  copy(p.outputs, wide.outputs);
  copy(p.batch, wide.batch);
  copy(p.out_channels, wide.out_channels);
  copy(p.in_channels, wide.in_channels);
  copy(p.stencil_channels, wide.stencil_channels);
  copy(p.out_extents, wide.out_extents);
  copy(p.in_extents, wide.in_extents);
  copy(p.stride, wide.stride);
  copy(p.dilation, wide.dilation);
  copy(p.out_strides, wide.out_strides);
  copy(p.in_strides, wide.in_strides);
  copy(p.alpha_out, wide.alpha_out);
  copy(p.alpha_in, wide.alpha_in);
  copy(p.c_channel, wide.c_channel);
  copy(p.c_tap, wide.c_tap);
  copy(p.bias_stride, wide.bias_stride);
  p.first_axis = wide.first_axis;
  p.channels_last = wide.channels_last;
  return p;
}

WeightParameters<int32_t> narrow(const WeightParameters<int64_t>& wide) {
  WeightParameters<int32_t> p;
  copy(p.positions, wide.positions);
  copy(p.positions_per_split, wide.positions_per_split);
  copy(p.c_in, wide.c_in);
  copy(p.c_out, wide.c_out);
  copy(p.stencil_channels, wide.stencil_channels);
  copy(p.y_extents, wide.y_extents);
  copy(p.x_extents, wide.x_extents);
  copy(p.stride, wide.stride);
  copy(p.dilation, wide.dilation);
  copy(p.y_strides, wide.y_strides);
  copy(p.x_strides, wide.x_strides);
  p.first_axis = wide.first_axis;
  p.alpha_tiles = wide.alpha_tiles;
  p.alpha_tiles_across = wide.alpha_tiles_across;
  copy(p.alpha_elements, wide.alpha_elements);
  copy(p.elements, wide.elements);
  return p;
}

template <typename T, bool adjoint>
cudaError_t run_apply(const ApplyPlan& plan, const Call& call) {
  const Arguments& a = call.arguments;
  const auto* in = static_cast<const T*>(adjoint ? a.dy : a.x);
  const auto* alpha = static_cast<const T*>(a.alpha);
  const auto* c = static_cast<const T*>(a.c);
  const auto* bias = static_cast<const T*>(adjoint ? nullptr : a.bias);
  auto* out = static_cast<T*>(adjoint ? a.dx : a.y);
  return plan.wide
             ? launch(apply<T, int64_t, adjoint>, plan.launch, call.stream, plan.parameters, in, alpha, c, bias, out)
             : launch(apply<T, int32_t, adjoint>, plan.launch, call.stream, narrow(plan.parameters), in, alpha, c, bias,
                      out);
}

// Partial sums into the workspace.
template <typename T>
cudaError_t run_weight(const WeightPlan& plan, const Call& call) {
  if (plan.reduce.splits == 0) return cudaSuccess;
  const auto* x = static_cast<const T*>(call.arguments.x);
  const auto* dy = static_cast<const T*>(call.arguments.dy);
  auto* partials = static_cast<typename Element<T>::Sum*>(call.workspace);
  return plan.wide ? launch(weight<T, int64_t>, plan.launch, call.stream, plan.parameters, x, dy, partials)
                   : launch(weight<T, int32_t>, plan.launch, call.stream, narrow(plan.parameters), x, dy, partials);
}

}  // namespace

cudaError_t run(const ApplyPlan& plan, DType dtype, const Call& call) {
  return with_element(dtype, [&](auto e) {
    using T = decltype(e);
    return plan.adjoint ? run_apply<T, true>(plan, call) : run_apply<T, false>(plan, call);
  });
}

cudaError_t run(const WeightPlan& plan, DType dtype, const Call& call) {
  const cudaError_t error = with_element(dtype, [&](auto e) { return run_weight<decltype(e)>(plan, call); });
  return error == cudaSuccess ? add_partials(plan.reduce, plan.reduction, dtype, call) : error;
}

cudaError_t add_partials(const ReduceParameters& parameters, const LaunchShape& shape, DType dtype, const Call& call) {
  return with_element(dtype, [&](auto e) {
    using T = decltype(e);
    return launch(reduce<T>, shape, call.stream, parameters,
                  static_cast<const typename Element<T>::Sum*>(call.workspace), static_cast<T*>(call.arguments.dalpha),
                  static_cast<T*>(call.arguments.dc));
  });
}

}  // namespace leancore::detail::cuda
