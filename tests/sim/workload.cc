#include "tests/sim/workload.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"

namespace mangrove::sim {

namespace {

constexpr uint64_t kRunPages = 16;
// Within a segment.
constexpr uint64_t kHotOffset = 200;
constexpr uint64_t kChurnOffset = 300;
constexpr uint64_t kChurnPages = 4;
constexpr uint64_t kMaxSegments = 6;
constexpr uint64_t kMaxSegmentsApart = 12;  // With others between them, so that each is a run of its own.
constexpr DurationNs kWorkloadPrepareBound = 30 * kSecond;
// A call that was left open has died out by then: longer than the latest message and the longest pause.
constexpr DurationNs kLeaveAlone = 4 * kSecond;
constexpr DurationNs kAtOnce = kMillisecond;
constexpr int kMostTriesAtOnce = 1000;
constexpr const char* kAcquireForReading = "acquire for reading";

}  // namespace

const char* Name(OperationKind kind) {
  static constexpr std::array<const char*, kOperationKinds> kNames{"load",  "store", "modify", "lock",
                                                                   "flush", "churn", "scan"};
  return kNames[static_cast<size_t>(kind)];
}

// Tells the oracle of the begin and of the end, also when the frame goes with its node.
class Workload::Pending {
 public:
  enum class Change : uint8_t { kNone, kAllocate, kUnallocate };

  Pending(Client& client, const char* what, const PageRange& range, TimeNs deadline, Change change = Change::kNone)
      : oracle_(client.workload->oracle_),
        world_(client.workload->world_),
        slot_(client.host->slot),
        client_(client.id),
        what_(what),
        range_(range),
        change_(change),
        before_(oracle_->StateOf(range)),
        began_(world_->now()),
        only_read_(IsOnlyRead(*client.host->memory, range)) {
    const DurationNs left = std::max<DurationNs>(deadline - client.host->clock->Now(), 0);
    // Clocks are up to a percent apart.
    id_ = oracle_->BeginOperation(slot_, world_->now() + left + left / 100, what, range);
    world_->Trace("node ", slot_ + 1, " client ", client.id, ": ", what, " of ", range);
    if (change_ == Change::kAllocate) oracle_->BeginAllocate(range_);
    if (change_ == Change::kUnallocate) oracle_->BeginUnallocate(range_);
  }
  Pending(const Pending&) = delete;
  Pending& operator=(const Pending&) = delete;
  ~Pending() {
    if (!ended_) EndChange(absl::UnavailableError("the node died"));
  }

  void End(const absl::Status& status) {
    ended_ = true;
    world_->Trace("node ", slot_ + 1, " client ", client_, ": ", what_, " ends: ", status);
    oracle_->EndOperation(id_);
    CheckOnlyRead(status);
    if (change_ == Change::kNone) {
      oracle_->CheckAnswer(what_, slot_, range_, before_, status);
    } else {
      EndChange(status);
    }
  }

 private:
  static bool IsOnlyRead(const SimMemory& memory, const PageRange& range) {
    bool all = true;
    for (uint64_t i = 0; i < range.count; ++i) all = all && memory.IsOnlyRead(range.first + i);
    return all;
  }
  // O9. Of what had begun before nothing is said.
  void CheckOnlyRead(const absl::Status& status) const {
    if (!only_read_ || change_ != Change::kNone) return;  // Calls that allocate are refused above the engine.
    const bool may_be_ok = std::string_view(what_) == kAcquireForReading;
    if (world_->now() < began_ + kAtOnce && (absl::IsUnavailable(status) || (may_be_ok && status.ok()))) return;
    world_->Fail(absl::StrCat("O9: ", what_, " of ", ToString(range_), " on node ", slot_ + 1,
                              ", which has no lease, ends after ", (world_->now() - began_) / kMicrosecond,
                              " us with \"", status.ToString(), "\""));
  }
  void EndChange(const absl::Status& status) {
    if (change_ == Change::kAllocate) oracle_->EndAllocate(range_, status);
    if (change_ == Change::kUnallocate) oracle_->EndUnallocate(range_, status);
  }

