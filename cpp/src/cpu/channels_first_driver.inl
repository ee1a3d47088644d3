// Channels-first arrays: which tiles, in which order, on which thread. Included once per instruction set, after the
// pieces it drives.
//
// Packed are numbers of the type that is computed with, or, where pairs of bf16 are multiplied at once, channels 2k and
// 2k + 1 of a position in one element, for Work::out of lines without gaps; or elements as they are in memory, whose
// positions 2k and 2k + 1 make a pair, for Work::weight.
enum class Packing { numbers, channel_pairs, elements };

template <typename E, Packing packing = Packing::numbers>
class ChannelsFirst {
 public:
  using Element = E;
  using T = compute_type<E>;
  using S = Simd<T>;
  using P = std::conditional_t<packing == Packing::elements, E, T>;  // of a packed element
  static constexpr bool writes_out = packing != Packing::elements;
  static constexpr bool sums_weights = packing != Packing::channel_pairs;
  using mask_entry = typename S::mask_entry;

  static std::size_t workspace_bytes(Operation operation, const ConvDesc& desc, int threads) {
    ChannelsFirst sizing(operation, desc);
    Arena arena(nullptr);
    sizing.lay_out(arena, threads);
    return arena.used();
  }

  ChannelsFirst(Operation operation, const ConvDesc& desc, void* workspace, int threads)
      : ChannelsFirst(operation, desc) {
    Arena arena(workspace);
    lay_out(arena, threads);
    threads_ = threads;
    fill_lines();
    fill_picks();
    fill_masks();
  }

  void forward(const E* in, const E* alpha, const E* c, const E* bias, E* out) {
    in_ = in;
    begin_out(alpha, c, bias, out);
    parallel_for(plan_.units, threads_, [&](std::int64_t unit, int thread) {
      walk(unit, thread, [&](const Step& step) { out_tile(step); });
      if (stream_) S::fence();
    });
  }

  void backward_weight(const E* x, const E* dy, E* dalpha, E* dc) {
    in_ = x;
    other_ = dy;
    over_lanes([&](const Step& step, const PartialSums<T>& sums) {
      std::int64_t dy_row = 0;
      const P* dy_tile = other_tile(step, dy_row);
      WeightTile<P> tile{step.x, plan_.row_length, dy_tile, dy_row, step.positions, sums, {}};
      if (dalpha) add_dalpha_tile(tile, step, p_.c_out, p_.c_in);
      if (dc) {
        add_dc(sums, dy_tile, dy_row, step.x, plan_.row_length, step.positions, step.taps[0], p_.diagonal(),
               p_.columns(), sums.base + p_.c_in * p_.c_out);
      }
    });
    finish_weights(dalpha, dc, p_.c_out, p_.c_in);
  }

  // dx, dalpha and dc from one read of x and dy. The problem is that of backward_data, with one phase.
  void backward(const E* x, const E* dy, const E* alpha, const E* c, E* dx, E* dalpha, E* dc) {
    in_ = dy;
    other_ = x;
    begin_out(alpha, c, nullptr, dx);
    over_lanes([&](const Step& step, const PartialSums<T>& sums) {
      out_tile(step);
      std::int64_t x_row = 0;
      const P* x_tile = other_tile(step, x_row);
      WeightTile<P> tile{x_tile, x_row, step.x, plan_.row_length, step.positions, sums, {}};
      if (dalpha) add_dalpha_tile(tile, step, p_.c_in, p_.c_out);
      if (dc) {
        add_dc(sums, x_tile, x_row, step.x, plan_.row_length, step.positions, step.taps[0], p_.diagonal(), p_.columns(),
               sums.base + p_.c_in * p_.c_out);
      }
    });
    finish_weights(dalpha, dc, p_.c_in, p_.c_out);
  }

 private:
  static constexpr bool paired = packing == Packing::channel_pairs;
  static constexpr std::int64_t each = channels_per_element<paired>;
  static constexpr std::int64_t packed_width = LEANCORE_VECTOR_BYTES / sizeof(P);
  [[nodiscard]] std::int64_t depth() const { return (p_.c_in + each - 1) / each; }

  // One tile, packed.
  struct Step {
    const P* x;  // plane 0, channel 0, first position of the run
    std::int64_t positions;
    std::int64_t rows;
    std::int64_t first_row;         // along the slice axis
    std::int64_t at[max_dims + 1];  // of the axes outside
    std::int64_t out_offset;        // of the first position, in `out` or the other side
    int thread;
    TapList<T> taps[1 + max_taps];  // by phase
    Prefetch next, next_other;
  };

  ChannelsFirst(Operation operation, const ConvDesc& desc)
      : d_(desc),
        p_(make_problem(operation, desc)),
        work_(work_of(operation)),
        other_side_(other_side_of(operation, desc, p_)),
        plan_(make_plan(p_, sizeof(P), packed_width, work_, each)) {
    over_taps(p_, [&](const GridTap& tap) {
      if (tap.axis == plan_.slice_axis) {
        before_[tap.plane] = std::max(before_[tap.plane], -tap.shift);
        after_[tap.plane] = std::max(after_[tap.plane], tap.shift);
      } else if (tap.axis == plan_.slice_axis - 1) {
        reach_ahead_ = std::max(reach_ahead_, tap.shift);
      }
    });
  }

