// The rules of the responsible node's machine, and its races.

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "tests/unit/directory/responsible_machine_support.h"

namespace mangrove::home_test {
namespace {

Home Owned() {
  Home h;
  h.e.state = S::kOwned;
  h.e.owner = kOwner;
  return h;
}

TEST(ResponsibleNode, SecondWriterWaitsForEveryInvalidateAck) {
  Home h = Owned();
  constexpr NodeInstance kAnother{NodeId(5), Incarnation(1)};
  h.e.sharers = {kSharer, kAnother};
  h.Hear(Request(Access::kWrite), kAsker);
  EXPECT_EQ(h.did, "Arm, Invalidate->3, Invalidate->5, Forward->2");
  EXPECT_FALSE(h.effects.back().message.active);
  h.Answer(K::kInvalidateAck, kSharer);
  EXPECT_EQ(h.did, "");
  h.Answer(K::kInvalidateAck, kSharer);  // Doubled.
  EXPECT_FALSE(h.event.has_value());
  h.Answer(K::kInvalidateAck, kAnother);
  EXPECT_EQ(h.did, "Activate->4");
  h.Answer(K::kGrantAck, kAsker);
  EXPECT_EQ(h.did, "TransferDone->2, TransferDone->5");
  EXPECT_EQ(h.e.owner, kAsker);
  EXPECT_TRUE(h.e.sharers.empty());
}

TEST(ResponsibleNode, UpgradeWaitsForTheOwnerToo) {
  Home h = Owned();
  h.e.sharers = {kSharer, kAsker};
  h.Hear(Request(Access::kWrite, 5, true), kAsker);
  EXPECT_EQ(h.did, "Arm, Invalidate->3, Invalidate->2");
  EXPECT_TRUE(h.effects.back().message.retain);
  h.Answer(K::kInvalidateAck, kOwner);
  EXPECT_EQ(h.did, "");
  h.Answer(K::kInvalidateAck, kSharer);
  EXPECT_EQ(h.did, "Grant->4");
  EXPECT_EQ(h.effects.back().message.data, nullptr);
}

TEST(ResponsibleNode, UpgradeOfWhomThisNodeDoesNotKnowAsASharerGetsThePage) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite, 5, true), kAsker);
  EXPECT_EQ(h.did, "Arm, Forward->2");
}

TEST(ResponsibleNode, RequestsAreServedOneAfterTheOther) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite, 5), kAsker);
  h.Hear(Request(Access::kRead, 6), kSharer);
  EXPECT_EQ(h.did, "");
  h.Hear(Request(Access::kRead, 6), kSharer);
  EXPECT_EQ(h.did, "Delayed->3");
  EXPECT_EQ(h.effects[0].message.peer, kOwner);
  h.Answer(K::kGrantAck, kAsker);
  EXPECT_EQ(h.did, "TransferDone->2, Arm, Forward->4");
}

TEST(ResponsibleNode, RequesterHurriesWhenOthersWait) {
  Home h = Owned();
  h.Hear(Request(Access::kRead), kAsker);
  EXPECT_FALSE(h.effects.back().message.hurry);
  h.Hear(Request(Access::kRead, 6), kSharer);
  h.Hear(Request(Access::kWrite, 7), kFarOff);
  h.Answer(K::kGrantAck, kAsker);
  ASSERT_EQ(h.did, "Arm, Forward->2");
  EXPECT_TRUE(h.effects.back().message.hurry);
}

TEST(ResponsibleNode, AnswerOfAnEarlierTransactionIsIgnored) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Hear(About(K::kGrantAck, Txn(1)), kAsker);
  EXPECT_FALSE(h.event.has_value());
  h.Hear(About(K::kGrantAck, h.e.txn()->id), kSharer);
  EXPECT_FALSE(h.event.has_value());
  EXPECT_EQ(h.e.state, S::kGranting);
}

TEST(ResponsibleNode, RefusedGrantGivesThePageBackToItsOwner) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Answer(K::kGrantRefused, kAsker);
  EXPECT_EQ(h.did, "TransferAborted->2");
  EXPECT_EQ(h.e.owner, kOwner);
}

