// The check of a whole fileset: what is on its pages against itself.
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
// REQUIRES: nobody changes the fileset meanwhile; otherwise it finds what is not so. It changes nothing.
//
// Memory: a bit for each page of the groups, and about a hundred bytes for each inode.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "fs/pages.h"
#include "net/runtime/task.h"

namespace mangrove::fs {

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
  // A sentence each, with the page and the inode; the first kMostProblems.
  std::vector<std::string> problems;
  uint64_t unlisted_problems = 0;

  bool IsSound() const { return problems.empty(); }
};

// An error: pages could not be read. A fileset that is damaged is no error.
Task<absl::StatusOr<CheckReport>> CheckFileset(Pages* pages);

}  // namespace mangrove::fs
