// Page engines of a small cluster in one thread: a clock that stands still until the test waits, a network that delivers
// at once, disks and memories in maps. What the simulator is too random for is tested here.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "directory/codec.h"
#include "directory/locator.h"
#include "engine/page_engine.h"
#include "net/check.h"
#include "net/log.h"
#include "tests/unit/engine/core_holder_harness.h"

namespace mangrove {

// Every step takes a microsecond.
class ManualClock final : public Clock {
 public:
  TimeNs Now() const override { return now_; }
  TimerId CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) override {
    const TimerId id = ++next_;
    timers_.emplace(std::pair(deadline, id), std::move(callback));
    deadlines_[id] = deadline;
    return id;
  }
  void CallSoon(absl::AnyInvocable<void()> callback) override { soon_.push_back(std::move(callback)); }
  void Cancel(TimerId timer) override {
    const auto it = deadlines_.find(timer);
    if (it == deadlines_.end()) return;
    timers_.erase({it->second, timer});
    deadlines_.erase(it);
  }

  bool RunSoon() {
    if (soon_.empty()) return false;
    now_ += kMicrosecond;
    auto callback = std::move(soon_.front());
    soon_.pop_front();
    callback();
    return true;
  }
  // The next timer that is due by `until`, whose time it becomes.
  bool RunTimer(TimeNs until) {
    if (timers_.empty() || timers_.begin()->first.first > until) return false;
    auto node = timers_.extract(timers_.begin());
    now_ = std::max(now_, node.key().first);
    deadlines_.erase(node.key().second);
    node.mapped()();
    return true;
  }
  void AdvanceTo(TimeNs time) { now_ = std::max(now_, time); }

 private:
  TimeNs now_ = kSecond;
  TimerId next_ = 0;
  std::map<std::pair<TimeNs, TimerId>, absl::AnyInvocable<void()>> timers_;
  std::map<TimerId, TimeNs> deadlines_;
  std::deque<absl::AnyInvocable<void()>> soon_;
};

class MapMemory final : public PageMemory {
 public:
  bool Knows(PageId page) const override { return !unknown.Contains(page); }
  void Install(PageId page, const std::byte* data, Rights) override {
    CHECK(Knows(page));
    auto frame = std::make_shared<PageBytes>();
    if (data != nullptr) std::memcpy(frame->bytes.data(), data, kPageBytes);
    CHECK(frames_.emplace(page, std::move(frame)).second);
  }
  void Raise(PageId) override {}
  void Protect(PageId, absl::AnyInvocable<void()> done) override {
    if (hold_protects) {
      held.push_back(std::move(done));
    } else {
      done();
    }
  }
  void Take(PageId page, bool, absl::AnyInvocable<void(PageBuffer)> done) override {
    auto frame = std::move(frames_.at(page));
    frames_.erase(page);
    done(std::move(frame));
  }
  PageBuffer Copy(PageId page) override {
    ++copies;
    return std::make_shared<PageBytes>(*frames_.at(page));
  }
  void Load(PageId page, size_t offset, std::span<std::byte> out) override {
    std::memcpy(out.data(), frames_.at(page)->bytes.data() + offset, out.size());
  }
  void Store(PageId page, size_t offset, std::span<const std::byte> bytes) override {
    std::memcpy(frames_.at(page)->bytes.data() + offset, bytes.data(), bytes.size());
  }
  void Fence() override { fenced = true; }
  void Unfence() override { fenced = false; }

  bool hold_protects = false;  // A program holds its mmap lock for ever.
  std::deque<absl::AnyInvocable<void()>> held;
  int copies = 0;
  bool fenced = false;
  PageRange unknown;  // A region that no program of the node has opened.

 private:
  std::map<PageId, std::shared_ptr<PageBytes>> frames_;
};

class ZeroEntropy final : public Entropy {
 public:
  uint64_t Next() override { return 0; }
};

class EngineCluster;

