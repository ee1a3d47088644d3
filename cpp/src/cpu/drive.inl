// The kernels' outer loops: which tiles, in which order, on which thread. Included once per instruction set.
//
// Needs: LEANCORE_VECTOR_BYTES, an open namespace of its own, and the standard headers already included.

#include "cpu/vec.inl"
// After vec.inl, in this order:
#include "cpu/microkernel.inl"
#include "cpu/pack.inl"
#include "cpu/weight_kernel.inl"

template <typename T>
class Driver {
 public:
  using S = Simd<T>;
  using Mask = mask_element<T>;

  static std::size_t workspace_bytes(Operation operation, const ConvDesc& desc, int threads) {
    const Problem problem = make_problem(operation, desc);
    const bool weight = operation == Operation::backward_weight;
    const Plan plan = make_plan(problem, sizeof(T), S::width, weight);
    Arena arena(nullptr);
    const Workspace<T, Mask> sizing(arena, problem, plan, S::width, threads, weight);
    return arena.used();
  }

  Driver(Operation operation, const ConvDesc& desc, void* workspace, int threads)
      : p_(make_problem(operation, desc)),
        plan_(make_plan(p_, sizeof(T), S::width, operation == Operation::backward_weight)),
        arena_(workspace),
        w_(arena_, p_, plan_, S::width, threads, operation == Operation::backward_weight),
        threads_(threads) {
    fill_inner_offsets();
    fill_masks();
  }

  void forward(const T* in, const T* alpha, const T* c, const T* bias, T* out) {
    pack_weights(alpha, c, bias);
    fill_output_offsets();
    in_ = source(in, p_.c_in, p_.in_strides[1], p_.in_stride(plan_.slice_axis), in_compact_, w_.in_inner);
    parallel_for(plan_.units, threads_, [&](std::int64_t unit, int thread) {
      walk(unit, thread, [&](const Step& step) { forward_tile(step, out); });
    });
  }

  void backward_weight(const T* x, const T* dy, T* dalpha, T* dc, const ConvDesc& d) {
    in_ = source(x, p_.c_in, p_.in_strides[1], p_.in_stride(plan_.slice_axis), in_compact_, w_.in_inner);
    const Source<T> out =
        source(dy, p_.c_out, p_.out_strides[1], p_.out_stride(plan_.slice_axis), out_compact_, w_.out_inner);
    parallel_for(plan_.lanes, threads_, [&](std::int64_t lane, int thread) {
      bool first = true;
      T* partial = w_.partial + lane * w_.partial_size;
      for (std::int64_t unit = lane * plan_.units / plan_.lanes; unit < (lane + 1) * plan_.units / plan_.lanes;
           ++unit) {
        walk(unit, thread, [&](const Step& step) {
          weight_tile(step, out, thread, first, dalpha != nullptr, dc != nullptr, partial);
          first = false;
        });
      }
    });
    sum_lanes(dalpha, dc, d);
  }

 private:
  // One tile, packed.
  struct Step {
    const T* x;  // channel 0, first pixel of the run
    std::int64_t pixels;
    std::int64_t rows;
    std::int64_t out_offset;  // of the first pixel in `out`
    TapList<T> taps;
  };

  // ---- tables, made once per call ----

  // Offsets of the pixels of one row; answers whether they are simply 0, 1, 2, ...
  bool fill_inner(std::int64_t* offsets, bool of_in) {
    bool compact = true;
    std::int64_t expected = 1;
    for (int axis = p_.dims; axis > plan_.slice_axis; --axis) {
      const std::int64_t stride = of_in ? p_.in_stride(axis) : p_.out_stride(axis);
      compact = compact && (p_.axis_extent(axis) == 1 || stride == expected);
      expected *= p_.axis_extent(axis);
    }
    std::int64_t at[max_dims + 1] = {};
    for (std::int64_t pixel = 0; pixel < plan_.inner; ++pixel) {
      std::int64_t sum = 0;
      for (int axis = plan_.slice_axis + 1; axis <= p_.dims; ++axis) {
        sum += at[axis] * (of_in ? p_.in_stride(axis) : p_.out_stride(axis));
      }
      offsets[pixel] = sum;
      step_inner(at);
    }
    return compact;
  }

