// Sixteen floats at a time, in one register or in two, so that every instruction set gives the same bits.
//
// Included by kernels.cpp and slice_kernels.cpp alone, which are compiled once for each instruction set: everything
// here is local to them.
#pragma once

#include <immintrin.h>

namespace {

#if defined(__AVX512F__)

constexpr int registers = 32;

struct Vector {
  static constexpr int width = 16;
  __m512 value;

  static Vector load(const float *from) { return {_mm512_loadu_ps(from)}; }
  static Vector all(float x) { return {_mm512_set1_ps(x)}; }
  static Vector zero() { return {_mm512_setzero_ps()}; }
  void store(float *to) const { _mm512_storeu_ps(to, value); }
  // Past the caches; `to` aligned. Whoever streams fills a whole cache line at once.
  void stream(float *to) const { _mm512_stream_ps(to, value); }
};

inline Vector operator+(Vector a, Vector b) { return {_mm512_add_ps(a.value, b.value)}; }
inline Vector operator-(Vector a, Vector b) { return {_mm512_sub_ps(a.value, b.value)}; }
inline Vector operator*(Vector a, Vector b) { return {_mm512_mul_ps(a.value, b.value)}; }
inline Vector operator/(Vector a, Vector b) { return {_mm512_div_ps(a.value, b.value)}; }
// a * b + c, c - a * b, a * b - c, each rounded once
inline Vector multiply_add(Vector a, Vector b, Vector c) { return {_mm512_fmadd_ps(a.value, b.value, c.value)}; }
inline Vector subtract_product(Vector c, Vector a, Vector b) { return {_mm512_fnmadd_ps(a.value, b.value, c.value)}; }
inline Vector multiply_subtract(Vector a, Vector b, Vector c) { return {_mm512_fmsub_ps(a.value, b.value, c.value)}; }
// The larger or smaller one; b where either is not a number.
inline Vector larger(Vector a, Vector b) { return {_mm512_max_ps(a.value, b.value)}; }
inline Vector smaller(Vector a, Vector b) { return {_mm512_min_ps(a.value, b.value)}; }
inline Vector rounded(Vector a) { return {_mm512_roundscale_ps(a.value, 0)}; }
// a * 2^n for whole n whose result is a normal number
inline Vector scaled(Vector a, Vector n) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_cvtps_epi32(n.value), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a.value), exponent))};
}
inline __m256 halves_added(Vector a) {
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.value), 1));
  return _mm256_add_ps(_mm512_castps512_ps256(a.value), high);
}

inline Vector root(Vector a) { return {_mm512_sqrt_ps(a.value)}; }

using Narrow = Vector;

// Sixteen sums in double precision.
struct Sums {
  __m512d low, high;

  static Sums zero() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
  static __m512d low_of(Vector a) { return _mm512_cvtps_pd(_mm512_castps512_ps256(a.value)); }
  static __m512d high_of(Vector a) {
    return _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.value), 1)));
  }
  void add(Vector a) {
    low = _mm512_add_pd(low, low_of(a));
    high = _mm512_add_pd(high, high_of(a));
  }
  void add_square(Vector a) {
    low = _mm512_fmadd_pd(low_of(a), low_of(a), low);
    high = _mm512_fmadd_pd(high_of(a), high_of(a), high);
  }
  void store(double *to) const {
    _mm512_storeu_pd(to, low);
    _mm512_storeu_pd(to + 8, high);
  }
};

// Computed in double precision, then rounded.
inline Vector minus(Vector a, double b) {
  const __m512d all = _mm512_set1_pd(b);
  const __m256 low = _mm512_cvtpd_ps(_mm512_sub_pd(Sums::low_of(a), all));
  const __m256 high = _mm512_cvtpd_ps(_mm512_sub_pd(Sums::high_of(a), all));
  const __m512d lower = _mm512_castps_pd(_mm512_castps256_ps512(low));
  return {_mm512_castpd_ps(_mm512_insertf64x4(lower, _mm256_castps_pd(high), 1))};
}

#else

constexpr int registers = 16;

struct Narrow {
  static constexpr int width = 8;
  __m256 value;

  static Narrow load(const float *from) { return {_mm256_loadu_ps(from)}; }
  static Narrow all(float x) { return {_mm256_set1_ps(x)}; }
  static Narrow zero() { return {_mm256_setzero_ps()}; }
  void store(float *to) const { _mm256_storeu_ps(to, value); }
  void stream(float *to) const { _mm256_stream_ps(to, value); }
};

