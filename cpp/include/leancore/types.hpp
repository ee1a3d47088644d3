// The plain data that every leancore call takes and returns.
//
// Nothing here owns memory, allocates or throws. Extents and strides are int64, strides count elements (not bytes)
// and may be negative or zero on inputs. The letters are the paper's: x, alpha, c, bias, y and their gradients.
#pragma once

#include <cstddef>
#include <cstdint>

namespace leancore {

inline constexpr int max_dims = 4;             // spatial dimensions of the operator
inline constexpr int max_axes = max_dims + 2;  // batch, channel, spatial axes from the outermost in

// f16 is IEEE 754 half precision, bf16 is bfloat16.
enum class DType : std::int32_t { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

// What there is to know of the element types, in the order of their numbers.
struct DTypeInfo {
  DType dtype;
  const char* name;   // as NumPy and torch write it
  std::int64_t size;  // bytes of an element
};
inline constexpr DTypeInfo dtypes[] = {
    {DType::f32, "float32", 4}, {DType::f64, "float64", 8}, {DType::f16, "float16", 2}, {DType::bf16, "bfloat16", 2}};
constexpr bool is_known(DType dtype) noexcept {
  return static_cast<std::uint32_t>(dtype) < sizeof dtypes / sizeof *dtypes;
}
// Of a known type.
constexpr const DTypeInfo& info(DType dtype) noexcept {
  return dtypes[static_cast<std::int32_t>(dtype)];
}

// The numbers are DLPack's.
enum class DeviceType : std::int32_t { cpu = 1, cuda = 2 };

struct Device {
  DeviceType type = DeviceType::cpu;
  std::int32_t index = 0;
};

enum class Operation : std::int32_t { forward = 0, backward_data = 1, backward_weight = 2, backward = 3 };
// In the order of their numbers.
inline constexpr const char* operation_names[] = {"forward", "backward_data", "backward_weight", "backward"};

enum class StatusCode : std::int32_t {
  ok = 0,
  invalid_argument,  // a shape, stride, overlap, null pointer or device that does not fit (Python: ValueError)
  invalid_type,      // not an array, or not a floating-point type that the operator has (TypeError)
  invalid_buffer,    // read-only output, malformed array description (BufferError)
  unsupported,       // meaningful, but not built or not written yet (NotImplementedError)
  overflow,          // the element count or the bytes spanned do not fit in 63 bits (OverflowError)
  out_of_memory,     // (MemoryError)
  runtime_error,     // the environment: no such instruction set, no CUDA (RuntimeError)
};

// What every call returns. On anything but `ok`, no output has been touched, and `message` names the function and
// the argument, what came and what was expected.
struct [[nodiscard]] Status {
  StatusCode code = StatusCode::ok;
  char message[380] = {};

  [[nodiscard]] bool ok() const noexcept { return code == StatusCode::ok; }
};

// One lean convolution. With m = min(c_in, c_out):
//
//   x     (batch, c_in,  extents...)          dx like x
//   alpha (c_out, c_in)                       dalpha like alpha
//   c     (m, 2 * dims)                       dc like c
//   bias  (c_out), optional
//   y     (batch, c_out, y_extent(0)...)      dy like y
//
// Columns of c, left to right: the -1 taps from the outermost axis in, then the +1 taps from the innermost out
// (2-D: up, left, right, down), the order of eq. (4) of the LeanResNet paper. Taps lie `dilation` apart, outputs at
// every `stride`-th position; a neighbour outside x contributes nothing.
//
// The stride arrays hold: batch, channel, then the `dims` spatial axes; entries past that are ignored. An operation
// reads those of its own arrays. y_strides are also those of dy. In backward_data, x_strides are those of dx, and in
// backward_weight, alpha_strides and c_strides are those of dalpha and dc; backward has both kinds of arrays, and there
// the gradients have strides of their own.
struct ConvDesc {
  DType dtype = DType::f32;
  std::int32_t dims = 2;  // 1 to max_dims
  std::int64_t batch = 0;
  std::int64_t c_in = 0;
  std::int64_t c_out = 0;
  std::int64_t extents[max_dims] = {};  // of x
  std::int64_t stride[max_dims] = {1, 1, 1, 1};
  std::int64_t dilation[max_dims] = {1, 1, 1, 1};
  std::int64_t x_strides[max_axes] = {};
  std::int64_t y_strides[max_axes] = {};
  std::int64_t alpha_strides[2] = {};
  std::int64_t c_strides[2] = {};
  std::int64_t bias_stride = 1;
  std::int64_t dx_strides[max_axes] = {};  // these three: backward alone
  std::int64_t dalpha_strides[2] = {};
  std::int64_t dc_strides[2] = {};
  std::int32_t stencil = 1;  // 0: a plain 1x1 convolution, where c and dc have no rows and may be null

  // Extent of y along a spatial axis: that of a 3-wide convolution with padding = dilation.
  [[nodiscard]] constexpr std::int64_t y_extent(int axis) const noexcept {
    return extents[axis] == 0 ? 0 : (extents[axis] - 1) / stride[axis] + 1;
  }
  // Channels that have a stencil: the rows of c.
  [[nodiscard]] constexpr std::int64_t diagonal() const noexcept {
    return stencil == 0 ? 0 : c_in < c_out ? c_in : c_out;
  }
};

// Where and how to run.
struct Context {
  Device device = {};
  void* stream = nullptr;                // CUDA stream; ignored on the CPU
  void* workspace = nullptr;             // scratch memory of the caller, at least the size that workspace_bytes answers
  std::size_t workspace_bytes = 0;       // any alignment will do; contents before and after a call mean nothing
  std::int32_t threads = 0;              // at most so many threads; 0: as many as the thread runtime offers
  const char* implementation = nullptr;  // force one by name (see runtime.hpp); nullptr: the best that applies
};

}  // namespace leancore
