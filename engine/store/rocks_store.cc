#include "engine/store/rocks_store.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/store/cleaner.h"
#include "engine/store/commit_log.h"
#include "engine/store/page_entry.h"
#include "engine/store/sealed_value.h"
#include "engine/store/segment_files.h"
#include "engine/store/store_directory.h"
#include "engine/store/store_writer.h"
#include "engine/store/unapplied_index.h"
#include "engine/store/work_queue.h"
#include "net/check.h"
#include "net/runtime/system_entropy.h"

namespace mangrove {
namespace {

using store::CommitGroup;
using store::CommitLog;
using store::PendingCommit;
using store::RocksDb;
using store::StoreStamp;
using Task = absl::AnyInvocable<void()>;

constexpr std::chrono::milliseconds kUsageAge{200};
// A segment is a part of what may be garbage, so that it is taken back in parts.
constexpr uint64_t kSegmentsOfSlack = 2;

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
  store::UnappliedIndex unapplied;
  // Commits that are durable, without their data, until the index of the pages is known to have them.
  std::deque<std::pair<uint64_t, StoreBatch>> durable;
  std::deque<PendingRead> deferred;
  std::function<void(int)> expect;

  void Expect(int change) const {
    if (expect) expect(change);
  }
};

struct Counters {
  std::atomic<uint64_t> reads{0}, reads_deferred{0}, corrupt{0};
};

uint64_t BytesOf(const StoreBatch& batch) {
  const StoreBatch* const one = &batch;
  return store::EncodedGroupBlocks({&one, 1}) * store::kBlockBytes;
}

void EndProcess(const absl::Status& status) {
  spdlog::critical("{}; ending the process: what is durable is known only after a restart", status.ToString());
  spdlog::shutdown();
  _exit(EXIT_FAILURE);
}

uint64_t SegmentBytes(const RocksStoreOptions& options) { return options.tuning.slack_bytes / kSegmentsOfSlack; }

// A new log, and the stamp of a store that has one.
absl::StatusOr<std::unique_ptr<CommitLog>> MakeStore(RocksDb& db, store::SegmentFiles& files,
                                                     const RocksStoreOptions& options, const StoreStamp& stamp) {
  const auto empty = db.Empty();
  if (!empty.ok()) return empty.status();
  if (!*empty) {
    return absl::FailedPreconditionError(
        absl::StrCat("store ", options.path, " has data and no stamp: it is no store"));
  }
  auto log = CommitLog::Create({.salt = stamp.log_salt, .segment_bytes = SegmentBytes(options)}, &files);
  if (!log.ok()) return log.status();
  if (absl::Status stamped = db.WriteStamp(store::EncodeStamp(stamp)); !stamped.ok()) return stamped;
  return log;
}

// Applies what is in the log only.
absl::StatusOr<std::unique_ptr<CommitLog>> RecoverStore(RocksDb& db, store::SegmentFiles& files,
                                                        const RocksStoreOptions& options, const StoreStamp& stamp) {
  const auto durable = db.DurablePosition();
  if (!durable.ok()) return durable.status();
  auto log = CommitLog::Open({.salt = stamp.log_salt, .segment_bytes = SegmentBytes(options)}, &files, *durable,
                             [&db](const store::LoggedGroup& group) {
                               store::IndexUpdate update{.position = group.position};
                               for (const auto& change : group.changes) update.changes.push_back(&change);
                               if (group.sealed.has_value()) update.sealed.push_back(*group.sealed);
                               return db.Apply(update);
                             });
  return absl::IsDataLoss(log.status()) ? store::WithAdvice(log.status(), options.path) : std::move(log);
}

absl::StatusOr<StoreStamp> ClaimStore(RocksDb& db, const RocksStoreOptions& options, bool& is_made) {
  const StoreStamp wanted{store::kStoreFormat, options.cluster, options.node, SystemEntropy().Next()};
  const auto stored = db.ReadStamp();
  if (!stored.ok()) return stored.status();
  is_made = stored->has_value();
  if (!is_made) return wanted;
  const auto found = store::DecodeStamp(**stored);
  if (!found.ok()) return store::WithAdvice(found.status(), options.path);
  if (absl::Status ours = store::CheckStamp(options.path, *found, wanted); !ours.ok()) return ours;
  return *found;
}

}  // namespace

struct RocksStore::State {
  State(RocksStoreOptions o, store::StoreLock l)
      : options(std::move(o)), lock(std::move(l)), files(options.path + "/segments"), reads(options.spin_ns, 0) {}