  // Tables of a plane with short lines.
  struct PickRoom {
    Pick<T>* picks = nullptr;
    PickedVector<T>* vectors = nullptr;
  };
  struct RowPicks {
    PickRoom room;
    Picks<T> picks;
  };

  // ---- memory ----

  void lay_out(Arena& arena, int threads) {
    const std::int64_t padded = plan_.run + 4 * S::width, lines = plan_.inner;
    mask_length_ = S::mask_entries(padded);
    masks_ = arena.take<mask_entry>(p_.columns() * mask_length_);
    slice_masks_ = arena.take<mask_entry>(threads * 2 * mask_length_);
    for (int i = 0; i < p_.plane_count + 1; ++i) {
      line_from_[i] = arena.take<std::int64_t>(lines);
      line_to_[i] = arena.take<std::int64_t>(lines);
    }
    for (int i = 0; i < p_.plane_count; ++i) {
      if (!has_short_lines(p_.planes[i])) continue;
      for (const std::int64_t rows : {rows_at_once(), std::int64_t{1}}) {
        PickRoom& room = rows == 1 ? one_[i].room : several_[i].room;
        room.picks = arena.take<Pick<T>>(most_picks(rows));
        room.vectors = arena.take<PickedVector<T>>((rows * plan_.inner + S::width - 1) / S::width);
      }
    }
    slots_ = arena.take<P>(threads * plan_.slots * plan_.slot_size);
    if (work_ != Work::out) {
      other_tile_ = arena.take<P>(threads * other_side_.channels * plan_.out_row_length);
      const std::int64_t sums = p_.c_in * p_.c_out + p_.diagonal() * p_.columns();
      lost_ = plan_.many_tiles ? sums : 0;
      partial_size_ = sums + lost_;
      partial_ = arena.take<T>(plan_.lanes * partial_size_);
    }
    if (work_ != Work::weight) {
      alpha_ = arena.take<T>(depth() * p_.c_out);
      c_ = arena.take<T>(p_.diagonal() * p_.columns());
      bias_ = arena.take<T>(p_.c_out);
      places_ = arena.take<Place>(p_.phase_count * (padded / S::width + 1));
      position_places_ = arena.take<std::int64_t>(p_.phase_count * padded);
    }
  }
  [[nodiscard]] Place* places(int phase) const { return places_ + phase * ((plan_.run + 4 * S::width) / S::width + 1); }
  [[nodiscard]] std::int64_t* position_places(int phase) const {
    return position_places_ + phase * (plan_.run + 4 * S::width);
  }

  // ---- tables, made once per call ----

  // Advances a position of the axes inside the slice axis, the last one left out if `lines_only`.
  void step_inner(std::int64_t* at, bool lines_only) const {
    for (int axis = p_.dims - (lines_only ? 1 : 0); axis > plan_.slice_axis; --axis) {
      if (++at[axis] < p_.axis_extent(axis)) return;
      at[axis] = 0;
    }
  }

  // Whether rows are runs of memory.
  [[nodiscard]] bool has_whole_rows(const Plane& plane, const std::int64_t* steps) const {
    std::int64_t step = 1;
    for (int inner = p_.dims; inner > plan_.slice_axis; --inner) {
      const std::int64_t extent = p_.axis_extent(inner);
      if (plane.begin[inner - 1] != 0 || plane.extents[inner - 1] != extent) return false;
      if (steps[inner] != step && extent != 1) return false;
      step *= extent;
    }
    return true;
  }

  // How rows of a plane (or of the other side) are copied.
  PackedShape shape_of(int table, const Plane& plane, const std::int64_t* steps) const {
    PackedShape shape = {};
    const int axis = plan_.slice_axis, last = p_.dims;
    shape.row_step = steps[axis];
    shape.inner = plan_.inner;
    shape.line_from = line_from_[table];
    shape.line_to = line_to_[table];
    const bool whole = has_whole_rows(plane, steps);
    shape.dense = whole && (steps[axis] == plan_.inner || p_.axis_extent(axis) == 1);
    if (axis == last) {  // rows of one position: a line along the slice axis; see with_rows
      shape.step = steps[axis];
    } else if (whole) {
      shape.lines = 1;
      shape.count = plan_.inner;
      shape.step = 1;
      line_from_[table][0] = line_to_[table][0] = 0;
    } else {
      const std::int64_t begin = plane.begin[last - 1];
      shape.count = std::max<std::int64_t>(0, plane.extents[last - 1] - begin);
      shape.step = steps[last];
      std::int64_t at[max_dims + 1] = {};
      for (std::int64_t to = 0; to < plan_.inner; to += p_.axis_extent(last), step_inner(at, true)) {
        std::int64_t from = begin * steps[last];
        bool exists = true;
        for (int inner = axis + 1; inner < last; ++inner) {
          exists = exists && at[inner] >= plane.begin[inner - 1] && at[inner] < plane.extents[inner - 1];
          from += at[inner] * steps[inner];
        }
        if (!exists) continue;
        line_from_[table][shape.lines] = from;
        line_to_[table][shape.lines++] = to + begin;
      }
    }
    return shape;
  }