TEST(ResponsibleNode, SecondKeeperIsASharerAgainAfterAnAbort) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kWrite), kAsker);
  EXPECT_TRUE(h.effects[1].message.retain);
  h.Answer(K::kInvalidateAck, kSharer);
  h.Answer(K::kGrantRefused, kAsker);
  EXPECT_EQ(h.did, "TransferAborted->2, TransferAborted->3");
  EXPECT_TRUE(h.Shares(kSharer));
}

TEST(ResponsibleNode, RequesterLostAfterAnActiveGrantLeadsToRecovery) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  ASSERT_TRUE(h.e.txn()->active);
  h.Lose(kAsker);
  EXPECT_EQ(h.did, "Arm, Report->2");
  h.Answer(K::kReported, kOwner, Holding::kRetained, {Epoch(3), 5});
  EXPECT_EQ(h.did, "LoadVersion");
}

TEST(ResponsibleNode, RequesterLostBeforeItsGrantCountedIsForgotten) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kWrite), kAsker);
  ASSERT_FALSE(h.e.txn()->active);
  h.Lose(kAsker);
  EXPECT_EQ(h.did, "TransferAborted->2, TransferAborted->3");
  EXPECT_EQ(h.e.owner, kOwner);
  EXPECT_TRUE(h.Shares(kSharer));
}

TEST(ResponsibleNode, SharerLostIsNotWaitedFor) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kWrite), kAsker);
  h.Lose(kSharer);
  EXPECT_EQ(h.did, "Activate->4");
}

// A recovery that asks owner, sharer and whoever asked, after the loss of the owner.
Home Recovering(Version of_sharer, Holding holding = Holding::kShared) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Lose(kOwner);
  EXPECT_EQ(h.did, "Arm, Report->3");
  h.Answer(K::kReported, kSharer, holding, of_sharer);
  return h;
}

TEST(ResponsibleNode, DiskNewerThanTheRetainedCopyWins) {
  Home h = Recovering({Epoch(3), 5}, Holding::kRetained);
  EXPECT_EQ(h.did, "LoadVersion");
  h.Load({Epoch(3), 6});
  EXPECT_EQ(h.did, "Arm, Resolve->3");
  EXPECT_EQ(h.effects.back().message.holding, Holding::kNone);
  h.Answer(K::kResolveAck, kSharer);
  EXPECT_EQ(h.e.state, S::kUnowned);
  EXPECT_FALSE(h.e.clean);
  h.Hear(Request(Access::kRead), kAsker);
  h.Load({Epoch(3), 6});
  EXPECT_EQ(h.did, "Reverted, Grant->4");  // There may have been a newer one yet.
}

TEST(ResponsibleNode, SurvivingCopyAsNewAsTheDiskBecomesTheOwnersUnderANewNumber) {
  Home h = Recovering({Epoch(3), 5});
  h.Load({Epoch(3), 5});
  EXPECT_EQ(h.did, "Arm, Resolve->3");  // Readers have what the owner had.
  EXPECT_EQ(h.effects.back().message.holding, Holding::kOwner);
  EXPECT_EQ(h.effects.back().message.version, (Version{Epoch(4), 1}));
  EXPECT_EQ(h.e.owner, kSharer);
}

TEST(ResponsibleNode, CopyFromBeforeThePageWasAllocatedAnewLosesToTheDisk) {
  Home h = Recovering({Epoch(3), 5});
  StepHomeLoaded(h.e, h.e.txn()->id, {.version = {}, .config = ConfigNumber(2), .replicas = 2, .data = nullptr},
                 h.Next(), h.effects);
  EXPECT_EQ(h.effects.back().message.holding, Holding::kNone);
}

TEST(ResponsibleNode, RecoveryWithoutALossDoesNotNumberBackwards) {
  Home h = Owned();
  h.e.sharers = {kSharer};
  h.Hear(Request(Access::kRead), kAsker);
  h.Answer(K::kNotHeld, kOwner);
  EXPECT_EQ(h.did, "Arm, Report->2, Report->3, Report->4");
  h.Answer(K::kReported, kOwner);
  h.Answer(K::kReported, kAsker);
  h.Answer(K::kReported, kSharer, Holding::kShared, {Epoch(3), 7});
  h.Load({Epoch(3), 7});
  EXPECT_LT((Version{Epoch(3), 7}), h.effects.back().message.version);
}

