// The simulator's chance: one seed, one stream for each purpose.
//
// Streams are forked by name, so that one more draw in one part leaves the draws of all other parts as they were. Integers
// only: the same seed gives the same run on every machine.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "net/check.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"

namespace mangrove::sim {

constexpr uint64_t Mix(uint64_t x) {  // The finalizer of splitmix64.
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

class SimRandom {
 public:
  explicit SimRandom(uint64_t seed) : state_(seed) {}

  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15u); }

  // 0 to n - 1. REQUIRES: n > 0. The bias below 2^32 is of no matter here.
  uint64_t Below(uint64_t n) {
    CHECK(n > 0);
    return Next() % n;
  }
  // `low` to `high`, both included. REQUIRES: low <= high.
  int64_t Between(int64_t low, int64_t high) {
    CHECK(low <= high);
    return low + static_cast<int64_t>(Below(static_cast<uint64_t>(high - low) + 1));
  }
  bool PerMille(uint64_t chance) { return Below(1000) < chance; }
  // Every doubling between `low` and `high` is as likely as every other. REQUIRES: 0 < low <= high.
  int64_t Spread(int64_t low, int64_t high) {
    CHECK(0 < low && low <= high);
    int doublings = 0;
    while ((low << (doublings + 1)) <= high && doublings < 40) ++doublings;
    const int64_t base = low << Below(static_cast<uint64_t>(doublings) + 1);
    return std::min(high, base + static_cast<int64_t>(Below(static_cast<uint64_t>(base))));
  }

  // A stream of its own. The parent's stream does not move.
  SimRandom Fork(std::string_view purpose, uint64_t index = 0) const {
    uint64_t h = 0xcbf29ce484222325u ^ state_;
    for (const char c : purpose) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return SimRandom(Mix(h + Mix(index + 1)));
  }

 private:
  uint64_t state_;
};

class SimEntropy final : public Entropy {
 public:
  explicit SimEntropy(SimRandom random) : random_(random) {}
  uint64_t Next() override { return random_.Next(); }

 private:
  SimRandom random_;
};

}  // namespace mangrove::sim
