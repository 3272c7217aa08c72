// The arithmetic around the network, compiled once for AVX2 with FMA and once for AVX-512 (MINET_SLICE_KERNELS names
// the table).
//
// Fourier transforms take sixteen lines at a time, value by value beside each other, so that every instruction works on
// as many lines as a register holds. Two real rows travel as one complex one.
#include "slice_kernels.h"

#include "vector.h"

namespace minet {
namespace {

struct Complex {
  Narrow re, im;
};

inline Complex operator+(Complex a, Complex b) { return {a.re + b.re, a.im + b.im}; }
inline Complex operator-(Complex a, Complex b) { return {a.re - b.re, a.im - b.im}; }
inline Complex times(Complex a, Narrow re, Narrow im) {
  return {multiply_subtract(a.re, re, a.im * im), multiply_add(a.re, im, a.im * re)};
}
inline Complex times(Complex a, const float *number) {
  return times(a, Narrow::all(number[0]), Narrow::all(number[1]));
}
// a - i b and a + i b
inline Complex minus_i(Complex a, Complex b) { return {a.re + b.im, a.im - b.re}; }
inline Complex plus_i(Complex a, Complex b) { return {a.re - b.im, a.im + b.re}; }

// (values, lanes) real and imaginary.
struct Lines {
  float *re, *im;

