#include "tests/sim/faults.h"

#include <algorithm>
#include <utility>

#include "directory/locator.h"
#include "engine/transactions/log_format.h"
#include "net/check.h"

namespace mangrove::sim {

const char* Name(FaultKind kind) {
  static constexpr std::array<const char*, kFaultKinds> kNames{
      "crash",     "crash of several", "power loss",  "wiped disk", "corrupt page",
      "cut",       "one-way cut",      "split",       "storm",      "pause",
      "full disk", "write error",      "false alarm", "drain",      "give up",
      "join",      "other anchors",    "lost names",  "stop"};
  return kNames[static_cast<size_t>(kind)];
}

FaultInjector::FaultInjector(SimCluster* cluster, const FaultOptions& options)
    : cluster_(cluster), world_(&cluster->world()), options_(options), random_(world_->Fork("faults")) {
  std::vector<int> slots;
  for (int slot = 0; slot < cluster->nodes(); ++slot) slots.push_back(slot);
  // Those that are anchors, or are to become some.
  const bool others_follow = options.weights[static_cast<size_t>(FaultKind::kNewAnchors)] > 0;
  const int anchors = others_follow ? 2 * kAnchors : kAnchors;
  while (victims_.size() + 1 < cluster->options().replicas && slots.size() > 1) {
    const auto at = slots.begin() + static_cast<ptrdiff_t>(random_.Below(slots.size()));
    victims_.push_back(*at);
    const bool is_anchor = *at < anchors;
    slots.erase(at);
    // The log of most anchors, once lost, is lost for ever: one of three may lose its disk.
    if (is_anchor) std::erase_if(slots, [anchors](int slot) { return slot < anchors; });
  }
}

void FaultInjector::Begin() {
  active_ = true;
  cluster_->network().SetWeather(options_.calm);
  Arm();
}

// Between none and twice the mean, so that bursts occur. Mostly it counts only while two thirds of the nodes serve: what happens to
// a cluster that is not let come to itself is soon known.
void FaultInjector::Arm() {
  countdown_ = 1 + random_.Below(2 * options_.mean_events);
  waits_for_service_ = random_.PerMille(750);
}

bool FaultInjector::AfterEvent(uint64_t operations) {
  if (injected_ >= options_.free_faults + operations / options_.operations_per_fault) return false;
  if (!active_ || (waits_for_service_ && cluster_->ready_count() * 3 < cluster_->in_service() * 2)) return false;
  if (--countdown_ > 0) return false;
  Arm();
  // As an event of its own, so that it is in the history.
  world_->After(0, kNoNode, EventKind::kFault, [this] {
    if (active_) Inject();
  });
  return true;
}

void FaultInjector::Inject() {
  uint64_t total = 0;
  for (const uint32_t weight : options_.weights) total += weight;
  if (total == 0) return;
  uint64_t at = random_.Below(total);
  size_t kind = 0;
  while (at >= options_.weights[kind]) at -= options_.weights[kind++];
  if (!Inject(static_cast<FaultKind>(kind))) return;
  ++injected_;
  ++by_kind_[kind];
  world_->Note(0x600 + kind, injected_);
}

bool FaultInjector::Inject(FaultKind kind) {
  switch (kind) {
    case FaultKind::kCrash: return CrashSome(1);
    case FaultKind::kCrashSeveral:
      return CrashSome(static_cast<int>(random_.Between(2, std::max(2, cluster_->nodes() - 1))));
    case FaultKind::kPowerLoss: return CrashSome(cluster_->nodes());
    case FaultKind::kWipe: return Wipe();
    case FaultKind::kCorrupt: return Corrupt();
    case FaultKind::kCut: return Cut(true);
    case FaultKind::kCutOneWay: return Cut(false);
    case FaultKind::kSplit: return Split();
    case FaultKind::kStorm: return Storm();
    case FaultKind::kPause: return Pause();
    case FaultKind::kFullDisk: return FillDisk();
    case FaultKind::kWriteError: return FailWrite();
    case FaultKind::kFalseAlarm: return FalseAlarm();
    case FaultKind::kDrain: return Drain();
    case FaultKind::kGiveUp: return GiveUp();
    case FaultKind::kJoin: return Join();
    case FaultKind::kNewAnchors: return ReplaceAnchors();
    case FaultKind::kLoseLogs: return LoseLogs();
    case FaultKind::kStop: return Stop();
  }
  CHECK(false);
}

// What ends a fault: not after End, which has mended everything.
void FaultInjector::After(DurationNs delay, absl::AnyInvocable<void()> callback) {
  world_->After(delay, kNoNode, EventKind::kFault, [this, callback = std::move(callback)]() mutable {
    if (active_) callback();
  });
}

int FaultInjector::PickUp() {
  std::vector<int> up;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (cluster_->host(slot).up()) up.push_back(slot);
  }
  return up.empty() ? kNoNode : up[random_.Below(up.size())];
}

