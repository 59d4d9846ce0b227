#include "fs/locks/lock_list.h"

#include <algorithm>

namespace mangrove::fs {
namespace {

bool Conflict(const FileLock& a, const FileLock& b) {
  return a.IsOfSame(b) && a.owner != b.owner && (a.exclusive || b.exclusive) && a.Overlaps(b);
}

// Side by side, or with bytes of both.
bool Touch(const FileLock& a, const FileLock& b) {
  return (a.first == 0 || a.first - 1 <= b.last) && (b.first == 0 || b.first - 1 <= a.last);
}

}  // namespace

const FileLock* LockList::FindConflict(const FileLock& wanted) const {
  const auto it = std::find_if(locks_.begin(), locks_.end(), [&](const FileLock& l) { return Conflict(l, wanted); });
  return it == locks_.end() ? nullptr : &*it;
}

std::vector<LockOwner> LockList::OwnersInTheWay(const FileLock& wanted) const {
  std::vector<LockOwner> owners;
  for (const FileLock& lock : locks_) {
    if (Conflict(lock, wanted)) owners.push_back(lock.owner);
  }
  return owners;
}

void LockList::Set(const FileLock& lock) {
  Clear(lock);
  FileLock whole = lock;
  std::erase_if(locks_, [&](const FileLock& other) {
    const bool is_alike = other.IsOfSame(lock) && other.owner == lock.owner && other.exclusive == lock.exclusive;
    if (!is_alike || !Touch(other, lock)) return false;
    whole.first = std::min(whole.first, other.first);
    whole.last = std::max(whole.last, other.last);
    return true;
  });
  locks_.push_back(whole);
}

bool LockList::Clear(const FileLock& range) {
  std::vector<FileLock> rests;
  const auto is_cut = [&](const FileLock& lock) {
    if (!lock.IsOfSame(range) || lock.owner != range.owner || !lock.Overlaps(range)) return false;
    if (lock.first < range.first) {
      rests.push_back(lock);
      rests.back().last = range.first - 1;
    }
    if (lock.last > range.last) {
      rests.push_back(lock);
      rests.back().first = range.last + 1;
    }
    return true;
  };
  const bool was_there = std::erase_if(locks_, is_cut) > 0;
  locks_.insert(locks_.end(), rests.begin(), rests.end());
  return was_there;
}

bool LockList::EraseIf(const std::function<bool(const FileLock&)>& is) { return std::erase_if(locks_, is) > 0; }

}  // namespace mangrove::fs
