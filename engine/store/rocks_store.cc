#include "engine/store/rocks_store.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/store/page_record.h"
#include "engine/store/rocks_open.h"
#include "engine/store/sealed_value.h"
#include "engine/store/store_directory.h"
#include "engine/store/uncommitted_index.h"
#include "engine/store/work_queue.h"
#include "net/check.h"

namespace mangrove {
namespace {

using store::RocksDb;
using store::StoreStamp;
using Task = absl::AnyInvocable<void()>;

// One write is bounded, so that the first of many commits is not kept waiting for the last.
constexpr uint64_t kGroupBytes = uint64_t{4} << 20;
constexpr std::chrono::seconds kUsageAge{2};

// A commit on its way: loop, writer, loop.
struct PendingCommit {
  uint64_t number = 0;
  uint64_t bytes = 0;
  StoreBatch batch;
  PageStore::CommitDone done;
  absl::Status outcome;
};
using Group = std::vector<std::unique_ptr<PendingCommit>>;

// A read that waits for the commit with this number.
struct DeferredRead {
  uint64_t after;
  Task start;
};

// What only the loop touches. Outlives the store in the tasks that are posted, which then find it closed.
struct LoopSide {
  bool closed = false;
  uint64_t last_number = 0;
  uint64_t applied_number = 0;
  store::UncommittedIndex uncommitted;
  std::deque<DeferredRead> deferred;
};

struct Counters {
  std::atomic<uint64_t> committed{0}, synced_writes{0}, refused{0}, failed{0}, pages_written{0}, reads{0},
      reads_deferred{0}, corrupt{0};
};

uint64_t BytesOf(const StoreBatch& batch) {
  constexpr uint64_t kPerEntryBytes = 64;
  uint64_t bytes = kPerEntryBytes * (1 + batch.delete_pages.size());
  bytes += batch.put_pages.size() * (store::kPageRecordBytes + kPerEntryBytes);
  for (const StoreBatch::Record& record : batch.records) {
    bytes += record.key.size() + (record.value ? record.value->size() : 0) + kPerEntryBytes;
  }
  return bytes;
}

void EndProcess(const absl::Status& status) {
  spdlog::critical("{}; ending the process: what is durable is known only after a restart", status.ToString());
  spdlog::shutdown();
  _exit(EXIT_FAILURE);
}

// Stamps an empty store; compares the stamp of another one.
absl::Status ClaimStore(RocksDb& db, const RocksStoreOptions& options) {
  const StoreStamp wanted{store::kStoreFormat, options.cluster, options.node};
  const auto stored = db.ReadStamp();
  if (!stored.ok()) return stored.status();
  if (stored->has_value()) {
    const auto found = store::DecodeStamp(**stored);
    return found.ok() ? store::CheckStamp(options.path, *found, wanted)
                      : store::WithAdvice(found.status(), options.path);
  }
  const auto empty = db.Empty();
  if (!empty.ok()) return empty.status();
  if (!*empty) {
    return absl::FailedPreconditionError(
        absl::StrCat("store ", options.path, " has data and no stamp: it is no store"));
  }
  return db.WriteStamp(store::EncodeStamp(wanted));
}

}  // namespace

struct RocksStore::State {
  State(RocksStoreOptions o, store::StoreLock l, std::unique_ptr<RocksDb> d)
      : options(std::move(o)),
        lock(std::move(l)),
        db(std::move(d)),
        space(options.path, options.reserve_bytes),
        commits(options.spin_ns, options.gather_ns),
        reads(options.spin_ns, 0) {}

  void RunWriter();
  void RunReader();
  void WriteGroup(Group& group);
  std::vector<const StoreBatch*> Admit(Group& group);
  void Poison(const absl::Status& status);
  absl::Status Poisoned() const;
  void RefreshUsage();

  // On the loop.
  void StartRead(uint64_t after, Task start);
  static void Finish(LoopSide& loop, Group& group);

  const RocksStoreOptions options;
  const store::StoreLock lock;
  const std::unique_ptr<RocksDb> db;
  store::SpaceGuard space;  // The writer's.
  Counters counters;

  const std::shared_ptr<LoopSide> loop = std::make_shared<LoopSide>();

  store::WorkQueue<std::unique_ptr<PendingCommit>> commits;
  store::WorkQueue<Task> reads;
  std::atomic<bool> closing{false};
  std::vector<std::thread> threads;

