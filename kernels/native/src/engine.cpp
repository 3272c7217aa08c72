#include "engine.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <system_error>
#include <thread>

#include "execute.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace minet {
namespace {

constexpr uint32_t largest_side = 1u << 14;
constexpr unsigned most_threads = 256;
constexpr size_t most_layouts = 32;

unsigned threads_for(uint32_t asked) {
  if (asked) return std::min(asked, most_threads);
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0)
    return std::clamp(unsigned(CPU_COUNT(&allowed)), 1u, most_threads);
#endif
  return std::clamp(std::thread::hardware_concurrency(), 1u, most_threads);
}

minet_isa isa_for(uint32_t asked) {
  if (asked > MINET_ISA_AVX512)
    throw Failure{MINET_INVALID_ARGUMENT, "isa is " + std::to_string(asked) + ", expected a minet_isa"};
  const minet_isa best = supports(MINET_ISA_AVX512) ? MINET_ISA_AVX512 : MINET_ISA_AVX2;
  const minet_isa isa = asked == MINET_ISA_BEST ? best : static_cast<minet_isa>(asked);
  if (!supports(isa))
    throw Failure{MINET_UNSUPPORTED_CPU, std::string("this processor has no ") +
                                             (isa == MINET_ISA_AVX512 ? "AVX-512: use AVX2" : "AVX2 with FMA")};
  return isa;
}

std::string by(uint32_t height, uint32_t width) { return std::to_string(height) + " x " + std::to_string(width); }

void check_size(uint32_t height, uint32_t width) {
  if (!height || !width || height > largest_side || width > largest_side)
    throw Failure{MINET_INVALID_ARGUMENT, "the target is " + by(height, width) + ", expected 1 to " +
                                              std::to_string(largest_side) + " rows and columns"};
}

// The caller's workspace, or memory of the engine for as long as this lives.
class Workspace {
 public:
  Workspace(const std::shared_ptr<BlockStore> &store, void *given, size_t given_bytes, size_t needed) {
    if (!given) {
      lease_ = std::make_unique<Lease>(store, needed);
      data_ = lease_->data();
      return;
    }
    if (given_bytes < needed)
      throw Failure{MINET_INVALID_ARGUMENT, "the workspace has " + std::to_string(given_bytes) + " bytes, " +
                                                std::to_string(needed) + " are needed: see minet_engine_memory"};
    if (reinterpret_cast<uintptr_t>(given) % 64)
      throw Failure{MINET_INVALID_ARGUMENT, "the workspace is not aligned to 64 bytes"};
    data_ = static_cast<unsigned char *>(given);
  }

  unsigned char *data() const { return data_; }

 private:
  std::unique_ptr<Lease> lease_;
  unsigned char *data_;
};

}  // namespace

bool supports(minet_isa isa) {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (isa != MINET_ISA_AVX512) return avx2;
  return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}

Engine::Engine(std::shared_ptr<const Plan> plan, const minet_options &options)
    : plan_(std::move(plan)),
      isa_(isa_for(options.isa)),
      kernels_(isa_ == MINET_ISA_AVX512 ? kernels_avx512 : kernels_avx2),
      memory_limit_(options.memory_limit),
      pool_(threads_for(options.threads)),
      // Blocks of their own: a small one must not take the place of a workspace that the next call needs.
      rules_(isa_ == MINET_ISA_AVX512 ? slice_kernels_avx512 : slice_kernels_avx2, pool_,
             std::make_shared<BlockStore>()) {}

std::shared_ptr<const Layout> Engine::layout(uint32_t height, uint32_t width) {
  check_size(height, width);
  std::lock_guard<std::mutex> lock(mutex_);
  const auto size = std::make_pair(height, width);
  const auto found = layouts_.find(size);
  if (found != layouts_.end()) return found->second;
  const auto made = std::make_shared<const Layout>(make_layout(*plan_, height, width, pool_.threads()));
  if (layouts_.size() >= most_layouts) layouts_.clear();
  layouts_.emplace(size, made);
  return made;
}

void Engine::check_limit(size_t workspace, size_t features) const {
  const uint64_t needed = plan_->weights.size() + workspace + features;
  if (memory_limit_ && needed > memory_limit_)
    throw Failure{MINET_OVER_LIMIT, "this image needs " + std::to_string(needed >> 20) + " MiB, the memory limit is " +
                                        std::to_string(memory_limit_ >> 20) +
                                        " MiB: restore a part of it, or raise the limit"};
}

void Engine::check_reference(const void *reference) const {
  if (plan_->needs_reference() != (reference != nullptr))
    throw Failure{MINET_INVALID_ARGUMENT,
                  plan_->needs_reference() ? "this model needs a reference" : "this model takes no reference"};
}

