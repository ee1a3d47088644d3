// Channels-last arrays: which positions, in which order, on which thread. Included once per instruction set, after the
// pieces it drives.
//
// The grid is a sequence of lines, the positions along its innermost axis. A unit of work is some successive lines, or
// a part of a long one, few enough that what it reads stays in the cache while the output channels pass by.
//
// Paired, for bf16: channels 2k and 2k + 1 of a position are read as one element, where they lie if they are all in
// pairs; for the gradients of the weights, a channel of two successive positions is copied to one element.

// Positions whose products are added one after the other in the gradients of the weights (docs/numerics.md).
inline constexpr std::int64_t longest_sum = 128;

template <typename E, bool paired = false>
class ChannelsLast {
 public:
  using Element = E;
  using T = compute_type<E>;
  using S = Simd<T>;
  static constexpr bool writes_out = true, sums_weights = true;

  static std::size_t workspace_bytes(Operation operation, const ConvDesc& desc, int threads) {
    ChannelsLast sizing(operation, desc);
    Arena arena(nullptr);
    sizing.lay_out(arena, threads);
    return arena.used();
  }

  ChannelsLast(Operation operation, const ConvDesc& desc, void* workspace, int threads)
      : ChannelsLast(operation, desc) {
    Arena arena(workspace);
    lay_out(arena, threads);
    threads_ = threads;
  }

  void forward(const E* in, const E* alpha, const E* c, const E* bias, E* out) {
    in_ = in;
    begin_out(alpha, c, bias, out);
    parallel_for(units_, threads_, [&](std::int64_t unit, int thread) {
      out_unit(span_of(unit), thread, ahead(unit + threads_));
      if (stream_) S::fence();
    });
  }

  void backward_weight(const E* x, const E* dy, E* dalpha, E* dc) {
    in_ = x;
    other_ = dy;
    over_lanes([&](std::int64_t unit, int thread, const PartialSums<T>& sums) {
      weight_unit(span_of(unit), thread, sums, other_side(), in_side(), dalpha != nullptr, dc != nullptr,
                  ahead(unit + 1), ahead(unit + 1, other_side()));
    });
    finish_weights(dalpha, dc);
  }

  // dx, dalpha and dc while x and dy are in the cache. The problem is that of backward_data, with one phase.
  void backward(const E* x, const E* dy, const E* alpha, const E* c, E* dx, E* dalpha, E* dc) {
    in_ = dy;
    other_ = x;
    begin_out(alpha, c, nullptr, dx);
    over_lanes([&](std::int64_t unit, int thread, const PartialSums<T>& sums) {
      const Span span = span_of(unit);
      out_unit(span, thread, ahead(unit + 1));
      weight_unit(span, thread, sums, in_side(), other_side(), dalpha != nullptr, dc != nullptr, Prefetch(),
                  ahead(unit + 1, other_side()));
    });
    finish_weights(dalpha, dc);
  }

 private:
  static constexpr std::int64_t each = channels_per_element<paired>;  // positions, in the gradients of the weights
  [[nodiscard]] static std::int64_t elements(std::int64_t of) { return (of + each - 1) / each; }
  [[nodiscard]] std::int64_t depth() const { return elements(p_.c_in); }

  // Lines [first, last), positions [begin, end) of each.
  struct Span {
    std::int64_t first, last, begin, end;
  };
  struct Side {
    const E* base;
    const std::int64_t* steps;
    std::int64_t channels;
    bool dense;  // lines follow each other
  };

  ChannelsLast(Operation operation, const ConvDesc& desc)
      : d_(desc),
        p_(make_problem(operation, desc)),
        work_(work_of(operation)),
        other_side_(other_side_of(operation, desc, p_)) {
    plan();
  }

  // ---- the cut into units: by the shape alone ----