  void fill_lines() {
    for (int i = 0; i < p_.plane_count; ++i) {
      shapes_[i] = shape_of(i, p_.planes[i], p_.in_steps);
      shapes_[i].channels = i == 0 ? p_.c_in : p_.diagonal();
      shapes_[i].channel_step = p_.in_channel;
      pairs_with_first_[i] = i > 0 && pairs(shapes_[0], shapes_[i]);
    }
    if (work_ == Work::out) return;
    Plane grid;
    std::copy_n(p_.extents, max_dims, grid.extents);
    other_shape_ = shape_of(p_.plane_count, grid, other_side_.steps);
    other_shape_.channels = other_side_.channels;
    other_shape_.channel_step = other_side_.channel_step;
    // Channels that nearly follow each other cannot crowd the same sets of the cache.
    const std::int64_t last_slice = slice_rows(plan_.slices - 1) * plan_.inner;
    other_in_place_ = other_shape_.dense && 0 < other_side_.channel_step && other_side_.channel_step <= 2 * plan_.run &&
                      plan_.run % packed_width == 0 && last_slice % packed_width == 0;
  }

  // Whether two planes have the same lines, of every second element.
  static bool pairs(const PackedShape& a, const PackedShape& b) {
    return sizeof(P) > 2 && S::width > 4 && a.step == 2 && b.step == 2 && !a.dense && !b.dense && a.lines == b.lines &&
           std::equal(a.line_from, a.line_from + a.lines, b.line_from) &&
           std::equal(a.line_to, a.line_to + a.lines, b.line_to);
  }

  [[nodiscard]] bool has_short_lines(const Plane& plane) const {
    const int last = p_.dims - 1;
    const std::int64_t count = plane.extents[last] - plane.begin[last];
    return packing == Packing::numbers && S::width > 4 && 0 < count && 4 * count <= S::width &&
           plan_.slice_axis < p_.dims && p_.in_strides[last] == 1 && !has_whole_rows(plane, p_.in_steps);
  }
  // As few as fill whole vectors.
  [[nodiscard]] std::int64_t rows_at_once() const {
    const std::int64_t rows = S::width / std::min(S::width, plan_.inner & -plan_.inner);
    return rows <= plan_.rows ? rows : 1;
  }
  // With less than two elements each, they would cost more than they save.
  [[nodiscard]] std::int64_t most_picks(std::int64_t rows) const { return rows * plan_.inner / 2; }

  void fill_picks() {
    for (int i = 0; i < p_.plane_count; ++i) {
      if (!has_short_lines(p_.planes[i])) continue;
      one_[i].picks = picks_of(p_.planes[i], 1, one_[i].room);
      several_[i].picks = rows_at_once() > 1 ? picks_of(p_.planes[i], rows_at_once(), several_[i].room) : Picks<T>();
      if (several_[i].picks.rows == 0) several_[i].picks = one_[i].picks;
    }
  }

  // Every element is read in an aligned vector of the dense block of memory that it lies in: a line, or as many inner
  // axes as follow each other without gaps.
  Picks<T> picks_of(const Plane& plane, std::int64_t rows, const PickRoom& room) const {
    int outer = p_.dims;
    std::int64_t block = p_.in_extents[outer - 1];
    while (outer - 1 > plan_.slice_axis && p_.in_strides[outer - 2] == block) block *= p_.in_extents[--outer - 1];

    PickedVector<T>* vectors = room.vectors;
    Pick<T>*first = room.picks, *end = room.picks;  // of the vector
    const auto finish = [&](std::int64_t to) {
      if (end != first) *vectors++ = {to, first, static_cast<int>(end - first)};
      first = end;
    };
    const std::int64_t positions = rows * plan_.inner;
    std::int64_t at[max_dims + 1] = {};
    for (std::int64_t to = 0; to < positions; ++to, step_inner(at, false)) {
      const std::int64_t lane = to % S::width;
      if (lane == 0 && to > 0) finish(to - S::width);
      std::int64_t from = to / plan_.inner * p_.in_steps[plan_.slice_axis];
      std::int64_t begin = from - (plane.axis >= outer ? plane.offset : 0);
      bool exists = true;
      for (int inner = plan_.slice_axis + 1; inner <= p_.dims; ++inner) {
        exists = exists && at[inner] >= plane.begin[inner - 1] && at[inner] < plane.extents[inner - 1];
        from += at[inner] * p_.in_steps[inner];
        if (inner < outer) begin += at[inner] * p_.in_steps[inner];
      }
      if (!exists) continue;
      begin += std::min((from - begin) / S::width * S::width, std::max<std::int64_t>(0, block - S::width));
      Pick<T>* pick = first;
      while (pick != end && pick->from != begin) ++pick;
      if (pick == end) {
        if (end - first == max_picks || end - room.picks == most_picks(rows)) return {};
        *end++ = Pick<T>();
        pick->from = begin;
      }
      pick->index[lane] = static_cast<int_like<T>>(from - begin);
      S::set_mask(pick->where, lane, true);
    }
    finish((positions - 1) / S::width * S::width);
    return {rows, std::min(S::width, block), room.vectors, vectors};
  }

  // For taps along inner axes: where in the run the neighbour exists.
  void fill_masks() {
    over_taps(p_, [&](const GridTap& tap) {
      if (tap.axis <= plan_.slice_axis) return;
      mask_entry* row = masks_ + tap.column * mask_length_;
      std::int64_t at[max_dims + 1] = {};
      for (std::int64_t q = 0; q < plan_.run; ++q, step_inner(at, false)) {
        S::set_mask(row, q, at[tap.axis] >= tap.begin && at[tap.axis] < tap.end);
      }
    });
  }