void Engine::check_multiple(uint32_t height, uint32_t width) const {
  if (height % plan_->scale || width % plan_->scale)
    throw Failure{MINET_INVALID_ARGUMENT,
                  "the reference is " + by(height, width) + ", expected multiples of " + std::to_string(plan_->scale)};
}

minet_memory Engine::memory(uint32_t height, uint32_t width) {
  const auto layout = this->layout(height, width);
  minet_memory memory{};
  memory.weights = plan_->weights.size();
  memory.features = layout->features_bytes;
  memory.prepare = plan_->needs_reference() ? layout->prepare.bytes : 0;
  memory.restore = layout->restore.bytes;
  memory.run = layout->run_bytes();
  return memory;
}

std::unique_ptr<Features> Engine::prepare(const float *reference, uint32_t height, uint32_t width, void *workspace,
                                          size_t workspace_bytes) {
  check_reference(reference);
  check_multiple(height, width);
  const auto layout = this->layout(height / plan_->scale, width / plan_->scale);
  // Features that no target could be restored with under the limit are not worth computing.
  check_limit(std::max(layout->prepare.bytes, layout->restore.bytes), layout->features_bytes);
  const Pool::Caller caller(pool_);
  const Workspace space(store_, workspace, workspace_bytes, layout->prepare.bytes);
  std::unique_ptr<Features> features(
      new Features{plan_, layout->height, layout->width, Lease(store_, layout->features_bytes)});
  execute(*plan_, *layout, false, {nullptr, reference, nullptr}, space.data(), features->memory.data(), kernels_,
          pool_);
  return features;
}

void Engine::restore(const float *target, uint32_t height, uint32_t width, const Features *features, float *restored,
                     void *workspace, size_t workspace_bytes) {
  check_reference(features);
  if (features && features->plan != plan_)
    throw Failure{MINET_INVALID_ARGUMENT, "the features come from another plan: prepare the reference with this one"};
  if (features && (features->height != height || features->width != width))
    throw Failure{MINET_INVALID_ARGUMENT, "the features fit a target of " + by(features->height, features->width) +
                                              ", the target is " + by(height, width)};
  const auto layout = this->layout(height, width);
  check_limit(layout->restore.bytes, layout->features_bytes);
  const Pool::Caller caller(pool_);
  const Workspace space(store_, workspace, workspace_bytes, layout->restore.bytes);
  execute(*plan_, *layout, true, {target, nullptr, restored}, space.data(),
          features ? features->memory.data() : nullptr, kernels_, pool_);
}

void Engine::run(const float *target, uint32_t height, uint32_t width, const float *reference, float *restored,
                 void *workspace, size_t workspace_bytes) {
  check_reference(reference);
  const auto layout = this->layout(height, width);
  check_limit(layout->run_bytes(), 0);
  const Pool::Caller caller(pool_);
  const Workspace space(store_, workspace, workspace_bytes, layout->run_bytes());
  unsigned char *features = space.data() + layout->run_bytes() - layout->features_bytes;
  if (reference)
    execute(*plan_, *layout, false, {nullptr, reference, nullptr}, space.data(), features, kernels_, pool_);
  execute(*plan_, *layout, true, {target, nullptr, restored}, space.data(), features, kernels_, pool_);
}

minet_level Engine::normalise(const float *image, size_t pixels, double epsilon, float *normal) const {
  if (!pixels) throw Failure{MINET_INVALID_ARGUMENT, "the image has no pixels"};
  return rules_.normalise(image, pixels, epsilon, normal);
}

void Engine::undo(const float *normal, size_t pixels, const minet_level &level, float *image) const {
  rules_.undo(normal, pixels, level, image);
}

std::unique_ptr<Seen> Engine::see(const float *reference, uint32_t height, uint32_t width) {
  check_multiple(height, width);
  check_size(height / plan_->scale, width / plan_->scale);
  const Pool::Caller caller(pool_);
  return rules_.see(reference, height / plan_->scale, width / plan_->scale, plan_->scale);
}

double Engine::trust(const float *target, uint32_t height, uint32_t width, const Seen &seen) {
  if (seen.height != height || seen.width != width)
    throw Failure{MINET_INVALID_ARGUMENT, "the reference is that of a target of " + by(seen.height, seen.width) +
                                              ", the target is " + by(height, width)};
  const Pool::Caller caller(pool_);
  return rules_.trust(target, seen);
}

void Engine::put_back(const float *restored, const float *target, uint32_t height, uint32_t width, float *output) {
  check_size(height, width);
  const Pool::Caller caller(pool_);
  rules_.put_back(restored, target, height, width, plan_->scale, output);
}

}  // namespace minet
