// Shared by the C++ tests: checks that count failures, random problems, arrays between unreadable pages.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "half.hpp"
#include "implementations.hpp"
#include "leancore/leancore.hpp"

namespace test {

inline int failures = 0;
inline long checks = 0;

#define CHECK(condition, ...)                                                       \
  do {                                                                              \
    ++test::checks;                                                                 \
    if (!(condition) && ++test::failures <= 20) {                                   \
      std::fprintf(stderr, "%s:%d: %s is false: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                            \
      std::fprintf(stderr, "\n");                                                   \
    }                                                                               \
  } while (0)

// To be returned from main.
inline int summary(const char* name) {
  std::printf("%s: %ld checks, %d failed\n", name, checks, failures);
  return failures == 0 && checks > 0 ? 0 : 1;
}

// The share of the random rounds that is run: LEANCORE_TEST_ROUNDS, by default 1. Emulators and sanitizers are slow.
inline double share_of_rounds() {
  static const double share = [] {
    const char* text = std::getenv("LEANCORE_TEST_ROUNDS");
    return text ? std::atof(text) : 1.0;
  }();
  return share;
}
inline int rounds(int all) {
  return std::max(1, static_cast<int>(all * share_of_rounds()));
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // lowest to highest, both included
  std::int64_t integer(std::int64_t lowest, std::int64_t highest) {
    return lowest + static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(highest - lowest + 1));
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double normal() { return std::sqrt(-2.0 * std::log(uniform() + 0x1p-60)) * std::cos(6.283185307179586 * uniform()); }
  template <typename T, std::size_t n>
  T pick(const T (&list)[n]) {
    return list[static_cast<std::size_t>(integer(0, static_cast<std::int64_t>(n) - 1))];
  }

 private:
  std::uint64_t state_;
};

// Bytes left between guarded memory and the unreadable pages: LEANCORE_TEST_SLACK, by default 0. For emulators that
// read whole vectors where the processor reads only the lanes of a mask.
inline std::size_t slack() {
  static const char* text = std::getenv("LEANCORE_TEST_SLACK");
  return text ? static_cast<std::size_t>(std::atoi(text)) : 0;
}

// Memory whose first or last byte touches an unreadable page.
class GuardedMemory {
 public:
  enum class Flush { to_end, to_start };

  GuardedMemory(std::size_t bytes, Flush flush) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inner = (bytes + slack() + page - 1) / page * page;
    size_ = inner + 2 * page;
    void* mapped = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) std::abort();
    base_ = static_cast<char*>(mapped);
    if (inner > 0 && mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) != 0) std::abort();
    data_ = base_ + page + (flush == Flush::to_end ? inner - bytes - slack() : slack());
  }
  ~GuardedMemory() { munmap(base_, size_); }
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  [[nodiscard]] char* data() const { return data_; }
  void make_read_only() const {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    if (size_ > 2 * page && mprotect(base_ + page, size_ - 2 * page, PROT_READ) != 0) std::abort();
  }

 private:
  char* base_;
  std::size_t size_;
  char* data_;
};

// An array of any strides in guarded memory that it exactly covers.
template <typename T>
class Array {
 public:
  Array(int axes, const std::int64_t* shape, const std::int64_t* strides, GuardedMemory::Flush flush)
      : shape_(shape, shape + axes), strides_(strides, strides + axes), memory_(bytes(), flush) {
    origin_ = reinterpret_cast<T*>(memory_.data()) - lowest_;
  }

  [[nodiscard]] T* origin() const { return empty_ ? nullptr : origin_; }
  [[nodiscard]] std::size_t span_bytes() const { return bytes_; }
  [[nodiscard]] const char* raw() const { return memory_.data(); }