  void plan() {
    const std::int64_t total = p_.positions(), length = p_.axis_extent(p_.dims);
    lines_ = total / length;
    // What is read should stay in the second-level cache; short units keep the memory waiting. With a stride, what lies
    // between the positions is read as well.
    const std::int64_t longest = p_.in_steps[p_.dims] > p_.c_in ? 256 : 512;
    const std::int64_t most = work_ == Work::out
                                  ? std::clamp<std::int64_t>(49152 / p_.c_in, 48, longest)
                                  : std::clamp<std::int64_t>(49152 / (p_.c_in + p_.c_out), longest_sum, 512);
    const std::int64_t positions = std::clamp<std::int64_t>(total / 32, block_rows, most);
    lines_together_ = std::max<std::int64_t>(1, block_rows / length);
    if (length > positions) {
      parts_ = (length + positions - 1) / positions;
      lines_per_unit_ = 1;
    } else {
      lines_per_unit_ = std::max<std::int64_t>(1, positions / length / lines_together_) * lines_together_;
    }
    units_ = (lines_ + lines_per_unit_ - 1) / lines_per_unit_ * parts_;
    unit_positions_ = lines_per_unit_ * ((length + parts_ - 1) / parts_);
    lanes_ = 1;
    while (work_ != Work::out && lanes_ < 32 && total / (2 * lanes_) >= 256 && 2 * lanes_ <= units_) lanes_ *= 2;
  }

  [[nodiscard]] Span span_of(std::int64_t unit) const {
    const std::int64_t length = p_.axis_extent(p_.dims), part = unit % parts_, first = unit / parts_ * lines_per_unit_;
    return {first, std::min(lines_, first + lines_per_unit_), part * length / parts_, (part + 1) * length / parts_};
  }

  // ---- memory ----

  static std::int64_t padded(std::int64_t channels) { return (channels + S::width - 1) / S::width * S::width; }

  void lay_out(Arena& arena, int threads) {
    if (work_ != Work::weight) {
      // The stencil's channels and the others begin vectors of their own.
      const std::int64_t columns = padded(p_.diagonal()) + padded(p_.c_out - p_.diagonal());
      alpha_ = arena.take<T>(depth() * columns);
      c_ = arena.take<T>(p_.columns() * columns);
      bias_ = arena.take<T>(columns);
      groups_per_unit_ = unit_positions_;  // of one position at least
      groups_ = arena.take<Group<E>>(threads * groups_per_unit_);
      copies_ = arena.take<T>(threads * unit_positions_ * depth());
    }
    if (work_ != Work::out) {
      dalpha_rows_ = work_ == Work::both ? p_.c_in : p_.c_out;
      const std::int64_t c_in = work_ == Work::both ? p_.c_out : p_.c_in;
      dalpha_row_ = padded(c_in);
      dc_row_ = padded(p_.diagonal());
      x_copies_ = arena.take<T>(threads * elements(unit_positions_) * dalpha_row_);
      dy_copies_ = arena.take<T>(threads * elements(unit_positions_) * dalpha_rows_);
      const std::int64_t sums = dalpha_rows_ * dalpha_row_ + p_.columns() * dc_row_;
      const std::int64_t additions = units_ / lanes_ * ((unit_positions_ + longest_sum - 1) / longest_sum);
      lost_ = additions > 8 ? sums : 0;
      partial_size_ = sums + lost_;
      partial_ = arena.take<T>(lanes_ * partial_size_);
    }
  }

  void begin_out(const E* alpha, const E* c, const E* bias, E* out) {
    out_ = out;
    parallel_for(panel_count(), p_.c_in * p_.c_out >= many_weights ? threads_ : 1, [&](std::int64_t unit, int) {
      T* alpha_to = alpha_;
      T* c_to = c_;
      T* bias_to = bias_;
      std::int64_t panel = 0;
      over_panels([&](std::int64_t first, std::int64_t count, std::int64_t vectors, bool stencil) {
        const std::int64_t width = vectors * S::width;
        if (panel++ != unit) {
          alpha_to += depth() * width;
          if (stencil) c_to += p_.columns() * width;
          bias_to += width;
          return;
        }
        for (std::int64_t k = 0; k < depth(); ++k) {
          for (std::int64_t o = 0; o < width; ++o) {
            *alpha_to++ =
                o < count ? packed_weight<paired>(alpha + (first + o) * p_.alpha_out, p_.alpha_in, k, p_.c_in) : T{};
          }
        }
        for (int k = 0; stencil && k < p_.columns(); ++k) {
          for (std::int64_t j = 0; j < width; ++j) {
            *c_to++ = j < count ? static_cast<T>(c[(first + j) * p_.c_channel + k * p_.c_tap]) : T{};
          }
        }
        for (std::int64_t o = 0; o < width; ++o) {
          *bias_to++ = bias && o < count ? static_cast<T>(bias[(first + o) * p_.bias_stride]) : T{};
        }
      });
    });

    const auto aligned = [](std::int64_t elements) { return elements % S::width == 0; };
    stream_ = may_stream(p_, out) && aligned(p_.diagonal());
    for (int axis = 0; axis <= p_.dims; ++axis) stream_ = stream_ && aligned(p_.out_steps[axis]);
  }

