// The translated modules of the program.
#pragma once

#include <cstddef>

#include "types.hpp"

namespace emulation {

// By mangled name; null if there is none.
const Kernel* find_kernel(const char* name);
const Variable* find_variable(const char* name);

// What a translated module defines to make itself known. Either table ends in an empty entry, as it may have no other.
struct RegisterModule {
  template <std::size_t kernels_count, std::size_t variables_count>
  RegisterModule(const Kernel (&kernels)[kernels_count], const Variable (&variables)[variables_count]) {
    for (std::size_t i = 0; i + 1 < kernels_count; ++i) add(kernels[i]);
    for (std::size_t i = 0; i + 1 < variables_count; ++i) add(variables[i]);
  }

 private:
  static void add(const Kernel& kernel);
  static void add(const Variable& variable);
};

}  // namespace emulation
