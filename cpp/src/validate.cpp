#include "validate.hpp"

#include <algorithm>
#include <cinttypes>
#include <iterator>

#include "leancore/arrays.hpp"
#include "leancore/runtime.hpp"
#include "overlap.hpp"
#include "status.hpp"

namespace leancore {
namespace detail {
namespace {

constexpr StatusCode bad = StatusCode::invalid_argument;

const char* device_name(DeviceType device) {
  return device == DeviceType::cpu ? "CPU" : "CUDA";
}

// "(2, 4, 32, 32)" in a buffer of its own, for messages.
class ShapeText {
 public:
  ShapeText(int axes, const std::int64_t* shape) {
    int used = std::snprintf(text_, sizeof text_, "(");
    for (int a = 0; a < axes; ++a) {
      const auto at = static_cast<std::size_t>(used);
      used += std::snprintf(text_ + at, sizeof text_ - at, a == 0 ? "%" PRId64 : ", %" PRId64, shape[a]);
    }
    std::snprintf(text_ + used, sizeof text_ - static_cast<std::size_t>(used), axes == 1 ? ",)" : ")");
  }
  explicit ShapeText(const Array& array) : ShapeText(array.ndim, array.shape) {}
  [[nodiscard]] const char* get() const { return text_; }

 private:
  char text_[max_axes * 22 + 4];
};

// One array of the call as the validator sees it.
struct Operand {
  const char* name;
  bool output;
  bool optional;
  const void* pointer;
  Footprint footprint;
};

// (batch, channels, spatial axes)
Footprint image_of(int dims, std::int64_t batch, std::int64_t channels, const std::int64_t* extents,
                   const std::int64_t* strides) {
  Footprint f{0, dims + 2, {batch, channels}, {}};
  std::copy_n(extents, dims, f.shape + 2);
  std::copy_n(strides, f.axes, f.strides);
  return f;
}

// The arrays of an operation, the inputs first.
class Operands {
 public:
  Operands(Operation operation, const ConvDesc& desc, const Arguments& a) : d(desc) {
    switch (operation) {
      case Operation::forward:
        input("x", a.x, x(d.x_strides));
        input("alpha", a.alpha, alpha(d.alpha_strides));
        input("c", a.c, c(d.c_strides));
        add({"bias", false, true, a.bias, {0, 1, {d.c_out}, {d.bias_stride}}});
        add({"y", true, false, a.y, y()});
        break;
      case Operation::backward_data:
        input("dy", a.dy, y());
        input("alpha", a.alpha, alpha(d.alpha_strides));
        input("c", a.c, c(d.c_strides));
        add({"dx", true, false, a.dx, x(d.x_strides)});
        break;
      case Operation::backward_weight:
        input("x", a.x, x(d.x_strides));
        input("dy", a.dy, y());
        gradient("dalpha", a.dalpha, alpha(d.alpha_strides));
        gradient("dc", a.dc, c(d.c_strides));
        break;
      case Operation::backward:
        input("x", a.x, x(d.x_strides));
        input("dy", a.dy, y());
        input("alpha", a.alpha, alpha(d.alpha_strides));
        input("c", a.c, c(d.c_strides));
        gradient("dx", a.dx, x(d.dx_strides));
        gradient("dalpha", a.dalpha, alpha(d.dalpha_strides));
        gradient("dc", a.dc, c(d.dc_strides));
        break;
    }
  }
  [[nodiscard]] const Operand* begin() const { return list_; }
  [[nodiscard]] const Operand* end() const { return list_ + count_; }

 private:
  void add(Operand operand) {
    operand.footprint.base = reinterpret_cast<std::intptr_t>(operand.pointer);
    list_[count_++] = operand;
  }
  void input(const char* name, const void* pointer, const Footprint& f) { add({name, false, false, pointer, f}); }
  void gradient(const char* name, const void* pointer, const Footprint& f) { add({name, true, true, pointer, f}); }