  absl::Status Open();
  void StartThreads();
  void RunReader();
  void WriteTables();
  absl::StatusOr<StoredPage> ReadPage(PageId page, bool with_data);
  std::vector<absl::StatusOr<StoredPage>> ReadPages(PageRange range, bool with_data);
  void ReadData(const std::vector<absl::StatusOr<store::PageEntry>>& entries,
                std::vector<absl::StatusOr<StoredPage>>& pages);
  absl::StatusOr<PageList> ListPages(PageRange range, size_t most);
  bool IsTight() const { return store::FreeDiskBytes(options.path) / 2 < options.reserve_bytes; }
  void RefreshUsage();

  // On the loop.
  store::UnappliedIndex& Unapplied() {
    ForgetApplied();
    return loop->unapplied;
  }
  void ForgetApplied();
  void StartRead(uint64_t after, Task start);
  static void Finish(LoopSide& loop, CommitGroup& group);

  const RocksStoreOptions options;
  const store::StoreLock lock;
  store::SegmentFiles files;
  store::Poison poison;
  // Rung by RocksDB's threads, which end before it does.
  std::unique_ptr<store::Cleaner> cleaner;
  std::atomic<store::Cleaner*> told_of_tables{nullptr};
  std::unique_ptr<RocksDb> db;
  std::unique_ptr<CommitLog> log;
  std::unique_ptr<store::StoreWriter> writer;
  Counters counters;

  const std::shared_ptr<LoopSide> loop = std::make_shared<LoopSide>();

  store::WorkQueue<PendingRead> reads;
  std::atomic<bool> closing{false};
  std::vector<std::thread> readers;
  std::thread writing, cleaning;

  std::atomic<uint64_t> usage_pages{0}, usage_bytes{0}, usage_free{0};
  std::atomic<bool> usage_running{false};
  std::atomic<int64_t> usage_at{0};
};

absl::Status RocksStore::State::Open() {
  auto opened = RocksDb::Open(options.path, options.tuning, [this] {
    if (store::Cleaner* const told = told_of_tables) told->Ring();
  });
  if (!opened.ok()) return opened.status();
  db = *std::move(opened);
  bool is_made = false;
  const auto stamp = ClaimStore(*db, options, is_made);
  if (!stamp.ok()) return stamp.status();
  auto found = is_made ? RecoverStore(*db, files, options, *stamp) : MakeStore(*db, files, options, *stamp);
  if (!found.ok()) return found.status();
  log = *std::move(found);
  cleaner = std::make_unique<store::Cleaner>(
      store::CleanerOptions{.salt = stamp->log_salt,
                            .slack_bytes = options.tuning.slack_bytes,
                            .tight = [this] { return IsTight(); },
                            .move = [this](store::PageMove move) { return writer->Move(std::move(move)); },
                            .caught_up = [this] { writer->NoteCaughtUp(); }},
      db.get(), &files);
  writer = std::make_unique<store::StoreWriter>(
      store::WriterOptions{.path = options.path,
                           .reserve_bytes = options.reserve_bytes,
                           .spin_ns = options.spin_ns,
                           .gather_ns = options.gather_ns,
                           .log_bytes = options.tuning.log_bytes,
                           .segment_bytes = SegmentBytes(options),
                           .finish =
                               [this](std::shared_ptr<CommitGroup> group) {
                                 options.post([side = loop, group = std::move(group)]() { Finish(*side, *group); });
                               },
                           .on_poisoned = options.on_poisoned ? options.on_poisoned : EndProcess},
      db.get(), log.get(), cleaner.get(), &poison);
  return cleaner->Open(log->position());
}

void RocksStore::State::StartThreads() {
  loop->expect = options.expect;
  writing = std::thread([this] { writer->Run(); });
  cleaning = std::thread([this] { cleaner->Run(); });
  told_of_tables = cleaner.get();
  cleaner->Ring();
  for (int i = 0; i < options.reader_threads; ++i) readers.emplace_back([this] { RunReader(); });
}

// At the end: the next start has nothing to replay then. Without the space for it, everything stays in the log.
void RocksStore::State::WriteTables() {
  if (poison || store::FreeDiskBytes(options.path) / 2 < db->Sizes().memory_bytes) return;
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
    writer->AwaitApplied(one.front().after);
    one.front().run();
  }
}

