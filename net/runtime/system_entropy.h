// The real door to chance: the kernel's generator.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "net/runtime/entropy.h"

namespace mangrove {

// Thread-compatible. Reads the kernel's generator in blocks; ends the process if the kernel has none.
class SystemEntropy final : public Entropy {
 public:
  uint64_t Next() override;

 private:
  std::array<uint64_t, 32> block_{};
  size_t used_ = 32;  // Of `block_`.
};

}  // namespace mangrove