  Complex load(ptrdiff_t place) const { return {Narrow::load(re + place), Narrow::load(im + place)}; }
  void store(ptrdiff_t place, Complex value) const {
    value.re.store(re + place);
    value.im.store(im + place);
  }
};

// A transform of these is the inverse one of the others, likewise swapped.
inline Lines swapped(Lines lines) { return {lines.im, lines.re}; }

inline void swap(Lines &a, Lines &b) {
  const Lines kept = a;
  a = b;
  b = kept;
}

template <int radix>
inline void butterfly(const Complex in[], const float *, Complex out[]);

template <>
inline void butterfly<2>(const Complex in[], const float *, Complex out[]) {
  out[0] = in[0] + in[1];
  out[1] = in[0] - in[1];
}

template <>
inline void butterfly<3>(const Complex in[], const float *roots, Complex out[]) {
  const Complex sum = in[1] + in[2], difference = in[1] - in[2];
  const Narrow re = Narrow::all(roots[2]), im = Narrow::all(-roots[3]);
  const Complex middle = {multiply_add(sum.re, re, in[0].re), multiply_add(sum.im, re, in[0].im)};
  const Complex turned = {difference.re * im, difference.im * im};
  out[0] = in[0] + sum;
  out[1] = minus_i(middle, turned);
  out[2] = plus_i(middle, turned);
}

template <>
inline void butterfly<4>(const Complex in[], const float *, Complex out[]) {
  const Complex a = in[0] + in[2], b = in[0] - in[2], c = in[1] + in[3], d = in[1] - in[3];
  out[0] = a + c;
  out[1] = minus_i(b, d);
  out[2] = a - c;
  out[3] = plus_i(b, d);
}

template <>
inline void butterfly<5>(const Complex in[], const float *roots, Complex out[]) {
  const Complex a = in[1] + in[4], b = in[1] - in[4], c = in[2] + in[3], d = in[2] - in[3];
  const Narrow re1 = Narrow::all(roots[2]), im1 = Narrow::all(-roots[3]);
  const Narrow re2 = Narrow::all(roots[4]), im2 = Narrow::all(-roots[5]);
  const auto middle = [&](Narrow x, Narrow y) {
    return Complex{multiply_add(a.re, x, multiply_add(c.re, y, in[0].re)),
                   multiply_add(a.im, x, multiply_add(c.im, y, in[0].im))};
  };
  const Complex near = middle(re1, re2), far = middle(re2, re1);
  const Complex near_turned = {multiply_add(b.re, im1, d.re * im2), multiply_add(b.im, im1, d.im * im2)};
  const Complex far_turned = {multiply_subtract(b.re, im2, d.re * im1), multiply_subtract(b.im, im2, d.im * im1)};
  out[0] = in[0] + (a + c);
  out[1] = minus_i(near, near_turned);
  out[2] = minus_i(far, far_turned);
  out[3] = plus_i(far, far_turned);
  out[4] = plus_i(near, near_turned);
}

template <int radix>
void run_stage(const FourierStage &stage, Lines from, Lines to) {
  const ptrdiff_t step = stage.stride * lanes, leg = step * stage.groups;
  for (ptrdiff_t group = 0; group < stage.groups; ++group) {
    const float *twiddles = stage.twiddles + group * (radix - 1) * 2;
    for (ptrdiff_t e = 0; e < step; e += Narrow::width) {
      Complex in[radix], out[radix];
      for (int j = 0; j < radix; ++j) in[j] = from.load(j * leg + group * step + e);
      butterfly<radix>(in, stage.roots, out);
      to.store(group * radix * step + e, out[0]);
      for (int k = 1; k < radix; ++k) to.store((group * radix + k) * step + e, times(out[k], twiddles + 2 * (k - 1)));
    }
  }
}

// Any other radix, by definition.
void run_any_stage(const FourierStage &stage, Lines from, Lines to) {
  const int radix = stage.radix;
  const ptrdiff_t step = stage.stride * lanes, leg = step * stage.groups;
  for (ptrdiff_t group = 0; group < stage.groups; ++group) {
    const float *twiddles = stage.twiddles + group * (radix - 1) * 2;
    for (ptrdiff_t e = 0; e < step; e += Narrow::width) {
      Complex in[largest_radix];
      for (int j = 0; j < radix; ++j) in[j] = from.load(j * leg + group * step + e);
      for (int k = 0; k < radix; ++k) {
        Complex out = in[0];
        for (int j = 1; j < radix; ++j) out = out + times(in[j], stage.roots + 2 * (j * k % radix));
        to.store((group * radix + k) * step + e, k ? times(out, twiddles + 2 * (k - 1)) : out);
      }
    }
  }
}

inline void multiply(Lines lines, const float *by, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; ++i)
    for (int e = 0; e < lanes; e += Narrow::width)
      lines.store(i * lanes + e, times(lines.load(i * lanes + e), by + 2 * i));
}

inline void clear(float *from, ptrdiff_t count) {
  for (ptrdiff_t i = 0; i < count; i += Narrow::width) Narrow::zero().store(from + i);
}

inline void clear(Lines lines, ptrdiff_t begin, ptrdiff_t end) {
  if (end <= begin) return;
  clear(lines.re + begin * lanes, (end - begin) * lanes);
  clear(lines.im + begin * lanes, (end - begin) * lanes);
}

// Not normalised; the result is in `data`, what was there is gone, like what was in `spare`.
void transform(const Fourier &fourier, Lines &data, Lines &spare) {
  if (fourier.inner) {
    const ptrdiff_t length = fourier.inner->length;
    multiply(data, fourier.chirp, fourier.length);
    clear(data, fourier.length, length);
    transform(*fourier.inner, data, spare);
    multiply(data, fourier.spectrum, length);
    Lines turned = swapped(data);
    transform(*fourier.inner, turned, spare);
    data = swapped(turned);
    return multiply(data, fourier.chirp, fourier.length);
  }
  for (int i = 0; i < fourier.stages; ++i) {
    const FourierStage &stage = fourier.stage[i];
    switch (stage.radix) {
      case 2: run_stage<2>(stage, data, spare); break;
      case 3: run_stage<3>(stage, data, spare); break;
      case 4: run_stage<4>(stage, data, spare); break;
      case 5: run_stage<5>(stage, data, spare); break;
      default: run_any_stage(stage, data, spare);
    }
    swap(data, spare);
  }
}

void transform_back(const Fourier &fourier, Lines &data, Lines &spare) {
  Lines turned = swapped(data);
  transform(fourier, turned, spare);
  data = swapped(turned);
}

// Three pairs of arrays in a task's scratch.
struct Rooms {
  Lines first, second, third;

