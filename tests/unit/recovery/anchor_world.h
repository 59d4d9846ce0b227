// Nodes in one thread, some of them anchors: a network that loses, doubles, delays and is cut, disks that take their time and are
// replaced, processes that die, sleep and start anew, clocks that differ in speed; all from one seed.
//
// Checked at each step:
//  W1  Who has a lease, by its own clock, is in the newest view that any anchor's log has committed.
//  W2  A view is the same wherever it is known.
//  W3  What anchors have applied is the same database.
//  W4  A node's disk is behind from the view on that its node has left, or joined with a blank disk, until one after that very
//      incarnation has said, as a member, that it has caught up. It is so since the view that K5 and View say.
//  W5  The disks that keep pages become those that are to, and no others, in a view in which each of these is a current member that
//      has said, as one under that very move, that it has all of its own.
//      So do their weights. A view with weights has no member of a version that does not know them.
//  W6  Who is lost was not in the view, and is in none again; who was removed kept no pages, and stays so. Nobody else is told that
//      it is out of the cluster.
//  W7  What a node knows of the nodes is what the log has said of them, up to the change that it says. In the end it is all.

#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "recovery/participant.h"

namespace mangrove {

class AnchorWorld {
 public:
  struct Options {
    uint64_t seed = 1;
    int anchors = 3;
    int nodes = 6;  // The anchors among them.
    bool faults = true;
    bool replaces_disks = true;
    bool grouped = false;  // In groups of two or three, each with a monitor.
    RaftBugs raft_bugs = {};
    ViewBugs view_bugs = {};
  };
  explicit AnchorWorld(const Options& options);

  void RunFor(DurationNs span);
  // Until `condition`, looked at after each event; how long that took, or nothing if it was not within `limit`.
  std::optional<DurationNs> RunUntil(const std::function<bool()>& condition, DurationNs limit);
  // Ends the faults, starts everybody; gives the first failure, or what of "all nodes have leases in one view, and keep pages; who
  // was to leave, or is lost, is out of the cluster" did not come in time.
  std::string Settle();
  const std::string& failure() const { return failure_; }
  std::string Describe() const;

  void Crash(NodeId node);
  void Start(NodeId node);
  // It hands the leadership of the anchors over, if it has that.
  void HandOver(NodeId node);
  // It gives its lease up, and says so. Its process ends when it hears that it is out of the view, or after a while.
  void Leave(NodeId node);
  // It does nothing for a while; what comes meanwhile waits.
  void Pause(NodeId node, DurationNs span);
  void ReplaceDisk(NodeId node);  // REQUIRES: it is down.
  // Messages of `from` to `to` are lost, and the connection is down.
  void Cut(NodeId from, NodeId to) { cut_.insert({from, to}); }
  void Heal() { cut_.clear(); }

  bool IsUp(NodeId node) const { return nodes_.at(node).part != nullptr; }
  const Member& member(NodeId node) const { return nodes_.at(node).part->member(); }
  NodeId leader() const;  // Of the newest term; 0: nobody leads.
  const View& view() const { return newest_; }
  // Of the i-th node, from 1 on; the anchors are the first.
  NodeId IdOf(int i) const;
  bool HasLease(NodeId node) const;
  NodeInstance instance(NodeId node) const;
  uint64_t views() const { return views_.size(); }
  uint64_t restarts() const { return restarts_; }
  uint64_t disks() const { return disks_; }
  uint64_t blank() const { return blank_; }          // Disks of who joined.
  uint64_t caught_up() const { return caught_up_; }  // Disks that were behind.
  uint64_t moves() const { return moves_; }          // That came to their end.
  uint64_t weighed() const { return weighed_; }      // Of these, to other weights.
  uint64_t left() const { return left_; }            // Views that somebody left at once, since it had said so.
  uint64_t removed() const { return removed_.size(); }
  uint64_t added() const { return added_; }  // Nodes that nobody's configuration had named.
  uint64_t vote_changes() const { return vote_changes_; }
  uint64_t messages() const { return messages_; }

