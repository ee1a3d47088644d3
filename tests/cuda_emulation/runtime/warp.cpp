#include "warp.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "memory.hpp"
#include "numbers.hpp"

namespace emulation {

namespace {

template <typename Visit>
void for_each_lane(u32 mask, Visit visit) {
  for (u32 lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) visit(lane);
  }
}

}  // namespace

void warp_barrier(Thread& t, u32 mask, Site site) {
  t.block->meet(
      t, mask, false, nullptr,
      [](Block& block, u32 warp, u32 lanes, void* const*) { block.order().warp_barrier(warp, lanes); }, site);
}

// -- exchanges

namespace {

struct ShuffleState {
  Shuffle mode;
  u32 value, lane, clamp;
  u32 source;  // the lane read from
  Shuffled result;
};

void shuffle_lanes(Block&, u32, u32 mask, void* const* payloads) {
  for_each_lane(mask, [&](u32 lane) {
    auto& s = *static_cast<ShuffleState*>(payloads[lane]);
    const u32 segment = s.clamp >> 8 & 31, b = s.lane & 31, c = s.clamp & 31;
    const u32 highest = (lane & segment) | (c & ~segment), lowest = lane & segment;
    const int from = s.mode == Shuffle::up     ? static_cast<int>(lane) - static_cast<int>(b)
                     : s.mode == Shuffle::down ? static_cast<int>(lane + b)
                     : s.mode == Shuffle::bfly ? static_cast<int>(lane ^ b)
                                               : static_cast<int>(lowest | (b & ~segment));
    // For `up` the clamp gives the lowest lane, not the highest.
    s.result.in_range = s.mode == Shuffle::up ? from >= static_cast<int>(highest) : from <= static_cast<int>(highest);
    s.source = s.result.in_range ? static_cast<u32>(from) : lane;
    if (mask >> s.source & 1) s.result.value = static_cast<ShuffleState*>(payloads[s.source])->value;
  });
}

}  // namespace

Shuffled shuffle(Thread& t, Shuffle mode, u32 mask, u32 value, u32 lane, u32 clamp, Site site) {
  ShuffleState state{mode, value, lane, clamp, 0, {}};
  const u32 there = mask & t.block->lanes_alive(t.warp);
  t.block->meet(t, mask, false, &state, shuffle_lanes, site);
  if ((there >> state.source & 1) == 0) {
    t.block->fail(t, Defect::collective, "shuffle from lane " + std::to_string(state.source) + ", which takes no part",
                  site);
  }
  return state.result;
}

namespace {

struct VoteState {
  bool condition;
  Votes result;
};

void count_votes(Block&, u32, u32 mask, void* const* payloads) {
  u32 yes = 0;
  for_each_lane(mask, [&](u32 lane) { yes |= u32{static_cast<VoteState*>(payloads[lane])->condition} << lane; });
  for_each_lane(mask, [&](u32 lane) { static_cast<VoteState*>(payloads[lane])->result = {mask, yes}; });
}

struct MatchState {
  u64 value;
  Matched result;
};

void match_values(Block&, u32, u32 mask, void* const* payloads) {
  for_each_lane(mask, [&](u32 lane) {
    auto& own = *static_cast<MatchState*>(payloads[lane]);
    own.result = {mask, 0};
    for_each_lane(mask, [&](u32 other) {
      own.result.equal |= u32{static_cast<MatchState*>(payloads[other])->value == own.value} << other;
    });
  });
}

struct GatherState {
  u32 value;
  Gathered* all;
};

void gather_values(Block&, u32, u32 mask, void* const* payloads) {
  Gathered all{mask, {}};
  for_each_lane(mask, [&](u32 lane) { all.values[lane] = static_cast<GatherState*>(payloads[lane])->value; });
  for_each_lane(mask, [&](u32 lane) { *static_cast<GatherState*>(payloads[lane])->all = all; });
}

}  // namespace

Votes vote(Thread& t, u32 mask, bool condition, Site site) {
  VoteState state{condition, {}};
  t.block->meet(t, mask, false, &state, count_votes, site);
  return state.result;
}

Matched match(Thread& t, u32 mask, u64 value, Site site) {
  MatchState state{value, {}};
  t.block->meet(t, mask, false, &state, match_values, site);
  return state.result;
}

void gather(Thread& t, u32 mask, u32 value, Gathered& all, Site site) {
  GatherState state{value, &all};
  t.block->meet(t, mask, false, &state, gather_values, site);
}

// -- matrices

namespace {

struct LoadState {
  const unsigned char* row;
  u32 words[4];
};

template <u32 count, bool transposed>
void load_lanes(Block&, u32, u32, void* const* payloads) {
  for (u32 matrix = 0; matrix < count; ++matrix) {
    u16 elements[8][8];
    for (u32 row = 0; row < 8; ++row) {
      std::memcpy(elements[row], static_cast<LoadState*>(payloads[8 * matrix + row])->row, 16);
    }
    for (u32 lane = 0; lane < 32; ++lane) {
      const u32 major = lane / 4, minor = lane % 4 * 2;
      const u16 low = transposed ? elements[minor][major] : elements[major][minor];
      const u16 high = transposed ? elements[minor + 1][major] : elements[major][minor + 1];
      static_cast<LoadState*>(payloads[lane])->words[matrix] = low | u32{high} << 16;
    }
  }
}

}  // namespace

