// The shift: groups of channels, each moved by an offset of its own, zeros moving in.
//
//   y[n,j,p] = x[n,j,p - offset of j], or 0 where p - offset lies outside x
//
// Nothing is computed: elements are moved as they are, bit by bit. The adjoint (backward) is the shift by the opposite
// offsets.
//
// The pointer, overlap and thread rules of conv.hpp hold; no workspace is needed. context.implementation is ignored,
// there is one implementation, for the CPU. It moves compact channels-first and channels-last arrays at the speed of
// the memory; other strides, x and y of different layouts among them, element by element.
#pragma once

#include "leancore/arrays.hpp"
#include "leancore/types.hpp"

namespace leancore {

struct ShiftDesc {
  DType dtype = DType::f32;
  std::int32_t dims = 2;  // 1 to max_dims
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int64_t extents[max_dims] = {};
  std::int64_t x_strides[max_axes] = {};  // batch, channel, then the `dims` spatial axes, as in ConvDesc
  std::int64_t y_strides[max_axes] = {};
  // The offset of group g is offsets[g * dims] to offsets[g * dims + dims - 1]; any numbers. The groups follow one
  // another in the order of the channels; the first (channels mod groups) have one channel more than the rest. With
  // groups = 0 and a null pointer they are all 3^dims offsets of {-1, 0, 1}^dims, the last axis quickest.
  std::int64_t groups = 0;
  const std::int64_t* offsets = nullptr;
};

Status shift(const ShiftDesc& desc, const void* x, void* y, const Context& context) noexcept;

// For arrays that carry their shape (arrays.hpp): all of `desc` but offsets and the strides of y, then these.
Status describe_shift(const Array& x, ShiftDesc& desc) noexcept;
Status bind_shift_output(const Array& y, ShiftDesc& desc) noexcept;

}  // namespace leancore
