// The arithmetic of the engine, compiled once for AVX2 with FMA and once for AVX-512 (MINET_KERNELS names the table).
//
// 3x3 convolutions run as Winograd F(6x6, 3x3): a strip of tiles is transformed, multiplied point by point and
// transformed back while it is in the second-level cache. Features are stored pixel by pixel (NHWC).
#include "kernels.h"

#include "vector.h"

// GCC takes a function that only prefetches for one that does nothing, and removes its calls.
#define MINET_INLINE __attribute__((always_inline)) inline

namespace minet {
namespace {

constexpr int cache_line = 16;  // floats
constexpr int rows_at_once = 12;
constexpr int channels_of_group = group_panels * panel;

constexpr int lanes = panel / Narrow::width;  // vectors of a cache line

// Large images are written past the caches: they are read again by the next operation at the earliest, and what is not
// fetched only to be overwritten leaves the memory and the caches to what is read. Only whole lines at once are worth it.
MINET_INLINE void stream_line(const Narrow line[lanes], float *to) {
#pragma GCC unroll 2
  for (int lane = 0; lane < lanes; ++lane) line[lane].stream(to + lane * Narrow::width);
}

MINET_INLINE void write_line(const Narrow line[lanes], float *to, bool streaming) {
  if (streaming) return stream_line(line, to);
#pragma GCC unroll 2
  for (int lane = 0; lane < lanes; ++lane) line[lane].store(to + lane * Narrow::width);
}

// Before another thread may read what was streamed.
inline void finish_streams() { _mm_sfence(); }

// One dimension of the input transform, B^T d, for the points 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.
inline void input_points(const Narrow d[side], Narrow out[side]) {
  const auto all = Narrow::all;
  // At x and -x: what even and what odd samples give.
  const auto pair = [](Narrow even, Narrow odd, Narrow *to) {
    to[0] = even + odd;
    to[1] = even - odd;
  };
  out[0] = multiply_add(all(5.25f), d[4] - d[2], d[0] - d[6]);
  pair(subtract_product(d[2] + d[6], all(4.25f), d[4]), subtract_product(d[1] + d[5], all(4.25f), d[3]), out + 1);
  const Narrow middle = all(2.5f) * d[3];
  pair(multiply_add(all(0.25f), d[2], subtract_product(d[6], all(1.25f), d[4])),
       multiply_add(all(2.0f), d[5], multiply_subtract(all(0.5f), d[1], middle)), out + 3);
  pair(multiply_add(all(4.0f), d[2], subtract_product(d[6], all(5.0f), d[4])),
       multiply_add(all(0.5f), d[5], multiply_subtract(all(2.0f), d[1], middle)), out + 5);
  out[7] = multiply_add(all(5.25f), d[3] - d[5], d[7] - d[1]);
}

// One dimension of the output transform, A^T m.
inline void output_points(const Narrow m[side], Narrow out[tile]) {
  const auto all = Narrow::all;
  const Narrow a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4], e = m[5] + m[6], f = m[5] - m[6];
  out[0] = (m[0] + a) + (c + e);
  out[1] = multiply_add(all(2.0f), d, multiply_add(all(0.5f), f, b));
  out[2] = multiply_add(all(4.0f), c, multiply_add(all(0.25f), e, a));
  out[3] = multiply_add(all(8.0f), d, multiply_add(all(0.125f), f, b));
  out[4] = multiply_add(all(16.0f), c, multiply_add(all(0.0625f), e, a));
  out[5] = multiply_add(all(32.0f), d, multiply_add(all(0.03125f), f, b)) + m[7];
}

// Transform one tile; load(row, column, channel) gives a vector of its 8x8 input pixels, keep(row, column, channel, line)
// gets each cache line of them on the way.
template <class Load, class Keep>
inline void transform_input(const Load &load, const Keep &keep, int depth, float *to, ptrdiff_t stride) {
  for (int c = 0; c < depth; c += panel) {
    Narrow half[lanes][side][side];
#pragma GCC unroll 1
    for (int column = 0; column < side; ++column) {
      Narrow line[side][lanes];
#pragma GCC unroll 2
      for (int lane = 0; lane < lanes; ++lane) {
        Narrow d[side], out[side];
#pragma GCC unroll 8
        for (int row = 0; row < side; ++row) d[row] = line[row][lane] = load(row, column, c + lane * Narrow::width);
        input_points(d, out);
#pragma GCC unroll 8
        for (int row = 0; row < side; ++row) half[lane][row][column] = out[row];
      }
#pragma GCC unroll 8
      for (int row = 0; row < side; ++row) keep(row, column, c, line[row]);
    }
#pragma GCC unroll 1
    for (int lane = 0; lane < lanes; ++lane)
#pragma GCC unroll 1
      for (int row = 0; row < side; ++row) {
        Narrow out[side];
        input_points(half[lane][row], out);
        float *first = to + row * side * stride + c + lane * Narrow::width;
#pragma GCC unroll 8
        for (int column = 0; column < side; ++column) out[column].store(first + column * stride);
      }
  }
}

// m (rows, J panels) = [m +] v (rows, depth) * u (J panels, depth, panel), sums over the depth in order.
template <int R, int J>
inline void multiply(const float *v, ptrdiff_t v_stride, const float *u, int depth, float *m, ptrdiff_t m_stride,
                     bool add) {
  Vector sums[R][J];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) sums[r][j] = add ? Vector::load(m + r * m_stride + j * panel) : Vector::zero();
  for (int k = 0; k < depth; ++k) {
    Vector w[J];
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) w[j] = Vector::load(u + (ptrdiff_t(j) * depth + k) * panel);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vector x = Vector::all(v[r * v_stride + k]);
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) sums[r][j] = multiply_add(x, w[j], sums[r][j]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) sums[r][j].store(m + r * m_stride + j * panel);
}

