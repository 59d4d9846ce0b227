// What a flush asks of core holders: to store runs of pages (directory/page_run.h). Each is one request, answered page by page or
// for several at once; what has not been answered is asked again, by itself, until the deadline.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "directory/page_run.h"
#include "engine/page_engine.h"
#include "engine/page_turn.h"
#include "net/check.h"

namespace mangrove {

bool StoreCall::End(const RowMask& pages, const absl::Status& status) {
  if (!status.ok()) {
    stored.failed |= left & pages;
    if (stored.first_error.ok() || absl::IsAborted(stored.first_error)) stored.first_error = status;
  }
  left &= ~pages;
  if (left.any()) return false;
  outcome.Set(std::move(stored));
  return true;
}

Outcome<Stored> PageEngine::StartStore(NodeId to, Message run, TimeNs deadline) {
  CHECK(run.kind == MessageKind::kStore && run.repeat <= PageRow::kPages);
  Turn turn(this);
  const DurationNs resend_after = 10 * options_.resend_after;
  run.request = NextRequest();
  next_request_ += run.repeat - 1;  // The others'.
  Outcome<Stored> outcome(clock_);
  StoreCall call{.run = run,
                 .to = to,
                 .deadline = deadline,
                 .resend_at = clock_->Now() + resend_after,
                 .resend_after = resend_after,
                 .left = {},
                 .stored = {},
                 .outcome = outcome};
  for (uint64_t i = 0; i < run.repeat; ++i) call.left.set(i);
  if (stopped_) {
    call.End(call.left, stopped_status_);
    return outcome;
  }
  store_calls_.emplace(run.request, std::move(call));
  Post(to, std::move(run));
  ArmTick();
  return outcome;
}

// Answers to several requests may have become one on their way.
void PageEngine::StoresAnswered(const Message& run) {
  for (uint64_t done = 0; done < run.repeat;) {
    const RequestId request(run.request.value + done);
    auto it = store_calls_.upper_bound(request);
    if (it == store_calls_.begin() || request.value >= std::prev(it)->first.value + std::prev(it)->second.run.repeat) {
      Answer(PartOf(run, done, 1));
      ++done;
      continue;
    }
    --it;
    const uint64_t first = request.value - it->first.value;
    const uint64_t count = std::min<uint64_t>(run.repeat - done, it->second.run.repeat - first);
    RowMask pages;
    for (uint64_t i = 0; i < count; ++i) pages.set(first + i);
    if ((it->second.left & pages) != pages) counters_.stale_messages += (pages & ~it->second.left).count();
    if ((it->second.left & pages).any() && it->second.End(pages, run.status())) store_calls_.erase(it);
    done += count;
  }
}

// A flush of a page that has moved on is not pressed: its new owner's version may have been lost and the page reopened,
// and then this one must not come after. That holds also when this node has become the owner again, of an older version, or of
// one that was written in a later epoch on what was older.
bool PageEngine::IsOutdatedStore(PageId page, const Version& stored) const {
  const CachedPage* cached = FindCached(page);
  if (cached == nullptr || !cached->entry.IsOwner()) return true;
  const Version& version = cached->entry.version;
  return version < stored || version.epoch != stored.epoch;
}

// Those of the call that are left. True: all are outdated, and it is over.
bool PageEngine::StoreAgain(StoreCall& call) {
  RowMask outdated;
  for (uint64_t i = 0; i < call.run.repeat; ++i) {
    if (call.left.test(i) && IsOutdatedStore(call.run.page + i, call.run.version)) outdated.set(i);
  }
  if (outdated.any() && call.End(outdated, absl::AbortedError("the page has another owner"))) return true;
  call.resend_after = std::min<DurationNs>(2 * call.resend_after, kSecond);
  call.resend_at = clock_->Now() + call.resend_after;
  for (uint64_t first = 0; first < call.run.repeat;) {
    uint64_t count = 0;
    while (first + count < call.run.repeat && call.left.test(first + count)) ++count;
    if (count > 0) {
      counters_.resends += count;
      Post(call.to, PartOf(call.run, first, count));
    }
    first += std::max<uint64_t>(count, 1);
  }
  return false;
}

void PageEngine::TickStoreCalls() {
  const TimeNs now = clock_->Now();
  for (auto it = store_calls_.begin(); it != store_calls_.end();) {
    StoreCall& call = it->second;
    bool over = false;
    if (call.deadline <= now) {
      over = call.End(call.left, absl::UnavailableError(absl::StrCat(
                                     ToString(call.to), " does not answer (", Name(call.run.kind), " of page ",
                                     ToString(call.run.page), "); start it, or try again later")));
    } else if (call.resend_at <= now) {
      over = StoreAgain(call);
    }
    it = over ? store_calls_.erase(it) : std::next(it);
  }
}

}  // namespace mangrove
