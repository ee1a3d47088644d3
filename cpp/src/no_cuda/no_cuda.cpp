// Linked in place of cuda/ when the library is built without it: the same symbols, no #ifdef in callers.
#include "implementations.hpp"
#include "leancore/runtime.hpp"

namespace leancore {

std::span<const detail::Implementation* const> detail::cuda_implementations() noexcept {
  return {};
}

const char* cuda_status() noexcept {
  return "built without CUDA";
}

}  // namespace leancore
