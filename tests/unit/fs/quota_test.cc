// What a fileset may use at most, as its instances find it.
// Covers: B07, F11

#include "fs/quota.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fs/check.h"
#include "fs/fileset_page.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/peer_pages.h"

namespace mangrove::fs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Quota : public testing::Test {
 protected:
  static constexpr size_t kPeers = 3;

  Quota() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    OpenAll();
  }
  ~Quota() override {
    const auto report = Do(CheckFileset(&pages_));
    EXPECT_TRUE(report.ok()) << report.status();
    EXPECT_THAT(report->problems, ElementsAre());
  }

  void OpenAll() {
    instances_.clear();
    peers_.clear();
    open_.clear();
    for (size_t i = 0; i < kPeers; ++i) {
      peers_.push_back(std::make_unique<PeerPages>(&pages_, &open_, 5 * i));
      instances_.push_back(Do(Instance::Open(peers_.back().get())).value());
    }
  }
  Instance& peer(size_t i) { return *instances_[i]; }

  absl::StatusOr<InodeNumber> Make(size_t i, const std::string& name) {
    const auto made = Do(peer(i).MakeNode({}, peer(i).root(), name, S_IFREG | 0644, 0));
    if (!made.ok()) return made.status();
    return made->inode;
  }
  int WriteError(size_t i, InodeNumber file, uint64_t page, uint64_t count = 1) {
    return ErrnoOf(Do(peer(i).Write(file, page * kPageSize, std::string(count * kPageSize, 'x'), {})));
  }
  int Unlink(size_t i, const std::string& name) { return ErrnoOf(Do(peer(i).Unlink(peer(i).root(), name))); }
  void Set(QuotaChange change) { EXPECT_TRUE(Do(SetQuota(&pages_, change)).ok()); }
  Usage Used() { return Do(GetUsage(&pages_)).value(); }
  uint64_t UsedPages() { return Used().count(Counted::kPages); }
  uint64_t UsedInodes() { return Used().count(Counted::kInodes); }

  MemoryPages pages_;
  OpenFiles open_;
  std::vector<std::unique_ptr<PeerPages>> peers_;
  std::vector<std::unique_ptr<Instance>> instances_;
};

TEST_F(Quota, NodesTogetherWriteExactlyWhatMayBeUsed) {
  constexpr uint64_t kLimit = 1'000;
  Set({.pages = kLimit});
  std::vector<InodeNumber> files;
  for (size_t i = 0; i < kPeers; ++i) files.push_back(Make(i, absl::StrCat("f", i)).value());
  for (uint64_t page = 0; page < kLimit; ++page) {
    const size_t i = page * 7 / 3 % kPeers;
    ASSERT_EQ(WriteError(i, files[page % kPeers], page), 0) << page;
  }
  EXPECT_EQ(UsedPages(), kLimit);
  for (size_t i = 0; i < kPeers; ++i) EXPECT_EQ(WriteError(i, files[i], kLimit), EDQUOT);
  // What is there is written over.
  EXPECT_EQ(WriteError(1, files[0], 0), 0);
  EXPECT_EQ(UsedPages(), kLimit);
}

TEST_F(Quota, NothingIsTakenAhead) {
  Set({.pages = 100});
  const InodeNumber file = Make(0, "a").value();
  for (uint64_t page = 0; page < 37; ++page) ASSERT_EQ(WriteError(0, file, page), 0);
  EXPECT_EQ(UsedPages(), 37u);
}

TEST_F(Quota, WhatOneNodeFreesAnotherMayTakeAtOnce) {
  Set({.pages = 10});
  const InodeNumber a = Make(0, "a").value();
  const InodeNumber b = Make(1, "b").value();
  ASSERT_EQ(WriteError(0, a, 0, 10), 0);
  ASSERT_EQ(WriteError(1, b, 0), EDQUOT);
  EXPECT_TRUE(Do(peer(2).SetAttributes(a, {.size_bytes = 7 * kPageSize})).ok());
  EXPECT_EQ(UsedPages(), 7u);
  EXPECT_EQ(WriteError(1, b, 0, 4), EDQUOT);
  EXPECT_EQ(WriteError(1, b, 0, 3), 0);
  EXPECT_EQ(WriteError(0, a, 7), EDQUOT);
  EXPECT_EQ(Unlink(1, "a"), 0);
  EXPECT_EQ(WriteError(2, b, 3, 7), 0);
  EXPECT_EQ(WriteError(0, b, 10), EDQUOT);
}

