#include "tests/sim/scenario.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "recovery/anchor.h"
#include "tests/sim/accounts.h"
#include "tests/sim/anchors_oracle.h"
#include "tests/sim/disk_copies.h"
#include "tests/sim/engine_node.h"
#include "tests/sim/file_locks.h"
#include "tests/sim/files.h"
#include "tests/sim/kernel_caches.h"

namespace mangrove::sim {

namespace {

// A sound cluster serves every operation within this.
constexpr DurationNs kProgressBound = 20 * kSecond;
constexpr DurationNs kSettle = 2 * kSecond;
// At the disks that count.
constexpr uint64_t kEventsPerLook = 512;
// No run takes longer: what goes on for so long does not end.
constexpr DurationNs kMaxSimulated = 1800 * kSecond;

//                                             load store modify lock flush churn
constexpr std::array<uint32_t, kOperationKinds> kMixed{30, 25, 15, 10, 15, 5, 5};
constexpr std::array<uint32_t, kOperationKinds> kLocks{10, 10, 20, 50, 8, 2, 3};
constexpr std::array<uint32_t, kOperationKinds> kFlushes{20, 30, 10, 5, 35, 0, 3};
constexpr std::array<uint32_t, kOperationKinds> kChurn{20, 20, 10, 5, 15, 30, 10};
constexpr std::array<uint32_t, kOperationKinds> kReuses{5, 30, 5, 0, 35, 25, 0};
constexpr std::array<uint32_t, kOperationKinds> kStores{5, 40, 5, 0, 50, 0, 0};

// How the directory is used: how soon its pages are full, and how soon segments go to another node.
void UseDirectory(SimRandom random, ClusterOptions* cluster) {
  if (random.PerMille(700)) cluster->directory = {.runs = 4, .children = 4};
  if (random.PerMille(150)) return;
  cluster->move_after = static_cast<uint32_t>(random.Between(2, 12));
  cluster->move_stay = random.Spread(kMillisecond, 300 * kMillisecond);
}

ClusterOptions ClusterOf(const Scenario& scenario, SimRandom& random, SimRandom directory, const RunOptions& options) {
  const bool small_caches = (scenario.traits & kSmallCaches) != 0;
  ClusterOptions cluster;
  // Small clusters oftener: they are quicker, and most faults need few nodes.
  cluster.nodes = static_cast<int>(random.PerMille(700) ? random.Between(3, 5) : random.Between(6, 12));
  cluster.replicas = static_cast<uint32_t>(random.PerMille(600) ? 2 : random.Between(1, 3));
  cluster.cache_pages = static_cast<size_t>(small_caches ? random.Between(24, 40) : random.Between(48, 256));
  cluster.max_drift_ppm = random.PerMille(500) ? 0 : random.Between(1, 2000);
  cluster.memory.inline_per_mille = static_cast<uint32_t>(random.Below(1000));
  cluster.memory.slow_per_mille = static_cast<uint32_t>(random.Below(10));
  cluster.store.slow_per_mille = static_cast<uint32_t>(random.Below(20));
  cluster.bugs = &options.bugs;
  if ((scenario.traits & kMoves) != 0) {
    cluster.nodes = static_cast<int>(directory.Between(4, 7));
    if (directory.PerMille(500)) cluster.replace_after = directory.Spread(100 * kMillisecond, 3 * kSecond);
    if ((scenario.traits & kJoins) != 0) {
      cluster.late = static_cast<int>(directory.Between(1, 3));
      cluster.nodes = static_cast<int>(directory.Between(3, 4)) + cluster.late;
    }
  }
  if ((scenario.traits & kSizes) != 0) cluster.reweigh_after = directory.Spread(50 * kMillisecond, 2 * kSecond);
  if ((scenario.traits & kNewAnchors) != 0) {
    cluster.nodes = 2 * kAnchors + cluster.late + static_cast<int>(directory.Between(1, 2));
    cluster.replace_after =
        directory.Spread(100 * kMillisecond, 3 * kSecond);  // Or who is away holds up that others leave.
  }
  if ((scenario.traits & kReturns) != 0) {  // So each page has one disk besides the one that comes back.
    cluster.nodes = static_cast<int>(directory.Between(5, 6));
    cluster.replicas = 2;
  }
  UseDirectory(std::move(directory), &cluster);
  return cluster;
}

// Whether there are nodes with room for what does not fit elsewhere, and whether it goes there.
ClusterOptions WithRoom(ClusterOptions cluster, const Scenario& scenario, SimRandom random) {
  const bool uneven = (scenario.traits & kUnevenCaches) != 0;
  if (uneven || random.PerMille(300)) cluster.large_cache_pages = static_cast<size_t>(random.Between(64, 256));
  cluster.evict_to_peers = uneven || random.PerMille(850);
  return cluster;
}

// How fast disks get what they lack. They lack some hundred pages at most.
ClusterOptions WithRepairLimit(ClusterOptions cluster, SimRandom random) {
  if (random.PerMille(300)) {
    cluster.repair_bytes_per_second = static_cast<uint64_t>(random.Spread(int64_t{256} << 10, int64_t{16} << 20));
  }
  return cluster;
}

WorkloadOptions WorkloadOf(const Scenario& scenario, SimRandom& random) {
  const bool small_caches = (scenario.traits & kSmallCaches) != 0;
  WorkloadOptions work;
  work.weights = scenario.work;
  work.clients_per_node = static_cast<int>(random.Between(1, 4));
  work.hot_pages = static_cast<int>(2 * random.Between(1, 4));
  work.cold_pages = static_cast<int>(16 * random.Between(small_caches ? 4 : 1, 8));
  work.churn_extents = static_cast<int>(random.Between(1, 4));
  work.max_range = static_cast<uint64_t>(random.Between(1, 8));
  work.hot_per_mille = static_cast<uint32_t>(small_caches ? random.Between(100, 400) : random.Between(300, 900));
  work.max_think = random.Spread(100 * kMicrosecond, 10 * kMillisecond);
  work.max_hold = random.Spread(100 * kMicrosecond, 20 * kMillisecond);
  if ((scenario.traits & kReturns) != 0) {
    work.hot_per_mille = 50;  // What others write soon anyway shows nothing.
    work.clients_per_node = 10;
    work.max_range = 2;
    work.cold_pages = 128;
    work.max_think = 100 * kMillisecond;
  }
  if ((scenario.traits & kReuse) != 0) work.churn_per_mille = 700;
  return work;
}

// Which regions are read without a lease: of the pages that work is done with all, or some.
ClusterOptions WithReaders(ClusterOptions cluster, const Scenario& scenario, SimRandom random) {
  if ((scenario.traits & kReaders) == 0) return cluster;
  const auto segments = static_cast<uint64_t>(random.PerMille(500) ? 100 : random.Between(1, 4));
  cluster.read_without_quorum = {kFirstReservablePage, segments * kSegmentPages};
  return cluster;
}

// How full the logs of transactions are.
ClusterOptions WithLogs(ClusterOptions cluster, const Scenario& scenario, SimRandom random) {
  if ((scenario.traits & (kAccounts | kFiles | kFileLocks | kKernelCaches)) == 0) return cluster;
  cluster.log_pages = static_cast<uint64_t>(random.Spread(8, 100));
  if ((scenario.traits & kMoves) == 0) cluster.nodes = std::min(cluster.nodes, 5);
  // What the operations of all users lock at a time has to fit.
  if ((scenario.traits & (kFiles | kFileLocks | kKernelCaches)) != 0)
    cluster.cache_pages = std::max<size_t>(cluster.cache_pages, 256);
  if ((scenario.traits & kLostNames) == 0) return cluster;
  const bool small = random.PerMille(600);
  cluster.nodes = small ? 5 : 8;
  cluster.replicas = small ? 3 : 2;
  return cluster;
}

std::unique_ptr<Work> MakeWork(SimCluster* cluster, const Scenario& scenario, SimRandom& random) {
  if ((scenario.traits & kFiles) != 0) {
    FilesOptions files;
    files.users_per_node = static_cast<int>(random.Between(1, 3));
    files.max_think = random.Spread(kMillisecond, 20 * kMillisecond);
    return std::make_unique<FilesWork>(cluster, files);
  }
  if ((scenario.traits & kFileLocks) != 0) {
    FileLocksOptions locks;
    locks.owners_per_node = static_cast<int>(random.Between(1, 4));
    locks.max_think = random.Spread(kMillisecond, 20 * kMillisecond);
    return std::make_unique<FileLocksWork>(cluster, locks);
  }
  if ((scenario.traits & kKernelCaches) != 0) {
    KernelCachesOptions caches;
    caches.programs_per_node = static_cast<int>(random.Between(1, 3));
    caches.max_think = random.Spread(kMillisecond, 30 * kMillisecond);
    return std::make_unique<KernelCachesWork>(cluster, caches);
  }
  if ((scenario.traits & kAccounts) == 0) return std::make_unique<Workload>(cluster, WorkloadOf(scenario, random));
  AccountsOptions accounts;
  accounts.clients_per_node = static_cast<int>(random.Between(1, 4));
  accounts.pages = static_cast<int>(random.Between(2, 6));
  accounts.accounts_per_page = static_cast<int>(random.Between(1, 4));
  accounts.max_think = random.Spread(kMillisecond, 20 * kMillisecond);
  return std::make_unique<AccountsWork>(cluster, accounts);
}

FaultOptions FaultsOf(const Scenario& scenario, SimRandom& random, int nodes, std::vector<PageId> pages) {
  FaultOptions faults;
  faults.must_stay = std::move(pages);
  faults.weights = scenario.faults;
  // Every node makes events; a large cluster must get something done between two faults as well.
  const uint64_t size = static_cast<uint64_t>(std::max(nodes, 4));
  faults.mean_events = size * static_cast<uint64_t>(random.Between(100, 400));
  // A transfer takes many; and most events of many nodes are none of it.
  if ((scenario.traits & (kAccounts | kFiles)) != 0 && (scenario.traits & kMoves) == 0) faults.mean_events *= 2;
  faults.max_down = random.Spread(20 * kMillisecond, 5 * kSecond);
  faults.max_cut = random.Spread(50 * kMillisecond, 4 * kSecond);
  faults.max_pause = random.Spread(200 * kMillisecond, 4 * kSecond);
  if (random.PerMille(300)) {  // Never quite calm.
    faults.calm.lose_per_mille = static_cast<uint32_t>(random.Below(20));
    faults.calm.double_per_mille = static_cast<uint32_t>(random.Below(20));
    faults.calm.overtake_per_mille = static_cast<uint32_t>(random.Below(100));
    faults.calm.late_per_mille = static_cast<uint32_t>(random.Below(10));
    faults.calm.late_pages_per_mille = faults.calm.late_per_mille;
  }
  if ((scenario.traits & kStragglers) != 0) {
    faults.calm.lose_per_mille = static_cast<uint32_t>(random.Between(20, 150));
    faults.calm.late_per_mille = static_cast<uint32_t>(random.Below(50));
    faults.calm.late_pages_per_mille = static_cast<uint32_t>(random.Between(300, 800));
    faults.calm.overtake_per_mille = 900;
    faults.calm.late_delay = random.Spread(200 * kMillisecond, 1500 * kMillisecond);
    faults.max_down = 20 * kMillisecond;
    faults.mean_events = size * static_cast<uint64_t>(random.Between(50, 100));
  }
  if ((scenario.traits & kReturns) != 0) {
    faults.one_at_a_time = faults.mute_at_return = true;
    faults.mean_events = size * static_cast<uint64_t>(random.Between(300, 800));
    faults.min_down = 1200 * kMillisecond;
    faults.max_down = random.Spread(1500 * kMillisecond, 4 * kSecond);
  }
  if ((scenario.traits & kReuse) != 0) {
    faults.calm.late_pages_per_mille = static_cast<uint32_t>(random.Between(200, 600));
    faults.calm.overtake_per_mille = 900;
    faults.calm.late_delay = random.Spread(200 * kMillisecond, 1500 * kMillisecond);
  }
  return faults;
}

// One seed: the world and all that is in it, and the phases of its run.
class Run {
 public:
  Run(uint64_t seed, const Scenario& scenario, const RunOptions& options)
      : options_(options),
        world_(seed),
        random_(world_.Fork("scenario")),
        oracle_(&world_),
        anchors_(&world_),
        cluster_(&world_, &oracle_,
                 WithRepairLimit(
                     WithReaders(WithLogs(WithRoom(ClusterOf(scenario, random_, world_.Fork("directory"), options),
                                                   scenario, world_.Fork("room")),
                                          scenario, world_.Fork("logs")),
                                 scenario, world_.Fork("readers")),
                     world_.Fork("repair")),
                 options.factory ? options.factory : NodeFactory(MakeEngineNode)),
        work_(MakeWork(&cluster_, scenario, random_)),
        faults_(&cluster_, FaultsOf(scenario, random_, cluster_.nodes(), work_->pages())) {
    world_.SetVerbose(options.verbose);
    world_.SetAfterEvent([this] {
      oracle_.AfterEvent();
      LookAtAnchors();
      const bool is_fault_next = faults_.AfterEvent(work_->counters().ended);
      const bool is_view_new = std::exchange(checked_in_, cluster_.newest_epoch()) != cluster_.newest_epoch();
      if (is_fault_next || is_view_new || world_.events() % kEventsPerLook == 0) CheckCurrentCopies();
    });
    cluster_.SetHooks([this](SimHost& host) { work_->OnReady(host); }, nullptr);
  }

