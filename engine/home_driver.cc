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
  const auto& [state, clean, reverting, owner, sharers, keepers, txn, queue, registered] = entry;
  static_cast<void>(clean);
  return state == HomeState::kUnowned && !reverting && owner == NodeInstance{} && sharers.empty() && keepers.empty() &&
         txn == nullptr && queue.empty() && registered.empty();
}

}  // namespace

HomeEntry& PageEngine::Home(PageId page) {
  return homes_.FindOrMake(page, [&] {
    auto entry = std::make_unique<HomeEntry>();
    const Extent* extent = core_.Find(page);
    entry->clean = (extent != nullptr && extent->fresh) || IsSettled(page);
    const auto settled = settled_.find(SegmentStart(page));
    if (settled == settled_.end()) return entry;
    settled->second.reset(page - SegmentStart(page));  // The entry knows it now.
    if (settled->second.none()) settled_.erase(settled);
    return entry;
  });
}

bool PageEngine::IsSettled(PageId page) const {
  const auto it = settled_.find(SegmentStart(page));
  return it != settled_.end() && it->second.test(page - SegmentStart(page));
}

// Drops an entry that Home() would make again. That the disks of a page agree is not forgotten, since finding it out
// anew needs all of them: of a page that was not allocated just now it is kept as one bit.
void PageEngine::ForgetIfIdle(PageId page) {
  const auto it = homes_.find(page);
  if (it == homes_.end() || !IsIdle(*it->second)) return;
  const bool clean = it->second->clean;
  const Extent* extent = core_.Find(page);
  const bool fresh = extent != nullptr && extent->fresh;
  if (fresh && !clean) return;  // Rare: it was let go of while a core holder was away.
  if (!fresh && clean) settled_[SegmentStart(page)].set(page - SegmentStart(page));
  homes_.erase(it);
}

// Of an entry that would be idle but for its sharers. It cannot be dropped: readers drop their copies without a word, and
// one that is there still would never be invalidated.
bool PageEngine::IsOnlyShared(const HomeEntry& entry) const {
  if (entry.state != HomeState::kUnowned || !entry.clean || entry.reverting || entry.sharers.empty()) return false;
  return entry.queue.empty() && entry.registered.empty() && entry.keepers.empty() &&
         std::all_of(entry.sharers.begin(), entry.sharers.end(),
                     [&](NodeInstance node) { return node.node == options_.self.node || up_.contains(node.node); });
}