template <int R, int J>
inline void multiply_rest(int rows, const float *v, ptrdiff_t v_stride, const float *u, int depth, float *m,
                          ptrdiff_t m_stride, bool add) {
  if (rows == R)
    multiply<R, J>(v, v_stride, u, depth, m, m_stride, add);
  else if constexpr (R > 1)
    multiply_rest<R - 1, J>(rows, v, v_stride, u, depth, m, m_stride, add);
}

// As many rows at a time as the registers hold beside the weights.
template <int J>
void multiply_rows(int rows, const float *v, ptrdiff_t v_stride, const float *u, int depth, float *m,
                   ptrdiff_t m_stride, bool add) {
  constexpr int most = registers == 32 ? (J == 4 ? 6 : J == 3 ? 8 : 12) : 6;
  for (; rows >= most; rows -= most, v += most * v_stride, m += most * m_stride)
    multiply<most, J>(v, v_stride, u, depth, m, m_stride, add);
  if (rows) multiply_rest<most - 1, J>(rows, v, v_stride, u, depth, m, m_stride, add);
}

void multiply_panels(int panels, int rows, const float *v, ptrdiff_t v_stride, const float *u, int depth, float *m,
                     ptrdiff_t m_stride, bool add) {
  if constexpr (registers == 32) {
    switch (panels) {
      case 4:
        return multiply_rows<4>(rows, v, v_stride, u, depth, m, m_stride, add);
      case 3:
        return multiply_rows<3>(rows, v, v_stride, u, depth, m, m_stride, add);
      case 2:
        return multiply_rows<2>(rows, v, v_stride, u, depth, m, m_stride, add);
      default:
        return multiply_rows<1>(rows, v, v_stride, u, depth, m, m_stride, add);
    }
  } else {
    for (int j = 0; j < panels; ++j)
      multiply_rows<1>(rows, v, v_stride, u + ptrdiff_t(j) * depth * panel, depth, m + j * panel, m_stride, add);
  }
}

inline Narrow activated(Narrow x, int activation) {
  if (activation == relu) return larger(Narrow::zero(), x);
  return activation == logistic ? sigmoid(x) : x;
}

inline float activated(float x, int activation) {
  if (activation == relu) return x < 0.0f ? 0.0f : x;
  if (activation == no_activation) return x;
  alignas(64) float lanes[16];
  sigmoid(Narrow::all(x)).store(lanes);
  return lanes[0];
}

