// The same operations over arrays that carry their own shape, for callers that hold such arrays (language bindings).
// The shape rules live here and nowhere else: each describe_* checks every argument against the others and fills the
// descriptor; the message of a failing Status names the argument, its shape and the shape that was expected.
#pragma once

#include "leancore/types.hpp"

namespace leancore {

struct Array {
  void* data = nullptr;  // never written through unless the array is an output
  DType dtype = DType::f32;
  Device device = {};
  std::int32_t ndim = 0;
  std::int64_t shape[max_axes] = {};
  std::int64_t strides[max_axes] = {};  // in elements
  bool read_only = false;
};

// Stride and dilation, one entry for each spatial axis of x.
struct Geometry {
  std::int64_t stride[max_dims] = {1, 1, 1, 1};
  std::int64_t dilation[max_dims] = {1, 1, 1, 1};
};

// Fill all of `desc` but the strides of the output, from the inputs. An array of three axes is the 1-D operator,
// four the 2-D one, five the 3-D one, six the 4-D one.
Status describe_forward(const Array& x, const Array& alpha, const Array* c, const Array* bias, const Geometry& geometry,
                        ConvDesc& desc) noexcept;
// x_extents: the spatial extents of dx, or null for those of dy times the stride.
Status describe_backward_data(const Array& dy, const Array& alpha, const Array* c, const Geometry& geometry,
                              const std::int64_t* x_extents, ConvDesc& desc) noexcept;
Status describe_backward_weight(const Array& x, const Array& dy, const Geometry& geometry, ConvDesc& desc) noexcept;
// alpha has a shape of its own to check, which backward_weight leaves to dy.
Status describe_backward(const Array& x, const Array& dy, const Array& alpha, const Array& c, const Geometry& geometry,
                         ConvDesc& desc) noexcept;

// The shape that an output of the described operation must have; returns its number of axes.
enum class Output : std::int32_t { y, dx, dalpha, dc };
int output_shape(Output output, const ConvDesc& desc, std::int64_t shape[max_axes]) noexcept;

// Check an output of the operation against the descriptor (shape, dtype, device, writable) and take its strides into
// it.
Status bind_output(Operation operation, Output output, const Array& array, ConvDesc& desc) noexcept;

}  // namespace leancore
