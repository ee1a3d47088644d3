// Instructions that threads execute together or on memory, control flow, and the runtime's variables: kernels with
// results that the host computes from the definitions.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "support.cuh"

namespace {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

std::vector<u32> random_words(std::size_t count, std::uint64_t seed = 1) {
  test::Random random(seed);
  std::vector<u32> list(count);
  for (u32& word : list) word = static_cast<u32>(random.next() >> 16);
  return list;
}

void expect_no_defect(const char* name) {
  CHECK_CUDA(cudaDeviceSynchronize());
  const std::string defect = cuda_emulation_take_defect();
  CHECK(defect.empty(), "%s: %s", name, defect.c_str());
}

// -- exchanges within a warp

__global__ void shuffles(const u32* x, u32* y, int amount, int width) {
  const int i = threadIdx.x;
  y[i] = __shfl_sync(~0u, x[i], amount, width);
  y[i + 32] = __shfl_up_sync(~0u, x[i], amount, width);
  y[i + 64] = __shfl_down_sync(~0u, x[i], amount, width);
  y[i + 96] = __shfl_xor_sync(~0u, x[i], amount, width);
}

// Whether the lane read from is in range; across the whole warp.
__global__ void shuffle_predicates(const u32* x, u32* y) {
  const int i = threadIdx.x;
  u32 value, in_range;
  asm volatile("{.reg .pred p; shfl.sync.down.b32 %0|p, %2, 5, 31, -1; selp.u32 %1, 1, 0, p;}"
               : "=r"(value), "=r"(in_range)
               : "r"(x[i]));
  y[i] = value + in_range;
}

void test_shuffles() {
  const auto x = random_words(32);
  const test::DeviceArray<u32> device_x(x);
  for (const int width : {4, 16, 32}) {
    for (const int amount : {0, 1, 3, 5, 17, 31}) {
      test::DeviceArray<u32> y(128);
      shuffles<<<1, 32>>>(device_x.data(), y.data(), amount, width);
      expect_no_defect("shuffles");
      const auto got = y.values();
      for (int lane = 0; lane < 32; ++lane) {
        const int base = lane / width * width, end = base + width;
        const int up = lane - amount, down = lane + amount, other = lane ^ amount;
        CHECK(got[lane] == x[base + amount % width], "shfl %d of %d, lane %d", amount, width, lane);
        // PTX takes the amount modulo 32.
        CHECK(got[lane + 32] == x[up < base ? lane : up], "shfl_up %d of %d, lane %d", amount, width, lane);
        CHECK(got[lane + 64] == x[down >= end ? lane : down], "shfl_down %d of %d, lane %d", amount, width, lane);
        CHECK(got[lane + 96] == x[other >= end ? lane : other], "shfl_xor %d of %d, lane %d", amount, width, lane);
      }
    }
  }
  test::DeviceArray<u32> y(32);
  shuffle_predicates<<<1, 32>>>(device_x.data(), y.data());
  expect_no_defect("shuffle_predicates");
  const auto got = y.values();
  for (int lane = 0; lane < 32; ++lane) {
    CHECK(got[lane] == (lane + 5 < 32 ? x[lane + 5] + 1 : x[lane]), "shfl predicate, lane %d", lane);
  }
}

__global__ void votes(const u32* x, u32* y) {
  const int i = threadIdx.x;
  u32* row = y + 12 * i;
  const u32 lanes = i < 20 ? 0xfffff : 0xfff00000;  // two groups that vote for themselves
  row[0] = __ballot_sync(lanes, x[i] & 1);
  row[1] = __any_sync(lanes, x[i] & 1);
  row[2] = __all_sync(lanes, x[i] & 1);
  asm volatile("{.reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.uni.pred p, p, %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(row[3])
               : "r"(x[i] & 1), "r"(lanes));
  row[4] = __match_any_sync(lanes, x[i] & 3);
  int same = 0;
  row[5] = __match_all_sync(lanes, static_cast<unsigned long long>(x[i] & 1), &same) + static_cast<u32>(same);
  row[6] = __reduce_add_sync(lanes, x[i]);
  row[7] = static_cast<u32>(__reduce_min_sync(lanes, static_cast<int>(x[i])));
  row[8] = __reduce_max_sync(lanes, x[i]);
  row[9] = __reduce_and_sync(lanes, x[i]);
  row[10] = __reduce_or_sync(lanes, x[i]);
  row[11] = __reduce_xor_sync(lanes, x[i]);
}

void test_votes() {
  for (const int kind : {0, 1, 2}) {
    auto x = random_words(32, 3);
    if (kind > 0) {
      for (u32& v : x) v = (v & ~1u) | static_cast<u32>(kind - 1);
    }
    test::DeviceArray<u32> device_x(x), y(32 * 12);
    votes<<<1, 32>>>(device_x.data(), y.data());
    expect_no_defect("votes");
    const auto got = y.values();
    for (int lane = 0; lane < 32; ++lane) {
      const int first = lane < 20 ? 0 : 20, end = lane < 20 ? 20 : 32;
      const u32 lanes = lane < 20 ? 0xfffff : 0xfff00000;
      u32 ballot = 0, alike = 0, sum = 0, greatest = 0, all = ~0u, any = 0, parity = 0;
      int least = 0x7fffffff;
      for (int other = first; other < end; ++other) {
        ballot |= (x[other] & 1) << other;
        alike |= static_cast<u32>((x[other] & 3) == (x[lane] & 3)) << other;
        sum += x[other];
        least = std::min(least, static_cast<int>(x[other]));
        greatest = std::max(greatest, x[other]);
        all &= x[other];
        any |= x[other];
        parity ^= x[other];
      }
      const bool same = ballot == 0 || ballot == lanes;
      const u32 expected[] = {ballot,
                              ballot != 0,
                              ballot == lanes,
                              same,
                              alike,
                              same ? lanes + 1 : 0,
                              sum,
                              static_cast<u32>(least),
                              greatest,
                              all,
                              any,
                              parity};
      for (int i = 0; i < 12; ++i) CHECK(got[lane * 12 + i] == expected[i], "vote %d, kind %d, lane %d", i, kind, lane);
    }
  }
}

// -- barriers

__global__ void barriers(const u32* x, u32* y) {
  __shared__ u32 tile[256];
  const int i = threadIdx.x, half = i / 128;
  y[i] = static_cast<u32>(__syncthreads_count(x[i] & 1));
  y[i] += 1000u * static_cast<u32>(__syncthreads_and(x[i] < 77));
  y[i] += 10000u * static_cast<u32>(__syncthreads_or(x[i] == 76));
  // The halves of the block exchange values by barriers of their own.
  tile[i] = x[i];
  asm volatile("bar.sync %0, 128;" ::"r"(half + 1) : "memory");
  y[i] += 100000u * tile[i ^ 127];
  __threadfence_block();
}

void test_barriers() {
  std::vector<u32> x(256);
  for (u32 i = 0; i < 256; ++i) x[i] = i % 77;
  test::DeviceArray<u32> device_x(x), y(256);
  barriers<<<1, 256>>>(device_x.data(), y.data());
  expect_no_defect("barriers");
  const auto got = y.values();
  u32 odd = 0;
  for (const u32 v : x) odd += v & 1;
  for (u32 i = 0; i < 256; ++i)
    CHECK(got[i] == odd + 1000 + 10000 + 100000 * x[i ^ 127], "barriers, thread %u: %u", i, got[i]);
}

// -- memory

// From global memory to registers to shared memory to a thread's own array, and back through a generic pointer.
template <typename T>
__global__ void through_memories(const T* x, T* y, int shift) {
  __shared__ T tile[64];
  T own[8];
  const int i = threadIdx.x;
  tile[i] = x[i];
  for (int k = 0; k < 8; ++k) own[(k + shift) % 8] = x[(i + k) % 64];
  __syncthreads();
  const T* from = shift > 5 ? tile : x;
  y[i] = from[63 - i];
  y[64 + i] = own[(i + shift) % 8];
  y[128 + i] = own[shift % 8];
}

template <typename T>
void test_memories(const char* name) {
  std::vector<T> x(64);
  const auto words = random_words(64 * sizeof(T));
  std::memcpy(x.data(), words.data(), 64 * sizeof(T));
  const test::DeviceArray<T> device_x(x);
  for (const int shift : {2, 7}) {
    test::DeviceArray<T> y(192);
    through_memories<<<1, 64>>>(device_x.data(), y.data(), shift);
    expect_no_defect(name);
    const auto got = y.values();
    for (int i = 0; i < 64; ++i) {
      CHECK(std::memcmp(&got[i], &x[63 - i], sizeof(T)) == 0, "%s, %d", name, i);
      CHECK(std::memcmp(&got[64 + i], &x[(i + i % 8) % 64], sizeof(T)) == 0, "%s, own, %d", name, i);
      CHECK(std::memcmp(&got[128 + i], &x[i], sizeof(T)) == 0, "%s, own, %d", name, i);
    }
  }
}

// Loads of small integers extend them by their sign; stores cut off.
__global__ void small_integers(const signed char* s, const unsigned char* u, const short* h, int* y) {
  const int i = threadIdx.x;
  int extended;
  asm volatile("ld.global.s8 %0, [%1];" : "=r"(extended) : "l"(s + i));
  y[i] = extended;
  asm volatile("ld.global.u8 %0, [%1];" : "=r"(extended) : "l"(u + i));
  y[i] += 1000 * extended;
  asm volatile("ld.global.s16 %0, [%1];" : "=r"(extended) : "l"(h + i));
  y[i] += extended;
  asm volatile("st.global.u8 [%0], %1;" ::"l"(reinterpret_cast<unsigned char*>(y + 256) + i), "r"(0x12345600 + i)
               : "memory");
  asm volatile("prefetch.global.L2 [%0];" ::"l"(h + i));
}

void test_small_integers() {
  std::vector<signed char> s(256);
  std::vector<unsigned char> u(256);
  std::vector<short> h(256);
  for (int i = 0; i < 256; ++i) {
    s[i] = static_cast<signed char>(i);
    u[i] = static_cast<unsigned char>(i);
    h[i] = static_cast<short>(i * 771);
  }
  const test::DeviceArray<signed char> device_s(s);
  const test::DeviceArray<unsigned char> device_u(u);
  const test::DeviceArray<short> device_h(h);
  const test::DeviceArray<int> y(256 + 64);
  small_integers<<<1, 256>>>(device_s.data(), device_u.data(), device_h.data(), y.data());
  expect_no_defect("small_integers");
  const auto got = y.values();
  const auto* bytes = reinterpret_cast<const unsigned char*>(got.data() + 256);
  for (int i = 0; i < 256; ++i) {
    CHECK(got[i] == s[i] + 1000 * u[i] + h[i], "small integers, %d", i);
    CHECK(bytes[i] == i, "byte %d", i);
  }
}

__constant__ int constants[4] = {3, 5, 7, 11};
__constant__ float factor;
__device__ unsigned counter = 40;
__device__ float table[3] = {0.5f, 1.5f, 2.5f};

__global__ void variables(float* y) {
  const int i = threadIdx.x;
  y[i] = static_cast<float>(constants[i % 4]) * factor + table[i % 3];
  if (i == 0) counter += 2;
}

void test_variables() {
  const float value = 10;
  CHECK_CUDA(cudaMemcpyToSymbol(factor, &value, sizeof value));
  test::DeviceArray<float> y(32);
  variables<<<1, 32>>>(y.data());
  expect_no_defect("variables");
  const auto got = y.values();
  const float c[] = {3, 5, 7, 11}, t[] = {0.5f, 1.5f, 2.5f};
  for (int i = 0; i < 32; ++i) CHECK(got[i] == c[i % 4] * 10 + t[i % 3], "variables, %d: %g", i, got[i]);
  unsigned count = 0;
  CHECK_CUDA(cudaMemcpyFromSymbol(&count, counter, sizeof count));
  CHECK(count == 42, "%u", count);
}

__global__ void atomics(const u32* x, u32* y, u64* z, double* d, bool in_shared) {
  __shared__ u32 tile[2];
  const int i = threadIdx.x;
  if (i < 2) tile[i] = 0;
  __syncthreads();
  atomicAdd(y, x[i]);
  atomicMin(y + 1, x[i]);
  atomicMax(reinterpret_cast<int*>(y + 2), static_cast<int>(x[i]));
  atomicAnd(y + 3, x[i]);
  atomicOr(y + 4, x[i]);
  atomicXor(y + 5, x[i]);
  atomicInc(y + 6, 9);
  atomicDec(y + 7, 9);
  atomicAdd(reinterpret_cast<float*>(y + 8), 0.5f);
  atomicAdd(reinterpret_cast<unsigned long long*>(z), static_cast<unsigned long long>(x[i]) << 20);
  atomicAdd(d, 0.25);
  u32 old = y[10], seen;
  do {  // an addition by compare and swap
    seen = old;
    old = atomicCAS(y + 9, seen, seen + x[i]);
  } while (old != seen);
  atomicAdd(tile, x[i]);
  u32* somewhere = in_shared ? tile + 1 : y + 11;
  const u32 before = atomicAdd(somewhere, 1u);  // a generic address
  y[16 + i] = before;
  y[80 + i] = atomicExch(y + 144 + i, x[i]);
  __syncthreads();
  if (i == 0) y[12] = tile[0];
}

void test_atomics() {
  const auto x = random_words(64, 5);
  u32 sum = 0, least = ~0u, all = ~0u, any = 0, parity = 0;
  int greatest = -0x7fffffff;
  u64 wide = 0;
  for (const u32 v : x) {
    sum += v;
    least = std::min(least, v);
    greatest = std::max(greatest, static_cast<int>(v));
    all &= v;
    any |= v;
    parity ^= v;
    wide += static_cast<u64>(v) << 20;
  }
  for (const bool in_shared : {false, true}) {
    std::vector<u32> initial(208, 0);
    initial[1] = initial[3] = ~0u;
    initial[2] = 0x80000000;
    test::DeviceArray<u32> device_x(x), y(initial);
    test::DeviceArray<u64> z(std::vector<u64>{0});
    test::DeviceArray<double> d(std::vector<double>{0});
    atomics<<<1, 64>>>(device_x.data(), y.data(), z.data(), d.data(), in_shared);
    expect_no_defect("atomics");
    auto got = y.values();
    const u32 thirty_two = 0x42000000;  // 64 times 0.5
    const u32 expected[] = {
        sum, least, static_cast<u32>(greatest), all, any, parity, 64 % 10, (1000 - 64) % 10, thirty_two,
        sum, 0,     in_shared ? 0u : 64u,       sum};
    for (int i = 0; i < 13; ++i) CHECK(got[i] == expected[i], "atomic %d: %u, expected %u", i, got[i], expected[i]);
    CHECK(z.values()[0] == wide && d.values()[0] == 16, "wide atomics");
    std::sort(got.begin() + 16, got.begin() + 80);
    for (u32 i = 0; i < 64; ++i) {
      CHECK(got[16 + i] == i && got[80 + i] == 0 && got[144 + i] == x[i], "atomic results, %u", i);
    }
  }
}

__global__ void reductions(const u32* x, u32* y) {
  asm volatile("red.global.add.u32 [%0], %1;" ::"l"(y), "r"(x[threadIdx.x]) : "memory");
}

// -- asynchronous copies: every size, whole, in part and not at all

template <int bytes>
__global__ void copies(const unsigned char* x, unsigned char* y, int source_bytes) {
  __shared__ __align__(16) unsigned char tile[4][32 * bytes];
  const int i = threadIdx.x * bytes;
  for (int round = 0; round < 4; ++round) {
    copy_async<bytes>(tile[round] + i, x + i + round * 32 * bytes, source_bytes);
    if (round < 3) commit_copies();
  }
  if (source_bytes % 2 == 0) {
    wait_copies<0>();  // the last copy belongs to no group yet
    asm volatile("cp.async.wait_all;" ::: "memory");
  } else {
    commit_copies();
    wait_copies<0>();
  }
  for (int round = 0; round < 4; ++round) {
    for (int k = 0; k < bytes; ++k) y[i + round * 32 * bytes + k] = tile[round][i + k];
  }
}

template <int bytes>
void test_copies() {
  const auto words = random_words(32 * bytes);
  std::vector<unsigned char> x(4 * 32 * bytes);
  std::memcpy(x.data(), words.data(), x.size());
  for (int source_bytes = 0; source_bytes <= bytes; ++source_bytes) {
    const test::DeviceArray<unsigned char> device_x(x), y(x.size());
    copies<bytes><<<1, 32>>>(device_x.data(), y.data(), source_bytes);
    expect_no_defect("copies");
    const auto got = y.values();
    for (std::size_t i = 0; i < x.size(); ++i) {
      const bool exists = static_cast<int>(i) % bytes < source_bytes;
      CHECK(got[i] == (exists ? x[i] : 0), "copy of %d of %d bytes, byte %zu", source_bytes, bytes, i);
    }
  }
}

// -- matrices

#define LOAD_MATRICES(name, count, modifier, outputs, ...)                                                  \
  __global__ void name(const u32* x, u32* y) {                                                              \
    __shared__ __align__(16) u32 tile[32 * 4];                                                              \
    const int lane = threadIdx.x;                                                                           \
    for (int i = lane; i < 128; i += 32) tile[i] = x[i];                                                    \
    __syncthreads();                                                                                        \
    u32 r[4] = {};                                                                                          \
    asm volatile("ldmatrix.sync.aligned.m8n8.x" #count modifier ".shared.b16 {" outputs "}, [%" #count "];" \
                 : __VA_ARGS__                                                                              \
                 : "r"(shared_address(tile + 4 * lane)));                                                   \
    for (int i = 0; i < count; ++i) y[32 * i + lane] = r[i];                                                \
  }
LOAD_MATRICES(load_1, 1, "", "%0", "=r"(r[0]))
LOAD_MATRICES(load_2, 2, "", "%0,%1", "=r"(r[0]), "=r"(r[1]))
LOAD_MATRICES(load_4, 4, "", "%0,%1,%2,%3", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]))
LOAD_MATRICES(load_1_trans, 1, ".trans", "%0", "=r"(r[0]))
LOAD_MATRICES(load_2_trans, 2, ".trans", "%0,%1", "=r"(r[0]), "=r"(r[1]))
LOAD_MATRICES(load_4_trans, 4, ".trans", "%0,%1,%2,%3", "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]))

void test_matrix_loads() {
  const auto x = random_words(128);
  const auto element = [&](int matrix, int row, int column) {  // row r of matrix m lies at row 8 m + r
    return x[(8 * matrix + row) * 4 + column / 2] >> 16 * (column % 2) & 0xffff;
  };
  const test::DeviceArray<u32> device_x(x);
  void (*const kernels[])(const u32*, u32*) = {load_1, load_2, load_4, load_1_trans, load_2_trans, load_4_trans};
  for (int k = 0; k < 6; ++k) {
    const int count = 1 << k % 3;
    const test::DeviceArray<u32> y(32 * count);
    kernels[k]<<<1, 32>>>(device_x.data(), y.data());
    expect_no_defect("ldmatrix");
    const auto got = y.values();
    for (int m = 0; m < count; ++m) {
      for (int lane = 0; lane < 32; ++lane) {
        const int row = lane / 4, column = lane % 4 * 2;
        const u32 expected = k < 3 ? element(m, row, column) | element(m, row, column + 1) << 16
                                   : element(m, column, row) | element(m, column + 1, row) << 16;
        CHECK(got[32 * m + lane] == expected, "ldmatrix %d, matrix %d, lane %d", k, m, lane);
      }
    }
  }
}

#define MULTIPLY(name, shape, type, A, B, operands, ...)                                                 \
  __global__ void name(const u32* a, const u32* b, float* d) {                                           \
    const int lane = threadIdx.x;                                                                        \
    u32 x[A], y[B];                                                                                      \
    float z[4];                                                                                          \
    for (int i = 0; i < A; ++i) x[i] = a[32 * i + lane];                                                 \
    for (int i = 0; i < B; ++i) y[i] = b[32 * i + lane];                                                 \
    for (int i = 0; i < 4; ++i) z[i] = d[32 * i + lane];                                                 \
    asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 {%0,%1,%2,%3}, " operands \
                 ", {%0,%1,%2,%3};"                                                                      \
                 : "+f"(z[0]), "+f"(z[1]), "+f"(z[2]), "+f"(z[3])                                        \
                 : __VA_ARGS__);                                                                         \
    for (int i = 0; i < 4; ++i) d[32 * i + lane] = z[i];                                                 \
  }
#define FOUR_TWO "{%4,%5,%6,%7}, {%8,%9}", "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1])
#define TWO_ONE "{%4,%5}, {%6}", "r"(x[0]), "r"(x[1]), "r"(y[0])
#define MULTIPLY_(...) MULTIPLY(__VA_ARGS__)
MULTIPLY_(mma_k16_f16, "m16n8k16", "f16", 4, 2, FOUR_TWO)
MULTIPLY_(mma_k16_bf16, "m16n8k16", "bf16", 4, 2, FOUR_TWO)
MULTIPLY_(mma_k8_f16, "m16n8k8", "f16", 2, 1, TWO_ONE)
MULTIPLY_(mma_k8_bf16, "m16n8k8", "bf16", 2, 1, TWO_ONE)
MULTIPLY_(mma_k8_tf32, "m16n8k8", "tf32", 4, 2, FOUR_TWO)
MULTIPLY_(mma_k4_tf32, "m16n8k4", "tf32", 2, 1, TWO_ONE)

u32 bits_of(float x, int kind) {  // 0 f16, 1 bf16, 2 tf32
  u32 bits = 0;
  if (kind == 0) {
    const __half h = __float2half(x);
    std::memcpy(&bits, &h, 2);
  } else {
    std::memcpy(&bits, &x, 4);
    if (kind == 1) bits >>= 16;
  }
  return bits;
}

// Fragments by the tables of the PTX manual, element by element.
void test_multiplication(const char* name, void (*kernel)(const u32*, const u32*, float*), int kind, int k_extent,
                         bool whole) {
  test::Random random(7);
  const auto number = [&] {
    const int n = random.integer(-32, 32);
    return static_cast<float>(whole ? n : n * (random.integer(0, 1) ? 0.37f : 91.0f));
  };
  const auto kept = [&](float x) {  // a number that the type holds
    u32 bits;
    if (kind == 0) return __half2float(__float2half(x));
    std::memcpy(&bits, &x, 4);
    bits &= kind == 1 ? 0xffff0000u : 0xffffe000u;
    std::memcpy(&x, &bits, 4);
    return x;
  };
  std::vector<float> a(16 * k_extent), b(k_extent * 8), c(16 * 8);
  for (float& v : a) v = kept(number());
  for (float& v : b) v = kept(number());
  for (float& v : c) v = number();
  const int per_word = kind == 2 ? 1 : 2;
  std::vector<u32> a_words(32 * 16 * k_extent / 32 / per_word), b_words(32 * 8 * k_extent / 32 / per_word);
  std::vector<float> d_words(128);
  for (int lane = 0; lane < 32; ++lane) {
    const int group = lane / 4, in_group = lane % 4;
    const int a_count = 16 * k_extent / 32, b_count = 8 * k_extent / 32;  // elements of a lane
    for (int i = 0; i < a_count; ++i) {
      int row, column;
      if (kind == 2) {  // a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4)
        row = i % 2 == 0 ? group : group + 8;
        column = i < 2 ? in_group : in_group + 4;
      } else {  // a0, a1 and a4, a5: row g; the others: row g + 8; from a4 on: columns from 8
        row = i % 4 < 2 ? group : group + 8;
        column = in_group * 2 + i % 2 + (i >= 4 ? 8 : 0);
      }
      a_words[i / per_word * 32 + lane] |= bits_of(a[row * k_extent + column], kind) << 16 * (i % per_word);
    }
    for (int i = 0; i < b_count; ++i) {
      const int row = kind == 2 ? (i == 0 ? in_group : in_group + 4) : in_group * 2 + i % 2 + (i >= 2 ? 8 : 0);
      b_words[i / per_word * 32 + lane] |= bits_of(b[row * 8 + group], kind) << 16 * (i % per_word);
    }
    for (int i = 0; i < 4; ++i) d_words[32 * i + lane] = c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + i % 2];
  }
  const test::DeviceArray<u32> device_a(a_words), device_b(b_words);
  const test::DeviceArray<float> device_d(d_words);
  kernel<<<1, 32>>>(device_a.data(), device_b.data(), device_d.data());
  expect_no_defect(name);
  const auto got = device_d.values();
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = (i < 2 ? lane / 4 : lane / 4 + 8), column = lane % 4 * 2 + i % 2;
      double sum = c[row * 8 + column], magnitude = std::fabs(sum);
      for (int k = 0; k < k_extent; ++k) {
        const double product = static_cast<double>(a[row * k_extent + k]) * b[k * 8 + column];
        sum += product;
        magnitude += std::fabs(product);
      }
      // Cut off to 24 bits after each group of products.
      const double bound = whole ? 0 : magnitude * 0x1p-23 * (k_extent / (kind == 2 ? 4 : 8));
      CHECK(std::fabs(got[32 * i + lane] - sum) <= bound, "%s, (%d, %d): %g, expected %g", name, row, column,
            got[32 * i + lane], sum);
    }
  }
}