  void step_inner(std::int64_t* at) const {
    for (int axis = p_.dims; axis > plan_.slice_axis; --axis) {
      if (++at[axis] < p_.axis_extent(axis)) return;
      at[axis] = 0;
    }
  }

  void fill_inner_offsets() {
    in_compact_ = fill_inner(w_.in_inner, true);
    out_compact_ = fill_inner(w_.out_inner, false);
  }

  [[nodiscard]] int column(int axis, int direction) const { return direction < 0 ? axis - 1 : 2 * p_.dims - axis; }

  [[nodiscard]] std::int64_t slice_rows(std::int64_t slice) const {
    return std::min(plan_.rows, p_.axis_extent(plan_.slice_axis) - slice * plan_.rows);
  }

  // For inner axes: where in the run the neighbour exists. For the slice axis: the same for the first slice (towards
  // -1) and for the last one (towards +1); other slices need no mask there.
  void fill_masks() {
    const Mask yes = static_cast<Mask>(-1);
    std::int64_t at[max_dims + 1] = {};
    for (std::int64_t pixel = 0; pixel < plan_.run; ++pixel) {
      for (int axis = plan_.slice_axis + 1; axis <= p_.dims; ++axis) {
        mask(column(axis, -1))[pixel] = at[axis] > 0 ? yes : Mask{};
        mask(column(axis, +1))[pixel] = at[axis] + 1 < p_.axis_extent(axis) ? yes : Mask{};
      }
      step_inner(at);
    }
    if (const int axis = plan_.slice_axis; axis > 0) {
      const std::int64_t last = (slice_rows(plan_.slices - 1) - 1) * plan_.inner;
      for (std::int64_t pixel = 0; pixel < plan_.run; ++pixel) {
        mask(column(axis, -1))[pixel] = pixel >= plan_.inner ? yes : Mask{};
        mask(column(axis, +1))[pixel] = pixel < last ? yes : Mask{};
      }
    }
  }
  [[nodiscard]] Mask* mask(int column) const { return w_.masks + column * w_.mask_length; }

  void fill_output_offsets() {
    const std::int64_t row_stride = p_.out_stride(plan_.slice_axis);
    for (std::int64_t row = 0, pixel = 0; row < plan_.rows; ++row) {
      for (std::int64_t inner = 0; inner < plan_.inner; ++inner, ++pixel) {
        w_.pixel_offset[pixel] = row * row_stride + w_.out_inner[inner];
      }
    }
    for (std::int64_t first = 0; first + S::width <= plan_.run; first += S::width) {
      const std::int64_t* offsets = w_.pixel_offset + first;
      bool contiguous = offsets[0] >= 0;
      for (std::int64_t i = 1; i < S::width; ++i) contiguous = contiguous && offsets[i] == offsets[0] + i;
      w_.vector_offset[first / S::width] = contiguous ? offsets[0] : -1;
    }
    // The last vector of the run, when partial, is always stored pixel by pixel.
    w_.vector_offset[plan_.run / S::width] = -1;
  }

  void pack_weights(const T* alpha, const T* c, const T* bias) {
    T* to = w_.alpha;
    over_panels([&](std::int64_t first, std::int64_t rows, bool) {
      for (std::int64_t i = 0; i < p_.c_in; ++i) {
        for (std::int64_t r = 0; r < rows; ++r) *to++ = alpha[(first + r) * p_.alpha_out + i * p_.alpha_in];
      }
    });
    const int columns = 2 * p_.dims;
    for (std::int64_t j = 0; j < p_.diagonal(); ++j) {
      for (int k = 0; k < columns; ++k) w_.c[j * columns + k] = c[j * p_.c_channel + k * p_.c_tap + p_.c_first];
    }
    for (std::int64_t o = 0; o < p_.c_out; ++o) w_.bias[o] = bias ? bias[o * p_.bias_stride] : T{};
  }