  Rooms(float *scratch, ptrdiff_t each)
      : first{scratch, scratch + each},
        second{scratch + 2 * each, scratch + 3 * each},
        third{scratch + 4 * each, scratch + 5 * each} {}
};

// to[column][row] = from[row][column], eight by eight; keep(value, place) makes of it what is stored there.
template <class Keep>
inline void transpose8(const float *from, ptrdiff_t from_stride, float *to, ptrdiff_t to_stride, const Keep &keep) {
  __m256 row[8], pair[8];
  for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
    pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    row[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
    row[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xEE);
    row[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
    row[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xEE);
  }
  for (int i = 0; i < 4; ++i) {
    const ptrdiff_t low = i * to_stride, high = (i + 4) * to_stride;
    _mm256_storeu_ps(to + low, keep(_mm256_permute2f128_ps(row[i], row[i + 4], 0x20), low));
    _mm256_storeu_ps(to + high, keep(_mm256_permute2f128_ps(row[i], row[i + 4], 0x31), high));
  }
}

inline void transpose8(const float *from, ptrdiff_t from_stride, float *to, ptrdiff_t to_stride) {
  transpose8(from, from_stride, to, to_stride, [](__m256 value, ptrdiff_t) { return value; });
}

// Rows of an image as lanes: (columns, lanes); zeros for rows that there are not.
void to_lanes(const float *image, ptrdiff_t stride, int rows, int columns, float *to) {
  int column = 0;
  if (rows == lanes)
    for (; column + 8 <= columns; column += 8) {
      transpose8(image + column, stride, to + column * lanes, lanes);
      transpose8(image + 8 * stride + column, stride, to + column * lanes + 8, lanes);
    }
  for (; column < columns; ++column)
    for (int row = 0; row < lanes; ++row)
      to[column * lanes + row] = row < rows ? image[row * stride + column] : 0.0f;
}

void from_lanes(const float *from, int rows, int columns, float *image, ptrdiff_t stride) {
  int column = 0;
  if (rows == lanes)
    for (; column + 8 <= columns; column += 8) {
      transpose8(from + column * lanes, lanes, image + column, stride);
      transpose8(from + column * lanes + 8, lanes, image + 8 * stride + column, stride);
    }
  for (; column < columns; ++column)
    for (int row = 0; row < rows; ++row) image[row * stride + column] = from[column * lanes + row];
}

// The same, added to another image, which may be the output.
void add_from_lanes(const float *from, int rows, int columns, const float *image, float *output, ptrdiff_t stride) {
  int column = 0;
  if (rows == lanes)
    for (; column + 8 <= columns; column += 8)
      for (int half = 0; half < 2; ++half) {
        const ptrdiff_t begin = 8 * half * stride + column;
        transpose8(from + column * lanes + 8 * half, lanes, output + begin, stride, [&](__m256 value, ptrdiff_t place) {
          return _mm256_add_ps(_mm256_loadu_ps(image + begin + place), value);
        });
      }
  for (; column < columns; ++column)
    for (int row = 0; row < rows; ++row)
      output[row * stride + column] = image[row * stride + column] + from[column * lanes + row];
}

// How many of the sixteen rows from `first` on there are.
inline int rows_from(int first, int rows) {
  const int left = rows - first;
  return left < 0 ? 0 : left < lanes ? left : lanes;
}

void row_spectra(const RowSpectra &op, ptrdiff_t task, float *scratch) {
  const Rooms rooms(scratch, room(*op.fourier));
  Lines data = rooms.first, spare = rooms.second;
  const int first = int(task) * real_rows, second = first + lanes;
  const int upper = rows_from(first, op.rows), lower = rows_from(second, op.rows);
  to_lanes(op.image + ptrdiff_t(first) * op.columns, op.columns, upper, op.columns, data.re);
  // Rows that there are not have no address either.
  to_lanes(op.image + (lower ? ptrdiff_t(second) * op.columns : 0), op.columns, lower, op.columns, data.im);
  transform(*op.fourier, data, spare);
  const Narrow half = Narrow::all(0.5f);
  for (int k = 0; k < op.kept; ++k) {
    const ptrdiff_t mirror = ptrdiff_t(k ? op.columns - k : 0) * lanes;
    for (int e = 0; e < lanes; e += Narrow::width) {
      const Complex z = data.load(k * lanes + e), m = data.load(mirror + e);
      data.store(k * lanes + e, {half * (z.re + m.re), half * (z.im - m.im)});
      spare.store(k * lanes + e, {half * (z.im + m.im), half * (m.re - z.re)});
    }
  }
  const Spectra &to = op.spectra;
  for (int block = 0; block < 2; ++block) {
    const Lines &from = block ? spare : data;
    const int rows = block ? lower : upper;
    if (!rows) break;
    const ptrdiff_t place = ptrdiff_t(block ? second : first) * to.stride;
    from_lanes(from.re, rows, op.kept, to.re + place, to.stride);
    from_lanes(from.im, rows, op.kept, to.im + place, to.stride);
    for (int row = 0; row < rows; ++row)
      for (ptrdiff_t k = op.kept; k < to.stride; ++k)
        to.re[place + row * to.stride + k] = to.im[place + row * to.stride + k] = 0.0f;
  }
}

inline void load_columns(const Spectra &from, int rows, ptrdiff_t column, Lines to) {
  for (int row = 0; row < rows; ++row)
    for (int e = 0; e < lanes; e += Narrow::width) {
      const ptrdiff_t place = row * from.stride + column + e;
      to.store(row * lanes + e, {Narrow::load(from.re + place), Narrow::load(from.im + place)});
    }
}

inline void store_columns(Lines from, int rows, ptrdiff_t column, const Spectra &to) {
  for (int row = 0; row < rows; ++row)
    for (int e = 0; e < lanes; e += Narrow::width) {
      const ptrdiff_t place = row * to.stride + column + e;
      const Complex value = from.load(row * lanes + e);
      value.re.store(to.re + place);
      value.im.store(to.im + place);
    }
}

void difference(const Difference &op, ptrdiff_t task, float *scratch) {
  const ptrdiff_t one = room(*op.fourier), other = room(*op.measured_fourier), column = task * lanes;
  const Rooms rooms(scratch, one > other ? one : other);
  Lines data = rooms.first, measured = rooms.second, spare = rooms.third;
  load_columns(op.restored, op.rows, column, data);
  transform(*op.fourier, data, spare);
  load_columns(op.measured, op.measured_rows, column, measured);
  transform(*op.measured_fourier, measured, spare);
  const Narrow shrink = Narrow::all(op.shrink);
  for (int line = -op.highest; line <= op.highest; ++line) {
    const ptrdiff_t here = (line < 0 ? op.rows + line : line) * lanes;
    const ptrdiff_t there = (line < 0 ? op.measured_rows + line : line) * lanes;
    const Narrow row_weight = Narrow::all(op.row_weight[line < 0 ? -line : line]);
    for (int e = 0; e < lanes; e += Narrow::width) {
      const Narrow weight = row_weight * Narrow::load(op.column_weight + column + e);
      const Complex is = data.load(here + e), should = measured.load(there + e);
      data.store(here + e, {weight * subtract_product(should.re, is.re, shrink),
                            weight * subtract_product(should.im, is.im, shrink)});
    }
  }
  clear(data, op.highest + 1, op.rows - op.highest);
  transform_back(*op.fourier, data, spare);
  store_columns(data, op.rows, column, op.restored);
}

void added_rows(const AddedRows &op, ptrdiff_t task, float *scratch) {
  const Rooms rooms(scratch, room(*op.fourier));
  Lines data = rooms.first, spare = rooms.second, below = rooms.third;
  const int first = int(task) * real_rows, second = first + lanes;
  const int upper = rows_from(first, op.rows), lower = rows_from(second, op.rows);
  const Spectra &from = op.spectra;
  const ptrdiff_t place = ptrdiff_t(first) * from.stride, next = lower ? ptrdiff_t(second) * from.stride : 0;
  to_lanes(from.re + place, from.stride, upper, op.kept, spare.re);
  to_lanes(from.im + place, from.stride, upper, op.kept, spare.im);
  to_lanes(from.re + next, from.stride, lower, op.kept, below.re);
  to_lanes(from.im + next, from.stride, lower, op.kept, below.im);
  clear(data, op.kept, op.columns - op.kept + 1);
  for (int k = 0; k < op.kept; ++k)
    for (int e = 0; e < lanes; e += Narrow::width) {
      const Complex a = spare.load(k * lanes + e), b = below.load(k * lanes + e);
      if (k) data.store((op.columns - k) * lanes + e, {a.re + b.im, b.re - a.im});
      data.store(k * lanes + e, k ? plus_i(a, b) : Complex{a.re, b.re});
    }
  transform_back(*op.fourier, data, spare);
  for (int block = 0; block < 2; ++block) {
    const int rows = block ? lower : upper;
    if (!rows) break;
    const ptrdiff_t begin = ptrdiff_t(block ? second : first) * op.columns;
    add_from_lanes(block ? data.im : data.re, rows, op.columns, op.image + begin, op.output + begin, op.columns);
  }
}

void low_resolution(const Centre &op, ptrdiff_t task, float *scratch) {
  const ptrdiff_t one = room(*op.fourier), other = room(*op.low_fourier), column = task * lanes;
  const Rooms rooms(scratch, one > other ? one : other);
  Lines data = rooms.first, spare = rooms.second;
  load_columns(op.fine, op.rows, column, data);
  transform(*op.fourier, data, spare);
  for (int left = 0; left < 2; ++left) {
    Lines low = rooms.third, free = spare;
    for (int row = 0; row < op.low_rows; ++row) {
      // The middle line of an even number of rows is the lowest one, as in a centred spectrum.
      const int line = row < (op.low_rows + 1) / 2 ? row : row - op.low_rows;
      const int seen = left ? -line : line;
      const ptrdiff_t place = ptrdiff_t(seen < 0 ? op.rows + seen : seen) * lanes;
      for (int e = 0; e < lanes; e += Narrow::width) {
        const Complex value = data.load(place + e);
        low.store(row * lanes + e, {value.re, left ? Narrow::zero() - value.im : value.im});
      }
    }
    transform_back(*op.low_fourier, low, free);
    store_columns(low, op.low_rows, column, left ? op.left : op.right);
  }
}

void magnitudes(const Magnitudes &op, ptrdiff_t task, float *scratch) {
  const Rooms rooms(scratch, room(*op.fourier));
  Lines data = rooms.first, spare = rooms.second;
  const int first = int(task) * lanes, rows = rows_from(first, op.rows);
  const int right = (op.columns + 1) / 2, left = op.columns / 2;
  const auto to_both = [&](const Spectra &from, int columns, Lines to) {
    const ptrdiff_t place = first * from.stride;
    to_lanes(from.re + place, from.stride, rows, columns, to.re);
    to_lanes(from.im + place, from.stride, rows, columns, to.im);
  };
  to_both(op.right, right, data);
  to_both(op.left, left + 1, spare);
  for (int k = 1; k <= left; ++k)
    for (int e = 0; e < lanes; e += Narrow::width)
      data.store((op.columns - k) * lanes + e, spare.load(k * lanes + e));
  transform_back(*op.fourier, data, spare);
  const Narrow factor = Narrow::all(op.factor);
  for (ptrdiff_t i = 0; i < ptrdiff_t(op.columns) * lanes; i += Narrow::width) {
    const Complex value = data.load(i);
    (factor * root(multiply_add(value.re, value.re, value.im * value.im))).store(spare.re + i);
  }
  from_lanes(spare.re, rows, op.columns, op.output + ptrdiff_t(first) * op.columns, op.columns);
}

double total(const float *values, ptrdiff_t count) {
  Sums sums = Sums::zero();
  ptrdiff_t i = 0;
  for (; i + Vector::width <= count; i += Vector::width) sums.add(Vector::load(values + i));
  double found = sum(sums);
  for (; i < count; ++i) found += values[i];
  return found;
}

double centre(const float *values, ptrdiff_t count, double mean, float *output, float *largest) {
  Sums squares = Sums::zero();
  Vector highest = Vector::zero(), lowest = Vector::zero();
  ptrdiff_t i = 0;
  for (; i + Vector::width <= count; i += Vector::width) {
    const Vector value = minus(Vector::load(values + i), mean);
    squares.add_square(value);
    highest = larger(highest, value);
    lowest = smaller(lowest, value);
    value.store(output + i);
  }
  float high[Vector::width], low[Vector::width], found = 0;
  highest.store(high);
  lowest.store(low);
  for (int lane = 0; lane < Vector::width; ++lane) {
    found = high[lane] > found ? high[lane] : found;
    found = -low[lane] > found ? -low[lane] : found;
  }
  double square = sum(squares);
  for (; i < count; ++i) {
    const float value = float(double(values[i]) - mean);
    output[i] = value;
    square += double(value) * double(value);
    found = value > found ? value : -value > found ? -value : found;
  }
  *largest = found;
  return square;
}

void divide(float *values, ptrdiff_t count, float by) {
  const Vector all = Vector::all(by);
  ptrdiff_t i = 0;
  for (; i + Vector::width <= count; i += Vector::width) (Vector::load(values + i) / all).store(values + i);
  for (; i < count; ++i) values[i] /= by;
}

void scale(const float *values, ptrdiff_t count, float by, float added, float *output) {
  const Vector factor = Vector::all(by), shift = Vector::all(added);
  ptrdiff_t i = 0;
  for (; i + Vector::width <= count; i += Vector::width)
    (Vector::load(values + i) * factor + shift).store(output + i);
  for (; i < count; ++i) output[i] = values[i] * by + added;
}

constexpr int window = 2 * reach + 1;
static_assert(window == 5, "the sums below are written out");
constexpr float share = 1.0f / (window * window);

// Means of the windows around a row of pixels, from the window's rows of a padded image.
template <class Keep>
inline void window_means(const float *rows, ptrdiff_t stride, ptrdiff_t columns, float *sums, const Keep &keep) {
  for (ptrdiff_t x = 0; x < columns + lanes; x += Vector::width) {
    Vector sum = Vector::load(rows + x) + Vector::load(rows + stride + x);
    for (int row = 2; row < window; ++row) sum = sum + Vector::load(rows + row * stride + x);
    sum.store(sums + x);
  }
  for (ptrdiff_t x = 0; x < columns; x += Vector::width) {
    Vector sum = Vector::load(sums + x) + Vector::load(sums + x + 1);
    for (int column = 2; column < window; ++column) sum = sum + Vector::load(sums + x + column);
    keep(x, sum * Vector::all(share));
  }
}

struct Band {
  int begin, end;

  Band(ptrdiff_t task, int height) : begin(int(task) * band), end(begin + band < height ? begin + band : height) {}
};

void moments(const Moments &op, ptrdiff_t task, float *scratch) {
  const Band rows(task, op.height);
  const ptrdiff_t columns = whole_lanes(op.width), stride = band_stride(op.width);
  float *squares = scratch, *sums = scratch + (band + 2 * reach) * stride;
  for (int row = rows.begin; row < rows.end + 2 * reach; ++row)
    for (ptrdiff_t x = 0; x < columns + lanes; x += Vector::width) {
      const Vector value = Vector::load(op.image + row * op.image_stride + x);
      (value * value).store(squares + (row - rows.begin) * stride + x);
    }
  double total = 0;
  for (int row = rows.begin; row < rows.end; ++row) {
    float *mean = op.mean + row * op.stride, *variance = op.variance + row * op.stride;
    window_means(op.image + row * op.image_stride, op.image_stride, columns, sums,
                 [&](ptrdiff_t x, Vector value) { value.store(mean + x); });
    window_means(squares + (row - rows.begin) * stride, stride, columns, sums, [&](ptrdiff_t x, Vector value) {
      const Vector of_window = Vector::load(mean + x);
      larger(value - of_window * of_window, Vector::all(op.least)).store(variance + x);
    });
    Sums each = Sums::zero();
    ptrdiff_t x = 0;
    for (; x + Vector::width <= op.width; x += Vector::width) each.add(Vector::load(variance + x));
    total += sum(each);
    for (; x < op.width; ++x) total += variance[x];
  }
  op.sums[task] = total;
}

void explained(const Explained &op, ptrdiff_t task, float *scratch) {
  const Band rows(task, op.height);
  const ptrdiff_t columns = whole_lanes(op.width), stride = band_stride(op.width);
  float *products = scratch, *sums = scratch + (band + 2 * reach) * stride;
  const Vector loudest = Vector::all(op.loudest);
  double *found = op.sums + task * (op.moves + 1);
  Sums weights = Sums::zero();
  for (int row = rows.begin; row < rows.end; ++row)
    for (ptrdiff_t x = 0; x < columns; x += Vector::width)
      weights.add(Vector::load(op.inside + x) * smaller(Vector::load(op.variance + row * op.stride + x), loudest));
  found[0] = sum(weights);
  for (int move = 0; move < op.moves; ++move) {
    for (int row = rows.begin; row < rows.end + 2 * reach; ++row) {
      const float *image = op.image + row * op.image_stride, *other = op.other[move] + row * op.other_stride;
      float *product = products + (row - rows.begin) * stride;
      for (ptrdiff_t x = 0; x < columns + lanes; x += Vector::width)
        (Vector::load(image + x) * Vector::load(other + x)).store(product + x);
    }
    Sums explains = Sums::zero();
    for (int row = rows.begin; row < rows.end; ++row) {
      const ptrdiff_t place = row * op.stride, other = row * op.other_stride;
      window_means(products + (row - rows.begin) * stride, stride, columns, sums, [&](ptrdiff_t x, Vector value) {
        const Vector variance = Vector::load(op.variance + place + x);
        const Vector expected = Vector::load(op.mean + place + x) * Vector::load(op.other_mean[move] + other + x);
        const Vector covariance = value - expected;
        const Vector weight = Vector::load(op.inside + x) * (smaller(variance, loudest) / variance);
        explains.add(covariance * covariance * weight * Vector::load(op.other_inverse[move] + other + x));
      });
    }
    found[move + 1] = sum(explains);
  }
}

}  // namespace

extern const SliceKernels MINET_SLICE_KERNELS = {
    total,      centre,         divide,     scale,   row_spectra, difference,
    added_rows, low_resolution, magnitudes, moments, explained};

}  // namespace minet
