// What the lanes of a warp compute together.
#pragma once

#include <array>

#include "block.hpp"

namespace emulation {

void warp_barrier(Thread& t, u32 mask, Site site);

enum class Shuffle { idx, up, down, bfly };
struct Shuffled {
  u32 value;
  bool in_range;
};
// shfl.sync; a value of a lane that takes no part is a defect.
Shuffled shuffle(Thread& t, Shuffle mode, u32 mask, u32 value, u32 lane, u32 clamp, Site site);

struct Votes {
  u32 lanes, yes;
};
Votes vote(Thread& t, u32 mask, bool condition, Site site);

struct Matched {
  u32 lanes, equal;
};
Matched match(Thread& t, u32 mask, u64 value, Site site);

// All values of the mask's lanes, for redux.sync.
struct Gathered {
  u32 lanes;
  std::array<u32, 32> values;
};
void gather(Thread& t, u32 mask, u32 value, Gathered& all, Site site);

template <typename T, typename Operation>
T reduce(Thread& t, u32 mask, T value, Site site) {
  Gathered all;
  gather(t, mask, static_cast<u32>(value), all, site);
  bool first = true;
  T result{};
  for (u32 lane = 0; lane < 32; ++lane) {
    if ((all.lanes >> lane & 1) == 0) continue;
    const T other = static_cast<T>(all.values[lane]);
    result = first ? other : Operation::apply(result, other);
    first = false;
  }
  return result;
}

// ldmatrix: `count` matrices of 8 x 8 halves; lane l gives the address of row l % 8 of matrix l / 8.
template <u32 count, bool transposed>
std::array<u32, count> load_matrices(Thread& t, u64 row_address, Site site);

// mma.sync with the fragments of one lane; d holds c and becomes a b + c. As on real tensor cores, products are exact,
// a few of them (8 halves, 4 tf32) are added at once, and the sum is cut off, not rounded, to f32.
void mma_m16n8k16_f16(Thread& t, f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], Site site);
void mma_m16n8k16_bf16(Thread& t, f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], Site site);
void mma_m16n8k8_f16(Thread& t, f32 (&d)[4], const u32 (&a)[2], const u32 (&b)[1], Site site);
void mma_m16n8k8_bf16(Thread& t, f32 (&d)[4], const u32 (&a)[2], const u32 (&b)[1], Site site);
void mma_m16n8k8_tf32(Thread& t, f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], Site site);
void mma_m16n8k4_tf32(Thread& t, f32 (&d)[4], const u32 (&a)[2], const u32 (&b)[1], Site site);

}  // namespace emulation
