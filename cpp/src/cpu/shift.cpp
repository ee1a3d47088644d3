// The shift, which moves bytes: one pass over rows of the last axis, by what is adjacent in memory.
//
// Channels first, a run of whole rows of one plane is one copy, moved by the offset as a whole; the elements that
// came from a neighbouring row are zeroed afterwards, while they are in the first-level cache. Channels last, every
// pixel is a piece for each group. A result that the caches cannot keep is put together in a small buffer and written
// past them.
#include "cpu/shift.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "parallel.hpp"

namespace leancore::detail {
namespace {

constexpr std::int64_t block_bytes = 8 << 10;          // fits the first-level cache, with the rows that it is made of
constexpr std::int64_t small_plane_bytes = 1 << 10;    // of such, many are copied at once
constexpr std::int64_t unit_bytes = 64 << 10;          // what a thread takes at a time
constexpr std::int64_t large = std::int64_t{8} << 20;  // of y; such a y and its x do not stay in a last-level cache

// Copies to memory past the caches where that can be, else as usual. Meanwhile as many bytes of what comes next are
// fetched, or writing and reading would take turns.
#if defined(__SSE2__)
constexpr bool can_stream = true;

void stream(char* to, const char* from, std::int64_t bytes, const char* next) {
  constexpr std::int64_t width = sizeof(__m128i), line = 64;
  const std::uintptr_t past = reinterpret_cast<std::uintptr_t>(to) % line;
  const std::int64_t head = std::min(bytes, static_cast<std::int64_t>((line - past) % line));
  std::memcpy(to, from, static_cast<std::size_t>(head));
  std::int64_t i = head;
  for (; i + line <= bytes; i += line) {
    __builtin_prefetch(next + i, 0, 2);
    for (std::int64_t k = i; k < i + line; k += width) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + k), _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k)));
    }
  }
  std::memcpy(to + i, from + i, static_cast<std::size_t>(bytes - i));
}
void finish_streaming() {
  _mm_sfence();
}
#else
constexpr bool can_stream = false;
void stream(char* to, const char* from, std::int64_t bytes, const char*) {
  std::memcpy(to, from, static_cast<std::size_t>(bytes));
}
void finish_streaming() {}
#endif

// The indices of 0 ... count - 1 whose source, `offset` before them, exists too.
struct Range {
  std::int64_t begin, end;
};
Range with_source(std::int64_t offset, std::int64_t count) {
  return {std::min(std::max<std::int64_t>(offset, 0), count), count + std::min<std::int64_t>(offset, 0)};
}

// `count` elements of `size` bytes, so many bytes apart.
template <int size>
void copy_line(char* to, std::int64_t to_step, const char* from, std::int64_t from_step, std::int64_t count) {
  if (to_step == size && from_step == size) {
    std::memcpy(to, from, static_cast<std::size_t>(count * size));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) std::memcpy(to + i * to_step, from + i * from_step, size);
}

template <int size>
void zero_line(char* to, std::int64_t to_step, std::int64_t count) {
  constexpr std::int64_t worth_a_call = 16;
  if (to_step == size && count > worth_a_call) {
    std::memset(to, 0, static_cast<std::size_t>(count * size));
    return;
  }
  for (std::int64_t i = 0; i < count; ++i) std::memset(to + i * to_step, 0, size);
}

// `count` pieces of `bytes` bytes. A piece ends with a move that may overlap the one before, so that no call of memcpy
// and no byte-wise rest is needed.
template <int width>
void copy_pieces_by(char* to, std::int64_t to_step, const char* from, std::int64_t from_step, std::int64_t bytes,
                    std::int64_t count) {
  const std::int64_t last = bytes - width;
  for (std::int64_t i = 0; i < count; ++i, to += to_step, from += from_step) {
    for (std::int64_t at = 0; at < last; at += width) std::memcpy(to + at, from + at, width);
    std::memcpy(to + last, from + last, width);
  }
}

