// Where every tensor lies while a target of one size is restored: planned once, buffers used again once they are free.
#pragma once

#include "plan.h"

namespace minet {

struct PhaseLayout {
  size_t bytes = 0;               // of the workspace
  size_t scratch_bytes = 0;       // of each thread, at the start of the workspace
  std::vector<size_t> tensor;     // by tensor; no_place for those of the other phase, of the caller and kept ones
  std::vector<size_t> temporary;  // by operation: partial sums and mixed weights
};

struct Layout {
  uint32_t height, width;  // of the target
  PhaseLayout prepare, restore;
  size_t features_bytes = 0;
  std::vector<size_t> kept;  // by tensor, in the features

  size_t run_bytes() const;  // one workspace for both phases, and the features behind it
};

// Throws Failure if the image is too large to be addressed.
Layout make_layout(const Plan &plan, uint32_t height, uint32_t width, unsigned threads);

size_t tensor_bytes(const Tensor &tensor, uint32_t height, uint32_t width);

// How an operation is cut into tasks, which depends on the sizes alone.
struct Tasks {
  ptrdiff_t count = 0;
  ptrdiff_t sums = 0;       // partial sums of each output channel, or of each product
  int tiles_per_strip = 0;  // of a 3x3 convolution
};
Tasks tasks_of(const Plan &plan, const Operation &op, uint32_t height, uint32_t width);

}  // namespace minet
