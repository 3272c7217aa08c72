#include "layout.h"

#include <algorithm>
#include <numeric>

#include "failure.h"
#include "kernels.h"
#include "pack.h"

namespace minet {
namespace {

constexpr size_t alignment = 64;
constexpr size_t most_bytes = size_t(1) << 44;
constexpr size_t strip_bytes = size_t(240) << 10;  // of a strip's transforms, which share the second-level cache
constexpr int fewest_tiles = 12, most_tiles = 48, tile_step = 12;
// Of a convolution of so many chunks the weights outgrow every near cache: longer strips fetch them less often.
constexpr size_t many_chunks = 4;
constexpr int fewest_tiles_of_many = 24;

// Images of usual sizes are whole pages, and so would be their distances: the same pixel of each would compete for the
// same few places of every cache. Some lines more set them apart.
constexpr size_t page = 4096, apart = 17 * alignment;

size_t rounded(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

size_t set_apart(size_t bytes) { return bytes < page ? rounded(bytes) : (bytes + page - 1) / page * page + apart; }

void check_size(size_t bytes) {
  if (bytes > most_bytes) throw Failure{MINET_OUT_OF_MEMORY, "the image is too large for any memory"};
}

uint32_t deepest(const Plan &plan, const Operation &op) {
  uint32_t depth = 0;
  for (const ChunkRange &chunk : chunks_of(plan, op)) depth = std::max(depth, chunk.depth);
  return depth;
}

int tiles_per_strip(const Plan &plan, const Operation &op) {
  const size_t wide = std::min<uint32_t>(op.outputs, group_panels * panel);
  const size_t tiles = strip_bytes / (points * (deepest(plan, op) + wide) * sizeof(float));
  const int fewest = chunks_of(plan, op).size() < many_chunks ? fewest_tiles : fewest_tiles_of_many;
  return std::clamp(int(tiles) / tile_step * tile_step, fewest, most_tiles);
}

size_t scratch_floats(const Plan &plan, const Operation &op, uint32_t height, uint32_t width) {
  const Tensor &in = plan.tensors[op.input[0]];
  switch (op.kind) {
    case Code::convolution3: {
      const ptrdiff_t tiles = tasks_of(plan, op, height, width).tiles_per_strip;
      return convolution3_scratch(tiles, chunks_of(plan, op).size(), deepest(plan, op), op.outputs / panel);
    }
    case Code::convolution1:
      return convolution1_scratch();
    case Code::direct:
      return direct_scratch(ptrdiff_t(width) * in.multiple, op.outputs, op.kernel);
    default:
      return 0;
  }
}

size_t temporary_bytes(const Plan &plan, const Operation &op, uint32_t height, uint32_t width) {
  const Tasks tasks = tasks_of(plan, op, height, width);
  const size_t channels = plan.tensors[op.output].channels;
  if (op.kind == Code::gram) return tasks.sums * channels * channels * sizeof(double);
  if (op.kind == Code::pool || op.pooled != none) return tasks.sums * channels * sizeof(float);
  if (op.mixing != none) return packed_floats(plan, op) * sizeof(float);
  return 0;
}

// A stretch of the workspace that is in use from one operation to another, both included.
struct Buffer {
  size_t bytes;
  size_t first, last;
  size_t offset = 0;
};

// Largest first, each at the lowest place that is free for all of its life.
size_t place(std::vector<Buffer> &buffers) {
  std::vector<size_t> order(buffers.size());
  std::iota(order.begin(), order.end(), size_t(0));
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return buffers[a].bytes > buffers[b].bytes; });
  std::vector<const Buffer *> placed;  // by offset
  size_t end = 0;
  for (size_t index : order) {
    Buffer &buffer = buffers[index];
    size_t offset = 0;
    for (const Buffer *other : placed) {
      if (other->last < buffer.first || other->first > buffer.last) continue;
      if (offset + buffer.bytes <= other->offset) break;
      offset = std::max(offset, other->offset + other->bytes);
    }
    buffer.offset = offset;
    const auto later = [](const Buffer *a, const Buffer *b) { return a->offset < b->offset; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), &buffer, later), &buffer);
    end = std::max(end, offset + buffer.bytes);
    check_size(end);
  }
  return end;
}

class PhasePlanner {
 public:
  PhasePlanner(const Plan &plan, uint32_t height, uint32_t width, bool restores)
      : plan_(plan), height_(height), width_(width), restores_(restores), buffer_of_(plan.tensors.size(), no_place) {}

  PhaseLayout make(unsigned threads) {
    PhaseLayout layout;
    layout.tensor.assign(plan_.tensors.size(), no_place);
    layout.temporary.assign(plan_.operations.size(), no_place);
    find_last_uses();
    size_t scratch = 0;
    std::vector<size_t> temporary(plan_.operations.size(), no_place);
    for (size_t i = 0; i < plan_.operations.size(); ++i) {
      const Operation &op = plan_.operations[i];
      if (op.restores != restores_) continue;
      scratch = std::max(scratch, scratch_floats(plan_, op, height_, width_) * sizeof(float));
      if (const size_t bytes = temporary_bytes(plan_, op, height_, width_)) {
        temporary[i] = buffers_.size();
        buffers_.push_back({set_apart(bytes), i, i});
      }
      for (uint32_t id : {op.output, op.pooled, op.sum})
        if (id != none && is_here(id)) add(id, i, op);
    }
    layout.scratch_bytes = rounded(scratch);
    check_size(layout.scratch_bytes);
    const size_t start = layout.scratch_bytes * threads;
    layout.bytes = start + place(buffers_);
    check_size(layout.bytes);
    for (size_t id = 0; id < buffer_of_.size(); ++id)
      if (buffer_of_[id] != no_place) layout.tensor[id] = start + buffers_[buffer_of_[id]].offset;
    for (size_t i = 0; i < temporary.size(); ++i)
      if (temporary[i] != no_place) layout.temporary[i] = start + buffers_[temporary[i]].offset;
    return layout;
  }

