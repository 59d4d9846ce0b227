#include "recovery/codec_view.h"

#include <algorithm>
#include <utility>

#include "recovery/codec_frame.h"

namespace mangrove {

namespace wire = recovery_wire;

// --- Encoding ---------------------------------------------------------------------------------------------------------

void FillInstance(wire::Instance::Builder out, NodeInstance instance) {
  out.setNode(instance.node.value);
  out.setIncarnation(instance.incarnation.value);
}

void FillIds(capnp::List<uint64_t>::Builder out, const std::vector<NodeId>& nodes) {
  for (unsigned i = 0; i < nodes.size(); ++i) out.set(i, nodes[i].value);
}

namespace {

void FillInstances(capnp::List<wire::Instance>::Builder out, const std::vector<NodeInstance>& nodes) {
  for (unsigned i = 0; i < nodes.size(); ++i) FillInstance(out[i], nodes[i]);
}

}  // namespace

void FillViewNodes(capnp::List<wire::ViewNode>::Builder out, const std::vector<ViewPart::Node>& nodes) {
  for (unsigned i = 0; i < nodes.size(); ++i) {
    out[i].setNode(nodes[i].node.value);
    out[i].setIncarnation(nodes[i].incarnation.value);
    out[i].setBehind(nodes[i].behind.value);
    out[i].setIsDisk(nodes[i].is_disk);
    out[i].setIsNextDisk(nodes[i].is_next_disk);
    out[i].setHasMoved(nodes[i].has_moved);
    out[i].setIsDraining(nodes[i].is_draining);
    out[i].setIsLost(nodes[i].is_lost);
    out[i].setWeight(nodes[i].weight);
    out[i].setNextWeight(nodes[i].next_weight);
  }
}

void FillViewPart(wire::ViewPart::Builder out, const ViewPart& part) {
  out.setEpoch(part.epoch.value);
  out.setFirst(part.first);
  out.setIsLast(part.is_last);
  out.setRoot(part.root.value);
  out.setMove(part.move.value);
  if (!part.nodes.empty()) FillViewNodes(out.initNodes(SizeOf(part.nodes)), part.nodes);
}

void FillViewChange(wire::ViewChange::Builder out, const ViewChange& change) {
  out.setEpoch(change.epoch.value);
  if (!change.joins.empty()) FillInstances(out.initJoins(SizeOf(change.joins)), change.joins);
  if (!change.leaves.empty()) FillIds(out.initLeaves(SizeOf(change.leaves)), change.leaves);
  if (!change.blank.empty()) FillIds(out.initBlank(SizeOf(change.blank)), change.blank);
  if (!change.caught_up.empty()) FillIds(out.initCaughtUp(SizeOf(change.caught_up)), change.caught_up);
  if (!change.place.empty()) FillIds(out.initPlace(SizeOf(change.place)), change.place);
  if (!change.unplace.empty()) FillIds(out.initUnplace(SizeOf(change.unplace)), change.unplace);
  if (!change.moved.empty()) FillIds(out.initMoved(SizeOf(change.moved)), change.moved);
  out.setPlaced(change.placed);
  if (!change.drain.empty()) FillIds(out.initDrain(SizeOf(change.drain)), change.drain);
  if (!change.undrain.empty()) FillIds(out.initUndrain(SizeOf(change.undrain)), change.undrain);
  if (!change.lost.empty()) FillIds(out.initLost(SizeOf(change.lost)), change.lost);
  if (change.weigh.empty()) return;
  auto weigh = out.initWeigh(SizeOf(change.weigh));
  for (unsigned i = 0; i < change.weigh.size(); ++i) {
    weigh[i].setNode(change.weigh[i].node.value);
    weigh[i].setWeight(change.weigh[i].weight);
  }
}

// --- Decoding ---------------------------------------------------------------------------------------------------------

absl::Status ReadInstance(const char* what, wire::Instance::Reader in, NodeInstance& instance) {
  if (absl::Status s = CheckWhole(what, in); !s.ok()) return s;
  instance = {NodeId(in.getNode()), Incarnation(in.getIncarnation())};
  if (instance.incarnation.value != 0) return {};
  return Bad(what, " names ", ToString(instance));
}

namespace {

// Changes of the view have had these from the beginning; `weigh` came with level 2.
constexpr size_t kListsOfLevel1 = 10;

// Of a node of a view. The full one is not said.
bool FitsWeight(uint8_t weight, bool is_disk) { return weight == 0 || (is_disk && weight < kFullDiskWeight); }

}  // namespace

absl::Status ReadViewNodes(const char* what, capnp::List<wire::ViewNode>::Reader in, size_t most, Epoch epoch,
                           std::vector<ViewPart::Node>& nodes) {
  if (absl::Status s = CheckLength(what, in, most); !s.ok()) return s;
  NodeId before;
  for (const wire::ViewNode::Reader entry : in) {
    if (absl::Status s = CheckWhole(what, entry); !s.ok()) return s;
    const ViewPart::Node& node = nodes.emplace_back(ViewPart::Node{.node = NodeId(entry.getNode()),
                                                                   .incarnation = Incarnation(entry.getIncarnation()),
                                                                   .behind = Epoch(entry.getBehind()),
                                                                   .is_disk = entry.getIsDisk(),
                                                                   .is_next_disk = entry.getIsNextDisk(),
                                                                   .has_moved = entry.getHasMoved(),
                                                                   .is_draining = entry.getIsDraining(),
                                                                   .is_lost = entry.getIsLost(),
                                                                   .weight = entry.getWeight(),
                                                                   .next_weight = entry.getNextWeight()});
    if (absl::Status s = CheckFollows(what, before, node.node); !s.ok()) return s;
    const bool is_member = node.incarnation.value != 0;
    if (node == ViewPart::Node{.node = node.node})
      return Bad(what, " names ", ToString(node.node), " and says nothing of it");
    if (node.has_moved && !node.is_next_disk) {
      return Bad(what, " has ", ToString(node.node), ", which has moved pages and is to keep none");
    }
    if (!FitsWeight(node.weight, node.is_disk) || !FitsWeight(node.next_weight, node.is_next_disk)) {
      return Bad(what, " has ", ToString(node.node), " with the weights ", int{node.weight}, " and ",
                 int{node.next_weight}, ", expected less than ", int{kFullDiskWeight}, ", of disks alone");
    }
    if (node.behind > epoch || (is_member && node.behind.value != 0 && node.behind == epoch)) {
      return Bad(what, " of view ", epoch.value, " has ", ToString(node.node), is_member ? ", a member," : "",
                 " behind since view ", node.behind.value);
    }
    before = node.node;
  }
  return {};
}

absl::Status ReadViewPart(wire::ViewPart::Reader in, ViewPart& part) {
  if (absl::Status s = CheckWhole("ViewPart", in); !s.ok()) return s;
  part.epoch = Epoch(in.getEpoch());
  part.first = in.getFirst();
  part.is_last = in.getIsLast();
  part.root = NodeId(in.getRoot());
  part.move = Epoch(in.getMove());
  if (part.move > part.epoch) return Bad("ViewPart of view ", part.epoch.value, " moves since view ", part.move.value);
  return ReadViewNodes("ViewPart", in.getNodes(), ViewPart::kMostNodes, part.epoch, part.nodes);
}

namespace {

absl::Status ReadWeights(capnp::List<wire::DiskWeight>::Reader in, std::vector<DiskWeight>& weigh) {
  std::vector<NodeId> named;
  for (const wire::DiskWeight::Reader entry : in) {
    if (absl::Status s = CheckWhole("a weight", entry); !s.ok()) return s;
    const DiskWeight& disk = weigh.emplace_back(DiskWeight{NodeId(entry.getNode()), entry.getWeight()});
    if (disk.weight == 0 || disk.weight > kFullDiskWeight) {
      return Bad("a change of the view gives ", ToString(disk.node), " the weight ", int{disk.weight},
                 ", expected 1 to ", int{kFullDiskWeight});
    }
    named.push_back(disk.node);
  }
  return CheckDistinct("a change of the view", std::move(named));
}

}  // namespace

absl::Status ReadViewChange(wire::ViewChange::Reader in, ViewChange& change) {
  if (absl::Status s = CheckWhole("a change of the view", in, kListsOfLevel1); !s.ok()) return s;
  change.epoch = Epoch(in.getEpoch());
  const auto joins = in.getJoins();
  const auto leaves = in.getLeaves();
  const auto blank = in.getBlank();
  const auto caught_up = in.getCaughtUp();
  change.placed = in.getPlaced();
  const auto place = in.getPlace();
  const auto unplace = in.getUnplace();
  const auto moved = in.getMoved();
  const auto drain = in.getDrain();
  const auto undrain = in.getUndrain();
  const auto lost = in.getLost();
  const auto weigh = in.getWeigh();
  const uint64_t count = uint64_t{joins.size()} + leaves.size() + caught_up.size() + place.size() + unplace.size() +
                         moved.size() + (change.placed ? 1 : 0) + drain.size() + undrain.size() + lost.size() +
                         weigh.size();
  if (count == 0 || count > ViewChange::kMostNodes) {
    return Bad("a change of the view is of ", count, " nodes, expected 1 to ", ViewChange::kMostNodes);
  }
  std::vector<NodeId> named;
  for (const wire::Instance::Reader node : joins) {
    if (absl::Status s = ReadInstance("a change of the view", node, change.joins.emplace_back()); !s.ok()) return s;
    named.push_back(change.joins.back().node);
  }
  if (absl::Status s = CheckLength("a change of the view", blank, joins.size()); !s.ok()) return s;
  for (uint64_t node : blank) {
    if (std::find(named.begin(), named.end(), change.blank.emplace_back(node)) == named.end()) {
      return Bad("a change of the view has ", ToString(NodeId(node)), " with a blank disk, and not joining");
    }
  }
  if (absl::Status s = CheckDistinct("a change of the view", change.blank); !s.ok()) return s;
  for (uint64_t node : leaves) named.push_back(change.leaves.emplace_back(node));
  for (uint64_t node : caught_up) named.push_back(change.caught_up.emplace_back(node));
  if (absl::Status s = CheckDistinct("a change of the view", std::move(named)); !s.ok()) return s;
  for (const auto& [list, nodes] :
       {std::pair(place, &change.place), std::pair(unplace, &change.unplace), std::pair(moved, &change.moved),
        std::pair(drain, &change.drain), std::pair(undrain, &change.undrain), std::pair(lost, &change.lost)}) {
    for (uint64_t node : list) nodes->emplace_back(node);
    if (absl::Status s = CheckDistinct("a change of the view", *nodes); !s.ok()) return s;
  }
  return ReadWeights(weigh, change.weigh);
}

}  // namespace mangrove
