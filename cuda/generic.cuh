// The generic kernels: any strides, stride and dilation, 1-D to 4-D, every element type. They read as the operator is
// defined, run what no tiled kernel takes, and are the oracle on the device.
#pragma once

#include "elements.cuh"
#include "parameters.hpp"

namespace leancore::detail::cuda {

// Splits `count` into a multiple of `extent`, which stays in it, and the rest.
template <typename Index>
__device__ Index take_rest(Index& count, Index extent) {
  if (extent == 1) return 0;
  const Index whole = count / extent, rest = count - whole * extent;
  count = whole;
  return rest;
}

// Index of a block or a thread of the whole grid, without overflow of 32 bits before the widening.
template <typename Index>
__device__ Index first_unit() {
  return static_cast<Index>(blockIdx.x) * static_cast<Index>(blockDim.x) + static_cast<Index>(threadIdx.x);
}

// Calls visit(axis, direction, column) for the taps in the order of the columns of c: the -1 taps from the outermost
// axis in, then the +1 taps from the innermost out.
template <typename Visit>
__device__ void over_taps(int first_axis, Visit visit) {
#pragma unroll
  for (int a = 0; a < max_dims; ++a) {
    if (a >= first_axis) visit(a, -1, a - first_axis);
  }
#pragma unroll
  for (int a = max_dims - 1; a >= 0; --a) {
    if (a >= first_axis) visit(a, 1, 2 * max_dims - 1 - first_axis - a);
  }
}

// One thread, one element of out: bias, channels rising, taps by column.
//
// Forward reads x at stride * p, and taps `dilation` away. The adjoint collects what position p of x was read for:
// output q with stride * q + step = p, where there is one.
template <typename T, typename Index, bool adjoint>
__global__ void __launch_bounds__(generic_threads, 3)  // with 4, fp64 with 64-bit indices spills on 10.0
    apply(const ApplyParameters<Index> g, const T* __restrict__ in, const T* __restrict__ alpha,
          const T* __restrict__ c, const T* __restrict__ bias, T* __restrict__ out) {
  using E = Element<T>;
  using Sum = typename E::Sum;
  const Index all_threads = static_cast<Index>(gridDim.x) * generic_threads;
  for (Index unit = first_unit<Index>(); unit < g.outputs; unit += all_threads) {
    Index rest = unit, p[max_dims], o = 0;
    if (g.channels_last) o = take_rest(rest, g.out_channels);
#pragma unroll
    for (int a = max_dims - 1; a >= 0; --a) p[a] = take_rest(rest, g.out_extents[a]);
    if (!g.channels_last) o = take_rest(rest, g.out_channels);
    const Index n = rest;

    // The position of `in` that belongs to p, and the axes along which there is none.
    Index q[max_dims], centre = n * g.in_strides[0];
    unsigned missing = 0;
#pragma unroll
    for (int a = 0; a < max_dims; ++a) {
      if (adjoint) {
        q[a] = g.stride[a] == 1 ? p[a] : p[a] / g.stride[a];
        if (q[a] * g.stride[a] != p[a]) missing |= 1u << a;
      } else {
        q[a] = p[a] * g.stride[a];
      }
      centre += q[a] * g.in_strides[2 + a];
    }

    Sum sum = bias == nullptr ? Sum(0) : E::widen(bias[o * g.bias_stride]);
    if (missing == 0) {
      for (Index i = 0; i < g.in_channels; ++i) {
        sum += E::widen(alpha[o * g.alpha_out + i * g.alpha_in]) * E::widen(in[centre + i * g.in_strides[1]]);
      }
    }
    if (o < g.stencil_channels) {
      over_taps(g.first_axis, [&](int a, int direction, int column) {
        if ((missing & ~(1u << a)) != 0) return;
        Index at;
        if (adjoint) {
          const Index reader = p[a] - direction * g.dilation[a];
          at = reader / g.stride[a];
          if (reader < 0 || at * g.stride[a] != reader) return;
        } else {
          at = q[a] + direction * g.dilation[a];
          if (at < 0) return;
        }
        if (at >= g.in_extents[a]) return;
        const Index offset = centre + (at - q[a]) * g.in_strides[2 + a] + o * g.in_strides[1];
        sum += E::widen(c[o * g.c_channel + column * g.c_tap]) * E::widen(in[offset]);
      });
    }

    Index offset = n * g.out_strides[0] + o * g.out_strides[1];
#pragma unroll
    for (int a = 0; a < max_dims; ++a) offset += p[a] * g.out_strides[2 + a];
    out[offset] = E::round(sum);
  }
}

// A position of y, walked in row-major order, images outermost.
template <typename Index>
struct Position {
  Index n, at[max_dims];

