// Every call goes the same way: validate, choose an implementation, run it.
#include "leancore/conv.hpp"

#include <algorithm>
#include <cstdint>

#include "implementations.hpp"
#include "leancore/runtime.hpp"
#include "registry.hpp"
#include "status.hpp"
#include "validate.hpp"

namespace leancore {
namespace {

using detail::Arguments;
using detail::data_part;
using detail::fail;
using detail::Implementation;
using detail::weight_part;

constexpr std::size_t alignment_slack = detail::workspace_alignment - 1;

// Waking a thread costs about as much as this many multiply-adds; a smaller share per thread is not worth it.
constexpr double multiply_adds_per_thread = 250'000;

int threads_for(const ConvDesc& d, const Context& context) {
  int threads = max_threads();
  if (context.threads > 0) threads = std::min(threads, static_cast<int>(context.threads));
  double work =
      static_cast<double>(d.batch) * (static_cast<double>(d.c_in) + 2 * d.dims) * static_cast<double>(d.c_out);
  for (int a = 0; a < d.dims; ++a) work *= static_cast<double>(d.extents[a]);
  return static_cast<int>(std::clamp(work / multiply_adds_per_thread, 1.0, static_cast<double>(threads)));
}

// An implementation, and what it may use.
struct Prepared {
  const Implementation* implementation = nullptr;
  int threads = 0;
  void* workspace = nullptr;
};

// `call` names the function of the caller in messages.
Status prepare(const char* call, Operation operation, const ConvDesc& desc, const Context& context,
               Prepared& prepared) noexcept {
  const Implementation* implementation = nullptr;
  if (Status status = detail::choose(operation, desc, context, implementation); !status.ok()) return status;
  int threads = threads_for(desc, context);
  const auto needed = [&] { return implementation->workspace_bytes(operation, desc, threads); };
  std::size_t bytes = needed();
  prepared = {implementation, threads, nullptr};
  if (bytes == 0) return {};

  const auto address = reinterpret_cast<std::uintptr_t>(context.workspace);
  const std::size_t shift = (detail::workspace_alignment - address % detail::workspace_alignment) & alignment_slack;
  const std::size_t usable =
      context.workspace != nullptr && context.workspace_bytes > shift ? context.workspace_bytes - shift : 0;
  while (bytes > usable && threads > 1) {
    --threads;
    bytes = needed();
  }
  if (bytes > usable) {
    return fail(StatusCode::invalid_argument,
                "%s: workspace has %zu bytes, expected at least %zu (see workspace_bytes)", call,
                context.workspace ? context.workspace_bytes : 0, bytes + alignment_slack);
  }
  prepared = {implementation, threads, static_cast<char*>(context.workspace) + shift};
  return {};
}

Status run(const Prepared& p, Operation operation, const ConvDesc& desc, const Arguments& arguments,
           const Context& context) noexcept {
  return p.implementation->run(operation, desc, arguments, context, p.workspace, p.threads);
}

Status run(Operation operation, const ConvDesc& desc, const Arguments& arguments, const Context& context) noexcept {
  if (Status status = detail::validate(operation, desc, arguments, context); !status.ok()) return status;
  Prepared prepared;
  if (Status status = prepare(detail::name(operation), operation, desc, context, prepared); !status.ok()) return status;
  return run(prepared, operation, desc, arguments, context);
}

// Where no implementation offers it in one pass.
Status backward_in_parts(const ConvDesc& desc, const Arguments& arguments, const Context& context) noexcept {
  const bool want_data = arguments.dx != nullptr, want_weight = arguments.dalpha != nullptr || arguments.dc != nullptr;
  const ConvDesc of_data = data_part(desc), of_weight = weight_part(desc);
  // Both are prepared before the first runs: an error leaves all outputs as they were.
  const char* call = detail::name(Operation::backward);
  Prepared data, weight;
  Status status;
  if (want_data) status = prepare(call, Operation::backward_data, of_data, context, data);
  if (status.ok() && want_weight) status = prepare(call, Operation::backward_weight, of_weight, context, weight);
  if (status.ok() && want_data) status = run(data, Operation::backward_data, of_data, arguments, context);
  if (status.ok() && want_weight) status = run(weight, Operation::backward_weight, of_weight, arguments, context);
  return status;
}

Status workspace_of(Operation operation, const ConvDesc& desc, const Context& context, std::size_t& bytes) noexcept {
  const Implementation* implementation = nullptr;
  if (Status status = detail::choose(operation, desc, context, implementation); !status.ok()) return status;
  bytes = implementation->workspace_bytes(operation, desc, threads_for(desc, context));
  if (bytes > 0) bytes += alignment_slack;
  return {};
}

}  // namespace

Status workspace_bytes(Operation operation, const ConvDesc& desc, const Context& context, std::size_t& bytes) noexcept {
  if (Status status = detail::validate(operation, desc, context); !status.ok()) return status;
  Status status = workspace_of(operation, desc, context, bytes);
  if (operation != Operation::backward || status.code != StatusCode::unsupported) return status;
  std::size_t data = 0, weight = 0;
  status = workspace_of(Operation::backward_data, data_part(desc), context, data);
  if (status.ok()) status = workspace_of(Operation::backward_weight, weight_part(desc), context, weight);
  if (status.ok()) bytes = std::max(data, weight);
  return status;
}

Status forward(const ConvDesc& desc, const void* x, const void* alpha, const void* c, const void* bias, void* y,
               const Context& context) noexcept {
  Arguments arguments;
  arguments.x = x;
  arguments.alpha = alpha;
  arguments.c = c;
  arguments.bias = bias;
  arguments.y = y;
  return run(Operation::forward, desc, arguments, context);
}

Status backward_data(const ConvDesc& desc, const void* dy, const void* alpha, const void* c, void* dx,
                     const Context& context) noexcept {
  Arguments arguments;
  arguments.dy = dy;
  arguments.alpha = alpha;
  arguments.c = c;
  arguments.dx = dx;
  return run(Operation::backward_data, desc, arguments, context);
}

Status backward_weight(const ConvDesc& desc, const void* x, const void* dy, void* dalpha, void* dc,
                       const Context& context) noexcept {
  Arguments arguments;
  arguments.x = x;
  arguments.dy = dy;
  arguments.dalpha = dalpha;
  arguments.dc = dc;
  return run(Operation::backward_weight, desc, arguments, context);
}

Status backward(const ConvDesc& desc, const void* x, const void* dy, const void* alpha, const void* c, void* dx,
                void* dalpha, void* dc, const Context& context) noexcept {
  Arguments arguments;
  arguments.x = x;
  arguments.dy = dy;
  arguments.alpha = alpha;
  arguments.c = c;
  arguments.dx = dx;
  arguments.dalpha = dalpha;
  arguments.dc = dc;
  const Status status = run(Operation::backward, desc, arguments, context);
  return status.code == StatusCode::unsupported ? backward_in_parts(desc, arguments, context) : status;
}

ConvDesc compact_desc(DType dtype, int dims, std::int64_t batch, std::int64_t c_in, std::int64_t c_out,
                      const std::int64_t* extents) noexcept {
  ConvDesc d;
  d.dtype = dtype;
  d.dims = dims;
  d.batch = batch;
  d.c_in = c_in;
  d.c_out = c_out;
  std::int64_t stride = 1;
  for (int a = std::min(dims, max_dims) - 1; a >= 0; --a) {
    d.extents[a] = extents[a];
    d.x_strides[a + 2] = d.y_strides[a + 2] = stride;
    stride *= extents[a];
  }
  d.x_strides[1] = d.y_strides[1] = stride;
  d.x_strides[0] = stride * c_in;
  d.y_strides[0] = stride * c_out;
  std::copy_n(d.x_strides, max_axes, d.dx_strides);
  d.alpha_strides[0] = d.dalpha_strides[0] = c_in;
  d.alpha_strides[1] = d.dalpha_strides[1] = 1;
  d.c_strides[0] = d.dc_strides[0] = 2 * dims;
  d.c_strides[1] = d.dc_strides[1] = 1;
  return d;
}

void set_channels_last(ConvDesc& d) noexcept {
  std::int64_t x_stride = d.c_in, y_stride = d.c_out;
  for (int a = d.dims - 1; a >= 0; --a) {
    d.x_strides[a + 2] = x_stride;
    d.y_strides[a + 2] = y_stride;
    x_stride *= d.extents[a];
    y_stride *= d.y_extent(a);
  }
  d.x_strides[0] = x_stride;
  d.y_strides[0] = y_stride;
  d.x_strides[1] = d.y_strides[1] = 1;
  std::copy_n(d.x_strides, max_axes, d.dx_strides);
}

}  // namespace leancore
