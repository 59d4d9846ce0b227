#include "net/page_buffer.h"

#include "net/check.h"

#include <mutex>
#include <new>
#include <utility>
#include <vector>

namespace mangrove {
namespace {

// Of one thread. What another thread lets go of stays there; so few that it does not matter. None where the address
// sanitizer is to see whoever uses a page too long.
#if defined(__has_feature)
#define MANGROVE_HAS_FEATURE(feature) __has_feature(feature)
#else
#define MANGROVE_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || MANGROVE_HAS_FEATURE(address_sanitizer)
constexpr size_t kSpareBlocks = 0;
#else
constexpr size_t kSpareBlocks = 64;
#endif

struct SpareBlocks {
  std::vector<void*> blocks;
  ~SpareBlocks() {
    for (void* block : blocks) ::operator delete(block, std::align_val_t(alignof(PageBytes)));
    is_open = false;
  }
  // A page may outlive its thread's list.
  static thread_local bool is_open;
};
thread_local bool SpareBlocks::is_open = true;
thread_local SpareBlocks spare;

// Of blocks that hold a page and what shared_ptr counts with: all of one size.
template <typename T>
struct BlockAllocator {
  using value_type = T;
  BlockAllocator() = default;
  template <typename U>
  BlockAllocator(const BlockAllocator<U>&) {}  // NOLINT(google-explicit-constructor): allocators convert.

  T* allocate(size_t) {
    if (!SpareBlocks::is_open || spare.blocks.empty()) {
      return static_cast<T*>(::operator new(sizeof(T), std::align_val_t(alignof(PageBytes))));
    }
    void* const block = spare.blocks.back();
    spare.blocks.pop_back();
    return static_cast<T*>(block);
  }
  void deallocate(T* block, size_t) {
    if (SpareBlocks::is_open && spare.blocks.size() < kSpareBlocks) {
      spare.blocks.push_back(block);
    } else {
      ::operator delete(block, std::align_val_t(alignof(PageBytes)));
    }
  }
  template <typename U>
  bool operator==(const BlockAllocator<U>&) const {
    return true;
  }
};

}  // namespace

std::shared_ptr<PageBytes> NewPage() {
  return std::allocate_shared_for_overwrite<PageBytes>(BlockAllocator<PageBytes>());
}

struct PageRow::Block {
  std::array<PageBytes, kPages> pages;
};

struct PageRow::Spares {
  static constexpr size_t kMost = 8;
  std::mutex mutex;
  std::vector<std::unique_ptr<Block>> blocks;
};

PageRow::PageRow() : spares_(std::make_shared<Spares>()) {}
PageRow::~PageRow() = default;

std::shared_ptr<PageBytes> PageRow::NewPages(size_t count) {
  CHECK(count >= 1 && count <= kPages);
  if (block_ != nullptr && used_ + count > kPages) block_.reset();
  if (block_ == nullptr) {
    std::unique_ptr<Block> block;
    {
      const std::lock_guard lock(spares_->mutex);
      if (!spares_->blocks.empty()) {
        block = std::move(spares_->blocks.back());
        spares_->blocks.pop_back();
      }
    }
    if (block == nullptr) block = std::make_unique_for_overwrite<Block>();
    block_ = std::shared_ptr<Block>(block.release(), [spares = spares_](Block* done) {
      std::unique_ptr<Block> owned(done);
      const std::lock_guard lock(spares->mutex);
      if (spares->blocks.size() < Spares::kMost) spares->blocks.push_back(std::move(owned));
    });
    used_ = 0;
  }
  std::shared_ptr<PageBytes> page(block_, &block_->pages[used_]);
  used_ += count;
  if (used_ == kPages) block_.reset();
  return page;
}

std::shared_ptr<PageBytes> NewPages(size_t count) {
  thread_local PageRow row;
  return row.NewPages(count);
}

}  // namespace mangrove
