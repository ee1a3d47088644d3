// Kernels as they are written in earnest: the emulation must run them without a complaint, under every schedule, on
// ragged sizes, with results that are exact on integers; and it tells how fast it was.
#include <cuda_bf16.h>

#include <ctime>

#include "support.cuh"

namespace {

// -- c (m x n) = a (m x k) b (k x n), bf16 with sums in fp32: a ring of asynchronous copies, ldmatrix, tensor cores

constexpr int tile_m = 64, tile_n = 64, tile_k = 32, slots = 3, gemm_threads = 128;
constexpr int pitch_a = tile_k + 8, pitch_b = tile_n + 8;  // elements; eight more, so that ldmatrix meets no bank twice
constexpr int slot_elements = tile_m * pitch_a + tile_k * pitch_b;
constexpr int gemm_shared_bytes = slots * slot_elements * 2;

// Elements beyond the matrices are zeros; rows of 8 elements must be whole, k % 8 == 0 and n % 8 == 0.
__device__ void load_tile(__nv_bfloat16* slot, const __nv_bfloat16* a, const __nv_bfloat16* b, int m, int n, int k,
                          int first_m, int first_n, int first_k) {
  for (int i = threadIdx.x; i < tile_m * tile_k / 8; i += gemm_threads) {
    const int row = i / (tile_k / 8), column = i % (tile_k / 8) * 8;
    const bool inside = first_m + row < m && first_k + column < k;
    const __nv_bfloat16* from = inside ? a + static_cast<long>(first_m + row) * k + first_k + column : a;
    copy_async<16>(slot + row * pitch_a + column, from, inside ? 16 : 0);
  }
  slot += tile_m * pitch_a;
  for (int i = threadIdx.x; i < tile_k * tile_n / 8; i += gemm_threads) {
    const int row = i / (tile_n / 8), column = i % (tile_n / 8) * 8;
    const bool inside = first_k + row < k && first_n + column < n;
    const __nv_bfloat16* from = inside ? b + static_cast<long>(first_k + row) * n + first_n + column : b;
    copy_async<16>(slot + row * pitch_b + column, from, inside ? 16 : 0);
  }
}

__device__ void load_fragment(unsigned (&r)[4], const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row)));
}
__device__ void load_fragment_transposed(unsigned (&r)[2], const __nv_bfloat16* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row)));
}

__global__ void __launch_bounds__(gemm_threads)
    gemm(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k) {
  extern __shared__ __align__(128) __nv_bfloat16 ring[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first_m = blockIdx.y * tile_m, first_n = blockIdx.x * tile_n, steps = (k + tile_k - 1) / tile_k;
  float sums[2][4][4] = {};  // a warp's 32 x 32
  const int warp_m = warp / 2 * 32, warp_n = warp % 2 * 32;

  for (int step = 0; step < slots - 1; ++step) {
    if (step < steps) load_tile(ring + step * slot_elements, a, b, m, n, k, first_m, first_n, step * tile_k);
    commit_copies();
  }
  for (int step = 0; step < steps; ++step) {
    wait_copies<slots - 2>();
    __syncthreads();
    const int next = step + slots - 1;
    if (next < steps) load_tile(ring + next % slots * slot_elements, a, b, m, n, k, first_m, first_n, next * tile_k);
    commit_copies();
    const __nv_bfloat16* slot_a = ring + step % slots * slot_elements;
    const __nv_bfloat16* slot_b = slot_a + tile_m * pitch_a;
    for (int kk = 0; kk < tile_k; kk += 16) {
      unsigned fragment_a[2][4], fragment_b[4][2];
      for (int i = 0; i < 2; ++i) {
        load_fragment(fragment_a[i], slot_a + (warp_m + 16 * i + lane % 16) * pitch_a + kk + lane / 16 * 8);
      }
      for (int j = 0; j < 4; ++j) {
        load_fragment_transposed(fragment_b[j], slot_b + (kk + lane % 16) * pitch_b + warp_n + 8 * j);
      }
      for (int i = 0; i < 2; ++i) {
        for (int j = 0; j < 4; ++j) mma_bf16(sums[i][j], fragment_a[i], fragment_b[j]);
      }
    }
  }
  wait_copies<0>();
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      for (int e = 0; e < 4; ++e) {
        const int row = first_m + warp_m + 16 * i + lane / 4 + e / 2 * 8,
                  column = first_n + warp_n + 8 * j + lane % 4 * 2 + e % 2;
        if (row < m && column < n) c[static_cast<long>(row) * n + column] = sums[i][j][e];
      }
    }
  }
}

