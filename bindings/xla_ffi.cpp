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
  const bool memory = status.code == StatusCode::out_of_memory;
  return error(frame, memory ? xla::error_resource_exhausted : xla::error_invalid_argument, status.message);
}

// Answers with the version of the runtime: what is declared of its structures is the same in all of its major version.
xla::Error* describe(const xla::CallFrame& frame, xla::Metadata& metadata) noexcept {
  // Sizes do not count padding behind the last field.
  if (metadata.struct_size < offsetof(xla::Metadata, traits) + sizeof metadata.traits)
    return error(frame, xla::error_internal, "leancore: XLA is too old");
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

// Runs `call(context)` with a workspace.
template <typename Call>
Status run(Operation operation, const char* function, const ConvDesc& desc, Call&& call) noexcept {
  Context context;
  Status status = workspace_bytes(operation, desc, context, context.workspace_bytes);
  if (!status.ok()) return status;
  thread_local Workspace workspace;
  if (context.workspace_bytes != 0) context.workspace = workspace.reserve(context.workspace_bytes);
  if (context.workspace_bytes != 0 && context.workspace == nullptr) {
    return fail(StatusCode::out_of_memory, "%s: no memory for a workspace of %zu bytes", function,
                context.workspace_bytes);
  }
  status = call(context);
  workspace.trim();
  return status;
}

struct Call {
  const char* function;
  std::array<Array, 4> in;
  std::array<Array, 2> out;
  std::int64_t inputs;
  Geometry geometry;
};

Status run_forward(const Call& call) noexcept {
  const auto& [x, alpha, c, given] = call.in;
  const Array* bias = call.inputs == 4 ? &given : nullptr;
  const Array& y = call.out[0];
  ConvDesc desc;
  Status status = describe_forward(x, alpha, &c, bias, call.geometry, desc);
  if (status.ok()) status = bind_output(Operation::forward, Output::y, y, desc);
  if (!status.ok()) return status;
  return run(Operation::forward, call.function, desc, [&](const Context& context) {
    return forward(desc, x.data, alpha.data, c.data, bias == nullptr ? nullptr : bias->data, y.data, context);
  });
}

Status run_backward_data(const Call& call) noexcept {
  const auto& [dy, alpha, c, none] = call.in;
  const Array& dx = call.out[0];
  ConvDesc desc;
  Status status = describe_backward_data(dy, alpha, &c, call.geometry, dx.shape + 2, desc);
  if (status.ok()) status = bind_output(Operation::backward_data, Output::dx, dx, desc);
  if (!status.ok()) return status;
  return run(Operation::backward_data, call.function, desc, [&](const Context& context) {
    return backward_data(desc, dy.data, alpha.data, c.data, dx.data, context);
  });
}

Status run_backward_weight(const Call& call) noexcept {
  const Array &x = call.in[0], &dy = call.in[1];
  const auto& [dalpha, dc] = call.out;
  ConvDesc desc;
  Status status = describe_backward_weight(x, dy, call.geometry, desc);
  if (status.ok()) status = bind_output(Operation::backward_weight, Output::dalpha, dalpha, desc);
  if (status.ok()) status = bind_output(Operation::backward_weight, Output::dc, dc, desc);
  if (!status.ok()) return status;
  return run(Operation::backward_weight, call.function, desc, [&](const Context& context) {
    return backward_weight(desc, x.data, dy.data, dalpha.data, dc.data, context);
  });
}

template <Operation operation>
xla::Error* handle(xla::CallFrame* frame) {
  for (const xla::Extension* each = frame->extensions; each != nullptr; each = each->next) {
    if (each->type == xla::extension_metadata) {
      return describe(*frame, *reinterpret_cast<const xla::MetadataExtension*>(each)->metadata);
    }
  }
  if (frame->stage != xla::stage_execute) return nullptr;
  static constexpr bool weight = operation == Operation::backward_weight;
  Call call{};
  call.function = operation_names[static_cast<int>(operation)];
  call.inputs = frame->arguments.size;
  Status status = views(call.function, frame->arguments, weight ? 2 : 3, call.in);
  if (status.ok()) status = views(call.function, frame->results, weight ? 2 : 1, call.out);
  const int dims = call.in[0].ndim - 2;
  if (status.ok()) status = spatial(call.function, frame->attributes, "stride", dims, call.geometry.stride);
  if (status.ok()) status = spatial(call.function, frame->attributes, "dilation", dims, call.geometry.dilation);
  if (!status.ok()) return error(*frame, status);
  if constexpr (operation == Operation::forward) return error(*frame, run_forward(call));
  if constexpr (operation == Operation::backward_data) return error(*frame, run_backward_data(call));
  if constexpr (weight) return error(*frame, run_backward_weight(call));
}

}  // namespace

const std::array<XlaHandler, 3>& xla_handler_table() noexcept {
  static constexpr std::array<XlaHandler, 3> table{{
      {"forward", &handle<Operation::forward>},
      {"backward_data", &handle<Operation::backward_data>},
      {"backward_weight", &handle<Operation::backward_weight>},
  }};
  return table;
}

}  // namespace leancore::python
