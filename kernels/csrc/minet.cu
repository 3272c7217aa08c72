// Entry points. Arguments stand as TensorRT passes them: inputs, int32 numbers (a float as the int of its bits), output.
// The second launch bound, CTAs that must fit on a multiprocessor, is what keeps enough loads in flight.
#include "affinity.cuh"
#include "gram.cuh"
#include "mix.cuh"
#include "slices.cuh"

#define MINET_KERNEL(threads, resident) extern "C" __global__ void __launch_bounds__(threads, resident)

struct Part {
  unsigned begin, end;

  __device__ __forceinline__ Part(int elements, int chunk)
      : begin(blockIdx.x * static_cast<unsigned>(chunk)),
        end(min(begin + static_cast<unsigned>(chunk), static_cast<unsigned>(elements))) {}
};

template <class T>
__device__ __forceinline__ Stacked<T> stacked(const T* features, int stages, int elements, int row) {
  return {features + static_cast<long long>(blockIdx.y) * stages * elements, row};
}

template <class T>
__device__ __forceinline__ Separate<T> separate(MINET_POINTERS(T), int elements) {
  return {{MINET_NAMES}, static_cast<long long>(blockIdx.y) * elements};
}

__device__ __forceinline__ Layout layout(int run, int pitch) { return {static_cast<unsigned>(run), pitch}; }
__device__ __forceinline__ Layout contiguous(int elements) { return {static_cast<unsigned>(elements), elements}; }

// First k of a thread of the tensor-core kernels: a warp takes four vectors in a row of each of its stages.
template <class T>
__device__ __forceinline__ unsigned tensor_core_k(const Part& part) {
  return part.begin + (threadIdx.x / kWarp * 4 + threadIdx.x % 4) * kVector<T>;
}

#define MINET_GRAM_TENSOR_CORES(name, element, T, tiles, resident)                                                   \
  MINET_KERNEL(256, resident)                                                                                        \
  minet_gram_stacked##name##_##element(const T* features, int stages, int elements, int chunk, int row, int run,     \
                                       int pitch, float* partials) {                                                 \
    const Part part(elements, chunk);                                                                                \
    gram_tensor_cores<T, tiles>(stacked(features, stages, elements, row),                                            \
                                Walk(layout(run, pitch), tensor_core_k<T>(part), 32 * kVector<T>), stages,           \
                                part.begin, part.end, partials);                                                     \
  }                                                                                                                  \
  MINET_KERNEL(256, resident)                                                                                        \
  minet_gram_separate##name##_##element(MINET_POINTERS(T), int stages, int elements, int chunk, float* partials) {   \
    const Part part(elements, chunk);                                                                                \
    gram_tensor_cores<T, tiles>(make_table(separate<T>(MINET_NAMES, elements)),                                      \
                                StraightWalk(Layout{}, tensor_core_k<T>(part), 32 * kVector<T>), stages, part.begin, \
                                part.end, partials);                                                                 \
  }

#define MINET_MIX(element, T)                                                                                         \
  MINET_KERNEL(256, 2)                                                                                               \
  minet_mix_stacked_##element(const T* features, const float* mixing, int stages, int elements, int row,     \
                                      int run, int pitch, T* mixed) {                                                \
    mix<T>(stacked(features, stages, elements, row), layout(run, pitch), layout(run, pitch),    \
                                stages, elements, mixing, row, mixed);                                               \
  }                                                                                                                  \
  MINET_KERNEL(256, 2)                                                                                               \
  minet_mix_separate_##element(MINET_POINTERS(T), const float* mixing, int stages, int elements, int row,    \
                                       int run, int pitch, T* mixed) {                                               \
    mix<T>(separate<T>(MINET_NAMES, elements), contiguous(elements), layout(run, pitch),        \
                                stages, elements, mixing, row, mixed);                                               \
  }

#define MINET_FOLD(element, T)                                                                                       \
  MINET_KERNEL(256, 2)                                                                                               \
  minet_fold_##element(const T* weight, const float* mixing, int stages, int outputs, int inner, T* folded) {        \
    fold<T>(weight, mixing, stages, outputs, inner, folded);                                                         \
  }

