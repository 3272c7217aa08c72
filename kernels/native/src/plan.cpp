#include "plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <map>
#include <tuple>

#include "checksum.h"
#include "failure.h"
#include "kernels.h"
#include "pack.h"

namespace minet {
namespace {

constexpr char magic[8] = {'M', 'I', 'N', 'E', 'T', 'P', 'L', 'N'};
constexpr uint32_t format = 1;
constexpr uint32_t most_tensors = 1u << 16, most_operations = 1u << 16, most_list = 1u << 20;
constexpr uint32_t most_channels = 4096, most_multiple = 64, most_inputs = 64, most_kernel = 32;
constexpr uint64_t most_growth = 8;  // packed weights take at most this often the file's size

struct Header {
  char magic[8];
  uint32_t format;
  uint32_t checksum;  // of everything behind this field
  uint32_t scale;
  uint32_t target, reference, restored;
  uint32_t tensors, operations, list;
  uint32_t weights_checksum;
  uint64_t weights_bytes;
};
static_assert(sizeof(Header) == 56, "the file holds it as it is");
constexpr size_t checked_from = offsetof(Header, scale);

struct TensorRecord {
  uint32_t kind, channels, multiple;
};

[[noreturn]] void bad(const std::string &text) { throw Failure{MINET_BAD_PLAN, text + ": export the bundle again"}; }

// Reads records one after the other and never past the end.
class Reader {
 public:
  Reader(const unsigned char *data, size_t bytes) : data_(data), left_(bytes) {}

  template <class T>
  void read(T *to, size_t count) {
    if (count > left_ / sizeof(T)) bad("native.plan is truncated");
    if (count) std::memcpy(to, data_, count * sizeof(T));
    data_ += count * sizeof(T);
    left_ -= count * sizeof(T);
  }

  size_t left() const { return left_; }

 private:
  const unsigned char *data_;
  size_t left_;
};

// Checks the operations in order: every tensor is made once, before it is used, and fits what is done with it.
class Checker {
 public:
  Checker(Plan &plan, size_t weights_bytes) : plan_(plan), weights_bytes_(weights_bytes), made_(plan.tensors.size()) {}

  void check() {
    check_interface();
    depends_on_target_.resize(plan_.tensors.size());
    depends_on_target_[plan_.target] = true;
    made_[plan_.target] = true;
    if (plan_.needs_reference()) made_[plan_.reference] = true;
    plan_.kept.assign(plan_.tensors.size(), false);
    for (index_ = 0; index_ < plan_.operations.size(); ++index_) check_operation(plan_.operations[index_]);
    require(made_[plan_.restored] && depends_on_target_[plan_.restored] && plan_.restored != plan_.target,
            "the restored image is never made of the target");
  }

 private:
  void require(bool condition, const char *what) const {
    if (!condition) bad("native.plan, operation " + std::to_string(index_) + ": " + what);
  }

  void check_interface() const {
    for (const Tensor &tensor : plan_.tensors) {
      if (tensor.channels < 1 || tensor.channels > most_channels || tensor.multiple < 1 ||
          tensor.multiple > most_multiple)
        bad("native.plan has a tensor of impossible size");
      if (tensor.kind != Kind::image && tensor.multiple != 1) bad("native.plan has a vector with a height");
      if (tensor.kind == Kind::matrix && tensor.channels > most_stages) bad("native.plan has too large a matrix");
    }
    const auto image = [&](uint32_t id, uint32_t multiple) {
      return id < plan_.tensors.size() && plan_.tensors[id].kind == Kind::image &&
             plan_.tensors[id].multiple == multiple;
    };
    if (plan_.scale < 1 || plan_.scale > most_multiple) bad("native.plan has an impossible scale");
    if (!image(plan_.target, 1) || !image(plan_.restored, plan_.scale) ||
        (plan_.needs_reference() && (!image(plan_.reference, plan_.scale) || plan_.reference == plan_.target)))
      bad("native.plan names no usable target, reference or restored image");
  }

