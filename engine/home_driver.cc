// Carries out what the responsible node's machines decide.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"

namespace mangrove {

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
  const uint64_t first = next_txn_;
  next_txn_ += kTxnsPerStep;
  return {.self = options_.self,
          .page = page,
          .now = clock_->Now(),
          .resend_after = options_.resend_after,
          .grant_epoch = grant_epoch_,
          .next_txn = Txn((options_.self.incarnation.value << 40) | first),
          .ready = registering_.empty(),
          .bugs = options_.bugs};
}

void PageEngine::CarryHome(PageId page, std::vector<HomeEffect>& effects) {
  for (HomeEffect& effect : effects) {
    switch (effect.kind) {
      case HomeEffect::Kind::kSend: Post(effect.to, std::move(effect.message)); break;
      case HomeEffect::Kind::kLoad: StartLoad(effect); break;
      case HomeEffect::Kind::kArmResend: {
        const HomeEntry& entry = Home(page);
        if (!entry.txn) break;
        home_resends_.insert({entry.txn->resend_at, page});
        ArmTick();
        break;
      }
      case HomeEffect::Kind::kDiscarded: {
        const auto it = discards_.find(effect.request);
        if (it != discards_.end()) --it->second->first;
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

void PageEngine::HomeMessage(const Message& message, NodeInstance from) {
  Turn turn(this);
  if (!IsCurrent(from)) return;
  // A request for a range is a request for each of its pages; the answers travel together again.
  for (uint64_t i = 0; i < std::max<uint64_t>(message.count, 1); ++i) {
    const PageId page = message.page + i;
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

// Drops every copy of a range, cluster-wide, before its storage is taken away.
void PageEngine::DiscardRange(const Message& message, NodeInstance from) {
  Turn turn(this);
  Message answer;
  answer.kind = MessageKind::kDone;
  answer.page = message.page;
  answer.count = message.count;
  answer.request = message.request;
  if (!registering_.empty()) return;  // The asker asks again.
  const PageRange range{message.page, message.count};
  const bool known = std::any_of(discarded_.begin(), discarded_.end(),
                                 [&](const auto& d) { return d.first == range && d.second >= message.config; });
  if (!known) discarded_.emplace_back(range, message.config);
  std::vector<PageId> pages;
  for (const auto& [page, entry] : homes_) {
    if (range.Contains(page) && (entry->state != HomeState::kUnowned || !entry->sharers.empty())) pages.push_back(page);
  }
  std::sort(pages.begin(), pages.end());
  auto left = std::make_shared<std::pair<size_t, Message>>(pages.size(), answer);
  const RequestId token = NextRequest();
  discards_[token] = left;
  for (PageId page : pages) {
    std::vector<HomeEffect> effects;
    StepHomeDiscard(Home(page), token, HomeContextOf(page), effects);
    CarryHome(page, effects);
  }
  const TimeNs deadline = clock_->Now() + 10 * kSecond;
  auto wait = [](PageEngine* engine, std::shared_ptr<std::pair<size_t, Message>> counter, std::shared_ptr<bool> alive,
                 TimeNs until) -> Task<absl::Status> {
    Clock* clock = engine->clock_;
    while (*alive && counter->first > 0 && clock->Now() < until) {
      co_await SleepUntil(clock, clock->Now() + kMillisecond);
    }
    co_return absl::OkStatus();
  };
  Spawn<absl::Status>(wait(this, left, alive_, deadline),
                      [this, left, token, to = from.node, alive = alive_](absl::Status) {
                        if (!*alive) return;
                        Turn done(this);
                        discards_.erase(token);
                        if (left->first == 0) Post(to, left->second);
                      });
}

}  // namespace mangrove
