#include "recovery/view_keeper.h"

#include <algorithm>
#include <utility>

#include "absl/functional/function_ref.h"
#include "recovery/disk_weights.h"

namespace mangrove {
namespace {

bool IsNamed(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// K4. Who cannot reach whom, both ways; only those with such neighbours.
using Apart = std::map<NodeId, std::set<NodeId>>;
using VotesOf = absl::FunctionRef<uint32_t(NodeId)>;
// So many can be looked at in all ways; of more, those with most such neighbours leave first.
constexpr size_t kMostSearched = 24;

void TakeOut(NodeId node, Apart& apart) {
  const auto found = apart.find(node);
  if (found == apart.end()) return;
  for (const NodeId other : found->second) {
    const auto neighbour = apart.find(other);
    neighbour->second.erase(node);
    if (neighbour->second.empty()) apart.erase(neighbour);
  }
  apart.erase(node);
}

NodeId WithMostNeighbours(const Apart& apart, VotesOf votes) {
  const auto fits_less = [&](const auto& a, const auto& b) {
    if (a.second.size() != b.second.size()) return a.second.size() < b.second.size();
    return votes(a.first) != votes(b.first) ? votes(a.first) > votes(b.first) : a.first < b.first;
  };
  return std::max_element(apart.begin(), apart.end(), fits_less)->first;
}

// Whether it is better that these leave: fewer nodes, fewer votes, higher ids.
bool IsBetter(const std::set<NodeId>& a, const std::set<NodeId>& b, VotesOf votes) {
  if (a.size() != b.size()) return a.size() < b.size();
  const auto sum = [&](const std::set<NodeId>& nodes) {
    uint64_t all = 0;
    for (const NodeId node : nodes) all += votes(node);
    return all;
  };
  if (sum(a) != sum(b)) return sum(a) < sum(b);
  return std::lexicographical_compare(b.rbegin(), b.rend(), a.rbegin(), a.rend());
}

// Those that leave with `leaving`, if that is better than `best`: of the node with most such neighbours either it leaves, or they do.
void Search(const Apart& apart, const std::set<NodeId>& leaving, VotesOf votes, std::optional<std::set<NodeId>>& best) {
  if (best && leaving.size() + (apart.empty() ? 0 : 1) > best->size()) return;
  if (apart.empty()) {
    if (!best || IsBetter(leaving, *best, votes)) best = leaving;
    return;
  }
  const NodeId node = WithMostNeighbours(apart, votes);
  const std::set<NodeId> neighbours = apart.at(node);
  for (const std::set<NodeId>& out : {std::set<NodeId>{node}, neighbours}) {
    Apart left = apart;
    std::set<NodeId> all = leaving;
    for (const NodeId other : out) {
      TakeOut(other, left);
      all.insert(other);
    }
    Search(left, all, votes, best);
  }
}

bool Joins(const ViewChange& change, NodeId node) {
  return std::any_of(change.joins.begin(), change.joins.end(),
                     [node](const NodeInstance& other) { return other.node == node; });
}

// A change has room for all of their weights: with those of some alone more could be asked of the others than before.
bool AreFew(const std::set<NodeId>& disks) { return disks.size() <= ViewChange::kMostNodes; }

bool HasWeights(const View& view) { return !view.weights.empty() || !view.next_weights.empty(); }

}  // namespace

ViewKeeper::ViewKeeper(const RecoveryTiming& timing, const ViewBugs& bugs) : timing_(timing), bugs_(bugs) {}

void ViewKeeper::Elected(TimeNs now) {
  elected_at_ = now;
  lease_ends_.clear();
  leaving_.clear();
  requests_.clear();
  away_since_.clear();
  calm_since_.reset();
  has_news_ = true;
}

bool ViewKeeper::OnPulse(NodeInstance from, const Pulse& pulse, const View& view, TimeNs now) {
  if (pulse.leaves) {  // Also when a later one of the node has been heard: it may wait for this one's place.
    Incarnation& left = left_[from.node];
    left = std::max(left, from.incarnation);
  }
  Heard& heard = heard_[from.node];
  if (from.incarnation < heard.incarnation) return false;
  const bool had_caught_up = heard.caught_up;
  if (from.incarnation > heard.incarnation) heard = {.incarnation = from.incarnation};
  if (pulse.sent_at <= heard.newest) return false;  // Late, or doubled: it says nothing about now.
  heard.newest = pulse.sent_at;
  if (HasLeft(from) || HasLostDisk(from, pulse.blank, pulse.caught_up, view)) {
    heard.sent_at = heard.confirmed = 0;
    return true;
  }
  heard.at = now;
  heard.epoch = pulse.epoch;
  heard.told = pulse.epoch;
  heard.unreachable = pulse.unreachable;
  heard.blank = pulse.blank;
  heard.caught_up = pulse.caught_up || (bugs_.caught_up_stays && had_caught_up);
  heard.moved = pulse.moved;
  heard.knows_weights = pulse.knows_weights;
  heard.disk = pulse.disk;
  if (!view.Has(from)) return true;
  // One at a time: with a newer pulse always in its place none would be confirmed where the anchors are slow.
  if (heard.sent_at != 0 && now - heard.came_at < timing_.lease / 4) return true;
  heard.sent_at = pulse.sent_at;
  heard.came_at = now;
  waiting_.insert(from.node);
  has_news_ = true;
  return true;
}

// K6. An incarnation's number is kept on its disk, so that who starts with another disk within the minute may have the same one.
bool ViewKeeper::HasLostDisk(NodeInstance node, bool blank, bool caught_up, const View& view) {
  if (!view.Has(node) || !blank || caught_up) return false;
  const auto behind = view.behind.find(node.node);
  return behind == view.behind.end() || behind->second != kBlankDisk;
}

std::vector<NodeInstance> ViewKeeper::Confirm(std::optional<TimeNs> quorum_at) {
  std::vector<NodeInstance> nodes;
  if (!has_news_ && quorum_at == quorum_at_) return nodes;
  has_news_ = false;
  quorum_at_ = quorum_at;
  for (auto waits = waiting_.begin(); waits != waiting_.end();) {
    const NodeId node = *waits;
    Heard& heard = heard_.at(node);
    const bool is_confirmed = bugs_.lease_unconfirmed || (quorum_at && *quorum_at >= heard.came_at);
    // Who may have to leave waits, in case it stays after all.
    const bool may_leave = leaving_.contains(node) && !bugs_.lease_to_leaving;
    if (heard.sent_at != 0 && (!is_confirmed || may_leave)) {
      ++waits;
      continue;
    }
    waits = waiting_.erase(waits);
    if (heard.sent_at == 0) continue;  // It has started anew.
    heard.confirmed = std::exchange(heard.sent_at, 0);
    heard.confirmed_at = heard.came_at;
    nodes.push_back({node, heard.incarnation});
  }
  return nodes;
}

PulseAnswer ViewKeeper::AnswerTo(NodeInstance to, const NodeDatabase& database) {
  PulseAnswer answer;
  answer.epoch = database.view().epoch;
  const NodeRecord* record = database.Find(to.node);
  const auto found = heard_.find(to.node);
  const bool is_heard = found != heard_.end() && found->second.incarnation == to.incarnation;
  if (!database.view().Has(to)) {
    answer.is_removed = (record != nullptr && record->is_removed) || database.view().lost.contains(to.node);
    answer.is_gone = record != nullptr && to.incarnation <= record->last;
    return answer;
  }
  if (!is_heard || found->second.confirmed == 0) return answer;
  if (leaving_.contains(to.node) && !bugs_.lease_to_leaving) return answer;
  // What it said may have been heard before the view came that makes another one of it.
  if (HasLostDisk(to, found->second.blank, found->second.caught_up, database.view())) return answer;
  answer.lease_from = found->second.confirmed;
  TimeNs& ends = lease_ends_[to.node];
  ends = std::max(ends, found->second.confirmed_at + timing_.lease);
  return answer;
}

bool ViewKeeper::IsHeard(NodeInstance node, TimeNs now) const {
  const auto found = heard_.find(node.node);
  return found != heard_.end() && found->second.incarnation == node.incarnation &&
         now - found->second.at < timing_.silent && !HasLeft(node);
}

// K2. An earlier incarnation's lease may run still though a later one has come and gone: its programs had it.
bool ViewKeeper::HasLeft(NodeInstance node) const {
  const auto found = left_.find(node.node);
  return found != left_.end() && (found->second == node.incarnation || bugs_.leaves_as_any);
}

Epoch ViewKeeper::KnownTo(NodeInstance node) const {
  const auto found = heard_.find(node.node);
  return found == heard_.end() || found->second.incarnation != node.incarnation ? Epoch() : found->second.told;
}

void ViewKeeper::NoteTold(NodeId node, Epoch epoch) {
  const auto found = heard_.find(node);
  if (found != heard_.end()) found->second.told = std::max(found->second.told, epoch);
}

// What earlier leaders have given was given before this one was elected.
TimeNs ViewKeeper::LeaseEnds(NodeId node) const {
  const auto found = lease_ends_.find(node);
  const TimeNs given_before = elected_at_ + timing_.lease;
  return found == lease_ends_.end() ? given_before : std::max(found->second, given_before);
}

// K4: of those in the view that are heard, who is in the way of the others.
std::set<NodeId> ViewKeeper::Misfits(const NodeDatabase& database, TimeNs now) const {
  Apart apart;
  for (const auto& [node, incarnation] : database.view().members) {
    if (!IsHeard({node, incarnation}, now)) continue;
    for (NodeId other : heard_.at(node).unreachable) {
      const auto member = database.view().members.find(other);
      if (other == node || member == database.view().members.end() || !IsHeard({other, member->second}, now)) continue;
      apart[node].insert(other);
      apart[other].insert(node);
    }
  }
  const auto votes = [&](NodeId node) { return database.Find(node)->votes; };
  std::set<NodeId> misfits;
  while (apart.size() > kMostSearched) {
    const NodeId worst = WithMostNeighbours(apart, votes);
    misfits.insert(worst);
    TakeOut(worst, apart);
  }
  std::optional<std::set<NodeId>> best;
  Search(apart, misfits, votes, best);
  return *best;
}

// Not yet, if its lease as an older incarnation goes on: Decide.
bool ViewKeeper::MayJoin(NodeId node, const NodeDatabase& database, TimeNs now) const {
  const Heard& heard = heard_.at(node);
  const NodeRecord* record = database.Find(node);
  if (!database.Has(node) || database.view().lost.contains(node)) return false;
  if (heard.incarnation <= record->last) return false;
  if (!heard.knows_weights && HasWeights(database.view()) && !bugs_.weigh_unasked) return false;
  if (!IsHeard({node, heard.incarnation}, now) || heard.epoch != database.view().epoch) return false;
  return std::none_of(heard.unreachable.begin(), heard.unreachable.end(), [&](NodeId other) {
    const auto member = database.view().members.find(other);
    return other != node && member != database.view().members.end() && IsHeard({other, member->second}, now);
  });
}

// K5. Who is to leave would be behind again.
bool ViewKeeper::HasCaughtUp(NodeId node, const View& view, TimeNs now) const {
  const auto member = view.members.find(node);
  if (member == view.members.end() || leaving_.contains(node) || !IsHeard({node, member->second}, now)) return false;
  const Heard& heard = heard_.at(node);
  return heard.caught_up && heard.epoch == view.epoch;
}

ViewChange ViewKeeper::Decide(const NodeDatabase& database, const Votes& votes, TimeNs now) {
  const View& view = database.view();
  ViewChange change;
  change.epoch = Epoch(view.epoch.value + 1);
  const auto has_room = [&] { return change.size() < ViewChange::kMostNodes; };
  leaving_ = Misfits(database, now);
  has_news_ = true;
  for (const auto& [node, incarnation] : view.members) {
    if (IsHeard({node, incarnation}, now) && !leaving_.contains(node)) continue;
    const bool has_left = HasLeft({node, incarnation});
    // A leader that was just elected has not heard anybody.
    if (now - elected_at_ < timing_.silent && !has_left) continue;
    leaving_.insert(node);
    const bool is_over = has_left || LeaseEnds(node) <= now || bugs_.no_lease_wait;
    if (is_over && has_room()) change.leaves.push_back(node);
  }
  // The first view has room for their places, too.
  const size_t most_joins = view.epoch.value == 0 ? ViewChange::kMostNodes / 2 : ViewChange::kMostNodes;
  for (const auto& [node, heard] : heard_) {
    if (!has_room() || change.joins.size() == most_joins || !MayJoin(node, database, now)) continue;
    if (view.members.contains(node) && std::erase(change.leaves, node) == 0) continue;
    change.joins.push_back({node, heard.incarnation});
    if (heard.blank) change.blank.push_back(node);
  }
  for (const auto& [node, since] : view.behind) {
    if (has_room() && HasCaughtUp(node, view, now)) change.caught_up.push_back(node);
  }
  TakeRequests(database, votes, change);
  DecidePlaces(database, now, change);
  DecideWeights(database, now, change);
  return change;
}

// --- Whose disks keep pages -----------------------------------------------------------------------------------------------

void ViewKeeper::TakeRequests(const NodeDatabase& database, const Votes& votes, ViewChange& change) {
  const View& view = database.view();
  const std::vector<NodeRequest> requests = std::exchange(requests_, {});
  if (view.disks.empty()) return;  // There is no view yet.
  // Who is to have votes, and has none in the log, was never here, or its disk was replaced: it may not be waited for.
  const auto stays_anchor = [&](const auto& node) {
    const auto counted = votes.find(node.first);
    return node.second.votes > 0 && counted != votes.end() && counted->second > 0 &&
           !view.draining.contains(node.first) && !view.lost.contains(node.first) &&
           !IsNamed(change.drain, node.first) && !IsNamed(change.lost, node.first);
  };
  std::set<NodeId> named;
  for (const NodeRequest& request : requests) {
    const NodeId node = request.node;
    if (!database.Has(node) || change.size() == ViewChange::kMostNodes || !named.insert(node).second) continue;
    const auto& nodes = database.nodes();
    const bool is_last_anchor = std::none_of(
        nodes.begin(), nodes.end(), [&](const auto& other) { return other.first != node && stays_anchor(other); });
    const bool is_draining = view.draining.contains(node);
    const bool is_here = view.members.contains(node) || Joins(change, node);
    switch (request.kind) {
      case NodeRequest::Kind::kDrain:
        if (!is_draining && !is_last_anchor && !view.lost.contains(node)) change.drain.push_back(node);
        break;
      case NodeRequest::Kind::kUndrain:
        if (is_draining) change.undrain.push_back(node);
        break;
      case NodeRequest::Kind::kGiveUp:
        if (!view.lost.contains(node) && !is_here && !is_last_anchor) change.lost.push_back(node);
        break;
      case NodeRequest::Kind::kAdd:
      case NodeRequest::Kind::kSet: break;  // Of the nodes, not of the view: Anchor::ChangeNodes.
    }
  }
}

// K7
void ViewKeeper::DecidePlaces(const NodeDatabase& database, TimeNs now, ViewChange& change) {
  const View& view = database.view();
  const auto has_room = [&] { return change.size() < ViewChange::kMostNodes; };
  if (view.disks.empty()) {
    // The first view: of every node that the cluster was made with; where they are too many, of those that are there.
    if (change.joins.empty()) return;
    std::set<NodeId> nodes;
    const auto place = [&](NodeId node) {
      if (change.size() + nodes.size() < ViewChange::kMostNodes) nodes.insert(node);
    };
    for (const NodeInstance& joins : change.joins) place(joins.node);
    for (const auto& [node, record] : database.nodes()) {
      if (database.Has(node)) place(node);
    }
    change.place.assign(nodes.begin(), nodes.end());
    return;
  }
  const std::set<NodeId>& wanted = view.wanted_disks();
  std::erase_if(away_since_,
                [&](const auto& away) { return view.members.contains(away.first) || !wanted.contains(away.first); });
  size_t stay = 0;  // Of the members.
  std::vector<NodeId> unplace;
  for (NodeId node : wanted) {
    const bool is_member = view.members.contains(node);
    if (!is_member) away_since_.try_emplace(node, now);
    const bool is_over = view.draining.contains(node) || view.lost.contains(node) ||
                         (!is_member && !Joins(change, node) && now - away_since_.at(node) >= timing_.replace_after);
    if (is_over) {
      unplace.push_back(node);
    } else if (is_member) {
      ++stay;
    }
  }
  const bool may_weigh = timing_.reweigh_after == 0 || AreAllHeard(view);  // Otherwise in a moment, with its weight.
  for (const auto& [node, incarnation] : view.members) {
    if (!has_room() || !may_weigh || wanted.contains(node) || view.draining.contains(node)) continue;
    change.place.push_back(node);
    ++stay;
  }
  for (NodeId node : unplace) {
    if (stay > 0 && has_room()) change.unplace.push_back(node);
  }
  WeighPlaced(database, change);
  if (change.place.empty() && change.unplace.empty()) DecideMoved(view, now, change);
}

// Said as a member that knows this view, and with a disk that is not behind otherwise.
bool ViewKeeper::HasMoved(NodeId node, const View& view, const ViewChange& change, TimeNs now) const {
  const auto member = view.members.find(node);
  if (member == view.members.end() || leaving_.contains(node) || !IsHeard({node, member->second}, now)) return false;
  if (view.behind.contains(node) && !IsNamed(change.caught_up, node)) return false;
  const Heard& heard = heard_.at(node);
  const bool is_of_this = heard.moved == view.move || (bugs_.any_move && heard.moved.value != 0);
  return view.moved.contains(node) || (is_of_this && heard.epoch == view.epoch);
}

void ViewKeeper::DecideMoved(const View& view, TimeNs now, ViewChange& change) const {
  bool all_have = !view.next_disks.empty();
  for (NodeId node : view.next_disks) {
    if (Joins(change, node) || !HasMoved(node, view, change, now)) {
      all_have = false;
    } else if (!view.moved.contains(node)) {
      if (change.size() < ViewChange::kMostNodes) {
        change.moved.push_back(node);
      } else {
        all_have = false;
      }
    }
  }
  if (all_have && change.size() < ViewChange::kMostNodes) change.placed = true;
}

// --- Weights --------------------------------------------------------------------------------------------------------------

// K8. Who has not been heard as what it is in the view either is soon or leaves the view.
bool ViewKeeper::AreAllHeard(const View& view) const {
  return std::all_of(view.members.begin(), view.members.end(), [this](const auto& member) {
    const auto found = heard_.find(member.first);
    return found != heard_.end() && found->second.incarnation == member.second;
  });
}

// K8
bool ViewKeeper::AllKnowWeights(const NodeDatabase& database, const ViewChange& change) const {
  if (bugs_.weigh_unasked) return true;
  const View& view = database.view();
  const auto knows = [this](NodeInstance node) {
    const auto found = heard_.find(node.node);
    return found != heard_.end() && found->second.incarnation == node.incarnation && found->second.knows_weights;
  };
  if (!std::all_of(change.joins.begin(), change.joins.end(), knows)) return false;
  for (const auto& [node, incarnation] : view.members) {
    if (!Joins(change, node) && !knows({node, incarnation})) return false;
  }
  if (HasWeights(view)) return true;
  const auto& nodes = database.nodes();
  return std::all_of(nodes.begin(), nodes.end(), [&](const auto& node) {
    const auto& [id, record] = node;
    const bool is_needed = view.disks.contains(id) || view.next_disks.contains(id) || record.votes > 0;
    return view.members.contains(id) || !is_needed || record.is_removed;
  });
}

// Those that come to others. So they get no more than fits from the beginning. For whose weight there is no room comes with the next
// change.
void ViewKeeper::WeighPlaced(const NodeDatabase& database, ViewChange& change) const {
  const View& view = database.view();
  if ((timing_.reweigh_after == 0 && !HasWeights(view)) || change.place.empty()) return;
  if (!(HasWeights(view) || AllKnowWeights(database, change))) return;
  DiskRooms rooms;
  const auto room_of = [this](NodeId node) {
    const auto found = heard_.find(node);
    return found == heard_.end() ? 0 : found->second.disk.mib;
  };
  for (NodeId node : view.wanted_disks()) {
    if (room_of(node) != 0) rooms[node] = room_of(node);
  }
  for (size_t i = 0; i < change.place.size(); ++i) {
    const NodeId node = change.place[i];
    if (room_of(node) == 0) continue;
    const uint8_t weight = WeightBeside(rooms, view.wanted_weights(), room_of(node));
    if (weight == kFullDiskWeight) continue;
    if (change.size() == ViewChange::kMostNodes) change.place.pop_back();
    if (i < change.place.size()) change.weigh.push_back({node, weight});
  }
}

bool ViewKeeper::AllDisksAreWell(const View& view, TimeNs now) const {
  return std::all_of(view.disks.begin(), view.disks.end(), [&](NodeId node) {
    const auto member = view.members.find(node);
    if (member == view.members.end() || view.behind.contains(node)) return false;
    return IsHeard({node, member->second}, now) && heard_.at(node).disk.mib != 0;
  });
}

// K8
void ViewKeeper::DecideWeights(const NodeDatabase& database, TimeNs now, ViewChange& change) {
  const View& view = database.view();
  if (timing_.reweigh_after == 0 || !AreFew(view.disks)) return;
  const bool is_calm = change.empty() && !view.disks.empty() && view.next_disks.empty() && leaving_.empty() &&
                       AllDisksAreWell(view, now);
  if (!is_calm) return calm_since_.reset();
  if (!calm_since_ || !AreOfOneSizeSince(view)) {
    calm_since_ = now;
    calm_rooms_.clear();
    for (NodeId node : view.disks) calm_rooms_[node] = heard_.at(node).disk.mib;
  }
  if (now - *calm_since_ < timing_.reweigh_after || !AllKnowWeights(database, change)) return;
  change.weigh = WeightsWorthAMove(view);
  calm_since_ = now;  // What is not worth it now is judged again in a while.
}

// Somewhat may be taken by others, or left.
bool ViewKeeper::AreOfOneSizeSince(const View& view) const {
  return std::all_of(view.disks.begin(), view.disks.end(), [&](NodeId node) {
    const auto then = calm_rooms_.find(node);
    const uint64_t now = heard_.at(node).disk.mib;
    return then != calm_rooms_.end() && 8 * now <= 9 * uint64_t{then->second} && 8 * uint64_t{then->second} <= 9 * now;
  });
}

std::vector<DiskWeight> ViewKeeper::WeightsWorthAMove(const View& view) const {
  DiskRooms rooms;
  DiskRooms used;
  for (NodeId node : view.disks) {
    const DiskSize& size = heard_.at(node).disk;
    if (size.used == 0) return {};  // Of an earlier version.
    rooms[node] = size.mib;
    used[node] = static_cast<uint32_t>(uint64_t{size.mib} * (size.used - 1) / (DiskSize::kAllUsed - 1));
  }
  const DiskWeights wanted = WeightsFor(rooms);
  const auto weight_in = [](const DiskWeights& weights, NodeId node) {
    const auto found = weights.find(node);
    return found == weights.end() ? kFullDiskWeight : found->second;
  };
  if (!AreWorthAMove(rooms, view.weights, wanted) || !Fit(rooms, used, view.weights, wanted)) return {};
  std::vector<DiskWeight> weigh;
  for (NodeId node : view.disks) {
    if (weight_in(wanted, node) != weight_in(view.weights, node)) weigh.push_back({node, weight_in(wanted, node)});
  }
  return weigh;
}

}  // namespace mangrove