  // Calls visit(element) in row-major order.
  template <typename Visit>
  void each(Visit visit) const {
    if (empty_) return;
    std::vector<std::int64_t> at(shape_.size(), 0);
    for (;;) {
      std::int64_t offset = 0;
      for (std::size_t a = 0; a < at.size(); ++a) offset += at[a] * strides_[a];
      visit(origin_[offset]);
      std::size_t a = at.size();
      while (a > 0 && ++at[a - 1] == shape_[a - 1]) at[--a] = 0;
      if (a == 0) return;
    }
  }
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> list;
    each([&](T& element) { list.push_back(element); });
    return list;
  }
  void assign(const std::vector<T>& list) {
    std::size_t i = 0;
    each([&](T& element) { element = list[i++]; });
  }
  void make_read_only() const { memory_.make_read_only(); }
  void poison() { std::memset(memory_.data(), 0xff, bytes_); }  // all NaN

 private:
  std::size_t bytes() {
    std::int64_t highest = 0;
    for (std::size_t a = 0; a < shape_.size(); ++a) {
      empty_ = empty_ || shape_[a] == 0;
      const std::int64_t reach = (shape_[a] - 1) * strides_[a];
      (reach < 0 ? lowest_ : highest) += reach;
    }
    if (empty_) lowest_ = 0;
    bytes_ = empty_ ? 0 : static_cast<std::size_t>(highest - lowest_ + 1) * sizeof(T);
    return bytes_;
  }

  std::vector<std::int64_t> shape_, strides_;
  bool empty_ = false;
  std::int64_t lowest_ = 0;
  std::size_t bytes_ = 0;
  GuardedMemory memory_;
  T* origin_ = nullptr;
};

using leancore::detail::bf16;
using leancore::detail::f16;

template <typename T>
inline constexpr leancore::DType dtype_of = leancore::DType::f32;
template <>
inline constexpr leancore::DType dtype_of<double> = leancore::DType::f64;
template <>
inline constexpr leancore::DType dtype_of<f16> = leancore::DType::f16;
template <>
inline constexpr leancore::DType dtype_of<bf16> = leancore::DType::bf16;

// Calls body.operator()<T>() for every element type.
template <typename Body>
void for_each_type(Body body) {
  body.template operator()<float>();
  body.template operator()<double>();
  body.template operator()<f16>();
  body.template operator()<bf16>();
}

inline constexpr leancore::Operation operations[] = {leancore::Operation::forward, leancore::Operation::backward_data,
                                                     leancore::Operation::backward_weight,
                                                     leancore::Operation::backward};

enum class Layout { channels_first, channels_last, scattered };

