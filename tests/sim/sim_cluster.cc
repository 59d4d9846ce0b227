#include "tests/sim/sim_cluster.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "net/check.h"
#include "tests/sim/engine_node.h"

// A crash leaves the applets that the node itself had spawned waiting for ever: nobody can reach their frames to free them
// (see net/runtime/task.h). They are the only thing that may leak.
extern "C" const char* __lsan_default_suppressions();                                  // NOLINT: the sanitizer's name.
extern "C" const char* __lsan_default_suppressions() { return "leak:RunDetached\n"; }  // NOLINT

namespace mangrove::sim {

SimCluster::SimCluster(SimWorld* world, Oracle* oracle, const ClusterOptions& options, NodeFactory factory)
    : world_(world),
      oracle_(oracle),
      options_(options),
      factory_(std::move(factory)),
      random_(world->Fork("cluster")),
      sizes_(world->Fork("disk sizes")),
      network_(world, options.nodes) {
  for (int slot = 0; slot < options.nodes; ++slot) {
    auto host = std::make_unique<SimHost>();
    host->slot = slot;
    if (slot >= options.nodes - options.late) host->place = SimHost::Place::kOutside;
    host->disk = std::make_unique<SimDisk>(world->Fork("disk", static_cast<uint64_t>(slot)));
    hosts_.push_back(std::move(host));
  }
}

SimCluster::~SimCluster() {
  on_down_ = nullptr;
  for (int slot = 0; slot < nodes(); ++slot) {
    if (host(slot).up()) Crash(slot);
  }
}

int SimCluster::up_count() const {
  return static_cast<int>(std::count_if(hosts_.begin(), hosts_.end(), [](const auto& h) { return h->up(); }));
}

int SimCluster::ready_count() const {
  return static_cast<int>(std::count_if(hosts_.begin(), hosts_.end(), [](const auto& h) { return h->ready; }));
}

int SimCluster::in_service() const {
  return static_cast<int>(std::count_if(hosts_.begin(), hosts_.end(), [](const auto& h) { return h->in_service(); }));
}

bool SimCluster::AllReady() const {
  return std::all_of(hosts_.begin(), hosts_.end(), [](const auto& h) { return h->ready || !h->in_service(); });
}

namespace {

std::string ToString(const View& view) {
  std::string text = absl::StrCat("view ", view.epoch.value, " of");
  for (const auto& [node, incarnation] : view.members) absl::StrAppend(&text, " ", node.value);
  for (const auto& [node, since] : view.behind) absl::StrAppend(&text, ", ", node.value, " behind since ", since.value);
  for (NodeId node : view.draining) absl::StrAppend(&text, ", ", node.value, " draining");
  absl::StrAppend(&text, ", kept by");
  for (NodeId node : view.disks) absl::StrAppend(&text, " ", node.value);
  if (view.move.value != 0) absl::StrAppend(&text, ", moving to");
  for (NodeId node : view.next_disks)
    absl::StrAppend(&text, " ", node.value, view.moved.contains(node) ? " (has)" : "");
  for (const auto& [node, weight] : view.weights) absl::StrAppend(&text, ", ", node.value, " weighs ", int{weight});
  for (const auto& [node, weight] : view.next_weights)
    absl::StrAppend(&text, ", ", node.value, " is to weigh ", int{weight});
  return text;
}

}  // namespace

View SimCluster::NewestView() const {
  View newest;
  for (const auto& host : hosts_) {
    View view = host->up() ? host->node->view() : View();
    if (newest.epoch < view.epoch) newest = std::move(view);
  }
  return newest;
}

bool SimCluster::AllDisksCount() const {
  if (!AllReady()) return false;
  const View newest = NewestView();
  return newest.behind.empty() && newest.members.size() == static_cast<size_t>(ready_count()) &&
         newest.move.value == 0 && newest.disks.size() >= options_.replicas;
}

bool SimCluster::AllNodesKeepPages() const {
  const View newest = NewestView();
  return AllReady() && asking_ == 0 && newest.behind.empty() && newest.move.value == 0 && newest.draining.empty() &&
         newest.disks.size() == static_cast<size_t>(in_service());
}

void SimCluster::Request(const NodeRequest& request) {
  constexpr int kTries = 25;
  wanted_[request.node] = request.kind;
  ++asking_;
  Ask(request, kTries);
}

// For a while: what was asked for before may still be on its way.
void SimCluster::Ask(const NodeRequest& request, int tries) {
  const View view = NewestView();
  const bool is_named = view.epoch.value == 0 || view.behind.contains(request.node) ||
                        view.members.contains(request.node) || view.disks.contains(request.node);
  bool is_done = view.draining.contains(request.node) == (request.kind == NodeRequest::Kind::kDrain);
  if (request.kind == NodeRequest::Kind::kGiveUp) is_done = view.lost.contains(request.node) || !is_named;
  const bool is_over = tries <= 0 && (is_done || request.kind != NodeRequest::Kind::kGiveUp);
  if (is_over || wanted_[request.node] != request.kind) {
    --asking_;
    return;
  }
  for (const auto& host : hosts_) {
    if (host->up() && !is_done) host->node->Request(request);
  }
  world_->After(200 * kMillisecond, kNoNode, EventKind::kFault, [this, request, tries] { Ask(request, tries - 1); });
}

void SimCluster::Retire(int slot) {
  world_->Trace("node ", slot + 1, " is out of the cluster for good");
  host(slot).place = SimHost::Place::kRetired;
}

void SimCluster::Join(int slot) {
  SimHost& h = host(slot);
  CHECK(h.place == SimHost::Place::kOutside || h.place == SimHost::Place::kJoining);
  h.place = SimHost::Place::kJoining;
  NodeRequest request{.kind = NodeRequest::Kind::kAdd, .record = RecordOf(NodeOfSlot(slot))};
  request.record.votes = 0;
  for (const auto& host : hosts_) {
    if (!host->up()) continue;
    if (host->node->KnownRecord(NodeOfSlot(slot))) {
      h.place = SimHost::Place::kInside;
      return Start(slot);
    }
    host->node->Request(request);
  }
  world_->After(200 * kMillisecond, kNoNode, EventKind::kFault, [this, slot] { Join(slot); });
}

// --- Other anchors ----------------------------------------------------------------------------------------------------

bool SimCluster::MayReplaceAnchors() const {
  if (nodes() <= 2 * kAnchors || replacement_ || first_anchor_ != 0) return false;
  const auto is_inside = [](const auto& h) { return h->in_service(); };
  const auto is_joining = [](const auto& h) { return h->place == SimHost::Place::kJoining; };
  return std::all_of(hosts_.begin(), hosts_.begin() + 2 * kAnchors, is_inside) &&
         std::none_of(hosts_.begin(), hosts_.end(), is_joining) && AllNodesKeepPages();
}

void SimCluster::ReplaceAnchors(int away, bool leave) {
  CHECK(MayReplaceAnchors() && away >= 2 * kAnchors);
  replacement_ = Replacement{.away = away, .leave = leave};
  if (host(away).up()) Crash(away);
  GoOnReplacing();
}

// One after the other: a new one gets a vote, then an old one loses its. Then the old ones leave the cluster, or are merely not to be
// reached; only then the node that was away comes back, which knows these alone as anchors.
void SimCluster::GoOnReplacing() {
  constexpr DurationNs kPace = 200 * kMillisecond;
  constexpr DurationNs kLongestAway = 60 * kSecond;
  Replacement& r = *replacement_;
  while (r.changed < 2 * kAnchors) {
    const bool is_new = r.changed % 2 == 0;
    if (!SetVotes(r.changed / 2 + (is_new ? kAnchors : 0), is_new ? 1 : 0)) break;
    ++r.changed;
  }
  bool done = r.changed == 2 * kAnchors;
  if (done && r.leaving_from == 0) r.leaving_from = world_->now();
  for (int slot = 0; done && r.leave && slot < kAnchors; ++slot) {
    if (!host(slot).in_service()) continue;
    if (wanted_[NodeOfSlot(slot)] != NodeRequest::Kind::kDrain || asking_ == 0) {
      Request({.kind = NodeRequest::Kind::kDrain, .node = NodeOfSlot(slot)});
    }
    // Where a disk waits for what the one that is away has, it has to come back first.
    done = world_->now() > r.leaving_from + kLongestAway;
  }
  if (!done) {
    world_->After(kPace, kNoNode, EventKind::kFault, [this] { GoOnReplacing(); });
    return;
  }
  world_->Trace("all anchors are others");
  first_anchor_ = kAnchors;
  const int away = r.away;
  if (!r.leave) CutFromOldAnchors(away);
  replacement_.reset();
  Start(away);
}

void SimCluster::CutFromOldAnchors(int away) {
  for (int slot = 0; slot < kAnchors; ++slot) {
    network_.Cut(slot, away);
    network_.Cut(away, slot);
  }
  world_->After(random_.Spread(kSecond, 10 * kSecond), kNoNode, EventKind::kFault, [this, away] {
    for (int slot = 0; slot < kAnchors; ++slot) {
      network_.Heal(slot, away);
      network_.Heal(away, slot);
    }
  });
}

// Whether some node knows that it is so; has all ask for it otherwise.
bool SimCluster::SetVotes(int slot, uint32_t votes) {
  for (const auto& asker : hosts_) {
    if (!asker->up()) continue;
    std::optional<NodeRecord> record = asker->node->KnownRecord(NodeOfSlot(slot));
    if (!record) continue;
    if (record->votes == votes) return true;
    record->votes = votes;
    asker->node->Request({.kind = NodeRequest::Kind::kSet, .node = NodeOfSlot(slot), .record = *std::move(record)});
  }
  return false;
}

// The nodes that the cluster is made with, and its first anchors; of one that joins, the anchors of now and itself.
void SimCluster::Configure(int slot, NodeSetup& setup) const {
  const int made_with = options_.nodes - options_.late;
  const bool joins = slot >= made_with;
  for (int other = 0; other < made_with; ++other) {
    const bool is_anchor = joins ? IsAnchor(other) : other < kAnchors;
    if (is_anchor) setup.anchors.insert(NodeOfSlot(other));
    if (is_anchor || !joins) setup.nodes.push_back(NodeOfSlot(other));
  }
  if (joins) setup.nodes.push_back(NodeOfSlot(slot));
}

uint64_t SimCluster::pages_moved() const {
  uint64_t moved = moved_;
  for (const auto& h : hosts_) moved += h->up() ? h->node->PagesMoved() : 0;
  return moved;
}

void SimCluster::SetHooks(std::function<void(SimHost&)> ready, std::function<void(SimHost&)> down) {
  on_ready_ = std::move(ready);
  on_down_ = std::move(down);
}

// Every node, in each of its lives, holds it its own way: often no pages, or all, or those from some page on.
PageRange SimCluster::PickMigratory() {
  constexpr uint64_t kAll = uint64_t{1} << 40;
  if (random_.Below(2) == 0) return {};
  return {kFirstReservablePage + (random_.Below(2) == 0 ? 0 : random_.Below(2 * kSegmentPages)), kAll};
}

void SimCluster::OnFollows(int slot, const View& view) {
  world_->Trace("node ", slot + 1, " follows ", ToString(view));
  newest_epoch_ = std::max(newest_epoch_, view.epoch);
  if (view.epoch <= weighed_in_ || view.move != view.epoch || view.next_weights == view.weights) return;
  weighed_in_ = view.epoch;
  ++weighed_;
}

uint32_t SimCluster::PickDiskMib() {
  if (options_.reweigh_after == 0) return 0;
  return static_cast<uint32_t>(sizes_.PerMille(300) ? 1000 : sizes_.Spread(20, 1000));
}

void SimCluster::Start(int slot) {
  SimHost& h = host(slot);
  CHECK(!h.up());
  if (!h.in_service() || (replacement_ && replacement_->away == slot)) return;
  ++h.life;
  h.stops = false;
  const NodeInstance self{NodeOfSlot(slot), Incarnation(h.life)};
  world_->Trace(self, " starts");
  world_->Note(0x400 + static_cast<uint64_t>(slot), h.life);
  const int64_t drift = random_.Between(-options_.max_drift_ppm, options_.max_drift_ppm);
  h.clock = std::make_unique<SimClock>(world_, slot, random_.Spread(kSecond, 1'000'000 * kSecond), drift);
  h.transport = network_.Attach(slot, self);
  h.store = std::make_unique<SimStore>(world_, slot, h.life, options_.store, h.disk.get(),
                                       [this, slot, life = h.life] { EndProcess(slot, life); });
  h.memory = std::make_unique<SimMemory>(world_, slot, h.life, options_.memory, oracle_);
  h.entropy = std::make_unique<SimEntropy>(world_->Fork("entropy", h.life * kMaxNodes + static_cast<uint64_t>(slot)));
  NodeSetup setup{.self = self,
                  .nodes = {},
                  .anchors = {},
                  .replicas = options_.replicas,
                  .cache_pages = std::max(options_.cache_pages, slot % 2 == 1 ? options_.large_cache_pages : 0),
                  .evict_to_peers = options_.evict_to_peers,
                  .directory = options_.directory,
                  .move_after = options_.move_after,
                  .move_stay = options_.move_stay,
                  .repair_bytes_per_second = options_.repair_bytes_per_second,
                  .log_pages = options_.log_pages,
                  .read_without_quorum = options_.read_without_quorum,
                  .migratory = PickMigratory(),
                  .serve_until =
                      [this, slot](TimeNs until) {
                        SimHost& life = host(slot);
                        life.memory->ServeUntil(life.clock->WorldTimeOf(until));
                      },
                  .follows = [this, slot](const View& view) { OnFollows(slot, view); },
                  .expelled =
                      [this, slot, life = h.life] {
                        SimHost& host_of = host(slot);
                        if (options_.bugs != nullptr && options_.bugs->keep_old_pages) {
                          host_of.old_pages.Take(*host_of.node->engine(), *host_of.memory);
                        }
                        EndProcess(slot, life);
                      },
                  .dismissed =
                      [this, slot, life = h.life](bool is_removed) {
                        if (is_removed) Retire(slot);
                        EndProcess(slot, life);
                      },
                  .replace_after = options_.replace_after,
                  .reweigh_after = options_.reweigh_after,
                  .disk_mib = PickDiskMib(),
                  .old_pages = &h.old_pages,
                  .next_config = &next_config_,
                  .bugs = options_.bugs};
  Configure(slot, setup);
  h.node = factory_({h.clock.get(), h.transport.get(), h.store.get(), h.memory.get(), h.entropy.get()}, setup);
  oracle_->OnNodeUp(slot);
  h.node->Start([this, slot, life = h.life](absl::Status status) {
    SimHost& started = host(slot);
    CHECK(started.life == life);
    if (!status.ok()) {
      OnStartFailed(slot, status);
      return;
    }
    started.ready = true;
    if (on_ready_) on_ready_(started);
  });
}

void SimCluster::Crash(int slot) {
  SimHost& h = host(slot);
  CHECK(h.up());
  world_->Trace("node ", slot + 1, " crashes");
  world_->Note(0x500 + static_cast<uint64_t>(slot), h.life);
  h.ready = false;
  if (on_down_) on_down_(h);
  // From here on nothing that the dying node's destructors do has any effect.
  h.clock->Kill();
  h.memory->Kill();
  h.store->Crash();
  network_.Detach(slot);
  world_->DropEventsOf(slot);
  h.applets.EndAll();
  oracle_->OnNodeDown(slot);
  moved_ += h.node->PagesMoved();
  h.node.reset();
  h.transport.reset();
  h.store.reset();
  h.memory.reset();
  h.entropy.reset();
  h.clock.reset();
}

bool SimCluster::Stop(int slot, DurationNs down) {
  SimHost& h = host(slot);
  if (!h.up() || !h.ready || h.stops || world_->IsPaused(slot)) return false;
  h.stops = true;
  world_->Trace("node ", slot + 1, " stops in order");
  h.node->Stop([this, slot, life = h.life, down] {
    // As EndProcess.
    world_->After(0, kNoNode, EventKind::kFault, [this, slot, life, down] {
      if (!host(slot).up() || host(slot).life != life) return;
      Crash(slot);
      StartAfter(slot, down);
    });
  });
  return true;
}

void SimCluster::StartAfter(int slot, DurationNs delay) {
  world_->After(delay, kNoNode, EventKind::kFault, [this, slot, life = host(slot).life] {
    if (!host(slot).up() && host(slot).life == life) Start(slot);
  });
}

void SimCluster::OnStartFailed(int slot, const absl::Status& status) {
  // A disk that is full or fails while the node starts: the process ends, and is started again.
  if (!absl::IsResourceExhausted(status) && !absl::IsInternal(status)) {
    world_->Fail(absl::StrCat("node ", slot + 1, " does not start: ", status.ToString()));
    return;
  }
  EndProcess(slot, host(slot).life);
}

void SimCluster::EndProcess(int slot, uint64_t life) {
  // Not inside the call that brought the news to it; but before it can tell anybody.
  world_->After(0, kNoNode, EventKind::kFault, [this, slot, life] {
    if (!host(slot).up() || host(slot).life != life) return;
    Crash(slot);
    StartAfter(slot, random_.Spread(10 * kMillisecond, kSecond));
  });
}

}  // namespace mangrove::sim
