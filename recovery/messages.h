// What nodes tell each other about who is there. recovery/messages.capnp is the wire form, recovery/codec.h the way there.
//
//   every node -> an anchor   Pulse         I am here; this is the view that I know.
//   anchor -> node            PulseAnswer   who leads; from the leader: your lease runs from that pulse on.
//   leader -> node            ViewChange    before the answer, to who does not know the newest view; where it is far behind, the whole
//                             ViewPart      of it.
//   member -> its monitor     Pulse         as above, in a large view (recovery/groups.h); the monitor brings members up to the view.
//   monitor -> leader         PulseBatch    pulses of its group; answered by an AnswerBatch, which becomes PulseAnswers.
//   anchor <-> anchor         RaftMessage   the log.
//   anchor -> node            RosterPart    before the answer, to who does not know all nodes as they are: those that have changed.
//   node -> leader            NodeRequest   what an operator wants done with a node, or that there is another one.
//   anchor <-> anchor         Greeting      before a log begins: have you ever voted?
//   member -> member          Stopping      I am about to end, in order.
//
// Each may be lost, doubled or late. Who sent it, as which incarnation, the transport says.

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "net/ids.h"
#include "net/runtime/clock.h"
#include "recovery/node_database.h"
#include "recovery/raft.h"
#include "recovery/view.h"

namespace mangrove {

// How large a node's disk is for pages.
struct DiskSize {
  static constexpr uint16_t kAllUsed = 1001;
  uint32_t mib = 0;   // What pages may take of it: what they take, and what is free. 0: it says nothing of it.
  uint16_t used = 0;  // What they take of that, in thousandths, and 1. 0: it says nothing of it.
  friend bool operator==(const DiskSize&, const DiskSize&) = default;
};

struct Pulse {
  static constexpr size_t kMostUnreachable = 64;  // Named in one pulse.

  TimeNs sent_at = 0;               // By the sender's clock.
  Epoch epoch;                      // Of the newest view that it knows whole.
  std::vector<NodeId> unreachable;  // Members of that view with which it has had no connection for a while.
  bool blank = false;               // Its disk was empty when it started.
  bool caught_up = false;           // Its disk has all of its pages that was ever acknowledged, as of now.
  Epoch moved;                 // It has all that it is to keep after the move of that view. 0: it says nothing of it.
  bool knows_weights = false;  // It is of a version that goes by the weights of disks.
  DiskSize disk;
  uint64_t roster = 0;  // The nodes that it knows are those up to this change (D6); 0: those of its configuration.
  bool leaves = false;  // It has given its lease up, and serves nothing any more, as this incarnation for ever.
  friend bool operator==(const Pulse&, const Pulse&) = default;
};

struct PulseAnswer {
  // Of a pulse of the receiver's: its lease runs from then on, by its own clock. 0: it is given none.
  TimeNs lease_from = 0;
  Epoch epoch;              // Of the newest view; of an anchor that does not lead, 0.
  NodeId leader;            // Of the anchors, as far as the sender knows; 0: there is none.
  bool is_gone = false;     // The receiver's incarnation was in the view and is not any more: it must start anew.
  Incarnation to;           // Of the receiver: a later one takes nothing for itself.
  bool is_removed = false;  // The receiver's node is out of the cluster for good.
  friend bool operator==(const PulseAnswer&, const PulseAnswer&) = default;
};

// A part of a view: of its members, and of what else it names, in the order of the nodes.
struct ViewPart {
  static constexpr size_t kMostNodes = 340;

  struct Node {
    NodeId node;
    Incarnation incarnation;  // 0: it is not in the view.
    Epoch behind;             // As View::behind; 0: its disk is current.
    bool is_disk = false;     // In which of the view's sets it is. (One of all these says something.)
    bool is_next_disk = false;
    bool has_moved = false;
    bool is_draining = false;
    bool is_lost = false;
    uint8_t weight = 0;  // As a disk, and as one that is to be. 0: the full one.
    uint8_t next_weight = 0;
    friend bool operator==(const Node&, const Node&) = default;
  };

  Epoch epoch;
  uint32_t first = 0;  // How many nodes are in the parts before.
  bool is_last = false;
  std::vector<Node> nodes;  // At most kMostNodes.
  NodeId root;
  Epoch move;
  friend bool operator==(const ViewPart&, const ViewPart&) = default;
};

struct RelayedPulse {
  NodeInstance from;
  Pulse pulse;
  friend bool operator==(const RelayedPulse&, const RelayedPulse&) = default;
};

struct PulseBatch {
  static constexpr size_t kMostPulses = 64;
  static constexpr size_t kMostUnreachable = 512;  // Named by all of them.

  std::vector<RelayedPulse> pulses;
  friend bool operator==(const PulseBatch&, const PulseBatch&) = default;
};

struct RelayedAnswer {
  NodeInstance to;
  TimeNs lease_from = 0;
  bool is_gone = false;
  friend bool operator==(const RelayedAnswer&, const RelayedAnswer&) = default;
};

struct AnswerBatch {
  static constexpr size_t kMostAnswers = 64;

  Epoch epoch;  // These two as in a PulseAnswer.
  NodeId leader;
  std::vector<RelayedAnswer> answers;
  friend bool operator==(const AnswerBatch&, const AnswerBatch&) = default;
};

// What has changed of the nodes behind the change `after`, up to `version` (D6).
struct RosterPart {
  static constexpr size_t kMostBytes = 8 * 1024;  // Of names and addresses, and 100 for each node.
  static constexpr size_t kMostNodes = 128;

  uint64_t after = 0;
  uint64_t version = 0;
  bool is_last = false;  // There is no later change.
  uint64_t oldest =
      0;  // Of all nodes' changes the lowest number: a node with a lower one is of an earlier log, and gone.
  std::vector<std::pair<NodeId, NodeRecord>> nodes;  // Ascending by their changes. `last` and `left` are 0.
  friend bool operator==(const RosterPart&, const RosterPart&) = default;
};

// To the leader, until the view, or the roster, says so.
struct NodeRequest {
  static constexpr uint64_t kAnyGroup = UINT64_MAX;

  enum class Kind : uint8_t {
    kDrain = 1,
    kUndrain = 2,
    kGiveUp = 3,  // The node is lost.
    kAdd = 4,     // record, group: there is a node of that name; the leader finds its identity's number.
    kSet = 5,     // node, record: its address and votes are these, if it has not changed since `record.changed`.
  };
  Kind kind = Kind::kDrain;
  NodeId node;  // 0 with kAdd.
  NodeRecord record = {};
  uint64_t group = kAnyGroup;
  friend bool operator==(const NodeRequest&, const NodeRequest&) = default;
};

struct Greeting {
  bool has_voted = false;  // Or may have, on a disk that is gone.
  bool asks = false;       // For the other's.
  friend bool operator==(const Greeting&, const Greeting&) = default;
};

// Again and again, until it has ended.
struct Stopping {
  bool flushes = false;  // It still has to: who can wait for it does.
  friend bool operator==(const Stopping&, const Stopping&) = default;
};

using RecoveryMessage = std::variant<RaftMessage, Pulse, PulseAnswer, ViewPart, ViewChange, PulseBatch, AnswerBatch,
                                     NodeRequest, Greeting, RosterPart, Stopping>;

// Of Subsystem::kMembership (net/levels.h): who speaks none as high is not sent the message.
inline uint8_t NeededLevel(const RecoveryMessage& message) {
  const auto* pulse = std::get_if<Pulse>(&message);
  return std::holds_alternative<Stopping>(message) || (pulse != nullptr && pulse->leaves) ? 3 : 1;
}

}  // namespace mangrove
