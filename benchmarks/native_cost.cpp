// Restores small images with the native engine again and again, for benchmarks/native_cost.py to count what that costs.
//
// Usage: native_cost FOLDER HEIGHT WIDTH ... (any number of plans). Prints one line a plan: heap allocations, bytes
// allocated and bytes copied by memcpy and memmove of one slice, prepared and restored, once every buffer exists; for
// plans of images with one channel also of what is done to the slice around that. Under callgrind with
// --instr-atstart=no the instructions of that slice are dumped, plan by plan.
#include <valgrind/callgrind.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "minet.h"

namespace {

bool counting = false;
unsigned long long allocations = 0, allocated = 0, copied = 0;

void *counted(void *memory, size_t bytes) {
  if (counting) {
    ++allocations;
    allocated += bytes;
  }
  return memory;
}

}  // namespace

// The library's calls end up here instead of in the C library.
extern "C" {

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

void *malloc(size_t bytes) { return counted(__libc_malloc(bytes), bytes); }
void *calloc(size_t count, size_t bytes) { return counted(__libc_calloc(count, bytes), count * bytes); }
void *realloc(void *memory, size_t bytes) { return counted(__libc_realloc(memory, bytes), bytes); }
void *aligned_alloc(size_t alignment, size_t bytes) { return counted(__libc_memalign(alignment, bytes), bytes); }

// Not as the C library does it: that differs from processor to processor.
void *memmove(void *to, const void *from, size_t bytes) {
  if (counting) copied += bytes;
  auto *target = static_cast<unsigned char *>(to);
  const auto *source = static_cast<const unsigned char *>(from);
  if (target < source)
    for (size_t i = 0; i < bytes; ++i) target[i] = source[i];
  else
    for (size_t i = bytes; i-- > 0;) target[i] = source[i];
  return to;
}

void *memcpy(void *to, const void *from, size_t bytes) { return memmove(to, from, bytes); }

}  // extern "C"

namespace {

void check(minet_status status) {
  if (status == MINET_OK) return;
  std::fprintf(stderr, "%s\n", minet_last_error());
  std::exit(1);
}

// Normalise, judge and put k-space back; a reference costs the same whatever it shows.
void condition(minet_engine *engine, const float *target, float *restored, uint32_t height, uint32_t width,
               uint32_t scale) {
  static std::vector<float> normal;
  normal.resize(size_t(height) * width);
  minet_level level;
  minet_seen *seen = nullptr;
  double trust;
  check(minet_normalise(engine, target, normal.size(), 1e-11, normal.data(), &level));
  check(minet_undo(engine, normal.data(), normal.size(), &level, normal.data()));
  check(minet_see(engine, restored, scale * height, scale * width, &seen));
  check(minet_trust(engine, target, height, width, seen, &trust));
  check(minet_put_back(engine, restored, target, height, width, restored));
  minet_seen_free(seen);
}

void measure(const char *folder, uint32_t height, uint32_t width) {
  minet_plan *plan;
  minet_engine *engine;
  minet_information model{};
  model.size = sizeof model;
  check(minet_plan_open(folder, &plan));
  check(minet_plan_query(plan, &model));
  minet_options options{};
  options.size = sizeof options;
  options.threads = 1;
  options.isa = MINET_ISA_AVX2;  // valgrind knows no AVX-512
  check(minet_engine_create(plan, &options, &engine));

  const size_t pixels = size_t(height) * width, fine = pixels * model.scale * model.scale;
  const std::vector<float> target(pixels * model.target_channels, 0.5f);
  const std::vector<float> reference(fine * model.reference_channels, 0.25f);
  std::vector<float> restored(fine * model.restored_channels);
  minet_memory memory{};
  memory.size = sizeof memory;
  check(minet_engine_memory(engine, height, width, &memory));  // plans the buffers, which the first call would do
  // Blocks of memory grow until each serves for every purpose; instructions are the same from the start.
  const int rounds = RUNNING_ON_VALGRIND ? 1 : 4;
  for (int round = 1; round <= rounds; ++round) {
    counting = round == rounds;
    if (counting) CALLGRIND_START_INSTRUMENTATION;
    minet_features *features = nullptr;
    if (model.needs_reference)
      check(minet_prepare(engine, reference.data(), model.scale * height, model.scale * width, nullptr, 0, &features));
    check(minet_restore(engine, target.data(), height, width, features, restored.data(), nullptr, 0));
    minet_features_free(features);
    if (model.target_channels == 1 && model.restored_channels == 1)
      condition(engine, target.data(), restored.data(), height, width, model.scale);
    if (counting) CALLGRIND_STOP_INSTRUMENTATION;
  }
  counting = false;
  CALLGRIND_DUMP_STATS;
  std::printf("%llu %llu %llu\n", allocations, allocated, copied);
  allocations = allocated = copied = 0;
  minet_engine_destroy(engine);
  minet_plan_close(plan);
}

}  // namespace

int main(int count, char **arguments) {
  for (int i = 1; i + 2 < count; i += 3)
    measure(arguments[i], uint32_t(std::stoul(arguments[i + 1])), uint32_t(std::stoul(arguments[i + 2])));
  return 0;
}
