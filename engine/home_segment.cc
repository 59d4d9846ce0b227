// What a responsible node learns of a segment before it serves it: what every member holds of its pages, and, page by page
// as they are opened, which extents they are in.

#include "engine/home_segment.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {

HomeSegment& PageEngine::Segment(PageId page) {
  std::unique_ptr<HomeSegment>& slot = segments_[SegmentStart(page)];
  if (slot == nullptr) {
    slot = std::make_unique<HomeSegment>();
    const OwnSegments::Run* run = IsFixed(page) ? nullptr : own_.Find(page);
    const bool is_own_page = kFirstDirectoryPage <= page && NodeId(NodeOfDirectoryPage(page)) == options_.self.node &&
                             IncarnationOfDirectoryPage(page) == (options_.self.incarnation.value & kIncarnationMask);
    if ((run != nullptr && run->virgin) || is_own_page) {
      BumpGrantEpoch();
      slot->since = grant_epoch_;
    } else {
      StartJoining(SegmentStart(page));
    }
  }
  return *slot;
}

bool PageEngine::IsServed(PageId page) const {
  const auto it = segments_.find(SegmentStart(page));
  return it != segments_.end() && it->second->IsServed();
}

// --- What is held -----------------------------------------------------------------------------------------------------

void PageEngine::StartJoining(PageId first) {
  for (const auto& [node, incarnation] : view_.members) segments_.at(first)->joining[node] = {};
  joining_.insert(first);
  ArmTick();
  if (std::exchange(joins_soon_, true)) return;
  clock_->CallSoon([this, alive = alive_] {
    if (!*alive) return;
    joins_soon_ = false;
    if (stopped_) return;
    Turn turn(this);
    AskForHoldings();
  });
}

// Asks each member for what it holds of each segment that is not served yet, again if it has not come.
void PageEngine::AskForHoldings() {
  const TimeNs now = clock_->Now();
  for (PageId first : joining_) {
    for (auto& [node, registration] : segments_.at(first)->joining) {
      const bool here = node == options_.self.node || up_.contains(node);
      if (!here || registration.ask_at > now) continue;
      registration.wait = std::min(std::max<DurationNs>(2 * registration.wait, 5 * options_.resend_after), 2 * kSecond);
      registration.ask_at = now + registration.wait;
      rounds_.erase(registration.round);
      registration.round = NextRequest();
      registration.parts.clear();
      rounds_[registration.round] = first;
      Message ask;
      ask.kind = MessageKind::kRegisterRequest;
      ask.request = registration.round;
      ask.page = first;
      Post(node, std::move(ask));
    }
  }
}

// As the one that is asked.
void PageEngine::SendHoldings(const Message& message, NodeInstance from) {
  if (!IsCurrent(from)) return;
  const PageId first = SegmentStart(message.page);
  NoteTaken(first, from);
  std::vector<Message> reports;
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const CachedPage* cached = FindCached(first + i);
    if (cached == nullptr) continue;
    // A page whose copy is being taken away is nothing any more for its machine, but may still be read here. Then this
    // is not the moment; the question comes again.
    if (cached->carrying) return;
    const CacheEntry& entry = cached->entry;
    if (HoldingOf(entry) == Holding::kNone) continue;
    Message& report = reports.emplace_back();
    report.kind = MessageKind::kRegister;
    report.request = message.request;
    report.page = first + i;
    report.holding = HoldingOf(entry);
    report.version = HeldVersion(entry);
    report.config = entry.config;
  }
  Message end;
  end.kind = MessageKind::kRegisterEnd;
  end.request = message.request;
  end.page = first;
  end.count = reports.size();
  end.txn = Txn(next_txn_);
  end.grant_epoch = grant_epoch_;
  end.kept = given_away_.AnyOf({first, kSegmentPages});
  for (Message& report : reports) Post(from.node, std::move(report));
  Post(from.node, std::move(end));
}

void PageEngine::CountHoldings(const Message& message, NodeInstance from) {
  const auto round = rounds_.find(message.request);
  if (round == rounds_.end() || !IsCurrent(from)) return;
  const PageId first = round->second;
  HomeSegment& segment = *segments_.at(first);
  const auto it = segment.joining.find(from.node);
  if (it == segment.joining.end() || it->second.round != message.request) return;
  Registration& registration = it->second;
  if (message.kind == MessageKind::kRegister) {
    if (SegmentStart(message.page) != first) return RefuseMessage(message, from.node);
    registration.parts[message.page] = message;
    return;
  }
  if (registration.parts.size() != message.count) return;  // Some are late or lost: asked again.
  for (const auto& [page, part] : registration.parts) {
    Register(Home(page), {.node = from, .holding = part.holding, .version = part.version, .config = part.config});
  }
  if (message.kept) segment.givers.insert(from.node);
  RaiseOrder(message);
  rounds_.erase(round);
  segment.joining.erase(it);
  if (segment.IsServed()) Joined(first);
}