  const Tensor &tensor(uint32_t id) const { return plan_.tensors[id]; }

  const Tensor &used(Operation &op, uint32_t id) {
    require(id < made_.size() && made_[id], "uses a tensor that is not there yet");
    if (depends_on_target_[id]) op.restores = true;
    return tensor(id);
  }

  const Tensor &output(const Operation &op) const {
    require(op.output < made_.size() && !made_[op.output], "its output is not new");
    return tensor(op.output);
  }

  void same_shape(const Tensor &a, const Tensor &b, const char *what) const {
    require(a.kind == b.kind && a.channels == b.channels && a.multiple == b.multiple, what);
  }

  void floats_inside(uint64_t offset, uint64_t count, const char *what) const {
    require(
        offset % sizeof(float) == 0 && offset <= weights_bytes_ && count <= (weights_bytes_ - offset) / sizeof(float),
        what);
  }

  void check_weights(const Operation &op, uint64_t channels, uint64_t taps) const {
    require(op.outputs >= 1 && op.outputs <= most_channels, "has an impossible number of outputs");
    require(op.weight_inputs <= most_channels * most_inputs && op.weight_first <= op.weight_inputs &&
                channels <= op.weight_inputs - op.weight_first,
            "uses inputs that its weights do not have");
    floats_inside(op.weight, uint64_t(op.outputs) * op.weight_inputs * taps, "its weights lie outside weights.bin");
    if (op.bias != no_bias) floats_inside(op.bias, op.outputs, "its bias lies outside weights.bin");
  }

  // All inputs as images of one size; returns their channels together.
  uint64_t check_images(Operation &op) {
    uint64_t channels = 0;
    for (uint32_t id : op.input) {
      const Tensor &image = used(op, id);
      require(image.kind == Kind::image && image.multiple == tensor(op.input[0]).multiple, "its inputs differ in size");
      channels += image.channels;
    }
    return channels;
  }

  void check_epilogue(Operation &op) {
    require(op.activation <= logistic && std::isfinite(op.alpha), "has an unknown activation or no finite factor");
    const Tensor &out = tensor(op.output);
    require(op.residual.size() <= most_residuals, "adds too many tensors");
    for (uint32_t id : op.residual) same_shape(used(op, id), out, "adds a tensor of another shape");
    if (op.gate != none) {
      const Tensor &gate = used(op, op.gate);
      const bool vector = gate.kind == Kind::vector && gate.channels == out.channels;
      if (!vector) same_shape(gate, out, "is gated by a tensor of another shape");
    }
    if (op.pooled != none) {
      require(op.kind == Code::convolution3 || op.kind == Code::convolution1, "cannot pool");
      require(op.pooled < made_.size() && !made_[op.pooled] && op.pooled != op.output, "its pooled vector is not new");
      require(tensor(op.pooled).kind == Kind::vector && tensor(op.pooled).channels == out.channels,
              "its pooled vector has another size");
    }
    require(op.shuffle >= 1 && op.shuffle <= 8, "has an impossible shuffle");
    if (op.shuffle > 1)
      require(op.residual.empty() && op.gate == none && op.pooled == none, "shuffles and adds, gates or pools");
  }

  // The output of a convolution with op.outputs channels.
  void check_convolved(const Operation &op, const Tensor &in) const {
    const Tensor &out = output(op);
    const uint64_t square = uint64_t(op.shuffle) * op.shuffle;
    require(op.shuffle >= 1 && op.shuffle <= 8, "has an impossible shuffle");
    require(out.kind == Kind::image && out.channels * square == op.outputs &&
                out.multiple == uint64_t(in.multiple) * op.shuffle,
            "its output has another shape");
  }