// -- control flow

__global__ void ways(const int* x, int* y, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    int v = x[i];
    switch (v & 7) {
      case 0:
        v = v * 3 + 1;
        break;
      case 1:
        v = v / 3;
        break;
      case 2:
        v = v ^ 0x55;
        break;
      case 3:
        v = -v;
        break;
      case 4:
        v = v * v;
        break;
      case 5:
        v = v << 3;
        break;
      case 6:
        v = v % 13;
        break;
      default:
        v = 77;
    }
    y[i] = v;
  }
}

// A jump by a table, which nvcc seldom makes.
__global__ void table_of_jumps(const int* x, int* y) {
  int v;
  asm volatile(
      "{ places: .branchtargets zero, one, two; brx.idx %1, places;"
      " zero: mov.s32 %0, 10; bra done; one: mov.s32 %0, 20; bra done; two: mov.s32 %0, 30; done: }"
      : "=r"(v)
      : "r"(x[threadIdx.x]));
  y[threadIdx.x] = v;
}

struct Pair {
  double first;
  int second[3];
};

__noinline__ __device__ Pair turned(Pair p, int by) {
  Pair r = p;
  for (int k = 0; k < 3; ++k) r.second[(k + by) % 3] = p.second[k];
  r.first = p.first * by;
  return r;
}

