// The log that makes commits durable: groups, one after the other, in a few files that are used again and again.
//
// The store has one write on its way at a time, and nobody is told of a commit before the write that holds it is done.
// So, when the log is opened after a crash:
//
//  L1  The last group, if its checksums are not right, is the unfinished write: dropped, with a warning where its
//      beginning is there. Nobody knows of it.
//  L2  A group that is missing or not right, while there is one with a higher number, is damage: commits that were
//      acknowledged cannot be read, and the log is not opened. So is a file that is missing.
//  L3  What begins no group, or a group that was released, is space.
//
// Damage that reaches from a group to the end of all groups looks like the unfinished write: what L1 gets wrong.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/page_store.h"
#include "engine/store/log_segment.h"

namespace mangrove::store {

struct CommitLogOptions {
  std::string directory;
  uint64_t salt = 0;  // See log_group.h.
  // A file is left for the next one when a group does not fit into so much; a larger group has a file to itself.
  // Rounded up to whole blocks.
  uint64_t segment_bytes = uint64_t{8} << 20;
};

// Owned by one thread.
class CommitLog {
 public:
  // Takes a group that was appended in an earlier life.
  using Replay = absl::FunctionRef<absl::Status(uint64_t number, std::span<const StoreBatch* const> batches)>;

  // A new log, in a directory that is made if it is not there; what an earlier creation left there is removed.
  static absl::StatusOr<std::unique_ptr<CommitLog>> Create(CommitLogOptions options);

  // Hands the groups after `released`, all of them and in order, to `replay`, whose errors it returns. DataLoss that
  // names the file: L2, or there is no log. Reads all of the log.
  static absl::StatusOr<std::unique_ptr<CommitLog>> Open(CommitLogOptions options, uint64_t released, Replay replay);

  // Of the last group; 0 if there was none.
  uint64_t last_number() const { return last_number_; }
  // Of the files whose groups are not all released.
  uint64_t used_bytes() const;
  // How often a further file was begun; a good moment to release.
  uint64_t turns() const { return turns_; }

  // One group with the next number, durable when it returns; its bytes. After an error the log must not be used any
  // more.
  absl::StatusOr<uint64_t> Append(std::span<const StoreBatch* const> batches);

  // The groups up to this one are not needed any more.
  void Release(uint64_t number) { released_ = number; }

 private:
  struct Segment {
    LogSegment file;
    uint64_t last_number = 0;  // Of the last group in it.
  };
  struct Found;

  CommitLog(CommitLogOptions options, uint64_t released);
  std::string FileName(size_t index) const;
  absl::Status FindFiles();
  absl::Status CheckFiles() const;
  absl::Status Scan(size_t segment, std::vector<Found>& found);
  absl::Status ReplayAll(const std::vector<Found>& found, Replay replay);
  absl::StatusOr<bool> ReplayOne(const Found& found, Replay replay);
  absl::Status WriteAgain(const Found& found);
  absl::Status Drop(const Found& found);
  absl::Status BeginSegment();
  bool IsFree(size_t segment) const;
  absl::Status KeepSpare();
  absl::Status AddSegment();

  const CommitLogOptions options_;
  std::vector<Segment> segments_;
  size_t current_ = 0;   // Of `segments_`.
  uint64_t offset_ = 0;  // Where the next group goes, in the current one.
  uint64_t released_;
  uint64_t last_number_;
  uint64_t turns_ = 0;
  // That there are, as the groups say. There is always one that is free, so that before a file is used a group elsewhere
  // tells of it, should it be lost.
  uint16_t files_ = 0;
  LogBuffer buffer_;
};

}  // namespace mangrove::store
