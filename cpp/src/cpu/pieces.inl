// The kernels of one instruction set. Needs LEANCORE_VECTOR_BYTES and, for what compiler vectors cannot say,
// LEANCORE_AVX2, LEANCORE_AVX512 or LEANCORE_AVX512_BF16; isa.hpp; an open namespace of its own.

// clang-format off: each needs those before it
#include "cpu/vec.inl"
#include "cpu/multiply_add.inl"
#include "cpu/partial_sums.inl"
#include "cpu/over_box.inl"
#include "cpu/pack.inl"
#include "cpu/memory.inl"
#include "cpu/channels_first.inl"
#include "cpu/weight_kernel.inl"
#include "cpu/channels_first_driver.inl"
#include "cpu/channels_last.inl"
#include "cpu/channels_last_driver.inl"
// clang-format on

// A driver by its type alone.
template <typename E>
struct DriverType {
  using type = E;
};