  static Source<T> source(const T* base, std::int64_t channels, std::int64_t channel_stride, std::int64_t row_stride,
                          bool compact, const std::int64_t* inner_offset) {
    return {base, channels, channel_stride, row_stride, compact ? nullptr : inner_offset};
  }

  // ---- the walk over tiles ----

  // Calls visit(step) for every tile of a unit: one slice, `chunk` successive positions of the axes outside it.
  template <typename Visit>
  void walk(std::int64_t unit, int thread, Visit visit) {
    const std::int64_t slice = unit % plan_.slices;
    const std::int64_t begin = unit / plan_.slices * plan_.chunk;
    const std::int64_t end = std::min(plan_.walk, begin + plan_.chunk);
    Window window(w_.slots + thread * plan_.slots * plan_.slot_size, plan_);

    Step step;
    step.rows = slice_rows(slice);
    step.pixels = step.rows * plan_.inner;
    for (std::int64_t position = begin; position < end; ++position) {
      const int axis = plan_.slice_axis;
      std::int64_t wanted[2 * max_dims + 1] = {position};
      int count = 1;
      // Neighbours along the walked axes lie in tiles of their own.
      Tap<T> walked[2 * max_dims];
      std::int64_t rest = position, stride = 1, offset = 0;
      int walked_count = 0;
      for (int outer = axis - 1; outer >= 0; --outer) {
        const std::int64_t extent = p_.axis_extent(outer), at = rest % extent;
        rest /= extent;
        offset += at * p_.out_stride(outer);
        if (outer > 0 && at > 0) {
          walked[walked_count++] = {position - stride, nullptr, column(outer, -1)};
          wanted[count++] = position - stride;
        }
        if (outer > 0 && at + 1 < extent) {
          walked[walked_count++] = {position + stride, nullptr, column(outer, +1)};
          wanted[count++] = position + stride;
        }
        stride *= extent;
      }
      window.hold(wanted, count, [&](std::int64_t which, T* slot) { pack_tile(which, slice, slot); });

      T* slot = window.slot(position);
      step.x = slot + plan_.margin;
      step.out_offset = offset + slice * plan_.rows * p_.out_stride(axis);
      step.taps.count = 0;
      for (int k = 0; k < 2 * p_.dims; ++k) {
        const int tap_axis = k < p_.dims ? k + 1 : 2 * p_.dims - k;
        const int direction = k < p_.dims ? -1 : 1;
        if (p_.axis_extent(tap_axis) == 1) continue;
        if (tap_axis < axis) {
          for (int i = 0; i < walked_count; ++i) {
            if (walked[i].column != k) continue;
            step.taps.taps[step.taps.count++] = {window.slot(walked[i].offset) - slot, nullptr, k};
          }
          continue;
        }
        std::int64_t distance = 1;
        for (int inner = tap_axis + 1; inner <= p_.dims; ++inner) distance *= p_.axis_extent(inner);
        const bool inside = tap_axis == axis && (direction < 0 ? slice > 0 : slice + 1 < plan_.slices);
        step.taps.taps[step.taps.count++] = {direction * distance, inside ? nullptr : mask(k), k};
      }
      visit(step);
    }
  }

  // The packed tiles that a thread holds, each in a slot.
  class Window {
   public:
    Window(T* base, const Plan& plan) : base_(base), plan_(plan) { std::fill_n(held_, 2 * max_dims + 1, -1); }

    [[nodiscard]] T* slot(std::int64_t position) const {
      int s = 0;
      while (held_[s] != position) ++s;
      return base_ + s * plan_.slot_size;
    }