// The old owner, which has not heard yet that its transfer is done, has the newest version when the new one dies.
TEST(ResponsibleNode, WhoMayKeepAFrameOfAFinishedTransferIsAskedWhenTheNewOwnerDies) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Answer(K::kGrantAck, kAsker);
  EXPECT_EQ(h.did, "TransferDone->2");
  h.Lose(kAsker);
  EXPECT_EQ(h.did, "Arm, Report->2");
  h.Answer(K::kReported, kOwner, Holding::kRetained, {Epoch(3), 5});
  h.Load({Epoch(3), 4});
  EXPECT_EQ(h.did, "Arm, Reverted, Resolve->2");  // What the new owner may have written is lost.
  EXPECT_EQ(h.effects.back().message.holding, Holding::kOwner);
  EXPECT_EQ(h.e.owner, kOwner);
}

TEST(ResponsibleNode, WhoDroppedItsFrameOrHasThePageAgainOrDiedIsNotAsked) {
  Home h = Owned();
  const auto moves_to = [&h](NodeInstance to, uint64_t number) {
    h.Hear(Request(Access::kWrite, number), to);
    const Txn txn = h.e.txn()->id;
    h.Answer(K::kGrantAck, to);
    return txn;
  };
  const Txn first = moves_to(kAsker, 5);   // kOwner keeps.
  const Txn second = moves_to(kOwner, 6);  // kAsker keeps, kOwner has the page.
  const Txn third = moves_to(kSharer, 7);  // kAsker and kOwner keep.
  ASSERT_EQ(h.e.Work().keepers.size(), 2u);
  h.Hear(About(K::kTransferDropped, first), kOwner);  // Late: of the first time.
  EXPECT_EQ(h.e.Work().keepers.size(), 2u);
  h.Hear(About(K::kTransferDropped, second), kAsker);
  ASSERT_EQ(h.e.Work().keepers.size(), 1u);
  EXPECT_EQ(h.e.Work().keepers[0].txn, third);
  h.Lose(kOwner);
  EXPECT_TRUE(h.e.Work().keepers.empty());
  h.Lose(kSharer);
  EXPECT_EQ(h.e.state, S::kUnowned);
  EXPECT_TRUE(h.e.reverting);
}

TEST(ResponsibleNode, NothingLeftMeansTheDisksAndANewsOfIt) {
  Home h = Recovering({}, Holding::kNone);
  EXPECT_EQ(h.e.state, S::kUnowned);
  h.Hear(Request(Access::kRead), kAsker);
  EXPECT_EQ(h.did, "Arm, LoadRecover");
  h.Load({Epoch(3), 4});
  EXPECT_EQ(h.did, "Reverted, Grant->4");
}

TEST(ResponsibleNode, RetainedFrameIsNotDroppedWhileTheDisksAreCompared) {
  Home h = Recovering({Epoch(3), 5}, Holding::kRetained);
  ASSERT_EQ(h.e.state, S::kLoading);
  h.Hear(About(K::kStillRetained, Txn(40)), kSharer);
  EXPECT_EQ(h.did, "");
}

TEST(ResponsibleNode, DisksThatDoNotAnswerAreAskedAgain) {
  Home h = Recovering({Epoch(3), 5});
  h.LoadFails(absl::UnavailableError("away"));
  EXPECT_EQ(h.e.state, S::kReporting);
  h.Resend();
  EXPECT_EQ(h.did, "Arm, LoadVersion");
}

TEST(ResponsibleNode, ReporterLostWhileTheDisksAreComparedStartsAnew) {
  Home h = Recovering({Epoch(3), 5});
  const Txn before = h.e.txn()->id;
  h.Lose(kSharer);
  EXPECT_EQ(h.e.state, S::kUnowned);
  LoadedPage page{.version = {Epoch(3), 5}, .config = {}, .replicas = 2, .data = nullptr};
  StepHomeLoaded(h.e, before, page, h.Next(), h.effects);
  EXPECT_TRUE(h.effects.empty());
}

