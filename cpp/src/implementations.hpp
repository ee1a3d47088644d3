// The seam between the dispatcher and the kernels: an implementation is a row of function pointers.
#pragma once

#include <cstddef>
#include <span>

#include "leancore/types.hpp"

namespace leancore::detail {

// The arrays of one call; the ones that the operation does not have, or the caller does not want, are null.
struct Arguments {
  const void* x = nullptr;
  const void* alpha = nullptr;
  const void* c = nullptr;
  const void* bias = nullptr;
  const void* dy = nullptr;
  void* y = nullptr;
  void* dx = nullptr;
  void* dalpha = nullptr;
  void* dc = nullptr;
};

struct Implementation {
  const char* name;
  const char* description;
  DeviceType device;
  bool (*available)();
  // backward need not be: what no implementation supports is run as backward_data and backward_weight.
  bool (*supports)(Operation, const ConvDesc&);
  std::size_t (*workspace_bytes)(Operation, const ConvDesc&, int threads);
  // `workspace` holds at least workspace_bytes(operation, desc, threads), aligned to workspace_alignment. Arguments
  // have been validated. Takes only the bits of context that have no meaning on the CPU: device and stream.
  Status (*run)(Operation, const ConvDesc&, const Arguments&, const Context&, void* workspace, int threads);
  // Whether it takes numbers below the normal range, 2^-126, for zero; null: never. See docs/numerics.md.
  bool (*flushes)(Operation, const ConvDesc&) = nullptr;
};

// The two calls that make a backward.
inline ConvDesc data_part(ConvDesc d) {
  for (int a = 0; a < max_axes; ++a) d.x_strides[a] = d.dx_strides[a];
  return d;
}
inline ConvDesc weight_part(ConvDesc d) {
  for (int a = 0; a < 2; ++a) {
    d.alpha_strides[a] = d.dalpha_strides[a];
    d.c_strides[a] = d.dc_strides[a];
  }
  return d;
}

inline constexpr std::size_t workspace_alignment = 64;

// In the order of preference.
std::span<const Implementation* const> cpu_implementations() noexcept;
// Defined by whichever twin is linked: cuda/ or no_cuda/.
std::span<const Implementation* const> cuda_implementations() noexcept;

}  // namespace leancore::detail
