// Which disks keep a page, and which of them count.
//
//  D1  A page's holders follow from the configuration (directory/locator.h). Those that are in the view store it: a flush, an
//      allocation and an unallocation are acknowledged when, within one view, each of them has done it, and one of them is current.
//  D2  A disk is current if the view does not say that it is behind. It has everything that was ever acknowledged: current disks
//      are asked for what there is.
//  D3  What a holder that is not in the view has, and no current disk, was never acknowledged, and is void: that disk is behind, and
//      takes over what the current ones have when it is back.
//  D4  A disk that is behind catches up (engine/catch_up.h), and is current by a later view.
//
// So any one current disk will do for all that was acknowledged; where none is there, what only disks have waits for one.

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/page_engine.h"

namespace mangrove {

bool PageEngine::IsCurrentDisk(NodeId node) const { return IsHere(node) && !view_.behind.contains(node); }

std::vector<NodeId> PageEngine::StoringHolders(PageId page, uint32_t replicas) const {
  std::vector<NodeId> holders = locator_->CoreHolders(page, replicas);
  std::erase_if(holders, [this](NodeId node) { return !IsHere(node); });
  return holders;
}

std::vector<NodeId> PageEngine::CurrentHolders(PageId page, uint32_t replicas) const {
  std::vector<NodeId> holders = locator_->CoreHolders(page, replicas);
  std::erase_if(holders, [this](NodeId node) { return !IsCurrentDisk(node); });
  return holders;
}

std::vector<NodeId> PageEngine::AllHolders(PageId page) const {
  return locator_->CoreHolders(page, static_cast<uint32_t>(options_.members.size()));
}

// Unavailable names who has all of the page, as far as it is known.
absl::Status PageEngine::CheckDisks(PageId page, uint32_t replicas) const {
  const std::vector<NodeId> holders = locator_->CoreHolders(page, replicas);
  std::vector<std::string> away;
  for (NodeId node : holders) {
    if (IsCurrentDisk(node)) return absl::OkStatus();
    away.push_back(absl::StrCat(ToString(node), IsHere(node) ? " (catches up)" : " (is not there)"));
  }
  return absl::UnavailableError(absl::StrCat("no disk that is there has all of page ", ToString(page), ": ",
                                             absl::StrJoin(away, ", "), "; start it, or try again later"));
}

absl::Status PageEngine::CheckDisks(PageRange range, uint32_t replicas) const {
  absl::Status status;
  EachKindOfSegment(range, [&](PageId page) {
    status = CheckDisks(page, replicas);
    return status.ok();
  });
  return status;
}

// For one page of each kind: the holders of a segment follow from the first of them. True: `holds` for each.
bool PageEngine::EachKindOfSegment(PageRange range, absl::FunctionRef<bool(PageId)> holds) const {
  std::set<NodeId> seen;
  for (PageId page = SegmentStart(range.first); page < range.end() && seen.size() < options_.members.size();
       page = page + kSegmentPages) {
    if (seen.insert(locator_->Primary(page)).second && !holds(std::max(page, range.first))) return false;
  }
  return true;
}

absl::StatusOr<NodeId> PageEngine::WhoKnows(PageId page) const {
  for (NodeId node : AllHolders(page)) {
    if (IsCurrentDisk(node)) return node;
  }
  return CheckDisks(page, 1);
}

// Whether it may be different soon: one of the page's holders is catching up.
bool PageEngine::MayGetDisks(PageId page, uint32_t replicas) const { return !StoringHolders(page, replicas).empty(); }

// What was asked of who is gone is not answered any more; whoever asked begins anew in this view.
void PageEngine::EndCallsToTheGone(const std::set<NodeId>& gone) {
  const auto why = [](NodeId node) { return absl::AbortedError(absl::StrCat(ToString(node), " is gone")); };
  std::vector<Message> answers;
  for (const auto& [request, call] : calls_) {
    switch (call.message.kind) {
      case MessageKind::kStore:
      case MessageKind::kQueryStored:
      case MessageKind::kPutExtent:
      case MessageKind::kDropExtent:
      case MessageKind::kQueryExtent:
      case MessageKind::kListStored:
        if (!gone.contains(call.to) || IsHere(call.to)) break;
        answers.push_back(call.message);
        answers.back().data = nullptr;
        answers.back().SetStatus(why(call.to));
        break;
      default: break;
    }
  }
  for (const Message& answer : answers) EndCall(answer);
  for (auto it = store_calls_.begin(); it != store_calls_.end();) {
    StoreCall& call = it->second;
    const bool is_over = gone.contains(call.to) && !IsHere(call.to) && call.End(call.left, why(call.to));
    it = is_over ? store_calls_.erase(it) : std::next(it);
  }
}

}  // namespace mangrove
