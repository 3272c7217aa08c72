// Runs the operations of a phase one after the other, each on all threads.
#pragma once

#include "kernels.h"
#include "layout.h"
#include "pool.h"

namespace minet {

struct Images {
  const float *target = nullptr;
  const float *reference = nullptr;
  float *restored = nullptr;
};

// workspace and features as large as the layout says, aligned to 64 bytes. Throws std::bad_alloc.
void execute(const Plan &plan, const Layout &layout, bool restores, const Images &images, unsigned char *workspace,
             unsigned char *features, const Kernels &kernels, Pool &pool);

}  // namespace minet
