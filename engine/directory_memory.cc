#include "engine/directory_memory.h"

#include <cstring>
#include <utility>

#include "net/check.h"

namespace mangrove {

void DirectoryMemory::Install(PageId page, const std::byte* data, Rights) {
  std::unique_ptr<PageBytes>& frame = frames_[page];
  CHECK(frame == nullptr);
  frame = std::make_unique<PageBytes>();
  if (data != nullptr) {
    std::memcpy(frame->bytes.data(), data, kPageBytes);
  } else {
    frame->bytes.fill(std::byte{0});
  }
}

// The rights are the cache machine's to know: nobody else looks at these frames.
void DirectoryMemory::Raise(PageId) {}
void DirectoryMemory::Protect(PageId, absl::AnyInvocable<void()> done) { done(); }

void DirectoryMemory::Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) {
  const auto it = frames_.find(page);
  CHECK(it != frames_.end());
  PageBuffer content(keep ? std::move(it->second) : nullptr);
  frames_.erase(it);
  done(std::move(content));
}

PageBuffer DirectoryMemory::Copy(PageId page) { return std::make_shared<const PageBytes>(At(page)); }

void DirectoryMemory::Load(PageId page, size_t offset, std::span<std::byte> out) {
  CHECK(offset + out.size() <= kPageBytes);
  std::memcpy(out.data(), At(page).bytes.data() + offset, out.size());
}

void DirectoryMemory::Store(PageId page, size_t offset, std::span<const std::byte> bytes) {
  CHECK(offset + bytes.size() <= kPageBytes && frames_.contains(page));
  std::memcpy(frames_.at(page)->bytes.data() + offset, bytes.data(), bytes.size());
}

const PageBytes& DirectoryMemory::At(PageId page) const {
  const auto it = frames_.find(page);
  CHECK(it != frames_.end());
  return *it->second;
}

}  // namespace mangrove