void copy_pieces(char* to, std::int64_t to_step, const char* from, std::int64_t from_step, std::int64_t bytes,
                 std::int64_t count) {
  if (bytes >= 16) return copy_pieces_by<16>(to, to_step, from, from_step, bytes, count);
  if (bytes >= 8) return copy_pieces_by<8>(to, to_step, from, from_step, bytes, count);
  if (bytes >= 4) return copy_pieces_by<4>(to, to_step, from, from_step, bytes, count);
  copy_pieces_by<2>(to, to_step, from, from_step, bytes, count);
}

// The problem with four spatial axes, missing ones of extent 1, and strides in bytes.
template <int size>
class Shift {
 public:
  Shift(const ShiftDesc& d, const void* x, void* y)
      : d_(d), x_(static_cast<const char*>(x)), y_(static_cast<char*>(y)) {
    std::int64_t groups = d.groups;
    if (d.offsets == nullptr) {
      groups = 1;
      for (int a = 0; a < d.dims; ++a) groups *= 3;
    }
    each_ = d.channels / groups;
    longer_ = d.channels % groups;
    const int missing = max_dims - d.dims;
    for (int a = 0; a < max_axes; ++a) x_steps_[a] = y_steps_[a] = 0;
    for (int a = 0; a < 2; ++a) set_steps(a, a);
    for (int a = 0; a < max_dims; ++a) extents_[a] = a < missing ? 1 : d.extents[a - missing];
    for (int a = 0; a < d.dims; ++a) set_steps(a + 2 + missing, a + 2);
    channels_last_ = d.channels > 1 && x_steps_[1] == size && y_steps_[1] == size;
    row_bytes_ = extents_[3] * size * (channels_last_ ? d.channels : 1);
    rows_ = d.batch * extents_[0] * extents_[1] * extents_[2] * (channels_last_ ? 1 : d.channels);
    const auto adjacent = [&](const std::int64_t* steps) {
      return steps[5] == size && steps[4] == row_bytes_ && steps[1] == row_bytes_ * extents_[2];
    };
    small_planes_ = !channels_last_ && extents_[0] * extents_[1] == 1 &&
                    row_bytes_ * extents_[2] <= small_plane_bytes && adjacent(x_steps_) && adjacent(y_steps_);
    stream_ = can_stream && rows_ * row_bytes_ >= large && y_is_compact();
  }

  void run(int threads) const {
    if (rows_ == 0 || row_bytes_ == 0) return;
    const std::int64_t rows = std::max<std::int64_t>(1, unit_bytes / row_bytes_);
    parallel_for((rows_ + rows - 1) / rows, threads, [&](std::int64_t unit, int) {
      const std::int64_t begin = unit * rows, end = std::min(begin + rows, rows_);
      channels_last_ ? run_channels_last(begin, end) : run_channels_first(begin, end);
      if (stream_) finish_streaming();
    });
  }

 private:
  // Of a row; channel is 0 where rows hold all channels.
  struct Position {
    std::int64_t n, channel, t, d, h;
  };
  // Of channels. Offsets are clamped to the extents: from there on nothing is left.
  struct Group {
    std::int64_t begin = 0, end = 0, offset[max_dims] = {};
  };

  void set_steps(int axis, int axis_of_desc) {
    x_steps_[axis] = d_.x_strides[axis_of_desc] * size;
    y_steps_[axis] = d_.y_strides[axis_of_desc] * size;
  }

  // Whether the rows follow one another without gaps.
  [[nodiscard]] bool y_is_compact() const {
    const int order[] = {5, 4, 3, 2};
    std::int64_t step = size;
    const auto fits = [&](int axis, std::int64_t extent) {
      const bool result = extent == 1 || y_steps_[axis] == step;
      step *= extent;
      return result;
    };
    bool result = !channels_last_ || fits(1, d_.channels);
    for (const int axis : order) result = result && fits(axis, extents_[axis - 2]);
    return result && (channels_last_ || fits(1, d_.channels)) && fits(0, d_.batch);
  }

