// Which pages of a fileset's region are used, and for what.
//
// The region is cut into zones: one for what describes the fileset itself, one for metadata, one for data, one for data of which
// there is one copy only. Zones are cut into groups of kGroupPages, which get storage from the engine when they are first used; the
// first page of a group, which is of metadata, says which of its pages are used. It changes in the transaction that begins or ends a page's
// use, so no page is lost or used twice, whatever dies.
//
//   S1  A page of metadata never becomes one of data, nor the other way round: what the engine's log has of a page is of transactions.
//   S2  A free page of data that is not marked holds zeros, on its disks too. A marked one holds what somebody wrote once; it is filled with
//       zeros, and flushed, before it is used again. So nobody reads what was in a file that is gone, whatever dies. What a node wrote to
//       pages before it was lost, and with it the transaction that took them, lies in its own groups: all free pages of these are
//       marked when it comes back, or when another node takes pages from them.
//   S3  A node takes pages from groups of its own as long as it can, so that nodes do not wait for each other's groups.
//
// Owned by the loop.

#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/edit.h"
#include "fs/pages.h"
#include "fs/tree.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

enum class Zone : uint8_t { kMetadata = 0, kData = 1, kSingleCopy = 2 };
constexpr size_t kZones = 3;

constexpr uint64_t kGroupPages = 8192;  // 32 MiB.
// 8 TiB.
constexpr uint64_t kRegionPages = uint64_t{1} << 31;
// The first page of all is the fileset's; behind it are the nodes' places.
constexpr uint64_t kFilesetPage = 0;
constexpr uint64_t kFirstPlacePage = 1;
constexpr uint64_t kHeadPages = kFirstPlacePage + kNodePlaces;

constexpr PageSpan PagesOf(Zone zone) {
  constexpr uint64_t kHalf = kRegionPages / 2;
  switch (zone) {
    case Zone::kMetadata: return {kGroupPages, kHalf - kGroupPages};
    case Zone::kData: return {kHalf, kHalf / 2};
    case Zone::kSingleCopy: return {kHalf + kHalf / 2, kHalf / 2};
  }
  return {};
}

// ENOSPC: the page is not to be written for the first time, Pages::HasRoom.
absl::Status DiskFull(uint64_t page);

class SpaceMap final : public MetadataPages {
 public:
  // `pages` outlives it.
  explicit SpaceMap(Pages* pages) : pages_(pages) {}

  // Of metadata. An inode's page is marked, so that a check finds all inodes.
  Task<absl::StatusOr<uint64_t>> Take(Edit* edit) override { return TakeOne(edit, false); }
  Task<absl::StatusOr<uint64_t>> TakeInode(Edit* edit) { return TakeOne(edit, true); }
  Task<absl::Status> GiveBack(Edit* edit, uint64_t page) override { return Free(edit, {page, 1}, false); }

  struct Wanted {
    uint64_t count = 1;
    uint64_t ahead = 0;  // So many of them only because they will be wanted soon: not where there is a quota.
  };
  // 1 page to those that are wanted, of data, side by side, all zeros; from page `goal` on if these are free. ENOSPC: there is no room.
  // EDQUOT: fs/quota.h.
  Task<absl::StatusOr<PageSpan>> TakeData(Edit* edit, Zone zone, Wanted wanted, uint64_t goal);
  // This node was lost, and is here again: S2.
  Task<absl::Status> MarkOwnGroups();
  Task<absl::Status> GiveBackData(Edit* edit, PageSpan pages) { return Free(edit, pages, true); }

 private:
  struct Known {
    bool full = false;    // When it was last looked at.
    bool others = false;  // Another node takes pages from it.
  };
  struct ZoneState {
    std::vector<Known> groups;
    uint64_t current = 0;
  };
  struct Choice {
    Zone zone;
    uint64_t want = 1;
    uint64_t ahead = 0;
    uint64_t goal = 0;
    bool mark = false;
  };

  Task<absl::StatusOr<uint64_t>> TakeOne(Edit* edit, bool is_inode);
  Task<absl::StatusOr<PageSpan>> TakeFrom(Edit* edit, Choice choice, uint64_t group);
  Task<absl::StatusOr<PageSpan>> TakeAnywhere(Edit* edit, Choice choice);
  void NoteGroups(Edit* edit, Zone zone, uint64_t count);
  struct AddedGroup {
    uint64_t number = 0;
    bool is_new = false;  // False: others have added it.
  };
  Task<absl::StatusOr<AddedGroup>> AddGroup(Edit* edit, Zone zone);
  Task<absl::Status> Clean(Edit* edit, EditPage* group, uint64_t want);
  Task<absl::Status> Free(Edit* edit, PageSpan pages, bool mark);

  Pages* const pages_;
  std::array<ZoneState, kZones> zones_;
};

}  // namespace mangrove::fs