class DirectTransport final : public Transport {
 public:
  DirectTransport(EngineCluster* cluster, NodeInstance self) : cluster_(cluster), self_(self) {}
  absl::Status Start(TransportEvents*) override { return absl::OkStatus(); }
  void Send(NodeId to, Channel channel, std::span<const std::byte> message, std::span<const PageBuffer> pages) override;
  void SetEpoch(Epoch epoch) override { epoch_ = epoch; }
  void Expel(NodeInstance node) override { expelled.push_back(node); }
  uint8_t LevelOf(NodeId, Subsystem subsystem) const override {
    return kOwnLevels[static_cast<size_t>(subsystem)].high;
  }
  std::vector<PeerStatus> Peers() const override { return {}; }
  TransportCounters Counters() const override { return {}; }
  TransportSecurity SecurityInUse() const override { return {}; }

  std::vector<NodeInstance> expelled;

 private:
  EngineCluster* const cluster_;
  const NodeInstance self_;
  Epoch epoch_;
};

struct EngineHost {
  NodeInstance self;
  FakeCoreHolderStore& store;
  MapMemory memory;
  std::unique_ptr<DirectTransport> transport;
  std::unique_ptr<PageEngine> engine;
};

// Nodes are numbered from 1 on, if nothing else is said.
class EngineCluster {
 public:
  explicit EngineCluster(int nodes, std::function<void(PageEngineOptions&)> change = {})
      : EngineCluster(NumbersUpTo(nodes), std::move(change)) {}
  explicit EngineCluster(const std::vector<uint64_t>& nodes, std::function<void(PageEngineOptions&)> change = {})
      : change_(std::move(change)) {
    for (uint64_t node : nodes) members_.emplace_back(node);
    view_.disks.insert(members_.begin(), members_.end());
    locator_ = Locator(view_.disks);
    for (NodeId member : members_) Start({member, Incarnation(1)});
    RunFor(kSecond);
  }
  ~EngineCluster() {
    for (auto& [node, host] : hosts_) host->engine->Shutdown();
    while (Step(clock.Now() + 60 * kSecond)) {
    }
  }

