// What a new view changes, and what a node without a lease does not do.
//
//  V1  A message is taken only from a member of this node's view, sent under that same view: so whoever answers a question has
//      forgotten whom the asker has forgotten. What is refused comes again.
//  V2  Numbers of transactions and grant epochs have the epoch of the view in their upper bits: those that are given in a view are
//      above all that were given in an earlier one, by whomever.
//  V3  An incarnation that has left the view is gone for ever: its lease had ended before. What it was responsible for, the next
//      one that needs it takes over; what it owned is recovered; what it asked for is forgotten.
//  V4  Without a lease a node takes no message, and its programs neither read nor write what is here: another node may have been
//      given it. Nor does it acknowledge a flush, an allocation or an unallocation. What is here stays, for as long as the node
//      may still be in the view.
//  V5  Of regions whose attribute says so (WithoutQuorum::kRead), programs go on reading what is here without a lease, as it was
//      when the lease was about to end. It does not change until there is a lease again, under which all of it still counts, or
//      the node is expelled, which ends its programs' mappings: so what they see never goes back. Whatever else they want of such
//      a region is refused at once.
//  V6  A page that was flushed to disks which are given up, or come back empty, and of whose disks none counts, may be nowhere but in
//      its owner's RAM: it counts as not flushed, so that the next flush stores it again.

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {
namespace {

constexpr int kGrantEpochBits = 32;
constexpr int kTxnBits = 40;
constexpr DurationNs kSearchTimeout = 2 * kSecond;
constexpr DurationNs kSearchAgain = 20 * kMillisecond;
// Taking mappings away takes about half of the latter for each page that is here, and its threads may need the former.
constexpr DurationNs kFenceTime = 20 * kMillisecond;
constexpr DurationNs kFenceTimePerPage = 400;
// Where more pages are here than that is enough for, programs may read old data for the rest of the time.
constexpr DurationNs kMostFenceTime = 400 * kMillisecond;

// Of `before`, those that are not in `view` as they were.
std::vector<NodeInstance> GoneSince(const View& before, const View& view) {
  std::vector<NodeInstance> gone;
  for (const auto& [node, incarnation] : before.members) {
    if (!view.Has({node, incarnation})) gone.push_back({node, incarnation});
  }
  return gone;
}

// Whose disks were there, and have nothing any more of what they had.
std::set<NodeId> EmptiedSince(const View& before, const View& view) {
  const auto is_blank = [](const View& v, NodeId node) {
    const auto found = v.behind.find(node);
    return v.lost.contains(node) || (found != v.behind.end() && found->second == kBlankDisk);
  };
  std::set<NodeId> emptied;
  for (NodeId node : before.disks) {
    if (is_blank(view, node) && !is_blank(before, node)) emptied.insert(node);
  }
  return emptied;
}

// V6: of what is owned here, or was and is on its way to another owner.
void DoubtFlushes(PageMap<CachedPage>& cache, const std::set<NodeId>& disks, const Disks& before, const Disks& now,
                  const std::set<NodeId>& emptied) {
  const auto is_emptied = [&](NodeId node) { return emptied.contains(node); };
  const auto has_it = [&](NodeId node) { return !is_emptied(node) && before.IsCurrent(node) && now.IsCurrent(node); };
  const auto is_in_doubt = [&](PageId page, uint32_t replicas) {
    const std::vector<NodeId> holders = before.Holders(page, replicas);
    return std::any_of(holders.begin(), holders.end(), is_emptied) &&
           std::none_of(holders.begin(), holders.end(), has_it);
  };
  // Of so many copies one at least is on a disk that has it.
  const auto having = static_cast<size_t>(std::count_if(disks.begin(), disks.end(), has_it));
  const size_t safe = having == 0 ? SIZE_MAX : disks.size() - having + 1;
  std::tuple<PageId, uint32_t, bool> last{};  // Of a segment's pages all are alike that have as many copies.
  for (const auto& [page, cached] : cache) {
    CacheEntry& entry = cached->entry;
    if (entry.replicas == 0 || entry.replicas >= safe) continue;
    auto& [segment, copies, in_doubt] = last;
    if (segment != SegmentStart(page) || copies != entry.replicas)
      last = {SegmentStart(page), entry.replicas, is_in_doubt(page, entry.replicas)};
    if (!in_doubt) continue;
    if (entry.state == CacheState::kEvicting)
      entry.state = CacheState::kOwned;  // It would go without having been stored.
    entry.flushed = Version();
    if (entry.retained) entry.retained->flushed = entry.retained->answer.flushed = Version();
  }
}

}  // namespace

Epoch PageEngine::ViewOf(Txn txn) { return Epoch(txn.value >> kTxnBits); }
Epoch PageEngine::ViewOf(Epoch grant_epoch) { return Epoch(grant_epoch.value >> kGrantEpochBits); }

void PageEngine::OnView(const View& view) {
  if (stopped_ || view.epoch <= view_.epoch) return;
  // What waits to travel was said under the view before.
  for (auto& [node, outbox] : outboxes_) outbox.leaves = !outbox.messages.empty();
  FlushOutboxes();
  Turn turn(this);
  const View before = std::exchange(view_, view);
  const std::set<NodeId> emptied = EmptiedSince(before, view);
  const Disks disks_before = emptied.empty() ? Disks() : disks_;
  disks_.Follow(view, *options_.bugs);
  if (!emptied.empty()) DoubtFlushes(cache_, before.disks, disks_before, disks_, emptied);
  transport_->SetEpoch(view.epoch);
  if (!options_.bugs->acks_across_views) EndStores();
  next_txn_ = std::max(next_txn_, view.epoch.value << kTxnBits);  // V2
  grant_epoch_ = std::max(grant_epoch_, Epoch(view.epoch.value << kGrantEpochBits));
  FollowLosses(before);
  for (const auto& [node, incarnation] : view.members) {
    alive_from_[node] = incarnation;
  }
  for (const auto& [node, incarnation] : connected_) {
    if (view.Has({node, incarnation}) && !up_.contains(node)) PeerIsUp({node, incarnation});
  }
  catch_up_.OnView();
  watches_->TellView();
}

void PageEngine::FollowLosses(const View& before) {
  const std::vector<NodeInstance> gone = GoneSince(before, view_);
  // Behind a gap somebody may have come and gone.
  if (!gone.empty() || before.epoch.value + 1 != view_.epoch.value) lost_in_ = view_.epoch;
  std::set<NodeId> nodes;
  for (const NodeInstance& lost : gone) {
    nodes.insert(lost.node);
    alive_from_[lost.node] = Incarnation(lost.incarnation.value + 1);
    if (up_.erase(lost.node) > 0) peer_eviction_.OnPeerDown(lost.node);
  }
  if (gone.empty() || (options_.bugs && options_.bugs->forget_incarnation)) return;
  // Before anything is recovered: from here on it is not heard, and says nothing.
  for (const NodeInstance& lost : gone) {
    if (lost.node != options_.self.node) transport_->Expel(lost);
  }
  BumpGrantEpoch();
  core_.ForgetFresh();
  EndCallsToTheGone(nodes);
  ForgetOwners(gone);
  ForgetResponsibles(before, nodes);
  if (event_sink_) {
    event_sink_({.kind = RegionEvent::Kind::kMaybeReverted, .range = {PageId{}, 0}});
  }
}

// In the pages that this node is responsible for.
void PageEngine::ForgetOwners(const std::vector<NodeInstance>& gone) {
  // Who is gone holds nothing.
  const std::vector<PageId> joining(joining_.begin(), joining_.end());
  for (PageId first : joining) {
    HomeSegment& segment = *segments_.at(first);
    for (const NodeInstance& lost : gone) {
      const auto it = segment.joining.find(lost.node);
      if (it == segment.joining.end()) continue;
      rounds_.erase(it->second.round);
      segment.joining.erase(it);
    }
  }
  std::vector<PageId> homes;
  for (const auto& [page, entry] : homes_) homes.push_back(page);
  std::sort(homes.begin(), homes.end());
  for (PageId page : homes) {
    if (IsGiven(page)) continue;  // Whoever is responsible for it next sees to it.
    for (const NodeInstance& lost : gone) {
      if (homes_.find(page) == homes_.end()) break;
      std::vector<HomeEffect> effects;
      StepHomePeerLost(Home(page), {lost.node, alive_from_.at(lost.node)}, HomeContextOf(page), effects);
      CarryHome(page, effects);
    }
  }
  for (PageId first : joining) {
    const auto it = segments_.find(first);
    if (it != segments_.end() && joining_.contains(first) && it->second->joining.empty()) Joined(first);
  }
}

// A store is of one view (D1 of engine/disks.h), and whoever wants it begins anew. It is not repeated in this one: a disk that has begun to
// learn takes whatever it is told of, of a page that it has not stored since, and this may be older than what was acknowledged.
void PageEngine::EndStores() {
  const absl::Status why = absl::AbortedError("others keep the page on disk by now");
  for (auto& [request, call] : std::exchange(store_calls_, {})) call.End(call.left, why);
  std::vector<Message> completions;
  for (const auto& [request, call] : calls_) {
    if (call.message.kind != MessageKind::kStore) continue;
    completions.push_back(call.message);
    completions.back().data = nullptr;
    completions.back().SetStatus(why);
  }
  for (const Message& completion : completions) EndCall(completion);
}

// What was asked of who is gone is not answered any more; whoever asked begins anew in this view.
void PageEngine::EndCallsToTheGone(const std::set<NodeId>& gone) {
  const auto why = [](NodeId node) { return absl::AbortedError(absl::StrCat(ToString(node), " is gone")); };
  std::vector<Message> answers;
  for (const auto& [request, call] : calls_) {
    switch (call.message.kind) {
      case MessageKind::kQueryStored:
      case MessageKind::kPutExtent:
      case MessageKind::kDropExtent:
      case MessageKind::kQueryExtent:
      case MessageKind::kListStored:
      case MessageKind::kInspect:
      case MessageKind::kWentBack:
        if (!gone.contains(call.to) || IsHere(call.to)) break;
        answers.push_back(call.message);
        answers.back().data = nullptr;
        answers.back().SetStatus(why(call.to));
        break;
      default: break;
    }
  }
  for (const Message& answer : answers) EndCall(answer);
}

// What a node that is gone was responsible for is void, and what waits for it is asked for where it belongs now.
void PageEngine::ForgetResponsibles(const View& before, const std::set<NodeId>& gone) {
  const auto was_responsible = [&](PageId page) {
    return gone.contains(IsFixed(page) ? FixedResponsible(before, page) : ResponsibleFor(page));
  };
  for (PageId page : SortedPages(was_responsible)) {
    WithPage(page, [this, page](CachedPage& cached) { ForgetResponsible(cached.entry, ContextOf(page)); });
  }
  std::vector<PageId> left;
  for (auto& [first, location] : locations_) {
    if (!gone.contains(location.node)) continue;
    location.txn = {};
    // A node that has started anew says itself whether it is still responsible.
    if (IsHere(location.node)) continue;
    location.stale = true;  // It goes on naming that node: who holds pages of the segment claims so (engine/claims.cc).
    left.push_back(first);
  }
  std::sort(left.begin(), left.end());
  for (PageId first : left) SearchAgain(first);
  // Whoever is responsible now is asked by the caller.
  std::vector<Message> void_calls;
  for (const auto& [request, call] : calls_) {
    const bool is_for_responsible =
        call.message.kind == MessageKind::kFlush || call.message.kind == MessageKind::kDropCopies;
    if (is_for_responsible && gone.contains(call.to) && !IsHere(call.to)) void_calls.push_back(call.message);
  }
  for (Message& answer : void_calls) {
    answer.SetStatus(absl::AbortedError("the node that was asked is gone"));
    EndCall(answer);
  }
}

// For the segment's pages of which something is to be said to who is responsible, until it is known who that is.
void PageEngine::SearchAgain(PageId first) {
  const auto waits = [](const CachedPage* cached) {
    return cached != nullptr &&
           (cached->entry.IsWaiting() || cached->entry.retained || cached->entry.state == CacheState::kEvicting);
  };
  bool is_waited_for = false;
  for (uint64_t i = 0; i < kSegmentPages && !is_waited_for; ++i) is_waited_for = waits(FindCached(first + i));
  Location& location = locations_[first];
  if (!is_waited_for || location.searched) return;
  location.searched = true;
  Spawn<absl::Status>(Locate(first, clock_->Now() + kSearchTimeout),
                      [this, first, alive = alive_](const absl::Status& s) {
                        if (!*alive || stopped_) return;
                        const auto it = locations_.find(first);
                        if (it != locations_.end()) it->second.searched = false;
                        if (s.ok()) return AskAgain(first);
                        clock_->CallAt(clock_->Now() + kSearchAgain, [this, first, alive] {
                          if (*alive && !stopped_ && !IsLocated(first)) SearchAgain(first);
                        });
                      });
}

// --- Pages that no directory names ------------------------------------------------------------------------------------

// The view's root for what every cluster has from its start, and for pages of the directory whose maker is gone.
NodeId PageEngine::FixedResponsible(const View& view, PageId page) {
  if (page < kFirstDirectoryPage) return view.root;
  const auto maker = view.members.find(NodeId(NodeOfDirectoryPage(page)));
  const bool is_here =
      maker != view.members.end() && (maker->second.value & kIncarnationMask) == IncarnationOfDirectoryPage(page);
  return is_here ? maker->first : view.root;
}

// --- The lease ----------------------------------------------------------------------------------------------------------

void PageEngine::OnLease(TimeNs until) {
  if (stopped_) return;
  lease_until_ = until;
  clock_->Cancel(std::exchange(lease_timer_, 0));
  if (!HasLease()) return Fence();
  // Mappings are gone when it ends.
  if (clock_->ExactNow() >= mapped_until()) return Fence();
  lease_timer_ = clock_->CallAt(mapped_until(), [this, alive = alive_] {
    if (!*alive) return;
    lease_timer_ = 0;
    Fence();
  });
  if (!std::exchange(fenced_, false)) return;
  stale_reads_.End();
  memory_->Unfence();
  for (auto& waiter : std::exchange(lease_waiters_, {})) waiter.Set(absl::OkStatus());
}

DurationNs PageEngine::FenceTime() const {
  return std::min(kFenceTime + static_cast<DurationNs>(charged_) * kFenceTimePerPage, kMostFenceTime);
}

void PageEngine::Fence() {
  if (std::exchange(fenced_, true)) return;
  stale_reads_.Begin(clock_->Now());
  if (options_.bugs->no_fence) return;
  memory_->Fence();
}

absl::Status PageEngine::CheckQuorum(PageId page) const {
  if (!fenced_ || !stale_reads_.Serve(page)) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(
      "no quorum: too few anchors answer ", ToString(options_.self.node),
      ", and the region is only read until they do: what of it is here, as it was last; `mangrove status` says more"));
}

