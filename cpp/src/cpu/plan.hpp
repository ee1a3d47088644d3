// How a call on channels-first arrays is cut into tiles that fit the cache. Depends on the shape alone, never on the
// number of threads.
//
// One axis of the grid, the slice axis, is cut into slices of `rows` steps. Axes inside it are taken whole, so the
// positions of a tile form one run of up to `run` = rows * inner positions in row-major order, and a neighbour along
// an inner axis lies at a fixed distance in that run. Axes outside it are walked: a neighbour along one of them lies in
// another tile, in another slot of the packed buffer.
//
//   slice axis 0          several whole images, no halo                 small maps
//   slice axis 1 of 2-D   `rows` image rows plus a halo each side       many channels
//   slice axis 2 of 2-D   one image row (or a part), marching down      few channels: every row is packed once
//
// A slot holds the planes of one tile, each [channel][margin | run | margin], positions contiguous, with a row length
// that keeps the channels apart in the cache. Planes past the first, which only taps read, have no more channels than
// the stencil. Neighbours that do not exist are masked, never stored. Paired bf16: a row for every two channels.
#pragma once

#include <cstdint>

#include "cpu/problem.hpp"

namespace leancore::detail::cpu {

inline constexpr int max_slots = 1 + 2 * longest_shift + 2 * (max_dims - 2);

struct Plan {
  int slice_axis = 0;
  std::int64_t inner = 0;  // positions in one step along the slice axis
  std::int64_t rows = 0;   // steps in a slice; the last slice may have fewer
  std::int64_t slices = 0;
  std::int64_t run = 0;                         // rows * inner
  std::int64_t before = 0, after = 0;           // halo: steps along the slice axis on either side of a slice
  std::int64_t margin = 0;                      // elements before and after the run in a packed row
  std::int64_t row_length = 0;                  // distance of two channels in a slot
  std::int64_t plane_start[1 + max_taps] = {};  // elements from the start of a slot
  std::int64_t slot_size = 0;                   // elements
  int slots = 0;
  std::int64_t walk = 0;   // positions of all axes outside the slice axis
  std::int64_t chunk = 0;  // successive tiles in one unit of work
  std::int64_t units = 0;
  bool march = false;  // a unit is a slice at successive positions of the walk, else successive tiles in memory order

  // backward_weight: units are dealt in order to `lanes`, each with partial sums of its own.
  std::int64_t lanes = 0;
  bool many_tiles = false;          // in a lane: what additions of their sums lose is kept
  std::int64_t out_row_length = 0;  // the packed other side: [channel][run], no margins
};

// vector: elements per vector register; a tile may be read that much past its end. A packed element holds so many
// channels.
Plan make_plan(const Problem& problem, std::int64_t element_size, std::int64_t vector, Work work,
               std::int64_t channels_per_element = 1);

}  // namespace leancore::detail::cpu