// Transform one tile back and finish its pixels; channels [first, first + panels * 16) of the convolution.
template <bool whole>
inline void finish_tile(const Convolution3 &conv, const float *m, ptrdiff_t stride, int first, int panels, int y, int x,
                        float *sums) {
  const Epilogue &e = conv.epilogue;
  const int shuffle = conv.shuffle;
  const int rows = whole ? tile : (conv.height - y < tile ? conv.height - y : tile);
  const int columns = whole ? tile : (conv.width - x < tile ? conv.width - x : tile);
  // Visits the places of a row's pixels inside the image in order.
  const auto pixels = [&](auto &&visit) {
    if constexpr (whole) {
#pragma GCC unroll 8
      for (int i = 0; i < tile; ++i) visit(i);
    } else {
      for (int i = 0; i < columns; ++i) visit(i);
    }
  };
  for (int offset = 0; offset < panels * panel; offset += panel) {
    Narrow half[lanes][tile][side];
#pragma GCC unroll 1
    for (int lane = 0; lane < lanes; ++lane)
#pragma GCC unroll 1
      for (int column = 0; column < side; ++column) {
        Narrow d[side], out[tile];
#pragma GCC unroll 8
        for (int row = 0; row < side; ++row)
          d[row] = Narrow::load(m + (row * side + column) * stride + offset + lane * Narrow::width);
        output_points(d, out);
#pragma GCC unroll 8
        for (int row = 0; row < tile; ++row) half[lane][row][column] = out[row];
      }

    const int channel = first + offset;
    // Packed channels run phase by phase of the shuffle, so that a vector stays together.
    const int phase = channel / e.channels, stored = channel % e.channels;
    const ptrdiff_t across = ptrdiff_t(shuffle) * e.channels;
    const ptrdiff_t down = across * shuffle * conv.width;
    const ptrdiff_t corner = (ptrdiff_t(y) * shuffle + phase / shuffle) * shuffle * conv.width * e.channels +
                             (ptrdiff_t(x) * shuffle + phase % shuffle) * e.channels + stored;
    const Narrow alpha = Narrow::all(e.alpha);
    Narrow total[lanes];
#pragma GCC unroll 2
    for (int lane = 0; lane < lanes; ++lane) total[lane] = Narrow::zero();
    for (int row = 0; row < rows; ++row) {
      const ptrdiff_t start = corner + row * down;
      Narrow line[tile][lanes];
#pragma GCC unroll 1
      for (int lane = 0; lane < lanes; ++lane) {
        Narrow out[tile];
        output_points(half[lane][row], out);
        const int part = lane * Narrow::width;
        if (e.bias) {
          const Narrow bias = Narrow::load(e.bias + channel + part);
          pixels([&](int i) { out[i] = out[i] + bias; });
        }
        if (e.activation == relu) pixels([&](int i) { out[i] = larger(Narrow::zero(), out[i]); });
        if (e.activation == logistic) pixels([&](int i) { out[i] = sigmoid(out[i]); });
        if (e.alpha != 1.0f) pixels([&](int i) { out[i] = out[i] * alpha; });
        if (e.partials) {
          Narrow sum_of_row = Narrow::zero();
          pixels([&](int i) { sum_of_row = sum_of_row + out[i]; });
          total[lane] = total[lane] + sum_of_row;
        }
        if (e.gate && e.gate_is_vector) {
          const Narrow gate = Narrow::load(e.gate + channel + part);
          pixels([&](int i) { out[i] = out[i] * gate; });
        } else if (e.gate) {
          pixels([&](int i) { out[i] = out[i] * Narrow::load(e.gate + start + i * across + part); });
        }
        for (int k = 0; k < e.residuals; ++k) {
          const float *residual = e.residual[k] + start + part;
          pixels([&](int i) { out[i] = out[i] + Narrow::load(residual + i * across); });
        }
        float *output = e.output + start + part;
        if (!e.streams)
          pixels([&](int i) { out[i].store(output + i * across); });
        else if (lanes == 1)
          pixels([&](int i) { out[i].stream(output + i * across); });
        else
          pixels([&](int i) { line[i][lane] = out[i]; });
      }
      if (lanes > 1 && e.streams) pixels([&](int i) { stream_line(line[i], e.output + start + i * across); });
    }
    if (e.partials)
#pragma GCC unroll 2
      for (int lane = 0; lane < lanes; ++lane) {
        float *to = sums + offset + lane * Narrow::width;
        (Narrow::load(to) + total[lane]).store(to);
      }
  }
}

// Ask for some pixels of a row to be brought into the second-level cache, channels [0, depth) of each.
template <bool to_write>
MINET_INLINE void prefetch(const float *image, ptrdiff_t stride, int depth, int height, int width, int y, int x,
                           int count) {
  if (y < 0 || y >= height) return;
  const int begin = x < 0 ? 0 : x, end = x + count < width ? x + count : width;
  for (int column = begin; column < end; ++column) {
    const float *pixel = image + (ptrdiff_t(y) * width + column) * stride;
    for (int c = 0; c < depth; c += cache_line)
      if constexpr (to_write)
        __builtin_prefetch(pixel + c, 1, 2);
      else
        _mm_prefetch(reinterpret_cast<const char *>(pixel + c), _MM_HINT_T1);
  }
}

// Likewise pixels [first, first + count) of an image that has so many.
MINET_INLINE void prefetch_run(const float *image, ptrdiff_t channels, ptrdiff_t first, ptrdiff_t count,
                               ptrdiff_t pixels) {
  const ptrdiff_t end = first + count < pixels ? first + count : pixels;
  for (ptrdiff_t at = first * channels; at < end * channels; at += cache_line)
    _mm_prefetch(reinterpret_cast<const char *>(image + at), _MM_HINT_T1);
}

// What a strip will read and write, asked for bit by bit while another part of it is multiplied: the memory is idle
// then.
class Foresight {
 public:
  Foresight(const Convolution3 &conv, ptrdiff_t tile_columns, int first_channel, int channels)
      : conv_(conv), tile_columns_(tile_columns), first_(first_channel), channels_(channels) {}

