// Aligned memory, and a store of blocks that are used again: fresh pages cost as much as reading them several times.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

namespace minet {

class Block {
 public:
  Block() = default;
  explicit Block(size_t bytes);  // throws std::bad_alloc
  Block(Block &&other) noexcept;
  Block &operator=(Block &&other) noexcept;
  ~Block();

  unsigned char *data() const { return data_; }
  size_t size() const { return size_; }

 private:
  unsigned char *data_ = nullptr;
  size_t size_ = 0;
};

class BlockStore {
 public:
  // A block of at least so many bytes that nobody else uses. Throws std::bad_alloc.
  Block take(size_t bytes);
  void give_back(Block block) noexcept;

 private:
  std::mutex mutex_;
  std::vector<Block> free_;
};

// A block of a store for as long as this lives.
class Lease {
 public:
  Lease(std::shared_ptr<BlockStore> store, size_t bytes) : store_(std::move(store)), block_(store_->take(bytes)) {}
  ~Lease() { store_->give_back(std::move(block_)); }
  Lease(const Lease &) = delete;
  Lease &operator=(const Lease &) = delete;

  unsigned char *data() const { return block_.data(); }

 private:
  std::shared_ptr<BlockStore> store_;
  Block block_;
};

}  // namespace minet
