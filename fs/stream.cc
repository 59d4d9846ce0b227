#include "fs/stream.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr uint64_t kMostStreamPages = uint64_t{1} << 51;  // Of a file of 2^63 bytes.
// Pages that are taken ahead of what is asked for, where a stream grows at its end: as many as it has, at most so many.
constexpr uint64_t kMostAhead = 64;
constexpr uint64_t kMostExtentPages = uint64_t{1} << 31;

std::string Encode(const Extent& extent) {
  std::string value(16, '\0');
  const std::span<char> bytes(value.data(), value.size());
  PutLittle(bytes, 0, extent.page);
  PutLittle(bytes, 8, static_cast<uint32_t>(extent.count));
  return value;
}

}  // namespace

absl::StatusOr<Extent> DecodeExtent(const TreeRecord& record) {
  const std::span<const char> bytes(record.value);
  if (bytes.size() == 16) {
    const Extent extent{record.key, GetLittle<uint64_t>(bytes, 0), GetLittle<uint32_t>(bytes, 8)};
    if (extent.page >= PagesOf(Zone::kData).first && extent.page < kRegionPages && extent.count > 0 &&
        extent.count <= kRegionPages - extent.page && record.key < kMostStreamPages &&
        extent.count <= kMostStreamPages - record.key) {
      return extent;
    }
  }
  return PosixError(EIO, absl::StrCat("the extent of page ", record.key, " of a stream is none"));
}

Task<absl::StatusOr<std::vector<Extent>>> Stream::Map(PageSpan pages) {
  const uint64_t end = pages.first + pages.count;
  std::vector<Extent> map;
  absl::StatusOr<std::optional<TreeRecord>> before = co_await tree_.Floor(pages.first);
  if (!before.ok()) co_return before.status();
  const uint64_t from = before->has_value() ? (*before)->key : pages.first;
  if (pages.count == 0) co_return map;
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree_.Scan(from, end - 1, kMostExtents);
  if (!records.ok()) co_return records.status();
  uint64_t at = pages.first;
  for (const TreeRecord& record : *records) {
    absl::StatusOr<Extent> extent = DecodeExtent(record);
    if (!extent.ok()) co_return extent.status();
    if (extent->end() <= at) continue;
    if (extent->stream_page > at) map.push_back({at, 0, extent->stream_page - at});
    const uint64_t skipped = extent->stream_page < at ? at - extent->stream_page : 0;
    const uint64_t stop = std::min(extent->end(), end);
    map.push_back({extent->stream_page + skipped, extent->page + skipped, stop - extent->stream_page - skipped});
    at = stop;
  }
  if (at < end && records->size() < kMostExtents) map.push_back({at, 0, end - at});
  co_return map;
}

Task<absl::Status> Stream::Put(Extent extent) { return tree_.Put(extent.stream_page, Encode(extent)); }

// One with the extent before it, where that ends where this one begins, in both.
Task<absl::Status> Stream::Add(Extent extent) {
  if (extent.stream_page > 0) {
    const absl::StatusOr<std::optional<TreeRecord>> before = co_await tree_.Floor(extent.stream_page - 1);
    if (!before.ok()) co_return before.status();
    if (before->has_value()) {
      absl::StatusOr<Extent> old = DecodeExtent(**before);
      if (!old.ok()) co_return old.status();
      if (old->end() > extent.stream_page) {
        co_return PosixError(EIO, absl::StrCat("extents of a stream overlap at its page ", extent.stream_page));
      }
      if (old->end() == extent.stream_page && old->page + old->count == extent.page &&
          old->count + extent.count <= kMostExtentPages) {
        old->count += extent.count;
        co_return co_await Put(*old);
      }
    }
  }
  co_return co_await Put(extent);
}

// I4
Task<absl::Status> Stream::Count(int64_t pages) {
  inode_.set_pages(inode_.pages() + static_cast<uint64_t>(pages));
  if (!inode_.Has(Inode::kStream) || inode_.parent() == InodeNumber{}) co_return absl::OkStatus();
  absl::StatusOr<Inode> owner = co_await Inode::Get(edit_, inode_.parent(), Intent::kWrite);
  if (owner.ok()) owner->set_stream_pages(owner->stream_pages() + static_cast<uint64_t>(pages));
  co_return owner.status();
}