// Sets all strides: compact, channels-last, or a random order of axes with gaps and negative directions. The gradients
// of a combined backward have that layout too, or are scattered.
inline void set_layout(leancore::ConvDesc& d, Layout layout, Random& random) {
  const leancore::ConvDesc compact = leancore::compact_desc(d.dtype, d.dims, d.batch, d.c_in, d.c_out, d.extents);
  leancore::ConvDesc of_y = compact;
  for (int a = 0; a < d.dims; ++a) of_y.extents[a] = d.y_extent(a);
  of_y = leancore::compact_desc(d.dtype, d.dims, d.batch, d.c_in, d.c_out, of_y.extents);
  std::copy_n(compact.x_strides, leancore::max_axes, d.x_strides);
  std::copy_n(of_y.y_strides, leancore::max_axes, d.y_strides);
  std::copy_n(compact.alpha_strides, 2, d.alpha_strides);
  std::copy_n(compact.c_strides, 2, d.c_strides);
  std::copy_n(compact.dx_strides, leancore::max_axes, d.dx_strides);
  std::copy_n(compact.dalpha_strides, 2, d.dalpha_strides);
  std::copy_n(compact.dc_strides, 2, d.dc_strides);
  d.bias_stride = 1;
  if (layout == Layout::channels_last) leancore::set_channels_last(d);

  const auto scatter = [&](std::int64_t* strides, const std::int64_t* shape, int axes) {
    int order[leancore::max_axes];
    for (int a = 0; a < axes; ++a) order[a] = a;
    for (int a = axes - 1; a > 0; --a) std::swap(order[a], order[random.integer(0, a)]);
    std::int64_t stride = random.integer(1, 2);
    for (int a = 0; a < axes; ++a) {
      const int axis = order[a];
      strides[axis] = random.integer(0, 3) == 0 ? -stride : stride;
      stride *= std::max<std::int64_t>(shape[axis], 1) + random.integer(0, 1);
    }
  };
  std::int64_t x_shape[leancore::max_axes] = {d.batch, d.c_in}, y_shape[leancore::max_axes] = {d.batch, d.c_out};
  for (int a = 0; a < d.dims; ++a) {
    x_shape[a + 2] = d.extents[a];
    y_shape[a + 2] = d.y_extent(a);
  }
  const std::int64_t alpha_shape[] = {d.c_out, d.c_in}, c_shape[] = {d.diagonal(), 2 * d.dims};
  if (layout == Layout::scattered || random.integer(0, 2) == 0) {
    scatter(d.dx_strides, x_shape, d.dims + 2);
    scatter(d.dalpha_strides, alpha_shape, 2);
    scatter(d.dc_strides, c_shape, 2);
  }
  if (layout != Layout::scattered) return;
  scatter(d.x_strides, x_shape, d.dims + 2);
  scatter(d.y_strides, y_shape, d.dims + 2);
  scatter(d.alpha_strides, alpha_shape, 2);
  scatter(d.c_strides, c_shape, 2);
  d.bias_stride = random.pick({std::int64_t{1}, std::int64_t{3}, std::int64_t{-2}});
}

// Strides and dilations of 1 to 3, mixed, some of them often 1.
inline void random_geometry(leancore::ConvDesc& d, Random& random) {
  const std::int64_t widest = random.integer(1, 3), farthest = random.integer(1, 3);
  for (int a = 0; a < d.dims; ++a) {
    d.stride[a] = random.integer(1, widest);
    d.dilation[a] = random.integer(1, farthest);
  }
}

// A small random problem, every fourth one of a shape that networks have, every third one with random_geometry. Work is
// bounded so that the scalar reference takes microseconds.
inline leancore::ConvDesc random_problem(Random& random, leancore::DType dtype, double most_products) {
  static constexpr std::int64_t channels[] = {0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 17, 24, 31, 48};
  static constexpr std::int64_t widths[] = {3, 12, 13, 24, 31, 48, 67, 96, 127, 192};
  static constexpr std::int64_t maps[][2] = {{4, 4}, {6, 6}, {7, 7}, {8, 8}, {12, 12}, {13, 17}};
  for (;;) {
    leancore::ConvDesc d;
    d.dtype = dtype;
    const bool typical = random.integer(0, 3) == 0;
    d.dims = typical ? 2 : static_cast<std::int32_t>(random.integer(1, leancore::max_dims));
    d.batch = random.pick({std::int64_t{0}, std::int64_t{1}, std::int64_t{1}, std::int64_t{2}, std::int64_t{3},
                           std::int64_t{5}, std::int64_t{9}});
    d.c_in = typical ? random.pick(widths) : random.pick(channels);
    d.c_out = typical ? random.pick(widths) : random.pick(channels);
    const std::int64_t longest = d.dims == 1 ? 400 : d.dims == 2 ? 40 : d.dims == 3 ? 13 : 7;
    const auto& map = maps[random.integer(0, 5)];
    double products = static_cast<double>(d.batch * (d.c_in + 2 * d.dims) * d.c_out);
    for (int a = 0; a < d.dims; ++a) {
      d.extents[a] = typical ? map[a] : random.integer(0, 9) == 0 ? random.integer(0, 1) : random.integer(1, longest);
      products *= static_cast<double>(d.extents[a]);
    }
    if (products > most_products) continue;
    if (random.integer(0, 2) == 0) random_geometry(d, random);
    return d;
  }
}

