// Pages that move to other disks, since other nodes are to keep them: engine/disks.h, engine/catch_up.h.
// Covers: C06, C08, G13

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <vector>

#include "tests/unit/engine/page_engine_disks.h"

namespace mangrove {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// Four nodes keep pages, each page on two of them.
class PageEngineMoves : public DisksTest {
 protected:
  static constexpr int kPages = 40;  // Of as many segments.

  PageEngineMoves() : DisksTest(4), first_(SegmentStart(kBase + 512 * kSegmentPages)) {
    CHECK(Put({first_, kPages * kSegmentPages}, 1, 2).ok());
  }
  PageId Page(int i) const { return first_ + static_cast<uint64_t>(i) * kSegmentPages; }
  void WriteAll(int plus) {
    for (int i = 0; i < kPages; ++i) {
      const absl::Status status = WriteAndFlush(1, Page(i), static_cast<uint8_t>(i + plus));
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  // They never come back, and others are to keep what they kept.
  void GiveUp(const std::vector<NodeId>& nodes) {
    ViewChange change;
    change.lost = change.unplace = nodes;
    cluster_.ChangeView(std::move(change));
  }
  bool HasMoved() const { return cluster_.view().next_disks.empty(); }
  void RunUntilMoved() {
    for (int i = 0; i < 400 && !HasMoved(); ++i) cluster_.RunFor(20 * kMillisecond);
    ASSERT_TRUE(HasMoved());
  }
  // On exactly the disks that keep it, and the same on each.
  void ExpectOnItsDisks(int plus) {
    for (int i = 0; i < kPages; ++i) {
      std::set<uint64_t> on;
      for (const NodeId holder : cluster_.locator().CoreHolders(Page(i), 2)) on.insert(holder.value);
      for (const uint64_t node : cluster_.running()) {
        EXPECT_EQ(ByteOnDisk(node, Page(i)), on.contains(node) ? i + plus : -1) << "page " << i << " on node " << node;
      }
    }
  }

  const PageId first_;
};

TEST_F(PageEngineMoves, WhatANodeKeptGoesToTheOthersAndNothingIsLeftThere) {
  WriteAll(3);
  cluster_.Place({1, 2, 4});
  EXPECT_FALSE(HasMoved());
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  ExpectOnItsDisks(3);
  EXPECT_GT(cluster_.engine(3).catch_up().pages_trimmed, 0U);
  cluster_.Leave(3);
  for (int i = 0; i < kPages; ++i) EXPECT_EQ(*cluster_.Read(1, Page(i)), i + 3);
}

TEST_F(PageEngineMoves, WhatIsFlushedMeanwhileIsOnBothSidesOfTheMove) {
  WriteAll(3);
  HoldLists(/*pages=*/true);
  cluster_.Place({1, 2, 4});
  cluster_.RunFor(100 * kMillisecond);
  ASSERT_FALSE(HasMoved());
  WriteAll(50);
  for (int i = 0; i < kPages; ++i) {
    for (const NodeId holder : cluster_.locator().CoreHolders(Page(i), 2)) {
      EXPECT_EQ(ByteOnDisk(holder.value, Page(i)), i + 50);
    }
    for (const NodeId holder : Locator({NodeId(1), NodeId(2), NodeId(4)}).CoreHolders(Page(i), 2)) {
      EXPECT_EQ(ByteOnDisk(holder.value, Page(i)), i + 50);
    }
  }
  cluster_.lost = nullptr;
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  ExpectOnItsDisks(50);
}

TEST_F(PageEngineMoves, OnlyWhatChangesItsPlaceIsCopied) {
  WriteAll(3);
  uint64_t changes = 0;
  const Locator next({NodeId(1), NodeId(2), NodeId(4)});
  for (int i = 0; i < kPages; ++i) {
    const std::vector<NodeId> holders = cluster_.locator().CoreHolders(Page(i), 2);
    if (std::find(holders.begin(), holders.end(), NodeId(3)) != holders.end()) ++changes;
  }
  cluster_.Place({1, 2, 4});
  RunUntilMoved();
  uint64_t copied = 0;
  for (const uint64_t node : {1, 2, 4}) copied += cluster_.engine(node).catch_up().pages_copied;
  EXPECT_GE(copied, changes);
  EXPECT_LE(copied, changes + 8);  // The system's pages.
}

TEST_F(PageEngineMoves, AMoveThatIsCalledOffLeavesEverythingWhereItWas) {
  WriteAll(3);
  HoldLists(/*pages=*/true);
  cluster_.Place({1, 2, 4});
  cluster_.RunFor(100 * kMillisecond);
  WriteAll(50);
  cluster_.Place({1, 2, 3, 4});
  EXPECT_TRUE(HasMoved());
  cluster_.lost = nullptr;
  cluster_.RunFor(2 * kSecond);
  ExpectOnItsDisks(50);
}

TEST_F(PageEngineMoves, WhoComesBackToKeepPagesGetsThemAndLosesWhatIsOld) {
  WriteAll(3);
  cluster_.Place({1, 2, 4});
  RunUntilMoved();
  // Deleting what it does not keep has not come far, perhaps.
  for (int i = 0; i < kPages; ++i) Plant(3, Page(i), 99);
  WriteAll(50);
  ASSERT_TRUE(Drop({Page(7), 1}).ok());
  cluster_.Place({1, 2, 3, 4});
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  for (int i = 0; i < kPages; ++i) {
    for (const NodeId holder : cluster_.locator().CoreHolders(Page(i), 2)) {
      EXPECT_EQ(ByteOnDisk(holder.value, Page(i)), i == 7 ? -1 : i + 50) << "page " << i;
    }
  }
}

TEST_F(PageEngineMoves, AMoveWaitsForWhoIsToKeepPagesAndIsAway) {
  WriteAll(3);
  HoldLists(/*pages=*/true);
  cluster_.Place({1, 2, 4});
  cluster_.Leave(4);
  cluster_.lost = nullptr;
  cluster_.RunFor(5 * kSecond);
  EXPECT_FALSE(HasMoved());
  Back(4);
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  ExpectOnItsDisks(3);
}

// What was asked of it before the move had ended is asked again under the new view.
TEST_F(PageEngineMoves, WhoKeepsAPageNoMoreDoesNotSayThatItIsZeros) {
  WriteAll(3);
  const Locator before = cluster_.locator();
  int page = 0;
  while (before.Primary(Page(page)) != NodeId(3)) ++page;
  cluster_.Place({1, 2, 4});
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  Message query;
  query.kind = MessageKind::kQueryStored;
  query.page = Page(page);
  query.request = RequestId(uint64_t{1} << 50);
  std::optional<Message> answer;
  cluster_.lost = [&](const Message& m) {
    if (m.kind == MessageKind::kStoredInfo && m.request == query.request) answer = m;
    return false;
  };
  cluster_.Inject(3, 1, query);
  cluster_.RunFor(kSecond);
  cluster_.lost = nullptr;
  ASSERT_TRUE(answer.has_value());
  EXPECT_TRUE(absl::IsUnavailable(answer->status())) << answer->status();
}

// Both disks of some pages go for ever.
TEST_F(PageEngineMoves, WhatOnlyLostDisksHadIsLostAndNotZeros) {
  WriteAll(3);
  LeaveTogether({3, 4});
  const Locator before = cluster_.locator();
  GiveUp({NodeId(3), NodeId(4)});
  RunUntilMoved();
  int gone = 0;
  for (int i = 0; i < kPages; ++i) {
    std::vector<NodeId> holders = before.CoreHolders(Page(i), 2);
    const bool is_lost = std::erase_if(holders, [](NodeId node) { return node.value > 2; }) == 2;
    Back(1);  // Nobody has it in RAM.
    Back(2);
    cluster_.RunFor(100 * kMillisecond);
    const absl::StatusOr<int> read = cluster_.Read(1, Page(i));
    if (is_lost) {
      ++gone;
      EXPECT_TRUE(absl::IsDataLoss(read.status())) << "page " << i << ": " << read.status();
    } else {
      ASSERT_TRUE(read.ok()) << "page " << i << ": " << read.status();
      EXPECT_EQ(*read, i + 3);
    }
  }
  EXPECT_GT(gone, 0);
}

// They are zeros once they are allocated anew, also for a disk that was learning of them from one that did not know.
TEST_F(PageEngineMoves, WhatIsAllocatedAnewMeanwhileIsNotLost) {
  WriteAll(3);
  LeaveTogether({3, 4});
  GiveUp({NodeId(3), NodeId(4)});
  RunUntilMoved();
  cluster_.Place({1});
  RunUntilMoved();
  HoldLists(/*pages=*/true);
  cluster_.Place({1, 2});
  cluster_.RunFor(100 * kMillisecond);
  const absl::Status allocated = Put({first_, kPages * kSegmentPages}, 2, 2);
  ASSERT_TRUE(allocated.ok()) << allocated;
  ASSERT_FALSE(HasMoved());
  cluster_.lost = nullptr;
  RunUntilMoved();
  LeaveTogether({1});
  for (int i = 0; i < kPages; ++i) {
    const absl::StatusOr<int> read = cluster_.Read(2, Page(i));
    ASSERT_TRUE(read.ok()) << "page " << i << ": " << read.status();
    EXPECT_EQ(*read, 0);
  }
}

// The only disk is lost while its pages move to two others, of which one has them already.
TEST_F(PageEngineMoves, WhatHasComeStaysThoughItsOnlyDiskIsGivenUp) {
  cluster_.Place({1});
  RunUntilMoved();
  WriteAll(3);
  cluster_.cut = {NodeId(3)};
  cluster_.Place({1, 2, 3});
  for (int i = 0; i < 100 && !cluster_.view().moved.contains(NodeId(2)); ++i) cluster_.RunFor(20 * kMillisecond);
  ASSERT_TRUE(cluster_.view().moved.contains(NodeId(2)));
  ASSERT_FALSE(HasMoved());
  std::set<int> at_node_2;
  for (int i = 0; i < kPages; ++i) {
    if (ByteOnDisk(2, Page(i)) == i + 3) at_node_2.insert(i);
  }
  EXPECT_GT(at_node_2.size(), 5u);
  LeaveTogether({1});
  GiveUp({NodeId(1)});
  cluster_.cut.clear();
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  for (const int i : at_node_2) {
    const absl::StatusOr<int> read = cluster_.Read(2, Page(i));
    ASSERT_TRUE(read.ok()) << "page " << i << ": " << read.status();
    EXPECT_EQ(*read, i + 3);
  }
}

// Each of the disks that are left is behind, and is to get pages that another one of them keeps.
TEST_F(PageEngineMoves, DisksThatAreAllBehindDoNotWaitForEachOthersPages) {
  WriteAll(3);
  LeaveTogether({4});
  HoldLists(/*pages=*/true);
  GiveUp({NodeId(4)});
  cluster_.RunFor(100 * kMillisecond);
  ASSERT_FALSE(HasMoved());
  LeaveTogether({1, 2, 3});
  cluster_.lost = nullptr;
  for (const uint64_t node : {1, 2, 3}) Back(node);
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  for (const uint64_t node : {1, 2, 3}) EXPECT_TRUE(IsCurrent(node)) << node;
  ExpectOnItsDisks(3);
}

// The same where one of them was away for longer than the others: it gets what it lacks before it gets what moves.
TEST_F(PageEngineMoves, TheLastToLeaveHasWhatTheOthersLackThoughItIsToGetPagesOfThem) {
  WriteAll(3);
  HoldLists(/*pages=*/true);
  cluster_.Place({1, 2, 4});
  cluster_.Leave(1);
  ASSERT_FALSE(HasMoved());
  for (int i = 0; i < kPages; ++i) {
    const absl::Status status = WriteAndFlush(2, Page(i), static_cast<uint8_t>(i + 50));
    ASSERT_TRUE(status.ok()) << status;
  }
  LeaveTogether({2, 3, 4});
  cluster_.lost = nullptr;
  for (const uint64_t node : {1, 2, 3, 4}) Back(node);
  RunUntilMoved();
  cluster_.RunFor(kSecond);
  ExpectOnItsDisks(50);
}

// A disk that is behind does not wait for one that never comes back.
TEST_F(PageEngineMoves, NobodyWaitsForALostDisk) {
  const PageId page = PageOn({2, 3});
  ASSERT_TRUE(WriteAndFlush(1, page, 8).ok());
  cluster_.Leave(2);
  ASSERT_TRUE(WriteAndFlush(1, page, 9).ok());
  LeaveTogether({1, 3, 4});
  Back(2);
  cluster_.RunFor(kSecond);
  EXPECT_THAT(WaitsFor(2), ElementsAre(NodeId(1), NodeId(3), NodeId(4)));
  Back(1);
  Back(4);
  cluster_.RunFor(kSecond);
  EXPECT_THAT(WaitsFor(2), ElementsAre(NodeId(3)));
  ViewChange lost;
  lost.lost = {NodeId(3)};
  cluster_.ChangeView(std::move(lost));
  cluster_.RunFor(2 * kSecond);
  EXPECT_TRUE(IsCurrent(2));
  EXPECT_THAT(WaitsFor(2), IsEmpty());
}

// One of a page's two disks cannot read it, and the other one, which is to keep it no more, is away for a moment.
class PageEngineMovesOfACorruptPage : public PageEngineMoves {
 protected:
  PageEngineMovesOfACorruptPage() : page_(PageOn({2, 3})) {
    CHECK(WriteAndFlush(1, page_, 8).ok());
    PlantLost(2, page_, VersionOnDisk(2, page_));
    cluster_.Leave(3);
    for (const uint64_t node : {1, 2, 4}) Back(node);  // Nothing is in RAM.
    cluster_.RunFor(kSecond);
    const std::vector<NodeId> next = Locator({NodeId(1), NodeId(2), NodeId(4)}).CoreHolders(page_, 2);
    gains_ = next[next[0] == NodeId(2) ? 1 : 0].value;
    cluster_.Place({1, 2, 4});
    cluster_.RunFor(2 * kSecond);
  }

  const PageId page_;
  uint64_t gains_ = 0;
};

TEST_F(PageEngineMovesOfACorruptPage, WaitsForTheDiskThatMayHaveIt) {
  EXPECT_FALSE(HasMoved());
  EXPECT_THAT(WaitsFor(gains_), ElementsAre(NodeId(3)));
  Back(3);
  RunUntilMoved();
  EXPECT_EQ(cluster_.engine(gains_).catch_up().pages_lost, 0u);
  EXPECT_EQ(ByteOnDisk(gains_, page_), 8);
  EXPECT_EQ(cluster_.Read(1, page_).value_or(-1), 8);
}

TEST_F(PageEngineMovesOfACorruptPage, DoesNotWaitForALostDisk) {
  ASSERT_FALSE(HasMoved());
  GiveUp({NodeId(3)});
  RunUntilMoved();
  EXPECT_EQ(cluster_.engine(gains_).catch_up().pages_lost, 1u);
  EXPECT_EQ(cluster_.Read(1, page_).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace mangrove
