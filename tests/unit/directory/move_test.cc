// A page that its owner has no room for moves to a node that has: both machines' part.
// Covers: G10, G12

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "directory/cache_machine.h"
#include "tests/unit/directory/cache_machine_support.h"
#include "tests/unit/directory/responsible_machine_support.h"

namespace mangrove {
namespace {

using S = CacheState;
using K = MessageKind;

struct Cache {
  CacheEntry e;
  std::string did;
  Message said;  // The last.

  explicit Cache(S state) : e(EntryIn(state)) {}
  void Hear(const Message& m, bool may_move = true, NodeId from = kHome) {
    std::vector<CacheEffect> effects;
    CacheContext context = Context();
    context.may_move = may_move;
    StepCacheMessage(e, m, from, context, effects);
    Note(effects);
    if (e.retained && e.retained->data == nullptr) e.retained->data = SomePage();
  }
  void Want(CacheEvent what) {
    std::vector<CacheEffect> effects;
    StepCacheLocal(e, kPage, what, Context(), effects);
    Note(effects);
  }
  void Note(const std::vector<CacheEffect>& effects) {
    did = Text(effects);
    for (const CacheEffect& effect : effects) {
      if (effect.kind != CacheEffect::Kind::kWake) said = effect.message;
    }
  }
};

Message MoveGrant() {
  Message grant = Grant(Access::kMove);
  grant.flushed = {Epoch(3), 7};
  grant.replicas = 2;
  return grant;
}

TEST(CacheMachine, OfferedPageIsSentAsItIsAndKeptUntilItHasArrived) {
  for (const S state : {S::kOwned, S::kExclusive, S::kEvicting}) {
    Cache c(state);
    Message forward = Forward(Access::kMove);
    forward.exclusive = true;
    c.Hear(forward);
    EXPECT_EQ(c.did, "TakeRetain, retained Grant->3");
    EXPECT_EQ(c.said.version, kCurrent);
    EXPECT_TRUE(c.said.exclusive);
    EXPECT_EQ(c.said.version == c.said.flushed, state == S::kEvicting);  // It was dirty otherwise.
    EXPECT_TRUE(c.e.retained && c.e.retained->owner);
    c.Hear(forward);  // Again, since the grant was lost.
    EXPECT_EQ(c.did, "retained Grant->3");
    c.Hear(About(K::kTransferDone, 11));
    EXPECT_EQ(c.did, "TransferDropped->1");
  }
}

TEST(CacheMachine, PageThatIsUsedAgainIsNotMoved) {
  for (const S state : {S::kOwned, S::kOwnedWait}) {
    for (const bool pinned : {false, true}) {
      Cache c(state);
      c.e.shared_pins = pinned ? 1 : 0;
      c.Hear(Forward(Access::kMove), pinned || state == S::kOwnedWait);
      EXPECT_EQ(c.did, "GrantRefused->1");
      EXPECT_EQ(c.e.state, state);
    }
  }
}

// The responsible node may have ended that transaction, and begun another for the same request.
TEST(CacheMachine, PageThatWasNotMovedIsNotMovedInTheSameTransactionLater) {
  Cache c(S::kOwned);
  c.Hear(Forward(Access::kMove), false);
  c.Hear(Forward(Access::kMove), true);
  EXPECT_EQ(c.did, "GrantRefused->1");
  c.Hear(Forward(Access::kMove, 12), true);
  EXPECT_EQ(c.did, "TakeRetain, retained Grant->3");
}

TEST(CacheMachine, MovedPageHasTheVersionAndTheDisksItHad) {
  for (const bool dirty : {false, true}) {
    for (const S state : {S::kInvalid, S::kShared}) {
      Cache c(state);
      c.Want(CacheEvent::kWantMove);
      ASSERT_EQ(c.did, "Request->1");
      ASSERT_EQ(c.said.access, Access::kMove);
      Message grant = MoveGrant();
      grant.request = c.e.request;
      if (!dirty) grant.flushed = grant.version;
      c.Hear(grant, false, NodeId(3));
      EXPECT_EQ(c.did, state == S::kInvalid ? "Install, GrantAck->1, Wake" : "GrantAck->1, Wake");
      EXPECT_EQ(c.e.state, S::kOwned);
      EXPECT_EQ(c.e.version, grant.version);
      EXPECT_EQ(c.e.flushed, grant.flushed);
      EXPECT_EQ(c.e.IsDirty(), dirty);
      EXPECT_EQ(c.e.CanDrop(), !dirty);
    }
  }
}

TEST(CacheMachine, MovedPageThatNobodyElseHasIsWrittenWithoutAsking) {
  Cache c(S::kInvalid);
  c.Want(CacheEvent::kWantMove);
  Message grant = MoveGrant();
  grant.request = c.e.request;
  grant.exclusive = true;
  c.Hear(grant, false, NodeId(3));
  EXPECT_EQ(c.e.state, S::kExclusive);
  EXPECT_FALSE(c.e.open);
  c.Want(CacheEvent::kWantWrite);
  EXPECT_EQ(c.did, "Raise, Wake");
  EXPECT_GT(c.e.version, grant.version);
}

TEST(CacheMachine, SharerThatIsToBeTheOwnerHasWhatTheDisksHave) {
  Cache c(S::kShared);
  Message resolve = Resolve(Holding::kOwner);
  resolve.version = {};
  resolve.complete = true;
  c.Hear(resolve);
  EXPECT_EQ(c.did, "ResolveAck->1");
  EXPECT_EQ(c.e.state, S::kOwned);
  EXPECT_EQ(c.e.version, kCurrent);
  EXPECT_FALSE(c.e.IsDirty());
}

}  // namespace

namespace home_test {
namespace {

Home OwnedAndShared() {
  Home h;
  h.e.state = S::kOwned;
  h.e.owner = kOwner;
  h.e.sharers = {kSharer};
  return h;
}

TEST(ResponsibleNode, MovedPageKeepsItsSharers) {
  Home h = OwnedAndShared();
  h.Hear(Request(Access::kMove), kAsker);
  EXPECT_EQ(h.did, "Arm, Forward->2");
  EXPECT_TRUE(h.effects.back().message.active);
  EXPECT_FALSE(h.effects.back().message.exclusive);
  h.Answer(K::kGrantAck, kAsker);
  EXPECT_EQ(h.did, "TransferDone->2");
  EXPECT_EQ(h.e.owner, kAsker);
  EXPECT_TRUE(h.Shares(kSharer));
  ASSERT_EQ(h.e.Work().keepers.size(), 1u);
}

TEST(ResponsibleNode, PageMovesToASharerThatHasItAloneThen) {
  Home h = OwnedAndShared();
  h.Hear(Request(Access::kMove, 5, true), kSharer);
  EXPECT_EQ(h.did, "Arm, Forward->2");
  EXPECT_TRUE(h.effects.back().message.exclusive);
  h.Answer(K::kGrantAck, kSharer);
  EXPECT_EQ(h.e.owner, kSharer);
  EXPECT_TRUE(h.e.sharers.empty());
}

TEST(ResponsibleNode, OwnerThatKeepsThePageEndsTheMove) {
  Home h = OwnedAndShared();
  h.Hear(Request(Access::kMove), kAsker);
  h.Answer(K::kGrantRefused, kSharer);
  EXPECT_FALSE(h.event.has_value());
  h.Answer(K::kGrantRefused, kOwner);
  EXPECT_EQ(h.did, "RequestFailed->4");
  EXPECT_EQ(h.e.owner, kOwner);
}

TEST(ResponsibleNode, OfferThatIsTakenTooLateIsRefused) {
  Home h;
  h.Hear(Request(Access::kMove), kAsker);
  EXPECT_EQ(h.did, "RequestFailed->4");
  EXPECT_EQ(h.e.state, S::kUnowned);
}

// It may have written under the move.
TEST(ResponsibleNode, LossOfWhomAPageMovesToIsTheLossOfAnOwner) {
  Home h = OwnedAndShared();
  h.Hear(Request(Access::kMove), kAsker);
  h.Lose(kAsker);
  EXPECT_EQ(h.did, "Arm, Report->2, Report->3");
}

Home SharedWithoutOwner() {
  Home h;
  h.e.clean = true;
  h.e.sharers = {kSharer, kAsker};
  return h;
}

TEST(ResponsibleNode, PageThatOnlySharersHaveComesFromOneOfThem) {
  Home h = SharedWithoutOwner();
  h.Hear(Request(Access::kRead), kFarOff);
  EXPECT_EQ(h.did, "Arm, Resolve->3");
  EXPECT_EQ(h.effects.back().message.holding, Holding::kOwner);
  EXPECT_TRUE(h.effects.back().message.complete);
  h.Answer(K::kResolveAck, kSharer);
  EXPECT_EQ(h.did, "Arm, Forward->3");
  EXPECT_EQ(h.e.owner, kSharer);
  EXPECT_FALSE(h.Shares(kSharer));
}

TEST(ResponsibleNode, SharersThatHaveDroppedTheirCopiesAreForgotten) {
  Home h = SharedWithoutOwner();
  h.Hear(Request(Access::kWrite), kFarOff);
  h.Answer(K::kNotHeld, kSharer);
  EXPECT_EQ(h.did, "Arm, Resolve->4");
  h.Answer(K::kNotHeld, kAsker);
  EXPECT_EQ(h.did, "Arm, Load");
  EXPECT_TRUE(h.e.sharers.empty());
}

TEST(ResponsibleNode, LossOfASharerThatIsToBeTheOwnerIsNone) {
  Home h = SharedWithoutOwner();
  h.Hear(Request(Access::kRead), kFarOff);
  h.Lose(kSharer);
  EXPECT_EQ(h.did, "Arm, Resolve->4");
  EXPECT_FALSE(h.e.reverting);
}

TEST(ResponsibleNode, SharersOfAPageWhoseDisksMayDifferAreNotAsked) {
  Home h = SharedWithoutOwner();
  h.e.clean = false;
  h.Hear(Request(Access::kRead), kFarOff);
  EXPECT_EQ(h.did, "Arm, LoadRecover");
}

}  // namespace
}  // namespace home_test
}  // namespace mangrove
