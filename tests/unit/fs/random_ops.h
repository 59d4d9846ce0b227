// Random operations, in a small space of names and sizes so that they meet.

#pragma once

#include <cstdint>
#include <random>
#include <string>

#include "tests/unit/fs/history.h"

namespace mangrove::fs {

class RandomOps {
 public:
  explicit RandomOps(uint64_t seed) : random_(seed) {}

  // For what there is now.
  Op Next(History& history);
  uint64_t Below(uint64_t bound) { return random_() % bound; }

 private:
  bool OneIn(uint64_t n) { return Below(n) == 0; }
  FileId AnyFile(History& history, mode_t type);
  FileId AnyDirectory(History& history);
  std::string AnyName();
  std::string AnyEntry(History& history, FileId directory);
  std::string AnyBytes();
  uint64_t AnyPlace();
  void OfName(History& history, Op* op);
  void OfMaking(Op* op);
  void OfRename(History& history, Op* op);
  void OfAttributes(Op* op);
  void OfXattr(Op* op);
  void OfData(History& history, Op* op);

  std::mt19937_64 random_;
};

// An ACL's bytes; `mask` below 0: without a mask and named users.
std::string AclOf(int user, int group, int other, int mask);

}  // namespace mangrove::fs
