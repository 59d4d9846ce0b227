// O11 and O12: what must be on disks once faults have ended, and at any time on those that are current, with each breach made by
// hand, and what looks like one and is none.

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/sim/oracle.h"

namespace mangrove::sim {
namespace {

constexpr PageId kCopied{1000};
constexpr PageRange kRange{kCopied, 1};
constexpr ConfigNumber kConfig{7};

class OracleCopiesTest : public testing::Test {
 protected:
  OracleCopiesTest() : world_(1), oracle_(&world_), memory_(&world_, 0, 1, {.inline_per_mille = 1000}, &oracle_) {
    oracle_.Manage(kRange);
    oracle_.OnNodeUp(0);
    Allocate();
    memory_.Install(kCopied, nullptr, Rights::kWrite);
    for (int node = 0; node < 3; ++node) {
      copies_.push_back({.node = node, .keeps = node < 2, .extent = Extent{.range = kRange, .config = kConfig}});
    }
  }

  void Allocate() {
    oracle_.BeginAllocate(kRange);
    oracle_.EndAllocate(kRange, absl::OkStatus());
  }
  PageBuffer Store() {
    const Stamp stamp = oracle_.NextStamp(0, 1);
    memory_.ApplicationStore(kCopied, stamp);
    auto copy = std::make_shared<PageBytes>();
    FillPage(kCopied, stamp, copy->bytes.data());
    return copy;
  }
  PageBuffer Flushed() {
    const PageBuffer data = Store();
    oracle_.EndFlush(oracle_.BeginFlush(0, kRange), absl::OkStatus());
    return data;
  }
  void Keep(size_t node, const PageBuffer& data, uint64_t version) {
    copies_[node].data = data;
    copies_[node].version = {Epoch(1), version};
    copies_[node].config = kConfig;
  }
  void KeepBoth(const PageBuffer& data, uint64_t version) {
    Keep(0, data, version);
    Keep(1, data, version);
  }
  std::string Check() {
    oracle_.CheckCopies([this](PageId page) { return page == kCopied ? copies_ : std::vector<DiskCopy>(); });
    return world_.failure();
  }
  void ExpectBreach(const std::string& what) { ExpectThat(Check(), "O11", what); }

  // While faults go on.
  std::string CheckCurrent() {
    oracle_.CheckCurrentCopies([this](PageId page) { return page == kCopied ? copies_ : std::vector<DiskCopy>(); });
    return world_.failure();
  }
  static void ExpectThat(const std::string& failure, const std::string& rule, const std::string& what) {
    EXPECT_NE(failure.find(rule), std::string::npos) << failure;
    EXPECT_NE(failure.find(what), std::string::npos) << failure;
  }

