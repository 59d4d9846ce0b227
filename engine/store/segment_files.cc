#include "engine/store/segment_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/store/store_directory.h"

namespace mangrove::store {
namespace {

constexpr const char* kExtension = ".seg";
// Segments are as large as a store is small; what is kept for further use is space that nobody else has.
constexpr size_t kMostKept = 2;
constexpr size_t kMostOpen = 128;

absl::Status Failed(int error, const char* what, const std::string& file) {
  return absl::ErrnoToStatus(error, absl::StrCat("store: ", what, " of ", file));
}

}  // namespace

std::string SegmentFiles::NameOf(uint64_t segment) const {
  return absl::StrFormat("%s/%012d%s", directory_, segment, kExtension);
}

absl::StatusOr<std::vector<uint64_t>> SegmentFiles::List() const {
  std::error_code error;
  std::vector<uint64_t> segments;
  std::filesystem::directory_iterator entry(directory_, error);
  for (const std::filesystem::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().stem();
    uint64_t number = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
    if (parsed.ec == std::errc() && entry->path() == NameOf(number)) segments.push_back(number);
  }
  // A directory that is not there has none.
  if (error && error != std::errc::no_such_file_or_directory) {
    return Failed(error.value(), "reading", directory_);
  }
  std::sort(segments.begin(), segments.end());
  return segments;
}

absl::Status SegmentFiles::Clear() {
  if (absl::Status made = MakeStoreDirectory(directory_); !made.ok()) return made;
  const auto segments = List();
  if (!segments.ok()) return segments.status();
  for (const uint64_t segment : *segments) {
    if (unlink(NameOf(segment).c_str()) != 0) return Failed(errno, "removal", NameOf(segment));
  }
  const std::lock_guard lock(mutex_);
  kept_.clear();
  opened_.clear();
  opened_order_.clear();
  return SyncDirectory(directory_);
}

uint64_t SegmentFiles::BytesOf(uint64_t segment) const {
  std::error_code error;
  const uint64_t bytes = std::filesystem::file_size(NameOf(segment), error);
  return error ? 0 : bytes;
}

absl::StatusOr<LogSegment> SegmentFiles::Open(uint64_t segment, uint64_t full_bytes) const {
  return LogSegment::Open(NameOf(segment), full_bytes);
}

absl::StatusOr<LogSegment> SegmentFiles::Make(uint64_t segment, uint64_t full_bytes) {
  auto there = Open(segment, full_bytes);
  if (!absl::IsNotFound(there.status())) return there;
  std::string kept;
  {
    const std::lock_guard lock(mutex_);
    if (!kept_.empty()) {
      kept = std::move(kept_.front());
      kept_.pop_front();
    }
  }
  if (kept.empty()) return LogSegment::Create(NameOf(segment), full_bytes);
  // What made it larger than a segment is to be was one large group.
  struct stat found;
  if (stat(kept.c_str(), &found) == 0 && static_cast<uint64_t>(found.st_size) > full_bytes &&
      truncate(kept.c_str(), static_cast<off_t>(full_bytes)) != 0) {
    return Failed(errno, "truncation", kept);
  }
  auto file = LogSegment::Open(kept, full_bytes);
  if (!file.ok()) return file;
  if (absl::Status renamed = file->Rename(NameOf(segment)); !renamed.ok()) return renamed;
  if (absl::Status synced = SyncDirectory(directory_); !synced.ok()) return synced;
  return file;
}

// Opened under the lock, so that nothing stays open of a segment that is released meanwhile.
absl::StatusOr<std::shared_ptr<const UniqueFd>> SegmentFiles::OpenToRead(uint64_t segment) {
  const std::lock_guard lock(mutex_);
  if (const auto it = opened_.find(segment); it != opened_.end()) return it->second;
  auto fd = std::make_shared<const UniqueFd>(open(NameOf(segment).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd->ok()) return Failed(errno, "open", NameOf(segment));
  opened_.emplace(segment, fd);
  opened_order_.push_back(segment);
  if (opened_order_.size() > kMostOpen) {
    opened_.erase(opened_order_.front());
    opened_order_.pop_front();
  }
  return fd;
}

absl::Status SegmentFiles::Read(PagePlace place, std::span<char> out) {
  const auto fd = OpenToRead(place.segment);
  if (!fd.ok()) return fd.status();
  uint64_t offset = place.block * kBlockBytes;
  while (!out.empty()) {
    const ssize_t bytes = pread((*fd)->get(), out.data(), out.size(), static_cast<off_t>(offset));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno != EIO) return Failed(errno, "read", NameOf(place.segment));
    if (bytes <= 0) {
      return absl::DataLossError(
          absl::StrCat("store: ", NameOf(place.segment), bytes == 0 ? " ends at " : " cannot be read at ", offset));
    }
    out = out.subspan(static_cast<size_t>(bytes));
    offset += static_cast<uint64_t>(bytes);
  }
  return absl::OkStatus();
}

absl::Status SegmentFiles::Release(uint64_t segment, bool keep) {
  const std::string name = NameOf(segment);
  const std::lock_guard lock(mutex_);
  opened_.erase(segment);
  std::erase(opened_order_, segment);
  if (keep && kept_.size() < kMostKept && BytesOf(segment) > 0) {
    kept_.push_back(name);
    return absl::OkStatus();
  }
  if (unlink(name.c_str()) != 0 && errno != ENOENT) return Failed(errno, "removal", name);
  return absl::OkStatus();
}

uint64_t SegmentFiles::TotalBytes() const {
  uint64_t bytes = 0;
  const auto segments = List();
  if (!segments.ok()) return bytes;
  for (const uint64_t segment : *segments) bytes += BytesOf(segment);
  return bytes;
}

}  // namespace mangrove::store