  // Calls visit(first channel, channels, vectors, stencil); panels with and without stencil do not mix.
  template <typename Visit>
  void over_panels(Visit visit) const {
    const auto over = [&](std::int64_t begin, std::int64_t end, bool stencil) {
      for (std::int64_t first = begin; first < end;) {
        const std::int64_t count = std::min<std::int64_t>(end - first, block_vectors * S::width);
        visit(first, count, (count + S::width - 1) / S::width, stencil);
        first += count;
      }
    };
    over(0, p_.diagonal(), true);
    over(p_.diagonal(), p_.c_out, false);
  }

  [[nodiscard]] std::int64_t panel_count() const {
    std::int64_t count = 0;
    over_panels([&](std::int64_t, std::int64_t, std::int64_t, bool) { ++count; });
    return count;
  }

  // ---- lines ----

  // The outer coordinates of a line.
  void locate(std::int64_t line, std::int64_t* at) const {
    for (int axis = p_.dims - 1; axis >= 0; --axis) {
      at[axis] = line % p_.axis_extent(axis);
      line /= p_.axis_extent(axis);
    }
  }
  [[nodiscard]] std::int64_t line_offset(const std::int64_t* at, const std::int64_t* steps) const {
    std::int64_t offset = 0;
    for (int axis = 0; axis < p_.dims; ++axis) offset += at[axis] * steps[axis];
    return offset;
  }
  // The positions of a line that have the neighbour.
  void tap_range(const GridTap& tap, const std::int64_t* at, std::int64_t& begin, std::int64_t& end) const {
    if (tap.axis == p_.dims) {
      begin = tap.begin;
      end = tap.end;
    } else {
      const bool exists = at[tap.axis] >= tap.begin && at[tap.axis] < tap.end;
      begin = 0;
      end = exists ? p_.axis_extent(p_.dims) : 0;
    }
  }

  [[nodiscard]] Side in_side() const { return side(in_, p_.in_steps, p_.c_in); }
  [[nodiscard]] Side other_side() const { return side(other_, other_side_.steps, other_side_.channels); }
  [[nodiscard]] Side side(const E* base, const std::int64_t* steps, std::int64_t channels) const {
    bool dense = true;
    std::int64_t next = steps[p_.dims];
    for (int axis = p_.dims; axis >= 0; --axis) {
      dense = dense && (p_.axis_extent(axis) == 1 || steps[axis] == next);
      next *= p_.axis_extent(axis);
    }
    return {base, steps, channels, dense};
  }

  // What a unit will read, where that is one run of memory.
  [[nodiscard]] Prefetch ahead(std::int64_t unit, const Side& from) const {
    if (unit >= units_ || !from.dense || from.steps[p_.dims] > 2 * from.channels) return {};
    const Span span = span_of(unit);
    std::int64_t at[max_dims + 1];
    locate(span.first, at);
    const std::int64_t positions = (span.last - span.first) * (span.end - span.begin);
    return {from.base + line_offset(at, from.steps) + span.begin * from.steps[p_.dims], 1, 0,
            positions * from.steps[p_.dims]};
  }
  // The same of `in`, from the farthest neighbours on: nearer ones have been read by the units before. With a stride,
  // all lines of x from the first of the unit's on: those in between are the neighbours of others.
  [[nodiscard]] Prefetch ahead(std::int64_t unit) const {
    if (unit >= units_) return {};
    const Span span = span_of(unit);
    std::int64_t at[max_dims + 1];
    locate(span.first, at);
    Side from = in_side();
    const std::int64_t run = p_.in_steps[p_.dims - 1], wanted = p_.axis_extent(p_.dims) * p_.c_in;
    if (!from.dense && parts_ == 1 && p_.dims > 1 && wanted < run && run <= 4 * wanted) {
      // Lines follow each other to the end of an axis, and past it where the next one follows as well.
      std::int64_t lines = p_.axis_extent(p_.dims - 1) - at[p_.dims - 1];
      for (int axis = p_.dims - 2; axis >= 0; --axis) {
        if (p_.in_steps[axis] != p_.axis_extent(axis + 1) * p_.in_steps[axis + 1]) break;
        if (axis == 0) lines = lines_ - span.first;
      }
      lines = std::min(lines, span.last - span.first);
      return {from.base + line_offset(at, from.steps), 1, 0, lines * run};
    }
    std::int64_t farthest = 0;
    for (int t = 0; t < p_.phases[0].tap_count; ++t) {
      const GridTap& tap = p_.taps_of(p_.phases[0])[t];
      const bool exists = tap.axis < p_.dims && at[tap.axis] >= tap.begin && at[tap.axis] < tap.end;
      if (exists && parts_ == 1) farthest = std::max(farthest, tap.offset);
    }
    from.base += farthest;
    return ahead(unit, from);
  }

