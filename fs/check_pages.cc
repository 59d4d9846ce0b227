#include "fs/check_pages.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/group_page.h"
#include "fs/status.h"
#include "fs/tree_node.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kReadAtOnce = 256 * kPageSize;
constexpr uint64_t kNoPage = 0;  // Of a root, which lies in a page of its owner's.

std::string Named(PageSpan pages) {
  if (pages.count == 1) return absl::StrCat("page ", pages.first);
  return absl::StrCat("pages ", pages.first, " to ", pages.first + pages.count - 1);
}

}  // namespace

void CheckedPages::Problem(std::string sentence) {
  if (report_->problems.size() < CheckReport::kMostProblems) {
    report_->problems.push_back(std::move(sentence));
  } else {
    ++report_->unlisted_problems;
  }
}

bool CheckedPages::IsDamage(const absl::Status& status) { return ErrnoOf(status) == EIO || ErrnoOf(status) == ESTALE; }

void CheckedPages::ReportDamage(const std::string& whose, const absl::Status& wrong) {
  Problem(absl::StrCat(whose, ": ", wrong.message()));
}

// --- Groups -----------------------------------------------------------------------------------------------------------

Task<absl::Status> CheckedPages::LoadGroups(Zone zone, uint64_t count) {
  const uint64_t zone_first = PagesOf(zone).first;
  for (uint64_t first = zone_first; first < zone_first + count * kGroupPages; first += kGroupPages) {
    Group group;
    absl::Status wrong;
    uint32_t marked_count = 0;
    auto copy = [&](EditPage* page) {
      const GroupView view(page);
      group = {.zone = zone};
      wrong = view.Check(first, zone);
      marked_count = view.marked();
      if (wrong.ok() && view.owner() > kNodePlaces) {
        wrong = PosixError(EIO, absl::StrCat("page ", first, " says that node ", view.owner(), " takes from it"));
      }
      for (uint32_t i = 0; i < kGroupPages; ++i) {
        group.used.push_back(view.IsUsed(i));
        group.marked.push_back(view.IsMarked(i));
      }
    };
    const std::string whose = absl::StrCat("the group of page ", first);
    const absl::StatusOr<bool> sound = co_await With(first, PageKind::kGroup, whose, copy);
    if (!sound.ok()) co_return sound.status();
    if (!*sound) continue;
    ++report_->groups;
    if (!wrong.ok()) ReportDamage(whose, wrong);
    uint32_t free_marks = 0;
    for (uint32_t i = 0; i < kGroupPages; ++i) free_marks += group.marked[i] && !group.used[i] ? 1 : 0;
    if (free_marks != marked_count) {
      Problem(absl::StrCat(whose, " counts ", marked_count, " free pages that are marked, and has ", free_marks));
    }
    CheckBits(first, group);
    group.claimed.resize(kGroupPages);
    groups_[first] = std::move(group);
    Claim({first, 1}, zone != Zone::kMetadata, whose);
  }
  co_return absl::OkStatus();
}

// A mark is an inode's in the zone of metadata, a free page's in the others.
void CheckedPages::CheckBits(uint64_t first, const Group& group) {
  const bool is_metadata = group.zone == Zone::kMetadata;
  for (uint32_t i = 0; i < kGroupPages; ++i) {
    if (group.marked[i] && group.used[i] != is_metadata) {
      Problem(absl::StrCat(
          "page ", first + i,
          is_metadata ? " is marked as an inode, and is free" : " is marked as one that is not zeros, and is used"));
    }
  }
}

CheckedPages::Group* CheckedPages::GroupOf(uint64_t page) {
  auto it = groups_.upper_bound(page);
  if (it == groups_.begin() || page >= (--it)->first + kGroupPages) return nullptr;
  return &it->second;
}

std::vector<uint64_t> CheckedPages::MarkedInodes() const {
  std::vector<uint64_t> inodes;
  for (const auto& [first, group] : groups_) {
    if (group.zone != Zone::kMetadata) continue;
    for (uint32_t i = 0; i < kGroupPages; ++i) {
      if (group.marked[i] && group.used[i]) inodes.push_back(first + i);
    }
  }
  return inodes;
}

