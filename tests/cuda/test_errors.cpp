// Calls that cannot be run say so, and touch nothing.
#include "support.hpp"
#include "topics.hpp"

namespace {

using leancore::Status;
using leancore::StatusCode;

void check_message(const Status& status, StatusCode code, const char* part) {
  CHECK(status.code == code && std::strstr(status.message, part) != nullptr, "code %d, message '%s', expected '%s'",
        static_cast<int>(status.code), status.message, part);
}

}  // namespace

int test_cuda::errors() {
  const std::int64_t extents[] = {4, 5};
  const leancore::ConvDesc d = leancore::compact_desc(leancore::DType::f32, 2, 1, 3, 3, extents);
  const test::Arrays<float> host(d);
  const test::DeviceArrays<float> device(host, 0);
  const auto call = [&](const leancore::Context& context) {
    return forward(d, device.x.origin(), device.alpha.origin(), device.c.origin(), nullptr, device.y.origin(), context);
  };

  check_message(call(test::on_device(nullptr)), StatusCode::ok, "");
  leancore::Context context = test::on_device(nullptr);
  for (const int index : {-1, 1000}) {
    context.device.index = index;
    check_message(call(context), StatusCode::invalid_argument, "device");
  }
  check_message(call(test::on_device("avx2")), StatusCode::runtime_error, "avx2");

  // A workspace that is missing or too small.
  context = test::on_device(nullptr);
  const auto weight = [&] {
    return backward_weight(d, device.x.origin(), device.y.origin(), device.alpha.origin(), device.c.origin(), context);
  };
  check_message(weight(), StatusCode::invalid_argument, "workspace");
  leancore::check(workspace_bytes(leancore::Operation::backward_weight, d, context, context.workspace_bytes));
  const test::DeviceMemory workspace(context.workspace_bytes);
  context.workspace = workspace.data();
  check_message(weight(), StatusCode::ok, "");
  context.workspace_bytes /= 2;
  check_message(weight(), StatusCode::invalid_argument, "workspace");
  CHECK(cudaGetLastError() == cudaSuccess, "an error was left behind");
  return test::summary("cuda errors");
}
