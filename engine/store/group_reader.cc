#include "engine/store/group_reader.h"

#include <algorithm>

namespace mangrove::store {
namespace {

// Of one read, at least; about what the disk reads in the time that asking takes.
constexpr uint64_t kReadBlocks = 64;

}  // namespace

absl::StatusOr<std::span<const char>> GroupReader::Take(uint64_t block, uint64_t blocks) {
  const uint64_t there = file_->size_blocks() - std::min(file_->size_blocks(), block);
  const uint64_t wanted = std::min(blocks, there);
  if (block < begin_ || (block - begin_ + wanted) * kBlockBytes > bytes_.size()) {
    bytes_ = buffer_.Reserve(std::min(std::max(blocks, kReadBlocks), there) * kBlockBytes);
    begin_ = block;
    if (absl::Status status = file_->Read(block * kBlockBytes, bytes_); !status.ok()) {
      bytes_ = {};
      return status;
    }
  }
  return std::span<const char>(bytes_).subspan((block - begin_) * kBlockBytes, wanted * kBlockBytes);
}

absl::StatusOr<std::optional<FoundGroup>> GroupReader::At(uint64_t block) {
  auto bytes = Take(block, 1);
  if (!bytes.ok()) return bytes.status();
  const auto header = DecodeGroupHeader({bytes->data(), bytes->size()}, salt_);
  if (!header.has_value()) return std::nullopt;
  FoundGroup group{.header = *header, .changes = std::nullopt};
  if (block + header->blocks() > file_->size_blocks()) return group;
  bytes = Take(block, header->entry_blocks);
  if (!bytes.ok()) return bytes.status();
  group.changes = DecodeGroupEntries({bytes->data(), bytes->size()}, salt_, {segment_, block});
  return group;
}

absl::StatusOr<uint64_t> GroupReader::HighestFrom(uint64_t block) {
  uint64_t highest = 0;
  for (; block < file_->size_blocks(); ++block) {
    const auto bytes = Take(block, 1);
    if (!bytes.ok()) return bytes.status();
    const auto header = DecodeGroupHeader({bytes->data(), bytes->size()}, salt_);
    if (header.has_value()) highest = std::max(highest, header->number);
  }
  return highest;
}

absl::StatusOr<bool> GroupReader::IsSound(uint64_t block, const FoundGroup& group) {
  if (!group.changes.has_value()) return false;
  bytes_ = {};
  const auto bytes = Take(block, group.header.blocks());
  if (!bytes.ok()) return bytes.status();
  bytes_ = bytes_.first(bytes->size());
  for (const IndexChange& change : *group.changes) {
    for (const PageEntry& entry : change.put_pages) {
      if (DataSum(bytes->data() + (entry.place.block - block) * kBlockBytes) != entry.data_sum) return false;
    }
  }
  return true;
}

}  // namespace mangrove::store
