// Kernels with a defect each, and the same kernels without it. The emulation must name every defect, with the lines
// that it is about, under every schedule; or, where no rule is broken, the numbers must be wrong. It must not complain
// about the right versions. Comments with @ mark the lines that a report must name.
#include <cuda_bf16.h>

#include <fstream>

#include "support.cuh"

namespace {

constexpr int threads = 128;

// -- barriers

template <bool defect>
__global__ void missing_barrier_before_read(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];  // @before: write
  if (!defect) __syncthreads();
  y[i] = tile[threads - 1 - i];  // @before: read
}

template <bool defect>
__global__ void missing_barrier_before_overwrite(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    if (!defect || round == 0) __syncthreads();
    tile[i] = x[i] + round;  // @overwrite: write
    __syncthreads();
    sum += tile[(i + 32) % threads];  // @overwrite: read
  }
  y[i] = sum;
}

// Right numbers under every schedule: only the order of accesses shows the defect.
template <bool defect>
__global__ void missing_barrier_right_numbers(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];
  __syncthreads();
  y[i] = tile[(i + 1) % threads];  // @numbers: read
  if (!defect) __syncthreads();
  tile[i] = x[i];  // @numbers: write
  __syncthreads();
  y[i] += tile[(i + 1) % threads];
}

template <bool defect>
__global__ void missing_warp_barrier(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];  // @warp: write
  if (!defect) __syncwarp();
  y[i] = tile[i ^ 31];  // @warp: read
}

template <bool defect>
__global__ void divergent_barrier(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];
  if (defect && i >= 64) return;
  __syncthreads();  // @divergent: barrier
  y[i] = tile[threads - 1 - i];
}

template <bool defect>
__global__ void two_barriers(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];
  if (defect && i < 64) {
    __syncthreads();  // @two: first
    y[i] = tile[threads - 1 - i];
  } else {
    __syncthreads();  // @two: second
    y[i] = tile[threads - 1 - i] + 0;
  }
}

template <bool defect>
__global__ void barrier_without_company(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];
  if (i < (defect ? 32 : 64)) asm volatile("bar.sync 1, 64;" ::: "memory");  // @company: barrier
  y[i] = tile[i < 64 ? i ^ (defect ? 0 : 63) : i];
}

// -- asynchronous copies

template <bool defect>
__global__ void missing_wait(const float* x, float* y) {
  __shared__ __align__(16) float tile[threads];
  const int i = threadIdx.x;
  copy_async<4>(tile + i, x + i);  // @wait: copy
  commit_copies();
  if (!defect) wait_copies<0>();
  __syncthreads();
  y[i] = tile[threads - 1 - i];  // @wait: read
}

template <bool defect>
__global__ void missing_barrier_after_wait(const float* x, float* y) {
  __shared__ __align__(16) float tile[threads];
  const int i = threadIdx.x;
  copy_async<4>(tile + i, x + i);  // @waited: copy
  commit_copies();
  wait_copies<0>();
  if (!defect) __syncthreads();
  y[i] = tile[threads - 1 - i];  // @waited: read
}

template <bool defect>
__global__ void wait_for_too_few(const float* x, float* y) {
  __shared__ __align__(16) float tile[2][threads];
  const int i = threadIdx.x;
  for (int half = 0; half < 2; ++half) {
    copy_async<4>(&tile[half][i], x + i);  // @few: copy
    commit_copies();
  }
  wait_copies<defect ? 1 : 0>();
  __syncthreads();
  y[i] = tile[0][threads - 1 - i] + tile[1][i];  // @few: read
  wait_copies<0>();
}

template <bool defect>
__global__ void wrong_ring_slot(const float* x, float* y) {
  constexpr int slots = 3, steps = 8;
  __shared__ __align__(16) float ring[slots][threads];
  const int i = threadIdx.x;
  for (int step = 0; step < slots - 1; ++step) {
    copy_async<4>(&ring[step][i], x + step * threads + i);
    commit_copies();
  }
  float sum = 0;
  for (int step = 0; step < steps; ++step) {
    wait_copies<slots - 2>();
    __syncthreads();
    const int next = step + slots - 1;
    if (next < steps) copy_async<4>(&ring[next % slots][i], x + next * threads + i);  // @slot: copy
    commit_copies();
    sum = sum * 2 + ring[(step + (defect ? 2 : 0)) % slots][threads - 1 - i];  // @slot: read
  }
  y[i] = sum;
}

template <bool defect>
__global__ void write_to_copied_source(float* x, float* y) {
  __shared__ __align__(16) float tile[threads];
  const int i = threadIdx.x;
  copy_async<4>(tile + i, x + i);  // @source: copy
  commit_copies();
  if (!defect) wait_copies<0>();
  x[i] = 0;  // @source: write
  wait_copies<0>();
  __syncthreads();
  y[i] = tile[threads - 1 - i];
}

