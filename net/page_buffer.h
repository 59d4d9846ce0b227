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

}  // namespace mangrove