// A page can be moved between the look into the index and the read of its data; then the index says so.
absl::StatusOr<StoredPage> RocksStore::State::ReadPage(PageId page, bool with_data) {
  store::PagePlace looked_at;
  while (true) {
    if (poison) return poison.status();
    const auto entry = db->Find(page);
    if (!entry.ok()) return entry.status();
    StoredPage stored = store::HeaderOf(*entry);
    if (!with_data) return stored;
    auto data = NewPage();
    char* const bytes = reinterpret_cast<char*>(data->bytes.data());
    const absl::Status read = files.Read(entry->place, {bytes, kPageBytes});
    if (read.ok() && store::DataSum(bytes) == entry->data_sum) {
      stored.data = std::move(data);
      return stored;
    }
    if (entry->place == looked_at) {
      return store::CorruptPage(page, read.ok() ? "checksum of the data" : std::string(read.message()));
    }
    looked_at = entry->place;
  }
}

std::vector<absl::StatusOr<StoredPage>> RocksStore::State::ReadPages(PageRange range, bool with_data) {
  std::vector<absl::StatusOr<StoredPage>> pages;
  if (range.count == 1) {
    pages.push_back(ReadPage(range.first, with_data));
  } else if (poison) {
    pages.resize(range.count, poison.status());
  } else {
    const std::vector<absl::StatusOr<store::PageEntry>> entries = db->FindAll(range);
    for (const auto& entry : entries) {
      pages.push_back(entry.ok() ? store::HeaderOf(*entry) : absl::StatusOr<StoredPage>(entry.status()));
    }
    if (with_data) ReadData(entries, pages);
  }
  for (const auto& page : pages) counters.corrupt += absl::IsDataLoss(page.status()) ? 1 : 0;
  return pages;
}

// Of pages whose data lie one behind the other in one piece. What is not there any more, or is not sound, is read by itself.
void RocksStore::State::ReadData(const std::vector<absl::StatusOr<store::PageEntry>>& entries,
                                 std::vector<absl::StatusOr<StoredPage>>& pages) {
  for (size_t first = 0; first < pages.size();) {
    size_t count = 0;
    const auto goes_on = [&] {
      if (first + count == pages.size() || count == PageRow::kPages || !entries[first + count].ok()) return false;
      const store::PagePlace& place = entries[first + count]->place;
      return place == store::PagePlace{entries[first]->place.segment, entries[first]->place.block + count};
    };
    while (goes_on()) ++count;
    if (count > 0) {
      const std::shared_ptr<PageBytes> data = NewPages(count);
      char* const bytes = reinterpret_cast<char*>(data->bytes.data());
      const absl::Status read = files.Read(entries[first]->place, {bytes, count * kPageBytes});
      for (size_t i = 0; i < count; ++i) {
        StoredPage& page = *pages[first + i];
        const bool is_sound = read.ok() && store::DataSum(bytes + i * kPageBytes) == entries[first + i]->data_sum;
        if (is_sound) page.data = PageBuffer(data, data.get() + i);
        if (!is_sound) pages[first + i] = ReadPage(page.page, true);
      }
    }
    first += std::max<size_t>(count, 1);
  }
}

absl::StatusOr<PageList> RocksStore::State::ListPages(PageRange range, size_t most) {
  if (poison) return poison.status();
  absl::StatusOr<PageList> list = db->ListPages(range, most);
  if (absl::IsDataLoss(list.status())) counters.corrupt += 1;
  if (!list.ok()) return list;
  for (const StoredPage& page : list->pages) {
    if (page.version == Version{}) counters.corrupt += 1;
  }
  return list;
}

void RocksStore::State::RefreshUsage() {
  const store::RocksSizes sizes = db->Sizes();
  usage_pages = sizes.pages;
  usage_bytes = sizes.bytes + files.TotalBytes();
  usage_free = store::FreeDiskBytes(options.path);
  usage_at = std::chrono::steady_clock::now().time_since_epoch().count();
  usage_running = false;
}

// --- On the loop ------------------------------------------------------------------------------------------------------