  void fill_places() {
    for (int i = 0; i < p_.phase_count; ++i) {
      std::int64_t* to = position_places(i);
      std::int64_t at[max_dims + 1] = {};
      const int axis = plan_.slice_axis;
      for (std::int64_t q = 0; q < plan_.run; ++q, step_inner(at, false)) {
        to[q] = q / plan_.inner * p_.out_steps[axis];
        bool exists = true;
        for (int inner = axis + 1; inner <= p_.dims; ++inner) {
          to[q] += at[inner] * p_.out_steps[inner];
          exists = exists && at[inner] < p_.phases[i].extents[inner - 1];
        }
        if (!exists) to[q] = no_place;
      }
      for (std::int64_t first = 0; first < plan_.run; first += S::width) {
        places(i)[first / S::width] = place_of(to + first, std::min(S::width, plan_.run - first));
      }
    }
  }

  static Place place_of(const std::int64_t* to, std::int64_t count) {
    for (std::int64_t lane = 0; lane < count; ++lane) {
      if (to[lane] == no_place) return {0, 0, 0};
    }
    bool every_second = count == S::width;
    for (std::int64_t lane = 1; lane < count; ++lane) every_second = every_second && to[lane] == to[0] + 2 * lane;
    if (every_second) return {to[0], 0, -1};
    std::int64_t split = 1;
    while (split < count && to[split] == to[0] + split) ++split;
    if (split == count) return {to[0], 0, S::width};
    for (std::int64_t lane = split; lane < count; ++lane) {
      if (to[lane] != to[split] + lane - split) return {0, 0, 0};
    }
    return {to[0], to[split] - split, split};
  }

  void begin_out(const E* alpha, const E* c, const E* bias, E* out) {
    out_ = out;
    fill_places();
    pack_panels([&](std::int64_t first, std::int64_t rows, bool stencil) {
      T* alpha_to = alpha_ + first * depth();
      for (std::int64_t k = 0; k < depth(); ++k) {
        for (std::int64_t o = first; o < first + rows; ++o) {
          *alpha_to++ = packed_weight<paired>(alpha + o * p_.alpha_out, p_.alpha_in, k, p_.c_in);
        }
      }
      T* c_to = c_ + first * p_.columns();
      for (int k = 0; stencil && k < p_.columns(); ++k) {
        for (std::int64_t j = first; j < first + rows; ++j) {
          *c_to++ = static_cast<T>(c[j * p_.c_channel + k * p_.c_tap]);
        }
      }
    });
    for (std::int64_t o = 0; o < p_.c_out; ++o) bias_[o] = bias ? static_cast<T>(bias[o * p_.bias_stride]) : T{};

    const auto aligned = [](std::int64_t elements) { return elements % S::width == 0; };
    stream_ = may_stream(p_, out) && aligned(p_.out_channel) && aligned(plan_.rows * p_.out_steps[plan_.slice_axis]);
    for (int axis = 0; axis < plan_.slice_axis; ++axis) stream_ = stream_ && aligned(p_.out_steps[axis]);
    for (std::int64_t v = 0; v < plan_.run / S::width; ++v) stream_ = stream_ && aligned(places(0)[v].first);
    claim_ = !stream_ && is_large(p_, out);
  }

  // ---- the walk over tiles ----

  [[nodiscard]] std::int64_t slice_rows(std::int64_t slice) const {
    return std::min(plan_.rows, p_.axis_extent(plan_.slice_axis) - slice * plan_.rows);
  }

  // Calls visit(step) for every tile of a unit.
  template <typename Visit>
  void walk(std::int64_t unit, int thread, Visit visit) {
    Window window(slots_ + thread * plan_.slots * plan_.slot_size, plan_);
    Step step;
    step.thread = thread;
    if (plan_.march) {
      const std::int64_t slice = unit % plan_.slices, begin = unit / plan_.slices * plan_.chunk;
      const std::int64_t end = std::min(plan_.walk, begin + plan_.chunk);
      for (std::int64_t position = begin; position < end; ++position) {
        prepare(step, window, position, slice);
        if (position + 1 < end) prefetch(step, position + 1, slice);
        visit(step);
      }
    } else {
      const std::int64_t end = std::min(plan_.walk * plan_.slices, (unit + 1) * plan_.chunk);
      for (std::int64_t tile = unit * plan_.chunk; tile < end; ++tile) {
        window.forget();
        prepare(step, window, tile / plan_.slices, tile % plan_.slices);
        // After the last one: the first of the unit that this thread most likely gets.
        const std::int64_t next = tile + 1 < end ? tile + 1 : (unit + threads_) * plan_.chunk;
        if (next < plan_.walk * plan_.slices) prefetch(step, next / plan_.slices, next % plan_.slices);
        visit(step);
      }
    }
  }