// The log of two anchors needs both. While anchors become others it is now of these and now of those.
int FaultInjector::PickVictim() {
  if (victims_.empty() || cluster_->IsReplacingAnchors()) return kNoNode;
  const int slot = victims_[random_.Below(victims_.size())];
  int anchors = 0;
  const View view = cluster_->NewestView();
  for (int other = 0; other < cluster_->nodes(); ++other) {
    if (!cluster_->IsAnchor(other)) continue;
    anchors += !cluster_->host(other).in_service() || view.draining.contains(NodeOfSlot(other)) ? 0 : 1;
  }
  const bool is_needed = cluster_->IsAnchor(slot) && anchors < kAnchors;
  return !cluster_->host(slot).in_service() || is_needed ? kNoNode : slot;
}

bool FaultInjector::CrashSome(int count) {
  if (options_.one_at_a_time && !cluster_->AllDisksCount()) return false;
  if (count > 1) world_->Trace("fault: ", count, " nodes crash");
  bool any = false;
  for (int i = 0; i < count; ++i) {
    const int slot = PickUp();
    if (slot == kNoNode) break;
    cluster_->Crash(slot);
    StartAgain(slot);
    any = true;
  }
  return any;
}

void FaultInjector::StartAgain(int slot) {
  const DurationNs down = random_.Spread(options_.min_down, options_.max_down);
  cluster_->StartAfter(slot, down);
  if (options_.mute_at_return) After(down, [this, slot] { Mute(slot); });
}

// No longer than a lease: it stays in the view.
void FaultInjector::Mute(int heard_by) {
  const int mute = static_cast<int>(random_.Between(kAnchors, cluster_->nodes() - 1));  // Views are not late.
  if (mute == heard_by) return;
  std::vector<int> deaf;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (slot != mute && slot != heard_by && !cluster_->network().IsCut(mute, slot)) deaf.push_back(slot);
  }
  world_->Trace("fault: nobody but node ", heard_by + 1, ", which comes back, hears node ", mute + 1);
  for (const int slot : deaf) cluster_->network().Cut(mute, slot);
  After(random_.Spread(300 * kMillisecond, 700 * kMillisecond), [this, mute, deaf] {
    for (const int slot : deaf) cluster_->network().Heal(mute, slot);
  });
}

bool FaultInjector::Stop() {
  const bool all = random_.PerMille(150);
  const int one = PickUp();
  bool any = false;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (!all && slot != one) continue;
    any |= cluster_->Stop(slot, random_.Spread(kMillisecond, options_.max_down));
  }
  return any;
}

bool FaultInjector::Wipe() {
  const int slot = PickVictim();
  if (slot == kNoNode || !cluster_->AllDisksCount()) return false;
  world_->Trace("fault: node ", slot + 1, " loses its disk");
  cluster_->Crash(slot);
  cluster_->host(slot).disk->Wipe();
  StartAgain(slot);
  return true;
}

