// What the anchors agree on: which nodes the cluster has, and the view. A state machine that each anchor feeds with what its log
// has committed: the same commands in the same order make the same database everywhere.
//
// D1  The epochs of views go up by one, from the first one on, which is any above kBlankDisk; by many, by hand: recover_log.h.
// D2  Who is in a view is in the database; one incarnation of a node at most is in a view, and, while the node is in the database,
//     each time it joins a newer one than ever before.
// D3  Whose disk is behind has been in a view; who has been in one and is in none now has a disk that is behind.
// D4  Who keeps pages, or is to, is in the cluster. Where pages move, no disk stops keeping them before each that is to keep any has
//     all of its own, and is current.
//     Each has a weight, which is never 0.
// D5  Who was removed stays so: its identity is never used again.
// D6  Each change of who the nodes are has a number, above those of all before: who knows the nodes up to one needs the later alone.

#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "net/ids.h"
#include "recovery/view.h"

namespace mangrove {

// Of a node, for ever, and of no other one in any cluster: a hash of the address and the time with which it was made.
struct NodeIdentity {
  uint64_t space = 0;
  uint64_t time = 0;  // Nanoseconds since 1970.
  friend bool operator==(const NodeIdentity&, const NodeIdentity&) = default;
};

struct NodeRecord {
  std::string name;
  std::string address;      // "host:port"
  uint32_t votes = 0;       // More than 0: it is an anchor.
  Incarnation last;         // The newest that was ever in a view.
  Epoch left;               // The view that was the first one without it, the last time; 0: it has left none.
  bool is_removed = false;  // D5
  NodeIdentity identity = {};
  uint64_t changed = 0;  // D6: the number of the last change of what is above, but for `last` and `left`.
  friend bool operator==(const NodeRecord&, const NodeRecord&) = default;
};

struct DatabaseCommand {
  enum class Kind : uint8_t {
    // node, record; what it says of `last`, `left` and `is_removed` is not taken, and an identity that the node has stays. The change
    // has the number of the record's `changed`, if that is above all before.
    kSetNode = 1,
    kRemoveNode = 2,  // node
    kChangeView = 3,  // view
  };
  Kind kind = Kind::kSetNode;
  NodeId node;
  NodeRecord record;
  ViewChange view;
  friend bool operator==(const DatabaseCommand&, const DatabaseCommand&) = default;
};

class NodeDatabase {
 public:
  static constexpr size_t kMostNodes = 4096;
  static constexpr size_t kMostTextBytes = 300;  // Of a name, and of an address.

  NodeDatabase() = default;
  NodeDatabase(std::map<NodeId, NodeRecord> nodes, View view);

  // FailedPrecondition: the command does not fit what is there; nothing is changed. (A view's change that is not the next one, of
  // a node that is not in the cluster, or back to an older incarnation, or of a disk that has caught up and was not behind; an
  // end of a move that has not come to its end; a weight of who is to keep no pages; a move after which nobody keeps pages; a loss of who is there; a removal of who is
  // in the view, or keeps pages, or is to.) InvalidArgument: it could never be applied.
  absl::Status Check(const DatabaseCommand& command) const;
  // The removal of a node that the view names makes the next view, which does not: views of one epoch are the same.
  absl::Status Apply(const DatabaseCommand& command);

  const std::map<NodeId, NodeRecord>& nodes() const { return nodes_; }
  const NodeRecord* Find(NodeId node) const;
  bool Has(NodeId node) const;  // It is in the cluster, and was not removed.
  const View& view() const { return view_; }
  uint64_t roster_version() const { return roster_version_; }  // D6: of the last change.

  friend bool operator==(const NodeDatabase&, const NodeDatabase&) = default;

 private:
  absl::Status CheckViewChange(const ViewChange& change) const;
  absl::Status CheckNodes(const ViewChange& change) const;
  absl::Status CheckPlaces(const ViewChange& change) const;

  std::map<NodeId, NodeRecord> nodes_;
  View view_;
  uint64_t roster_version_ = 0;  // Of all nodes' `changed` the highest.
};

}  // namespace mangrove