  // ---- out ----

  void out_unit(const Span& span, int thread, Prefetch next) {
    if (p_.zero_rest) zero_cells(span);
    Group<E>* groups = groups_ + thread * groups_per_unit_;
    for (int i = 0; i < p_.phase_count; ++i) {
      const Phase& phase = p_.phases[i];
      const std::int64_t count = make_groups(phase, span, thread, groups);
      if (count == 0) continue;
      next.spread(count * panel_count() * turns_of(depth()));
      const T* alpha = alpha_;
      const T* c = c_;
      const T* bias = bias_;
      over_panels([&](std::int64_t first, std::int64_t channels, std::int64_t vectors, bool stencil) {
        const std::int64_t width = vectors * S::width;
        const ChannelPanel<E> panel{first,
                                    channels,
                                    alpha,
                                    c,
                                    bias,
                                    phase.full ? depth() : 0,
                                    in_,
                                    out_ + phase.offset,
                                    p_.taps_of(phase),
                                    phase.tap_count,
                                    stream_,
                                    &next};
        alpha += depth() * width;
        if (stencil) c += p_.columns() * width;
        bias += width;
        if (!phase.full && !stencil) return;
        const auto& table = stencil ? position_blocks<E, true, paired> : position_blocks<E, false, paired>;
        const auto& blocks = table[static_cast<std::size_t>(vectors - 1)];
        for (std::int64_t g = 0; g < count; ++g) {
          blocks[static_cast<std::size_t>(groups[g].rows - 1)](groups[g], panel);
        }
      });
    }
  }

  std::int64_t make_groups(const Phase& phase, const Span& span, int thread, Group<E>* groups) {
    const std::int64_t length = std::min(span.end, phase.extents[p_.dims - 1]) - span.begin;
    if (length <= 0) return 0;
    std::int64_t count = 0;
    T* copy = copies_ + thread * unit_positions_ * depth();
    if (lines_together_ > 1) {
      for (std::int64_t line = span.first; line < span.last; line += lines_together_) {
        Group<E>& group = groups[count];
        group = {};
        for (std::int64_t each = line; each < std::min(span.last, line + lines_together_); ++each) {
          add_positions(phase, each, span.begin, length, group);
        }
        if (group.rows > 0) finish_group(group, copy), ++count;
      }
      return count;
    }
    const Split split(length, block_rows);
    for (std::int64_t line = span.first; line < span.last; ++line) {
      for (std::int64_t part = 0; part < split.parts; ++part) {
        Group<E>& group = groups[count];
        group.rows = 0;
        std::fill_n(group.exists, max_taps, 0u);
        add_positions(phase, line, span.begin + split.first(part), split.size(part), group);
        if (group.rows > 0) finish_group(group, copy), ++count;
      }
    }
    return count;
  }