 private:
  bool is_here(uint32_t id) const {
    return id != plan_.target && id != plan_.reference && id != plan_.restored && !plan_.kept[id];
  }

  void find_last_uses() {
    last_use_.assign(plan_.tensors.size(), 0);
    for (size_t i = 0; i < plan_.operations.size(); ++i) {
      const Operation &op = plan_.operations[i];
      if (op.restores != restores_) continue;
      for (uint32_t id : op.input) last_use_[id] = i;
      for (uint32_t id : op.residual) last_use_[id] = i;
      for (uint32_t id : {op.gate, op.mixing, op.known, op.scale, op.added, op.output, op.pooled, op.sum})
        if (id != none) last_use_[id] = i;
    }
  }

  void add(uint32_t id, size_t index, const Operation &op) {
    const size_t bytes = set_apart(tensor_bytes(plan_.tensors[id], height_, width_));
    check_size(bytes);
    if (id == op.output) {
      const uint32_t taken = overwritten(op, index);
      if (taken != none) {
        buffer_of_[id] = buffer_of_[taken];
        buffers_[buffer_of_[id]].last = last_use_[id];
        return;
      }
    }
    buffer_of_[id] = buffers_.size();
    buffers_.push_back({bytes, index, last_use_[id]});
  }

  // A tensor that is read for the last time, pixel by pixel just before the output is written there.
  uint32_t overwritten(const Operation &op, size_t index) const {
    std::vector<uint32_t> candidates = op.residual;
    if (op.gate != none) candidates.push_back(op.gate);
    if (op.kind == Code::pointwise) candidates.push_back(op.input[0]);
    for (uint32_t id : candidates) {
      const bool also_convolved = op.kind != Code::pointwise &&
                                  (id == op.added || std::find(op.input.begin(), op.input.end(), id) != op.input.end());
      if (buffer_of_[id] != no_place && last_use_[id] == index && !also_convolved &&
          plan_.tensors[id].kind == Kind::image)
        return id;
    }
    return none;
  }

  const Plan &plan_;
  uint32_t height_, width_;
  bool restores_;
  std::vector<size_t> buffer_of_, last_use_;
  std::vector<Buffer> buffers_;
};

}  // namespace

size_t tensor_bytes(const Tensor &tensor, uint32_t height, uint32_t width) {
  const size_t channels = tensor.channels;
  switch (tensor.kind) {
    case Kind::matrix:
      return channels * channels * sizeof(double);
    case Kind::vector:
      return channels * sizeof(float);
    default:
      return size_t(height) * tensor.multiple * width * tensor.multiple * channels * sizeof(float);
  }
}

Tasks tasks_of(const Plan &plan, const Operation &op, uint32_t height, uint32_t width) {
  const Tensor &in = plan.tensors[op.input[0]];
  const ptrdiff_t rows = ptrdiff_t(height) * in.multiple, columns = ptrdiff_t(width) * in.multiple;
  const auto shares = [](ptrdiff_t whole, ptrdiff_t part) { return (whole + part - 1) / part; };
  Tasks tasks;
  switch (op.kind) {
    case Code::convolution3: {
      const int panels = int(op.outputs / panel);
      tasks.tiles_per_strip = tiles_per_strip(plan, op);
      tasks.sums = shares(shares(rows, tile) * shares(columns, tile), tasks.tiles_per_strip);
      tasks.count = tasks.sums * shares(panels, group_panels);
      break;
    }
    case Code::convolution1:
      tasks.count = tasks.sums = shares(rows * columns, run_pixels);
      break;
    case Code::direct:
    case Code::shuffle:
    case Code::unshuffle:
      tasks.count = rows;
      break;
    case Code::pointwise:
    case Code::pool:
      tasks.count = tasks.sums = shares(rows * columns, pixels_per_task(in.channels));
      break;
    case Code::gram:
      tasks.count = tasks.sums = shares(rows * columns * in.channels, ptrdiff_t(gram_block) * gram_blocks);
      break;
    case Code::dense:
    case Code::affinity:
      tasks.count = 1;
      break;
  }
  return tasks;
}

size_t Layout::run_bytes() const { return rounded(std::max(prepare.bytes, restore.bytes)) + features_bytes; }

Layout make_layout(const Plan &plan, uint32_t height, uint32_t width, unsigned threads) {
  Layout layout{height, width, {}, {}, 0, {}};
  layout.kept.assign(plan.tensors.size(), no_place);
  for (size_t id = 0; id < plan.tensors.size(); ++id) {
    if (!plan.kept[id]) continue;
    layout.kept[id] = layout.features_bytes;
    layout.features_bytes += set_apart(tensor_bytes(plan.tensors[id], height, width));
    check_size(layout.features_bytes);
  }
  layout.prepare = PhasePlanner(plan, height, width, false).make(threads);
  layout.restore = PhasePlanner(plan, height, width, true).make(threads);
  return layout;
}

}  // namespace minet