  template <typename Window>
  void prepare(Step& step, Window& window, std::int64_t position, std::int64_t slice) {
    const int axis = plan_.slice_axis;
    step.rows = slice_rows(slice);
    step.first_row = slice * plan_.rows;
    step.positions = step.rows * plan_.inner;
    step.next = step.next_other = Prefetch();
    step.out_offset = step.first_row * (work_ == Work::out ? p_.out_steps : other_side_.steps)[axis];
    std::int64_t strides[max_dims + 1] = {}, rest = position, stride = 1;
    for (int outer = axis - 1; outer >= 0; --outer) {
      step.at[outer] = rest % p_.axis_extent(outer);
      rest /= p_.axis_extent(outer);
      strides[outer] = stride;
      stride *= p_.axis_extent(outer);
      step.out_offset += step.at[outer] * (work_ == Work::out ? p_.out_steps : other_side_.steps)[outer];
    }

    std::int64_t wanted[max_slots] = {position};
    int count = 1;
    const auto neighbour = [&](const GridTap& tap) { return position + tap.shift * strides[tap.axis]; };
    const auto walked = [&](const GridTap& tap) { return tap.axis < axis; };
    const auto exists = [&](const GridTap& tap) {
      return !walked(tap) || (step.at[tap.axis] >= tap.begin && step.at[tap.axis] < tap.end);
    };
    over_taps(p_, [&](const GridTap& tap) {
      if (walked(tap) && exists(tap) && tap.shift != 0) wanted[count++] = neighbour(tap);
    });
    window.hold(wanted, count, [&](std::int64_t which, P* slot) { pack_tile(which, slice, slot); });

    P* slot = window.slot(position);
    step.x = slot + plan_.margin;
    for (int i = 0; i < p_.phase_count; ++i) {
      step.taps[i].count = 0;
      for (int t = 0; t < p_.phases[i].tap_count; ++t) {
        const GridTap& tap = p_.taps_of(p_.phases[i])[t];
        if (!exists(tap)) continue;
        const std::int64_t distance =
            walked(tap) ? window.slot(neighbour(tap)) - slot : tap.shift * p_.inner_positions(tap.axis);
        step.taps[i].taps[step.taps[i].count++] = {plan_.plane_start[tap.plane] + distance, mask_of(tap, step),
                                                   tap.column};
      }
    }
  }

  // Where in the tile the neighbour exists; null when everywhere.
  const mask_entry* mask_of(const GridTap& tap, const Step& step) const {
    if (tap.axis > plan_.slice_axis) return masks_ + tap.column * mask_length_;
    if (tap.axis < plan_.slice_axis) return nullptr;
    const std::int64_t begin = tap.begin - step.first_row, end = tap.end - step.first_row;
    if (begin <= 0 && end >= step.rows) return nullptr;
    mask_entry* row = slice_masks_ + (2 * step.thread + (tap.column < p_.dims ? 0 : 1)) * mask_length_;
    S::set_range(row, begin * plan_.inner, end * plan_.inner, step.positions);
    return row;
  }

  // The packed tiles that a thread holds, each in a slot.
  class Window {
   public:
    Window(P* base, const Plan& plan) : base_(base), plan_(plan) { forget(); }
    void forget() { std::fill_n(held_, max_slots, -1); }

    [[nodiscard]] P* slot(std::int64_t position) const {
      int s = 0;
      while (held_[s] != position) ++s;
      return base_ + s * plan_.slot_size;
    }

    // Makes all wanted positions present, packing the missing ones over those that are not wanted, oldest first.
    template <typename Fill>
    void hold(const std::int64_t* wanted, int count, Fill fill) {
      for (int i = 0; i < count; ++i) {
        if (std::find(held_, held_ + plan_.slots, wanted[i]) != held_ + plan_.slots) continue;
        int free = -1;
        for (int s = 0; s < plan_.slots; ++s) {
          if (std::find(wanted, wanted + count, held_[s]) != wanted + count) continue;
          if (free < 0 || held_[s] < held_[free]) free = s;
        }
        held_[free] = wanted[i];
        fill(wanted[i], base_ + free * plan_.slot_size);
      }
    }

   private:
    P* base_;
    const Plan& plan_;
    std::int64_t held_[max_slots];
  };

  // Elements of `in` from its origin to a position of the walk; false when the plane does not reach there.
  bool plane_offset(const Plane& plane, std::int64_t position, std::int64_t& offset) const {
    offset = plane.offset;
    for (int outer = plan_.slice_axis - 1; outer >= 0; --outer) {
      const std::int64_t at = position % p_.axis_extent(outer);
      position /= p_.axis_extent(outer);
      if (outer > 0 && (at < plane.begin[outer - 1] || at >= plane.extents[outer - 1])) return false;
      offset += at * p_.in_steps[outer];
    }
    return true;
  }

  // A slice at one position of the walk. Small images lie far apart: as many at once as fill whole vectors.
  void pack_tile(std::int64_t position, std::int64_t slice, P* slot) {
    const std::int64_t first = slice * plan_.rows, rows = slice_rows(slice);
    const std::int64_t most = plan_.slice_axis == 0 && one_[0].picks.rows > 0 ? several_[0].picks.rows : rows;
    for (std::int64_t row = 0; row < rows; row += most) {
      pack_rows(position, first + row, std::min(most, rows - row), slot + row * plan_.inner);
    }
  }