  // A life of a node; the one before is gone, without a word.
  void Start(NodeInstance self) {
    auto& disk = disks_[self.node];
    if (disk == nullptr) disk = std::make_unique<FakeCoreHolderStore>();
    if (hosts_.contains(self.node)) Stop(self.node);
    disk->Crash();
    std::unique_ptr<EngineHost> host(
        new EngineHost{.self = self, .store = *disk, .memory = {}, .transport = nullptr, .engine = nullptr});
    host->transport = std::make_unique<DirectTransport>(this, self);
    PageEngineOptions options{.self = self, .members = members_, .cache_pages = 4096, .move_after = 0};
    if (change_) change_(options);
    host->engine =
        std::make_unique<PageEngine>(options, &clock, host->transport.get(), &host->store, &host->memory, &entropy_);
    host->engine->SetDiskSink([this, self](const DiskState& said) {
      if (said.caught_up) caught_up_.insert(self.node);
      moved_[self.node] = said.moved;
    });
    host->engine->Open([](absl::Status s) { CHECK(s.ok()); });
    for (auto& [node, other] : hosts_) {
      other->engine->OnPeerUp(self);
      host->engine->OnPeerUp(other->self);
    }
    hosts_[self.node] = std::move(host);
    if (together_) return together_->push_back(self);
    ViewChange join{.epoch = {}, .joins = {self}, .leaves = {}};
    if (blank_.erase(self.node) > 0) join.blank = {self.node};
    ChangeView(std::move(join));
  }
  void StartTogether(const std::vector<NodeInstance>& nodes) {
    std::vector<NodeInstance> joins;
    together_ = &joins;
    for (const NodeInstance& node : nodes) Start(node);
    together_ = nullptr;
    ChangeView({.epoch = {}, .joins = joins, .leaves = {}});
  }
  // All know it at once. Who stopped is in it until it says otherwise. The first disks are current.
  void ChangeView(ViewChange change) {
    ChangeViewAt({}, std::move(change));
    for (auto& [node, host] : hosts_) TellView(node.value);
  }
  // One that keeps pages and was never heard of.
  void AddAbsentDisk(uint64_t node) {
    view_.disks.insert(NodeId(node));
    ChangeView({});
  }
  // Pages are to be kept by these from now on; they move by themselves.
  void Place(const std::set<uint64_t>& nodes) {
    ViewChange change;
    const std::set<NodeId>& wanted = view_.wanted_disks();
    for (const uint64_t node : nodes) {
      if (!wanted.contains(NodeId(node))) change.place.push_back(NodeId(node));
    }
    for (const NodeId node : wanted) {
      if (!nodes.contains(node.value)) change.unplace.push_back(node);
    }
    ChangeView(std::move(change));
  }
  // Only these nodes know it, until the others are told.
  void ChangeViewAt(const std::vector<uint64_t>& nodes, ViewChange change) {
    change.epoch = Epoch(view_.epoch.value + 1);
    view_.Apply(change);
    locator_ = Locator(view_.disks);
    for (const uint64_t node : nodes) TellView(node);
  }
  void TellView(uint64_t node) {
    EngineHost& told = host(node);
    told.engine->OnView(view_);
    told.engine->OnLease(view_.Has(told.self) ? kForever : 0);
  }
  const View& view() const { return view_; }
  // It is gone, and all know it.
  void Leave(uint64_t node) {
    if (hosts_.contains(NodeId(node))) Stop(NodeId(node));
    ChangeView({.epoch = {}, .joins = {}, .leaves = {NodeId(node)}});
  }
  // It is given up, and once others keep its pages it is out of the cluster: no view names it any more.
  void Remove(uint64_t node) {
    std::set<uint64_t> stay;
    for (const NodeId disk : view_.wanted_disks()) {
      if (disk.value != node) stay.insert(disk.value);
    }
    ChangeView({.epoch = {}, .joins = {}, .leaves = {}, .lost = {NodeId(node)}});
    Place(stay);
    RunFor(2 * kSecond);
    CHECK(!view_.disks.contains(NodeId(node)));
    view_.behind.erase(NodeId(node));
    view_.lost.erase(NodeId(node));
    ChangeView({});
  }
  std::vector<uint64_t> running() const {
    std::vector<uint64_t> nodes;
    for (const auto& [node, host] : hosts_) nodes.push_back(node.value);
    return nodes;
  }
  void Stop(NodeId node) {
    const NodeInstance self = hosts_.at(node)->self;
    hosts_.at(node)->engine->Shutdown();
    while (clock.RunSoon()) {
    }
    hosts_.erase(node);  // Its disk stays.
    for (auto& [other, host] : hosts_) host->engine->OnPeerDown(self, absl::UnavailableError("gone"));
  }

  // Stops the node for good; returns by how much `in_use` falls when its engine goes.
  size_t EndEngine(NodeId node, const std::function<size_t()>& in_use) {
    PageEngine& engine = *hosts_.at(node)->engine;
    engine.Shutdown();
    while (clock.RunSoon()) {
    }
    const size_t before = in_use();
    hosts_.at(node)->engine.reset();
    const size_t after = in_use();
    hosts_.erase(node);
    return before - after;
  }

  void StartWithAnEmptyDisk(NodeInstance self) {
    if (hosts_.contains(self.node)) Stop(self.node);
    disks_.erase(self.node);
    blank_.insert(self.node);
    Start(self);
  }

  EngineHost& host(uint64_t node) { return *hosts_.at(NodeId(node)); }
  PageEngine& engine(uint64_t node) { return *host(node).engine; }
  // Of the disks that keep pages, whoever is there.
  const Locator& locator() const { return locator_; }
  // The first page from `from` on, of a whole segment, that `node` is responsible for, and the primary core holder of.
  PageId SegmentOf(uint64_t node, PageId from = kBase) {
    PageId page = SegmentStart(from + (kSegmentPages - 1));
    while (locator_.Primary(page) != NodeId(node) || !IsResponsible(node, page)) page = page + kSegmentPages;
    return page;
  }
  // If nobody is, the node becomes it.
  bool IsResponsible(uint64_t node, PageId page) {
    const absl::Status located = Wait(engine(node).Locate(page, In(kSecond)));
    CHECK(located.ok());
    return engine(node).ResponsibleFor(page) == NodeId(node);
  }

