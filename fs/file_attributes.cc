#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {

Task<absl::StatusOr<Attributes>> Instance::GetAttributes(FoundFile file) {
  Attributes found;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    const absl::StatusOr<Attributes> told = co_await AttributesOf(&edit, *inode);
    if (told.ok()) found = *told;
    co_return told.status();
  };
  const absl::Status status = co_await RunLook(pages_, body);
  if (!status.ok()) co_return status;
  co_return found;
}

// Where disks are full: what is zeros already must not take room there. False elsewhere, where looking would cost more.
Task<absl::StatusOr<bool>> Instance::AreZeros(uint64_t place, uint64_t length) {
  const PageSpan pages{place / kPageSize, (place + length - 1) / kPageSize + 1 - place / kPageSize};
  if (pages_->RoomFrom(pages) == pages.count) co_return false;
  std::string bytes(length, '\0');
  const absl::Status status = co_await pages_->ReadData(place, std::as_writable_bytes(std::span(bytes)));
  if (!status.ok()) co_return status;
  co_return IsZeros(bytes);
}

// Zeros in pages of the stream that are there; durable when it returns.
Task<absl::Status> Instance::ZeroBytes(Edit* edit, Inode inode, uint64_t from, uint64_t to) {
  if (from >= to) co_return absl::OkStatus();
  Stream stream(edit, &space_, inode);
  const uint64_t first = from / kPageSize;
  const uint64_t pages = (to - 1) / kPageSize + 1 - first;
  // Far behind the end of a file is at most what was taken ahead, or by fallocate.
  const absl::StatusOr<std::vector<Extent>> map = co_await stream.Map({first, pages});
  if (!map.ok()) co_return map.status();
  // What took these bytes out of the file must not be undone when they are gone.
  const bool has_pages = std::any_of(map->begin(), map->end(), [](const Extent& extent) { return !extent.IsHole(); });
  if (!has_pages) co_return absl::OkStatus();
  const absl::Status synced = co_await pages_->SyncTransactions();
  if (!synced.ok()) co_return synced;
  for (const Extent& extent : *map) {
    if (extent.IsHole()) continue;
    const uint64_t begin = std::max(from, extent.stream_page * kPageSize);
    const uint64_t end = std::min(to, extent.end() * kPageSize);
    const uint64_t place = extent.page * kPageSize + (begin - extent.stream_page * kPageSize);
    const absl::StatusOr<bool> are_zeros = co_await AreZeros(place, end - begin);
    if (!are_zeros.ok()) co_return are_zeros.status();
    if (*are_zeros) continue;
    const std::string zeros(end - begin, '\0');
    absl::Status status = co_await edit->WriteData(place, std::as_bytes(std::span(zeros)));
    if (status.ok())
      status =
          co_await pages_->Flush({place / kPageSize, (place + zeros.size() - 1) / kPageSize + 1 - place / kPageSize});
    if (!status.ok()) co_return AgainIfLost(status);
  }
  co_return absl::OkStatus();
}

// Before it becomes longer. I2
Task<absl::Status> Instance::ClearBehindEnd(Edit* edit, Inode inode, uint64_t to) {
  uint64_t end = to;
  if (inode.Has(Inode::kOldTail)) end = std::max(to, (inode.size() + kPageSize - 1) / kPageSize * kPageSize);
  const absl::Status status = co_await ZeroBytes(edit, inode, inode.size(), end);
  if (status.ok() && inode.Has(Inode::kOldTail)) inode.Set(Inode::kOldTail, false);
  co_return status;
}

// A step of what is left to do for a file that has become shorter: the pages behind its end go. True: that was all.
Task<absl::StatusOr<bool>> Instance::Shrink(Edit* edit, Inode inode) {
  if (!inode.Has(Inode::kShrinking)) co_return true;
  const uint64_t keep = (inode.size() + kPageSize - 1) / kPageSize;
  Stream stream(edit, &space_, inode);
  const absl::StatusOr<bool> all = co_await stream.Punch({keep, kMostFileBytes / kPageSize + 1 - keep});
  if (!all.ok() || !*all) co_return all;
  inode.Set(Inode::kShrinking, false);
  co_return true;
}

// False: the file is as long as it should be, and Shrink has more to do, in edits of their own.
Task<absl::StatusOr<bool>> Instance::Resize(Edit* edit, Inode inode, uint64_t size) {
  const uint64_t old = inode.size();
  if (size >= old) {
    if (size == old) co_return true;
    const absl::Status status = co_await ClearBehindEnd(edit, inode, size);
    if (!status.ok()) co_return status;
    inode.set_size(size);
    co_return true;
  }
  inode.set_size(size);
  inode.Set(Inode::kShrinking, true);
  inode.Set(Inode::kOldTail, size % kPageSize != 0);
  const absl::StatusOr<bool> all = co_await Shrink(edit, inode);
  if (!all.ok() || *all) co_return all;
  const absl::Status status = co_await MakeOrphan(edit, inode);
  if (!status.ok()) co_return status;
  co_return false;
}

Task<absl::StatusOr<Attributes>> Instance::SetAttributes(FoundFile file, AttributesChange change) {
  Attributes after;
  bool has_more = false;
  bool must_finish_first = false;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    has_more = must_finish_first = false;
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    const int64_t now = pages_->NowNs();
    if (inode->IsOfStreams() && (change.mode || change.uid || change.gid)) {
      co_return PosixError(EPERM, "owner and permissions of a stream are its file's");
    }
    if (change.size_bytes) {
      if (inode->IsDirectory()) co_return PosixError(EISDIR, "a directory has no size to be set");
      if (!inode->IsRegular()) co_return PosixError(EINVAL, "only a regular file has a size to be set");
      if (*change.size_bytes > kMostFileBytes) co_return PosixError(EFBIG, absl::StrCat(*change.size_bytes, " bytes"));
      must_finish_first = inode->Has(Inode::kShrinking);
      if (must_finish_first) co_return absl::OkStatus();
      const absl::StatusOr<bool> all = co_await Resize(&edit, *inode, *change.size_bytes);
      if (!all.ok()) co_return all.status();
      has_more = !*all;
      inode->set_modified(now);
    }
    if (change.uid) inode->set_uid(*change.uid);
    if (change.gid) inode->set_gid(*change.gid);
    if (change.accessed_ns) inode->set_accessed(*change.accessed_ns);
    if (change.modified_ns) inode->set_modified(*change.modified_ns);
    inode->set_changed(now);
    if (change.mode) {
      inode->set_mode((inode->mode() & S_IFMT) | (*change.mode & 07777));
      const absl::Status status = co_await ChangeModeOfAcl(&edit, *inode);
      if (!status.ok()) co_return status;
    }
    const absl::StatusOr<Attributes> told = co_await AttributesOf(&edit, *inode);
    if (told.ok()) after = *told;
    co_return told.status();
  };
  for (;;) {
    const absl::Status status = co_await RunEdit(pages_, body);
    if (!status.ok()) co_return status;
    if (!must_finish_first && !has_more) co_return after;
    const absl::Status finished = co_await FinishRemoval(file.inode);
    if (must_finish_first && !finished.ok()) co_return finished;
    if (!must_finish_first) co_return after;
  }
}

}  // namespace mangrove::fs