  // What programs do ends before the work that they are part of.
  ~Run() {
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      if (cluster_.host(slot).up()) cluster_.Crash(slot);
    }
  }

  RunResult Go() {
    Prepare();
    Work();
    Quiesce();
    PowerCycle();
    return Result();
  }

 private:
  template <typename Condition>
  void RunUntil(const char* what, DurationNs bound, Condition condition) {
    const TimeNs limit = world_.now() + bound;
    while (!world_.failed() && !condition()) {
      if (!world_.Step()) world_.Fail(absl::StrCat("nothing happens any more: ", what));
      if (world_.now() > limit) world_.Fail(absl::StrCat("takes for ever: ", what));
    }
  }

  void StartAll() {
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      if (!cluster_.host(slot).up()) cluster_.Start(slot);
    }
    RunUntil("nodes start", 60 * kSecond, [this] { return cluster_.AllReady(); });
    if (!world_.failed()) world_.RunUntil(world_.now() + kSettle);
  }

  void Prepare() {
    StartAll();
    if (world_.failed()) return;
    work_->Prepare();
    RunUntil("first allocation", 120 * kSecond, [this] { return work_->prepared(); });
  }

  void Work() {
    if (world_.failed()) return;
    faults_.Begin();
    RunUntil("work", kMaxSimulated, [this] {
      return work_->counters().ended >= options_.min_operations && faults_.injected() >= options_.min_faults &&
             !cluster_.IsReplacingAnchors();
    });
  }

