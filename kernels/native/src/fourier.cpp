#include "fourier.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>

namespace minet {
namespace {

constexpr size_t most_plans = 64;
constexpr double pi = 3.14159265358979323846;

using Number = std::complex<double>;

// exp(-2 pi i part / whole), from the part that is left of whole turns.
Number turn(int64_t part, int64_t whole) { return std::polar(1.0, -2 * pi * double(part % whole) / double(whole)); }

// Radix 2, for the one spectrum that a plan needs.
void transform(std::vector<Number> &values) {
  const size_t count = values.size();
  if (count == 1) return;
  std::vector<Number> even(count / 2), odd(count / 2);
  for (size_t i = 0; i < count; ++i) (i % 2 ? odd : even)[i / 2] = values[i];
  transform(even);
  transform(odd);
  for (size_t k = 0; k < count / 2; ++k) {
    const Number turned = turn(int64_t(k), int64_t(count)) * odd[k];
    values[k] = even[k] + turned;
    values[k + count / 2] = even[k] - turned;
  }
}

void append(std::vector<float> &numbers, Number number) {
  numbers.push_back(float(number.real()));
  numbers.push_back(float(number.imag()));
}

// The next radix of a length: fours while there are some, then the smallest prime.
int radix_of(int length) {
  if (length % 4 == 0) return 4;
  for (int radix = 2; int64_t(radix) * radix <= length; ++radix)
    if (length % radix == 0) return radix;
  return length;
}

int largest_prime(int length) {
  int largest = 1;
  while (length > 1) {
    const int radix = radix_of(length);
    largest = std::max(largest, radix);
    length /= radix;
  }
  return largest;
}

}  // namespace

FourierPlan::FourierPlan(int length) {
  fourier_.length = length;
  if (largest_prime(length) > largest_radix)
    chirp();
  else
    factor(length);
}

void FourierPlan::factor(int left) {
  for (ptrdiff_t stride = 1; left > 1;) {
    const int radix = radix_of(left);
    const int groups = left / radix;
    std::vector<float> twiddles, roots;
    for (int group = 0; group < groups; ++group)
      for (int k = 1; k < radix; ++k) append(twiddles, turn(int64_t(group) * k, left));
    for (int k = 0; k < radix; ++k) append(roots, turn(k, radix));
    numbers_.push_back(std::move(twiddles));
    numbers_.push_back(std::move(roots));
    fourier_.stage[fourier_.stages++] = {radix, groups, stride, numbers_[numbers_.size() - 2].data(),
                                         numbers_.back().data()};
    left = groups;
    stride *= radix;
  }
}

void FourierPlan::chirp() {
  const int64_t length = fourier_.length;
  int64_t whole = 1;
  while (whole < 2 * length - 1) whole *= 2;
  inner_ = std::make_unique<const FourierPlan>(int(whole));
  fourier_.inner = &**inner_;
  std::vector<float> chirp, convolver;
  std::vector<Number> spectrum(static_cast<size_t>(whole));
  for (int64_t i = 0; i < length; ++i) {
    const Number number = turn(i * i, 2 * length);
    append(chirp, number);
    spectrum[size_t(i)] = spectrum[size_t((whole - i) % whole)] = std::conj(number);
  }
  transform(spectrum);
  for (const Number &number : spectrum) append(convolver, number / double(whole));
  numbers_.push_back(std::move(chirp));
  numbers_.push_back(std::move(convolver));
  fourier_.chirp = numbers_[0].data();
  fourier_.spectrum = numbers_[1].data();
}

std::shared_ptr<const FourierPlan> FourierPlans::of(uint32_t length) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto found = plans_.find(length);
  if (found != plans_.end()) return found->second;
  const auto made = std::make_shared<const FourierPlan>(int(length));
  if (plans_.size() >= most_plans) plans_.clear();
  plans_.emplace(length, made);
  return made;
}

}  // namespace minet
