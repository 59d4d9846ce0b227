#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/checker.h"
#include "fs/group_page.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "fs/stream.h"

namespace mangrove::fs {
namespace {

constexpr size_t kMostDoubles = 10'000;

std::string Named(PageSpan pages) {
  if (pages.count == 1) return absl::StrCat("page ", pages.first);
  return absl::StrCat("pages ", pages.first, " to ", pages.first + pages.count - 1);
}

std::string WhatIsWrong(const GroupView& view, uint64_t first, Zone zone) {
  if (absl::Status s = view.Check(first, zone); !s.ok()) return std::string(s.message());
  if (view.owner() > kNodePlaces)
    return absl::StrCat("page ", first, " says that node ", view.owner(), " takes from it");
  uint32_t free_marks = 0;
  for (uint32_t i = 0; i < kGroupPages; ++i) free_marks += view.IsMarked(i) && !view.IsUsed(i) ? 1 : 0;
  // A mark is an inode's in the zone of metadata, a free page's in the others.
  const bool is_metadata = zone == Zone::kMetadata;
  for (uint32_t i = 0; i < kGroupPages; ++i) {
    if (view.IsMarked(i) && view.IsUsed(i) != is_metadata) {
      return absl::StrCat(
          "page ", first + i,
          is_metadata ? " is marked as an inode, and is free" : " is marked as one that is not zeros, and is used");
    }
  }
  if (free_marks == view.marked()) return "";
  return absl::StrCat("it counts ", view.marked(), " free pages that are marked, and has ", free_marks);
}

}  // namespace

Checker::Group Checker::GroupAt(uint64_t i) const {
  for (const Zone zone : {Zone::kMetadata, Zone::kData, Zone::kSingleCopy}) {
    const uint64_t count = counts_[static_cast<size_t>(zone)];
    if (i < count) return {PagesOf(zone).first + i * kGroupPages, zone};
    i -= count;
  }
  return {};
}

// A page that a group has to give: not its own one.
bool Checker::HasGroup(uint64_t page, bool data) const {
  if (page % kGroupPages == 0) return false;
  for (const Zone zone : {Zone::kMetadata, Zone::kData, Zone::kSingleCopy}) {
    if ((zone != Zone::kMetadata) != data) continue;
    const uint64_t first = PagesOf(zone).first;
    if (page >= first && page < first + counts_[static_cast<size_t>(zone)] * kGroupPages) return true;
  }
  return false;
}

// From now on the group notes what is taken. K8
Task<absl::Status> Checker::BeginGroup(Group group) {
  bool is_damaged = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    is_damaged = false;
    Bits bits;
    const absl::StatusOr<EditPage*> page = co_await edit.Get(group.first, PageKind::kGroup, Intent::kWrite);
    is_damaged = IsDamage(page.status());
    if (!page.ok()) co_return is_damaged ? absl::OkStatus() : page.status();
    GroupEditor editor(*page);
    const std::string wrong = WhatIsWrong(editor, group.first, group.zone);
    if (!wrong.empty()) {
      if (options_.repair) editor.Correct(group.first, group.zone);
      Found(absl::StrCat("the group of page ", group.first, ": ", wrong),
            options_.repair ? "it says and counts now what its place and its bits are" : "");
    }
    editor.BeginCheck(id_);
    for (uint32_t i = 0; i < kGroupPages; ++i) bits.used.push_back(editor.IsUsed(i));
    bits.claimed.resize(kGroupPages);
    bits_[group.first] = std::move(bits);
    co_return absl::OkStatus();
  };
  absl::Status status = co_await Look(body);
  if (!status.ok()) co_return status;
  if (options_.progress != nullptr) ++options_.progress->done;
  if (is_damaged) {
    bits_[group.first] = {};
    co_return co_await RebuildGroup(group);
  }
  ++report_.groups;
  Claim(group.first, group.zone != Zone::kMetadata);
  co_return absl::OkStatus();
}

// Which pages of it are inodes.
Task<absl::StatusOr<std::vector<uint64_t>>> Checker::MarkedInodes(Group group) {
  std::vector<uint64_t> inodes;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    inodes.clear();
    const absl::StatusOr<EditPage*> page = co_await edit.Get(group.first, PageKind::kGroup, Intent::kRead);
    if (IsDamage(page.status())) hides_pages_ = true;
    if (!page.ok()) co_return IsDamage(page.status()) ? absl::OkStatus() : page.status();
    const GroupView view(*page);
    for (uint32_t i = 1; i < kGroupPages; ++i) {
      if (view.IsMarked(i) && view.IsUsed(i)) inodes.push_back(group.first + i);
    }
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await Look(body);
  if (!status.ok()) co_return status;
  co_return inodes;
}

