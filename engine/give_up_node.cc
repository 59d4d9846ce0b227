// To give a node up whose disk is lost: first what would be lost with it, then, when that is confirmed, that it is done. The
// confirmation names what was shown: it is not good for more than that.

#include <xxhash.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/inspect_json.h"
#include "engine/local_operations.h"
#include "engine/loop_turn.h"
#include "recovery/copies_left.h"

namespace mangrove {
namespace {

using nlohmann::json;

constexpr char kConfirmed[] = " confirmed";
constexpr size_t kMostRanges = 64;

// Of all ranges of one kind, in ascending order: the same wherever their extents are divided.
class RangeDigest {
 public:
  void Add(PageRange range) {
    if (range.first == last_.end()) {
      last_.count += range.count;
    } else {
      Close();
      last_ = range;
    }
  }
  uint64_t Close() {
    Mix(last_.first.value);
    Mix(last_.count);
    return digest_;
  }

 private:
  template <typename Integer>
  void Mix(Integer value) {
    digest_ = XXH3_64bits_withSeed(&value, sizeof(value), digest_);
  }

  PageRange last_;
  uint64_t digest_ = 0;
};

struct Preview {
  uint64_t kept = 0;  // Pages that the node's disk keeps.
  RangeSummary none{kMostRanges};
  RangeSummary older{kMostRanges};
  RangeSummary unknown{kMostRanges};
  RangeSummary away{kMostRanges};
  std::set<NodeId> older_at;
  std::set<NodeId> unknown_at;
  std::set<NodeId> away_at;
  // Of what is lost, or may be; what only waits for others is neither.
  RangeDigest none_digest;
  RangeDigest older_digest;
  RangeDigest unknown_digest;
  std::map<NodeId, uint64_t> behind;  // Since when: of the node, and of those that have older copies.
};

// What is to be said to confirm that just this is lost.
std::string ConfirmationOf(NodeId node, bool is_complete, Preview& preview) {
  std::vector<uint64_t> shown = {node.value, is_complete ? 1ull : 0ull, preview.none_digest.Close(),
                                 preview.older_digest.Close(), preview.unknown_digest.Close()};
  // How much older.
  for (const auto& [disk, since] : preview.behind) shown.insert(shown.end(), {disk.value, since});
  return absl::StrCat(absl::Hex(XXH3_64bits(shown.data(), shown.size() * sizeof(uint64_t)), absl::kZeroPad16));
}

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
    case CopiesLeft::kOlder:
      preview.older_digest.Add(part);
      for (NodeId holder : holders) {
        const auto since = view.behind.find(holder);
        if (since != view.behind.end()) preview.behind[holder] = since->second.value;
      }
      return note(preview.older, preview.older_at);
    case CopiesLeft::kUnknown:
      preview.unknown.Add(part);
      preview.unknown_digest.Add(part);
      for (NodeId holder : holders) {
        if (!view.lost.contains(holder) && IsDiskUnknown(holder, view)) preview.unknown_at.insert(holder);
      }
      return;
    case CopiesLeft::kNone: preview.none_digest.Add(part); return preview.none.Add(part);
  }
}

json DocumentOf(const RangeSummary& pages) {
  return {{"pages", pages.pages()},
          {"bytes", pages.pages() * kPageBytes},
          {"ranges", RangesOf(pages)},
          {"pages_not_named", pages.unnamed()}};
}

constexpr char kMayBeDone[] =
    ". It was asked for before that was seen, and may still be done: `mangrove node list` says";

}  // namespace