inline Narrow operator+(Narrow a, Narrow b) { return {_mm256_add_ps(a.value, b.value)}; }
inline Narrow operator-(Narrow a, Narrow b) { return {_mm256_sub_ps(a.value, b.value)}; }
inline Narrow operator*(Narrow a, Narrow b) { return {_mm256_mul_ps(a.value, b.value)}; }
inline Narrow operator/(Narrow a, Narrow b) { return {_mm256_div_ps(a.value, b.value)}; }
inline Narrow multiply_add(Narrow a, Narrow b, Narrow c) { return {_mm256_fmadd_ps(a.value, b.value, c.value)}; }
inline Narrow subtract_product(Narrow c, Narrow a, Narrow b) { return {_mm256_fnmadd_ps(a.value, b.value, c.value)}; }
inline Narrow multiply_subtract(Narrow a, Narrow b, Narrow c) { return {_mm256_fmsub_ps(a.value, b.value, c.value)}; }
inline Narrow larger(Narrow a, Narrow b) { return {_mm256_max_ps(a.value, b.value)}; }
inline Narrow smaller(Narrow a, Narrow b) { return {_mm256_min_ps(a.value, b.value)}; }
inline Narrow rounded(Narrow a) { return {_mm256_round_ps(a.value, 0)}; }
inline Narrow root(Narrow a) { return {_mm256_sqrt_ps(a.value)}; }
inline Narrow scaled(Narrow a, Narrow n) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n.value), 23);
  return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.value), exponent))};
}

struct Vector {
  static constexpr int width = 16;
  Narrow low, high;

  static Vector load(const float *from) { return {Narrow::load(from), Narrow::load(from + 8)}; }
  static Vector all(float x) { return {Narrow::all(x), Narrow::all(x)}; }
  static Vector zero() { return {Narrow::zero(), Narrow::zero()}; }
  void store(float *to) const {
    low.store(to);
    high.store(to + 8);
  }
};

inline Vector operator+(Vector a, Vector b) { return {a.low + b.low, a.high + b.high}; }
inline Vector operator-(Vector a, Vector b) { return {a.low - b.low, a.high - b.high}; }
inline Vector operator*(Vector a, Vector b) { return {a.low * b.low, a.high * b.high}; }
inline Vector operator/(Vector a, Vector b) { return {a.low / b.low, a.high / b.high}; }
inline Vector multiply_add(Vector a, Vector b, Vector c) {
  return {multiply_add(a.low, b.low, c.low), multiply_add(a.high, b.high, c.high)};
}
inline Vector larger(Vector a, Vector b) { return {larger(a.low, b.low), larger(a.high, b.high)}; }
inline Vector smaller(Vector a, Vector b) { return {smaller(a.low, b.low), smaller(a.high, b.high)}; }
inline __m256 halves_added(Vector a) { return _mm256_add_ps(a.low.value, a.high.value); }

struct Sums {
  __m256d part[4];

  static Sums zero() {
    const __m256d none = _mm256_setzero_pd();
    return {{none, none, none, none}};
  }
  static Sums of(Vector a) {
    const __m256 low = a.low.value, high = a.high.value;
    return {{_mm256_cvtps_pd(_mm256_castps256_ps128(low)), _mm256_cvtps_pd(_mm256_extractf128_ps(low, 1)),
             _mm256_cvtps_pd(_mm256_castps256_ps128(high)), _mm256_cvtps_pd(_mm256_extractf128_ps(high, 1))}};
  }
  void add(Vector a) {
    const Sums values = of(a);
    for (int i = 0; i < 4; ++i) part[i] = _mm256_add_pd(part[i], values.part[i]);
  }
  void add_square(Vector a) {
    const Sums values = of(a);
    for (int i = 0; i < 4; ++i) part[i] = _mm256_fmadd_pd(values.part[i], values.part[i], part[i]);
  }
  void store(double *to) const {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(to + 4 * i, part[i]);
  }
};

inline Vector minus(Vector a, double b) {
  const __m256d all = _mm256_set1_pd(b);
  const Sums values = Sums::of(a);
  __m128 quarter[4];
  for (int i = 0; i < 4; ++i) quarter[i] = _mm256_cvtpd_ps(_mm256_sub_pd(values.part[i], all));
  return {{_mm256_set_m128(quarter[1], quarter[0])}, {_mm256_set_m128(quarter[3], quarter[2])}};
}

#endif

inline double sum(const Sums &a) {
  double each[16], total = 0;
  a.store(each);
  for (double one : each) total += one;
  return total;
}

inline float sum(Vector a) {
  const __m256 eight = halves_added(a);
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// exp(x) to one unit in the last place or so (Cephes' polynomial); not a number stays so.
inline Narrow exponential(Narrow x) {
  x = larger(Narrow::all(-87.0f), smaller(Narrow::all(88.0f), x));
  const Narrow n = rounded(x * Narrow::all(1.44269504088896341f));
  Narrow r = subtract_product(x, n, Narrow::all(0.693359375f));
  r = subtract_product(r, n, Narrow::all(-2.12194440e-4f));
  Narrow p = Narrow::all(1.9875691500e-4f);
  p = multiply_add(p, r, Narrow::all(1.3981999507e-3f));
  p = multiply_add(p, r, Narrow::all(8.3334519073e-3f));
  p = multiply_add(p, r, Narrow::all(4.1665795894e-2f));
  p = multiply_add(p, r, Narrow::all(1.6666665459e-1f));
  p = multiply_add(p, r, Narrow::all(5.0000001201e-1f));
  const Narrow value = multiply_add(p, r * r, r) + Narrow::all(1.0f);
  return scaled(value, n);
}

inline Narrow sigmoid(Narrow x) {
  const Narrow one = Narrow::all(1.0f);
  return one / (one + exponential(Narrow::zero() - x));
}

}  // namespace