TEST(ResponsibleNode, LivingOwnerStaysTheOwnerWithoutANewNumber) {
  Home h = Owned();
  h.Hear(Request(Access::kWrite), kAsker);
  h.Lose(kOwner);
  EXPECT_EQ(h.did, "Arm, Report->4");
  h.Answer(K::kReported, kAsker, Holding::kOwner, {Epoch(3), 9});
  EXPECT_EQ(h.did, "Arm, Resolve->4");
  EXPECT_EQ(h.effects.back().message.version, Version{});
  h.Answer(K::kResolveAck, kAsker);
  EXPECT_EQ(h.e.owner, kAsker);
}

TEST(ResponsibleNode, NothingIsServedBeforeEveryMemberHasRegistered) {
  Home h;
  HomeContext context = h.Next();
  context.ready = false;
  StepHomeMessage(h.e, Request(Access::kRead), kAsker, context, h.effects);
  EXPECT_TRUE(h.effects.empty());
  Register(h.e, {.node = kOwner, .holding = Holding::kOwner, .version = {Epoch(2), 5}});
  Register(h.e, {.node = kSharer, .holding = Holding::kShared, .version = {Epoch(2), 5}});
  StepHomeReady(h.e, h.Next(), h.effects);
  EXPECT_EQ(Text(h.effects), "Arm, Forward->2");
  EXPECT_TRUE(h.Shares(kSharer));
}

TEST(ResponsibleNode, RegisteredTransferIsRecovered) {
  Home h;
  Register(h.e, {.node = kOwner, .holding = Holding::kRetained, .version = {Epoch(2), 5}});
  Register(h.e, {.node = kAsker, .holding = Holding::kOwner, .version = {Epoch(2), 6}});
  StepHomeReady(h.e, h.Next(), h.effects);
  EXPECT_EQ(Text(h.effects), "Arm, Report->2, Report->4");
}

TEST(ResponsibleNode, EvictedPageIsCleanAndAKeptOneStaysOwned) {
  Home h = Owned();
  h.Hear(About(K::kEvictRequest, {}), kOwner);
  Message kept = About(K::kEvictAck, h.e.txn()->id);
  kept.kept = true;
  h.Hear(kept, kOwner);
  EXPECT_EQ(h.e.owner, kOwner);
  h.Hear(About(K::kEvictRequest, {}), kOwner);
  const Message dropped = About(K::kEvictAck, h.e.txn()->id);
  h.Hear(dropped, kOwner);
  EXPECT_EQ(h.e.state, S::kUnowned);
  h.Hear(Request(Access::kRead), kAsker);
  EXPECT_EQ(h.did, "Arm, Load");
}

TEST(ResponsibleNode, CorruptDisksMakeThePageLostForAllWhoWait) {
  Home h;
  h.Hear(Request(Access::kRead, 5), kAsker);
  h.Hear(Request(Access::kRead, 6), kSharer);
  h.LoadFails(absl::DataLossError("corrupt"));
  EXPECT_EQ(h.did, "RequestFailed->4, Lost, RequestFailed->3");
  EXPECT_EQ(h.e.state, S::kLost);
}

TEST(ResponsibleNode, WhoeverComesToALostPageHasTheDisksAskedAgain) {
  Home h;
  h.Hear(Request(Access::kRead, 5), kAsker);
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  h.Hear(Request(Access::kRead, 6), kAsker);
  EXPECT_EQ(h.did, "Arm, LoadRecover");
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  EXPECT_EQ(h.did, "RequestFailed->4");  // Everybody knows it already.
  EXPECT_EQ(h.e.state, S::kLost);
  h.Hear(About(K::kFlush, {}), kAsker);
  EXPECT_EQ(h.did, "Arm, LoadRecover");
  h.Load(Version{});
  EXPECT_EQ(h.did, "Flushed->4");
  EXPECT_EQ(h.e.state, S::kUnowned);
}

TEST(ResponsibleNode, ALostPageStaysSoWhileADiskCannotSayOtherwise) {
  Home h;
  h.Hear(Request(Access::kRead, 5), kAsker);
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  h.Hear(Request(Access::kRead, 6), kAsker);
  h.Hear(Request(Access::kRead, 7), kSharer);
  h.LoadFails(absl::UnavailableError("a disk is away"));
  EXPECT_EQ(h.did, "RequestFailed->4, RequestFailed->3");
  EXPECT_EQ(h.e.state, S::kLost);
}

