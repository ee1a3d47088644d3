// Every CUDA implementation gives the same bits as the scalar reference of the CPU on small integers, whose sums are
// exact in fp32 in any order (of 16-bit results, the exact sum rounded once): over random shapes in 1-D to 4-D, all
// types, operations, layouts, strides and dilations, subsets of the gradients, aligned and unaligned memory.
#include "support.hpp"
#include "topics.hpp"

namespace {

long cases = 0;

template <typename T>
void compare(leancore::ConvDesc d, test::Random& random) {
  d.dtype = test::dtype_of<T>;
  if (random.integer(0, 9) == 0) d.stencil = 0;
  const auto layout = static_cast<test::Layout>(random.integer(0, 2));
  test::set_layout(d, layout, random);
  test::Arrays<T> in(d);
  in.fill([&] { return random.integer(-4, 4); });
  const bool with_bias = random.integer(0, 1) != 0;
  const std::int64_t shift = random.integer(0, 3) == 0 ? random.integer(1, 7) : 0;
  for (const leancore::Operation operation : test::operations) {
    const auto unwanted = random.integer(0, 2) == 0 ? static_cast<int>(random.integer(1, 7)) : 0;
    const std::vector<T> expected = test::compute(operation, d, in, with_bias, test::forced("reference"),
                                                  test::GuardedMemory::Flush::to_end, unwanted);
    for (const char* name : test::cuda_implementations(operation, d)) {
      const std::vector<T> got =
          test::compute_on_device(operation, d, in, with_bias, test::on_device(name), unwanted, shift);
      CHECK(got == expected, "%s %s %s layout %d without %d, %ld elements off", name,
            leancore::operation_names[static_cast<int>(operation)], test::describe(d).c_str(), static_cast<int>(layout),
            unwanted, static_cast<long>(shift));
      ++cases;
    }
  }
}

}  // namespace

int test_cuda::exact() {
  test::Random random(20261125);
  for (int round = 0; round < test::rounds(40); ++round) {
    test::for_each_type(
        [&]<typename T>() { compare<T>(test::random_problem(random, test::dtype_of<T>, 4e4), random); });
  }
  std::printf("%ld cases\n", cases);
  return test::summary("cuda exact");
}