bool FaultInjector::Corrupt() {
  const int slot = PickVictim();
  if (slot == kNoNode || !cluster_->AllDisksCount()) return false;
  // Only what another disk has as well, or should have: the single copy of what was never flushed may be lost, but
  // nobody can tell damage to it from damage to the single copy of what somebody has seen.
  const bool has_moved = by_kind_[static_cast<size_t>(FaultKind::kDrain)] > 0 ||
                         by_kind_[static_cast<size_t>(FaultKind::kGiveUp)] > 0 ||
                         cluster_->options().replace_after != 0;
  const auto is_elsewhere = [&](const StoredPage& stored) {
    if (cluster_->oracle().WasFlushed(stored.page, stored.data->bytes.data())) return true;
    for (int other = 0; other < cluster_->nodes(); ++other) {
      // What a disk has that keeps other pages by now does not count.
      if (has_moved || other == slot) continue;
      if (cluster_->host(other).disk->DurableVersion(stored.page) >= stored.version) return true;
    }
    return false;
  };
  bool is_header_hit = false;
  const std::optional<PageId> page = cluster_->host(slot).disk->CorruptOne(is_elsewhere, &is_header_hit);
  if (!page) return false;
  // Whoever catches up with this disk alone cannot tell whether what it has itself is as new.
  if (is_header_hit) cluster_->oracle().AllowLoss(*page);
  world_->Trace("fault: page ", *page, " is corrupt on node ", slot + 1);
  return true;
}

bool FaultInjector::Cut(bool both_ways) {
  const int a = static_cast<int>(random_.Below(static_cast<uint64_t>(cluster_->nodes())));
  const int b = static_cast<int>(random_.Below(static_cast<uint64_t>(cluster_->nodes())));
  SimNetwork& network = cluster_->network();
  if (a == b || network.IsCut(a, b)) return false;
  world_->Trace("fault: cut from node ", a + 1, " to node ", b + 1, both_ways ? ", both ways" : "");
  network.Cut(a, b);
  if (both_ways) network.Cut(b, a);
  After(random_.Spread(10 * kMillisecond, options_.max_cut), [this, a, b, both_ways] {
    cluster_->network().Heal(a, b);
    if (both_ways) cluster_->network().Heal(b, a);
  });
  return true;
}

bool FaultInjector::Split() {
  const int nodes = cluster_->nodes();
  const int first = static_cast<int>(random_.Between(1, nodes - 1));  // Of `order`, the first group.
  std::vector<int> order;
  for (int slot = 0; slot < nodes; ++slot) {
    order.insert(order.begin() + static_cast<ptrdiff_t>(random_.Below(order.size() + 1)), slot);
  }
  const int bridge = nodes > 2 && random_.PerMille(300) ? order[0] : kNoNode;
  world_->Trace("fault: split into ", first, " and ", nodes - first, " nodes, bridge ", bridge + 1);
  std::vector<std::pair<int, int>> cuts;
  for (int i = 0; i < first; ++i) {
    for (int j = first; j < nodes; ++j) {
      const int a = order[static_cast<size_t>(i)];
      const int b = order[static_cast<size_t>(j)];
      if (a != bridge && b != bridge) cuts.insert(cuts.end(), {{a, b}, {b, a}});
    }
  }
  if (cuts.empty()) return false;
  for (const auto& [from, to] : cuts) cluster_->network().Cut(from, to);
  After(random_.Spread(20 * kMillisecond, options_.max_cut), [this, cuts] {
    for (const auto& [from, to] : cuts) cluster_->network().Heal(from, to);
  });
  return true;
}

