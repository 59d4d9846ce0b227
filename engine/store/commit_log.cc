#include "engine/store/commit_log.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::store {
namespace {

// Of a segment, what may stay empty at its end: the half of what is garbage at most (cleaner.h).
constexpr uint64_t kUnusedShare = 32;

absl::Status Missing(const SegmentFiles& files, uint64_t segment) {
  return absl::DataLossError(absl::StrCat("log file ", files.NameOf(segment), " is missing, with what is in it"));
}

}  // namespace

// Follows the groups through the segments.
struct CommitLog::Scan {
  explicit Scan(const CommitLog& l) : log(l), position(l.position_) {}

  // The next group; empty: there is none. It is in `group`, at `place`.
  absl::StatusOr<bool> Next() {
    for (const PagePlace at : {position.end, PagePlace{position.end.segment + 1, 0}}) {
      const auto found = ReaderOf(at.segment);
      if (!found.ok()) return found.status();
      auto read = (*found)->At(at.block);
      if (!read.ok()) return read.status();
      if (!read->has_value() || (*read)->header.number != position.number + 1) continue;
      group = *std::move(*read);
      place = at;
      return true;
    }
    return false;
  }

  absl::StatusOr<GroupReader*> ReaderOf(uint64_t segment) {
    auto& reader = readers[segment];
    if (reader.second != nullptr) return reader.second.get();
    auto file = log.files_->Open(segment, log.options_.segment_bytes);
    if (absl::IsNotFound(file.status())) return Missing(*log.files_, segment);
    if (!file.ok()) return file.status();
    reader.first = std::make_unique<LogSegment>(*std::move(file));
    reader.second = std::make_unique<GroupReader>(reader.first.get(), segment, log.options_.salt);
    return reader.second.get();
  }

  // Behind the group that was found.
  LoggedGroup Logged() {
    LoggedGroup logged{.position = {group.header.number, {place.segment, place.block + group.header.blocks()}},
                       .changes = *std::move(group.changes),
                       .sealed = std::nullopt};
    if (place.segment != position.end.segment) {
      logged.sealed = SealedSegment{position.end.segment, position.end.block};
    }
    return logged;
  }

  const CommitLog& log;
  LogPosition position;
  FoundGroup group;
  PagePlace place;
  std::map<uint64_t, std::pair<std::unique_ptr<LogSegment>, std::unique_ptr<GroupReader>>> readers;
};

CommitLog::CommitLog(CommitLogOptions options, SegmentFiles* files) : options_(options), files_(files) {
  set_segment_bytes(options.segment_bytes);
}