  void add_positions(const Phase& phase, std::int64_t line, std::int64_t first, std::int64_t count,
                     Group<E>& group) const {
    std::int64_t at[max_dims + 1];
    locate(line, at);
    for (int axis = 1; axis < p_.dims; ++axis) {
      if (at[axis] >= phase.extents[axis - 1]) return;
    }
    const std::int64_t in = line_offset(at, p_.in_steps) + first * p_.in_steps[p_.dims];
    const std::int64_t out = line_offset(at, p_.out_steps) + first * p_.out_steps[p_.dims];
    for (std::int64_t q = 0; q < count; ++q) {
      group.in[group.rows + q] = in + q * p_.in_steps[p_.dims];
      group.out[group.rows + q] = out + q * p_.out_steps[p_.dims];
    }
    for (int t = 0; t < phase.tap_count; ++t) {
      std::int64_t begin = 0, end = 0;
      tap_range(p_.taps_of(phase)[t], at, begin, end);
      const auto bits_below = [&](std::int64_t position) {
        return (1u << std::clamp<std::int64_t>(position - first, 0, count)) - 1;
      };
      group.exists[t] |= (bits_below(end) & ~bits_below(begin)) << group.rows;
    }
    group.rows += static_cast<int>(count);
  }

  // Where the 1x1 part reads: in place if the type and the distances allow.
  void finish_group(Group<E>& group, T*& copy) const {
    if constexpr (std::is_same_v<E, T> || paired) {
      const std::int64_t step = group.rows > 1 ? group.in[1] - group.in[0] : p_.c_in;
      bool even = p_.c_in % each == 0;
      for (int r = 1; r < group.rows; ++r) even = even && group.in[r] - group.in[r - 1] == step;
      if (even) {
        group.x = in_ + group.in[0];
        group.x_bytes = step * static_cast<std::int64_t>(sizeof(E));
        return;
      }
    }
    group.x = copy;
    group.x_bytes = depth() * static_cast<std::int64_t>(sizeof(T));
    for (int r = 0; r < group.rows; ++r, copy += depth()) {
      const E* from = in_ + group.in[r];
      if constexpr (paired) {
        if (p_.c_in % 2 != 0) copy[depth() - 1] = T{};
        std::memcpy(copy, from, static_cast<std::size_t>(p_.c_in) * sizeof(E));
      } else {
        copy_run(copy, from, p_.c_in);
      }
    }
  }

  void zero_cells(const Span& span) {
    for (std::int64_t line = span.first; line < span.last; ++line) {
      std::int64_t at[max_dims + 1];
      locate(line, at);
      std::int64_t begin[max_dims + 1], end[max_dims + 1];
      begin[0] = at[0];
      end[0] = at[0] + 1;
      for (int axis = 1; axis <= p_.dims; ++axis) {
        const std::int64_t first = axis == p_.dims ? span.begin : at[axis];
        const std::int64_t last = axis == p_.dims ? span.end : at[axis] + 1;
        begin[axis] = first * p_.cell[axis - 1];
        end[axis] = std::min(p_.out_extents[axis - 1], last * p_.cell[axis - 1]);
      }
      over_box(p_, out_, begin, end, [&](E* position, std::int64_t count, std::int64_t stride) {
        for (; count > 0; --count, position += stride) std::fill_n(position, p_.c_out, E{});
      });
    }
  }

  // ---- weights ----

  template <typename Visit>
  void over_lanes(Visit visit) {
    parallel_for(lanes_, threads_, [&](std::int64_t lane, int thread) {
      PartialSums<T> sums{partial_ + lane * partial_size_, true, lost_};
      for (std::int64_t unit = lane * units_ / lanes_; unit < (lane + 1) * units_ / lanes_; ++unit) {
        visit(unit, thread, sums);
        sums.first = false;
      }
      if (stream_) S::fence();
    });
  }

  // The channels of a unit's positions as one matrix: in place, or copied to rows of `row` elements. Paired: a row for
  // every two positions, and zeros for the second of the last if there is none.
  const T* matrix(const Side& from, const Span& span, T* copy, std::int64_t row, std::int64_t& step) const {
    const std::int64_t length = span.end - span.begin;
    std::int64_t at[max_dims + 1];
    if constexpr (std::is_same_v<E, T>) {
      if (row == from.channels && (from.dense || span.last - span.first == 1)) {
        step = from.steps[p_.dims];
        locate(span.first, at);
        return from.base + line_offset(at, from.steps) + span.begin * step;
      }
    }
    step = row;
    T* to = copy;
    const auto add_row = [&](auto channels) {
      copy_run(to, channels, from.channels);
      std::fill(to + from.channels, to + row, T{});
      to += row;
    };
    [[maybe_unused]] const E* first = nullptr;  // of a pair
    for (std::int64_t line = span.first; line < span.last; ++line) {
      locate(line, at);
      const E* position = from.base + line_offset(at, from.steps) + span.begin * from.steps[p_.dims];
      for (std::int64_t q = 0; q < length; ++q, position += from.steps[p_.dims]) {
        if constexpr (paired) {
          if (first) add_row(PairOfRuns(first, position - first, true));
          first = first ? nullptr : position;
        } else {
          add_row(position);
        }
      }
    }
    if constexpr (paired) {
      if (first) add_row(PairOfRuns(first, 0, false));
    }
    return copy;
  }

