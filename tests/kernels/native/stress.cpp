// Opens thousands of damaged plans and runs those that are still accepted; then many callers share two engines, for the
// network and for what is done to a slice around it.
//
// Usage: stress FOLDER PLANS. Ends with 0 if nothing crashed, every refusal had its reason and every result was right.
// `make sanitize` runs it under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "minet.h"

namespace {

using Bytes = std::vector<unsigned char>;

constexpr size_t checksum_at = 12, checked_from = 16;
constexpr uint64_t memory_limit = uint64_t(64) << 20;

void expect(bool condition, const char *what) {
  if (condition) return;
  std::fprintf(stderr, "failed: %s (%s)\n", what, minet_last_error());
  std::exit(1);
}

Bytes read(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  expect(bool(file), path.c_str());
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

uint32_t checksum(const unsigned char *data, size_t bytes) {
  uint32_t sum = ~0u;
  for (size_t i = 0; i < bytes; ++i) {
    sum ^= data[i];
    for (int bit = 0; bit < 8; ++bit) sum = (sum >> 1) ^ (sum & 1 ? 0xedb88320u : 0u);
  }
  return ~sum;
}

void repair_checksum(Bytes &program) {
  if (program.size() <= checked_from) return;
  const uint32_t sum = checksum(program.data() + checked_from, program.size() - checked_from);
  std::memcpy(program.data() + checksum_at, &sum, sizeof sum);
}

void damage(Bytes &program, std::mt19937 &random) {
  const auto below = [&](size_t end) { return size_t(random() % end); };
  for (size_t changes = 1 + below(3); changes; --changes) {
    if (program.size() < 4) return;
    static const uint32_t telling[] = {0,  1,    2,          3,          15,         16,        17,
                                       64, 4096, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fc00000};
    const size_t word = below(program.size() / 4) * 4;
    uint32_t value;
    std::memcpy(&value, program.data() + word, 4);
    switch (below(8)) {
      case 0:
        program[below(program.size())] ^= static_cast<unsigned char>(1u << below(8));
        continue;
      case 1:
        value = telling[below(std::size(telling))];
        break;
      case 2:
        value = static_cast<uint32_t>(random());
        break;
      case 3:
        value = static_cast<uint32_t>(below(64));
        break;
      case 4:
        value += static_cast<uint32_t>(below(33)) - 16;
        break;
      case 5:
        std::memcpy(&value, program.data() + below(program.size() / 4) * 4, 4);
        break;
      case 6:
        if (below(8) == 0) program.resize(below(program.size() + 1));
        continue;
      default:
        if (below(8) == 0) program.insert(program.end(), below(64), 0);
        continue;
    }
    std::memcpy(program.data() + word, &value, 4);
  }
}

minet_information query(const minet_plan *plan) {
  minet_information information{};
  information.size = sizeof information;
  expect(minet_plan_query(plan, &information) == MINET_OK, "query");
  return information;
}

// Restores a small image with whatever the plan is; results do not matter, only that they come or are refused.
void try_to_run(const minet_plan *plan) {
  const minet_information information = query(plan);
  const uint64_t scale = information.scale, height = 5, width = 3;
  const minet_options options{sizeof(minet_options), 1, MINET_ISA_BEST, 0, memory_limit};
  minet_engine *engine = nullptr;
  expect(minet_engine_create(plan, &options, &engine) == MINET_OK, "engine of a damaged plan");
  const uint64_t pixels = height * width, fine = pixels * scale * scale;
  if (fine * (information.reference_channels + information.restored_channels) < (uint64_t(1) << 24)) {
    std::vector<float> target(pixels * information.target_channels, 0.5f);
    std::vector<float> reference(fine * information.reference_channels, 0.25f);
    std::vector<float> restored(fine * information.restored_channels);
    const minet_status status =
        minet_run(engine, target.data(), height, width, information.needs_reference ? reference.data() : nullptr,
                  restored.data(), nullptr, 0);
    expect(status == MINET_OK || status == MINET_OVER_LIMIT || status == MINET_OUT_OF_MEMORY, "run of a damaged plan");
  }
  minet_engine_destroy(engine);
}

void open_damaged_plans(const Bytes &program, const Bytes &weights, int plans) {
  std::mt19937 random(7);
  int accepted = 0;
  for (int i = 0; i < plans; ++i) {
    Bytes changed = program;
    damage(changed, random);
    if (i % 16) repair_checksum(changed);
    minet_plan *plan = nullptr;
    const minet_status status =
        minet_plan_from_memory(changed.data(), changed.size(), weights.data(), weights.size(), &plan);
    if (status == MINET_OK) {
      ++accepted;
      try_to_run(plan);
    } else {
      expect(status == MINET_BAD_PLAN && !plan && *minet_last_error(), "a damaged plan is refused with its reason");
    }
    minet_plan_close(plan);
  }
  for (size_t size = 0; size < weights.size(); size += weights.size() / 20 + 1) {
    minet_plan *plan = nullptr;
    const Bytes shorter(weights.begin(), weights.begin() + static_cast<ptrdiff_t>(size));
    expect(minet_plan_from_memory(program.data(), program.size(), shorter.empty() ? weights.data() : shorter.data(),
                                  size, &plan) == MINET_BAD_PLAN,
           "truncated weights are refused");
  }
  std::printf("%d damaged plans, %d of them still plans\n", plans, accepted);
  expect(accepted > 0 && accepted < plans, "some damage matters and some does not");
}

void share_engines(const char *folder) {
  minet_plan *plan = nullptr;
  expect(minet_plan_open(folder, &plan) == MINET_OK, "open");
  const minet_information information = query(plan);
  const uint32_t height = 13, width = 11, scale = information.scale;
  const auto image = [&](uint32_t rows, uint32_t columns, uint32_t channels, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> pixels(size_t(rows) * columns * channels);
    for (float &pixel : pixels) pixel = normal(random);
    return pixels;
  };
  minet_engine *engines[2];
  for (uint32_t i = 0; i < 2; ++i) {
    const minet_options options{sizeof(minet_options), i + 2, MINET_ISA_BEST, 0, 0};
    expect(minet_engine_create(plan, &options, &engines[i]) == MINET_OK, "engine");
  }
  minet_plan_close(plan);
  const std::vector<float> target = image(height, width, information.target_channels, 1);
  const std::vector<float> reference = image(scale * height, scale * width, information.reference_channels, 2);
  minet_features *features = nullptr;
  if (information.needs_reference)
    expect(
        minet_prepare(engines[0], reference.data(), scale * height, scale * width, nullptr, 0, &features) == MINET_OK,
        "prepare");
  const float *guide = information.needs_reference ? reference.data() : nullptr;
  std::vector<float> expected(size_t(scale) * height * scale * width * information.restored_channels);
  expect(minet_run(engines[0], target.data(), height, width, guide, expected.data(), nullptr, 0) == MINET_OK, "run");
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&, caller] {
      minet_engine *engine = engines[caller % 2];
      std::vector<float> restored(expected.size());
      for (int i = 0; i < 6; ++i) {
        const minet_status status =
            i % 2 ? minet_run(engine, target.data(), height, width, guide, restored.data(), nullptr, 0)
                  : minet_restore(engine, target.data(), height, width, features, restored.data(), nullptr, 0);
        expect(status == MINET_OK, "restore beside others");
        expect(std::memcmp(restored.data(), expected.data(), restored.size() * sizeof(float)) == 0, "the same bits");
        expect(minet_restore(engine, target.data(), 0, width, features, restored.data(), nullptr, 0) ==
                   MINET_INVALID_ARGUMENT,
               "an impossible size");
      }
    });
  for (std::thread &caller : callers) caller.join();
  for (minet_engine *engine : engines) minet_engine_destroy(engine);
  minet_features_free(features);
  std::printf("callers agree\n");
}