void RocksStore::State::Finish(LoopSide& loop, CommitGroup& group) {
  if (loop.closed) return;
  loop.Expect(-static_cast<int>(group.size()));
  for (auto& commit : group) {
    for (StoredPage& page : commit->batch.put_pages) page.data = nullptr;
    loop.durable.emplace_back(commit->number, std::move(commit->batch));
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

void RocksStore::State::ForgetApplied() {
  for (auto& durable = loop->durable; !durable.empty() && durable.front().first <= writer->applied_commit();) {
    loop->unapplied.Remove(durable.front().first, durable.front().second);
    durable.pop_front();
  }
}

// `after`: the last commit that the read must see and that may not be applied; 0 if there is none.
void RocksStore::State::StartRead(uint64_t after, Task run) {
  counters.reads += 1;
  if (after <= loop->durable_number) {
    reads.Push({after, std::move(run)});
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
  auto state = std::make_unique<State>(std::move(options), *std::move(lock));
  if (absl::Status opened = state->Open(); !opened.ok()) return opened;
  state->RefreshUsage();
  return std::unique_ptr<RocksStore>(new RocksStore(std::move(state)));
}

RocksStore::RocksStore(std::unique_ptr<State> state) : state_(std::move(state)) { state_->StartThreads(); }

RocksStore::~RocksStore() {
  State* s = state_.get();
  s->loop->closed = true;
  s->loop->deferred.clear();
  s->closing = true;
  // The cleaner first: it waits for the writer.
  s->cleaner->Stop();
  s->cleaning.join();
  s->writer->Close();
  s->reads.Close();
  s->writing.join();
  for (std::thread& thread : s->readers) thread.join();
  s->WriteTables();
}

void RocksStore::Commit(StoreBatch batch, CommitDone done) {
  for (const StoredPage& page : batch.put_pages) CHECK(page.data != nullptr && page.page.value < kSpacePages);
  for (const PageRange& range : batch.delete_pages) CHECK(range.first.value + range.count <= kSpacePages);
  auto commit = std::make_unique<PendingCommit>();
  commit->number = ++state_->loop->last_number;
  commit->bytes = BytesOf(batch);
  commit->batch = std::move(batch);
  commit->done = std::move(done);
  state_->Unapplied().Add(commit->number, commit->batch);
  state_->loop->Expect(1);
  state_->writer->Push(std::move(commit));
}

void RocksStore::ReadPages(PageRange range, bool with_data, PagesDone done) {
  State* s = state_.get();
  uint64_t after = 0;
  const store::UnappliedIndex& unapplied = s->Unapplied();
  for (uint64_t i = 0; i < range.count; ++i) after = std::max(after, unapplied.LastChangeOf(range.first + i));
  s->StartRead(after, [s, range, with_data, done = std::move(done)]() mutable {
    std::vector<absl::StatusOr<StoredPage>> result = s->ReadPages(range, with_data);
    s->options.post([side = s->loop, done = std::move(done), result = std::move(result)]() mutable {
      if (!side->closed) done(std::move(result));
    });
  });
}

void RocksStore::ListPages(PageRange range, size_t most, Listed what, ListDone done) {
  CHECK(range.first.value <= kSpacePages && range.count <= kSpacePages - range.first.value);
  CHECK(most > 0);
  State* s = state_.get();
  // Which of those on their way are in the range is not looked for: these may be many.
  const uint64_t after = what == Listed::kAll ? s->Unapplied().LastChangeOfAnyPage() : 0;
  s->StartRead(after, [s, range, most, done = std::move(done)]() mutable {
    absl::StatusOr<PageList> result = s->ListPages(range, most);
    s->options.post([side = s->loop, done = std::move(done), result = std::move(result)]() mutable {
      if (!side->closed) done(std::move(result));
    });
  });
}

void RocksStore::ReadRecords(std::string prefix, RecordsDone done) {
  State* s = state_.get();
  const uint64_t after = s->Unapplied().LastChangeOfRecords(prefix);
  s->StartRead(after, [s, prefix = std::move(prefix), done = std::move(done)]() mutable {
    absl::StatusOr<RocksDb::Records> result = s->poison ? s->poison.status() : s->db->ReadRecords(prefix);
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
  const store::WriterCounters& w = state_->writer->counters();
  const store::CleanerStatistics cleaner = state_->cleaner->statistics();
  const Counters& c = state_->counters;
  return RocksStoreStatistics{.committed = w.committed,
                              .synced_writes = w.synced_writes,
                              .refused = w.refused,
                              .failed = w.failed,
                              .pages_written = w.pages_written,
                              .reads = c.reads,
                              .reads_deferred = c.reads_deferred,
                              .corrupt = c.corrupt,
                              .pages_moved = cleaner.pages_moved,
                              .segments_emptied = cleaner.segments_emptied,
                              .segments_kept = cleaner.segments_kept};
}

}  // namespace mangrove
