#include "fs/space.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/fileset_page.h"
#include "fs/group_page.h"
#include "fs/quota.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kCleanAtOnce = 256;

uint64_t GroupPageOf(Zone zone, uint64_t group) { return PagesOf(zone).first + group * kGroupPages; }

Zone ZoneOf(uint64_t page) {
  for (const Zone zone : {Zone::kSingleCopy, Zone::kData}) {
    if (page >= PagesOf(zone).first) return zone;
  }
  return Zone::kMetadata;
}

absl::Status NoSpace() { return PosixError(ENOSPC, "no page of the fileset's region is free"); }

}  // namespace

absl::Status DiskFull(uint64_t page) {
  return PosixError(ENOSPC, absl::StrCat("a disk that is to have page ", page, " is full"));
}

Task<absl::StatusOr<uint64_t>> SpaceMap::TakeOne(Edit* edit, bool is_inode) {
  const absl::StatusOr<PageSpan> page = co_await TakeAnywhere(edit, {.zone = Zone::kMetadata, .mark = is_inode});
  if (!page.ok()) co_return page.status();
  co_return page->first;
}

Task<absl::StatusOr<PageSpan>> SpaceMap::TakeData(Edit* edit, Zone zone, Wanted wanted, uint64_t goal) {
  return TakeAnywhere(edit, {.zone = zone, .want = wanted.count, .ahead = wanted.ahead, .goal = goal});
}

// Groups that an edit adds are there when it is committed, and not before.
void SpaceMap::NoteGroups(Edit* edit, Zone zone, uint64_t count) {
  std::vector<Known>& groups = zones_[static_cast<size_t>(zone)].groups;
  if (count > groups.size() && !edit->HasChanged(kFilesetPage)) groups.resize(count);
}

// Groups of this node's own, or nobody's; a new one; at last those that others use. S3
Task<absl::StatusOr<PageSpan>> SpaceMap::TakeAnywhere(Edit* edit, Choice choice) {
  ZoneState& state = zones_[static_cast<size_t>(choice.zone)];
  const uint64_t zone_first = PagesOf(choice.zone).first;
  if (choice.goal >= zone_first && ZoneOf(choice.goal) == choice.zone) {
    const uint64_t group = (choice.goal - zone_first) / kGroupPages;
    if (group < state.groups.size()) state.current = group;
  }
  if (state.groups.empty()) {
    const absl::StatusOr<EditPage*> fileset = co_await edit->Get(kFilesetPage, PageKind::kFileset, Intent::kRead);
    if (!fileset.ok()) co_return fileset.status();
    NoteGroups(edit, choice.zone, GetLittle<uint32_t>((*fileset)->bytes(), GroupCountAt(choice.zone)));
  }
  for (const bool desperate : {false, true}) {
    for (uint64_t i = 0; i < state.groups.size(); ++i) {
      const uint64_t group = (state.current + i) % state.groups.size();
      if (!desperate && (state.groups[group].full || state.groups[group].others)) continue;
      const absl::StatusOr<PageSpan> pages = co_await TakeFrom(edit, choice, group);
      if (!pages.ok()) co_return pages.status();
      if (pages->count == 0) continue;
      state.current = group;
      co_return *pages;
    }
    if (desperate) break;
    // The first ones may be those that others have added meanwhile.
    for (;;) {
      const absl::StatusOr<AddedGroup> added = co_await AddGroup(edit, choice.zone);
      if (ErrnoOf(added.status()) == ENOSPC) break;
      if (!added.ok()) co_return added.status();
      const absl::StatusOr<PageSpan> pages = co_await TakeFrom(edit, choice, added->number);
      if (!pages.ok() || pages->count > 0) co_return pages;
      if (added->is_new) break;
    }
  }
  co_return NoSpace();
}

