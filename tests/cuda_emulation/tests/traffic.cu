// The report of sectors and wavefronts, on accesses whose counts are known.
#include <fstream>
#include <sstream>

#include "support.cuh"

namespace {

__global__ void accesses(const float* x, float* y, int n) {
  __shared__ __align__(16) float tile[32 * 33];
  const int lane = threadIdx.x;
  for (int i = lane; i < 32 * 33; i += 32) tile[i] = 0;
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    sum += x[32 * i + lane];                    // @consecutive
    sum += x[8 * lane + i];                     // @strided
    if (lane % 2 == i % 2) sum += x[8 * lane];  // @alternate
  }
  sum += x[1 + lane];  // @shifted
  __syncthreads();
  for (int i = 0; i < n; ++i) tile[32 * lane + i] = sum;  // @conflicting
  __syncthreads();
  for (int i = 0; i < n; ++i) tile[33 * lane + i] += sum;  // @padded
  __syncthreads();
  const float4 v = *reinterpret_cast<const float4*>(tile + 4 * lane);  // @vector
  copy_async<16>(tile + 256 + 4 * lane, x + 4 * lane);                 // @copied
  commit_copies();
  wait_copies<0>();
  y[lane] = sum + v.x + v.y + v.z + v.w;
}

// "name": number of the entry of a line.
long number(const std::string& report, const std::string& marker, const std::string& memory, const std::string& name) {
  std::ifstream source(__FILE__);
  int line = 1;
  for (std::string text; std::getline(source, text) && !text.ends_with("@" + marker); ++line) {
  }
  std::istringstream entries(report);
  long total = 0;
  for (std::string entry; std::getline(entries, entry);) {
    const bool here = entry.find("traffic.cu:" + std::to_string(line) + " ") != std::string::npos ||
                      entry.find("traffic.cu:" + std::to_string(line) + ")") != std::string::npos;
    const auto at = entry.find("\"" + name + "\": ");
    if (here && entry.find("\"" + memory + "\"") != std::string::npos && at != std::string::npos) {
      total += std::strtol(entry.c_str() + at + name.size() + 4, nullptr, 10);
    }
  }
  return total;
}

}  // namespace

int main() {
  const std::string path = "traffic_report.json";
  setenv("CUDA_EMULATION_REPORT", path.c_str(), 1);
  constexpr int n = 3;
  const test::DeviceArray<float> x(std::vector<float>(1024, 1.0f)), y(32);
  accesses<<<1, 32>>>(x.data(), y.data(), n);
  CHECK_CUDA(cudaDeviceSynchronize());
  cuda_emulation_write_report();
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  const std::string report = text.str();

  struct Expected {
    const char *marker, *memory;
    long requests, moved, ideal;
  };
  const Expected list[] = {
      {"consecutive", "global", n, 4 * n, 4 * n},
      {"strided", "global", n, 32 * n, 4 * n},
      {"alternate", "global", n, 16 * n, 2 * n},
      {"shifted", "global", 1, 5, 4},
      {"conflicting", "shared", n, 32 * n, n},
      {"padded", "shared", 2 * n, 2 * n, 2 * n},
      {"vector", "shared", 1, 4, 4},
      {"copied", "global", 1, 16, 16},
      {"copied", "shared", 1, 4, 4},
  };
  for (const Expected& e : list) {
    const char* unit = std::string(e.memory) == "shared" ? "wavefronts" : "sectors";
    CHECK(number(report, e.marker, e.memory, "requests") == e.requests, "%s: %ld requests", e.marker,
          number(report, e.marker, e.memory, "requests"));
    CHECK(number(report, e.marker, e.memory, unit) == e.moved, "%s: %ld %s", e.marker,
          number(report, e.marker, e.memory, unit), unit);
    CHECK(number(report, e.marker, e.memory, "ideal") == e.ideal, "%s: ideal %ld", e.marker,
          number(report, e.marker, e.memory, "ideal"));
  }

  // The same for the program: all lines that touch an array, of one launch.
  cuda_emulation_count();
  accesses<<<1, 32>>>(x.data(), y.data(), n);
  CHECK_CUDA(cudaDeviceSynchronize());
  const long of_x = 4 * n + 32 * n + 16 * n + 5 + 16, cleared = 33;
  CHECK(cuda_emulation_sectors(x.data()) == of_x, "%llu", cuda_emulation_sectors(x.data()));
  CHECK(cuda_emulation_sectors(y.data()) == 4, "%llu", cuda_emulation_sectors(y.data()));
  unsigned long long ideal = 0;
  const unsigned long long wavefronts = cuda_emulation_wavefronts(&ideal);
  CHECK(wavefronts == cleared + 32 * n + 2 * n + 4 + 4, "%llu", wavefronts);
  CHECK(ideal == cleared + n + 2 * n + 4 + 4, "%llu", ideal);
  return test::summary("traffic");
}
