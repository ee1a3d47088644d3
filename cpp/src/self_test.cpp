#include "self_test.hpp"

#include <array>
#include <memory>
#include <new>

#include "half.hpp"
#include "leancore/conv.hpp"
#include "reference/reference.hpp"

namespace leancore::detail {
namespace {

// Channel counts that leave partial blocks, more outputs than inputs, partial vectors in every row.
constexpr std::int64_t batch = 2, c_in = 14, c_out = 27, height = 7, width = 9, pixels = height * width;

template <typename T>
struct Arrays {
  std::array<T, batch * c_in * pixels> x, dx;
  std::array<T, batch * c_out * pixels> y;
  std::array<T, c_out * c_in> alpha, dalpha;
  std::array<T, c_in * 4> c, dc;
  std::array<T, c_out> bias;

  template <std::size_t n>
  static void fill(std::array<T, n>& values, int step) {
    int value = step;
    for (T& element : values) element = T((value = (value * 5 + step) % 17) - 8);
  }
  Arrays() {
    fill(x, 3);
    fill(y, 5);
    fill(alpha, 7);
    fill(c, 11);
    fill(bias, 13);
  }
  void forget_gradients() {
    dx.fill(T(-1));
    dalpha.fill(T(-1));
    dc.fill(T(-1));
  }
};

template <typename T>
bool run(const Implementation& implementation, Operation operation, const ConvDesc& desc, Arrays<T>& a) {
  Arguments arguments;
  arguments.x = a.x.data();
  arguments.alpha = a.alpha.data();
  arguments.c = a.c.data();
  arguments.bias = a.bias.data();
  arguments.dy = a.y.data();
  arguments.y = a.y.data();
  arguments.dx = a.dx.data();
  arguments.dalpha = a.dalpha.data();
  arguments.dc = a.dc.data();
  const std::size_t bytes = implementation.workspace_bytes(operation, desc, 1) + workspace_alignment;
  const auto memory = std::unique_ptr<char[]>(new (std::nothrow) char[bytes]);
  if (!memory) return false;
  void* workspace = memory.get();
  std::size_t space = bytes;
  std::align(workspace_alignment, bytes - workspace_alignment, workspace, space);
  return implementation.run(operation, desc, arguments, Context{}, workspace, 1).ok();
}

template <typename T>
bool matches(const Implementation& implementation, DType dtype) {
  constexpr std::int64_t extents[] = {height, width};
  const ConvDesc desc = compact_desc(dtype, 2, batch, c_in, c_out, extents);
  const auto arrays = std::unique_ptr<Arrays<T>[]>(new (std::nothrow) Arrays<T>[2]);
  if (!arrays) return false;
  Arrays<T>&got = arrays[0], &expected = arrays[1];
  // Forward last: it overwrites y, which the others read as dy.
  for (const Operation operation : {Operation::backward_data, Operation::backward_weight, Operation::forward}) {
    if (!run(reference::implementation, operation, desc, expected)) return false;
  }
  for (const Operation operation :
       {Operation::backward, Operation::backward_data, Operation::backward_weight, Operation::forward}) {
    if (!implementation.supports(operation, desc)) continue;
    got.forget_gradients();
    if (!run(implementation, operation, desc, got)) return false;
    const bool forward = operation == Operation::forward, combined = operation == Operation::backward;
    if (forward && got.y != expected.y) return false;
    if ((combined || operation == Operation::backward_data) && got.dx != expected.dx) return false;
    if ((combined || operation == Operation::backward_weight) &&
        (got.dalpha != expected.dalpha || got.dc != expected.dc)) {
      return false;
    }
  }
  return true;
}

}  // namespace

bool passes_self_test(const Implementation& implementation) noexcept {
  return matches<float>(implementation, DType::f32) && matches<double>(implementation, DType::f64) &&
         matches<f16>(implementation, DType::f16) && matches<bf16>(implementation, DType::bf16);
}

}  // namespace leancore::detail