    // Makes all wanted positions present, packing the missing ones over those that are not wanted.
    template <typename Fill>
    void hold(const std::int64_t* wanted, int count, Fill fill) {
      for (int i = 0; i < count; ++i) {
        if (std::find(held_, held_ + plan_.slots, wanted[i]) != held_ + plan_.slots) continue;
        int free = 0;
        while (std::find(wanted, wanted + count, held_[free]) != wanted + count) ++free;
        held_[free] = wanted[i];
        fill(wanted[i], base_ + free * plan_.slot_size);
      }
    }

   private:
    T* base_;
    const Plan& plan_;
    std::int64_t held_[2 * max_dims + 1];
  };

  // A slice at one position of the outer axes, with the halo rows that exist.
  void pack_tile(std::int64_t position, std::int64_t slice, T* slot) {
    const int axis = plan_.slice_axis;
    std::int64_t offset = 0;
    for (int outer = axis - 1; outer >= 0; --outer) {
      offset += position % p_.axis_extent(outer) * p_.in_stride(outer);
      position /= p_.axis_extent(outer);
    }
    const std::int64_t first = slice * plan_.rows, halo = axis > 0 ? 1 : 0;
    const std::int64_t begin = std::max<std::int64_t>(0, first - halo);
    const std::int64_t end = std::min(p_.axis_extent(axis), first + slice_rows(slice) + halo);
    pack(in_, offset + begin * p_.in_stride(axis), end - begin, plan_.inner,
         slot + plan_.margin + (begin - first) * plan_.inner, plan_.row_length);
  }

  // ---- forward ----

  // Panels with and without stencil do not mix.
  template <typename Visit>
  void over_panels(Visit visit) const {
    const Split with_stencil(p_.diagonal(), panel_rows), without(p_.c_out - p_.diagonal(), panel_rows);
    for (std::int64_t i = 0; i < with_stencil.parts; ++i) visit(with_stencil.first(i), with_stencil.size(i), true);
    for (std::int64_t i = 0; i < without.parts; ++i) {
      visit(p_.diagonal() + without.first(i), without.size(i), false);
    }
  }

  void forward_tile(const Step& step, T* out) const {
    Tile<T> tile;
    tile.x = step.x;
    tile.row_length = plan_.row_length;
    tile.c_in = p_.c_in;
    tile.pixels = step.pixels;
    tile.taps = &step.taps;
    tile.columns = 2 * p_.dims;
    tile.y = out + step.out_offset;
    tile.y_channel = p_.out_strides[1];
    tile.vector_offset = w_.vector_offset;
    tile.pixel_offset = w_.pixel_offset;

    // Either the pixels or the weights stay in the first-level cache while the other passes by.
    constexpr std::int64_t block = panel_vectors * S::width;
    const bool hold_pixels = p_.c_in * block * static_cast<std::int64_t>(sizeof(T)) <= 24 * 1024 &&
                             p_.c_in * p_.c_out * static_cast<std::int64_t>(sizeof(T)) <= 512 * 1024;
    const std::int64_t stretch = hold_pixels ? block : step.pixels;
    for (std::int64_t begin = 0; begin < step.pixels; begin += stretch) {
      const std::int64_t end = std::min(step.pixels, begin + stretch);
      over_panels([&](std::int64_t first, std::int64_t rows, bool stencil) {
        const Panel<T> panel{first, w_.alpha + first * p_.c_in, w_.c + first * tile.columns, w_.bias + first};
        const auto height = static_cast<std::size_t>(rows - 1);
        const ForwardBlock<T> compute = stencil ? forward_blocks<T, true>[height] : forward_blocks<T, false>[height];
        for (std::int64_t q = begin; q < end; q += block) compute(tile, panel, q);
      });
    }
  }

  // ---- backward_weight ----