  // Rows of every plane, with the halo rows that exist. Channel by channel, since planes of a channel lie in the same
  // lines of memory.
  void pack_rows(std::int64_t position, std::int64_t first, std::int64_t rows, P* slot) {
    const int axis = plan_.slice_axis;
    struct Part {
      int plane;
      PackedShape shape;
      const E* from;
      P* to;
    };
    Part parts[1 + max_taps];
    int count = 0;
    std::int64_t step = each;
    for (int i = 0; i < p_.plane_count; ++i) {
      const Plane& plane = p_.planes[i];
      std::int64_t offset = 0;
      if (!plane_offset(plane, position, offset)) continue;
      const std::int64_t lowest = axis > 0 ? plane.begin[axis - 1] : 0;
      const std::int64_t highest = axis > 0 ? plane.extents[axis - 1] : p_.batch;
      const std::int64_t begin = std::max(lowest, first - before_[i]);
      const std::int64_t end = std::min(highest, first + rows + after_[i]);
      if (begin >= end) continue;
      parts[count++] = {i, with_rows(shapes_[i], end - begin), in_ + offset + begin * p_.in_steps[axis],
                        slot + plan_.plane_start[i] + plan_.margin + (begin - first) * plan_.inner};
      if (one_[i].picks.rows > 0) step = channels_at_once;
    }
    // A lattice between the positions of plane 0, along lines, is copied together with it.
    int between = 0;
    for (int i = 1; i < count; ++i) {
      const PackedShape &own = parts[0].shape, &other = parts[i].shape;
      const bool together = pairs_with_first_[parts[i].plane] && parts[0].plane == 0 && own.rows == other.rows &&
                            own.count == other.count && parts[i].from == parts[0].from + 1;
      if (together) between = i;
    }
    const std::int64_t channels_ahead = std::max<std::int64_t>(2, step);
    for (std::int64_t first_channel = 0; first_channel < p_.c_in; first_channel += step) {
      for (int i = 0; i < count; ++i) {
        const Part& part = parts[i];
        const std::int64_t end = std::min(first_channel + step, part.shape.channels);
        const E* from = part.from + first_channel * p_.in_channel;
        P* to = part.to + first_channel / each * plan_.row_length;
        if constexpr (packing == Packing::numbers) {
          if (one_[part.plane].picks.rows > 0 && first_channel < end) {
            // Planes off the positions along inner axes lie in the same small block of memory.
            const bool apart = p_.planes[part.plane].axis <= axis;
            const std::int64_t ahead = apart ? std::min(step, part.shape.channels - end) : 0;
            for (std::int64_t channel = 0; channel < ahead; ++channel) {
              fetch_channel(part.shape, from + (step + channel) * p_.in_channel);
            }
            pack_short_lines(part.shape, several_[part.plane].picks, one_[part.plane].picks, from, to, plan_.row_length,
                             end - first_channel);
            continue;
          }
        }
        if (i > 0 && i == between) continue;
        for (std::int64_t channel = first_channel; channel < end; channel += each) {
          for (std::int64_t ahead = channels_ahead; ahead < channels_ahead + each; ++ahead) {
            if (channel + ahead < part.shape.channels) fetch_channel(part.shape, from + ahead * p_.in_channel);
          }
          if constexpr (paired) {
            pack_two_channels(part.shape, PairOfRuns(from, p_.in_channel, channel + 1 < part.shape.channels), to);
          } else if (i == 0 && between > 0 && channel < parts[between].shape.channels) {
            if constexpr (sizeof(P) > 2) pack_pairs(part.shape, from, to, to + (parts[between].to - part.to));
          } else {
            pack_channel(part.shape, from, to);
          }
          from += each * p_.in_channel;
          to += plan_.row_length;
        }
      }
    }
  }

  PackedShape with_rows(PackedShape shape, std::int64_t rows) const {
    shape.rows = rows;
    if (plan_.slice_axis == p_.dims && !shape.dense) {
      static constexpr std::int64_t start = 0;
      shape.rows = shape.lines = 1;
      shape.line_from = shape.line_to = &start;
      shape.count = rows;
    }
    return shape;
  }

  // The other side's tile, and the distance of its channels.
  const P* other_tile(const Step& step, std::int64_t& row_length) {
    if constexpr (std::is_same_v<E, P>) {
      if (other_in_place_) {
        row_length = other_side_.channel_step;
        return other_ + step.out_offset;
      }
    }
    row_length = plan_.out_row_length;
    P* to = other_tile_ + step.thread * other_side_.channels * plan_.out_row_length;
    const PackedShape shape = with_rows(other_shape_, step.rows);
    for (std::int64_t channel = 0; channel < shape.channels; ++channel) {
      pack_channel(shape, other_ + step.out_offset + channel * shape.channel_step, to + channel * plan_.out_row_length);
    }
    return to;
  }

  // What packing the tile will read.
  void prefetch(Step& step, std::int64_t position, std::int64_t slice) const {
    if (work_ != Work::out) {
      step.next_other =
          source(other_, other_side_.steps, other_side_.channels, other_side_.channel_step, position, slice, 0);
    }
    position += reach_ahead_;
    if (position >= plan_.walk) return;
    step.next = source(in_ + p_.planes[0].offset, p_.in_steps, p_.c_in, p_.in_channel, position, slice, after_[0]);
  }
  // A tile with its halo as runs of memory, one for each channel, or of whole images one for each image. Where most of
  // a run would not be wanted there is nothing.
  Prefetch source(const E* base, const std::int64_t* steps, std::int64_t channels, std::int64_t channel_step,
                  std::int64_t position, std::int64_t slice, std::int64_t halo) const {
    constexpr std::int64_t sparse = 8;
    const int axis = plan_.slice_axis;
    const std::int64_t first = slice * plan_.rows;
    const std::int64_t rows = std::min(p_.axis_extent(axis) - first, slice_rows(slice) + halo);
    const bool images = axis == 0, whole = plan_.march && plan_.slices == 1;
    const std::int64_t run = images ? channels * channel_step : whole ? steps[axis - 1] : rows * steps[axis];
    const std::int64_t wanted = plan_.inner * (images ? channels : rows);
    if (run < wanted || run > sparse * wanted || (!images && channel_step <= 0)) return {};
    base += walk_offset(position, steps) + first * steps[axis];
    return images ? Prefetch(base, rows, steps[0], run) : Prefetch(base, channels, channel_step, run);
  }
  [[nodiscard]] std::int64_t walk_offset(std::int64_t position, const std::int64_t* steps) const {
    std::int64_t offset = 0;
    for (int outer = plan_.slice_axis - 1; outer >= 0; --outer) {
      offset += position % p_.axis_extent(outer) * steps[outer];
      position /= p_.axis_extent(outer);
    }
    return offset;
  }

