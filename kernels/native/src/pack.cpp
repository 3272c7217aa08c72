#include "pack.h"

#include <algorithm>
#include <cstring>

#include "kernels.h"

namespace minet {
namespace {

// G of F(6x6, 3x3).
constexpr double transform[side][3] = {
    {1, 0, 0},
    {-2.0 / 9, -2.0 / 9, -2.0 / 9},
    {-2.0 / 9, 2.0 / 9, -2.0 / 9},
    {1.0 / 90, 1.0 / 45, 2.0 / 45},
    {1.0 / 90, -1.0 / 45, 2.0 / 45},
    {32.0 / 45, 16.0 / 45, 8.0 / 45},
    {32.0 / 45, -16.0 / 45, 8.0 / 45},
    {0, 0, 1},
};

float float_at(const unsigned char *bytes, uint64_t index) {
  float value;
  std::memcpy(&value, bytes + index * sizeof(float), sizeof value);
  return value;
}

// Where output channel o of a shuffled convolution stands: phase by phase instead of channel by channel.
uint32_t shuffled_place(const Operation &op, uint32_t o) {
  if (op.kind != Code::convolution3 || op.shuffle == 1) return o;
  const uint32_t square = op.shuffle * op.shuffle;
  return o % square * (op.outputs / square) + o / square;
}

void pack_convolution3(const Plan &plan, const Operation &op, const unsigned char *weight, float *to) {
  uint64_t base = 0;
  for (const ChunkRange &chunk : chunks_of(plan, op)) {
    uint32_t first = op.weight_first + chunk.first;
    for (uint32_t i = 0; i < chunk.input; ++i) first += plan.tensors[op.input[i]].channels;
    for (uint32_t o = 0; o < op.outputs; ++o)
      for (uint32_t c = 0; c < chunk.depth; ++c) {
        double w[3][3], half[side][3];
        for (uint32_t k = 0; k < 9; ++k)
          w[k / 3][k % 3] = float_at(weight, (uint64_t(o) * op.weight_inputs + first + c) * 9 + k);
        for (int a = 0; a < side; ++a)
          for (int b = 0; b < 3; ++b)
            half[a][b] = transform[a][0] * w[0][b] + transform[a][1] * w[1][b] + transform[a][2] * w[2][b];
        const uint32_t place = shuffled_place(op, o);
        for (int a = 0; a < side; ++a)
          for (int b = 0; b < side; ++b) {
            const double value =
                half[a][0] * transform[b][0] + half[a][1] * transform[b][1] + half[a][2] * transform[b][2];
            const uint64_t block = uint64_t(a * side + b) * (op.outputs / panel) + place / panel;
            to[base + (block * chunk.depth + c) * panel + place % panel] = static_cast<float>(value);
          }
      }
    base += uint64_t(points) * op.outputs * chunk.depth;
  }
}

void pack_convolution1(const Plan &plan, const Operation &op, const unsigned char *weight, float *to) {
  uint64_t base = 0;
  uint32_t first = op.weight_first;
  for (uint32_t id : op.input) {
    const uint32_t depth = plan.tensors[id].channels;
    for (uint32_t o = 0; o < op.outputs; ++o)
      for (uint32_t c = 0; c < depth; ++c)
        to[base + (uint64_t(o / panel) * depth + c) * panel + o % panel] =
            float_at(weight, uint64_t(o) * op.weight_inputs + first + c);
    base += uint64_t(op.outputs) * depth;
    first += depth;
  }
}

void pack_direct(const Operation &op, uint32_t inputs, const unsigned char *weight, float *to) {
  const uint64_t taps = uint64_t(op.kernel) * op.kernel;
  const DirectForm form = direct_form(op, inputs);
  for (uint64_t o = 0; o < op.outputs; ++o)
    for (uint64_t c = 0; c < inputs; ++c)
      for (uint64_t k = 0; k < taps; ++k) {
        const float value = float_at(weight, (o * op.weight_inputs + op.weight_first + c) * taps + k);
        to[form == DirectForm::spread ? (k * inputs + c) * op.outputs + o : (o * taps + k) * inputs + c] = value;
      }
}

}  // namespace

DirectForm direct_form(const Operation &op, uint32_t inputs) {
  if (inputs == 1 && (op.repeat_edge || op.outputs % panel)) return DirectForm::planar;
  return op.outputs % panel ? DirectForm::gather : DirectForm::spread;
}

std::vector<ChunkRange> chunks_of(const Plan &plan, const Operation &op) {
  std::vector<ChunkRange> chunks;
  for (uint32_t i = 0; i < op.input.size(); ++i) {
    const uint32_t channels = plan.tensors[op.input[i]].channels;
    for (uint32_t first = 0; first < channels; first += deepest_chunk)
      chunks.push_back({i, first, std::min<uint32_t>(deepest_chunk, channels - first)});
  }
  return chunks;
}

uint64_t packed_floats(const Plan &plan, const Operation &op) {
  uint64_t channels = 0;
  for (uint32_t id : op.input) channels += plan.tensors[id].channels;
  switch (op.kind) {
    case Code::convolution3:
      return channels * op.outputs * points;
    case Code::convolution1:
    case Code::dense:
      return channels * op.outputs;
    case Code::direct:
      return channels * op.outputs * op.kernel * op.kernel;
    default:
      return 0;
  }
}

void pack_weight(const Plan &plan, const Operation &op, const unsigned char *weight, float *to) {
  const uint32_t inputs = plan.tensors[op.input[0]].channels;
  switch (op.kind) {
    case Code::convolution3:
      return pack_convolution3(plan, op, weight, to);
    case Code::convolution1:
      return pack_convolution1(plan, op, weight, to);
    case Code::direct:
      return pack_direct(op, inputs, weight, to);
    case Code::dense:
      for (uint64_t o = 0; o < op.outputs; ++o)
        for (uint64_t c = 0; c < inputs; ++c)
          to[o * inputs + c] = float_at(weight, o * op.weight_inputs + op.weight_first + c);
      return;
    default:
      return;
  }
}

void pack_bias(const Operation &op, const unsigned char *bias, float *to) {
  for (uint32_t o = 0; o < op.outputs; ++o) to[shuffled_place(op, o)] = float_at(bias, o);
}

}  // namespace minet
