// The door to chance.

#pragma once

#include <cstdint>

namespace mangrove {

class Entropy {
 public:
  virtual ~Entropy() = default;
  // 64 uniformly distributed bits. The real one is fit for keys; the simulator's is seeded.
  virtual uint64_t Next() = 0;
};

}  // namespace mangrove
