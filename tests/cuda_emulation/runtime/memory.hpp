// Addresses as kernels use them, and the memory of the device that the runtime hands out.
#pragma once

#include <map>

#include "block.hpp"
#include "space.hpp"

namespace emulation {

// Device addresses are reserved but not readable: host code that uses one crashes, as it does beside a real device. The
// bytes lie elsewhere, in the space's data.
class GlobalMemory {
 public:
  GlobalMemory();

  // 256-byte aligned, as cudaMalloc; 0 if the memory is exhausted. Between allocations lies what belongs to nobody, and
  // freed addresses are used again as late as possible.
  u64 allocate(u64 bytes);
  bool free(u64 address);
  [[nodiscard]] u64 free_bytes() const;

  [[nodiscard]] bool contains(u64 address) const { return address - base_ < space_.bytes(); }
  [[nodiscard]] u64 offset(u64 address) const { return address - base_; }
  // The start and the bytes of the allocation around an address; bytes 0: none.
  [[nodiscard]] std::pair<u64, u64> allocation(u64 address) const;
  Space& space() { return space_; }

 private:
  Space space_;
  u64 base_;
  u64 next_ = 0;
  std::map<u64, u64> allocations_;  // offset -> bytes
};

GlobalMemory& global_memory();

// Shared memory as generic addresses see it: a window that no host address can lie in.
constexpr u64 shared_window = u64{1} << 56;
constexpr u64 generic_to_shared(u64 address) {
  return address - shared_window;
}
constexpr u64 shared_to_generic(u64 address) {
  return address + shared_window;
}

// What loads, stores and atomic updates of n bytes call: check, record, and return where the bytes are.
template <u32 n>
const unsigned char* read_global(Thread& t, u64 address, Site site);
template <u32 n>
const unsigned char* read_global_constant(Thread& t, u64 address, Site site);
template <u32 n>
unsigned char* write_global(Thread& t, u64 address, Site site);
template <u32 n>
unsigned char* update_global(Thread& t, u64 address, Site site);
template <u32 n>
const unsigned char* read_shared(Thread& t, u64 address, Site site);
template <u32 n>
unsigned char* write_shared(Thread& t, u64 address, Site site);
template <u32 n>
unsigned char* update_shared(Thread& t, u64 address, Site site);
// Local memory lies on the fiber's stack.
template <u32 n>
unsigned char* write_local(Thread& t, u64 address, Site site);
template <u32 n>
const unsigned char* read_generic(Thread& t, u64 address, Site site);
template <u32 n>
unsigned char* write_generic(Thread& t, u64 address, Site site);
template <u32 n>
unsigned char* update_generic(Thread& t, u64 address, Site site);

template <u32 n>
const unsigned char* read_local(Thread& t, u64 address, Site site) {
  return write_local<n>(t, address, site);
}
// Constant memory is global memory that kernels only read.
template <u32 n>
const unsigned char* read_const(Thread& t, u64 address, Site site) {
  return read_global<n>(t, address, site);
}
// The parameters of kernels and of calls, which the translator places.
template <u32 n>
const unsigned char* read_param(Thread&, u64 address, Site) {
  return reinterpret_cast<const unsigned char*>(address);
}
template <u32 n>
unsigned char* write_param(Thread&, u64 address, Site) {
  return reinterpret_cast<unsigned char*>(address);
}

// cp.async: the bytes arrive when they are waited for, and not before.
void start_copy(Thread& t, u64 target, u64 source, u32 bytes, u32 source_bytes, Site site);
void wait_for_copies(Thread& t, u32 groups_left);
void wait_for_all_copies(Thread& t);

}  // namespace emulation
