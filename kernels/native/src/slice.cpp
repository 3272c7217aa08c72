#include "slice.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace minet {
namespace {

// As minet_sdk/trust.py and minet_sdk/kspace.py have them.
constexpr uint32_t smallest = 10;
constexpr double flat = 1e-4, loudest = 0.1, soft_edge = 0.25;
constexpr int farthest = 3;
constexpr int moves[most_moves][2] = {{0, 0}, {3, 0}, {-3, 0}, {0, 3}, {0, -3}};
constexpr int margin_of_values = farthest + reach;
constexpr double pi = 3.14159265358979323846;

ptrdiff_t tasks_of(uint32_t rows, int each) { return (ptrdiff_t(rows) + each - 1) / each; }

// Cuts memory into arrays, each on cache lines of its own; without memory it only counts.
class Arrays {
 public:
  explicit Arrays(unsigned char *memory) : memory_(memory) {}

  template <class T>
  T *of(size_t count) {
    const size_t begin = bytes_;
    bytes_ += (count * sizeof(T) + 63) / 64 * 64;
    return memory_ ? reinterpret_cast<T *>(memory_ + begin) : nullptr;
  }
  float *floats(ptrdiff_t count) { return of<float>(size_t(count)); }
  size_t bytes() const { return bytes_; }

 private:
  unsigned char *memory_;
  size_t bytes_ = 0;
};

// What `lay` asks for, in one block of a store for as long as this lives.
class Space {
 public:
  template <class Lay>
  Space(const std::shared_ptr<BlockStore> &store, const Lay &lay) : lease_(store, bytes(lay)) {
    Arrays arrays(lease_.data());
    lay(arrays);
  }

 private:
  template <class Lay>
  static size_t bytes(const Lay &lay) {
    Arrays counted(nullptr);
    lay(counted);
    return counted.bytes();
  }

  Lease lease_;
};

// Runs kernels on all threads, each with scratch of its own.
struct Workers {
  Pool &pool;
  float *scratch;
  ptrdiff_t each;

  template <class Operation>
  void run(ptrdiff_t tasks, void (*kernel)(const Operation &, ptrdiff_t, float *), const Operation &operation) const {
    pool.run(tasks, [&](ptrdiff_t task, unsigned thread) { kernel(operation, task, scratch + thread * each); });
  }
};

Spectra spectra(Arrays &arrays, uint32_t rows, int columns) {
  const ptrdiff_t stride = whole_lanes(columns);
  float *re = arrays.floats(rows * stride);
  return {re, arrays.floats(rows * stride), stride};
}

// (height, width) with a margin into which it continues periodically, and zeros up to `stride`.
void surround(const float *image, ptrdiff_t image_stride, int height, int width, int margin, float *padded,
              ptrdiff_t stride) {
  std::memset(padded, 0, size_t(height + 2 * margin) * stride * sizeof(float));
  const size_t side = size_t(margin) * sizeof(float), line = size_t(width + 2 * margin) * sizeof(float);
  for (int row = 0; row < height; ++row) {
    float *inside = padded + (row + margin) * stride;
    std::memcpy(inside + margin, image + row * image_stride, size_t(width) * sizeof(float));
    std::memcpy(inside, inside + width, side);
    std::memcpy(inside + margin + width, inside + margin, side);
  }
  for (int row = 0; row < margin; ++row) {
    std::memcpy(padded + row * stride, padded + (row + height) * stride, line);
    std::memcpy(padded + (margin + height + row) * stride, padded + (margin + row) * stride, line);
  }
}

double total_of(const double *sums, ptrdiff_t count) {
  double total = 0;
  for (ptrdiff_t i = 0; i < count; ++i) total += sums[i];
  return total;
}

// Weight of line 0 to `highest` of k-space of so many samples; see kspace._soft_taper.
std::vector<float> soft_weights(uint32_t samples, int highest, double factor) {
  std::vector<float> weights(size_t(highest) + 1);
  for (int line = 0; line <= highest; ++line) {
    const double inside = std::clamp((1 - line / (samples / 2.0)) / soft_edge, 0.0, 1.0);
    weights[size_t(line)] = float((0.5 - 0.5 * std::cos(pi * inside)) * factor);
  }
  return weights;
}

}  // namespace

// Of the rows and columns of a restored image and of its target.
struct SliceRules::Transforms {
  std::shared_ptr<const FourierPlan> across, down, low_across, low_down;

  ptrdiff_t scratch() const {
    return arrays_of_scratch * std::max({room(**across), room(**down), room(**low_across), room(**low_down)});
  }
};

