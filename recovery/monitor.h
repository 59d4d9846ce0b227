// What the monitor of a group does (recovery/groups.h): it collects the pulses of its group for the leader of the anchors, hands the
// answers out, and brings the members up to the view that it knows itself.
//
// It decides nothing and extends nothing: a lease runs from the member's own pulse, whoever passes it on. Each node has one, which
// has nothing to do while nobody takes the node for its monitor. Who gets no answers by way of it asks the leader itself.
//
// Pure. Owned by one thread.

#pragma once

#include <map>
#include <utility>
#include <vector>

#include "net/ids.h"
#include "net/runtime/clock.h"
#include "recovery/messages.h"
#include "recovery/timing.h"
#include "recovery/view_history.h"

namespace mangrove {

class Monitor {
 public:
  using Out = std::vector<std::pair<NodeId, RecoveryMessage>>;

  explicit Monitor(const RecoveryTiming& timing) : timing_(timing) {}

  void Receive(NodeInstance from, const Pulse& pulse, const ViewHistory& view, TimeNs now);
  void Receive(const AnswerBatch& batch);
  // This node knows another view: those that pulse here hear of it at once.
  void TellView(const ViewHistory& view);

  // When Tick wants to be called, at the latest.
  TimeNs next_tick() const { return waiting_.empty() ? kForever : send_at_; }
  // `anchors`: where this node's own pulses go.
  void Tick(const std::vector<NodeId>& anchors, TimeNs now);

  Out TakeMessages() { return std::exchange(out_, {}); }

 private:
  const RecoveryTiming timing_;
  std::map<NodeId, RelayedPulse> waiting_;  // For the next batch.
  std::map<NodeId, Epoch> known_;           // The view that each one that pulses here knows, or was told of.
  TimeNs send_at_ = 0;
  Out out_;
};

}  // namespace mangrove
