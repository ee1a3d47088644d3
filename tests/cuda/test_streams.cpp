// What a call does beside its arithmetic, in every family of kernels: it works on the caller's device and stream, and
// leaves the thread's device as it was; it only launches, so that it can be captured in a graph, which then works on
// whatever the arrays hold by then; and its bits do not depend on how large a device of an architecture is.
#include <cstring>
#include <limits>
#include <map>
#include <set>

#include "plan.hpp"
#include "support.hpp"
#include "topics.hpp"

namespace {

namespace cuda = leancore::detail::cuda;
using leancore::ConvDesc;
using leancore::Operation;

int devices = 0;
std::set<std::size_t> families;  // of kernels: alternatives of Plan::steps

int current_device() {
  int device = -1;
  REQUIRE_CUDA(cudaGetDevice(&device));
  return device;
}

int architecture_of(int device) {
  int major = 0, minor = 0;
  REQUIRE_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  REQUIRE_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return 10 * major + minor;
}

// A call, again and again on the same memory of a device, which is the thread's except while the call is made.
template <typename T>
class Call {
 public:
  Call(Operation operation, const ConvDesc& d, int device)
      : operation_(operation),
        desc_(d),
        device_(device),
        in_(d),
        out_(operation, d, test::GuardedMemory::Flush::to_end),
        from_(in_, 0),
        to_(out_, 0),
        context_(context_on(operation, d, device)),
        workspace_(context_.workspace_bytes) {
    context_.workspace = workspace_.data();
    REQUIRE_CUDA(cudaStreamCreate(&stream_));
    context_.stream = stream_;
    if (operation == Operation::backward) return;
    const leancore::detail::Arguments a = test::arguments_of(from_, to_);
    families.insert(cuda::make_plan(operation, d, a, {80, 163 << 10}, cuda::Choice::all).steps.index());
  }
  ~Call() { cudaStreamDestroy(stream_); }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // Results of earlier calls become NaN.
  template <typename Draw>
  void fill(Draw draw) {
    in_.fill(draw);
    out_.fill([] { return std::numeric_limits<double>::quiet_NaN(); });
    for (const test::DeviceArrays<T>* arrays : {&from_, &to_}) {
      for (const auto* copy : {&arrays->x, &arrays->y, &arrays->alpha, &arrays->c, &arrays->bias}) copy->upload();
    }
  }
  void start() {
    const int other = (device_ + 1) % devices;
    REQUIRE_CUDA(cudaSetDevice(other));
    leancore::check(test::start(operation_, desc_, from_, to_, true, 0, context_));
    CHECK(current_device() == other, "the thread's device is %d, it was %d", current_device(), other);
    REQUIRE_CUDA(cudaSetDevice(device_));
  }
  [[nodiscard]] std::vector<T> results() {
    REQUIRE_CUDA(cudaStreamSynchronize(stream_));
    for (const auto* copy : {&to_.x, &to_.y, &to_.alpha, &to_.c}) copy->download();
    return out_.values();
  }
  [[nodiscard]] std::vector<T> expected() const {
    return test::compute(operation_, desc_, in_, true, test::forced("reference"));
  }
  [[nodiscard]] cudaStream_t stream() const { return stream_; }

 private:
  static leancore::Context context_on(Operation operation, const ConvDesc& d, int device) {
    leancore::Context context;
    context.device = {leancore::DeviceType::cuda, device};
    leancore::check(workspace_bytes(operation, d, context, context.workspace_bytes));
    return context;
  }

  Operation operation_;
  ConvDesc desc_;
  int device_;
  test::Arrays<T> in_;
  test::Outputs<T> out_;
  test::DeviceArrays<T> from_, to_;
  leancore::Context context_;
  test::DeviceMemory workspace_;
  cudaStream_t stream_ = nullptr;
};

template <typename T>
void check(Operation operation, const ConvDesc& d, test::Random& random) {
  const std::string name =
      std::string(leancore::operation_names[static_cast<int>(operation)]) + " " + test::describe(d);
  const auto integers = [&] { return random.integer(-4, 4); };
  std::map<int, std::vector<T>> by_architecture;
  for (int device = 0; device < devices; ++device) {
    REQUIRE_CUDA(cudaSetDevice(device));
    Call<T> call(operation, d, device);
    call.fill(integers);
    call.start();
    CHECK(call.results() == call.expected(), "%s on device %d", name.c_str(), device);

    // Allocating or waiting would end the capture, in this mode of all; a launch elsewhere would not be in the graph.
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    REQUIRE_CUDA(cudaStreamBeginCapture(call.stream(), cudaStreamCaptureModeGlobal));
    call.start();
    REQUIRE_CUDA(cudaStreamEndCapture(call.stream(), &graph));
    REQUIRE_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    for (int round = 0; round < 2; ++round) {
      call.fill(integers);
      REQUIRE_CUDA(cudaGraphLaunch(executable, call.stream()));
      CHECK(call.results() == call.expected(), "%s in a graph, round %d", name.c_str(), round);
    }
    REQUIRE_CUDA(cudaGraphExecDestroy(executable));
    REQUIRE_CUDA(cudaGraphDestroy(graph));

    test::Random same(7);
    call.fill([&] { return same.normal(); });
    call.start();
    const std::vector<T> results = call.results();
    const std::vector<T>& first = by_architecture.emplace(architecture_of(device), results).first->second;
    CHECK(std::memcmp(first.data(), results.data(), results.size() * sizeof(T)) == 0, "%s: other bits on device %d",
          name.c_str(), device);
  }
}

template <typename T>
void check_layers(test::Random& random) {
  const struct {
    std::int64_t batch, c_in, c_out, stride;
    std::vector<std::int64_t> extents;
  } layers[] = {
      {35, 16, 24, 1, {1, 32}},  // several splits of weights' gradients
      {1, 136, 40, 1, {6, 8}},   // alpha is put in order first, in the workspace
      {1, 16, 8, 1, {3, 5, 8}},
      {2, 5, 7, 2, {9, 11}},  // no tile's
  };
  for (const auto& layer : layers) {
    ConvDesc d = leancore::compact_desc(test::dtype_of<T>, static_cast<int>(layer.extents.size()), layer.batch,
                                        layer.c_in, layer.c_out, layer.extents.data());
    for (int axis = 0; axis < d.dims; ++axis) d.stride[axis] = layer.stride;
    for (const auto layout : {test::Layout::channels_first, test::Layout::channels_last}) {
      test::set_layout(d, layout, random);
      for (const Operation operation : test::operations) check<T>(operation, d, random);
    }
  }
}

}  // namespace

int test_cuda::streams() {
  test::Random random(19);
  REQUIRE_CUDA(cudaGetDeviceCount(&devices));
  check_layers<float>(random);
  check_layers<test::f16>(random);
  REQUIRE_CUDA(cudaSetDevice(0));
  CHECK(families.size() == 5, "%zu families of kernels", families.size());
  std::printf("%d %s\n", devices, devices == 1 ? "device, which had no other one beside it" : "devices");
  return test::summary("cuda streams");
}