TEST_F(Quota, ALimitBelowWhatIsUsedRefusesOnlyMore) {
  std::vector<InodeNumber> files;
  for (size_t i = 0; i < 10; ++i) {
    files.push_back(Make(i % kPeers, absl::StrCat("f", i)).value());
    ASSERT_EQ(WriteError(i % kPeers, files[i], 0, 2), 0);
  }
  Set({.pages = 100});
  Set({.pages = 10});
  EXPECT_EQ(UsedPages(), 20u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(WriteError(i % kPeers, files[9], 2), EDQUOT) << i;
    EXPECT_EQ(WriteError(i % kPeers, files[9], 0, 2), 0);
    EXPECT_EQ(Unlink(i % kPeers, absl::StrCat("f", i)), 0);
  }
  EXPECT_EQ(UsedPages(), 10u);
  for (size_t i = 0; i < kPeers; ++i) EXPECT_EQ(WriteError(i, files[9], 2), EDQUOT);
  EXPECT_EQ(Unlink(1, "f5"), 0);
  EXPECT_EQ(WriteError(0, files[9], 2, 2), 0);
  EXPECT_EQ(WriteError(2, files[9], 4), EDQUOT);
  Set({.pages = 11});
  EXPECT_EQ(WriteError(2, files[9], 4), 0);
  EXPECT_EQ(WriteError(1, files[9], 5), EDQUOT);
}

TEST_F(Quota, EveryFileIsAnInode) {
  Set({.inodes = 5});
  const InodeNumber root = peer(0).root();
  EXPECT_EQ(UsedInodes(), 1u);
  EXPECT_TRUE(Make(0, "a").ok());
  EXPECT_TRUE(Do(peer(1).MakeDirectory({}, root, "b", 0755)).ok());
  EXPECT_TRUE(Do(peer(2).MakeSymlink({}, root, "c", "to")).ok());
  EXPECT_TRUE(Do(peer(2).MakeNode({}, root, "d", S_IFIFO | 0600, 0)).ok());
  for (size_t i = 0; i < kPeers; ++i) {
    EXPECT_EQ(ErrnoOf(Make(i, "e").status()), EDQUOT);
    EXPECT_EQ(ErrnoOf(Do(peer(i).MakeDirectory({}, root, "e", 0755)).status()), EDQUOT);
    EXPECT_EQ(ErrnoOf(Do(peer(i).MakeSymlink({}, root, "e", "to")).status()), EDQUOT);
  }
  EXPECT_TRUE(Do(peer(0).Link(Do(peer(0).Lookup(root, "a"))->inode, root, "a2")).ok());
  EXPECT_EQ(Unlink(0, "a"), 0);
  EXPECT_EQ(ErrnoOf(Make(1, "e").status()), EDQUOT);  // It has another name.
  EXPECT_EQ(Unlink(0, "a2"), 0);
  EXPECT_TRUE(Make(1, "e").ok());
  EXPECT_EQ(ErrnoOf(Make(0, "f").status()), EDQUOT);
  EXPECT_EQ(UsedInodes(), 5u);
}

TEST_F(Quota, WhatIsThereIsCountedWhenAQuotaComesAndForgottenWhenItGoes) {
  const InodeNumber file = Make(0, "a").value();
  constexpr uint64_t kMuch = 400;
  for (uint64_t page = 0; page < 2 * kGroupPages; page += kMuch)
    ASSERT_EQ(WriteError(page / 3 % 3, file, page, kMuch), 0);
  const uint64_t used = UsedPages();
  EXPECT_GE(used, 2 * kGroupPages);
  for (int round = 0; round < 3; ++round) {
    Set({.pages = used + 1, .inodes = 3});
    EXPECT_TRUE(Used().is_counted);
    EXPECT_EQ(UsedPages(), used);
    EXPECT_EQ(UsedInodes(), 2u);
    const InodeNumber other = Make(2, "b").value();
    EXPECT_EQ(WriteError(1, other, 0), 0);
    EXPECT_EQ(WriteError(1, other, 1), EDQUOT);
    Set({.pages = 0});
    EXPECT_EQ(WriteError(1, other, 1), 0);
    EXPECT_EQ(ErrnoOf(Make(1, "c").status()), EDQUOT);
    Set({.inodes = 0});
    EXPECT_FALSE(Used().is_counted);
    EXPECT_TRUE(Make(1, "c").ok());
    EXPECT_EQ(Unlink(0, "b"), 0);
    EXPECT_EQ(Unlink(0, "c"), 0);
    EXPECT_EQ(UsedPages(), used);
  }
}

TEST_F(Quota, WithoutOneNothingIsWrittenForIt) {
  const std::string fileset = pages_.metadata(kFilesetPage);
  std::string places;
  for (uint64_t i = 0; i < kNodePlaces; ++i) places += pages_.metadata(kFirstPlacePage + i);
  for (size_t i = 0; i < kPeers; ++i) {
    const InodeNumber file = Make(i, absl::StrCat("f", i)).value();
    ASSERT_EQ(WriteError(i, file, 0, 10), 0);
  }
  EXPECT_EQ(Unlink(0, "f1"), 0);
  std::string after;
  for (uint64_t i = 0; i < kNodePlaces; ++i) after += pages_.metadata(kFirstPlacePage + i);
  EXPECT_EQ(after, places);
}