 private:
  struct Node {
    NodeId id;
    uint64_t incarnation = 0;
    int64_t drift_ppm = 0;
    DurationNs clock_offset = 0;
    std::map<std::string, std::string> disk;
    Roster roster;                      // On its disk, or in its configuration.
    Roster older_roster;                // The one before.
    std::unique_ptr<Participant> part;  // Null: it is down.
    TimeNs asleep_until = 0;
    bool caught_up = false;  // As it says of its disk; `moved` as well.
    Epoch moved;
    std::deque<AnchorOutput> outputs;
    bool writing = false;
    std::map<NodeId, uint64_t> heard;  // The newest incarnation of each that it has been connected with.
    std::set<NodeId> up;               // As it was told.
    LogIndex checked;                  // Of its database.

    bool is_anchor() const { return roster.anchors().contains(id); }
    const Anchor* anchor() const { return part == nullptr ? nullptr : part->anchor(); }
  };

  void At(DurationNs delay, std::function<void()> event);
  // On a node that is up as this incarnation; later, if it sleeps.
  void OnNode(NodeId id, uint64_t incarnation, DurationNs delay, std::function<void(Node&)> event);
  bool Chance(uint64_t per_mille) { return random_() % 1000 < per_mille; }
  DurationNs Spread(DurationNs least, DurationNs most);
  TimeNs Now(const Node& node) const;
  bool Connected(const Node& a, const Node& b) const;
  void LookAtConnections();
  void Tick(Node& node);
  void Pump(Node& node);
  bool Write(Node& node);
  static void WriteTo(Node& node, const AnchorOutput& output);
  void Send(Node& node, const std::vector<std::pair<NodeId, RecoveryMessage>>& messages);
  void Deliver(NodeInstance from, NodeId to, const RecoveryMessage& message);
  bool MayLoseDisk(NodeId node) const;
  NodeId AnyNode();
  Roster Configuration(NodeId node) const;
  std::optional<Anchor::Options> AnchorOptions(const Node& node);
  void KeepRoster(Node& node);
  void MakeAnchor(Node& node);
  NodeRequest AnyChange();
  void CountVotes(const NodeDatabase& next);
  void MeetNodes(const NodeDatabase& database);
  void CheckRosters();
  void DoSomething();
  void Check();
  void CheckDisks(const View& before, const View& view);
  void CheckPlaces(const View& before, const View& view);
  void CheckRemoved(const NodeDatabase& database);
  void MeetView(const NodeDatabase& database);
  bool IsDone(NodeId node) const;
  bool IsOut(const Node& node);
  bool IsSettled() const;
  void HearDisks();
  void ChangeDisk(Node& node);
  void SetDisk(Node& node);
  bool IsOld(NodeInstance node) const { return faults_ && old_.contains(node); }
  static RecoveryMessage WithoutWeights(RecoveryMessage message);
  void AskForSomething();
  void Fail(const std::string& what);

  const Options options_;
  const RecoveryTiming timing_ = {.replace_after = 5 * kSecond, .reweigh_after = kSecond};
  std::mt19937_64 random_;
  TimeNs now_ = kSecond;
  bool faults_;
  uint64_t next_event_ = 0;
  std::map<std::pair<TimeNs, uint64_t>, std::function<void()>> events_;
  std::map<NodeId, NodeRecord> records_;  // As in the first configurations.
  NodeDatabase database_;                 // The newest that any anchor has applied.
  std::map<NodeId, Node> nodes_;
  std::set<std::pair<NodeId, NodeId>> cut_;
  std::map<Epoch, View> views_;  // All that were ever committed.
  View newest_;
  std::set<NodeInstance> blank_disks_;  // All that ever started so, as they say of what is not the log.
  std::set<NodeInstance> old_;   // Of a version that does not know weights. Anchors are not; in the end nobody is.
  std::set<NodeInstance> said_;  // Members that have said that their disks have caught up, in this stay of theirs.
  std::set<std::pair<NodeId, Epoch>>
      said_moved_;                // Nodes that have said as members that they have moved, and since which view.
  std::set<NodeId> removed_;      // From the cluster.
  std::set<NodeInstance> leave_;  // Have said that they leave.
  std::map<LogIndex, NodeDatabase> databases_;  // By the place in the log up to which it was applied first.
  uint64_t restarts_ = 0;                       // Of nodes that had left the view.
  uint64_t disks_ = 0;
  uint64_t blank_ = 0;
  uint64_t caught_up_ = 0;
  uint64_t moves_ = 0;
  uint64_t weighed_ = 0;
  uint64_t left_ = 0;
  uint64_t added_ = 0;
  uint64_t vote_changes_ = 0;
  uint64_t messages_ = 0;
  std::string failure_;
};

}  // namespace mangrove
