// The membership of nodes over the simulated doors: the real driver and its log on disks that fill, fail and are lost, with every kind
// of fault. That nobody has a lease who is not in the newest view, and the anchors' log, is looked at after each event.
// Covers: C03, C04

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/membership.h"
#include "net/channel_switch.h"
#include "net/log.h"
#include "tests/sim/anchors_oracle.h"
#include "tests/sim/engine_node.h"
#include "tests/sim/faults.h"
#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {
namespace {

class MembershipNode final : public SimNode, public ViewEvents {
 public:
  MembershipNode(const NodeDoors& doors, const NodeSetup& setup)
      : self_(setup.self),
        clock_(doors.clock),
        transport_(doors.transport),
        expelled_(setup.expelled),
        membership_(MembersOf(setup), doors.clock, doors.transport, doors.store, doors.entropy) {}
  ~MembershipNode() override { EXPECT_EQ(membership_.bad_messages(), 0u); }

  void Start(absl::AnyInvocable<void(absl::Status)> ready) override {
    membership_.SetEvents(this);
    membership_.SetDisk({.blank = true, .caught_up = false, .moved = {}});
    membership_.Open([this, ready = std::move(ready)](absl::Status status) mutable {
      channels_.Set(Channel::kMembership, &membership_);
      if (status.ok()) status = transport_->Start(&channels_);
      if (status.ok()) membership_.Start();
      started_ = status.ok();
      ready(status);
    });
  }
  bool HasLease() const { return started_ && membership_.member().HasLease(clock_->Now()); }
  NodeInstance self() const { return self_; }
  const Membership* membership() const { return started_ ? &membership_ : nullptr; }

  void OnView(const View&) override {}
  void OnRoster(const Roster&) override {}
  // As if that made its disk current.
  void OnLease(TimeNs until) override {
    if (until != 0) membership_.SetDisk({.blank = true, .caught_up = true, .moved = {}});
  }
  void OnExpelled() override { expelled_(); }
  void OnDismissed(bool) override {}

  // No pages here.
  Task<absl::Status> Acquire(PageRange, Rights, TimeNs) override { co_return Nothing(); }
  Task<absl::StatusOr<uint64_t>> Lock(uint64_t, PageRange, LockMode, TimeNs) override { co_return Nothing(); }
  absl::Status Unlock(uint64_t, uint64_t) override { return Nothing(); }
  Task<absl::Status> Flush(PageRange, TimeNs) override { co_return Nothing(); }
  Task<absl::Status> Allocate(PageRange, TimeNs) override { co_return Nothing(); }
  Task<absl::Status> Unallocate(PageRange, TimeNs) override { co_return Nothing(); }
  void EndClient(uint64_t) override {}

 private:
  static absl::Status Nothing() { return absl::UnimplementedError("no pages here"); }
  const NodeInstance self_;
  Clock* const clock_;
  Transport* const transport_;
  const std::function<void()> expelled_;
  ChannelSwitch channels_;
  Membership membership_;
  bool started_ = false;
};

class MembershipRun {
 public:
  explicit MembershipRun(uint64_t seed)
      : world_(seed),
        oracle_(&world_),
        anchors_(&world_),
        cluster_(&world_, &oracle_, OptionsOf(world_.Fork("options")),
                 [](const NodeDoors& doors, const NodeSetup& setup) {
                   return std::make_unique<MembershipNode>(doors, setup);
                 }),
        faults_(&cluster_, FaultsOf(world_.Fork("faults of the run"))) {
    world_.SetAfterEvent([this] {
      Check();
      faults_.AfterEvent();
    });
  }

