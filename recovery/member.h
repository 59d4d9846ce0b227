// A node's part in who is there: it pulses, holds a lease on its place in the view, and knows the view.
//
//  M1  The lease runs from the time at which the pulse was sent that the anchors' leader has answered, by this node's own clock, and
//      ends before the leader counts it as ended: what came late, or lay in a queue while this node slept, extends nothing.
//  M2  Who has a lease knows the view under which it was given, or a newer one, and is in it.
//  M3  Who was in a view and is not any more has no lease again: it starts anew, as another incarnation.
//  M4  Who leaves has no lease from then on, whatever comes, and says so to every anchor until it hears that the view has gone on
//      without it.
//
// A pulse goes to the leader alone while it answers, to every anchor while it does not. In a large view it goes to the monitor of
// the node's group instead (recovery/groups.h), unless that one is away, or half of the lease is over for all that it does: so what
// the leader hears are messages of monitors.
//
// Who stops tells the members of its view before. Where all others of the view do, nobody need leave it: nobody is left to be served, and
// every disk is as current as the others when all come back.
//
// Pure: time comes in, messages go out. Owned by one thread.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "net/ids.h"
#include "net/runtime/clock.h"
#include "recovery/groups.h"
#include "recovery/messages.h"
#include "recovery/roster.h"
#include "recovery/timing.h"
#include "recovery/view.h"
#include "recovery/view_history.h"

namespace mangrove {

// As a Pulse says it.
struct DiskState {
  bool blank = false;
  bool caught_up = false;
  Epoch moved;
};

class Member {
 public:
  struct Options {
    NodeInstance self;
    Roster roster;  // As this node knew it last.
    RecoveryTiming timing = {};
    size_t few_nodes = kFewNodes;
  };
  using Out = std::vector<std::pair<NodeId, RecoveryMessage>>;

  Member(Options options, TimeNs now);

  // When Tick wants to be called, at the latest.
  TimeNs next_tick() const { return pulse_at_; }
  void Tick(TimeNs now);
  void Receive(NodeId from, const PulseAnswer& answer, TimeNs now);
  void Receive(NodeId from, const ViewPart& part, TimeNs now);
  void Receive(NodeId from, const ViewChange& change, TimeNs now);
  void Receive(NodeId from, const RosterPart& part, TimeNs now);
  void Receive(NodeInstance from, const Stopping& stopping, TimeNs now);
  // This node is about to end, in order, and says so from now on.
  void SetStopping(Stopping stopping, TimeNs now);
  // It has ended but for this: nothing is served here any more, nothing that is mapped here is used, nor will anything be.
  void Leave(TimeNs now);
  // As the transport says it: a hint.
  void PeerUp(NodeId peer);
  void PeerDown(NodeId peer, TimeNs now);

  Out TakeMessages() { return std::exchange(out_, {}); }

  // May this node act for others? Until lease_ends, if nothing is heard meanwhile.
  bool HasLease(TimeNs now) const { return now < lease_ends() && view().Has(options_.self); }
  TimeNs lease_ends() const;
  // M3: the view goes on without this incarnation.
  bool is_gone() const { return is_gone_; }
  bool leaves() const { return leaves_; }
  // The view goes on without this incarnation, or never had it, as far as this node knows.
  bool is_out() const { return is_gone_ || !view().Has(options_.self); }
  // Without this node, and without those members of the view that have said, as incarnations that are in it, that they stop, the others
  // have most of the votes. Where they have not, who stops stays in the view: its disk is as good as theirs when they start again.
  bool OthersGoOn() const;
  // The other members of the view that have not said so.
  std::set<NodeId> Staying() const;
  // One of them has said of late that it still has to flush.
  bool OthersFlush(TimeNs now) const;
  // This node is out of the cluster for good.
  bool is_removed() const { return is_removed_; }
  // What pulses say of this node's disk from now on: was it empty when the node started, and does it have all of its pages that was
  // ever acknowledged? Once it does, it goes on to while its node is in the view.
  void SetDisk(const DiskState& disk);
  // The same, of how large it is.
  void SetDiskSize(const DiskSize& size) { disk_size_ = size; }
  const View& view() const { return history_.view(); }
  const Roster& roster() const { return roster_; }
  const ViewHistory& history() const { return history_; }
  // Is this node the monitor of that one, as far as it knows?
  bool MonitorsFor(NodeId node) const { return MonitorOfNode(node) == options_.self.node; }
  // Who is this node's; 0: nobody.
  NodeId monitor() const { return MonitorOfNode(options_.self.node); }
  // Where this node's pulses for the leader go.
  std::vector<NodeId> AnchorsToAsk(TimeNs now) const;
  NodeId leader() const { return leader_; }  // As far as is known; 0: nobody.

 private:
  NodeId MonitorOfNode(NodeId node) const { return MonitorOf(view(), node, anchors_, options_.few_nodes); }
  void SendPulses(TimeNs now);
  void SayStopping();
  std::vector<NodeId> Everybody();
  bool IsAnchor(NodeId node) const { return anchors_.contains(node); }
  bool MayTellOfViews(NodeId node) const;
  std::vector<NodeId> Unreachable(TimeNs now) const;
  void FollowView(TimeNs now);

  const Options options_;
  const TimeNs began_at_;
  Roster roster_;
  NodeId asked_;              // Of those that are no anchors, the last; see Everybody.
  std::set<NodeId> anchors_;  // Of the roster.
  Out out_;
  TimeNs pulse_at_;
  TimeNs pulsed_at_ = 0;  // The last one.
  NodeId leader_;
  TimeNs heard_leader_at_ = 0;
  TimeNs lease_from_ = 0;         // Of the newest one that was given under a view that is known; 0: none.
  std::map<Epoch, TimeNs> next_;  // The newest of those that were given under each later one.
  bool is_gone_ = false;
  bool is_removed_ = false;
  ViewHistory history_;
  bool blank_ = false;  // See Pulse.
  bool caught_up_ = false;
  Epoch moved_;
  DiskSize disk_size_;
  std::optional<Stopping> stopping_;
  bool leaves_ = false;
  struct OtherStops {
    Incarnation incarnation;
    TimeNs flushes_at = 0;  // When it said that last; 0: it does not.
  };
  std::map<NodeId, OtherStops> others_stop_;  // Of the view, at most.
  View incoming_;                             // Of which the first parts are here.
  size_t incoming_nodes_ = 0;                 // Of these parts.
  std::set<NodeId> up_;                       // Connected.
  std::map<NodeId, TimeNs> apart_since_;      // Of the view, those that are not.
};

}  // namespace mangrove
