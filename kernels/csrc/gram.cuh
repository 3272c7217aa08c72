// Split-K Gram matrices: each CTA sums G_ij = sum_k F_ik F_jk over its part of k and writes a partial. Summing the
// partials in a fixed order afterwards keeps the result the same bits on every run and every GPU; atomics would not.
#pragma once
#include "common.cuh"

// D += A B, 16 x 16 times 16 x 8. The k index of a Gram sum may be permuted freely, so Turing's two halves of k are
// simply two products.
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], __half) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3},{%4,%5},{%6},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                                         __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

__device__ __forceinline__ float* partial(float* partials, int stages) {
  return partials + (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * (stages * stages);
}

// 16-bit elements on tensor cores, TILES * 16 stages, 256 threads. For a Gram matrix the registers that hold eight rows
// as half of the left operand also hold them as the right operand, and since k may be permuted, 16 bytes straight from
// memory are two such registers of k and two of k + 8: no shuffles, no shared memory in the loop.
template <class T, int TILES, class Stages, class Way>
__device__ __forceinline__ void gram_tensor_cores(const Stages& stage, Way way, int stages, unsigned begin,
                                                  unsigned end, float* partials) {
  constexpr int kWarps = 8;
  constexpr int kGroups = 2 * TILES;            // of eight stages
  constexpr int kBlocks = TILES == 1 ? 2 : 6;   // 16 x 8 blocks that hold the upper triangle
  constexpr int kUnroll = TILES == 1 ? 4 : 2;   // vectors in flight per stage
  constexpr unsigned kStep = kWarps * 4 * kVector<T>;
  __shared__ float sums[kWarps][kBlocks][4][kWarp];
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, quad = lane / 4;

  const T* row[kGroups];
  bool present[kGroups];
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
    present[g] = quad + 8 * g < stages;
    row[g] = stage[present[g] ? quad + 8 * g : 0];
  }

  float sum[kBlocks][4] = {};
  const unsigned ahead = lane % 4 * kVector<T>;
  for (unsigned k = begin + warp * 4 * kVector<T>; k < end; k += kUnroll * kStep) {
    uint4 x[kUnroll][kGroups];
#pragma unroll
    for (int u = 0; u < kUnroll; u++) {
      const bool inside = k + u * kStep + ahead < end;
#pragma unroll
      for (int g = 0; g < kGroups; g++) x[u][g] = load(row[g] + way.offset(), inside && present[g]);
      way.advance();
    }
#pragma unroll
    for (int u = 0; u < kUnroll; u++)
#pragma unroll
      for (int tile = 0, block = 0; tile < TILES; tile++) {
        const uint4 upper = x[u][2 * tile], lower = x[u][2 * tile + 1];
        const unsigned a[2][4] = {{upper.x, lower.x, upper.y, lower.y}, {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
        for (int g = 2 * tile; g < kGroups; g++, block++) {
          const unsigned b[2][2] = {{x[u][g].x, x[u][g].y}, {x[u][g].z, x[u][g].w}};
          multiply(sum[block], a[0], b[0], T{});
          multiply(sum[block], a[1], b[1], T{});
        }
      }
  }

#pragma unroll
  for (int block = 0; block < kBlocks; block++)
#pragma unroll
    for (int e = 0; e < 4; e++) sums[warp][block][e][lane] = sum[block][e];
  __syncthreads();
  for (int entry = threadIdx.x; entry < stages * stages; entry += blockDim.x) {
    const int i = min(entry / stages, entry % stages), j = max(entry / stages, entry % stages);
    const int block = i < 16 ? j / 8 : j / 8 + 2;
    const int element = i / 8 % 2 * 2 + j % 2, owner = i % 8 * 4 + j % 8 / 2;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) total += sums[w][block][element][owner];
    partial(partials, stages)[entry] = total;
  }
}

// float32, up to 12 stages, 128 threads: FMA, since TF32 would lose bits. Every thread holds the whole upper triangle
// in registers, so that F is read once.
template <class Stages, class Way>
__device__ __forceinline__ void gram_triangle(const Stages& stage, Way way, int stages, unsigned begin, unsigned end,
                                              float* partials) {
  constexpr int kStages = 12, kPerLane = 3, kWarps = 4;  // 78 entries, of 96 places
  __shared__ float sums[kWarps][kPerLane * kWarp];

  float sum[kPerLane * kWarp] = {};
  for (unsigned k = begin + threadIdx.x * 4; k < end; k += kWarps * kWarp * 4) {
    float x[kStages][4];
#pragma unroll
    for (int i = 0; i < kStages; i++) unpack(load(stage[i] + way.offset(), i < stages), x[i], 0.0f);
    way.advance();
#pragma unroll
    for (int i = 0, entry = 0; i < kStages; i++)
#pragma unroll
      for (int j = i; j < kStages; j++, entry++)
#pragma unroll
        for (int e = 0; e < 4; e++) sum[entry] = fmaf(x[i][e], x[j][e], sum[entry]);
  }

  warp_sums<kPerLane>(sum);
#pragma unroll
  for (int i = 0; i < kPerLane; i++) sums[threadIdx.x / kWarp][threadIdx.x % kWarp * kPerLane + i] = sum[i];
  __syncthreads();
  for (int entry = threadIdx.x; entry < stages * stages; entry += blockDim.x) {
    const int i = min(entry / stages, entry % stages), j = max(entry / stages, entry % stages);
    const int place = i * kStages - i * (i + 1) / 2 + j;
    float total = 0;
#pragma unroll
    for (int w = 0; w < kWarps; w++) total += sums[w][place];
    partial(partials, stages)[entry] = total;
  }
}

// float32, up to 32 stages, 384 threads: each warp holds one 8 x 8 block of the upper triangle. All blocks walk over
// the same k at about the same time, so that only the first to come reads from beyond the L1 cache. Fewer blocks than
// warps: several warps share a block and take turns in k.
template <class Stages, class Way>
__device__ __forceinline__ void gram_blocks(const Stages& stage, Layout layout, int stages, unsigned begin,
                                            unsigned end, float* partials) {
  constexpr int kWarps = 12, kSide = 8;
  __shared__ float sums[kWarps][kSide * kSide];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int groups = (stages + kSide - 1) / kSide, blocks = groups * (groups + 1) / 2, turns = kWarps / blocks;
  const int block = warp % blocks, turn = warp / blocks;
  int up = 0, left = block;
  while (left >= groups - up) left -= groups - up++;
  left += up;

  float sum[kSide * kSide] = {};
  if (turn < turns) {
    const unsigned step = turns * kWarp * 4;
    unsigned k = begin + (turn * kWarp + lane) * 4;
    for (Way way(layout, k, step); k < end; k += step, way.advance()) {
      float x[kSide][4], y[kSide][4];
#pragma unroll
      for (int i = 0; i < kSide; i++) {
        unpack(load(stage[up * kSide + i] + way.offset(), up * kSide + i < stages), x[i], 0.0f);
        unpack(load(stage[left * kSide + i] + way.offset(), left * kSide + i < stages), y[i], 0.0f);
      }
#pragma unroll
      for (int i = 0; i < kSide; i++)
#pragma unroll
        for (int j = 0; j < kSide; j++)
#pragma unroll
          for (int e = 0; e < 4; e++) sum[i * kSide + j] = fmaf(x[i][e], y[j][e], sum[i * kSide + j]);
    }
  }

  warp_sums<2>(sum);
#pragma unroll
  for (int i = 0; i < 2; i++) sums[warp][lane * 2 + i] = sum[i];
  __syncthreads();
  for (int entry = threadIdx.x; entry < stages * stages; entry += blockDim.x) {
    const int i = min(entry / stages, entry % stages), j = max(entry / stages, entry % stages);
    const int u = i / kSide, owner = u * groups - u * (u - 1) / 2 + j / kSide - u;
    float total = 0;
    int t = 0;
#pragma unroll 1
    do total += sums[t * blocks + owner][i % kSide * kSide + j % kSide];
    while (++t < turns);
    partial(partials, stages)[entry] = total;
  }
}
