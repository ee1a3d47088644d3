// What the emulation reports about a kernel.
#pragma once

#include <stdexcept>
#include <string>

namespace emulation {

enum class Defect {
  race,
  out_of_bounds,
  misaligned,
  uninitialised,
  pending_copy,
  divergent_barrier,
  collective,
  deadlock,
  trap,
};

const char* name_of(Defect defect);

struct DefectFound : std::runtime_error {
  DefectFound(Defect kind, const std::string& text) : std::runtime_error(text), defect(kind) {}
  Defect defect;
};

}  // namespace emulation