  [[nodiscard]] Position position(std::int64_t row) const {
    Position p{};
    const auto next = [&](std::int64_t extent) {
      const std::int64_t index = row % extent;
      row /= extent;
      return index;
    };
    p.h = next(extents_[2]);
    p.d = next(extents_[1]);
    p.t = next(extents_[0]);
    if (!channels_last_) p.channel = next(d_.channels);
    p.n = row;
    return p;
  }

  // Moves on over whole rows of one plane.
  void advance(Position& p, std::int64_t count) const {
    p.h += count;
    if (p.h < extents_[2]) return;
    p.h = 0;
    if (++p.d < extents_[1]) return;
    p.d = 0;
    if (++p.t < extents_[0]) return;
    p.t = 0;
    if (!channels_last_ && ++p.channel < d_.channels) return;
    p.channel = 0;
    ++p.n;
  }

  [[nodiscard]] Group group(std::int64_t index) const {
    Group result;
    result.begin = index * each_ + std::min(index, longer_);
    result.end = result.begin + each_ + (index < longer_ ? 1 : 0);
    for (int a = d_.dims - 1, missing = max_dims - d_.dims; a >= 0; --a) {
      const std::int64_t along = d_.offsets ? d_.offsets[index * d_.dims + a] : index % 3 - 1;
      if (!d_.offsets) index /= 3;
      result.offset[a + missing] = std::clamp(along, -extents_[a + missing], extents_[a + missing]);
    }
    return result;
  }
  [[nodiscard]] Group group_with(std::int64_t channel) const {
    const std::int64_t in_longer = longer_ * (each_ + 1);
    return group(channel < in_longer ? channel / (each_ + 1) : longer_ + (channel - in_longer) / each_);
  }

  [[nodiscard]] static bool inside(std::int64_t index, std::int64_t extent) { return index >= 0 && index < extent; }

  void run_channels_first(std::int64_t begin, std::int64_t end) const {
    alignas(64) char buffer[block_bytes];
    const bool buffered = stream_ && row_bytes_ <= block_bytes;
    const std::int64_t rows = std::max<std::int64_t>(1, block_bytes / row_bytes_);
    Position p = position(begin);
    Group moving = group_with(p.channel);
    for (std::int64_t row = begin; row < end;) {
      const std::int64_t first = row, stop = std::min(row + rows, end);
      char* const out = y_ + offset_of(y_steps_, p);
      while (row < stop) {
        if (p.channel < moving.begin || p.channel >= moving.end) moving = group_with(p.channel);
        const bool in_plane = moving.offset[0] == 0 && moving.offset[1] == 0;
        const std::int64_t planes =
            small_planes_ && in_plane && p.h == 0 ? std::min((stop - row) / extents_[2], moving.end - p.channel) : 0;
        if (planes > 1) {
          char* const to = buffered ? buffer + (row - first) * row_bytes_ : y_ + offset_of(y_steps_, p);
          plane_run(x_ + offset_of(x_steps_, p), to, moving.offset[2], moving.offset[3], planes);
          row += planes * extents_[2];
          p.channel += planes;
          if (p.channel == d_.channels) p.channel = 0, ++p.n;
          continue;
        }
        const std::int64_t count = std::min(stop - row, extents_[2] - p.h);
        if (buffered) {
          plane_rows(p, moving.offset, count, buffer + (row - first) * row_bytes_, row_bytes_, size);
        } else {
          plane_rows(p, moving.offset, count, y_ + offset_of(y_steps_, p), y_steps_[4], y_steps_[5]);
        }
        row += count;
        advance(p, count);
      }
      if (buffered) stream(out, buffer, (stop - first) * row_bytes_, x_ + offset_of(x_steps_, p));
    }
  }

