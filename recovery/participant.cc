#include "recovery/participant.h"

#include <algorithm>
#include <iterator>

#include "net/check.h"

namespace mangrove {

Participant::Participant(const Member::Options& member, std::optional<Anchor::Options> anchor, AnchorRecords records,
                         std::optional<RaftDurable> durable, TimeNs now)
    : self_(member.self), member_(member, now), monitor_(member.timing) {
  if (anchor) anchor_.emplace(*std::move(anchor), std::move(records), std::move(durable), now);
}

void Participant::BecomeAnchor(Anchor::Options anchor, AnchorRecords records, std::optional<RaftDurable> durable,
                               TimeNs now) {
  CHECK(!anchor_);
  anchor_.emplace(std::move(anchor), std::move(records), std::move(durable), now);
  told_roster_ = 0;
  Settle(now);
}

TimeNs Participant::next_tick() const {
  const TimeNs next = std::min(member_.next_tick(), monitor_.next_tick());
  return anchor_ ? std::min(next, anchor_->next_tick()) : next;
}

void Participant::Tick(TimeNs now) {
  member_.Tick(now);
  monitor_.Tick(member_.AnchorsToAsk(now), now);
  if (anchor_) anchor_->Tick(now);
  Settle(now);
}

void Participant::Receive(NodeInstance from, const RecoveryMessage& message, TimeNs now) {
  Handle(from, message, now);
  Settle(now);
}

void Participant::Persisted(uint64_t number, TimeNs now) {
  anchor_->Persisted(number, now);
  Settle(now);
}

void Participant::PeerUp(NodeId peer) { member_.PeerUp(peer); }

void Participant::PeerDown(NodeId peer, TimeNs now) { member_.PeerDown(peer, now); }

void Participant::SetDisk(const DiskState& disk) { member_.SetDisk(disk); }

absl::Status Participant::HandOver(NodeId to, TimeNs now) {
  if (!anchor_) return absl::FailedPreconditionError("this node is no anchor");
  const absl::Status status = anchor_->HandOver(to, now);
  Settle(now);
  return status;
}

absl::Status Participant::HandOver(TimeNs now) {
  if (!anchor_) return absl::FailedPreconditionError("this node is no anchor");
  const absl::Status status = anchor_->HandOver(member_.Staying(), now);
  Settle(now);
  return status;
}

void Participant::SetStopping(Stopping stopping, TimeNs now) {
  member_.SetStopping(stopping, now);
  Settle(now);
}

void Participant::Leave(TimeNs now) {
  member_.Leave(now);
  Settle(now);
}

void Participant::Handle(NodeInstance from, const RecoveryMessage& message, TimeNs now) {
  if (const auto* answer = std::get_if<PulseAnswer>(&message)) return member_.Receive(from.node, *answer, now);
  if (const auto* part = std::get_if<ViewPart>(&message)) return member_.Receive(from.node, *part, now);
  if (const auto* change = std::get_if<ViewChange>(&message)) return member_.Receive(from.node, *change, now);
  if (const auto* part = std::get_if<RosterPart>(&message)) return member_.Receive(from.node, *part, now);
  if (const auto* stopping = std::get_if<Stopping>(&message)) return member_.Receive(from, *stopping, now);
  if (const auto* answers = std::get_if<AnswerBatch>(&message)) return monitor_.Receive(*answers);
  if (const auto* pulse = std::get_if<Pulse>(&message)) {
    // Who leads hears the pulses of its group itself.
    const bool is_monitor = member_.MonitorsFor(from.node);
    // Who leaves says so to the anchors themselves.
    if (!anchor_ || (is_monitor && !anchor_->leads() && !pulse->leaves)) {
      // It may know of no anchor that is one still.
      if (const std::optional<RosterPart> part = member_.roster().Since(pulse->roster)) {
        messages_.emplace_back(from.node, *part);
      }
      return monitor_.Receive(from, *pulse, member_.history(), now);
    }
  }
  if (!anchor_) {
    ++strays_;
    return;
  }
  anchor_->Receive(from, message, now);
}

// Until nobody has anything to tell another part of this node.
void Participant::Settle(TimeNs now) {
  while (true) {
    if (anchor_ && member_.roster().version != told_roster_) {
      told_roster_ = member_.roster().version;
      anchor_->KnowAnchors(member_.roster().anchors());
    }
    if (member_.view().epoch != told_) {
      told_ = member_.view().epoch;
      monitor_.TellView(member_.history());
    }
    std::vector<std::pair<NodeId, RecoveryMessage>> messages = member_.TakeMessages();
    for (auto& message : monitor_.TakeMessages()) messages.push_back(std::move(message));
    bool is_settled = true;
    for (auto& [to, message] : messages) {
      if (to != self_.node) {
        messages_.emplace_back(to, std::move(message));
        continue;
      }
      is_settled = false;
      Handle(self_, message, now);
    }
    while (anchor_) {
      AnchorOutput output = anchor_->TakeOutput(now);
      if (output.empty()) break;
      outputs_.push_back(std::move(output));
    }
    if (is_settled) return;
  }
}

AnchorOutput Participant::TakeOutput() {
  if (outputs_.empty()) return {};
  AnchorOutput output = std::move(outputs_.front());
  outputs_.pop_front();
  return output;
}

void Participant::Sent(std::vector<std::pair<NodeId, RecoveryMessage>>& messages, TimeNs now) {
  const auto own = std::stable_partition(messages.begin(), messages.end(),
                                         [&](const auto& message) { return message.first != self_.node; });
  const std::vector<std::pair<NodeId, RecoveryMessage>> to_self(std::make_move_iterator(own),
                                                                std::make_move_iterator(messages.end()));
  messages.erase(own, messages.end());
  for (const auto& [to, message] : to_self) Handle(self_, message, now);
  if (!to_self.empty()) Settle(now);
}

}  // namespace mangrove