  void check_operation(Operation &op) {
    require(op.code < codes, "is unknown");
    op.kind = static_cast<Code>(op.code);
    require(!op.input.empty() && op.input.size() <= most_inputs, "has an impossible number of inputs");
    require(op.mixing == none || op.kind == Code::convolution3, "mixes");
    require(op.known == none || op.kind == Code::gram, "knows products");
    require(op.kind == Code::convolution3 || (op.scale == none && op.added == none && op.sum == none), "scales");
    const Tensor &first = used(op, op.input[0]);
    const bool one = op.input.size() == 1;
    switch (op.kind) {
      case Code::convolution3:
        check_convolution3(op, first);
        break;
      case Code::convolution1:
        check_weights(op, check_images(op), 1);
        check_panels(op);
        require(op.shuffle == 1, "shuffles");
        check_convolved(op, first);
        break;
      case Code::direct:
        require(one && first.kind == Kind::image && op.kernel >= 1 && op.kernel <= most_kernel &&
                    op.before < op.kernel && op.repeat_edge <= 1,
                "is no direct convolution");
        require(!op.repeat_edge || first.channels == 1, "repeats the edge of several channels");
        check_weights(op, first.channels, uint64_t(op.kernel) * op.kernel);
        check_convolved(op, first);
        break;
      case Code::dense: {
        const Tensor &out = output(op);
        require(one && first.kind == Kind::vector && out.kind == Kind::vector && out.channels == op.outputs,
                "is no dense layer");
        check_weights(op, first.channels, 1);
        require(op.residual.empty() && op.gate == none && op.shuffle == 1, "is dense and more");
        break;
      }
      case Code::pointwise:
        require(one && first.kind == Kind::image && op.shuffle == 1, "is no pointwise operation");
        same_shape(first, output(op), "its output has another shape");
        break;
      case Code::pool: {
        const Tensor &out = output(op);
        require(one && first.kind == Kind::image && out.kind == Kind::vector && out.channels == first.channels,
                "is no pooling");
        require(op.residual.empty() && op.gate == none && op.activation == no_activation && op.shuffle == 1,
                "pools and more");
        break;
      }
      case Code::shuffle:
      case Code::unshuffle: {
        const Tensor &out = output(op);
        const bool up = op.kind == Code::shuffle;
        const Tensor &fine = up ? out : first, &coarse = up ? first : out;
        require(op.kernel >= 2 && op.kernel <= 8, "has an impossible shuffle");
        require(one && first.kind == Kind::image && out.kind == Kind::image &&
                    coarse.channels == uint64_t(fine.channels) * op.kernel * op.kernel &&
                    fine.multiple == coarse.multiple * op.kernel,
                "is no shuffle");
        require(op.residual.empty() && op.gate == none && op.activation == no_activation && op.shuffle == 1 &&
                    op.alpha == 1.0f,
                "shuffles and more");
        break;
      }
      case Code::gram:
        check_gram(op, first);
        break;
      case Code::affinity: {
        const Tensor &out = output(op);
        require(one && first.kind == Kind::matrix && out.kind == Kind::matrix && out.channels == first.channels,
                "is no affinity");
        require(op.mode <= 2 && std::isfinite(op.temperature) && op.temperature > 0 && std::isfinite(op.gain),
                "has an unknown mode or an impossible temperature or gain");
        require(op.residual.empty() && op.gate == none && op.shuffle == 1, "is an affinity and more");
        break;
      }
    }
    check_epilogue(op);
    if (op.restores) keep(op);
    for (uint32_t id : {op.output, op.pooled, op.sum}) {
      if (id == none) continue;
      made_[id] = true;
      depends_on_target_[id] = op.restores;
    }
  }

  void check_panels(const Operation &op) const {
    for (uint32_t id : op.input) require(tensor(id).channels % panel == 0, "its inputs are no multiple of 16");
    require(op.outputs % panel == 0, "its outputs are no multiple of 16");
  }

  void check_convolution3(Operation &op, const Tensor &first) {
    const uint64_t channels = check_images(op);
    check_weights(op, channels, 9);
    check_panels(op);
    check_convolved(op, first);
    require(tensor(op.output).channels % panel == 0, "its shuffled outputs are no multiple of 16");
    check_scaled(op, first);
    if (op.mixing == none) return;
    const Tensor &mixing = used(op, op.mixing);
    require(mixing.kind == Kind::matrix && mixing.channels == op.input.size(), "mixes another number of stages");
    for (uint32_t id : op.input) same_shape(tensor(id), first, "mixes stages of different shape");
  }

