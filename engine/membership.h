// A node's part in who is there (recovery/), over the real doors or the simulated ones: its pulses and its lease, what it knows of the
// cluster's nodes, and, where it is an anchor, the log. Carries out what the pure parts say: makes durable, then sends.
//
// What is known of the nodes is used at once, and written beside it: a node that starts with an older roster learns the rest again.
//
// Owned by the loop.

#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "engine/page_store.h"
#include "net/log.h"
#include "net/runtime/clock.h"
#include "net/runtime/entropy.h"
#include "net/transport.h"
#include "recovery/groups.h"
#include "recovery/participant.h"

namespace mangrove {

struct MembershipOptions {
  NodeInstance self;
  // As the configuration says: this node, and those that the cluster is made with, or that it joins. Counts until the disk has a
  // roster. Those with votes are the anchors.
  std::map<NodeId, NodeRecord> nodes;
  bool may_found = true;  // Anchor::Options
  RecoveryTiming timing = {};
  size_t few_nodes = kFewNodes;  // Member::Options
};

// Who goes by what Membership finds out. Called on the loop; a new view before the lease under it.
class ViewEvents {
 public:
  virtual ~ViewEvents() = default;
  virtual void OnView(const View& view) = 0;
  // Which nodes the cluster has, as far as this one knows: before Open is done, and whenever that is news.
  virtual void OnRoster(const Roster& roster) = 0;
  // This node has a lease until then, by its own clock; 0: none.
  virtual void OnLease(TimeNs until) = 0;
  // The view has gone on without this node: it must start anew, as another incarnation. Said once.
  virtual void OnExpelled() = 0;
  // This node keeps nothing any more, and may go for good; or it is out of the cluster for good already. Said once.
  virtual void OnDismissed(bool is_removed) = 0;
};

class Membership final : public TransportEvents {
 public:
  // All outlive this object.
  Membership(MembershipOptions options, Clock* clock, Transport* transport, PageStore* store, Entropy* entropy);
  ~Membership() override;

  // Before Start. `events` outlives this object.
  void SetEvents(ViewEvents* events) { events_ = events; }
  // Reads what the disk has of the roster and the log. DataLoss: it is damaged.
  void Open(absl::AnyInvocable<void(absl::Status)> done);
  // REQUIRES: opened, and `transport` started.
  void Start();
  // Nothing is sent or written any more.
  void Shutdown();
  // Tells whoever leads what an operator wants. It is not answered: the view shows it. Who asks does so until then.
  void Request(const NodeRequest& request);
  // The steps of an orderly end, each of which may be left out, in this order. What others are told goes to those that understand it.
  // This node is about to end, and those that wait for it to flush may do so while it says that it does.
  void SetStopping(Stopping stopping);
  // `done` runs when another anchor leads, or this one never did, or there is nobody to take it, or nobody has in time. Who stops
  // as well takes it only where nobody else can.
  void HandOver(absl::AnyInvocable<void()> done);
  // REQUIRES: V4 holds here as without a lease, for good, for all that may use what is here. So the others are told that this node leaves,
  // and need not wait for its lease to end; whenever it leads the anchors, it hands over. `done` runs when the view has gone on
  // without it and it does not lead, or neither has come in time; or at once, where the others cannot go on without it
  // (recovery/member.h). Of `events` nothing is heard any more.
  void Leave(absl::AnyInvocable<void()> done);
  // At any time; as Member::SetDisk.
  void SetDisk(const DiskState& disk);
  void SetDiskSize(const DiskSize& size);

  // TransportEvents.
  void OnDelivery(const Delivery& delivery) override;
  void OnPeerUp(NodeInstance peer) override;
  void OnPeerDown(NodeInstance peer, const absl::Status& reason) override;
  void OnExpelled(NodeInstance by) override;

  const Member& member() const { return participant_->member(); }
  const Anchor* anchor() const { return participant_->anchor(); }  // Null: this node is none.
  // The anchors' leader has answered a moment ago, or is this node. It led then, and who has lost most of the votes does not lead for long: so
  // the cluster has its quorum, whether this node is in the view or not.
  bool HearsLeader() const;
  // Of the lease; 0: this node has none.
  DurationNs LeaseLeft() const;
  uint64_t bad_messages() const { return bad_messages_ + (participant_ ? participant_->bad_messages() : 0); }
  const Roster& roster() const { return member().roster(); }  // REQUIRES: opened.

 private:
  struct StoredLog {
    AnchorRecords records;
    std::optional<RaftDurable> durable;  // Nothing: the disk has none.
  };
  // Something that is waited for, but no longer than until then.
  struct Awaited {
    TimeNs until = 0;
    absl::AnyInvocable<void()> done;
  };
  using LogDone = absl::AnyInvocable<void(absl::StatusOr<StoredLog>)>;

  void ReadLog(LogDone done);
  void Begin(Roster roster, std::optional<StoredLog> log);
  Anchor::Options AnchorOptions(const Roster& roster);
  void BecomeAnchor();
  void FollowRoster();
  void WriteRoster();
  void Pump();
  bool IsDismissed() const;
  void SayThatItLeaves(absl::AnyInvocable<void()> done);
  void FollowStop();
  static void End(std::optional<Awaited>& awaited);
  void FollowView();
  void SayGone(const std::string& who);
  void LogView() const;
  bool WriteNext();
  void Written(const absl::Status& status);
  void Send(const std::vector<std::pair<NodeId, RecoveryMessage>>& messages);
  void ArmTimer();
  void Tick();

  const MembershipOptions options_;
  Clock* const clock_;
  Transport* const transport_;
  PageStore* const store_;
  Entropy* const entropy_;
  std::unique_ptr<Participant> participant_;
  std::deque<AnchorOutput> outputs_;  // In their order; the first one may be on its way to the disk.
  bool writing_ = false;
  TimeNs write_again_at_ = 0;  // The disk was full.
  bool stopped_ = false;
  Clock::TimerId timer_ = 0;
  TimeNs timer_at_ = kForever;
  uint64_t bad_messages_ = 0;
  ViewEvents* events_ = nullptr;
  Epoch said_view_;
  TimeNs said_lease_ = 0;
  bool said_gone_ = false;
  bool said_dismissed_ = false;
  TimeNs heard_leader_at_ = 0;
  uint64_t said_roster_ = 0;     // Its version.
  uint64_t written_roster_ = 0;  // The same, on disk.
  bool writing_roster_ = false;
  bool becoming_anchor_ = false;  // Its log is being read.
  TimeNs become_anchor_at_ = 0;   // Not before; the log could not be read.
  DiskState disk_;                // As SetDisk said, for Begin.
  DiskSize disk_size_;            // The same.
  std::optional<Awaited> hand_over_;
  std::optional<Awaited> leave_;
  LogOnce said_once_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);  // False once this object is gone, for callbacks.
};

}  // namespace mangrove