  // Rows of the input of tiles [first, first + tiles), from the share of point p.
  MINET_INLINE void input(const Chunk &chunk, ptrdiff_t first, int tiles, int p) const {
    const int spans = tiles * side;
    for (int span = spans * p / points; span < spans * (p + 1) / points; ++span) {
      const ptrdiff_t t = first + span / side;
      const int y = int(t / tile_columns_) * tile - 1 + span % side, x = int(t % tile_columns_) * tile + 1;
      prefetch<false>(chunk.input, chunk.stride, chunk.depth, conv_.height, conv_.width, y, x, tile);
      if (chunk.added) prefetch<false>(chunk.added, chunk.stride, chunk.depth, conv_.height, conv_.width, y, x, tile);
      if (chunk.sum && !chunk.streams && span % side >= 1 && span % side <= tile)
        prefetch<true>(chunk.sum, chunk.stride, chunk.depth, conv_.height, conv_.width, y, x - 1, tile);
    }
  }

  // Likewise rows of the output, and of what is added to it or gates it.
  MINET_INLINE void output(ptrdiff_t first, int tiles, int p) const {
    const Epilogue &e = conv_.epilogue;
    if (conv_.shuffle != 1) return;
    const int spans = tiles * tile;
    for (int span = spans * p / points; span < spans * (p + 1) / points; ++span) {
      const ptrdiff_t t = first + span / tile;
      const int y = int(t / tile_columns_) * tile + span % tile, x = int(t % tile_columns_) * tile;
      if (!e.streams) prefetch<true>(e.output + first_, e.channels, channels_, conv_.height, conv_.width, y, x, tile);
      if (e.gate && !e.gate_is_vector)
        prefetch<false>(e.gate + first_, e.channels, channels_, conv_.height, conv_.width, y, x, tile);
      for (int i = 0; i < e.residuals; ++i)
        prefetch<false>(e.residual[i] + first_, e.channels, channels_, conv_.height, conv_.width, y, x, tile);
    }
  }

 private:
  const Convolution3 &conv_;
  const ptrdiff_t tile_columns_;
  const int first_, channels_;
};

constexpr auto keep_nothing = [](int, int, int, const Narrow *) {};

// Transform the tile whose first output is (y, x); `inside` says that all of its input lies in the image.
template <bool inside>
inline void transform_tile(const Convolution3 &conv, const Chunk &chunk, int y, int x, float *to, ptrdiff_t stride) {
  const ptrdiff_t across = chunk.stride, down = across * conv.width, corner = (y - 1) * down + (x - 1) * across;
  // Offset of an input pixel, negative outside the image.
  const auto tap = [&](int row, int column) -> ptrdiff_t {
    const bool there =
        inside || (y - 1 + row >= 0 && y - 1 + row < conv.height && x - 1 + column >= 0 && x - 1 + column < conv.width);
    return there ? corner + row * down + column * across : -1;
  };
  const float *input = chunk.input, *scale = chunk.scale, *added = chunk.added;
  float *sum = chunk.sum;
  const auto plain = [&](int row, int column, int c) {
    const ptrdiff_t at = tap(row, column);
    return inside || at >= 0 ? Narrow::load(input + at + c) : Narrow::zero();
  };
  if (!scale) return transform_input(plain, keep_nothing, chunk.depth, to, stride);
  const auto scaled = [&](int row, int column, int c) {
    const ptrdiff_t at = tap(row, column);
    if (!inside && at < 0) return Narrow::zero();
    return multiply_add(Narrow::load(input + at + c), Narrow::load(scale + c), Narrow::load(added + at + c));
  };
  if (!sum) return transform_input(scaled, keep_nothing, chunk.depth, to, stride);
  const auto keep = [&](int row, int column, int c, const Narrow *line) {
    if (row < 1 || row > tile || column < 1 || column > tile) return;
    const ptrdiff_t at = tap(row, column);
    if (!inside && at < 0) return;
    write_line(line, sum + at + c, chunk.streams);
  };
  transform_input(scaled, keep, chunk.depth, to, stride);
}

inline void transform_tile(const Convolution3 &conv, const Chunk &chunk, int y, int x, float *to, ptrdiff_t stride) {
  if (y >= 1 && x >= 1 && y + side - 1 <= conv.height && x + side - 1 <= conv.width)
    transform_tile<true>(conv, chunk, y, x, to, stride);
  else
    transform_tile<false>(conv, chunk, y, x, to, stride);
}

