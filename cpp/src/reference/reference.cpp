// Numeric contract: products and sums in double, one rounding to the array's type at the end.
#include "reference/reference.hpp"

#include "half.hpp"
#include "parallel.hpp"

namespace leancore::detail::reference {
namespace {

// A position of the operator in image space, and what lies around it.
struct Position {
  std::int64_t at[max_dims] = {};

  // Steps to the next position of a box in row-major order; false after the last.
  bool advance(int dims, const std::int64_t* box) {
    for (int a = dims - 1; a >= 0; --a) {
      if (++at[a] < box[a]) return true;
      at[a] = 0;
    }
    return false;
  }
  [[nodiscard]] std::int64_t offset(int dims, const std::int64_t* strides) const {
    std::int64_t sum = 0;
    for (int a = 0; a < dims; ++a) sum += at[a] * strides[a];
    return sum;
  }
};

// Tap k moves along one axis: columns 0..d-1 are the -1 taps from the outermost axis in, d..2d-1 mirror them.
int tap_axis(int k, int dims) {
  return k < dims ? k : 2 * dims - 1 - k;
}
std::int64_t tap_step(int k, int dims, const ConvDesc& d) {
  return (k < dims ? -1 : 1) * d.dilation[tap_axis(k, dims)];
}

template <typename T>
class Reference {
 public:
  Reference(const ConvDesc& desc, const Arguments& arguments) : d(desc), args(arguments) {
    empty_x = d.batch == 0;
    empty_y = d.batch == 0;
    for (int a = 0; a < d.dims; ++a) {
      y_box[a] = d.y_extent(a);
      empty_x = empty_x || d.extents[a] == 0;
      empty_y = empty_y || y_box[a] == 0;
    }
  }

  void forward(std::int64_t unit) const {
    const std::int64_t n = unit / d.c_out, o = unit % d.c_out;
    if (empty_y) return;
    Position p;
    do {
      Position centre;
      for (int a = 0; a < d.dims; ++a) centre.at[a] = p.at[a] * d.stride[a];
      double sum = args.bias ? load(args.bias, o * d.bias_stride) : 0.0;
      for (std::int64_t i = 0; i < d.c_in; ++i) sum += alpha(o, i) * x(n, i, centre);
      for (int k = 0; o < d.diagonal() && k < 2 * d.dims; ++k) {
        if (Position q = centre; shift(q, k)) sum += c(o, k) * x(n, o, q);
      }
      store(args.y, y_offset(n, o, p), sum);
    } while (p.advance(d.dims, y_box));
  }

  void backward_data(std::int64_t unit) const {
    const std::int64_t n = unit / d.c_in, i = unit % d.c_in;
    if (empty_x) return;
    Position p;
    do {
      double sum = 0.0;
      Position q;
      if (output_reading(p, q)) {
        for (std::int64_t o = 0; o < d.c_out; ++o) sum += alpha(o, i) * dy(n, o, q);
      }
      for (int k = 0; i < d.diagonal() && k < 2 * d.dims; ++k) {
        Position centre = p;
        centre.at[tap_axis(k, d.dims)] -= tap_step(k, d.dims, d);
        if (output_reading(centre, q)) sum += c(i, k) * dy(n, i, q);
      }
      store(args.dx, x_offset(n, i, p), sum);
    } while (p.advance(d.dims, d.extents));
  }

  void backward_weight(std::int64_t o) const {
    for (std::int64_t i = 0; args.dalpha && i < d.c_in; ++i) {
      double sum = 0.0;
      over_outputs(
          [&](std::int64_t n, const Position& p, const Position& centre) { sum += dy(n, o, p) * x(n, i, centre); });
      store(args.dalpha, o * d.alpha_strides[0] + i * d.alpha_strides[1], sum);
    }
    for (int k = 0; args.dc && o < d.diagonal() && k < 2 * d.dims; ++k) {
      double sum = 0.0;
      over_outputs([&](std::int64_t n, const Position& p, const Position& centre) {
        if (Position q = centre; shift(q, k)) sum += dy(n, o, p) * x(n, o, q);
      });
      store(args.dc, o * d.c_strides[0] + k * d.c_strides[1], sum);
    }
  }

