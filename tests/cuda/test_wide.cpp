// The kernels that count in 64 bits give the same bits as those that count in 32, on arrays that both can take.
#include "launch.cuh"
#include "support.hpp"
#include "topics.hpp"

namespace {

namespace cuda = leancore::detail::cuda;
using leancore::Operation;

template <typename T>
std::vector<T> run(Operation operation, const leancore::ConvDesc& d, const test::Arrays<T>& in, bool wide) {
  test::Outputs<T> host(operation, d, test::GuardedMemory::Flush::to_end);
  const test::DeviceArrays<T> from(in, 0), out(host, 0);
  const leancore::detail::Arguments a = test::arguments_of(from, out);
  cuda::DeviceFacts device;
  device.architecture = 80;
  cuda::Plan plan = cuda::make_plan(operation, d, a, device, cuda::Choice::generic);
  const test::DeviceMemory workspace(plan.workspace_bytes);
  const cuda::Call call{a, workspace.data(), nullptr};
  if (auto* apply = std::get_if<cuda::ApplyPlan>(&plan.steps)) {
    apply->wide = wide;
    REQUIRE_CUDA(cuda::run(*apply, d.dtype, call));
  }
  if (auto* weight = std::get_if<cuda::WeightPlan>(&plan.steps)) {
    weight->wide = wide;
    REQUIRE_CUDA(cuda::run(*weight, d.dtype, call));
  }
  REQUIRE_CUDA(cudaDeviceSynchronize());
  for (const test::DeviceCopy<T>* copy : {&out.x, &out.y, &out.alpha, &out.c}) copy->download();
  return host.values();
}

}  // namespace

int test_cuda::wide() {
  test::Random random(12);
  for (int round = 0; round < test::rounds(10); ++round) {
    test::for_each_type([&]<typename T>() {
      leancore::ConvDesc d = test::random_problem(random, test::dtype_of<T>, 2e4);
      test::set_layout(d, static_cast<test::Layout>(random.integer(0, 2)), random);
      test::Arrays<T> in(d);
      in.fill([&] { return random.normal(); });
      for (const Operation operation : {Operation::forward, Operation::backward_data, Operation::backward_weight}) {
        const std::vector<T> narrow = run(operation, d, in, false), wide = run(operation, d, in, true);
        CHECK(std::memcmp(narrow.data(), wide.data(), narrow.size() * sizeof(T)) == 0, "%s %s",
              leancore::operation_names[static_cast<int>(operation)], test::describe(d).c_str());
      }
    });
  }
  return test::summary("cuda wide");
}
