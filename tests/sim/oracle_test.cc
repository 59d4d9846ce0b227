// Each rule of the oracle, with a breach made by hand that it must see, and what looks like one and is none.

#include "tests/sim/oracle.h"

#include <array>
#include <memory>
#include <string>

#include "gtest/gtest.h"

namespace mangrove::sim {
namespace {

constexpr PageRange kOracleRange{PageId(1000), 4};
constexpr PageId kPage{1000};
constexpr int kNodes = 3;

class OracleTest : public testing::Test {
 protected:
  OracleTest() : world_(1), oracle_(&world_) {
    oracle_.Manage(kOracleRange);
    for (int node = 0; node < kNodes; ++node) Up(node);
    oracle_.BeginAllocate(kOracleRange);
    oracle_.EndAllocate(kOracleRange, absl::OkStatus());
  }

  void Up(int node) {
    Pass();
    SimMemoryOptions options;
    options.inline_per_mille = 1000;
    memories_[static_cast<size_t>(node)] = std::make_unique<SimMemory>(&world_, node, ++lives_, options, &oracle_);
    oracle_.OnNodeUp(node);
  }
  void Down(int node) {
    Pass();
    oracle_.OnNodeDown(node);
  }
  // An event passes, so that births and deaths are told apart.
  void Pass() {
    world_.After(1, kNoNode, EventKind::kCheck, [] {});
    world_.Step();
  }
  SimMemory& At(int node) { return *memories_[static_cast<size_t>(node)]; }
  void Install(int node, Rights rights, const PageBuffer& data = nullptr) {
    At(node).Install(kPage, data ? data->bytes.data() : nullptr, rights);
  }
  // Stores, and returns a copy of what is then in the page.
  PageBuffer Store(int node) {
    const Stamp stamp = oracle_.NextStamp(node, 1);
    At(node).ApplicationStore(kPage, stamp);
    auto copy = std::make_shared<PageBytes>();
    FillPage(kPage, stamp, copy->bytes.data());
    return copy;
  }
  PageBuffer Take(int node, bool keep = true) {
    PageBuffer result;
    At(node).Take(kPage, keep, [&](PageBuffer data) { result = std::move(data); });
    return result;
  }
  // The node that asked for it died before the answer.
  void LeaveAllocationOpen() {
    oracle_.BeginUnallocate(kOracleRange);
    oracle_.EndUnallocate(kOracleRange, absl::OkStatus());
    oracle_.BeginAllocate(kOracleRange);
    oracle_.EndAllocate(kOracleRange, absl::UnavailableError("died"));
  }
  void Refuse() {
    const PageRange one{kPage, 1};
    oracle_.CheckAnswer("acquire", 1, one, oracle_.StateOf(one), absl::FailedPreconditionError("not allocated"));
  }
  void Flush() { oracle_.EndFlush(oracle_.BeginFlush(0, kOracleRange), absl::OkStatus()); }

  void ExpectSound() {
    oracle_.AfterEvent();
    EXPECT_EQ(world_.failure(), "");
  }
  void ExpectBreach(const std::string& rule) {
    oracle_.AfterEvent();
    EXPECT_NE(world_.failure().find(rule), std::string::npos) << "failure: " << world_.failure();
  }

  SimWorld world_;
  Oracle oracle_;
  uint64_t lives_ = 0;
  std::array<std::unique_ptr<SimMemory>, kNodes> memories_;
};

// --- O1 ---------------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, ManyReadersAreSound) {
  for (int node = 0; node < kNodes; ++node) Install(node, Rights::kRead);
  ExpectSound();
}

TEST_F(OracleTest, SeesTwoWriters) {
  Install(0, Rights::kWrite);
  Install(1, Rights::kWrite);
  ExpectBreach("O1");
}

TEST_F(OracleTest, SeesAReaderBesideAWriter) {
  Install(0, Rights::kRead);
  Install(1, Rights::kRead);
  oracle_.AfterEvent();
  At(1).Raise(kPage);
  ExpectBreach("O1");
}

TEST_F(OracleTest, SeesTwoWritersOfAPageThatNoProgramUses) {
  At(0).Install(PageId(5), nullptr, Rights::kWrite);
  At(1).Install(PageId(5), nullptr, Rights::kWrite);
  ExpectBreach("O1");
}

// --- O2 ---------------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, TheLastStoreMovesOn) {
  Install(0, Rights::kWrite);
  Store(0);
  Store(0);
  Install(1, Rights::kRead, Take(0));
  At(1).ApplicationLoad(kPage);
  ExpectSound();
}

TEST_F(OracleTest, SeesAnOlderVersion) {
  Install(0, Rights::kWrite);
  const PageBuffer old = Store(0);
  Store(0);
  Take(0);
  Install(1, Rights::kRead, old);
  ExpectBreach("O2");
}

TEST_F(OracleTest, SeesAReaderWhoseCopyWasLeftBehind) {
  Install(0, Rights::kRead);
  Install(1, Rights::kWrite);  // Breaks O1 as well; the load must be seen for itself.
  Store(1);
  At(0).ApplicationLoad(kPage);
  ExpectBreach("O2");
}

