#include "engine/directory_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "net/check.h"

namespace mangrove {

void DirectoryMemory::Install(PageId page, const std::byte* data, Rights) {
  std::shared_ptr<PageBytes>& frame = frames_[page];
  CHECK(frame == nullptr);
  frame = std::make_shared<PageBytes>();
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

PageBuffer DirectoryMemory::Copy(PageId page) { return At(page); }

void DirectoryMemory::Load(PageId page, size_t offset, std::span<std::byte> out) {
  CHECK(offset + out.size() <= kPageBytes);
  std::memcpy(out.data(), At(page)->bytes.data() + offset, out.size());
}

void DirectoryMemory::Store(PageId page, size_t offset, std::span<const std::byte> bytes) {
  CHECK(offset + bytes.size() <= kPageBytes && frames_.contains(page));
  std::shared_ptr<PageBytes>& frame = frames_.at(page);
  if (frame.use_count() > 1) frame = std::make_shared<PageBytes>(*frame);
  std::memcpy(frame->bytes.data() + offset, bytes.data(), bytes.size());
}

std::vector<PageId> DirectoryMemory::PagesIn(PageRange range) const {
  std::vector<PageId> pages;
  for (const auto& [page, frame] : frames_) {
    if (range.Contains(page)) pages.push_back(page);
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

const std::shared_ptr<PageBytes>& DirectoryMemory::At(PageId page) const {
  const auto it = frames_.find(page);
  CHECK(it != frames_.end());
  return it->second;
}

}  // namespace mangrove
