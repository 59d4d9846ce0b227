// The check of a whole fileset: what is on its pages against itself. Others may use the fileset meanwhile, on any node.
//
//   K1  Every group's page, inode, tree's node and place is sound: its kind, its checksum, what it says of itself.
//   K2  A page is used if and only if exactly one thing has it: a group, an inode, a tree, an extent.
//   K3  Every name is an inode's, of its type; every inode has as many names as it has links; every directory has one name, is in the
//       directory that it says, and is found from the root; its links are 2 and its subdirectories.
//   K4  A file without names, and one that is being made shorter, is in the tree of orphans of the node's place that it names.
//   K5  An inode counts the pages of its extents, and those of its named streams; extents do not overlap.
//   K6  The quota counts what the groups have (Q1 of fs/quota.h). Looked at when all else is sound.
//   K7  A directory of named streams is the one that its owner names, a stream is in one, and nothing else is; both say whose they are.
//
//   K8  What is only being changed is no problem. A problem is what one edit sees, under its locks; or what was counted of a page that nobody
//       has changed since before the counting began (StateOf); or a page that nobody has taken since then (GroupView::IsTaken). What was
//       changed all the while is counted again, and at last not judged.
//   K9  An edit of the check reads the pages of one thing, so others wait for it no longer than for an operation of somebody else's.
//   K10 A repair is in the edit that sees the problem. Each is whole by itself, so whatever dies, the next check goes on. Pages are freed only
//       by a sweep that could read everything which may have them.
//
// It changes nothing but notes in the groups' pages; and with `repair` what it says.
//
// Memory: 2 KiB for each of at most CheckOptions::most_groups groups, and 64 bytes for each of at most most_inodes inodes at a time: 64 MiB. What
// has more takes more sweeps over its inodes.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fs/pages.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

// How far it is.
struct CheckProgress {
  std::string doing;
  uint64_t done = 0;
  uint64_t total = 0;
  bool is_cancelled = false;  // Set by whoever asked for it: the check ends, with Cancelled.
};

struct CheckOptions {
  bool repair = false;
  CheckProgress* progress = nullptr;  // Outlives the check.
  uint64_t most_groups = 16'384;      // 512 GiB.
  uint64_t most_inodes = 500'000;
  size_t records_at_once = 512;  // Of a tree, in one edit.
};

struct CheckReport {
  static constexpr size_t kMostProblems = 1'000;

  uint64_t groups = 0;
  uint64_t directories = 0;
  uint64_t files = 0;    // Regular ones.
  uint64_t streams = 0;  // Named ones.
  uint64_t others = 0;   // Symbolic links, fifos, sockets, devices.
  uint64_t orphans =
      0;  // Files that are there until nobody has them open, or until they are as short as they should be.
  uint64_t stale_orphans = 0;  // That a place still names, and that others have finished already.
  uint64_t metadata_pages = 0;
  uint64_t data_pages = 0;
  uint64_t unjudged = 0;  // Inodes that were being changed again and again.
  // A sentence each, with the page and the inode; the first kMostProblems. What was repaired is not among the problems.
  std::vector<std::string> problems;
  uint64_t unlisted_problems = 0;
  std::vector<std::string> repairs;
  uint64_t unlisted_repairs = 0;

  bool IsSound() const { return problems.empty(); }
};

// An error: pages could not be read. A fileset that is damaged is no error. EBUSY: another check of it has begun meanwhile.
Task<absl::StatusOr<CheckReport>> CheckFileset(Pages* pages, CheckOptions options = {});

}  // namespace mangrove::fs
