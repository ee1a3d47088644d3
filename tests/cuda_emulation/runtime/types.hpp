// Names shared by the runtime and the code that the translator writes.
#pragma once

#include <cstdint>
#include <vector>

namespace emulation {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;

struct Dim3 {
  u32 x = 1, y = 1, z = 1;
};

// Index into the table of source lines of the running kernel's module.
using Site = u32;

struct SourceLine {
  const char* file;
  u32 line;
  const char* inlined_file;  // "": not inlined
  u32 inlined_line;
  const char* opcode;
};

struct Thread;

struct Range {
  u32 offset, bytes;
};

// A translated kernel.
struct Kernel {
  const char* name;  // mangled
  void (*run)(Thread&, unsigned char* parameters);
  std::vector<Range> parameters;
  std::vector<Range> shared;  // the static arrays
  u32 dynamic_offset;         // of the dynamic array in shared memory
  u32 shared_bytes;           // of the static arrays: what counts against the device's limit
  u32 max_threads;            // of __launch_bounds__, 0: none
  u32 target;                 // compute capability that the PTX needs, 80 for 8.0
  const SourceLine* sites;
};

// A variable of a module, in global or constant memory.
struct Variable {
  const char* name;
  u64* address;  // set when the module is registered
  const void* initial;
  u64 bytes;
};

}  // namespace emulation
