#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "fs/instance.h"
#include "fs/status.h"

namespace mangrove::fs {

// In steps of an edit each: like other filesystems' it may be half done when it fails.
Task<absl::Status> Instance::Allocate(FoundFile file, int mode, uint64_t offset, uint64_t length) {
  const bool keeps_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const bool punches = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
  const bool zeros = (mode & FALLOC_FL_ZERO_RANGE) != 0;
  if (length == 0) co_return PosixError(EINVAL, "a range of no bytes");
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 ||
      (punches && (zeros || !keeps_size))) {
    co_return PosixError(EOPNOTSUPP, absl::StrCat("fallocate's mode ", mode));
  }
  if (offset > kMostFileBytes || length > kMostFileBytes - offset)
    co_return PosixError(EFBIG, "a range behind all files");
  const uint64_t end = offset + length;
  const uint64_t first_whole = (offset + kPageSize - 1) / kPageSize;
  const uint64_t end_whole = std::max(first_whole, end / kPageSize);
  bool is_done = !punches && !zeros;
  bool must_finish_first = false;
  auto punch = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    if (!inode->IsRegular()) co_return PosixError(inode->IsDirectory() ? EISDIR : ENODEV, "no regular file");
    Stream stream(&edit, &space_, *inode);
    const absl::StatusOr<bool> all = co_await stream.Punch({first_whole, end_whole - first_whole});
    if (!all.ok()) co_return all.status();
    Touch(&*inode);
    is_done = *all;
    if (!is_done) co_return absl::OkStatus();
    // What is no whole page, at both ends.
    const uint64_t head = std::min(first_whole * kPageSize, end);
    absl::Status status = co_await ZeroBytes(&edit, *inode, offset, head);
    if (status.ok() && end > head) status = co_await ZeroBytes(&edit, *inode, end_whole * kPageSize, end);
    co_return status;
  };
  while (!is_done) {
    const absl::Status status = co_await RunEdit(pages_, punch);
    if (!status.ok()) co_return status;
  }
  if (punches) co_return absl::OkStatus();
  uint64_t page = offset / kPageSize;
  const uint64_t last = (end - 1) / kPageSize;
  auto fill = [&](Edit& edit) -> Task<absl::Status> {
    absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kWrite);
    if (!inode.ok()) co_return inode.status();
    if (!inode->IsRegular()) co_return PosixError(inode->IsDirectory() ? EISDIR : ENODEV, "no regular file");
    must_finish_first = inode->Has(Inode::kShrinking);
    if (must_finish_first) co_return absl::OkStatus();
    const uint64_t count = std::min(last + 1 - page, Stream::kMostPages);
    const uint64_t size = std::min(end, (page + count) * kPageSize);
    const bool grows = !keeps_size && size > inode->size();
    absl::Status cleared;
    if (grows) cleared = co_await ClearBehindEnd(&edit, *inode, size);  // Before there are pages that are zeros.
    if (!cleared.ok()) co_return cleared;
    Stream stream(&edit, &space_, *inode);
    const absl::StatusOr<std::vector<Extent>> map = co_await stream.Fill({page, count});
    if (!map.ok()) co_return map.status();
    if (grows) inode->set_size(size);
    Touch(&*inode);
    co_return absl::OkStatus();
  };
  while (page <= last) {
    const absl::Status status = co_await RunEdit(pages_, fill);
    if (!status.ok()) co_return status;
    if (must_finish_first) {
      const absl::Status finished = co_await FinishRemoval(file.inode);
      if (!finished.ok()) co_return finished;
      continue;
    }
    page += std::min(last + 1 - page, Stream::kMostPages);
  }
  co_return absl::OkStatus();
}

Task<absl::StatusOr<uint64_t>> Instance::Seek(FoundFile file, uint64_t offset, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) co_return PosixError(EINVAL, absl::StrCat("no whence: ", whence));
  uint64_t found = 0;
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<Inode> inode = co_await Inode::Get(&edit, file, Intent::kRead);
    if (!inode.ok()) co_return inode.status();
    if (!inode->IsRegular()) co_return PosixError(EINVAL, "no regular file");
    if (offset >= inode->size()) co_return PosixError(ENXIO, absl::StrCat("byte ", offset, " is behind the end"));
    const uint64_t pages = (inode->size() + kPageSize - 1) / kPageSize;
    Stream stream(&edit, &space_, *inode);
    for (uint64_t page = offset / kPageSize; page < pages;) {
      const absl::StatusOr<std::vector<Extent>> map = co_await stream.Map({page, pages - page});
      if (!map.ok()) co_return map.status();
      for (const Extent& extent : *map) {
        if (extent.IsHole() == (whence == SEEK_HOLE)) {
          found = std::max(offset, extent.stream_page * kPageSize);
          co_return absl::OkStatus();
        }
      }
      page = map->back().end();
    }
    if (whence == SEEK_DATA) co_return PosixError(ENXIO, absl::StrCat("no data from byte ", offset, " on"));
    found = inode->size();
    co_return absl::OkStatus();
  };
  const absl::Status status = co_await RunEdit(pages_, body);
  if (!status.ok()) co_return status;
  co_return found;
}

}  // namespace mangrove::fs
