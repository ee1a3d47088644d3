#include "registry.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

#include "cpu/kernels.hpp"
#include "leancore/runtime.hpp"
#include "reference/reference.hpp"
#include "self_test.hpp"
#include "status.hpp"
#include "validate.hpp"

namespace leancore {
namespace detail {
namespace {

const Implementation* const cpu_list[] = {
#if defined(LEANCORE_X86_64)
    &cpu::avx512_bf16,
    &cpu::avx512,
    &cpu::avx2,
#endif
    &cpu::generic,
#if defined(LEANCORE_TEST_ISAS)
    // Behind generic, which supports whatever they do: taken only where they are asked for by name.
    &cpu::generic256,
    &cpu::generic512,
    &cpu::generic512_bf16,
#endif
    &reference::implementation,
};

// The value of LEANCORE_CPU_ISA at the first call; empty when unset.
const std::string& isa_from_environment() {
  static const std::string isa = [] {
    const char* text = std::getenv("LEANCORE_CPU_ISA");
    return std::string(text ? text : "");
  }();
  return isa;
}

// The processor can execute it, and it computes there what it should. Asked once for each row of the list.
bool usable(const Implementation& candidate) {
  if (candidate.device != DeviceType::cpu || &candidate == &reference::implementation) return candidate.available();
  static std::atomic<int> answers[std::size(cpu_list)];  // 0: not asked yet, 1: yes, 2: no
  for (std::size_t i = 0; i < std::size(cpu_list); ++i) {
    if (cpu_list[i] != &candidate) continue;
    if (answers[i] == 0) answers[i] = candidate.available() && passes_self_test(candidate) ? 1 : 2;
    return answers[i] == 1;
  }
  return false;
}

// A forced kernel keeps the reference behind it, for what the kernel does not support.
bool admitted(const Implementation& candidate, const char* forced) {
  return forced[0] == '\0' || std::strcmp(candidate.name, forced) == 0 ||
         std::strcmp(candidate.name, reference::implementation.name) == 0;
}

}  // namespace

std::span<const Implementation* const> cpu_implementations() noexcept {
  return cpu_list;
}

Status choose(Operation operation, const ConvDesc& desc, const Context& context,
              const Implementation*& implementation) noexcept {
  const bool on_cpu = context.device.type == DeviceType::cpu;
  const std::span<const Implementation* const> list = on_cpu ? cpu_implementations() : cuda_implementations();
  if (!on_cpu && list.empty()) {
    return fail(StatusCode::runtime_error, "%s: CUDA arrays, but leancore was %s", name(operation), cuda_status());
  }
  if (!on_cpu && !list.back()->available()) {
    return fail(StatusCode::runtime_error, "%s: CUDA arrays, but there is no device: leancore was %s", name(operation),
                cuda_status());
  }
  const char* forced = context.implementation ? context.implementation : on_cpu ? isa_from_environment().c_str() : "";
  bool known = forced[0] == '\0', available = known;
  for (const Implementation* candidate : list) {
    if (std::strcmp(candidate->name, forced) == 0) {
      known = true;
      available = usable(*candidate);
    }
  }
  if (!known || !available) {
    const auto others = on_cpu ? cuda_implementations() : cpu_implementations();
    const bool of_others = std::any_of(others.begin(), others.end(), [forced](const Implementation* candidate) {
      return std::strcmp(candidate->name, forced) == 0;
    });
    return fail(StatusCode::runtime_error, "%s: implementation '%s' (%s) %s", name(operation), forced,
                context.implementation ? "asked for by the caller" : "from LEANCORE_CPU_ISA",
                known       ? "cannot run on this machine, or fails its self-test there"
                : of_others ? on_cpu ? "takes CUDA arrays, and these are on the CPU"
                                     : "takes arrays on the CPU, and these are on a CUDA device"
                            : "is not one of those that `leancore info` lists");
  }
  for (const Implementation* candidate : list) {
    if (admitted(*candidate, forced) && candidate->supports(operation, desc) && usable(*candidate)) {
      implementation = candidate;
      return {};
    }
  }
  return fail(StatusCode::unsupported, "%s: no implementation supports this combination", name(operation));
}

}  // namespace detail

std::size_t implementation_count() noexcept {
  return detail::cpu_implementations().size() + detail::cuda_implementations().size();
}

ImplementationInfo implementation_info(std::size_t index) noexcept {
  const auto cpu = detail::cpu_implementations(), cuda = detail::cuda_implementations();
  if (index >= cpu.size() + cuda.size()) return {"", "", false};
  const detail::Implementation& row = *(index < cpu.size() ? cpu[index] : cuda[index - cpu.size()]);
  return {row.name, row.description, detail::usable(row)};
}

Status selected_implementation(Operation operation, const ConvDesc& desc, const Context& context,
                               const char*& name) noexcept {
  if (Status status = detail::validate(operation, desc, context); !status.ok()) return status;
  const detail::Implementation* implementation = nullptr;
  Status status = detail::choose(operation, desc, context, implementation);
  if (operation == Operation::backward && status.code == StatusCode::unsupported) {
    status = detail::choose(Operation::backward_data, desc, context, implementation);
  }
  if (status.ok()) name = implementation->name;
  return status;
}

const char* version() noexcept {
  return LEANCORE_VERSION;
}

}  // namespace leancore
