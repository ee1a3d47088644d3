#include "cpu/isa.hpp"

#define LEANCORE_VECTOR_BYTES 16
#define LEANCORE_ROW generic
#define LEANCORE_DESCRIPTION "128-bit vectors of the baseline instruction set"
#include "cpu/isa_baseline.inl"
