// Responsibility for a segment goes to the node that asks for its pages most; where no node does, but the nodes of another group together
// do, to one of these, and among them later to the one that does most.
//
//   the one that is responsible (H)          the one that takes it (R)
//   counts who asks; one leads by far
//   kMoveOffer  ------------------------->
//                                            locks the directory's leaf (DirectoryTree::Move)
//               <-------------------------   kHandOver
//   serves nothing of it any more, waits
//   for the transactions under way
//   kHandedOver ------------------------->   stores the leaf, serves
//               <-------------------------   kMoved
//   forgets it; who waits asks R
//   kDone       ------------------------->   may hand it on from now on
//
// From kHandedOver on H does not know whether R serves, and neither serves the segment nor forgets it, until R says so, or the
// directory does, which H cannot read while R holds the leaf. Until then it goes on claiming the segment. Before kHandedOver it
// serves again by itself after a while. What H tells is at rest: no transaction, and no frame that may have to be given back.

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "engine/segment_state.h"

namespace mangrove {
namespace {

constexpr size_t kMovesAtOnce = 4;
constexpr DurationNs kMoveTimeout = 2 * kSecond;
// The leaf is locked meanwhile.
constexpr DurationNs kHandOverTimeout = 100 * kMillisecond;
// Longer than R asks, so that it does not serve again while R still waits.
constexpr DurationNs kDrainTimeout = 200 * kMillisecond;
constexpr DurationNs kLookEvery = 50 * kMillisecond;
constexpr DurationNs kLookTimeout = 2 * kSecond;
constexpr DurationNs kTellTimeout = 2 * kSecond;
constexpr DurationNs kOfferAgain = kSecond;
constexpr uint32_t kGroupsLead = 4;
constexpr DurationNs kOfferSeldom = 60 * kSecond;

// Who has most of all votes leads in the end, if it has more than half of them (Boyer and Moore).
template <typename Candidate>
void Vote(const Candidate& candidate, uint32_t most, Candidate& leader, uint32_t& lead) {
  if (leader == candidate) {
    lead = std::min(lead + 1, most);  // What was long ago does not count for ever.
  } else if (lead > 0) {
    --lead;
  } else {
    leader = candidate;
    lead = 1;
  }
}

}  // namespace

// What R was told.
struct PageEngine::HandedOver {
  ConfigNumber number;  // 0: nothing yet.
  SegmentState state;
};

// --- As the one that is responsible --------------------------------------------------------------------------------------

// A request for a page of the segment has come.
void PageEngine::CountUse(PageId page, NodeId user) {
  if (options_.move_after == 0 || IsFixed(page)) return;
  SegmentUse& use = Segment(page).use;
  if (std::exchange(use.turn, turns_) == turns_) return;
  Vote(user, options_.move_after, use.user, use.lead);
  // Two groups that ask as often have leads that come and go: what is far apart moves for more of it.
  const uint32_t of_group = kGroupsLead * options_.move_after;
  Vote(GroupOf(user), of_group, use.group, use.group_lead);
  const bool leads = use.user == user && use.lead >= options_.move_after;
  const bool its_group_leads =
      use.group == GroupOf(user) && use.group_lead >= of_group && use.group != GroupOf(options_.self.node);
  if (user == options_.self.node || !(leads || its_group_leads) || clock_->Now() < use.offer_at) return;
  if (!IsServed(page) || !up_.contains(user)) return;
  use.wait = use.wait == 0 ? kOfferAgain : std::min(2 * use.wait, kOfferSeldom);
  use.offer_at = clock_->Now() + use.wait;
  use.offered_to = user;
  use.offered_until = clock_->Now() + 2 * kMoveTimeout;
  Message offer;
  offer.kind = MessageKind::kMoveOffer;
  offer.page = SegmentStart(page);
  Post(user, std::move(offer));
}

// Why the segment cannot be handed over, whatever time passes soon; OK: it can be, when no transaction is left.
absl::Status PageEngine::CheckMayLeave(PageId first) const {
  const auto is_recent = [this, first](const Discarded& d) {
    return clock_->Now() < d.until && d.range.Overlaps({first, kSegmentPages});
  };
  if (own_.Find(first) == nullptr) return absl::AbortedError("it is not this node's");
  if (telling_.contains(first)) return absl::UnavailableError("whose it was does not know yet");
  if (std::any_of(discarded_.begin(), discarded_.end(), is_recent)) {
    return absl::UnavailableError("pages of it were unallocated lately");
  }
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const auto it = homes_.find(first + i);
    if (it == homes_.end()) continue;
    if (it->second->state == HomeState::kLost || it->second->reverting) {
      return absl::UnavailableError(absl::StrCat("content of page ", ToString(first + i), " was lost"));
    }
  }
  return absl::OkStatus();
}

