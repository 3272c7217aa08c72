#include "execute.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "pack.h"

namespace minet {
namespace {

constexpr double least_norm = 1e-12;  // of a stage, squared; see GRAM_FLOOR in kernels/reference.py

constexpr size_t least_streamed = size_t(2) << 20;

class Execution {
 public:
  Execution(const Plan &plan, const Layout &layout, bool restores, const Images &images, unsigned char *workspace,
            unsigned char *features, const Kernels &kernels, Pool &pool)
      : plan_(plan),
        layout_(layout),
        phase_(restores ? layout.restore : layout.prepare),
        restores_(restores),
        images_(images),
        workspace_(workspace),
        features_(features),
        kernels_(kernels),
        pool_(pool) {}

  void run() {
    if (!restores_ && plan_.kept[plan_.reference])
      std::memcpy(features_ + layout_.kept[plan_.reference], images_.reference,
                  tensor_bytes(plan_.tensors[plan_.reference], layout_.height, layout_.width));
    for (size_t i = 0; i < plan_.operations.size(); ++i)
      if (plan_.operations[i].restores == restores_) run(plan_.operations[i], phase_.temporary[i]);
  }

 private:
  template <class T>
  T *at(uint32_t id) const {
    if (id == plan_.restored) return reinterpret_cast<T *>(images_.restored);
    const size_t kept = layout_.kept[id];
    return reinterpret_cast<T *>(kept != no_place ? features_ + kept : workspace_ + phase_.tensor[id]);
  }

  const float *input(uint32_t id) const {
    if (id == plan_.target) return images_.target;
    if (id == plan_.reference && !restores_) return images_.reference;
    return at<const float>(id);
  }

  float *scratch(unsigned thread) const {
    return reinterpret_cast<float *>(workspace_ + thread * phase_.scratch_bytes);
  }

  int rows(uint32_t id) const { return int(layout_.height * plan_.tensors[id].multiple); }
  int columns(uint32_t id) const { return int(layout_.width * plan_.tensors[id].multiple); }
  ptrdiff_t pixels(uint32_t id) const { return ptrdiff_t(rows(id)) * columns(id); }

  Epilogue epilogue(const Operation &op) const {
    Epilogue e{};
    e.bias = op.packed_bias == no_place ? nullptr : plan_.packed(op.packed_bias);
    e.activation = int(op.activation);
    e.alpha = op.alpha;
    if (op.gate != none) {
      e.gate = input(op.gate);
      e.gate_is_vector = plan_.tensors[op.gate].kind == Kind::vector;
    }
    for (uint32_t id : op.residual) e.residual[e.residuals++] = input(id);
    e.channels = int(plan_.tensors[op.output].channels);
    e.streams = streams(op.output);
    return e;
  }

  // Small images are still in a cache when the next operation reads them.
  bool streams(uint32_t id) const {
    const Tensor &tensor = plan_.tensors[id];
    return tensor.kind == Kind::image && tensor.channels % panel == 0 &&
           tensor_bytes(tensor, layout_.height, layout_.width) >= least_streamed &&
           reinterpret_cast<uintptr_t>(at<float>(id)) % 64 == 0;
  }

  std::vector<Chunk> chunks(const Operation &op, const float *weights) const {
    std::vector<Chunk> chunks;
    for (const ChunkRange &range : chunks_of(plan_, op)) {
      const uint32_t id = op.input[range.input];
      Chunk chunk{input(id) + range.first,
                  ptrdiff_t(plan_.tensors[id].channels),
                  int(range.depth),
                  weights,
                  nullptr,
                  nullptr,
                  nullptr,
                  false};
      if (op.scale != none) {
        chunk.scale = input(op.scale) + range.first;
        chunk.added = input(op.added) + range.first;
        chunk.sum = op.sum == none ? nullptr : at<float>(op.sum) + range.first;
        chunk.streams = op.sum != none && streams(op.sum);
      }
      chunks.push_back(chunk);
      weights += ptrdiff_t(points) * op.outputs * range.depth;
    }
    return chunks;
  }

  void run(const Operation &op, size_t temporary_place) {
    const Tasks tasks = tasks_of(plan_, op, layout_.height, layout_.width);
    unsigned char *temporary = temporary_place == no_place ? nullptr : workspace_ + temporary_place;
    switch (op.kind) {
      case Code::convolution3:
        return convolution3(op, tasks, reinterpret_cast<float *>(temporary));
      case Code::convolution1:
        return convolution1(op, tasks, reinterpret_cast<float *>(temporary));
      case Code::direct:
        return direct(op, tasks);
      case Code::dense:
        return dense(op);
      case Code::pointwise:
        return pointwise(op, tasks, at<float>(op.output), nullptr);
      case Code::pool:
        pointwise(op, tasks, nullptr, reinterpret_cast<float *>(temporary));
        return average(reinterpret_cast<float *>(temporary), tasks.sums, pixels(op.input[0]), op.output);
      case Code::shuffle:
      case Code::unshuffle:
        return rearrange(op, tasks);
      case Code::gram:
        return gram(op, tasks, reinterpret_cast<double *>(temporary));
      case Code::affinity:
        return affinity(op);
    }
  }

