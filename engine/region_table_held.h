// Locked pages and regions of the table, given back at the end of their scope. Internal to RegionTable.

#pragma once

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/region_table.h"

namespace mangrove {

class RegionTable::HeldPages {
 public:
  HeldPages(TablePages* pages, uint64_t lock_id) : pages_(pages), lock_id_(lock_id) {}
  HeldPages(HeldPages&& other) noexcept
      : pages_(std::exchange(other.pages_, nullptr)), lock_id_(std::exchange(other.lock_id_, 0)) {}
  HeldPages& operator=(HeldPages&& other) noexcept {
    std::swap(pages_, other.pages_);
    std::swap(lock_id_, other.lock_id_);
    return *this;
  }
  ~HeldPages() {
    if (pages_ != nullptr) pages_->Unlock(lock_id_);
  }

 private:
  TablePages* pages_;
  uint64_t lock_id_;
};

struct RegionTable::HeldRegion {
  HeldPages lock;
  uint32_t slot = 0;
  RegionDescriptor region;
};

struct RegionTable::Wanted {
  std::string name;  // Empty: by page.
  PageId page;

  bool Matches(const RegionDescriptor& region) const {
    if (!region.used) return false;
    return name.empty() ? region.pages.Contains(page) : region.name == name;
  }
  // "no region \"x\""
  std::string Missing() const {
    return name.empty() ? absl::StrCat("no region at ", ToString(page)) : absl::StrCat("no region \"", name, "\"");
  }
};

}  // namespace mangrove
