#include "fs/tokens/token_server.h"

#include <algorithm>

#include "net/check.h"

namespace mangrove::fs {

using Kind = TokenMessageKind;

TokenServer::Object& TokenServer::At(const TokenObject& object) {
  const auto [at, fresh] = objects_.try_emplace(object);
  if (fresh) at->second.values = stored_(object);
  return at->second;
}

TokenSet TokenServer::HeldBy(const TokenObject& object, NodeInstance client) const {
  const auto at = objects_.find(object);
  if (at == objects_.end()) return {};
  const auto holder = at->second.holders.find(client);
  return holder == at->second.holders.end() ? TokenSet() : holder->second.held;
}

size_t TokenServer::Waiting() const {
  size_t waiting = 0;
  for (const auto& [id, object] : objects_) {
    for (const Entry& e : object.queue) waiting += e.begun ? 0 : 1;
  }
  return waiting;
}

// --- Views, and what is known again. ---------------------------------------------------------------------------------------

void TokenServer::OnView(Epoch view, Members members, int64_t now_ms, Output& out) {
  CHECK(view > view_);
  view_ = view;
  granted_ = 0;
  if (!built_) {
    // Another failure: what was said in the view before is said again.
    KeepOwn();
    since_ = view;
    registrations_.clear();
    missing_ = members;
    members_ = std::move(members);
    built_ = missing_.empty();
    if (built_) StepAll(now_ms, out);
    return AskMissing(now_ms, out);
  }
  for (const NodeInstance& member : members_) {
    if (!members.contains(member)) Drop(member);
  }
  members_ = std::move(members);
  for (auto& [id, object] : objects_) {
    for (auto& [client, holder] : object.holders) holder.recalled = {};
  }
  StepAll(now_ms, out);
}

void TokenServer::KeepOwn() {
  std::map<TokenObject, Object> kept;
  for (auto& [id, object] : objects_) {
    std::erase_if(object.queue, [](const Entry& e) { return e.client != NodeInstance(); });
    if (object.queue.empty() && object.conditional.number == 0) continue;
    Object& own = kept[id];
    own.queue = std::move(object.queue);
    own.conditional = object.conditional;
    own.values = object.values;
  }
  objects_ = std::move(kept);
}

void TokenServer::StepAll(int64_t now_ms, Output& out) {
  Letters letters;
  std::vector<TokenObject> all;
  for (const auto& [id, object] : objects_) all.push_back(id);
  for (const TokenObject& id : all) Step(id, now_ms, letters, out);
  Send(std::move(letters), out);
}

void TokenServer::Drop(const NodeInstance& client) {
  for (auto& [id, object] : objects_) {
    object.holders.erase(client);
    object.changed.erase(client);
    object.conditional.unanswered.erase(client);
    // A change that is being made goes on: it is the server that makes it.
    std::erase_if(object.queue, [&](const Entry& e) { return e.client == client && !e.begun; });
  }
}

void TokenServer::AskMissing(int64_t now_ms, Output& out) {
  asked_at_ = now_ms;
  for (const NodeInstance& member : missing_) {
    out.send.push_back({member, {.kind = Kind::kRegisterAsk, .view = view_, .part = 0, .parts = 1, .entries = {}}});
  }
}

void TokenServer::OnRegister(NodeInstance from, const TokenMessage& message, int64_t now_ms, Output& out) {
  if (!missing_.contains(from)) return;
  Registration& registration = registrations_[from];
  if (registration.parts == 0) registration.parts = message.parts;
  // Parts of something else: a member says one thing in a view.
  if (registration.parts != message.parts || !registration.seen.insert(message.part).second) return;
  for (const TokenEntry& e : message.entries) {
    Object& object = At(e.object);
    Take(e.object, object, e, true, out);
    if (!e.set.Empty())
      object.holders[from] = {.held = e.set, .grant = e.grant, .returned = 0, .recalled = {}, .recalled_at = 0};
  }
  if (registration.seen.size() < registration.parts) return;
  missing_.erase(from);
  built_ = missing_.empty();
  if (built_) StepAll(now_ms, out);
}

// --- Messages. -------------------------------------------------------------------------------------------------------------

void TokenServer::OnMessage(NodeInstance from, const TokenMessage& message, int64_t now_ms, Output& out) {
  if (message.view != view_ || !members_.contains(from)) return;
  if (message.kind == Kind::kRegister) return OnRegister(from, message, now_ms, out);
  if (!built_) return;  // Sent again until it is answered.
  Letters letters;
  for (const TokenEntry& e : message.entries) {
    switch (message.kind) {
      case Kind::kRequest: OnRequest(from, e); break;
      case Kind::kCancel: OnCancel(from, e); break;
      case Kind::kReturn: OnReturn(from, e, letters, out); break;
      case Kind::kLend: OnLend(from, e, letters); break;
      case Kind::kRefuse: {
        const auto at = objects_.find(e.object);
        if (at == objects_.end() || at->second.conditional.number != e.number) break;
        if (at->second.conditional.unanswered.erase(from) > 0) at->second.conditional.refused = true;
        break;
      }
      default: return;  // What a server sends.
    }
    Step(e.object, now_ms, letters, out);
  }
  Send(std::move(letters), out);
}

void TokenServer::OnRequest(NodeInstance from, const TokenEntry& e) {
  if (e.set.Empty()) return;
  Object& object = At(e.object);
  const auto at = std::find_if(object.queue.begin(), object.queue.end(),
                               [&](const Entry& q) { return !q.change && q.client == from; });
  if (at != object.queue.end()) {
    if (e.number <= at->number) return;
    // What asks for no more keeps its place.
    if (at->wanted.Covers(e.set)) {
      at->wanted = e.set;
      at->number = e.number;
      return;
    }
    object.queue.erase(at);
  }
  object.queue.push_back({.client = from,
                          .number = e.number,
                          .change = false,
                          .begun = false,
                          .passes = false,
                          .wanted = e.set,
                          .lent = {}});
}

void TokenServer::OnCancel(NodeInstance from, const TokenEntry& e) {
  const auto at = objects_.find(e.object);
  if (at == objects_.end()) return;
  std::erase_if(at->second.queue,
                [&](const Entry& q) { return !q.change && q.client == from && q.number <= e.number; });
}

void TokenServer::OnReturn(NodeInstance from, const TokenEntry& e, Letters& letters, Output& out) {
  Object& object = At(e.object);
  const auto at = object.holders.find(from);
  TokenEntry ack{.object = e.object, .set = {}, .lent = {}, .number = e.number, .grant = e.grant};
  if (at == object.holders.end()) {
    Take(e.object, object, e, false, out);
  } else {
    Holder& holder = at->second;
    const bool crossed = e.grant != holder.grant;
    const bool late = e.number <= holder.returned;
    const bool writes = holder.held.At(TokenClass::kSize) == TokenLevel::kWrite;
    Take(e.object, object, e, !crossed && !late && writes, out);
    ack.grant = holder.grant;
    ack.flag = crossed && !late;
    if ((!crossed || options_.bug == TokenBug::kBelievesCrossedReturn) && !late) {
      ack.flag = false;
      holder.returned = e.number;
      // No more than there was: what is held is more by a grant alone.
      holder.held = TokenSet::FromBits(holder.held.Bits() & e.set.Bits());
      if (!holder.held.ConflictsWith(object.conditional.against)) object.conditional.unanswered.erase(from);
      if (holder.held.Empty()) object.holders.erase(at);
    }
  }
  letters[{from, Kind::kAck}].push_back(ack);
}

void TokenServer::Take(const TokenObject& id, Object& object, const TokenEntry& e, bool take_size, Output& out) {
  const TokenValues before = object.values;
  if (e.times && e.times_set == object.values.times_set) object.values.times.Merge(*e.times);
  // Not what was taken before, and another has written since.
  if (e.size && take_size && e.size_grant >= object.values.size_grant) {
    object.values.size = *e.size;
    object.values.size_grant = e.size_grant;
  }
  if (!(object.values == before)) out.store.emplace_back(id, object.values);
}

void TokenServer::OnLend(NodeInstance from, const TokenEntry& e, Letters& letters) {
  // Begun with who was the server before: when its client was asked what it holds, it gave that change up.
  if (e.grant.view < since_.value) return;
  Object& object = At(e.object);
  const auto queued = std::find_if(object.queue.begin(), object.queue.end(), [&](const Entry& q) {
    return q.change && q.client == from && q.number == e.number;
  });
  if (queued != object.queue.end()) {
    if (!e.flag || queued->begun) return;  // It is answered when it has ended.
    object.queue.erase(queued);
  } else {
    const Ended ended = object.changed[from];
    // Of an earlier one than the last the client waits no more.
    if (e.number <= ended.number) return SendGiveBack(e.object, from, letters);
    if (!e.flag) {
      object.queue.push_back({.client = from,
                              .number = e.number,
                              .change = true,
                              .begun = false,
                              .passes = e.pins,
                              .wanted = e.set,
                              .lent = e.lent,
                              .values = e});
      return;
    }
  }
  object.changed[from] = {.number = e.number, .made = false};
  SendGiveBack(e.object, from, letters);
}

void TokenServer::SendGiveBack(const TokenObject& id, NodeInstance to, Letters& letters) const {
  const Object& object = objects_.at(id);
  const Ended& ended = object.changed.at(to);
  TokenEntry e{.object = id, .set = {}, .lent = {}, .number = ended.number, .grant = {}, .flag = !ended.made};
  AddValues(object, HeldBy(id, to), e);
  letters[{to, Kind::kGiveBack}].push_back(e);
}

// --- Changes of the server's own, and what is done with time. -------------------------------------------------------------

void TokenServer::BeginChange(const TokenObject& object, uint64_t number, TokenSet need, int64_t now_ms, Output& out) {
  At(object).queue.push_back(
      {.client = {}, .number = number, .change = true, .begun = false, .passes = false, .wanted = need, .lent = {}});
  Letters letters;
  Step(object, now_ms, letters, out);
  Send(std::move(letters), out);
}

void TokenServer::EndChange(const TokenChangeId& change, int64_t now_ms, Output& out) {
  Object& object = At(change.object);
  const auto at = std::find_if(object.queue.begin(), object.queue.end(), [&](const Entry& q) {
    return q.begun && q.client == change.client && q.number == change.number;
  });
  CHECK(at != object.queue.end());
  object.queue.erase(at);
  Letters letters;
  if (members_.contains(change.client)) {
    object.changed[change.client] = {.number = change.number, .made = true};
    SendGiveBack(change.object, change.client, letters);
  }
  Step(change.object, now_ms, letters, out);
  Send(std::move(letters), out);
}

void TokenServer::SetValues(const TokenObject& id, std::optional<TokenTimes> times, std::optional<uint64_t> size,
                            Output& out) {
  Object& object = At(id);
  TokenSet made;
  for (const Entry& e : object.queue) made |= e.begun ? e.wanted : TokenSet();
  CHECK(!times || made.Covers({TokenClass::kTimes, TokenLevel::kWrite}));
  CHECK(!size || made.Covers({TokenClass::kSize, TokenLevel::kWrite}));
  const TokenNumber now{.view = view_.value, .count = ++granted_};
  if (times) {
    object.values.times = *times;
    object.values.times_set = now;
  }
  if (size) {
    object.values.size = *size;
    object.values.size_grant = now;
  }
  out.store.emplace_back(id, object.values);
}

void TokenServer::RecallConditionally(const TokenObject& id, TokenSet against, int64_t now_ms, Output& out) {
  At(id).conditional = {.number = ++conditionals_,
                        .begun = false,
                        .against = against,
                        .unanswered = {},
                        .refused = false,
                        .sent_at = now_ms};
  Letters letters;
  Step(id, now_ms, letters, out);
  Send(std::move(letters), out);
}

void TokenServer::Tick(int64_t now_ms, Output& out) {
  if (!built_) {
    if (now_ms - asked_at_ >= options_.resend_ms) AskMissing(now_ms, out);
    return;
  }
  StepAll(now_ms, out);
}

}  // namespace mangrove::fs
