#include "recovery/monitor.h"

#include <algorithm>

namespace mangrove {

void Monitor::Receive(NodeInstance from, const Pulse& pulse, const ViewHistory& view, TimeNs now) {
  // Some of a group's members at a time: together they are one message.
  if (waiting_.empty()) send_at_ = now + timing_.pulse / 3;
  waiting_[from.node] = {from, pulse};
  known_[from.node] = pulse.epoch;
  for (RecoveryMessage& message : view.Since(pulse.epoch)) out_.emplace_back(from.node, std::move(message));
}

void Monitor::TellView(const ViewHistory& view) {
  std::erase_if(known_, [&](const auto& node) { return !view.view().members.contains(node.first); });
  for (auto& [node, epoch] : known_) {
    for (RecoveryMessage& message : view.Since(epoch)) out_.emplace_back(node, std::move(message));
    epoch = std::max(epoch, view.view().epoch);
  }
}

void Monitor::Tick(const std::vector<NodeId>& anchors, TimeNs now) {
  if (waiting_.empty() || now < send_at_) return;
  PulseBatch batch;
  size_t unreachable = 0;
  const auto send = [&] {
    for (NodeId anchor : anchors) out_.emplace_back(anchor, batch);
    batch.pulses.clear();
    unreachable = 0;
  };
  for (auto& [node, relayed] : waiting_) {
    const size_t more = relayed.pulse.unreachable.size();
    if (batch.pulses.size() == PulseBatch::kMostPulses || unreachable + more > PulseBatch::kMostUnreachable) send();
    batch.pulses.push_back(std::move(relayed));
    unreachable += more;
  }
  send();
  waiting_.clear();
}

void Monitor::Receive(const AnswerBatch& batch) {
  for (const RelayedAnswer& answer : batch.answers) {
    out_.emplace_back(answer.to.node, PulseAnswer{.lease_from = answer.lease_from,
                                                  .epoch = batch.epoch,
                                                  .leader = batch.leader,
                                                  .is_gone = answer.is_gone,
                                                  .to = answer.to.incarnation});
  }
}

}  // namespace mangrove
