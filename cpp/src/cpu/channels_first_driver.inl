// Channels-first arrays: which tiles, in which order, on which thread. Included once per instruction set, after the
// pieces it drives.

template <typename E>
class ChannelsFirst {
 public:
  using Element = E;
  using T = compute_type<E>;
  using S = Simd<T>;
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
      const T* packed_dy = pack_other(step);
      const WeightTile<T> tile{step.x, plan_.row_length, packed_dy, plan_.out_row_length, step.positions, sums};
      if (dalpha) add_dalpha(tile, p_.c_out, p_.c_in, sums.base);
      if (dc) {
        add_dc(sums, packed_dy, plan_.out_row_length, step.x, plan_.row_length, step.positions, step.taps[0],
               p_.diagonal(), p_.columns(), sums.base + p_.c_in * p_.c_out);
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
      const T* packed_x = pack_other(step);
      const WeightTile<T> tile{packed_x, plan_.out_row_length, step.x, plan_.row_length, step.positions, sums};
      if (dalpha) add_dalpha(tile, p_.c_in, p_.c_out, sums.base);
      if (dc) {
        add_dc(sums, packed_x, plan_.out_row_length, step.x, plan_.row_length, step.positions, step.taps[0],
               p_.diagonal(), p_.columns(), sums.base + p_.c_in * p_.c_out);
      }
      if (stream_) S::fence();
    });
    finish_weights(dalpha, dc, p_.c_in, p_.c_out);
  }

 private:
  // One tile, packed.
  struct Step {
    const T* x;  // plane 0, channel 0, first position of the run
    std::int64_t positions;
    std::int64_t rows;
    std::int64_t first_row;         // along the slice axis
    std::int64_t at[max_dims + 1];  // of the axes outside
    std::int64_t out_offset;        // of the first position, in `out` or the other side
    int thread;
    TapList<T> taps[1 + max_taps];  // by phase
    Prefetch next;
  };

  ChannelsFirst(Operation operation, const ConvDesc& desc)
      : d_(desc),
        p_(make_problem(operation, desc)),
        work_(operation == Operation::backward_weight ? Work::weight
              : operation == Operation::backward      ? Work::both
                                                      : Work::out),
        plan_(make_plan(p_, sizeof(T), S::width, work_)) {
    if (work_ == Work::weight) {
      other_channels_ = p_.c_out;
      other_channel_ = p_.out_channel;
      std::copy_n(p_.out_steps, max_dims + 1, other_steps_);
    } else if (work_ == Work::both) {
      other_channels_ = p_.c_out;
      other_channel_ = desc.x_strides[1];
      other_steps_[0] = desc.x_strides[0];
      for (int a = 0; a < p_.dims; ++a) other_steps_[a + 1] = desc.x_strides[a + 2];
    }
    for (int i = 0; i < p_.phase_count; ++i) {
      for (int t = 0; t < p_.phases[i].tap_count; ++t) {
        const GridTap& tap = p_.phases[i].taps[t];
        if (tap.axis != plan_.slice_axis) continue;
        before_[tap.plane] = std::max(before_[tap.plane], -tap.shift);
        after_[tap.plane] = std::max(after_[tap.plane], tap.shift);
      }
    }
  }

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
    slots_ = arena.take<T>(threads * plan_.slots * plan_.slot_size);
    if (work_ != Work::out) {
      other_tile_ = arena.take<T>(threads * other_channels_ * plan_.out_row_length);
      const std::int64_t sums = p_.c_in * p_.c_out + p_.diagonal() * p_.columns();
      lost_ = plan_.many_tiles ? sums : 0;
      partial_size_ = sums + lost_;
      partial_ = arena.take<T>(plan_.lanes * partial_size_);
    }
    if (work_ != Work::weight) {
      alpha_ = arena.take<T>(p_.c_in * p_.c_out);
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

  // How rows of a plane (or of the other side) are copied.
  PackedShape shape_of(int table, const Plane& plane, const std::int64_t* steps) const {
    PackedShape shape = {};
    const int axis = plan_.slice_axis, last = p_.dims;
    shape.row_step = steps[axis];
    shape.inner = plan_.inner;
    shape.line_from = line_from_[table];
    shape.line_to = line_to_[table];
    bool whole = true;
    std::int64_t compact_step = 1;
    for (int inner = last; inner > axis; --inner) {
      whole = whole && plane.begin[inner - 1] == 0 && plane.extents[inner - 1] == p_.axis_extent(inner) &&
              (steps[inner] == compact_step || p_.axis_extent(inner) == 1);
      compact_step *= p_.axis_extent(inner);
    }
    shape.dense = whole && (steps[axis] == plan_.inner || p_.axis_extent(axis) == 1);
    if (axis == last) {  // rows of one position: a line along the slice axis; see pack_rows
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
    }
    if (work_ == Work::out) return;
    Plane grid;
    std::copy_n(p_.extents, max_dims, grid.extents);
    other_shape_ = shape_of(p_.plane_count, grid, other_steps_);
    other_shape_.channels = other_channels_;
    other_shape_.channel_step = other_channel_;
  }

  // For taps along inner axes: where in the run the neighbour exists.
  void fill_masks() {
    for (int i = 0; i < p_.phase_count; ++i) {
      for (int t = 0; t < p_.phases[i].tap_count; ++t) {
        const GridTap& tap = p_.phases[i].taps[t];
        if (tap.axis <= plan_.slice_axis) continue;
        mask_entry* row = masks_ + tap.column * mask_length_;
        std::int64_t at[max_dims + 1] = {};
        for (std::int64_t q = 0; q < plan_.run; ++q, step_inner(at, false)) {
          S::set_mask(row, q, at[tap.axis] >= tap.begin && at[tap.axis] < tap.end);
        }
      }
    }
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
    T* alpha_to = alpha_;
    T* c_to = c_;
    over_panels([&](std::int64_t first, std::int64_t rows, bool stencil) {
      for (std::int64_t i = 0; i < p_.c_in; ++i) {
        for (std::int64_t o = first; o < first + rows; ++o) {
          *alpha_to++ = static_cast<T>(alpha[o * p_.alpha_out + i * p_.alpha_in]);
        }
      }
      for (int k = 0; stencil && k < p_.columns(); ++k) {
        for (std::int64_t j = first; j < first + rows; ++j) {
          *c_to++ = static_cast<T>(c[j * p_.c_channel + k * p_.c_tap]);
        }
      }
    });
    for (std::int64_t o = 0; o < p_.c_out; ++o) bias_[o] = bias ? static_cast<T>(bias[o * p_.bias_stride]) : T{};

    // An output that the last-level cache cannot keep is not worth bringing there.
    constexpr std::int64_t large = std::int64_t{16} << 20, bytes = S::width * static_cast<std::int64_t>(sizeof(E));
    const auto aligned = [](std::int64_t elements) {
      return elements * static_cast<std::int64_t>(sizeof(E)) % bytes == 0;
    };
    stream_ = S::template can_stream<E> && p_.positions() * p_.c_out * static_cast<std::int64_t>(sizeof(E)) >= large &&
              !p_.zero_rest && reinterpret_cast<std::uintptr_t>(out) % static_cast<std::uintptr_t>(bytes) == 0 &&
              aligned(p_.out_channel) && aligned(plan_.rows * p_.out_steps[plan_.slice_axis]);
    for (int axis = 0; axis < plan_.slice_axis; ++axis) stream_ = stream_ && aligned(p_.out_steps[axis]);
    // In a tile, vectors that are stored whole begin at multiples of the vector as long as none is split.
    for (std::int64_t v = 0; v < plan_.run / S::width; ++v) stream_ = stream_ && aligned(places(0)[v].first);
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
        const std::int64_t next = position + 1 + reach_ahead();
        if (position + 1 < end && next < plan_.walk) step.next = prefetch(next, slice);
        visit(step);
      }
    } else {
      const std::int64_t end = std::min(plan_.walk * plan_.slices, (unit + 1) * plan_.chunk);
      for (std::int64_t tile = unit * plan_.chunk; tile < end; ++tile) {
        window.forget();
        prepare(step, window, tile / plan_.slices, tile % plan_.slices);
        if (tile + 1 < end) step.next = prefetch((tile + 1) / plan_.slices, (tile + 1) % plan_.slices);
        visit(step);
      }
    }
  }

  // How many tiles ahead a march packs.
  [[nodiscard]] std::int64_t reach_ahead() const {
    std::int64_t ahead = 0;
    for (int i = 0; i < p_.phase_count; ++i) {
      for (int t = 0; t < p_.phases[i].tap_count; ++t) {
        const GridTap& tap = p_.phases[i].taps[t];
        if (tap.axis == plan_.slice_axis - 1) ahead = std::max(ahead, tap.shift);
      }
    }
    return ahead;
  }

  template <typename Window>
  void prepare(Step& step, Window& window, std::int64_t position, std::int64_t slice) {
    const int axis = plan_.slice_axis;
    step.rows = slice_rows(slice);
    step.first_row = slice * plan_.rows;
    step.positions = step.rows * plan_.inner;
    step.next = Prefetch();
    step.out_offset = step.first_row * (work_ == Work::out ? p_.out_steps : other_steps_)[axis];
    std::int64_t strides[max_dims + 1] = {}, rest = position, stride = 1;
    for (int outer = axis - 1; outer >= 0; --outer) {
      step.at[outer] = rest % p_.axis_extent(outer);
      rest /= p_.axis_extent(outer);
      strides[outer] = stride;
      stride *= p_.axis_extent(outer);
      step.out_offset += step.at[outer] * (work_ == Work::out ? p_.out_steps : other_steps_)[outer];
    }

    std::int64_t wanted[max_slots] = {position};
    int count = 1;
    const auto neighbour = [&](const GridTap& tap) { return position + tap.shift * strides[tap.axis]; };
    const auto walked = [&](const GridTap& tap) { return tap.axis < axis; };
    const auto exists = [&](const GridTap& tap) {
      return !walked(tap) || (step.at[tap.axis] >= tap.begin && step.at[tap.axis] < tap.end);
    };
    for (int i = 0; i < p_.phase_count; ++i) {
      for (int t = 0; t < p_.phases[i].tap_count; ++t) {
        const GridTap& tap = p_.phases[i].taps[t];
        if (walked(tap) && exists(tap) && tap.shift != 0) wanted[count++] = neighbour(tap);
      }
    }
    window.hold(wanted, count, [&](std::int64_t which, T* slot) { pack_tile(which, slice, slot); });

    T* slot = window.slot(position);
    step.x = slot + plan_.margin;
    for (int i = 0; i < p_.phase_count; ++i) {
      step.taps[i].count = 0;
      for (int t = 0; t < p_.phases[i].tap_count; ++t) {
        const GridTap& tap = p_.phases[i].taps[t];
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
    Window(T* base, const Plan& plan) : base_(base), plan_(plan) { forget(); }
    void forget() { std::fill_n(held_, max_slots, -1); }

    [[nodiscard]] T* slot(std::int64_t position) const {
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
    T* base_;
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

  // A slice at one position of the walk: every plane, with the halo rows that exist.
  void pack_tile(std::int64_t position, std::int64_t slice, T* slot) {
    const int axis = plan_.slice_axis;
    const std::int64_t first = slice * plan_.rows;
    for (int i = 0; i < p_.plane_count; ++i) {
      const Plane& plane = p_.planes[i];
      std::int64_t offset = 0;
      if (!plane_offset(plane, position, offset)) continue;
      const std::int64_t lowest = axis > 0 ? plane.begin[axis - 1] : 0;
      const std::int64_t highest = axis > 0 ? plane.extents[axis - 1] : p_.batch;
      const std::int64_t begin = std::max(lowest, first - before_[i]);
      const std::int64_t end = std::min(highest, first + slice_rows(slice) + after_[i]);
      if (begin >= end) continue;
      pack_rows(shapes_[i], in_ + offset + begin * p_.in_steps[axis], end - begin,
                slot + plan_.plane_start[i] + plan_.margin + (begin - first) * plan_.inner, plan_.row_length);
    }
  }

  void pack_rows(PackedShape shape, const E* from, std::int64_t rows, T* to, std::int64_t row_length) const {
    shape.rows = rows;
    if (plan_.slice_axis == p_.dims && !shape.dense) {
      static constexpr std::int64_t start = 0;
      shape.rows = shape.lines = 1;
      shape.line_from = shape.line_to = &start;
      shape.count = rows;
    }
    pack(shape, from, to, row_length);
  }

  const T* pack_other(const Step& step) {
    T* to = other_tile_ + step.thread * other_channels_ * plan_.out_row_length;
    pack_rows(other_shape_, other_ + step.out_offset, step.rows, to, plan_.out_row_length);
    return to;
  }

  // The rows of plane 0 that packing the tile will read, where they are one run of each channel.
  Prefetch prefetch(std::int64_t position, std::int64_t slice) const {
    if (!shapes_[0].dense) return {};
    std::int64_t offset = 0;
    plane_offset(p_.planes[0], position, offset);
    const std::int64_t first = slice * plan_.rows;
    const std::int64_t rows = std::min(p_.axis_extent(plan_.slice_axis), first + slice_rows(slice) + after_[0]) - first;
    constexpr auto size = static_cast<std::int64_t>(sizeof(E));
    return {in_ + offset + first * p_.in_steps[plan_.slice_axis], p_.c_in, p_.in_channel * size,
            rows * plan_.inner * size};
  }

  // ---- out ----

  // Panels with and without stencil do not mix.
  template <typename Visit>
  void over_panels(Visit visit) const {
    const Split with_stencil(p_.diagonal(), block_rows), without(p_.c_out - p_.diagonal(), block_rows);
    for (std::int64_t i = 0; i < with_stencil.parts; ++i) visit(with_stencil.first(i), with_stencil.size(i), true);
    for (std::int64_t i = 0; i < without.parts; ++i) {
      visit(p_.diagonal() + without.first(i), without.size(i), false);
    }
  }

  void out_tile(const Step& step) {
    if (p_.zero_rest) zero_cells(step);
    std::int64_t offset = step.first_row * p_.out_steps[plan_.slice_axis];
    for (int outer = 0; outer < plan_.slice_axis; ++outer) offset += step.at[outer] * p_.out_steps[outer];
    for (int i = 0; i < p_.phase_count; ++i) {
      const Phase& phase = p_.phases[i];
      Tile<E> tile;
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
      tile.c_in = phase.full ? p_.c_in : 0;
      tile.taps = &step.taps[i];
      tile.y = out_ + offset + phase.offset;
      tile.y_channel = p_.out_channel;
      tile.places = places(i);
      tile.position_place = position_places(i);
      tile.stream = stream_;
      compute(tile, phase.full, step.next);
    }
  }

  void compute(const Tile<E>& tile, bool full, Prefetch next) {
    // Either the positions or the weights stay in the first-level cache while the other passes by.
    constexpr std::int64_t block = block_vectors * S::width;
    const bool hold_positions = p_.c_in * block * static_cast<std::int64_t>(sizeof(T)) <= 24 * 1024 &&
                                p_.c_in * p_.c_out * static_cast<std::int64_t>(sizeof(T)) <= 512 * 1024;
    const std::int64_t stretch = hold_positions ? block : tile.positions;
    const std::int64_t blocks = (tile.positions + block - 1) / block * ((p_.c_out + block_rows - 1) / block_rows);
    const std::int64_t lines = 2 * next.lines() / blocks + 1;  // all fetched when half of the tile is done
    for (std::int64_t begin = 0; begin < tile.positions; begin += stretch) {
      const std::int64_t end = std::min(tile.positions, begin + stretch);
      over_panels([&](std::int64_t first, std::int64_t rows, bool stencil) {
        if (!full && !stencil) return;
        const Panel<T> panel{first, alpha_ + first * p_.c_in, c_ + first * p_.columns(), bias_ + first};
        const auto height = static_cast<std::size_t>(rows - 1);
        const ForwardBlock<E> run = stencil ? forward_blocks<E, true>[height] : forward_blocks<E, false>[height];
        for (std::int64_t q = begin; q < end; q += block) {
          run(tile, panel, q);
          next.fetch(lines);
        }
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
    over_box(p_, out_, begin, end, [&](E* position) {
      for (std::int64_t channel = 0; channel < p_.c_out; ++channel) position[channel * p_.out_channel] = E{};
    });
  }

  // ---- weights ----

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
    });
  }

  // dalpha has `rows` rows: channels of dy, each of `columns` channels of x.
  void finish_weights(E* dalpha, E* dc, std::int64_t rows, std::int64_t columns) {
    const WeightStrides to = weight_strides(d_, work_ == Work::both);
    // One row of dalpha a unit, then all of dc.
    parallel_for(rows + 1, plan_.lanes > 1 ? threads_ : 1, [&](std::int64_t unit, int) {
      const bool of_dc = unit == rows;
      E* target = of_dc ? dc : dalpha;
      if (target == nullptr) return;
      const std::int64_t count = of_dc ? p_.diagonal() * p_.columns() : columns;
      T* base = partial_ + unit * columns;
      sum_lanes(base, count, plan_.lanes, partial_size_, lost_);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t offset =
            of_dc ? i / p_.columns() * to.dc[0] + i % p_.columns() * to.dc[1] : unit * to.dalpha[0] + i * to.dalpha[1];
        target[offset] = static_cast<E>(base[i]);
      }
    });
  }

  const ConvDesc& d_;
  Problem p_;
  Work work_;
  Plan plan_;
  int threads_ = 1;
  std::int64_t before_[1 + max_taps] = {}, after_[1 + max_taps] = {};  // halo of each plane
  PackedShape shapes_[1 + max_taps] = {}, other_shape_ = {};
  // backward_weight packs dy beside x, the combined backward x beside dy.
  std::int64_t other_channels_ = 0, other_channel_ = 0, other_steps_[max_dims + 1] = {};

  const E* in_ = nullptr;
  const E* other_ = nullptr;
  E* out_ = nullptr;
  bool stream_ = false;

  T* alpha_ = nullptr;                 // by panels of output channels, each [c_in][rows]
  T* c_ = nullptr;                     // [diagonal][columns]
  T* bias_ = nullptr;                  // [c_out]
  mask_entry* masks_ = nullptr;        // by column of c
  mask_entry* slice_masks_ = nullptr;  // [thread][direction]: made anew for a tile at the border
  std::int64_t mask_length_ = 0;
  std::int64_t* line_from_[2 + max_taps] = {};  // by plane; last the other side
  std::int64_t* line_to_[2 + max_taps] = {};
  Place* places_ = nullptr;
  std::int64_t* position_places_ = nullptr;
  T* slots_ = nullptr;       // [thread][slot]
  T* other_tile_ = nullptr;  // [thread][channel][out_row_length]
  T* partial_ = nullptr;     // [lane][partial_size]: dalpha, dc; where kept, the same of what was lost
  std::int64_t partial_size_ = 0;
  std::int64_t lost_ = 0;  // where in a lane that begins; 0: not kept
};
