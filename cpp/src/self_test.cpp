#include "self_test.hpp"

#include <algorithm>
#include <iterator>
#include <memory>
#include <new>

#include "half.hpp"
#include "leancore/conv.hpp"
#include "reference/reference.hpp"

namespace leancore::detail {
namespace {

// Small problems that between them take the kernels' main ways. All of them together take about a millisecond, which
// the first call of every process pays.
struct Case {
  std::int64_t batch, c_in, c_out, height, width, stride, dilation;
  bool channels_last;
};
constexpr Case cases[] = {
    {2, 7, 13, 5, 19, 1, 1, false},  // partial blocks, more outputs than inputs, rows that end within a vector
    {1, 19, 6, 4, 7, 1, 1, true},    // fewer outputs than inputs; more channels than a vector has lanes
    {1, 5, 6, 7, 9, 2, 1, false},    // planes and phases
    {1, 5, 18, 5, 6, 2, 2, true},    // the same, of channels-last arrays
    {9, 6, 5, 2, 2, 1, 1, false},    // many images in a tile
    {3, 3, 4, 1, 1, 1, 1, true},     // no neighbour at all
};

// Elements of each array, the most that a case has.
constexpr std::size_t most_x = 2 * 7 * 5 * 19, most_y = 2 * 13 * 5 * 19, most_alpha = 19 * 6, most_c = 4 * 7,
                      most_bias = 18;

constexpr bool fits(const Case& c) {
  const auto within = [](std::int64_t count, std::size_t most) { return static_cast<std::size_t>(count) <= most; };
  const std::int64_t pixels = c.batch * c.height * c.width;
  return within(pixels * c.c_in, most_x) && within(pixels * c.c_out, most_y) && within(c.c_in * c.c_out, most_alpha) &&
         within(std::min(c.c_in, c.c_out) * 4, most_c) && within(c.c_out, most_bias);
}
static_assert(std::all_of(std::begin(cases), std::end(cases), fits));

ConvDesc describe(DType dtype, const Case& c) {
  std::int64_t extents[] = {c.height, c.width};
  ConvDesc d = compact_desc(dtype, 2, c.batch, c.c_in, c.c_out, extents);
  for (int a = 0; a < d.dims; ++a) {
    d.stride[a] = c.stride;
    d.dilation[a] = c.dilation;
    extents[a] = d.y_extent(a);
  }
  std::copy_n(compact_desc(dtype, 2, c.batch, c.c_in, c.c_out, extents).y_strides, max_axes, d.y_strides);
  if (c.channels_last) set_channels_last(d);
  return d;
}

// Integers whose sums are exact, the same in every type.
template <typename T>
struct Inputs {
  T x[most_x], dy[most_y], alpha[most_alpha], c[most_c], bias[most_bias];

  Inputs() {
    fill(x, 3);
    fill(dy, 5);
    fill(alpha, 7);
    fill(c, 11);
    fill(bias, 13);
  }

 private:
  template <std::size_t n>
  static void fill(T (&values)[n], int step) {
    int value = step;
    for (T& element : values) element = T((value = (value * 5 + step) % 17) - 8);
  }
};

// All in a row, to be compared at once; what an operation does not write stays -1.
template <typename T>
struct Outputs {
  T all[most_y + most_x + most_alpha + most_c];

  void forget() { std::fill(std::begin(all), std::end(all), T(-1)); }
  T* y() { return all; }
  T* dx() { return y() + most_y; }
  T* dalpha() { return dx() + most_x; }
  T* dc() { return dalpha() + most_alpha; }
};

template <typename T>
bool run(const Implementation& implementation, Operation operation, const ConvDesc& desc, const Inputs<T>& in,
         Outputs<T>& out) {
  Arguments arguments;
  arguments.x = in.x;
  arguments.alpha = in.alpha;
  arguments.c = in.c;
  arguments.bias = in.bias;
  arguments.dy = in.dy;
  arguments.y = out.y();
  arguments.dx = out.dx();
  arguments.dalpha = out.dalpha();
  arguments.dc = out.dc();
  const std::size_t bytes = implementation.workspace_bytes(operation, desc, 1) + workspace_alignment;
  const auto memory = std::unique_ptr<char[]>(new (std::nothrow) char[bytes]);
  if (!memory) return false;
  void* workspace = memory.get();
  std::size_t space = bytes;
  std::align(workspace_alignment, bytes - workspace_alignment, workspace, space);
  return implementation.run(operation, desc, arguments, Context{}, workspace, 1).ok();
}

// What the operation writes according to the definition, before the rounding to a narrower type.
void run_reference(Operation operation, const ConvDesc& desc, const Inputs<double>& in, Outputs<double>& out) {
  if (operation == Operation::backward) {
    run_reference(Operation::backward_data, desc, in, out);
    run_reference(Operation::backward_weight, desc, in, out);
  } else {
    run(reference::implementation, operation, desc, in, out);
  }
}

template <typename T>
bool gives(const Implementation& implementation, Operation operation, const ConvDesc& desc, const Inputs<T>& in,
           Outputs<T>& out, const Outputs<double>& expected) {
  if (!implementation.supports(operation, desc)) return true;
  out.forget();
  return run(implementation, operation, desc, in, out) &&
         std::equal(std::begin(out.all), std::end(out.all), expected.all, [](T got, double exact) {
           return static_cast<double>(got) == exact || got == T(exact);  // rounding is the slow way
         });
}

template <typename T>
struct Memory {
  Inputs<T> in;
  Outputs<T> out;
};

struct AllMemory {
  Memory<float> f32;
  Memory<double> f64;
  Memory<f16> half;
  Memory<bf16> brain;
  Outputs<double> expected;
};

}  // namespace

bool passes_self_test(const Implementation& implementation) noexcept {
  const auto all = std::unique_ptr<AllMemory>(new (std::nothrow) AllMemory);
  if (!all) return false;
  for (const Case& c : cases) {
    for (const Operation operation :
         {Operation::forward, Operation::backward_data, Operation::backward_weight, Operation::backward}) {
      all->expected.forget();
      run_reference(operation, describe(DType::f64, c), all->f64.in, all->expected);
      const auto right = [&](DType dtype, auto& memory) {
        return gives(implementation, operation, describe(dtype, c), memory.in, memory.out, all->expected);
      };
      if (!right(DType::f32, all->f32) || !right(DType::f64, all->f64) || !right(DType::f16, all->half) ||
          !right(DType::bf16, all->brain)) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace leancore::detail
