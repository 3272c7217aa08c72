// What the engine hands to a kernel, and the table of kernels of one instruction set.
//
// kernels.cpp sees only this header and intrinsics: a standard header's inline function compiled for AVX-512 could be
// the one that the linker keeps for everybody.
#pragma once

#include <stddef.h>

namespace minet {

constexpr int panel = 16;          // channels that stand together in packed weights
constexpr int group_panels = 4;    // panels of outputs that one task computes
constexpr int deepest_chunk = 64;  // input channels that are transformed at a time
constexpr int most_residuals = 4;
constexpr int tile = 6;              // outputs of F(6x6, 3x3) along an axis
constexpr int side = tile + 2;       // inputs, and points of its transforms
constexpr int points = side * side;  // in both dimensions
constexpr int most_stages = 32;
constexpr int run_pixels = 96;    // pixels of a task of a 1x1 convolution
constexpr int gram_block = 1024;  // elements that are summed in float32
constexpr int gram_blocks = 64;   // blocks of a task

enum Activation : int { no_activation = 0, relu = 1, logistic = 2 };

// output = activation(raw + bias) * alpha [* gate] [+ residuals]; pooled before the gate.
struct Epilogue {
  const float *bias;  // null for none
  int activation;
  float alpha;
  const float *gate;  // null for none
  bool gate_is_vector;
  const float *residual[most_residuals];
  int residuals;
  float *partials;  // (tasks, channels) sums over the pixels of each task; null for none
  float *output;
  int channels;  // of the output
  bool streams;  // the output is large and aligned to cache lines: write it past the caches
};

struct Chunk {
  const float *input;
  ptrdiff_t stride;  // channels of the whole input
  int depth;
  const float *weights;  // (points, panels, depth, panel)
  // Of a 3x3 convolution of input * scale + added, which is written to sum; null for one of the input itself.
  const float *scale;
  const float *added;  // as the input
  float *sum;          // as the input; null if nobody else wants it
  bool streams;        // the sum, as Epilogue::streams
};

struct Convolution3 {
  const Chunk *chunk;
  int chunks;
  int height, width;
  int panels;           // of the convolution's outputs
  int tiles_per_strip;  // scratch: see convolution3_scratch
  int shuffle;          // pixel shuffle of the output, 1 for none
  Epilogue epilogue;
};

struct Convolution1 {
  const Chunk *chunk;  // weights: (panels, depth, panel)
  int chunks;
  ptrdiff_t pixels;
  int panels;
  Epilogue epilogue;
};

enum class DirectForm : int {
  planar,  // one input channel; weights (outputs, kernel, kernel); any padding
  spread,  // outputs a multiple of 16; weights (kernel, kernel, inputs, outputs); zero padding
  gather,  // weights (outputs, kernel, kernel, inputs); zero padding
};

struct Direct {
  const float *input;
  const float *weights;
  int height, width, inputs, outputs;
  int kernel, before;
  bool repeat_edge;
  DirectForm form;
  int shuffle;
  Epilogue epilogue;
};

struct Pointwise {
  const float *input;
  ptrdiff_t pixels;
  Epilogue epilogue;
};

struct Gram {
  const float *stage[most_stages];
  int stages;
  int known;           // the products of the first `known` stages with each other are not computed
  ptrdiff_t elements;  // of a stage, a multiple of 16
};

struct Mix {
  const float *weights;  // (stages, elements)
  const float *mixing;   // (stages, stages)
  float *mixed;
  int stages;
  ptrdiff_t elements;  // of a stage, a multiple of 16
};

constexpr ptrdiff_t mix_elements = 4096;  // of a task

// Floats between the values of two points; odd in cache lines, so that the points do not share the same few sets.
constexpr ptrdiff_t point_stride(ptrdiff_t tiles, ptrdiff_t channels) {
  const ptrdiff_t lines = (tiles * channels + 15) / 16;
  return (lines | 1) * 16;
}

// Pixels of a task of a point-by-point operation.
constexpr ptrdiff_t pixels_per_task(ptrdiff_t channels) { return channels < 64 ? 6144 / channels : run_pixels; }

// Points by which the transformed input of a 3x3 convolution lies behind its products. Those of a single chunk take the
// place of the point before, which is not needed any more: half the cache. Several chunks add to products that stay.
constexpr ptrdiff_t points_between(ptrdiff_t chunks) { return chunks == 1 ? 1 : points; }

// Floats of scratch that a task takes.
constexpr ptrdiff_t convolution3_scratch(ptrdiff_t tiles, ptrdiff_t chunks, ptrdiff_t depth, ptrdiff_t panels) {
  const ptrdiff_t wide = (panels < group_panels ? panels : group_panels) * panel;
  return group_panels * panel + (points_between(chunks) + points) * point_stride(tiles, depth > wide ? depth : wide);
}
constexpr ptrdiff_t convolution1_scratch() { return ptrdiff_t(run_pixels) * group_panels * panel; }
constexpr ptrdiff_t direct_scratch(ptrdiff_t width, ptrdiff_t outputs, ptrdiff_t kernel) {
  return width * outputs + kernel * (width + kernel + 16);
}

struct Kernels {
  // Each runs one task; scratch belongs to the calling thread.
  void (*convolution3)(const Convolution3 &, ptrdiff_t task, float *scratch);
  void (*convolution1)(const Convolution1 &, ptrdiff_t task, float *scratch);
  void (*direct)(const Direct &, ptrdiff_t row, float *scratch);
  void (*pointwise)(const Pointwise &, ptrdiff_t task);
  void (*gram)(const Gram &, ptrdiff_t task, double *products);  // products (stages, stages), upper triangle
  void (*mix)(const Mix &, ptrdiff_t task);
};

extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;

}  // namespace minet
