#include "memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "statistics.hpp"

namespace emulation {

namespace {

constexpr u64 device_bytes = u64{8} << 30;
constexpr u64 page = 4096;

constexpr u64 round_up(u64 bytes) {
  return (bytes + page - 1) / page * page;
}

}  // namespace

GlobalMemory::GlobalMemory() : space_("global", device_bytes) {
  void* reserved = mmap(nullptr, device_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved == MAP_FAILED) throw std::bad_alloc();
  base_ = reinterpret_cast<u64>(reserved);
}

GlobalMemory& global_memory() {
  static auto* memory = new GlobalMemory;  // never destroyed: programs may free memory until their very end
  return *memory;
}

u64 GlobalMemory::allocate(u64 bytes) {
  if (bytes > device_bytes) return 0;
  const u64 span = round_up(bytes) + page;  // ends in a page of nobody
  for (const u64 start : {next_, u64{0}}) {
    u64 offset = start;
    for (auto it = allocations_.begin(); it != allocations_.end(); ++it) {
      const u64 end = it->first + round_up(it->second) + page;
      if (end > offset && it->first < offset + span) offset = end;
    }
    if (offset + span > device_bytes) continue;
    allocations_[offset] = bytes;
    next_ = offset + span;
    space_.allocate(offset, bytes);
    return base_ + offset;
  }
  return 0;
}

bool GlobalMemory::free(u64 address) {
  const auto found = allocations_.find(offset(address));
  if (found == allocations_.end()) return false;
  space_.release(found->first, round_up(found->second));
  allocations_.erase(found);
  return true;
}

u64 GlobalMemory::free_bytes() const {
  u64 used = 0;
  for (const auto& [offset, bytes] : allocations_) used += round_up(bytes) + page;
  return device_bytes - used;
}

std::pair<u64, u64> GlobalMemory::allocation(u64 address) const {
  auto it = allocations_.upper_bound(offset(address));
  if (!contains(address) || it == allocations_.begin()) return {0, 0};
  --it;
  if (offset(address) - it->first >= it->second) return {0, 0};
  return {base_ + it->first, it->second};
}

namespace {

template <u32 n>
unsigned char* access_global(Thread& t, Access kind, u64 address, Site site) {
  static GlobalMemory& memory = global_memory();
  unsigned char* data = memory.space().access<n>(t, kind, memory.offset(address), site);
  if (Statistics* statistics = Statistics::active()) statistics->note(t, Statistics::Memory::global, address, n, site);
  return data;
}

template <u32 n>
unsigned char* access_shared(Thread& t, Access kind, u64 address, Site site) {
  unsigned char* data = t.block->shared().access<n>(t, kind, address, site);
  if (Statistics* statistics = Statistics::active()) statistics->note(t, Statistics::Memory::shared, address, n, site);
  return data;
}

template <u32 n>
unsigned char* access_generic(Thread& t, Access kind, u64 address, Site site) {
  if (address - shared_window < t.block->shared().bytes()) {
    return access_shared<n>(t, kind, generic_to_shared(address), site);
  }
  const auto stack = reinterpret_cast<u64>(fiber_stack(t.number));
  if (address - stack < fiber_stack_bytes) return write_local<n>(t, address, site);
  const auto& parameters = t.block->launch().parameters;
  const auto first = reinterpret_cast<u64>(parameters.data());
  if (address - first < parameters.size() && n <= parameters.size() - (address - first) && kind == Access::read) {
    return reinterpret_cast<unsigned char*>(address);
  }
  return access_global<n>(t, kind, address, site);
}

}  // namespace

template <u32 n>
const unsigned char* read_global(Thread& t, u64 address, Site site) {
  return access_global<n>(t, Access::read, address, site);
}
template <u32 n>
const unsigned char* read_global_constant(Thread& t, u64 address, Site site) {
  return access_global<n>(t, Access::constant_read, address, site);
}
template <u32 n>
unsigned char* write_global(Thread& t, u64 address, Site site) {
  return access_global<n>(t, Access::write, address, site);
}
template <u32 n>
unsigned char* update_global(Thread& t, u64 address, Site site) {
  return access_global<n>(t, Access::update, address, site);
}
template <u32 n>
const unsigned char* read_shared(Thread& t, u64 address, Site site) {
  return access_shared<n>(t, Access::read, address, site);
}
template <u32 n>
unsigned char* write_shared(Thread& t, u64 address, Site site) {
  return access_shared<n>(t, Access::write, address, site);
}
template <u32 n>
unsigned char* update_shared(Thread& t, u64 address, Site site) {
  return access_shared<n>(t, Access::update, address, site);
}
template <u32 n>
unsigned char* write_local(Thread& t, u64 address, Site site) {
  const auto stack = reinterpret_cast<u64>(fiber_stack(t.number));
  if (address - stack > fiber_stack_bytes - n) t.block->fail(t, Defect::out_of_bounds, "access to local memory", site);
  if (address % n != 0) t.block->fail(t, Defect::misaligned, "access to local memory", site);
  return reinterpret_cast<unsigned char*>(address);
}
template <u32 n>
const unsigned char* read_generic(Thread& t, u64 address, Site site) {
  return access_generic<n>(t, Access::read, address, site);
}
template <u32 n>
unsigned char* write_generic(Thread& t, u64 address, Site site) {
  return access_generic<n>(t, Access::write, address, site);
}
template <u32 n>
unsigned char* update_generic(Thread& t, u64 address, Site site) {
  return access_generic<n>(t, Access::update, address, site);
}

#define INSTANTIATE(n)                                                       \
  template const unsigned char* read_global<n>(Thread&, u64, Site);          \
  template const unsigned char* read_global_constant<n>(Thread&, u64, Site); \
  template unsigned char* write_global<n>(Thread&, u64, Site);               \
  template unsigned char* update_global<n>(Thread&, u64, Site);              \
  template const unsigned char* read_shared<n>(Thread&, u64, Site);          \
  template unsigned char* write_shared<n>(Thread&, u64, Site);               \
  template unsigned char* update_shared<n>(Thread&, u64, Site);              \
  template unsigned char* write_local<n>(Thread&, u64, Site);                \
  template const unsigned char* read_generic<n>(Thread&, u64, Site);         \
  template unsigned char* write_generic<n>(Thread&, u64, Site);              \
  template unsigned char* update_generic<n>(Thread&, u64, Site);
INSTANTIATE(1)
INSTANTIATE(2)
INSTANTIATE(4)
INSTANTIATE(8)
INSTANTIATE(16)
#undef INSTANTIATE

// -- asynchronous copies

void start_copy(Thread& t, u64 target, u64 source, u32 bytes, u32 source_bytes, Site site) {
  GlobalMemory& memory = global_memory();
  source_bytes = std::min(source_bytes, bytes);
  const Copy copy{target, memory.offset(source), bytes, source_bytes, t.copies.group, site};
  if (source_bytes > 0) memory.space().start_copy_from(t, copy.source, source_bytes, bytes, site);
  t.block->shared().start_copy_to(t, target, bytes, site);
  t.copies.started.push_back(copy);
  if (Statistics* statistics = Statistics::active()) {
    if (source_bytes > 0) statistics->note(t, Statistics::Memory::global, source, source_bytes, site);
    statistics->note(t, Statistics::Memory::shared, target, bytes, site);
  }
}

namespace {

void finish_copies(Thread& t, std::size_t count) {
  Space& global = global_memory().space();
  Space& shared = t.block->shared();
  for (std::size_t i = 0; i < count; ++i) {
    const Copy& copy = t.copies.started[i];
    unsigned char* target = shared.data(copy.target);
    std::memcpy(target, global.data(copy.source), copy.source_bytes);
    std::memset(target + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
    if (copy.source_bytes > 0) global.finish_copy_from(t, copy.source, copy.source_bytes, copy.site);
    shared.finish_copy_to(t, copy.target, copy.bytes, copy.site);
  }
  t.copies.started.erase(t.copies.started.begin(), t.copies.started.begin() + static_cast<std::ptrdiff_t>(count));
}

}  // namespace

void wait_for_copies(Thread& t, u32 groups_left) {
  std::size_t count = 0;
  while (count < t.copies.started.size() && u64{t.copies.started[count].group} + groups_left < t.copies.group) ++count;
  finish_copies(t, count);
}

void wait_for_all_copies(Thread& t) {
  finish_copies(t, t.copies.started.size());
}

}  // namespace emulation
