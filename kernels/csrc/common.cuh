// What all kernels share: 16-byte vectors of elements, where stages lie in memory, sums over a warp.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

constexpr int kWarp = 32;
constexpr int kMostStages = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Elements in 16 bytes. C is a multiple of 8, so a vector lies wholly inside or wholly outside of everything.
template <class T>
constexpr int kVector = 16 / sizeof(T);

// 16 bytes, or zeros. Predicated rather than branched around, so that all loads of a batch are under way at once.
__device__ __forceinline__ uint4 load(const void* address, bool wanted) {
  uint4 vector;
  asm("{\n"
      ".reg .pred wanted;\n"
      "setp.ne.b32 wanted, %5, 0;\n"
      "mov.b32 %0, 0;\n"
      "mov.b32 %1, 0;\n"
      "mov.b32 %2, 0;\n"
      "mov.b32 %3, 0;\n"
      "@wanted ld.global.nc.v4.b32 {%0, %1, %2, %3}, [%4];\n"
      "}"
      : "=&r"(vector.x), "=&r"(vector.y), "=&r"(vector.z), "=&r"(vector.w)
      : "l"(__cvta_generic_to_global(address)), "r"(static_cast<int>(wanted)));
  return vector;
}

// 16 bytes at once; left to itself the compiler splits some of these stores in four.
__device__ __forceinline__ void store(void* address, uint4 vector) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(address)), "r"(vector.x), "r"(vector.y), "r"(vector.z), "r"(vector.w)
               : "memory");
}

__device__ __forceinline__ void unpack(uint4 vector, float (&value)[4], float) {
  value[0] = __uint_as_float(vector.x);
  value[1] = __uint_as_float(vector.y);
  value[2] = __uint_as_float(vector.z);
  value[3] = __uint_as_float(vector.w);
}

__device__ __forceinline__ uint4 pack(const float (&value)[4], float) {
  return {__float_as_uint(value[0]), __float_as_uint(value[1]), __float_as_uint(value[2]), __float_as_uint(value[3])};
}

__device__ __forceinline__ void unpack(uint4 vector, float (&value)[8], __half) {
  const unsigned word[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int w = 0; w < 4; w++) {
    value[2 * w] = __half2float(__ushort_as_half(static_cast<unsigned short>(word[w])));
    value[2 * w + 1] = __half2float(__ushort_as_half(static_cast<unsigned short>(word[w] >> 16)));
  }
}

__device__ __forceinline__ uint4 pack(const float (&value)[8], __half) {
  unsigned word[4];
#pragma unroll
  for (int w = 0; w < 4; w++)
    word[w] = __half_as_ushort(__float2half_rn(value[2 * w])) |
              static_cast<unsigned>(__half_as_ushort(__float2half_rn(value[2 * w + 1]))) << 16;
  return {word[0], word[1], word[2], word[3]};
}

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void unpack(uint4 vector, float (&value)[8], __nv_bfloat16) {
  const unsigned word[4] = {vector.x, vector.y, vector.z, vector.w};
#pragma unroll
  for (int w = 0; w < 4; w++) {
    value[2 * w] = __uint_as_float(word[w] << 16);
    value[2 * w + 1] = __uint_as_float(word[w] & 0xffff0000u);
  }
}

__device__ __forceinline__ uint4 pack(const float (&value)[8], __nv_bfloat16) {
  unsigned word[4];
#pragma unroll
  for (int w = 0; w < 4; w++)
    word[w] = __bfloat16_as_ushort(__float2bfloat16_rn(value[2 * w])) |
              static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(value[2 * w + 1]))) << 16;
  return {word[0], word[1], word[2], word[3]};
}
#endif

// Element k of a stage lies at (k / run) * pitch + k % run. Channels first: one run of all elements; channels last:
// a run of C channels per pixel, and the pixels M * C apart. Both layouts are one scheme, so one kernel serves both.
struct Layout {
  unsigned run;
  long long pitch;

  __device__ __forceinline__ long long offset(unsigned k) const { return k / run * pitch + k % run; }
};