void CommitLog::set_segment_bytes(uint64_t bytes) {
  options_.segment_bytes = (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

absl::StatusOr<std::unique_ptr<CommitLog>> CommitLog::Create(CommitLogOptions options, SegmentFiles* files) {
  if (absl::Status cleared = files->Clear(); !cleared.ok()) return cleared;
  std::unique_ptr<CommitLog> log(new CommitLog(options, files));
  for (const uint64_t segment : {1, 2}) {
    if (auto made = files->Make(segment, log->options_.segment_bytes); !made.ok()) return made.status();
  }
  if (absl::Status opened = log->OpenSegments(); !opened.ok()) return opened;
  return log;
}

absl::StatusOr<std::unique_ptr<CommitLog>> CommitLog::Open(CommitLogOptions options, SegmentFiles* files,
                                                           const LogPosition& applied, Replay replay) {
  std::unique_ptr<CommitLog> log(new CommitLog(options, files));
  log->position_ = applied;
  if (absl::Status recovered = log->Recover(replay); !recovered.ok()) return recovered;
  return log;
}

absl::Status CommitLog::OpenSegments() {
  for (uint64_t segment = position_.end.segment; segment <= position_.end.segment + 1; ++segment) {
    auto file = files_->Open(segment, options_.segment_bytes);
    if (absl::IsNotFound(file.status())) return Missing(*files_, segment);
    if (!file.ok()) return file.status();
    segments_.insert_or_assign(segment, *std::move(file));
  }
  return absl::OkStatus();
}

// A group is handed out once another is found behind it, which shows that its write was finished; the last one once all of
// it is found to be there.
absl::Status CommitLog::Recover(Replay replay) {
  Scan scan(*this);
  std::optional<LoggedGroup> last;
  PagePlace last_place;
  const auto hand_out_last = [&] {
    if (!last.has_value()) return absl::OkStatus();
    bytes_ += (last->position.end.block - last_place.block) * kBlockBytes;
    position_ = last->position;
    return replay(*last);
  };
  std::optional<PagePlace> unfinished;
  while (true) {
    const auto more = scan.Next();
    if (!more.ok()) return more.status();
    if (!*more) break;
    if (absl::Status status = hand_out_last(); !status.ok()) return status;
    last.reset();
    if (!scan.group.changes.has_value()) {
      unfinished = scan.place;
      break;
    }
    last = scan.Logged();
    last_place = scan.place;
    scan.position = last->position;
  }
  if (last.has_value()) {
    auto reader = scan.ReaderOf(last_place.segment);
    if (!reader.ok()) return reader.status();
    const auto again = (*reader)->At(last_place.block);
    if (!again.ok()) return again.status();
    const auto sound = (*reader)->IsSound(last_place.block, **again);
    if (!sound.ok()) return sound.status();
    if (*sound) {
      if (absl::Status status = hand_out_last(); !status.ok()) return status;
      if (absl::Status status = OpenSegments(); !status.ok()) return status;
      if (absl::Status status = WriteAgain(last_place, (*reader)->bytes()); !status.ok()) return status;
    } else {
      unfinished = last_place;
    }
  }
  if (absl::Status status = OpenSegments(); !status.ok()) return status;
  if (absl::Status status = CheckNothingFollows(scan, unfinished); !status.ok()) return status;
  return unfinished.has_value() ? Drop(*unfinished) : absl::OkStatus();
}

absl::Status CommitLog::CheckNothingFollows(Scan& scan, std::optional<PagePlace> unfinished) const {
  const auto segments = files_->List();
  if (!segments.ok()) return segments.status();
  const uint64_t last = position_.number + (unfinished.has_value() ? 1 : 0);
  for (const uint64_t segment : *segments) {
    if (segment < position_.end.segment) continue;
    const auto reader = scan.ReaderOf(segment);
    if (!reader.ok()) return reader.status();
    const auto highest = (*reader)->HighestFrom(segment == position_.end.segment ? position_.end.block : 0);
    if (!highest.ok()) return highest.status();
    if (*highest <= last) continue;
    return absl::DataLossError(absl::StrCat("log file ", files_->NameOf(unfinished.value_or(position_.end).segment),
                                            ": group ", position_.number + 1,
                                            " is damaged or missing, and there are later ones"));
  }
  return absl::OkStatus();
}

// Its write may have failed after the kernel had it, which then has it and the disk has not.
absl::Status CommitLog::WriteAgain(PagePlace place, std::span<const char> bytes) {
  return segments_.at(place.segment).Write(place.block * kBlockBytes, bytes);
}

absl::Status CommitLog::Drop(PagePlace place) {
  LogSegment& file = segments_.at(place.segment);
  const uint64_t offset = place.block * kBlockBytes;
  spdlog::warn("log file {}: a commit of which nobody was told is unfinished at {}, and dropped", file.file(), offset);
  const std::span<char> block = buffer_.Reserve(kBlockBytes);
  std::memset(block.data(), 0, block.size());
  return file.Write(offset, block);
}

absl::StatusOr<LoggedGroup> CommitLog::Append(std::span<const StoreBatch* const> batches, WriteBy write_by) {
  const uint64_t blocks = EncodedGroupBlocks(batches);
  CHECK(blocks <= PagePlace::kMaxBlocks);
  LoggedGroup logged;
  PagePlace place = position_.end;
  if (place.block > 0 && (place.block + blocks) * kBlockBytes > options_.segment_bytes) {
    if (absl::Status status = BeginSegment(); !status.ok()) return status;
    logged.sealed = SealedSegment{place.segment, place.block};
    place = {place.segment + 1, 0};
  }
  const std::span<char> group = buffer_.Reserve(blocks * kBlockBytes);
  logged.changes = EncodeGroup(position_.number + 1, options_.salt, place, batches, group);
  const auto write = [&] { return segments_.at(place.segment).Write(place.block * kBlockBytes, group); };
  const absl::Status status = write_by(write);
  if (!status.ok()) return status;
  logged.position = position_ = {position_.number + 1, {place.segment, place.block + blocks}};
  bytes_ += group.size();
  return logged;
}

// The one after it is made before anything is written to it.
absl::Status CommitLog::BeginSegment() {
  // What stays empty of the full one would be garbage that emptying it does not take back: the next may be left as empty.
  LogSegment& full = segments_.at(position_.end.segment);
  if (full.size_blocks() - position_.end.block > full.size_blocks() / kUnusedShare) {
    if (absl::Status cut = full.Cut(position_.end.block); !cut.ok()) return cut;
  }
  const uint64_t next = position_.end.segment + 2;
  auto made = files_->Make(next, options_.segment_bytes);
  if (!made.ok()) return made.status();
  segments_.insert_or_assign(next, *std::move(made));
  segments_.erase(position_.end.segment);
  return absl::OkStatus();
}

}  // namespace mangrove::store