bool PageEngine::IsAtRest(const HomeEntry& entry) {
  return !entry.IsBusy() && entry.Work().keepers.empty() && entry.Work().registered.empty() &&
         std::none_of(entry.Work().queue.begin(), entry.Work().queue.end(),
                      [](const HomeRequest& r) { return r.kind == HomeRequest::Kind::kDiscard; });
}

SegmentState PageEngine::StateOf(PageId first) {
  const HomeSegment& segment = *segments_.at(first);
  SegmentState state{.pages = {}, .settled = segment.settled, .fresh = segment.fresh, .extents = segment.extents};
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const auto it = homes_.find(first + i);
    if (it == homes_.end()) continue;
    const HomeEntry& entry = *it->second;
    if (entry.state == HomeState::kUnowned && entry.sharers.empty()) {
      state.settled[i] = entry.clean;
      continue;
    }
    state.pages.push_back({.index = static_cast<uint16_t>(i),
                           .clean = entry.clean,
                           .owner = entry.owner,
                           .sharers = {entry.sharers.begin(), entry.sharers.end()}});
  }
  return state;
}

void PageEngine::HandOver(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  const PageId first = message.page;
  absl::Status status = SegmentStart(first) == first ? CheckMayLeave(first) : absl::InvalidArgumentError("no segment");
  if (status.ok()) {
    HomeSegment& segment = Segment(first);
    const bool is_offered = segment.use.offered_to == from.node && clock_->Now() < segment.use.offered_until;
    if (!is_offered && segment.leaving == nullptr) status = absl::AbortedError("it was not offered");
    if (!segment.joining.empty()) status = absl::UnavailableError("it is not known yet who holds what of it");
    if (segment.leaving && segment.leaving->to != from) status = absl::UnavailableError("another node takes it");
    const bool is_known = segment.leaving && segment.leaving->number == message.config;
    if (message.count > 1 && !is_known) status = absl::AbortedError("it was handed over anew");
  }
  if (!status.ok()) return AnswerHandOver(message.request, from.node, first, 0, status);
  std::unique_ptr<SegmentLeaving>& leaving = Segment(first).leaving;
  if (leaving != nullptr && leaving->IsGiven()) {
    return AnswerHandOver(message.request, from.node, first, message.count - 1, absl::OkStatus());
  }
  if (leaving == nullptr) leaving = std::make_unique<SegmentLeaving>();
  leaving->to = from;
  leaving->request = message.request;
  leaving->until = clock_->Now() + kDrainTimeout;
  leaving_.insert(first);
  ArmTick();
  GiveIfAtRest(first);
}

void PageEngine::AnswerHandOver(RequestId request, NodeId to, PageId first, uint64_t part, const absl::Status& status) {
  Message answer;
  answer.kind = MessageKind::kHandedOver;
  answer.page = first;
  answer.request = request;
  answer.SetStatus(status);
  if (status.ok()) {
    const SegmentLeaving& leaving = *segments_.at(first)->leaving;
    answer.count = leaving.parts.size();
    if (part < leaving.parts.size()) answer.data = leaving.parts[part];
    answer.config = leaving.number;
    answer.kept = !segments_.at(first)->givers.empty();
    answer.txn = Txn(next_txn_);
    answer.grant_epoch = grant_epoch_;
  }
  Post(to, std::move(answer));
}

// A step of a page that leaves: its transaction may have ended, or one may have begun, since a node was lost.
void PageEngine::NoteLeaving(PageId page) {
  const PageId first = SegmentStart(page);
  SegmentLeaving& leaving = *segments_.at(first)->leaving;
  const auto it = homes_.find(page);
  if (it != homes_.end() && !IsAtRest(*it->second)) {
    leaving.at_rest = std::min<uint64_t>(leaving.at_rest, page - first);
  } else {
    GiveIfAtRest(first);
  }
}