__noinline__ __device__ unsigned ackermann(unsigned m, unsigned n) {
  return m == 0 ? n + 1 : ackermann(m - 1, n == 0 ? 1 : ackermann(m, n - 1));
}

__global__ void calls(Pair p, double* y) {
  const int i = threadIdx.x;
  const Pair r = turned(p, i);
  y[4 * i] = r.first;
  for (int k = 0; k < 3; ++k) y[4 * i + 1 + k] = r.second[k];
  if (i == 0) y[0] = ackermann(2, 3);
}

__global__ void indices(u32* y) {
  const u32 block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const u32 thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  u32 lane, less, dynamic;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  asm volatile("mov.u32 %0, %%lanemask_lt;" : "=r"(less));
  asm volatile("mov.u32 %0, %%dynamic_smem_size;" : "=r"(dynamic));
  const u32 threads = blockDim.x * blockDim.y * blockDim.z;
  y[block * threads + thread] = lane * 1000 + static_cast<u32>(__popc(less)) + dynamic + (__activemask() >> lane & 1);
}

__global__ void leave(int* y, int n) {
  const int i = threadIdx.x;
  if (i >= n) asm volatile("exit;");
  y[i] = i;
}

__global__ void fail_assertion(const int* x) {
  assert(x[threadIdx.x] != 3);
}
__global__ void fail_trap(const int* x) {
  if (x[threadIdx.x] == 3) __trap();
}