void convolution3(const Convolution3 &conv, ptrdiff_t task, float *scratch) {
  const int groups = (conv.panels + group_panels - 1) / group_panels;
  const ptrdiff_t strip = task / groups;
  const int first_panel = int(task % groups) * group_panels;
  const int panels = conv.panels - first_panel < group_panels ? conv.panels - first_panel : group_panels;
  const ptrdiff_t tile_columns = (conv.width + tile - 1) / tile, tile_rows = (conv.height + tile - 1) / tile;
  const ptrdiff_t first_tile = strip * conv.tiles_per_strip, left = tile_columns * tile_rows - first_tile;
  const int tiles = int(left < conv.tiles_per_strip ? left : conv.tiles_per_strip);
  const int wide = panels * panel;

  int deepest = 0;
  for (int k = 0; k < conv.chunks; ++k)
    if (conv.chunk[k].depth > deepest) deepest = conv.chunk[k].depth;
  float *sums = scratch;
  const ptrdiff_t stride = point_stride(conv.tiles_per_strip, deepest > wide ? deepest : wide);
  float *m = scratch + channels_of_group;
  float *v = m + points_between(conv.chunks) * stride;
  const Foresight foresight(conv, tile_columns, first_panel * panel, wide);

  for (int k = 0; k < conv.chunks; ++k) {
    const Chunk &chunk = conv.chunk[k];
    for (int t = 0; t < tiles; ++t)
      transform_tile(conv, chunk, int((first_tile + t) / tile_columns) * tile,
                     int((first_tile + t) % tile_columns) * tile, v + ptrdiff_t(t) * chunk.depth, stride);
    const bool last = k + 1 == conv.chunks;
    const ptrdiff_t next_tile = first_tile + conv.tiles_per_strip;
    const ptrdiff_t next_left = tile_columns * tile_rows - next_tile;
    const int next_tiles = int(next_left < 0 ? 0 : next_left < conv.tiles_per_strip ? next_left : conv.tiles_per_strip);
    for (int p = 0; p < points; ++p) {
      if (last) {
        foresight.input(conv.chunk[0], next_tile, next_tiles, p);
        foresight.output(first_tile, tiles, p);
      } else {
        foresight.input(conv.chunk[k + 1], first_tile, tiles, p);
      }
      const float *u = chunk.weights + (ptrdiff_t(p) * conv.panels + first_panel) * chunk.depth * panel;
      multiply_panels(panels, tiles, v + p * stride, chunk.depth, u, chunk.depth, m + p * stride, wide, k > 0);
    }
  }

  for (int c = 0; c < wide; ++c) sums[c] = 0.0f;
  for (int t = 0; t < tiles; ++t) {
    const int y = int((first_tile + t) / tile_columns) * tile, x = int((first_tile + t) % tile_columns) * tile;
    const float *from = m + ptrdiff_t(t) * wide;
    if (y + tile <= conv.height && x + tile <= conv.width)
      finish_tile<true>(conv, from, stride, first_panel * panel, panels, y, x, sums);
    else
      finish_tile<false>(conv, from, stride, first_panel * panel, panels, y, x, sums);
  }
  finish_streams();
  if (conv.epilogue.partials) {
    float *partials = conv.epilogue.partials + strip * conv.epilogue.channels + first_panel * panel;
    for (int c = 0; c < wide; ++c) partials[c] = sums[c];
  }
}

// Finish pixels that follow each other in memory: raw (count, raw_stride) holds channels [first, first + channels).
void finish_run(const Epilogue &e, const float *raw, ptrdiff_t raw_stride, ptrdiff_t pixel, ptrdiff_t count, int first,
                int channels, float *partials) {
  const int vectors = e.channels % panel == 0 ? channels : 0;
  for (int c = 0; c < vectors; c += panel) {
    const int channel = first + c;
    const Narrow alpha = Narrow::all(e.alpha);
    Narrow total[lanes];
    for (int lane = 0; lane < lanes; ++lane) total[lane] = Narrow::zero();
    for (ptrdiff_t i = 0; i < count; ++i) {
      const ptrdiff_t at = (pixel + i) * e.channels + channel;
      Narrow line[lanes];
#pragma GCC unroll 2
      for (int lane = 0; lane < lanes; ++lane) {
        const int part = lane * Narrow::width;
        Narrow value = Narrow::load(raw + i * raw_stride + c + part);
        if (e.bias) value = value + Narrow::load(e.bias + channel + part);
        value = activated(value, e.activation);
        if (e.alpha != 1.0f) value = value * alpha;
        if (partials) total[lane] = total[lane] + value;
        if (e.gate) value = value * Narrow::load(e.gate + (e.gate_is_vector ? channel : at) + part);
        for (int k = 0; k < e.residuals; ++k) value = value + Narrow::load(e.residual[k] + at + part);
        line[lane] = value;
      }
      if (e.output) write_line(line, e.output + at, e.streams);
    }
    if (partials)
      for (int lane = 0; lane < lanes; ++lane) total[lane].store(partials + channel + lane * Narrow::width);
  }
  for (int c = vectors; c < channels; ++c) {
    const int channel = first + c;
    float total = 0.0f;
    for (ptrdiff_t i = 0; i < count; ++i) {
      const ptrdiff_t at = (pixel + i) * e.channels + channel;
      float value = raw[i * raw_stride + c];
      if (e.bias) value += e.bias[channel];
      value = activated(value, e.activation);
      if (e.alpha != 1.0f) value *= e.alpha;
      total += value;
      if (e.gate) value *= e.gate_is_vector ? e.gate[channel] : e.gate[at];
      for (int k = 0; k < e.residuals; ++k) value += e.residual[k][at];
      if (e.output) e.output[at] = value;
    }
    if (partials) partials[channel] = total;
  }
  if (e.streams) finish_streams();
}

