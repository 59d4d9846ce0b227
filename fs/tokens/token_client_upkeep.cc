// The client's side of views, leases and time, of changes that the server makes for it, and of the values it keeps.

#include <algorithm>

#include "fs/tokens/token_client.h"
#include "net/check.h"

namespace mangrove::fs {

using Kind = TokenMessageKind;

void TokenClient::OnView(Epoch view, NodeInstance server, int64_t now_ms, Output& out) {
  CHECK(view > view_);
  view_ = view;
  registration_.clear();
  Letters letters;
  std::vector<Operation> interrupted;
  for (const auto& [operation, waiter] : waiters_) {
    if (waiter.interruptible) interrupted.push_back(operation);
  }
  for (const Operation operation : interrupted) {
    GiveUp(operation, now_ms, letters, out);
    out.events.push_back({.kind = TokenEventKind::kFailed,
                          .operation = operation,
                          .object = {},
                          .set = {},
                          .why = TokenFailure::kInterrupted});
  }
  // The changes have ended with who made them.
  if (server != server_) InterruptChanges(view, out);
  server_ = server;
  Advance(now_ms, letters, out);
  SendAgain(now_ms, true, letters);
  Send(std::move(letters), out);
}

// What was lent is not known to be as it was before.
void TokenClient::InterruptChanges(Epoch begun_before, Output& out) {
  for (auto& [id, object] : objects_) {
    if (!object.change || object.change->view >= begun_before) continue;
    out.events.push_back({.kind = TokenEventKind::kChanged,
                          .operation = object.change->operation,
                          .object = id,
                          .set = {},
                          .why = TokenFailure::kInterrupted});
    object.change.reset();
    const TokenSet lent = std::exchange(object.lent, {});
    GiveBack(id, object.held.In(lent).Without(object.leaving), out);
  }
}

// Who asks this is the server since this view: if it was one before, it has forgotten the changes.
// The same for as long as the view lasts, since its parts may be lost one by one: nothing is granted until the server has
// all of it, and what is given back meanwhile is a return as any other.
void TokenClient::OnRegisterAsk(Output& out) {
  if (registration_.empty()) {
    InterruptChanges(view_, out);
    std::vector<TokenEntry> entries;
    for (const auto& [id, object] : objects_) {
      if (object.held.Empty() && !object.returned && !object.times_changed && !object.size_changed) continue;
      entries.push_back(WithValues(id, object));
    }
    std::vector<TokenSend> packed;
    PackTokenEntries(Kind::kRegister, view_, server_, std::move(entries), packed);
    for (TokenSend& p : packed) registration_.push_back(std::move(p.message));
    if (registration_.empty()) {
      registration_.push_back({.kind = Kind::kRegister, .view = view_, .part = 0, .parts = 1, .entries = {}});
    }
    for (size_t i = 0; i < registration_.size(); ++i) {
      registration_[i].part = uint32_t(i);
      registration_[i].parts = uint32_t(registration_.size());
    }
  }
  for (const TokenMessage& message : registration_) out.send.push_back({server_, message});
}

void TokenClient::OnLeaseEnd(Output& out) {
  const auto fail = [&out](const auto& each) {
    out.events.push_back({.kind = TokenEventKind::kFailed,
                          .operation = each.first,
                          .object = {},
                          .set = {},
                          .why = TokenFailure::kLeaseEnded});
  };
  for (const auto& waiter : waiters_) fail(waiter);
  for (const auto& use : uses_) fail(use);
  for (const auto& [id, object] : objects_) {
    if (object.change) {
      out.events.push_back({.kind = TokenEventKind::kChanged,
                            .operation = object.change->operation,
                            .object = id,
                            .set = {},
                            .why = TokenFailure::kLeaseEnded});
    }
    if (object.held.Empty()) continue;
    out.events.push_back({.kind = TokenEventKind::kLost, .operation = 0, .object = id, .set = object.held});
  }
  waiters_.clear();
  uses_.clear();
  objects_.clear();
  invalidations_.clear();
  registration_.clear();
  server_ = {};
}

void TokenClient::Tick(int64_t now_ms, Output& out) {
  Letters letters;
  std::vector<Operation> over;
  for (const auto& [operation, waiter] : waiters_) {
    if (now_ms >= waiter.deadline_ms) over.push_back(operation);
  }
  for (const Operation operation : over) {
    GiveUp(operation, now_ms, letters, out);
    out.events.push_back({.kind = TokenEventKind::kFailed,
                          .operation = operation,
                          .object = {},
                          .set = {},
                          .why = TokenFailure::kTimedOut});
  }
  Advance(now_ms, letters, out);
  SendAgain(now_ms, false, letters);
  Trim(out);
  Send(std::move(letters), out);
}

void TokenClient::SendAgain(int64_t now_ms, bool all, Letters& letters) {
  const auto due = [&](int64_t sent_ms) { return all || now_ms - sent_ms >= options_.resend_ms; };
  for (auto& [id, object] : objects_) {
    if (!object.asked.Empty() && due(object.asked_ms)) {
      object.asked_ms = now_ms;
      letters[Kind::kRequest].push_back(
          {.object = id, .set = object.asked, .lent = {}, .number = object.asked_number, .grant = {}});
    }
    if (object.returned && due(object.returned->sent_ms)) {
      // The same number: what is held has not changed, or there would be another return.
      object.returned->sent_ms = now_ms;
      TokenEntry e = WithValues(id, object);
      e.number = object.returned->number;
      e.grant = object.returned->grant;
      letters[Kind::kReturn].push_back(e);
    }
    if (object.change && due(object.change->sent_ms)) SendChange(id, object, now_ms, letters);
  }
}

void TokenClient::Trim(Output& out) {
  std::vector<std::pair<uint64_t, TokenObject>> idle;
  for (const auto& [id, object] : objects_) {
    if (object.Idle() && !object.held.Empty() && WaitedFor(id).Empty()) idle.emplace_back(object.used, id);
  }
  if (idle.size() <= options_.most_idle) return;
  std::sort(idle.begin(), idle.end());
  idle.resize(idle.size() - options_.most_idle);
  for (const auto& [used, id] : idle) GiveBack(id, objects_.at(id).held, out);
}

TokenClient::Object& TokenClient::At(const TokenObject& id) {
  const auto [at, fresh] = objects_.try_emplace(id);
  if (fresh) at->second.floor = forgotten_;
  return at->second;
}

// A grant that comes twice, the second time after all of this was given back, is not to be believed: the newest that was seen of
// what is forgotten is remembered for all. A good one that is not believed for that is asked for again.
void TokenClient::Forget(const TokenObject& id) {
  const auto at = objects_.find(id);
  if (at == objects_.end() || !at->second.Nothing()) return;
  forgotten_ = std::max({forgotten_, at->second.seen, at->second.floor});
  objects_.erase(at);
}

void TokenClient::Send(Letters letters, Output& out) const {
  if (server_ == NodeInstance{}) return;  // Sent again when there is one.
  for (auto& [kind, entries] : letters) PackTokenEntries(kind, view_, server_, std::move(entries), out.send);
}

// --- Changes. --------------------------------------------------------------------------------------------------------------

bool TokenClient::BeginChange(Operation operation, const TokenObject& id, TokenSet need, int64_t now_ms, Output& out) {
  CHECK(!waiters_.contains(operation) && ComesAfterUses(operation, id, need));
  Object& object = At(id);
  if (object.change) return false;
  const TokenSet lent = object.held.ConflictWith(need).Without(object.Pinned()).Without(object.leaving);
  if (options_.bug != TokenBug::kUsesWhatIsLent) object.lent = lent;
  object.change = {.operation = operation,
                   .number = ++numbers_,
                   .need = need,
                   .lent = lent,
                   .pins = uses_.contains(operation),
                   .cancelled = false,
                   .view = view_,
                   .sent_ms = now_ms};
  Letters letters;
  SendChange(id, object, now_ms, letters);
  Send(std::move(letters), out);
  return true;
}

void TokenClient::CancelChange(const TokenObject& id, int64_t now_ms, Output& out) {
  const auto at = objects_.find(id);
  if (at == objects_.end() || !at->second.change) return;
  at->second.change->cancelled = true;
  Letters letters;
  SendChange(id, at->second, now_ms, letters);
  Send(std::move(letters), out);
}

void TokenClient::SendChange(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters) {
  Change& change = *object.change;
  change.sent_ms = now_ms;
  TokenEntry e{.object = id,
               .set = change.need,
               .lent = change.lent,
               .number = change.number,
               .grant = {.view = change.view.value, .count = 0},
               .flag = change.cancelled,
               .pins = change.pins};
  // Nothing here writes them before the change has ended.
  if (object.times_changed && change.lent.At(TokenClass::kTimes) != TokenLevel::kNone) {
    e.times = object.times;
    e.times_set = object.times_set;
  }
  if (object.size_changed && change.lent.At(TokenClass::kSize) != TokenLevel::kNone) {
    e.size = object.size;
    e.size_grant = object.size_grant;
  }
  letters[Kind::kLend].push_back(e);
}

bool TokenClient::ComesAfterUses(Operation operation, const TokenObject& id, TokenSet need) const {
  const auto at = uses_.find(operation);
  if (at == uses_.end()) return true;
  return std::all_of(at->second.wanted.begin(), at->second.wanted.end(),
                     [&](const Wanted& w) { return w.object < id || (w.object == id && w.set.AllBefore(need)); });
}

void TokenClient::OnGiveBack(const TokenEntry& e, Output& out) {
  const auto at = objects_.find(e.object);
  if (at == objects_.end() || !at->second.change || at->second.change->number != e.number) return;
  out.events.push_back({.kind = TokenEventKind::kChanged,
                        .operation = at->second.change->operation,
                        .object = e.object,
                        .set = at->second.lent,
                        .why = e.flag ? TokenFailure::kNotMade : TokenFailure::kNone});
  TakeValues(at->second, e);
  at->second.change.reset();
  at->second.lent = {};
}

// --- Values. ---------------------------------------------------------------------------------------------------------------

// What is here counts until the server has what is newer.
void TokenClient::TakeValues(Object& object, const TokenEntry& e) {
  if (e.times && e.times_set > object.times_set) {
    object.times = *e.times;
    object.times_set = e.times_set;
    object.times_changed = false;
  } else if (e.times && e.times_set == object.times_set) {
    object.times.Merge(*e.times);
  }
  if (e.size && (e.size_grant > object.size_grant || (e.size_grant == object.size_grant && !object.size_changed))) {
    object.size = *e.size;
    object.size_grant = e.size_grant;
    object.size_changed = false;
  }
}

const TokenClient::Object* TokenClient::UsedBy(Operation operation, const TokenObject& id, TokenSet set) const {
  if (!uses_.contains(operation)) return nullptr;
  const Object& object = objects_.at(id);
  CHECK(object.pins.at(operation).Covers(set));
  return &object;
}

bool TokenClient::Touch(Operation operation, const TokenObject& id, const TokenTimes& times) {
  if (UsedBy(operation, id, {TokenClass::kTimes, TokenLevel::kSharedWrite}) == nullptr) return false;
  Object& object = objects_.at(id);
  object.times.Merge(times);
  object.times_changed = true;
  return true;
}

bool TokenClient::SetSize(Operation operation, const TokenObject& id, uint64_t size) {
  if (UsedBy(operation, id, {TokenClass::kSize, TokenLevel::kWrite}) == nullptr) return false;
  Object& object = objects_.at(id);
  object.size = size;
  object.size_changed = true;
  object.size_grant = std::max(object.size_grant, object.seen);
  return true;
}

std::optional<TokenTimes> TokenClient::TimesOf(Operation operation, const TokenObject& id) const {
  const Object* object = UsedBy(operation, id, {TokenClass::kTimes, TokenLevel::kRead});
  if (object == nullptr) return std::nullopt;
  return object->times;
}

std::optional<uint64_t> TokenClient::SizeOf(Operation operation, const TokenObject& id) const {
  const Object* object = UsedBy(operation, id, {TokenClass::kSize, TokenLevel::kRead});
  if (object == nullptr) return std::nullopt;
  return object->size;
}

TokenSet TokenClient::Held(const TokenObject& id) const {
  const auto at = objects_.find(id);
  return at == objects_.end() ? TokenSet() : at->second.held;
}

TokenSet TokenClient::Usable(const TokenObject& id) const {
  const auto at = objects_.find(id);
  if (at == objects_.end()) return {};
  return at->second.held.Without(at->second.lent);
}

TokenSet TokenClient::Pinned(const TokenObject& id) const {
  const auto at = objects_.find(id);
  return at == objects_.end() ? TokenSet() : at->second.Pinned();
}

}  // namespace mangrove::fs