inline std::string describe(const leancore::ConvDesc& d) {
  std::string text;
  const auto add = [&](const char* what, std::int64_t value) {
    text.append(what);
    text.append(std::to_string(value));
  };
  text.append(info(d.dtype).name);
  add(" n", d.batch);
  add(" ci", d.c_in);
  add(" co", d.c_out);
  for (int a = 0; a < d.dims; ++a) add(a == 0 ? " at " : "x", d.extents[a]);
  for (int a = 0; a < d.dims; ++a) add(a == 0 ? " stride " : ", ", d.stride[a]);
  for (int a = 0; a < d.dims; ++a) add(a == 0 ? " dilation " : ", ", d.dilation[a]);
  for (int a = 0; a < d.dims + 2; ++a) add(a == 0 ? " x strides " : ", ", d.x_strides[a]);
  return text;
}

// All arrays of one problem.
template <typename T>
struct Arrays {
  Array<T> x, y, alpha, c, bias;

  explicit Arrays(const leancore::ConvDesc& d, GuardedMemory::Flush flush = GuardedMemory::Flush::to_end)
      : x(make(d, d.x_strides, leancore::Output::dx, flush)),
        y(make(d, d.y_strides, leancore::Output::y, flush)),
        alpha(make(d, d.alpha_strides, leancore::Output::dalpha, flush)),
        c(make(d, d.c_strides, leancore::Output::dc, flush)),
        bias(1, &d.c_out, &d.bias_stride, flush) {}

  template <typename Draw>
  void fill(Draw draw) {
    for (Array<T>* array : {&x, &y, &alpha, &c, &bias})
      array->each([&](T& element) { element = static_cast<T>(static_cast<double>(draw())); });
  }

 private:
  static Array<T> make(const leancore::ConvDesc& d, const std::int64_t* strides, leancore::Output which,
                       GuardedMemory::Flush flush) {
    std::int64_t shape[leancore::max_axes] = {};
    const int axes = leancore::output_shape(which, d, shape);
    return Array<T>(axes, shape, strides, flush);
  }
};

// The gradients of backward_weight and backward that a caller may leave out.
enum Gradient { dx = 1, dalpha = 2, dc = 4 };

// Memory for what an operation writes, all NaN. The other arrays are there too, and unused.
template <typename T>
struct Outputs : Arrays<T> {
  leancore::Operation operation;
  int unwanted;  // a set of gradients, which are passed as null

  Outputs(leancore::Operation which, const leancore::ConvDesc& d, GuardedMemory::Flush flush, int without = 0)
      : Arrays<T>(of_gradients(which, d), flush), operation(which), unwanted(without) {
    for (Array<T>* array : written()) array->poison();
  }
  [[nodiscard]] T* gradient(Gradient which) const {
    if (unwanted & which) return nullptr;
    return (which == dx ? this->x : which == dalpha ? this->alpha : this->c).origin();
  }
  // y, dx, or dalpha and dc, or dx, dalpha and dc, without the unwanted.
  std::vector<Array<T>*> written() {
    if (operation == leancore::Operation::forward) return {&this->y};
    if (operation == leancore::Operation::backward_data) return {&this->x};
    std::vector<Array<T>*> list;
    if (operation == leancore::Operation::backward && !(unwanted & dx)) list.push_back(&this->x);
    if (!(unwanted & dalpha)) list.push_back(&this->alpha);
    if (!(unwanted & dc)) list.push_back(&this->c);
    return list;
  }
  [[nodiscard]] std::vector<T> values() {
    std::vector<T> all;
    for (const Array<T>* array : written()) array->each([&](T& element) { all.push_back(element); });
    return all;
  }

