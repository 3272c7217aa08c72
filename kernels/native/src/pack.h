// Weights from PyTorch's order (outputs, inputs, rows, columns) into the order of each kernel.
#pragma once

#include "kernels.h"
#include "plan.h"

namespace minet {

// Floats that an operation's packed weights take; 0 if it has none.
uint64_t packed_floats(const Plan &plan, const Operation &op);

void pack_weight(const Plan &plan, const Operation &op, const unsigned char *weight, float *to);
void pack_bias(const Operation &op, const unsigned char *bias, float *to);

// Which of its kernels a direct convolution takes.
DirectForm direct_form(const Operation &op, uint32_t inputs);

// Input channels of a convolution's image that go together through the transforms: [first, first + depth).
struct ChunkRange {
  uint32_t input;  // which of the operation's inputs
  uint32_t first, depth;
};
std::vector<ChunkRange> chunks_of(const Plan &plan, const Operation &op);

}  // namespace minet