void convolution1(const Convolution1 &conv, ptrdiff_t task, float *scratch) {
  const ptrdiff_t first = task * run_pixels, left = conv.pixels - first;
  const int count = int(left < run_pixels ? left : run_pixels);
  float *partials = conv.epilogue.partials ? conv.epilogue.partials + task * conv.epilogue.channels : nullptr;
  // The memory is idle while this task multiplies: time to fetch what this thread will want next.
  const ptrdiff_t next = first + run_pixels;
  for (int i = 0; i < conv.epilogue.residuals; ++i)
    prefetch_run(conv.epilogue.residual[i], conv.epilogue.channels, next, count, conv.pixels);
  for (int first_panel = 0; first_panel < conv.panels; first_panel += group_panels) {
    const int panels = conv.panels - first_panel < group_panels ? conv.panels - first_panel : group_panels;
    for (int k = 0; k < conv.chunks; ++k) {
      const Chunk &chunk = conv.chunk[k];
      const float *u = chunk.weights + ptrdiff_t(first_panel) * chunk.depth * panel;
      for (int row = 0; row < count; row += rows_at_once) {
        const int rows = count - row < rows_at_once ? count - row : rows_at_once;
        if (first_panel == 0) prefetch_run(chunk.input, chunk.stride, next + row, rows, conv.pixels);
        multiply_panels(panels, rows, chunk.input + (first + row) * chunk.stride, chunk.stride, u, chunk.depth,
                        scratch + row * channels_of_group, channels_of_group, k > 0);
      }
    }
    finish_run(conv.epilogue, scratch, channels_of_group, first, count, first_panel * panel, panels * panel, partials);
  }
}

void direct_planar(const Direct &conv, int y, float *raw, float *rows) {
  const int k = conv.kernel, width = conv.width;
  const ptrdiff_t stride = width + k + Vector::width;
  for (int ky = 0; ky < k; ++ky) {
    int from = y + ky - conv.before;
    float *row = rows + ky * stride;
    if (conv.repeat_edge) from = from < 0 ? 0 : from < conv.height ? from : conv.height - 1;
    if (from < 0 || from >= conv.height) {
      for (ptrdiff_t x = 0; x < stride; ++x) row[x] = 0.0f;
      continue;
    }
    const float *line = conv.input + ptrdiff_t(from) * width;
    const float left = conv.repeat_edge ? line[0] : 0.0f, right = conv.repeat_edge ? line[width - 1] : 0.0f;
    for (int x = 0; x < conv.before; ++x) row[x] = left;
    for (int x = 0; x < width; ++x) row[conv.before + x] = line[x];
    for (ptrdiff_t x = conv.before + width; x < stride; ++x) row[x] = right;
  }
  constexpr int at_once = 4;
  alignas(64) float lanes[Vector::width];
  for (int o = 0; o < conv.outputs; o += at_once) {
    const int outputs = conv.outputs - o < at_once ? conv.outputs - o : at_once;
    // A last group of fewer outputs repeats its last one: same loads, nothing stored.
    const float *w[at_once];
    for (int j = 0; j < at_once; ++j) w[j] = conv.weights + ptrdiff_t(o + (j < outputs ? j : outputs - 1)) * k * k;
    for (int x = 0; x < width; x += Vector::width) {
      Vector sums[at_once] = {Vector::zero(), Vector::zero(), Vector::zero(), Vector::zero()};
      for (int ky = 0; ky < k; ++ky)
        for (int kx = 0; kx < k; ++kx) {
          const Vector value = Vector::load(rows + ky * stride + x + kx);
#pragma GCC unroll 4
          for (int j = 0; j < at_once; ++j) sums[j] = multiply_add(Vector::all(w[j][ky * k + kx]), value, sums[j]);
        }
      const int count = width - x < Vector::width ? width - x : Vector::width;
      for (int j = 0; j < outputs; ++j) {
        sums[j].store(lanes);
        for (int i = 0; i < count; ++i) raw[ptrdiff_t(x + i) * conv.outputs + o + j] = lanes[i];
      }
    }
  }
}

// The first and last tap of a kernel of which position - before + tap lies in [0, size).
inline int first_tap(int position, int before) { return position < before ? before - position : 0; }
inline int end_tap(int position, int before, int kernel, int size) {
  const int end = size + before - position;
  return end < kernel ? end : kernel;
}

