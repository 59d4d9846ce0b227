// What the leader of the anchors does about the others' pulses: gives leases, and decides who is to be in the view.
//
//  K1  A lease is given for a pulse only when a majority of the votes has followed this leader after the pulse came: so no later
//      leader was elected before, and each of them counts every lease as running when it is elected.
//  K2  Who is in the view leaves it only after its last lease has ended, and gets none from the moment on that it is to leave.
//      (A slow node that pulses again before that stays.) Or when this very incarnation has said that it leaves: it has given its
//      lease up then, whatever was given since. That another one of the node has said so, earlier or later, means nothing.
//  K3  A node joins under an incarnation that has never been in a view; the lease of the one before has ended by then. It knows the
//      view, and reaches all of it that is heard.
//  K4  Members that cannot reach each other do not stay together: the largest set of them that all reach each other stays, of equal
//      ones that with most votes. (Where more than 24 have such neighbours, those with most leave first.)
//  K5  A member's disk that is behind is current from the next view on if the incarnation that is in the view has said in its newest
//      pulse that it has caught up, and knew this view then: it said so as a member, and has missed nothing since. Who joins with a
//      blank disk joins as such.
//  K6  A member that says that its disk was blank, and has not caught up, while the view says that the disk has something, has lost
//      it and started as the same incarnation: it counts as silent, and gets no lease, until it has left the view.
//  K7  Each member keeps pages that is neither to leave for good nor lost, and each other node that has been away for no longer than
//      RecoveryTiming::replace_after. Where that is not so, pages move; they have moved when each node that is to keep any is a
//      current member, and has said of this very move, knowing this view, that it has all of its own.
//  K8  Weights are given where a change has room for those of all disks. A disk that comes to others has the weight that is nearest to theirs by what
//      it says of its room; while a member has not been heard as what it is in the view nobody comes, since it may not know weights.
//      Those of all disks change when markedly more fits with others (recovery/disk_weights.h), each disk has room for what the move
//      brings it, and nothing else has happened for RecoveryTiming::reweigh_after, each of them being current and of about one size.
//      No view has weights that has a member which does not know them, or could have one: nobody joins who does not, and where there
//      are none yet, every disk and every anchor is there and does.
//
// An anchor that does not lead hears pulses too, when members look for a leader: who is elected then gives leases at once. Pure.
// Owned by one thread.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "net/ids.h"
#include "net/runtime/clock.h"
#include "recovery/disk_weights.h"
#include "recovery/messages.h"
#include "recovery/node_database.h"
#include "recovery/raft_log.h"
#include "recovery/timing.h"
#include "recovery/view.h"

namespace mangrove {

// For tests of the checker.
struct ViewBugs {
  bool no_lease_wait = false;      // K2, K3: who is silent leaves at once.
  bool lease_unconfirmed = false;  // K1: a lease for each pulse.
  bool lease_to_leaving = false;   // K2: leases go on.
  bool caught_up_stays = false;    // K5: what an earlier incarnation has said of the disk counts.
  bool any_move = false;           // K7: what was said of an earlier move counts.
  bool weigh_unasked = false;      // K8: weights come whether everybody knows them or not.
  bool leaves_as_any = false;      // K2: who has said that it leaves does so as every incarnation.
};

class ViewKeeper {
 public:
  ViewKeeper(const RecoveryTiming& timing, const ViewBugs& bugs);

  // This anchor leads from now on: what it gave before, and what others did, may all be running.
  void Elected(TimeNs now);

  // False: it is late, or doubled, and nothing came of it.
  bool OnPulse(NodeInstance from, const Pulse& pulse, const View& view, TimeNs now);
  // Who may be given a lease from a later pulse on now. `quorum_at`: Raft::QuorumAt.
  std::vector<NodeInstance> Confirm(std::optional<TimeNs> quorum_at);
  // It has said that it leaves.
  bool HasLeft(NodeInstance node) const;
  // What to say to a node, with the lease that it may be given. REQUIRES: this anchor leads.
  PulseAnswer AnswerTo(NodeInstance to, const NodeDatabase& database);