SliceRules::Transforms SliceRules::transforms(uint32_t height, uint32_t width, uint32_t scale) {
  return {plans_.of(width * scale), plans_.of(height * scale), plans_.of(width), plans_.of(height)};
}

minet_level SliceRules::normalise(const float *image, size_t pixels, double epsilon, float *normal) const {
  const ptrdiff_t count = ptrdiff_t(pixels);
  const double mean = kernels_.total(image, count) / double(pixels);
  float largest = 0;
  const double squares = kernels_.centre(image, count, mean, normal, &largest);
  const double unit = largest > 0 ? std::min(double(largest), 1.0) : 1.0;
  const double deviation = std::sqrt(squares / double(pixels)) + epsilon * unit;
  kernels_.divide(normal, count, float(deviation));
  return {mean, deviation};
}

void SliceRules::undo(const float *normal, size_t pixels, const minet_level &level, float *image) const {
  kernels_.scale(normal, ptrdiff_t(pixels), float(level.deviation), float(level.mean), image);
}

// Mean 0 and standard deviation 1, or all zeros for a constant image, which gives false.
bool SliceRules::standardise(const float *image, uint32_t height, uint32_t width, float *output) const {
  const ptrdiff_t count = ptrdiff_t(height) * width;
  float largest = 0;
  const double squares = kernels_.centre(image, count, kernels_.total(image, count) / double(count), output, &largest);
  const float size = float(std::sqrt(squares / double(count)));
  if (!(size > 0)) return false;
  kernels_.divide(output, count, size);
  return true;
}

std::unique_ptr<Seen> SliceRules::see(const float *reference, uint32_t height, uint32_t width, uint32_t scale) {
  if (height < smallest || width < smallest)
    throw Failure{MINET_INVALID_ARGUMENT, "reference is (" + std::to_string(height) + ", " + std::to_string(width) +
                                              "); trust needs at least 10 x 10 pixels"};
  const uint32_t rows = height * scale, columns = width * scale;
  const int kept = int(width / 2) + 1, h = int(height), w = int(width);
  const Transforms by = transforms(height, width, scale);
  const ptrdiff_t stride = band_stride(w), scratch = std::max(by.scratch(), band_scratch(w));
  Spectra fine, right, left;
  float *low, *standard, *padded, *mean, *variance, *space;
  double *sums;
  const ptrdiff_t bands = tasks_of(height, band);
  const Space held(store_, [&](Arrays &arrays) {
    fine = spectra(arrays, rows, kept);
    right = spectra(arrays, height, kept);
    left = spectra(arrays, height, kept);
    low = arrays.floats(ptrdiff_t(h) * w);
    standard = arrays.floats(ptrdiff_t(h) * w);
    padded = arrays.floats(ptrdiff_t(h + 2 * reach) * stride);
    mean = arrays.floats(ptrdiff_t(h) * stride);
    variance = arrays.floats(ptrdiff_t(h) * stride);
    sums = arrays.of<double>(size_t(bands));
    space = arrays.floats(scratch * pool_.threads());
  });
  const Workers workers{pool_, space, scratch};
  workers.run(tasks_of(rows, real_rows), kernels_.row_spectra,
              RowSpectra{reference, int(rows), int(columns), kept, fine, &**by.across});
  workers.run(fine.stride / lanes, kernels_.low_resolution,
              Centre{fine, right, left, int(rows), h, &**by.down, &**by.low_down});
  const float factor = float(1 / (double(scale) * scale * height * width));
  workers.run(tasks_of(height, lanes), kernels_.magnitudes,
              Magnitudes{right, left, h, w, factor, low, &**by.low_across});

  if (!standardise(low, height, width, standard)) std::memset(standard, 0, size_t(h) * w * sizeof(float));
  const size_t values = size_t(h + 2 * margin_of_values) * stride, windows = size_t(h + 2 * farthest) * stride;
  std::unique_ptr<Seen> seen(new Seen{height, width, stride, Block((values + 2 * windows) * sizeof(float)), nullptr,
                                      nullptr, nullptr});
  seen->values = reinterpret_cast<float *>(seen->memory.data());
  seen->mean = seen->values + values;
  seen->inverse_variance = seen->mean + windows;
  surround(standard, w, h, w, margin_of_values, seen->values, stride);
  surround(standard, w, h, w, reach, padded, stride);
  workers.run(bands, kernels_.moments, Moments{padded, stride, h, w, 0.0f, mean, variance, stride, sums});
  float floor = float(flat * (total_of(sums, bands) / (double(h) * w)));
  if (floor == 0) floor = 1;
  for (int row = 0; row < h; ++row)
    for (int x = 0; x < w; ++x) variance[row * stride + x] = 1 / (variance[row * stride + x] + floor);
  surround(mean, stride, h, w, farthest, seen->mean, stride);
  surround(variance, stride, h, w, farthest, seen->inverse_variance, stride);
  return seen;
}