void test_control_flow() {
  std::vector<int> x(64);
  for (int i = 0; i < 64; ++i) x[i] = i * 37 - 900;
  const test::DeviceArray<int> device_x(x), y(64);
  ways<<<1, 32>>>(device_x.data(), y.data(), 64);
  expect_no_defect("ways");
  for (int i = 0; i < 64; ++i) {
    const int v = x[i];
    const int expected[] = {v * 3 + 1, v / 3, v ^ 0x55, -v, v * v, static_cast<int>(static_cast<u32>(v) << 3),
                            v % 13,    77};
    CHECK(y.values()[i] == expected[v & 7], "switch, %d", v);
  }

  const test::DeviceArray<int> places(std::vector<int>{2, 0, 1, 1});
  table_of_jumps<<<1, 4>>>(places.data(), y.data());
  expect_no_defect("table_of_jumps");
  const int reached[] = {30, 10, 20, 20};
  for (int i = 0; i < 4; ++i) CHECK(y.values()[i] == reached[i], "table of jumps, %d", i);

  const Pair p = {1.5, {10, 20, 30}};
  const test::DeviceArray<double> z(32);
  calls<<<1, 8>>>(p, z.data());
  expect_no_defect("calls");
  const auto got = z.values();
  for (int i = 1; i < 8; ++i) {
    CHECK(got[4 * i] == 1.5 * i, "call, first of %d", i);
    for (int k = 0; k < 3; ++k) CHECK(got[4 * i + 1 + (k + i) % 3] == p.second[k], "call, %d of %d", k, i);
  }
  CHECK(got[0] == 9, "recursion: %g", got[0]);

  const dim3 grid(3, 2, 2), block(5, 4, 3);
  const test::DeviceArray<u32> numbers(12 * 60);
  indices<<<grid, block, 64>>>(numbers.data());
  expect_no_defect("indices");
  const auto list = numbers.values();
  for (u32 i = 0; i < list.size(); ++i) {
    const u32 lane = i % 60 % 32;
    CHECK(list[i] == lane * 1000 + lane + 64 + 1, "index %u: %u", i, list[i]);
  }

  const test::DeviceArray<int> few(10);
  leave<<<1, 32>>>(few.data(), 10);
  expect_no_defect("leave");
  for (int i = 0; i < 10; ++i) CHECK(few.values()[i] == i, "leave, %d", i);

  const test::DeviceArray<int> with_three(std::vector<int>{1, 2, 3, 4});
  for (void (*const kernel)(const int*) : {fail_assertion, fail_trap}) {
    kernel<<<1, 4>>>(with_three.data());
    CHECK(cudaDeviceSynchronize() == cudaErrorAssert, "a failed assertion");
    CHECK(std::string(cuda_emulation_take_defect()).starts_with("trap"), "a failed assertion");
  }
}

}  // namespace

