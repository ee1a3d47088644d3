// The instructions that CUDA C++ has no words for; the only file with PTX. Each function says what the instruction
// does.
//
// Compute capability 7.5 has neither asynchronous copies nor tensor cores for bf16 and tf32: there copies are done at
// once, and a kernel that would need such a product traps, so that a wrong plan cannot go unnoticed.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace leancore::detail::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define LEANCORE_SM80 1
#else
#define LEANCORE_SM80 0
#endif

// The same value, of which the compiler knows nothing: what is computed from it in a rare branch of a loop is computed
// there, instead of before the loop, where it would take registers.
__device__ __forceinline__ int opaque(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// The same of an address in global memory: what is added to it is added to it, and not to what it was made of.
template <typename T>
__device__ __forceinline__ T* opaque_global(T* address) {
#if defined(__CUDA_ARCH__)
  std::size_t global = __cvta_generic_to_global(address);
  asm volatile("" : "+l"(global));
  address = static_cast<T*>(__cvta_global_to_generic(global));
#endif
  return address;
}

// ---- asynchronous copies from global to shared memory -------------------------------------------------------------

// Copies `bytes` (4, 8 or 16, to which both addresses are aligned), or writes zeros where `exists` is false; `from` is
// not read then. Done when the group that it was committed to has been waited for, and a barrier passed.
template <int bytes>
__device__ __forceinline__ void copy_async(void* shared, const void* from, bool exists) {
#if LEANCORE_SM80
  const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared));
  const int read = exists ? bytes : 0;
  if constexpr (bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(read) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(bytes), "r"(read)
                 : "memory");
  }
#else
  using Words = std::conditional_t<bytes == 16, uint4, std::conditional_t<bytes == 8, uint2, std::uint32_t> >;
  *static_cast<Words*>(shared) = exists ? *static_cast<const Words*>(from) : Words{};
#endif
}

// Closes the group of the thread's copies since the last commit.
__device__ __forceinline__ void commit_copies() {
#if LEANCORE_SM80
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `groups` of the thread's groups are unfinished.
template <int groups>
__device__ __forceinline__ void wait_for_copies() {
#if LEANCORE_SM80
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

// ---- 8 x 8 matrices of 16-bit elements from shared memory ---------------------------------------------------------
//
// Four of them; lane 8 i + r gives the address of row r (16 bytes) of matrix i. Lane 4 r + t gets the elements 2t and
// 2t + 1 of row r of matrix i in to[i]; transposed, of column r.
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], const void* row) {
#if defined(__CUDA_ARCH__)
  const auto from = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
#endif
}
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&to)[4], const void* row) {
#if defined(__CUDA_ARCH__)
  const auto from = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(from)
               : "memory");
#endif
}
// Two of them, of the lanes 0..15.
__device__ __forceinline__ void load_matrices_transposed(std::uint32_t (&to)[2], const void* row) {
#if defined(__CUDA_ARCH__)
  const auto from = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(to[0]), "=r"(to[1])
               : "r"(from)
               : "memory");
#endif
}

// ---- products of small matrices on tensor cores -------------------------------------------------------------------
//
// sum (16 x 8) += a (16 x 16) b (16 x 8), by a warp. With g = lane / 4 and t = lane % 4 a lane holds, two neighbouring
// columns k of a (rows k of b) to a word, the lower one in the lower half:
//
//   a[0] (g, 2t..)   a[1] (g + 8, 2t..)   a[2] (g, 8 + 2t..)   a[3] (g + 8, 8 + 2t..)
//   b[0] (2t.., g)   b[1] (8 + 2t.., g)
//   sum[0] (g, 2t)   sum[1] (g, 2t + 1)   sum[2] (g + 8, 2t)   sum[3] (g + 8, 2t + 1)
template <typename T>
__device__ __forceinline__ void multiply_add(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                             std::uint32_t b1) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
#if LEANCORE_SM80
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#elif defined(__CUDA_ARCH__)
  if constexpr (std::is_same_v<T, __half>) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b0));
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[2]), "r"(a[3]), "r"(b1));
  } else {
    __trap();
  }
#endif
}

// ---- the same of TF32 numbers -------------------------------------------------------------------------------------
//
// TF32: fp32 with 11 significant bits. The lower 13 bits of a word are ignored.

// The nearest; ties away from zero. NaN stays NaN.
__device__ __forceinline__ std::uint32_t round_to_tf32(float x) {
  std::uint32_t rounded = 0;
#if LEANCORE_SM80
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(x));
#endif
  return rounded;
}

// sum (16 x 8) += a (16 x 8) b (8 x 8), by a warp, with sum as above and
//
//   a[0] (g, t)   a[1] (g + 8, t)   a[2] (g, t + 4)   a[3] (g + 8, t + 4)   b0 (t, g)   b1 (t + 4, g)
__device__ __forceinline__ void multiply_add_tf32(float (&sum)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                                  std::uint32_t b1) {
#if LEANCORE_SM80
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif defined(__CUDA_ARCH__)
  __trap();
#endif
}

}  // namespace leancore::detail::cuda