// When there are too many entries, the read copies of pages without an owner are called in, some at a time.
void PageEngine::CallInCopies() {
  if (homes_.size() <= options_.home_entries || !registering_.empty()) {
    call_in_.clear();
    return;
  }
  if (call_in_.empty() && next_call_in_ <= clock_->Now()) {
    for (const auto& [page, entry] : homes_) {
      if (IsOnlyShared(*entry)) call_in_.push_back(page);
    }
    std::sort(call_in_.begin(), call_in_.end());
    // Looking costs as much as there are entries; where most have owners it finds nothing.
    next_call_in_ = clock_->Now() + (call_in_.empty() ? kCallSeldom : kCallEvery);
  }
  for (size_t i = 0; i < kCallsAtOnce && !call_in_.empty(); ++i) {
    const PageId page = call_in_.back();
    call_in_.pop_back();
    const auto it = homes_.find(page);
    if (it == homes_.end() || !IsOnlyShared(*it->second)) continue;
    std::vector<HomeEffect> effects;
    StepHomeDiscard(*it->second, kCallIn, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

HomeContext PageEngine::HomeContextOf(PageId page) {
  return {.self = options_.self,
          .page = page,
          .now = clock_->Now(),
          .resend_after = options_.resend_after,
          .grant_epoch = grant_epoch_,
          .next_txn = Txn((options_.self.incarnation.value << 40) + next_txn_),
          .ready = registering_.empty(),
          .bugs = options_.bugs};
}

// Of the nodes whom the page waits for one that is away, if there is such a one.
NodeId PageEngine::Culprit(PageId page, const Message& delayed) {
  const std::vector<NodeInstance> waits = WaitsFor(Home(page));
  const auto away = std::find_if(waits.begin(), waits.end(), [this](NodeInstance node) {
    return node.node != options_.self.node && node.node.value != 0 && !up_.contains(node.node);
  });
  return away == waits.end() ? delayed.peer.node : away->node;
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
        if (it == homes_.end() || !it->second->txn) break;
        home_resends_.Add(it->second->txn->resend_at, page);
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
      case HomeEffect::Kind::kReverted: {
        Message news;
        news.kind = MessageKind::kReverted;
        news.page = page;
        Broadcast(std::move(news));
        break;
      }
    }
  }
  ForgetIfIdle(page);
}

// Nobody owns the page, and every core holder is known to have its newest version.
bool PageEngine::HasNothingToFlush(PageId page) const {
  const Extent* extent = core_.Find(page);
  if (locator_->Responsible(page) != options_.self.node || extent == nullptr || IsDiscarded(page)) return false;
  const auto it = homes_.find(page);
  if (it == homes_.end()) return extent->fresh || IsSettled(page);
  const HomeEntry& entry = *it->second;
  return entry.state == HomeState::kUnowned && entry.clean && entry.queue.empty() && entry.registered.empty();
}

// OK if no page has anything to flush. Otherwise Aborted: the asker asks page by page.
void PageEngine::AnswerFlushOfRange(const Message& message, NodeInstance from) {
  uint64_t settled = 0;
  while (registering_.empty() && settled < message.count && HasNothingToFlush(message.page + settled)) ++settled;
  Message answer;
  answer.kind = MessageKind::kFlushed;
  answer.page = message.page;
  answer.request = message.request;
  if (settled < message.count) answer.SetStatus(absl::AbortedError("ask page by page"));
  Post(from.node, std::move(answer));
}

void PageEngine::HomeMessage(const Message& message, NodeInstance from) {
  Turn turn(this);
  if (!IsCurrent(from)) return;
  if (message.kind == MessageKind::kFlush && message.count > 1) return AnswerFlushOfRange(message, from);
  if (message.kind == MessageKind::kEvictAck && message.complete && Distrusts()) {
    Message doubted = message;
    doubted.complete = false;
    return HomeMessage(doubted, from);
  }
  std::vector<HomeEffect> effects = std::exchange(spare_home_effects_, {});
  effects.reserve(kUsualEffects);
  // A request for a range is a request for each of its pages; the answers travel together again.
  for (uint64_t i = 0; i < std::clamp<uint64_t>(message.count, 1, kSegmentPages); ++i) {
    const PageId page = message.page + i;
    if (locator_->Responsible(page) != options_.self.node) break;
    HomeEntry& entry = Home(page);
    if (!StepHomeMessage(entry, message, from, HomeContextOf(page), effects)) ++counters_.stale_messages;
    CarryHome(page, effects);
    effects.clear();
    if (message.kind != MessageKind::kRequest) break;
    if (registering_.empty()) continue;
    Message delayed;
    delayed.kind = MessageKind::kDelayed;
    delayed.page = page;
    delayed.request = message.request;
    delayed.peer.node = registering_.begin()->first;
    Post(from.node, std::move(delayed));
  }
  spare_home_effects_ = std::move(effects);
}

void PageEngine::TickHome() {
  const TimeNs now = clock_->Now();
  home_resends_.PopDue(now, [&](PageId page, TimeNs) {
    const auto it = homes_.find(page);
    if (it == homes_.end()) return;
    HomeEntry& entry = *it->second;
    if (!entry.txn || entry.txn->resend_at > now) return;  // Another transaction, armed by itself.
    std::vector<HomeEffect> effects;
    ++counters_.resends;
    StepHomeResend(entry, HomeContextOf(page), effects);
    CarryHome(page, effects);
  });
  CallInCopies();
}

// Whether a part of `range`, as allocated under `config`, was unallocated since.
bool PageEngine::IsDiscarded(PageRange range, ConfigNumber config) const {
  return std::any_of(discarded_.begin(), discarded_.end(),
                     [&](const Discarded& d) { return d.range.Overlaps(range) && config <= d.config; });
}

bool PageEngine::IsDiscarded(PageId page) const {
  const Extent* found = core_.Find(page);
  return IsDiscarded({page, 1}, found == nullptr ? ConfigNumber{} : found->config);
}

// Drops every copy in the cluster of the pages that this node is responsible for.
void PageEngine::DiscardCopies(PageRange range, ConfigNumber config, absl::AnyInvocable<void()> done) {
  std::vector<PageId> pages;
  for (const auto& [page, entry] : homes_) {
    const Extent* extent = range.Contains(page) ? core_.Find(page) : nullptr;
    if (extent != nullptr && extent->config > config) continue;  // Allocated anew since.
    if (range.Contains(page) && (entry->state != HomeState::kUnowned || !entry->sharers.empty())) pages.push_back(page);
  }
  if (pages.empty()) return done();
  std::sort(pages.begin(), pages.end());
  const RequestId token = NextRequest();
  discards_[token] = {.left = pages.size(), .done = std::move(done)};
  for (PageId page : pages) {
    std::vector<HomeEffect> effects;
    StepHomeDiscard(Home(page), token, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
}

// The asker asks again.
void PageEngine::AnswerNotReady(const Message& message, NodeInstance from) {
  Message answer;
  answer.kind = MessageKind::kDone;
  answer.page = message.page;
  answer.count = message.count;
  answer.request = message.request;
  answer.SetStatus(absl::UnavailableError(absl::StrCat(ToString(options_.self.node), " has started, and waits for ",
                                                       ToString(registering_.begin()->first),
                                                       " to say which pages it holds; start it, or try again later")));
  Post(from.node, std::move(answer));
}

// The responsible node comes first: when it has dropped the range, nothing of it is ever opened again, whatever the other
// core holders still have.
void PageEngine::DropExtentHere(const Message& message, NodeInstance from) {
  Turn turn(this);
  if (!registering_.empty()) return AnswerNotReady(message, from);
  const bool refused = message.count == 0 || TouchesSystemPages({message.page, message.count});
  if (refused) return AskCoreHolder(message, from);
  const TimeNs now = clock_->Now();
  std::erase_if(discarded_, [&](const Discarded& d) { return d.until <= now; });
  const PageRange range{message.page, message.count};
  const auto same = [range, config = message.config](const Discarded& d) {
    return d.range == range && d.config == config;
  };
  if (std::none_of(discarded_.begin(), discarded_.end(), same)) discarded_.push_back({range, message.config});
  DiscardCopies(range, message.config, [this, message, same, to = from.node] {
    core_.Handle(message, [this, same, to, alive = alive_](Message answer) {
      if (!*alive) return;
      Turn done(this);
      const auto it = std::find_if(discarded_.begin(), discarded_.end(), same);
      if (it != discarded_.end() && answer.code == absl::StatusCode::kOk) {
        it->until = clock_->Now() + kMessageLifetime;
        const PageRange dropped = it->range;
        absl::erase_if(settled_, [&](const auto& s) { return dropped.Overlaps({s.first, kSegmentPages}); });
      }
      Post(to, std::move(answer));
    });
  });
}

}  // namespace mangrove