  [[nodiscard]] Footprint x(const std::int64_t* strides) const { return image(d.c_in, d.extents, strides); }
  [[nodiscard]] Footprint y() const {
    std::int64_t extents[max_dims] = {};
    for (int a = 0; a < d.dims; ++a) extents[a] = d.y_extent(a);
    return image(d.c_out, extents, d.y_strides);
  }
  [[nodiscard]] Footprint image(std::int64_t channels, const std::int64_t* extents, const std::int64_t* strides) const {
    return image_of(d.dims, d.batch, channels, extents, strides);
  }
  [[nodiscard]] Footprint alpha(const std::int64_t* strides) const {
    return {0, 2, {d.c_out, d.c_in}, {strides[0], strides[1]}};
  }
  [[nodiscard]] Footprint c(const std::int64_t* strides) const {
    return {0, 2, {d.diagonal(), 2 * d.dims}, {strides[0], strides[1]}};
  }

  const ConvDesc& d;
  Operand list_[7];
  int count_ = 0;
};

Status check_span(const char* call, const Operand& operand, DType dtype) {
  std::int64_t lowest = 0, highest = 0;
  if (span_of(operand.footprint, info(dtype).size, lowest, highest)) return {};
  return fail(StatusCode::overflow, "%s: %s of shape %s spans more than 2^63 bytes", call, operand.name,
              ShapeText(operand.footprint.axes, operand.footprint.shape).get());
}

Status check_pointer(const char* call, const Operand& operand, DType dtype) {
  if (operand.footprint.empty()) return {};
  if (operand.pointer == nullptr) {
    return fail(bad, "%s: %s is null, expected memory for shape %s", call, operand.name,
                ShapeText(operand.footprint.axes, operand.footprint.shape).get());
  }
  if (operand.footprint.base % info(dtype).size != 0) {
    return fail(bad, "%s: %s at address %p is not aligned to its %s elements", call, operand.name, operand.pointer,
                info(dtype).name);
  }
  return {};
}

Status check_dtype(const char* call, DType dtype) {
  if (is_known(dtype)) return {};
  return fail(StatusCode::invalid_type, "%s: dtype is %d, expected f32, f64, f16 or bf16", call,
              static_cast<int>(dtype));
}

Status check_dims(const char* call, int dims) {
  if (dims >= 1 && dims <= max_dims) return {};
  return fail(bad, "%s: dims is %d, expected 1 to %d", call, dims, max_dims);
}

Status check_extents(const char* call, int dims, const std::int64_t* extents) {
  for (int a = 0; a < dims; ++a) {
    if (extents[a] < 0) return fail(bad, "%s: extent %d is %" PRId64 ", expected at least 0", call, a, extents[a]);
  }
  return {};
}

Status check_context(const char* call, const Context& context) {
  if (context.threads < 0) return fail(bad, "%s: threads is %d, expected at least 0", call, context.threads);
  if (context.device.type != DeviceType::cpu && context.device.type != DeviceType::cuda) {
    return fail(bad, "%s: device type is %d, expected cpu or cuda", call, static_cast<int>(context.device.type));
  }
  return {};
}

// The pointers of a list whose inputs come first, and that no output meets itself or an array before it.
template <typename List>
Status check_arrays(const char* call, const List& operands, DType dtype) {
  const auto absent = [](const Operand& operand) { return operand.optional && operand.pointer == nullptr; };
  for (const Operand& operand : operands) {
    if (absent(operand)) continue;
    if (Status status = check_pointer(call, operand, dtype); !status.ok()) return status;
  }
  for (const Operand& output : operands) {
    if (!output.output || absent(output)) continue;
    if (overlaps_itself(output.footprint)) {
      return fail(bad, "%s: the strides %s of output %s place several elements at one address", call,
                  ShapeText(output.footprint.axes, output.footprint.strides).get(), output.name);
    }
    // Every array before it: all inputs, and the outputs that have not met it yet.
    for (const Operand* other = std::begin(operands); other != &output; ++other) {
      if (absent(*other) || !overlap(output.footprint, other->footprint, info(dtype).size)) continue;
      if (other->output) {
        return fail(bad, "%s: outputs %s and %s overlap in memory, expected memory of their own", call, other->name,
                    output.name);
      }
      return fail(bad, "%s: output %s overlaps input %s in memory, expected memory of its own", call, output.name,
                  other->name);
    }
  }
  return {};
}

}  // namespace

const char* name(Operation operation) noexcept {
  return operation_names[static_cast<std::int32_t>(operation)];
}

Status validate(Operation operation, const ConvDesc& d, const Context& context) noexcept {
  if (static_cast<std::uint32_t>(operation) >= std::size(operation_names)) {
    return fail(bad, "operation is %d, expected forward, backward_data, backward_weight or backward",
                static_cast<int>(operation));
  }
  const char* call = name(operation);
  if (Status status = check_dtype(call, d.dtype); !status.ok()) return status;
  if (Status status = check_dims(call, d.dims); !status.ok()) return status;
  if (d.batch < 0 || d.c_in < 0 || d.c_out < 0) {
    return fail(bad, "%s: batch, c_in, c_out are %" PRId64 ", %" PRId64 ", %" PRId64 ", expected at least 0", call,
                d.batch, d.c_in, d.c_out);
  }
  if (Status status = check_extents(call, d.dims, d.extents); !status.ok()) return status;
  for (int a = 0; a < d.dims; ++a) {
    if (d.stride[a] < 1) return fail(bad, "%s: stride %d is %" PRId64 ", expected at least 1", call, a, d.stride[a]);
    if (d.dilation[a] < 1) {
      return fail(bad, "%s: dilation %d is %" PRId64 ", expected at least 1", call, a, d.dilation[a]);
    }
  }
  if (Status status = check_context(call, context); !status.ok()) return status;
  for (const Operand& operand : Operands(operation, d, Arguments{})) {
    if (Status status = check_span(call, operand, d.dtype); !status.ok()) return status;
  }
  return {};
}

Status validate(Operation operation, const ConvDesc& d, const Arguments& arguments, const Context& context) noexcept {
  if (Status status = validate(operation, d, context); !status.ok()) return status;
  return check_arrays(name(operation), Operands(operation, d, arguments), d.dtype);
}

Status validate(const ShiftDesc& d, const void* x, const void* y, const Context& context) noexcept {
  const char* call = "shift";
  if (Status status = check_dtype(call, d.dtype); !status.ok()) return status;
  if (Status status = check_dims(call, d.dims); !status.ok()) return status;
  if (d.batch < 0 || d.channels < 0) {
    return fail(bad, "%s: batch, channels are %" PRId64 ", %" PRId64 ", expected at least 0", call, d.batch,
                d.channels);
  }
  if (Status status = check_extents(call, d.dims, d.extents); !status.ok()) return status;
  if (d.offsets ? d.groups < 1 : d.groups != 0) {
    return fail(bad, "%s: groups is %" PRId64 ", expected %s", call, d.groups,
                d.offsets ? "at least 1" : "0 for offsets of null");
  }
  if (Status status = check_context(call, context); !status.ok()) return status;
  Operand operands[] = {
      {"x", false, false, x, image_of(d.dims, d.batch, d.channels, d.extents, d.x_strides)},
      {"y", true, false, y, image_of(d.dims, d.batch, d.channels, d.extents, d.y_strides)},
  };
  for (Operand& operand : operands) {
    operand.footprint.base = reinterpret_cast<std::intptr_t>(operand.pointer);
    if (Status status = check_span(call, operand, d.dtype); !status.ok()) return status;
  }
  return check_arrays(call, operands, d.dtype);
}

}  // namespace detail

// ---- arrays that carry their own shape ---------------------------------------------------------------------------

namespace {

using detail::bad;
using detail::fail;
using detail::ShapeText;

// The leading array fixes dtype, device and dimensions; every other array must agree.
Status check_leading(const char* call, const char* what, const Array& array) {
  if (array.ndim < 3 || array.ndim > max_axes) {
    return fail(bad, "%s: %s has shape %s, expected 3 to %d axes (batch, channels, 1 to %d spatial axes)", call, what,
                ShapeText(array.ndim < 0 || array.ndim > max_axes ? 0 : array.ndim, array.shape).get(), max_axes,
                max_dims);
  }
  return {};
}

Status check_kind(const char* call, const char* what, const Array& array, const char* leading_name,
                  const Array& leading) {
  if (array.dtype != leading.dtype) {
    return fail(StatusCode::invalid_type, "%s: %s is %s, expected %s like %s", call, what, info(array.dtype).name,
                info(leading.dtype).name, leading_name);
  }
  if (array.device.type != leading.device.type || array.device.index != leading.device.index) {
    return fail(bad, "%s: %s is on %s device %d, expected %s device %d like %s", call, what,
                detail::device_name(array.device.type), array.device.index, detail::device_name(leading.device.type),
                leading.device.index, leading_name);
  }
  return {};
}

void take_strides(const Array& array, std::int64_t* strides) {
  for (int a = 0; a < array.ndim; ++a) strides[a] = array.strides[a];
}

Status take_geometry(const char* call, const Geometry& geometry, ConvDesc& d) {
  for (int a = 0; a < d.dims; ++a) {
    if (geometry.stride[a] < 1 || geometry.dilation[a] < 1) {
      const bool stride = geometry.stride[a] < 1;
      return fail(bad, "%s: %s along spatial axis %d is %" PRId64 ", expected at least 1", call,
                  stride ? "stride" : "dilation", a, stride ? geometry.stride[a] : geometry.dilation[a]);
    }
    d.stride[a] = geometry.stride[a];
    d.dilation[a] = geometry.dilation[a];
  }
  return {};
}

// alpha (c_out, c_in) and c (min(c_in, c_out), 2 dims); `leading` (x or dy) fixes one of the channel counts.
Status take_weights(const char* call, const char* leading_name, const Array& leading, bool leading_is_x,
                    const Array& alpha, const Array* c, ConvDesc& d) {
  if (Status status = check_kind(call, "alpha", alpha, leading_name, leading); !status.ok()) return status;
  if (c) {
    if (Status status = check_kind(call, "c", *c, leading_name, leading); !status.ok()) return status;
  }
  const std::int64_t channels = leading.shape[1];
  if (alpha.ndim != 2 || alpha.shape[leading_is_x ? 1 : 0] != channels) {
    char expected[48];
    std::snprintf(expected, sizeof expected, leading_is_x ? "(\u00b7, %" PRId64 ")" : "(%" PRId64 ", \u00b7)",
                  channels);
    return fail(bad, "%s: alpha has shape %s, expected (c_out, c_in) = %s from %s of shape %s", call,
                ShapeText(alpha).get(), expected, leading_name, ShapeText(leading).get());
  }
  d.c_out = alpha.shape[0];
  d.c_in = alpha.shape[1];
  take_strides(alpha, d.alpha_strides);
  d.stencil = c ? 1 : 0;
  if (!c) return {};
  if (c->ndim != 2 || c->shape[0] != d.diagonal() || c->shape[1] != 2 * d.dims) {
    return fail(bad,
                "%s: c has shape %s, expected (min(c_in, c_out), 2 * dims) = (%" PRId64
                ", %d) from alpha of shape %s and %s of shape %s",
                call, ShapeText(*c).get(), d.diagonal(), 2 * d.dims, ShapeText(alpha).get(), leading_name,
                ShapeText(leading).get());
  }
  take_strides(*c, d.c_strides);
  return {};
}

// x and what it alone determines.
Status take_x(const char* call, const Array& x, const Geometry& geometry, ConvDesc& d) {
  if (Status status = check_leading(call, "x", x); !status.ok()) return status;
  d.dtype = x.dtype;
  d.dims = x.ndim - 2;
  d.batch = x.shape[0];
  d.c_in = x.shape[1];
  for (int a = 0; a < d.dims; ++a) d.extents[a] = x.shape[a + 2];
  take_strides(x, d.x_strides);
  return take_geometry(call, geometry, d);
}

// An output beside the inputs.
Status check_output(const char* call, const char* what, const Array& array, DType dtype, int axes,
                    const std::int64_t* shape) {
  if (array.dtype != dtype) {
    return fail(StatusCode::invalid_type, "%s: out (%s) is %s, expected %s like the inputs", call, what,
                info(array.dtype).name, info(dtype).name);
  }
  bool fits = array.ndim == axes;
  for (int a = 0; fits && a < axes; ++a) fits = array.shape[a] == shape[a];
  if (!fits) {
    return fail(bad, "%s: out (%s) has shape %s, expected %s", call, what, ShapeText(array).get(),
                ShapeText(axes, shape).get());
  }
  if (array.read_only) {
    return fail(StatusCode::invalid_buffer, "%s: out (%s) is read-only, expected writable memory", call, what);
  }
  return {};
}

constexpr std::int64_t any_channels = -1;

// dy beside x, which has been taken; it may determine c_out.
Status take_dy(const char* call, const Array& x, const Array& dy, std::int64_t channels, ConvDesc& d) {
  if (Status status = check_kind(call, "dy", dy, "x", x); !status.ok()) return status;
  const bool any = channels == any_channels;
  bool fits = dy.ndim == x.ndim && dy.shape[0] == d.batch && (any || dy.shape[1] == channels);
  for (int a = 0; fits && a < d.dims; ++a) fits = dy.shape[a + 2] == d.y_extent(a);
  if (!fits) {
    std::int64_t expected[max_axes] = {d.batch, !any ? channels : dy.ndim > 1 && dy.ndim <= max_axes ? dy.shape[1] : 0};
    for (int a = 0; a < d.dims; ++a) expected[a + 2] = d.y_extent(a);
    return fail(bad, "%s: dy has shape %s, expected %s%s, from x of shape %s", call, ShapeText(dy).get(),
                ShapeText(x.ndim, expected).get(), any ? " with any second axis" : "", ShapeText(x).get());
  }
  d.c_out = dy.shape[1];
  take_strides(dy, d.y_strides);
  return {};
}

}  // namespace

Status describe_forward(const Array& x, const Array& alpha, const Array* c, const Array* bias, const Geometry& geometry,
                        ConvDesc& desc) noexcept {
  const char* call = "forward";
  ConvDesc d;
  if (Status status = take_x(call, x, geometry, d); !status.ok()) return status;
  if (Status status = take_weights(call, "x", x, true, alpha, c, d); !status.ok()) return status;
  if (bias) {
    if (Status status = check_kind(call, "bias", *bias, "x", x); !status.ok()) return status;
    if (bias->ndim != 1 || bias->shape[0] != d.c_out) {
      return fail(bad, "%s: bias has shape %s, expected (c_out,) = (%" PRId64 ",) from alpha of shape %s", call,
                  ShapeText(*bias).get(), d.c_out, ShapeText(alpha).get());
    }
    d.bias_stride = bias->strides[0];
  }
  desc = d;
  return {};
}

Status describe_backward_data(const Array& dy, const Array& alpha, const Array* c, const Geometry& geometry,
                              const std::int64_t* x_extents, ConvDesc& desc) noexcept {
  const char* call = "backward_data";
  if (Status status = check_leading(call, "dy", dy); !status.ok()) return status;
  ConvDesc d;
  d.dtype = dy.dtype;
  d.dims = dy.ndim - 2;
  d.batch = dy.shape[0];
  take_strides(dy, d.y_strides);
  if (Status status = take_geometry(call, geometry, d); !status.ok()) return status;
  for (int a = 0; a < d.dims; ++a) {
    if (x_extents) {
      d.extents[a] = x_extents[a];
    } else if (__builtin_mul_overflow(dy.shape[a + 2], d.stride[a], &d.extents[a])) {
      return fail(StatusCode::overflow, "%s: dx would have more than 2^63 elements along spatial axis %d", call, a);
    }
    if (d.extents[a] < 0 || d.y_extent(a) != dy.shape[a + 2]) {
      return fail(bad,
                  "%s: x_shape has extent %" PRId64 " along spatial axis %d, which with stride %" PRId64
                  " does not lead to dy of shape %s",
                  call, d.extents[a], a, d.stride[a], ShapeText(dy).get());
    }
  }
  if (Status status = take_weights(call, "dy", dy, false, alpha, c, d); !status.ok()) return status;
  desc = d;
  return {};
}

Status describe_backward_weight(const Array& x, const Array& dy, const Geometry& geometry, ConvDesc& desc) noexcept {
  const char* call = "backward_weight";
  ConvDesc d;
  if (Status status = take_x(call, x, geometry, d); !status.ok()) return status;
  if (Status status = take_dy(call, x, dy, any_channels, d); !status.ok()) return status;
  desc = d;
  return {};
}

Status describe_backward(const Array& x, const Array& dy, const Array& alpha, const Array& c, const Geometry& geometry,
                         ConvDesc& desc) noexcept {
  const char* call = "backward";
  ConvDesc d;
  if (Status status = take_x(call, x, geometry, d); !status.ok()) return status;
  if (Status status = take_weights(call, "x", x, true, alpha, &c, d); !status.ok()) return status;
  if (Status status = take_dy(call, x, dy, d.c_out, d); !status.ok()) return status;
  desc = d;
  return {};
}

Status describe_shift(const Array& x, ShiftDesc& desc) noexcept {
  if (Status status = check_leading("shift", "x", x); !status.ok()) return status;
  ShiftDesc d;
  d.dtype = x.dtype;
  d.dims = x.ndim - 2;
  d.batch = x.shape[0];
  d.channels = x.shape[1];
  std::copy_n(x.shape + 2, d.dims, d.extents);
  take_strides(x, d.x_strides);
  desc = d;
  return {};
}

Status bind_shift_output(const Array& y, ShiftDesc& d) noexcept {
  std::int64_t shape[max_axes] = {d.batch, d.channels};
  std::copy_n(d.extents, d.dims, shape + 2);
  if (Status status = check_output("shift", "y", y, d.dtype, d.dims + 2, shape); !status.ok()) return status;
  take_strides(y, d.y_strides);
  return {};
}

int output_shape(Output output, const ConvDesc& d, std::int64_t shape[max_axes]) noexcept {
  switch (output) {
    case Output::y:
    case Output::dx:
      shape[0] = d.batch;
      shape[1] = output == Output::y ? d.c_out : d.c_in;
      for (int a = 0; a < d.dims; ++a) shape[a + 2] = output == Output::y ? d.y_extent(a) : d.extents[a];
      return d.dims + 2;
    case Output::dalpha:
      shape[0] = d.c_out;
      shape[1] = d.c_in;
      return 2;
    case Output::dc:
      shape[0] = d.diagonal();
      shape[1] = 2 * d.dims;
      return 2;
  }
  return 0;
}

Status bind_output(Operation operation, Output output, const Array& array, ConvDesc& d) noexcept {
  static constexpr const char* names[] = {"y", "dx", "dalpha", "dc"};
  const char* what = names[static_cast<int>(output)];
  const char* call = detail::name(operation);
  std::int64_t shape[max_axes] = {};
  const int axes = output_shape(output, d, shape);
  if (Status status = check_output(call, what, array, d.dtype, axes, shape); !status.ok()) return status;
  const bool own = operation == Operation::backward;  // strides apart from those of the input of that shape
  switch (output) {
    case Output::y:
      take_strides(array, d.y_strides);
      break;
    case Output::dx:
      take_strides(array, own ? d.dx_strides : d.x_strides);
      break;
    case Output::dalpha:
      take_strides(array, own ? d.dalpha_strides : d.alpha_strides);
      break;
    case Output::dc:
      take_strides(array, own ? d.dc_strides : d.c_strides);
      break;
  }
  return {};
}

}  // namespace leancore
