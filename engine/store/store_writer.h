// The store's one writer: takes everything that waits, writes it into the log as one group with one sync (group commit),
// tells the outcomes, and later applies what is in the log to the index.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "engine/page_store.h"
#include "engine/store/cleaner.h"
#include "engine/store/commit_log.h"
#include "engine/store/helper_thread.h"
#include "engine/store/rocks_db.h"
#include "engine/store/store_directory.h"
#include "engine/store/work_queue.h"
#include "net/runtime/clock.h"

namespace mangrove::store {

// A commit on its way: loop, writer, loop.
struct PendingCommit {
  uint64_t number = 0;
  uint64_t bytes = 0;  // In the log.
  StoreBatch batch;
  PageStore::CommitDone done;
  absl::Status outcome;
};
using CommitGroup = std::vector<std::unique_ptr<PendingCommit>>;

// Why the store is poisoned (S5). Thread-safe.
class Poison {
 public:
  explicit operator bool() const { return is_set_; }
  void Set(absl::Status status);
  absl::Status status() const;

 private:
  mutable std::mutex mutex_;
  absl::Status status_;  // Guarded by mutex_.
  std::atomic<bool> is_set_{false};
};

struct WriterOptions {
  std::string path;
  uint64_t reserve_bytes = 0;
  DurationNs spin_ns = 0;
  DurationNs gather_ns = 0;
  size_t log_bytes = 0;
  uint64_t segment_bytes = 0;
  // Takes the outcomes of a group, in their order.
  std::function<void(std::shared_ptr<CommitGroup>)> finish;
  std::function<void(const absl::Status&)> on_poisoned;
};

struct WriterCounters {
  std::atomic<uint64_t> committed{0}, synced_writes{0}, refused{0}, failed{0}, pages_written{0};
};

// Thread-safe, but for Run, which is a thread of its own. `poison` is set by it alone.
class StoreWriter {
 public:
  // REQUIRES: what is pointed to outlives the writer; the log is used by nobody else.
  StoreWriter(WriterOptions options, RocksDb* db, CommitLog* log, Cleaner* cleaner, Poison* poison);

  // Until the queue is closed and empty; everything is applied then.
  void Run();
  void Close() { commits_.Close(); }

  // Commits have ascending numbers.
  void Push(std::unique_ptr<PendingCommit> commit) { commits_.Push(std::move(commit)); }
  // The cleaner's, see there. Move waits for it.
  absl::Status Move(PageMove move);
  void NoteCaughtUp();

  // Waits until reads find what this commit, which is durable, changed.
  void AwaitApplied(uint64_t number);
  // They find all up to this one.
  uint64_t applied_commit() const { return applied_commit_; }

  const WriterCounters& counters() const { return counters_; }

 private:
  // Of the cleaner, which waits for its outcome.
  struct PendingMove {
    PageMove move;
    std::optional<absl::Status> outcome;
  };

  // Groups that are in the log and not applied.
  struct Held {
    uint64_t last_commit = 0;  // Also if it is not among them.
    uint64_t log_bytes = 0;
    std::vector<LoggedGroup> groups;
  };

  void WriteGroup(CommitGroup& group);
  void WriteMovesOwed();
  bool AppendToLog(const std::vector<const StoreBatch*>& batches);
  std::vector<const StoreBatch*> Admit(CommitGroup& group);
  std::vector<const StoreBatch*> AdmitBySpace(CommitGroup& group);
  absl::Status AdmitMove(PageMove& move);
  void FinishMove(absl::Status status);
  void Apply();
  absl::Status ApplyHeld();
  void NoteUnflushed(const IndexChange& change);
  absl::Status Trim();
  absl::Status NoteDurable();
  void Fail(const absl::Status& status);

  const WriterOptions options_;
  RocksDb* const db_;
  CommitLog* const log_;
  Cleaner* const cleaner_;
  Poison* const poison_;
  WorkQueue<std::unique_ptr<PendingCommit>> commits_;
  WriterCounters counters_;

  // Run's.
  HelperThread helper_;  // Writes large groups.
  Held held_;
  SpaceGuard space_;
  uint64_t trimmed_at_ = 0;  // Bytes of the log then.
  // Positions of the log, by number of the group, with the log's bytes up to there; of what is not durably applied.
  std::deque<std::pair<uint64_t, uint64_t>> unapplied_;
  uint64_t durable_bytes_ = 0;
  absl::flat_hash_set<PageId>
      unflushed_;  // Pages that were put since tables were begun; no more than are few, and one.

  std::mutex move_mutex_;
  std::condition_variable move_changed_;
  PendingMove* move_ =
      nullptr;  // Guarded by move_mutex_, as is its outcome. The rest is the writer's while it is there.

  // The last commit that reads find; moved by Run.
  std::atomic<uint64_t> applied_commit_{0};
  std::atomic<bool> apply_wanted_{false};
  std::mutex applied_mutex_;
  std::condition_variable applied_;
};

}  // namespace mangrove::store
