#include "fs/mount/known_files.h"

namespace mangrove::fs {

uint64_t KnownFiles::Tell(FoundFile file) {
  if (file.inode == root_) return kRoot;
  uint64_t& number = numbers_[{file.inode.value, file.generation}];
  if (number == 0) number = ++last_;
  Known& known = files_[number];
  known.file = file;
  ++known.told;
  return number;
}

bool KnownFiles::Forget(uint64_t number, uint64_t times) {
  const auto it = files_.find(number);
  if (it == files_.end()) return false;
  if (it->second.told > times) {
    it->second.told -= times;
    return false;
  }
  const FoundFile file = it->second.file;
  numbers_.erase({file.inode.value, file.generation});
  files_.erase(it);
  return true;
}

absl::InlinedVector<uint64_t, 2> KnownFiles::NumbersOf(InodeNumber inode) const {
  absl::InlinedVector<uint64_t, 2> numbers;
  if (inode == root_) numbers.push_back(kRoot);
  for (auto it = numbers_.lower_bound({inode.value, 0}); it != numbers_.end() && it->first.first == inode.value; ++it) {
    numbers.push_back(it->second);
  }
  return numbers;
}

FoundFile KnownFiles::Find(uint64_t number) const {
  if (number == kRoot) return root_;
  const auto it = files_.find(number);
  return it == files_.end() ? FoundFile() : it->second.file;
}

}  // namespace mangrove::fs
