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

void KnownFiles::Forget(uint64_t number, uint64_t times) {
  const auto it = files_.find(number);
  if (it == files_.end()) return;
  if (it->second.told > times) {
    it->second.told -= times;
    return;
  }
  const FoundFile file = it->second.file;
  numbers_.erase({file.inode.value, file.generation});
  files_.erase(it);
}

FoundFile KnownFiles::Find(uint64_t number) const {
  if (number == kRoot) return root_;
  const auto it = files_.find(number);
  return it == files_.end() ? FoundFile() : it->second.file;
}

}  // namespace mangrove::fs
