// leancore: the lean convolution (a full 1x1 convolution plus a depthwise cross stencil, in one pass) and its adjoints.
//
//   types.hpp    DType, Device, Status, ConvDesc, Context
//   conv.hpp     forward, backward_data, backward_weight, workspace_bytes
//   shift.hpp    shift: channels moved by offsets
//   arrays.hpp   shape checking for callers whose arrays describe themselves
//   runtime.hpp  version, implementations, threads, CUDA
//   error.hpp    Status to exception
//   leancore.h   the same for C
//
//   leancore::ConvDesc desc = leancore::compact_desc(leancore::DType::f32, 2, n, c_in, c_out, extents);
//   leancore::Context context;
//   leancore::check(workspace_bytes(leancore::Operation::forward, desc, context, context.workspace_bytes));
//   std::vector<std::byte> scratch(context.workspace_bytes);
//   context.workspace = scratch.data();
//   leancore::check(leancore::forward(desc, x, alpha, c, nullptr, y, context));
#pragma once

#include "leancore/arrays.hpp"   // IWYU pragma: export
#include "leancore/conv.hpp"     // IWYU pragma: export
#include "leancore/error.hpp"    // IWYU pragma: export
#include "leancore/runtime.hpp"  // IWYU pragma: export
#include "leancore/shift.hpp"    // IWYU pragma: export
#include "leancore/types.hpp"    // IWYU pragma: export
