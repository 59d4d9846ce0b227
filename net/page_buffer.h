// One page of bytes, held by whoever still needs it.

#pragma once

#include <array>
#include <cstddef>
#include <memory>

namespace mangrove {

constexpr size_t kPageBytes = 4096;

// Of a cache line's alignment, not a page's: nothing needs more, and an allocation would take up two pages.
struct alignas(64) PageBytes {
  std::array<std::byte, kPageBytes> bytes;
};

// Shared ownership of an immutable copy of a page. Whoever creates it fills it before sharing it. Thread-safe once shared.
using PageBuffer = std::shared_ptr<const PageBytes>;

// A page to be filled: its bytes are anything. Faster than the general allocator, which moves blocks of this size around.
std::shared_ptr<PageBytes> NewPage();

// Hands out pages that lie side by side, up to kPages of them, so that they can be sent in one piece. Such a block of pages lives
// as long as one of them does: for what is let go of together, and soon. Owned by one thread; its pages, as others, are not.
class PageRow {
 public:
  static constexpr size_t kPages = 64;

  PageRow();
  ~PageRow();
  std::shared_ptr<PageBytes> NewPage() { return NewPages(1); }
  // The first of `count` pages, the others behind it. REQUIRES: 1 to kPages.
  std::shared_ptr<PageBytes> NewPages(size_t count);

 private:
  struct Block;
  struct Spares;
  const std::shared_ptr<Spares> spares_;
  std::shared_ptr<Block> block_;
  size_t used_ = 0;  // Of its pages.
};

// The same, of a row of the calling thread.
std::shared_ptr<PageBytes> NewPages(size_t count);

}  // namespace mangrove
