#include "directory/cache_machine.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mangrove {
namespace {

using A = CacheAction;
using E = CacheEvent;
using S = CacheState;
using K = MessageKind;

constexpr PageId kPage{7};
constexpr NodeId kHome{1};
constexpr NodeInstance kSelf{NodeId(2), Incarnation(1)};
constexpr NodeInstance kOther{NodeId(3), Incarnation(1)};
constexpr Txn kApplied{10};
constexpr RequestId kOutstanding{77};
constexpr Version kCurrent{Epoch(3), 5};

PageBuffer SomePage() {
  static const PageBuffer page = std::make_shared<const PageBytes>();
  return page;
}

// --- A cell of the table: an entry in the row's state, an event of the column -----------------------------------------

bool IsWaitState(S s) { return s == S::kWaitRead || s == S::kWaitWrite || s == S::kSharedWait || s == S::kOwnedWait; }
bool HoldsNothing(S s) { return s == S::kInvalid || s == S::kWaitRead || s == S::kWaitWrite; }

CacheEntry EntryIn(S state) {
  CacheEntry e;
  e.state = state;
  e.txn = kApplied;
  if (!HoldsNothing(state)) {
    e.version = kCurrent;
    e.flushed = state == S::kEvicting ? kCurrent : Version{Epoch(3), 4};
    e.grant_epoch = Epoch(3);
    e.replicas = 2;
  }
  if (state == S::kExclusive) e.open = true;
  if (IsWaitState(state)) {
    e.request = kOutstanding;
    e.wanted = state == S::kWaitRead ? Access::kRead : Access::kWrite;
  }
  return e;
}

void Retain(CacheEntry& e, bool owner = true) {
  e.retained = CacheEntry::Retained{.txn = kApplied,
                                    .version = kCurrent,
                                    .flushed = {Epoch(3), 4},
                                    .grant_epoch = Epoch(3),
                                    .requester = kOther,
                                    .request = RequestId(5),
                                    .owner = owner,
                                    .data = SomePage(),
                                    .answer = {}};
  e.retained->answer.kind = K::kGrant;
  e.retained->answer.txn = kApplied;
}

Message Revocation(K kind, uint64_t txn) {
  Message m;
  m.kind = kind;
  m.page = kPage;
  m.txn = Txn(txn);
  m.request = RequestId(5);
  m.peer = kOther;
  m.grant_epoch = Epoch(4);
  return m;
}

Message Forward(Access access, uint64_t txn = 11) {
  Message m = Revocation(K::kForward, txn);
  m.access = access;
  return m;
}

Message Invalidate(bool retain, uint64_t txn = 11) {
  Message m = Revocation(K::kInvalidate, txn);
  m.retain = retain;
  return m;
}

Message Resolve(Holding holding, uint64_t txn = 11) {
  Message m = Revocation(K::kResolve, txn);
  m.holding = holding;
  m.version = {Epoch(4), 1};
  return m;
}

Message Grant(Access access, bool active = true, uint64_t txn = 11, RequestId request = kOutstanding) {
  Message m = Revocation(K::kGrant, txn);
  m.request = request;
  m.access = access;
  m.active = active;
  m.version = {Epoch(3), 8};
  m.flushed = {Epoch(3), 8};
  m.data = SomePage();
  return m;
}

Message About(K kind, uint64_t txn, RequestId request = kOutstanding) {
  Message m = Revocation(kind, txn);
  m.request = request;
  return m;
}

CacheContext Context(TimeNs now = 100) {
  return {.self = kSelf, .responsible = kHome, .now = now, .hold = 10, .next_request = RequestId(78), .bugs = nullptr};
}

std::string Text(const std::vector<CacheEffect>& effects) {
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
      case Kind::kSend: text += message; break;
      case Kind::kSendFrame: text += "frame " + message; break;
      case Kind::kSendRetained: text += "retained " + message; break;
      case Kind::kWake: text += "Wake"; break;
      case Kind::kFail: text += "Fail"; break;
      case Kind::kHoldTimer: text += "HoldTimer"; break;
    }
  }
  return text;
}

