#include "tests/sim/sim_world.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "net/check.h"

namespace mangrove::sim {

namespace {
// So many events without any time passing are a loop.
constexpr uint64_t kMaxEventsAtOneTime = 1'000'000;
}  // namespace

SimWorld::SimWorld(uint64_t seed) : seed_(seed), root_(Mix(seed)), hash_(Mix(seed ^ 0x6d616e67726f7665u)) {
  nodes_.resize(kMaxNodes);
}

SimWorld::~SimWorld() = default;

SimWorld::EventId SimWorld::At(TimeNs time, int node, EventKind kind, absl::AnyInvocable<void()> callback) {
  CHECK(node >= kNoNode && node < kMaxNodes);
  uint32_t index;
  if (free_.empty()) {
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    index = free_.back();
    free_.pop_back();
  }
  Slot& slot = slots_[index];
  slot.callback = std::move(callback);
  slot.node = static_cast<int16_t>(node);
  slot.kind = kind;
  slot.taken = true;
  ++slot.use;
  Push({std::max(time, now_), ++sequence_, index, slot.use});
  return (uint64_t{slot.use} << 32) | index;
}

void SimWorld::Push(const Entry& entry) {
  heap_.push_back(entry);
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void SimWorld::Cancel(EventId id) {
  const auto index = static_cast<uint32_t>(id);
  if (id == 0 || index >= slots_.size()) return;
  if (slots_[index].taken && slots_[index].use == static_cast<uint32_t>(id >> 32)) Free(index);
}

void SimWorld::Free(uint32_t index) {
  slots_[index].taken = false;
  free_.push_back(index);
  // Last, and from a local: the callback's destructor may make or cancel events.
  absl::AnyInvocable<void()> dropped = std::move(slots_[index].callback);
  slots_[index].callback = nullptr;
}

void SimWorld::DropEventsOf(int node) {
  for (uint32_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].taken && slots_[i].node == node) Free(i);
  }
  Node& n = nodes_[static_cast<size_t>(node)];
  n.held.clear();
  if (n.paused) {
    n.paused = false;
    n.paused_for += now_ - n.paused_since;
    Cancel(n.resume);
  }
}

void SimWorld::Pause(int node, TimeNs until, bool applications) {
  Node& n = nodes_[static_cast<size_t>(node)];
  if (n.paused) return;
  n.paused = true;
  n.pause_applications = applications;
  n.paused_since = now_;
  n.resume = At(until, kNoNode, EventKind::kFault, [this, node] { Resume(node); });
}

void SimWorld::Resume(int node) {
  Node& n = nodes_[static_cast<size_t>(node)];
  CHECK(n.paused);
  n.paused = false;
  n.paused_for += now_ - n.paused_since;
  for (Entry entry : std::exchange(n.held, {})) {
    entry.time = now_;
    entry.sequence = ++sequence_;
    Push(entry);
  }
}

DurationNs SimWorld::PausedFor(int node) const {
  const Node& n = nodes_[static_cast<size_t>(node)];
  return n.paused_for + (n.paused ? now_ - n.paused_since : 0);
}

bool SimWorld::MustWait(const Slot& slot) const {
  if (slot.node == kNoNode) return false;
  const Node& n = nodes_[static_cast<size_t>(slot.node)];
  return n.paused && (slot.kind != EventKind::kApplication || n.pause_applications);
}

bool SimWorld::Step() {
  while (!failed() && !heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    const Entry entry = heap_.back();
    heap_.pop_back();
    const Slot& slot = slots_[entry.slot];
    if (!slot.taken || slot.use != entry.use) continue;
    if (entry.time > now_) {
      now_ = entry.time;
      events_at_now_ = 0;
    }
    if (MustWait(slot)) {
      nodes_[static_cast<size_t>(slot.node)].held.push_back(entry);
      continue;
    }
    Run(entry);
    return true;
  }
  return false;
}

void SimWorld::Run(const Entry& entry) {
  Slot& slot = slots_[entry.slot];
  ++events_;
  Note(static_cast<uint64_t>(now_), (static_cast<uint64_t>(slot.kind) << 8) | static_cast<uint8_t>(slot.node));
  absl::AnyInvocable<void()> callback = std::move(slot.callback);
  slot.callback = nullptr;
  Free(entry.slot);
  callback();
  callback = nullptr;
  if (after_event_) after_event_();
  if (++events_at_now_ > kMaxEventsAtOneTime) Fail("livelock: events without end, and no time passes");
}

void SimWorld::RunUntil(TimeNs time) {
  bool reached = false;
  const EventId stop = At(time, kNoNode, EventKind::kCheck, [&reached] { reached = true; });
  while (!reached && Step()) {
  }
  Cancel(stop);
}

void SimWorld::Fail(std::string what) {
  if (failed()) return;
  failure_ = what.empty() ? "failed without a reason" : std::move(what);
  Trace("FAILED: ", failure_);
}

void SimWorld::PrintTrace(const std::string& line) const {
  std::printf("%13.6f ms  %s\n", static_cast<double>(now_) / kMillisecond, line.c_str());
}

SimClock::SimClock(SimWorld* world, int node, DurationNs offset, int64_t drift_ppm)
    : world_(world),
      node_(node),
      born_(world->now()),
      offset_(offset),
      drift_ppm_(drift_ppm),
      random_(world->Fork("clock", static_cast<uint64_t>(node) + static_cast<uint64_t>(world->now()) * kMaxNodes)) {}

TimeNs SimClock::Now() const {
  const DurationNs age = world_->now() - born_;
  return offset_ + age + age / 1'000'000 * drift_ppm_ + age % 1'000'000 * drift_ppm_ / 1'000'000;
}

TimeNs SimClock::WorldTimeOf(TimeNs node_time) const {
  const DurationNs ahead = node_time - Now();
  if (ahead <= 0) return world_->now();
  if (ahead >= 365 * 24 * 3600 * kSecond) return world_->now() + 365 * 24 * 3600 * kSecond;
  // A little late rather than early: rounding must not fire a timer before its deadline.
  const int64_t rate = 1'000'000 + drift_ppm_;
  return world_->now() + ahead / rate * 1'000'000 + ahead % rate * 1'000'000 / rate + 3;
}

Clock::TimerId SimClock::CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) {
  if (dead_) return 0;
  DurationNs late = random_.PerMille(900) ? 0 : random_.Spread(1 * kMicrosecond, 1 * kMillisecond);
  return world_->At(WorldTimeOf(deadline) + late, node_, EventKind::kTimer, std::move(callback));
}

void SimClock::CallSoon(absl::AnyInvocable<void()> callback) {
  if (dead_) return;
  world_->At(world_->now(), node_, EventKind::kSoon, std::move(callback));
}

void SimClock::Cancel(TimerId timer) { world_->Cancel(timer); }

}  // namespace mangrove::sim
