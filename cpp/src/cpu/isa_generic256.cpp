#include "cpu/isa.hpp"

#define LEANCORE_VECTOR_BYTES 32
#define LEANCORE_ROW generic256
#define LEANCORE_DESCRIPTION "256-bit vectors of the baseline instruction set, for tests"
#include "cpu/isa_baseline.inl"
