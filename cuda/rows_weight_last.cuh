// Row-marching backward_weight for 16-bit channels-last arrays on tensor cores: dalpha and dc from one read of x and
// dy.
//
// The products are those of rows_weight.cuh, their inner dimension the pixels; memory has the channels of a pixel side
// by side, so ldmatrix transposes. A lane gives the address of the row of a matrix, which is a pixel: for dc it is that
// pixel's neighbour, or behind the rings a pixel of zeros where there is none in the row.
//
// Of volumes, the taps to other planes are multiplied on the ordinary multipliers: a thread takes 8 channels of every
// so many-th pixel, x from the slot and dy from global memory, which arrives while the products are taken.
#pragma once

#include "pixels.cuh"
#include "rows_weight.cuh"

namespace leancore::detail::cuda {

template <typename T, typename Tile>
class RowsWeightLast : public TensorWeightSums<Tile, false> {
  using Base = TensorWeightSums<Tile, false>;
  using Base::across, Base::alpha, Base::channel_warp, Base::horizontal, Base::lane, Base::stencil,
      Base::stencil_channel, Base::vertical;
  static constexpr int m_tiles = Tile::m_tiles, n_tiles = Tile::n_tiles, groups = Tile::groups;
  using DyRing = typename Tile::DyRing;
  using XRing = typename Tile::XRing;
  static_assert(DyRing::pitch == XRing::pitch);
  static constexpr int pitch = DyRing::pitch;

 public:
  __device__ RowsWeightLast(const RowsWeightParameters& parameters, unsigned char* shared, int thread)
      : Base(parameters, thread, thread % 32 / 4), zeros(shared + Tile::zeros_offset) {
    for (int i = thread; i < Tile::channels; i += Tile::threads)
      reinterpret_cast<std::uint16_t*>(shared + Tile::zeros_offset)[i] = 0;
    // a: pixels 0..7 of the first and of the next 8 channels, then pixels 8..15; b: pixels 0..7 and 8..15 of the first
    // 8 channels, then of the next.
    const int row = lane % 8, matrix = lane / 8, a_pixel = row + matrix / 2 * 8;
    b_pixel = row + matrix % 2 * 8;
    a_offset = a_pixel * pitch + (channel_warp / Tile::warps_i * 16 * m_tiles + matrix % 2 * 8) * 2;
    b_offset = b_pixel * pitch + (channel_warp % Tile::warps_i * 8 * n_tiles + matrix / 2 * 8) * 2;
    // Where a pixel is in a slot is the same in every unit.
    const RowsUnit first(parameters.cut, Tile::pixels, 0);
#pragma unroll
    for (int i = 0; i < groups; ++i) locate(parameters.cut, first, i, first_pixel(i) + a_pixel, matrix % 2 != 0);
  }

  __device__ __forceinline__ void compute(const RowsUnit&, int, const WeightSlots& at) { multiply<0, groups>(at); }

 protected:
  // The products of groups [first, last).
  template <int first, int last>
  __device__ __forceinline__ void multiply(const WeightSlots& at) {
#pragma unroll
    for (int i = first; i < last; ++i) {
      const int offset = (1 + first_pixel(i)) * pitch;
      add_alpha(at.dy + offset + a_offset, at.x + offset + b_offset);
      const unsigned char* vertical_row = (up_left[i].zeros ? zeros : up_left[i].here ? at.dy : at.dy_below);
      const unsigned char* horizontal_row = (right_down[i].zeros ? zeros : right_down[i].here ? at.dy : at.dy_above);
      add_stencil(vertical_row + up_left[i].offset, horizontal_row + right_down[i].offset,
                  at.x + offset + b_pixel * pitch);
    }
  }

 private:
  // A row of ldmatrix: dy of a neighbour of a pixel.
  struct Neighbour {
    int offset;        // in its slot
    bool here, zeros;  // in the current slot; or there is none in the row
  };

  __device__ __forceinline__ int first_pixel(int i) const { return (across + i * Tile::warps_across) * 16; }

