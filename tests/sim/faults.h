// What goes wrong, and when: chosen by chance, counted in events rather than in time, since most of the time nothing
// happens and faults matter where much does.
//
// Where nodes are few and programs slow, most events are those of the membership itself: the cluster would be hit every few
// hundred milliseconds for as long as it has work, and never get it done. So a run has so many faults for nothing
// (`free_faults`), and from then on one for some operations that have ended (`operations_per_fault`).
//
// Damage to disks is bounded: it hits fewer nodes in a run than a page has core holders, and none while a disk lacks what others
// have, so that what was flushed is always somewhere. kLoseLogs alone hits all that keep a page, where nothing that matters is on
// these alone.

#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/sim/sim_cluster.h"

namespace mangrove::sim {

enum class FaultKind : uint8_t {
  kCrash,         // One node; back after a while.
  kCrashSeveral,  // Two or more at one moment.
  kPowerLoss,     // All of them.
  kWipe,          // A crash, and the node comes back with an empty disk.
  kCorrupt,       // One stored page gets a wrong checksum.
  kCut,           // Between two nodes, both ways.
  kCutOneWay,
  kSplit,  // Two groups that do not hear each other; sometimes one node hears both.
  kStorm,  // Messages are lost, doubled, late and out of order.
  kPause,  // A node handles nothing for a while, then everything at once.
  kFullDisk,
  kWriteError,  // The store is poisoned, and the process ends.
  kFalseAlarm,  // A connection breaks without reason.
  kDrain,       // A node is to leave for good, or not any more.
  kGiveUp,      // A node goes for ever, with its disk, and an operator says so.
  kJoin,        // A node comes that no configuration has named.
  kNewAnchors,  // All anchors are replaced, while a node is away that knows only them.
  kLoseLogs,    // All disks of the page that names the logs of transactions are lost at one moment, and of no log.
  kStop,        // A node is stopped in order, sometimes all of them, and started again.
};
constexpr int kFaultKinds = 19;
const char* Name(FaultKind kind);

struct FaultOptions {
  std::array<uint32_t, kFaultKinds> weights{};
  uint64_t mean_events = 1500;  // Between two faults.
  uint64_t free_faults = 400;
  uint64_t operations_per_fault = 4;
  DurationNs min_down = 5 * kMillisecond;
  DurationNs max_down = 500 * kMillisecond;
  DurationNs max_cut = kSecond;
  DurationNs max_pause = 700 * kMillisecond;
  bool one_at_a_time = false;  // Nodes crash only while no disk is behind.
  bool mute_at_return =
      false;     // While a node comes back, nobody else hears another one for a moment, which is no anchor.
  Weather calm;  // Between the storms.
  std::vector<PageId> must_stay;  // Pages of which kLoseLogs leaves a disk.
};

class FaultInjector {
 public:
  FaultInjector(SimCluster* cluster, const FaultOptions& options);

  // Faults begin to come.
  void Begin();
  // Called after every event. `operations` have ended so far; without, there is no work to be done. True: a fault comes next.
  bool AfterEvent(uint64_t operations = std::numeric_limits<uint64_t>::max());
  // No more faults; what is broken is mended: every node starts, every link and disk works.
  void End();

  uint64_t injected() const { return injected_; }
  const std::array<uint64_t, kFaultKinds>& by_kind() const { return by_kind_; }

 private:
  void Inject();
  bool Inject(FaultKind kind);
  bool CrashSome(int count);
  bool Wipe();
  void StartAgain(int slot);
  void Mute(int heard_by);
  bool Corrupt();
  bool Cut(bool both_ways);
  bool Split();
  bool Storm();
  bool Pause();
  bool FillDisk();
  bool FailWrite();
  bool FalseAlarm();
  int Staying() const;
  bool HasToStay(int slot) const;
  bool Drain();
  bool GiveUp();
  bool Join();
  bool ReplaceAnchors();
  bool LoseLogs();
  bool Stop();
  bool HoldAllOf(const std::vector<NodeId>& holders, PageId page) const;
  void Arm();
  void After(DurationNs delay, absl::AnyInvocable<void()> callback);
  int PickUp();
  int PickVictim();

  SimCluster* const cluster_;
  SimWorld* const world_;
  const FaultOptions options_;
  SimRandom random_;
  std::vector<int> victims_;   // Whose disks may be damaged.
  int lost_anchor_ = kNoNode;  // The one whose disk kLoseLogs hits.
  bool active_ = false;
  uint64_t countdown_ = 0;
  bool waits_for_service_ = false;
  uint64_t storms_ = 0;
  uint64_t injected_ = 0;
  std::array<uint64_t, kFaultKinds> by_kind_{};
};

}  // namespace mangrove::sim