  SimWorld world_;
  Oracle oracle_;
  SimMemory memory_;
  std::vector<DiskCopy> copies_;
};

TEST_F(OracleCopiesTest, WhatWasNeverFlushedNeedsNoRecord) {
  Store();
  EXPECT_EQ(Check(), "");
}

TEST_F(OracleCopiesTest, EachCoreHolderHasWhatWasFlushed) {
  KeepBoth(Flushed(), 1);
  EXPECT_EQ(Check(), "");
}

TEST_F(OracleCopiesTest, OneMayHaveWhatIsNewer) {
  KeepBoth(Flushed(), 1);
  Keep(1, Store(), 2);
  EXPECT_EQ(Check(), "");
}

TEST_F(OracleCopiesTest, SeesThatOneHasNothing) {
  Keep(0, Flushed(), 1);
  ExpectBreach("node 2 has nothing of the page");
}

TEST_F(OracleCopiesTest, SeesThatOneHasAnOlderVersion) {
  KeepBoth(Flushed(), 1);
  Keep(0, Flushed(), 2);
  ExpectBreach("node 2 has version 1, and version 2 was flushed");
}

TEST_F(OracleCopiesTest, SeesOneVersionInTwoContents) {
  KeepBoth(Flushed(), 1);
  Keep(1, Store(), 1);
  ExpectBreach("other words");
}

TEST_F(OracleCopiesTest, SeesAPageThatBelongsElsewhere) {
  auto data = std::make_shared<PageBytes>();
  FillPage(kCopied + 1, oracle_.NextStamp(0, 1), data->bytes.data());
  KeepBoth(data, 1);
  ExpectBreach("torn");
}

TEST_F(OracleCopiesTest, SeesWhatDiedWithItsNode) {
  const PageBuffer flushed = Flushed();
  const PageBuffer lost = Store();
  Keep(0, flushed, 1);
  Keep(1, lost, 2);
  oracle_.OnNodeDown(0);
  oracle_.OnNodeUp(0);
  oracle_.OnInstall(0, kCopied, flushed->bytes.data(), Rights::kRead);
  ExpectBreach("node 2 has version 2, which died with its node");
}

TEST_F(OracleCopiesTest, SeesWhatWasWrittenBeforeTheAllocation) {
  KeepBoth(Flushed(), 1);
  memory_.Take(kCopied, /*keep=*/false, [](PageBuffer) {});
  oracle_.BeginUnallocate(kRange);
  oracle_.EndUnallocate(kRange, absl::OkStatus());
  Allocate();
  ExpectBreach("before the page was allocated anew");
}

TEST_F(OracleCopiesTest, SeesARecordOfAnotherConfiguration) {
  KeepBoth(Flushed(), 1);
  copies_[1].config = ConfigNumber(6);
  ExpectBreach("node 2 has a record of another configuration");
}

TEST_F(OracleCopiesTest, SeesAPageThatIsMarkedAsLost) {
  KeepBoth(Flushed(), 1);
  copies_[0].is_lost = true;
  ExpectBreach("node 1 has the page as lost");
}

TEST_F(OracleCopiesTest, SeesThatADiskKnowsOfNoExtent) {
  copies_[2].extent.reset();
  ExpectBreach("node 3 knows of no extent");
}

TEST_F(OracleCopiesTest, SeesAnExtentOfAFreePage) {
  memory_.Take(kCopied, /*keep=*/false, [](PageBuffer) {});
  oracle_.BeginUnallocate(kRange);
  oracle_.EndUnallocate(kRange, absl::OkStatus());
  for (size_t node = 1; node < 3; ++node) copies_[node].extent.reset();
  ExpectBreach("node 1 knows of an extent of a free page");
}

TEST_F(OracleCopiesTest, WhatWasDamagedIsLeftOut) {
  Keep(0, Flushed(), 1);
  copies_[1].is_damaged = true;
  EXPECT_EQ(Check(), "");
  copies_[1].is_damaged = false;
  oracle_.AllowLoss(kCopied);
  EXPECT_EQ(Check(), "");
}

TEST_F(OracleCopiesTest, APageMayBeLostWhereALaterVersionTookThePlaceOfTheOtherCopy) {
  Keep(0, Flushed(), 2);
  Keep(1, nullptr, 1);
  copies_[0].is_lost = copies_[0].is_current = true;
  copies_[1].is_damaged = copies_[1].is_current = true;
  EXPECT_EQ(CheckCurrent(), "");
  EXPECT_TRUE(oracle_.MayBeLost(kCopied));
}

TEST_F(OracleCopiesTest, NotWhereBothHadTheSame) {
  Keep(0, Flushed(), 1);
  Keep(1, nullptr, 1);
  copies_[0].is_lost = copies_[0].is_current = true;
  copies_[1].is_damaged = copies_[1].is_current = true;
  ExpectThat(CheckCurrent(), "O12", "node 1 has the page as lost");
}

TEST_F(OracleCopiesTest, DisksThatDoNotKeepThePageNeedNoRecordOfIt) {
  KeepBoth(Flushed(), 1);
  Keep(2, Flushed(), 2);
  KeepBoth(Flushed(), 3);
  EXPECT_EQ(Check(), "");
}

// --- O12 --------------------------------------------------------------------------------------------------------------

TEST_F(OracleCopiesTest, SeesThatADiskThatIsCurrentIsOlder) {
  KeepBoth(Flushed(), 1);
  Keep(0, Flushed(), 2);
  copies_[0].is_current = copies_[1].is_current = true;
  ExpectThat(CheckCurrent(), "O12", "node 2 has version 1, and version 2 was flushed");
}

TEST_F(OracleCopiesTest, SeesARecordOfAnotherConfigurationOnADiskThatIsCurrent) {
  KeepBoth(Flushed(), 1);
  copies_[1].config = ConfigNumber(6);
  copies_[1].is_current = true;
  ExpectThat(CheckCurrent(), "O12", "node 2 has a record of another configuration");
}

TEST_F(OracleCopiesTest, DisksThatAreNotCurrentMayHaveNothing) {
  Keep(0, Flushed(), 1);
  copies_[0].is_current = true;
  copies_[1].extent.reset();
  EXPECT_EQ(CheckCurrent(), "");
}

}  // namespace
}  // namespace mangrove::sim