// The message that is the column's event, if that is no local one. Changes the entry where the column asks for it.
std::optional<Message> MessageOf(E event, CacheEntry& e) {
  switch (event) {
    case E::kForwardRead: return Forward(Access::kRead);
    case E::kForwardWrite: return Forward(Access::kWrite);
    case E::kInvalidate: return Invalidate(false);
    case E::kInvalidateRetain: return Invalidate(true);
    case E::kBlocked: e.hold_until = 200; return Forward(Access::kWrite);
    case E::kResend:
      if (HoldsNothing(e.state)) Retain(e);
      return Forward(Access::kWrite);
    case E::kGrantRead: return Grant(Access::kRead);
    case E::kGrantWrite: return Grant(Access::kWrite);
    case E::kGrantPending: return Grant(Access::kWrite, false);
    case E::kActivate: return About(K::kActivate, 11);
    case E::kGrantOther: return Grant(Access::kRead, true, 11, RequestId(1));
    case E::kFailed: return About(K::kRequestFailed, 0);
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

Outcome Expected(A action, const CacheEntry& e) {
  const S s = e.state;
  switch (action) {
    case A::kIgnore: return {s, ""};
    case A::kWake: return {s, "Wake"};
    case A::kRequestRead: return {S::kWaitRead, "Request->1"};
    case A::kRequestWrite:
      return {s == S::kInvalid  ? S::kWaitWrite
              : s == S::kShared ? S::kSharedWait
                                : S::kOwnedWait,
              "Request->1"};
    case A::kOpen: return {s, e.open ? "Wake" : "Raise, Wake"};
    case A::kDropSilently: return {S::kInvalid, "Take"};
    case A::kAskEvict: return {S::kEvicting, "EvictRequest->1"};
    case A::kInstallRead: return {S::kShared, "Install, GrantAck->1, Wake"};
    case A::kInstallWrite:
      return {S::kExclusive, HoldsNothing(s) ? "InstallWrite, GrantAck->1, Wake" : "Raise, GrantAck->1, Wake"};
    case A::kKeepPending:
    case A::kActivatePending: return {s, ""};
    case A::kAnswerOther: return {s, "GrantRefused->1"};
    case A::kFailWaiters: return {WithoutRequest(s), "Fail"};
    case A::kForgetRequest: return {WithoutRequest(s), ""};
    case A::kDropRetained: return {s, ""};
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

// Cells that are impossible only as long as the responsible node keeps to the protocol: ProtocolModel looks for a history
// that leads there.
bool IsRuledOutByProtocol(S state, E event) {
  const bool owner = state == S::kOwned || state == S::kExclusive || state == S::kOwnedWait || state == S::kEvicting;
  return (state == S::kExclusive && event == E::kInvalidateRetain) || (owner && event == E::kResolveShared);
}

void VisitLocal(S state, E event, A action) {
  CacheEntry e = EntryIn(state);
  if (event == E::kWantEvict && action == A::kAskEvict) {
    e.flushed = e.version;  // REQUIRES: clean.
    e.open = false;
  }
  const Outcome expected = Expected(action, e);
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
  if (IsRuledOutByProtocol(state, event)) {
    EXPECT_DEATH(StepCacheMessage(e, message, kHome, Context(), effects), "impossible");
    return;
  }
  const std::optional<E> classified = StepCacheMessage(e, message, kHome, Context(), effects);
  EXPECT_TRUE(Consistent(e));
  if (action == A::kImpossible) {
    EXPECT_NE(classified, event);
    return;
  }
  ASSERT_EQ(classified, event);
  const Outcome expected = Expected(action, before);
  EXPECT_EQ(std::string(Name(e.state)), Name(expected.state));
  EXPECT_EQ(Text(effects), expected.effects);
  ExpectRest(action, before, e);
}

TEST(CacheMachine, EveryCellOfTheTableDoesWhatItSays) {
  for (int s = 0; s < kCacheStates; ++s) {
    for (int v = 0; v < kCacheEvents; ++v) {
      const auto state = static_cast<S>(s);
      const auto event = static_cast<E>(v);
      SCOPED_TRACE(std::string(Name(event)) + " in " + Name(state));
      const A action = kCacheTable[s][v];
      const bool local =
          event == E::kWantRead || event == E::kWantWrite || event == E::kWantEvict || event == E::kCancel;
      ASSERT_TRUE(Consistent(EntryIn(state)));
      local ? VisitLocal(state, event, action) : VisitMessage(state, event, action);
    }
  }
}

// --- Rules and races --------------------------------------------------------------------------------------------------

// An entry, and what its last step did.
struct Cache {
  CacheEntry e;
  std::string did;
  std::optional<E> event;
  std::vector<CacheEffect> effects;

  explicit Cache(S state) : e(EntryIn(state)) {}
  void Hear(const Message& m, NodeId from = kHome, TimeNs now = 100) {
    effects.clear();
    event = StepCacheMessage(e, m, from, Context(now), effects);
    did = Text(effects);
    if (e.retained && e.retained->data == nullptr) e.retained->data = SomePage();
  }
  void Want(E what) {
    effects.clear();
    StepCacheLocal(e, kPage, what, Context(), effects);
    did = Text(effects);
  }
  void Unblock(TimeNs now) {
    effects.clear();
    StepCacheUnblocked(e, Context(now), effects);
    did = Text(effects);
  }
};

TEST(CacheMachine, StaleRevocationIsIgnored) {
  for (const Message& m : {Forward(Access::kWrite, 9), Invalidate(false, 9), About(K::kEvictGrant, 9),
                           About(K::kReport, 9), Resolve(Holding::kNone, 9)}) {
    Cache c(S::kOwned);
    c.Hear(m);
    EXPECT_FALSE(c.event.has_value()) << Name(m.kind);
    EXPECT_EQ(c.e.state, S::kOwned);
    EXPECT_EQ(c.did, "");
  }
}

TEST(CacheMachine, RevocationByAnotherThanTheResponsibleNodeIsIgnored) {
  Cache c(S::kOwned);
  c.Hear(Invalidate(false), NodeId(3));
  EXPECT_FALSE(c.event.has_value());
  EXPECT_EQ(c.e.state, S::kOwned);
}

TEST(CacheMachine, ForwardMeetsAnEvictionThatWasAskedFor) {
  Cache c(S::kEvicting);
  c.Hear(Forward(Access::kWrite));
  EXPECT_EQ(c.did, "TakeRetain, retained Grant->3");
  c.Hear(About(K::kEvictGrant, 12));  // The question was asked before the transfer, which was aborted meanwhile.
  EXPECT_EQ(c.did, "Install, Wake, EvictAck->1");
  EXPECT_TRUE(c.effects.back().message.kept);
  EXPECT_EQ(c.e.state, S::kOwned);
  c.Hear(About(K::kTransferAborted, 11));
  EXPECT_FALSE(c.event.has_value());
}

TEST(CacheMachine, PinKeepsAPageThatAskedToBeEvicted) {
  Cache c(S::kEvicting);
  c.e.shared_pins = 1;
  c.Hear(About(K::kEvictGrant, 11));
  EXPECT_EQ(c.did, "EvictAck->1");
  EXPECT_TRUE(c.effects.back().message.kept);
  EXPECT_EQ(c.e.state, S::kOwned);
}

TEST(CacheMachine, RefusedEvictGrantThatIsDoubledAnswersNoLaterQuestion) {
  Cache c(S::kEvicting);
  c.Want(E::kWantWrite);
  c.Hear(About(K::kEvictGrant, 11));
  EXPECT_TRUE(c.effects.back().message.kept);
  c.Want(E::kCancel);
  c.Want(E::kWantEvict);
  ASSERT_EQ(c.e.state, S::kEvicting);
  c.Hear(About(K::kEvictGrant, 11));
  EXPECT_TRUE(c.effects.back().message.kept);
  EXPECT_TRUE(c.e.HasRead());
  c.Hear(About(K::kEvictGrant, 12));
  EXPECT_EQ(c.did, "Take, EvictAck->1");
  EXPECT_FALSE(c.effects.back().message.kept);
}

TEST(CacheMachine, UpgradeMeetsAnInvalidation) {
  Cache c(S::kSharedWait);
  c.Hear(Invalidate(false));
  EXPECT_EQ(c.did, "Take, InvalidateAck->1");
  EXPECT_EQ(c.e.state, S::kWaitWrite);
  EXPECT_FALSE(OutstandingRequest(c.e, kPage).have);
  // The grant was made for the copy that is gone.
  Message grant = Grant(Access::kWrite, true, 12);
  grant.data = nullptr;
  c.Hear(grant);
  EXPECT_EQ(c.did, "GrantRefused->1");
  EXPECT_EQ(c.e.state, S::kWaitWrite);
}

TEST(CacheMachine, PinnedPageDefersAnInvalidationUntilTheLastPinIsGone) {
  Cache c(S::kShared);
  c.e.shared_pins = 2;
  c.Hear(Invalidate(false));
  EXPECT_EQ(c.event, E::kBlocked);
  EXPECT_EQ(c.did, "");
  c.e.shared_pins = 1;
  c.Unblock(100);
  EXPECT_EQ(c.did, "");
  c.e.shared_pins = 0;
  c.Unblock(100);
  EXPECT_EQ(c.did, "Take, InvalidateAck->1");
}

TEST(CacheMachine, SharedPinLetsAReadCopyGoAndKeepsTheWriterOut) {
  Cache c(S::kOwned);
  c.e.shared_pins = 1;
  c.Hear(Forward(Access::kRead));
  EXPECT_EQ(c.did, "frame Grant->3");
  c.Hear(Forward(Access::kWrite, 12));
  EXPECT_EQ(c.event, E::kBlocked);
}

TEST(CacheMachine, DeferredRevocationIsReplacedByANewerOne) {
  Cache c(S::kOwned);
  c.e.shared_pins = 1;
  c.Hear(Forward(Access::kWrite, 12));
  c.Hear(Invalidate(true, 11));  // Late.
  ASSERT_TRUE(c.e.deferred.has_value());
  EXPECT_EQ(c.e.deferred->txn, Txn(12));
}

TEST(CacheMachine, CopyStaysForItsHoldTime) {
  Cache c(S::kWaitRead);
  c.Hear(Grant(Access::kRead), NodeId(3), 100);
  EXPECT_EQ(c.e.state, S::kShared);
  c.Hear(Invalidate(false, 12), kHome, 105);
  EXPECT_EQ(c.did, "HoldTimer");
  c.Unblock(110);
  EXPECT_EQ(c.did, "Take, InvalidateAck->1");
}

TEST(CacheMachine, DoubledGrantIsAcknowledgedAgainAndNotInstalledAgain) {
  Cache c(S::kWaitWrite);
  c.Hear(Grant(Access::kWrite), NodeId(3));
  EXPECT_EQ(c.did, "InstallWrite, GrantAck->1, Wake");
  const Version version = c.e.version;
  c.Hear(Grant(Access::kWrite), NodeId(3));
  EXPECT_EQ(c.did, "GrantAck->1");
  EXPECT_EQ(c.e.version, version);
}

TEST(CacheMachine, GrantAfterTheCopyWentAwayAgainIsRefused) {
  Cache c(S::kWaitRead);
  c.Hear(Grant(Access::kRead), NodeId(3));
  c.Want(E::kWantEvict);
  EXPECT_EQ(c.e.state, S::kInvalid);
  c.Hear(Grant(Access::kRead), NodeId(3));
  EXPECT_EQ(c.did, "GrantRefused->1");
}

TEST(CacheMachine, GrantAfterAReportIsRefused) {
  Cache c(S::kWaitWrite);
  c.Hear(Grant(Access::kWrite, false), NodeId(3));
  c.Hear(About(K::kReport, 12));
  EXPECT_EQ(c.did, "Reported->1, Request->1");
  EXPECT_EQ(c.effects[0].message.holding, Holding::kNone);
  EXPECT_EQ(c.e.request, RequestId(78));
  c.Hear(Grant(Access::kWrite), NodeId(3));
  EXPECT_EQ(c.did, "GrantRefused->1");
  c.Hear(About(K::kActivate, 11));
  EXPECT_EQ(c.did, "GrantRefused->1");
  EXPECT_EQ(c.e.state, S::kWaitWrite);
}

TEST(CacheMachine, ActivateBeforeTheData) {
  Cache c(S::kWaitWrite);
  c.Hear(About(K::kActivate, 11));
  EXPECT_EQ(c.did, "");
  c.Hear(Grant(Access::kWrite, false), NodeId(3));
  EXPECT_EQ(c.did, "InstallWrite, GrantAck->1, Wake");
  EXPECT_TRUE(c.e.open);
}

TEST(CacheMachine, ActivationOfAnOlderTransactionDoesNotCount) {
  Cache c(S::kWaitWrite);
  c.Hear(Grant(Access::kWrite, false, 12), NodeId(3));
  c.Hear(About(K::kActivate, 11));
  EXPECT_EQ(c.e.state, S::kWaitWrite);
  c.Hear(About(K::kActivate, 12));
  EXPECT_EQ(c.e.state, S::kExclusive);
}

TEST(CacheMachine, AbortedTransferGivesThePageBack) {
  Cache c(S::kOwned);
  c.Hear(Forward(Access::kWrite));
  ASSERT_TRUE(c.e.retained.has_value());
  EXPECT_EQ(HoldingOf(c.e), Holding::kRetained);
  c.Hear(About(K::kTransferAborted, 11));
  EXPECT_EQ(c.did, "Install, Wake");
  EXPECT_EQ(c.e.state, S::kOwned);
  EXPECT_EQ(c.e.version, kCurrent);
  EXPECT_TRUE(c.e.IsDirty());
}

TEST(CacheMachine, WhatWasGivenUpIsKeptUntilTheTransferIsDone) {
  Cache c(S::kExclusive);
  c.Hear(Forward(Access::kWrite));
  c.Hear(About(K::kTransferDone, 10));  // Of an earlier one.
  EXPECT_TRUE(c.e.retained.has_value());
  c.Hear(About(K::kTransferDone, 11), NodeId(3));  // By a stranger.
  EXPECT_TRUE(c.e.retained.has_value());
  c.Hear(About(K::kTransferDone, 11));
  EXPECT_FALSE(c.e.retained.has_value());
}

TEST(CacheMachine, SecondKeeperGetsItsReadCopyBackAndDoesNotBecomeTheOwner) {
  Cache c(S::kShared);
  c.Hear(Invalidate(true));
  EXPECT_EQ(c.did, "TakeRetain, InvalidateAck->1");
  c.Hear(Forward(Access::kWrite, 12));
  EXPECT_EQ(c.did, "NotHeld->1");
  c.Hear(About(K::kTransferAborted, 11));
  EXPECT_EQ(c.e.state, S::kShared);
}

TEST(CacheMachine, OwnerThatMissedTheAbortServesTheNextRequestFromWhatItRetained) {
  Cache c(S::kOwned);
  c.Hear(Forward(Access::kWrite));
  c.Hear(Forward(Access::kRead, 12));
  EXPECT_EQ(c.did, "Install, Wake, frame Grant->3");
  EXPECT_EQ(c.e.state, S::kOwned);
  EXPECT_FALSE(c.e.retained.has_value());
}

TEST(CacheMachine, OwnReadAfterAnAbortedTransferTakesTheRetainedFrameBack) {
  Cache c(S::kOwned);
  c.Hear(Forward(Access::kWrite));
  c.Want(E::kWantRead);
  Message grant = Grant(Access::kRead, true, 12, RequestId(78));
  grant.data = nullptr;
  c.Hear(grant);
  EXPECT_EQ(c.e.state, S::kOwned);
  EXPECT_EQ(c.e.version, kCurrent);
}

TEST(CacheMachine, StaleResolveChangesNothing) {
  Cache c(S::kWaitRead);
  c.Hear(Grant(Access::kRead, true, 12), NodeId(3));
  c.Hear(Resolve(Holding::kOwner, 11));
  EXPECT_FALSE(c.event.has_value());
  EXPECT_EQ(c.e.state, S::kShared);
}

TEST(CacheMachine, ReportedCopyIsNotDroppedBeforeItIsResolved) {
  Cache c(S::kShared);
  c.Hear(About(K::kReport, 11));
  c.Want(E::kWantEvict);
  EXPECT_EQ(c.e.state, S::kShared);
  c.Hear(Resolve(Holding::kOwner, 12));
  EXPECT_EQ(c.e.state, S::kOwned);
  EXPECT_EQ(c.e.version, (Version{Epoch(4), 1}));
  EXPECT_TRUE(c.e.IsDirty());
}

TEST(CacheMachine, PinnedCopyIsNotResolvedAwayUnderItsPin) {
  Cache c(S::kShared);
  c.e.shared_pins = 1;
  c.Hear(Resolve(Holding::kNone, 11));
  EXPECT_EQ(c.event, E::kBlocked);
  EXPECT_EQ(c.did, "");
  c.e.shared_pins = 0;
  c.Unblock(100);
  EXPECT_EQ(c.did, "Take, ResolveAck->1");
}

TEST(CacheMachine, NewIncarnationOfTheResponsibleNodeIsAskedAnew) {
  Cache c(S::kWaitWrite);
  c.Hear(Grant(Access::kWrite, false), NodeId(3));
  ForgetResponsible(c.e, Context());
  EXPECT_EQ(c.e.request, RequestId(78));
  EXPECT_EQ(c.e.txn, Txn(0));
  c.Hear(About(K::kActivate, 11));
  EXPECT_EQ(c.did, "GrantRefused->1");
  EXPECT_TRUE(Consistent(c.e));
}

TEST(CacheMachine, WriteAfterAFlushTakesTheNextVersion) {
  Cache c(S::kExclusive);
  c.e.open = false;  // As a flush freezes it.
  NoteFlushed(c.e, kCurrent);
  EXPECT_FALSE(c.e.IsDirty());
  c.Want(E::kWantWrite);
  EXPECT_EQ(c.did, "Raise, Wake");
  EXPECT_EQ(c.e.version, (Version{Epoch(3), 6}));
  NoteFlushed(c.e, kCurrent);  // A doubled answer.
  EXPECT_TRUE(c.e.IsDirty());
}

}  // namespace
}  // namespace mangrove
