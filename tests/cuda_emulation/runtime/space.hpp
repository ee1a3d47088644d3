// A memory with the record of its accesses: what is allocated, initialised, being copied to, and who touched it last.
#pragma once

#include "types.hpp"

namespace emulation {

// One bit for each byte of a memory.
class Bits {
 public:
  explicit Bits(u64 bytes);
  // n: 1, 2, 4, 8 or 16, and `first` a multiple of it.
  [[nodiscard]] bool all(u64 first, u32 n) const { return (words_[first / 64] >> first % 64 & ones(n)) == ones(n); }
  [[nodiscard]] bool any(u64 first, u32 n) const { return (words_[first / 64] >> first % 64 & ones(n)) != 0; }
  void set(u64 first, u32 n) { words_[first / 64] |= ones(n) << first % 64; }
  void clear(u64 first, u32 n) { words_[first / 64] &= ~(ones(n) << first % 64); }
  // Any range.
  void fill(u64 first, u64 bytes, bool value);
  [[nodiscard]] bool holds(u64 first, u64 bytes) const;  // all bits set?

 private:
  static constexpr u64 ones(u32 n) { return (u64{1} << n) - 1; }
  u64* words_;
};

// The last accesses to a word, or to a byte of a word that was accessed in parts. Serial numbers count blocks.
struct Cell {
  u32 write_serial;  // 0: never
  u32 write_clock : 22, write_thread : 10;
  Site write_site;
  u32 read_serial;
  u32 read_clock : 22, read_thread : 10;  // of the last reader
  Site read_site;
  u32 read_warps;                        // the warps that have read since the floor of the last reader
  u16 copies;                            // asynchronous copies that are still to read it
  u8 split : 1;                          // the cells of the bytes hold the truth
  u8 atomic : 1;                         // the last write was an atomic update
  u8 many_threads : 1, many_blocks : 1;  // that have read
  u8 constant : 1;                       // was read by a load that trusts the word to be constant
};
static_assert(sizeof(Cell) == 32);

enum class Access { read, constant_read, write, update };

class Space {
 public:
  Space(const char* name, u64 bytes);
  Space(const Space&) = delete;
  Space& operator=(const Space&) = delete;

  [[nodiscard]] unsigned char* data(u64 offset) const { return data_ + offset; }
  [[nodiscard]] u64 bytes() const { return bytes_; }
  void allocate(u64 offset, u64 bytes);  // filled with 0xff, not initialised
  void release(u64 offset, u64 bytes);   // whole pages
  [[nodiscard]] bool allocated(u64 offset, u64 bytes) const;
  void initialise(u64 offset, u64 bytes) { initialised_.fill(offset, bytes, true); }
  void copy_initialised(u64 to, u64 from, u64 bytes);
  [[nodiscard]] bool initialised(u64 offset, u64 bytes) const { return initialised_.holds(offset, bytes); }
  // Forgets all accesses to the first bytes, and what was allocated there.
  void forget(u64 bytes);
  // Accesses of blocks before this one happened before all that come.
  void set_oldest(u32 serial) { oldest_ = serial; }

  // Checks and records an access of n bytes; where the bytes are.
  template <u32 n>
  unsigned char* access(Thread& t, Access kind, u64 offset, Site site);

  // What an asynchronous copy does to its target and to its source, when it starts and when it is waited for.
  void start_copy_to(Thread& t, u64 offset, u32 bytes, Site site);
  void finish_copy_to(Thread& t, u64 offset, u32 bytes, Site site);
  void start_copy_from(Thread& t, u64 offset, u32 bytes, u32 align, Site site);
  void finish_copy_from(Thread& t, u64 offset, u32 bytes, Site site);
  void cancel_copy_from(u64 offset, u32 bytes);

 private:
  void check_place(Thread& t, const char* what, u64 offset, u32 bytes, u32 align, Site site) const;
  void check_pending(Thread& t, const char* what, u64 offset, u32 bytes, Site site);
  void record(Thread& t, Access kind, u64 offset, u32 bytes, Site site);
  void record_cell(Thread& t, Access kind, Cell& cell, u64 offset, u32 bytes, Site site);
  void record_read(Thread& t, Cell& cell, bool constant, Site site);
  void record_write(Thread& t, Cell& cell, bool atomic, Site site);
  [[nodiscard]] bool write_is_before(const Thread& t, const Cell& cell) const;
  [[nodiscard]] bool reads_are_before(const Thread& t, const Cell& cell) const;
  [[noreturn]] void fail_race(Thread& t, Access kind, const Cell& cell, bool with_write, u64 offset, u32 bytes,
                              Site site) const;
  [[noreturn]] void stop_uninitialised(Thread& t, u64 offset, u32 bytes, Site site);
  Cell* split(Cell& word, u64 word_index);

  const char* name_;
  u64 bytes_;
  unsigned char* data_;
  Bits allocated_, initialised_, pending_;
  u64 pending_copies_ = 0;
  bool any_split_ = false;
  Cell* words_;
  Cell* parts_;
  u32 oldest_ = 1;
};

// Memory of zeros that costs nothing before it is touched.
unsigned char* map_zeros(u64 bytes);
void drop_pages(void* first, u64 bytes);

}  // namespace emulation
