// The operations.
//
//   y[n,o,p]    = bias[o] + sum_i alpha[o,i] x[n,i,p] + [o < m] sum_k c[o,k] x[n,o,p + tap_k]
//   dx          = the adjoint in x:  <y, dy> = <x, dx> for bias = 0
//   dalpha[o,i] = sum_{n,p} dy[n,o,p] x[n,i,p]
//   dc[j,k]     = sum_{n,p} dy[n,j,p] x[n,j,p + tap_k]
//
// Pointers are to element (0, 0, ...) of arrays laid out as the descriptor says. An array without elements may be
// null. Outputs are overwritten, must not overlap themselves, each other or any input, and are untouched when the
// status is not ok. Inputs may overlap each other.
//
// Numerics: fp32 accumulates in fp32, fp64 in fp64, fp16 and bf16 in fp32 or wider. For n summed terms and unit
// round-off u of that type every element of y and dx is within (n + 1) u sum|terms|, and every element of dalpha and
// dc, however many terms it has, within (max(1024 / w, 128) + 16) u sum|terms| for vectors of w elements (2 to 16).
// 16-bit results are then rounded once, to nearest. Results have the same bits for any number of threads; they may
// differ between instruction sets; the one for bf16, "avx512_bf16", takes subnormal numbers for zero
// (docs/numerics.md). Real products are all evaluated (0 * NaN is NaN); a neighbour outside the image is not
// multiplied.
//
// Threads: every function may be called from any number of threads at once, on disjoint outputs and workspaces.
// Nothing allocates tensor memory.
#pragma once

#include "leancore/types.hpp"

namespace leancore {

// Writes to `bytes` the workspace that the operation takes when it uses all threads of the context. A smaller one is
// accepted, and uses fewer threads, down to the size answered for context.threads = 1.
Status workspace_bytes(Operation operation, const ConvDesc& desc, const Context& context, std::size_t& bytes) noexcept;

// bias may be null. With desc.stencil = 0, c may be.
Status forward(const ConvDesc& desc, const void* x, const void* alpha, const void* c, const void* bias, void* y,
               const Context& context) noexcept;

Status backward_data(const ConvDesc& desc, const void* dy, const void* alpha, const void* c, void* dx,
                     const Context& context) noexcept;

// Either of dalpha and dc may be null when it is not wanted.
Status backward_weight(const ConvDesc& desc, const void* x, const void* dy, void* dalpha, void* dc,
                       const Context& context) noexcept;

// dx, dalpha and dc in one call, from one read of x and dy where an implementation offers that, else as backward_data
// and backward_weight do. Any of dx, dalpha and dc may be null when it is not wanted; the inputs are needed anyway.
Status backward(const ConvDesc& desc, const void* x, const void* dy, const void* alpha, const void* c, void* dx,
                void* dalpha, void* dc, const Context& context) noexcept;

// A descriptor with every array compact, channels first: the last spatial axis has stride 1.
ConvDesc compact_desc(DType dtype, int dims, std::int64_t batch, std::int64_t c_in, std::int64_t c_out,
                      const std::int64_t* extents) noexcept;

// Sets x_strides, dx_strides and y_strides to compact channels-last memory: the channel axis has stride 1.
void set_channels_last(ConvDesc& desc) noexcept;

}  // namespace leancore
