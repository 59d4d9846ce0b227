// The simulated world: one virtual time line for all nodes, run by one thread.
//
//  W1  Events run in the order of (time, order of creation). Nothing else makes anything happen.
//  W2  Everything that chance decides comes from the seed: two worlds of one seed and one program have one history, and
//      one hash of it, which covers each event's time, node and kind and what the parts add by Note.
//  W3  An event of a node runs only in the life of the node in which it was made, and not while the node is paused.
//
// Nodes are slots 0 to n - 1; a slot lives many lives.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "directory/address.h"
#include "net/ids.h"
#include "net/runtime/clock.h"
#include "tests/sim/sim_random.h"

namespace mangrove::sim {

template <typename T>
const T& TracePart(const T& part) {
  return part;
}
inline std::string TracePart(PageId page) { return ToString(page); }
inline std::string TracePart(const PageRange& range) { return ToString(range); }
inline std::string TracePart(NodeInstance node) { return ToString(node); }
inline std::string TracePart(const absl::Status& status) { return status.ToString(); }

constexpr int kMaxNodes = 16;
constexpr int kNoNode = -1;

// Slots and identities: slot 0 is node 1.
constexpr NodeId NodeOfSlot(int slot) { return NodeId(static_cast<uint64_t>(slot) + 1); }
constexpr int SlotOfNode(NodeId node) { return static_cast<int>(node.value) - 1; }

enum class EventKind : uint8_t {
  kTimer,
  kSoon,
  kConnect,
  kPeerUp,
  kPeerDown,
  kDelivery,
  kStore,
  kMemory,
  kClient,       // A client program's step: waits while its node is paused.
  kApplication,  // An access of an application's thread: may go on while the daemon is paused.
  kFault,
  kCheck,
};

class SimWorld {
 public:
  using EventId = uint64_t;  // 0 is no event.

  explicit SimWorld(uint64_t seed);
  ~SimWorld();
  SimWorld(const SimWorld&) = delete;
  SimWorld& operator=(const SimWorld&) = delete;

  uint64_t seed() const { return seed_; }
  TimeNs now() const { return now_; }
  uint64_t events() const { return events_; }
  uint64_t hash() const { return hash_; }
  SimRandom Fork(std::string_view purpose, uint64_t index = 0) const { return root_.Fork(purpose, index); }

  // Runs `callback` at `time` (or now, if that is later), after the current event. `node` kNoNode: the world's own.
  EventId At(TimeNs time, int node, EventKind kind, absl::AnyInvocable<void()> callback);
  EventId After(DurationNs delay, int node, EventKind kind, absl::AnyInvocable<void()> callback) {
    return At(now_ + delay, node, kind, std::move(callback));
  }
  // Does nothing if the event has run, or for 0.
  void Cancel(EventId id);

  // The end of a life: every event of the node is dropped, its callback destroyed. REQUIRES: not called by an event of
  // that node.
  void DropEventsOf(int node);

  // Until `until` the node's events wait; then they all run, in their order. With `applications` its kApplication events
  // wait too.
  void Pause(int node, TimeNs until, bool applications);
  bool IsPaused(int node) const { return nodes_[static_cast<size_t>(node)].paused; }
  // For how long the node has been paused since the world began, the present pause included.
  DurationNs PausedFor(int node) const;

  // Runs the next event. False when there is none or the world has failed.
  bool Step();
  // Runs until `time`, or until the world has failed.
  void RunUntil(TimeNs time);

  // Adds to the history's hash.
  void Note(uint64_t a, uint64_t b = 0) {
    hash_ = (hash_ ^ a) * 0x9fb21c651e98df25u;
    hash_ = ((hash_ ^ (hash_ >> 29)) + b) * 0x94d049bb133111ebu;
    hash_ ^= hash_ >> 32;
  }

  // Something that must not be was seen: the first one stands, and the world stops after the current event.
  void Fail(std::string what);
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }

  // Called after every event.
  void SetAfterEvent(std::function<void()> hook) { after_event_ = std::move(hook); }

  // What happens, for people: printed with the time when `verbose`. The parts are what TracePart takes, and are not put
  // together otherwise.
  void SetVerbose(bool verbose) { verbose_ = verbose; }
  bool verbose() const { return verbose_; }
  template <typename... Parts>
  void Trace(const Parts&... parts) {
    if (verbose_) PrintTrace(absl::StrCat(TracePart(parts)...));
  }

 private:
  struct Slot {
    absl::AnyInvocable<void()> callback;
    uint32_t use = 0;
    int16_t node = kNoNode;
    EventKind kind = EventKind::kTimer;
    bool taken = false;
  };
  struct Entry {
    TimeNs time;
    uint64_t sequence;
    uint32_t slot;
    uint32_t use;
    bool operator>(const Entry& other) const {
      return time != other.time ? time > other.time : sequence > other.sequence;
    }
  };
  struct Node {
    bool paused = false;
    bool pause_applications = false;
    TimeNs paused_since = 0;
    DurationNs paused_for = 0;  // Ended pauses.
    EventId resume = 0;
    std::vector<Entry> held;
  };

  void PrintTrace(const std::string& line) const;
  void Free(uint32_t slot);
  void Push(const Entry& entry);
  bool MustWait(const Slot& slot) const;
  void Resume(int node);
  void Run(const Entry& entry);

  const uint64_t seed_;
  const SimRandom root_;
  TimeNs now_ = 0;
  uint64_t sequence_ = 0;
  uint64_t events_ = 0;
  uint64_t events_at_now_ = 0;
  uint64_t hash_;
  bool verbose_ = false;
  std::string failure_;
  std::function<void()> after_event_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<Entry> heap_;
  std::vector<Node> nodes_;
};

// A node's clock: the world's time, shifted and a little fast or slow. One per life of a node.
class SimClock final : public Clock {
 public:
  // `drift_ppm` parts per million: positive is fast.
  SimClock(SimWorld* world, int node, DurationNs offset, int64_t drift_ppm);

  TimeNs Now() const override;
  TimerId CallAt(TimeNs deadline, absl::AnyInvocable<void()> callback) override;
  void CallSoon(absl::AnyInvocable<void()> callback) override;
  void Cancel(TimerId timer) override;

  TimeNs WorldTimeOf(TimeNs node_time) const;
  // The life is over: nothing is scheduled any more.
  void Kill() { dead_ = true; }

 private:
  SimWorld* const world_;
  const int node_;
  const TimeNs born_;
  const DurationNs offset_;
  const int64_t drift_ppm_;
  SimRandom random_;
  bool dead_ = false;
};

}  // namespace mangrove::sim
