#include "tests/sim/engine_node.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/transactions/transactions.h"
#include "net/channel_switch.h"
#include "net/check.h"
#include "tests/sim/old_pages.h"
#include "tests/sim/sim_world.h"

namespace mangrove::sim {

namespace {

class EngineNode final : public SimNode, public ViewEvents {
 public:
  EngineNode(const NodeDoors& doors, const NodeSetup& setup)
      : clock_(doors.clock),
        transport_(doors.transport),
        bugs_(setup.bugs != nullptr ? *setup.bugs : kNoPlantedBugs),
        serve_until_(setup.serve_until),
        follows_(setup.follows),
        expelled_(setup.expelled),
        dismissed_(setup.dismissed),
        old_pages_(setup.old_pages),
        replicas_(setup.replicas),
        next_config_(setup.next_config),
        engine_({.self = setup.self,
                 .members = setup.nodes,
                 .system_replicas = setup.replicas,
                 .cache_pages = setup.cache_pages,
                 .home_entries = 8,  // So that copies are called in, too.
                 .move_after = setup.move_after,
                 .move_stay = setup.move_stay,
                 .evict_to_peers = setup.evict_to_peers,
                 .repair_bytes_per_second = setup.repair_bytes_per_second,
                 .directory_limits = setup.directory,
                 .bugs = setup.bugs},
                doors.clock, doors.transport, doors.store, doors.memory, doors.entropy),
        membership_(MembersOf(setup), doors.clock, doors.transport, doors.store, doors.entropy) {
    serve_until_(0);
    membership_.SetEvents(this);
    membership_.SetDiskSize({.mib = setup.disk_mib, .used = 1});  // The pages of a simulation fit on each.
    engine_.SetDiskSink([this](const DiskState& disk) { membership_.SetDisk(disk); });
    channels_.Set(Channel::kPages, &engine_);
    channels_.Set(Channel::kMembership, &membership_);
    engine_.CountFetched({kFirstReservablePage, uint64_t{1} << 40});  // So that it reads ahead.
    if (setup.migratory.count > 0) engine_.SetMigratory(setup.migratory, true);
    if (setup.read_without_quorum.count > 0) {
      engine_.stale_reads().Set(setup.read_without_quorum, true);
      doors.memory->SetStaysReadable(setup.read_without_quorum, true);
    }
    if (setup.log_pages == 0) return;
    const TransactionsOptions options{
        .self = setup.self, .replicas = setup.replicas, .log_pages = setup.log_pages, .bugs = setup.bugs};
    transactions_.emplace(options, &engine_, doors.clock, doors.entropy);
  }

  // Here nobody sends nonsense: what is refused was sent by a machine that is wrong.
  ~EngineNode() override {
    CHECK(engine_.counters().bad_messages == 0 && membership_.bad_messages() == 0);
    if (!transactions_) return;
    CHECK(transactions_->replay().counters().gaps == 0 && transactions_->replay().counters().conflicts == 0);
  }

  void Start(absl::AnyInvocable<void(absl::Status)> ready) override {
    ready_ = std::move(ready);
    membership_.Open([this](absl::Status opened) {
      if (!opened.ok()) return ready_(opened);
      is_open_ = true;
      engine_.Open([this](absl::Status status) {
        if (status.ok()) status = transport_->Start(&channels_);
        if (!status.ok()) return ready_(status);
        membership_.Start();
      });
    });
  }

  void OnView(const View& view) override {
    if (follows_) follows_(view);
    engine_.OnView(view);
    if (transactions_) transactions_->OnView();
  }
  void OnRoster(const Roster& roster) override {
    std::vector<NodeId> members;
    for (const auto& [node, record] : roster.nodes) members.push_back(node);
    engine_.SetMembers(members);
  }
  void OnLease(TimeNs until) override {
    serve_until_(until);
    engine_.OnLease(until);
    if (until == 0 || is_ready_) return;
    is_ready_ = true;
    if (bugs_.keep_old_pages) old_pages_->GiveBack(engine_);
    ready_(absl::OkStatus());
  }
  void OnExpelled() override {
    StopServing();
    expelled_();
  }
  void StopServing() {
    OnLease(0);
    if (transactions_) transactions_->Shutdown();
    engine_.Shutdown();
  }

