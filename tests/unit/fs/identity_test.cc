// A file's number is used again at once. Whoever has found the file of before by it does nothing to the one that has it now.
// Covers: F02

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "fs/instance.h"
#include "fs/mount/known_files.h"
#include "fs/status.h"
#include "tests/unit/fs/peer_pages.h"

namespace mangrove::fs {
namespace {

class IdentityTest : public testing::Test {
 protected:
  IdentityTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    here_ = *Do(Instance::Open(&here_pages_));
    there_ = *Do(Instance::Open(&there_pages_));
    root_ = here_->root();
  }
  Attributes MakeThere(const std::string& name, mode_t mode) {
    const auto made = S_ISDIR(mode) ? Do(there_->MakeDirectory({}, root_, name, mode & 07777))
                                    : Do(there_->MakeNode({}, root_, name, mode, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    return *made;
  }
  FoundFile Found(const std::string& name) { return Do(here_->Lookup(root_, name))->id(); }

  MemoryPages pages_;
  OpenFiles open_;
  PeerPages here_pages_{&pages_, &open_, 0};
  PeerPages there_pages_{&pages_, &open_, 1};
  std::unique_ptr<Instance> here_;
  std::unique_ptr<Instance> there_;
  InodeNumber root_;
};

TEST_F(IdentityTest, NoOperationByAFileThatIsGoneReachesTheOneThatHasItsNumber) {
  const Attributes old = MakeThere("a", S_IFREG | 0666);
  const FoundFile file = Found("a");
  ASSERT_TRUE(Do(there_->Unlink(root_, "a")).ok());
  const Attributes next = MakeThere("b", S_IFREG | 0600);
  ASSERT_EQ(next.inode, old.inode);
  ASSERT_NE(next.generation, old.generation);
  ASSERT_TRUE(Do(there_->Write(next.id(), 0, "mine", {})).ok());
  ASSERT_TRUE(Do(there_->SetXattr(next.id(), "user.a", "mine", XattrMode::kAny)).ok());

  const auto change = AttributesChange{.mode = 0777};
  EXPECT_EQ(ErrnoOf(Do(here_->GetAttributes(file)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->SetAttributes(file, change)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Open(file))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Read(file, 0, 4)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Write(file, 0, "x", {}))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Allocate(file, 0, 0, 9'000))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Seek(file, 0, SEEK_DATA)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Sync(file))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Link(file, root_, "c")).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->GetXattr(file, "user.a")).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->SetXattr(file, "user.a", "x", XattrMode::kAny))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->RemoveXattr(file, "user.a"))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->ListXattr(file)).status()), ESTALE);
  EXPECT_TRUE(open_[old.inode.value].empty());

  const Attributes now = *Do(here_->GetAttributes(next.id()));
  EXPECT_EQ(now.mode, next.mode);
  EXPECT_EQ(now.links, 1U);
  EXPECT_EQ(*Do(here_->Read(next.id(), 0, 10)), "mine");
  EXPECT_EQ(*Do(here_->GetXattr(next.id(), "user.a")), "mine");
}

TEST_F(IdentityTest, NothingIsDoneInADirectoryThatHasTheNumberOfAnotherOne) {
  const Attributes old = MakeThere("d", S_IFDIR | 0777);
  const FoundFile directory = Found("d");
  ASSERT_TRUE(Do(there_->RemoveDirectory(root_, "d")).ok());
  const Attributes next = MakeThere("e", S_IFDIR | 0700);
  ASSERT_EQ(next.inode, old.inode);
  ASSERT_TRUE(Do(there_->MakeNode({}, next.id(), "inside", S_IFREG | 0600, 0)).ok());
  ASSERT_TRUE(Do(there_->MakeDirectory({}, next.id(), "below", 0700)).ok());
  MakeThere("f", S_IFREG | 0600);

  EXPECT_EQ(ErrnoOf(Do(here_->Lookup(directory, "inside")).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->ReadDirectory(directory, 0, 10)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Parent(directory)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->MakeNode({}, directory, "new", S_IFREG | 0600, 0)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->MakeDirectory({}, directory, "new", 0700)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->MakeSymlink({}, directory, "new", "a")).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Link(Found("f"), directory, "new")).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Unlink(directory, "inside"))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->RemoveDirectory(directory, "below"))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Rename(directory, "inside", root_, "out", 0))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Rename(root_, "f", directory, "in", 0))), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(here_->Rename(directory, "inside", next.id(), "again", 0))), ESTALE);
  EXPECT_EQ(Do(here_->ReadDirectory(next.id(), 0, 10))->size(), 2U);
}

// The number of a file may become that of a page which is no inode.
TEST_F(IdentityTest, AFileWhosePageHoldsSomethingElseIsStale) {
  std::vector<FoundFile> files;
  for (int i = 0; i < 200; ++i) files.push_back(MakeThere(absl::StrCat("a", i), S_IFREG | 0644).id());
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Do(there_->Unlink(root_, absl::StrCat("a", i))).ok());
  const Attributes full = MakeThere("full", S_IFDIR | 0755);
  for (int i = 0; i < 150; ++i) {
    ASSERT_TRUE(Do(there_->MakeNode({}, full.id(), absl::StrCat(std::string(200, 'n'), i), S_IFIFO | 0644, 0)).ok());
  }
  for (const FoundFile file : files) EXPECT_EQ(ErrnoOf(Do(here_->GetAttributes(file)).status()), ESTALE);
}

TEST_F(IdentityTest, AnOpenFileWithoutANameIsItselfUntilItIsClosed) {
  MakeThere("a", S_IFREG | 0644);
  const FoundFile file = Found("a");
  ASSERT_TRUE(Do(here_->Open(file)).ok());
  ASSERT_TRUE(Do(there_->Unlink(root_, "a")).ok());
  for (int i = 0; i < 10; ++i) EXPECT_NE(MakeThere(absl::StrCat("b", i), S_IFREG | 0644).inode, file.inode);
  ASSERT_TRUE(Do(here_->Write(file, 0, "alive", {})).ok());
  EXPECT_EQ(*Do(here_->Read(file, 0, 10)), "alive");
  EXPECT_EQ(ErrnoOf(Do(there_->Open(file))), ESTALE);
  EXPECT_TRUE(Do(here_->Close(file)).ok());
  EXPECT_EQ(ErrnoOf(Do(here_->GetAttributes(file)).status()), ESTALE);
}

TEST(KnownFiles, ANumberIsOfOneFileAndIsForgottenAsOftenAsItWasTold) {
  KnownFiles known;
  known.SetRoot({7});
  EXPECT_EQ(known.Tell({{7}, 5}), KnownFiles::kRoot);
  EXPECT_EQ(known.Find(KnownFiles::kRoot).inode, InodeNumber{7});
  const uint64_t first = known.Tell({{9}, 1});
  EXPECT_EQ(known.Tell({{9}, 1}), first);
  const uint64_t second = known.Tell({{9}, 2});
  EXPECT_NE(second, first);
  EXPECT_EQ(known.Find(first).generation, 1U);
  EXPECT_EQ(known.Find(second).generation, 2U);
  known.Forget(first, 1);
  EXPECT_EQ(known.Find(first).inode, InodeNumber{9});
  known.Forget(first, 1);
  EXPECT_EQ(known.Find(first).inode, InodeNumber{});
  EXPECT_NE(known.Tell({{9}, 1}), first);
  known.Forget(KnownFiles::kRoot, 3);
  EXPECT_EQ(known.size(), 2U);
}

}  // namespace
}  // namespace mangrove::fs
