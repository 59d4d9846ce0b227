// What is written is flushed by the next sync, and by that alone.

#include <gtest/gtest.h>

#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {
namespace {

class SyncTest : public testing::Test {
 protected:
  SyncTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    here_ = *Do(Instance::Open(&pages_));
    there_ = *Do(Instance::Open(&pages_));
    const auto made = Do(here_->MakeNode({}, here_->root(), "a", S_IFREG | 0644, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    file_ = made->inode;
  }
  void Write(Instance* instance, uint64_t offset, const std::string& bytes) {
    EXPECT_TRUE(Do(instance->Write(file_, offset, bytes, {})).ok());
  }
  // Changes of what is durable that it took.
  uint64_t Sync(Instance* instance) {
    const uint64_t before = pages_.changes();
    EXPECT_TRUE(Do(instance->Sync(file_)).ok());
    return pages_.changes() - before;
  }
  std::string AfterPowerLoss(uint64_t length) {
    pages_.LosePower();
    here_ = *Do(Instance::Open(&pages_));
    there_ = *Do(Instance::Open(&pages_));
    return *Do(here_->Read(file_, 0, length));
  }

  MemoryPages pages_;
  std::unique_ptr<Instance> here_;
  std::unique_ptr<Instance> there_;
  InodeNumber file_;
};

TEST_F(SyncTest, WhatIsDurableAlreadyIsNotFlushedAgain) {
  Write(here_.get(), 0, "one");
  EXPECT_EQ(Sync(here_.get()), 1u);
  EXPECT_EQ(Sync(here_.get()), 0u);
  EXPECT_EQ(AfterPowerLoss(10), "one");
}

TEST_F(SyncTest, EachWriteIsFlushedByTheNextSyncOnAnyNode) {
  Write(here_.get(), 0, "one");
  EXPECT_GT(Sync(here_.get()), 0u);
  Write(there_.get(), 0, "two");
  EXPECT_GT(Sync(here_.get()), 0u);
  Write(here_.get(), kPageSize, "three");
  EXPECT_GT(Sync(there_.get()), 0u);
  Write(there_.get(), 0, "TWO");
  EXPECT_GT(Sync(there_.get()), 0u);
  Write(here_.get(), kPageSize, "THREE");
  EXPECT_GT(Sync(here_.get()), 0u);
  EXPECT_EQ(AfterPowerLoss(kPageSize + 5), "TWO" + std::string(kPageSize - 3, '\0') + "THREE");
}

TEST_F(SyncTest, AFileThatGetsTheNumberOfASyncedOneIsFlushed) {
  Write(here_.get(), 0, "one");
  EXPECT_GT(Sync(here_.get()), 0u);
  ASSERT_TRUE(Do(here_->Unlink(here_->root(), "a")).ok());
  const auto made = Do(here_->MakeNode({}, here_->root(), "b", S_IFREG | 0644, 0));
  ASSERT_TRUE(made.ok()) << made.status();
  ASSERT_EQ(made->inode, file_);
  Write(here_.get(), 0, "two");
  EXPECT_GT(Sync(here_.get()), 0u);
  EXPECT_EQ(AfterPowerLoss(10), "two");
}

TEST_F(SyncTest, MuchThatWasFlushedIsNotFlushedByOtherNodesAgain) {
  Write(here_.get(), 0, std::string(100 * kPageSize, 'x'));
  EXPECT_GT(Sync(here_.get()), 0u);
  EXPECT_EQ(Sync(there_.get()), 0u);
}

}  // namespace
}  // namespace mangrove::fs