  // Timers that are due come first: nothing that goes on and on keeps them away.
  bool Step(TimeNs until) {
    if (clock.RunTimer(clock.Now())) return true;
    if (MakeCurrent()) return true;
    if (clock.RunSoon()) return true;
    if (!wire_.empty()) {
      const OnWire next = std::move(wire_.front());
      wire_.pop_front();
      Deliver(next.to, next.from, next.epoch, next.packet);
      return true;
    }
    for (auto& [node, host] : hosts_) {
      if (host->store.commits.empty() && host->store.reads.empty()) continue;
      if (slow.contains(node) && IsFinishing(node.value)) continue;
      host->store.FinishAll();
      return true;
    }
    return clock.RunTimer(until);
  }
  // Its disk is to make durable that it has caught up.
  bool IsFinishing(uint64_t node) {
    const auto& commits = host(node).store.commits;
    return !commits.empty() && !commits.front().first.records.empty() &&
           commits.front().first.records.back().key == "engine/complete";
  }
  void RunFor(DurationNs duration) {
    const TimeNs until = clock.Now() + duration;
    while (Step(until)) {
    }
    clock.AdvanceTo(until);
  }
  template <typename T>
  T Wait(Task<T> task) {
    std::optional<T> result;
    Spawn<T>(std::move(task), [&](T value) { result.emplace(std::move(value)); });
    while (!result) CHECK(Step(clock.Now() + 600 * kSecond));
    return *std::move(result);
  }

  void Deliver(NodeId to, NodeInstance from, Epoch epoch, const Packet& packet) {
    const auto it = hosts_.find(to);
    if (it == hosts_.end()) return;
    std::vector<const std::byte*> pages;
    for (const PageBuffer& page : packet.pages) pages.push_back(page->bytes.data());
    it->second->engine->OnDelivery({.from = from, .epoch = epoch, .message = packet.bytes, .pages = pages});
  }
  // As if `from` had sent it, under the view that the receiver knows.
  void Inject(uint64_t to, uint64_t from, const Message& message) {
    InjectUnder(engine(to).view().epoch, to, host(from).self, message);
  }
  void InjectUnder(Epoch epoch, uint64_t to, NodeInstance from, const Message& message) {
    Encode({&message, 1}, [&](const Packet& packet) { Deliver(NodeId(to), from, epoch, packet); });
  }
  void OnSend(NodeInstance from, NodeId to, Epoch epoch, Packet packet) {
    std::vector<const std::byte*> pages;
    for (const PageBuffer& page : packet.pages) pages.push_back(page->bytes.data());
    auto messages = Decode(packet.bytes, pages);
    CHECK(messages.ok());
    if (std::erase_if(*messages, [this](const Message& m) { return dropped.contains(m.kind) || (lost && lost(m)); }) >
        0) {
      if (messages->empty()) return;
      return Encode(*messages, [&](const Packet& left) { OnSend(from, to, epoch, left); });
    }
    std::set<MessageKind> kinds;
    for (const Message& m : *messages) {
      ++sent[m.kind];
      ++sent_by[from.node.value];
      kinds.insert(m.kind);
      last_request[m.kind] = m.request;
    }
    for (MessageKind kind : kinds) ++packets[kind];
    if (cut.contains(from.node) || cut.contains(to)) return;
    wire_.push_back({.to = to, .from = from, .epoch = epoch, .packet = std::move(packet)});
  }