// While a group's page is damaged nobody takes a page from it, or gives one back. All of its pages are used then; the next sweep frees
// those that nobody has.
Task<absl::Status> Checker::RebuildGroup(Group group) {
  hides_pages_ = true;
  std::vector<bool> is_inode(kGroupPages);
  for (uint32_t i = 1; i < kGroupPages && options_.repair && group.zone == Zone::kMetadata; ++i) {
    const absl::StatusOr<bool> found = co_await IsUnmarkedInode(group.first + i);
    if (!found.ok()) co_return found.status();
    is_inode[i] = *found;
  }
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> there = co_await edit.Get(group.first, PageKind::kGroup, intent());
    if (!IsDamage(there.status())) co_return there.status();
    // What is lost on the disks is put anew by an operator, not here.
    const bool can_be_written = options_.repair && !absl::IsDataLoss(there.status());
    Found(absl::StrCat("the group of page ", group.first, ": ", there.status().message()),
          can_be_written ? "it is made anew, from what is in it" : "");
    if (!can_be_written) co_return absl::OkStatus();
    const absl::StatusOr<EditPage*> page = co_await edit.Make(group.first, PageKind::kGroup);
    if (!page.ok()) co_return page.status();
    GroupEditor editor(*page);
    editor.Initialize(group.first, group.zone, 0);
    editor.Set({0, kGroupPages}, true, false);
    for (uint32_t i = 1; i < kGroupPages; ++i) {
      if (is_inode[i]) editor.Set({i, 1}, true, true);
    }
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

// Of a group whose page is damaged.
Task<absl::StatusOr<bool>> Checker::IsUnmarkedInode(uint64_t page) {
  bool is_inode = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, InodeNumber{page}, Intent::kRead);
    is_inode = inode.ok();
    co_return inode.ok() || IsDamage(inode.status()) ? absl::OkStatus() : inode.status();
  };
  const absl::Status status = co_await Look(body);
  if (!status.ok()) co_return status;
  co_return is_inode;
}

// --- Who has which page -----------------------------------------------------------------------------------------------

Checker::Claimed Checker::Claim(uint64_t page, bool data) {
  const auto it = bits_.find(FirstOf(page));
  if (it == bits_.end() || it->second.used.empty()) return Claimed::kFine;
  const uint64_t i = page % kGroupPages;
  ++(data ? report_.data_pages : report_.metadata_pages);
  const bool was_claimed = it->second.claimed[i];
  it->second.claimed[i] = true;
  if (was_claimed) return Claimed::kTwice;
  return it->second.used[i] ? Claimed::kFine : Claimed::kFree;
}

Task<absl::Status> Checker::ClaimNode(uint64_t page, const std::string* whose) {
  // One that was free when the sweep began, or that another step has seen too: a tree's page says whose it is (R2).
  if (Claim(page, false) != Claimed::kFree) co_return absl::OkStatus();
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> group = co_await edit.Get(FirstOf(page), PageKind::kGroup, intent());
    if (!group.ok()) co_return IsDamage(group.status()) ? absl::OkStatus() : group.status();
    if (GroupView(*group).IsUsed(page % kGroupPages)) co_return absl::OkStatus();
    const absl::StatusOr<bool> lost = co_await IsLost(&edit, page);
    if (!lost.ok() || *lost) co_return lost.status();
    Found(absl::StrCat(*whose, " has page ", page, ", which its group says is free"),
          options_.repair ? "it is marked as used" : "");
    if (options_.repair) GroupEditor(*group).Set({page % kGroupPages, 1}, true, false);
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

void Checker::ClaimExtent(uint64_t inode, Extent extent, std::vector<Doubt>* doubts) {
  for (uint64_t i = 0; i < extent.count; ++i) {
    const uint64_t page = extent.page + i;
    const Owner owner{inode, extent.stream_page + i};
    if (collects_owners_) {
      if (const auto it = doubles_.find(page); it != doubles_.end()) it->second.push_back(owner);
      continue;
    }
    const Claimed claimed = Claim(page, true);
    if (claimed != Claimed::kFine) doubts->push_back({claimed, page, owner});
  }
}

// One that was taken since the sweep began was claimed by whom it had been freed by, and by whom it was taken by.
Task<absl::Status> Checker::NoteDouble(uint64_t page) {
  bool is_taken = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> group = co_await edit.Get(FirstOf(page), PageKind::kGroup, Intent::kRead);
    is_taken = !group.ok() || GroupView(*group).IsTaken(page % kGroupPages);
    co_return IsDamage(group.status()) ? absl::OkStatus() : group.status();
  };
  const absl::Status status = co_await Look(body);
  if (status.ok() && !is_taken && doubles_.size() < kMostDoubles) doubles_[page] = {};
  co_return status;
}

