// A plan: the program that export/native_program.py writes, checked, and its weights in the form that kernels want.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "block.h"

namespace minet {

constexpr uint32_t none = 0xffffffffu;

enum class Kind : uint32_t { image, vector, matrix };

struct Tensor {
  Kind kind;
  uint32_t channels;  // rows of a matrix
  uint32_t multiple;  // of the target's height and width; 1 for vectors and matrices
};

enum class Code : uint32_t {
  convolution3,  // Winograd: inputs and outputs in multiples of 16 channels
  convolution1,
  direct,
  dense,  // a 1x1 convolution of a vector
  pointwise,
  pool,
  shuffle,
  unshuffle,
  gram,
  affinity,
};
constexpr uint32_t codes = 10;

enum class Mode : uint32_t { paper, released, cosine };

// As it stands in the file, without the lists.
struct OperationRecord {
  uint32_t code;
  uint32_t activation;
  float alpha;
  uint32_t kernel;
  uint32_t before;       // taps above and to the left of the centre's own pixel
  uint32_t repeat_edge;  // pad with the edge's values instead of zeros
  uint32_t shuffle;
  uint32_t weight_inputs;  // inputs that the weight tensor has
  uint32_t weight_first;   // the first of them that this operation uses
  uint32_t outputs;        // of the convolution, before the shuffle
  uint32_t output;
  uint32_t pooled;
  uint32_t gate;
  uint32_t mixing;
  uint32_t known;  // matrix of the products of the first stages
  uint32_t scale;  // a 3x3 convolution is of its input times this vector ...
  uint32_t added;  // ... plus this image
  uint32_t sum;    // which is written here
  uint32_t reserved;
  uint32_t mode;
  float temperature;
  float gain;
  uint32_t first_input, inputs;
  uint32_t first_residual, residuals;
  uint64_t weight;  // bytes from the start of weights.bin
  uint64_t bias;    // or no_bias
};
static_assert(sizeof(OperationRecord) == 120, "the file holds it as it is");
constexpr uint64_t no_bias = ~uint64_t(0);
constexpr size_t no_place = ~size_t(0);

struct Operation : OperationRecord {
  Code kind;
  std::vector<uint32_t> input;
  std::vector<uint32_t> residual;
  bool restores = false;          // depends on the target
  size_t packed_weight = 0;       // floats from the start of the packed weights
  size_t packed_bias = no_place;  // likewise
};

struct Plan {
  uint32_t format = 0;
  uint32_t scale = 0;
  uint32_t target = none, reference = none, restored = none;
  std::vector<Tensor> tensors;
  std::vector<Operation> operations;
  std::vector<bool> kept;  // tensors that restoring needs of preparing
  Block weights;

  bool needs_reference() const { return reference != none; }
  const float *packed(size_t offset) const { return reinterpret_cast<const float *>(weights.data()) + offset; }
};

// Throws Failure.
Plan read_plan(const unsigned char *program, size_t program_bytes, const unsigned char *weights, size_t weights_bytes);

// Throws Failure.
Plan read_plan(const std::string &folder);

}  // namespace minet