  // The tap that reads x at p + step pairs dy[p] with it: seen from x, dy lies at -step. The lane's rows are the
  // second tap of either product, else the first.
  __device__ __forceinline__ void locate(const RowsCut& cut, const RowsUnit& unit, int i, int pixel, bool second) {
    const PieceOfRow place(cut, unit, pixel, pitch);
    const int offset = (1 + pixel) * pitch;
    const bool absent = place.row >= cut.rows_per_block;  // behind the last row of the slot, where nothing is
    const bool first_of_row = cut.strips == 1 && (place.column == 0 || absent);
    const bool last_of_row = cut.strips == 1 && (place.column + 1 == cut.width || absent);
    if (second) {
      up_left[i] = {last_of_row ? 0 : offset + pitch, true, last_of_row};
      right_down[i] = {offset + place.above, place.above_here, false};
    } else {
      up_left[i] = {offset + place.below, place.below_here, false};
      right_down[i] = {first_of_row ? 0 : offset - pitch, true, first_of_row};
    }
  }

  __device__ __forceinline__ void add_alpha(const unsigned char* dy, const unsigned char* x) {
    std::uint32_t a[m_tiles][4];
#pragma unroll
    for (int m = 0; m < m_tiles; ++m) load_matrices_transposed(a[m], dy + m * 32);
#pragma unroll
    for (int n = 0; n < n_tiles; n += 2) {
      std::uint32_t b[4];
      load_matrices_transposed(b, x + n * 16);
#pragma unroll
      for (int m = 0; m < m_tiles; ++m) {
        multiply_add<T>(alpha[m][n], a[m], b[0], b[1]);
        multiply_add<T>(alpha[m][n + 1], a[m], b[2], b[3]);
      }
    }
  }

  __device__ __forceinline__ void add_stencil(const unsigned char* vertical_row, const unsigned char* horizontal_row,
                                              const unsigned char* x_row) {
#pragma unroll
    for (int i = 0; i < Tile::stencil_groups; ++i) {
      const int channel = stencil_channel(i);
      if (channel >= stencil) continue;  // the same for the whole warp
      std::uint32_t a[4], b[2];
      load_matrices_transposed(b, x_row + channel * 2);
      load_matrices_transposed(a, vertical_row + channel * 2);
      multiply_add<T>(vertical[i], a, b[0], b[1]);
      load_matrices_transposed(a, horizontal_row + channel * 2);
      multiply_add<T>(horizontal[i], a, b[0], b[1]);
    }
  }

  const unsigned char* zeros;
  int a_offset, b_offset, b_pixel;
  Neighbour up_left[groups], right_down[groups];
};

// The same of volumes.
template <typename T, typename Tile, int copy_bytes>
class VolumeWeightLast : public RowsWeightLast<T, Tile> {
  using Base = RowsWeightLast<T, Tile>;
  using Sums = TensorWeightSums<Tile, false>;
  using Sums::p, Sums::stencil;
  static constexpr int pitch = Tile::DyRing::pitch;
  // Pieces of 8 channels of a pixel, threads that take the same, and pixels of a thread.
  static constexpr int pieces = Tile::pieces, piece_threads = Tile::piece_threads;
  static constexpr int pixels = Tile::pixels / piece_threads;
  // dy of the taps front and back, for half of the thread's pixels: all would not fit in registers.
  using Planes = uint4[2][pixels / 2];
  static constexpr bool planes_early = copy_bytes > 2;  // single elements take too many registers

 public:
  __device__ VolumeWeightLast(const RowsWeightParameters& parameters, unsigned char* shared, int thread)
      : Base(parameters, shared, thread), channel(thread % pieces * 8), first_pixel(thread / pieces) {}

  __device__ __forceinline__ void compute(const RowsUnit& unit, int block, const WeightSlots& at) {
    float sums[2][8] = {};  // of the row-block
    compute_half<0>(unit, block, at, sums);
    compute_half<1>(unit, block, at, sums);
#pragma unroll
    for (int i = 0; i < 16; ++i) planes[i / 8][i % 8] += sums[i / 8][i % 8];
  }

