#include "tests/sim/scale_directory.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "directory/codec.h"
#include "engine/page_engine.h"
#include "net/check.h"
#include "tests/sim/heap.h"

namespace mangrove::sim {
namespace {

// Until messages that nobody waits for are out.
constexpr DurationNs kQuiet = 50 * kMillisecond;
constexpr DurationNs kDirectoryLimit = 600 * kSecond;
constexpr DurationNs kDirectoryCalm = 40 * kSecond;
constexpr uint64_t kCachePages = 4096;  // More than lookups need: what a node takes of RAM goes by that too.
constexpr size_t kMostAsking = 8;       // Besides the one that does nothing.

constexpr PageId Segment(uint64_t n) { return kFirstReservablePage + n * kSegmentPages; }

// Of all nodes.
class OneClock final : public Clock {
 public:
  TimeNs Now() const override { return now_; }
  TimerId CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) override {
    callbacks_[++last_] = std::move(callback);
    timers_.emplace(std::max(deadline, now_), last_);
    return last_;
  }
  void CallSoon(absl::AnyInvocable<void()> callback) override { soon_.push_back(std::move(callback)); }
  void Cancel(TimerId timer) override { callbacks_.erase(timer); }

  // What is to happen next, if it is to by `until`.
  bool Step(TimeNs until) {
    if (!soon_.empty()) {
      auto callback = std::move(soon_.front());
      soon_.pop_front();
      callback();
      return true;
    }
    while (!timers_.empty() && timers_.top().first <= until) {
      const auto [time, timer] = timers_.top();
      timers_.pop();
      auto callback = callbacks_.extract(timer);
      if (callback.empty()) continue;
      now_ = time;
      callback.mapped()();
      return true;
    }
    return false;
  }
  void AdvanceTo(TimeNs time) { now_ = std::max(now_, time); }

 private:
  TimeNs now_ = kSecond;
  TimerId last_ = 0;
  std::priority_queue<std::pair<TimeNs, TimerId>, std::vector<std::pair<TimeNs, TimerId>>, std::greater<>> timers_;
  absl::flat_hash_map<TimerId, absl::AnyInvocable<void()>> callbacks_;
  std::deque<absl::AnyInvocable<void()>> soon_;
};

// Nothing is on it, and nothing of the RAM directory comes to it.
class EmptyDisk final : public PageStore {
 public:
  explicit EmptyDisk(Clock* clock) : clock_(clock) {}
  void Commit(StoreBatch, CommitDone done) override {
    clock_->CallSoon([done = std::move(done)]() mutable { done(absl::OkStatus()); });
  }
  void ReadPages(PageRange range, bool, PagesDone done) override {
    clock_->CallSoon([range, done = std::move(done)]() mutable {
      done(std::vector<absl::StatusOr<StoredPage>>(range.count, absl::NotFoundError("an empty disk")));
    });
  }
  void ListPages(PageRange, size_t, Listed, ListDone done) override {
    clock_->CallSoon([done = std::move(done)]() mutable { done(PageList{}); });
  }
  void ReadRecords(std::string, RecordsDone done) override {
    clock_->CallSoon([done = std::move(done)]() mutable { done(std::vector<std::pair<std::string, std::string>>()); });
  }
  StoreUsage Usage() const override { return {}; }

 private:
  Clock* const clock_;
};

// No program has anything here: the directory's pages lie in the engine's own memory.
class NoMemory final : public PageMemory {
 public:
  bool Knows(PageId) const override { return false; }
  void Install(PageId, const std::byte*, Rights) override { CHECK(false && "no page of a program"); }
  void Raise(PageId) override { CHECK(false && "no page of a program"); }
  void Protect(PageId, absl::AnyInvocable<void()>) override { CHECK(false && "no page of a program"); }
  void Take(PageId, bool, absl::AnyInvocable<void(PageBuffer)>) override { CHECK(false && "no page of a program"); }
  PageBuffer Copy(PageId) override { return nullptr; }
  void Load(PageId, size_t, std::span<std::byte>) override { CHECK(false && "no page of a program"); }
  void Store(PageId, size_t, std::span<const std::byte>) override { CHECK(false && "no page of a program"); }
  void Fence() override {}
  void Unfence() override {}
};

class SeededEntropy final : public Entropy {
 public:
  explicit SeededEntropy(uint64_t seed) : random_(seed) {}
  uint64_t Next() override { return random_(); }

 private:
  std::mt19937_64 random_;
};

bool IsNewsOfRoom(const std::vector<std::byte>& packet, const std::vector<PageBuffer>& pages) {
  if (!pages.empty()) return false;
  const absl::StatusOr<std::vector<Message>> messages = Decode(packet, {});
  CHECK(messages.ok());
  return std::all_of(messages->begin(), messages->end(),
                     [](const Message& message) { return message.kind == MessageKind::kResources; });
}

class DirectoryScaleWorld {
 public:
  DirectoryScaleWorld(const std::vector<NodeId>& nodes, uint64_t seed);
  ~DirectoryScaleWorld();
  DirectoryScaleResult Run();

