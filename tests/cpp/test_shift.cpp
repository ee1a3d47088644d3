// The shift against its definition: every element equal bit by bit, in guarded memory, for every dtype, layout, number
// of dimensions, ragged groups, extents of 0, 1 and 2 and offsets beyond the extents; results that are written past the
// caches; the adjoint identity; what is refused.
#include "support.hpp"

namespace {

using leancore::ShiftDesc;
using leancore::StatusCode;

struct Problem {
  ShiftDesc desc;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> offsets;

  Problem(leancore::ConvDesc d, test::Layout layout, test::Random& random) {
    d.c_out = d.c_in;
    for (int a = 0; a < d.dims; ++a) d.stride[a] = d.dilation[a] = 1;
    test::set_layout(d, layout, random);
    desc.dtype = d.dtype;
    desc.dims = d.dims;
    desc.batch = d.batch;
    desc.channels = d.c_in;
    std::copy_n(d.extents, d.dims, desc.extents);
    std::copy_n(d.x_strides, d.dims + 2, desc.x_strides);
    std::copy_n(d.y_strides, d.dims + 2, desc.y_strides);
    shape = {d.batch, d.c_in};
    shape.insert(shape.end(), d.extents, d.extents + d.dims);
  }
  // All of {-1, 0, 1}^dims written out, or some groups with offsets up to `farthest`.
  void set_offsets(std::int64_t groups, std::int64_t farthest, test::Random& random) {
    offsets.clear();
    if (groups == 0) {
      for (std::int64_t g = 0, all = every(); g < all; ++g) {
        for (std::int64_t divisor = all / 3; divisor > 0; divisor /= 3) offsets.push_back(g / divisor % 3 - 1);
      }
      return;
    }
    for (std::int64_t i = 0; i < groups * desc.dims; ++i) offsets.push_back(random.integer(-farthest, farthest));
    desc.groups = groups;
    desc.offsets = offsets.data();
  }
  [[nodiscard]] std::int64_t every() const {
    std::int64_t all = 1;
    for (int a = 0; a < desc.dims; ++a) all *= 3;
    return all;
  }
  // The definition, on values in row-major order.
  template <typename T>
  [[nodiscard]] std::vector<T> expected(const std::vector<T>& x) const {
    const auto groups = static_cast<std::int64_t>(offsets.size()) / desc.dims;
    std::vector<std::int64_t> group_of;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t size = desc.channels / groups + (g < desc.channels % groups ? 1 : 0);
      group_of.insert(group_of.end(), static_cast<std::size_t>(size), g);
    }
    std::vector<T> y(x.size());
    for (T& element : y) std::memset(static_cast<void*>(&element), 0, sizeof element);
    std::vector<std::int64_t> at(shape.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      auto rest = static_cast<std::int64_t>(i);
      for (std::size_t a = shape.size(); a-- > 0; rest /= shape[a]) at[a] = rest % shape[a];
      std::int64_t from = at[0] * shape[1] + at[1];
      bool inside = true;
      for (int a = 0; a < desc.dims; ++a) {
        const auto axis = static_cast<std::size_t>(a + 2);
        const std::int64_t index =
            at[axis] - offsets[static_cast<std::size_t>(group_of[static_cast<std::size_t>(at[1])] * desc.dims + a)];
        inside = inside && index >= 0 && index < shape[axis];
        from = from * shape[axis] + index;
      }
      if (inside) y[i] = x[static_cast<std::size_t>(from)];
    }
    return y;
  }
};

template <typename T>
void fill_with_any_bits(const test::Array<T>& array, test::Random& random) {
  array.each([&](T& element) {
    const std::uint64_t bits = random.next();
    std::memcpy(&element, &bits, sizeof element);
  });
}