template <bool defect>
__global__ void write_to_copied_target(const float* x, float* y) {
  __shared__ __align__(16) float tile[threads];
  const int i = threadIdx.x;
  copy_async<4>(tile + i, x + i);  // @target: copy
  commit_copies();
  if (!defect) wait_copies<0>();
  tile[i] = x[i] * 2;  // @target: write
  wait_copies<0>();
  __syncthreads();
  y[i] = tile[threads - 1 - i];
}

template <bool defect>
__global__ void exit_before_wait(const float* x, float* y) {
  __shared__ __align__(16) float tile[threads];
  const int i = threadIdx.x;
  copy_async<4>(tile + i, x + i);  // @exit: copy
  commit_copies();
  y[i] = x[i];
  if (!defect) wait_copies<0>();
}

// -- places

template <bool defect>
__global__ void past_the_end(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = x[i + defect];  // @end: read
}

template <bool defect>
__global__ void past_the_end_of_shared(const float* x, float* y) {
  __shared__ float tile[threads];
  __shared__ float other[threads];
  const int i = threadIdx.x;
  tile[i] = x[i];
  other[i] = x[i] + 1;
  __syncthreads();
  y[i] = tile[i + (defect ? threads : 0)] + other[threads - 1 - i];  // @shared: read
}

template <bool defect>
__global__ void past_the_end_of_dynamic(const float* x, float* y) {
  extern __shared__ float dynamic[];
  const int i = threadIdx.x;
  dynamic[i + defect] = x[i];  // @dynamic: write
  __syncthreads();
  y[i] = dynamic[threads - 1 - i + defect];
}

template <bool defect>
__global__ void misaligned(const float* x, float* y) {
  const int i = threadIdx.x;
  if (i >= threads / 4) return;
  const float4 v = *reinterpret_cast<const float4*>(x + 4 * i + (defect ? 1 : 0) * (i < 8));  // @aligned: read
  y[4 * i] = v.x;
  y[4 * i + 1] = v.y;
  y[4 * i + 2] = v.z;
  y[4 * i + 3] = v.w;
}

template <bool defect>
__global__ void uninitialised_shared(const float* x, float* y) {
  __shared__ float tile[threads];
  const int i = threadIdx.x;
  if (!defect || i != 77) tile[i] = x[i];
  __syncthreads();
  y[i] = tile[threads - 1 - i];  // @uninitialised: read
}

template <bool defect>
__global__ void uninitialised_global(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = x[i];
  if (defect) y[i] += y[i + threads];  // @unwritten: read
}

// Neighbours that write to halves of one word do not disturb each other.
template <bool defect>
__global__ void halves_of_words(const float* x, float* y) {
  auto* halves = reinterpret_cast<short*>(y);
  halves[threadIdx.x / (defect ? 2 : 1)] = static_cast<short>(x[threadIdx.x]);  // @halves: write
}

// -- blocks

template <bool defect>
__global__ void two_blocks_write(const float* x, float* y) {
  const int i = threadIdx.x;
  if (!defect && blockIdx.x > 0) return;
  y[i] = x[i];  // @blocks: write
}

template <bool defect>
__global__ void read_of_another_block(const float* x, float* y) {
  const int i = threadIdx.x, block = blockIdx.x;
  volatile float* out = y + threads;
  out[block * threads + i] = x[i];  // @other: write
  __threadfence();
  if (i % 4 == 0) y[block * threads / 4 + i / 4] = out[(defect ? 1 - block : block) * threads + i];  // @other: read
}

template <bool defect>
__global__ void write_to_what_another_block_reads(float* x, float* y) {
  const int i = threadIdx.x;
  if (blockIdx.x == 0) {
    y[i] = x[i];  // @reader: read
  } else {
    (defect ? x : y + threads)[i] = 0;  // @reader: write
  }
}

template <bool defect>
__global__ void constant_load_of_written(float* x, float* y) {
  const int i = threadIdx.x;
  if (defect) x[i] = 1;  // @constant: write
  y[i] = __ldg(x + i);   // @constant: read
}

// -- warps

template <bool defect>
__global__ void shuffle_without_all_lanes(const float* x, float* y) {
  const int i = threadIdx.x;
  float v = x[i];
  if (!defect || i % 32 < 16) v += __shfl_xor_sync(0xffffffff, v, 1);  // @shuffle: some
  y[i] = v;
  __syncthreads();  // @shuffle: barrier
}

template <bool defect>
__global__ void shuffle_from_absent_lane(const float* x, float* y) {
  const int i = threadIdx.x;
  y[i] = x[i];
  if (i % 32 < 16) y[i] = __shfl_xor_sync(0xffff, x[i], defect ? 16 : 8);  // @absent: shuffle
}

