// Locks of files after nodes were lost that had them, or the pages that say so; rings of those who wait.
// Covers: F07, F08

#include "fs/locks/lock_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>
#include <vector>

#include "fs/status.h"
#include "tests/sim/fileset_test.h"

namespace mangrove::sim {
namespace {

constexpr fs::PageSpan kHeads{fs::LockTable::kPages.first, fs::LockTable::kBuckets};

class LockTableTest : public FilesetTest {
 protected:
  using Result = std::optional<absl::Status>;

  void SetUp() override {
    FilesetTest::SetUp();
    file_ = MakeOpen(0, "a").inode;
    MakeOpen(1, "b");
    Renew();
  }
  // What upkeep does when the node has heard of the view.
  void Renew() {
    RunUntil([&] {
      return std::all_of(homes_.begin(), homes_.end(), [&](const auto& home) {
        return cluster_.host(home.first).node->engine()->view().epoch == cluster_.NewestView().epoch;
      });
    });
    for (auto& [slot, home] : homes_) {
      const absl::Status status = On(slot, home.pages->lock_table().Renew());
      EXPECT_TRUE(status.ok()) << status;
    }
  }
  fs::FileLocks* LocksAt(int slot) { return homes_[slot].pages->locks(); }
  fs::FileLock LockOf(uint64_t owner, uint64_t first, uint64_t last = fs::FileLock::kEnd) const {
    return {.inode = file_, .owner = {.mount = 1, .id = owner}, .first = first, .last = last, .exclusive = true};
  }
  int Set(int slot, const fs::FileLock& lock) { return fs::ErrnoOf(On(slot, LocksAt(slot)->Set(lock, nullptr))); }
  bool Clear(int slot, const fs::FileLock& lock) { return On(slot, LocksAt(slot)->Clear(lock)).ok(); }
  std::shared_ptr<fs::LockWait> Wait(int slot, const fs::FileLock& lock, Result* result) {
    auto wait = std::make_shared<fs::LockWait>(cluster_.host(slot).clock.get());
    cluster_.host(slot).applets.Run(Into(LocksAt(slot)->Set(lock, wait), result));
    return wait;
  }
  void Pass(DurationNs time) { world_.RunUntil(world_.now() + time); }

  fs::InodeNumber file_;
};

TEST_F(LockTableTest, WhatOneNodeHasIsInTheWayOfTheOther) {
  EXPECT_EQ(Set(0, LockOf(1, 0, 9)), 0);
  EXPECT_EQ(Set(1, LockOf(1, 10, 19)), 0);
  EXPECT_EQ(Set(1, LockOf(1, 9, 9)), EAGAIN);
  const auto found = On(1, LocksAt(1)->Find(LockOf(1, 5)));
  ASSERT_TRUE(found.ok() && found->has_value());
  EXPECT_EQ((*found)->first, uint64_t{0});
  EXPECT_EQ((*found)->last, uint64_t{9});
  EXPECT_TRUE(Clear(0, (LockOf(1, 3, 20))));
  EXPECT_EQ(Set(1, LockOf(1, 3, 9)), 0);
  EXPECT_EQ(Set(1, LockOf(1, 2, 2)), EAGAIN);
}

TEST_F(LockTableTest, WhoWaitsIsToldByTheChange) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  Result result;
  Wait(1, LockOf(1, 0), &result);
  Pass(3 * kSecond);
  EXPECT_FALSE(result.has_value());
  const TimeNs freed = world_.now();
  EXPECT_TRUE(Clear(0, (LockOf(1, 0))));
  RunUntil([&] { return result.has_value(); });
  EXPECT_TRUE(result->ok()) << *result;
  EXPECT_LT(world_.now() - freed, 50 * kMillisecond);  // Not when it looks again by itself.
}

TEST_F(LockTableTest, ACancelledWaitEnds) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  Result result;
  const auto wait = Wait(1, LockOf(1, 0), &result);
  Pass(kSecond);
  wait->Cancel();
  RunUntil([&] { return result.has_value(); });
  EXPECT_EQ(fs::ErrnoOf(*result), EINTR);
}