// Empty: the group has none, or is another node's. What is known of the group is only where to look first.
Task<absl::StatusOr<PageSpan>> SpaceMap::TakeFrom(Edit* edit, Choice choice, uint64_t group) {
  const uint64_t first = GroupPageOf(choice.zone, group);
  const absl::StatusOr<EditPage*> page = co_await edit->Get(first, PageKind::kGroup, Intent::kWrite);
  if (!page.ok()) co_return page.status();
  GroupEditor editor(*page);
  if (absl::Status s = editor.Check(first, choice.zone); !s.ok()) co_return s;
  std::vector<Known>& groups = zones_[static_cast<size_t>(choice.zone)].groups;
  Known added;
  Known& known = group < groups.size() ? groups[group] : added;
  const auto own = static_cast<uint32_t>(pages_->NodePlace() + 1);
  const bool was_others = known.others;
  known.others = editor.owner() != 0 && editor.owner() != own;
  known.full = editor.used() == kGroupPages;
  if (known.full || (known.others && !was_others)) co_return PageSpan{};
  if (known.others) {  // And nothing else is left: S3.
    if (choice.zone != Zone::kMetadata) editor.MarkFree();
    editor.SetOwner(own);
    known.others = false;
  }
  const bool counts = choice.zone != Zone::kMetadata || choice.mark;
  const Counted kind = choice.zone == Zone::kMetadata ? Counted::kInodes : Counted::kPages;
  uint64_t want = choice.want;
  if (counts && editor.quota() != 0) {
    const absl::StatusOr<uint64_t> allowed = co_await Allow(edit, &editor, kind, want - choice.ahead);
    if (!allowed.ok()) co_return allowed.status();
    want = *allowed;
  }
  const auto start =
      static_cast<uint32_t>(choice.goal > first && choice.goal < first + kGroupPages ? choice.goal - first : 0);
  PageSpan found = editor.FindClean(want, start);
  if (found.count == 0 && choice.zone != Zone::kMetadata) {  // S2
    const PageSpan marked = editor.FindMarked(1);
    if (marked.count > 0 && !pages_->HasRoom(first + marked.first)) co_return DiskFull(first + marked.first);
    if (absl::Status s = co_await Clean(edit, *page, want); !s.ok()) co_return s;
    found = editor.FindClean(want, start);
  }
  if (found.count == 0) co_return PageSpan{};
  // Other trees may grow: what takes files away must not be refused.
  if (counts || edit->grows()) {
    found.count = pages_->RoomFrom({first + found.first, found.count});
    if (found.count == 0) co_return DiskFull(first + found.first);
  }
  if (editor.owner() == 0) editor.SetOwner(own);
  editor.Set(found, true, choice.mark);
  const absl::Status charged = counts ? co_await Charge(edit, &editor, kind, found.count) : absl::OkStatus();
  if (!charged.ok()) co_return charged;
  co_return PageSpan{first + found.first, found.count};
}

// If the edit is aborted behind it, zeros stand in pages that are still marked.
Task<absl::Status> SpaceMap::Clean(Edit* edit, EditPage* group, uint64_t want) {
  GroupEditor editor(group);
  const PageSpan marked = editor.FindMarked(std::max(want, kCleanAtOnce));
  if (marked.count == 0) co_return absl::OkStatus();
  // If this node is lost, what freed them must not have been undone.
  absl::Status status = co_await pages_->SyncTransactions();
  if (!status.ok()) co_return status;
  const PageSpan pages{group->number() + marked.first, marked.count};
  const std::string zeros(pages.count * kPageSize, '\0');
  status = co_await edit->WriteData(pages.first * kPageSize, std::as_bytes(std::span(zeros)));
  if (status.ok()) status = co_await pages_->Flush(pages);
  if (status.ok()) editor.Set(marked, false, false);
  co_return AgainIfLost(status);
}

