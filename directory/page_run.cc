#include "directory/page_run.h"

#include <algorithm>
#include <utility>

namespace mangrove {
namespace {

template <typename Number>
void CountUp(Number& number, uint64_t by) {
  if (number.value != 0) number.value += by;
}

template <typename Number>
bool CountsUp(Number from, Number to, uint64_t by) {
  return from.value == 0 ? to.value == 0 : to.value == from.value + by;
}

// Shares what keeps the first page: they lie in one piece.
void MoveOn(PageBuffer& data, uint64_t pages) {
  if (data != nullptr) data = PageBuffer(data, data.get() + pages);
}

bool AreAlike(const HomeRequest& request, const HomeRequest& other, uint64_t pages) {
  return other.kind == request.kind && other.from == request.from && CountsUp(request.request, other.request, pages) &&
         other.access == request.access && other.have == request.have && other.at_most == request.at_most;
}

bool AreAlike(const HomeTransaction& txn, const HomeTransaction& other, uint64_t pages) {
  return CountsUp(txn.id, other.id, pages) && AreAlike(txn.request, other.request, pages) &&
         other.source == txn.source && other.backup == txn.backup && other.upgrade == txn.upgrade &&
         other.active == txn.active && other.was_lost == txn.was_lost && other.lost == txn.lost &&
         other.appoints == txn.appoints && other.waiting == txn.waiting && other.resend_at == txn.resend_at &&
         other.resends == txn.resends;
}

bool AreAlike(const HomeWork& work, const HomeWork& other, uint64_t pages) {
  if (work.txn.has_value() != other.txn.has_value() || work.keepers.size() != other.keepers.size()) return false;
  if (work.txn && !AreAlike(*work.txn, *other.txn, pages)) return false;
  return std::equal(work.keepers.begin(), work.keepers.end(), other.keepers.begin(),
                    [pages](const Keeper& keeper, const Keeper& theirs) {
                      return theirs.node == keeper.node && CountsUp(keeper.txn, theirs.txn, pages);
                    });
}

}  // namespace

void MoveOn(Message& message, uint64_t pages) {
  message.page = message.page + pages;
  CountUp(message.txn, pages);
  CountUp(message.request, pages);
  MoveOn(message.data, pages);
}

void MoveOn(CacheEffect& effect, uint64_t pages) {
  MoveOn(effect.message, pages);
  MoveOn(effect.data, pages);
}

Message PartOf(const Message& run, uint64_t first, uint64_t count) {
  Message part = run;
  MoveOn(part, first);
  part.repeat = static_cast<uint32_t>(count);
  return part;
}

PageBuffer DataOf(const Message& run, uint64_t pages) {
  PageBuffer data = run.data;
  MoveOn(data, pages);
  return data;
}

bool GoesOn(const Message& m, const Message& next, uint64_t pages) {
  return next.kind == m.kind && m.count == 1 && next.count == 1 && m.page != PageId{} && next.page == m.page + pages &&
         SegmentStart(next.page) == SegmentStart(m.page) && CountsUp(m.txn, next.txn, pages) &&
         CountsUp(m.request, next.request, pages) && (m.data == nullptr) == (next.data == nullptr) &&
         next.peer == m.peer && next.access == m.access && next.holding == m.holding && next.version == m.version &&
         next.flushed == m.flushed && next.grant_epoch == m.grant_epoch && next.config == m.config &&
         next.replicas == m.replicas && next.active == m.active && next.have == m.have &&
         next.exclusive == m.exclusive && next.owner == m.owner && next.retain == m.retain && next.kept == m.kept &&
         next.seal == m.seal && next.complete == m.complete && next.with_data == m.with_data &&
         next.is_volatile == m.is_volatile && next.hurry == m.hurry && m.code == absl::StatusCode::kOk &&
         next.code == absl::StatusCode::kOk;
}

bool MayBeARun(const Message& message) {
  switch (message.kind) {
    case MessageKind::kRequest:
    case MessageKind::kForward:
    case MessageKind::kGrant: return message.access != Access::kMove;
    case MessageKind::kInvalidate:
    case MessageKind::kGrantAck:
    case MessageKind::kTransferDone:
    case MessageKind::kTransferDropped:
    case MessageKind::kStore:
    case MessageKind::kStored:
    case MessageKind::kQueryStored: return true;
    default: return false;
  }
}

// What is retained is dropped by a step, or stays: it has content of its own.
bool MayBeOfARun(const CacheEntry& entry, const Message* message) {
  const bool drops = message != nullptr && message->kind == MessageKind::kTransferDone;
  return !entry.pending && !entry.deferred && !entry.IsPinned() && (!entry.retained || drops);
}

bool AreAlike(const CacheEntry& entry, const CacheEntry& other, uint64_t pages, const Message* message, TimeNs now) {
  if (!MayBeOfARun(other, message) || entry.retained.has_value() != other.retained.has_value()) return false;
  if (entry.retained && (!CountsUp(entry.retained->txn, other.retained->txn, pages) ||
                         entry.retained->reported != other.retained->reported)) {
    return false;
  }
  // A step compares it with the message's alone. What both are older than is one.
  const bool older = message == nullptr || (entry.txn < message->txn && other.txn.value < message->txn.value + pages);
  const bool same_hold = other.hold_until == entry.hold_until || std::max(other.hold_until, entry.hold_until) <= now;
  return (older || CountsUp(entry.txn, other.txn, pages)) && CountsUp(entry.request, other.request, pages) &&
         (message == nullptr || same_hold) && other.state == entry.state && other.open == entry.open &&
         other.reported == entry.reported && other.wanted == entry.wanted && other.replicas == entry.replicas &&
         other.version == entry.version && other.flushed == entry.flushed && other.grant_epoch == entry.grant_epoch &&
         other.config == entry.config && other.delayed_by == entry.delayed_by;
}

void TakeStep(const CacheEntry& before, const CacheEntry& after, uint64_t pages, CacheEntry& other) {
  const Txn txn = other.txn;
  const RequestId request = other.request;
  const TimeNs hold_until = other.hold_until;
  Boxed<CacheEntry::Retained> retained;
  if (before.retained && after.retained) retained = std::move(other.retained);
  other = after;
  if (after.txn == before.txn) {
    other.txn = txn;
  } else {
    CountUp(other.txn, pages);
  }
  if (after.request == before.request) {
    other.request = request;
  } else {
    CountUp(other.request, pages);
  }
  if (after.hold_until == before.hold_until) other.hold_until = hold_until;
  if (retained) {
    other.retained = std::move(retained);
  } else if (other.retained) {
    CountUp(other.retained->txn, pages);
    CountUp(other.retained->request, pages);
    MoveOn(other.retained->answer, pages);
  }
  if (other.deferred) MoveOn(*other.deferred, pages);
}

bool MayBeOfARun(const HomeEntry& entry) {
  if (entry.state == HomeState::kLost) return false;  // The answers name the page.
  if (!entry.work) return true;
  const HomeWork& work = *entry.work;
  if (!work.queue.empty() || !work.registered.empty()) return false;
  return !work.txn || (!work.txn->from_disk && work.txn->reports.empty());
}

bool AreAlike(const HomeEntry& entry, const HomeEntry& other, uint64_t pages) {
  if (!MayBeOfARun(other)) return false;
  return other.state == entry.state && other.clean == entry.clean && other.reverting == entry.reverting &&
         other.owner == entry.owner && other.sharers == entry.sharers &&
         entry.work.has_value() == other.work.has_value() && (!entry.work || AreAlike(*entry.work, *other.work, pages));
}

void TakeStep(const HomeEntry& after, uint64_t pages, HomePool& pool, HomeEntry& other) {
  other.state = after.state;
  other.clean = after.clean;
  other.reverting = after.reverting;
  other.owner = after.owner;
  other.sharers = after.sharers;
  if (!after.work) {
    if (other.work && pool.spare.size() < HomePool::kSpare) {
      other.work->txn.reset();
      other.work->queue.clear();
      other.work->keepers.clear();
      pool.spare.push_back(std::move(other.work));
    }
    other.work.reset();
    return;
  }
  if (!other.work && !pool.spare.empty()) {
    other.work = std::move(pool.spare.back());
    pool.spare.pop_back();
  }
  if (!other.work) other.work = HomeWork{};
  HomeWork& work = *other.work;
  work = *after.work;
  if (work.txn) {
    CountUp(work.txn->id, pages);
    CountUp(work.txn->request.request, pages);
  }
  for (HomeRequest& queued : work.queue) CountUp(queued.request, pages);
  for (Keeper& keeper : work.keepers) CountUp(keeper.txn, pages);
}

}  // namespace mangrove
