// What is done to a slice before and after the network, as kernels of one instruction set see it: Fourier transforms of
// sixteen lines at a time, and windows around every pixel.
//
// As kernels.h: no standard header that has inline functions.
#pragma once

#include <stddef.h>

namespace minet {

constexpr int lanes = 16;              // lines that are transformed beside each other
constexpr int real_rows = 2 * lanes;   // real rows that are transformed as so many complex ones
constexpr int band = 16;               // rows of a task of a windowed operation
constexpr int reach = 2;               // of a window: five pixels wide and high
constexpr int most_stages_of_fourier = 20;
constexpr int largest_radix = 31;      // lengths with a larger prime factor are transformed by convolution
constexpr int most_moves = 5;

constexpr ptrdiff_t whole_lanes(ptrdiff_t count) { return (count + lanes - 1) / lanes * lanes; }

// Decimation in frequency, sorted on the way (Stockham).
struct FourierStage {
  int radix;
  int groups;             // of `radix` values each, `stride` beside each other
  ptrdiff_t stride;       // in lines' values
  const float *twiddles;  // (groups, radix - 1, real and imaginary)
  const float *roots;     // (radix, real and imaginary) of unity
};

struct Fourier {
  int length;
  int stages;
  FourierStage stage[most_stages_of_fourier];
  // Bluestein's form: a convolution with a chirp, through transforms of a power of two. Null for lengths that factor.
  const Fourier *inner;
  const float *chirp;     // (length, real and imaginary)
  const float *spectrum;  // (inner length, real and imaginary), the chirp's divided by that length
};

// Floats of each of the arrays that a transform works in.
constexpr ptrdiff_t room(const Fourier &fourier) {
  return ptrdiff_t(fourier.inner ? fourier.inner->length : fourier.length) * lanes;
}

constexpr int arrays_of_scratch = 6;  // of room() floats, which every Fourier kernel takes

struct Spectra {
  float *re, *im;
  ptrdiff_t stride;  // floats from row to row, whole lanes
};

// Columns 0 to kept - 1 of the spectra of real rows; real_rows of them a task.
struct RowSpectra {
  const float *image;
  int rows, columns, kept;
  Spectra spectra;
  const Fourier *fourier;  // of a row
};

// Sixteen columns a task: what was measured minus what was restored, weighted, as columns of an image.
struct Difference {
  Spectra restored;        // replaced by the difference
  Spectra measured;
  int rows, measured_rows;
  int highest;             // line of k-space that counts
  const float *row_weight, *column_weight;
  float shrink;            // what the larger image's spectrum is larger by
  const Fourier *fourier, *measured_fourier;
};

// Real rows from columns 0 to kept - 1 of their spectra, added to an image; real_rows of them a task.
struct AddedRows {
  Spectra spectra;
  int rows, columns, kept;
  const float *image;
  float *output;
  const Fourier *fourier;
};

// Sixteen columns a task: the centre of k-space, as columns of a smaller complex image; those right of the middle, and
// those left of it, which mirror them.
struct Centre {
  Spectra fine;
  Spectra right, left;
  int rows, low_rows;
  const Fourier *fourier, *low_fourier;
};

// Magnitude of complex rows, lanes of them a task.
struct Magnitudes {
  Spectra right, left;
  int rows, columns;
  float factor;
  float *output;
  const Fourier *fourier;
};

// Mean and variance of the window around every pixel, a band of rows a task.
struct Moments {
  const float *image;     // with a margin of `reach`; finite as far as whole lanes and one more reach
  ptrdiff_t image_stride;
  int height, width;
  float least;            // a variance is at least
  float *mean, *variance;
  ptrdiff_t stride;       // of both
  double *sums;           // of the variances of each task
};

// How much of the windows' variance moved copies of another image explain, a band of rows a task.
struct Explained {
  const float *image;  // as Moments::image
  ptrdiff_t image_stride;
  int height, width;
  const float *mean, *variance;
  ptrdiff_t stride;
  float loudest;  // what a window weighs at most
  int moves;
  const float *other[most_moves];  // each as `image`
  const float *other_mean[most_moves], *other_inverse[most_moves];
  ptrdiff_t other_stride;  // of the three
  const float *inside;  // 1 for a column of the image, 0 beyond; whole lanes
  double *sums;  // (tasks, moves + 1): weights, then what each move explains
};

constexpr ptrdiff_t band_stride(ptrdiff_t width) { return whole_lanes(width) + 2 * lanes; }
constexpr ptrdiff_t band_scratch(ptrdiff_t width) { return (band + 2 * reach + 1) * band_stride(width); }

struct SliceKernels {
  double (*total)(const float *values, ptrdiff_t count);
  // Values minus a mean; gives the sum of squares of what remains, and its largest magnitude.
  double (*centre)(const float *values, ptrdiff_t count, double mean, float *output, float *largest);
  void (*divide)(float *values, ptrdiff_t count, float by);
  void (*scale)(const float *values, ptrdiff_t count, float by, float added, float *output);
  // Each runs one task; scratch belongs to the calling thread.
  void (*row_spectra)(const RowSpectra &, ptrdiff_t task, float *scratch);
  void (*difference)(const Difference &, ptrdiff_t task, float *scratch);
  void (*added_rows)(const AddedRows &, ptrdiff_t task, float *scratch);
  void (*low_resolution)(const Centre &, ptrdiff_t task, float *scratch);
  void (*magnitudes)(const Magnitudes &, ptrdiff_t task, float *scratch);
  void (*moments)(const Moments &, ptrdiff_t task, float *scratch);
  void (*explained)(const Explained &, ptrdiff_t task, float *scratch);
};

extern const SliceKernels slice_kernels_avx2;
extern const SliceKernels slice_kernels_avx512;

}  // namespace minet