// -- numbers: nothing is broken but the result

template <bool defect>
__global__ void swapped_operands(const __nv_bfloat16* a, const __nv_bfloat16* b, float* y) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto word = [](const __nv_bfloat16* p) { return *reinterpret_cast<const unsigned*>(p); };
  const unsigned fragment_a[4] = {word(a + g * 16 + 2 * t), word(a + (g + 8) * 16 + 2 * t),
                                  word(a + g * 16 + 2 * t + 8), word(a + (g + 8) * 16 + 2 * t + 8)};
  const unsigned fragment_b[2] = {word(b + g * 16 + 2 * t), word(b + g * 16 + 2 * t + 8)};
  float d[4] = {};
  if (defect) {
    const unsigned swapped[4] = {fragment_a[0], fragment_a[2], fragment_a[1], fragment_a[3]};
    mma_bf16(d, swapped, fragment_b);
  } else {
    mma_bf16(d, fragment_a, fragment_b);
  }
  for (int i = 0; i < 4; ++i) y[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

constexpr int width = 16, height = threads / width;

template <bool defect>
__global__ void missing_border_mask(const float* x, float* y) {
  const int i = threadIdx.x, column = i % width;
  float sum = x[i];
  if (i > 0 && (defect || column > 0)) sum += 2 * x[i - 1];
  if (i + 1 < threads && (defect || column + 1 < width)) sum += 3 * x[i + 1];
  y[i] = sum;
}

// -- the test

using Kernel = void (*)(const float*, float*);

// How a kernel is launched.
struct Setup {
  int blocks = 1;
  int dynamic_bytes = 0;
  bool y_is_written = false;
  std::size_t x_count = threads;
};
constexpr Setup plain = {}, two_blocks = {.blocks = 2}, two_blocks_on_written = {.blocks = 2, .y_is_written = true},
                with_dynamic = {.dynamic_bytes = threads * sizeof(float)}, with_long_x = {.x_count = 8 * threads};

struct Case {
  const char* name;
  Setup setup;
  const char* defect;  // how the report begins
  std::vector<const char*> markers;
  Kernel right, wrong;
};

template <typename X>
Kernel as_kernel(void (*kernel)(X*, float*)) {
  return reinterpret_cast<Kernel>(kernel);
}

#define CASE(kernel, setup, defect, ...) \
  {#kernel, setup, defect, {__VA_ARGS__}, as_kernel(kernel<false>), as_kernel(kernel<true>)}

std::vector<Case> cases() {
  return {
      CASE(missing_barrier_before_read, plain, "race", "before: write", "before: read"),
      CASE(missing_barrier_before_overwrite, plain, "race", "overwrite: write", "overwrite: read"),
      CASE(missing_barrier_right_numbers, plain, "race", "numbers: write", "numbers: read"),
      CASE(missing_warp_barrier, plain, "race", "warp: write", "warp: read"),
      CASE(divergent_barrier, plain, "divergent barrier", "divergent: barrier"),
      CASE(two_barriers, plain, "divergent barrier", "two: first", "two: second"),
      CASE(barrier_without_company, plain, "deadlock", "company: barrier"),
      CASE(missing_wait, plain, "pending copy", "wait: copy", "wait: read"),
      CASE(missing_barrier_after_wait, plain, "race", "waited: copy", "waited: read"),
      CASE(wait_for_too_few, plain, "pending copy", "few: copy", "few: read"),
      CASE(wrong_ring_slot, with_long_x, "race", "slot: copy", "slot: read"),
      CASE(write_to_copied_source, plain, "pending copy", "source: copy", "source: write"),
      CASE(write_to_copied_target, plain, "pending copy", "target: copy", "target: write"),
      CASE(exit_before_wait, plain, "pending copy", "exit: copy"),
      CASE(past_the_end, plain, "out of bounds", "end: read"),
      CASE(past_the_end_of_shared, plain, "out of bounds", "shared: read"),
      CASE(past_the_end_of_dynamic, with_dynamic, "out of bounds", "dynamic: write"),
      CASE(misaligned, plain, "misaligned", "aligned: read"),
      CASE(uninitialised_shared, plain, "uninitialised", "uninitialised: read"),
      CASE(uninitialised_global, plain, "uninitialised", "unwritten: read"),
      CASE(halves_of_words, plain, "race", "halves: write"),
      CASE(two_blocks_write, two_blocks, "race", "blocks: write"),
      CASE(read_of_another_block, two_blocks_on_written, "race", "other: write", "other: read"),
      CASE(write_to_what_another_block_reads, two_blocks, "race", "reader: read", "reader: write"),
      CASE(constant_load_of_written, plain, "race", "constant: write", "constant: read"),
      CASE(shuffle_without_all_lanes, plain, "warp collective", "shuffle: some"),
      CASE(shuffle_from_absent_lane, plain, "warp collective", "absent: shuffle"),
  };
}

// The number of the line that a comment marks.
int line_of(const std::string& marker) {
  std::ifstream file(__FILE__);
  int number = 1;
  for (std::string line; std::getline(file, line); ++number) {
    if (line.size() > marker.size() && line.ends_with("@" + marker)) return number;
  }
  std::fprintf(stderr, "no line is marked %s\n", marker.c_str());
  std::abort();
}

std::string place(const char* marker) {
  return "planted_defects.cu:" + std::to_string(line_of(marker));
}

// The report of one launch on fresh memory, "" if there is none.
std::string run(const Case& test, bool defect) {
  const Setup& setup = test.setup;
  std::vector<float> values(setup.x_count);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 37);
  const test::DeviceArray<float> x(values), y(4 * threads);
  if (setup.y_is_written) CHECK_CUDA(cudaMemset(y.data(), 0, y.size() * sizeof(float)));
  (defect ? test.wrong : test.right)<<<setup.blocks, threads, setup.dynamic_bytes>>>(x.data(), y.data());
  const cudaError_t error = cudaDeviceSynchronize();
  const std::string report = cuda_emulation_take_defect();
  CHECK((error == cudaSuccess) == report.empty(), "%s: %s, %s", test.name, cudaGetErrorName(error), report.c_str());
  return report;
}

void check_report(const Case& test, const char* schedule) {
  const std::string right = run(test, false);
  CHECK(right.empty(), "%s, %s, without a defect: %s", test.name, schedule, right.c_str());
  const std::string report = run(test, true);
  CHECK(!report.empty(), "%s, %s: the defect goes unnoticed", test.name, schedule);
  CHECK(report.starts_with(test.defect), "%s, %s: %s", test.name, schedule, report.c_str());
  for (const char* marker : test.markers) {
    CHECK(report.find(place(marker)) != std::string::npos, "%s, %s: %s is not in: %s", test.name, schedule,
          place(marker).c_str(), report.c_str());
  }
  CHECK(report.find(test.name) != std::string::npos, "%s, %s: no name in: %s", test.name, schedule, report.c_str());
}

void check_swapped_operands(const char* schedule) {
  test::Random random(1);
  std::vector<__nv_bfloat16> a(16 * 16), b(8 * 16);
  std::vector<float> expected(16 * 8, 0.0f);
  for (auto& v : a) v = __float2bfloat16(static_cast<float>(random.integer(-8, 8)));
  for (auto& v : b) v = __float2bfloat16(static_cast<float>(random.integer(-8, 8)));
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      for (int k = 0; k < 16; ++k)
        expected[m * 8 + n] += __bfloat162float(a[m * 16 + k]) * __bfloat162float(b[n * 16 + k]);
    }
  }
  const test::DeviceArray<__nv_bfloat16> device_a(a), device_b(b);
  for (const bool defect : {false, true}) {
    test::DeviceArray<float> y(16 * 8);
    (defect ? swapped_operands<true> : swapped_operands<false>)<<<1, 32>>>(device_a.data(), device_b.data(), y.data());
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK((y.values() == expected) == !defect, "swapped operands, %s", schedule);
  }
}