template <int pixels>
inline void spread_pixels(const Direct &conv, int y, int x, int ky0, int ky1, int kx0, int kx1, float *raw) {
  for (int o = 0; o < conv.outputs; o += panel) {
    Vector sums[pixels];
#pragma GCC unroll 8
    for (int p = 0; p < pixels; ++p) sums[p] = Vector::zero();
    for (int ky = ky0; ky < ky1; ++ky) {
      const float *line = conv.input + ptrdiff_t(y + ky - conv.before) * conv.width * conv.inputs;
      for (int kx = kx0; kx < kx1; ++kx) {
        const float *from = line + ptrdiff_t(x + kx - conv.before) * conv.inputs;
        const float *w = conv.weights + ptrdiff_t(ky * conv.kernel + kx) * conv.inputs * conv.outputs + o;
        for (int c = 0; c < conv.inputs; ++c) {
          const Vector weight = Vector::load(w + ptrdiff_t(c) * conv.outputs);
#pragma GCC unroll 8
          for (int p = 0; p < pixels; ++p)
            sums[p] = multiply_add(Vector::all(from[p * conv.inputs + c]), weight, sums[p]);
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < pixels; ++p) sums[p].store(raw + ptrdiff_t(x + p) * conv.outputs + o);
  }
}

void direct_spread(const Direct &conv, int y, float *raw) {
  constexpr int at_once = 6;
  const int k = conv.kernel;
  const int ky0 = first_tap(y, conv.before), ky1 = end_tap(y, conv.before, k, conv.height);
  for (int x = 0; x < conv.width;) {
    if (x >= conv.before && x + at_once - 1 + k - conv.before <= conv.width) {
      spread_pixels<at_once>(conv, y, x, ky0, ky1, 0, k, raw);
      x += at_once;
    } else {
      spread_pixels<1>(conv, y, x, ky0, ky1, first_tap(x, conv.before), end_tap(x, conv.before, k, conv.width), raw);
      x += 1;
    }
  }
}

// J outputs of one pixel, each from taps [kx0, kx1) of rows [ky0, ky1): a row's taps and their channels lie side by side,
// in the input as in the weights.
template <int J>
inline void gather_pixel(const Direct &conv, int y, int x, int ky0, int ky1, int kx0, int kx1, int first, float *raw) {
  constexpr int sums_of_each = J == 1 ? 4 : J == 2 ? 2 : 1;  // so that some are always under way
  constexpr int step = sums_of_each * Vector::width;
  const ptrdiff_t line = ptrdiff_t(conv.kernel) * conv.inputs, length = ptrdiff_t(kx1 - kx0) * conv.inputs;
  const float *weights = conv.weights + first * conv.kernel * line + kx0 * conv.inputs;
  Vector sums[J][sums_of_each];
  float rest[J] = {};
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j)
#pragma GCC unroll 4
    for (int s = 0; s < sums_of_each; ++s) sums[j][s] = Vector::zero();
  for (int ky = ky0; ky < ky1; ++ky) {
    const float *from =
        conv.input + (ptrdiff_t(y + ky - conv.before) * conv.width + x + kx0 - conv.before) * conv.inputs;
    const float *w = weights + ky * line;
    ptrdiff_t i = 0;
    for (; i + step <= length; i += step)
#pragma GCC unroll 4
      for (int s = 0; s < sums_of_each; ++s) {
        const Vector value = Vector::load(from + i + s * Vector::width);
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j)
          sums[j][s] =
              multiply_add(value, Vector::load(w + j * conv.kernel * line + i + s * Vector::width), sums[j][s]);
      }
    for (; i + Vector::width <= length; i += Vector::width)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j)
        sums[j][0] =
            multiply_add(Vector::load(from + i), Vector::load(w + j * conv.kernel * line + i), sums[j][0]);
    for (; i < length; ++i)
      for (int j = 0; j < J; ++j) rest[j] += from[i] * w[j * conv.kernel * line + i];
  }
#pragma GCC unroll 4
  for (int j = 0; j < J; ++j) {
    Vector total = sums[j][0];
    if constexpr (sums_of_each == 2) total = total + sums[j][1];
    if constexpr (sums_of_each == 4) total = (total + sums[j][1]) + (sums[j][2] + sums[j][3]);
    raw[j] = sum(total) + rest[j];
  }
}

void direct_gather(const Direct &conv, int y, float *raw) {
  const int k = conv.kernel;
  const int ky0 = first_tap(y, conv.before), ky1 = end_tap(y, conv.before, k, conv.height);
  for (int x = 0; x < conv.width; ++x) {
    const int kx0 = first_tap(x, conv.before), kx1 = end_tap(x, conv.before, k, conv.width);
    float *to = raw + ptrdiff_t(x) * conv.outputs;
    int o = 0;
    for (; o + 4 <= conv.outputs; o += 4) gather_pixel<4>(conv, y, x, ky0, ky1, kx0, kx1, o, to + o);
    for (; o + 2 <= conv.outputs; o += 2) gather_pixel<2>(conv, y, x, ky0, ky1, kx0, kx1, o, to + o);
    if (o < conv.outputs) gather_pixel<1>(conv, y, x, ky0, ky1, kx0, kx1, o, to + o);
  }
}

