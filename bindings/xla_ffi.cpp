#include "xla_ffi.hpp"

#include <cstddef>
#include <cstring>

#include "leancore/leancore.hpp"
#include "status.hpp"
#include "workspace.hpp"

namespace leancore::python {

using detail::fail;

namespace {

xla::Error* error(const xla::CallFrame& frame, std::int32_t code, const char* message) noexcept {
  xla::ErrorArguments arguments{sizeof arguments, nullptr, message, code};
  return frame.api->create_error(&arguments);
}

xla::Error* error(const xla::CallFrame& frame, const Status& status) noexcept {
  if (status.ok()) return nullptr;
  switch (status.code) {
    case StatusCode::out_of_memory:
      return error(frame, xla::error_resource_exhausted, status.message);
    case StatusCode::runtime_error:
      return error(frame, xla::error_internal, status.message);
    default:
      return error(frame, xla::error_invalid_argument, status.message);
  }
}

// Answers with the version of the runtime: what is declared of its structures is the same in all of its major version.
// No traits: above all none that allows to capture a call once and replay it, when its scratch memory is others'.
xla::Error* describe(const xla::CallFrame& frame, xla::Metadata& metadata, DeviceType device) noexcept {
  // Sizes do not count padding behind the last field.
  if (metadata.struct_size < offsetof(xla::Metadata, traits) + sizeof metadata.traits ||
      (device == DeviceType::cuda && frame.api->struct_size < sizeof(xla::Api))) {
    return error(frame, xla::error_internal, "leancore: XLA is too old");
  }
  if (frame.api->version.major != xla::major_version) {
    return error(frame, xla::error_internal, "leancore: XLA has another major version of its function interface");
  }
  metadata.version = frame.api->version;
  metadata.version.extensions = nullptr;
  metadata.traits = 0;
  return nullptr;
}

Status view(const char* function, const xla::Buffer& buffer, Array& array) noexcept {
  switch (buffer.dtype) {
    case xla::type_f32:
      array.dtype = DType::f32;
      break;
    case xla::type_f64:
      array.dtype = DType::f64;
      break;
    case xla::type_f16:
      array.dtype = DType::f16;
      break;
    case xla::type_bf16:
      array.dtype = DType::bf16;
      break;
    default:
      return fail(StatusCode::invalid_type, "%s: an array of XLA's type %d", function, int{buffer.dtype});
  }
  if (buffer.rank > max_axes) {
    return fail(StatusCode::invalid_argument, "%s: an array has %lld axes, expected at most %d", function,
                static_cast<long long>(buffer.rank), max_axes);
  }
  array.data = buffer.data;
  array.ndim = static_cast<std::int32_t>(buffer.rank);
  std::int64_t stride = 1;
  for (int axis = array.ndim - 1; axis >= 0; --axis) {
    array.shape[axis] = buffer.shape[axis];
    array.strides[axis] = stride;
    stride *= buffer.shape[axis];
  }
  return {};
}

// As many arrays as there are buffers, which must be at least `least` and at most `capacity`.
template <std::size_t capacity>
Status views(const char* function, const xla::Buffers& buffers, std::int64_t least,
             std::array<Array, capacity>& arrays) noexcept {
  if (buffers.size < least || buffers.size > static_cast<std::int64_t>(capacity)) {
    return fail(StatusCode::invalid_argument, "%s: %lld arrays, expected %lld to %zu", function,
                static_cast<long long>(buffers.size), static_cast<long long>(least), capacity);
  }
  Status status;
  for (std::int64_t i = 0; i < buffers.size && status.ok(); ++i) {
    status = view(function, *buffers.buffers[i], arrays[static_cast<std::size_t>(i)]);
  }
  return status;
}

Status spatial(const char* function, const xla::Attributes& attributes, const char* name, int dims,
               std::int64_t (&values)[max_dims]) noexcept {
  for (std::int64_t i = 0; i < attributes.size; ++i) {
    const xla::Text& found = *attributes.names[i];
    if (found.size != std::strlen(name) || std::memcmp(found.data, name, found.size) != 0) continue;
    if (attributes.types[i] != xla::attribute_array) break;
    const auto& array = *static_cast<const xla::AttributeArray*>(attributes.values[i]);
    if (array.dtype != xla::type_s64 || dims < 1 || dims > max_dims || array.size != static_cast<std::size_t>(dims)) {
      break;
    }
    std::memcpy(values, array.data, array.size * sizeof *values);
    return {};
  }
  return fail(StatusCode::invalid_argument, "%s: %s is not an int64 for each of %d spatial axes", function, name, dims);
}

// Runs `call(context)` with a workspace of this thread's.
template <typename Call>
xla::Error* run_on_cpu(const xla::CallFrame& frame, const char* function, Context& context, Call&& call) noexcept {
  thread_local Workspace workspace;
  if (context.workspace_bytes != 0) context.workspace = workspace.reserve(context.workspace_bytes);
  if (context.workspace_bytes != 0 && context.workspace == nullptr) {
    return error(frame, fail(StatusCode::out_of_memory, "%s: no memory for a workspace of %zu bytes", function,
                             context.workspace_bytes));
  }
  const Status status = call(context);
  workspace.trim();
  return error(frame, status);
}

// Starts `call(context)` with a workspace of XLA's, which hands it out again in the order of the stream.
template <typename Call>
xla::Error* run_on_cuda(const xla::CallFrame& frame, Context& context, Call&& call) noexcept {
  const std::size_t bytes = context.workspace_bytes;
  if (bytes != 0) {
    xla::AllocateArguments allocation{sizeof allocation, nullptr, frame.context, bytes, 1, nullptr};
    if (xla::Error* refused = frame.api->allocate(&allocation)) return refused;
    context.workspace = allocation.data;
  }
  xla::Error* failed = error(frame, call(context));
  if (bytes != 0) {
    xla::FreeArguments freed{sizeof freed, nullptr, frame.context, bytes, context.workspace};
    if (xla::Error* refused = frame.api->free(&freed)) {
      if (failed == nullptr) return refused;
      xla::DestroyErrorArguments second{sizeof second, nullptr, refused};
      frame.api->destroy_error(&second);
    }
  }
  return failed;
}

template <typename Call>
xla::Error* run(const xla::CallFrame& frame, DeviceType device, Operation operation, const ConvDesc& desc,
                Call&& call) noexcept {
  Context context;
  if (device == DeviceType::cuda) {
    xla::DeviceArguments ordinal{sizeof ordinal, nullptr, frame.context, 0};
    if (xla::Error* refused = frame.api->device(&ordinal)) return refused;
    xla::StreamArguments stream{sizeof stream, nullptr, frame.context, nullptr};
    if (xla::Error* refused = frame.api->stream(&stream)) return refused;
    context.device = {DeviceType::cuda, ordinal.device};
    context.stream = stream.stream;
  }
  const Status status = workspace_bytes(operation, desc, context, context.workspace_bytes);
  if (!status.ok()) return error(frame, status);
  if (device == DeviceType::cuda) return run_on_cuda(frame, context, call);
  return run_on_cpu(frame, operation_names[static_cast<int>(operation)], context, call);
}

struct Call {
  const xla::CallFrame& frame;
  DeviceType device;
  std::array<Array, 4> in;
  std::array<Array, 2> out;
  std::int64_t inputs;
  Geometry geometry;
};

xla::Error* run_forward(const Call& call) noexcept {
  const auto& [x, alpha, c, given] = call.in;
  const Array* bias = call.inputs == 4 ? &given : nullptr;
  const Array& y = call.out[0];
  ConvDesc desc;
  Status status = describe_forward(x, alpha, &c, bias, call.geometry, desc);
  if (status.ok()) status = bind_output(Operation::forward, Output::y, y, desc);
  if (!status.ok()) return error(call.frame, status);
  return run(call.frame, call.device, Operation::forward, desc, [&](const Context& context) {
    return forward(desc, x.data, alpha.data, c.data, bias == nullptr ? nullptr : bias->data, y.data, context);
  });
}

xla::Error* run_backward_data(const Call& call) noexcept {
  const auto& [dy, alpha, c, none] = call.in;
  const Array& dx = call.out[0];
  ConvDesc desc;
  Status status = describe_backward_data(dy, alpha, &c, call.geometry, dx.shape + 2, desc);
  if (status.ok()) status = bind_output(Operation::backward_data, Output::dx, dx, desc);
  if (!status.ok()) return error(call.frame, status);
  return run(call.frame, call.device, Operation::backward_data, desc, [&](const Context& context) {
    return backward_data(desc, dy.data, alpha.data, c.data, dx.data, context);
  });
}

xla::Error* run_backward_weight(const Call& call) noexcept {
  const Array &x = call.in[0], &dy = call.in[1];
  const auto& [dalpha, dc] = call.out;
  ConvDesc desc;
  Status status = describe_backward_weight(x, dy, call.geometry, desc);
  if (status.ok()) status = bind_output(Operation::backward_weight, Output::dalpha, dalpha, desc);
  if (status.ok()) status = bind_output(Operation::backward_weight, Output::dc, dc, desc);
  if (!status.ok()) return error(call.frame, status);
  return run(call.frame, call.device, Operation::backward_weight, desc, [&](const Context& context) {
    return backward_weight(desc, x.data, dy.data, dalpha.data, dc.data, context);
  });
}

template <Operation operation, DeviceType device>
xla::Error* handle(xla::CallFrame* frame) {
  for (const xla::Extension* each = frame->extensions; each != nullptr; each = each->next) {
    if (each->type == xla::extension_metadata) {
      return describe(*frame, *reinterpret_cast<const xla::MetadataExtension*>(each)->metadata, device);
    }
  }
  if (frame->stage != xla::stage_execute) return nullptr;
  static constexpr bool weight = operation == Operation::backward_weight;
  static constexpr const char* function = operation_names[static_cast<int>(operation)];
  Call call{*frame, device, {}, {}, frame->arguments.size, {}};
  Status status = views(function, frame->arguments, weight ? 2 : 3, call.in);
  if (status.ok()) status = views(function, frame->results, weight ? 2 : 1, call.out);
  const int dims = call.in[0].ndim - 2;
  if (status.ok()) status = spatial(function, frame->attributes, "stride", dims, call.geometry.stride);
  if (status.ok()) status = spatial(function, frame->attributes, "dilation", dims, call.geometry.dilation);
  if (!status.ok()) return error(*frame, status);
  if constexpr (operation == Operation::forward) return run_forward(call);
  if constexpr (operation == Operation::backward_data) return run_backward_data(call);
  if constexpr (weight) return run_backward_weight(call);
}

}  // namespace

const std::array<XlaHandler, 6>& xla_handler_table() noexcept {
  static constexpr DeviceType cpu = DeviceType::cpu, cuda = DeviceType::cuda;
  static constexpr std::array<XlaHandler, 6> table{{
      {"cpu", "forward", &handle<Operation::forward, cpu>},
      {"cpu", "backward_data", &handle<Operation::backward_data, cpu>},
      {"cpu", "backward_weight", &handle<Operation::backward_weight, cpu>},
      {"CUDA", "forward", &handle<Operation::forward, cuda>},
      {"CUDA", "backward_data", &handle<Operation::backward_data, cuda>},
      {"CUDA", "backward_weight", &handle<Operation::backward_weight, cuda>},
  }};
  return table;
}

}  // namespace leancore::python
