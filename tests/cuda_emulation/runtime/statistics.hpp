// How many 32-byte sectors of global memory and how many wavefronts of shared memory each source line moves, by warp.
#pragma once

#include <bit>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "block.hpp"

namespace emulation {

class Statistics {
 public:
  enum class Memory { global, shared };

  // Null unless the environment asks for a report or start() was called.
  static Statistics* active();
  // Counts anew from now on.
  static void start();

  // A thread accesses n bytes. The lanes that do so at the same line in the same turn of its loops make one request.
  void note(const Thread& t, Memory memory, u64 address, u32 n, Site site);
  // Ends all requests of the block.
  void flush(const Block& block);
  void write() const;
  // Of the allocation at this address.
  [[nodiscard]] u64 sectors(u64 allocation) const;
  // Moved, and how few would have done.
  [[nodiscard]] std::pair<u64, u64> wavefronts() const;

  explicit Statistics(std::string path) : path_(std::move(path)) {}
  ~Statistics() { write(); }

 private:
  struct Request {
    u32 lanes = 0;
    u64 address[32];
    u8 bytes[32] = {};
  };
  struct Totals {
    u64 requests = 0, lanes = 0, moved = 0, least = 0, bytes = 0;
  };
  struct Key {
    u64 place;  // site, memory, warp
    u64 turn;   // trips and how often the lane has been here in them
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const {
      return (key.place * 0x9e3779b97f4a7c15u) ^ (key.turn * 0xc2b2ae3d27d4eb4fu);
    }
  };
  static void add_sectors(const Request& request, Totals& totals);
  static void add_wavefronts(const Request& request, Totals& totals);

  std::string path_;
  std::unordered_map<Key, Request, Hash> requests_;
  std::map<std::tuple<std::string, std::string, int>, Totals> totals_;  // [kernel, line, memory]
  std::map<u64, u64> sectors_;                                          // by the allocation's address
};

}  // namespace emulation