TEST_F(LockTableTest, ALostNodeHasNone) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  Result result;
  Wait(1, LockOf(1, 0), &result);
  Pass(kSecond);
  EXPECT_FALSE(result.has_value());
  Lose(0);
  RunUntil([&] { return result.has_value(); });
  EXPECT_TRUE(result->ok()) << *result;
}

TEST_F(LockTableTest, WhatIsHeldStaysThoughThePageIsLostWithAnotherNode) {
  ASSERT_EQ(Set(0, LockOf(1, 0, 9)), 0);
  TakePages(2, kHeads);
  Lose(2);
  // As long as the first has not said what it holds nothing is given, and nothing is said not to be there.
  EXPECT_EQ(Set(1, LockOf(1, 0, 9)), ENOLCK);
  EXPECT_EQ(Set(1, LockOf(1, 20, 29)), ENOLCK);
  EXPECT_EQ(fs::ErrnoOf(On(1, LocksAt(1)->Find(LockOf(1, 0))).status()), ENOLCK);
  Renew();
  EXPECT_EQ(Set(1, LockOf(1, 9, 9)), EAGAIN);
  EXPECT_EQ(Set(1, LockOf(1, 20, 29)), 0);
}

TEST_F(LockTableTest, ANodeThatHasUnmountedKeepsNobodyWaiting) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  EXPECT_TRUE(On(0, At(0).EndUse()).ok());
  homes_.erase(0);
  EXPECT_EQ(Set(1, LockOf(1, 0)), 0);
  Lose(2);
  Renew();
  EXPECT_EQ(Set(1, LockOf(2, 5)), EAGAIN);
  EXPECT_TRUE(Clear(1, (LockOf(1, 0))));
  EXPECT_EQ(Set(1, LockOf(2, 5)), 0);
}

// Its mark stays, and what it had is nobody's any more.
TEST_F(LockTableTest, ANodeThatCouldNotUnmountInOrderMountsAgain) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  homes_.erase(0);
  Open(0);
  EXPECT_EQ(Set(1, LockOf(1, 0)), EAGAIN);
  Renew();
  EXPECT_EQ(Set(1, LockOf(1, 0)), 0);
  Lose(2);
  Renew();
  EXPECT_EQ(Set(0, LockOf(1, 0)), EAGAIN);
  EXPECT_TRUE(Clear(1, LockOf(1, 0)));
  EXPECT_EQ(Set(0, LockOf(1, 0)), 0);
}

TEST_F(LockTableTest, OfTwoWhoShareAFileAndBothWantItAloneOneHasIt) {
  fs::FileLock lock{.inode = file_, .kind = fs::LockKind::kFile, .owner = {.mount = 1, .id = 1}};
  ASSERT_EQ(Set(0, lock), 0);
  ASSERT_EQ(Set(1, lock), 0);
  lock.exclusive = true;
  Result first;
  Result second;
  Wait(0, lock, &first);
  Wait(1, lock, &second);
  RunUntil([&] { return first.has_value() || second.has_value(); });
  EXPECT_TRUE(Clear(first.has_value() ? 0 : 1, lock));
  RunUntil([&] { return first.has_value() && second.has_value(); });
  EXPECT_TRUE(first->ok() && second->ok());
}

TEST_F(LockTableTest, ARingOfThoseWhoWaitIsFound) {
  ASSERT_EQ(Set(0, LockOf(1, 0, 0)), 0);
  ASSERT_EQ(Set(1, LockOf(1, 1, 1)), 0);
  ASSERT_EQ(Set(1, LockOf(2, 2, 2)), 0);
  Result first;
  Result second;
  Wait(0, LockOf(1, 1, 1), &first);
  Pass(kSecond);
  Wait(1, LockOf(1, 2, 2), &second);
  Pass(kSecond);
  EXPECT_FALSE(first.has_value() || second.has_value());
  Result third;
  Wait(1, LockOf(2, 0, 0), &third);
  RunUntil([&] { return third.has_value(); });
  EXPECT_EQ(fs::ErrnoOf(*third), EDEADLK);
  EXPECT_FALSE(first.has_value() || second.has_value());
  EXPECT_TRUE(Clear(1, (LockOf(2, 0))));
  RunUntil([&] { return second.has_value(); });
  EXPECT_TRUE(Clear(1, (LockOf(1, 1, 1))));
  RunUntil([&] { return first.has_value(); });
  EXPECT_TRUE(first->ok() && second->ok());
}