 private:
  static leancore::ConvDesc of_gradients(leancore::Operation which, leancore::ConvDesc d) {
    if (which == leancore::Operation::backward) {
      std::copy_n(d.dx_strides, leancore::max_axes, d.x_strides);
      std::copy_n(d.dalpha_strides, 2, d.alpha_strides);
      std::copy_n(d.dc_strides, 2, d.c_strides);
    }
    return d;
  }
};

// Runs an operation with a workspace of exactly the size that is asked for.
template <typename T>
leancore::Status run(const leancore::ConvDesc& d, const Arrays<T>& in, Outputs<T>& out, bool with_bias,
                     leancore::Context context, GuardedMemory::Flush flush = GuardedMemory::Flush::to_end) {
  if (const leancore::Status status = workspace_bytes(out.operation, d, context, context.workspace_bytes);
      !status.ok()) {
    return status;
  }
  const GuardedMemory workspace(context.workspace_bytes, flush);
  std::memset(workspace.data(), 0xff, context.workspace_bytes);  // whatever is read before it is written is NaN
  context.workspace = workspace.data();
  switch (out.operation) {
    case leancore::Operation::forward:
      return forward(d, in.x.origin(), in.alpha.origin(), in.c.origin(), with_bias ? in.bias.origin() : nullptr,
                     out.y.origin(), context);
    case leancore::Operation::backward_data:
      return backward_data(d, in.y.origin(), in.alpha.origin(), in.c.origin(), out.x.origin(), context);
    case leancore::Operation::backward_weight:
      return backward_weight(d, in.x.origin(), in.y.origin(), out.gradient(dalpha), out.gradient(dc), context);
    case leancore::Operation::backward:
      return backward(d, in.x.origin(), in.y.origin(), in.alpha.origin(), in.c.origin(), out.gradient(dx),
                      out.gradient(dalpha), out.gradient(dc), context);
  }
  std::abort();
}

// What an operation writes.
template <typename T>
std::vector<T> compute(leancore::Operation operation, const leancore::ConvDesc& d, const Arrays<T>& in, bool with_bias,
                       const leancore::Context& context, GuardedMemory::Flush flush = GuardedMemory::Flush::to_end,
                       int unwanted = 0) {
  Outputs<T> out(operation, d, flush, unwanted);
  leancore::check(run(d, in, out, with_bias, context, flush));
  return out.values();
}

// A context that forces an implementation.
inline leancore::Context forced(const char* implementation) {
  leancore::Context context;
  context.implementation = implementation;
  return context;
}

// Whether the implementation of this name takes subnormal numbers for zero in such a call.
inline bool flushes(const char* name, leancore::Operation operation, const leancore::ConvDesc& d) {
  using leancore::Operation;
  for (const leancore::detail::Implementation* candidate : leancore::detail::cpu_implementations()) {
    if (std::strcmp(candidate->name, name) != 0 || !candidate->flushes) continue;
    if (operation != Operation::backward || candidate->supports(operation, d)) return candidate->flushes(operation, d);
    // In two parts.
    return candidate->flushes(Operation::backward_data, leancore::detail::data_part(d)) ||
           candidate->flushes(Operation::backward_weight, leancore::detail::weight_part(d));
  }
  return false;
}

// Names of all implementations that this processor executes and that have a kernel for the call, the reference last: it
// takes every call, a combined backward as two. One that fails its self-test is in the list: calls that force it then
// fail, and so does the test.
inline std::vector<const char*> implementations(leancore::Operation operation, const leancore::ConvDesc& d) {
  using leancore::Operation;
  std::vector<const char*> names;
  for (const leancore::detail::Implementation* candidate : leancore::detail::cpu_implementations()) {
    const bool takes = candidate->supports(operation, d) ||
                       (operation == Operation::backward && (candidate->supports(Operation::backward_data, d) ||
                                                             candidate->supports(Operation::backward_weight, d)));
    if (candidate->available() && takes) names.push_back(candidate->name);
  }
  return names;
}

}  // namespace test
