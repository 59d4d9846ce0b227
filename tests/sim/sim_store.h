// The simulated door to stable storage: a disk that outlives its node, and the store that a life of the node has open.
//
// A commit is applied at once for readers and becomes durable with the sync that covers it. A crash keeps what was synced
// and any prefix of the rest, in the order of the Commit calls (S2); a batch whose `done` has not run may be among it.

#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/page_store.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

struct SimStoreOptions {
  DurationNs min_sync = 100 * kMicrosecond;
  DurationNs max_sync = 3 * kMillisecond;
  DurationNs slow_sync = 100 * kMillisecond;
  uint32_t slow_per_mille = 10;
  DurationNs min_read = 20 * kMicrosecond;
  DurationNs max_read = 500 * kMicrosecond;
};

// What is on one node's disk, from the world's start to its end.
class SimDisk {
 public:
  explicit SimDisk(SimRandom random) : random_(random) {}

  // Faults. They hit what is durable.
  void SetFull(bool full) { full_ = full; }
  bool full() const { return full_; }
  void FailNextCommit() { fail_next_ = true; }
  // Neither full nor about to fail. What was damaged stays so.
  void Repair() { full_ = fail_next_ = false; }
  void Wipe();  // REQUIRES: no store is open.
  // Damages one of the pages of which `may` says yes, chosen by chance. Returns which, if there is one. `is_header_hit`: its version
  // cannot be read any more, either.
  std::optional<PageId> CorruptOne(absl::FunctionRef<bool(const StoredPage&)> may, bool* is_header_hit = nullptr);

  size_t durable_pages() const { return durable_.size(); }
  // Of what is durable; for tests and checkers.
  std::optional<Version> DurableVersion(PageId page) const;
  const StoredPage* Durable(PageId page) const;  // Null: there is none.
  bool IsDamaged(PageId page) const;
  const std::map<std::string, std::string>& records() const { return records_; }

 private:
  friend class SimStore;
  struct DiskPage {
    StoredPage page;
    bool corrupt_data = false;
    bool corrupt_header = false;
  };

  void Apply(const StoreBatch& batch);
  const DiskPage* Find(PageId page) const;

  SimRandom random_;
  bool full_ = false;
  bool fail_next_ = false;
  absl::btree_map<PageId, DiskPage> durable_;
  std::map<std::string, std::string> records_;
};

class SimStore final : public PageStore {
 public:
  // `on_poisoned`: a write has failed for good; the process must end.
  SimStore(SimWorld* world, int node, uint64_t life, const SimStoreOptions& options, SimDisk* disk,
           absl::AnyInvocable<void()> on_poisoned);

  void Commit(StoreBatch batch, CommitDone done) override;
  void ReadPages(PageRange range, bool with_data, PagesDone done) override;
  void ListPages(PageRange range, size_t most, Listed what, ListDone done) override;
  void ReadRecords(std::string prefix, RecordsDone done) override;
  StoreUsage Usage() const override;

  // The process or the machine dies: of what was not synced a prefix stays. Nothing is called any more.
  void Crash();
  size_t unsynced() const { return pending_.size(); }

 private:
  struct Pending {
    StoreBatch batch;
    CommitDone done;
  };
  struct Found {
    const StoredPage* page = nullptr;
    bool corrupt = false;
  };

  Found FindPage(PageId page, bool with_data) const;
  absl::StatusOr<StoredPage> ReadNow(PageId page, bool with_data) const;
  std::vector<absl::StatusOr<StoredPage>> ReadNow(PageRange range, bool with_data) const;
  absl::StatusOr<PageList> ListNow(PageRange range, size_t most, Listed what);
  void NoteBefore(const StoreBatch& batch);
  std::vector<std::pair<std::string, std::string>> RecordsNow(const std::string& prefix) const;
  void Refuse(absl::Status status, CommitDone done);
  void StartSync();
  void OnSynced(size_t batches);
  DurationNs ReadDelay();

  SimWorld* const world_;
  const int node_;
  const SimStoreOptions options_;
  SimDisk* const disk_;
  absl::AnyInvocable<void()> on_poisoned_;
  SimRandom random_;
  bool dead_ = false;
  bool syncing_ = false;
  absl::Status poison_;
  std::deque<Pending> pending_;  // In the order of the Commit calls.
  // What was where the last durable batches have changed something, oldest first: a list that waits for nothing may say so still.
  using Before = std::vector<std::pair<PageId, std::optional<StoredPage>>>;
  std::deque<Before> before_;
  uint64_t committed_ = 0;  // Batches, since the store was opened.
  uint64_t known_ = 0;      // So many of them the last list with kAll knew of.
};

}  // namespace mangrove::sim