#define MINET_16_BIT(element, T)                       \
  MINET_GRAM_TENSOR_CORES(, element, T, 1, 4)          \
  MINET_GRAM_TENSOR_CORES(_wide, element, T, 2, 2)     \
  MINET_MIX(element, T)  \
  MINET_FOLD(element, T)

MINET_16_BIT(f16, __half)
#if __CUDA_ARCH__ >= 800
MINET_16_BIT(bf16, __nv_bfloat16)
#endif

MINET_KERNEL(128, 3)
minet_gram_stacked_f32(const float* features, int stages, int elements, int chunk, int row, int run, int pitch,
                       float* partials) {
  const Part part(elements, chunk);
  gram_triangle(stacked(features, stages, elements, row),
                Walk(layout(run, pitch), part.begin + threadIdx.x * 4, 128 * 4), stages, part.begin, part.end,
                partials);
}

MINET_KERNEL(128, 3)
minet_gram_separate_f32(MINET_POINTERS(float), int stages, int elements, int chunk, float* partials) {
  const Part part(elements, chunk);
  gram_triangle(separate<float>(MINET_NAMES, elements),
                StraightWalk(Layout{}, part.begin + threadIdx.x * 4, 128 * 4), stages, part.begin, part.end, partials);
}

MINET_KERNEL(384, 1)
minet_gram_stacked_wide_f32(const float* features, int stages, int elements, int chunk, int row, int run, int pitch,
                            float* partials) {
  const Part part(elements, chunk);
  gram_blocks<Stacked<float>, Walk>(stacked(features, stages, elements, row), layout(run, pitch), stages, part.begin,
                                    part.end, partials);
}

MINET_KERNEL(384, 1)
minet_gram_separate_wide_f32(MINET_POINTERS(float), int stages, int elements, int chunk, float* partials) {
  const Part part(elements, chunk);
  gram_blocks<Table<float>, StraightWalk>(make_table(separate<float>(MINET_NAMES, elements)), Layout{}, stages,
                                          part.begin, part.end, partials);
}

MINET_MIX(f32, float)
MINET_FOLD(f32, float)

MINET_KERNEL(1024, 1)
minet_affinity_paper(const float* partials, int stages, int splits, int gain, float* mixing) {
  affinity<Mode::kPaper>(partials, stages, splits, 1.0f, __int_as_float(gain), mixing);
}

MINET_KERNEL(1024, 1)
minet_affinity_released(const float* partials, int stages, int splits, int gain, float* mixing) {
  affinity<Mode::kReleased>(partials, stages, splits, 1.0f, __int_as_float(gain), mixing);
}

MINET_KERNEL(1024, 1)
minet_affinity_cosine(const float* partials, int stages, int splits, int temperature, int gain, float* mixing) {
  affinity<Mode::kCosine>(partials, stages, splits, __int_as_float(temperature), __int_as_float(gain), mixing);
}

MINET_KERNEL(256, 1) minet_moment_sums(const float* slices, int pixels, double* sums) {
  moment_sums(slices, pixels, sums);
}

MINET_KERNEL(32, 1)
minet_moments(const float* slices, const double* sums, int pixels, int parts, float* statistics) {
  moments(slices, sums, pixels, parts, statistics);
}

MINET_KERNEL(256, 1)
minet_normalise(const float* slices, const float* statistics, int pixels, int epsilon, int clip, float* normal) {
  normalise(slices, statistics, pixels, __int_as_float(epsilon), __int_as_float(clip), normal);
}

MINET_KERNEL(256, 1)
minet_denormalise(const float* normal, const float* statistics, int pixels, int epsilon, float* slices) {
  denormalise(normal, statistics, pixels, __int_as_float(epsilon), slices);
}

MINET_KERNEL(256, 1)
minet_matmul(const float* left, const float* right, int rows, int inner, int columns, int left_shared,
             int right_shared, int scale, float* product) {
  matmul<false>(left, right, nullptr, rows, inner, columns, left_shared, right_shared, __int_as_float(scale), 0.0f,
                product);
}

MINET_KERNEL(256, 1)
minet_matmul_add(const float* left, const float* right, const float* addend, int rows, int inner, int columns,
                 int left_shared, int right_shared, int scale, int addend_scale, float* product) {
  matmul<true>(left, right, addend, rows, inner, columns, left_shared, right_shared, __int_as_float(scale),
               __int_as_float(addend_scale), product);
}