bool FaultInjector::Storm() {
  Weather weather = options_.calm;
  weather.lose_per_mille = static_cast<uint32_t>(random_.Below(300));
  weather.double_per_mille = static_cast<uint32_t>(random_.Below(200));
  weather.overtake_per_mille = static_cast<uint32_t>(random_.Below(500));
  weather.late_per_mille = static_cast<uint32_t>(random_.Below(60));
  weather.late_pages_per_mille = weather.late_per_mille;
  world_->Trace("fault: storm: per mille ", weather.lose_per_mille, " lost, ", weather.double_per_mille, " doubled, ",
                weather.overtake_per_mille, " out of order, ", weather.late_per_mille, " late");
  cluster_->network().SetWeather(weather);
  After(random_.Spread(50 * kMillisecond, kSecond), [this, storm = ++storms_] {
    if (storm == storms_) cluster_->network().SetWeather(options_.calm);
  });
  return true;
}

bool FaultInjector::Pause() {
  const int slot = PickUp();
  if (slot == kNoNode || world_->IsPaused(slot)) return false;
  const DurationNs span = random_.Spread(5 * kMillisecond, options_.max_pause);
  world_->Trace("fault: node ", slot + 1, " pauses for ", span / kMillisecond, " ms");
  world_->Pause(slot, world_->now() + span, random_.PerMille(500));
  return true;
}

bool FaultInjector::FillDisk() {
  const int slot = static_cast<int>(random_.Below(static_cast<uint64_t>(cluster_->nodes())));
  SimDisk* disk = cluster_->host(slot).disk.get();
  if (disk->full()) return false;
  world_->Trace("fault: the disk of node ", slot + 1, " is full");
  disk->SetFull(true);
  After(random_.Spread(20 * kMillisecond, kSecond), [disk] { disk->SetFull(false); });
  return true;
}

bool FaultInjector::FailWrite() {
  const int slot = PickUp();
  if (slot == kNoNode) return false;
  world_->Trace("fault: the next write of node ", slot + 1, " fails");
  cluster_->host(slot).disk->FailNextCommit();
  return true;
}

bool FaultInjector::FalseAlarm() {
  const int slot = PickUp();
  const int peer = static_cast<int>(random_.Below(static_cast<uint64_t>(cluster_->nodes())));
  if (slot == kNoNode || slot == peer) return false;
  world_->Trace("fault: node ", slot + 1, " believes node ", peer + 1, " to be down");
  cluster_->network().FalseAlarm(slot, peer);
  return true;
}

// So many more than have to, so that what is damaged is not all that there is.
int FaultInjector::Staying() const {
  const View view = cluster_->NewestView();
  int staying = 0;
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (cluster_->host(slot).in_service() && !view.draining.contains(NodeOfSlot(slot))) ++staying;
  }
  return staying - std::max<int>(3, static_cast<int>(cluster_->options().replicas) + 1);
}

// It is to be an anchor, or to be followed by another one.
bool FaultInjector::HasToStay(int slot) const {
  const bool others_follow = options_.weights[static_cast<size_t>(FaultKind::kNewAnchors)] > 0;
  return others_follow && slot < 2 * kAnchors && !cluster_->AreAnchorsReplaced();
}

bool FaultInjector::GiveUp() {
  const int slot = PickVictim();
  if (slot == kNoNode || HasToStay(slot) || !cluster_->AllDisksCount() || Staying() <= 0) return false;
  world_->Trace("fault: node ", slot + 1, " goes for ever");
  cluster_->Crash(slot);
  cluster_->Retire(slot);
  cluster_->Request({.kind = NodeRequest::Kind::kGiveUp, .node = NodeOfSlot(slot)});
  return true;
}

// The first of those that are outside: the anchors number them in that order.
bool FaultInjector::Join() {
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (cluster_->host(slot).place != SimHost::Place::kOutside) continue;
    // It knows those that are anchors when it comes.
    if (cluster_->NewestView().epoch.value == 0 || cluster_->IsReplacingAnchors()) return false;
    world_->Trace("fault: node ", slot + 1, " is to join");
    cluster_->Join(slot);
    return true;
  }
  return false;
}