  void convolution3(const Operation &op, const Tasks &tasks, float *temporary) {
    const uint32_t in = op.input[0];
    const float *weights = plan_.packed(op.packed_weight);
    if (op.mixing != none) {
      mix(op, weights, temporary);
      weights = temporary;
    }
    const std::vector<Chunk> chunk = chunks(op, weights);
    Convolution3 conv{chunk.data(),
                      int(chunk.size()),
                      rows(in),
                      columns(in),
                      int(op.outputs / panel),
                      tasks.tiles_per_strip,
                      int(op.shuffle),
                      epilogue(op)};
    conv.epilogue.output = at<float>(op.output);
    conv.epilogue.partials = op.pooled == none ? nullptr : temporary;
    pool_.run(tasks.count,
              [&](ptrdiff_t task, unsigned thread) { kernels_.convolution3(conv, task, scratch(thread)); });
    if (op.pooled != none) average(temporary, tasks.sums, pixels(in), op.pooled);
  }

  // W'_j = sum_i A_ij W_i, where the weights are transformed already.
  void mix(const Operation &op, const float *weights, float *mixed) {
    const size_t stages = op.input.size();
    const double *matrix = at<const double>(op.mixing);
    std::vector<float> mixing(matrix, matrix + stages * stages);
    const ptrdiff_t elements = ptrdiff_t(packed_floats(plan_, op) / stages);
    const Mix mix{weights, mixing.data(), mixed, int(stages), elements};
    pool_.run((elements + mix_elements - 1) / mix_elements, [&](ptrdiff_t task, unsigned) { kernels_.mix(mix, task); });
  }

  void convolution1(const Operation &op, const Tasks &tasks, float *temporary) {
    std::vector<Chunk> chunk;
    const float *weights = plan_.packed(op.packed_weight);
    for (uint32_t id : op.input) {
      const uint32_t channels = plan_.tensors[id].channels;
      chunk.push_back({input(id), ptrdiff_t(channels), int(channels), weights, nullptr, nullptr, nullptr, false});
      weights += ptrdiff_t(op.outputs) * channels;
    }
    Convolution1 conv{chunk.data(), int(chunk.size()), pixels(op.input[0]), int(op.outputs / panel), epilogue(op)};
    conv.epilogue.output = at<float>(op.output);
    conv.epilogue.partials = op.pooled == none ? nullptr : temporary;
    pool_.run(tasks.count,
              [&](ptrdiff_t task, unsigned thread) { kernels_.convolution1(conv, task, scratch(thread)); });
    if (op.pooled != none) average(temporary, tasks.sums, pixels(op.input[0]), op.pooled);
  }

  void direct(const Operation &op, const Tasks &tasks) {
    const uint32_t in = op.input[0], channels = plan_.tensors[in].channels;
    Direct conv{input(in),
                plan_.packed(op.packed_weight),
                rows(in),
                columns(in),
                int(channels),
                int(op.outputs),
                int(op.kernel),
                int(op.before),
                bool(op.repeat_edge),
                direct_form(op, channels),
                int(op.shuffle),
                epilogue(op)};
    conv.epilogue.output = at<float>(op.output);
    pool_.run(tasks.count, [&](ptrdiff_t row, unsigned thread) { kernels_.direct(conv, row, scratch(thread)); });
  }

  void pointwise(const Operation &op, const Tasks &tasks, float *output, float *partials) {
    Pointwise work{input(op.input[0]), pixels(op.input[0]), epilogue(op)};
    work.epilogue.output = output;
    work.epilogue.partials = partials;
    pool_.run(tasks.count, [&](ptrdiff_t task, unsigned) { kernels_.pointwise(work, task); });
  }

  // Mean over the pixels from the sums of the tasks, in their order.
  void average(const float *partials, ptrdiff_t sums, ptrdiff_t pixels, uint32_t vector) const {
    const uint32_t channels = plan_.tensors[vector].channels;
    float *mean = at<float>(vector);
    for (uint32_t c = 0; c < channels; ++c) {
      double total = 0;
      for (ptrdiff_t i = 0; i < sums; ++i) total += partials[i * channels + c];
      mean[c] = float(total / double(pixels));
    }
  }