Task<absl::Status> SpaceMap::MarkOwnGroups() {
  for (const Zone zone : {Zone::kData, Zone::kSingleCopy}) {
    uint32_t groups = 1;
    for (uint32_t group = 0; group < groups; ++group) {
      auto body = [&](Edit& edit) -> Task<absl::Status> {
        const absl::StatusOr<EditPage*> fileset = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kRead);
        if (!fileset.ok()) co_return fileset.status();
        groups = GetLittle<uint32_t>((*fileset)->bytes(), GroupCountAt(zone));
        if (group >= groups) co_return absl::OkStatus();
        const uint64_t first = GroupPageOf(zone, group);
        const absl::StatusOr<EditPage*> page = co_await edit.Get(first, PageKind::kGroup, Intent::kWrite);
        if (!page.ok()) co_return page.status();
        GroupEditor editor(*page);
        if (absl::Status s = editor.Check(first, zone); !s.ok()) co_return s;
        if (editor.owner() == pages_->NodePlace() + 1) editor.MarkFree();
        co_return absl::OkStatus();
      };
      const absl::Status status = co_await RunEdit(pages_, body);
      if (!status.ok()) co_return status;
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<SpaceMap::AddedGroup>> SpaceMap::AddGroup(Edit* edit, Zone zone) {
  const absl::StatusOr<EditPage*> fileset = co_await edit->Get(kFilesetPage, PageKind::kFileset, Intent::kWrite);
  if (!fileset.ok()) co_return fileset.status();
  ZoneState& state = zones_[static_cast<size_t>(zone)];
  const auto count = GetLittle<uint32_t>((*fileset)->bytes(), GroupCountAt(zone));
  if (count > state.groups.size()) {  // This edit has added one, or others have.
    NoteGroups(edit, zone, count);
    co_return AddedGroup{count - 1, false};
  }
  if ((uint64_t{count} + 1) * kGroupPages > PagesOf(zone).count) co_return NoSpace();
  const uint64_t first = GroupPageOf(zone, count);
  const auto replicas = zone == Zone::kSingleCopy ? 1 : GetLittle<uint32_t>((*fileset)->bytes(), kReplicasAt);
  // What an edit that was aborted has allocated is as good.
  absl::Status status = co_await pages_->Allocate({first, kGroupPages}, replicas);
  if (!status.ok() && !absl::IsAlreadyExists(status)) co_return status;
  const absl::StatusOr<EditPage*> page = co_await edit->Make(first, PageKind::kGroup);
  if (!page.ok()) co_return page.status();
  GroupEditor editor(*page);
  editor.Initialize(first, zone, static_cast<uint32_t>(pages_->NodePlace() + 1));
  if (const uint32_t quota = QuotaOf(**fileset); quota != 0) editor.SetQuota(quota);
  // Somebody who is lost may have written to it. S2
  if (!status.ok() && zone != Zone::kMetadata) editor.MarkFree();
  PutLittle((*fileset)->mutable_bytes(), GroupCountAt(zone), count + 1);
  co_return AddedGroup{count, true};
}

Task<absl::Status> SpaceMap::Free(Edit* edit, PageSpan pages, bool mark) {
  while (pages.count > 0) {
    const Zone zone = ZoneOf(pages.first);
    const uint64_t first = pages.first - (pages.first - PagesOf(zone).first) % kGroupPages;
    const uint64_t count = std::min(pages.count, first + kGroupPages - pages.first);
    const absl::StatusOr<EditPage*> page = co_await edit->Get(first, PageKind::kGroup, Intent::kWrite);
    if (!page.ok()) co_return page.status();
    GroupEditor editor(*page);
    if (absl::Status s = editor.Check(first, zone); !s.ok()) co_return s;
    const PageSpan within{pages.first - first, count};
    uint64_t counted = 0;
    for (uint64_t i = within.first; i < within.first + count; ++i) {
      counted += zone != Zone::kMetadata || editor.IsMarked(static_cast<uint32_t>(i)) ? 1 : 0;
      if (i == 0 || !editor.IsUsed(static_cast<uint32_t>(i))) {
        co_return PosixError(EIO, absl::StrCat("page ", first + i, " of the fileset is to be freed, and is not used"));
      }
    }
    editor.Set(within, false, mark);
    const Counted kind = zone == Zone::kMetadata ? Counted::kInodes : Counted::kPages;
    const absl::Status credited = co_await Credit(edit, &editor, kind, counted);
    if (!credited.ok()) co_return credited;
    const uint64_t group = (first - PagesOf(zone).first) / kGroupPages;
    ZoneState& state = zones_[static_cast<size_t>(zone)];
    if (group < state.groups.size()) state.groups[group].full = false;
    pages = {pages.first + count, pages.count - count};
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove::fs