  void check_scaled(Operation &op, const Tensor &first) {
    if (op.scale == none) return require(op.added == none && op.sum == none, "adds to its input without scaling it");
    // Several groups of outputs would write the sum several times.
    require(op.input.size() == 1 && op.mixing == none && op.outputs <= group_panels * panel, "cannot scale its input");
    const Tensor &scale = used(op, op.scale);
    require(scale.kind == Kind::vector && scale.channels == first.channels, "scales its input by another shape");
    same_shape(used(op, op.added), first, "adds another shape to its input");
    if (op.sum == none) return;
    require(op.sum < made_.size() && !made_[op.sum] && op.sum != op.output && op.sum != op.pooled,
            "its sum is not new");
    same_shape(tensor(op.sum), first, "its sum has another shape");
  }

  void check_gram(Operation &op, const Tensor &first) {
    check_images(op);
    const Tensor &out = output(op);
    require(out.kind == Kind::matrix && out.channels == op.input.size(), "its matrix has another size");
    require(first.channels % panel == 0, "its stages are no multiple of 16");
    for (uint32_t id : op.input) same_shape(tensor(id), first, "its stages differ in shape");
    require(op.residual.empty() && op.gate == none && op.shuffle == 1, "is a Gram matrix and more");
    if (op.known == none) return;
    const Tensor &known = used(op, op.known);
    require(known.kind == Kind::matrix && known.channels <= out.channels, "knows more stages than it has");
  }

  // What the operation reads and preparing made, or was given, has to be kept for it.
  void keep(const Operation &op) {
    const auto one = [&](uint32_t id) {
      if (id != none && !depends_on_target_[id]) plan_.kept[id] = true;
    };
    for (uint32_t id : op.input) one(id);
    for (uint32_t id : op.residual) one(id);
    one(op.gate);
    one(op.mixing);
    one(op.known);
    one(op.scale);
    one(op.added);
  }

  Plan &plan_;
  size_t weights_bytes_;
  std::vector<bool> made_, depends_on_target_;
  size_t index_ = 0;
};

// Brings the weights of every operation into its kernel's form, those that several operations share once.
void pack_weights(Plan &plan, const unsigned char *weights, size_t weights_bytes) {
  using Key = std::tuple<uint64_t, std::vector<uint32_t>, std::vector<uint32_t>>;
  std::map<Key, size_t> places;
  uint64_t floats = 0;
  const uint64_t limit = (uint64_t(weights_bytes) * most_growth + (1u << 20)) / sizeof(float);
  // Where a tensor stands among the packed weights, and whether it still has to be put there.
  const auto place = [&](Key key, uint64_t count) {
    const auto [found, is_new] = places.emplace(std::move(key), floats);
    if (is_new) floats += (count + panel - 1) / panel * panel;
    if (floats > limit) bad("native.plan blows its weights up");
    return std::make_pair(found->second, is_new);
  };
  std::vector<const Operation *> new_weights, new_biases;
  for (Operation &op : plan.operations) {
    const uint64_t count = packed_floats(plan, op);
    if (!count) continue;
    std::vector<uint32_t> channels;
    for (uint32_t id : op.input) channels.push_back(plan.tensors[id].channels);
    const std::vector<uint32_t> form{op.code,   op.outputs, op.weight_inputs, op.weight_first,
                                     op.kernel, op.shuffle, op.repeat_edge};
    const auto [weight, weight_is_new] = place(Key{op.weight, channels, form}, count);
    op.packed_weight = weight;
    if (weight_is_new) new_weights.push_back(&op);
    if (op.bias == no_bias) continue;
    const auto [bias, bias_is_new] = place(Key{op.bias, {}, {op.code, op.outputs, op.shuffle}}, op.outputs);
    op.packed_bias = bias;
    if (bias_is_new) new_biases.push_back(&op);
  }
  plan.weights = Block(floats * sizeof(float));
  if (floats) std::memset(plan.weights.data(), 0, floats * sizeof(float));
  float *to = reinterpret_cast<float *>(plan.weights.data());
  for (const Operation *op : new_weights) pack_weight(plan, *op, weights + op->weight, to + op->packed_weight);
  for (const Operation *op : new_biases) pack_bias(*op, weights + op->bias, to + op->packed_bias);
}

std::vector<unsigned char> read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = file ? std::streamoff(file.tellg()) : -1;
  // A folder opens as a file of impossible size.
  if (size < 0 || size > std::streamoff(1) << 40)
    throw Failure{MINET_FILE_ERROR, path + " is missing or cannot be read"};
  std::vector<unsigned char> content(static_cast<size_t>(size));
  file.seekg(0);
  if (size && !file.read(reinterpret_cast<char *>(content.data()), size))
    throw Failure{MINET_FILE_ERROR, path + " cannot be read"};
  return content;
}

}  // namespace