// Whether that page of the file is this one.
Task<absl::StatusOr<bool>> Checker::HasPage(Edit* edit, uint64_t page, Owner owner) {
  const absl::StatusOr<Inode> inode = co_await Inode::Get(edit, InodeNumber{owner.inode}, intent());
  if (IsDamage(inode.status())) co_return false;
  if (!inode.ok()) co_return inode.status();
  if (!inode->IsRegular()) co_return false;
  Stream stream(edit, &space_, *inode);
  const absl::StatusOr<std::vector<Extent>> map = co_await stream.Map({owner.stream_page, 1});
  if (IsDamage(map.status())) co_return false;
  if (!map.ok()) co_return map.status();
  co_return !map->empty() && map->front().page == page;
}

Task<absl::Status> Checker::CheckIsUsed(uint64_t page, Owner owner) {
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<bool> has = co_await HasPage(&edit, page, owner);
    if (!has.ok() || !*has) co_return has.status();
    const absl::StatusOr<EditPage*> group = co_await edit.Get(FirstOf(page), PageKind::kGroup, intent());
    if (!group.ok()) co_return IsDamage(group.status()) ? absl::OkStatus() : group.status();
    const auto i = static_cast<uint32_t>(page % kGroupPages);
    if (GroupView(*group).IsUsed(i)) co_return absl::OkStatus();
    Found(absl::StrCat("inode ", owner.inode, " has page ", page, ", which its group says is free"),
          options_.repair ? "it is marked as used" : "");
    if (options_.repair) GroupEditor(*group).Set({i, 1}, true, false);
    co_return absl::OkStatus();
  };
  co_return co_await Look(body);
}

// Who has the pages that more than one thing claimed, or one twice: that takes another sweep.
Task<absl::Status> Checker::CheckDoubles() {
  if (doubles_.empty()) co_return absl::OkStatus();
  collects_owners_ = true;
  const absl::Status status = co_await SweepInodes();
  collects_owners_ = false;
  if (!status.ok()) co_return status;
  for (auto& [page, owners] : doubles_) {
    if (owners.size() < 2) continue;
    const absl::Status checked = co_await CheckDouble(page, owners);
    if (!checked.ok()) co_return checked;
  }
  co_return absl::OkStatus();
}

