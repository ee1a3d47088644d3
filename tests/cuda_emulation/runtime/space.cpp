#include "space.hpp"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "block.hpp"

namespace emulation {

unsigned char* map_zeros(u64 bytes) {
  void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  return static_cast<unsigned char*>(mapped);
}

void drop_pages(void* first, u64 bytes) {
  madvise(first, bytes, MADV_DONTNEED);
}

// -- bits

Bits::Bits(u64 bytes) : words_(reinterpret_cast<u64*>(map_zeros(bytes / 8 + 64))) {}

void Bits::fill(u64 first, u64 bytes, bool value) {
  u64 end = first + bytes;
  const auto put = [&](u64 byte) {
    const u64 bit = u64{1} << byte % 64;
    words_[byte / 64] = value ? words_[byte / 64] | bit : words_[byte / 64] & ~bit;
  };
  while (first < end && first % 64 != 0) put(first++);
  while (end > first && end % 64 != 0) put(--end);
  std::memset(words_ + first / 64, value ? 0xff : 0, (end - first) / 8);
}

bool Bits::holds(u64 first, u64 bytes) const {
  for (u64 byte = first; byte < first + bytes; ++byte) {
    if (byte % 64 == 0 && byte + 64 <= first + bytes && words_[byte / 64] == ~u64{0}) {
      byte += 63;
    } else if ((words_[byte / 64] >> byte % 64 & 1) == 0) {
      return false;
    }
  }
  return true;
}

// -- spaces

Space::Space(const char* name, u64 bytes)
    : name_(name),
      bytes_(bytes),
      data_(map_zeros(bytes)),
      allocated_(bytes),
      initialised_(bytes),
      pending_(bytes),
      words_(reinterpret_cast<Cell*>(map_zeros(bytes / 4 * sizeof(Cell)))),
      parts_(reinterpret_cast<Cell*>(map_zeros(bytes * sizeof(Cell)))) {}

void Space::allocate(u64 offset, u64 bytes) {
  std::memset(data_ + offset, 0xff, bytes);
  allocated_.fill(offset, bytes, true);
  initialised_.fill(offset, bytes, false);
}

void Space::release(u64 offset, u64 bytes) {
  allocated_.fill(offset, bytes, false);
  drop_pages(data_ + offset, bytes);
  drop_pages(words_ + offset / 4, bytes / 4 * sizeof(Cell));
  drop_pages(parts_ + offset, bytes * sizeof(Cell));
}

bool Space::allocated(u64 offset, u64 bytes) const {
  return offset <= bytes_ && bytes <= bytes_ - offset && allocated_.holds(offset, bytes);
}

void Space::copy_initialised(u64 to, u64 from, u64 bytes) {
  if (initialised_.holds(from, bytes)) return initialised_.fill(to, bytes, true);
  std::vector<bool> bits(bytes);
  for (u64 i = 0; i < bytes; ++i) bits[i] = initialised_.all(from + i, 1);
  for (u64 i = 0; i < bytes; ++i) initialised_.fill(to + i, 1, bits[i]);
}

void Space::forget(u64 bytes) {
  allocated_.fill(0, bytes, false);
  pending_.fill(0, bytes, false);
  pending_copies_ = 0;
  if (any_split_) {
    for (u64 word = 0; word < (bytes + 3) / 4; ++word) words_[word].split = 0;
  }
  any_split_ = false;
}

namespace {

const char* name_of(Access kind) {
  switch (kind) {
    case Access::read:
      return "read";
    case Access::constant_read:
      return "constant read";
    case Access::write:
      return "write";
    case Access::update:
      return "atomic update";
  }
  return "?";
}

std::string place(const char* space, u64 offset, u32 bytes) {
  char text[96];
  std::snprintf(text, sizeof text, "%u bytes of %s memory at 0x%llx", bytes, space,
                static_cast<unsigned long long>(offset));
  return text;
}

}  // namespace

void Space::check_place(Thread& t, const char* what, u64 offset, u32 bytes, u32 align, Site site) const {
  const auto text = [&] { return std::string(what) + " of " + place(name_, offset, bytes); };
  if (!allocated(offset, bytes)) t.block->fail(t, Defect::out_of_bounds, text(), site);
  if (offset % align != 0) t.block->fail(t, Defect::misaligned, text(), site);
}

void Space::stop_uninitialised(Thread& t, u64 offset, u32 bytes, Site site) {
  record(t, Access::read, offset, bytes, site);  // so that a write yet to come shows the race
  t.block->stop(t, Defect::uninitialised, "read of " + place(name_, offset, bytes) + ", which nobody has written",
                site);
}

void Space::check_pending(Thread& t, const char* what, u64 offset, u32 bytes, Site site) {
  for (u64 byte = offset; byte < offset + bytes; ++byte) {
    if (!pending_.any(byte, 1)) continue;
    const Cell& word = words_[byte / 4];
    const Cell& cell = word.split ? parts_[byte] : word;
    t.block->fail(t, Defect::pending_copy,
                  std::string(what) + " of " + place(name_, offset, bytes) + ", to which the asynchronous copy by " +
                      t.block->describe(t.block->thread(cell.write_thread)) + " at " +
                      t.block->describe(cell.write_site) + " has not been waited for",
                  site);
  }
}

template <u32 n>
unsigned char* Space::access(Thread& t, Access kind, u64 offset, Site site) {
  if (offset > bytes_ - n || offset % n != 0 || !allocated_.all(offset, n)) {
    check_place(t, name_of(kind), offset, n, n, site);
  }
  if (kind != Access::write && !initialised_.all(offset, n)) {
    if (pending_copies_ > 0) check_pending(t, name_of(kind), offset, n, site);
    stop_uninitialised(t, offset, n, site);
  }
  if (pending_copies_ > 0 && pending_.any(offset, n)) check_pending(t, name_of(kind), offset, n, site);
  record(t, kind, offset, n, site);
  if (kind == Access::write) initialised_.set(offset, n);
  return data_ + offset;
}
template unsigned char* Space::access<1>(Thread&, Access, u64, Site);
template unsigned char* Space::access<2>(Thread&, Access, u64, Site);
template unsigned char* Space::access<4>(Thread&, Access, u64, Site);
template unsigned char* Space::access<8>(Thread&, Access, u64, Site);
template unsigned char* Space::access<16>(Thread&, Access, u64, Site);

// -- races

bool Space::write_is_before(const Thread& t, const Cell& cell) const {
  if (cell.write_serial < oldest_) return true;
  return cell.write_serial == t.block->serial() &&
         t.block->order().before(cell.write_thread, cell.write_clock, t.number);
}

bool Space::reads_are_before(const Thread& t, const Cell& cell) const {
  if (cell.read_serial < oldest_) return true;
  if (cell.many_blocks || cell.read_serial != t.block->serial()) return false;
  const Order& order = t.block->order();
  if (!cell.many_threads) return order.before(cell.read_thread, cell.read_clock, t.number);
  return order.all_before(cell.read_warps, cell.read_clock, t.number);
}

void Space::fail_race(Thread& t, Access kind, const Cell& cell, bool with_write, u64 offset, u32 bytes,
                      Site site) const {
  const u32 serial = with_write ? cell.write_serial : cell.read_serial;
  const u32 thread = with_write ? cell.write_thread : cell.read_thread;
  std::string text = std::string(name_of(kind)) + " of " + place(name_, offset, bytes) + " is not ordered with the " +
                     (with_write      ? "write"
                      : cell.constant ? "constant read"
                                      : "read") +
                     " by ";
  text += t.block->describe(t.block->thread(thread));
  if (serial != t.block->serial()) text += " of another block";
  if (!with_write && cell.many_threads) text += " (and others)";
  t.block->fail(t, Defect::race, text + " at " + t.block->describe(with_write ? cell.write_site : cell.read_site),
                site);
}

void Space::record_read(Thread& t, Cell& cell, bool constant, Site site) {
  const u32 serial = t.block->serial();
  const Order& order = t.block->order();
  if (cell.read_serial < oldest_) {
    cell.many_blocks = cell.many_threads = cell.constant = 0;
    cell.read_warps = 0;
  } else if (cell.read_serial != serial) {
    cell.many_blocks = 1;
    cell.many_threads = 0;
    cell.read_warps = 0;
  } else if (cell.read_clock <= order.floor(t.warp)) {  // whoever is ordered after this read is so after those
    cell.many_threads = 0;
    cell.read_warps = 0;
  } else if (cell.read_thread != t.number) {
    cell.many_threads = 1;
  }
  cell.constant |= constant;
  cell.read_serial = serial;
  cell.read_clock = order.now();
  cell.read_thread = t.number;
  cell.read_warps |= 1u << t.warp;
  cell.read_site = site;
}

void Space::record_write(Thread& t, Cell& cell, bool atomic, Site site) {
  cell.write_serial = t.block->serial();
  cell.write_clock = t.block->order().now();
  cell.write_thread = t.number;
  cell.write_site = site;
  cell.atomic = atomic;
  cell.read_serial = 0;  // ordered before this write, so before all that is ordered after it
}

void Space::record_cell(Thread& t, Access kind, Cell& cell, u64 offset, u32 bytes, Site site) {
  const bool both_atomic = kind == Access::update && cell.atomic;
  if (kind == Access::constant_read ? cell.write_serial >= oldest_ : !both_atomic && !write_is_before(t, cell)) {
    fail_race(t, kind, cell, true, offset, bytes, site);
  }
  if (kind == Access::read || kind == Access::constant_read) {
    record_read(t, cell, kind == Access::constant_read, site);
    return;
  }
  if (!reads_are_before(t, cell) || (cell.constant && cell.read_serial >= oldest_)) {
    fail_race(t, kind, cell, false, offset, bytes, site);
  }
  record_write(t, cell, kind == Access::update, site);
}

Cell* Space::split(Cell& word, u64 word_index) {
  Cell* parts = parts_ + 4 * word_index;
  if (!word.split) {
    for (int i = 0; i < 4; ++i) parts[i] = word;
    word.split = 1;
    any_split_ = true;
  }
  return parts;
}

void Space::record(Thread& t, Access kind, u64 offset, u32 bytes, Site site) {
  for (u64 at = offset; at < offset + bytes;) {
    Cell& word = words_[at / 4];
    const u32 part = static_cast<u32>(std::min<u64>(offset + bytes, (at / 4 + 1) * 4) - at);
    if (word.copies > 0 && (kind == Access::write || kind == Access::update)) {
      t.block->fail(t, Defect::pending_copy,
                    std::string(name_of(kind)) + " of " + place(name_, offset, bytes) +
                        ", from which an asynchronous copy that has not been waited for reads, started at " +
                        t.block->describe(word.split ? parts_[at].read_site : word.read_site),
                    site);
    }
    if (part == 4 && !word.split) {
      record_cell(t, kind, word, offset, bytes, site);
    } else {
      Cell* parts = split(word, at / 4);
      for (u32 i = 0; i < part; ++i) record_cell(t, kind, parts[at % 4 + i], offset, bytes, site);
    }
    at += part;
  }
}

// -- asynchronous copies: between start and end, nobody may touch the target nor write to the source

void Space::start_copy_to(Thread& t, u64 offset, u32 bytes, Site site) {
  check_place(t, "asynchronous write", offset, bytes, bytes, site);
  if (pending_copies_ > 0) check_pending(t, "asynchronous write", offset, bytes, site);
  record(t, Access::write, offset, bytes, site);
  std::memset(data_ + offset, 0xff, bytes);
  initialised_.fill(offset, bytes, false);
  pending_.set(offset, bytes);
  ++pending_copies_;
}

void Space::finish_copy_to(Thread& t, u64 offset, u32 bytes, Site site) {
  pending_.clear(offset, bytes);
  --pending_copies_;
  record(t, Access::write, offset, bytes, site);
  initialised_.set(offset, bytes);
}

void Space::start_copy_from(Thread& t, u64 offset, u32 bytes, u32 align, Site site) {
  check_place(t, "asynchronous read", offset, bytes, align, site);
  if (!initialised_.holds(offset, bytes)) stop_uninitialised(t, offset, bytes, site);
  record(t, Access::read, offset, bytes, site);
  for (u64 word = offset / 4; word < (offset + bytes + 3) / 4; ++word) ++words_[word].copies;
}

void Space::cancel_copy_from(u64 offset, u32 bytes) {
  for (u64 word = offset / 4; word < (offset + bytes + 3) / 4; ++word) --words_[word].copies;
}

void Space::finish_copy_from(Thread& t, u64 offset, u32 bytes, Site site) {
  cancel_copy_from(offset, bytes);
  record(t, Access::read, offset, bytes, site);
}

}  // namespace emulation
