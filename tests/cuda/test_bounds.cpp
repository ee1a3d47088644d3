// Rounding errors of every CUDA implementation stay within the bounds that follow from the number of terms.
#include "../cpp/bounds.hpp"
#include "support.hpp"
#include "topics.hpp"

namespace {

template <typename T>
void compare(test::Data data, test::Random& random) {
  leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 2e4);
  const auto layout = static_cast<test::Layout>(random.integer(0, 2));
  test::set_layout(d, layout, random);
  test::Arrays<T> in(d);
  in.fill([&] { return test::draw<T>(data, random); });
  for (const leancore::Operation operation : test::operations) {
    const test::Bounds bounds(operation, d, in);
    for (const char* name : test::cuda_implementations(operation, d)) {
      const std::vector<T> got = test::compute_on_device(operation, d, in, true, test::on_device(name));
      const bool tensor_cores = sizeof(T) == 2 && std::strcmp(name, "cuda_generic") != 0;
      if constexpr (std::is_same_v<T, float>) {
        const bool coarse = std::strcmp(name, "cuda_tf32") == 0;
        const std::int64_t channels = operation == leancore::Operation::forward ? d.c_in : d.c_out;
        const bool may_split = layout == test::Layout::channels_last || channels > 32;
        const bool split = may_split && std::strcmp(name, "cuda") == 0;
        if ((coarse || split) && operation != leancore::Operation::backward_weight) {
          // backward is backward_data and backward_weight.
          if (operation == leancore::Operation::backward) continue;
          bounds.check_tf32(name, operation, d, in, got, coarse ? 1 : 3, true);
          continue;
        }
      }
      bounds.check(name, operation, d, got, tensor_cores);
    }
  }
}

// Sums of many positive terms, as weight gradients of large images are: within 144 u S.
template <typename T>
void long_sums(std::int64_t length) {
  const std::int64_t extents[] = {length};
  leancore::ConvDesc d = leancore::compact_desc(test::dtype_of<T>, 1, 1, 1, 1, extents);
  test::Random random(3);
  test::Arrays<T> in(d);
  in.fill([&] { return (0.5 + random.uniform()) / 64; });  // the sums stay finite in fp16
  const auto operation = leancore::Operation::backward_weight;
  const std::vector<double> exact = test::reference_in_double(operation, d, in, false);
  for (const char* name : test::cuda_implementations(operation, d)) {
    const std::vector<T> got = test::compute_on_device(operation, d, in, false, test::on_device(name));
    for (std::size_t i = 0; i < got.size(); ++i) {
      const double bound = 144 * 0x1p-24 * exact[i], value = static_cast<double>(got[i]);
      CHECK(static_cast<double>(T(exact[i] - bound)) <= value && value <= static_cast<double>(T(exact[i] + bound)),
            "%s %s: %.9g, exact %.9g", name, info(d.dtype).name, value, exact[i]);
    }
  }
}

}  // namespace

int test_cuda::bounds() {
  test::Random random(78);
  for (int round = 0; round < test::rounds(4); ++round) {
    for (const test::Data data : test::all_data) {
      test::for_each_type([&]<typename T>() { compare<T>(data, random); });
    }
  }
  long_sums<float>(test::rounds(1 << 17));
  long_sums<test::f16>(test::rounds(1 << 17));
  std::printf("largest error: %.3f of the sure bound\n", test::worst_fraction);
  return test::summary("cuda bounds");
}
