#include "engine/store/commit_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/store/log_group.h"
#include "engine/store/store_directory.h"

namespace mangrove::store {
namespace {

constexpr const char* kExtension = ".log";

// Of one read while the log is scanned.
constexpr size_t kScanBytes = size_t{1} << 20;

CommitLogOptions InWholeBlocks(CommitLogOptions options) {
  options.segment_bytes = (options.segment_bytes + kLogBlockBytes - 1) / kLogBlockBytes * kLogBlockBytes;
  return options;
}

// A directory that cannot be read has none.
std::vector<std::filesystem::path> FilesIn(const std::string& directory) {
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == kExtension) files.push_back(entry->path());
  }
  return files;
}

std::vector<const StoreBatch*> Pointers(const std::vector<StoreBatch>& batches) {
  std::vector<const StoreBatch*> pointers;
  pointers.reserve(batches.size());
  for (const StoreBatch& batch : batches) pointers.push_back(&batch);
  return pointers;
}

}  // namespace

// A block that is the beginning of a group which is not released.
struct CommitLog::Found {
  LogGroupHeader header;
  size_t segment;
  uint64_t offset;
};

CommitLog::CommitLog(CommitLogOptions options, uint64_t released)
    : options_(InWholeBlocks(std::move(options))), released_(released), last_number_(released) {}

absl::StatusOr<std::unique_ptr<CommitLog>> CommitLog::Create(CommitLogOptions options) {
  if (absl::Status made = MakeStoreDirectory(options.directory); !made.ok()) return made;
  std::unique_ptr<CommitLog> log(new CommitLog(std::move(options), 0));
  std::error_code error;
  for (const std::filesystem::path& file : FilesIn(log->options_.directory)) {
    if (!std::filesystem::remove(file, error)) {
      return absl::ErrnoToStatus(error.value(), absl::StrCat("store: removal of ", file.string()));
    }
  }
  if (absl::Status added = log->AddSegment(); !added.ok()) return added;
  if (absl::Status kept = log->KeepSpare(); !kept.ok()) return kept;
  return log;
}

absl::StatusOr<std::unique_ptr<CommitLog>> CommitLog::Open(CommitLogOptions options, uint64_t released, Replay replay) {
  std::unique_ptr<CommitLog> log(new CommitLog(std::move(options), released));
  if (absl::Status status = log->FindFiles(); !status.ok()) return status;
  std::vector<Found> found;
  for (size_t i = 0; i < log->segments_.size(); ++i) {
    if (absl::Status status = log->Scan(i, found); !status.ok()) return status;
  }
  if (absl::Status status = log->CheckFiles(); !status.ok()) return status;
  std::sort(found.begin(), found.end(),
            [](const Found& a, const Found& b) { return a.header.number < b.header.number; });
  if (absl::Status status = log->ReplayAll(found, replay); !status.ok()) return status;
  log->files_ = static_cast<uint16_t>(log->segments_.size());
  if (absl::Status kept = log->KeepSpare(); !kept.ok()) return kept;
  return log;
}

std::string CommitLog::FileName(size_t index) const {
  return absl::StrFormat("%s/%04d%s", options_.directory, index, kExtension);
}

absl::Status CommitLog::FindFiles() {
  std::error_code error;
  while (std::filesystem::exists(FileName(segments_.size()), error)) {
    auto file = LogSegment::Open(FileName(segments_.size()), options_.segment_bytes);
    if (!file.ok()) return file.status();
    segments_.push_back({*std::move(file)});
  }
  return absl::OkStatus();
}

absl::Status CommitLog::CheckFiles() const {
  if (!segments_.empty() && segments_.size() >= files_ && FilesIn(options_.directory).size() == segments_.size())
    return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("log file ", FileName(segments_.size()), " is missing, with what is in it"));
}

absl::Status CommitLog::Scan(size_t segment, std::vector<Found>& found) {
  const LogSegment& file = segments_[segment].file;
  for (uint64_t begin = 0; begin < file.size_bytes(); begin += kScanBytes) {
    const std::span<char> bytes = buffer_.Reserve(std::min<uint64_t>(kScanBytes, file.size_bytes() - begin));
    if (absl::Status status = file.Read(begin, bytes); !status.ok()) return status;
    for (size_t at = 0; at < bytes.size(); at += kLogBlockBytes) {
      const auto header = DecodeGroupHeader({bytes.data() + at, kLogBlockBytes}, options_.salt);
      if (!header.has_value()) continue;
      files_ = std::max(files_, header->files);
      if (header->number > released_) found.push_back({*header, segment, begin + at});
    }
  }
  return absl::OkStatus();
}

