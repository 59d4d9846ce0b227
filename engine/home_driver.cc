// Carries out what the responsible node's machines decide.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {
namespace {

// Longer than any message is on its way: a connection that does not carry one within seconds is closed.
constexpr DurationNs kMessageLifetime = 60 * kSecond;

}  // namespace

HomeEntry& PageEngine::Home(PageId page) {
  std::unique_ptr<HomeEntry>& slot = homes_[page];
  if (slot == nullptr) {
    slot = std::make_unique<HomeEntry>();
    const Extent* extent = core_.Find(page);
    slot->clean = extent != nullptr && extent->fresh;
  }
  return *slot;
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

void PageEngine::CarryHome(PageId page, std::vector<HomeEffect>& effects) {
  for (HomeEffect& effect : effects) {
    switch (effect.kind) {
      case HomeEffect::Kind::kSend: Post(effect.to, std::move(effect.message)); break;
      case HomeEffect::Kind::kLoad: StartLoad(effect); break;
      case HomeEffect::Kind::kArmResend: {
        ++next_txn_;  // Each transaction that began says so here.
        const HomeEntry& entry = Home(page);
        if (!entry.txn) break;
        home_resends_.insert({entry.txn->resend_at, page});
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
}

// Nobody owns the page, and every core holder is known to have its newest version.
bool PageEngine::HasNothingToFlush(PageId page) const {
  const Extent* extent = core_.Find(page);
  if (locator_->Responsible(page) != options_.self.node || extent == nullptr || IsDiscarded(page)) return false;
  const auto it = homes_.find(page);
  if (it == homes_.end()) return extent->fresh;
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
  // A request for a range is a request for each of its pages; the answers travel together again.
  for (uint64_t i = 0; i < std::clamp<uint64_t>(message.count, 1, kSegmentPages); ++i) {
    const PageId page = message.page + i;
    if (locator_->Responsible(page) != options_.self.node) break;
    std::vector<HomeEffect> effects;
    HomeEntry& entry = Home(page);
    if (!StepHomeMessage(entry, message, from, HomeContextOf(page), effects)) ++counters_.stale_messages;
    CarryHome(page, effects);
    if (message.kind != MessageKind::kRequest) break;
    if (registering_.empty()) continue;
    Message delayed;
    delayed.kind = MessageKind::kDelayed;
    delayed.page = page;
    delayed.request = message.request;
    delayed.peer.node = registering_.begin()->first;
    Post(from.node, std::move(delayed));
  }
}

void PageEngine::TickHome() {
  const TimeNs now = clock_->Now();
  std::vector<PageId> due;
  while (!home_resends_.empty() && home_resends_.begin()->first <= now) {
    due.push_back(home_resends_.begin()->second);
    home_resends_.erase(home_resends_.begin());
  }
  for (PageId page : due) {
    HomeEntry& entry = Home(page);
    if (!entry.txn || entry.txn->resend_at > now) continue;  // Another transaction, armed by itself.
    std::vector<HomeEffect> effects;
    ++counters_.resends;
    StepHomeResend(entry, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
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
      }
      Post(to, std::move(answer));
    });
  });
}

}  // namespace mangrove