// What this node does from now on comes after what the sender has seen.
void PageEngine::RaiseOrder(const Message& message) {
  next_txn_ = std::max(next_txn_, message.txn.value);
  grant_epoch_ = std::max(grant_epoch_, message.grant_epoch);
}

void PageEngine::Joined(PageId first) {
  joining_.erase(first);
  BumpGrantEpoch();
  segments_.at(first)->since = grant_epoch_;
  for (uint64_t i = 0; i < kSegmentPages; ++i) {
    const PageId page = first + i;
    if (homes_.find(page) == homes_.end()) continue;
    std::vector<HomeEffect> effects;
    StepHomeReady(Home(page), HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

// --- Extents ----------------------------------------------------------------------------------------------------------

const HomeExtent* PageEngine::FindHomeExtent(PageId page) const {
  const auto it = segments_.find(SegmentStart(page));
  return it == segments_.end() ? nullptr : it->second->Find(page);
}

// As a core holder. That an extent is fresh is told once for each page: who was told may open the page, and have it stored.
Message PageEngine::DescribeExtent(PageId page, NodeInstance asker, Epoch since) {
  Message info;
  info.kind = MessageKind::kExtentInfo;
  info.page = page;
  if (!disks_.IsDisk(options_.self.node)) {  // Any more: nobody tells it of extents.
    info.SetStatus(absl::UnavailableError(absl::StrCat(ToString(options_.self.node), " keeps no pages any more")));
    return info;
  }
  const Extent* extent = core_.Find(page);
  if (extent == nullptr) {
    info.SetStatus(absl::NotFoundError(absl::StrCat("page ", ToString(page), " is in no extent of this core holder")));
    return info;
  }
  info.page = extent->range.first;
  info.count = extent->range.count;
  info.config = extent->config;
  info.replicas = extent->replicas;
  info.is_volatile = extent->is_volatile;
  const PageId first = std::max(extent->range.first, SegmentStart(page));
  const PageId end = std::min(extent->range.end(), SegmentStart(page) + kSegmentPages);
  info.complete = extent->fresh && TellFresh({first, end - first}, asker, since);
  return info;
}

bool PageEngine::TellFresh(PageRange range, NodeInstance asker, Epoch since) {
  auto it = told_fresh_.upper_bound(range.first.value);
  if (it != told_fresh_.begin() && std::prev(it)->second.range.Overlaps(range)) --it;
  if (it != told_fresh_.end() && it->second.range.Overlaps(range)) {
    return it->second.range == range && it->second.asker == asker && it->second.since == since;
  }
  told_fresh_[range.first.value] = {.range = range, .asker = asker, .since = since};
  return true;
}

void PageEngine::AnswerExtent(const Message& message, NodeInstance from) {
  Message info = DescribeExtent(message.page, from, message.grant_epoch);
  info.request = message.request;
  Post(from.node, std::move(info));
}

// `since`: the segment's, when it was asked for. A segment that has been away meanwhile may have been stored since.
absl::StatusOr<HomeExtent> PageEngine::NoteExtent(PageId page, const Message& answer, Epoch since) {
  const HomeExtent extent{.range = {answer.page, answer.count},
                          .config = answer.config,
                          .replicas = answer.replicas,
                          .is_volatile = answer.is_volatile};
  if (!extent.range.Contains(page)) {
    return absl::InternalError(absl::StrCat("asked for the extent of page ", ToString(page), ", a core holder named ",
                                            ToString(extent.range)));
  }
  if (!IsResponsibleFor(page)) return absl::UnavailableError("another node is responsible for it by now");
  HomeSegment& segment = Segment(page);
  if (const HomeExtent* known = segment.Find(page)) return *known;  // Meanwhile.
  if (IsDiscarded({page, 1}, extent.config)) return absl::NotFoundError("unallocated meanwhile");
  std::erase_if(segment.extents, [&](const HomeExtent& e) { return e.range.Overlaps(extent.range); });
  segment.extents.push_back(extent);
  const PageId first = SegmentStart(page);
  for (uint64_t i = 0; answer.complete && segment.since == since && i < kSegmentPages; ++i) {
    if (extent.range.Contains(first + i)) segment.fresh.set(i);
  }
  return extent;
}

// As one of its core holders describes it; this node, if it is one.
Task<Message> PageEngine::AskForExtent(NodeId node, PageId page, Epoch since) {
  if (node != options_.self.node) {
    Message ask;
    ask.kind = MessageKind::kQueryExtent;
    ask.page = page;
    ask.grant_epoch = since;
    if (!IsHere(node)) {
      ask.SetStatus(IsAwayStatus(node));
      co_return ask;
    }
    const TimeNs deadline = clock_->Now() + options_.holder_timeout;
    co_return co_await StartCall(node, std::move(ask), deadline, options_.resend_after).Get();
  }
  co_return DescribeExtent(page, options_.self, since);
}

// Of volatile pages there is nothing but that somebody has opened them. Whoever did has told every disk of the view so; one that has
// had the extent since its allocation and was not told knows that nobody has.
Task<absl::StatusOr<bool>> PageEngine::IsFreshVolatile(PageId page, Epoch since, bool first_says, NodeId first) {
  bool fresh = first_says;
  const Epoch view = view_.epoch;
  for (NodeId node : disks_.StoringExtents()) {
    if (node == first) continue;
    const Message said = co_await AskForExtent(node, page, since);
    if (!said.status().ok() && !absl::IsNotFound(said.status())) co_return said.status();
    fresh = fresh || (said.status().ok() && said.complete);
  }
  if (view_.epoch != view) co_return absl::AbortedError("the view has changed");
  co_return fresh;
}

// NotFound: the page is not allocated, which its primary can say; where that one is not there, any current disk will do that has
// the extent. It is fresh if each disk that stores it says so: whoever opened it before has asked them all.
Task<absl::StatusOr<HomeExtent>> PageEngine::ExtentOf(PageId page) {
  if (const HomeExtent* known = FindHomeExtent(page)) co_return *known;
  const Epoch since = Segment(page).since;
  absl::Status status = disks_.Check(page, 1);
  for (NodeId node : disks_.All(page)) {
    if (!disks_.IsCurrent(node)) continue;
    Message answer = co_await AskForExtent(node, page, since);
    if (node == disks_.All(page).front()) status = answer.status();
    if (absl::IsNotFound(status)) co_return status;
    if (!answer.status().ok()) continue;
    if (answer.is_volatile) {
      const absl::StatusOr<bool> fresh = co_await IsFreshVolatile(page, since, answer.complete, node);
      if (!fresh.ok()) co_return fresh.status();
      answer.complete = *fresh;
      co_return NoteExtent(page, answer, since);
    }
    answer.complete = answer.complete && disks_.Check(page, answer.replicas).ok();
    const std::vector<NodeId> holders = disks_.Storing(page, answer.replicas);
    for (NodeId other : holders) {
      if (!answer.complete || other == node) continue;
      const Message said = co_await AskForExtent(other, page, since);
      answer.complete = said.status().ok() && said.complete;
    }
    co_return NoteExtent(page, answer, since);
  }
  co_return status.ok() ? absl::UnavailableError(absl::StrCat("who keeps page ", ToString(page), " has changed"))
                        : status;
}

void PageEngine::ForgetExtents(PageRange range, ConfigNumber config) {
  const auto forget = [&](PageId first, HomeSegment& segment) {
    for (const HomeExtent& extent : segment.extents) {
      for (uint64_t i = 0; extent.config <= config && i < kSegmentPages; ++i) {
        if (!range.Contains(first + i) || !extent.range.Contains(first + i)) continue;
        segment.fresh.reset(i);
        segment.settled.reset(i);
      }
    }
    // What is left of one that was cut is asked for again.
    std::erase_if(segment.extents, [&](const HomeExtent& e) { return e.range.Overlaps(range) && e.config <= config; });
  };
  // Whichever are fewer.
  if (range.count / kSegmentPages < segments_.size()) {
    for (PageId first = SegmentStart(range.first); first < range.end(); first = first + kSegmentPages) {
      if (const auto it = segments_.find(first); it != segments_.end()) forget(first, *it->second);
    }
  } else {
    for (auto& [first, segment] : segments_) {
      if (range.Overlaps({first, kSegmentPages})) forget(first, *segment);
    }
  }
}

}  // namespace mangrove
