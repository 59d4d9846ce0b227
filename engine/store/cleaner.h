// Takes back the space of what was overwritten or deleted: segments of the log are emptied, and their files used again.
//
// The pages' data stays where a commit wrote it, so a segment is needed as long as the index refers to one page of it. The
// cleaner takes the segment with the smallest share of such pages, has the writer append these to the log once more, and is
// done with the segment.
//
// Invariants:
//  C1  A page is appended again only if the index, with every commit before applied, refers to the very place that it was
//      read from: no commit is undone.
//  C2  A segment's file is given away only when it is durable that the segment is emptied, and with it every change of the
//      index before: what a crash brings back refers to nothing in it.
//  C3  A segment behind which no group is durably applied, or that may have pages which cannot be read, is not emptied.
//      Who stores such a page again takes it out of the segment, which is then empty.
//  C4  The cleaner comes to an end: what counts as garbage is what the segments take beyond what their pages will take when
//      they are appended again, and a full segment's file is cut where it ends (commit_log.cc). So each segment that is
//      emptied gives back more than its pages take.
//
// What may be garbage: a third of what is needed, and `slack_bytes`; where the disk is nearly full, a sixteenth.

#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/page_store.h"
#include "engine/store/commit_log.h"
#include "engine/store/rocks_db.h"
#include "engine/store/segment_files.h"

namespace mangrove::store {

// Pages that are to be appended again, and where they were read.
struct PageMove {
  StoreBatch batch;
  std::vector<PagePlace> from;
};

struct CleanerOptions {
  uint64_t salt = 0;
  uint64_t slack_bytes = 0;
  // Is the disk nearly full?
  std::function<bool()> tight;
  // Appends those of the pages that are still where they were (C1), and applies what is emptied; waits for it.
  std::function<absl::Status(PageMove)> move;
  // Called on any thread when Owes may have become false.
  std::function<void()> caught_up;
};

struct CleanerStatistics {
  uint64_t pages_moved = 0;
  uint64_t segments_emptied = 0;
  uint64_t segments_kept = 0;  // C3, for pages that cannot be read.
};

// Thread-safe. Run is a thread of its own.
class Cleaner {
 public:
  Cleaner(CleanerOptions options, RocksDb* db, SegmentFiles* files);

  // Once, before anything else: the segments that the index has, and the files that there are. `end`: of the log.
  absl::Status Open(const LogPosition& end);

  // Until Stop; the call of `move` that is going on is waited for.
  void Run();
  // What Run does whenever it is rung: all that is due.
  absl::Status CleanWhatIsDue();
  void Stop();
  // There may be something to do.
  void Ring();

  // The writer's. A segment is full, `last_group` being its last.
  void Seal(const SealedSegment& sealed, uint64_t last_group);
  // What was emptied and is not yet applied.
  std::vector<uint64_t> TakeEmptied();
  // While there is far too much garbage, some of which can be taken back, commits are written only as the cleaner comes on:
  // it owes for each byte that is written as many of garbage and as many again. NoteWritten: without what it moves.
  bool IsFarBehind() const;
  void NoteWritten(uint64_t bytes);
  bool Owes() const;

  // Of the sealed segments.
  uint64_t used_bytes() const;
  CleanerStatistics statistics() const;

 private:
  enum class State { kSealed, kKept, kEmptied, kApplied };
  struct Segment {
    uint64_t blocks = 0;
    uint64_t bytes = 0;  // Of the file.
    uint64_t last_group = 0;
    State state = State::kSealed;
  };
  struct Choice {
    uint64_t segment = 0;
    Segment what;
    bool empty = false;  // Nothing refers to it.
  };
  class Pass;

  bool Await();
  absl::Status ReleaseApplied(bool tight);
  std::optional<Choice> Choose(bool tight, uint64_t durable_group);
  absl::Status Clean(const Choice& choice);
  absl::Status Move(PageMove move);
  void SetState(uint64_t segment, State state);
  void SetFarBehind(bool far_behind);
  void Credit(uint64_t garbage_bytes);

  const CleanerOptions options_;
  RocksDb* const db_;
  SegmentFiles* const files_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  // Guarded by mutex_, as is what follows.
  std::map<uint64_t, Segment> segments_;
  bool rung_ = false;
  bool stopped_ = false;
  bool far_behind_ = false;
  uint64_t owed_bytes_ = 0;
  CleanerStatistics statistics_;
};

}  // namespace mangrove::store
