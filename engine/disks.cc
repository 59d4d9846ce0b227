#include "engine/disks.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace mangrove {
namespace {

bool Contains(const std::vector<NodeId>& nodes, NodeId node) {
  return std::find(nodes.begin(), nodes.end(), node) != nodes.end();
}

// Of `k` out of `n`, or a number that is large enough.
size_t Combinations(size_t n, size_t k) {
  size_t count = 1;
  for (size_t i = 1; i <= std::min(k, n - k) && count < (size_t{1} << 40); ++i) count = count * (n - i + 1) / i;
  return count;
}

}  // namespace

static_assert(kFullDiskWeight == Locator::kFullWeight);

void Disks::Follow(const View& view, const PlantedBugs& bugs) {
  const DiskWeights& weights = bugs.weights_too_soon ? view.wanted_weights() : view.weights;
  if (view.disks != view_.disks || weights != now_weights_) now_ = Locator(view.disks, weights);
  now_weights_ = weights;
  if (view.next_disks != view_.next_disks || view.next_weights != view_.next_weights) {
    next_ = Locator(view.next_disks, view.next_weights);
  }
  view_ = view;
  missing_ = static_cast<size_t>(
      std::count_if(view.disks.begin(), view.disks.end(), [this](NodeId node) { return !IsCurrent(node); }));
}

bool Disks::IsCurrent(NodeId node) const {
  return IsHere(node) && view_.disks.contains(node) && !view_.behind.contains(node);
}

bool Disks::IsDisk(NodeId node) const { return view_.disks.contains(node) || view_.next_disks.contains(node); }

std::vector<NodeId> Disks::Current(PageId page, uint32_t replicas) const {
  std::vector<NodeId> holders = now_.CoreHolders(page, replicas);
  std::erase_if(holders, [this](NodeId node) { return !IsCurrent(node); });
  return holders;
}

std::vector<NodeId> Disks::Storing(PageId page, uint32_t replicas) const {
  std::vector<NodeId> holders = now_.CoreHolders(page, replicas);
  if (next_.size() > 0) {
    for (NodeId node : next_.CoreHolders(page, replicas)) {
      if (!Contains(holders, node)) holders.push_back(node);
    }
  }
  std::erase_if(holders, [this](NodeId node) { return !IsHere(node); });
  return holders;
}

std::vector<NodeId> Disks::StoringExtents() const {
  std::vector<NodeId> nodes;
  for (const auto& [node, incarnation] : view_.members) {
    if (IsDisk(node)) nodes.push_back(node);
  }
  return nodes;
}

bool Disks::Keeps(NodeId node, PageId page, uint32_t replicas) const {
  return view_.disks.contains(node) && Contains(now_.CoreHolders(page, replicas), node);
}

bool Disks::Stores(NodeId node, PageId page, uint32_t replicas) const {
  return Keeps(node, page, replicas) || Gains(node, page, replicas);
}

bool Disks::Gains(NodeId node, PageId page, uint32_t replicas) const {
  return view_.next_disks.contains(node) && Contains(next_.CoreHolders(page, replicas), node) &&
         !Keeps(node, page, replicas);
}

bool Disks::LearnsAll(NodeId node) const { return view_.behind.contains(node) || !view_.disks.contains(node); }

bool Disks::Learns(NodeId node, PageId page, uint32_t replicas) const {
  return LearnsAll(node) ? Stores(node, page, replicas) : Gains(node, page, replicas);
}

absl::Status Disks::Check(PageId page, uint32_t replicas) const {
  const std::vector<NodeId> holders = now_.CoreHolders(page, replicas);
  std::vector<std::string> away;
  for (NodeId node : holders) {
    if (IsCurrent(node)) return absl::OkStatus();
    away.push_back(absl::StrCat(ToString(node), view_.lost.contains(node) ? " (given up)"
                                                : IsHere(node)            ? " (catches up)"
                                                                          : " (is not there)"));
  }
  if (holders.empty()) return absl::UnavailableError("no disk keeps pages yet: the cluster starts");
  if (std::all_of(holders.begin(), holders.end(), [this](NodeId node) { return view_.lost.contains(node); })) {
    return absl::UnavailableError(absl::StrCat("page ", ToString(page), " was kept only by ", absl::StrJoin(away, ", "),
                                               ", and is lost with them when others have taken their places"));
  }
  return absl::UnavailableError(absl::StrCat("no disk that is there has all of page ", ToString(page), ": ",
                                             absl::StrJoin(away, ", "), "; start it, or try again later"));
}

absl::Status Disks::Check(PageRange range, uint32_t replicas) const {
  absl::Status status;
  if (missing_ < std::min<size_t>(std::max<uint32_t>(replicas, 1), now_.size())) return status;
  const size_t kinds = Combinations(now_.size(), std::min<size_t>(std::max<uint32_t>(replicas, 1), now_.size()));
  std::set<std::vector<NodeId>> seen;
  for (PageId page = SegmentStart(range.first); page < range.end() && seen.size() < kinds;
       page = page + kSegmentPages) {
    std::vector<NodeId> holders = now_.CoreHolders(page, replicas);
    std::sort(holders.begin(), holders.end());
    if (!seen.insert(std::move(holders)).second) continue;
    status = Check(std::max(page, range.first), replicas);
    if (!status.ok()) break;
  }
  return status;
}

absl::StatusOr<NodeId> Disks::WhoKnows(PageId page) const {
  for (NodeId node : All(page)) {
    if (IsCurrent(node)) return node;
  }
  return Check(page, static_cast<uint32_t>(now_.size()));
}

bool Disks::MayGet(PageId page, uint32_t replicas) const { return !Storing(page, replicas).empty(); }

}  // namespace mangrove
