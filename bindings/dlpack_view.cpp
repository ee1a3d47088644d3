#include "dlpack_view.hpp"

#include <limits>

#include "status.hpp"

namespace leancore::python {

using detail::fail;

namespace {

constexpr std::uint64_t int64_limit = std::uint64_t{std::numeric_limits<std::int64_t>::max()};

// False when the result does not fit in 63 bits.
bool multiply(std::uint64_t a, std::uint64_t b, std::uint64_t& product) noexcept {
  if (b != 0 && a > int64_limit / b) return false;
  product = a * b;
  return true;
}

bool add(std::uint64_t a, std::uint64_t b, std::uint64_t& sum) noexcept {
  if (a > int64_limit || b > int64_limit - a) return false;
  sum = a + b;
  return true;
}

std::uint64_t magnitude(std::int64_t value) noexcept {
  return value < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(value) : static_cast<std::uint64_t>(value);
}

Status view_dtype(dlpack::DataType type, ArgumentName name, DType& dtype) noexcept {
  if (type.lanes == 1) {
    if (type.code == dlpack::type_float && type.bits == 32) return dtype = DType::f32, Status{};
    if (type.code == dlpack::type_float && type.bits == 64) return dtype = DType::f64, Status{};
    if (type.code == dlpack::type_float && type.bits == 16) return dtype = DType::f16, Status{};
    if (type.code == dlpack::type_bfloat && type.bits == 16) return dtype = DType::bf16, Status{};
  }
  static constexpr const char* expected = "float32, float64, float16 or bfloat16";
  static constexpr const char* names[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  if (type.code < sizeof names / sizeof *names && type.lanes == 1) {
    return fail(StatusCode::invalid_type, "%s: %s has elements of type %s%d, expected %s", name.function, name.argument,
                names[type.code], type.bits, expected);
  }
  return fail(StatusCode::invalid_type, "%s: %s has elements of DLPack type (code %d, %d bits, %d lanes), expected %s",
              name.function, name.argument, type.code, type.bits, type.lanes, expected);
}

Status view_device(dlpack::Device device, ArgumentName name, Device& out) noexcept {
  switch (device.device_type) {
    case dlpack::device_cpu:
    case dlpack::device_cuda_host:  // pinned memory of the host
      out = {DeviceType::cpu, 0};
      return {};
    case dlpack::device_cuda:
      out = {DeviceType::cuda, device.device_id};
      return {};
    default:
      return fail(StatusCode::unsupported, "%s: %s is on a device of DLPack type %d, expected the CPU (1) or CUDA (2)",
                  name.function, name.argument, device.device_type);
  }
}

}  // namespace

Status view_tensor(const dlpack::Tensor& tensor, ArgumentName name, bool read_only, Array& array) noexcept {
  const auto [function, argument] = name;
  array = {};
  array.read_only = read_only;
  if (Status status = view_dtype(tensor.dtype, name, array.dtype); !status.ok()) return status;
  if (Status status = view_device(tensor.device, name, array.device); !status.ok()) return status;

  if (tensor.ndim < 0) {
    return fail(StatusCode::invalid_buffer, "%s: %s describes %d axes", function, argument, tensor.ndim);
  }
  if (tensor.ndim > max_axes) {
    return fail(StatusCode::invalid_argument, "%s: %s has %d axes, expected at most %d", function, argument,
                tensor.ndim, max_axes);
  }
  if (tensor.ndim > 0 && tensor.shape == nullptr) {
    return fail(StatusCode::invalid_buffer, "%s: %s describes %d axes without a shape", function, argument,
                tensor.ndim);
  }
  array.ndim = tensor.ndim;
  bool empty = false;
  for (int axis = 0; axis < array.ndim; ++axis) {
    array.shape[axis] = tensor.shape[axis];
    if (array.shape[axis] < 0) {
      return fail(StatusCode::invalid_buffer, "%s: %s describes a negative extent, %lld, of axis %d", function,
                  argument, static_cast<long long>(array.shape[axis]), axis);
    }
    empty |= array.shape[axis] == 0;
  }

  const auto item = static_cast<std::uint64_t>(info(array.dtype).size);
  std::uint64_t count = 1;
  for (int axis = array.ndim - 1; axis >= 0; --axis) {
    const std::int64_t extent = array.shape[axis];
    // Of an empty array no stride is ever used, and the product of its other extents need not fit.
    array.strides[axis] = empty ? 0 : static_cast<std::int64_t>(count);
    if (!empty && !multiply(count, static_cast<std::uint64_t>(extent), count)) {
      return fail(StatusCode::overflow, "%s: the element count of %s does not fit in 63 bits", function, argument);
    }
    if (!empty && extent > 1 && tensor.strides != nullptr) array.strides[axis] = tensor.strides[axis];
  }

  // The bytes spanned below and above element (0, 0, ...).
  std::uint64_t below = 0, above = item;
  for (int axis = 0; axis < array.ndim && !empty; ++axis) {
    std::uint64_t& side = array.strides[axis] < 0 ? below : above;
    std::uint64_t reach = 0;
    if (!multiply(magnitude(array.strides[axis]), static_cast<std::uint64_t>(array.shape[axis] - 1), reach) ||
        !multiply(reach, item, reach) || !add(side, reach, side)) {
      return fail(StatusCode::overflow, "%s: the bytes spanned by %s do not fit in 63 bits", function, argument);
    }
  }
  std::uint64_t span = 0;
  if (!add(below, above, span)) {
    return fail(StatusCode::overflow, "%s: the bytes spanned by %s do not fit in 63 bits", function, argument);
  }

  if (empty) return {};  // array.data stays null
  if (tensor.data == nullptr) {
    return fail(StatusCode::invalid_buffer, "%s: %s has %llu elements, but no data", function, argument,
                static_cast<unsigned long long>(count));
  }
  const std::uint64_t base = reinterpret_cast<std::uintptr_t>(tensor.data);
  const std::uint64_t top = std::numeric_limits<std::uintptr_t>::max();
  if (tensor.byte_offset > top - base || base + tensor.byte_offset < below ||
      top - (base + tensor.byte_offset) < above) {
    return fail(StatusCode::overflow, "%s: %s reaches past the end of the address space", function, argument);
  }
  const std::uint64_t address = base + tensor.byte_offset;
  if (address % item != 0) {
    return fail(StatusCode::invalid_argument,
                "%s: the data of %s at address %#llx is not aligned to its %llu byte elements", function, argument,
                static_cast<unsigned long long>(address), static_cast<unsigned long long>(item));
  }
  array.data = reinterpret_cast<void*>(static_cast<std::uintptr_t>(address));
  return {};
}

}  // namespace leancore::python
