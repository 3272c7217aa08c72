// An engine runs a plan: threads, memory, and the kernels of one instruction set.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "failure.h"
#include "kernels.h"
#include "layout.h"
#include "pool.h"
#include "slice.h"

namespace minet {

// What depends on a reference alone.
struct Features {
  std::shared_ptr<const Plan> plan;
  uint32_t height, width;  // of the target that it fits
  Lease memory;
};

class Engine {
 public:
  // Throws Failure.
  Engine(std::shared_ptr<const Plan> plan, const minet_options &options);

  minet_memory memory(uint32_t height, uint32_t width);
  std::unique_ptr<Features> prepare(const float *reference, uint32_t height, uint32_t width, void *workspace,
                                    size_t workspace_bytes);
  void restore(const float *target, uint32_t height, uint32_t width, const Features *features, float *restored,
               void *workspace, size_t workspace_bytes);
  void run(const float *target, uint32_t height, uint32_t width, const float *reference, float *restored,
           void *workspace, size_t workspace_bytes);

  minet_level normalise(const float *image, size_t pixels, double epsilon, float *normal) const;
  void undo(const float *normal, size_t pixels, const minet_level &level, float *image) const;
  std::unique_ptr<Seen> see(const float *reference, uint32_t height, uint32_t width);
  double trust(const float *target, uint32_t height, uint32_t width, const Seen &seen);
  void put_back(const float *restored, const float *target, uint32_t height, uint32_t width, float *output);

  unsigned threads() const { return pool_.threads(); }
  minet_isa isa() const { return isa_; }

 private:
  std::shared_ptr<const Layout> layout(uint32_t height, uint32_t width);
  void check_multiple(uint32_t height, uint32_t width) const;
  void check_limit(size_t workspace, size_t features) const;
  void check_reference(const void *reference) const;

  std::shared_ptr<const Plan> plan_;
  minet_isa isa_;
  const Kernels &kernels_;
  const uint64_t memory_limit_;
  Pool pool_;
  std::shared_ptr<BlockStore> store_ = std::make_shared<BlockStore>();
  std::mutex mutex_;
  std::map<std::pair<uint32_t, uint32_t>, std::shared_ptr<const Layout>> layouts_;
  SliceRules rules_;
};

bool supports(minet_isa isa);

}  // namespace minet
