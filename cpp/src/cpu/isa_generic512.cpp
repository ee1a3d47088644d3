#include "cpu/isa.hpp"

#define LEANCORE_VECTOR_BYTES 64
#define LEANCORE_ROW generic512
#define LEANCORE_DESCRIPTION "512-bit vectors of the baseline instruction set, for tests"
#include "cpu/isa_baseline.inl"