  Oracle* const oracle_;
  SimWorld* const world_;
  const int slot_;
  const uint64_t client_;
  const char* const what_;
  const PageRange range_;
  const Change change_;
  const Oracle::RangeState before_;
  const TimeNs began_;
  const bool only_read_;  // Then.
  uint64_t id_ = 0;
  bool ended_ = false;
};

Workload::Workload(SimCluster* cluster, const WorkloadOptions& options)
    : cluster_(cluster), world_(&cluster->world()), oracle_(&cluster->oracle()), options_(options) {
  Layout(world_->Fork("layout"));
}

void Workload::Layout(SimRandom random) {
  uint64_t segments = 1 + random.Below(kMaxSegments);
  uint64_t apart = 1;
  if (SimRandom far = world_->Fork("far apart"); far.PerMille(400)) {
    segments = 1 + far.Below(kMaxSegmentsApart);
    apart = 2;
  }
  const auto segment = [apart](uint64_t s) { return kFirstReservablePage + s * apart * kSegmentPages; };
  const auto add_run = [this](PageId first, uint64_t pages, std::vector<PageId>& into) {
    runs_.push_back({first, pages});
    oracle_->Manage(runs_.back());
    for (uint64_t i = 0; i < pages; ++i) into.push_back(first + i);
  };
  for (uint64_t i = 0; i < static_cast<uint64_t>(options_.hot_pages); i += 2) {
    add_run(segment(i / 2 % segments) + kHotOffset + i, 2, hot_);
  }
  for (uint64_t i = 0; i * kRunPages < static_cast<uint64_t>(options_.cold_pages); ++i) {
    add_run(segment(i % segments) + i / segments * (kRunPages + 1), kRunPages, cold_);
  }
  for (uint64_t i = 0; i < static_cast<uint64_t>(options_.churn_extents); ++i) {
    churn_.push_back({{segment(i % segments) + kChurnOffset + i * kChurnPages, kChurnPages}});
    oracle_->Manage(churn_.back().range);
  }
}

std::shared_ptr<Workload::Client> Workload::NewClient(SimHost& host, const char* purpose) {
  const uint64_t id = ++next_client_;
  return std::make_shared<Client>(Client{this, &host, id, world_->Fork(purpose, id)});
}

void Workload::OnReady(SimHost& host) {
  host.memory->SetLastMoment(
      [this, slot = host.slot, random = world_->Fork("last moment", ++next_client_)](PageId page) mutable {
        SimMemory& memory = *cluster_->host(slot).memory;
        if (!random.PerMille(600)) return;
        if (memory.CanWrite(page) && random.PerMille(700)) {
          Store(cluster_->host(slot), page);
        } else if (memory.CanRead(page)) {
          memory.ApplicationLoad(page);
        }
      });
  ScheduleTouch(host, std::make_shared<SimRandom>(world_->Fork("touch", ++next_client_)));
  if (stopped_ || !prepared_) return;
  for (int i = 0; i < options_.clients_per_node; ++i) host.applets.Run(RunClient(NewClient(host, "client")));
}

void Workload::ScheduleTouch(SimHost& host, std::shared_ptr<SimRandom> random) {
  const DurationNs delay = random->Spread(500 * kMicrosecond, 50 * kMillisecond);
  world_->After(delay, host.slot, EventKind::kApplication, [this, slot = host.slot, random = std::move(random)] {
    SimHost& h = cluster_->host(slot);
    for (int i = 0; i < 3; ++i) Touch(h, *random);
    if (!stopped_) ScheduleTouch(h, random);
  });
}

void Workload::Touch(SimHost& host, SimRandom& random) {
  const PageId page = PickPage(random);
  if (host.memory->CanWrite(page) && random.PerMille(300)) {
    Store(host, page);
  } else if (host.memory->CanRead(page)) {
    host.memory->ApplicationLoad(page);
  }
}

bool Workload::Store(SimHost& host, PageId page) {
  if (!host.memory->CanWrite(page)) return false;
  host.memory->ApplicationStore(page, oracle_->NextStamp(host.slot, host.life));
  return true;
}

PageId Workload::PickPage(SimRandom& random) const {
  if (!churn_.empty() && random.PerMille(options_.churn_per_mille)) {
    return churn_[random.Below(churn_.size())].range.first + random.Below(kChurnPages);
  }
  const std::vector<PageId>& from = cold_.empty() || random.PerMille(options_.hot_per_mille) ? hot_ : cold_;
  return from[random.Below(from.size())];
}

PageRange Workload::Clip(PageId first, uint64_t pages) const {
  for (const PageRange& run : runs_) {
    if (run.Contains(first)) return {first, std::min(pages, run.end() - first)};
  }
  return {first, 1};
}

PageRange Workload::PickRange(SimRandom& random, uint64_t max_pages) const {
  const PageId first = PickPage(random);
  return Clip(first, 1 + (random.PerMille(500) ? 0 : random.Below(max_pages)));
}

OperationKind Workload::PickKind(SimRandom& random) const {
  uint64_t total = 0;
  for (const uint32_t weight : options_.weights) total += weight;
  uint64_t at = random.Below(total);
  for (size_t kind = 0;; ++kind) {
    if (at < options_.weights[kind]) return static_cast<OperationKind>(kind);
    at -= options_.weights[kind];
  }
}

TimeNs Workload::PickDeadline(Client& client) {
  const uint64_t luck = client.random.Below(10);
  const DurationNs patience = luck == 0  ? client.random.Spread(kMillisecond, 50 * kMillisecond)
                              : luck < 7 ? client.random.Spread(500 * kMillisecond, 3 * kSecond)
                                         : 10 * kSecond;
  return client.host->clock->Now() + patience;
}

// --- One client -------------------------------------------------------------------------------------------------------

Task<bool> Workload::RunClient(std::shared_ptr<Client> client) {
  const Counted counted(&clients_running_);
  Clock* clock = client->host->clock.get();
  while (!stopped_) {
    co_await SleepUntil(clock, clock->Now() + client->random.Spread(options_.min_think, options_.max_think));
    if (stopped_) break;
    const OperationKind kind = PickKind(client->random);
    const bool ok = co_await RunOperation(*client, kind);
    if (!ok && client->host->stops) break;  // The node hangs up on its programs.
    ++counters_.ended;
    if (ok) {
      ++counters_.succeeded;
      ++counters_.by_kind[static_cast<size_t>(kind)];
    }
  }
  client->host->node->EndClient(client->id);
  co_return true;
}

Task<bool> Workload::RunOperation(Client& client, OperationKind kind) {
  const TimeNs deadline = PickDeadline(client);
  bool ok = false;
  if (kind == OperationKind::kLock) {
    ok = co_await LockAndUse(client, deadline);
  } else if (kind == OperationKind::kFlush) {
    const PageRange range = PickRange(client.random, 4 * options_.max_range);
    ok = co_await Flush(client, range, deadline);
  } else if (kind == OperationKind::kChurn) {
    ok = co_await Churn(client, client.host->clock->Now() + 10 * kSecond);
  } else if (kind == OperationKind::kScan) {
    ok = co_await Scan(client, deadline);
  } else {
    const PageRange range = PickRange(client.random, options_.max_range);
    ok = co_await Access(client, range, kind, deadline);
  }
  co_return ok;
}

// Reads page after page, upwards or downwards: the node reads ahead.
Task<bool> Workload::Scan(Client& client, TimeNs deadline) {
  const PageRange run = runs_[client.random.Below(runs_.size())];
  const bool up = client.random.Below(2) == 0;
  for (uint64_t i = 0, count = std::min(run.count, options_.max_scan); i < count; ++i) {
    const PageId page = run.first + (up ? i : run.count - 1 - i);
    const bool ok = co_await AccessPage(client, page, OperationKind::kLoad, deadline);
    if (!ok) co_return false;
  }
  co_return true;
}

Task<absl::Status> Workload::Acquire(Client& client, PageRange range, Rights rights, TimeNs deadline) {
  Pending pending(client, rights == Rights::kRead ? kAcquireForReading : "acquire for writing", range, deadline);
  absl::Status status = co_await client.host->node->Acquire(range, rights, deadline);
  pending.End(status);
  co_return status;
}

Task<bool> Workload::Access(Client& client, PageRange range, OperationKind kind, TimeNs deadline) {
  const Rights rights = kind == OperationKind::kLoad ? Rights::kRead : Rights::kWrite;
  const absl::Status status = co_await Acquire(client, range, rights, deadline);
  if (!status.ok()) co_return false;
  bool all = true;
  for (uint64_t i = 0; i < range.count; ++i) {
    const bool ok = co_await AccessPage(client, range.first + i, kind, deadline);
    all = all && ok;
  }
  co_return all;
}

// As a thread does that faults: again, until the access works.
Task<bool> Workload::AccessPage(Client& client, PageId page, OperationKind kind, TimeNs deadline) {
  SimHost& host = *client.host;
  const Rights rights = kind == OperationKind::kLoad ? Rights::kRead : Rights::kWrite;
  const auto may = [&] { return rights == Rights::kRead ? host.memory->CanRead(page) : host.memory->CanWrite(page); };
  TimeNs moment = world_->now();
  int tried = 0;  // At this moment: the loop itself must not be what never ends.
  while (!may()) {
    const absl::Status status = co_await Acquire(client, {page, 1}, rights, deadline);
    if (!status.ok() || world_->failed()) co_return false;
    if (std::exchange(moment, world_->now()) != moment) tried = 0;
    if (++tried < kMostTriesAtOnce) continue;
    const char* what = rights == Rights::kRead ? "reading" : "writing";
    world_->Fail(absl::StrCat("node ", client.host->slot + 1, " acquires ", ToString(page), " for ", what, " ", tried,
                              " times at one moment, and its memory does not allow it"));
    co_return false;
  }
  if (kind != OperationKind::kStore) host.memory->ApplicationLoad(page);
  if (kind != OperationKind::kLoad) Store(host, page);
  co_return true;
}

Task<bool> Workload::LockAndUse(Client& client, TimeNs deadline) {
  PageRange range = PickRange(client.random, options_.max_range);
  // Whether a locked page may be freed is not settled: locks keep off the extents that are.
  if (std::any_of(churn_.begin(), churn_.end(), [&](const Extent& e) { return e.range.Overlaps(range); })) {
    range = Clip(hot_[client.random.Below(hot_.size())], 2);
  }
  const LockMode mode = client.random.PerMille(600) ? LockMode::kExclusive : LockMode::kShared;
  Pending pending(client, mode == LockMode::kExclusive ? "exclusive lock" : "shared lock", range, deadline);
  absl::StatusOr<uint64_t> lock = co_await client.host->node->Lock(client.id, range, mode, deadline);
  pending.End(lock.status());
  if (!lock.ok()) co_return false;
  oracle_->OnLocked(client.host->slot, client.id, range, mode);
  if (world_->failed()) co_return false;
  const bool used = co_await UseLocked(client, range, mode, deadline);
  oracle_->OnUnlocked(client.host->slot, client.id, range, mode);
  const absl::Status unlocked = client.host->node->Unlock(client.id, *lock);
  if (!unlocked.ok()) world_->Fail(absl::StrCat("Unlock of a held lock: ", unlocked.ToString()));
  co_return used;
}

Task<bool> Workload::UseLocked(Client& client, PageRange range, LockMode mode, TimeNs deadline) {
  Clock* clock = client.host->clock.get();
  for (uint64_t round = 0, rounds = 1 + client.random.Below(3); round < rounds; ++round) {
    for (uint64_t i = 0; i < range.count; ++i) {
      const OperationKind kind = mode == LockMode::kShared ? OperationKind::kLoad : OperationKind::kReadModifyWrite;
      const bool ok = co_await AccessPage(client, range.first + i, kind, deadline);
      if (!ok && world_->failed()) co_return false;
    }
    co_await SleepUntil(clock, clock->Now() + client.random.Spread(kMicrosecond, options_.max_hold));
  }
  co_return true;
}

Task<bool> Workload::Flush(Client& client, PageRange range, TimeNs deadline) {
  Pending pending(client, "flush", range, deadline);
  const FlushTicket ticket = oracle_->BeginFlush(client.host->slot, range);
  const absl::Status status = co_await client.host->node->Flush(range, deadline);
  pending.End(status);
  oracle_->EndFlush(ticket, status);
  co_return status.ok();
}

// --- Allocation -------------------------------------------------------------------------------------------------------

Task<absl::Status> Workload::Allocate(Client& client, PageRange range, TimeNs deadline) {
  Pending pending(client, "allocate", range, deadline, Pending::Change::kAllocate);
  absl::Status status = co_await client.host->node->Allocate(range, deadline);
  pending.End(status);
  co_return status;
}

Task<absl::Status> Workload::Unallocate(Client& client, PageRange range, TimeNs deadline) {
  Pending pending(client, "unallocate", range, deadline, Pending::Change::kUnallocate);
  absl::Status status = co_await client.host->node->Unallocate(range, deadline);
  pending.End(status);
  co_return status;
}

Task<bool> Workload::Churn(Client& client, TimeNs deadline) {
  if (churn_.empty()) co_return false;
  Extent& extent = churn_[client.random.Below(churn_.size())];
  if (extent.busy || extent.leave_until > world_->now()) {
    const bool used = co_await Access(client, {extent.range.first, 1}, OperationKind::kStore, deadline);
    co_return used;
  }
  struct Busy {
    Extent* extent;
    SimWorld* world;
    bool certain = false;
    Busy(Extent* e, SimWorld* w) : extent(e), world(w) { extent->busy = true; }
    ~Busy() {
      extent->busy = false;
      if (!certain) extent->leave_until = world->now() + kLeaveAlone;
    }
  } busy(&extent, world_);
  const Oracle::RangeState state = oracle_->StateOf(extent.range);
  if (state.all_allocated) {
    const absl::Status status = co_await Unallocate(client, extent.range, deadline);
    busy.certain = status.ok();
    co_return status.ok();
  }
  const bool is_free = co_await FreeExtent(client, extent, deadline);
  if (!is_free) co_return false;
  const absl::Status status = co_await Allocate(client, extent.range, deadline);
  busy.certain = status.ok();
  co_return status.ok();
}

// Page by page, since the answers before may have left it open for each of them.
Task<bool> Workload::FreeExtent(Client& client, Extent& extent, TimeNs deadline) {
  for (uint64_t i = 0; i < extent.range.count; ++i) {
    const PageRange page{extent.range.first + i, 1};
    if (oracle_->IsFree(page.first)) continue;
    const absl::Status status = co_await Unallocate(client, page, deadline);
    if (!status.ok() && !absl::IsFailedPrecondition(status)) co_return false;
  }
  co_return true;
}

void Workload::Prepare() {
  SimHost& host = cluster_->host(0);
  host.applets.Run(PrepareAll(NewClient(host, "prepare")));
}

Task<bool> Workload::PrepareAll(std::shared_ptr<Client> client) {
  const TimeNs deadline = client->host->clock->Now() + kWorkloadPrepareBound;
  std::vector<PageRange> ranges = runs_;
  for (const Extent& extent : churn_) ranges.push_back(extent.range);
  for (const PageRange& range : ranges) {
    const absl::Status status = co_await Allocate(*client, range, deadline);
    if (!status.ok()) {
      world_->Fail(absl::StrCat("a sound cluster cannot allocate ", ToString(range), ": ", status.ToString()));
      co_return false;
    }
  }
  prepared_ = true;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    SimHost& host = cluster_->host(slot);
    if (!host.in_service()) continue;
    for (int i = 0; i < options_.clients_per_node; ++i) host.applets.Run(RunClient(NewClient(host, "client")));
  }
  co_return true;
}