  __device__ void add_shares(unsigned char* shared, int thread) {
    Base::add_shares(shared, thread);
    cuda::add_shares<piece_threads, pieces, 16>(shared, thread, [&](auto visit) {
#pragma unroll
      for (int i = 0; i < 16; ++i) visit(i, planes[i / 8][i % 8]);
    });
  }

  __device__ void store() const {
    Base::store();
    if (first_pixel > 0) return;
    const PartialResult<true> partial(p);
    const int first_channel = static_cast<int>(blockIdx.y) * Tile::channels;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (channel + j < stencil) partial.set_planes(first_channel + channel + j, planes[0][j], planes[1][j]);
    }
  }

 private:
  __device__ __forceinline__ int pixel(int half, int k) const {
    return first_pixel + (half * (pixels / 2) + k) * piece_threads;
  }

  template <int half>
  __device__ __forceinline__ void compute_half(const RowsUnit& unit, int block, const WeightSlots& at,
                                               float (&sums)[2][8]) {
    Planes dy;
    if constexpr (planes_early) {
#pragma unroll
      for (int k = 0; k < pixels / 2; ++k) {
        dy[0][k] = load_plane(unit, block, pixel(half, k), true);
        dy[1][k] = load_plane(unit, block, pixel(half, k), false);
      }
    }
    Base::template multiply<half * Tile::groups / 2, (half + 1) * Tile::groups / 2>(at);
    if (channel >= stencil) return;
#pragma unroll
    for (int k = 0; k < pixels / 2; ++k) {
      const uint4 x = *reinterpret_cast<const uint4*>(at.x + (1 + pixel(half, k)) * pitch + channel * 2);
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const bool front = which == 0;
        if (!has_dy(p, unit, front)) continue;  // what is outside the volume is not multiplied
        add_products(planes_early ? dy[which][k] : load_plane(unit, block, pixel(half, k), front), x, sums[which]);
      }
    }
  }

  // dy of a tap; zeros where there is nothing.
  __device__ __forceinline__ uint4 load_plane(const RowsUnit& unit, int block, int slot_pixel, bool front) const {
    const PieceOfRow place(p.cut, unit, slot_pixel, pitch);
    const int row = block * p.cut.rows_per_block + place.row;
    const bool in_chunk = row < unit.last_row;
    const T* from = dy_plane<T>(p, unit, front, static_cast<int>(blockIdx.y) * Tile::channels + channel);
    const int offset = in_chunk ? row * p.dy.row + place.column * p.dy.column : 0;
    return load_global_piece<copy_bytes>(from + offset, in_chunk && has_dy(p, unit, front) ? stencil - channel : 0);
  }

  static __device__ __forceinline__ void add_products(const uint4& dy, const uint4& x, float (&sum)[8]) {
    const std::uint32_t dy_words[4] = {dy.x, dy.y, dy.z, dy.w}, x_words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const float2 left = widen_pair<T>(dy_words[w]), right = widen_pair<T>(x_words[w]);
      sum[2 * w] += left.x * right.x;
      sum[2 * w + 1] += left.y * right.y;
    }
  }

  const int channel, first_pixel;
  float planes[2][8] = {};  // taps front and back
};

template <typename T, typename Tile, int copy_bytes>
__global__ void __launch_bounds__(Tile::threads, 1) rows_weight_last(const RowsWeightParameters p) {
  using Sums = std::conditional_t<Tile::volume, VolumeWeightLast<T, Tile, copy_bytes>, RowsWeightLast<T, Tile>>;
  add_units<Sums, PixelLoader<T, typename Tile::DyRing, Tile::threads, copy_bytes, true>,
            PixelLoader<T, typename Tile::XRing, Tile::threads, copy_bytes, false>>(p);
}

}  // namespace leancore::detail::cuda
