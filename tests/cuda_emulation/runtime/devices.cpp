#include "devices.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <sstream>

namespace emulation {

namespace {

constexpr u32 KiB = 1024, MiB = 1024 * KiB;
constexpr Device known[] = {
    {"sm_75", 75, 40, 48 * KiB, 64 * KiB, 64 * KiB, 1024, 4 * MiB},         // T4
    {"sm_80", 80, 108, 48 * KiB, 163 * KiB, 164 * KiB, 2048, 40 * MiB},     // A100
    {"sm_86", 86, 82, 48 * KiB, 99 * KiB, 100 * KiB, 1536, 6 * MiB},        // GeForce RTX 3090
    {"sm_89", 89, 128, 48 * KiB, 99 * KiB, 100 * KiB, 1536, 72 * MiB},      // GeForce RTX 4090
    {"sm_90", 90, 132, 48 * KiB, 227 * KiB, 228 * KiB, 2048, 50 * MiB},     // H100
    {"sm_100", 100, 148, 48 * KiB, 227 * KiB, 228 * KiB, 2048, 126 * MiB},  // B200
    {"sm_120", 120, 170, 48 * KiB, 99 * KiB, 100 * KiB, 1536, 96 * MiB},    // GeForce RTX 5090
};

}  // namespace

bool parse_devices(const std::string& list, std::vector<Device>& devices) {
  devices.clear();
  if (list == "none") return true;
  std::istringstream stream(list);
  for (std::string text; std::getline(stream, text, ',');) {
    const std::string name = text.substr(0, text.find(':'));
    const auto* found =
        std::find_if(std::begin(known), std::end(known), [&](const Device& d) { return d.name == name; });
    if (found == std::end(known)) return false;
    devices.push_back(*found);
    if (name == text) continue;
    u32& multiprocessors = devices.back().multiprocessors;
    const char *number = text.data() + name.size() + 1, *end = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(number, end, multiprocessors);
    if (error != std::errc{} || stopped != end || multiprocessors == 0) return false;
  }
  return !devices.empty();
}

}  // namespace emulation