// The first keeps it.
Task<absl::Status> Checker::CheckDouble(uint64_t page, std::vector<Owner> owners) {
  for (size_t i = 1; i < owners.size(); ++i) {
    const std::string problem =
        absl::StrCat("inode ", owners[i].inode, " has page ", page, ", which inode ", owners[0].inode, " has too");
    bool is_double = false;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<bool> first = co_await HasPage(&edit, page, owners[0]);
      if (!first.ok()) co_return first.status();
      const absl::StatusOr<bool> second = co_await HasPage(&edit, page, owners[i]);
      if (!second.ok()) co_return second.status();
      is_double = *first && *second;
      if (is_double && !options_.repair) Found(problem);
      co_return absl::OkStatus();
    };
    absl::Status status = co_await Look(body);
    if (status.ok() && is_double && options_.repair) status = co_await GiveCopy(page, owners[i], problem);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

// --- Pages that nobody has --------------------------------------------------------------------------------------------

// Nothing has had the page since the sweep began that the sweep has not seen, or none can be taken that it says it is of.
Task<absl::StatusOr<bool>> Checker::IsLost(Edit* edit, uint64_t page) {
  const absl::StatusOr<EditPage*> node = co_await edit->Get(page, PageKind::kTree, Intent::kRead);
  if (IsDamage(node.status())) co_return true;
  if (!node.ok()) co_return node.status();
  const NodeView view((*node)->bytes().subspan(kTreeNodeAt));
  if (!view.Check().ok() || view.count() == 0) co_return true;
  const auto owner = GetLittle<uint64_t>((*node)->bytes(), kTreeOwnerAt);
  const std::string whose;
  const std::function<bool(uint64_t)> may_be_node = [this](uint64_t child) { return HasGroup(child, false); };
  std::vector<TreeRoot> roots;
  if (owner >= kFirstPlacePage && owner < kHeadPages) {
    const absl::StatusOr<EditPage*> place = co_await edit->Get(owner, PageKind::kPlace, Intent::kRead);
    if (place.ok()) roots.push_back(PlaceRoot(*place));
    if (!place.ok() && !IsDamage(place.status())) co_return place.status();
  } else if (HasGroup(owner, false)) {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(edit, InodeNumber{owner}, Intent::kRead);
    if (inode.ok()) roots = {inode->main_root(), inode->xattr_root()};
    if (!inode.ok() && !IsDamage(inode.status())) co_return inode.status();
  }
  for (const TreeRoot& root : roots) {
    CheckedTree tree(edit, root, &whose, &may_be_node);
    const absl::StatusOr<bool> has = co_await tree.HasNode(page, view.level(), view.KeyAt(0));
    if (!has.ok()) co_return has.status();
    if (*has) co_return false;
  }
  co_return true;
}

// Pages of a group that were used when the sweep began, and that it has not seen.
Task<absl::Status> Checker::CheckUnclaimed(Edit* edit, EditPage* group, Zone zone, PageSpan pages) {
  const GroupView view(group);
  if (view.check() != id_) co_return PosixError(EBUSY, "another check of the fileset has begun meanwhile");
  const bool is_metadata = zone == Zone::kMetadata;
  for (auto at = static_cast<uint32_t>(pages.first); at < pages.first + pages.count;) {
    uint32_t count = 0;
    while (at + count < pages.first + pages.count && view.IsUsed(at + count) && !view.IsTaken(at + count)) ++count;
    if (is_metadata && count > 0) {
      if (view.IsMarked(at)) co_return absl::OkStatus();
      const absl::StatusOr<Inode> inode = co_await Inode::Get(edit, InodeNumber{group->number() + at}, Intent::kRead);
      if (!inode.ok() && !IsDamage(inode.status())) co_return inode.status();
      if (absl::IsDataLoss(inode.status())) {
        hides_pages_ = is_lossy_ = true;
        co_return absl::OkStatus();
      }
      if (inode.ok()) {
        hides_pages_ = true;
        Found(absl::StrCat("inode ", inode->number().value, " is one, and its group does not say so"),
              options_.repair ? "it says so now" : "");
        if (options_.repair) GroupEditor(group).Set({at, 1}, true, true);
        co_return absl::OkStatus();
      }
      const absl::StatusOr<bool> is_lost = co_await IsLost(edit, group->number() + at);
      if (!is_lost.ok() || !*is_lost) co_return is_lost.status();
    }
    if (count > 0) {
      const char* const verb = count == 1 ? " is" : " are";
      const char* const object = count == 1 ? "it" : "them";
      Found(absl::StrCat(Named({group->number() + at, count}), verb, " used, and nothing has ", object),
            options_.repair ? absl::StrCat(count == 1 ? "it" : "they", verb, " free now") : "");
      // What is in a page of data is somebody's: S2.
      if (options_.repair) GroupEditor(group).Set({at, count}, false, !is_metadata);
    }
    at += count + 1;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Checker::CheckLeaks(Group group) {
  if (options_.progress != nullptr) ++options_.progress->done;
  const auto it = bits_.find(group.first);
  if (it == bits_.end() || it->second.used.empty() || hides_pages_) co_return absl::OkStatus();
  if (options_.repair && !frees_) co_return absl::OkStatus();
  const Bits& bits = it->second;
  for (uint64_t i = 1; i < kGroupPages;) {
    uint64_t count = 0;
    while (i + count < kGroupPages && bits.used[i + count] && !bits.claimed[i + count]) ++count;
    if (count == 0) {
      ++i;
      continue;
    }
    if (group.zone == Zone::kMetadata) count = 1;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<EditPage*> page = co_await edit.Get(group.first, PageKind::kGroup, intent());
      if (!page.ok()) co_return page.status();
      co_return co_await CheckUnclaimed(&edit, *page, group.zone, {i, count});
    };
    const absl::Status status = co_await Look(body);
    if (!status.ok()) co_return status;
    i += count;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove::fs