// A number can be found twice: of the group, and of one that was unfinished before it elsewhere.
absl::Status CommitLog::ReplayAll(const std::vector<Found>& found, Replay replay) {
  const Found* last = nullptr;
  const Found* unfinished = nullptr;
  for (const Found& next : found) {
    if (next.header.number <= last_number_) continue;
    if (next.header.number > last_number_ + 1) {
      const std::string& file = segments_[unfinished != nullptr ? unfinished->segment : next.segment].file.file();
      return absl::DataLossError(absl::StrCat("log file ", file, ": group ", last_number_ + 1,
                                              " is damaged or missing, and there are later ones"));
    }
    const auto replayed = ReplayOne(next, replay);
    if (!replayed.ok()) return replayed.status();
    (*replayed ? last : unfinished) = &next;
  }
  if (last != nullptr) {
    if (absl::Status status = WriteAgain(*last); !status.ok()) return status;
  }
  return unfinished != nullptr && unfinished->header.number > last_number_ ? Drop(*unfinished) : absl::OkStatus();
}

// Its write may have failed after the kernel had it, which then has it and the disk has not.
absl::Status CommitLog::WriteAgain(const Found& found) {
  LogSegment& file = segments_[found.segment].file;
  const std::span<char> bytes = buffer_.Reserve(found.header.bytes);
  if (absl::Status status = file.Read(found.offset, bytes); !status.ok()) return status;
  return file.Write(found.offset, bytes);
}

absl::Status CommitLog::Drop(const Found& found) {
  LogSegment& file = segments_[found.segment].file;
  spdlog::warn("log file {}: a commit of which nobody was told is unfinished at {}, and dropped", file.file(),
               found.offset);
  const std::span<char> block = buffer_.Reserve(kLogBlockBytes);
  std::memset(block.data(), 0, block.size());
  return file.Write(found.offset, block);
}

// False: the group is not sound.
absl::StatusOr<bool> CommitLog::ReplayOne(const Found& found, Replay replay) {
  Segment& segment = segments_[found.segment];
  if (segment.file.size_bytes() - found.offset < found.header.bytes) return false;
  const std::span<char> bytes = buffer_.Reserve(found.header.bytes);
  if (absl::Status status = segment.file.Read(found.offset, bytes); !status.ok()) return status;
  const auto batches = DecodeGroup({bytes.data(), bytes.size()}, options_.salt);
  if (!batches.has_value()) return false;
  if (absl::Status status = replay(found.header.number, Pointers(*batches)); !status.ok()) return status;
  last_number_ = segment.last_number = found.header.number;
  current_ = found.segment;
  offset_ = found.offset + found.header.bytes;
  return true;
}

uint64_t CommitLog::used_bytes() const {
  uint64_t used = 0;
  for (const Segment& segment : segments_) {
    if (segment.last_number > released_) used += std::max(segment.file.size_bytes(), options_.segment_bytes);
  }
  return used;
}

absl::StatusOr<uint64_t> CommitLog::Append(std::span<const StoreBatch* const> batches) {
  const std::span<char> group = buffer_.Reserve(EncodedGroupBytes(batches));
  if (offset_ > 0 && offset_ + group.size() > options_.segment_bytes) {
    if (absl::Status status = BeginSegment(); !status.ok()) return status;
  }
  EncodeGroup({.number = last_number_ + 1, .files = files_, .bytes = group.size()}, options_.salt, batches, group);
  Segment& segment = segments_[current_];
  if (absl::Status status = segment.file.Write(offset_, group); !status.ok()) return status;
  offset_ += group.size();
  segment.last_number = ++last_number_;
  return group.size();
}

bool CommitLog::IsFree(size_t segment) const { return segments_[segment].last_number <= released_; }

// The first file that is free, so that as few as possible are used.
absl::Status CommitLog::BeginSegment() {
  ++turns_;
  offset_ = 0;
  for (current_ = 0; !IsFree(current_);) ++current_;
  return KeepSpare();
}

absl::Status CommitLog::KeepSpare() {
  for (size_t i = 0; i < segments_.size(); ++i) {
    if (i != current_ && IsFree(i)) return absl::OkStatus();
  }
  return AddSegment();
}

absl::Status CommitLog::AddSegment() {
  auto file = LogSegment::Create(FileName(segments_.size()), options_.segment_bytes);
  if (!file.ok()) return file.status();
  segments_.push_back({*std::move(file)});
  files_ = static_cast<uint16_t>(segments_.size());
  return absl::OkStatus();
}

}  // namespace mangrove::store
