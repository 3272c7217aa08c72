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

Spectra spectra(Arrays &arrays, uint32_t rows, int columns) {
  const ptrdiff_t stride = whole_lanes(columns);
  float *re = arrays.floats(rows * stride);
  return {re, arrays.floats(rows * stride), stride};
}

// (height, width) from its place in a larger array, with a margin into which it continues periodically.
void wrap(float *padded, ptrdiff_t stride, int height, int width, int margin) {
  for (int row = margin; row < margin + height; ++row) {
    float *inside = padded + row * stride;
    std::memcpy(inside, inside + width, size_t(margin) * sizeof(float));
    std::memcpy(inside + margin + width, inside + margin, size_t(margin) * sizeof(float));
  }
  const size_t line = size_t(width + 2 * margin) * sizeof(float);
  for (int row = 0; row < margin; ++row) {
    std::memcpy(padded + row * stride, padded + (row + height) * stride, line);
    std::memcpy(padded + (margin + height + row) * stride, padded + (margin + row) * stride, line);
  }
}

// (height, width) into the place that wrap() continues from.
void put_inside(const float *image, ptrdiff_t image_stride, int height, int width, float *padded, ptrdiff_t stride,
                int margin) {
  for (int row = 0; row < height; ++row)
    std::memcpy(padded + (row + margin) * stride + margin, image + row * image_stride, size_t(width) * sizeof(float));
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
  const auto across = plans_.of(columns), down = plans_.of(rows);
  const auto low_across = plans_.of(width), low_down = plans_.of(height);
  const ptrdiff_t each = std::max({room(**across), room(**down), room(**low_across), room(**low_down)});
  const ptrdiff_t stride = band_stride(w);
  const ptrdiff_t scratch = std::max(arrays_of_scratch * each, band_scratch(w));
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
  const auto run = [&](ptrdiff_t tasks, const auto &kernel, const auto &op) {
    pool_.run(tasks, [&](ptrdiff_t task, unsigned thread) { kernel(op, task, space + thread * scratch); });
  };
  run(tasks_of(rows, real_rows), kernels_.row_spectra,
      RowSpectra{reference, int(rows), int(columns), kept, fine, &**across});
  run(fine.stride / lanes, kernels_.low_resolution, Centre{fine, right, left, int(rows), h, &**down, &**low_down});
  const float factor = float(1 / (double(scale) * scale * height * width));
  run(tasks_of(height, lanes), kernels_.magnitudes, Magnitudes{right, left, h, w, factor, low, &**low_across});

  if (!standardise(low, height, width, standard)) std::memset(standard, 0, size_t(h) * w * sizeof(float));
  const size_t values = size_t(h + 2 * margin_of_values) * stride, windows = size_t(h + 2 * farthest) * stride;
  std::unique_ptr<Seen> seen(new Seen{height, width, stride, Block((values + 2 * windows) * sizeof(float)), nullptr,
                                      nullptr, nullptr});
  seen->values = reinterpret_cast<float *>(seen->memory.data());
  seen->mean = seen->values + values;
  seen->inverse_variance = seen->mean + windows;
  std::memset(seen->values, 0, (values + 2 * windows) * sizeof(float));
  std::memset(padded, 0, size_t(h + 2 * reach) * stride * sizeof(float));
  put_inside(standard, w, h, w, padded, stride, reach);
  wrap(padded, stride, h, w, reach);
  put_inside(standard, w, h, w, seen->values, stride, margin_of_values);
  wrap(seen->values, stride, h, w, margin_of_values);
  run(bands, kernels_.moments, Moments{padded, stride, h, w, 0.0f, mean, variance, stride, sums});
  double total = 0;
  for (ptrdiff_t i = 0; i < bands; ++i) total += sums[i];
  float floor = float(flat * (total / (double(h) * w)));
  if (floor == 0) floor = 1;
  for (int row = 0; row < h; ++row)
    for (int x = 0; x < w; ++x) variance[row * stride + x] = 1 / (variance[row * stride + x] + floor);
  put_inside(mean, stride, h, w, seen->mean, stride, farthest);
  wrap(seen->mean, stride, h, w, farthest);
  put_inside(variance, stride, h, w, seen->inverse_variance, stride, farthest);
  wrap(seen->inverse_variance, stride, h, w, farthest);
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
  std::memset(padded, 0, size_t(h + 2 * reach) * stride * sizeof(float));
  put_inside(standard, w, h, w, padded, stride, reach);
  wrap(padded, stride, h, w, reach);
  for (ptrdiff_t x = 0; x < stride; ++x) inside[x] = x < w ? 1.0f : 0.0f;

  const Moments moments{padded, stride, h, w, std::numeric_limits<float>::min(), mean, variance, stride, sums};
  pool_.run(bands, [&](ptrdiff_t task, unsigned thread) { kernels_.moments(moments, task, space + thread * scratch); });
  double total = 0;
  for (ptrdiff_t i = 0; i < bands; ++i) total += sums[i];

  Explained explained{padded, stride, h, w, mean, variance, stride, float(loudest * (total / (double(h) * w))),
                      most_moves, {}, {}, {}, seen.stride, inside, sums};
  for (int move = 0; move < most_moves; ++move) {
    const ptrdiff_t place = (farthest - moves[move][0]) * seen.stride + farthest - moves[move][1];
    explained.other[move] = seen.values + place;
    explained.other_mean[move] = seen.mean + place;
    explained.other_inverse[move] = seen.inverse_variance + place;
  }
  pool_.run(bands,
            [&](ptrdiff_t task, unsigned thread) { kernels_.explained(explained, task, space + thread * scratch); });
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
  const auto across = plans_.of(columns), down = plans_.of(rows);
  const auto low_across = plans_.of(width), low_down = plans_.of(height);
  const ptrdiff_t scratch = arrays_of_scratch * std::max({room(**across), room(**down), room(**low_across),
                                                          room(**low_down)});
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
  const auto run = [&](ptrdiff_t tasks, const auto &kernel, const auto &op) {
    pool_.run(tasks, [&](ptrdiff_t task, unsigned thread) { kernel(op, task, space + thread * scratch); });
  };
  run(tasks_of(rows, real_rows), kernels_.row_spectra,
      RowSpectra{restored, int(rows), int(columns), kept, fine, &**across});
  run(tasks_of(height, real_rows), kernels_.row_spectra,
      RowSpectra{target, int(height), int(width), kept, measured, &**low_across});
  const float shrink = float(1 / (double(scale) * scale));
  run(fine.stride / lanes, kernels_.difference,
      Difference{fine, measured, int(rows), int(height), highest, row_weight.data(), column_weight.data(), shrink,
                 &**down, &**low_down});
  run(tasks_of(rows, real_rows), kernels_.added_rows,
      AddedRows{fine, int(rows), int(columns), kept, restored, output, &**across});
}

}  // namespace minet
