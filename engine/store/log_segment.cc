#include "engine/store/log_segment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/store/page_entry.h"
#include "engine/store/store_directory.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

constexpr uint64_t kZerosAheadBytes = uint64_t{1} << 20;
// Larger writes than this grow the file by themselves: their sync takes so long that the journal's share is small, and
// the zeros would double them.
constexpr uint64_t kLargeWriteBytes = uint64_t{128} << 10;

absl::Status Failed(int error, const char* what, const std::string& file) {
  return absl::ErrnoToStatus(error, absl::StrCat("store: ", what, " of ", file));
}

UniqueFd OpenDirect(const std::string& file, int flags) {
  UniqueFd fd(open(file.c_str(), flags | O_RDWR | O_CLOEXEC | O_DIRECT, 0600));
  if (fd.ok() || errno != EINVAL) return fd;
  // The file may have been made by the call that failed.
  return UniqueFd(open(file.c_str(), (flags & ~O_EXCL) | O_RDWR | O_CLOEXEC, 0600));
}

}  // namespace

std::span<char> LogBuffer::Reserve(size_t bytes) {
  if (bytes > size_) {
    size_ = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    memory_.reset(static_cast<char*>(std::aligned_alloc(kBlockBytes, size_)));
    CHECK(memory_ != nullptr);
  }
  return {memory_.get(), bytes};
}

absl::StatusOr<LogSegment> LogSegment::Open(std::string file, uint64_t full_bytes) {
  UniqueFd fd = OpenDirect(file, 0);
  struct stat found;
  if (!fd.ok() || fstat(fd.get(), &found) != 0) return Failed(errno, "open", file);
  const uint64_t size_bytes = static_cast<uint64_t>(found.st_size) / kBlockBytes * kBlockBytes;
  return LogSegment(std::move(file), std::move(fd), size_bytes, full_bytes);
}

absl::StatusOr<LogSegment> LogSegment::Create(std::string file, uint64_t full_bytes) {
  UniqueFd fd = OpenDirect(file, O_CREAT | O_EXCL);
  if (!fd.ok()) return Failed(errno, "creation", file);
  if (absl::Status synced = SyncDirectory(std::filesystem::path(file).parent_path()); !synced.ok()) return synced;
  return LogSegment(std::move(file), std::move(fd), 0, full_bytes);
}

absl::Status LogSegment::Rename(std::string file) {
  if (rename(file_.c_str(), file.c_str()) != 0) return Failed(errno, "renaming", file_);
  file_ = std::move(file);
  return absl::OkStatus();
}

absl::Status LogSegment::Cut(uint64_t blocks) {
  const uint64_t bytes = blocks * kBlockBytes;
  if (bytes >= size_bytes_) return absl::OkStatus();
  if (ftruncate(fd_.get(), static_cast<off_t>(bytes)) != 0) return Failed(errno, "truncation", file_);
  size_bytes_ = bytes;
  return absl::OkStatus();
}

absl::Status LogSegment::Write(uint64_t offset, std::span<const char> blocks) {
  const uint64_t end = offset + blocks.size();
  if (end > size_bytes_ && end <= full_bytes_ && blocks.size() <= kLargeWriteBytes) {
    if (absl::Status status = WriteZerosAhead(); !status.ok()) return status;
  }
  if (absl::Status status = WriteBlocks(offset, blocks, RWF_DSYNC); !status.ok()) return status;
  if (end > size_bytes_) size_bytes_ = end;
  return absl::OkStatus();
}

absl::Status LogSegment::WriteZerosAhead() {
  LogBuffer buffer;
  const std::span<char> zeros = buffer.Reserve(std::min(kZerosAheadBytes, full_bytes_ - size_bytes_));
  std::memset(zeros.data(), 0, zeros.size());
  const absl::Status status = WriteBlocks(size_bytes_, zeros, 0);
  // A full disk may still have space for the data.
  if (absl::IsResourceExhausted(status)) return absl::OkStatus();
  if (status.ok()) size_bytes_ += zeros.size();
  return status;
}

absl::Status LogSegment::WriteBlocks(uint64_t offset, std::span<const char> blocks, int flags) {
  while (!blocks.empty()) {
    iovec part{const_cast<char*>(blocks.data()), blocks.size()};
    const ssize_t written = pwritev2(fd_.get(), &part, 1, static_cast<off_t>(offset), flags);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return Failed(errno, "write", file_);
    // A disk that is full, or a limit, can end a write within a block, where direct ones cannot go on.
    const size_t whole = static_cast<size_t>(written) / kBlockBytes * kBlockBytes;
    if (whole == 0) return Failed(ENOSPC, "write", file_);
    blocks = blocks.subspan(whole);
    offset += whole;
  }
  return absl::OkStatus();
}

absl::Status LogSegment::Read(uint64_t offset, std::span<char> out) const {
  while (!out.empty()) {
    const ssize_t bytes = pread(fd_.get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno == EIO)
      return absl::DataLossError(absl::StrCat("store: ", file_, " cannot be read at ", offset));
    if (bytes < 0) return Failed(errno, "read", file_);
    if (bytes == 0) return absl::DataLossError(absl::StrCat("store: ", file_, " ends at ", offset));
    out = out.subspan(static_cast<size_t>(bytes));
    offset += static_cast<uint64_t>(bytes);
  }
  return absl::OkStatus();
}

}  // namespace mangrove::store