TEST_F(Quota, LimitsThatAreNoneAreRefused) {
  EXPECT_EQ(ErrnoOf(Do(SetQuota(&pages_, {.pages = ~uint64_t{0}}))), EINVAL);
  EXPECT_EQ(ErrnoOf(Do(SetQuota(&pages_, {.inodes = uint64_t{1} << 62}))), EINVAL);
  EXPECT_FALSE(Used().is_counted);
}

TEST_F(Quota, TheFilesetsSpaceIsThatOfItsQuota) {
  const InodeNumber file = Make(0, "a").value();
  ASSERT_EQ(WriteError(0, file, 0, 30), 0);
  const Space whole = Do(peer(0).GetSpace()).value();
  EXPECT_EQ(whole.inodes, 2u);
  EXPECT_EQ(whole.free_inodes, whole.free_pages);
  EXPECT_EQ(whole.available_pages, whole.free_pages);
  Set({.pages = 100, .inodes = 10});
  Space space = Do(peer(1).GetSpace()).value();
  EXPECT_EQ(space.total_pages, 100u);
  EXPECT_EQ(space.free_pages, 70u);
  EXPECT_EQ(space.available_pages, 70u);
  EXPECT_EQ(space.inodes, 2u);
  EXPECT_EQ(space.free_inodes, 8u);
  Set({.pages = 20});
  space = Do(peer(2).GetSpace()).value();
  EXPECT_EQ(space.total_pages, 20u);
  EXPECT_EQ(space.free_pages, 0u);
}

TEST_F(Quota, ACheckRecountsWhatAQuotaSays) {
  Set({.pages = 100, .inodes = 100});
  const InodeNumber file = Make(0, "a").value();
  ASSERT_EQ(WriteError(0, file, 0, 3), 0);
  const auto change = [&](int by) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<EditPage*> page = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kWrite);
      if (!page.ok()) co_return page.status();
      const auto left = GetLittle<uint64_t>((*page)->bytes(), kPagesLeftAt);
      PutLittle((*page)->mutable_bytes(), kPagesLeftAt, left + static_cast<uint64_t>(by));
      co_return absl::OkStatus();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  };
  change(2);
  EXPECT_THAT(Do(CheckFileset(&pages_))->problems,
              ElementsAre("the quota says that 1 pages of data are used, the groups 3"));
  change(-2);
}

// The power goes at each change of what a quota's setting does, and the others go on meanwhile.
TEST_F(Quota, SettingThatWasInterruptedIsGoneOnWith) {
  const InodeNumber file = Make(0, "a").value();
  constexpr uint64_t kMuch = 400;
  for (uint64_t page = 0; page < 20 * kGroupPages; page += kGroupPages) ASSERT_EQ(WriteError(0, file, page, kMuch), 0);
  for (uint64_t page = 0; page < 20 * kGroupPages; page += kMuch) ASSERT_EQ(WriteError(0, file, page, kMuch), 0);
  const uint64_t used = UsedPages();
  uint64_t ends = 0;
  for (bool has_ended = true; has_ended; ++ends) {
    SCOPED_TRACE(testing::Message() << "the power goes at change " << ends + 1);
    ASSERT_LT(ends, 100u);
    pages_.EndAfter(ends + 1);
    has_ended = !Do(SetQuota(&pages_, {.pages = used + 2, .inodes = 3})).ok();
    pages_.LosePower();
    OpenAll();
    // Before it is gone on with everybody works.
    EXPECT_TRUE(Make(1, "b").ok());
    EXPECT_EQ(Unlink(2, "b"), 0);
    EXPECT_TRUE(Do(FinishQuota(&pages_)).ok());
    EXPECT_EQ(UsedPages(), used);
    if (Used().limit(Counted::kPages) != 0) {
      const InodeNumber other = Make(1, "b").value();
      EXPECT_EQ(WriteError(2, other, 0, 3), EDQUOT);
      EXPECT_EQ(WriteError(2, other, 0, 2), 0);
      EXPECT_EQ(Unlink(2, "b"), 0);
    }
    const auto report = Do(CheckFileset(&pages_));
    ASSERT_TRUE(report.ok());
    EXPECT_THAT(report->problems, ElementsAre());
    Set({.pages = 0, .inodes = 0});
  }
  EXPECT_GT(ends, 4u);
}

}  // namespace
}  // namespace mangrove::fs
