// Eviction to the RAM of other nodes, so that what is in the cluster's RAM is not read from a disk again.
//
// A node whose cache is full offers pages that it owns (kOffer) to the peer with most room. The offer goes by way of the
// page's responsible node, which passes it on to a sharer where there is one, since that needs no frame for it. Whoever
// takes it asks the responsible node for the page by an ordinary request, a move (Access::kMove), and is its owner then:
// dirty, if it was, and with what was known of the disks. An offer is no more than a hint. It may be lost, declined
// (kDeclined) or come too late; then the page goes to disk as it would without peers.
//
//   P1  A page that is pinned, waited for or under way is not offered; one that is used again stays (CacheContext::may_move).
//   P2  What came by an offer, a guest, is the first to go when its host needs the room itself, and moves on at most once;
//       a volatile one, which no disk takes, as often as there is room.
//       Once it is used by the host it is a page like others.
//   P3  Guests are taken as long as room is left for the host's own pages, so that the host does not begin to evict.
//   P4  Every offer is over after kOfferTime. A peer that lets one pass without a word is offered nothing for a while.
//
// Owned by the loop. A part of PageEngine, whose state it works on.

#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "directory/cache_machine.h"
#include "directory/messages.h"
#include "engine/directory_memory.h"
#include "engine/peer_room.h"
#include "net/runtime/clock.h"
#include "net/runtime/task.h"

namespace mangrove {

class PageEngine;

constexpr size_t kVictimsPerRound = 64;

// Pages are evicted while fewer frames than these are free.
constexpr uint64_t EvictionMargin(uint64_t cache_pages) {
  return std::min<uint64_t>(cache_pages / 16, 4 * kVictimsPerRound);
}

// Pages that are to leave the cache.
struct Victims {
  std::vector<PageId> clean;   // To be dropped.
  std::vector<PageId> dirty;   // To be flushed, then dropped.
  std::vector<PageId> offers;  // To be offered to peers.

  size_t size() const { return clean.size() + dirty.size() + offers.size(); }
};

class PeerEviction {
 public:
  explicit PeerEviction(PageEngine* engine) : engine_(engine) {}

  // --- What nodes tell each other ---

  // The number of frames in use has changed.
  void OnCharge();
  void OnPeerUp(NodeId peer);
  void OnPeerDown(NodeId peer);
  void Stop();
  // The node is about to end: it takes no more guests. Ends when none is under way.
  Task<absl::Status> StopTaking(TimeNs deadline);
  // Has something to tell `peer`, which a message goes to anyway.
  bool HasNewsFor(NodeId peer) const { return !untold_.empty() && untold_.contains(peer); }
  // REQUIRES: HasNewsFor.
  Message NewsFor(NodeId peer);
  void HearResources(const Message& message, NodeInstance from);
  NodeResources Own() const;
  std::optional<NodeResources> Of(NodeId peer) const;
  // For more pages than it keeps. True also of one that has said nothing lately.
  bool HasDiskRoom(NodeId disk) const;

  // --- As the owner of what does not fit ---

  // Whether there are peers to offer pages to at all.
  bool IsOn() const;
  // Whether one of them has room.
  bool HasRoomyPeer() const;
  // Of a page that is neither pinned nor under way.
  bool CanOffer(PageId page, const CacheEntry& entry) const;
  bool IsOffered(PageId page) const;
  // Offers that are out and not taken yet.
  size_t Outstanding();
  void Offer(std::vector<PageId> pages);
  // `used`: since it was offered.
  bool MayMove(PageId page, bool used) const { return IsOffered(page) && !used; }
  // A move of the page away was asked for.
  void OnForwarded(PageId page, bool moved);
  void HearDeclined(const Message& message, NodeInstance from);

  // --- As the one with room, or as the page's responsible node ---

  void HearOffer(const Message& message, NodeInstance from);
  // Pages that came by an offer, in the order in which they came. Some may have left again, or be used here.
  std::vector<PageId> Guests(size_t most) const;
  void ForgetGuest(PageId page);

  // The frames of guests whose region is not known here.
  PageMemory* memory() { return &memory_; }
  // The region is known from now on.
  void MoveInto(PageRange region, PageMemory* memory);

 private:
  struct PendingOffer {
    NodeId to;
    TimeNs until = 0;     // 0: it is over, and was answered or did not have to be.
    TimeNs again_at = 0;  // The page is not offered before.
  };
  struct Guest {
    uint64_t number = 0;
    uint32_t moves = 0;  // So often it has moved since somebody used it.
  };
  struct Taking {
    PageId page;
    NodeId owner;
    uint32_t moves = 0;
  };

  // Those of its own group; all, where there are few.
  std::set<NodeId> Neighbours() const;
  // Those, and some of the others in turn.
  std::set<NodeId> NextToTell();
  void TellAt(TimeNs at);
  void Tell();
  // `peer`: the one that was chosen; if the offer was `routed`, the owner.
  void Post(NodeId to, PageId page, NodeInstance peer, uint32_t moves, bool routed);
  void Decline(PageId page, NodeId owner);
  NodeId RouteOf(PageId page, NodeId offerer, NodeId chosen) const;
  void TakeAll();
  Task<absl::Status> Take(std::vector<Taking> pages);
  void AddGuest(const Taking& taking);
  uint32_t MovesOf(PageId page) const;

  PageEngine* const engine_;
  PeerRoom room_;
  uint32_t load_ = 0;
  uint64_t told_charged_ = 0;   // Frames in use, when they were last worth telling.
  std::set<NodeId> untold_;     // Peers that have not been told since.
  NodeId told_up_to_;           // Of the others, in their order.
  bool told_disk_room_ = true;  // HasDiskRoom of its own disk, when it was looked at last.
  TimeNs tell_again_at_ = 0;
  uint64_t counted_ = 0;   // Pages asked for and given away, when the load was last computed …
  TimeNs counted_at_ = 0;  // … which was then.
  Clock::TimerId timer_ = 0;
  TimeNs timer_at_ = 0;
  absl::flat_hash_map<PageId, PendingOffer> offers_;
  std::vector<Taking> taking_;  // Offers of this turn of the loop.
  uint64_t accepted_ = 0;       // Those, and others that are not asked for yet.
  uint64_t takes_ = 0;          // Calls of Take that are under way.
  bool takes_none_ = false;
  absl::flat_hash_map<PageId, Guest> guests_;
  std::map<uint64_t, PageId> guest_order_;
  uint64_t next_guest_ = 1;
  DirectoryMemory memory_;
};

}  // namespace mangrove