  // dalpha and dc of a unit, in pieces so short that their sums are within the bound that is promised.
  void weight_unit(const Span& span, int thread, PartialSums<T> sums, const Side& dy, const Side& x, bool want_dalpha,
                   bool want_dc, Prefetch next, Prefetch next_other) {
    const std::int64_t length = span.end - span.begin;
    const std::int64_t lines = std::max<std::int64_t>(1, longest_sum / length);
    const Split cuts(length, longest_sum);  // of a long line
    const std::int64_t pieces = (span.last - span.first + lines - 1) / lines * cuts.parts;
    const std::int64_t blocks =
        pieces * ((dalpha_rows_ + block_rows - 1) / block_rows) * ((dalpha_row_ / S::width + 1) / 2);
    Ahead ahead{{next, next_other}};
    ahead.spread(blocks * turns_of(elements(std::min(lines, span.last - span.first) * cuts.size(0))));
    for (std::int64_t line = span.first; line < span.last; line += lines) {
      for (std::int64_t cut = 0; cut < cuts.parts; ++cut) {
        const std::int64_t begin = span.begin + cuts.first(cut);
        const Span piece{line, std::min(span.last, line + lines), begin, begin + cuts.size(cut)};
        if (want_dalpha) add_dalpha(dy, x, piece, thread, sums, ahead);
        if (want_dc) add_dc(piece, sums);
        sums.first = false;
      }
    }
  }

  void add_dalpha(const Side& dy_side, const Side& x_side, const Span& span, int thread, const PartialSums<T>& sums,
                  Ahead& ahead) {
    const std::int64_t positions = (span.last - span.first) * (span.end - span.begin);
    std::int64_t dy_step = 0, x_step = 0;
    const std::int64_t thread_rows = thread * elements(unit_positions_);
    const T* dy = matrix(dy_side, span, dy_copies_ + thread_rows * dalpha_rows_, dalpha_rows_, dy_step);
    const T* x = matrix(x_side, span, x_copies_ + thread_rows * dalpha_row_, dalpha_row_, x_step);
    const Split rows(dalpha_rows_, block_rows);
    for (std::int64_t i = 0; i < dalpha_row_;) {
      const std::int64_t vectors = std::min<std::int64_t>(block_vectors, (dalpha_row_ - i) / S::width);
      for (std::int64_t part = 0; part < rows.parts; ++part) {
        const std::int64_t o = rows.first(part);
        weight_panels<T, paired>[static_cast<std::size_t>(vectors - 1)][static_cast<std::size_t>(rows.size(part) - 1)](
            dy + o, dy_step, x + i, x_step, elements(positions), sums, sums.base + o* dalpha_row_ + i, dalpha_row_,
            ahead);
      }
      i += vectors * S::width;
    }
  }

  // The side without neighbours is that of `other`; the taps lead from it into `in`.
  void add_dc(const Span& span, const PartialSums<T>& partial) {
    const Phase& phase = p_.phases[0];
    T* dc = partial.base + dalpha_rows_ * dalpha_row_;
    for (std::int64_t j = 0; j < p_.diagonal(); j += S::width) {
      typename S::vec sums[max_taps] = {};
      const std::int64_t lanes = std::min<std::int64_t>(S::width, p_.diagonal() - j);
      for (std::int64_t line = span.first; line < span.last; ++line) add_dc_line(phase, span, line, j, lanes, sums);
      typename S::vec by_column[max_taps] = {};
      for (int t = 0; t < phase.tap_count; ++t) by_column[p_.taps_of(phase)[t].column] = sums[t];
      for (int k = 0; k < p_.columns(); ++k) partial.add(dc + k * dc_row_ + j, by_column[k]);
    }
  }