int main() {
  for (const char* schedule : test::schedules) {
    cuda_emulation_set_schedule(schedule);
    test_shuffles();
    test_votes();
    test_barriers();
    test_memories<signed char>("char");
    test_memories<unsigned short>("short");
    test_memories<int>("int");
    test_memories<long long>("long long");
    test_memories<float>("float");
    test_memories<double>("double");
    test_memories<uchar4>("uchar4");
    test_memories<short2>("short2");
    test_memories<float2>("float2");
    test_memories<float4>("float4");
    test_memories<double2>("double2");
    test_small_integers();
    test_atomics();
    test_copies<4>();
    test_copies<8>();
    test_copies<16>();
    test_matrix_loads();
    for (const bool whole : {true, false}) {
      test_multiplication("mma k16 f16", mma_k16_f16, 0, 16, whole);
      test_multiplication("mma k16 bf16", mma_k16_bf16, 1, 16, whole);
      test_multiplication("mma k8 f16", mma_k8_f16, 0, 8, whole);
      test_multiplication("mma k8 bf16", mma_k8_bf16, 1, 8, whole);
      test_multiplication("mma k8 tf32", mma_k8_tf32, 2, 8, whole);
      test_multiplication("mma k4 tf32", mma_k4_tf32, 2, 4, whole);
    }
    test_control_flow();
  }
  test_variables();

  const auto x = random_words(64);
  const test::DeviceArray<u32> device_x(x), sum(std::vector<u32>{0});
  reductions<<<1, 64>>>(device_x.data(), sum.data());
  expect_no_defect("reductions");
  u32 expected = 0;
  for (const u32 v : x) expected += v;
  CHECK(sum.values()[0] == expected, "red.add");
  return test::summary("block_instructions");
}
