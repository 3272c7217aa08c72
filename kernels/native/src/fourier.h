// Plans of Fourier transforms: stages, twiddles and, for lengths with a large prime factor, a chirp.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "slice_kernels.h"

namespace minet {

class FourierPlan {
 public:
  explicit FourierPlan(int length);
  FourierPlan(const FourierPlan &) = delete;
  FourierPlan &operator=(const FourierPlan &) = delete;

  const Fourier &operator*() const { return fourier_; }

 private:
  void factor(int left);
  void chirp();

  Fourier fourier_{};
  std::vector<std::vector<float>> numbers_;
  std::unique_ptr<const FourierPlan> inner_;
};

// Plans by length, kept until there are many. For any number of threads.
class FourierPlans {
 public:
  std::shared_ptr<const FourierPlan> of(uint32_t length);

 private:
  std::mutex mutex_;
  std::map<uint32_t, std::shared_ptr<const FourierPlan>> plans_;
};

}  // namespace minet