// Sizes of the target with few and many rows, for every kind of Fourier transform.
void condition_slices(const char *folder) {
  minet_plan *plan = nullptr;
  expect(minet_plan_open(folder, &plan) == MINET_OK, "open");
  const uint32_t scale = query(plan).scale;
  const minet_options options{sizeof(minet_options), 3, MINET_ISA_BEST, 0, 0};
  minet_engine *engine = nullptr;
  expect(minet_engine_create(plan, &options, &engine) == MINET_OK, "engine");
  minet_plan_close(plan);
  static const uint32_t sizes[][2] = {{10, 10}, {33, 21}, {37, 50}, {11, 67}, {64, 80}};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller)
    callers.emplace_back([&, caller] {
      for (size_t i = 0; i < std::size(sizes); ++i) {
        const auto [height, width] = sizes[(i + size_t(caller)) % std::size(sizes)];
        std::mt19937 random(height);
        std::vector<float> target(size_t(height) * width), reference(target.size() * scale * scale);
        for (float &pixel : target) pixel = float(random() % 1000);
        for (float &pixel : reference) pixel = float(random() % 1000);
        minet_level level;
        std::vector<float> normal(reference.size());
        expect(minet_normalise(engine, reference.data(), reference.size(), 1e-11, normal.data(), &level) == MINET_OK,
               "normalise");
        expect(minet_undo(engine, normal.data(), normal.size(), &level, normal.data()) == MINET_OK, "undo");
        minet_seen *seen = nullptr;
        expect(minet_see(engine, reference.data(), scale * height, scale * width, &seen) == MINET_OK, "see");
        double trust = 9;
        expect(minet_trust(engine, target.data(), height, width, seen, &trust) == MINET_OK && trust < 0.5, "trust");
        minet_seen_free(seen);
        expect(minet_put_back(engine, reference.data(), target.data(), height, width, reference.data()) == MINET_OK,
               "put back");
      }
    });
  for (std::thread &caller : callers) caller.join();
  for (uint32_t side = 1; side < 10; ++side) {
    std::vector<float> target(side, 1.0f), restored(size_t(side) * scale * scale, 2.0f);
    expect(minet_put_back(engine, restored.data(), target.data(), 1, side, restored.data()) == MINET_OK, "one row");
    expect(minet_put_back(engine, restored.data(), target.data(), side, 1, restored.data()) == MINET_OK, "one column");
  }
  minet_engine_destroy(engine);
  std::printf("slices conditioned\n");
}

}  // namespace

int main(int count, char **arguments) {
  expect(count == 3, "usage: stress FOLDER PLANS");
  const std::string folder = arguments[1];
  open_damaged_plans(read(folder + "/native.plan"), read(folder + "/weights.bin"), std::atoi(arguments[2]));
  share_engines(arguments[1]);
  condition_slices(arguments[1]);
  return 0;
}