  mutable std::mutex poison_mutex;
  absl::Status poison;  // Guarded by poison_mutex.
  std::atomic<bool> is_poisoned{false};

  std::atomic<uint64_t> usage_pages{0}, usage_bytes{0}, usage_free{0};
  std::atomic<bool> usage_running{false};
  std::atomic<int64_t> usage_at{0};
};

// --- The writer thread ------------------------------------------------------------------------------------------------

void RocksStore::State::RunWriter() {
  size_t expected = 1;
  while (true) {
    Group group;
    uint64_t bytes = 0;
    const bool more = commits.Pop(group, expected, [&](const std::unique_ptr<PendingCommit>& next) {
      bytes += group.back()->bytes;
      return bytes + next->bytes <= kGroupBytes;
    });
    if (!more) return;
    WriteGroup(group);
    // Who has one outcome often asks for the next commit.
    expected = group.size() + commits.size();
    options.post([side = loop, done = std::move(group)]() mutable { Finish(*side, done); });
  }
}

void RocksStore::State::WriteGroup(Group& group) {
  if (is_poisoned) {
    for (auto& commit : group) commit->outcome = Poisoned();
    counters.failed += group.size();
    return;
  }
  const std::vector<const StoreBatch*> admitted = Admit(group);
  if (admitted.empty()) return;
  const absl::Status written = db->Write(admitted);
  if (!written.ok()) {
    Poison(written);
    for (auto& commit : group) {
      if (commit->outcome.ok()) commit->outcome = Poisoned();
    }
    counters.failed += admitted.size();
    return;
  }
  counters.committed += admitted.size();
  counters.synced_writes += 1;
  for (const StoreBatch* batch : admitted) counters.pages_written += batch->put_pages.size();
}

// The batches of the group for which there is space; the others have their outcome.
std::vector<const StoreBatch*> RocksStore::State::Admit(Group& group) {
  space.Refresh();
  std::vector<const StoreBatch*> admitted;
  admitted.reserve(group.size());
  for (auto& commit : group) {
    commit->outcome = space.Admit(commit->bytes, !commit->batch.put_pages.empty());
    if (commit->outcome.ok()) {
      admitted.push_back(&commit->batch);
    } else {
      counters.refused += 1;
    }
  }
  return admitted;
}

void RocksStore::State::Poison(const absl::Status& status) {
  {
    const std::lock_guard guard(poison_mutex);
    // Never ResourceExhausted, which would promise that nothing was applied.
    const absl::Status why = absl::IsDataLoss(status) ? store::WithAdvice(status, options.path) : status;
    poison = absl::InternalError(absl::StrCat("the store is poisoned by a failed write: ", why.ToString()));
  }
  is_poisoned = true;
  if (options.on_poisoned) {
    options.on_poisoned(Poisoned());
  } else {
    EndProcess(Poisoned());
  }
}

absl::Status RocksStore::State::Poisoned() const {
  const std::lock_guard guard(poison_mutex);
  return poison;
}

// --- The reader threads -----------------------------------------------------------------------------------------------

void RocksStore::State::RunReader() {
  while (true) {
    std::vector<Task> one;
    if (!reads.Pop(one, 1, [](const Task&) { return false; })) return;
    if (!closing) one.front()();
  }
}

void RocksStore::State::RefreshUsage() {
  const store::RocksSizes sizes = db->Sizes();
  usage_pages = sizes.pages;
  usage_bytes = sizes.bytes;
  usage_free = store::FreeDiskBytes(options.path);
  usage_at = std::chrono::steady_clock::now().time_since_epoch().count();
  usage_running = false;
}

// --- On the loop ------------------------------------------------------------------------------------------------------

void RocksStore::State::Finish(LoopSide& loop, Group& group) {
  if (loop.closed) return;
  for (auto& commit : group) {
    loop.uncommitted.Remove(commit->number, commit->batch);
    loop.applied_number = commit->number;
  }
  while (!loop.deferred.empty() && loop.deferred.front().after <= loop.applied_number) {
    Task start = std::move(loop.deferred.front().start);
    loop.deferred.pop_front();
    start();
  }
  for (auto& commit : group) {
    commit->done(std::move(commit->outcome));
    if (loop.closed) return;  // The callback destroyed the store.
  }
}

void RocksStore::State::StartRead(uint64_t after, Task start) {
  counters.reads += 1;
  if (after == 0) {
    reads.Push(std::move(start));
    return;
  }
  counters.reads_deferred += 1;
  // In the order of what they wait for.
  auto& deferred = loop->deferred;
  auto place = deferred.end();
  while (place != deferred.begin() && std::prev(place)->after > after) --place;
  deferred.insert(place, {after, [this, start = std::move(start)]() mutable { reads.Push(std::move(start)); }});
}

// --- The door ---------------------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<RocksStore>> RocksStore::Open(RocksStoreOptions options) {
  CHECK(options.post != nullptr);
  CHECK(options.reader_threads >= 1);
  if (options.path.empty()) return absl::InvalidArgumentError("store: no path given");
  if (absl::Status made = store::MakeStoreDirectory(options.path); !made.ok()) return made;
  auto lock = store::StoreLock::Acquire(options.path);
  if (!lock.ok()) return lock.status();
  auto db = RocksDb::Open(options.path, options.tuning);
  if (!db.ok()) return db.status();
  if (absl::Status claimed = ClaimStore(**db, options); !claimed.ok()) return claimed;
  auto state = std::make_unique<State>(std::move(options), *std::move(lock), *std::move(db));
  state->RefreshUsage();
  return std::unique_ptr<RocksStore>(new RocksStore(std::move(state)));
}