// --- After the faults -------------------------------------------------------------------------------------------------

void Workload::StartProgressCheck(DurationNs bound) {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    SimHost& host = cluster_->host(slot);
    if (!host.in_service()) continue;
    ++checks_running_;
    host.applets.Run(CheckProgress(NewClient(host, "progress"), bound));
  }
}

Task<bool> Workload::CheckProgress(std::shared_ptr<Client> client, DurationNs bound) {
  for (const PageId page : hot_) {
    const bool ok = co_await CheckPage(*client, page, bound);
    if (!ok) co_return false;
  }
  for (int i = 0; i < 4 && !cold_.empty(); ++i) {
    const bool ok = co_await CheckPage(*client, cold_[client->random.Below(cold_.size())], bound);
    if (!ok) co_return false;
  }
  --checks_running_;
  co_return true;
}

Task<bool> Workload::CheckPage(Client& client, PageId page, DurationNs bound) {
  const TimeNs deadline = client.host->clock->Now() + bound;
  const bool stored = co_await AccessPage(client, page, OperationKind::kReadModifyWrite, deadline);
  bool locked = false;
  bool flushed = false;
  if (stored) {
    Pending pending(client, "exclusive lock", {page, 1}, deadline);
    absl::StatusOr<uint64_t> lock =
        co_await client.host->node->Lock(client.id, {page, 1}, LockMode::kExclusive, deadline);
    pending.End(lock.status());
    locked = lock.ok() && client.host->node->Unlock(client.id, *lock).ok();
  }
  if (locked) flushed = co_await Flush(client, {page, 1}, deadline);
  // That something was lost before is said once.
  if (locked && !flushed) flushed = co_await Flush(client, {page, 1}, deadline);
  const bool ok = flushed || oracle_->MayBeLost(page);
  if (!ok) {
    world_->Fail(absl::StrCat("no progress without faults: page ", ToString(page), " on node ", client.host->slot + 1,
                              stored ? locked ? " cannot be flushed" : " cannot be locked" : " cannot be stored to"));
  }
  co_return ok;
}

std::vector<PageId> Workload::pages() const {
  std::vector<PageId> pages = hot_;
  pages.insert(pages.end(), cold_.begin(), cold_.end());
  return pages;
}

void Workload::StartReadAll(int slot, DurationNs bound) {
  ++checks_running_;
  SimHost& host = cluster_->host(slot);
  host.applets.Run(ReadAll(NewClient(host, "read all"), bound));
}

Task<bool> Workload::ReadAll(std::shared_ptr<Client> client, DurationNs bound) {
  for (const PageId page : pages()) {
    const TimeNs deadline = client->host->clock->Now() + bound;
    const bool ok = co_await AccessPage(*client, page, OperationKind::kLoad, deadline);
    if (!ok && !oracle_->MayBeLost(page)) {
      world_->Fail(absl::StrCat("page ", ToString(page), " cannot be read on node ", client->host->slot + 1));
      co_return false;
    }
  }
  --checks_running_;
  co_return true;
}

}  // namespace mangrove::sim
