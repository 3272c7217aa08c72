// What is done to a slice before and after the network: normalise it, judge its reference, put its k-space back.
#pragma once

#include <memory>

#include "block.h"
#include "failure.h"
#include "fourier.h"
#include "pool.h"
#include "slice_kernels.h"

namespace minet {

// A reference as the target's resolution shows it: the image, and mean and inverse variance of its windows, each with a
// margin into which it continues periodically.
struct Seen {
  uint32_t height, width;
  ptrdiff_t stride;
  Block memory;
  float *values, *mean, *inverse_variance;
};

class SliceRules {
 public:
  SliceRules(const SliceKernels &kernels, Pool &pool, std::shared_ptr<BlockStore> store)
      : kernels_(kernels), pool_(pool), store_(std::move(store)) {}

  minet_level normalise(const float *image, size_t pixels, double epsilon, float *normal) const;

  void undo(const float *normal, size_t pixels, const minet_level &level, float *image) const;

  // height and width of the target. Throws Failure if there are too few to tell.
  std::unique_ptr<Seen> see(const float *reference, uint32_t height, uint32_t width, uint32_t scale);
  double trust(const float *target, const Seen &seen);

  // output may be restored itself.
  void put_back(const float *restored, const float *target, uint32_t height, uint32_t width, uint32_t scale,
                float *output);

 private:
  struct Transforms;

  Transforms transforms(uint32_t height, uint32_t width, uint32_t scale);
  bool standardise(const float *image, uint32_t height, uint32_t width, float *output) const;

  const SliceKernels &kernels_;
  Pool &pool_;
  std::shared_ptr<BlockStore> store_;
  FourierPlans plans_;
};

}  // namespace minet