void check_border_mask(const char* schedule) {
  std::vector<float> x(threads), expected(threads);
  for (int i = 0; i < threads; ++i) x[i] = static_cast<float>(i * i % 41 + 1);
  for (int h = 0; h < height; ++h) {
    for (int w = 0; w < width; ++w) {
      const auto at = [&](int column) { return column >= 0 && column < width ? x[h * width + column] : 0.0f; };
      expected[h * width + w] = at(w) + 2 * at(w - 1) + 3 * at(w + 1);
    }
  }
  const test::DeviceArray<float> device_x(x);
  for (const bool defect : {false, true}) {
    test::DeviceArray<float> y(threads);
    (defect ? missing_border_mask<true> : missing_border_mask<false>)<<<1, threads>>>(device_x.data(), y.data());
    CHECK_CUDA(cudaDeviceSynchronize());
    CHECK((y.values() == expected) == !defect, "border mask, %s", schedule);
  }
}

}  // namespace

int main() {
  for (const char* schedule : test::schedules) {
    CHECK(cuda_emulation_set_schedule(schedule) == 0, "%s", schedule);
    for (const Case& test : cases()) check_report(test, schedule);
    check_swapped_operands(schedule);
    check_border_mask(schedule);
  }
  return test::summary("planted_defects");
}
