#include "engine/store/rocks_store.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/store/commit_log.h"
#include "engine/store/page_record.h"
#include "engine/store/rocks_open.h"
#include "engine/store/sealed_value.h"
#include "engine/store/store_directory.h"
#include "engine/store/uncommitted_index.h"
#include "engine/store/work_queue.h"
#include "net/check.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

using store::CommitLog;
using store::RocksDb;
using store::StoreStamp;
using Task = absl::AnyInvocable<void()>;

// One write is bounded, so that the first of many commits is not kept waiting for the last.
constexpr uint64_t kGroupBytes = uint64_t{4} << 20;
constexpr std::chrono::seconds kUsageAge{2};
// Of the log, what is applied at once; a group more at most, and never over two of its files.
constexpr uint64_t kHeldBytes = uint64_t{1} << 20;
// The log's files are a part of it, so that it can be released in parts.
constexpr uint64_t kLogSegments = 8;

// A commit on its way: loop, writer, loop.
struct PendingCommit {
  uint64_t number = 0;
  uint64_t bytes = 0;
  StoreBatch batch;
  PageStore::CommitDone done;
  absl::Status outcome;
};
using Group = std::vector<std::unique_ptr<PendingCommit>>;

// Groups that are in the log and not applied.
struct Held {
  uint64_t last_number = 0;  // Of the last commit, also if it is not among them.
  uint64_t log_bytes = 0;
  std::vector<std::shared_ptr<Group>> groups;
  std::vector<const StoreBatch*> batches;
};

// A read, and the commit that it must see.
struct PendingRead {
  uint64_t after;
  Task run;
};

// What only the loop touches. Outlives the store in the tasks that are posted, which then find it closed.
struct LoopSide {
  bool closed = false;
  uint64_t last_number = 0;
  uint64_t durable_number = 0;
  store::UncommittedIndex uncommitted;
  std::deque<PendingRead> deferred;
  std::function<void(int)> expect;

  void Expect(int change) const {
    if (expect) expect(change);
  }
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

store::CommitLogOptions LogOptions(const RocksStoreOptions& options, const StoreStamp& stamp) {
  return {.directory = options.path + "/commits",
          .salt = stamp.log_salt,
          .segment_bytes = options.tuning.log_bytes / kLogSegments};
}

// A new log, and the stamp of a store that has one.
absl::StatusOr<std::unique_ptr<CommitLog>> MakeStore(RocksDb& db, const RocksStoreOptions& options,
                                                     const StoreStamp& stamp) {
  const auto empty = db.Empty();
  if (!empty.ok()) return empty.status();
  if (!*empty) {
    return absl::FailedPreconditionError(
        absl::StrCat("store ", options.path, " has data and no stamp: it is no store"));
  }
  auto log = CommitLog::Create(LogOptions(options, stamp));
  if (!log.ok()) return log.status();
  if (absl::Status stamped = db.WriteStamp(store::EncodeStamp(stamp)); !stamped.ok()) return stamped;
  return log;
}

// Applies what is in the log only.
absl::StatusOr<std::unique_ptr<CommitLog>> RecoverStore(RocksDb& db, const RocksStoreOptions& options,
                                                        const StoreStamp& stamp) {
  const auto durable = db.DurableGroup();
  if (!durable.ok()) return durable.status();
  auto log = CommitLog::Open(
      LogOptions(options, stamp), *durable,
      [&db](uint64_t number, std::span<const StoreBatch* const> batches) { return db.Apply(number, batches); });
  return absl::IsDataLoss(log.status()) ? store::WithAdvice(log.status(), options.path) : std::move(log);
}

absl::StatusOr<std::unique_ptr<CommitLog>> ClaimStore(RocksDb& db, const RocksStoreOptions& options) {
  const StoreStamp wanted{store::kStoreFormat, options.cluster, options.node, SystemEntropy().Next()};
  const auto stored = db.ReadStamp();
  if (!stored.ok()) return stored.status();
  if (!stored->has_value()) return MakeStore(db, options, wanted);
  const auto found = store::DecodeStamp(**stored);
  if (!found.ok()) return store::WithAdvice(found.status(), options.path);
  if (absl::Status ours = store::CheckStamp(options.path, *found, wanted); !ours.ok()) return ours;
  return RecoverStore(db, options, *found);
}

}  // namespace

struct RocksStore::State {
  State(RocksStoreOptions o, store::StoreLock l, std::unique_ptr<RocksDb> d, std::unique_ptr<CommitLog> g)
      : options(std::move(o)),
        lock(std::move(l)),
        db(std::move(d)),
        log(std::move(g)),
        space(options.path, options.reserve_bytes),
        commits(options.spin_ns, options.gather_ns),
        reads(options.spin_ns, 0) {}

