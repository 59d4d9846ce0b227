// The check as it goes (fs/check.h): sweep after sweep over the inodes of a fileset.
//
//   check.cc         what is done in which order; the first page
//   check_groups.cc  groups, who has which page of them, pages that nobody has
//   check_inodes.cc  what inodes have: extents, targets, attributes, nodes of trees; places
//   check_names.cc   entries, links, directories and their parents, orphans
//   check_streams.cc named streams and their owners
//   repair.cc        what is made anew, or put into lost+found
//
// Each sweep is over all inodes, and counts for a *window*: some groups, or some inodes (CheckOptions::most_groups, most_inodes).
//
// Owned by the loop.

#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fs/check.h"
#include "fs/check_tree.h"
#include "fs/directory.h"
#include "fs/edit.h"
#include "fs/inode.h"
#include "fs/space.h"
#include "fs/stream.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

class Checker {
 public:
  Checker(Pages* pages, CheckOptions options)
      : pages_(pages), options_(options), space_(pages), id_(pages->Random() | 1) {}

  Task<absl::StatusOr<CheckReport>> Run();

 private:
  struct Finding {
    std::string problem;
    std::string repair;  // What was done; empty: nothing.
  };
  struct Group {
    uint64_t first = 0;
    Zone zone = Zone::kMetadata;
  };
  // Of a group in the window.
  struct Bits {
    std::vector<bool> used;  // When the sweep began.
    std::vector<bool> claimed;
  };
  // An inode in the window: what it said before the sweep, and what was found since.
  struct Known {
    uint64_t number = 0;
    uint64_t state = 0;
    uint64_t parent = 0;
    uint64_t first_in = 0;  // Directories that have a name of it: the first and the last that were found.
    uint64_t last_in = 0;
    uint32_t links = 0;
    uint32_t names = 0;
    uint32_t subdirectories = 0;
    mode_t type = 0;  // 0: its page is damaged.
    bool is_shrinking = false;
    bool is_orphan = false;
    bool is_reached = false;
    bool is_stream = false;
    bool is_of_streams = false;  // Their directory.
    bool has_streams = false;
    uint8_t orphan_place = 0;  // And 1; 0: none.

    bool IsUnfinished() const { return links == 0 || is_shrinking || orphan_place != 0; }
  };
  // A directory, of the moment when its entries were read.
  struct Above {
    uint64_t number = 0;
    uint64_t parent = 0;
    bool is_of_streams = false;
  };
  // A page of a file that something else may have too.
  struct Owner {
    uint64_t inode = 0;
    uint64_t stream_page = 0;
  };
  // Part of an inode's content, of one moment.
  struct Part {
    bool is_inode = false;
    uint64_t state = 0;
    mode_t type = 0;
    uint64_t pages = 0;
    uint64_t size = 0;
    TreeStep main;
    TreeStep xattrs;
    std::vector<Extent> extents;
  };
  // Of an inode, through a sweep of it.
  struct Sum {
    uint64_t first_state = 0;
    uint64_t pages = 0;
    uint64_t bytes = 0;
    bool is_whole = true;  // Nothing was wrong.
    bool is_steady = true;
  };
  enum class Which { kMain, kXattrs };

  // --- check.cc
  Task<absl::Status> Sweep();
  Task<absl::StatusOr<bool>> CheckHead();
  Task<absl::Status> SweepWindows();
  Task<absl::Status> CheckLimits();
  Task<absl::Status> Pace();
  Task<absl::Status> ReadCounts(Edit* edit);
  void Doing(const char* what, uint64_t total);
  void Found(std::string problem, std::string repair = "") {
    found_.push_back({std::move(problem), std::move(repair)});
  }
  void Report();
  // An edit; what its body found is reported once it is committed.
  template <typename Body>
  Task<absl::Status> Look(Body& body) {
    const absl::Status paced = co_await Pace();
    if (!paced.ok()) co_return paced;
    auto all = [&](Edit& edit) -> Task<absl::Status> {
      found_.clear();
      return body(edit);
    };
    const absl::Status status = co_await RunEdit(pages_, all);
    if (status.ok()) Report();
    co_return status;
  }
  Intent intent() const { return options_.repair ? Intent::kWrite : Intent::kRead; }

  // --- check_groups.cc
  uint64_t Groups() const { return counts_[0] + counts_[1] + counts_[2]; }
  Group GroupAt(uint64_t i) const;
  static uint64_t FirstOf(uint64_t page) { return page - page % kGroupPages; }
  bool HasGroup(uint64_t page, bool data) const;
  Task<absl::Status> BeginGroup(Group group);
  Task<absl::StatusOr<std::vector<uint64_t>>> MarkedInodes(Group group);
  Task<absl::Status> RebuildGroup(Group group);
  Task<absl::StatusOr<bool>> IsUnmarkedInode(uint64_t page);
  enum class Claimed { kFine, kFree, kTwice };  // Free: when the sweep began.
  Claimed Claim(uint64_t page, bool data);
  Task<absl::Status> NoteDouble(uint64_t page);
  // Those that were free, or claimed before, are to be looked at again.
  struct Doubt {
    Claimed claimed = Claimed::kFine;
    uint64_t page = 0;
    Owner owner;
  };
  void ClaimExtent(uint64_t inode, Extent extent, std::vector<Doubt>* doubts);
  Task<absl::Status> ClaimAll(uint64_t number, const Part* part);
  Task<absl::Status> ClaimNode(uint64_t page, const std::string* whose);
  Task<absl::StatusOr<bool>> HasPage(Edit* edit, uint64_t page, Owner owner);
  Task<absl::Status> CheckIsUsed(uint64_t page, Owner owner);
  Task<absl::Status> CheckDoubles();
  Task<absl::Status> CheckDouble(uint64_t page, std::vector<Owner> owners);
  Task<absl::Status> CheckLeaks(Group group);
  Task<absl::Status> CheckUnclaimed(Edit* edit, EditPage* group, Zone zone, PageSpan pages);
  Task<absl::StatusOr<bool>> IsLost(Edit* edit, uint64_t page);

