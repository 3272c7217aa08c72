// Partial Gram matrices -> A = I + gain * softmax(energy). One CTA per sample: the partials lie in the L2 cache, and a
// second kernel to share the work would cost more than it saves.
#pragma once
#include "common.cuh"

enum class Mode { kPaper, kReleased, kCosine };

constexpr float kGramFloor = 1e-12f;

// 1024 threads. Several threads share an entry of the Gram matrix, each with several running sums, and a fixed tree
// joins them: the error grows with the depth of that tree rather than with the number of partials.
template <Mode MODE>
__device__ __forceinline__ void affinity(const float* partials, int stages, int splits, float temperature, float gain,
                                         float* mixing) {
  constexpr int kThreads = 1024, kSums = 8;
  __shared__ float gram[kThreads];
  const int thread = threadIdx.x, entries = stages * stages;
  const int sharers = min(kThreads / entries, kWarp), share = thread / entries;

  float sum[kSums] = {};
  if (share < sharers) {
    const float* source = partials + static_cast<long long>(blockIdx.x) * splits * entries + thread % entries;
    const long long step = static_cast<long long>(sharers) * entries;
    source += share * static_cast<long long>(entries);
    int left = (splits - share + sharers - 1) / sharers;
    // Eight loads without a branch between them, so that they are under way at once.
#pragma unroll 1
    for (; left >= kSums; left -= kSums, source += kSums * step)
#pragma unroll
      for (int s = 0; s < kSums; s++) sum[s] += source[s * step];
#pragma unroll 1
    for (; left > 0; left--, source += step) sum[0] += *source;
  }
  gram[thread] = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
  for (int width = kWarp / 2; width; width /= 2) {
    __syncthreads();
    if (share < width && share + width < sharers) gram[thread] += gram[thread + width * entries];
  }
  __syncthreads();

  const bool damaged = __syncthreads_or(thread < entries && !isfinite(gram[thread]));
  const int row = thread / kWarp, column = thread % kWarp;
  if (row >= stages) return;
  const bool inside = column < stages;
  const float entry = inside ? gram[row * stages + column] : 0.0f;
  float energy = entry;
  if (MODE == Mode::kReleased) energy = -entry;
  if (MODE == Mode::kCosine) {
    const float across = inside ? gram[column * stages + column] : 1.0f;
    // One norm after the other: their product could leave float32 where each does not.
    energy = entry / sqrtf(fmaxf(gram[row * stages + row], kGramFloor)) / sqrtf(fmaxf(across, kGramFloor)) / temperature;
  }
  float top = inside ? energy : -INFINITY;
#pragma unroll
  for (int mask = kWarp / 2; mask; mask >>= 1) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, mask));
  const float weight = inside ? expf(energy - top) : 0.0f;
  const float softmax = weight / warp_sum(weight);
  if (!inside) return;
  const float mixed = fmaf(gain, softmax, row == column ? 1.0f : 0.0f);
  // NaN for all, so that no part of a damaged slice looks like an image.
  mixing[static_cast<long long>(blockIdx.x) * entries + row * stages + column] = damaged ? NAN : mixed;
}