  void RunWriter();
  void RunReader();
  std::vector<const StoreBatch*> WriteGroup(Group& group);
  std::vector<const StoreBatch*> Admit(Group& group);
  std::vector<const StoreBatch*> AdmitBySpace(Group& group);
  void Hold(const std::shared_ptr<Group>& group, std::span<const StoreBatch* const> written);
  void Apply();
  absl::Status TrimLog();
  void WriteTables();
  void AwaitApplied(uint64_t number);
  void Poison(const absl::Status& status);
  absl::Status Poisoned() const;
  void RefreshUsage();

  // On the loop.
  void StartRead(uint64_t after, Task start);
  static void Finish(LoopSide& loop, Group& group);

  const RocksStoreOptions options;
  const store::StoreLock lock;
  const std::unique_ptr<RocksDb> db;
  const std::unique_ptr<CommitLog> log;  // The writer's, as are the next three.
  Held held;
  store::SpaceGuard space;
  uint64_t log_turns = 0;  // Of the log, when it was last trimmed.
  Counters counters;

  const std::shared_ptr<LoopSide> loop = std::make_shared<LoopSide>();

  store::WorkQueue<std::unique_ptr<PendingCommit>> commits;
  store::WorkQueue<PendingRead> reads;
  std::atomic<bool> closing{false};
  std::vector<std::thread> threads;

  // The last commit that reads find; moved by the writer.
  std::atomic<uint64_t> applied_number{0};
  std::atomic<bool> apply_wanted{false};
  std::mutex applied_mutex;
  std::condition_variable applied;

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
    // The loop's and this thread's: outcomes are told before the batches are applied.
    auto group = std::make_shared<Group>();
    uint64_t bytes = 0;
    const auto take = [&](const std::unique_ptr<PendingCommit>& next) {
      bytes += group->back()->bytes;
      return bytes + next->bytes <= kGroupBytes;
    };
    if (!commits.Pop(*group, expected, take, [this] { Apply(); })) return Apply();
    const std::vector<const StoreBatch*> written = WriteGroup(*group);
    // Who has one outcome often asks for the next commit.
    expected = group->size() + commits.size();
    Hold(group, written);
    options.post([side = loop, group = std::move(group)]() { Finish(*side, *group); });
    if (held.log_bytes >= kHeldBytes || log->turns() != log_turns || apply_wanted) Apply();
  }
}

// Gives each commit of the group its outcome. The batches that are now in the log.
std::vector<const StoreBatch*> RocksStore::State::WriteGroup(Group& group) {
  if (is_poisoned) {
    for (auto& commit : group) commit->outcome = Poisoned();
    counters.failed += group.size();
    return {};
  }
  std::vector<const StoreBatch*> admitted = Admit(group);
  if (admitted.empty()) return {};
  const absl::StatusOr<uint64_t> written = log->Append(admitted);
  if (!written.ok()) {
    Poison(written.status());
    for (auto& commit : group) {
      if (commit->outcome.ok()) commit->outcome = Poisoned();
    }
    counters.failed += admitted.size();
    return {};
  }
  held.log_bytes += *written;
  counters.committed += admitted.size();
  counters.synced_writes += 1;
  for (const StoreBatch* batch : admitted) counters.pages_written += batch->put_pages.size();
  return admitted;
}

void RocksStore::State::Hold(const std::shared_ptr<Group>& group, std::span<const StoreBatch* const> written) {
  held.last_number = group->back()->number;
  if (written.empty()) return;
  held.groups.push_back(group);
  held.batches.insert(held.batches.end(), written.begin(), written.end());
}

// What is held is durable, so that nobody waits for this but reads of it. Many at once: what was written again is
// applied once.
void RocksStore::State::Apply() {
  if (held.last_number == applied_number) return;
  apply_wanted = false;
  if (!held.batches.empty() && !is_poisoned) {
    absl::Status status = db->Apply(log->last_number(), held.batches);
    if (status.ok()) status = TrimLog();
    if (!status.ok()) Poison(status);
  }
  {
    const std::lock_guard guard(applied_mutex);
    applied_number = held.last_number;
  }
  applied.notify_all();
  held = Held{.last_number = held.last_number};
}

// Lets the log go that the tables have, and keeps it from growing without bound where they cannot follow.
absl::Status RocksStore::State::TrimLog() {
  if (log->turns() == log_turns) return absl::OkStatus();
  log_turns = log->turns();
  if (absl::Status status = db->CheckBackground(); !status.ok()) return status;
  const auto release = [this] {
    const auto durable = db->DurableGroup();
    if (durable.ok()) log->Release(*durable);
    return durable.status();
  };
  if (absl::Status status = release(); !status.ok()) return status;
  if (log->used_bytes() >= 2 * options.tuning.log_bytes) {
    const absl::Status status = db->Flush();
    return status.ok() ? release() : status;
  }
  return log->used_bytes() >= options.tuning.log_bytes / 2 ? db->StartFlush() : absl::OkStatus();
}

