// Carries out what the responsible node's machines decide.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

// Copies that are called in at a time, and how often it is looked for them.
constexpr size_t kCallsAtOnce = 64;
constexpr DurationNs kCallEvery = kSecond;
constexpr DurationNs kCallSeldom = 60 * kSecond;
// Of a step.
constexpr size_t kUsualEffects = 4;

// Whether an entry says no more than: nobody has the page or asks for it, and its disks agree or not. Every field has its
// part in that, so one that is added has to be thought of here.
bool IsIdle(const HomeEntry& entry) {
  const auto& [state, clean, reverting, owner, sharers, work] = entry;
  static_cast<void>(clean);
  return state == HomeState::kUnowned && !reverting && owner == NodeInstance{} && sharers.empty() && !work;
}

}  // namespace

HomeEntry& PageEngine::Home(PageId page) {
  return homes_.FindOrMake(page, [&](HomeEntry& entry) {
    HomeSegment& segment = Segment(page);
    const uint64_t i = page - SegmentStart(page);
    entry.clean = segment.settled[i] || segment.fresh[i];
    segment.settled.reset(i);  // The entry knows it now.
  });
}

// Drops an entry that Home() would make again. That the disks of a page agree is not forgotten, since finding it out
// anew needs all of them: it is kept as one bit.
void PageEngine::ForgetIfIdle(PageId page) {
  const auto it = homes_.find(page);
  if (it == homes_.end() || !IsIdle(*it->second)) return;
  if (it->second->clean) Segment(page).settled.set(page - SegmentStart(page));
  homes_.erase(it);
}

// Of an entry that would be idle but for its sharers. It cannot be dropped: readers drop their copies without a word, and
// one that is there still would never be invalidated.
bool PageEngine::IsOnlyShared(const HomeEntry& entry) const {
  if (entry.state != HomeState::kUnowned || !entry.clean || entry.reverting || entry.sharers.empty()) return false;
  return !entry.work && std::all_of(entry.sharers.begin(), entry.sharers.end(), [&](NodeInstance node) {
    return node.node == options_.self.node || up_.contains(node.node);
  });
}