  void dense(const Operation &op) const {
    const float *in = input(op.input[0]), *weights = plan_.packed(op.packed_weight);
    const uint32_t inputs = plan_.tensors[op.input[0]].channels;
    float *out = at<float>(op.output);
    for (uint32_t o = 0; o < op.outputs; ++o) {
      double value = op.packed_bias == no_place ? 0.0 : plan_.packed(op.packed_bias)[o];
      for (uint32_t c = 0; c < inputs; ++c) value += double(weights[uint64_t(o) * inputs + c]) * in[c];
      if (op.activation == relu) value = value < 0 ? 0 : value;
      if (op.activation == logistic) value = 1 / (1 + std::exp(-value));
      out[o] = float(value * op.alpha);
    }
  }

  void rearrange(const Operation &op, const Tasks &tasks) const {
    const uint32_t in = op.input[0], channels = plan_.tensors[in].channels;
    const bool up = op.kind == Code::shuffle;
    const size_t r = op.kernel, width = columns(in);
    const float *from = input(in);
    float *to = at<float>(op.output);
    if (up)  // channels (channel, row, column) of a pixel become a square of pixels
      pool_.run(tasks.count, [&](ptrdiff_t y, unsigned) {
        const size_t outputs = channels / (r * r);
        for (size_t c = 0; c < outputs; ++c)
          for (size_t phase = 0; phase < r * r; ++phase) {
            const float *line = from + y * width * channels + c * r * r + phase;
            float *start = to + (((y * r + phase / r) * width) * r + phase % r) * outputs + c;
            for (size_t x = 0; x < width; ++x) start[x * r * outputs] = line[x * channels];
          }
      });
    else  // and a square of pixels channels (row, column, channel)
      pool_.run(tasks.count, [&](ptrdiff_t y, unsigned) {
        const float *line = from + y * width * channels;
        float *start = to + (y / r * (width / r) * r * r + y % r * r) * channels;
        for (size_t x = 0; x < width / r; ++x)
          for (size_t i = 0; i < r * channels; ++i)
            start[x * r * r * channels + i] = line[x * r * channels + i];
      });
  }

  void gram(const Operation &op, const Tasks &tasks, double *temporary) const {
    const size_t stages = op.input.size(), square = stages * stages;
    Gram work{};
    work.stages = int(stages);
    work.known = op.known == none ? 0 : int(plan_.tensors[op.known].channels);
    work.elements = pixels(op.input[0]) * plan_.tensors[op.input[0]].channels;
    for (size_t i = 0; i < stages; ++i) work.stage[i] = input(op.input[i]);
    pool_.run(tasks.count, [&](ptrdiff_t task, unsigned) { kernels_.gram(work, task, temporary + task * square); });
    double *matrix = at<double>(op.output);
    const double *known = work.known ? at<const double>(op.known) : nullptr;
    for (size_t i = 0; i < stages; ++i)
      for (size_t j = i; j < stages; ++j) {
        double total = 0;
        for (ptrdiff_t task = 0; task < tasks.count; ++task) total += temporary[task * square + i * stages + j];
        if (j < size_t(work.known)) total = known[i * work.known + j];
        matrix[i * stages + j] = matrix[j * stages + i] = total;
      }
  }

  // A = I + gain * softmax(energy); not a number throughout if any product is none.
  void affinity(const Operation &op) const {
    const double *gram = at<const double>(op.input[0]);
    double *matrix = at<double>(op.output);
    const size_t stages = plan_.tensors[op.input[0]].channels;
    const bool finite = std::all_of(gram, gram + stages * stages, [](double x) { return std::isfinite(x); });
    const auto norm = [&](size_t i) { return std::sqrt(std::max(gram[i * stages + i], least_norm)); };
    for (size_t i = 0; i < stages; ++i) {
      const double *products = gram + i * stages;
      double *row = matrix + i * stages;
      const double top = *std::max_element(products, products + stages);
      for (size_t j = 0; j < stages; ++j) switch (static_cast<Mode>(op.mode)) {
          case Mode::paper:
            row[j] = products[j];
            break;
          case Mode::released:
            row[j] = top - products[j];
            break;
          case Mode::cosine:
            row[j] = products[j] / (norm(i) * norm(j)) / op.temperature;
            break;
        }
      const double largest = *std::max_element(row, row + stages);
      double total = 0;
      for (size_t j = 0; j < stages; ++j) total += row[j] = std::exp(row[j] - largest);
      for (size_t j = 0; j < stages; ++j) {
        row[j] = op.gain * row[j] / total + (i == j ? 1.0 : 0.0);
        if (!finite) row[j] = std::numeric_limits<double>::quiet_NaN();
      }
    }
  }

  const Plan &plan_;
  const Layout &layout_;
  const PhaseLayout &phase_;
  const bool restores_;
  const Images images_;
  unsigned char *workspace_, *features_;
  const Kernels &kernels_;
  Pool &pool_;
};

}  // namespace

void execute(const Plan &plan, const Layout &layout, bool restores, const Images &images, unsigned char *workspace,
             unsigned char *features, const Kernels &kernels, Pool &pool) {
  Execution(plan, layout, restores, images, workspace, features, kernels, pool).run();
}

}  // namespace minet