  // The first failure.
  std::string Go() {
    for (int slot = 0; slot < cluster_.nodes(); ++slot) cluster_.Start(slot);
    world_.RunUntil(world_.now() + 5 * kSecond);
    if (!AllHaveLeases()) world_.Fail("not everybody has a lease after a calm start");
    faults_.Begin();
    world_.RunUntil(world_.now() + 60 * kSecond);
    faults_.End();
    world_.RunUntil(world_.now() + 15 * kSecond);
    if (!AllHaveLeases()) world_.Fail("not everybody has a lease when the faults are over");
    if (!views_.rbegin()->second.behind.empty()) world_.Fail("a disk that has caught up is still behind");
    return world_.failure();
  }
  uint64_t faults() const { return faults_.injected(); }
  uint64_t views() const { return views_.size(); }
  uint64_t blank_disks() const { return blank_disks_; }
  uint64_t leaders() const { return anchors_.leaders(); }

 private:
  static ClusterOptions OptionsOf(SimRandom random) {
    ClusterOptions options;
    options.nodes = static_cast<int>(random.Between(3, 6));
    options.max_drift_ppm = random.Between(0, 10'000);
    options.store.slow_per_mille = static_cast<uint32_t>(random.Below(20));
    return options;
  }
  static FaultOptions FaultsOf(SimRandom random) {
    FaultOptions faults;
    // Crash, several, power, wipe, corrupt, cut, one-way, split, storm, pause, full, write error, false alarm.
    faults.weights = {20, 5, 2, 4, 0, 10, 10, 6, 10, 30, 8, 4, 10};
    faults.mean_events = static_cast<uint64_t>(random.Between(100, 800));
    faults.max_down = 2 * kSecond;
    faults.max_cut = 3 * kSecond;
    faults.max_pause = 3 * kSecond;
    return faults;
  }

  const MembershipNode* NodeOf(int slot) {
    return cluster_.host(slot).up() ? static_cast<const MembershipNode*>(cluster_.host(slot).node.get()) : nullptr;
  }
  bool AllHaveLeases() {
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      if (NodeOf(slot) == nullptr || !NodeOf(slot)->HasLease()) return false;
    }
    return true;
  }
  void Check() {
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      const MembershipNode* node = NodeOf(slot);
      if (node == nullptr || node->membership() == nullptr || node->membership()->anchor() == nullptr) continue;
      const Anchor& anchor = *node->membership()->anchor();
      if (anchor.has_log()) anchors_.OnAnchor(slot, cluster_.host(slot).life, *anchor.raft());
      const View& view = anchor.database().view();
      const auto [known, is_new] = views_.try_emplace(view.epoch, view);
      blank_disks_ += is_new && std::any_of(view.behind.begin(), view.behind.end(),
                                            [](const auto& disk) { return disk.second == kBlankDisk; });
      if (!is_new && !(known->second == view)) world_.Fail(absl::StrCat("two views ", view.epoch.value));
    }
    if (views_.empty()) return;
    const View& newest = views_.rbegin()->second;
    for (int slot = 0; slot < cluster_.nodes(); ++slot) {
      const MembershipNode* node = NodeOf(slot);
      if (node == nullptr || !node->HasLease() || newest.Has(node->self())) continue;
      world_.Fail(absl::StrCat(ToString(node->self()), " has a lease and is not in view ", newest.epoch.value));
    }
  }

  SimWorld world_;
  Oracle oracle_;
  AnchorsOracle anchors_;
  SimCluster cluster_;
  FaultInjector faults_;
  std::map<Epoch, View> views_;
  uint64_t blank_disks_ = 0;  // Views that name one.
};

TEST(MembershipSim, NoFaultBreaksIt) {
  SetLogLevel(LogLevel::kOff);
  uint64_t faults = 0;
  uint64_t views = 0;
  uint64_t blank_disks = 0;
  uint64_t leaders = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    MembershipRun run(seed);
    ASSERT_EQ(run.Go(), "") << "seed " << seed;
    faults += run.faults();
    views += run.views();
    blank_disks += run.blank_disks();
    leaders += run.leaders();
  }
  // It was not because nothing happened.
  EXPECT_GT(faults, 100 * 20u);
  EXPECT_GT(views, 100 * 10u);
  EXPECT_GT(blank_disks, 100 * 5u);
  EXPECT_GT(leaders, 100 * 5u);
}

}  // namespace
}  // namespace mangrove::sim