  void Quiesce() {
    if (world_.failed()) return;
    faults_.End();
    work_->StopClients();
    RunUntil("operations end", 60 * kSecond, [this] { return work_->AllClientsEnded() && cluster_.AllReady(); });
    if (world_.failed()) return;
    KeepPages();
    CheckCopies();
    if (world_.failed()) return;
    work_->StartProgressCheck(kProgressBound);
    RunUntil("progress check", 300 * kSecond, [this] { return work_->ProgressCheckEnded(); });
    CheckCopies();
  }

  void LookAtAnchors() {
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      const SimHost& host = cluster_.host(slot);
      const Anchor* const anchor = host.up() ? host.node->anchor() : nullptr;
      if (anchor != nullptr && anchor->has_log()) anchors_.OnAnchor(slot, host.life, *anchor->raft());
    }
  }

  // No disk is behind, and nothing moves.
  void KeepPages() {
    RunUntil("all nodes keep pages", 120 * kSecond, [this] { return cluster_.AllNodesKeepPages(); });
    if (!world_.failed()) world_.RunUntil(world_.now() + kSettle);
  }

  // O11: before anybody opens pages, which mends them.
  void CheckCopies() {
    if (world_.failed()) return;
    const DiskCopies copies(&cluster_);
    oracle_.CheckCopies([&copies](PageId page) { return copies.Of(page); });
  }

  // O12: before something becomes of what it finds, and when other disks count.
  void CheckCurrentCopies() {
    const DiskCopies copies(&cluster_);
    if (copies.epoch() != cluster_.newest_epoch()) return;  // Who knew that view is gone: others may have stored less.
    oracle_.CheckCurrentCopies([&copies](PageId page) { return copies.Of(page); });
  }

  // Every page was opened, and nobody has written since.
  void CheckThatCopiesAgree() {
    if (world_.failed()) return;
    std::string different = DiskCopies(&cluster_).FirstThatDiffers(work_->pages());
    if (!different.empty()) {
      world_.RunUntil(world_.now() + kSettle);
      different = DiskCopies(&cluster_).FirstThatDiffers(work_->pages());
    }
    if (!different.empty()) world_.Fail(absl::StrCat("copies of a page that was opened differ: ", different));
  }

  // Everything stops at once; what was flushed is there when it starts again.
  void PowerCycle() {
    if (world_.failed()) return;
    std::vector<int> slots;
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      if (!cluster_.host(slot).in_service()) continue;
      slots.push_back(slot);
      cluster_.Crash(slot);
    }
    StartAll();
    if (world_.failed()) return;
    KeepPages();
    CheckCopies();
    if (world_.failed()) return;
    work_->StartReadAll(slots[random_.Below(slots.size())], kProgressBound);
    RunUntil("reading everything", 600 * kSecond, [this] { return work_->ProgressCheckEnded(); });
    CheckThatCopiesAgree();
  }

  RunResult Result() {
    RunResult result;
    result.failure = world_.failure();
    result.hash = world_.hash();
    result.events = world_.events();
    result.operations = work_->counters().ended;
    result.succeeded = work_->counters().succeeded;
    result.operations_by_kind = work_->counters().by_kind;
    result.faults = faults_.injected();
    result.faults_by_kind = faults_.by_kind();
    result.reverts = oracle_.reverts();
    result.loads = oracle_.loads();
    result.stores = oracle_.stores();
    result.stale_loads = oracle_.stale_loads();
    result.weighed = cluster_.weighed();
    result.moved = cluster_.pages_moved();
    result.leaders = anchors_.leaders();
    result.committed = anchors_.committed();
    result.simulated = world_.now();
    result.nodes = cluster_.nodes();
    result.replicas = cluster_.options().replicas;
    return result;
  }

  const RunOptions& options_;
  SimWorld world_;
  SimRandom random_;
  Oracle oracle_;
  AnchorsOracle anchors_;
  SimCluster cluster_;
  std::unique_ptr<sim::Work> work_;
  FaultInjector faults_;
  Epoch checked_in_;
};

}  // namespace