  TimeNs In(DurationNs duration) const { return clock.Now() + duration; }
  absl::Status Write(uint64_t node, PageId page, uint8_t value) {
    absl::Status status = Wait(engine(node).Acquire({page, 1}, Rights::kWrite, In(5 * kSecond)));
    if (status.ok()) engine(node).Store(page, 0, std::vector<std::byte>(1, std::byte{value}));
    return status;
  }
  absl::StatusOr<int> Read(uint64_t node, PageId page) {
    absl::Status status = Wait(engine(node).Acquire({page, 1}, Rights::kRead, In(5 * kSecond)));
    if (!status.ok()) return status;
    std::byte value{};
    engine(node).Load(page, 0, {&value, 1});
    return static_cast<int>(value);
  }
  void Allocate(PageRange range, uint64_t config = 1, bool is_volatile = false) {
    const absl::Status put = Wait(engine(1).PutExtent(range, ConfigNumber(config), 2, is_volatile, In(5 * kSecond)));
    ASSERT_TRUE(put.ok()) << put;
  }

  ManualClock clock;
  std::map<MessageKind, int> sent;
  std::map<uint64_t, int> sent_by;     // Messages, by node.
  std::map<MessageKind, int> packets;  // With a message of that kind.
  std::map<MessageKind, RequestId> last_request;
  std::set<NodeId> hold_caught_up;  // That they say so the leader does not hear.
  std::set<NodeId> slow;            // Whose disks do not make that durable.
  std::set<NodeId> cut;             // What they send or are sent is lost.
  std::set<MessageKind> dropped;
  std::function<bool(const Message&)> lost;  // These as well.

 private:
  static std::vector<uint64_t> NumbersUpTo(int nodes) {
    std::vector<uint64_t> numbers(static_cast<size_t>(nodes));
    std::iota(numbers.begin(), numbers.end(), 1);
    return numbers;
  }

  struct OnWire {
    NodeId to;
    NodeInstance from;
    Epoch epoch;
    Packet packet;
  };

  // What the leader of the anchors does about disks that have caught up, or have what comes with a move.
  bool MakeCurrent() {
    std::vector<NodeId> nodes;
    std::set<NodeId> held;
    for (const NodeId node : std::exchange(caught_up_, {})) {
      if (hold_caught_up.contains(node)) {
        held.insert(node);
        continue;
      }
      if (hosts_.contains(node) && view_.Has(host(node.value).self) && view_.behind.contains(node))
        nodes.push_back(node);
    }
    caught_up_ = held;
    ViewChange change;
    change.caught_up = std::move(nodes);
    NoteMoved(change);
    if (change.empty()) return false;
    ChangeView(std::move(change));
    return true;
  }

  void NoteMoved(ViewChange& change) const {
    const auto is_current = [&](NodeId node) {
      return !view_.behind.contains(node) ||
             std::find(change.caught_up.begin(), change.caught_up.end(), node) != change.caught_up.end();
    };
    change.placed = !view_.next_disks.empty();
    for (const NodeId node : view_.next_disks) {
      const auto said = moved_.find(node);
      const bool has_said = said != moved_.end() && said->second == view_.move && hosts_.contains(node);
      const bool has_moved = view_.moved.contains(node) || (has_said && is_current(node));
      if (has_moved && !view_.moved.contains(node)) change.moved.push_back(node);
      if (!has_moved || !is_current(node) || !view_.members.contains(node)) change.placed = false;
    }
  }

  const std::function<void(PageEngineOptions&)> change_;
  std::vector<NodeInstance>* together_ = nullptr;  // Those that StartTogether starts.
  std::set<NodeId> blank_;                         // That start with an empty disk.
  std::set<NodeId> caught_up_;                     // That say so.
  std::map<NodeId, Epoch> moved_;                  // What they say.
  ZeroEntropy entropy_;
  std::vector<NodeId> members_;
  View view_;
  Locator locator_;
  std::deque<OnWire> wire_;
  std::map<NodeId, std::unique_ptr<FakeCoreHolderStore>> disks_;
  std::map<NodeId, std::unique_ptr<EngineHost>> hosts_;
};

inline void DirectTransport::Send(NodeId to, Channel channel, std::span<const std::byte> message,
                                  std::span<const PageBuffer> pages) {
  CHECK(channel == Channel::kPages);
  cluster_->OnSend(self_, to, epoch_, {{message.begin(), message.end()}, {pages.begin(), pages.end()}});
}

}  // namespace mangrove