Plan read_plan(const unsigned char *program, size_t program_bytes, const unsigned char *weights, size_t weights_bytes) {
  Reader reader(program, program_bytes);
  Header header;
  reader.read(&header, 1);
  if (std::memcmp(header.magic, magic, sizeof magic) != 0) bad("native.plan is no plan");
  if (header.format != format)
    bad("native.plan has format " + std::to_string(header.format) + ", this library reads format " +
        std::to_string(format));
  if (checksum(program + checked_from, program_bytes - checked_from) != header.checksum)
    bad("native.plan is damaged: its checksum differs");
  if (header.weights_bytes != weights_bytes)
    bad("weights.bin has " + std::to_string(weights_bytes) + " bytes, native.plan expects " +
        std::to_string(header.weights_bytes));
  if (header.tensors < 2 || header.tensors > most_tensors || header.operations < 1 ||
      header.operations > most_operations || header.list > most_list)
    bad("native.plan has an impossible number of tensors or operations");
  if (checksum(weights, weights_bytes) != header.weights_checksum) bad("weights.bin is damaged: its checksum differs");

  Plan plan;
  plan.format = header.format;
  plan.scale = header.scale;
  plan.target = header.target;
  plan.reference = header.reference;
  plan.restored = header.restored;
  std::vector<TensorRecord> tensors(header.tensors);
  reader.read(tensors.data(), tensors.size());
  for (const TensorRecord &record : tensors) {
    if (record.kind > static_cast<uint32_t>(Kind::matrix)) bad("native.plan has a tensor of unknown kind");
    plan.tensors.push_back({static_cast<Kind>(record.kind), record.channels, record.multiple});
  }
  std::vector<OperationRecord> operations(header.operations);
  reader.read(operations.data(), operations.size());
  std::vector<uint32_t> list(header.list);
  reader.read(list.data(), list.size());
  if (reader.left()) bad("native.plan is longer than it says");
  for (const OperationRecord &record : operations) {
    Operation op{};
    static_cast<OperationRecord &>(op) = record;
    const auto part = [&](uint32_t first, uint32_t count) {
      if (first > list.size() || count > list.size() - first) bad("native.plan names inputs outside its list");
      return std::vector<uint32_t>(list.begin() + first, list.begin() + first + count);
    };
    op.input = part(record.first_input, record.inputs);
    op.residual = part(record.first_residual, record.residuals);
    plan.operations.push_back(std::move(op));
  }
  Checker(plan, weights_bytes).check();
  pack_weights(plan, weights, weights_bytes);
  return plan;
}

Plan read_plan(const std::string &folder) {
  const std::vector<unsigned char> program = read_file(folder + "/native.plan");
  const std::vector<unsigned char> weights = read_file(folder + "/weights.bin");
  return read_plan(program.data(), program.size(), weights.data(), weights.size());
}

}  // namespace minet