 private:
  static double load(const void* base, std::int64_t offset) {
    return static_cast<double>(static_cast<const T*>(base)[offset]);
  }
  static void store(void* base, std::int64_t offset, double value) {
    static_cast<T*>(base)[offset] = static_cast<T>(value);
  }
  [[nodiscard]] std::int64_t x_offset(std::int64_t n, std::int64_t i, const Position& p) const {
    return n * d.x_strides[0] + i * d.x_strides[1] + p.offset(d.dims, d.x_strides + 2);
  }
  [[nodiscard]] std::int64_t y_offset(std::int64_t n, std::int64_t o, const Position& p) const {
    return n * d.y_strides[0] + o * d.y_strides[1] + p.offset(d.dims, d.y_strides + 2);
  }
  [[nodiscard]] double x(std::int64_t n, std::int64_t i, const Position& p) const {
    return load(args.x, x_offset(n, i, p));
  }
  [[nodiscard]] double dy(std::int64_t n, std::int64_t o, const Position& p) const {
    return load(args.dy, y_offset(n, o, p));
  }
  [[nodiscard]] double alpha(std::int64_t o, std::int64_t i) const {
    return load(args.alpha, o * d.alpha_strides[0] + i * d.alpha_strides[1]);
  }
  [[nodiscard]] double c(std::int64_t j, int k) const { return load(args.c, j * d.c_strides[0] + k * d.c_strides[1]); }

  // Moves p by tap k; false when it leaves the image.
  bool shift(Position& p, int k) const {
    const int a = tap_axis(k, d.dims);
    p.at[a] += tap_step(k, d.dims, d);
    return p.at[a] >= 0 && p.at[a] < d.extents[a];
  }

  // The output position whose centre is `centre`; false when there is none.
  bool output_reading(const Position& centre, Position& q) const {
    for (int a = 0; a < d.dims; ++a) {
      if (centre.at[a] < 0 || centre.at[a] >= d.extents[a] || centre.at[a] % d.stride[a] != 0) return false;
      q.at[a] = centre.at[a] / d.stride[a];
    }
    return true;
  }

  template <typename Visit>
  void over_outputs(Visit visit) const {
    if (empty_y) return;
    for (std::int64_t n = 0; n < d.batch; ++n) {
      Position p;
      do {
        Position centre;
        for (int a = 0; a < d.dims; ++a) centre.at[a] = p.at[a] * d.stride[a];
        visit(n, p, centre);
      } while (p.advance(d.dims, y_box));
    }
  }

  const ConvDesc& d;
  const Arguments& args;
  std::int64_t y_box[max_dims] = {};
  bool empty_x = false, empty_y = false;
};

template <typename T>
void run_typed(Operation operation, const ConvDesc& d, const Arguments& arguments, int threads) {
  const Reference<T> reference(d, arguments);
  switch (operation) {
    case Operation::forward:
      parallel_for(d.batch * d.c_out, threads, [&](std::int64_t unit, int) { reference.forward(unit); });
      break;
    case Operation::backward_data:
      parallel_for(d.batch * d.c_in, threads, [&](std::int64_t unit, int) { reference.backward_data(unit); });
      break;
    case Operation::backward_weight:
      parallel_for(d.c_out, threads, [&](std::int64_t unit, int) { reference.backward_weight(unit); });
      break;
    case Operation::backward:  // not supported
      break;
  }
}

Status run(Operation operation, const ConvDesc& d, const Arguments& arguments, const Context&, void*, int threads) {
  switch (d.dtype) {
    case DType::f32:
      run_typed<float>(operation, d, arguments, threads);
      break;
    case DType::f64:
      run_typed<double>(operation, d, arguments, threads);
      break;
    case DType::f16:
      run_typed<f16>(operation, d, arguments, threads);
      break;
    case DType::bf16:
      run_typed<bf16>(operation, d, arguments, threads);
      break;
  }
  return {};
}

}  // namespace

constinit const Implementation implementation = {
    "reference",
    "scalar, any strides, stride and dilation, double accumulation",
    DeviceType::cpu,
    [] { return true; },
    [](Operation operation, const ConvDesc&) { return operation != Operation::backward; },
    [](Operation, const ConvDesc&, int) -> std::size_t { return 0; },
    run,
};

}  // namespace leancore::detail::reference