  __device__ Position(const WeightParameters<Index>& g, Index position) {
#pragma unroll
    for (int a = max_dims - 1; a >= 0; --a) at[a] = take_rest(position, g.y_extents[a]);
    n = position;
  }
  __device__ void advance(const WeightParameters<Index>& g) {
    bool carry = true;
#pragma unroll
    for (int a = max_dims - 1; a >= 0; --a) {
      if (!carry) continue;
      carry = ++at[a] == g.y_extents[a];
      if (carry) at[a] = 0;
    }
    if (carry) ++n;
  }
  [[nodiscard]] __device__ Index y_offset(const WeightParameters<Index>& g) const {
    Index offset = n * g.y_strides[0];
#pragma unroll
    for (int a = 0; a < max_dims; ++a) offset += at[a] * g.y_strides[2 + a];
    return offset;
  }
  [[nodiscard]] __device__ Index x_offset(const WeightParameters<Index>& g) const {
    Index offset = n * g.x_strides[0];
#pragma unroll
    for (int a = 0; a < max_dims; ++a) offset += at[a] * g.stride[a] * g.x_strides[2 + a];
    return offset;
  }
};

// dalpha, a tile of weight_tile channels of dy by as many of x: one thread an element. The block brings weight_chunk
// positions of both into shared memory at a time.
template <typename T, typename Index>
__device__ void alpha_tile(const WeightParameters<Index>& g, Index first, Index last, const T* x, const T* dy,
                           typename Element<T>::Sum* partial) {
  using E = Element<T>;
  using Sum = typename E::Sum;
  constexpr int pitch = weight_chunk + 1;  // a column of channels lies in different banks
  __shared__ Sum dy_chunk[weight_tile * pitch], x_chunk[weight_tile * pitch];
  const int thread = static_cast<int>(threadIdx.x);
  const Index tile = static_cast<Index>(blockIdx.x);
  const Index first_o = tile / g.alpha_tiles_across * weight_tile, first_i = tile % g.alpha_tiles_across * weight_tile;
  const int own_o = thread / weight_tile, own_i = thread % weight_tile;

  LongSum<Sum> all;
  Sum sum = 0;
  int terms = 0;
  for (Index start = first; start < last; start += weight_chunk) {
    // Each thread brings one position, of every eighth channel.
    const int column = thread % weight_chunk;
    const bool exists = start + column < last;
    const Position<Index> position(g, exists ? start + column : first);
    const Index y_offset = position.y_offset(g), x_offset = position.x_offset(g);
    for (int row = thread / weight_chunk; row < weight_tile; row += generic_threads / weight_chunk) {
      const Index o = first_o + row, i = first_i + row;
      dy_chunk[row * pitch + column] = exists && o < g.c_out ? E::widen(dy[y_offset + o * g.y_strides[1]]) : Sum(0);
      x_chunk[row * pitch + column] = exists && i < g.c_in ? E::widen(x[x_offset + i * g.x_strides[1]]) : Sum(0);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < weight_chunk; ++k) sum += dy_chunk[own_o * pitch + k] * x_chunk[own_i * pitch + k];
    terms += weight_chunk;
    if (terms == longest_sum) {
      all.add(sum);
      sum = 0;
      terms = 0;
    }
    __syncthreads();  // before the next chunk overwrites this one
  }
  all.add(sum);
  if (first_o + own_o < g.c_out && first_i + own_i < g.c_in) {
    partial[(first_o + own_o) * g.c_in + first_i + own_i] = all.value();
  }
}

// dc of stencil_tile channels: one thread an element, eight columns a channel.
template <typename T, typename Index>
__device__ void stencil_tile_of(const WeightParameters<Index>& g, Index first, Index last, const T* x, const T* dy,
                                typename Element<T>::Sum* partial) {
  using E = Element<T>;
  using Sum = typename E::Sum;
  constexpr int columns = generic_threads / stencil_tile;
  static_assert(columns == 2 * max_dims);
  const int taps = 2 * (max_dims - g.first_axis), column = static_cast<int>(threadIdx.x) % columns;
  const Index j = static_cast<Index>(static_cast<int>(blockIdx.x) - g.alpha_tiles) * stencil_tile +
                  static_cast<Index>(threadIdx.x) / columns;
  if (j >= g.stencil_channels || column >= taps) return;

  Index step[max_dims] = {};
  over_taps(g.first_axis, [&](int a, int direction, int k) {
    if (k == column) step[a] = direction * g.dilation[a];
  });
  LongSum<Sum> all;
  Sum sum = 0;
  int terms = 0;
  Position<Index> position(g, first);
  for (Index i = first; i < last; ++i, position.advance(g)) {
    bool exists = true;
    Index x_offset = position.x_offset(g) + j * g.x_strides[1];
#pragma unroll
    for (int a = 0; a < max_dims; ++a) {
      const Index at = position.at[a] * g.stride[a] + step[a];
      exists = exists && at >= 0 && at < g.x_extents[a];
      x_offset += step[a] * g.x_strides[2 + a];
    }
    if (exists) sum += E::widen(dy[position.y_offset(g) + j * g.y_strides[1]]) * E::widen(x[x_offset]);
    if (++terms == longest_sum) {
      all.add(sum);
      sum = 0;
      terms = 0;
    }
  }
  all.add(sum);
  partial[g.alpha_elements + j * taps + column] = all.value();
}

// Block (t, s): tile t of dalpha, or past those of dc, over share s of the positions.
template <typename T, typename Index>
__global__ void __launch_bounds__(generic_threads, 2)  // left to itself, ptxas spills for 12.0
    weight(const WeightParameters<Index> g, const T* __restrict__ x, const T* __restrict__ dy,
           typename Element<T>::Sum* __restrict__ partials) {
  const Index split = static_cast<Index>(blockIdx.y), first = split * g.positions_per_split;
  const Index last = min(g.positions, first + g.positions_per_split);
  auto* partial = partials + static_cast<std::int64_t>(split) * g.elements;
  if (static_cast<int>(blockIdx.x) < g.alpha_tiles) {
    alpha_tile<T>(g, first, last, x, dy, partial);
  } else {
    stencil_tile_of<T>(g, first, last, x, dy, partial);
  }
}

// One thread, one element of dalpha or dc: the partial results added in their order, whatever block ended first.
template <typename T>
__global__ void __launch_bounds__(generic_threads)
    reduce(const ReduceParameters g, const typename Element<T>::Sum* __restrict__ partials, T* __restrict__ dalpha,
           T* __restrict__ dc) {
  using E = Element<T>;
  const std::int64_t all_threads = static_cast<std::int64_t>(gridDim.x) * generic_threads;
  for (std::int64_t element = first_unit<std::int64_t>(); element < g.elements; element += all_threads) {
    LongSum<typename E::Sum> sum;
    for (int split = 0; split < g.splits; ++split) sum.add(partials[split * g.elements + element]);
    const T result = E::round(sum.value());
    if (element < g.alpha_elements) {
      const std::int64_t o = element / g.c_in, i = element - o * g.c_in;
      dalpha[o * g.dalpha_strides[0] + i * g.dalpha_strides[1]] = result;
    } else {
      const std::int64_t rest = element - g.alpha_elements, j = rest / g.taps, k = rest - j * g.taps;
      dc[j * g.dc_strides[0] + k * g.dc_strides[1]] = result;
    }
  }
}

}  // namespace leancore::detail::cuda
