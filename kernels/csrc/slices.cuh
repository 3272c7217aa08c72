// Slices that stay on the device: their statistics, normalisation and back, and the matrix products of a separable
// k-space operation. All float32 outside.
#pragma once
#include "common.cuh"

// Sums of x - x_0 and its square over one of gridDim.x parts of a slice; 256 threads. In float64, which is cheap beside
// the load, and about the first pixel, so that a constant slice has a deviation of exactly 0.
__device__ __forceinline__ void moment_sums(const float* slices, int pixels, double* sums) {
  constexpr int kWarps = 8;
  __shared__ double shared[kWarps][2];
  const float* slice = slices + static_cast<long long>(blockIdx.y) * pixels;
  const unsigned length = (static_cast<unsigned>(pixels) + gridDim.x - 1) / gridDim.x;
  const unsigned begin = blockIdx.x * length, end = min(begin + length, static_cast<unsigned>(pixels));
  const double origin = slice[0];
  double sum = 0, squares = 0;
  for (unsigned k = begin + threadIdx.x; k < end; k += blockDim.x) {
    const double value = slice[k] - origin;
    sum += value;
    squares = fma(value, value, squares);
  }
  sum = warp_sum(sum);
  squares = warp_sum(squares);
  if (threadIdx.x % kWarp == 0) {
    shared[threadIdx.x / kWarp][0] = sum;
    shared[threadIdx.x / kWarp][1] = squares;
  }
  __syncthreads();
  if (threadIdx.x >= 2) return;
  double total = 0;
#pragma unroll
  for (int w = 0; w < kWarps; w++) total += shared[w][threadIdx.x];
  sums[(static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * 2 + threadIdx.x] = total;
}

// Mean and population standard deviation of a slice from its sums; one warp.
__device__ __forceinline__ void moments(const float* slices, const double* sums, int pixels, int parts,
                                        float* statistics) {
  const double* mine = sums + static_cast<long long>(blockIdx.x) * parts * 2;
  double sum = 0, squares = 0;
#pragma unroll 1
  for (int part = threadIdx.x; part < parts; part += kWarp) {
    sum += mine[part * 2];
    squares += mine[part * 2 + 1];
  }
  sum = warp_sum(sum);
  squares = warp_sum(squares);
  if (threadIdx.x != 0) return;
  const double mean = sum / pixels, variance = squares / pixels - mean * mean;
  const double origin = slices[static_cast<long long>(blockIdx.x) * pixels];
  statistics[blockIdx.x * 2] = static_cast<float>(origin + mean);
  statistics[blockIdx.x * 2 + 1] = static_cast<float>(sqrt(variance < 0 ? 0 : variance));
}

// Applies a function to 1024 pixels of a slice per CTA of 256 threads.
template <class Function>
__device__ __forceinline__ void per_pixel(const float* slices, int pixels, float* result, Function function) {
  constexpr int kPerThread = 4, kThreads = 256;
  const long long slice = static_cast<long long>(blockIdx.y) * pixels;
  const unsigned first = blockIdx.x * (kPerThread * kThreads) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kPerThread; i++) {
    const unsigned k = first + i * kThreads;
    if (k < pixels) result[slice + k] = function(slices[slice + k]);
  }
}

__device__ __forceinline__ void normalise(const float* slices, const float* statistics, int pixels, float epsilon,
                                          float clip, float* normal) {
  const float mean = statistics[blockIdx.y * 2], deviation = statistics[blockIdx.y * 2 + 1] + epsilon;
  per_pixel(slices, pixels, normal, [=](float value) {
    const float scaled = (value - mean) / deviation;
    // Not fminf and fmaxf: these would turn NaN into a number.
    return scaled > clip ? clip : scaled < -clip ? -clip : scaled;
  });
}

__device__ __forceinline__ void denormalise(const float* normal, const float* statistics, int pixels, float epsilon,
                                            float* slices) {
  const float mean = statistics[blockIdx.y * 2], deviation = statistics[blockIdx.y * 2 + 1] + epsilon;
  per_pixel(normal, pixels, slices, [=](float value) { return fmaf(value, deviation, mean); });
}

// C = scale * A B (+ addend_scale * E), row-major, a 32 x 32 tile per CTA of 256 threads, four outputs per thread.
template <bool ADD>
__device__ __forceinline__ void matmul(const float* left, const float* right, const float* addend, int rows, int inner,
                                       int columns, int left_shared, int right_shared, float scale,
                                       float addend_scale, float* product) {
  constexpr int kTile = 32, kThreads = 256, kOutputs = 4;
  __shared__ float a[kTile][kTile + 1];
  __shared__ __align__(16) float b[kTile][kTile];
  const long long sample = blockIdx.z;
  if (!left_shared) left += sample * rows * inner;
  if (!right_shared) right += sample * inner * columns;
  const int top = blockIdx.y * kTile, start = blockIdx.x * kTile;
  const int row = threadIdx.x / (kTile / kOutputs), column = threadIdx.x % (kTile / kOutputs) * kOutputs;

  float total[kOutputs] = {};
  for (int k = 0; k < inner; k += kTile) {
#pragma unroll
    for (int i = 0; i < kTile * kTile / kThreads; i++) {
      const int place = threadIdx.x + i * kThreads, y = place / kTile, x = place % kTile;
      a[y][x] = top + y < rows && k + x < inner ? left[static_cast<long long>(top + y) * inner + k + x] : 0.0f;
      b[y][x] = k + y < inner && start + x < columns ? right[static_cast<long long>(k + y) * columns + start + x] : 0.0f;
    }
    __syncthreads();
    // A sum per tile, then a sum of tiles: less rounding than one long sum.
    float sum[kOutputs] = {};
#pragma unroll
    for (int i = 0; i < kTile; i++) {
      float value[kOutputs];
      unpack(*reinterpret_cast<const uint4*>(&b[i][column]), value, 0.0f);
#pragma unroll
      for (int o = 0; o < kOutputs; o++) sum[o] = fmaf(a[row][i], value[o], sum[o]);
    }
#pragma unroll
    for (int o = 0; o < kOutputs; o++) total[o] += sum[o];
    __syncthreads();
  }
  if (top + row >= rows) return;
  const long long place = (sample * rows + top + row) * columns + start + column;
#pragma unroll
  for (int o = 0; o < kOutputs; o++)
    if (start + column + o < columns) {
      float value = scale * total[o];
      if (ADD) value = fmaf(addend_scale, addend[place + o], value);
      product[place + o] = value;
    }
}
