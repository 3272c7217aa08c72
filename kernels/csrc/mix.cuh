// out_i = sum_j B_ij in_j over stages: with B = A it is H = A F, with B the transpose of A it folds A into weights.
// Sums are float32 and rounded once.
#pragma once
#include "common.cuh"

// Each thread takes 16 bytes of every stage, keeps them as they are in its own column of shared memory, and makes kRows
// outputs at a time: unpacking once for several outputs keeps the arithmetic below the memory time, and registers could
// not hold the stages unpacked. blockDim.x * stages is at most kColumns.
template <class T, bool TRANSPOSED, class Stages>
__device__ __forceinline__ void combine(const Stages& stage, Layout in, Layout out, unsigned k, unsigned elements,
                                        int stages, const float* mixing, T* first, int row) {
  constexpr int kRows = 4, kGroup = 4, kBatch = 8, kSize = kVector<T>, kColumns = 2048;
  __shared__ uint4 columns[kColumns];
  __shared__ __align__(16) float matrix[kMostStages][kMostStages];
  uint4* const column = columns + threadIdx.x;
  const bool inside = k < elements;

  const long long from = in.offset(k);
#pragma unroll
  for (int begin = 0; begin < kMostStages; begin += kBatch) {
    if (begin >= stages || !inside) break;
    uint4 x[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; j++) x[j] = load(stage[begin + j] + from, begin + j < stages);
#pragma unroll
    for (int j = 0; j < kBatch; j++)
      if (begin + j < stages) column[(begin + j) * blockDim.x] = x[j];
  }
  const int padded = (stages + kGroup - 1) / kGroup * kGroup;
  for (int entry = threadIdx.x; entry < padded * padded; entry += blockDim.x) {
    const int i = entry / padded, j = entry % padded;
    float value = 0;
    if (i < stages && j < stages) value = mixing[TRANSPOSED ? j * stages + i : i * stages + j];
    matrix[i][j] = value;
  }
  __syncthreads();
  if (!inside) return;

  T* target = first + out.offset(k);
#pragma unroll 1
  for (int i = 0; i < stages; i += kRows) {
    float sum[kRows][kSize] = {};
#pragma unroll 1
    for (int group = 0; group < stages; group += kGroup) {
      float factor[kRows][kGroup];
#pragma unroll
      for (int r = 0; r < kRows; r++)
        unpack(*reinterpret_cast<const uint4*>(&matrix[i + r][group]), factor[r], 0.0f);
#pragma unroll
      for (int j = 0; j < kGroup; j++) {
        if (group + j >= stages) break;
        float value[kSize];
        unpack(column[(group + j) * blockDim.x], value, T{});
#pragma unroll
        for (int r = 0; r < kRows; r++)
#pragma unroll
          for (int e = 0; e < kSize; e++) sum[r][e] = fmaf(factor[r][j], value[e], sum[r][e]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++)
      if (i + r < stages) store(target + static_cast<long long>(i + r) * row, pack(sum[r], T{}));
  }
}

// H = A F: blockIdx.y is the sample.
template <class T, class Stages>
__device__ __forceinline__ void mix(const Stages& stage, Layout in, Layout out, int stages, unsigned elements,
                                    const float* mixing, int row, T* mixed) {
  const unsigned k = (blockIdx.x * blockDim.x + threadIdx.x) * kVector<T>;
  const long long sample = blockIdx.y;
  combine<T, false>(stage, in, out, k, elements, stages, mixing + sample * stages * stages,
                            mixed + sample * stages * elements, row);
}

// W'_j = sum_i A_ij W_i: the output channels of W [outputs, stages, inner] are runs, as pixels are in channels-last.
template <class T>
__device__ __forceinline__ void fold(const T* weight, const float* mixing, int stages, int outputs, int inner,
                                     T* folded) {
  const unsigned k = (blockIdx.x * blockDim.x + threadIdx.x) * kVector<T>;
  const long long sample = blockIdx.y, elements = static_cast<long long>(outputs) * inner;
  const Layout layout{static_cast<unsigned>(inner), static_cast<long long>(stages) * inner};
  combine<T, true>(Stacked<T>{weight, inner}, layout, layout, k, static_cast<unsigned>(elements), stages,
                                mixing + sample * stages * stages, folded + sample * stages * elements, inner);
}
