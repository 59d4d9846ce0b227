// The rules of the cache's machine, and its races.

#include "directory/cache_machine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "tests/unit/directory/cache_machine_support.h"

namespace mangrove {
namespace {

using E = CacheEvent;
using S = CacheState;
using K = MessageKind;

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

TEST(CacheMachine, WhatTheDisksLackIsDirtyAndIsNotDropped) {
  Cache c(S::kWaitRead);
  Message grant = Grant(Access::kRead);
  grant.owner = true;
  grant.flushed = {};
  c.Hear(grant);
  ASSERT_EQ(c.e.state, S::kOwned);
  EXPECT_TRUE(c.e.IsDirty());
  EXPECT_FALSE(c.e.CanDrop());
  NoteFlushed(c.e, c.e.version, c.e.config);
  EXPECT_TRUE(c.e.CanDrop());
  c.Want(E::kWantEvict);
  c.Hear(About(K::kEvictGrant, 12));
  EXPECT_EQ(c.did, "Take, EvictAck->1");
}

// The number may come again after the page was allocated anew.
TEST(CacheMachine, WrittenPageIsNotTakenForWhatOnceCameFromDisk) {
  constexpr TimeNs kMuchLater = 1'000'000'000;
  Cache c(S::kWaitRead);
  Message grant = Grant(Access::kRead);
  grant.owner = true;
  grant.exclusive = true;
  grant.version = grant.flushed = {Epoch(3), 1};
  c.Hear(grant);
  ASSERT_TRUE(c.e.CanDrop());
  c.Hear(Invalidate(false), kHome, kMuchLater);
  c.Want(E::kWantWrite);
  Message zeros = Grant(Access::kWrite, true, 12, c.e.request);
  zeros.owner = true;
  zeros.version = zeros.flushed = {};
  zeros.grant_epoch = Epoch(3);
  zeros.data = nullptr;
  c.Hear(zeros);
  ASSERT_EQ(c.e.version, (Version{Epoch(3), 1}));
  EXPECT_FALSE(c.e.CanDrop());
  NoteFlushed(c.e, c.e.version, ConfigNumber(c.e.config.value + 1));  // A flush from before.
  EXPECT_TRUE(c.e.IsDirty());
  c.Hear(Forward(Access::kRead, 13), kHome, kMuchLater);  // Ends the writing.
  EXPECT_FALSE(c.e.CanDrop());
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

TEST(CacheMachine, AcknowledgementOfAGrantWaitsForCompanyUnlessOthersWaitForThePage) {
  for (const bool hurry : {false, true}) {
    Cache c(S::kWaitRead);
    Message grant = Grant(Access::kRead);
    grant.hurry = hurry;
    c.Hear(grant);
    const auto ack = std::find_if(c.effects.begin(), c.effects.end(),
                                  [](const CacheEffect& e) { return e.message.kind == K::kGrantAck; });
    ASSERT_NE(ack, c.effects.end());
    EXPECT_EQ(ack->kind, hurry ? CacheEffect::Kind::kSend : CacheEffect::Kind::kSendLate);
  }
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
  EXPECT_EQ(c.did, "TransferDropped->1");
  EXPECT_EQ(c.effects.back().message.txn, Txn(11));
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
  NoteFlushed(c.e, kCurrent, c.e.config);
  EXPECT_FALSE(c.e.IsDirty());
  c.Want(E::kWantWrite);
  EXPECT_EQ(c.did, "Raise, Wake");
  EXPECT_EQ(c.e.version, (Version{Epoch(3), 6}));
  NoteFlushed(c.e, kCurrent, c.e.config);  // A doubled answer.
  EXPECT_TRUE(c.e.IsDirty());
}

}  // namespace
}  // namespace mangrove