void PageEngine::GiveIfAtRest(PageId first) {
  SegmentLeaving& leaving = *segments_.at(first)->leaving;
  if (leaving.IsGiven()) return;
  for (; leaving.at_rest < kSegmentPages; ++leaving.at_rest) {
    const auto it = homes_.find(first + leaving.at_rest);
    if (it != homes_.end() && !IsAtRest(*it->second)) return;
  }
  // A transaction that has ended meanwhile may have found that something is lost.
  const absl::Status status = CheckMayLeave(first);
  if (!status.ok()) {
    AnswerHandOver(leaving.request, leaving.to.node, first, 0, status);
    return Resume(first);
  }
  leaving.number = ConfigNumber(++hand_overs_);
  leaving.rounds = rounds_of_claims_.rounds();
  leaving.parts = EncodeSegmentState(StateOf(first));
  leaving.until = clock_->Now() + kLookEvery;
  AnswerHandOver(leaving.request, leaving.to.node, first, 0, absl::OkStatus());
}

bool PageEngine::IsGiven(PageId page) const {
  const auto it = segments_.find(SegmentStart(page));
  return it != segments_.end() && it->second->leaving != nullptr && it->second->leaving->IsGiven();
}

// The segment stays: nodes may have been lost meanwhile.
void PageEngine::Resume(PageId first) {
  Turn turn(this);
  segments_.at(first)->leaving.reset();
  leaving_.erase(first);
  ForgetTheLost(first);
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const PageId page = first + i;
    const auto it = homes_.find(page);
    if (it == homes_.end() || it->second->IsBusy()) continue;  // At its transaction's end the next is served.
    std::vector<HomeEffect> effects;
    StepHomeReady(Home(page), HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

void PageEngine::ForgetTheLost(PageId first) {
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const PageId page = first + i;
    for (const auto& [node, incarnation] : alive_from_) {
      const auto it = homes_.find(page);
      if (it == homes_.end()) break;
      const HomeEntry& entry = *it->second;
      const auto is_gone = [&](NodeInstance n) { return n.node == node && n.incarnation < incarnation; };
      const bool names_it = is_gone(entry.owner) || std::any_of(entry.sharers.begin(), entry.sharers.end(), is_gone) ||
                            std::any_of(entry.Work().queue.begin(), entry.Work().queue.end(),
                                        [&](const HomeRequest& request) { return is_gone(request.from); });
      // The loss of one node may have begun what asks another that is lost as well.
      if (!names_it && !entry.IsBusy()) continue;
      std::vector<HomeEffect> effects;
      StepHomePeerLost(*it->second, {node, incarnation}, HomeContextOf(page), effects);
      CarryHome(page, effects);
    }
  }
}

// Forgets what is known of the segment. Who waits for it looks into the directory.
void PageEngine::EmptySegment(PageId first) {
  ++segments_dropped_;
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const PageId page = first + i;
    const auto it = homes_.find(page);
    if (it == homes_.end()) continue;
    for (const HomeRequest& request : it->second->Work().queue) {
      if (request.kind == HomeRequest::Kind::kEvict) continue;  // Asked again.
      Message asked;
      asked.kind = request.kind == HomeRequest::Kind::kFlush ? MessageKind::kFlush : MessageKind::kRequest;
      asked.page = page;
      asked.request = request.request;
      AnswerNotResponsible(asked, request.from);
    }
    homes_.erase(page);
  }
  segments_.erase(first);
  leaving_.erase(first);
}

// The segment is another node's.
void PageEngine::DropSegment(PageId first, NodeId to) {
  Turn turn(this);
  const uint32_t term = own_.Find(first)->term;
  own_.Remove({first, kSegmentPages});
  NoteLocation(first, to, term == UINT32_MAX ? term : term + 1);
  EmptySegment(first);
  AskAgain(first);
}

// The segment has come back, and another node may have served it meanwhile.
void PageEngine::JoinAnew(PageId first, uint32_t term) {
  Turn turn(this);
  Own({.range = {first, kSegmentPages}, .term = term, .virgin = false});
  NoteLocation(first, options_.self.node, term);
  EmptySegment(first);
  Segment(first);
  AskAgain(first);
}

// R says how the move ended.
void PageEngine::Moved(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  const auto it = segments_.find(message.page);
  const SegmentLeaving* leaving = it == segments_.end() ? nullptr : it->second->leaving.get();
  if (leaving != nullptr && leaving->IsGiven() && leaving->to == from && leaving->number == message.config) {
    message.status().ok() ? DropSegment(message.page, from.node) : Resume(message.page);
  }
  Message answer;
  answer.kind = MessageKind::kDone;
  answer.page = message.page;
  answer.request = message.request;
  Post(from.node, std::move(answer));
}

