#include "block.h"

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace minet {
namespace {

constexpr size_t cache_line = 64;
constexpr size_t large_page = size_t(2) << 20;

}  // namespace

Block::Block(size_t bytes) {
  const size_t alignment = bytes >= large_page ? large_page : cache_line;
  const size_t rounded = (std::max(bytes, cache_line) + alignment - 1) / alignment * alignment;
  if (rounded < bytes) throw std::bad_alloc();
  data_ = static_cast<unsigned char *>(std::aligned_alloc(alignment, rounded));
  if (!data_) throw std::bad_alloc();
  size_ = rounded;
#if defined(__linux__)
  // Only a hint: tiles touch many rows at a time, each on a small page of its own.
  if (alignment == large_page) madvise(data_, size_, MADV_HUGEPAGE);
#endif
}

Block::Block(Block &&other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Block &Block::operator=(Block &&other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Block::~Block() { std::free(data_); }

Block BlockStore::take(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto smaller = [](const Block &a, const Block &b) { return a.size() < b.size(); };
  std::sort(free_.begin(), free_.end(), smaller);
  const auto best = std::find_if(free_.begin(), free_.end(), [&](const Block &block) { return block.size() >= bytes; });
  if (best != free_.end()) {
    Block found = std::move(*best);
    free_.erase(best);
    return found;
  }
  // There are never more blocks than were in use at once: the new one takes the place of one that is too small.
  if (!free_.empty()) free_.pop_back();
  return Block(bytes);
}

void BlockStore::give_back(Block block) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  try {
    free_.push_back(std::move(block));
  } catch (const std::bad_alloc &) {
    // The block is freed instead.
  }
}

}  // namespace minet