// Finish a row and shuffle its pixels: outputs (channel, row, column) of each become a square of pixels.
void finish_shuffled(const Direct &conv, ptrdiff_t row, const float *raw) {
  const Epilogue &e = conv.epilogue;
  const int r = conv.shuffle;
  for (int o = 0; o < conv.outputs; ++o) {
    const int channel = o / (r * r), down = o / r % r, across = o % r;
    float *to = e.output + ((row * r + down) * conv.width * r + across) * e.channels + channel;
    for (ptrdiff_t x = 0; x < conv.width; ++x) {
      const float value = raw[x * conv.outputs + o] + (e.bias ? e.bias[o] : 0.0f);
      to[x * r * e.channels] = activated(value, e.activation) * e.alpha;
    }
  }
}

void direct(const Direct &conv, ptrdiff_t row, float *scratch) {
  float *raw = scratch;
  const int y = int(row);
  switch (conv.form) {
    case DirectForm::planar:
      direct_planar(conv, y, raw, scratch + ptrdiff_t(conv.width) * conv.outputs);
      break;
    case DirectForm::spread:
      direct_spread(conv, y, raw);
      break;
    case DirectForm::gather:
      direct_gather(conv, y, raw);
      break;
  }
  if (conv.shuffle == 1)
    finish_run(conv.epilogue, raw, conv.outputs, row * conv.width, conv.width, 0, conv.outputs, nullptr);
  else
    finish_shuffled(conv, row, raw);
}

void pointwise(const Pointwise &op, ptrdiff_t task) {
  const Epilogue &e = op.epilogue;
  const ptrdiff_t run = pixels_per_task(e.channels), first = task * run, left = op.pixels - first;
  finish_run(e, op.input + first * e.channels, e.channels, first, left < run ? left : run, 0, e.channels,
             e.partials ? e.partials + task * e.channels : nullptr);
}

void gram(const Gram &op, ptrdiff_t task, double *products) {
  const int stages = op.stages;
  for (int i = 0; i < stages * stages; ++i) products[i] = 0.0;
  const ptrdiff_t begin = task * gram_blocks * gram_block;
  ptrdiff_t end = begin + ptrdiff_t(gram_blocks) * gram_block;
  if (end > op.elements) end = op.elements;
  for (ptrdiff_t from = begin; from < end; from += gram_block) {
    const ptrdiff_t length = end - from < gram_block ? end - from : gram_block;
    for (int i = 0; i < stages; i += 2)
      for (int j = i; j < stages; j += 2) {
        if (j + 1 < op.known) continue;
        // An odd last stage stands in for its missing partner, whose products are not kept.
        const int i1 = i + 1 < stages ? i + 1 : i, j1 = j + 1 < stages ? j + 1 : j;
        const float *a0 = op.stage[i] + from, *a1 = op.stage[i1] + from;
        const float *b0 = op.stage[j] + from, *b1 = op.stage[j1] + from;
        Vector s00 = Vector::zero(), s01 = s00, s10 = s00, s11 = s00;
        for (ptrdiff_t e = 0; e < length; e += Vector::width) {
          const Vector x0 = Vector::load(a0 + e), x1 = Vector::load(a1 + e);
          const Vector y0 = Vector::load(b0 + e), y1 = Vector::load(b1 + e);
          s00 = multiply_add(x0, y0, s00);
          s01 = multiply_add(x0, y1, s01);
          s10 = multiply_add(x1, y0, s10);
          s11 = multiply_add(x1, y1, s11);
        }
        products[i * stages + j] += sum(s00);
        if (j1 != j) products[i * stages + j1] += sum(s01);
        if (i1 != i && j > i) products[i1 * stages + j] += sum(s10);
        if (i1 != i && j1 != j) products[i1 * stages + j1] += sum(s11);
      }
  }
}

void mix(const Mix &op, ptrdiff_t task) {
  const ptrdiff_t begin = task * mix_elements;
  const ptrdiff_t end = begin + mix_elements < op.elements ? begin + mix_elements : op.elements;
  for (ptrdiff_t e = begin; e < end; e += Vector::width)
    for (int j = 0; j < op.stages; ++j) {
      Vector total = Vector::zero();
      for (int i = 0; i < op.stages; ++i)
        total = multiply_add(Vector::all(op.mixing[i * op.stages + j]), Vector::load(op.weights + i * op.elements + e),
                             total);
      total.store(op.mixed + j * op.elements + e);
    }
}

}  // namespace

extern const Kernels MINET_KERNELS = {convolution3, convolution1, direct, pointwise, gram, mix};

}  // namespace minet