  // What the next view has to change, or nothing. Whoever is to leave gets no lease from now on, until this says otherwise: what
  // is decided is to be proposed before it is asked again. `votes`: those that count, in the log.
  ViewChange Decide(const NodeDatabase& database, const Votes& votes, TimeNs now);
  // What an operator wants. Taken up by the next Decide, if it can be.
  void Request(const NodeRequest& request) {
    if (requests_.size() < ViewChange::kMostNodes) requests_.push_back(request);  // Who asks does so again.
  }
  // The newest view that it knows, or has been told of since its last pulse.
  Epoch KnownTo(NodeInstance node) const;
  void NoteTold(NodeId node, Epoch epoch);

 private:
  struct Heard {
    Incarnation incarnation;
    TimeNs newest = 0;        // Of its pulses, by its own clock.
    TimeNs at = 0;            // Its last pulse, by this clock.
    TimeNs sent_at = 0;       // The pulse whose lease is to be confirmed, by its own clock; 0: there is none.
    TimeNs came_at = 0;       // That one, by this clock.
    TimeNs confirmed = 0;     // The newest that may be given, by its own clock.
    TimeNs confirmed_at = 0;  // That one, by this clock.
    Epoch epoch;              // Of the view that it knows.
    Epoch told;               // See KnownTo.
    std::vector<NodeId> unreachable;
    bool blank = false;  // These two as its newest pulse says.
    bool caught_up = false;
    Epoch moved;
    bool knows_weights = false;
    DiskSize disk;
  };

  bool IsHeard(NodeInstance node, TimeNs now) const;
  static bool HasLostDisk(NodeInstance node, bool blank, bool caught_up, const View& view);
  bool MayJoin(NodeId node, const NodeDatabase& database, TimeNs now) const;
  bool HasCaughtUp(NodeId node, const View& view, TimeNs now) const;
  bool HasMoved(NodeId node, const View& view, const ViewChange& change, TimeNs now) const;
  void TakeRequests(const NodeDatabase& database, const Votes& votes, ViewChange& change);
  void DecidePlaces(const NodeDatabase& database, TimeNs now, ViewChange& change);
  void DecideMoved(const View& view, TimeNs now, ViewChange& change) const;
  bool AreAllHeard(const View& view) const;
  bool AllKnowWeights(const NodeDatabase& database, const ViewChange& change) const;
  void WeighPlaced(const NodeDatabase& database, ViewChange& change) const;
  bool AllDisksAreWell(const View& view, TimeNs now) const;
  bool AreOfOneSizeSince(const View& view) const;
  std::vector<DiskWeight> WeightsWorthAMove(const View& view) const;
  void DecideWeights(const NodeDatabase& database, TimeNs now, ViewChange& change);
  TimeNs LeaseEnds(NodeId node) const;
  std::set<NodeId> Misfits(const NodeDatabase& database, TimeNs now) const;

  const RecoveryTiming timing_;
  const ViewBugs bugs_;
  TimeNs elected_at_ = 0;
  std::map<NodeId, Heard> heard_;
  bool has_news_ = false;  // For Confirm, whatever the quorum's time.
  std::optional<TimeNs> quorum_at_;
  std::set<NodeId> waiting_;             // Of these, those with a pulse whose lease is to be confirmed.
  std::map<NodeId, TimeNs> lease_ends_;  // By this clock, of what this leader has given.
  std::set<NodeId> leaving_;             // K2
  std::map<NodeId, Incarnation> left_;   // Have said that they leave: the newest incarnation of each.
  std::vector<NodeRequest> requests_;
  std::map<NodeId, TimeNs> away_since_;  // Of those that are to keep pages and are not in the view.
  std::optional<TimeNs> calm_since_;     // K8: since when nothing was to be changed. Nothing: something was.
  DiskRooms calm_rooms_;                 // K8: what pages could take of each disk then.
};

}  // namespace mangrove