const std::vector<Scenario>& Scenarios() {
  // clang-format off
  static const std::vector<Scenario> kScenarios{
      // Faults: crash, several, power, wipe, corrupt, cut, one-way, split, storm, pause, full, write error, false alarm, drain, give up,
      // join, other anchors, lost names, stop.
      {"default", "a bit of everything", kMixed, {20, 5, 2, 0, 2, 8, 8, 4, 12, 12, 4, 3, 12}},
      {"calm", "no faults but broken connections", kMixed, {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10}},
      {"crashes", "nodes die, alone and together", kMixed, {60, 15, 6, 0, 0, 0, 0, 0, 10, 5, 0, 0, 4}},
      {"partitions", "links are cut, in one direction or both", kMixed, {6, 0, 0, 0, 0, 25, 25, 20, 8, 6, 0, 0, 10}},
      {"storms", "messages are lost, doubled, late", kMixed, {8, 0, 0, 0, 0, 0, 0, 0, 80, 8, 0, 0, 4}},
      {"stragglers", "the dead are heard for long", kFlushes, {70, 5, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 15}, kStragglers},
      {"latecomers", "stragglers, and more pages than fit", kFlushes, {70, 5, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 15}, kStragglers | kSmallCaches},
      {"pauses", "nodes and their programs stand still", kMixed, {10, 0, 0, 0, 0, 5, 5, 0, 10, 65, 0, 0, 5}},
      {"locks", "programs hold page locks", kLocks, {25, 4, 1, 0, 0, 8, 8, 4, 15, 15, 0, 0, 10}},
      {"evictions", "more pages than fit into memory", kMixed, {20, 4, 2, 0, 0, 6, 6, 4, 15, 10, 4, 0, 10}, kSmallCaches},
      {"room", "what does not fit into a node's memory fits into another's", kMixed, {20, 4, 2, 0, 0, 6, 6, 4, 15, 10, 4, 0, 10},
       kSmallCaches | kUnevenCaches},
      {"storage", "disks are full, corrupt or fail", kFlushes, {25, 8, 6, 0, 15, 4, 4, 2, 8, 4, 15, 10, 4}},
      {"allocation", "pages are freed and allocated again", kChurn, {20, 4, 2, 0, 0, 6, 6, 4, 15, 10, 2, 2, 8}},
      {"reuse", "pages are allocated again, and stores are late", kReuses, {6, 1, 1, 0, 0, 4, 4, 0, 4, 8, 8, 0, 30}, kReuse},
      {"returns", "disks are behind, and flushes go on meanwhile", kStores, {60, 4, 0, 6, 0, 4, 4, 0, 4, 4, 0, 0, 8}, kReturns},
      {"wipes", "nodes come back with empty disks", kFlushes, {10, 4, 2, 20, 6, 4, 4, 0, 8, 4, 0, 0, 4}},
      {"moves", "nodes leave and others keep their pages", kFlushes, {20, 4, 2, 0, 2, 6, 6, 3, 8, 8, 3, 2, 4, 35}, kMoves},
      {"sizes", "disks are of many sizes, and pages move by them", kFlushes, {20, 4, 2, 0, 2, 6, 6, 3, 8, 8, 3, 2, 4, 12}, kMoves | kSizes},
      {"replacements", "nodes leave, lose their disks, and come back", kChurn, {20, 4, 2, 8, 2, 6, 6, 3, 8, 8, 0, 0, 4, 20, 5}, kMoves},
      {"joins", "nodes come that nobody knew, others leave", kFlushes, {20, 4, 2, 2, 2, 6, 6, 3, 8, 8, 3, 2, 4, 20, 2, 25}, kMoves | kJoins},
      {"accounts", "transactions move money while nodes die", kMixed, {50, 12, 8, 2, 0, 6, 6, 4, 10, 10, 2, 2, 6}, kAccounts},
      {"names", "the page that names the logs of transactions is lost", kMixed, {50, 12, 8, 0, 0, 6, 6, 4, 10, 10, 2, 2, 6, 0, 0, 0, 0, 30}, kAccounts | kLostNames},
      {"anchors", "all anchors become others while a node is away", kFlushes, {20, 4, 2, 0, 0, 6, 6, 3, 8, 8, 3, 2, 4, 0, 0, 0, 25}, kMoves | kNewAnchors},
      {"upheaval", "transactions go on while nodes come, go and stop, and all anchors become others", kMixed,
       {15, 4, 2, 6, 2, 4, 4, 3, 6, 6, 2, 1, 4, 14, 6, 12, 40, 0, 12}, kAccounts | kMoves | kJoins | kNewAnchors},
      {"readers", "regions are read by nodes that are cut off", kMixed, {6, 1, 1, 0, 0, 15, 20, 30, 8, 15, 0, 0, 10}, kReaders},
      {"stops", "nodes are stopped in order and started again", kMixed, {12, 3, 1, 0, 0, 4, 4, 2, 12, 6, 2, 1, 5, 0, 0, 0, 0, 0, 60}},
      {"files", "users work with files while nodes die", kMixed, {50, 12, 8, 2, 0, 6, 6, 4, 10, 10, 2, 2, 6}, kFiles},
      {"filelocks", "owners on all nodes lock files", kMixed, {40, 10, 6, 0, 0, 8, 8, 6, 12, 12, 0, 0, 8}, kFileLocks},
      {"kernelcaches", "kernels on all nodes keep what they were told", kMixed, {15, 4, 3, 0, 0, 8, 8, 6, 12, 100, 0, 0, 8}, kKernelCaches},
  };
  // clang-format on
  return kScenarios;
}