  [[nodiscard]] static std::int64_t offset_of(const std::int64_t (&steps)[max_axes], const Position& p) {
    return p.n * steps[0] + p.channel * steps[1] + p.t * steps[2] + p.d * steps[3] + p.h * steps[4];
  }

  // Planes that follow one another and move alike: one copy of them all, then the zeros of each.
  static void plane_zeros(char* to, std::int64_t height, std::int64_t width, std::int64_t down, std::int64_t right) {
    if (down > 0) zero_line<size>(to, size, down * width);
    if (down < 0) zero_line<size>(to + (height + down) * width * size, size, -down * width);
    const std::int64_t columns = right < 0 ? -right : right;
    char* const at = right < 0 ? to + (width + right) * size : to;
    for (std::int64_t k = 0; k < columns; ++k) zero_line<size>(at + k * size, width * size, height);
  }
  void plane_run(const char* from, char* to, std::int64_t down, std::int64_t right, std::int64_t planes) const {
    const std::int64_t height = extents_[2], width = extents_[3], plane = height * width, count = planes * plane;
    if (down == height || down == -height || right == width || right == -width) {
      return zero_line<size>(to, size, count);
    }
    const std::int64_t offset = down * width + right;
    const Range copied = with_source(offset, count);
    copy_line<size>(to + copied.begin * size, size, from + (copied.begin - offset) * size, size,
                    copied.end - copied.begin);
    for (std::int64_t i = 0; i < planes; ++i) plane_zeros(to + i * plane * size, height, width, down, right);
  }

  // `count` rows of one plane, from p on, to memory with these steps.
  void plane_rows(const Position& p, const std::int64_t (&offset)[max_dims], std::int64_t count, char* to,
                  std::int64_t row_step, std::int64_t step) const {
    const std::int64_t t = p.t - offset[0], d = p.d - offset[1];
    Range rows = with_source(offset[2], extents_[2]);
    rows = {std::clamp(rows.begin - p.h, std::int64_t{0}, count), std::clamp(rows.end - p.h, std::int64_t{0}, count)};
    if (!inside(t, extents_[0]) || !inside(d, extents_[1]) || rows.begin >= rows.end) rows = {count, count};
    zero_rows(to, row_step, step, rows.begin);
    if (rows.begin < rows.end) {
      const char* from = x_ + p.n * x_steps_[0] + p.channel * x_steps_[1] + t * x_steps_[2] + d * x_steps_[3] +
                         (p.h + rows.begin - offset[2]) * x_steps_[4];
      copy_rows(to + rows.begin * row_step, row_step, step, from, rows.end - rows.begin, offset[3]);
    }
    zero_rows(to + rows.end * row_step, row_step, step, count - rows.end);
  }

  void zero_rows(char* to, std::int64_t row_step, std::int64_t step, std::int64_t count) const {
    const std::int64_t width = extents_[3];
    if (count == 0) return;
    if (step == size && row_step == width * size) return zero_line<size>(to, size, count * width);
    for (std::int64_t i = 0; i < count; ++i) zero_line<size>(to + i * row_step, step, width);
  }

  // Rows that have a source, moved by `offset` along their axis.
  void copy_rows(char* to, std::int64_t row_step, std::int64_t step, const char* from, std::int64_t count,
                 std::int64_t offset) const {
    const std::int64_t width = extents_[3], x_row = x_steps_[4], x_step = x_steps_[5];
    const Range columns = with_source(offset, width);
    const bool adjacent =
        step == size && x_step == size && row_step == width * size && (x_row == row_step || count == 1);
    if (adjacent) {  // all rows at once; the zeros follow
      const std::int64_t moved = offset < 0 ? -offset : offset;
      copy_line<size>(to + columns.begin * size, size, from + (columns.begin - offset) * size, size,
                      count * width - moved);
    }
    for (std::int64_t i = 0; i < count; ++i, to += row_step, from += x_row) {
      if (!adjacent && columns.begin < columns.end) {
        copy_line<size>(to + columns.begin * step, step, from + (columns.begin - offset) * x_step, x_step,
                        columns.end - columns.begin);
      }
      if (offset > 0) zero_line<size>(to, step, columns.begin);
      if (offset < 0) zero_line<size>(to + columns.end * step, step, width - columns.end);
    }
  }