  // --- check_inodes.cc
  static bool IsType(mode_t type);
  Task<absl::Status> SweepInodes();
  Task<absl::Status> SweepInode(uint64_t number);
  Task<absl::Status> ReadPart(Edit* edit, uint64_t number, uint64_t from, bool is_first, Part* part);
  Task<absl::Status> ReadExtents(Edit* edit, Inode inode, uint64_t from, Part* part);
  Task<absl::Status> JudgeContent(uint64_t number, mode_t type, Sum* sum);
  void NoteDamagedInode(uint64_t number, const absl::Status& wrong);
  Task<absl::StatusOr<bool>> IsMarked(Edit* edit, uint64_t number);
  Task<absl::Status> SweepPlaces(bool for_names);
  Task<absl::Status> OnOrphan(uint64_t place, uint64_t number);

  // --- check_names.cc
  Task<absl::Status> CheckNames();
  Task<absl::Status> LoadInode(uint64_t number);
  Task<absl::Status> SweepNames(bool is_first);
  Task<absl::Status> SweepEntries(uint64_t directory, bool is_first);
  bool CountEntry(Above directory, const TreeRecord& record, bool is_first);
  Task<absl::Status> CheckEntry(uint64_t directory, uint64_t key);
  Task<absl::Status> CheckEntryIn(Edit* edit, Inode directory, TreeRecord record);
  Task<absl::Status> CheckNamed(Edit* edit, Inode directory, Directory::Entry entry);
  Task<absl::StatusOr<bool>> BelongsThere(Edit* edit, Inode directory, Inode inode, Directory::Entry entry);
  Known* Find(uint64_t number);
  static bool IsFine(const Known& known, uint64_t root);
  Task<absl::StatusOr<bool>> IsSoundDirectoryOfStreams(Known known);
  Task<absl::StatusOr<bool>> Judge(Known known);
  Task<absl::Status> JudgeFile(Edit* edit, Inode inode, const Known* known);
  Task<absl::Status> JudgeDirectory(Edit* edit, Inode inode, const Known* known);
  Task<absl::Status> JudgeOrphan(Edit* edit, Inode inode, const Known* known);
  Task<absl::StatusOr<bool>> IsOrphan(Edit* edit, Inode inode);
  Task<absl::Status> FreeDamagedInode(uint64_t number);
  Task<absl::Status> Reach(uint64_t number);
  Task<absl::Status> CheckCircle(uint64_t number);
  Task<absl::Status> DropSecondName(Known known);

  // --- check_streams.cc
  Task<absl::Status> CheckStreams(uint64_t owner);
  Task<absl::StatusOr<bool>> SumStreams(uint64_t owner, uint64_t* state, uint64_t* pages);
  Task<absl::Status> CheckStreamsDirectory(Edit* edit, Inode owner);
  Task<absl::StatusOr<bool>> IsNamedByOwner(Edit* edit, Inode streams);

  // --- repair.cc
  Task<absl::StatusOr<bool>> Rebuild(Edit* edit, Inode inode, Which which);
  Task<absl::Status> RepairTree(uint64_t number, Which which, std::vector<std::string> problems);
  Task<absl::Status> SetUsed(Edit* edit, uint64_t page);
  Task<absl::StatusOr<std::string>> PutIntoLostAndFound(Edit* edit, Inode inode);
  Task<absl::StatusOr<Inode>> GetLostAndFound(Edit* edit, std::string* called);
  Task<absl::StatusOr<uint64_t>> FindName(uint64_t directory, uint64_t inode);
  Task<absl::StatusOr<bool>> RemoveName(Edit* edit, uint64_t directory, uint64_t key, uint64_t inode);
  Task<absl::Status> GiveCopy(uint64_t page, Owner owner, std::string problem);

  Pages* const pages_;
  const CheckOptions options_;
  SpaceMap space_;
  const uint64_t id_;
  CheckReport report_;
  std::vector<Finding> found_;  // By the edit that is under way.

  uint64_t root_ = 0;
  std::array<uint64_t, kZones> counts_{};  // Of groups.
  std::map<uint64_t, Bits> bits_;  // Of the window's groups, by their first pages. Empty bits: its page is damaged.
  std::map<uint64_t, std::vector<Owner>> doubles_;  // Pages that more than one thing claims.
  bool collects_owners_ = false;
  bool is_first_window_ = true;
  std::vector<Known> inodes_;    // The window's, in their order.
  bool is_whole_window_ = true;  // And not only those that are counted again.
  uint64_t low_ = 0;             // The window: numbers from here on,
  uint64_t high_ = 0;            // to here, not included.
  bool is_lossy_ = false;        // No disk has some page: it may be there again one day, and then what it says counts.
  bool hides_pages_ = false;     // Something could not be read that may have pages. K10
  bool frees_ = false;           // A sweep of a repair that frees pages.
  bool changed_ = false;         // A repair was made.
  uint64_t edits_ = 0;
  int64_t paced_ns_ = 0;
};

}  // namespace mangrove::fs
