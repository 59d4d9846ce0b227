// What the other nodes have said of their resources: how many pages each has room for, its disk, its load. Hints, which
// decide where a page goes and never what it holds.
//
// Pure. Owned by the loop.

#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "net/ids.h"
#include "net/runtime/clock.h"

namespace mangrove {

struct NodeResources {
  uint64_t free_pages = 0;  // Frames of its RAM cache that other nodes may fill.
  uint64_t free_bytes = 0;  // Of its disk, beside what it keeps for repair.
  uint32_t load = 0;        // Pages that it asks for or gives away in a second.

  friend bool operator==(const NodeResources&, const NodeResources&) = default;
};

class PeerRoom {
 public:
  // A neighbour says it anew three times within this.
  static constexpr DurationNs kExpires = 12 * kSecond;

  // A node that did not take what it was offered is offered nothing for so long, doubled each time, up to the second.
  static constexpr DurationNs kDistrust = kSecond;
  static constexpr DurationNs kMostDistrust = 60 * kSecond;

  // With less a node is passed over for one that is farther away.
  static constexpr uint64_t kEnough = 256;

  // `lasts`: until it counts no more.
  void Note(NodeId node, const NodeResources& resources, TimeNs now, DurationNs lasts = kExpires) {
    peers_[node].resources = resources;
    peers_[node].until = now + lasts;
  }
  void Forget(NodeId node) { peers_.erase(node); }

  // What the node has said, unless that was too long ago.
  std::optional<NodeResources> Find(NodeId node, TimeNs now) const;
  // Of those that are nearest to a node among the groups and have enough room, who has room for most pages, of equals the least loaded.
  // Where nobody has enough, who has most; 0: nobody has any.
  NodeId MostRoomNear(NodeId self, TimeNs now) const;
  // A page was offered: until the node speaks again, it has room for one less.
  void Promise(NodeId node);
  // It did not answer an offer, or took one.
  void Distrust(NodeId node, TimeNs now);
  void Trust(NodeId node);

 private:
  struct Peer {
    NodeResources resources;
    TimeNs until = 0;
    TimeNs distrusted_until = 0;
    DurationNs distrust = 0;  // The last.
  };
  std::map<NodeId, Peer> peers_;
};

}  // namespace mangrove
