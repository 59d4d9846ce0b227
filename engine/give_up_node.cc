// To give a node up whose disk is lost: first what would be lost with it, then, when that is confirmed, that it is done.

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/inspect_json.h"
#include "engine/local_operations.h"
#include "recovery/copies_left.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr char kConfirmed[] = " confirmed";
constexpr size_t kMostRanges = 64;
constexpr uint64_t kLooksAtOnce = 1024;  // At segments; then others run.

struct Preview {
  uint64_t kept = 0;  // Pages that the node's disk keeps.
  RangeSummary none{kMostRanges};
  RangeSummary older{kMostRanges};
  RangeSummary away{kMostRanges};
  std::set<NodeId> older_at;
  std::set<NodeId> away_at;
};

// Those that keep the page. Where no other one is left, those as well that have it already since they are to: they keep it then; otherwise
// they learn it anew, from what the others have.
std::vector<NodeId> HoldersOf(NodeId node, PageId page, uint32_t replicas, const Disks& disks, const View& view) {
  std::vector<NodeId> holders = disks.Holders(page, replicas);
  const bool is_last = std::all_of(holders.begin(), holders.end(),
                                   [&](NodeId holder) { return holder == node || view.lost.contains(holder); });
  if (!is_last) return holders;
  for (NodeId moved : view.moved) {
    if (disks.Gains(moved, page, replicas)) holders.push_back(moved);
  }
  return holders;
}

void Look(NodeId node, PageRange part, uint32_t replicas, const Disks& disks, const View& view, Preview& preview) {
  if (!disks.Keeps(node, part.first, replicas)) return;
  preview.kept += part.count;
  const std::vector<NodeId> holders = HoldersOf(node, part.first, replicas, disks, view);
  const CopiesLeft left = CopiesWithout(node, holders, view);
  const auto note = [&](RangeSummary& pages, std::set<NodeId>& at) {
    pages.Add(part);
    for (NodeId holder : holders) {
      if (holder != node && !view.lost.contains(holder)) at.insert(holder);
    }
  };
  switch (left) {
    case CopiesLeft::kCurrent: return;
    case CopiesLeft::kAway: return note(preview.away, preview.away_at);
    case CopiesLeft::kOlder: return note(preview.older, preview.older_at);
    case CopiesLeft::kNone: return preview.none.Add(part);
  }
}

json DocumentOf(const RangeSummary& pages) {
  return {{"pages", pages.pages()},
          {"bytes", pages.pages() * kPageBytes},
          {"ranges", RangesOf(pages)},
          {"pages_not_named", pages.unnamed()}};
}

}  // namespace

// `argument`: the node, and " confirmed" behind it if it is to be done.
Task<absl::StatusOr<std::string>> LocalOperations::GiveUpNode(std::string argument, TimeNs deadline) {
  const bool is_confirmed = absl::EndsWith(argument, kConfirmed);
  if (is_confirmed) argument.resize(argument.size() - (sizeof(kConfirmed) - 1));
  const absl::StatusOr<NodeId> node = NodeOf(argument);
  if (!node.ok()) co_return node.status();
  NodeRequest request{.kind = NodeRequest::Kind::kGiveUp, .node = *node};
  if (!is_confirmed) {
    if (engine_->view().lost.contains(*node)) {
      co_return absl::FailedPreconditionError(absl::StrCat(argument, " was given up already"));
    }
    if (absl::Status status = CheckRequest(request, argument); !status.ok()) co_return status;
    absl::StatusOr<std::string> document = co_await PreviewGiveUp(*node);
    co_return document;
  }
  const absl::Status status = co_await Ask(std::move(request), argument, deadline);
  if (!status.ok()) co_return status;
  absl::StatusOr<std::string> document = co_await InspectStatus(deadline);
  co_return document;
}

// By the extents that this node's disk knows: all, if it counts.
Task<absl::StatusOr<std::string>> LocalOperations::PreviewGiveUp(NodeId node) {
  const Disks& disks = engine_->disks();
  const View view = engine_->view();
  Preview preview;
  uint64_t looks = 0;
  for (PageId at;;) {
    const auto& extents = engine_->core_holder().extents();
    const auto it = extents.lower_bound(at.value);
    if (it == extents.end()) break;
    const Extent extent = it->second;
    at = extent.range.end();
    if (extent.is_volatile) continue;
    for (PageId page = extent.range.first; page < extent.range.end();) {
      const PageId end = std::min(extent.range.end(), SegmentStart(page) + kSegmentPages);
      Look(node, {page, end - page}, extent.replicas, disks, view, preview);
      page = end;
      if (++looks % kLooksAtOnce != 0) continue;
      co_await YieldTo(clock_);
      if (engine_->view().epoch == view.epoch) continue;
      co_return absl::AbortedError("the cluster has changed meanwhile; ask again");
    }
  }
  const auto names = [this](const std::set<NodeId>& nodes) {
    json list = json::array();
    for (NodeId one : nodes) list.push_back(NameOf(one));
    return list;
  };
  json older = DocumentOf(preview.older);
  older["disks"] = names(preview.older_at);
  json away = DocumentOf(preview.away);
  away["disks"] = names(preview.away_at);
  std::set<NodeId> know;
  for (NodeId disk : view.disks) {
    if (disks.IsCurrent(disk)) know.insert(disk);
  }
  co_return DumpJson({{"node", node.value},
                      {"name", NameOf(node)},
                      {"is_given_up", false},
                      {"is_complete", disks.IsCurrent(config_->self().id) && membership_->LeaseLeft() > 0},
                      {"current_disks", names(know)},
                      {"kept_pages", preview.kept},
                      {"no_other_copy", DocumentOf(preview.none)},
                      {"older_copies", older},
                      {"copies_away", away}});
}

}  // namespace mangrove