  // ---- out ----

  // Panels with and without stencil do not mix. Those with it begin at the first channel of a packed element.
  template <typename Visit>
  void over_panels(Visit visit) const {
    const Split with_stencil((p_.diagonal() + each - 1) / each, block_rows / each);
    const Split without(p_.c_out - p_.diagonal(), block_rows);
    for (std::int64_t i = 0; i < with_stencil.parts; ++i) {
      const std::int64_t first = each * with_stencil.first(i);
      visit(first, std::min(p_.diagonal() - first, each * with_stencil.size(i)), true);
    }
    for (std::int64_t i = 0; i < without.parts; ++i) {
      visit(p_.diagonal() + without.first(i), without.size(i), false);
    }
  }

  // The same on all threads where the weights are many.
  template <typename Visit>
  void pack_panels(Visit visit) const {
    std::int64_t panels = 0;
    over_panels([&](std::int64_t, std::int64_t, bool) { ++panels; });
    parallel_for(panels, p_.c_in * p_.c_out >= many_weights ? threads_ : 1, [&](std::int64_t unit, int) {
      std::int64_t panel = 0;
      over_panels([&](std::int64_t first, std::int64_t rows, bool stencil) {
        if (panel++ == unit) visit(first, rows, stencil);
      });
    });
  }

  void out_tile(const Step& step) {
    if (p_.zero_rest) zero_cells(step);
    std::int64_t offset = step.first_row * p_.out_steps[plan_.slice_axis];
    for (int outer = 0; outer < plan_.slice_axis; ++outer) offset += step.at[outer] * p_.out_steps[outer];
    for (int i = 0; i < p_.phase_count; ++i) {
      const Phase& phase = p_.phases[i];
      Prefetch next = step.next;
      Tile<E> tile;
      tile.next = &next;
      tile.positions = step.positions;
      bool exists = true;
      for (int axis = 1; axis <= plan_.slice_axis; ++axis) {
        const std::int64_t first = axis == plan_.slice_axis ? step.first_row : step.at[axis];
        exists = exists && first < phase.extents[axis - 1];
        if (axis == plan_.slice_axis) {
          tile.positions = std::min(tile.positions, (phase.extents[axis - 1] - first) * plan_.inner);
        }
      }
      if (!exists) continue;
      tile.x = step.x;
      tile.row_length = plan_.row_length;
      tile.depth = phase.full ? depth() : 0;
      tile.taps = &step.taps[i];
      tile.y = out_ + offset + phase.offset;
      tile.y_channel = p_.out_channel;
      tile.places = places(i);
      tile.position_place = position_places(i);
      tile.stream = stream_;
      tile.claim = claim_;
      compute(tile, phase.full);
    }
  }

  void compute(const Tile<E>& tile, bool full) {
    // Either a stretch of positions or the weights stay in the first-level cache while the other passes by.
    constexpr std::int64_t block = block_vectors * S::width, size = sizeof(T);
    const std::int64_t held = 16 * 1024 / (depth() * size) / block * block;
    const bool hold_positions = depth() * block * size <= 24 * 1024 && depth() * p_.c_out * size <= 512 * 1024;
    const std::int64_t stretch = hold_positions ? std::max(block, held) : tile.positions;
    const std::int64_t blocks = (tile.positions + block - 1) / block * ((p_.c_out + block_rows - 1) / block_rows);
    tile.next->spread(blocks * turns_of(depth()) * 2 / 3);  // all fetched well before the tile is done
    for (std::int64_t begin = 0; begin < tile.positions; begin += stretch) {
      const std::int64_t end = std::min(tile.positions, begin + stretch);
      over_panels([&](std::int64_t first, std::int64_t rows, bool stencil) {
        if (!full && !stencil) return;
        const Panel<T> panel{first, alpha_ + first * depth(), c_ + first * p_.columns(), bias_ + first};
        const auto& table = stencil ? forward_table<E, true, paired> : forward_table<E, false, paired>;
        table[static_cast<std::size_t>(rows - 1)](tile, panel, begin, end);
      });
    }
  }

  // Zeros in all positions of `out` that belong to the tile; its phases are written over them.
  void zero_cells(const Step& step) {
    std::int64_t begin[max_dims + 1] = {}, end[max_dims + 1] = {};
    for (int axis = 0; axis <= p_.dims; ++axis) {
      const std::int64_t cell = axis == 0 ? 1 : p_.cell[axis - 1];
      const std::int64_t extent = axis == 0 ? p_.batch : p_.out_extents[axis - 1];
      const bool inner = axis > plan_.slice_axis;
      const std::int64_t first = axis == plan_.slice_axis ? step.first_row : inner ? 0 : step.at[axis];
      const std::int64_t last = axis == plan_.slice_axis ? first + step.rows : first + 1;
      begin[axis] = first * cell;
      end[axis] = inner ? extent : std::min(extent, last * cell);
    }
    for (std::int64_t channel = 0; channel < p_.c_out; ++channel) {
      over_box(p_, out_ + channel * p_.out_channel, begin, end, [](E* line, std::int64_t count, std::int64_t stride) {
        if (stride == 1) {
          std::fill_n(line, count, E{});
        } else {
          for (; count > 0; --count, line += stride) *line = E{};
        }
      });
    }
  }