// The batches of the group for which there is space; the others have their outcome.
std::vector<const StoreBatch*> RocksStore::State::Admit(Group& group) {
  const bool fresh = space.RefreshIfOld();
  std::vector<const StoreBatch*> admitted = AdmitBySpace(group);
  if (admitted.size() < group.size() && !fresh) {
    space.Refresh();
    admitted = AdmitBySpace(group);
  }
  counters.refused += group.size() - admitted.size();
  return admitted;
}

std::vector<const StoreBatch*> RocksStore::State::AdmitBySpace(Group& group) {
  std::vector<const StoreBatch*> admitted;
  admitted.reserve(group.size());
  for (auto& commit : group) {
    commit->outcome = space.Admit(commit->bytes, !commit->batch.put_pages.empty());
    if (commit->outcome.ok()) admitted.push_back(&commit->batch);
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

// At the end: the next start has nothing to replay then, and tools find everything in the tables. Without the space for
// it, everything stays in the log.
void RocksStore::State::WriteTables() {
  if (is_poisoned || store::FreeDiskBytes(options.path) / 2 < db->Sizes().memory_bytes) return;
  if (const absl::Status status = db->Flush(); !status.ok()) spdlog::warn("{}", status.ToString());
}

// --- The reader threads -----------------------------------------------------------------------------------------------

void RocksStore::State::RunReader() {
  while (true) {
    std::vector<PendingRead> one;
    if (!reads.Pop(
            one, 1, [](const PendingRead&) { return false; }, [] {}))
      return;
    if (closing) continue;
    AwaitApplied(one.front().after);
    one.front().run();
  }
}

// Of a commit that is durable. The writer applies it when it is done with the group that it is at, or is idle.
void RocksStore::State::AwaitApplied(uint64_t number) {
  if (applied_number >= number) return;
  apply_wanted = true;
  std::unique_lock guard(applied_mutex);
  applied.wait(guard, [&] { return applied_number >= number; });
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
  loop.Expect(-static_cast<int>(group.size()));
  for (auto& commit : group) {
    loop.uncommitted.Remove(commit->number, commit->batch);
    loop.durable_number = commit->number;
  }
  while (!loop.deferred.empty() && loop.deferred.front().after <= loop.durable_number) {
    Task start = std::move(loop.deferred.front().run);
    loop.deferred.pop_front();
    start();
  }
  for (auto& commit : group) {
    // It goes here, not with the group, which the writer may be the last to have.
    PageStore::CommitDone done = std::exchange(commit->done, nullptr);
    done(std::move(commit->outcome));
    if (loop.closed) return;  // The callback destroyed the store.
  }
}

// `after`: the last commit on its way that the read must see; 0 if there is none.
void RocksStore::State::StartRead(uint64_t after, Task run) {
  counters.reads += 1;
  if (after == 0) {
    reads.Push({loop->durable_number, std::move(run)});
    return;
  }
  counters.reads_deferred += 1;
  // In the order of what they wait for.
  auto& deferred = loop->deferred;
  auto place = deferred.end();
  while (place != deferred.begin() && std::prev(place)->after > after) --place;
  deferred.insert(place, {after, [this, after, run = std::move(run)]() mutable {
                            reads.Push({after, std::move(run)});
                          }});
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
  auto log = ClaimStore(**db, options);
  if (!log.ok()) return log.status();
  auto state = std::make_unique<State>(std::move(options), *std::move(lock), *std::move(db), *std::move(log));
  state->RefreshUsage();
  return std::unique_ptr<RocksStore>(new RocksStore(std::move(state)));
}

RocksStore::RocksStore(std::unique_ptr<State> state) : state_(std::move(state)) {
  State* s = state_.get();
  s->loop->expect = s->options.expect;
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
  state_->WriteTables();
}

void RocksStore::Commit(StoreBatch batch, CommitDone done) {
  for (const StoredPage& page : batch.put_pages) CHECK(page.data != nullptr && page.page.value < kSpacePages);
  for (const PageRange& range : batch.delete_pages) CHECK(range.first.value + range.count <= kSpacePages);
  auto commit = std::make_unique<PendingCommit>();
  commit->number = ++state_->loop->last_number;
  commit->bytes = BytesOf(batch);
  commit->batch = std::move(batch);
  commit->done = std::move(done);
  state_->loop->uncommitted.Add(commit->number, commit->batch);
  state_->loop->Expect(1);
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
    s->reads.Push({0, [s] { s->RefreshUsage(); }});
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
