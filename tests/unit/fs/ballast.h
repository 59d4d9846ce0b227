// Makes a fileset full: takes all free pages but some, which belong to nobody.

#pragma once

#include <map>

#include "fs/fileset_page.h"
#include "fs/group_page.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {

class Ballast {
 public:
  // Both outlive it; there are no other groups from now on.
  explicit Ballast(MemoryPages* pages) : pages_(pages) {
    const absl::StatusOr<Space> space = Do(pages_->GetSpace());
    CHECK(space.ok());
    pages_->SetMostPages(space->total_pages - space->free_pages);
  }

  // Leaves so many pages of the zone free.
  void Take(Zone zone, uint64_t leave) {
    InGroups(zone, [&](GroupEditor& group) {
      for (uint32_t i = 0; i < kGroupPages; ++i) {
        if (group.IsUsed(i)) continue;
        if (leave > 0) {
          --leave;
          continue;
        }
        taken_[group.first() + i] = group.IsMarked(i);
        group.Set({i, 1}, true, false);
      }
    });
  }
  void Drop() {
    const auto drop = [&](GroupEditor& group) {
      const uint64_t first = group.first();
      for (auto it = taken_.lower_bound(first); it != taken_.end() && it->first < first + kGroupPages; ++it) {
        group.Set({it->first - first, 1}, false, it->second);
      }
    };
    InGroups(Zone::kMetadata, drop);
    InGroups(Zone::kData, drop);
    taken_.clear();
  }

 private:
  template <typename Change>
  void InGroups(Zone zone, Change change) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<EditPage*> fileset = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kRead);
      if (!fileset.ok()) co_return fileset.status();
      const auto count = GetLittle<uint32_t>((*fileset)->bytes(), GroupCountAt(zone));
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t first = PagesOf(zone).first + i * kGroupPages;
        const absl::StatusOr<EditPage*> page = co_await edit.Get(first, PageKind::kGroup, Intent::kWrite);
        if (!page.ok()) co_return page.status();
        GroupEditor group(*page);
        change(group);
      }
      co_return absl::OkStatus();
    };
    CHECK(Do(RunEdit(pages_, body)).ok());
  }

  MemoryPages* const pages_;
  std::map<uint64_t, bool> taken_;  // Whether it was marked.
};

}  // namespace mangrove::fs