  // ---- weights ----

  void add_dalpha_tile(WeightTile<P>& tile, const Step& step, std::int64_t rows, std::int64_t columns) const {
    Prefetch next[] = {work_ == Work::weight ? step.next : Prefetch(), step.next_other};
    const std::int64_t blocks = rows * columns / (weight_rows * weight_columns);
    for (int side = 0; side < 2; ++side) {
      next[side].spread(blocks * turns_of(step.positions / packed_width));
      tile.next[side] = &next[side];
    }
    add_dalpha(tile, rows, columns, tile.sums.base);
  }

  template <typename Visit>
  void over_lanes(Visit visit) {
    parallel_for(plan_.lanes, threads_, [&](std::int64_t lane, int thread) {
      PartialSums<T> sums{partial_ + lane * partial_size_, true, lost_};
      const std::int64_t end = (lane + 1) * plan_.units / plan_.lanes;
      for (std::int64_t unit = lane * plan_.units / plan_.lanes; unit < end; ++unit) {
        walk(unit, thread, [&](const Step& step) {
          visit(step, sums);
          sums.first = false;
        });
      }
      if (stream_) S::fence();
    });
  }

  // dalpha has `rows` rows: channels of dy, each of `columns` channels of x.
  void finish_weights(E* dalpha, E* dc, std::int64_t rows, std::int64_t columns) {
    const WeightStrides to = weight_strides(d_, work_ == Work::both);
    const DalphaBlocks<T> blocks(rows, columns);
    const auto add_lanes = [&](std::int64_t first, std::int64_t count) {
      sum_lanes(partial_ + first, count, plan_.lanes, partial_size_, lost_);
    };
    // A group of rows of dalpha a unit, then all of dc.
    parallel_for(blocks.rows.parts + 1, plan_.lanes > 1 ? threads_ : 1, [&](std::int64_t unit, int) {
      if (unit < blocks.rows.parts && dalpha != nullptr) {
        const std::int64_t height = blocks.rows.size(unit);
        add_lanes(blocks.begin(unit, 0), height * columns);
        E* target = dalpha + blocks.rows.first(unit) * to.dalpha[0];
        for (std::int64_t column = 0; column < columns; column += weight_columns) {
          const T* block = partial_ + blocks.begin(unit, column);
          const std::int64_t width = blocks.width(column);
          for (std::int64_t r = 0; r < height; ++r) {
            for (std::int64_t k = 0; k < width; ++k) {
              target[r * to.dalpha[0] + (column + k) * to.dalpha[1]] =
                  static_cast<E>(block[blocks.place(height, width, r, k)]);
            }
          }
        }
      } else if (unit == blocks.rows.parts && dc != nullptr) {
        const T* sums = partial_ + rows * columns;
        add_lanes(rows * columns, p_.diagonal() * p_.columns());
        for (std::int64_t j = 0; j < p_.diagonal(); ++j) {
          for (int k = 0; k < p_.columns(); ++k) dc[j * to.dc[0] + k * to.dc[1]] = static_cast<E>(*sums++);
        }
      }
    });
  }

  const ConvDesc& d_;
  Problem p_;
  Work work_;
  OtherSide other_side_;
  Plan plan_;
  int threads_ = 1;
  std::int64_t before_[1 + max_taps] = {}, after_[1 + max_taps] = {};  // halo of each plane
  std::int64_t reach_ahead_ = 0;                                       // how many tiles ahead a march packs
  PackedShape shapes_[1 + max_taps] = {}, other_shape_ = {};
  bool pairs_with_first_[1 + max_taps] = {};
  bool other_in_place_ = false;

  const E* in_ = nullptr;
  const E* other_ = nullptr;
  E* out_ = nullptr;
  bool stream_ = false, claim_ = false;

  T* alpha_ = nullptr;                 // by panels of output channels, each [depth][rows]
  T* c_ = nullptr;                     // [diagonal][columns]
  T* bias_ = nullptr;                  // [c_out]
  mask_entry* masks_ = nullptr;        // by column of c
  mask_entry* slice_masks_ = nullptr;  // [thread][direction]: made anew for a tile at the border
  std::int64_t mask_length_ = 0;
  RowPicks several_[1 + max_taps] = {}, one_[1 + max_taps] = {};  // by plane
  std::int64_t* line_from_[2 + max_taps] = {};                    // by plane; last the other side
  std::int64_t* line_to_[2 + max_taps] = {};
  Place* places_ = nullptr;
  std::int64_t* position_places_ = nullptr;
  P* slots_ = nullptr;       // [thread][slot]
  P* other_tile_ = nullptr;  // [thread][channel][out_row_length]
  T* partial_ = nullptr;     // [lane][partial_size]: dalpha, dc; where kept, the same of what was lost
  std::int64_t partial_size_ = 0;
  std::int64_t lost_ = 0;  // where in a lane that begins; 0: not kept
};