  // Cut where taps begin or end: between cuts the same taps exist.
  void add_dc_line(const Phase& phase, const Span& span, std::int64_t line, std::int64_t j, std::int64_t lanes,
                   typename S::vec* sums) const {
    std::int64_t at[max_dims + 1], begin[max_taps], end[max_taps];
    locate(line, at);
    for (int t = 0; t < phase.tap_count; ++t) tap_range(p_.taps_of(phase)[t], at, begin[t], end[t]);
    const E* near = other_ + line_offset(at, other_side_.steps) + j;
    const E* far = in_ + line_offset(at, p_.in_steps) + j;
    const std::int64_t near_step = other_side_.steps[p_.dims], far_step = p_.in_steps[p_.dims];
    for (std::int64_t from = span.begin; from < span.end;) {
      std::int64_t to = span.end, offsets[max_taps];
      int active[max_taps], count = 0;
      for (int t = 0; t < phase.tap_count; ++t) {
        if (begin[t] > from) {
          to = std::min(to, begin[t]);
        } else if (end[t] > from) {
          to = std::min(to, end[t]);
          offsets[count] = p_.taps_of(phase)[t].offset;
          active[count++] = t;
        }
      }
      if (count > 0) {
        typename S::vec some[max_taps];
        for (int i = 0; i < count; ++i) some[i] = sums[active[i]];
        const auto& table = lanes == S::width ? tap_product_table<E, true> : tap_product_table<E, false>;
        table[static_cast<std::size_t>(count - 1)](near + from * near_step, near_step, far + from * far_step, far_step,
                                                   offsets, to - from, lanes, some);
        for (int i = 0; i < count; ++i) sums[active[i]] = some[i];
      }
      from = to;
    }
  }

  void finish_weights(E* dalpha, E* dc) {
    const WeightStrides to = weight_strides(d_, work_ == Work::both);
    const std::int64_t c_in = work_ == Work::both ? p_.c_out : p_.c_in;
    // One row of dalpha a unit, then all of dc.
    parallel_for(dalpha_rows_ + 1, lanes_ > 1 ? threads_ : 1, [&](std::int64_t unit, int) {
      const bool of_dc = unit == dalpha_rows_;
      if ((of_dc ? dc : dalpha) == nullptr) return;
      T* base = partial_ + unit * dalpha_row_;
      sum_lanes(base, of_dc ? p_.columns() * dc_row_ : dalpha_row_, lanes_, partial_size_, lost_);
      if (of_dc) {
        for (int k = 0; k < p_.columns(); ++k) {
          for (std::int64_t j = 0; j < p_.diagonal(); ++j) {
            dc[j * to.dc[0] + k * to.dc[1]] = static_cast<E>(base[k * dc_row_ + j]);
          }
        }
      } else {
        for (std::int64_t i = 0; i < c_in; ++i) {
          dalpha[unit * to.dalpha[0] + i * to.dalpha[1]] = static_cast<E>(base[i]);
        }
      }
    });
  }

  const ConvDesc& d_;
  Problem p_;
  Work work_;
  OtherSide other_side_;
  int threads_ = 1;
  std::int64_t lines_ = 0;           // of the grid
  std::int64_t lines_together_ = 1;  // short ones, in one group
  std::int64_t lines_per_unit_ = 1;
  std::int64_t parts_ = 1;  // of a long line
  std::int64_t units_ = 0;
  std::int64_t unit_positions_ = 0;  // at most
  std::int64_t lanes_ = 1;           // units are dealt to them in order, each has partial sums of its own

  const E* in_ = nullptr;
  const E* other_ = nullptr;
  E* out_ = nullptr;
  bool stream_ = false;

  T* alpha_ = nullptr;  // by panels, each [depth][vectors * width]; the same of c and bias
  T* c_ = nullptr;
  T* bias_ = nullptr;
  Group<E>* groups_ = nullptr;  // [thread][groups_per_unit]
  std::int64_t groups_per_unit_ = 0;
  T* copies_ = nullptr;  // [thread][position][depth]
  T* x_copies_ = nullptr;
  T* dy_copies_ = nullptr;
  T* partial_ = nullptr;  // [lane]: dalpha [rows][row], dc [columns][row]; where kept, the same of what was lost
  std::int64_t dalpha_rows_ = 0, dalpha_row_ = 0, dc_row_ = 0;
  std::int64_t partial_size_ = 0;
  std::int64_t lost_ = 0;  // where in a lane that begins; 0: not kept
};
