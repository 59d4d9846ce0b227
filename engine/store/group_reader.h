// Reads the groups of a segment, without the pages' data where that is not asked for.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/store/log_group.h"
#include "engine/store/log_segment.h"

namespace mangrove::store {

struct FoundGroup {
  GroupHeader header;
  std::optional<std::vector<IndexChange>> changes;  // Empty: its entries are not sound, or it reaches beyond the file.
};

// Owned by one thread. Reads ahead, so groups that follow each other come in few reads.
class GroupReader {
 public:
  // REQUIRES: `file` outlives the reader, and is not written before Forget.
  GroupReader(const LogSegment* file, uint64_t segment, uint64_t salt) : file_(file), segment_(segment), salt_(salt) {}

  // The group that begins at `block`; empty: none does. DataLoss: the disk cannot read it.
  absl::StatusOr<std::optional<FoundGroup>> At(uint64_t block);
  // The highest number of a group that begins at `block` or behind it; 0 if there is none.
  absl::StatusOr<uint64_t> HighestFrom(uint64_t block);
  // The whole group: sound, with its data? `changes`: those of At(block).
  absl::StatusOr<bool> IsSound(uint64_t block, const FoundGroup& group);
  // Of the group that IsSound read last.
  std::span<const char> bytes() const { return bytes_; }

 private:
  // `blocks` of them from `block`, of which the file has fewer perhaps.
  absl::StatusOr<std::span<const char>> Take(uint64_t block, uint64_t blocks);

  const LogSegment* const file_;
  const uint64_t segment_;
  const uint64_t salt_;
  LogBuffer buffer_;
  std::span<char> bytes_;  // Of buffer_.
  uint64_t begin_ = 0;     // The block that they begin with.
};

}  // namespace mangrove::store
