// The real door to stable storage: PageStore over a log, in which the pages' data stays, and RocksDB, which has the index
// of it and the records.
//
// Data flow of a commit: the loop notes its keys (S3) and hands it to the writer thread, which takes everything that
// waits, writes it into the log as one group with one sync (group commit), and posts the outcomes back, in order, in
// one task. Later it applies to RocksDB where the pages are now; RocksDB's threads write tables. A read goes to a reader
// thread, where it meets a change that is not yet in the log when that is; there it waits until what is in the log is
// applied, looks into the index, and reads the page from the log. The cleaner takes back the log's space.
//
// Threads: one writer, one that helps it with large writes, one cleaner, `reader_threads` readers; RocksDB has two more for its
// tables.

#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/page_store.h"
#include "engine/store/rocks_db.h"
#include "net/ids.h"
#include "net/runtime/clock.h"

namespace mangrove {

struct RocksStoreOptions {
  // Directory of the store; made if it is not there.
  std::string path;
  // Runs a task on the loop that owns the store, not from inside the call, in the order of the calls of one thread.
  // Called by the store's threads until the store is destroyed.
  std::function<void(absl::AnyInvocable<void()>)> post;
  // Told on the loop, if it is there, of how many more, or fewer, commits the outcome is to come: the store's threads work
  // on these, and may need the processor of a loop that polls.
  std::function<void(int)> expect;
  // Whose store it is. A store of another cluster or node is not opened.
  ClusterId cluster;
  NodeId node;
  // What must stay free on the disk: for tables that are still to be written and for everybody else on the disk. Commits
  // that would use it get ResourceExhausted; those without page data may use half of it.
  uint64_t reserve_bytes = uint64_t{256} << 20;
  // Called once, on the writer thread, after a failed write (S5). Must not return in production. Default: logs, and ends
  // the process at once.
  std::function<void(const absl::Status&)> on_poisoned;
  // A thread of the store that has run out of work polls so long before it sleeps.
  DurationNs spin_ns = 20 * kMicrosecond;
  // With several commits on their way, the writer waits so long for those that the last outcomes bring about; otherwise
  // they would go half and half, each half waiting for the other's sync.
  DurationNs gather_ns = 20 * kMicrosecond;
  int reader_threads = 2;
  store::RocksTuning tuning;
};

// Counted since the start. Batches per synced write: committed / synced_writes.
struct RocksStoreStatistics {
  uint64_t committed = 0;      // Batches that are durable.
  uint64_t synced_writes = 0;  // Writes that made them so.
  uint64_t refused = 0;        // Batches that got ResourceExhausted.
  uint64_t failed = 0;         // Batches that met a poisoned store, the first one included.
  uint64_t pages_written = 0;
  uint64_t reads = 0;           // Of pages and of records.
  uint64_t reads_deferred = 0;  // Of these, behind a write of what they read.
  uint64_t corrupt = 0;         // Reads that got DataLoss, and pages that were listed as corrupt.
  uint64_t pages_moved = 0;     // By the cleaner, to make space.
  uint64_t segments_emptied = 0;
  uint64_t segments_kept = 0;  // With pages that cannot be read, so that the others were moved only.
};

// Owned by the loop, `statistics` excepted, which is thread-safe.
class RocksStore final : public PageStore {
 public:
  // Blocks while the log is read and applied, seconds at most. FailedPrecondition: in use by another process, the store
  // of another cluster, node or format, or no store. DataLoss: damaged, see RocksDb::Open and CommitLog::Open.
  // PermissionDenied.
  static absl::StatusOr<std::unique_ptr<RocksStore>> Open(RocksStoreOptions options);

  // Writes what was committed, then the tables; drops the reads that wait, and closes. No callback runs any more, also
  // of what was committed: whoever must know waits before.
  ~RocksStore() override;

  // What it changes in the index is held until it is applied, some MiB of the log behind `done` at most; the caller bounds how
  // much it has outstanding.
  void Commit(StoreBatch batch, CommitDone done) override;
  void ReadPages(PageRange range, bool with_data, PagesDone done) override;
  // kAll waits for all pages that are on their way; then a reader thread is busy for about half a microsecond a page.
  void ListPages(PageRange range, size_t most, Listed what, ListDone done) override;
  void ReadRecords(std::string prefix, RecordsDone done) override;
  StoreUsage Usage() const override;

  RocksStoreStatistics statistics() const;

 private:
  struct State;
  explicit RocksStore(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace mangrove
