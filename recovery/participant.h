// A node's whole part in who is there: it is a member, it may be the monitor of its group, and it may be an anchor. Messages go to the
// part that they are for; what the parts tell each other stays here.
//
// Who drives it calls Tick when it is due and Receive for what comes, and after each call carries out what there is: the messages at
// once, and the outputs of the log in their order, each made durable before its messages leave (A1).
//
// Pure. Owned by one thread.

#pragma once

#include <deque>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "recovery/anchor.h"
#include "recovery/member.h"
#include "recovery/monitor.h"

namespace mangrove {

class Participant {
 public:
  // `anchor`: of a node that is one; then `records` and `durable` as in Anchor.
  Participant(const Member::Options& member, std::optional<Anchor::Options> anchor, AnchorRecords records,
              std::optional<RaftDurable> durable, TimeNs now);

  // It has been given votes. REQUIRES: it is no anchor yet.
  void BecomeAnchor(Anchor::Options anchor, AnchorRecords records, std::optional<RaftDurable> durable, TimeNs now);

  TimeNs next_tick() const;
  void Tick(TimeNs now);
  void Receive(NodeInstance from, const RecoveryMessage& message, TimeNs now);
  void Persisted(uint64_t number, TimeNs now);
  void PeerUp(NodeId peer);
  void PeerDown(NodeId peer, TimeNs now);
  void SetDisk(const DiskState& disk);
  void SetDiskSize(const DiskSize& size) { member_.SetDiskSize(size); }
  // For whoever operates the cluster. FailedPrecondition: this node is no anchor; and as Anchor::HandOver.
  absl::Status HandOver(NodeId to, TimeNs now);
  // To an anchor that does not stop, as far as that can be.
  absl::Status HandOver(TimeNs now);
  // As Member's.
  void SetStopping(Stopping stopping, TimeNs now);
  void Leave(TimeNs now);

  // To other nodes.
  std::vector<std::pair<NodeId, RecoveryMessage>> TakeMessages() { return std::exchange(messages_, {}); }
  // Of the log; one without anything in it: there is no more.
  AnchorOutput TakeOutput();
  // The messages of an output are about to be sent: those for this node itself are taken out and handled.
  void Sent(std::vector<std::pair<NodeId, RecoveryMessage>>& messages, TimeNs now);

  const Member& member() const { return member_; }
  const Anchor* anchor() const { return anchor_ ? &*anchor_ : nullptr; }
  uint64_t bad_messages() const { return anchor_ ? anchor_->bad_messages() : 0; }
  // For an anchor, which this node is not yet, or not any more, as far as it knows; or as Anchor's.
  uint64_t strays() const { return strays_ + (anchor_ ? anchor_->strays() : 0); }

 private:
  void Handle(NodeInstance from, const RecoveryMessage& message, TimeNs now);
  void Settle(TimeNs now);

  const NodeInstance self_;
  Member member_;
  Monitor monitor_;
  std::optional<Anchor> anchor_;
  Epoch told_;                // The view that the monitor has told its group of.
  uint64_t told_roster_ = 0;  // The version of the roster that the anchor knows.
  std::vector<std::pair<NodeId, RecoveryMessage>> messages_;
  std::deque<AnchorOutput> outputs_;
  uint64_t strays_ = 0;
};

}  // namespace mangrove