// How many pages of the hole, from its beginning on, are none any more. The last `ahead` ones nobody has asked for.
Task<absl::StatusOr<uint64_t>> Stream::FillHole(Extent hole, uint64_t ahead) {
  uint64_t goal = 0;
  if (hole.stream_page > 0) {
    const absl::StatusOr<std::optional<TreeRecord>> before = co_await tree_.Floor(hole.stream_page - 1);
    if (!before.ok()) co_return before.status();
    if (before->has_value()) {
      const absl::StatusOr<Extent> old = DecodeExtent(**before);
      if (!old.ok()) co_return old.status();
      goal = old->page + old->count;
    }
  }
  const SpaceMap::Wanted wanted{hole.count, ahead};
  const Zone zone = inode_.Has(Inode::kOneCopy) ? Zone::kSingleCopy : Zone::kData;
  const absl::StatusOr<PageSpan> taken = co_await space_->TakeData(edit_, zone, wanted, goal);
  if (!taken.ok()) co_return taken.status();
  absl::Status status = co_await Add({hole.stream_page, taken->first, taken->count});
  if (status.ok()) status = co_await Count(static_cast<int64_t>(taken->count));
  if (!status.ok()) co_return status;
  co_return taken->count;
}

Task<absl::StatusOr<std::vector<Extent>>> Stream::Fill(PageSpan pages) {
  for (;;) {
    absl::StatusOr<std::vector<Extent>> map = co_await Map(pages);
    if (!map.ok()) co_return map;
    const auto hole = std::find_if(map->begin(), map->end(), [](const Extent& extent) { return extent.IsHole(); });
    if (hole == map->end()) co_return map;
    Extent wanted = *hole;
    uint64_t ahead = 0;
    const bool is_last = wanted.end() == pages.first + pages.count;
    const bool is_end = is_last && wanted.end() * kPageSize >= inode_.size();
    if (is_end && wanted.stream_page > 0) {
      // Behind it may be pages already.
      const uint64_t most = std::min({inode_.pages(), kMostAhead, kMostStreamPages - wanted.end()});
      const absl::StatusOr<std::vector<Extent>> behind = co_await Map({wanted.end(), most});
      if (!behind.ok()) co_return behind.status();
      if (!behind->empty() && behind->front().IsHole()) ahead = behind->front().count;
      wanted.count += ahead;
    }
    const absl::StatusOr<uint64_t> filled = co_await FillHole(wanted, ahead);
    if (!filled.ok()) co_return filled.status();
  }
}

Task<absl::StatusOr<bool>> Stream::Punch(PageSpan pages) {
  const uint64_t end = pages.first + pages.count;
  // Of those that lie in it in part, the rest stays.
  absl::StatusOr<std::optional<TreeRecord>> before = co_await tree_.Floor(pages.first);
  if (!before.ok()) co_return before.status();
  const uint64_t from = before->has_value() ? (*before)->key : pages.first;
  if (pages.count == 0) co_return true;
  const absl::StatusOr<std::vector<TreeRecord>> records = co_await tree_.Scan(from, end - 1, kMostExtents);
  if (!records.ok()) co_return records.status();
  int64_t punched = 0;
  for (const TreeRecord& record : *records) {
    const absl::StatusOr<Extent> extent = DecodeExtent(record);
    if (!extent.ok()) co_return extent.status();
    const uint64_t first = std::max(extent->stream_page, pages.first);
    const uint64_t stop = std::min(extent->end(), end);
    if (first >= stop) continue;
    absl::Status status;
    if (first == extent->stream_page) {
      status = co_await tree_.Erase(extent->stream_page);
    } else {
      status = co_await Put({extent->stream_page, extent->page, first - extent->stream_page});
    }
    if (status.ok() && stop < extent->end()) {
      status = co_await Put({stop, extent->page + (stop - extent->stream_page), extent->end() - stop});
    }
    if (status.ok()) {
      status = co_await space_->GiveBackData(edit_, {extent->page + (first - extent->stream_page), stop - first});
    }
    if (!status.ok()) co_return status;
    punched += static_cast<int64_t>(stop - first);
  }
  const bool is_all = records->size() < kMostExtents;
  if (punched == 0) co_return is_all;
  const absl::Status counted = co_await Count(-punched);
  if (!counted.ok()) co_return counted;
  co_return is_all;
}

}  // namespace mangrove::fs