double SliceRules::trust(const float *target, const Seen &seen) {
  const int h = int(seen.height), w = int(seen.width);
  const ptrdiff_t stride = band_stride(w), scratch = band_scratch(w), bands = tasks_of(seen.height, band);
  float *standard, *padded, *mean, *variance, *inside, *space;
  double *sums;
  const Space held(store_, [&](Arrays &arrays) {
    standard = arrays.floats(ptrdiff_t(h) * w);
    padded = arrays.floats(ptrdiff_t(h + 2 * reach) * stride);
    mean = arrays.floats(ptrdiff_t(h) * stride);
    variance = arrays.floats(ptrdiff_t(h) * stride);
    inside = arrays.floats(stride);
    sums = arrays.of<double>(size_t(bands) * (most_moves + 1));
    space = arrays.floats(scratch * pool_.threads());
  });
  if (!standardise(target, seen.height, seen.width, standard)) return 0;
  surround(standard, w, h, w, reach, padded, stride);
  for (ptrdiff_t x = 0; x < stride; ++x) inside[x] = x < w ? 1.0f : 0.0f;

  const Workers workers{pool_, space, scratch};
  workers.run(bands, kernels_.moments,
              Moments{padded, stride, h, w, std::numeric_limits<float>::min(), mean, variance, stride, sums});
  const float most = float(loudest * (total_of(sums, bands) / (double(h) * w)));
  Explained explained{padded, stride, h, w, mean, variance, stride, most, most_moves, {}, {}, {}, seen.stride, inside,
                      sums};
  for (int move = 0; move < most_moves; ++move) {
    const ptrdiff_t place = (farthest - moves[move][0]) * seen.stride + farthest - moves[move][1];
    explained.other[move] = seen.values + place;
    explained.other_mean[move] = seen.mean + place;
    explained.other_inverse[move] = seen.inverse_variance + place;
  }
  workers.run(bands, kernels_.explained, explained);
  double found[most_moves + 1] = {};
  for (ptrdiff_t i = 0; i < bands; ++i)
    for (int j = 0; j <= most_moves; ++j) found[j] += sums[i * (most_moves + 1) + j];
  const double here = found[1] / found[0];
  const double chance = *std::max_element(found + 2, found + most_moves + 1) / found[0];
  return (here - chance) / (1 - chance);
}

void SliceRules::put_back(const float *restored, const float *target, uint32_t height, uint32_t width, uint32_t scale,
                          float *output) {
  const uint32_t rows = height * scale, columns = width * scale;
  // The middle line of an even number of samples stands at one end of the spectrum only, and weighs nothing.
  const int highest = int(height - 1) / 2, kept = int(width - 1) / 2 + 1;
  const Transforms by = transforms(height, width, scale);
  const ptrdiff_t scratch = by.scratch();
  const std::vector<float> row_weight = soft_weights(height, highest, 1 / (double(height) * width));
  std::vector<float> column_weight = soft_weights(width, kept - 1, 1);
  column_weight.resize(size_t(whole_lanes(kept)));
  Spectra fine, measured;
  float *space;
  const Space held(store_, [&](Arrays &arrays) {
    fine = spectra(arrays, rows, kept);
    measured = spectra(arrays, height, kept);
    space = arrays.floats(scratch * pool_.threads());
  });
  const Workers workers{pool_, space, scratch};
  workers.run(tasks_of(rows, real_rows), kernels_.row_spectra,
              RowSpectra{restored, int(rows), int(columns), kept, fine, &**by.across});
  workers.run(tasks_of(height, real_rows), kernels_.row_spectra,
              RowSpectra{target, int(height), int(width), kept, measured, &**by.low_across});
  const float shrink = float(1 / (double(scale) * scale));
  workers.run(fine.stride / lanes, kernels_.difference,
              Difference{fine, measured, int(rows), int(height), highest, row_weight.data(), column_weight.data(),
                         shrink, &**by.down, &**by.low_down});
  workers.run(tasks_of(rows, real_rows), kernels_.added_rows,
              AddedRows{fine, int(rows), int(columns), kept, restored, output, &**by.across});
}

}  // namespace minet