TEST_F(LockTableTest, OfTooManyTheLastIsRefusedAndTheOthersStay) {
  uint64_t set = 0;
  int error = 0;
  while (error == 0 && set < 2'000) {
    error = Set(0, LockOf(set, 2 * set, 2 * set));
    if (error == 0) ++set;
  }
  EXPECT_EQ(error, ENOLCK);
  EXPECT_EQ(set, fs::LockTable::kPagesOfBucket * fs::kLocksOfPage);
  EXPECT_EQ(Set(1, LockOf(1, 0, 0)), EAGAIN);
  EXPECT_EQ(Set(1, LockOf(1, 2 * set - 2, 2 * set - 2)), EAGAIN);
  EXPECT_TRUE(Clear(0, (LockOf(7, 14, 14))));
  EXPECT_EQ(Set(1, LockOf(1, 14, 14)), 0);
}

TEST_F(LockTableTest, WhereThereIsNoRoomALockIsNotCutInTwo) {
  ASSERT_EQ(Set(0, LockOf(1, 0, 2)), 0);
  for (uint64_t i = 1; i < fs::LockTable::kPagesOfBucket * fs::kLocksOfPage; ++i) {
    ASSERT_EQ(Set(0, LockOf(i, 10 * i, 10 * i)), 0);
  }
  EXPECT_EQ(fs::ErrnoOf(On(0, LocksAt(0)->Clear(LockOf(1, 1, 1)))), ENOLCK);
  EXPECT_EQ(Set(1, LockOf(1, 1, 1)), EAGAIN);
  Lose(2);
  Renew();
  EXPECT_EQ(Set(1, LockOf(1, 1, 1)), EAGAIN);
  EXPECT_TRUE(Clear(0, LockOf(1, 0, 1)));
  EXPECT_EQ(Set(1, LockOf(1, 2, 2)), EAGAIN);
}

TEST_F(LockTableTest, MoreMayWaitThanCanBeNamed) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  constexpr uint64_t kWaiters = fs::LockTable::kPagesOfBucket * fs::kLocksOfPage + 50;
  std::vector<Result> results(kWaiters);
  std::vector<std::shared_ptr<fs::LockWait>> waits;
  for (uint64_t i = 0; i < kWaiters; ++i) waits.push_back(Wait(1, LockOf(i + 2, i, i), &results[i]));
  Pass(kSecond);
  Lose(2);
  Renew();
  Pass(kSecond);
  for (const Result& result : results) ASSERT_FALSE(result.has_value()) << *result;
  EXPECT_TRUE(Clear(0, LockOf(1, 0)));
  RunUntil([&] { return std::all_of(results.begin(), results.end(), [](const Result& r) { return r.has_value(); }); });
  uint64_t had = 0;
  for (const Result& result : results) had += result->ok() ? 1 : 0;
  EXPECT_EQ(had, fs::LockTable::kPagesOfBucket * fs::kLocksOfPage);  // As many locks as there may be.
}

// What was given back while nobody could hear it: the pages were with a node that is dead, and in the view still.
TEST_F(LockTableTest, WhatCouldNotBeToldIsToldWhenTheFilesetIsLeft) {
  ASSERT_EQ(Set(0, LockOf(1, 0)), 0);
  TakePages(2, kHeads);
  cluster_.Crash(2);
  std::optional<bool> told;
  cluster_.host(0).applets.Run(Into(LocksAt(0)->ClearMount(1), &told));
  RunUntil([&] { return told.has_value(); });
  EXPECT_FALSE(*told);
  RunUntil([&] { return !cluster_.NewestView().members.contains(NodeId(3)); });
  EXPECT_TRUE(On(0, At(0).EndUse()).ok());
  homes_.erase(0);
  EXPECT_EQ(Set(1, LockOf(1, 0)), 0);
}

}  // namespace
}  // namespace mangrove::sim