absl::Status PageEngine::NoLeaseStatus() const {
  return absl::UnavailableError(absl::StrCat(ToString(options_.self.node),
                                             " has no lease on its place in the cluster: too few anchors answer; "
                                             "`mangrove status` says which; start them, or try again later"));
}

absl::Status PageEngine::IsAwayStatus(NodeId node) {
  return absl::UnavailableError(absl::StrCat(ToString(node), " is not there; start it, or try again later"));
}

// For an operation on the page.
Task<absl::Status> PageEngine::WaitForLeaseOn(PageId page, TimeNs deadline) {
  absl::Status status = CheckQuorum(page);
  if (status.ok()) status = co_await WaitForLease(deadline);
  co_return status;
}

Task<absl::Status> PageEngine::WaitForLease(TimeNs deadline) {
  while (fenced_ || !HasLeaseNow()) {
    if (stopped_) co_return stopped_status_;
    if (clock_->Now() >= deadline) co_return NoLeaseStatus();
    Outcome<absl::Status> outcome(clock_);
    lease_waiters_.push_back(outcome);
    const Clock::TimerId timer = clock_->CallAt(deadline, [outcome]() mutable { outcome.Set(absl::OkStatus()); });
    const absl::Status status = co_await outcome.Get();
    clock_->Cancel(timer);
    std::erase_if(lease_waiters_, [](const auto& waiter) { return waiter.IsSet(); });
    if (!status.ok()) co_return status;
  }
  co_return absl::OkStatus();
}

}  // namespace mangrove