  void weight_tile(const Step& step, const Source<T>& out, int thread, bool first, bool want_dalpha, bool want_dc,
                   T* partial) {
    T* dy = w_.out_tile + thread * p_.c_out * plan_.out_row_length;
    pack(out, step.out_offset, step.rows, plan_.inner, dy, plan_.out_row_length);
    alignas(LEANCORE_VECTOR_BYTES) Mask tail[S::width];
    for (std::int64_t i = 0; i < S::width; ++i) tail[i] = i < step.pixels % S::width ? static_cast<Mask>(-1) : Mask{};
    const WeightTile<T> tile{step.x, plan_.row_length, dy, plan_.out_row_length, step.pixels, tail, first, w_.lost};
    if (want_dalpha) add_dalpha(tile, p_.c_out, p_.c_in, partial);
    if (want_dc) add_dc(tile, step.taps, p_.diagonal(), 2 * p_.dims, partial + p_.c_in * p_.c_out);
  }

  // Adds the lanes pairwise, in an order that depends on their number alone, and writes the result.
  void sum_lanes(T* dalpha, T* dc, const ConvDesc& d) {
    const std::int64_t columns = 2 * p_.dims;
    // One row of dalpha a unit, then all of dc.
    parallel_for(p_.c_out + 1, plan_.lanes > 1 ? threads_ : 1, [&](std::int64_t unit, int) {
      const bool of_dc = unit == p_.c_out;
      T* target = of_dc ? dc : dalpha;
      if (target == nullptr) return;
      const std::int64_t count = of_dc ? p_.diagonal() * columns : p_.c_in;
      T* base = w_.partial + unit * p_.c_in;
      for (std::int64_t lane = 0; w_.lost != 0 && lane < plan_.lanes; ++lane) {
        T* sums = base + lane * w_.partial_size;
        for (std::int64_t i = 0; i < count; ++i) {
          // An infinite or NaN sum has lost nothing that means anything.
          const T lost = sums[w_.lost + i];
          if (lost - lost == T{}) sums[i] += lost;
        }
      }
      for (std::int64_t step = 1; step < plan_.lanes; step *= 2) {
        for (std::int64_t lane = 0; lane < plan_.lanes; lane += 2 * step) {
          T* to = base + lane * w_.partial_size;
          const T* from = to + step * w_.partial_size;
          for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
        }
      }
      for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t offset = of_dc ? i / columns * d.c_strides[0] + i % columns * d.c_strides[1]
                                          : unit * d.alpha_strides[0] + i * d.alpha_strides[1];
        target[offset] = base[i];
      }
    });
  }

  Problem p_;
  Plan plan_;
  Arena arena_;
  Workspace<T, Mask> w_;
  int threads_;
  bool in_compact_ = false, out_compact_ = false;
  Source<T> in_ = {};
};

template <typename T>
void run_typed(Operation operation, const ConvDesc& d, const Arguments& a, void* workspace, int threads) {
  Driver<T> driver(operation, d, workspace, threads);
  const auto as = [](const void* pointer) { return static_cast<const T*>(pointer); };
  switch (operation) {
    case Operation::forward:
      return driver.forward(as(a.x), as(a.alpha), as(a.c), as(a.bias), static_cast<T*>(a.y));
    case Operation::backward_data:
      return driver.forward(as(a.dy), as(a.alpha), as(a.c), nullptr, static_cast<T*>(a.dx));
    case Operation::backward_weight:
      return driver.backward_weight(as(a.x), as(a.dy), static_cast<T*>(a.dalpha), static_cast<T*>(a.dc), d);
  }
}

Status run(Operation operation, const ConvDesc& d, const Arguments& arguments, const Context&, void* workspace,
           int threads) {
  if (d.dtype == DType::f32) {
    run_typed<float>(operation, d, arguments, workspace, threads);
  } else {
    run_typed<double>(operation, d, arguments, workspace, threads);
  }
  return {};
}

std::size_t workspace_bytes(Operation operation, const ConvDesc& d, int threads) {
  return d.dtype == DType::f32 ? Driver<float>::workspace_bytes(operation, d, threads)
                               : Driver<double>::workspace_bytes(operation, d, threads);
}