template <u32 count, bool transposed>
std::array<u32, count> load_matrices(Thread& t, u64 row_address, Site site) {
  LoadState state{};
  if (t.lane < 8 * count) state.row = read_shared<16>(t, row_address, site);
  t.block->meet(t, ~0u, true, &state, load_lanes<count, transposed>, site);
  std::array<u32, count> words;
  std::copy_n(state.words, count, words.begin());
  return words;
}
template std::array<u32, 1> load_matrices<1, false>(Thread&, u64, Site);
template std::array<u32, 1> load_matrices<1, true>(Thread&, u64, Site);
template std::array<u32, 2> load_matrices<2, false>(Thread&, u64, Site);
template std::array<u32, 2> load_matrices<2, true>(Thread&, u64, Site);
template std::array<u32, 4> load_matrices<4, false>(Thread&, u64, Site);
template std::array<u32, 4> load_matrices<4, true>(Thread&, u64, Site);

namespace {

struct Fragments {
  f32* d;
  const u32 *a, *b;
};

// An f32 whose magnitude is that of the sum or just below.
f32 cut_off(f64 sum) {
  const f32 near = static_cast<f32>(sum);
  const bool too_large = std::fabs(static_cast<f64>(near)) > std::fabs(sum) && std::isfinite(near);
  return std::bit_cast<f32>(std::bit_cast<u32>(near) - u32{too_large});
}

// A 32-bit word of a fragment holds one tf32 or two halves of neighbouring k.
struct TF32Word {
  static constexpr u32 elements = 1, added_at_once = 4;
  static f32 value(u32 word, u32) { return std::bit_cast<f32>(word & 0xffffe000u); }
};
template <typename F>
struct HalfWord {
  static constexpr u32 elements = 2, added_at_once = 8;
  static f32 value(u32 word, u32 i) { return half_value<F>(static_cast<u16>(word >> 16 * i)); }
};

// Lane l = 4 g + t holds, with e elements in a word and w = 4 e of k in a row of words:
//   a[0], a[1], a[2], a[3]: rows g, g + 8, g, g + 8 at k = e t + i, the last two w further;
//   b[0], b[1]: column g at k = e t + i, the last w further;
//   c, d: rows g, g, g + 8, g + 8 at columns 2 t, 2 t + 1, 2 t, 2 t + 1.
template <typename Word, u32 k_extent>
void multiply_lanes(Block&, u32, u32, void* const* payloads) {
  constexpr u32 e = Word::elements, w = 4 * e;
  f64 a[16][k_extent], b[k_extent][8], d[16][8];
  for (u32 lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const Fragments*>(payloads[lane]);
    const u32 g = lane / 4, t = lane % 4;
    for (u32 part = 0; part < k_extent / w; ++part) {
      for (u32 i = 0; i < e; ++i) {
        const u32 k = part * w + e * t + i;
        a[g][k] = Word::value(own.a[2 * part], i);
        a[g + 8][k] = Word::value(own.a[2 * part + 1], i);
        b[k][g] = Word::value(own.b[part], i);
      }
    }
    for (u32 i = 0; i < 4; ++i) d[g + i / 2 * 8][2 * t + i % 2] = own.d[i];
  }
  for (u32 row = 0; row < 16; ++row) {
    for (u32 first = 0; first < k_extent; first += Word::added_at_once) {
      const u32 end = std::min(first + Word::added_at_once, k_extent);
      for (u32 k = first; k < end; ++k) {
        for (u32 column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
      }
      for (u32 column = 0; column < 8; ++column) d[row][column] = cut_off(d[row][column]);
    }
  }
  for (u32 lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const Fragments*>(payloads[lane]);
    const u32 g = lane / 4, t = lane % 4;
    for (u32 i = 0; i < 4; ++i) own.d[i] = static_cast<f32>(d[g + i / 2 * 8][2 * t + i % 2]);
  }
}

template <typename Word, u32 k_extent>
void multiply(Thread& t, f32* d, const u32* a, const u32* b, Site site) {
  Fragments fragments{d, a, b};
  t.block->meet(t, ~0u, true, &fragments, multiply_lanes<Word, k_extent>, site);
}

}  // namespace

void mma_m16n8k16_f16(Thread& t, f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], Site site) {
  multiply<HalfWord<F16>, 16>(t, d, a, b, site);
}
void mma_m16n8k16_bf16(Thread& t, f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], Site site) {
  multiply<HalfWord<BF16>, 16>(t, d, a, b, site);
}
void mma_m16n8k8_f16(Thread& t, f32 (&d)[4], const u32 (&a)[2], const u32 (&b)[1], Site site) {
  multiply<HalfWord<F16>, 8>(t, d, a, b, site);
}
void mma_m16n8k8_bf16(Thread& t, f32 (&d)[4], const u32 (&a)[2], const u32 (&b)[1], Site site) {
  multiply<HalfWord<BF16>, 8>(t, d, a, b, site);
}
void mma_m16n8k8_tf32(Thread& t, f32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2], Site site) {
  multiply<TF32Word, 8>(t, d, a, b, site);
}
void mma_m16n8k4_tf32(Thread& t, f32 (&d)[4], const u32 (&a)[2], const u32 (&b)[1], Site site) {
  multiply<TF32Word, 4>(t, d, a, b, site);
}

}  // namespace emulation
