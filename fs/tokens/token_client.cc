#include "fs/tokens/token_client.h"

#include <algorithm>

#include "net/check.h"

namespace mangrove::fs {

using Kind = TokenMessageKind;

TokenSet TokenClient::Object::Pinned() const {
  TokenSet all;
  for (const auto& [operation, set] : pins) all |= set;
  return all;
}

bool TokenClient::Object::Has(TokenSet set) const {
  return held.Covers(set) && leaving.In(set).Empty() && lent.In(set).Empty() &&
         held.ConflictWith(recalled).In(set).Empty();
}

// --- Operations. -----------------------------------------------------------------------------------------------------------

void TokenClient::Acquire(Operation operation, std::vector<Wanted> wanted, int64_t deadline_ms, bool interruptible,
                          int64_t now_ms, Output& out) {
  CHECK(!waiters_.contains(operation) && !uses_.contains(operation));
  std::sort(wanted.begin(), wanted.end(), [](const Wanted& a, const Wanted& b) { return a.object < b.object; });
  for (const Wanted& w : wanted) CHECK(!w.set.Empty());
  waiters_[operation] = {
      .wanted = std::move(wanted), .pinned = 0, .deadline_ms = deadline_ms, .interruptible = interruptible};
  Letters letters;
  Advance(now_ms, letters, out);
  Send(std::move(letters), out);
}

bool TokenClient::Release(Operation operation, int64_t now_ms, Output& out) {
  const auto at = uses_.find(operation);
  if (at == uses_.end()) return false;
  Letters letters;
  const std::vector<Wanted> wanted = std::move(at->second.wanted);
  uses_.erase(at);
  for (const Wanted& w : wanted) Unpin(w.object, operation, now_ms, letters, out);
  Advance(now_ms, letters, out);
  Send(std::move(letters), out);
  return true;
}

bool TokenClient::Cancel(Operation operation, int64_t now_ms, Output& out) {
  if (!waiters_.contains(operation)) return false;
  Letters letters;
  GiveUp(operation, now_ms, letters, out);
  Advance(now_ms, letters, out);
  Send(std::move(letters), out);
  return true;
}

void TokenClient::GiveUp(Operation operation, int64_t now_ms, Letters& letters, Output& out) {
  const auto at = waiters_.find(operation);
  CHECK(at != waiters_.end());
  const Waiter waiter = std::move(at->second);
  waiters_.erase(at);
  for (size_t i = 0; i < waiter.wanted.size(); ++i) {
    const TokenObject& id = waiter.wanted[i].object;
    if (i < waiter.pinned) {
      Unpin(id, operation, now_ms, letters, out);
      continue;
    }
    if (objects_.contains(id)) AskForLess(id, now_ms, letters);
  }
}

// Of those who still wait, the first asks for what it wants: what asks for no more keeps its place. If there is none, the request is not
// sent again, and what is granted nevertheless is given back.
void TokenClient::AskForLess(const TokenObject& id, int64_t now_ms, Letters& letters) {
  Object& object = objects_.at(id);
  if (object.asked.Empty() || WaitedFor(id).Covers(object.asked)) return;
  const uint64_t number = object.asked_number;
  object.asked = {};
  for (const auto& [operation, waiter] : waiters_) {
    for (size_t i = waiter.pinned; i < waiter.wanted.size(); ++i) {
      if (waiter.wanted[i].object == id) AskFor(waiter.wanted[i], now_ms, letters);
    }
  }
  if (object.asked.Empty()) {
    letters[Kind::kCancel].push_back({.object = id, .set = {}, .lent = {}, .number = number, .grant = {}});
  }
  Forget(id);
}

void TokenClient::Unpin(const TokenObject& id, Operation operation, int64_t now_ms, Letters& letters, Output& out) {
  Object& object = objects_.at(id);
  CHECK(object.pins.erase(operation) == 1);
  object.used = ++uses_counted_;
  AnswerRecall(id, now_ms, letters, out);
}

void TokenClient::Advance(int64_t now_ms, Letters& letters, Output& out) {
  for (auto at = waiters_.begin(); at != waiters_.end();) {
    auto& [operation, waiter] = *at;
    while (PinNext(waiter, operation)) {
    }
    if (waiter.pinned == waiter.wanted.size()) {
      out.events.push_back({.kind = TokenEventKind::kReady, .operation = operation, .object = {}, .set = {}});
      uses_[operation] = std::move(waiter);
      at = waiters_.erase(at);
      continue;
    }
    for (size_t i = waiter.pinned; i < waiter.wanted.size(); ++i) AskFor(waiter.wanted[i], now_ms, letters);
    ++at;
  }
}

bool TokenClient::PinNext(Waiter& waiter, Operation operation) {
  if (waiter.pinned == waiter.wanted.size()) return false;
  const Wanted& next = waiter.wanted[waiter.pinned];
  const auto at = objects_.find(next.object);
  if (at == objects_.end() || !at->second.Has(next.set)) return false;
  CHECK(at->second.pins.emplace(operation, next.set).second);
  ++waiter.pinned;
  return true;
}

// What is being given back is asked for when it is gone: the server would answer at once that it is held.
void TokenClient::AskFor(const Wanted& wanted, int64_t now_ms, Letters& letters) {
  Object& object = At(wanted.object);
  if (!object.asked.Empty() || object.held.Covers(wanted.set)) return;
  if (!object.leaving.In(wanted.set).Empty() || !object.held.ConflictWith(object.recalled).In(wanted.set).Empty())
    return;
  object.asked = wanted.set;
  object.asked_number = ++numbers_;
  object.asked_ms = now_ms;
  letters[Kind::kRequest].push_back(
      {.object = wanted.object, .set = wanted.set, .lent = {}, .number = object.asked_number, .grant = {}});
}

TokenSet TokenClient::WaitedFor(const TokenObject& id) const {
  TokenSet all;
  for (const auto& [operation, waiter] : waiters_) {
    for (size_t i = waiter.pinned; i < waiter.wanted.size(); ++i) {
      if (waiter.wanted[i].object == id) all |= waiter.wanted[i].set;
    }
  }
  return all;
}

// --- Messages. -------------------------------------------------------------------------------------------------------------

void TokenClient::OnMessage(NodeInstance from, const TokenMessage& message, int64_t now_ms, Output& out) {
  if (message.view != view_ || from != server_) return;
  if (message.kind == Kind::kRegisterAsk) return OnRegisterAsk(out);
  Letters letters;
  for (const TokenEntry& e : message.entries) {
    switch (message.kind) {
      case Kind::kGrant: OnGrant(e, out); break;
      case Kind::kRecall: OnRecall(e, letters, now_ms, out); break;
      case Kind::kAck: OnAck(e, letters, now_ms); break;
      case Kind::kGiveBack: OnGiveBack(e, out); break;
      default: return;  // What a client sends.
    }
    Forget(e.object);
  }
  Advance(now_ms, letters, out);
  Send(std::move(letters), out);
}

void TokenClient::OnGrant(const TokenEntry& e, Output& out) {
  Object& object = At(e.object);
  if (e.grant <= object.seen || e.grant <= object.floor) return;
  object.seen = e.grant;
  // Unless they were changed behind that return.
  const bool times_kept = object.held.At(TokenClass::kTimes) != TokenLevel::kNone;
  if (object.returned && e.number >= object.returned->number && !times_kept) object.times_changed = false;
  // One that the server has not taken has crossed this.
  object.returned.reset();
  const TokenSet old = object.held;
  // What was recalled of what was held stays so; what is granted is recalled again, if it has to be.
  object.recalled = object.recalled.In(old.ConflictWith(object.recalled));
  object.held = e.set;
  if (e.set.Covers(object.asked)) object.asked = {};
  TakeValues(object, e);
  // Of a request that is not waited for any more, or came twice.
  const TokenSet wanted = WaitedFor(e.object);
  TokenSet stray;
  for (int c = 0; c < kTokenClasses; ++c) {
    const TokenSet whole(TokenClass(c), TokenLevel::kWrite);
    const TokenSet now = e.set.In(whole);
    if (!old.Covers(now) && wanted.In(whole).Empty() && object.Pinned().In(whole).Empty()) stray |= now;
  }
  if (!stray.Empty()) GiveBack(e.object, stray.Without(object.leaving), out);
}

void TokenClient::OnRecall(const TokenEntry& e, Letters& letters, int64_t now_ms, Output& out) {
  Object& object = At(e.object);
  if (e.grant < object.seen) return;
  // What was granted and has not come counts for nothing any more: the answer says that it was seen.
  object.seen = e.grant;
  if (e.flag) {
    const TokenSet asked_back = object.held.ConflictWith(e.set);
    const TokenSet used = object.Pinned() | object.lent | WaitedFor(e.object);
    if (!asked_back.In(used).Empty()) {
      letters[Kind::kRefuse].push_back({.object = e.object, .set = {}, .lent = {}, .number = e.number, .grant = {}});
      return;
    }
  }
  object.recalled |= e.set;
  // What the server has granted and never came is said not to be here, also while the rest is in use.
  const bool said = object.returned && object.returned->grant == object.seen;
  if (!e.flag && !said && !e.set.Without(object.held).Empty() && object.held.ConflictsWith(object.recalled)) {
    SendReturn(e.object, object, now_ms, letters);
  }
  AnswerRecall(e.object, now_ms, letters, out);
}

void TokenClient::AnswerRecall(const TokenObject& id, int64_t now_ms, Letters& letters, Output& out) {
  Object& object = objects_.at(id);
  if (object.recalled.Empty()) return;
  const TokenSet conflict = object.held.ConflictWith(object.recalled);
  if (conflict.Empty()) {
    object.recalled = {};
    return SendReturn(id, object, now_ms, letters);
  }
  GiveBack(id, conflict.Without(object.leaving).Without(object.Pinned()), out);
  if (options_.bug == TokenBug::kReturnBeforeInvalidated) {
    TokenEntry e = WithValues(id, object);
    e.set = object.held.Without(conflict);
    e.number = ++numbers_;
    letters[Kind::kReturn].push_back(e);
  }
}

void TokenClient::GiveBack(const TokenObject& id, TokenSet set, Output& out) {
  if (set.Empty()) return;
  objects_.at(id).leaving |= set;
  const uint64_t invalidation = ++invalidations_counted_;
  invalidations_[invalidation] = {id, set};
  out.events.push_back({.kind = TokenEventKind::kInvalidate,
                        .operation = 0,
                        .object = id,
                        .set = set,
                        .why = TokenFailure::kNone,
                        .invalidation = invalidation});
}

void TokenClient::Invalidated(const std::vector<uint64_t>& invalidations, int64_t now_ms, Output& out) {
  std::set<TokenObject> returned;
  for (const uint64_t invalidation : invalidations) {
    const auto at = invalidations_.find(invalidation);
    if (at == invalidations_.end()) continue;
    const auto [id, set] = at->second;
    invalidations_.erase(at);
    Object& object = objects_.at(id);
    CHECK(object.leaving.Covers(set));
    object.held = object.held.Without(set);
    object.leaving = object.leaving.Without(set);
    if (object.held.ConflictWith(object.recalled).Empty()) object.recalled = {};
    returned.insert(id);
  }
  Letters letters;
  for (const TokenObject& id : returned) SendReturn(id, objects_.at(id), now_ms, letters);
  Advance(now_ms, letters, out);
  Send(std::move(letters), out);
}

void TokenClient::OnAck(const TokenEntry& e, Letters& letters, int64_t now_ms) {
  const auto at = objects_.find(e.object);
  if (at == objects_.end() || !at->second.returned || at->second.returned->number != e.number) return;
  Object& object = at->second;
  if (e.flag) {
    object.seen = std::max(object.seen, e.grant);
    return SendReturn(e.object, object, now_ms, letters);
  }
  object.returned.reset();
  // What is held again meanwhile has its own return to come.
  if (object.held.At(TokenClass::kTimes) == TokenLevel::kNone) object.times_changed = false;
  if (object.held.At(TokenClass::kSize) != TokenLevel::kWrite) object.size_changed = false;
}

void TokenClient::SendReturn(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters) {
  object.returned = {.number = ++numbers_, .grant = object.seen, .sent_ms = now_ms};
  TokenEntry e = WithValues(id, object);
  e.number = object.returned->number;
  letters[Kind::kReturn].push_back(e);
}

// The size, when it is given up: one that is written under a grant is stored once.
TokenEntry TokenClient::WithValues(const TokenObject& id, const Object& object) const {
  TokenEntry e{.object = id, .set = object.held, .lent = {}, .number = 0, .grant = object.seen};
  if (object.times_changed) {
    e.times = object.times;
    e.times_set = object.times_set;
  }
  if (object.size_changed && object.held.At(TokenClass::kSize) != TokenLevel::kWrite) {
    e.size = object.size;
    e.size_grant = object.size_grant;
  }
  return e;
}

}  // namespace mangrove::fs
