// Locks side by side: which are in each other's way, and what becomes of an owner's when it sets another one.
//
//   L1  No two locks of different owners conflict: of one file and kind, with a byte of both, and one of them exclusive.
//   L2  An owner has each byte of a file at most once, and its neighbours that are alike are one.

#pragma once

#include <cstddef>
#include <functional>
#include <utility>
#include <vector>

#include "fs/locks/file_lock.h"

namespace mangrove::fs {

class LockList {
 public:
  LockList() = default;
  explicit LockList(std::vector<FileLock> locks) : locks_(std::move(locks)) {}

  // One of another owner's that conflicts with it. Null: there is none.
  const FileLock* FindConflict(const FileLock& wanted) const;
  // All owners' that do.
  std::vector<LockOwner> OwnersInTheWay(const FileLock& wanted) const;
  // L2. REQUIRES: nothing conflicts with it.
  void Set(const FileLock& lock);
  // Of this owner, file and kind, from `range.first` to `range.last`. False: there was nothing.
  bool Clear(const FileLock& range);
  bool EraseIf(const std::function<bool(const FileLock&)>& is);
  void Add(const FileLock& lock) { locks_.push_back(lock); }

  const std::vector<FileLock>& locks() const { return locks_; }
  bool empty() const { return locks_.empty(); }
  size_t size() const { return locks_.size(); }

 private:
  std::vector<FileLock> locks_;
};

}  // namespace mangrove::fs
