// Frames that no program maps, so that they are no part of any region's memory: of the directory's own pages, and of pages
// that the node keeps for others.
//
// Whoever looks at a page shares its frame: a copy costs more than all the rest of a lookup. A store to a frame that
// somebody still looks at makes a new one.

#pragma once

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/page_memory.h"

namespace mangrove {

class DirectoryMemory final : public PageMemory {
 public:
  void Install(PageId page, const std::byte* data, Rights rights) override;
  void Raise(PageId page) override;
  void Protect(PageId page, absl::AnyInvocable<void()> done) override;
  void Take(PageId page, bool keep, absl::AnyInvocable<void(PageBuffer)> done) override;
  PageBuffer Copy(PageId page) override;
  void Load(PageId page, size_t offset, std::span<std::byte> out) override;
  void Store(PageId page, size_t offset, std::span<const std::byte> bytes) override;
  // No program maps it.
  void Fence() override {}
  void Unfence() override {}

  // Those that have a frame, in order.
  std::vector<PageId> PagesIn(PageRange range) const;

 private:
  const std::shared_ptr<PageBytes>& At(PageId page) const;

  absl::flat_hash_map<PageId, std::shared_ptr<PageBytes>> frames_;
};

}  // namespace mangrove