// R has started anew since it was told, and asks as the one that is responsible.
void PageEngine::NoteTaken(PageId first, NodeInstance from) {
  if (!IsGiven(first)) return;
  const SegmentLeaving& leaving = *segments_.at(first)->leaving;
  const bool is_successor = leaving.to.node == from.node && leaving.to.incarnation < from.incarnation;
  if (is_successor) DropSegment(first, from.node);
}

void PageEngine::TickMoves() {
  const TimeNs now = clock_->Now();
  const std::vector<PageId> all(leaving_.begin(), leaving_.end());
  for (PageId first : all) {
    SegmentLeaving& leaving = *segments_.at(first)->leaving;
    if (now < leaving.until) continue;
    if (!leaving.IsGiven()) {
      Resume(first);
    } else if (!std::exchange(leaving.looking, true)) {
      Spawn<absl::Status>(LookWhetherMoved(first), [](const absl::Status&) {});
    }
  }
}

// OK: it is known now.
Task<absl::Status> PageEngine::LookWhetherMoved(PageId first) {
  const uint64_t rounds = rounds_of_claims_.rounds();
  const absl::StatusOr<DirectoryTree::Found> found = co_await tree_.Find(first, clock_->Now() + kLookTimeout);
  if (stopped_ || !IsGiven(first)) co_return absl::OkStatus();
  SegmentLeaving& leaving = *segments_.at(first)->leaving;
  leaving.looking = false;
  leaving.until = clock_->Now() + kLookEvery;
  if (!found.ok()) co_return found.status();
  // What was read may be of a page that is not part of the directory any more.
  const bool is_sure =
      found->entry && IsMember(found->entry->responsible) && rounds_of_claims_.About(first, rounds) == 0;
  if (!is_sure) co_return absl::UnavailableError("try again");
  const DirectoryEntry& entry = *found->entry;
  if (entry.responsible != options_.self.node) {
    DropSegment(first, entry.responsible);
  } else if (entry.term == own_.Find(first)->term && rounds_of_claims_.About(first, leaving.rounds) == 0) {
    Resume(first);
  } else {
    // The leaf was made anew of what this node claims. What is lost may have named R, which may have served.
    JoinAnew(first, entry.term);
  }
  co_return absl::OkStatus();
}

// --- As the one that takes it --------------------------------------------------------------------------------------------

void PageEngine::OfferedSegment(const Message& message, NodeInstance from) {
  const PageId first = message.page;
  if (!IsCurrent(from) || SegmentStart(first) != first || IsFixed(first) || own_.Find(first) != nullptr) return;
  if (ResponsibleFor(first) != from.node) return;
  if (moves_ >= kMovesAtOnce || !moving_.insert(first).second) return;  // It is offered again.
  Spawn<absl::Status>(TakeSegment(first, from.node), [this, first, alive = alive_](const absl::Status& status) {
    if (!*alive) return;
    moving_.erase(first);
    if (!status.ok()) LogDebug("responsibility for ", ToString(first), " stays where it is: ", status.message());
  });
}

Task<absl::Status> PageEngine::TakeSegment(PageId first, NodeId from) {
  auto handed = std::make_shared<HandedOver>();
  DirectoryTree::HandOver hand_over = [this, first, from, handed] { return AskForSegment(first, from, handed.get()); };
  DirectoryTree::OnWritten written = [this, handed](const DirectoryEntry& entry, const DirectoryOrder& order) {
    Install(entry, order, handed->state);
  };
  ++moves_;
  absl::Status moved = co_await tree_.Move(first, from, options_.self.node, std::move(hand_over), std::move(written),
                                           clock_->Now() + kMoveTimeout);
  --moves_;
  if (handed->number.value == 0) co_return moved;
  // Until H knows it serves nothing of the segment, and its cache hears nothing that this node says of it.
  Message news;
  news.kind = MessageKind::kMoved;
  news.page = first;
  news.config = handed->number;
  news.SetStatus(moved);
  std::optional<Outcome<Message>> told;
  {
    Turn turn(this);
    told = StartCall(from, news, clock_->Now() + kTellTimeout, options_.resend_after);
    if (moved.ok()) {
      ForgetTheLost(first);
      AskAgain(first);
    }
  }
  while (true) {
    const Message answer = co_await told->Get();
    if (stopped_ || answer.kind == MessageKind::kDone || !IsHere(from)) break;
    told = StartCall(from, news, clock_->Now() + kTellTimeout, options_.resend_after);
  }
  telling_.erase(first);
  co_return moved;
}

