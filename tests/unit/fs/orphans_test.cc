// Files without names, and what frees them: whoever closes them last, and, where that went wrong, any node that is there.
// Covers: F06, F12

#include <gtest/gtest.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/peer_pages.h"

namespace mangrove::fs {
namespace {

// Counts transactions, and begins none while it is told so.
class UnsurePages final : public PeerPages {
 public:
  using PeerPages::PeerPages;
  Task<absl::StatusOr<uint64_t>> Begin() override {
    ++begun;
    if (fails) co_return absl::UnavailableError("as the test wants it");
    co_return co_await PeerPages::Begin();
  }
  bool fails = false;
  uint64_t begun = 0;
};

class OrphansTest : public testing::Test {
 protected:
  OrphansTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    here_ = *Do(Instance::Open(&here_pages_));
    there_ = *Do(Instance::Open(&there_pages_));
    root_ = here_->root();
  }
  FoundFile Make(const std::string& name) {
    const auto made = Do(here_->MakeNode({}, root_, name, S_IFREG | 0644, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE(Do(here_->Write(made->id(), 0, "bytes", {})).ok());
    return made->id();
  }
  bool IsThere(FoundFile file) {
    const absl::Status status = Do(here_->GetAttributes(file)).status();
    EXPECT_TRUE(status.ok() || ErrnoOf(status) == ESTALE) << status;
    return status.ok();
  }
  // Of what is left to do there is nothing left.
  void ExpectNothingIsLeft() {
    const auto report = Do(CheckFileset(&pages_));
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(report->IsSound()) << report->problems[0];
    EXPECT_EQ(report->orphans, 0U);
    EXPECT_EQ(report->stale_orphans, 0U);
  }
  static int CallsUntil(Instance* instance, const std::function<bool()>& what) {
    int calls = 0;
    while (!what() && calls < 1'000) {
      ++calls;
      EXPECT_TRUE(Do(instance->TakeCare()).ok());
    }
    return calls;
  }

  MemoryPages pages_;
  OpenFiles open_;
  UnsurePages here_pages_{&pages_, &open_, 0};
  UnsurePages there_pages_{&pages_, &open_, 1};
  std::unique_ptr<Instance> here_;
  std::unique_ptr<Instance> there_;
  InodeNumber root_;
};

TEST_F(OrphansTest, AFileThatWasMadeWithoutANameGetsOneFromWhoHasItOpen) {
  const auto made = Do(here_->MakeUnnamed({}, root_, 0640, true));
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->links, 0U);
  const FoundFile file = made->id();
  EXPECT_TRUE(Do(here_->Write(file, 0, "bytes", {})).ok());
  EXPECT_TRUE(Do(there_->FinishRemovals()).ok());
  EXPECT_EQ(ErrnoOf(Do(there_->Link(file, root_, "there")).status()), ESTALE);
  ASSERT_TRUE(Do(here_->Link(file, root_, "name")).ok());
  EXPECT_TRUE(Do(here_->Close(file)).ok());
  EXPECT_EQ(*Do(there_->Read(file, 0, 5)), "bytes");
  ExpectNothingIsLeft();
  // That was the first name. After the last one there is none, as of other files.
  EXPECT_TRUE(Do(here_->Open(file)).ok());
  EXPECT_TRUE(Do(here_->Unlink(root_, "name")).ok());
  EXPECT_EQ(ErrnoOf(Do(here_->Link(file, root_, "name")).status()), ESTALE);
  EXPECT_TRUE(Do(here_->Close(file)).ok());
  EXPECT_FALSE(IsThere(file));
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, AFileThatWasMadeWithoutANameIsFreedByItsClosing) {
  const auto made = Do(here_->MakeUnnamed({}, root_, 0600, true));
  const auto lasting = Do(here_->MakeUnnamed({}, root_, 0600, false));
  ASSERT_TRUE(made.ok() && lasting.ok());
  EXPECT_EQ(ErrnoOf(Do(here_->Link(lasting->id(), root_, "name")).status()), ESTALE);
  for (const auto& file : {made, lasting}) EXPECT_TRUE(Do(here_->Close(file->id())).ok());
  EXPECT_EQ(ErrnoOf(Do(here_->Link(made->id(), root_, "name")).status()), ESTALE);
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, WhoClosesAFileLastFreesItInThePlaceOfWhoRemovedIt) {
  const FoundFile file = Make("a");
  ASSERT_TRUE(Do(there_->Open(file)).ok());
  ASSERT_TRUE(Do(here_->Unlink(root_, "a")).ok());
  EXPECT_TRUE(IsThere(file));
  EXPECT_EQ(Do(CheckFileset(&pages_))->orphans, 1U);
  ASSERT_TRUE(Do(there_->Close(file)).ok());
  EXPECT_FALSE(IsThere(file));
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, OneThatWasBeingMadeShorterIsNoOrphanAnyMoreWhenItHasGone) {
  const FoundFile file = Make("a");
  for (uint64_t i = 0; i < 700; ++i) ASSERT_TRUE(Do(here_->Write(file, i * 100 * kPageSize, "x", {})).ok());
  ASSERT_TRUE(Do(there_->Open(file)).ok());
  AttributesChange change;
  change.size_bytes = 1;
  pages_.EndAfter(2);  // Between its steps.
  (void)Do(there_->SetAttributes(file, change));
  pages_.LosePower();
  there_ = *Do(Instance::Open(&there_pages_));
  EXPECT_EQ(Do(CheckFileset(&pages_))->orphans, 1U);
  open_.clear();
  ASSERT_TRUE(Do(here_->Unlink(root_, "a")).ok());
  EXPECT_FALSE(IsThere(file));
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, WhatMetAnErrorIsTriedAgain) {
  const FoundFile file = Make("a");
  ASSERT_TRUE(Do(here_->Open(file)).ok());
  ASSERT_TRUE(Do(here_->Unlink(root_, "a")).ok());
  here_pages_.fails = true;
  EXPECT_FALSE(Do(here_->Close(file)).ok());
  for (int i = 0; i < 10; ++i) (void)Do(here_->TakeCare());
  here_pages_.fails = false;
  EXPECT_TRUE(IsThere(file));
  EXPECT_LE(CallsUntil(here_.get(), [&] { return !IsThere(file); }), 64);
  ExpectNothingIsLeft();
}

// A counter of open files is for more than one: nobody else comes to free it.
TEST_F(OrphansTest, OneThatWasTakenForOpenIsTriedAgain) {
  const FoundFile file = Make("a");
  pages_.SetOpenElsewhere(file.inode, true);
  open_[file.inode.value].insert(7);
  ASSERT_TRUE(Do(here_->Unlink(root_, "a")).ok());
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Do(here_->TakeCare()).ok());
  EXPECT_TRUE(IsThere(file));
  open_.clear();
  EXPECT_LE(CallsUntil(here_.get(), [&] { return !IsThere(file); }), 64);
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, WhatALostNodeLeavesBehindTheOthersFree) {
  const FoundFile file = Make("a");
  ASSERT_TRUE(Do(there_->Open(file)).ok());
  ASSERT_TRUE(Do(there_->Unlink(root_, "a")).ok());
  EXPECT_EQ(CallsUntil(here_.get(), [&] { return here_pages_.begun > 1'000'000; }), 1'000);
  EXPECT_TRUE(IsThere(file));
  open_.clear();
  there_ = nullptr;
  pages_.NodesHaveChanged();
  EXPECT_LE(CallsUntil(here_.get(), [&] { return !IsThere(file); }), 5);
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, WithoutAnyNothingIsLookedAt) {
  Make("a");
  ASSERT_TRUE(Do(here_->Unlink(root_, "a")).ok());
  here_pages_.begun = 0;
  for (int i = 0; i < 500; ++i) ASSERT_TRUE(Do(here_->TakeCare()).ok());
  EXPECT_EQ(here_pages_.begun, 0U);
}

TEST_F(OrphansTest, ADirectoryThatAnotherNodeHasOpenStaysUntilItIsClosed) {
  const FoundFile directory = Do(here_->MakeDirectory({}, root_, "d", 0755))->id();
  ASSERT_TRUE(Do(there_->Open(directory)).ok());
  ASSERT_TRUE(Do(here_->RemoveDirectory(root_, "d")).ok());
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Do(here_->TakeCare()).ok());
  EXPECT_TRUE(IsThere(directory));
  EXPECT_EQ(ErrnoOf(Do(there_->MakeDirectory({}, directory, "e", 0755)).status()), ENOENT);
  EXPECT_EQ(Do(CheckFileset(&pages_))->orphans, 1U);
  ASSERT_TRUE(Do(there_->Close(directory)).ok());
  EXPECT_FALSE(IsThere(directory));
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, ADirectoryThatALostNodeHadOpenTheOthersFree) {
  const FoundFile directory = Do(here_->MakeDirectory({}, root_, "d", 0755))->id();
  ASSERT_TRUE(Do(there_->Open(directory)).ok());
  ASSERT_TRUE(Do(there_->RemoveDirectory(root_, "d")).ok());
  EXPECT_TRUE(IsThere(directory));
  open_.clear();
  there_ = nullptr;
  pages_.NodesHaveChanged();
  EXPECT_LE(CallsUntil(here_.get(), [&] { return !IsThere(directory); }), 5);
  ExpectNothingIsLeft();
}

TEST_F(OrphansTest, ADirectoryWithManyAttributesGoesWithThem) {
  const FoundFile directory = Do(here_->MakeDirectory({}, root_, "d", 0755))->id();
  for (int i = 0; i < 600; ++i) {
    ASSERT_TRUE(Do(here_->SetXattr(directory, absl::StrCat("user.", i), "x", XattrMode::kAny)).ok());
  }
  ASSERT_TRUE(Do(here_->RemoveDirectory(root_, "d")).ok());
  EXPECT_FALSE(IsThere(directory));
  ExpectNothingIsLeft();
}

}  // namespace
}  // namespace mangrove::fs
