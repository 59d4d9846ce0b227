// One page, its responsible node and two or three caches, small enough to try every order of events: the two machines
// as they are, with memory, disks and a network that a few lines each model. The engine is not in it.
//
// Node 0 is the page's responsible node and has a cache like the others; the core holders are nodes 0 and 1. What a node
// sends to itself arrives at once and in order, as in the engine; what it sends to another waits in a multiset, from
// which any message may be delivered next, `Limits::deliveries` times, or never (it was lost, and is sent again). The
// page's content is a number, counted up by every write.

#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "directory/cache_machine.h"
#include "directory/responsible_machine.h"

namespace mangrove::model {

constexpr PageId kPage{7};
constexpr int kMaxNodes = 3;

// How often each thing may still happen.
struct Limits {
  int nodes = 2;
  int deliveries = 1;  // Of one message.
  int wants = 3;
  int writes = 2;
  int evicts = 0;
  int offers = 0;  // Of the owner's copy to another node.
  int flushes = 0;
  int cancels = 0;
  int pins = 0;
  int holds = 0;  // Copies that come with a minimum hold time.
  int crashes = 0;
  bool drops_unasked = false;  // Readers drop also what may be the last copy: the model is to see that.
};

// A page that holds the number, shared by all who hold it, and back.
PageBuffer Content(int number);
int NumberIn(const PageBuffer& page);

enum class Right : uint8_t { kNone, kRead, kWrite };

struct Packet {
  NodeInstance from;
  NodeInstance to;
  std::shared_ptr<const Message> message;
  std::string key;  // Equal for equal packets.
  int left = 0;     // Deliveries.
};

// Of a packet that is not filled yet.
std::string KeyOf(const Packet& packet, const Message& message);

struct StoredPage {
  Version version;
  int content = 0;
  Epoch seal;
};

// A flush under way: the version was frozen, its stores are out.
struct FlushUnderWay {
  bool on = false;
  Version version;
  int content = 0;
  RequestId request;
  uint32_t stored = 0;  // Bits of the core holders.
};

struct ModelNode {
  Incarnation incarnation{1};
  std::array<Incarnation, kMaxNodes> known;  // Incarnations of the others, as far as it has heard.
  CacheEntry cache;
  int frame = -1;  // Its content.
  Right right = Right::kNone;
  StoredPage disk;
  FlushUnderWay flush;
  bool offers = false;  // Its copy; until it is used again.
  Txn told_before;      // The last that its cache had applied when it heard of the last loss.
  // Registration with a new incarnation of node 0.
  bool told = false;
  HolderReport tells;
};

struct LoadUnderWay {
  bool on = false;
  Txn txn;
  bool recover = false;
  bool version_only = false;
  Epoch epoch;
  int asked = 0;
  StoredPage newest;
};

enum class Act : uint8_t {
  kDeliver,  // Packet `what`.
  kWantRead,
  kWantWrite,
  kWrite,
  kEvict,
  kAskToDrop,  // A sharer, of a copy that may be the last (E1 of engine/evict.cc).
  kOffer,      // Node `node`, the owner, has no room: node `what` asks for the page.
  kWithdraw,   // It is used again.
  kCancel,
  kFlush,
  kSendAgain,      // The cache's unanswered messages.
  kHomeSendAgain,  // The responsible node's.
  kAskDisk,        // The next core holder answers a load.
  kHoldEnds,
  kPinShared,
  kPinExclusive,
  kUnpin,
  kCrash,   // And start anew.
  kHearOf,  // Node `node` learns of the incarnation of node `what`.
  kTell,    // Node `node` says what it holds to the new incarnation of node 0 …
  kTold,    // … which hears it.
};

struct Action {
  Act act = Act::kDeliver;
  uint8_t node = 0;
  uint8_t what = 0;
};

class World {
 public:
  explicit World(const Limits& limits, const PlantedBugs* bugs = nullptr);

  // What can happen next.
  std::vector<Action> Actions() const;
  void Apply(const Action& action);
  std::string Describe(const Action& action) const;
  std::string Describe() const;

  // Equal for worlds that cannot be told apart by what may follow.
  std::string Key() const;

  // The first rule that was broken, or empty.
  const std::string& broken() const { return broken_; }

  // From here on nothing new is wanted, nothing is lost or doubled and every message is sent again in time: whether all
  // comes to rest, with everyone agreeing on who has the page; and whether every node can then read and write it. `lose`:
  // what is under way now is lost first. Breaks a rule if not.
  void Settle(bool lose);

 private:
  NodeInstance Instance(int node) const { return {NodeId(node + 1), nodes_[node].incarnation}; }
  int Holders() const { return limits_.nodes < 2 ? 1 : 2; }
  CacheContext CacheContextOf(int node);
  HomeContext HomeContextOf();
  void Break(const std::string& rule);

  void Send(int from, NodeId to, Message message);
  void Pump();
  void Dispatch(const Message& message, NodeInstance from, int to);
  void CarryCache(int node, std::vector<CacheEffect>& effects);
  void CarryHome(std::vector<HomeEffect>& effects);
  void Local(int node, CacheEvent event);
  void Unblock(int node);
  void Store(const Message& message, NodeInstance from, int to);
  void StartFlush(int node);
  void AskDisk();
  void SendAgain(int node);
  void Crash(int node);
  void HearOf(int node, int peer);
  void Told(int node);

  bool CanSendAgain(int node) const;
  bool MayBeLast(int node) const;
  bool IsKept() const;
  bool IsAnyLost() const;
  void Check();
  void CheckMemory(int node);
  void CheckContents();
  void CheckKnown();
  bool HaveAllHeard() const;
  void FindLast();
  void LearnLast();
  void Rest();
  void DeliverAll();
  void Restore();
  bool AtRest() const;
  void CheckAgreement();
  void ReadEverywhere();

  Limits limits_;
  const PlantedBugs* bugs_;
  std::vector<ModelNode> nodes_;
  HomeEntry home_;
  bool ready_ = true;
  Epoch epoch_{1};
  uint64_t next_txn_ = 1;
  Txn lost_at_;  // The first that the responsible node has given out since the last loss that it knows of.
  uint64_t next_request_ = 1;
  LoadUnderWay load_;
  std::vector<Packet> packets_;
  std::deque<std::pair<int, Message>> local_;
  int counter_ = 0;         // Of writes.
  int last_ = 0;            // What the last write left.
  bool last_known_ = true;  // False after a crash that may have taken it along.
  int acknowledged_ = 0;    // The newest content that a flush was acknowledged for.
  std::string broken_;
};

}  // namespace mangrove::model
