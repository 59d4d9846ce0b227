// The log that makes commits durable, and is where the pages' data stays: groups, one after the other, in segments.
//
// The store has one write on its way at a time, and nobody is told of a commit before the write that holds it is done. A
// group stands behind the one before it, or at the beginning of the next segment if it does not fit there. The segment
// after the current one is always there. So, when the log is opened after a crash:
//
//  L1  The last group, if its checksums are not right, is the unfinished write: dropped, with a warning where its
//      beginning is there. Nobody knows of it.
//  L2  A group that is missing or not right, while there is one with a higher number behind it, is damage: commits that
//      were acknowledged cannot be read, and the log is not opened. So is a segment that is missing. Data of a page in a
//      group that is not the last one is not looked at here: whoever reads the page does.
//  L3  What begins no group, or one of a lower number than that before it, is space.
//
// Damage that reaches from a group to the end of all groups looks like the unfinished write: what L1 gets wrong.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/page_store.h"
#include "engine/store/group_reader.h"
#include "engine/store/log_group.h"
#include "engine/store/log_segment.h"
#include "engine/store/segment_files.h"

namespace mangrove::store {

struct CommitLogOptions {
  uint64_t salt = 0;  // See log_group.h.
  // The next segment is begun when a group does not fit into so much; a larger group has a segment to itself.
  uint64_t segment_bytes = uint64_t{16} << 20;
};

// Up to where the log goes, or is applied.
struct LogPosition {
  uint64_t number = 0;     // Of the last group; 0: there is none.
  PagePlace end = {1, 0};  // Behind it.
  friend constexpr bool operator==(const LogPosition&, const LogPosition&) = default;
};

struct SealedSegment {
  uint64_t segment = 0;
  uint64_t blocks = 0;  // Of its groups.
};

struct LoggedGroup {
  LogPosition position;
  std::vector<IndexChange> changes;
  std::optional<SealedSegment> sealed;  // The segment before, where this is the first group of one.
};

// Owned by one thread.
class CommitLog {
 public:
  // Takes a group that was appended in an earlier life.
  using Replay = absl::FunctionRef<absl::Status(const LoggedGroup& group)>;

  // A new log; what an earlier creation left there is removed. REQUIRES: `files` outlives the log.
  static absl::StatusOr<std::unique_ptr<CommitLog>> Create(CommitLogOptions options, SegmentFiles* files);

  // Hands the groups behind `applied`, all of them and in order, to `replay`, whose errors it returns. DataLoss that
  // names the file: L2, or there is no log. Reads what is behind `applied`, of pages' data only the last group's.
  static absl::StatusOr<std::unique_ptr<CommitLog>> Open(CommitLogOptions options, SegmentFiles* files,
                                                         const LogPosition& applied, Replay replay);

  const LogPosition& position() const { return position_; }
  // Of the groups that were appended or found since it was opened.
  uint64_t bytes() const { return bytes_; }
  // For the segments that are begun from now on.
  void set_segment_bytes(uint64_t bytes);

  // Writes a group to the disk.
  using Write = absl::FunctionRef<absl::Status()>;
  // Carries a write out, maybe on another thread and doing other things beside it, and returns what came of it. It finds the log
  // as it was before.
  using WriteBy = absl::FunctionRef<absl::Status(Write)>;

  // One group with the next number, durable when it returns. After an error the log must not be used any more.
  absl::StatusOr<LoggedGroup> Append(
      std::span<const StoreBatch* const> batches, WriteBy write_by = [](Write write) { return write(); });

 private:
  struct Scan;

  CommitLog(CommitLogOptions options, SegmentFiles* files);
  absl::Status OpenSegments();
  absl::Status Recover(Replay replay);
  absl::Status CheckNothingFollows(Scan& scan, std::optional<PagePlace> unfinished) const;
  absl::Status WriteAgain(PagePlace place, std::span<const char> bytes);
  absl::Status Drop(PagePlace place);
  absl::Status BeginSegment();

  CommitLogOptions options_;
  SegmentFiles* const files_;
  // The current one, which position_ is in, and the next.
  std::map<uint64_t, LogSegment> segments_;
  LogPosition position_;
  uint64_t bytes_ = 0;
  LogBuffer buffer_;
};

}  // namespace mangrove::store