const Scenario& ScenarioInTurn(uint64_t seed) { return Scenarios()[seed % Scenarios().size()]; }

const Scenario* FindScenario(std::string_view name) {
  const auto& all = Scenarios();
  const auto it = std::find_if(all.begin(), all.end(), [name](const Scenario& s) { return s.name == name; });
  return it == all.end() ? nullptr : &*it;
}

const std::vector<PlantedBug>& AllPlantedBugs() {
  static const std::vector<PlantedBug> kBugs{
      {"skip_one_invalidation", &PlantedBugs::skip_one_invalidation, "default"},
      {"acknowledge_before_sync", &PlantedBugs::acknowledge_before_sync, "crashes"},
      {"drop_frame_at_send", &PlantedBugs::drop_frame_at_send, "storms"},
      {"drop_frame_at_move", &PlantedBugs::drop_frame_at_move, "room"},
      {"forget_incarnation", &PlantedBugs::forget_incarnation, "crashes"},
      {"activate_before_acks", &PlantedBugs::activate_before_acks, "default"},
      {"accept_stale_grant", &PlantedBugs::accept_stale_grant, "storms"},
      {"skip_completion", &PlantedBugs::skip_completion, "crashes"},
      {"flush_one_holder", &PlantedBugs::flush_one_holder, "storage"},
      {"acks_across_views", &PlantedBugs::acks_across_views, "returns"},
      {"old_configuration", &PlantedBugs::old_configuration, "reuse"},
      {"keep_rights_on_forward", &PlantedBugs::keep_rights_on_forward, "default"},
      {"serve_after_hand_over", &PlantedBugs::serve_after_hand_over, "default"},
      {"step_unlike_copies", &PlantedBugs::step_unlike_copies, "default"},
      {"mix_views", &PlantedBugs::mix_views, "stragglers"},
      {"no_fence", &PlantedBugs::no_fence, "pauses"},
      {"keep_old_pages", &PlantedBugs::keep_old_pages, "pauses"},
      {"take_over_unasked", &PlantedBugs::take_over_unasked, "partitions"},
      {"catch_up_without_pages", &PlantedBugs::catch_up_without_pages, "crashes"},
      {"trust_old_disk", &PlantedBugs::trust_old_disk, "storage"},
      {"store_where_they_are", &PlantedBugs::store_where_they_are, "moves"},
      {"weights_too_soon", &PlantedBugs::weights_too_soon, "sizes"},
      {"appoint_unchecked", &PlantedBugs::appoint_unchecked, "default"},
      {"commit_before_flush", &PlantedBugs::commit_before_flush, "accounts"},
      {"apply_before_flush", &PlantedBugs::apply_before_flush, "accounts"},
      {"skip_replay", &PlantedBugs::skip_replay, "accounts"},
      {"forget_lost_names", &PlantedBugs::forget_lost_names, "names"},
      {"tell_nobody", &PlantedBugs::tell_nobody, "crashes"},
      {"write_without_quorum", &PlantedBugs::write_without_quorum, "readers"},
      {"leave_before_fence", &PlantedBugs::leave_before_fence, "stops"},
      {"replay_ignores_sequences", &PlantedBugs::replay_ignores_sequences, "accounts"},
      {"lock_unasked", &PlantedBugs::lock_unasked, "filelocks"},
      {"forget_own_locks", &PlantedBugs::forget_own_locks, "filelocks"},
      {"leave_undropped", &PlantedBugs::leave_undropped, "kernelcaches"},
      {"tell_of_before", &PlantedBugs::tell_of_before, "kernelcaches"},
      {"tell_beyond_lease", &PlantedBugs::tell_beyond_lease, "kernelcaches"},
      {"keep_old_bytes", &PlantedBugs::keep_old_bytes, "kernelcaches"},
  };
  return kBugs;
}

const PlantedBug* FindPlantedBug(std::string_view name) {
  const auto& all = AllPlantedBugs();
  const auto it = std::find_if(all.begin(), all.end(), [name](const PlantedBug& b) { return b.name == name; });
  return it == all.end() ? nullptr : &*it;
}

RunResult RunSeed(uint64_t seed, const Scenario& scenario, const RunOptions& options) {
  return std::make_unique<Run>(seed, scenario, options)->Go();
}

}  // namespace mangrove::sim