  // As the daemon does, which besides waits for others that flush.
  void Stop(std::function<void()> ended) override {
    membership_.SetStopping({.flushes = true});
    Spawn<absl::Status>(engine_.FlushAll(clock_->Now() + 2 * kSecond), [this, ended](const absl::Status&) {
      membership_.SetStopping({.flushes = false});
      membership_.HandOver([this, ended] { Leave(ended); });
    });
  }
  void Leave(const std::function<void()>& ended) {
    if (!bugs_.leave_before_fence) {
      StopServing();
      return membership_.Leave(ended);
    }
    // Its programs go on for a while.
    membership_.Leave([this, ended] { clock_->CallAt(clock_->Now() + 300 * kMillisecond, ended); });
  }

  void OnDismissed(bool is_removed) override { dismissed_(is_removed); }
  void Request(const NodeRequest& request) override { membership_.Request(request); }
  std::optional<NodeRecord> KnownRecord(NodeId node) const override {
    if (!is_open_) return std::nullopt;  // It has not read yet what it knows.
    const NodeRecord* const record = membership_.roster().Find(node);
    if (record == nullptr || record->changed == 0) return std::nullopt;
    return *record;
  }

  Task<absl::Status> Acquire(PageRange range, Rights rights, TimeNs deadline) override {
    return engine_.Acquire(range, rights, deadline);
  }
  Task<absl::StatusOr<uint64_t>> Lock(uint64_t client, PageRange range, LockMode mode, TimeNs deadline) override {
    return engine_.Lock(client, range, mode, deadline);
  }
  absl::Status Unlock(uint64_t client, uint64_t lock_id) override { return engine_.Unlock(client, lock_id); }
  Task<absl::Status> Flush(PageRange range, TimeNs deadline) override { return engine_.Flush(range, deadline); }
  // The numbers of configurations are the region table's to give; one counter stands for it here.
  Task<absl::Status> Allocate(PageRange range, TimeNs deadline) override {
    return engine_.PutExtent(range, ConfigNumber(++*next_config_), replicas_, /*is_volatile=*/false, deadline);
  }
  Task<absl::Status> AllocateAs(PageRange range, bool is_volatile, TimeNs deadline) override {
    return engine_.PutExtent(range, ConfigNumber(++*next_config_), replicas_, is_volatile, deadline);
  }
  PageEngine* engine() override { return &engine_; }
  Task<absl::Status> Unallocate(PageRange range, TimeNs deadline) override {
    return engine_.DropExtent(range, ConfigNumber(*next_config_), replicas_, deadline);
  }
  void EndClient(uint64_t client) override { engine_.EndClient(client); }
  Transactions* transactions() override { return transactions_ ? &*transactions_ : nullptr; }
  const Anchor* anchor() const override { return is_open_ ? membership_.anchor() : nullptr; }
  View view() const override { return engine_.view(); }
  uint64_t PagesMoved() const override { return engine_.counters().pages_moved_out; }

 private:
  Clock* const clock_;
  Transport* const transport_;
  const PlantedBugs& bugs_;
  const std::function<void(TimeNs)> serve_until_;
  const std::function<void(const View&)> follows_;
  const std::function<void()> expelled_;
  const std::function<void(bool)> dismissed_;
  absl::AnyInvocable<void(absl::Status)> ready_;  // Called when it has its first lease.
  bool is_ready_ = false;
  bool is_open_ = false;
  OldPages* const old_pages_;
  const uint32_t replicas_;
  uint64_t* const next_config_;
  PageEngine engine_;
  std::optional<Transactions> transactions_;
  Membership membership_;
  ChannelSwitch channels_;
};

}  // namespace

MembershipOptions MembersOf(const NodeSetup& setup) {
  MembershipOptions options{.self = setup.self, .nodes = {}};
  if (setup.replace_after != 0) options.timing.replace_after = setup.replace_after;
  if (setup.reweigh_after != 0) options.timing.reweigh_after = setup.reweigh_after;
  for (NodeId node : setup.nodes) {
    options.nodes[node] = RecordOf(node);
    options.nodes[node].votes = setup.anchors.contains(node) ? 1 : 0;
  }
  return options;
}

NodeRecord RecordOf(NodeId node) {
  return {.name = absl::StrCat("n", node.value),
          .address = absl::StrCat("a", node.value),
          .votes = SlotOfNode(node) < kAnchors ? 1u : 0u,
          .last = {},
          .left = {}};
}

std::unique_ptr<SimNode> MakeEngineNode(const NodeDoors& doors, const NodeSetup& setup) {
  CHECK(setup.next_config != nullptr);
  return std::make_unique<EngineNode>(doors, setup);
}

}  // namespace mangrove::sim
