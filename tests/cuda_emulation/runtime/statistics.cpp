#include "statistics.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "memory.hpp"

namespace emulation {

namespace {

std::unique_ptr<Statistics>& instance() {
  static auto statistics = [] {
    const char* path = std::getenv("CUDA_EMULATION_REPORT");
    return path ? std::make_unique<Statistics>(path) : nullptr;
  }();
  return statistics;
}

}  // namespace

Statistics* Statistics::active() {
  return instance().get();
}

void Statistics::start() {
  if (!active()) instance() = std::make_unique<Statistics>("");
  active()->requests_.clear();
  active()->totals_.clear();
  active()->sectors_.clear();
}

u64 Statistics::sectors(u64 allocation) const {
  const auto found = sectors_.find(allocation);
  return found == sectors_.end() ? 0 : found->second;
}

std::pair<u64, u64> Statistics::wavefronts() const {
  u64 moved = 0, least = 0;
  for (const auto& [key, totals] : totals_) {
    if (!std::get<2>(key)) continue;
    moved += totals.moved;
    least += totals.least;
  }
  return {moved, least};
}

void Statistics::note(const Thread& t, Memory memory, u64 address, u32 n, Site site) {
  const u64 place = (u64{site} << 8 | t.warp) << 1 | (memory == Memory::shared);
  for (u64 repeat = 0;; ++repeat) {
    Request& request = requests_[{place, u64{t.trips} << 20 | repeat}];
    if (request.lanes >> t.lane & 1) continue;  // the same line again in this turn
    request.lanes |= 1u << t.lane;
    request.address[t.lane] = address;
    request.bytes[t.lane] = static_cast<u8>(n);
    return;
  }
}

void Statistics::add_sectors(const Request& request, Totals& totals) {
  std::vector<std::pair<u64, u64>> spans;  // [first, end)
  for (u32 lane = 0; lane < 32; ++lane) {
    if (request.lanes >> lane & 1)
      spans.push_back({request.address[lane], request.address[lane] + request.bytes[lane]});
  }
  std::sort(spans.begin(), spans.end());
  u64 bytes = 0, sectors = 0, end = 0, next_sector = 0;
  for (const auto& [first, last] : spans) {
    if (last > end) bytes += last - std::max(first, end);
    end = std::max(end, last);
    const u64 from = std::max(first / 32, next_sector), to = (last + 31) / 32;
    if (to > from) sectors += to - from;
    next_sector = std::max(next_sector, to);
  }
  totals.moved += sectors;
  totals.least += (bytes + 31) / 32;
  totals.bytes += bytes;
}

// Accesses of 8 bytes are served by half warps, of 16 bytes by quarters; a wavefront gives each bank's word once.
void Statistics::add_wavefronts(const Request& request, Totals& totals) {
  const u32 widest = *std::max_element(request.bytes, request.bytes + 32);
  const u32 lanes_at_once = widest <= 4 ? 32 : 128 / widest;
  std::vector<u64> words;
  for (u32 first = 0; first < 32; first += lanes_at_once) {
    words.clear();
    for (u32 lane = first; lane < first + lanes_at_once; ++lane) {
      if ((request.lanes >> lane & 1) == 0) continue;
      for (u32 byte = 0; byte < request.bytes[lane]; byte += 4) words.push_back((request.address[lane] + byte) / 4);
    }
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    u64 in_bank[32] = {}, most = 0;
    for (const u64 word : words) most = std::max(most, ++in_bank[word % 32]);
    totals.moved += most;
    totals.least += (words.size() + 31) / 32;
    totals.bytes += 4 * words.size();
  }
}

void Statistics::flush(const Block& block) {
  for (const auto& [key, request] : requests_) {
    const bool shared = key.place & 1;
    Totals& totals = totals_[{block.kernel().name, block.describe(static_cast<Site>(key.place >> 9)), shared}];
    ++totals.requests;
    totals.lanes += static_cast<u64>(std::popcount(request.lanes));
    if (shared) {
      add_wavefronts(request, totals);
      continue;
    }
    const u64 before = totals.moved;
    add_sectors(request, totals);
    const u64 address = request.address[std::countr_zero(request.lanes)];
    sectors_[global_memory().allocation(address).first] += totals.moved - before;
  }
  requests_.clear();
}

void Statistics::write() const {
  if (path_.empty()) return;
  std::FILE* file = std::fopen(path_.c_str(), "w");
  if (!file) {
    std::fprintf(stderr, "cuda emulation: cannot write %s\n", path_.c_str());
    return;
  }
  std::fprintf(file, "[");
  const char* separator = "\n";
  for (const auto& [key, totals] : totals_) {
    const auto& [kernel, line, shared] = key;
    std::fprintf(file,
                 "%s{\"kernel\": \"%s\", \"line\": \"%s\", \"memory\": \"%s\", \"requests\": %llu, \"lanes\": %llu, "
                 "\"bytes\": %llu, \"%s\": %llu, \"ideal\": %llu}",
                 separator, kernel.c_str(), line.c_str(), shared ? "shared" : "global",
                 static_cast<unsigned long long>(totals.requests), static_cast<unsigned long long>(totals.lanes),
                 static_cast<unsigned long long>(totals.bytes), shared ? "wavefronts" : "sectors",
                 static_cast<unsigned long long>(totals.moved), static_cast<unsigned long long>(totals.least));
    separator = ",\n";
  }
  std::fprintf(file, "\n]\n");
  std::fclose(file);
}

}  // namespace emulation
