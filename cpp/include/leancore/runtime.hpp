// What this build and this machine offer.
#pragma once

#include <cstddef>

#include "leancore/types.hpp"

namespace leancore {

// "major.minor.patch"
const char* version() noexcept;

// Implementations in the order in which they are tried, the best first and the scalar reference last. The environment
// variable LEANCORE_CPU_ISA, read once at the first call, makes one of them the only candidate.
struct ImplementationInfo {
  const char* name;         // "avx512_bf16", "avx512", "avx2", "generic", "reference"
  const char* description;  // one line
  bool available;           // this processor executes it, and a self-test at the first question came out right
};
std::size_t implementation_count() noexcept;
ImplementationInfo implementation_info(std::size_t index) noexcept;

// Writes the name of the implementation that would run the operation. Of a backward that no implementation offers in
// one pass: the one of its backward_data.
Status selected_implementation(Operation operation, const ConvDesc& desc, const Context& context,
                               const char*& name) noexcept;

// "openmp", "std" or "serial": which thread runtime this library was built with.
const char* thread_backend() noexcept;

// Threads that a call would use at most now. OpenMP builds follow omp_get_max_threads (so OMP_NUM_THREADS,
// omp_set_num_threads, torch.set_num_threads); std builds follow LEANCORE_NUM_THREADS, else the processors.
int max_threads() noexcept;

// "built without CUDA", or the state of the driver and the compiled architectures.
const char* cuda_status() noexcept;

}  // namespace leancore
