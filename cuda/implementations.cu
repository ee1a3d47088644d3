// The CUDA rows of the registry.
#include "implementations.hpp"

#include <type_traits>
#include <variant>

#include "device.hpp"
#include "launch.cuh"
#include "plan.hpp"
#include "status.hpp"
#include "validate.hpp"

namespace leancore::detail {
namespace cuda {
namespace {

Status launch_plan(Choice choice, Operation operation, const ConvDesc& desc, const Arguments& arguments,
                   const Context& context, void* workspace) {
  const char* call = name(operation);
  DeviceFacts device;
  Status status = facts_of(call, context.device.index, device);
  if (!status.ok()) return status;
  const DeviceGuard guard(call, context.device.index, status);
  if (!status.ok()) return status;

  const Plan plan = make_plan(operation, desc, arguments, device, choice);
  if (std::holds_alternative<TooLargePlan>(plan.steps)) {
    return fail(StatusCode::unsupported, "%s: the arrays are too large for a CUDA launch", call);
  }
  const Call launches{arguments, workspace, static_cast<cudaStream_t>(context.stream)};
  const cudaError_t error = std::visit(
      [&](const auto& steps) {
        using Steps = std::decay_t<decltype(steps)>;
        if constexpr (std::is_same_v<Steps, EmptyPlan> || std::is_same_v<Steps, TooLargePlan>)
          return cudaSuccess;
        else
          return run(steps, plan.dtype, launches);
      },
      plan.steps);
  return error == cudaSuccess ? Status{} : failure(call, "launching a kernel", error);
}

template <Choice choice>
Status run_plan(Operation operation, const ConvDesc& desc, const Arguments& arguments, const Context& context,
                void* workspace, int) {
  return launch_plan(choice, operation, desc, arguments, context, workspace);
}

bool available() {
  return device_count() > 0;
}
bool supports(Operation operation, const ConvDesc&) {
  return operation != Operation::backward;
}
template <Choice choice>
std::size_t workspace_bytes(Operation operation, const ConvDesc& desc, int) {
  return most_workspace(operation, desc, choice);
}

constinit const Implementation best = {"cuda",
                                       "CUDA, the best kernel for the shape and the device",
                                       DeviceType::cuda,
                                       available,
                                       supports,
                                       workspace_bytes<Choice::all>,
                                       run_plan<Choice::all>};
constinit const Implementation tf32 = {"cuda_tf32",
                                       "as cuda, but fp32 with factors rounded to 11 bits where tensor cores take them",
                                       DeviceType::cuda,
                                       available,
                                       supports,
                                       workspace_bytes<Choice::tf32>,
                                       run_plan<Choice::tf32>};
constinit const Implementation generic = {"cuda_generic",
                                          "CUDA, any strides, stride and dilation; the oracle of the others",
                                          DeviceType::cuda,
                                          available,
                                          supports,
                                          workspace_bytes<Choice::generic>,
                                          run_plan<Choice::generic>};

constexpr const Implementation* list[] = {&best, &tf32, &generic};

}  // namespace
}  // namespace cuda

std::span<const Implementation* const> cuda_implementations() noexcept {
  return cuda::list;
}

}  // namespace leancore::detail
