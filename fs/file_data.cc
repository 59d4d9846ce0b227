// Bytes of regular files. Data goes straight to its pages, while the inode is locked: so a write is atomic for readers and writers of every
// node, and nobody gives a page away that somebody is writing to.

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {
namespace {

constexpr int64_t kDayNs = int64_t{24} * 3600 * 1'000'000'000;

PageSpan PagesOfBytes(uint64_t offset, uint64_t length) {
  const uint64_t first = offset / kPageSize;
  return {first, (offset + length - 1) / kPageSize + 1 - first};
}

absl::Status CheckRegular(const Inode& inode) {
  if (inode.IsDirectory()) return PosixError(EISDIR, "a directory has no bytes");
  return inode.IsRegular() ? absl::OkStatus() : PosixError(EINVAL, "only a regular file has bytes here");
}

// As mounts with relatime do it: not more often than somebody could notice.
bool WantsAccessTime(const Inode& inode, int64_t now) {
  return inode.accessed() <= inode.modified() || inode.accessed() <= inode.changed() || inode.accessed() + kDayNs < now;
}

mode_t WithoutSetId(mode_t mode) {
  const bool is_for_locks = (mode & S_IXGRP) == 0;  // What the bit means without the group's right to execute.
  return mode & ~static_cast<mode_t>(S_ISUID | (is_for_locks ? 0 : S_ISGID));
}

}  // namespace

// As many as `bytes` has, which are zeros. REQUIRES: the file has them.
Task<absl::Status> Instance::ReadBytes(Edit* edit, Inode inode, uint64_t offset, std::string* bytes) {
  Stream stream(edit, &space_, inode);
  uint64_t at = offset;
  while (at < offset + bytes->size()) {
    const absl::StatusOr<std::vector<Extent>> map = co_await stream.Map(PagesOfBytes(at, offset + bytes->size() - at));
    if (!map.ok()) co_return map.status();
    for (const Extent& extent : *map) {
      const uint64_t end = std::min(extent.end() * kPageSize, offset + bytes->size());
      const std::span<std::byte> out = std::as_writable_bytes(std::span(*bytes)).subspan(at - offset, end - at);
      if (!extent.IsHole()) {
        const absl::Status status =
            co_await pages_->ReadData(extent.page * kPageSize + (at - extent.stream_page * kPageSize), out);
        if (!status.ok()) co_return status;
      }
      at = end;
    }
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<std::string>> Instance::ReadAt(FoundFile file, uint64_t offset, uint64_t length, bool* wants_time) {
  std::string bytes;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    bytes.clear();
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    if (absl::Status s = CheckRegular(*inode); !s.ok()) co_return s;
    *wants_time = WantsAccessTime(*inode, pages_->NowNs());
    if (offset >= inode->size() || length == 0) co_return absl::OkStatus();
    bytes.resize(std::min(length, inode->size() - offset));
    co_return co_await ReadBytes(&edit, *inode, offset, &bytes);
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok()) co_return status;
  co_return bytes;
}

Task<absl::StatusOr<std::string>> Instance::ReadUnnoticed(FoundFile file, uint64_t offset, uint64_t length) {
  bool wants_time = false;
  co_return co_await ReadAt(file, offset, length, &wants_time);
}

Task<absl::StatusOr<std::string>> Instance::Read(FoundFile file, uint64_t offset, uint64_t length) {
  bool wants_time = false;
  absl::StatusOr<std::string> bytes = co_await ReadAt(file, offset, length, &wants_time);
  if (bytes.ok() && wants_time) {
    auto touch = [&](Edit& edit) -> Task<absl::Status> {
      absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
      if (inode.ok()) inode->set_accessed(pages_->NowNs());
      co_return inode.status();
    };
    (co_await RunEdit(pages_, touch)).IgnoreError();  // The bytes have been read.
  }
  co_return bytes;
}

// ENOSPC: some of these pages were taken ahead and are zeros yet, and the disks have no room for what would be written to them.
Task<absl::Status> Instance::CheckRoom(const std::vector<Extent>* map, PageSpan pages) {
  for (const Extent& extent : *map) {
    const uint64_t begin = std::max(pages.first, extent.stream_page);
    const uint64_t end = std::min(pages.first + pages.count, extent.end());
    PageSpan rest{extent.page + (begin - extent.stream_page), end - begin};
    for (uint64_t seen = pages_->RoomFrom(rest); seen < rest.count; seen = pages_->RoomFrom(rest)) {
      rest = {rest.first + seen, rest.count - seen};
      const PageSpan full{rest.first, std::min(rest.count, kPagesOfDisks - rest.first % kPagesOfDisks)};
      std::string bytes(full.count * kPageSize, '\0');
      const absl::Status status =
          co_await pages_->ReadData(full.first * kPageSize, std::as_writable_bytes(std::span(bytes)));
      if (!status.ok()) co_return status;
      for (uint64_t at = 0; at < bytes.size(); at += kPageSize) {
        if (IsZeros(std::string_view(bytes).substr(at, kPageSize))) co_return DiskFull(full.first + at / kPageSize);
      }
      rest = {rest.first + full.count, rest.count - full.count};
    }
  }
  co_return absl::OkStatus();
}

// Where the file has no pages yet they come first, by themselves, as zeros: an edit that takes pages and is aborted must not have written to
// them (S2); `took` says so, to the next call for the same bytes. True: nothing is in the way of writing them.
Task<absl::StatusOr<bool>> Instance::MakeRoom(Edit* edit, Inode inode, uint64_t from, uint64_t length, bool* took) {
  Stream stream(edit, &space_, inode);
  const PageSpan pages = PagesOfBytes(from, length);
  const absl::StatusOr<std::vector<Extent>> map = co_await stream.Map(pages);
  if (!map.ok()) co_return map.status();
  const bool has_holes = std::any_of(map->begin(), map->end(), [](const Extent& extent) { return extent.IsHole(); });
  if (!has_holes) {
    if (*took) co_return true;
    const absl::Status has_room = co_await CheckRoom(&*map, pages);
    if (!has_room.ok()) co_return has_room;
    co_return true;
  }
  const absl::Status filled = (co_await stream.Fill(pages)).status();
  if (!filled.ok()) co_return filled;
  *took = true;
  co_return false;
}

Task<absl::Status> Instance::WriteBytes(Edit* edit, Inode inode, uint64_t from, const std::string* bytes,
                                        bool clears_set_id) {
  absl::Status status;
  if (from + bytes->size() > inode.size()) status = co_await ClearBehindEnd(edit, inode, from);
  if (!status.ok()) co_return status;
  Stream stream(edit, &space_, inode);
  const PageSpan written = PagesOfBytes(from, bytes->size());
  const absl::StatusOr<std::vector<Extent>> map = co_await stream.Map(written);
  if (!map.ok()) co_return map.status();
  uint64_t at = from;
  for (const Extent& extent : *map) {
    const uint64_t end = std::min(extent.end() * kPageSize, from + bytes->size());
    status = co_await edit->WriteData(extent.page * kPageSize + (at - extent.stream_page * kPageSize),
                                      std::as_bytes(std::span(*bytes)).subspan(at - from, end - at));
    if (!status.ok()) co_return status;
    at = end;
  }
  if (at > inode.size()) inode.set_size(at);
  if (IsSynced(inode)) inode.set_dirty({});
  inode.AddDirty(written);
  if (clears_set_id) inode.set_mode(WithoutSetId(inode.mode()));
  Touch(&inode);
  // A program's capabilities are those of its bytes.
  if (Tree(edit, &space_, inode.xattr_root()).IsEmpty()) co_return absl::OkStatus();
  co_return (co_await EraseXattr(edit, inode, "security.capability")).status();
}

Task<absl::Status> Instance::Write(FoundFile file, uint64_t offset, std::string bytes, WriteOptions options) {
  if (bytes.empty()) co_return absl::OkStatus();
  if (PagesOfBytes(offset, bytes.size()).count > Stream::kMostPages) {
    co_return PosixError(EINVAL, absl::StrCat("a write of ", bytes.size(), " bytes at once"));
  }
  bool must_finish_first = false;
  bool took_pages = false;
  bool is_done = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    is_done = false;
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    if (absl::Status s = CheckRegular(*inode); !s.ok()) co_return s;
    must_finish_first = inode->Has(Inode::kShrinking);
    if (must_finish_first) co_return absl::OkStatus();
    const uint64_t from = options.append ? inode->size() : offset;
    if (from > kMostFileBytes || bytes.size() > kMostFileBytes - from) {
      co_return PosixError(EFBIG, absl::StrCat("a file of more than ", kMostFileBytes, " bytes"));
    }
    const absl::StatusOr<bool> has_room = co_await MakeRoom(&edit, *inode, from, bytes.size(), &took_pages);
    if (!has_room.ok()) co_return has_room.status();
    if (!*has_room) co_return absl::OkStatus();
    is_done = true;
    co_return co_await WriteBytes(&edit, *inode, from, &bytes, options.clears_set_id);
  };
  while (!is_done) {
    absl::Status status = co_await RunEdit(pages_, body);
    if (status.ok() && must_finish_first) status = co_await FinishRemoval(file.inode);
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

bool Instance::IsSynced(const Inode& inode) const {
  const auto it = synced_.find(inode.number());
  return it != synced_.end() && it->second.generation == inode.attributes().generation &&
         it->second.writes == inode.writes();
}

void Instance::NoteSynced(InodeNumber inode, Synced synced) {
  constexpr size_t kMostSynced = 4096;
  if (synced_.size() >= kMostSynced) synced_.clear();  // Then some pages are flushed once more than they need to be.
  synced_[inode] = synced;
}

// With its named streams.
Task<absl::Status> Instance::Sync(FoundFile file) {
  std::vector<InodeNumber> streams;
  auto list = [&](Edit& edit) -> Task<absl::Status> {
    streams.clear();
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    const absl::StatusOr<std::vector<Directory::Entry>> entries = co_await StreamsOf(&edit, *inode);
    if (!entries.ok()) co_return entries.status();
    for (const Directory::Entry& entry : *entries) streams.push_back(entry.inode);
    co_return absl::OkStatus();
  };
  absl::Status status = co_await RunEdit(pages_, list);
  for (const InodeNumber stream : streams) {
    if (status.ok()) status = co_await SyncOne(stream);
    if (ErrnoOf(status) == ESTALE) status = absl::OkStatus();  // It has been removed.
  }
  if (!status.ok()) co_return status;
  co_return co_await SyncOne(file);
}

// What was written while it is under way may be left to the next one. Where it was little the inode is left as it is: another record in
// the log would be in the way of the next sync.
Task<absl::Status> Instance::SyncOne(FoundFile file) {
  constexpr uint64_t kLittle = 64;
  PageSpan dirty;
  Synced reached;
  std::vector<Extent> map;
  auto look = [&](Edit& edit) -> Task<absl::Status> {
    map.clear();
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    dirty = IsSynced(*inode) ? PageSpan{} : inode->dirty();
    reached = {inode->attributes().generation, inode->writes()};
    if (!inode->IsRegular()) co_return absl::OkStatus();
    Stream stream(&edit, &space_, *inode);
    for (PageSpan rest = dirty; rest.count > 0;) {
      const absl::StatusOr<std::vector<Extent>> part = co_await stream.Map(rest);
      if (!part.ok()) co_return part.status();
      map.insert(map.end(), part->begin(), part->end());
      rest = {part->back().end(), rest.first + rest.count - part->back().end()};
    }
    co_return absl::OkStatus();
  };
  absl::Status status = co_await RunEdit(pages_, look);
  if (!status.ok()) co_return status;
  std::vector<PageSpan> pages;
  for (const Extent& extent : map) {
    if (!extent.IsHole()) pages.push_back({extent.page, extent.count});
  }
  status = co_await pages_->FlushAndSync(std::move(pages));
  if (!status.ok() || dirty.count == 0) co_return status;
  NoteSynced(file.inode, reached);
  if (dirty.count <= kLittle) co_return absl::OkStatus();
  auto clear = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (inode.ok() && inode->writes() == reached.writes) inode->set_dirty({});
    co_return inode.status();
  };
  co_return co_await RunEdit(pages_, clear);
}

}  // namespace mangrove::fs