Task<absl::Status> PageEngine::AskForSegment(PageId first, NodeId from, HandedOver* handed) {
  *handed = {};
  const TimeNs deadline = clock_->Now() + kHandOverTimeout;
  std::vector<PageBuffer> parts;
  ConfigNumber number;
  uint64_t count = 1;
  bool has_givers = false;
  while (parts.size() < count) {
    Message ask;
    ask.kind = MessageKind::kHandOver;
    ask.page = first;
    ask.count = parts.size() + 1;
    ask.config = number;
    Outcome<Message> outcome = StartCall(from, std::move(ask), deadline, options_.resend_after);
    const Message answer = co_await outcome.Get();
    if (!answer.status().ok()) co_return answer.status();
    const bool is_first = parts.empty();
    const bool makes_sense = answer.data != nullptr && answer.config.value != 0 && answer.count >= 1 &&
                             answer.count <= kMaxSegmentStateParts &&
                             (is_first || (answer.count == count && answer.config == number));
    if (!makes_sense) {
      co_return absl::InternalError(
          absl::StrCat(ToString(from), " handed over ", ToString(first), " in parts that do not fit"));
    }
    if (is_first) RaiseOrder(answer);
    handed->number = number = answer.config;
    count = answer.count;
    parts.push_back(answer.data);
    has_givers = has_givers || answer.kept;
  }
  absl::StatusOr<SegmentState> state = DecodeSegmentState(parts);
  if (state.ok()) state = CheckState(first, *std::move(state));
  if (!state.ok()) {
    co_return absl::InternalError(
        absl::StrCat(ToString(from), " handed over ", ToString(first), " as ", state.status().message()));
  }
  handed->state = *std::move(state);
  handed->state.has_givers = has_givers;
  co_return absl::OkStatus();
}

// What the decoder, which knows no cluster, cannot check.
absl::StatusOr<SegmentState> PageEngine::CheckState(PageId first, SegmentState state) const {
  for (const SegmentState::Page& page : state.pages) {
    const bool knows_owner = page.owner.node.value == 0 || IsMember(page.owner.node);
    const auto is_member = [this](NodeInstance node) { return IsMember(node.node); };
    if (!knows_owner || !std::all_of(page.sharers.begin(), page.sharers.end(), is_member)) {
      return absl::InvalidArgumentError("one that names a node that is no member");
    }
  }
  const auto is_near = [&](const HomeExtent& extent) { return extent.range.Overlaps({first, kSegmentPages}); };
  if (!std::all_of(state.extents.begin(), state.extents.end(), is_near)) {
    return absl::InvalidArgumentError("one that names an extent elsewhere");
  }
  return state;
}

// In the step in which the directory says so.
void PageEngine::Install(const DirectoryEntry& entry, const DirectoryOrder& order, const SegmentState& state) {
  const PageId first = entry.range.first;
  Own({.range = entry.range, .term = entry.term, .virgin = false});
  next_txn_ = std::max(next_txn_, order.txn);
  grant_epoch_ = std::max(grant_epoch_, Epoch(order.epoch));
  BumpGrantEpoch();
  auto segment = std::make_unique<HomeSegment>();
  segment->since = grant_epoch_;
  segment->extents = state.extents;
  segment->settled = state.settled;
  segment->fresh = state.fresh;
  for (const auto& [node, incarnation] : view_.members) {
    if (state.has_givers) segment->givers.insert(node);  // Which of them is not said.
  }
  segment->use.offer_at = clock_->Now() + options_.move_stay;
  segments_[first] = std::move(segment);
  for (const SegmentState::Page& page : state.pages) {
    HomeEntry& home = Home(first + page.index);
    home.state = page.owner.node.value == 0 ? HomeState::kUnowned : HomeState::kOwned;
    home.clean = page.clean;
    home.owner = page.owner;
    for (const NodeInstance& sharer : page.sharers) home.sharers = home_pool_.sharers.With(home.sharers, sharer);
  }
  telling_.insert(first);
  NoteLocation(first, options_.self.node, entry.term);
  ++counters_.segments_taken;
}

}  // namespace mangrove