// A thread's way along k in equal steps: adds and one comparison, where a division per step would cost more than the
// arithmetic it serves.
class Walk {
 public:
  __device__ __forceinline__ Walk(Layout layout, unsigned k, unsigned step)
      : offset_(layout.offset(k)),
        within_(k % layout.run),
        run_(layout.run),
        step_(layout.offset(step)),
        step_within_(step % layout.run),
        wrap_(layout.pitch - layout.run) {}

  __device__ __forceinline__ long long offset() const { return offset_; }

  __device__ __forceinline__ void advance() {
    offset_ += step_;
    within_ += step_within_;
    if (within_ >= run_) {
      within_ -= run_;
      offset_ += wrap_;
    }
  }

 private:
  long long offset_;
  unsigned within_, run_;
  long long step_;
  unsigned step_within_;
  long long wrap_;
};

// The same way where every stage is contiguous.
class StraightWalk {
 public:
  __device__ __forceinline__ StraightWalk(Layout, unsigned k, unsigned step) : offset_(k), step_(step) {}
  __device__ __forceinline__ long long offset() const { return offset_; }
  __device__ __forceinline__ void advance() { offset_ += step_; }

 private:
  long long offset_;
  unsigned step_;
};

// Stages of one sample in one tensor.
template <class T>
struct Stacked {
  const T* first;
  int row;

  __device__ __forceinline__ const T* operator[](int stage) const {
    return first + static_cast<long long>(stage) * row;
  }
};

// Stages that are tensors of their own, where the index is known at compile time: the pointers stay parameters.
template <class T>
struct Separate {
  const T* tensor[kMostStages];
  long long sample;

  __device__ __forceinline__ const T* operator[](int stage) const { return tensor[stage] + sample; }
};

// The same for any index: a table in shared memory, since indexed parameters would go through local memory.
template <class T>
struct Table {
  const T* const* tensor;
  long long sample;

  __device__ __forceinline__ const T* operator[](int stage) const { return tensor[stage] + sample; }
};

template <class T>
__device__ __forceinline__ Table<T> make_table(const Separate<T>& separate) {
  __shared__ const T* tensor[kMostStages];
  if (threadIdx.x == 0)
#pragma unroll
    for (int i = 0; i < kMostStages; i++) tensor[i] = separate.tensor[i];
  __syncthreads();
  return {tensor, separate.sample};
}

// Sum over a warp in a fixed order, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int mask = kWarp / 2; mask; mask >>= 1) value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

// Sums of COUNT * 32 values over a warp in a fixed order; lane l is left with those from l * COUNT on. Each step halves
// the values that a lane still works on, a fifth of the shuffles of one sum after the other.
template <int COUNT, int MASK = kWarp / 2>
__device__ __forceinline__ void warp_sums(float (&value)[COUNT * kWarp]) {
  const bool upper = threadIdx.x & MASK;
#pragma unroll
  for (int i = 0; i < COUNT * MASK; i++) {
    const float low = value[i], high = value[i + COUNT * MASK];
    value[i] = (upper ? high : low) + __shfl_xor_sync(kAllLanes, upper ? low : high, MASK);
  }
  if constexpr (MASK > 1) warp_sums<COUNT, MASK / 2>(value);
}

#define MINET_POINTERS(T)                                                                                           \
  const T *f0, const T *f1, const T *f2, const T *f3, const T *f4, const T *f5, const T *f6, const T *f7,           \
      const T *f8, const T *f9, const T *f10, const T *f11, const T *f12, const T *f13, const T *f14, const T *f15, \
      const T *f16, const T *f17, const T *f18, const T *f19, const T *f20, const T *f21, const T *f22,             \
      const T *f23, const T *f24, const T *f25, const T *f26, const T *f27, const T *f28, const T *f29,             \
      const T *f30, const T *f31
#define MINET_NAMES                                                                                             \
  f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14, f15, f16, f17, f18, f19, f20, f21, f22, f23, \
      f24, f25, f26, f27, f28, f29, f30, f31
