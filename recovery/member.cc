#include "recovery/member.h"

#include <algorithm>
#include <iterator>

#include "recovery/node_database.h"

namespace mangrove {
namespace {

constexpr size_t kMostNext = 16;  // Views that are heard of and not known yet.
constexpr DurationNs kAskEverybody = 3 * kSecond;
constexpr size_t kMostOthers = 8;  // That are asked with one pulse.

}  // namespace

Member::Member(Options options, TimeNs now)
    : options_(std::move(options)),
      began_at_(now),
      roster_(options_.roster),
      anchors_(roster_.anchors()),
      pulse_at_(now) {}

TimeNs Member::lease_ends() const {
  if (lease_from_ == 0 || is_gone_ || leaves_) return 0;
  return lease_from_ + options_.timing.lease - options_.timing.lease / 16;
}

void Member::Tick(TimeNs now) {
  if (now < pulse_at_) return;
  // That it leaves is waited for: what is lost of that is said again soon.
  pulse_at_ = now + (leaves_ ? options_.timing.pulse / 3 : options_.timing.pulse);
  SayStopping();
  SendPulses(now);
}

std::vector<NodeId> Member::AnchorsToAsk(TimeNs now) const {
  const bool is_led = IsAnchor(leader_) && now - heard_leader_at_ <= 2 * options_.timing.pulse;
  return is_led ? std::vector<NodeId>{leader_} : std::vector<NodeId>(anchors_.begin(), anchors_.end());
}

void Member::SendPulses(TimeNs now) {
  if (is_gone_) return;
  pulsed_at_ = now;
  const Pulse pulse{.sent_at = now,
                    .epoch = view().epoch,
                    .unreachable = Unreachable(now),
                    .blank = blank_,
                    .caught_up = caught_up_,
                    .moved = moved_,
                    .knows_weights = true,
                    .disk = disk_size_,
                    .roster = roster_.version,
                    .leaves = leaves_};
  if (leaves_) {
    for (NodeId anchor : anchors_) out_.emplace_back(anchor, pulse);
    return;
  }
  const NodeId monitor = MonitorOfNode(options_.self.node);
  const bool is_well = HasLease(now) && lease_ends() - now > options_.timing.lease / 2;
  if (monitor.value != 0 && up_.contains(monitor) && is_well) {
    out_.emplace_back(monitor, pulse);
    return;
  }
  // Anchors may have become others while this node was away: whoever is a node still knows them.
  const bool is_lost = now - std::max(heard_leader_at_, began_at_) > kAskEverybody;
  for (NodeId node : is_lost ? Everybody() : AnchorsToAsk(now)) out_.emplace_back(node, pulse);
}

// The anchors, and some others, others each time.
std::vector<NodeId> Member::Everybody() {
  std::vector<NodeId> nodes(anchors_.begin(), anchors_.end());
  size_t others = 0;
  for (auto node = roster_.nodes.upper_bound(asked_); others < kMostOthers && node != roster_.nodes.end(); ++node) {
    asked_ = node->first;
    if (node->second.is_removed || node->first == options_.self.node || IsAnchor(node->first)) continue;
    nodes.push_back(node->first);
    ++others;
  }
  if (others < kMostOthers) asked_ = NodeId();
  return nodes;
}

// Who is to join says at once whom it does not reach.
std::vector<NodeId> Member::Unreachable(TimeNs now) const {
  std::vector<NodeId> nodes;
  const DurationNs patience = view().Has(options_.self) ? options_.timing.unreachable : 0;
  for (const auto& [node, since] : apart_since_) {
    if (nodes.size() == Pulse::kMostUnreachable) break;
    if (now - since >= patience) nodes.push_back(node);
  }
  return nodes;
}

// Anchors, and who may be the monitor, now or a moment ago.
bool Member::MayTellOfViews(NodeId node) const {
  return IsAnchor(node) || GroupOf(node) == GroupOf(options_.self.node);
}

void Member::Receive(NodeId from, const PulseAnswer& answer, TimeNs now) {
  if (!MayTellOfViews(from) || answer.to != options_.self.incarnation) return;
  if (answer.is_removed && IsAnchor(from)) is_removed_ = true;
  if (answer.is_gone) is_gone_ = true;
  const bool gives_lease = answer.lease_from > 0 && answer.lease_from <= pulsed_at_;
  if (answer.leader == from || gives_lease) {
    leader_ = answer.leader;
    heard_leader_at_ = now;
  } else if (now - heard_leader_at_ > 2 * options_.timing.pulse) {
    leader_ = answer.leader;
  }
  if (!gives_lease) return;
  if (answer.epoch > view().epoch) {  // It counts when the view has come, too.
    TimeNs& from_then_on = next_[answer.epoch];
    from_then_on = std::max(from_then_on, answer.lease_from);
    if (next_.size() > kMostNext) next_.erase(std::prev(next_.end()));
  } else {
    lease_from_ = std::max(lease_from_, answer.lease_from);
  }
}

void Member::Receive(NodeId from, const ViewChange& change, TimeNs now) {
  if (!MayTellOfViews(from) || view().epoch.value == 0 || !view().IsNext(change.epoch)) return;
  history_.Apply(change);
  FollowView(now);
}

void Member::Receive(NodeId from, const ViewPart& part, TimeNs now) {
  if (!MayTellOfViews(from) || part.epoch <= view().epoch) return;
  if (part.first == 0) {
    incoming_ = View{};
    incoming_.epoch = part.epoch;
    incoming_.root = part.root;
    incoming_.move = part.move;
    incoming_nodes_ = 0;
  }
  // Otherwise the next pulse brings it again.
  if (incoming_.epoch != part.epoch || incoming_nodes_ != part.first) return;
  if (incoming_nodes_ + part.nodes.size() > NodeDatabase::kMostNodes) return;
  incoming_nodes_ += part.nodes.size();
  AddNodes(part.nodes, incoming_);
  if (!part.is_last) return;
  if (incoming_.members.empty() ? incoming_.root.value != 0 : !incoming_.members.contains(incoming_.root)) return;
  history_.Reset(std::exchange(incoming_, {}));
  FollowView(now);
}

// The next pulse asks for more where this is not the last.
void Member::Receive(NodeId from, const RosterPart& part, TimeNs now) {
  const bool may_tell = IsAnchor(from) || roster_.Find(from) != nullptr;
  if (!may_tell || !roster_.Apply(part, options_.self.node)) return;
  anchors_ = roster_.anchors();
  if (!part.is_last) pulse_at_ = now;
}

// --- Stopping ---------------------------------------------------------------------------------------------------------

void Member::SetStopping(Stopping stopping, TimeNs now) {
  stopping_ = stopping;
  pulse_at_ = now;
}

void Member::Leave(TimeNs now) {
  leaves_ = true;
  pulse_at_ = now;
}

void Member::SayStopping() {
  if (!stopping_ || leaves_ || is_gone_) return;
  for (const auto& [node, incarnation] : view().members) {
    if (node != options_.self.node && up_.contains(node)) out_.emplace_back(node, *stopping_);
  }
}

void Member::Receive(NodeInstance from, const Stopping& stopping, TimeNs now) {
  if (!view().Has(from)) return;  // It says so again, should it be in the next one.
  others_stop_[from.node] = {.incarnation = from.incarnation, .flushes_at = stopping.flushes ? now : 0};
}

std::set<NodeId> Member::Staying() const {
  std::set<NodeId> staying;
  for (const auto& [node, incarnation] : view().members) {
    const auto stops = others_stop_.find(node);
    const bool is_stopping = stops != others_stop_.end() && stops->second.incarnation == incarnation;
    if (node != options_.self.node && !is_stopping) staying.insert(node);
  }
  return staying;
}

bool Member::OthersGoOn() const {
  const std::set<NodeId> staying = Staying();
  uint64_t all = 0;
  uint64_t left = 0;
  for (const auto& [node, record] : roster_.nodes) {
    all += record.votes;
    if (staying.contains(node)) left += record.votes;
  }
  return 2 * left > all;
}

bool Member::OthersFlush(TimeNs now) const {
  return std::any_of(others_stop_.begin(), others_stop_.end(), [&](const auto& other) {
    const TimeNs at = other.second.flushes_at;
    return at != 0 && now - at <= 3 * options_.timing.pulse && view().Has({other.first, other.second.incarnation});
  });
}

void Member::FollowView(TimeNs now) {
  while (!next_.empty() && next_.begin()->first <= view().epoch) {
    lease_from_ = std::max(lease_from_, next_.begin()->second);
    next_.erase(next_.begin());
  }
  std::map<NodeId, TimeNs> apart;
  for (const auto& [node, incarnation] : view().members) {
    if (node == options_.self.node || up_.contains(node)) continue;
    const auto before = apart_since_.find(node);
    apart[node] = before == apart_since_.end() ? now : before->second;
  }
  apart_since_ = std::move(apart);
  std::erase_if(others_stop_, [this](const auto& other) {
    return !view().Has({other.first, other.second.incarnation});
  });
  if (!view().Has(options_.self)) pulse_at_ = now;  // It joins when it is known to know this view.
}

void Member::SetDisk(const DiskState& disk) {
  if ((disk.caught_up && !caught_up_) || disk.moved > moved_) pulse_at_ = std::min(pulse_at_, pulsed_at_ + 1);
  blank_ = disk.blank;
  caught_up_ = disk.caught_up;
  moved_ = disk.moved;
}

void Member::PeerUp(NodeId peer) {
  up_.insert(peer);
  apart_since_.erase(peer);
}

void Member::PeerDown(NodeId peer, TimeNs now) {
  up_.erase(peer);
  const bool is_monitor = peer == MonitorOfNode(options_.self.node);
  if (peer == leader_ || is_monitor) pulse_at_ = now;
  if (peer == leader_) leader_ = NodeId();  // Another one may lead soon, or be heard of from others.
  if (view().members.contains(peer)) apart_since_.try_emplace(peer, now);
}

}  // namespace mangrove
