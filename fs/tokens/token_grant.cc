// Which of those who wait are served, and what is asked back for the others.

#include "fs/tokens/token_server.h"

namespace mangrove::fs {

using Kind = TokenMessageKind;

// What the client holds when this is granted, in the classes that it is about.
TokenSet TokenServer::Effective(const Object& object, const Entry& entry) const {
  const auto at = object.holders.find(entry.client);
  const TokenSet held = at == object.holders.end() || entry.change ? TokenSet() : at->second.held;
  return (held | entry.wanted).In(entry.wanted);
}

bool TokenServer::Conflicting(TokenSet a, TokenSet b) const {
  if (options_.bug == TokenBug::kTwoWriters && a.In(b) == b.In(a)) return false;
  return a.ConflictsWith(b);
}

// Who makes an earlier change may wait for what the operation of this one uses, if it needs a class that comes before: then this one
// passes. So no operation waits in a ring: each waits for later classes than it uses, and who waits as a request uses none of the object.
bool TokenServer::WaitsBehind(const Entry& entry, TokenSet effective, const Earlier& earlier) const {
  if (!Conflicting(earlier.effective, effective)) return false;
  if (earlier.begun || !entry.passes) return true;
  return earlier.passes && earlier.effective.First() >= effective.First();
}

bool TokenServer::HoldersAgree(const Object& object, const Entry& entry, TokenSet effective,
                               std::map<NodeInstance, TokenSet>& recalls) const {
  bool agree = true;
  for (const auto& [client, holder] : object.holders) {
    const bool own = client == entry.client;
    if (own && !entry.change) continue;
    const TokenSet counted = own ? holder.held.Without(entry.lent) : holder.held;
    if (!Conflicting(counted, effective)) continue;
    agree = false;
    // No more than is in the way, so that what was lent is not recalled.
    recalls[client] |= effective.In(counted);
  }
  return agree;
}

void TokenServer::Step(const TokenObject& id, int64_t now_ms, Letters& letters, Output& out) {
  if (!built_ || !objects_.contains(id)) return;
  Object& object = objects_.at(id);
  BeginConditional(id, object, now_ms, letters);
  std::map<NodeInstance, TokenSet> recalls;
  // What is being made is in the way of all, also of those that it passed.
  std::vector<Earlier> before;
  for (const Entry& e : object.queue) {
    if (e.begun) before.push_back({.effective = Effective(object, e), .begun = true, .passes = e.passes});
  }
  for (auto at = object.queue.begin(); at != object.queue.end();) {
    if (at->begun) {
      ++at;
      continue;
    }
    const TokenSet effective = Effective(object, *at);
    bool waits = false;
    for (const Earlier& earlier : before) waits = waits || WaitsBehind(*at, effective, earlier);
    if (!waits && HoldersAgree(object, *at, effective, recalls)) {
      if (!at->change) {
        Grant(id, object, *at, letters);
        at = object.queue.erase(at);
        continue;
      }
      at->begun = true;
      const auto lender = object.holders.find(at->client);
      const bool writes =
          lender != object.holders.end() && lender->second.held.At(TokenClass::kSize) == TokenLevel::kWrite;
      Take(id, object, at->values, writes, out);
      out.begin.push_back({.client = at->client, .object = id, .number = at->number});
    }
    before.push_back({.effective = effective, .begun = at->begun, .passes = at->passes});
    ++at;
  }
  SendRecalls(id, object, recalls, now_ms, letters);
  EndConditional(id, object, out);
  Forget(id);
}

void TokenServer::Grant(const TokenObject& id, Object& object, const Entry& entry, Letters& letters) {
  Holder& holder = object.holders[entry.client];
  holder.held |= entry.wanted;
  holder.grant = {.view = view_.value, .count = ++granted_};
  holder.recalled = {};
  TokenEntry e{.object = id, .set = holder.held, .lent = {}, .number = holder.returned, .grant = holder.grant};
  AddValues(object, holder.held, e);
  letters[{entry.client, Kind::kGrant}].push_back(e);
}

void TokenServer::AddValues(const Object& object, TokenSet held, TokenEntry& e) {
  if (held.At(TokenClass::kTimes) != TokenLevel::kNone) {
    e.times = object.values.times;
    e.times_set = object.values.times_set;
  }
  if (held.At(TokenClass::kSize) != TokenLevel::kNone) {
    e.size = object.values.size;
    e.size_grant = object.values.size_grant;
  }
}

void TokenServer::SendRecalls(const TokenObject& id, Object& object, const std::map<NodeInstance, TokenSet>& recalls,
                              int64_t now_ms, Letters& letters) {
  for (auto& [client, holder] : object.holders) {
    const auto at = recalls.find(client);
    if (at == recalls.end()) {
      holder.recalled = {};
      continue;
    }
    if (holder.recalled.Covers(at->second) && now_ms - holder.recalled_at < options_.resend_ms) continue;
    holder.recalled = at->second;
    holder.recalled_at = now_ms;
    letters[{client, Kind::kRecall}].push_back(
        {.object = id, .set = at->second, .lent = {}, .number = 0, .grant = holder.grant});
  }
}

void TokenServer::BeginConditional(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters) {
  Conditional& conditional = object.conditional;
  const bool again = conditional.begun && now_ms - conditional.sent_at >= options_.resend_ms;
  if (conditional.number == 0 || (conditional.begun && !again)) return;
  for (const auto& [client, holder] : object.holders) {
    if (!conditional.begun && holder.held.ConflictsWith(conditional.against)) conditional.unanswered.insert(client);
  }
  conditional.begun = true;
  SendConditional(id, object, now_ms, letters);
}

// By what is held then: somebody may have been granted it since the recall was sent.
void TokenServer::EndConditional(const TokenObject& id, Object& object, Output& out) {
  const Conditional& conditional = object.conditional;
  if (!conditional.begun || !conditional.unanswered.empty()) return;
  bool refused = conditional.refused;
  for (const auto& [client, holder] : object.holders) {
    refused = refused || holder.held.ConflictsWith(conditional.against);
  }
  out.conditional.emplace_back(id, refused);
  object.conditional = {};
}

void TokenServer::SendConditional(const TokenObject& id, Object& object, int64_t now_ms, Letters& letters) {
  Conditional& conditional = object.conditional;
  conditional.sent_at = now_ms;
  for (const NodeInstance& client : conditional.unanswered) {
    const auto at = object.holders.find(client);
    if (at == object.holders.end()) continue;
    letters[{client, Kind::kRecall}].push_back({.object = id,
                                                .set = conditional.against,
                                                .lent = {},
                                                .number = conditional.number,
                                                .grant = at->second.grant,
                                                .flag = true});
  }
}

void TokenServer::Send(Letters letters, Output& out) const {
  for (auto& [to, entries] : letters) PackTokenEntries(to.second, view_, to.first, std::move(entries), out.send);
}

// An object of which nothing is held or waited for. The changes that have ended are forgotten with it, but for those of
// clients which may ask again: these go when the client does.
void TokenServer::Forget(const TokenObject& id) {
  const auto at = objects_.find(id);
  if (at != objects_.end() && at->second.Idle() && at->second.changed.empty()) objects_.erase(at);
}

}  // namespace mangrove::fs
