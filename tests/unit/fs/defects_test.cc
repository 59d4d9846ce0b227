// What was wrong once, each in as few steps as it takes.

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdio>

#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {
namespace {

class DefectsTest : public testing::Test {
 protected:
  DefectsTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    instance_ = *Do(Instance::Open(&pages_));
    root_ = instance_->root();
  }
  InodeNumber Make(const std::string& name) {
    const auto made = Do(instance_->MakeNode({}, root_, name, S_IFREG | 0644, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    return made.ok() ? made->inode : InodeNumber{};
  }
  void Resize(InodeNumber file, uint64_t size) {
    AttributesChange change;
    change.size_bytes = size;
    const auto resized = Do(instance_->SetAttributes(file, change));
    EXPECT_TRUE(resized.ok()) << resized.status();
  }
  // As if it had so many names, or directories in it.
  void SetLinks(InodeNumber inode, uint32_t links) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      absl::StatusOr<Inode> found = co_await Inode::Get(&edit, inode, Intent::kWrite);
      if (found.ok()) found->set_links(links);
      co_return found.status();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  }

  MemoryPages pages_;
  std::unique_ptr<Instance> instance_;
  InodeNumber root_;
};

TEST_F(DefectsTest, InodeThatIsGoneIsStaleAtOnce) {
  const InodeNumber file = Make("a");
  ASSERT_TRUE(Do(instance_->Unlink(root_, "a")).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->GetAttributes(file)).status()), ESTALE);
  EXPECT_FALSE(absl::IsAborted(PosixError(ESTALE, "an inode")));
}

TEST_F(DefectsTest, OpenFileWithoutANameIsMadeShorterAndWrittenTo) {
  const InodeNumber file = Make("a");
  ASSERT_TRUE(Do(instance_->Open(file)).ok());
  ASSERT_TRUE(Do(instance_->Write(file, 0, std::string(10'000, 'x'), {})).ok());
  ASSERT_TRUE(Do(instance_->Unlink(root_, "a")).ok());
  Resize(file, 5'000);
  Resize(file, 4'500);
  ASSERT_TRUE(Do(instance_->Write(file, 6'000, "end", {})).ok());
  EXPECT_EQ(*Do(instance_->Read(file, 4'400, 10'000)), std::string(100, 'x') + std::string(1'500, '\0') + "end");
}

TEST_F(DefectsTest, DirectoryWithTheMostLinksGetsNoDirectoryByRenaming) {
  const InodeNumber full = Do(instance_->MakeDirectory({}, root_, "full", 0755))->inode;
  ASSERT_TRUE(Do(instance_->MakeDirectory({}, root_, "a", 0755)).ok());
  ASSERT_TRUE(Do(instance_->MakeDirectory({}, full, "inside", 0755)).ok());
  Make("file");
  SetLinks(full, kMostLinks);
  EXPECT_EQ(ErrnoOf(Do(instance_->Rename(root_, "a", full, "a", 0))), EMLINK);
  EXPECT_TRUE(Do(instance_->Rename(root_, "file", full, "file", 0)).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->Rename(full, "file", root_, "a", RENAME_EXCHANGE))), EMLINK);
  EXPECT_TRUE(Do(instance_->Rename(full, "inside", full, "renamed", 0)).ok());
  EXPECT_TRUE(Do(instance_->Rename(root_, "a", full, "renamed", 0)).ok());
}

// Covers: F06
TEST_F(DefectsTest, FileWithTheMostNamesGetsNoOther) {
  const InodeNumber file = Make("a");
  SetLinks(file, kMostLinks - 1);
  const auto last = Do(instance_->Link(file, root_, "last"));
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(last->links, kMostLinks);
  EXPECT_EQ(ErrnoOf(Do(instance_->Link(file, root_, "more")).status()), EMLINK);
  EXPECT_EQ(ErrnoOf(Do(instance_->Link(file, root_, "a")).status()), EEXIST);
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(root_, "more")).status()), ENOENT);
  EXPECT_EQ(Do(instance_->GetAttributes(file))->links, kMostLinks);
  EXPECT_TRUE(Do(instance_->Rename(root_, "last", root_, "renamed", 0)).ok());
  EXPECT_TRUE(Do(instance_->Unlink(root_, "renamed")).ok());
  EXPECT_TRUE(Do(instance_->Link(file, root_, "more")).ok());
}

TEST_F(DefectsTest, DirectoryWithTheMostLinksGetsNoOtherDirectory) {
  const InodeNumber full = Do(instance_->MakeDirectory({}, root_, "full", 0755))->inode;
  SetLinks(full, kMostLinks - 1);
  ASSERT_TRUE(Do(instance_->MakeDirectory({}, full, "last", 0755)).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeDirectory({}, full, "more", 0755)).status()), EMLINK);
  EXPECT_TRUE(Do(instance_->MakeNode({}, full, "file", S_IFREG | 0644, 0)).ok());
  EXPECT_TRUE(Do(instance_->RemoveDirectory(full, "last")).ok());
  EXPECT_TRUE(Do(instance_->MakeDirectory({}, full, "more", 0755)).ok());
}

// Where it is aborted too often for it to come to an end, the next one finds everything as it was.
TEST(Defects, GroupThatAnAbortedTransactionAddedIsAddedAgain) {
  for (uint64_t calls = 2; calls < 40; ++calls) {
    MemoryPages pages;
    ASSERT_TRUE(Do(Instance::Make(&pages, {})).ok());
    const auto instance = *Do(Instance::Open(&pages));
    const auto made = Do(instance->MakeNode({}, instance->root(), "a", S_IFREG | 0644, 0));
    ASSERT_TRUE(made.ok()) << made.status();
    pages.AbortEach(calls);
    const absl::Status first = Do(instance->Write(made->inode, 0, "bytes", {}));
    EXPECT_TRUE(first.ok() || absl::IsUnavailable(first)) << calls << ": " << first;
    pages.AbortEach(0);
    const absl::Status second = Do(instance->Write(made->inode, 0, "bytes", {}));
    EXPECT_TRUE(second.ok()) << calls << ": " << second;
  }
}

}  // namespace
}  // namespace mangrove::fs