RocksStore::RocksStore(std::unique_ptr<State> state) : state_(std::move(state)) {
  State* s = state_.get();
  s->threads.emplace_back([s] { s->RunWriter(); });
  for (int i = 0; i < s->options.reader_threads; ++i) {
    s->threads.emplace_back([s] { s->RunReader(); });
  }
}

RocksStore::~RocksStore() {
  state_->loop->closed = true;
  state_->loop->deferred.clear();
  state_->closing = true;
  state_->commits.Close();
  state_->reads.Close();
  for (std::thread& thread : state_->threads) thread.join();
}

void RocksStore::Commit(StoreBatch batch, CommitDone done) {
  for (const StoredPage& page : batch.put_pages) CHECK(page.data != nullptr);
  auto commit = std::make_unique<PendingCommit>();
  commit->number = ++state_->loop->last_number;
  commit->bytes = BytesOf(batch);
  commit->batch = std::move(batch);
  commit->done = std::move(done);
  state_->loop->uncommitted.Add(commit->number, commit->batch);
  state_->commits.Push(std::move(commit));
}

void RocksStore::ReadPage(PageId page, bool with_data, ReadDone done) {
  State* s = state_.get();
  s->StartRead(s->loop->uncommitted.LastChangeOf(page), [s, page, with_data, done = std::move(done)]() mutable {
    absl::StatusOr<StoredPage> result = s->is_poisoned ? s->Poisoned() : s->db->ReadPage(page, with_data);
    if (absl::IsDataLoss(result.status())) s->counters.corrupt += 1;
    s->options.post([side = s->loop, done = std::move(done), result = std::move(result)]() mutable {
      if (!side->closed) done(std::move(result));
    });
  });
}

void RocksStore::ReadRecords(std::string prefix, RecordsDone done) {
  State* s = state_.get();
  const uint64_t after = s->loop->uncommitted.LastChangeOfRecords(prefix);
  s->StartRead(after, [s, prefix = std::move(prefix), done = std::move(done)]() mutable {
    absl::StatusOr<RocksDb::Records> result = s->is_poisoned ? s->Poisoned() : s->db->ReadRecords(prefix);
    if (absl::IsDataLoss(result.status())) s->counters.corrupt += 1;
    s->options.post([side = s->loop, done = std::move(done), result = std::move(result)]() mutable {
      if (!side->closed) done(std::move(result));
    });
  });
}

StoreUsage RocksStore::Usage() const {
  State* s = state_.get();
  const std::chrono::steady_clock::duration age(std::chrono::steady_clock::now().time_since_epoch().count() -
                                                s->usage_at);
  if (age > kUsageAge && !s->usage_running.exchange(true)) {
    s->reads.Push([s] { s->RefreshUsage(); });
  }
  return StoreUsage{.pages = s->usage_pages, .used_bytes = s->usage_bytes, .free_bytes = s->usage_free};
}

RocksStoreStatistics RocksStore::statistics() const {
  const Counters& c = state_->counters;
  return RocksStoreStatistics{.committed = c.committed,
                              .synced_writes = c.synced_writes,
                              .refused = c.refused,
                              .failed = c.failed,
                              .pages_written = c.pages_written,
                              .reads = c.reads,
                              .reads_deferred = c.reads_deferred,
                              .corrupt = c.corrupt};
}

}  // namespace mangrove
