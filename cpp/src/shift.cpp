// Validate, run.
#include "leancore/shift.hpp"

#include <algorithm>

#include "cpu/shift.hpp"
#include "leancore/runtime.hpp"
#include "status.hpp"
#include "validate.hpp"

namespace leancore {
namespace {

// Waking a thread costs about as much as moving so many bytes.
constexpr double bytes_per_thread = 128 << 10;

int threads_for(const ShiftDesc& d, const Context& context) {
  int threads = max_threads();
  if (context.threads > 0) threads = std::min(threads, static_cast<int>(context.threads));
  double bytes = static_cast<double>(d.batch) * static_cast<double>(d.channels * info(d.dtype).size);
  for (int a = 0; a < d.dims; ++a) bytes *= static_cast<double>(d.extents[a]);
  return static_cast<int>(std::clamp(bytes / bytes_per_thread, 1.0, static_cast<double>(threads)));
}

}  // namespace

Status shift(const ShiftDesc& desc, const void* x, void* y, const Context& context) noexcept {
  if (Status status = detail::validate(desc, x, y, context); !status.ok()) return status;
  if (context.device.type != DeviceType::cpu) {
    return detail::fail(StatusCode::unsupported, "shift: CUDA arrays, for which there is no kernel");
  }
  detail::shift_on_cpu(desc, x, y, threads_for(desc, context));
  return {};
}

}  // namespace leancore
