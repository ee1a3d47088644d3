// A 2-D lean convolution of a 3 x 3 image, checked against the sums written out.
#include <leancore/leancore.hpp>

#include <cstddef>
#include <cstdio>
#include <vector>

int main() {
  const std::int64_t extents[] = {3, 3};
  const leancore::ConvDesc desc = leancore::compact_desc(leancore::DType::f32, 2, 1, 1, 1, extents);
  const std::vector<float> x = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  const float alpha = 10;
  const float c[] = {1, 2, 3, 4};  // up, left, right, down
  std::vector<float> y(9);

  try {
    leancore::Context context;
    leancore::check(leancore::workspace_bytes(leancore::Operation::forward, desc, context, context.workspace_bytes));
    std::vector<std::byte> workspace(context.workspace_bytes);
    context.workspace = workspace.data();
    leancore::check(leancore::forward(desc, x.data(), &alpha, c, nullptr, y.data(), context));
  } catch (const leancore::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }

  bool right = true;
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 3; ++column) {
      const auto at = [&](int r, int k) { return r < 0 || r > 2 || k < 0 || k > 2 ? 0.0F : x[std::size_t(3 * r + k)]; };
      const float expected = alpha * at(row, column) + c[0] * at(row - 1, column) + c[1] * at(row, column - 1) +
                             c[2] * at(row, column + 1) + c[3] * at(row + 1, column);
      const float got = y[std::size_t(3 * row + column)];
      std::printf("%5g%s", double(got), column == 2 ? "\n" : " ");
      right = right && got == expected;  // small integers: exact
    }
  }
  std::printf("leancore %s, %s threads: %s\n", leancore::version(), leancore::thread_backend(), right ? "ok" : "WRONG");
  return right ? 0 : 1;
}