template <typename T>
void check_against_definition(const Problem& p, test::Random& random, test::GuardedMemory::Flush flush) {
  const int axes = p.desc.dims + 2;
  test::Array<T> x(axes, p.shape.data(), p.desc.x_strides, flush), y(axes, p.shape.data(), p.desc.y_strides, flush);
  fill_with_any_bits(x, random);
  x.make_read_only();
  y.poison();
  const leancore::Status status = shift(p.desc, x.origin(), y.origin(), {});
  CHECK(status.ok(), "%s", status.message);
  const std::vector<T> expected = p.expected(x.values()), result = y.values();
  const bool same = expected.size() == result.size() &&
                    (expected.empty() || std::memcmp(expected.data(), result.data(), result.size() * sizeof(T)) == 0);
  CHECK(same, "%s, %d dims, channels %lld at %lld", info(p.desc.dtype).name, p.desc.dims,
        static_cast<long long>(p.desc.channels), static_cast<long long>(p.desc.extents[0]));
  // Nothing between the elements of y was touched.
  y.each([](T& element) { std::memset(static_cast<void*>(&element), 0xff, sizeof element); });
  bool untouched = true;
  for (std::size_t i = 0; i < y.span_bytes(); ++i) untouched = untouched && y.raw()[i] == '\xff';
  CHECK(untouched, "gaps of y");
}

template <typename T>
void random_rounds(test::Random& random) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 5e4);
  if (random.integer(0, 3) == 0) {
    for (int a = 0; a < d.dims; ++a) d.extents[a] = random.integer(1, 2);
  }
  Problem p(d, static_cast<test::Layout>(random.integer(0, 2)), random);
  p.set_offsets(random.integer(0, 1) * random.integer(1, 12), random.integer(0, 1) * 40 + 2, random);
  check_against_definition<T>(p, random, test::GuardedMemory::Flush::to_end);
  check_against_definition<T>(p, random, test::GuardedMemory::Flush::to_start);
}

// Larger than what is written past the caches, at any alignment, with rows shorter and longer than the buffer.
void large_results(test::Random& random) {
  const std::int64_t shapes[][4] = {{3, 30, 250, 251}, {9, 200, 53, 49}, {1, 19, 41, 6001}, {1, 5003, 30, 29}};
  for (const auto& shape : shapes) {
    for (const test::Layout layout : {test::Layout::channels_first, test::Layout::channels_last}) {
      const leancore::ConvDesc d =
          leancore::compact_desc(leancore::DType::f32, 2, shape[0], shape[1], shape[1], shape + 2);
      Problem p(d, layout, random);
      p.set_offsets(random.integer(0, 1) * 5, 3, random);
      check_against_definition<float>(p, random, test::GuardedMemory::Flush::to_end);
    }
  }
}

void adjoint(test::Random& random) {
  for (int round = 0; round < test::rounds(100); ++round) {
    const leancore::ConvDesc d = test::random_problem(random, leancore::DType::f64, 5e4);
    Problem p(d, test::Layout::channels_first, random);
    p.set_offsets(random.integer(1, 9), 2, random);
    const int axes = p.desc.dims + 2;
    test::Array<double> x(axes, p.shape.data(), p.desc.x_strides, test::GuardedMemory::Flush::to_end);
    test::Array<double> dy(axes, p.shape.data(), p.desc.x_strides, test::GuardedMemory::Flush::to_end);
    test::Array<double> y(axes, p.shape.data(), p.desc.y_strides, test::GuardedMemory::Flush::to_end);
    test::Array<double> dx(axes, p.shape.data(), p.desc.y_strides, test::GuardedMemory::Flush::to_end);
    for (const auto* array : {&x, &dy}) {
      array->each([&](double& element) { element = static_cast<double>(random.integer(-9, 9)); });
    }
    leancore::check(shift(p.desc, x.origin(), y.origin(), {}));
    for (std::int64_t& each : p.offsets) each = -each;
    leancore::check(shift(p.desc, dy.origin(), dx.origin(), {}));
    const auto dot = [](const std::vector<double>& a, const std::vector<double>& b) {
      double sum = 0;
      for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
      return sum;
    };
    const double left = dot(y.values(), dy.values()), right = dot(x.values(), dx.values());
    CHECK(left == right, "%g and %g", left, right);
  }
}