TEST_F(OracleTest, SeesZerosInsteadOfWhatWasStored) {
  Install(0, Rights::kWrite);
  Store(0);
  Take(0);
  Install(1, Rights::kRead);
  ExpectBreach("O2");
}

TEST_F(OracleTest, SeesATornPage) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  const PageBuffer second = Store(0);
  auto torn = std::make_shared<PageBytes>(*second);
  std::copy(first->bytes.begin() + 2048, first->bytes.end(), torn->bytes.begin() + 2048);
  Take(0);
  Install(1, Rights::kRead, torn);
  ExpectBreach("torn");
}

TEST_F(OracleTest, SeesAnotherPagesContent) {
  Install(0, Rights::kWrite);
  const PageBuffer data = Store(0);
  At(1).Install(kPage + 1, data->bytes.data(), Rights::kRead);
  ExpectBreach("O2");
}

// --- O3 ---------------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, ADeadWritersStoresMayBeLostAndTheFirstLookDecides) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  Store(0);
  Down(0);
  Install(1, Rights::kRead, first);
  Install(2, Rights::kRead, first);
  ExpectSound();
  EXPECT_EQ(oracle_.reverts(), 1u);
}

TEST_F(OracleTest, SeesTwoAnswersAfterACrash) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  const PageBuffer second = Store(0);
  Down(0);
  Install(1, Rights::kRead, first);
  Install(2, Rights::kRead, second);
  ExpectBreach("O2");
}

TEST_F(OracleTest, SeesALossThatASurvivorsCopyForbids) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  const PageBuffer second = Store(0);
  At(0).Protect(kPage, [] {});
  Install(1, Rights::kRead, second);
  Down(0);
  Install(2, Rights::kRead, first);
  ExpectBreach("O2");
}

TEST_F(OracleTest, TheLastReadersCopyMayBeDroppedAfterItsOwnersDeath) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  const PageBuffer second = Store(0);
  At(0).Protect(kPage, [] {});
  Install(1, Rights::kRead, second);
  Down(0);
  Take(1, /*keep=*/false);
  Install(2, Rights::kRead, first);
  ExpectSound();
}

TEST_F(OracleTest, SeesALossWhenOnlyTheReceiverOfATransferDied) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  Store(0);
  Take(0);  // On its way to node 1, who never installs it.
  Down(1);
  Install(2, Rights::kRead, first);
  ExpectBreach("O2");
}

TEST_F(OracleTest, SeesALossWithoutAnyCrash) {
  Install(0, Rights::kWrite);
  Store(0);
  Take(0, /*keep=*/false);
  Install(1, Rights::kRead);
  ExpectBreach("O2");
}

// --- O4, O5 -----------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, SeesTheLossOfWhatWasFlushed) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  Store(0);
  Flush();
  Store(0);
  Down(0);
  Install(1, Rights::kRead, first);
  ExpectBreach("O4");
}

TEST_F(OracleTest, WhatIsStoredDuringAFlushMayBeLost) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  const FlushTicket ticket = oracle_.BeginFlush(0, kOracleRange);
  Store(0);
  oracle_.EndFlush(ticket, absl::OkStatus());
  Down(0);
  Install(1, Rights::kRead, first);
  ExpectSound();
}

TEST_F(OracleTest, AFlushThatFailsPromisesNothing) {
  Install(0, Rights::kWrite);
  Store(0);
  oracle_.EndFlush(oracle_.BeginFlush(0, kOracleRange), absl::UnavailableError(""));
  Down(0);
  Install(1, Rights::kRead);
  ExpectSound();
}

TEST_F(OracleTest, SeesTimeRunBackwardsBetweenTwoDisks) {
  Install(0, Rights::kWrite);
  const PageBuffer first = Store(0);
  const PageBuffer second = Store(0);
  for (int node = 0; node < kNodes; ++node) Down(node);
  for (int node = 0; node < kNodes; ++node) Up(node);
  Install(1, Rights::kRead, second);  // It can only have come from a disk.
  Down(1);
  Install(2, Rights::kRead, first);
  ExpectBreach("O4");
}

// --- O6 ---------------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, SharedLocksGoTogether) {
  for (int node = 0; node < 2; ++node) {
    Install(node, Rights::kRead);
    oracle_.OnLocked(node, 1, {kPage, 1}, LockMode::kShared);
  }
  oracle_.OnUnlocked(0, 1, {kPage, 1}, LockMode::kShared);
  Take(0, false);
  ExpectSound();
}

TEST_F(OracleTest, SeesALockThatAnotherExcludes) {
  Install(0, Rights::kRead);
  oracle_.OnLocked(0, 1, {kPage, 1}, LockMode::kShared);
  oracle_.OnLocked(0, 2, {kPage, 1}, LockMode::kExclusive);
  ExpectBreach("O6");
}

TEST_F(OracleTest, SeesALockedPageTakenAway) {
  Install(0, Rights::kWrite);
  oracle_.OnLocked(0, 1, {kPage, 1}, LockMode::kExclusive);
  Take(0);
  ExpectBreach("O6");
}