  void run_channels_last(std::int64_t begin, std::int64_t end) const {
    alignas(64) char buffer[block_bytes];
    const std::int64_t width = extents_[3], pixel_bytes = d_.channels * size;
    const bool buffered = stream_ && pixel_bytes <= block_bytes;
    const std::int64_t pixels = std::max<std::int64_t>(1, block_bytes / pixel_bytes);
    Position p = position(begin);
    for (std::int64_t row = begin; row < end; ++row, advance(p, 1)) {
      // A row is read in thirds, when it is below, at and above the one to be written: it is fetched before, at once.
      const char* const from = x_ + offset_of(x_steps_, p) + 2 * x_steps_[4];
      for (std::int64_t w = 0; w < width; w += pixels) {
        const std::int64_t stop = std::min(w + pixels, width);
        char* const out = y_ + offset_of(y_steps_, p) + w * y_steps_[5];
        pixels_of_row(p, w, stop, buffered ? buffer : out, buffered ? pixel_bytes : y_steps_[5]);
        if (buffered) stream(out, buffer, (stop - w) * pixel_bytes, from + w * x_steps_[5]);
      }
    }
  }

  // Pixels begin ... end - 1 of a row, every group for all of them, to memory with this step.
  void pixels_of_row(const Position& p, std::int64_t begin, std::int64_t end, char* to, std::int64_t step) const {
    for (std::int64_t index = 0, channel = 0; channel < d_.channels; ++index) {
      const Group moving = group(index);
      const auto& offset = moving.offset;
      const std::int64_t t = p.t - offset[0], d = p.d - offset[1], h = p.h - offset[2];
      const std::int64_t bytes = (moving.end - channel) * size;
      Range columns = with_source(offset[3], extents_[3]);
      columns = {std::clamp(columns.begin, begin, end), std::clamp(columns.end, begin, end)};
      if (!inside(t, extents_[0]) || !inside(d, extents_[1]) || !inside(h, extents_[2]) ||
          columns.begin >= columns.end) {
        columns = {end, end};
      }
      char* const out = to + channel * size;
      const auto zero = [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t w = first; w < last; ++w) {
          std::memset(out + (w - begin) * step, 0, static_cast<std::size_t>(bytes));
        }
      };
      zero(begin, columns.begin);
      if (columns.begin < columns.end) {
        const char* from = x_ + p.n * x_steps_[0] + channel * size + t * x_steps_[2] + d * x_steps_[3] +
                           h * x_steps_[4] + (columns.begin - offset[3]) * x_steps_[5];
        copy_pieces(out + (columns.begin - begin) * step, step, from, x_steps_[5], bytes, columns.end - columns.begin);
      }
      zero(columns.end, end);
      channel = moving.end;
    }
  }

  const ShiftDesc& d_;
  const char* x_;
  char* y_;
  std::int64_t each_ = 0, longer_ = 0;  // channels of a group; groups at the beginning that have one more
  std::int64_t extents_[max_dims] = {}, x_steps_[max_axes] = {}, y_steps_[max_axes] = {};
  bool channels_last_ = false, small_planes_ = false, stream_ = false;
  std::int64_t row_bytes_ = 0, rows_ = 0;
};

}  // namespace

void shift_on_cpu(const ShiftDesc& desc, const void* x, void* y, int threads) noexcept {
  switch (info(desc.dtype).size) {
    case 2:
      return Shift<2>(desc, x, y).run(threads);
    case 4:
      return Shift<4>(desc, x, y).run(threads);
    default:
      return Shift<8>(desc, x, y).run(threads);
  }
}

}  // namespace leancore::detail
