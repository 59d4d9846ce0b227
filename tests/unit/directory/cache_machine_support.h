// What the tests of the cache's machine share: entries in each state, messages, effects as text.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "directory/cache_machine.h"

namespace mangrove {

constexpr PageId kPage{7};
constexpr NodeId kHome{1};
constexpr NodeInstance kSelf{NodeId(2), Incarnation(1)};
constexpr NodeInstance kOther{NodeId(3), Incarnation(1)};
constexpr Txn kApplied{10};  // The last transaction of an entry.
constexpr RequestId kOutstanding{77};
constexpr Version kCurrent{Epoch(3), 5};

inline PageBuffer SomePage() {
  static const PageBuffer page = std::make_shared<const PageBytes>();
  return page;
}

inline bool IsWaitState(CacheState s) {
  return s == CacheState::kWaitRead || s == CacheState::kWaitWrite || s == CacheState::kSharedWait ||
         s == CacheState::kOwnedWait;
}
inline bool HoldsNothing(CacheState s) {
  return s == CacheState::kInvalid || s == CacheState::kWaitRead || s == CacheState::kWaitWrite;
}

inline CacheEntry EntryIn(CacheState state) {
  CacheEntry e;
  e.state = state;
  e.txn = kApplied;
  if (!HoldsNothing(state)) {
    e.version = kCurrent;
    e.flushed = state == CacheState::kEvicting ? kCurrent : Version{Epoch(3), 4};
    e.grant_epoch = Epoch(3);
    e.replicas = 2;
  }
  if (state == CacheState::kExclusive) e.open = true;
  if (IsWaitState(state)) {
    e.request = kOutstanding;
    e.wanted = state == CacheState::kWaitRead ? Access::kRead : Access::kWrite;
  }
  return e;
}

inline void Retain(CacheEntry& e, bool owner = true) {
  e.retained = CacheEntry::Retained{.txn = kApplied,
                                    .version = kCurrent,
                                    .flushed = {Epoch(3), 4},
                                    .grant_epoch = Epoch(3),
                                    .requester = kOther,
                                    .request = RequestId(5),
                                    .owner = owner,
                                    .data = SomePage(),
                                    .answer = {}};
  e.retained->answer.kind = MessageKind::kGrant;
  e.retained->answer.txn = kApplied;
}

inline Message Revocation(MessageKind kind, uint64_t txn) {
  Message m;
  m.kind = kind;
  m.page = kPage;
  m.txn = Txn(txn);
  m.request = RequestId(5);
  m.peer = kOther;
  m.grant_epoch = Epoch(4);
  return m;
}

inline Message Forward(Access access, uint64_t txn = 11) {
  Message m = Revocation(MessageKind::kForward, txn);
  m.access = access;
  return m;
}

inline Message Invalidate(bool retain, uint64_t txn = 11) {
  Message m = Revocation(MessageKind::kInvalidate, txn);
  m.retain = retain;
  return m;
}

inline Message Resolve(Holding holding, uint64_t txn = 11) {
  Message m = Revocation(MessageKind::kResolve, txn);
  m.holding = holding;
  m.version = {Epoch(4), 1};
  return m;
}

inline Message Grant(Access access, bool active = true, uint64_t txn = 11, RequestId request = kOutstanding) {
  Message m = Revocation(MessageKind::kGrant, txn);
  m.request = request;
  m.access = access;
  m.active = active;
  m.version = {Epoch(3), 8};
  m.flushed = {Epoch(3), 8};
  m.data = SomePage();
  return m;
}

inline Message About(MessageKind kind, uint64_t txn, RequestId request = kOutstanding) {
  Message m = Revocation(kind, txn);
  m.request = request;
  return m;
}

inline CacheContext Context(TimeNs now = 100) {
  return {.self = kSelf, .responsible = kHome, .now = now, .hold = 10, .next_request = RequestId(78), .bugs = nullptr};
}

inline std::string Text(const std::vector<CacheEffect>& effects) {
  using Kind = CacheEffect::Kind;
  std::string text;
  for (const CacheEffect& e : effects) {
    const std::string message = std::string(Name(e.message.kind)) + "->" + std::to_string(e.to.value);
    if (!text.empty()) text += ", ";
    switch (e.kind) {
      case Kind::kProtect: text += "Protect"; break;
      case Kind::kTake: text += "Take"; break;
      case Kind::kTakeRetain: text += "TakeRetain"; break;
      case Kind::kInstall: text += e.write ? "InstallWrite" : "Install"; break;
      case Kind::kRaise: text += "Raise"; break;
      case Kind::kSend:
      case Kind::kSendLate: text += message; break;
      case Kind::kSendFrame: text += "frame " + message; break;
      case Kind::kSendRetained: text += "retained " + message; break;
      case Kind::kWake: text += "Wake"; break;
      case Kind::kFail: text += "Fail"; break;
      case Kind::kHoldTimer: text += "HoldTimer"; break;
      case Kind::kRefused: text += std::string("refused ") + Name(e.message.kind); break;
    }
  }
  return text;
}

}  // namespace mangrove
