// The CUDA rows of the registry.
#include "implementations.hpp"

#include <variant>

#include "device.hpp"
#include "launch.cuh"
#include "plan.hpp"
#include "status.hpp"
#include "validate.hpp"

namespace leancore::detail {
namespace cuda {
namespace {

Status run_plan(Operation operation, const ConvDesc& desc, const Arguments& arguments, const Context& context,
                void* workspace, int) {
  const char* call = name(operation);
  DeviceFacts device;
  Status status = facts_of(call, context.device.index, device);
  if (!status.ok()) return status;
  const DeviceGuard guard(call, context.device.index, status);
  if (!status.ok()) return status;

  const Plan plan = make_plan(operation, desc, arguments, device);
  const Call launches{arguments, workspace, static_cast<cudaStream_t>(context.stream)};
  cudaError_t error = cudaSuccess;
  if (std::holds_alternative<TooLargePlan>(plan.steps)) {
    return fail(StatusCode::unsupported, "%s: the arrays are too large for a CUDA launch", call);
  }
  if (const auto* apply = std::get_if<ApplyPlan>(&plan.steps)) error = run(*apply, plan.dtype, launches);
  if (const auto* weight = std::get_if<WeightPlan>(&plan.steps)) error = run(*weight, plan.dtype, launches);
  return error == cudaSuccess ? Status{} : failure(call, "launching a kernel", error);
}

constinit const Implementation generic = {
    "cuda_generic",
    "CUDA, any strides, stride and dilation",
    DeviceType::cuda,
    [] { return device_count() > 0; },
    [](Operation operation, const ConvDesc&) { return operation != Operation::backward; },
    [](Operation operation, const ConvDesc& desc, int) { return most_workspace(operation, desc); },
    run_plan,
};

constexpr const Implementation* list[] = {&generic};

}  // namespace
}  // namespace cuda

std::span<const Implementation* const> cuda_implementations() noexcept {
  return cuda::list;
}

}  // namespace leancore::detail
