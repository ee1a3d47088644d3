#include "cpu/plan.hpp"

#include <algorithm>
#include <limits>

namespace leancore::detail::cpu {
namespace {

constexpr std::int64_t cache_bytes = 320 * 1024;  // what a tile may take of a core's second-level cache

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
std::int64_t round_up(std::int64_t a, std::int64_t b) {
  return ceil_div(a, b) * b;
}

// An odd number of 64-byte lines: rows of equal position then spread over all cache sets.
std::int64_t spread_row(std::int64_t elements, std::int64_t element_size) {
  const std::int64_t line = 64 / element_size;
  const std::int64_t lines = ceil_div(elements, line);
  return (lines | 1) * line;
}

// Tiles that a thread holds at once. Along the innermost walked axis it marches and keeps what it will read again;
// along others, neighbours are packed anew.
int slots_needed(const Problem& p, int slice_axis) {
  int slots = 1;
  for (int axis = 1; axis < slice_axis; ++axis) {
    std::int64_t lowest = 0, highest = 0;
    over_taps(p, [&](const GridTap& tap) {
      if (tap.axis != axis) return;
      lowest = std::min(lowest, tap.shift);
      highest = std::max(highest, tap.shift);
    });
    const bool marched = axis == slice_axis - 1;
    slots += marched ? static_cast<int>(highest - lowest) : (lowest < 0 ? 1 : 0) + (highest > 0 ? 1 : 0);
  }
  return slots;
}

// Work per position in units of a vector multiply-add, for choosing among ways to cut; only the order matters.
double cost(const Problem& p, std::int64_t depth, std::int64_t run, std::int64_t halo, int walked_axes,
            std::int64_t vector, bool weight) {
  const double pixels = static_cast<double>(run), c_in = static_cast<double>(depth);
  const double packed =
      c_in * (pixels + static_cast<double>(halo)) / pixels * (walked_axes > 1 ? 2.0 * walked_axes - 1.0 : 1.0);
  // Once per tile alpha is read, or every sum of dalpha is added up across its vector and to those of other tiles.
  const double per_weight = weight ? 4.0 : 0.3;
  const double weights = c_in * static_cast<double>(p.c_out) / pixels;
  const double filled = static_cast<double>(round_up(run, 2 * vector)) / pixels;
  const double products = (c_in + p.columns()) * static_cast<double>(p.c_out) / static_cast<double>(vector);
  return 0.8 * packed + per_weight * weights + filled * products;
}

}  // namespace

Plan make_plan(const Problem& p, std::int64_t element_size, std::int64_t vector, Work work,
               std::int64_t channels_per_element) {
  Plan best;
  const std::int64_t total = p.positions();
  if (total == 0) return best;
  const bool weight = work != Work::out;
  const auto rows_of = [&](std::int64_t channels) { return ceil_div(channels, channels_per_element); };

  // Lanes bound the parallelism of weight gradients; each costs a pass over a matrix of partial sums.
  std::int64_t lanes = 1;
  while (weight && lanes < 32 && total / (2 * lanes) >= 256) lanes *= 2;

  // Long runs amortise what is done once per tile (for weight gradients: the sums across a vector); enough tiles keep
  // every core busy.
  const std::int64_t longest =
      weight ? std::clamp<std::int64_t>(total / lanes, 64, 1024) : std::clamp<std::int64_t>(total / 16, 64, 512);
  const std::int64_t channels =
      std::max<std::int64_t>(1, rows_of(p.c_in) + (p.plane_count - 1) * rows_of(p.diagonal()) + (weight ? p.c_out : 0));
  const std::int64_t budget = std::max<std::int64_t>(1, (weight ? 4 : 1) * cache_bytes / (channels * element_size));

  double best_cost = std::numeric_limits<double>::infinity();
  for (int axis = 0; axis <= p.dims; ++axis) {
    const std::int64_t inner = p.inner_positions(axis);
    std::int64_t before = 0, after = 0;
    over_taps(p, [&](const GridTap& tap) {
      if (tap.axis != axis) return;
      before = std::max(before, -tap.shift);
      after = std::max(after, tap.shift);
    });
    const std::int64_t halo = (before + after) * inner;
    const int walked_axes = std::max(0, axis - 1);
    const int slots = slots_needed(p, axis);
    // Images of several planes are far more memory than positions; without a halo, few at once lose nothing.
    const bool images = !weight && axis == 0;
    const std::int64_t longest_here =
        images && p.plane_count > 1 ? std::min(longest, std::max<std::int64_t>(inner, 256)) : longest;
    const std::int64_t fitting = (std::min(longest_here, budget / slots - halo)) / inner;
    if (fitting < 1 && axis < p.dims) continue;
    const std::int64_t most = std::clamp<std::int64_t>(fitting, 1, p.axis_extent(axis));
    std::int64_t slices = ceil_div(p.axis_extent(axis), most);
    // An odd number of few slices leaves threads without work.
    if (images && slices > 1 && slices < 16 && slices % 2 == 1) slices *= 2;
    std::int64_t rows = ceil_div(p.axis_extent(axis), slices);
    if (inner == 1) rows = std::min(round_up(rows, vector), p.axis_extent(axis));  // parts of lines end with a vector
    const double this_cost =
        cost(p, rows_of(p.c_in), rows * inner, slices == 1 ? 0 : halo, walked_axes, vector, weight);
    if (this_cost >= best_cost) continue;
    best_cost = this_cost;
    best.slice_axis = axis;
    best.inner = inner;
    best.rows = rows;
    best.slices = ceil_div(p.axis_extent(axis), rows);
    best.before = before;
    best.after = after;
    best.slots = slots;
  }

  best.run = best.rows * best.inner;
  const std::int64_t line = 64 / element_size;
  // The farthest neighbour within a slot.
  std::int64_t reach = 0;
  over_taps(p, [&](const GridTap& tap) {
    if (tap.axis >= best.slice_axis) {
      reach = std::max(reach, (tap.shift < 0 ? -tap.shift : tap.shift) * p.inner_positions(tap.axis));
    }
  });
  best.margin = round_up(reach, line);
  best.row_length = spread_row(best.margin + round_up(best.run, 2 * vector) + best.margin + 2 * vector, element_size);
  for (int plane = 0; plane < p.plane_count; ++plane) {
    best.plane_start[plane] = best.slot_size;
    best.slot_size += best.row_length * rows_of(plane == 0 ? p.c_in : p.diagonal());
  }
  best.out_row_length = spread_row(best.run + vector, element_size);

  best.walk = 1;
  for (int axis = 0; axis < best.slice_axis; ++axis) best.walk *= p.axis_extent(axis);
  best.march = best.slots > 1;
  // A thread that begins a march packs the neighbours again, so marches are as long as a few dozen units allow;
  // otherwise successive tiles let each one fetch the next.
  best.chunk = best.march ? std::clamp<std::int64_t>(best.walk * best.slices / 32, 4, 64)
                          : std::clamp<std::int64_t>(best.walk * best.slices / 64, 1, 8);
  best.units =
      best.march ? ceil_div(best.walk, best.chunk) * best.slices : ceil_div(best.walk * best.slices, best.chunk);

  while (lanes > best.units) lanes /= 2;
  best.lanes = lanes;
  best.many_tiles = best.walk * best.slices / lanes > 8;
  return best;
}

}  // namespace leancore::detail::cpu
