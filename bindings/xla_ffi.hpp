// The operations as functions that XLA, the compiler of JAX, calls from a compiled program.
#pragma once

#include <array>

#include "xla_ffi_abi.h"

namespace leancore::python {

// Compact arrays; the attributes `stride` and `dilation` are int64 arrays with an entry for each spatial axis.
//   forward          (x, alpha, c[, bias]) -> y
//   backward_data    (dy, alpha, c) -> dx, whose shape says that of x
//   backward_weight  (x, dy) -> dalpha, dc
// On CUDA, the work is put on the stream of the call, and scratch memory is XLA's.
struct XlaHandler {
  const char* platform;  // as XLA calls it
  const char* name;
  xla::Error* (*function)(xla::CallFrame*);
};

const std::array<XlaHandler, 6>& xla_handler_table() noexcept;

}  // namespace leancore::python