 private:
  class Wire final : public Transport {
   public:
    Wire(DirectoryScaleWorld* world, NodeInstance self) : world_(world), self_(self) {}
    absl::Status Start(TransportEvents*) override { return absl::OkStatus(); }
    void Send(NodeId to, Channel channel, std::span<const std::byte> message,
              std::span<const PageBuffer> pages) override {
      CHECK(channel == Channel::kPages);
      world_->Carry(self_, to, epoch_, {message.begin(), message.end()}, {pages.begin(), pages.end()});
    }
    void SetEpoch(Epoch epoch) override { epoch_ = epoch; }
    void Expel(NodeInstance) override { CHECK(false && "nobody leaves"); }
    uint8_t LevelOf(NodeId, Subsystem subsystem) const override {
      return kOwnLevels[static_cast<size_t>(subsystem)].high;
    }
    std::vector<PeerStatus> Peers() const override { return {}; }
    TransportCounters Counters() const override { return {}; }
    TransportSecurity SecurityInUse() const override { return {}; }

   private:
    DirectoryScaleWorld* const world_;
    const NodeInstance self_;
    Epoch epoch_;
  };
  struct Node {
    NodeInstance self;
    std::unique_ptr<Wire> wire;
    std::unique_ptr<PageEngine> engine;
  };

  // Whose engines are measured.
  size_t measured_responsible() const { return responsible_ / 2; }
  size_t measured_asking() const { return nodes_.size() - 2; }
  size_t idle() const { return nodes_.size() - 1; }
  void Carry(NodeInstance from, NodeId to, Epoch epoch, std::vector<std::byte> message, std::vector<PageBuffer> pages);
  void RunFor(DurationNs duration);
  template <typename T>
  T Wait(Task<T> task);
  void Touch(size_t node, uint64_t segment);
  void TouchAll();
  void LookUp(PageEngine& engine, DirectoryScaleResult& result);
  // By how much less is allocated without the node's engine.
  size_t EndEngine(size_t node);