bool CheckedPages::Claim(PageSpan pages, bool data, absl::string_view whose) {
  (data ? report_->data_pages : report_->metadata_pages) += pages.count;
  for (uint64_t page = pages.first; page < pages.first + pages.count; ++page) {
    Group* const group = GroupOf(page);
    if (group == nullptr || (group->zone != Zone::kMetadata) != data) {
      Problem(absl::StrCat(whose, " has page ", page, ", which is in no group of ", data ? "data" : "metadata"));
      return false;
    }
    const uint64_t i = page % kGroupPages;
    if (group->claimed[i]) Problem(absl::StrCat(whose, " has page ", page, ", which something else has too"));
    if (!group->used[i]) Problem(absl::StrCat(whose, " has page ", page, ", which its group says is free"));
    group->claimed[i] = true;
  }
  return true;
}

void CheckedPages::ReportLeaks() {
  for (const auto& [first, group] : groups_) {
    for (uint64_t i = 0; i < kGroupPages;) {
      uint64_t count = 0;
      while (i + count < kGroupPages && group.used[i + count] && !group.claimed[i + count]) ++count;
      if (count > 0) {
        const PageSpan leak{first + i, count};
        Problem(absl::StrCat(Named(leak), count == 1 ? " is" : " are", " used, and nothing has ",
                             count == 1 ? "it" : "them"));
      }
      i += count + 1;
    }
  }
}

// --- Trees ------------------------------------------------------------------------------------------------------------

Task<absl::Status> CheckedPages::Walk(std::string root, std::string whose, Record* record) {
  const Range everything;
  co_return co_await WalkNode(std::move(root), kNoPage, everything, &whose, record);
}

Task<absl::Status> CheckedPages::WalkNode(std::string node, uint64_t page, Range range, const std::string* whose,
                                          Record* record) {
  const NodeView view{std::span<const char>(node)};
  const std::string place = page == kNoPage ? *whose : absl::StrCat("page ", page, ", of ", *whose);
  if (absl::Status s = view.Check(); !s.ok()) {
    ReportDamage(place, s);
    co_return absl::OkStatus();
  }
  if (page != kNoPage && view.count() == 0) Problem(absl::StrCat(place, ": it is an empty node"));  // R1
  for (uint16_t i = 0; i < view.count(); ++i) {
    const uint64_t key = view.KeyAt(i);
    // The first child takes everything below its key too. N2
    if (key > range.high || (key < range.low && (view.level() == 0 || i > 0))) {
      Problem(absl::StrCat(place, ": key ", key, " is not where it belongs, between ", range.low, " and ", range.high));
      continue;
    }
    if (view.level() == 0) {
      (*record)(key, view.ValueAt(i));
      continue;
    }
    const uint64_t child = view.ChildAt(i);
    Claim({child, 1}, false, *whose);
    std::string below;
    auto copy = [&](EditPage* found) { below.assign(found->bytes().begin() + kHeaderBytes, found->bytes().end()); };
    const absl::StatusOr<bool> sound = co_await With(child, PageKind::kTree, *whose, copy);
    if (!sound.ok()) co_return sound.status();
    if (!*sound) continue;
    const uint16_t level = NodeView(std::span<const char>(below)).level();
    if (level + 1 != view.level()) {
      Problem(absl::StrCat("page ", child, ", of ", *whose, ": it is a node of level ", level, " below one of level ",
                           view.level()));
      continue;
    }
    const bool is_last = i + 1 == view.count();
    const Range keys{i == 0 ? range.low : key, is_last ? range.high : view.KeyAt(static_cast<uint16_t>(i + 1)) - 1};
    const absl::Status status = co_await WalkNode(std::move(below), child, keys, whose, record);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// --- Data -------------------------------------------------------------------------------------------------------------

}  // namespace mangrove::fs
