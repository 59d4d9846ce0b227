// Every cell of kCacheTable: an entry in the row's state is given an event of the column.

#include "directory/cache_machine.h"

#include <gtest/gtest.h>

#include <optional>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/directory/cache_machine_support.h"

namespace mangrove {
namespace {

using A = CacheAction;
using E = CacheEvent;
using S = CacheState;
using K = MessageKind;

// The message that is the column's event, if that is no local one. Changes the entry where the column asks for it.
std::optional<Message> MessageOf(E event, CacheEntry& e) {
  switch (event) {
    case E::kForwardRead: return Forward(Access::kRead);
    case E::kForwardWrite: return Forward(Access::kWrite);
    case E::kForwardMove: return Forward(Access::kMove);
    case E::kInvalidate: return Invalidate(false);
    case E::kInvalidateRetain: return Invalidate(true);
    case E::kBlocked: e.hold_until = 200; return Forward(Access::kWrite);
    case E::kResend:
      if (HoldsNothing(e.state)) Retain(e);
      return Forward(Access::kWrite);
    case E::kGrantRead: return Grant(Access::kRead);
    case E::kGrantMove:
      if (e.IsWaiting() && e.state != S::kWaitWrite) e.wanted = Access::kMove;
      return Grant(Access::kMove);
    case E::kGrantWrite: return Grant(Access::kWrite);
    case E::kGrantPending: return Grant(Access::kWrite, false);
    case E::kActivate: return About(K::kActivate, 11);
    case E::kGrantOther: return Grant(Access::kRead, true, 11, RequestId(1));
    case E::kFailed: return About(K::kRequestFailed, 0);
    case E::kDoneBefore: return About(K::kTransferDone, kApplied.value - 1);
    case E::kTransferDone:
    case E::kTransferAborted:
      if (HoldsNothing(e.state)) Retain(e);
      return About(event == E::kTransferDone ? K::kTransferDone : K::kTransferAborted, kApplied.value);
    case E::kEvictGrant: return About(K::kEvictGrant, 11);
    case E::kReport: return About(K::kReport, 11);
    case E::kResolveOwner: return Resolve(Holding::kOwner);
    case E::kResolveShared: return Resolve(Holding::kShared);
    case E::kResolveNone: return Resolve(Holding::kNone);
    default: return std::nullopt;
  }
}

struct Outcome {
  S state;
  std::string effects;
};

S WithoutCopy(const CacheEntry& e) {
  return !e.IsWaiting() ? S::kInvalid : e.wanted == Access::kWrite ? S::kWaitWrite : S::kWaitRead;
}

S WithoutRequest(S s) {
  return s == S::kSharedWait ? S::kShared : s == S::kOwnedWait ? S::kOwned : IsWaitState(s) ? S::kInvalid : s;
}

Outcome ExpectedOfRevocation(A action, const CacheEntry& e) {
  const S s = e.state;
  switch (action) {
    case A::kDefer: return {s, "HoldTimer"};
    case A::kSendCopy:
      return e.open ? Outcome{S::kOwned, "Protect, frame Grant->3"}
                    : Outcome{s == S::kExclusive ? S::kOwned : s, "frame Grant->3"};
    case A::kSendAway: return {WithoutCopy(e), "TakeRetain, retained Grant->3"};
    case A::kMoveAway: return {s, "GrantRefused->1"};  // Nobody has offered it.
    case A::kGiveUp: return {WithoutCopy(e), "Take, InvalidateAck->1"};
    case A::kGiveUpRetain: return {WithoutCopy(e), "TakeRetain, InvalidateAck->1"};
    case A::kAckInvalid: return {s, "InvalidateAck->1"};
    case A::kNotHeld: return {s, "NotHeld->1"};
    case A::kResendRetained: return {s, "retained Grant->3"};
    case A::kEvict: return {S::kInvalid, "Take, EvictAck->1"};
    case A::kRefuseEvict:
    case A::kAckEvicted: return {s, "EvictAck->1"};
    case A::kAnswerReport:
      return {s == S::kEvicting ? S::kOwned : s, e.IsWaiting() ? "Reported->1, Request->1" : "Reported->1"};
    case A::kBecomeOwner:
      if (HoldsNothing(s)) return {s, "NotHeld->1"};
      return {s == S::kShared ? S::kOwned : s == S::kSharedWait ? S::kOwnedWait : s, "ResolveAck->1"};
    case A::kStayShared: return {s, "ResolveAck->1"};
    case A::kDropAll: return {WithoutCopy(e), HoldsNothing(s) ? "ResolveAck->1" : "Take, ResolveAck->1"};
    default: ADD_FAILURE() << "no expectation for action " << static_cast<int>(action); return {s, ""};
  }
}

Outcome Expected(A action, E event, const CacheEntry& e) {
  const S s = e.state;
  switch (action) {
    case A::kIgnore: return {s, ""};
    case A::kRefuse: return {s, event == E::kResolveShared ? "refused Resolve" : "refused Invalidate"};
    case A::kWake: return {s, "Wake"};
    case A::kRequestRead: return {S::kWaitRead, "Request->1"};
    case A::kRequestWrite:
      return {s == S::kInvalid ? S::kWaitWrite : s == S::kShared ? S::kSharedWait : S::kOwnedWait, "Request->1"};
    case A::kRequestMove: return {s == S::kInvalid ? S::kWaitRead : S::kSharedWait, "Request->1"};
    case A::kOpen: return {s, e.open ? "Wake" : "Raise, Wake"};
    case A::kDropSilently: return {S::kInvalid, "Take"};
    case A::kAskEvict: return {S::kEvicting, "EvictRequest->1"};
    case A::kInstallRead: return {S::kShared, "Install, GrantAck->1, Wake"};
    case A::kInstallMove: return {S::kOwned, HoldsNothing(s) ? "Install, GrantAck->1, Wake" : "GrantAck->1, Wake"};
    case A::kInstallWrite:
      return {S::kExclusive, HoldsNothing(s) ? "InstallWrite, GrantAck->1, Wake" : "Raise, GrantAck->1, Wake"};
    case A::kKeepPending:
    case A::kActivatePending: return {s, ""};
    case A::kAnswerOther: return {s, "GrantRefused->1"};
    case A::kFailWaiters: return {WithoutRequest(s), "Fail"};
    case A::kForgetRequest: return {WithoutRequest(s), ""};
    case A::kDropRetained:
    case A::kSayDropped: return {s, "TransferDropped->1"};
    case A::kTakeBack: return {s == S::kWaitWrite ? S::kOwnedWait : S::kOwned, "Install, Wake"};
    default: return ExpectedOfRevocation(action, e);
  }
}

// Beside state and effects.
void ExpectRest(A action, const CacheEntry& before, const CacheEntry& after) {
  EXPECT_EQ(after.deferred.has_value(), action == A::kDefer);
  const bool retains = action == A::kSendAway || action == A::kGiveUpRetain || action == A::kResendRetained;
  EXPECT_EQ(after.retained.has_value(), retains);
  if (retains) {
    EXPECT_EQ(after.retained->txn, Txn(11));
  }
  if (action == A::kInstallWrite) {
    EXPECT_TRUE(after.open && before.version < after.version);
  }
  if (action == A::kKeepPending) {
    EXPECT_TRUE(after.pending && after.pending->have_grant && !after.pending->activated);
  }
  if (action == A::kActivatePending) {
    EXPECT_TRUE(after.pending && after.pending->activated);
  }
  if (action == A::kAnswerReport) {
    EXPECT_EQ(after.reported, after.HasRead());
  }
  if (action == A::kAnswerReport && before.IsWaiting()) {
    EXPECT_NE(after.request, before.request);
  }
}

void VisitLocal(S state, E event, A action) {
  CacheEntry e = EntryIn(state);
  if (event == E::kWantEvict && action == A::kAskEvict) {
    e.flushed = e.version;  // REQUIRES: clean.
    e.open = false;
  }
  const Outcome expected = Expected(action, event, e);
  std::vector<CacheEffect> effects;
  StepCacheLocal(e, kPage, event, Context(), effects);
  EXPECT_EQ(e.state, expected.state);
  EXPECT_EQ(Text(effects), expected.effects);
}

void VisitMessage(S state, E event, A action) {
  CacheEntry e = EntryIn(state);
  const Message message = *MessageOf(event, e);
  ASSERT_TRUE(Consistent(e));
  const CacheEntry before = e;
  std::vector<CacheEffect> effects;
  const std::optional<E> classified = StepCacheMessage(e, message, kHome, Context(), effects);
  EXPECT_TRUE(Consistent(e));
  if (action == A::kImpossible) {
    EXPECT_NE(classified, event);
    return;
  }
  ASSERT_EQ(classified, event);
  const Outcome expected = Expected(action, event, before);
  EXPECT_EQ(std::string(Name(e.state)), Name(expected.state));
  EXPECT_EQ(Text(effects), expected.effects);
  ExpectRest(action, before, e);
}

// ProtocolModel looks for a history that leads to one of these without anybody being confused.
TEST(CacheMachine, OnlyTheResponsibleNodesNonsenseIsRefused) {
  for (int s = 0; s < kCacheStates; ++s) {
    const auto state = static_cast<S>(s);
    const bool owner = state == S::kOwned || state == S::kExclusive || state == S::kOwnedWait || state == S::kEvicting;
    for (int v = 0; v < kCacheEvents; ++v) {
      const auto event = static_cast<E>(v);
      const bool nonsense =
          (state == S::kExclusive && event == E::kInvalidateRetain) || (owner && event == E::kResolveShared);
      EXPECT_EQ(kCacheTable[s][v] == A::kRefuse, nonsense) << Name(event) << " in " << Name(state);
    }
  }
}

Message AnyMessage(std::mt19937& random) {
  const auto any = [&](uint64_t below) { return static_cast<uint64_t>(random() % below); };
  Message m;
  do {
    m.kind = static_cast<K>(any(kMessageKinds));
  } while (!IsForCache(m.kind));
  m.page = kPage;
  m.txn = Txn(8 + any(8));
  m.request = RequestId(any(2) == 0 ? 77 : 78);
  m.peer = {NodeId(3), Incarnation(1)};
  m.access = static_cast<Access>(any(3));
  m.holding = static_cast<Holding>(any(4));
  m.version = {Epoch(any(3)), any(4)};
  m.flushed = {Epoch(any(3)), any(4)};
  m.grant_epoch = Epoch(any(4));
  m.active = any(2) == 0;
  m.exclusive = any(2) == 0;
  m.owner = any(2) == 0;
  m.retain = any(2) == 0;
  if (any(2) == 0) m.data = std::make_shared<PageBytes>();
  return m;
}

// A CHECK would end the test.
TEST(CacheMachine, NothingThatAConfusedNodeSendsEndsTheProcess) {
  std::mt19937 random(1);
  for (int run = 0; run < 20'000; ++run) {
    CacheEntry e = EntryIn(static_cast<S>(run % kCacheStates));
    if (e.HasRead() && run % 5 == 0) ++e.shared_pins;
    for (int i = 0; i < 20; ++i) {
      std::vector<CacheEffect> effects;
      StepCacheMessage(e, AnyMessage(random), kHome, Context(100 + 10 * i), effects);
      StepCacheUnblocked(e, Context(105 + 10 * i), effects);
    }
  }
}

TEST(CacheMachine, EveryCellOfTheTableDoesWhatItSays) {
  for (int s = 0; s < kCacheStates; ++s) {
    for (int v = 0; v < kCacheEvents; ++v) {
      const auto state = static_cast<S>(s);
      const auto event = static_cast<E>(v);
      SCOPED_TRACE(std::string(Name(event)) + " in " + Name(state));
      const A action = kCacheTable[s][v];
      const bool local = event == E::kWantRead || event == E::kWantWrite || event == E::kWantMove ||
                         event == E::kWantEvict || event == E::kCancel;
      ASSERT_TRUE(Consistent(EntryIn(state)));
      local ? VisitLocal(state, event, action) : VisitMessage(state, event, action);
    }
  }
}

}  // namespace
}  // namespace mangrove