TEST_F(OracleTest, SeesAReaderOfAnExclusivelyLockedPage) {
  Install(0, Rights::kWrite);
  oracle_.OnLocked(0, 1, {kPage, 1}, LockMode::kExclusive);
  At(0).Protect(kPage, [] {});
  ExpectSound();  // For a flush.
  Install(1, Rights::kRead);
  ExpectBreach("O6");
}

TEST_F(OracleTest, SeesALockWithoutThePage) {
  oracle_.OnLocked(0, 1, {kPage, 1}, LockMode::kShared);
  ExpectBreach("O6");
}

TEST_F(OracleTest, LocksDieWithTheirNode) {
  Install(0, Rights::kWrite);
  oracle_.OnLocked(0, 1, {kPage, 1}, LockMode::kExclusive);
  Down(0);
  Install(1, Rights::kWrite);
  oracle_.OnLocked(1, 1, {kPage, 1}, LockMode::kExclusive);
  ExpectSound();
}

// --- O7 ---------------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, SeesAFreedPageStillInUse) {
  Install(0, Rights::kRead);
  oracle_.BeginUnallocate(kOracleRange);
  oracle_.EndUnallocate(kOracleRange, absl::OkStatus());
  ExpectBreach("O7");
}

TEST_F(OracleTest, SeesAFreePageInstalled) {
  oracle_.BeginUnallocate(kOracleRange);
  oracle_.EndUnallocate(kOracleRange, absl::OkStatus());
  ExpectSound();
  Install(0, Rights::kRead);
  ExpectBreach("O7");
}

TEST_F(OracleTest, SeesContentFromBeforeTheAllocation) {
  Install(0, Rights::kWrite);
  const PageBuffer old = Store(0);
  oracle_.BeginUnallocate(kOracleRange);
  Take(0, false);
  oracle_.EndUnallocate(kOracleRange, absl::OkStatus());
  oracle_.BeginAllocate(kOracleRange);
  oracle_.EndAllocate(kOracleRange, absl::OkStatus());
  ExpectSound();
  Install(0, Rights::kRead, old);
  ExpectBreach("O2");
}

TEST_F(OracleTest, SeesAnAllocatedPageRefused) {
  const Oracle::RangeState before = oracle_.StateOf(kOracleRange);
  oracle_.CheckAnswer("acquire", 0, kOracleRange, before, absl::FailedPreconditionError("not allocated"));
  ExpectBreach("O7");
}

// An Allocate whose node died: whoever uses the page before that is known writes on sand.
TEST_F(OracleTest, WhatWasStoredInAnOpenAllocationMayGoOnceItWasRefused) {
  LeaveAllocationOpen();
  Install(0, Rights::kWrite);
  Store(0);
  Take(0, true);
  Refuse();
  ExpectSound();
  Install(1, Rights::kRead);
  ExpectSound();
}

TEST_F(OracleTest, SeesAnOpenAllocationForgetWhatItStored) {
  LeaveAllocationOpen();
  Install(0, Rights::kWrite);
  Store(0);
  Take(0, true);
  Install(1, Rights::kRead);
  ExpectBreach("O2");
}

TEST_F(OracleTest, ARefusalOfWhatWasFreedMeanwhileIsSound) {
  const Oracle::RangeState before = oracle_.StateOf(kOracleRange);
  oracle_.BeginUnallocate(kOracleRange);
  oracle_.EndUnallocate(kOracleRange, absl::OkStatus());
  oracle_.BeginAllocate(kOracleRange);
  oracle_.EndAllocate(kOracleRange, absl::OkStatus());
  oracle_.CheckAnswer("acquire", 0, kOracleRange, before, absl::FailedPreconditionError("not allocated"));
  ExpectSound();
}

TEST_F(OracleTest, SeesAnAnswerThatNoOneMayGive) {
  oracle_.CheckAnswer("flush", 0, kOracleRange, oracle_.StateOf(kOracleRange), absl::InternalError("what?"));
  ExpectBreach("unexpected answer");
}

// --- O8 ---------------------------------------------------------------------------------------------------------------

TEST_F(OracleTest, SeesAnOperationThatDoesNotEnd) {
  oracle_.BeginOperation(0, world_.now() + kSecond, "acquire", kOracleRange);
  world_.RunUntil(10 * kSecond);
  ExpectBreach("O8");
}

TEST_F(OracleTest, APausedNodesOperationMayEndLater) {
  const uint64_t id = oracle_.BeginOperation(0, world_.now() + kSecond, "acquire", kOracleRange);
  world_.Pause(0, world_.now() + 3 * kSecond, true);
  world_.RunUntil(world_.now() + 3 * kSecond + kMillisecond);
  oracle_.EndOperation(id);
  world_.RunUntil(10 * kSecond);
  ExpectSound();
}

TEST_F(OracleTest, OperationsDieWithTheirNode) {
  oracle_.BeginOperation(0, world_.now() + kSecond, "acquire", kOracleRange);
  Down(0);
  world_.RunUntil(10 * kSecond);
  ExpectSound();
}

}  // namespace
}  // namespace mangrove::sim