// Nobody owned the page, and its only sharer was away when every disk that had it was lost.
Home LostButForTheSharer() {
  Home h;
  h.e.clean = true;
  h.e.sharers = SharerTable().With({}, kSharer);
  h.up = {kAsker.node};
  h.Hear(Request(Access::kRead, 5), kAsker);
  EXPECT_EQ(h.did, "Arm, Load");
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  EXPECT_EQ(h.did, "RequestFailed->4, Lost");
  return h;
}

constexpr Version kShared{Epoch(2), 5};

TEST(ResponsibleNode, ALostPageComesFromASharerThatIsThereAgain) {
  Home h = LostButForTheSharer();
  h.Hear(Request(Access::kRead, 6), kAsker);
  EXPECT_EQ(h.did, "Arm, Load");
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  h.up.insert(kSharer.node);
  h.Hear(Request(Access::kRead, 7), kAsker);
  EXPECT_EQ(h.did, "Arm, Report->3");
  h.Answer(K::kReported, kSharer, Holding::kShared, kShared);
  EXPECT_EQ(h.did, "LoadVersion");
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  EXPECT_EQ(h.did, "Arm, Resolve->3");
  EXPECT_LT(kShared, h.effects.back().message.version);  // So that it can be flushed.
  h.Answer(K::kResolveAck, kSharer);
  EXPECT_EQ(h.did, "Arm, Forward->3");
}

TEST(ResponsibleNode, ALostPageComesFromTheSharerThatWantsToWriteOrFlushIt) {
  for (const bool writes : {false, true}) {
    Home h = LostButForTheSharer();
    h.up.insert(kSharer.node);
    h.Hear(writes ? Request(Access::kWrite, 6, /*have=*/true) : About(K::kFlush, {}), kSharer);
    EXPECT_EQ(h.did, "Arm, Report->3");
    h.Answer(K::kReported, kSharer, Holding::kShared, kShared);
    h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
    h.Answer(K::kResolveAck, kSharer);
    EXPECT_EQ(h.did, writes ? "Arm, Grant->3" : "Flush->3");
  }
}

TEST(ResponsibleNode, ALostPageIsLostStillWhenItsSharerHasDroppedItsCopy) {
  Home h = LostButForTheSharer();
  h.up.insert(kSharer.node);
  h.Hear(Request(Access::kRead, 6), kAsker);
  h.Answer(K::kReported, kSharer);
  EXPECT_EQ(h.did, "Arm, Load");
  EXPECT_FALSE(h.Shares(kSharer));
  h.LoadFails(absl::UnavailableError("a disk is away"));
  EXPECT_EQ(h.did, "RequestFailed->4");
  EXPECT_EQ(h.e.state, S::kLost);
}

// What it had in RAM went with its incarnation.
TEST(ResponsibleNode, ALostPageDoesNotComeFromASharerThatHasLeftTheView) {
  Home h = LostButForTheSharer();
  h.Lose(kSharer);
  h.up.insert(kSharer.node);
  h.Hear(Request(Access::kRead, 6), kAsker);
  EXPECT_EQ(h.did, "Arm, Load");
}

// Who takes the page over asks all members before it serves it: so a copy that one has is known, whatever the disks have.
TEST(ResponsibleNode, ACopyThatIsRegisteredIsServedThoughNoDiskHasThePage) {
  Home h;
  Register(h.e, {.node = kSharer, .holding = Holding::kShared, .version = kShared});
  StepHomeReady(h.e, h.Next(), h.effects);
  h.Answer(K::kReported, kSharer, Holding::kShared, kShared);
  EXPECT_EQ(h.did, "LoadVersion");
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  EXPECT_EQ(h.did, "Arm, Resolve->3");
  EXPECT_EQ(h.e.owner, kSharer);
}

TEST(ResponsibleNode, ALostPageIsNotMovedForRoom) {
  Home h;
  h.Hear(Request(Access::kRead, 5), kAsker);
  h.LoadFails(absl::DataLossError("each of its core holders has lost its disk"));
  h.Hear(Request(Access::kMove, 6), kAsker);
  EXPECT_EQ(h.did, "RequestFailed->4");
  EXPECT_EQ(h.e.state, S::kLost);
}

}  // namespace
}  // namespace mangrove::home_test