// -- the same in fp32 on CUDA cores: 64 x 64 per block, 4 x 4 per thread

__global__ void __launch_bounds__(256) gemm_fp32(const float* a, const float* b, float* c, int m, int n, int k) {
  constexpr int size = 64, depth = 16;
  __shared__ float tile_of_a[depth][size + 4];
  __shared__ __align__(16) float tile_of_b[depth][size];
  const int first_m = blockIdx.y * size, first_n = blockIdx.x * size;
  const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
  float sums[4][4] = {};
  for (int first_k = 0; first_k < k; first_k += depth) {
    for (int i = threadIdx.x; i < size * depth; i += blockDim.x) {
      const int kk = i % depth, mm = i / depth, nn = i % size, kb = i / size;
      tile_of_a[kk][mm] = first_m + mm < m && first_k + kk < k ? a[(first_m + mm) * k + first_k + kk] : 0.0f;
      tile_of_b[kb][nn] = first_n + nn < n && first_k + kb < k ? b[(first_k + kb) * n + first_n + nn] : 0.0f;
    }
    __syncthreads();
    for (int kk = 0; kk < depth; ++kk) {
      const float4 x = *reinterpret_cast<const float4*>(&tile_of_a[kk][row]);
      const float4 y = *reinterpret_cast<const float4*>(&tile_of_b[kk][column]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
      for (int i = 0; i < 4; ++i) {
        for (int j = 0; j < 4; ++j) sums[i][j] += xs[i] * ys[j];
      }
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      if (first_m + row + i < m && first_n + column + j < n)
        c[(first_m + row + i) * n + first_n + column + j] = sums[i][j];
    }
  }
}

// -- a stencil: five points, rows in a ring in shared memory

__global__ void stencil(const float* x, float* y, int height, int width) {
  extern __shared__ float rows[];  // three rows of blockDim.x + 2
  const int pitch = blockDim.x + 2, column = blockIdx.x * blockDim.x + threadIdx.x;
  const auto load = [&](int h) {
    float* row = rows + (h + 3) % 3 * pitch;
    const auto at = [&](int w) { return h >= 0 && h < height && w >= 0 && w < width ? x[h * width + w] : 0.0f; };
    row[threadIdx.x + 1] = at(column);
    if (threadIdx.x == 0) row[0] = at(column - 1);
    if (threadIdx.x == blockDim.x - 1) row[pitch - 1] = at(column + 1);
  };
  load(-1);
  load(0);
  for (int h = 0; h < height; ++h) {
    __syncthreads();
    load(h + 1);
    __syncthreads();
    const float* up = rows + (h + 2) % 3 * pitch + threadIdx.x + 1;
    const float* own = rows + h % 3 * pitch + threadIdx.x + 1;
    const float* down = rows + (h + 1) % 3 * pitch + threadIdx.x + 1;
    if (column < width) y[h * width + column] = own[0] + 2 * up[0] + 3 * own[-1] + 4 * own[1] + 5 * down[0];
  }
}

// -- a reduction: shuffles within warps, shared memory between them, a second launch between blocks

__global__ void partial_sums(const float* x, float* partial, int count) {
  __shared__ float of_warps[32];
  float sum = 0;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) sum += x[i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  sum = threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : 0.0f;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// -- tests

// Of the processor.
double seconds() {
  return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

void expect_no_defect(const char* name) {
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::string defect = cuda_emulation_take_defect();
  CHECK(defect.empty(), "%s: %s", name, defect.c_str());
}

template <typename T>
std::vector<T> small_integers(std::size_t count, std::uint64_t seed) {
  test::Random random(seed);
  std::vector<T> list(count);
  for (T& v : list) v = static_cast<T>(static_cast<float>(random.integer(-4, 4)));
  return list;
}

// The million multiply-adds a second, if it is to be told.
template <typename T, typename Launch>
double test_gemm(const char* name, int m, int n, int k, Launch launch) {
  const auto a = small_integers<T>(static_cast<std::size_t>(m) * k, 1),
             b = small_integers<T>(static_cast<std::size_t>(k) * n, 2);
  const test::DeviceArray<T> device_a(a), device_b(b);
  const test::DeviceArray<float> c(static_cast<std::size_t>(m) * n);
  const double start = seconds();
  launch(device_a.data(), device_b.data(), c.data());
  const double rate = 1e-6 * m * n * k / (seconds() - start);
  expect_no_defect(name);
  std::vector<float> expected(static_cast<std::size_t>(m) * n);
  for (int i = 0; i < m; ++i) {
    for (int l = 0; l < k; ++l) {
      for (int j = 0; j < n; ++j)
        expected[i * n + j] += static_cast<float>(a[i * k + l]) * static_cast<float>(b[l * n + j]);
    }
  }
  CHECK(c.values() == expected, "%s, %d x %d x %d", name, m, n, k);
  return rate;
}

double test_gemm_bf16(int m, int n, int k) {
  CHECK_CUDA(cudaFuncSetAttribute(gemm, cudaFuncAttributeMaxDynamicSharedMemorySize, gemm_shared_bytes));
  return test_gemm<__nv_bfloat16>("gemm", m, n, k, [&](auto* a, auto* b, float* c) {
    gemm<<<dim3((n + tile_n - 1) / tile_n, (m + tile_m - 1) / tile_m), gemm_threads, gemm_shared_bytes>>>(a, b, c, m, n,
                                                                                                          k);
  });
}

double test_gemm_fp32(int m, int n, int k) {
  return test_gemm<float>("gemm_fp32", m, n, k, [&](auto* a, auto* b, float* c) {
    gemm_fp32<<<dim3((n + 63) / 64, (m + 63) / 64), 256>>>(a, b, c, m, n, k);
  });
}

void test_stencil(int height, int width, int threads) {
  const auto x = small_integers<float>(static_cast<std::size_t>(height) * width, 3);
  const test::DeviceArray<float> device_x(x), y(x.size());
  const std::size_t bytes = 3 * static_cast<std::size_t>(threads + 2) * sizeof(float);
  stencil<<<(width + threads - 1) / threads, threads, bytes>>>(device_x.data(), y.data(), height, width);
  expect_no_defect("stencil");
  const auto got = y.values();
  const auto at = [&](int h, int w) { return h >= 0 && h < height && w >= 0 && w < width ? x[h * width + w] : 0.0f; };
  for (int h = 0; h < height; ++h) {
    for (int w = 0; w < width; ++w) {
      const float expected = at(h, w) + 2 * at(h - 1, w) + 3 * at(h, w - 1) + 4 * at(h, w + 1) + 5 * at(h + 1, w);
      CHECK(got[h * width + w] == expected, "stencil, (%d, %d)", h, w);
    }
  }
}

void test_reduction(int count, int blocks, int threads) {
  const auto x = small_integers<float>(count, 4);
  float expected = 0;
  for (const float v : x) expected += v;
  const test::DeviceArray<float> device_x(x), partial(blocks), sum(1);
  partial_sums<<<blocks, threads>>>(device_x.data(), partial.data(), count);
  partial_sums<<<1, 32>>>(partial.data(), sum.data(), blocks);
  expect_no_defect("reduction");
  CHECK(sum.values()[0] == expected, "reduction of %d: %g, expected %g", count, sum.values()[0], expected);
}

}  // namespace

int main() {
  for (const char* schedule : test::schedules) {
    cuda_emulation_set_schedule(schedule);
    test_gemm_bf16(64, 64, 32);
    test_gemm_bf16(70, 136, 104);
    test_gemm_bf16(1, 8, 8);
    test_gemm_fp32(65, 63, 17);
    test_gemm_fp32(64, 128, 32);
    test_stencil(13, 37, 32);
    test_stencil(5, 64, 64);
    test_reduction(5000, 3, 256);
    test_reduction(1, 1, 32);
  }
  std::printf("million multiply-adds a second: bf16 on tensor cores %.0f,", test_gemm_bf16(256, 256, 512));
  std::printf(" fp32 %.0f\n", test_gemm_fp32(128, 128, 256));
  return test::summary("kernels");
}