void refusals() {
  const std::int64_t extents[] = {4, 5};
  test::Random random(1);
  const Problem good(leancore::compact_desc(leancore::DType::f32, 2, 2, 9, 9, extents), test::Layout::channels_first,
                     random);
  std::vector<float> x(2 * 9 * 4 * 5), y(x.size());
  const auto refused = [&](StatusCode code, const char* text, ShiftDesc d, const void* from, void* to,
                           const leancore::Context& context = {}) {
    const leancore::Status status = shift(d, from, to, context);
    CHECK(status.code == code && std::strstr(status.message, text) != nullptr, "%s: %s", text, status.message);
  };
  const auto changed = [&](auto change) {
    ShiftDesc d = good.desc;
    change(d);
    return d;
  };
  const std::int64_t offsets[] = {1, 1};
  constexpr StatusCode bad = StatusCode::invalid_argument;
  const auto bad_desc = [&](const char* text, auto change) { refused(bad, text, changed(change), x.data(), y.data()); };
  CHECK(shift(good.desc, x.data(), y.data(), {}).ok(), "the good one");
  bad_desc("dims is 0", [](ShiftDesc& d) { d.dims = 0; });
  bad_desc("dims is 5", [](ShiftDesc& d) { d.dims = 5; });
  bad_desc("batch, channels are -1, 9", [](ShiftDesc& d) { d.batch = -1; });
  bad_desc("batch, channels are 2, -9", [](ShiftDesc& d) { d.channels = -9; });
  bad_desc("extent 1 is -5", [](ShiftDesc& d) { d.extents[1] = -5; });
  bad_desc("groups is 9, expected 0", [](ShiftDesc& d) { d.groups = 9; });
  bad_desc("groups is 0, expected at least 1", [&](ShiftDesc& d) { d.offsets = offsets; });
  bad_desc("place several elements", [](ShiftDesc& d) { d.y_strides[3] = 0; });
  refused(StatusCode::invalid_type, "dtype is 7", changed([](ShiftDesc& d) { d.dtype = leancore::DType{7}; }), x.data(),
          y.data());
  refused(StatusCode::overflow, "x of shape", changed([](ShiftDesc& d) { d.x_strides[0] = std::int64_t{1} << 61; }),
          x.data(), y.data());
  refused(bad, "x is null", good.desc, nullptr, y.data());
  refused(bad, "y is null", good.desc, x.data(), nullptr);
  refused(bad, "y at address", good.desc, x.data(), reinterpret_cast<char*>(y.data()) + 1);
  refused(bad, "output y overlaps input x", good.desc, x.data(), x.data());
  refused(bad, "output y overlaps input x", good.desc, x.data(), x.data() + x.size() - 1);
  leancore::Context context;
  context.threads = -1;
  refused(bad, "threads is -1", good.desc, x.data(), y.data(), context);
  context = {};
  context.device.type = leancore::DeviceType::cuda;
  refused(StatusCode::unsupported, "CUDA", good.desc, x.data(), y.data(), context);
  // The farthest offsets there are move everything out.
  const std::int64_t far[] = {INT64_MIN, 0, INT64_MAX, INT64_MAX};
  x.assign(x.size(), 1.0f);
  y.assign(y.size(), 1.0f);
  CHECK(shift(changed([&](ShiftDesc& d) { d.offsets = far, d.groups = 2; }), x.data(), y.data(), {}).ok(), "far");
  CHECK(std::all_of(y.begin(), y.end(), [](float each) { return each == 0; }), "far offsets");
}

}  // namespace

int main() {
  test::Random random(5);
  for (int round = 0; round < test::rounds(1500); ++round) {
    test::for_each_type([&]<typename T>() { random_rounds<T>(random); });
  }
  if (test::share_of_rounds() >= 1) large_results(random);
  adjoint(random);
  refusals();
  return test::summary("shift");
}
