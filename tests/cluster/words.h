// Words of 8 bytes in regions, each by a call of its own.

#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/mangrove.h"

namespace mangrove::cluster_test {

inline absl::StatusOr<uint64_t> Word(Region& region, uint64_t offset) {
  uint64_t value = 0;
  const absl::Status read = region.Read(offset, std::as_writable_bytes(std::span(&value, 1)));
  if (!read.ok()) return read;
  return value;
}

inline absl::Status SetWord(Region& region, uint64_t offset, uint64_t value) {
  return region.Write(offset, std::as_bytes(std::span(&value, 1)));
}

}  // namespace mangrove::cluster_test