// When there are too many entries, the read copies of pages without an owner are called in, some at a time.
void PageEngine::CallInCopies() {
  if (homes_.size() <= options_.home_entries) {
    call_in_.clear();
    return;
  }
  if (call_in_.empty() && next_call_in_ <= clock_->Now()) {
    for (const auto& [page, entry] : homes_) {
      if (IsOnlyShared(*entry) && IsServed(page)) call_in_.push_back(page);
    }
    std::sort(call_in_.begin(), call_in_.end());
    // Looking costs as much as there are entries; where most have owners it finds nothing.
    next_call_in_ = clock_->Now() + (call_in_.empty() ? kCallSeldom : kCallEvery);
  }
  for (size_t i = 0; i < kCallsAtOnce && !call_in_.empty(); ++i) {
    const PageId page = call_in_.back();
    call_in_.pop_back();
    const auto it = homes_.find(page);
    if (it == homes_.end() || !IsOnlyShared(*it->second) || !IsServed(page)) continue;
    std::vector<HomeEffect> effects;
    StepHomeDiscard(*it->second, kCallIn, kAnyConfig, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

HomeContext PageEngine::HomeContextOf(PageId page) {
  const HomeSegment& segment = Segment(page);
  const HomeExtent* extent = segment.Find(page);
  return {
      .self = options_.self,
      .page = page,
      .now = clock_->Now(),
      .resend_after = options_.resend_after,
      .grant_epoch = grant_epoch_,
      .next_txn = Txn(next_txn_ + 1),
      .ready = segment.IsServed() || (options_.bugs && options_.bugs->serve_after_hand_over && segment.joining.empty()),
      .config = extent == nullptr ? ConfigNumber{} : extent->config,
      .never_older = IsRamDirectoryPage(page),
      .pool = &home_pool_,
      .up = &up_,
      .bugs = options_.bugs};
}

// Of the nodes whom the page waits for one that is away, if there is such a one.
NodeId PageEngine::Culprit(PageId page, const Message& delayed) {
  const std::vector<NodeInstance> waits = WaitsFor(Home(page));
  const auto away = std::find_if(waits.begin(), waits.end(), [this](NodeInstance node) {
    return node.node != options_.self.node && node.node.value != 0 && !up_.contains(node.node);
  });
  if (away != waits.end()) return away->node;
  if (delayed.peer.node.value != 0) return delayed.peer.node;
  // It is being read: from a disk that is not there, perhaps.
  const HomeExtent* const extent = FindHomeExtent(page);
  const uint32_t replicas = extent == nullptr ? 1 : extent->replicas;
  if (disks_.Check(page, replicas).ok()) return {};
  const std::vector<NodeId> holders = disks_.Holders(page, replicas);
  const auto missing = std::find_if(holders.begin(), holders.end(), [this](NodeId node) { return !IsHere(node); });
  return missing == holders.end() ? NodeId{} : *missing;
}

void PageEngine::CarryHome(PageId page, std::vector<HomeEffect>& effects) {
  for (HomeEffect& effect : effects) {
    switch (effect.kind) {
      case HomeEffect::Kind::kSend:
        if (effect.message.kind == MessageKind::kDelayed) effect.message.peer.node = Culprit(page, effect.message);
        Post(effect.to, std::move(effect.message));
        break;
      case HomeEffect::Kind::kLoad: StartLoad(effect); break;
      case HomeEffect::Kind::kArmResend: {
        ++next_txn_;  // Each transaction that began says so here.
        const auto it = homes_.find(page);
        if (it == homes_.end() || !it->second->IsBusy()) break;
        home_resends_.Add(it->second->txn()->resend_at, page);
        ArmTick();
        break;
      }
      case HomeEffect::Kind::kDiscarded: {
        const auto it = discards_.find(effect.request);
        if (it == discards_.end() || --it->second.left > 0) break;
        absl::AnyInvocable<void()> done = std::move(it->second.done);
        discards_.erase(it);
        done();
        break;
      }
      case HomeEffect::Kind::kReverted:
      case HomeEffect::Kind::kLost: {
        if (IsRamDirectoryPage(page)) break;
        Message news;
        news.kind = effect.kind == HomeEffect::Kind::kLost ? MessageKind::kLost : MessageKind::kReverted;
        news.page = page;
        Broadcast(std::move(news));
        break;
      }
    }
  }
  ForgetIfIdle(page);
  if (!leaving_.empty() && leaving_.contains(SegmentStart(page))) NoteLeaving(page);
}

// Nobody owns the page, and every core holder is known to have its newest version.
bool PageEngine::HasNothingToFlush(PageId page) const {
  const auto segment = segments_.find(SegmentStart(page));
  if (segment == segments_.end() || !segment->second->IsServed() || segment->second->Find(page) == nullptr)
    return false;
  const auto it = homes_.find(page);
  if (it == homes_.end()) {
    const uint64_t i = page - SegmentStart(page);
    return segment->second->settled[i] || segment->second->fresh[i];
  }
  const HomeEntry& entry = *it->second;
  return entry.state == HomeState::kUnowned && entry.clean && entry.Work().queue.empty() &&
         entry.Work().registered.empty();
}

// Of the first extent in the block: where there are several, the others are found page by page.
Task<absl::Status> PageEngine::KnowExtents(PageRange block) {
  if (!Segment(block.first).IsServed()) co_return absl::OkStatus();
  const absl::StatusOr<HomeExtent> extent = co_await ExtentOf(block.first);
  co_return extent.status();
}

// OK if no page has anything to flush. Otherwise Aborted: the asker asks page by page.
void PageEngine::AnswerFlushOfRange(const Message& message, NodeInstance from) {
  Spawn<absl::Status>(KnowExtents({message.page, message.count}),
                      [this, message, to = from.node, alive = alive_](const absl::Status&) {
                        if (!*alive) return;
                        Turn turn(this);
                        uint64_t settled = 0;
                        while (settled < message.count && HasNothingToFlush(message.page + settled)) ++settled;
                        Message answer;
                        answer.kind = MessageKind::kFlushed;
                        answer.page = message.page;
                        answer.request = message.request;
                        if (settled < message.count) answer.SetStatus(absl::AbortedError("ask page by page"));
                        Post(to, std::move(answer));
                      });
}

void PageEngine::HomeMessage(const Message& message, NodeInstance from) {
  Turn turn(this);
  if (!IsCurrent(from)) return;
  if (message.kind == MessageKind::kFlush && message.count > 1) return AnswerFlushOfRange(message, from);
  if (message.kind == MessageKind::kRequest && message.access != Access::kMove) CountUse(message.page, from.node);
  std::vector<HomeEffect> effects = std::exchange(spare_home_effects_, {});
  effects.reserve(kUsualEffects);
  // A request for a range is a request for each of its pages; the answers travel together again.
  for (uint64_t i = 0; i < std::clamp<uint64_t>(message.count, 1, kSegmentPages); ++i) {
    const PageId page = message.page + i;
    if (!IsResponsibleFor(page)) break;
    HomeEntry& entry = Home(page);
    if (!StepHomeMessage(entry, message, from, HomeContextOf(page), effects)) ++counters_.stale_messages;
    CarryHome(page, effects);
    effects.clear();
    if (message.kind != MessageKind::kRequest) break;
    if (IsServed(page)) continue;
    Message delayed;
    delayed.kind = MessageKind::kDelayed;
    delayed.page = page;
    delayed.request = message.request;
    delayed.peer.node = WhoKeepsFromServing(page);
    Post(from.node, std::move(delayed));
  }
  spare_home_effects_ = std::move(effects);
}

NodeId PageEngine::WhoKeepsFromServing(PageId page) const {
  const auto segment = segments_.find(SegmentStart(page));
  if (segment != segments_.end() && segment->second->leaving) return segment->second->leaving->to.node;
  const std::vector<NodeId> waiting = Unregistered();
  return waiting.empty() ? options_.self.node : waiting.front();
}

void PageEngine::TickHome() {
  const TimeNs now = clock_->Now();
  home_resends_.PopDue(now, [&](PageId page, TimeNs) {
    const auto it = homes_.find(page);
    if (it == homes_.end()) return;
    HomeEntry& entry = *it->second;
    if (!entry.IsBusy() || entry.txn()->resend_at > now) return;  // Another transaction, armed by itself.
    std::vector<HomeEffect> effects;
    ++counters_.resends;
    StepHomeResend(entry, HomeContextOf(page), effects);
    CarryHome(page, effects);
  });
  CallInCopies();
}

// Late messages of an allocation that is over do not bring it back.
void PageEngine::NoteDiscarded(PageRange range, ConfigNumber config) {
  const TimeNs now = clock_->Now();
  std::erase_if(discarded_,
                [&](const Discarded& d) { return d.until <= now || (d.range == range && d.config == config); });
  discarded_.push_back({range, config, now + kMessageLifetime});
}

// Whether a part of `range`, as allocated under `config`, was unallocated since.
bool PageEngine::IsDiscarded(PageRange range, ConfigNumber config) const {
  return std::any_of(discarded_.begin(), discarded_.end(),
                     [&](const Discarded& d) { return d.range.Overlaps(range) && config <= d.config; });
}

bool PageEngine::IsDiscarded(PageId page) const {
  const HomeExtent* extent = FindHomeExtent(page);
  return extent != nullptr && IsDiscarded({page, 1}, extent->config);
}

// Drops every copy in the cluster of the pages that this node is responsible for.
void PageEngine::DiscardCopies(PageRange range, ConfigNumber config, absl::AnyInvocable<void()> done) {
  std::vector<PageId> pages;
  for (const auto& [page, entry] : homes_) {
    const HomeExtent* extent = range.Contains(page) ? FindHomeExtent(page) : nullptr;
    if (extent != nullptr && extent->config > config) continue;  // Allocated anew since.
    if (range.Contains(page) && (entry->state != HomeState::kUnowned || !entry->sharers.empty())) pages.push_back(page);
  }
  if (pages.empty()) return done();
  std::sort(pages.begin(), pages.end());
  const RequestId token = NextRequest();
  discards_[token] = {.left = pages.size(), .done = std::move(done)};
  for (PageId page : pages) {
    std::vector<HomeEffect> effects;
    StepHomeDiscard(Home(page), token, config, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

// When this node has dropped the range, nothing of it is ever opened again, whatever its core holders still have.
void PageEngine::DropCopies(const Message& message, NodeInstance from) {
  const PageRange range{message.page, message.count};
  Message answer;
  answer.kind = MessageKind::kDone;
  answer.page = message.page;
  answer.count = message.count;
  answer.request = message.request;
  if (range.count == 0 || TouchesSystemPages(range) || kFirstDirectoryPage < range.end()) {
    answer.SetStatus(
        absl::InvalidArgumentError(absl::StrCat("not a range of pages that can be unallocated: ", ToString(range))));
    return Post(from.node, std::move(answer));
  }
  Spawn<absl::Status>(ConfirmRange(range), [this, range, config = message.config, answer, to = from.node,
                                            alive = alive_](absl::Status status) mutable {
    if (!*alive) return;
    Turn turn(this);
    auto done = [this, answer, to] { Post(to, answer); };
    if (status.ok() && !own_.Covers(range)) status = absl::AbortedError("a part of it has gone to another node");
    if (status.ok() && !DropCopiesHere(range, config, std::move(done))) {
      const std::vector<NodeId> waiting = Unregistered();
      status = absl::UnavailableError(absl::StrCat(ToString(options_.self.node), " has started, and waits for ",
                                                   waiting.empty() ? "itself" : ToString(waiting.front()),
                                                   " to say which pages it holds; start it, or try again later"));
    }
    if (status.ok()) return;
    answer.SetStatus(status);
    Post(to, std::move(answer));
  });
}

// False: of some segment it is not known yet what is held. `done` when no copy is left.
bool PageEngine::DropCopiesHere(PageRange range, ConfigNumber config, absl::AnyInvocable<void()> done) {
  std::vector<PageId> unsure;  // Some of those that nobody has been asked about yet.
  bool served = std::none_of(leaving_.begin(), leaving_.end(), [&](PageId first) {
    return range.Overlaps({first, kSegmentPages});
  });
  own_.ForEach(range.first, range.end(), [&](const OwnSegments::Run& run) {
    PageId first = std::max(run.range.first, SegmentStart(range.first));
    const PageId end = std::min(run.range.end(), range.end());
    for (; !run.virgin && first < end && unsure.size() < kJoinsAtOnce; first = first + kSegmentPages) {
      if (IsServed(first)) continue;
      served = false;
      unsure.push_back(first);
    }
  });
  for (PageId first : unsure) Segment(first);
  if (!served) return false;
  NoteDiscarded(range, config);
  DiscardCopies(range, config, [this, range, config, done = std::move(done)]() mutable {
    NoteDiscarded(range, config);  // From now on as long as a message can be on its way.
    ForgetExtents(range, config);
    done();
  });
  return true;
}

}  // namespace mangrove
