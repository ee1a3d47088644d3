// Arrays of more than 2^31 elements, in little memory: one small file mapped over and over behind each array.
#include "support.hpp"

namespace {

constexpr std::int64_t period = std::int64_t{1} << 22;  // elements of the file: 16 MiB
constexpr std::int64_t pixels = std::int64_t{1} << 30;

// `periods` copies of the same memory, then one period of its own, all in a row.
class PeriodicArray {
 public:
  explicit PeriodicArray(std::int64_t periods)
      : size_(static_cast<std::size_t>((periods + 1) * period) * sizeof(float)) {
    const int file = memfd_create("periodic", 0);
    constexpr auto bytes = static_cast<std::size_t>(period) * sizeof(float);
    if (file < 0 || ftruncate(file, bytes) != 0) std::abort();
    void* all = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED) std::abort();
    base_ = static_cast<float*>(all);
    for (std::int64_t i = 0; i < periods; ++i) {
      if (mmap(base_ + i * period, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) {
        std::abort();
      }
    }
    close(file);
  }
  ~PeriodicArray() { munmap(base_, size_); }
  PeriodicArray(const PeriodicArray&) = delete;
  PeriodicArray& operator=(const PeriodicArray&) = delete;
  [[nodiscard]] float* data() const { return base_; }

 private:
  std::size_t size_;
  float* base_;
};

float value(std::int64_t i) {
  return static_cast<float>((i % period * 7) % 11 - 5);
}

}  // namespace

int main() {
  // Three channels of 2^30 pixels in, two out; the last period of the last channel is memory of its own.
  const std::int64_t extents[] = {pixels};
  const leancore::ConvDesc d = leancore::compact_desc(leancore::DType::f32, 1, 1, 3, 2, extents);
  const PeriodicArray x(3 * pixels / period - 1), y(2 * pixels / period - 1);
  for (std::int64_t i = 0; i < period; ++i) {
    x.data()[i] = value(i);
    x.data()[3 * pixels - period + i] = value(i);
  }
  const float alpha[] = {1, 2, 3, 4, 5, 6}, c[] = {7, 8, 9, 10};
  for (const char* name : test::implementations(leancore::Operation::forward, d)) {
    if (std::strcmp(name, "reference") == 0) continue;  // minutes
    leancore::Context context;
    context.implementation = name;
    std::vector<char> workspace;
    const auto prepare = [&](leancore::Operation operation) {
      leancore::check(workspace_bytes(operation, d, context, context.workspace_bytes));
      workspace.resize(context.workspace_bytes);
      context.workspace = workspace.data();
    };

    // All channels hold the same periodic values, so channel o of y is (sum of alpha's row) x plus its stencil.
    prepare(leancore::Operation::forward);
    std::memset(y.data() + 2 * pixels - period, 0xff, static_cast<std::size_t>(period) * sizeof(float));
    leancore::check(forward(d, x.data(), alpha, c, nullptr, y.data(), context));
    for (std::int64_t i = 0; i < period; ++i) {
      const float left = value(i + period - 1), right = i + 1 < period ? value(i + 1) : 0;
      const float expected = 15 * value(i) + 9 * left + 10 * right;
      const float got = y.data()[2 * pixels - period + i];
      CHECK(got == expected, "%s: y %lld from the end is %g, expected %g", name, static_cast<long long>(period - i),
            static_cast<double>(got), static_cast<double>(expected));
    }

    // With dy = x: sums over 2^30 products.
    float dalpha[6], dc[4];
    double squares = 0, products = 0;
    for (std::int64_t i = 0; i < period; ++i) {
      squares += value(i) * value(i);
      products += value(i) * value(i + 1);
    }
    prepare(leancore::Operation::backward_weight);
    leancore::check(backward_weight(d, x.data(), x.data() + pixels, dalpha, dc, context));
    const double bound = 64 * 0x1p-24 * squares * (pixels / period);
    for (const float got : dalpha) {
      CHECK(std::abs(got - squares * (pixels / period)) <= bound, "%s: dalpha %g", name, static_cast<double>(got));
    }
    for (const float got : dc) {
      CHECK(std::abs(got - products * (pixels / period)) <= bound, "%s: dc %g", name, static_cast<double>(got));
    }
  }
  return test::summary("large");
}