// `argument`: the node; and, if it is to be done, " confirmed " behind it, with what the preview says.
Task<absl::StatusOr<std::string>> LocalOperations::GiveUpNode(std::string argument, TimeNs deadline) {
  const size_t end = std::min(argument.find(kConfirmed), argument.size());
  const std::string name = argument.substr(0, end);
  const absl::StatusOr<NodeId> node = NodeOf(name);
  if (!node.ok()) co_return node.status();
  const NodeRequest request{.kind = NodeRequest::Kind::kGiveUp, .node = *node};
  if (end < argument.size()) {
    const size_t word = std::min(end + sizeof(kConfirmed), argument.size());
    absl::StatusOr<std::string> done = co_await GiveUpConfirmed(request, name, argument.substr(word), deadline);
    co_return done;
  }
  if (engine_->view().lost.contains(*node)) {
    co_return absl::FailedPreconditionError(absl::StrCat(name, " was given up already"));
  }
  if (absl::Status status = CheckRequest(request, name); !status.ok()) co_return status;
  const absl::StatusOr<json> preview = co_await PreviewGiveUp(*node);
  if (!preview.ok()) co_return preview.status();
  co_return DumpJson(*preview);
}

// In each view in which the anchors are asked, what would be lost is what was confirmed.
Task<absl::StatusOr<std::string>> LocalOperations::GiveUpConfirmed(NodeRequest request, std::string name,
                                                                   std::string confirmation, TimeNs deadline) {
  if (confirmation.empty()) {
    co_return absl::InvalidArgumentError(
        absl::StrCat("the confirmation does not say of what: `mangrove node give-up ", name, "` shows it"));
  }
  bool has_asked = false;
  std::optional<Epoch> confirmed_in;
  while (!IsDone(request)) {
    if (absl::Status status = CheckRequest(request, name); !status.ok()) {
      co_return absl::Status(status.code(), absl::StrCat(status.message(), has_asked ? kMayBeDone : ""));
    }
    if (clock_->Now() + kAskAgain >= deadline) co_return NotTakenUp(request, name);
    if (confirmed_in != engine_->view().epoch) {
      const Epoch view = engine_->view().epoch;
      absl::StatusOr<json> preview = co_await PreviewGiveUp(request.node);
      if (absl::IsAborted(preview.status())) continue;  // By the view, perhaps, in which it is done.
      if (!preview.ok()) co_return preview.status();
      if (preview->at("confirm") != confirmation) {
        (*preview)["refused"] = absl::StrCat(
            "\"", confirmation, "\" confirms something else than what would be lost now", has_asked ? kMayBeDone : "");
        co_return DumpJson(*preview);
      }
      confirmed_in = view;
      continue;
    }
    has_asked = true;
    membership_->Request(request);
    co_await SleepUntil(clock_, clock_->Now() + kAskAgain);
  }
  absl::StatusOr<std::string> document = co_await InspectStatus(deadline);
  co_return document;
}

// By the extents that this node's disk knows: all, if it counts.
Task<absl::StatusOr<json>> LocalOperations::PreviewGiveUp(NodeId node) {
  const Disks& disks = engine_->disks();
  const View view = engine_->view();
  Preview preview;
  LoopTurn turn(clock_);
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
      if (!turn.IsOver()) continue;
      co_await YieldTo(clock_);
      turn.Begin();
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
  json unknown = DocumentOf(preview.unknown);
  unknown["disks"] = names(preview.unknown_at);
  json away = DocumentOf(preview.away);
  away["disks"] = names(preview.away_at);
  std::set<NodeId> know;
  for (NodeId disk : view.disks) {
    if (disks.IsCurrent(disk)) know.insert(disk);
  }
  const bool is_complete = disks.IsCurrent(config_->self().id) && membership_->LeaseLeft() > 0;
  co_return json{{"node", node.value},
                 {"name", NameOf(node)},
                 {"is_given_up", false},
                 {"is_complete", is_complete},
                 {"current_disks", names(know)},
                 {"kept_pages", preview.kept},
                 {"no_other_copy", DocumentOf(preview.none)},
                 {"older_copies", older},
                 {"not_known", unknown},
                 {"copies_away", away},
                 {"confirm", ConfirmationOf(node, is_complete, preview)}};
}

}  // namespace mangrove