// Whether no other disk has it.
bool FaultInjector::HoldAllOf(const std::vector<NodeId>& holders, PageId page) const {
  const View view = cluster_->NewestView();
  const std::vector<NodeId> all = Locator(view.disks, view.weights).CoreHolders(page, cluster_->options().replicas);
  return std::all_of(all.begin(), all.end(), [&holders](NodeId node) {
    return std::find(holders.begin(), holders.end(), node) != holders.end();
  });
}

// Once in a run.
bool FaultInjector::ReplaceAnchors() {
  if (!cluster_->MayReplaceAnchors()) return false;
  const int away = static_cast<int>(random_.Between(2 * kAnchors, cluster_->nodes() - 1));
  if (!cluster_->host(away).in_service()) return false;
  const bool leave = random_.PerMille(600);
  world_->Trace("fault: while node ", away + 1, " is away, others become anchors", leave ? ", and these leave" : "");
  cluster_->ReplaceAnchors(away, leave);
  return true;
}

// They come back empty, or never.
bool FaultInjector::LoseLogs() {
  if (!cluster_->AllDisksCount()) return false;
  const View view = cluster_->NewestView();
  const std::vector<NodeId> holders =
      Locator(view.disks, view.weights).CoreHolders(kReplayPage, cluster_->options().replicas);
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (HoldAllOf(holders, LogOf(NodeOfSlot(slot)).first)) return false;
  }
  for (const PageId page : options_.must_stay) {
    if (HoldAllOf(holders, page)) return false;
  }
  // Of the anchors one at most loses its disk in a run, as ever.
  std::vector<int> anchors;
  for (const NodeId node : holders) {
    if (SlotOfNode(node) < kAnchors) anchors.push_back(SlotOfNode(node));
  }
  if (anchors.size() > 1) return false;
  if (!anchors.empty() && lost_anchor_ != kNoNode && lost_anchor_ != anchors[0]) return false;
  if (!anchors.empty()) lost_anchor_ = anchors[0];
  const bool for_ever = anchors.empty() && Staying() >= static_cast<int>(holders.size()) && random_.PerMille(400);
  world_->Trace("fault: nodes that name the logs lose their disks", for_ever ? ", and never come back" : "");
  for (const NodeId node : holders) cluster_->Crash(SlotOfNode(node));
  for (const NodeId node : holders) {
    const int slot = SlotOfNode(node);
    cluster_->host(slot).disk->Wipe();
    if (for_ever) {
      cluster_->Retire(slot);
      cluster_->Request({.kind = NodeRequest::Kind::kGiveUp, .node = node});
    } else {
      StartAgain(slot);
    }
  }
  return true;
}

bool FaultInjector::Drain() {
  const View view = cluster_->NewestView();
  const int slot = PickUp();
  if (slot == kNoNode || view.epoch.value == 0 || cluster_->IsReplacingAnchors()) return false;
  if (HasToStay(slot)) return false;
  const NodeId node = NodeOfSlot(slot);
  const bool is_draining = view.draining.contains(node);
  if (!is_draining && Staying() <= 0) return false;
  world_->Trace("fault: node ", slot + 1, is_draining ? " is to stay" : " is to leave");
  cluster_->Request({.kind = is_draining ? NodeRequest::Kind::kUndrain : NodeRequest::Kind::kDrain, .node = node});
  return true;
}

void FaultInjector::End() {
  active_ = false;
  world_->Trace("faults end");
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    if (!cluster_->host(slot).in_service()) continue;
    cluster_->Request({.kind = NodeRequest::Kind::kUndrain, .node = NodeOfSlot(slot)});
  }
  cluster_->network().HealAll();
  cluster_->network().SetWeather(Weather{});
  for (int slot = 0; slot < cluster_->nodes(); ++slot) {
    SimHost& host = cluster_->host(slot);
    host.disk->Repair();
    if (!host.up()) cluster_->Start(slot);
  }
}

}  // namespace mangrove::sim
