#include "net/runtime/system_entropy.h"

#include <sys/random.h>

#include <utility>

#include "net/check.h"

namespace mangrove {

uint64_t SystemEntropy::Next() {
  if (used_ == block_.size()) {
    // Up to 256 bytes come whole and without interruption, see getrandom(2).
    static_assert(sizeof(block_) <= 256);
    CHECK(getrandom(block_.data(), sizeof(block_), 0) == static_cast<ssize_t>(sizeof(block_)));
    used_ = 0;
  }
  // What was handed out may have become a key: it does not stay here.
  return std::exchange(block_[used_++], 0);
}

}  // namespace mangrove
