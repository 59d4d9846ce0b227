// Migratory pages: who reads one takes it with the right to store.
// Covers: G09

#include "tests/unit/engine/page_engine_harness.h"

namespace mangrove {
namespace {

class PageEngineMigratory : public testing::Test {
 protected:
  PageEngineMigratory() {
    SetLogLevel(LogLevel::kOff);
    page_ = cluster_.SegmentOf(1);
    cluster_.Allocate({page_, 8});
  }

  // Node 1 reads a page that node 2 has written, and stores to it: the messages of the store.
  int MessagesOfTheStore(PageId page) {
    EXPECT_TRUE(cluster_.Write(2, page, 7).ok());
    EXPECT_EQ(*cluster_.Read(1, page), 7);
    cluster_.RunFor(kSecond);
    cluster_.sent.clear();
    EXPECT_TRUE(cluster_.Write(1, page, 8).ok());
    int messages = 0;
    for (const auto& [kind, count] : cluster_.sent) messages += count;
    EXPECT_EQ(*cluster_.Read(2, page), 8);
    return messages;
  }

  EngineCluster cluster_{2};
  PageId page_;
};

TEST_F(PageEngineMigratory, AReadBringsThePageWithTheRightToStore) {
  cluster_.engine(1).SetMigratory({page_, 1}, true);
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_TRUE(cluster_.Write(2, page_ + 1, 7).ok());
  EXPECT_EQ(*cluster_.Read(1, page_), 7);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kWrite);
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_), Rights::kNone);
  EXPECT_EQ(*cluster_.Read(1, page_ + 1), 7);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_ + 1), Rights::kRead) << "a page beside it is read as ever";
  EXPECT_EQ(cluster_.engine(2).RightsOf(page_ + 1), Rights::kRead);
}

TEST_F(PageEngineMigratory, TheStoreThatFollowsNeedsNoExchange) {
  EXPECT_GT(MessagesOfTheStore(page_), 0);
  cluster_.engine(1).SetMigratory({page_, 1}, true);
  EXPECT_EQ(MessagesOfTheStore(page_), 0);
}

TEST_F(PageEngineMigratory, APageThatIsHereIsNotAskedForAgain) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  ASSERT_EQ(*cluster_.Read(1, page_), 7);
  cluster_.engine(1).SetMigratory({page_, 1}, true);
  cluster_.sent.clear();
  EXPECT_EQ(*cluster_.Read(1, page_), 7);
  EXPECT_TRUE(cluster_.sent.empty());
}

// A lock for reading somewhere keeps stores away, not loads.
TEST_F(PageEngineMigratory, WhatIsLockedForReadingElsewhereIsRead) {
  ASSERT_TRUE(cluster_.Write(2, page_, 7).ok());
  cluster_.engine(1).SetMigratory({page_, 1}, true);
  const auto lock =
      cluster_.Wait(cluster_.engine(2).Lock(ClientId(2), {page_, 1}, LockMode::kShared, cluster_.In(kSecond)));
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_EQ(*cluster_.Read(1, page_), 7);
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kRead);
  ASSERT_TRUE(cluster_.engine(2).Unlock(ClientId(2), *lock).ok());
}

TEST_F(PageEngineMigratory, SharedLocksAreShared) {
  for (const uint64_t node : {1, 2}) cluster_.engine(node).SetMigratory({page_, 1}, true);
  for (const uint64_t node : {1, 2}) {
    const auto lock =
        cluster_.Wait(cluster_.engine(node).Lock(ClientId(node), {page_, 1}, LockMode::kShared, cluster_.In(kSecond)));
    EXPECT_TRUE(lock.ok()) << node << ": " << lock.status();
  }
  EXPECT_EQ(cluster_.engine(1).RightsOf(page_), Rights::kRead);
}

}  // namespace
}  // namespace mangrove
