// The files that a mount has told the kernel of, by the numbers that it asks by.
//
//   M3  A number is one file's (FoundFile) for as long as the mount is there, and what the kernel has not forgotten has one number.
//
// So what the kernel found out about a file, above all whether a caller may do something, is never used for another file, which has got the
// page of that one. It is as large as the kernel's own table of these files. Owned by the loop.

#pragma once

#include <cstdint>
#include <utility>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "fs/attributes.h"

namespace mangrove::fs {

class KnownFiles {
 public:
  static constexpr uint64_t kRoot = 1;  // FUSE's; it needs no Tell.

  void SetRoot(InodeNumber root) { root_ = root; }
  // The file's number, which the kernel is told once more.
  uint64_t Tell(FoundFile file);
  // It has forgotten that it was told so many times; or it was not told after all. True: it does not know the file any more.
  bool Forget(uint64_t number, uint64_t times);
  // Those of all that have, or had, that inode.
  absl::InlinedVector<uint64_t, 2> NumbersOf(InodeNumber inode) const;
  // Of a number that the kernel was not told: nobody's.
  FoundFile Find(uint64_t number) const;
  size_t size() const { return files_.size(); }

 private:
  struct Known {
    FoundFile file;
    uint64_t told = 0;
  };

  InodeNumber root_;
  uint64_t last_ = kRoot;
  absl::flat_hash_map<uint64_t, Known> files_;
  absl::btree_map<std::pair<uint64_t, uint64_t>, uint64_t> numbers_;  // By inode and generation.
};

}  // namespace mangrove::fs