  OneClock clock_;
  EmptyDisk disk_{&clock_};
  NoMemory memory_;
  SeededEntropy entropy_;
  std::mt19937_64 random_;
  uint64_t messages_ = 0;  // But for news of room.
  uint64_t idle_sends_ = 0;
  absl::flat_hash_map<NodeId, size_t> slots_;
  std::vector<Node> nodes_;
  size_t responsible_ = 0;      // So many of the nodes are, the first ones.
  std::vector<NodeId> owners_;  // By segment.
};

DirectoryScaleWorld::DirectoryScaleWorld(const std::vector<NodeId>& nodes, uint64_t seed)
    : entropy_(seed), random_(seed), nodes_(nodes.size()) {
  CHECK(nodes.size() >= 8);
  View view;
  view.epoch = Epoch(2);
  view.root = nodes.front();
  view.disks = {nodes.begin(), nodes.end()};
  responsible_ = nodes_.size() - 1 - std::min(kMostAsking, nodes_.size() / 4);
  // Who is responsible where has nothing to do with the numbers.
  std::vector<NodeId> mixed = nodes;
  std::shuffle(mixed.begin(), mixed.end(), random_);
  for (size_t i = 0; i < mixed.size(); ++i) {
    Node& node = nodes_[i];
    node.self = {mixed[i], Incarnation(1)};
    slots_[mixed[i]] = i;
    view.members[mixed[i]] = node.self.incarnation;
    node.wire = std::make_unique<Wire>(this, node.self);
    const PageEngineOptions options{.self = node.self, .members = nodes, .cache_pages = kCachePages};
    node.engine = std::make_unique<PageEngine>(options, &clock_, node.wire.get(), &disk_, &memory_, &entropy_);
    node.engine->Open([](const absl::Status& opened) { CHECK(opened.ok()); });
  }
  RunFor(kQuiet);
  for (Node& node : nodes_) {
    node.engine->OnView(view);
    node.engine->OnLease(kForever);
  }
  // Each tells all that it is connected with what room it has, again and again: so that the messages of a lookup are not lost among
  // these, only those know that they are connected that are measured, and the view's root, which asks all.
  for (const size_t slot : {slots_.at(view.root), measured_responsible(), measured_asking(), idle()}) {
    for (const Node& other : nodes_) {
      if (&other != &nodes_[slot]) nodes_[slot].engine->OnPeerUp(other.self);
    }
  }
  RunFor(kSecond);
}

DirectoryScaleWorld::~DirectoryScaleWorld() {
  for (Node& node : nodes_) {
    if (node.engine != nullptr) node.engine->Shutdown();
  }
  RunFor(kSecond);
}

void DirectoryScaleWorld::Carry(NodeInstance from, NodeId to, Epoch epoch, std::vector<std::byte> message,
                                std::vector<PageBuffer> pages) {
  if (!IsNewsOfRoom(message, pages)) ++messages_;
  if (slots_.at(from.node) == idle()) ++idle_sends_;
  clock_.CallAt(clock_.Now() + kHop, [this, from, to, epoch, message = std::move(message), pages = std::move(pages)] {
    const Node& node = nodes_[slots_.at(to)];
    if (node.engine == nullptr) return;
    std::vector<const std::byte*> contents;
    for (const PageBuffer& page : pages) contents.push_back(page->bytes.data());
    node.engine->OnDelivery({.from = from, .epoch = epoch, .message = message, .pages = contents});
  });
}

void DirectoryScaleWorld::RunFor(DurationNs duration) {
  const TimeNs until = clock_.Now() + duration;
  while (clock_.Step(until)) {
  }
  clock_.AdvanceTo(until);
}

template <typename T>
T DirectoryScaleWorld::Wait(Task<T> task) {
  std::optional<T> result;
  Spawn<T>(std::move(task), [&](T value) { result.emplace(std::move(value)); });
  while (!result) CHECK(clock_.Step(clock_.Now() + kDirectoryLimit));
  return *std::move(result);
}

void DirectoryScaleWorld::Touch(size_t node, uint64_t segment) {
  PageEngine& engine = *nodes_[node].engine;
  const absl::Status located = Wait(engine.Locate(Segment(segment), clock_.Now() + kDirectoryLimit));
  CHECK(located.ok());
  owners_[segment] = nodes_[node].self.node;
  CHECK(engine.ResponsibleFor(Segment(segment)) == owners_[segment]);
}

// The nodes of a stretch one after the other, each in order.
void DirectoryScaleWorld::TouchAll() {
  owners_.resize((responsible_ + 1) / 2 * 2 * kSegmentsOfANode);
  for (size_t node = 0; node < responsible_; ++node) {
    const uint64_t first = node / 2 * 2 * kSegmentsOfANode + node % 2;
    for (uint64_t i = 0; i < kSegmentsOfANode; ++i) Touch(node, first + 2 * i);
  }
}

void DirectoryScaleWorld::LookUp(PageEngine& engine, DirectoryScaleResult& result) {
  const auto count = [](LookupCost& cost, double pages, double messages, double hops) {
    ++cost.lookups;
    cost.pages += (pages - cost.pages) / cost.lookups;
    cost.messages += (messages - cost.messages) / cost.lookups;
    cost.hops += (hops - cost.hops) / cost.lookups;
  };
  for (int i = 0; i < kLookups; ++i) {
    uint64_t segment = random_() % owners_.size();
    while (owners_[segment].value == 0) segment = random_() % owners_.size();
    const PageId page = Segment(segment);
    const uint64_t messages_before = messages_;
    const uint64_t pages_before = engine.counters().read_requests;
    const TimeNs begin = clock_.Now();
    CHECK(Wait(engine.Locate(page, clock_.Now() + kDirectoryLimit)).ok());
    const double hops = static_cast<double>(clock_.Now() - begin) / static_cast<double>(kHop);
    RunFor(kQuiet);
    const auto pages = static_cast<double>(engine.counters().read_requests - pages_before);
    const auto messages = static_cast<double>(messages_ - messages_before);
    CHECK(engine.ResponsibleFor(page) == owners_[segment]);
    const std::optional<DirectoryTree::Found> found = engine.directory().Peek(page);
    CHECK(found && found->entry && found->entry->range.count == kSegmentPages);
    result.levels = std::max(result.levels, found->depth);
    count(result.all, pages, messages, hops);
    if (i == 0) count(result.first, pages, messages, hops);
    if (i > 0 && pages == 1) count(result.leaf, pages, messages, hops);
  }
}

size_t DirectoryScaleWorld::EndEngine(size_t node) {
  std::unique_ptr<PageEngine>& engine = nodes_[node].engine;
  engine->Shutdown();
  RunFor(kQuiet);
  const size_t before = HeapInUse();
  engine.reset();
  return before - HeapInUse();
}

DirectoryScaleResult DirectoryScaleWorld::Run() {
  DirectoryScaleResult result;
  TouchAll();
  result.segments = responsible_ * kSegmentsOfANode;
  RunFor(kQuiet);
  idle_sends_ = 0;
  RunFor(kDirectoryCalm);
  result.idle_sends = static_cast<double>(idle_sends_) * kSecond / kDirectoryCalm;
  for (size_t node = responsible_; node < idle(); ++node) LookUp(*nodes_[node].engine, result);
  if (!kHeapIsCounted) return result;
  result.idle_bytes = EndEngine(idle());
  result.asking_bytes = EndEngine(measured_asking());
  result.responsible_bytes = EndEngine(measured_responsible());
  return result;
}

}  // namespace

DirectoryScaleResult RunDirectoryScale(const std::vector<NodeId>& nodes, uint64_t seed) {
  return std::make_unique<DirectoryScaleWorld>(nodes, seed)->Run();
}

}  // namespace mangrove::sim
