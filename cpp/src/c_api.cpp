#include <bit>
#include <cstddef>

#include "leancore/conv.hpp"
#include "leancore/leancore.h"
#include "leancore/runtime.hpp"
#include "leancore/shift.hpp"

namespace {

using leancore::Context;
using leancore::ConvDesc;
using leancore::ShiftDesc;
using leancore::Status;

// The structures are passed by copying their bytes: their layouts must agree.
static_assert(sizeof(Status) == sizeof(leancore_status));
static_assert(sizeof(ConvDesc) == sizeof(leancore_conv_desc));
static_assert(offsetof(ConvDesc, extents) == offsetof(leancore_conv_desc, extents));
static_assert(offsetof(ConvDesc, x_strides) == offsetof(leancore_conv_desc, x_strides));
static_assert(offsetof(ConvDesc, bias_stride) == offsetof(leancore_conv_desc, bias_stride));
static_assert(offsetof(ConvDesc, dc_strides) == offsetof(leancore_conv_desc, dc_strides));
static_assert(offsetof(ConvDesc, stencil) == offsetof(leancore_conv_desc, stencil));
static_assert(sizeof(ShiftDesc) == sizeof(leancore_shift_desc));
static_assert(offsetof(ShiftDesc, extents) == offsetof(leancore_shift_desc, extents));
static_assert(offsetof(ShiftDesc, y_strides) == offsetof(leancore_shift_desc, y_strides));
static_assert(offsetof(ShiftDesc, offsets) == offsetof(leancore_shift_desc, offsets));
static_assert(sizeof(Context) == sizeof(leancore_context));
static_assert(offsetof(Context, workspace) == offsetof(leancore_context, workspace));
static_assert(offsetof(Context, implementation) == offsetof(leancore_context, implementation));

leancore_status to_c(const Status& status) {
  return std::bit_cast<leancore_status>(status);
}
ConvDesc from_c(const leancore_conv_desc* desc) {
  return std::bit_cast<ConvDesc>(*desc);
}
Context from_c(const leancore_context* context) {
  return std::bit_cast<Context>(*context);
}

}  // namespace

extern "C" {

leancore_conv_desc leancore_compact_desc(int32_t dtype, int32_t dims, int64_t batch, int64_t c_in, int64_t c_out,
                                         const int64_t* extents) {
  return std::bit_cast<leancore_conv_desc>(
      leancore::compact_desc(static_cast<leancore::DType>(dtype), dims, batch, c_in, c_out, extents));
}

leancore_context leancore_default_context(void) {
  return std::bit_cast<leancore_context>(Context{});
}

leancore_status leancore_workspace_bytes(int32_t operation, const leancore_conv_desc* desc,
                                         const leancore_context* context, size_t* bytes) {
  return to_c(
      leancore::workspace_bytes(static_cast<leancore::Operation>(operation), from_c(desc), from_c(context), *bytes));
}

leancore_status leancore_forward(const leancore_conv_desc* desc, const void* x, const void* alpha, const void* c,
                                 const void* bias, void* y, const leancore_context* context) {
  return to_c(leancore::forward(from_c(desc), x, alpha, c, bias, y, from_c(context)));
}

leancore_status leancore_backward_data(const leancore_conv_desc* desc, const void* dy, const void* alpha, const void* c,
                                       void* dx, const leancore_context* context) {
  return to_c(leancore::backward_data(from_c(desc), dy, alpha, c, dx, from_c(context)));
}

leancore_status leancore_backward_weight(const leancore_conv_desc* desc, const void* x, const void* dy, void* dalpha,
                                         void* dc, const leancore_context* context) {
  return to_c(leancore::backward_weight(from_c(desc), x, dy, dalpha, dc, from_c(context)));
}

leancore_status leancore_backward(const leancore_conv_desc* desc, const void* x, const void* dy, const void* alpha,
                                  const void* c, void* dx, void* dalpha, void* dc, const leancore_context* context) {
  return to_c(leancore::backward(from_c(desc), x, dy, alpha, c, dx, dalpha, dc, from_c(context)));
}

leancore_status leancore_shift(const leancore_shift_desc* desc, const void* x, void* y,
                               const leancore_context* context) {
  return to_c(leancore::shift(std::bit_cast<ShiftDesc>(*desc), x, y, from_c(context)));
}

const char* leancore_version(void) {
  return leancore::version();
}
const char* leancore_thread_backend(void) {
  return leancore::thread_backend();
}
int leancore_max_threads(void) {
  return leancore::max_threads();
}
const char* leancore_cuda_status(void) {
  return leancore::cuda_status();
}

}  // extern "C"
