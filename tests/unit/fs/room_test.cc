// Disks that are full, and how many of them keep what is written.
// Covers: F10, F11

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

#include "fs/check.h"
#include "fs/fileset_page.h"
#include "fs/group_page.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {
namespace {

constexpr char kCopies[] = "user.mangrove.copies";

class Room : public testing::Test {
 protected:
  Room() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {.replicas = 3})).ok());
    instance_ = Do(Instance::Open(&pages_)).value();
  }
  ~Room() override {
    const auto report = Do(CheckFileset(&pages_));
    EXPECT_TRUE(report.ok() && report->IsSound());
  }

  absl::StatusOr<InodeNumber> Make(InodeNumber directory, const std::string& name) {
    const auto made = Do(instance_->MakeNode({}, directory, name, S_IFREG | 0644, 0));
    if (!made.ok()) return made.status();
    return made->inode;
  }
  int WriteError(InodeNumber file, uint64_t page, uint64_t count = 1) {
    return ErrnoOf(Do(instance_->Write(file, page * kPageSize, std::string(count * kPageSize, 'x'), {})));
  }
  int SetXattr(InodeNumber file, const std::string& name, const std::string& value) {
    return ErrnoOf(Do(instance_->SetXattr(file, name, value, XattrMode::kAny)));
  }
  // Of the first group of the zone.
  uint32_t UsedIn(Zone zone) {
    uint32_t used = 0;
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const absl::StatusOr<EditPage*> page = co_await edit.Get(PagesOf(zone).first, PageKind::kGroup, Intent::kRead);
      if (page.ok()) used = GroupView(*page).used() - 1;
      co_return absl::OkStatus();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
    return used;
  }

  MemoryPages pages_;
  std::unique_ptr<Instance> instance_;
};

TEST_F(Room, FullDisksRefuseWhatIsNewAndNothingElse) {
  const InodeNumber root = instance_->root();
  const InodeNumber file = Make(root, "a").value();
  ASSERT_TRUE(Make(root, "b").ok());
  ASSERT_TRUE(Do(instance_->MakeDirectory({}, root, "d", 0755)).ok());
  ASSERT_EQ(WriteError(file, 0, 3), 0);
  pages_.SetFull(true);
  EXPECT_EQ(WriteError(file, 10), ENOSPC);
  EXPECT_EQ(ErrnoOf(Make(root, "c").status()), ENOSPC);
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeDirectory({}, root, "e", 0755)).status()), ENOSPC);
  EXPECT_EQ(WriteError(file, 0, 3), 0);
  EXPECT_EQ(ErrnoOf(Do(instance_->Rename(root, "b", root, "b2", 0))), 0);
  EXPECT_EQ(ErrnoOf(Do(instance_->Unlink(root, "b2"))), 0);
  EXPECT_EQ(ErrnoOf(Do(instance_->RemoveDirectory(root, "d"))), 0);
  EXPECT_TRUE(Do(instance_->SetAttributes(file, {.size_bytes = 0})).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->Unlink(root, "a"))), 0);
  pages_.SetFull(false);
  EXPECT_EQ(WriteError(Make(root, "c").value(), 0), 0);
}

// Else there would be no room for the logs of what frees some.
TEST_F(Room, NothingThatGrowsFillsDisksUp) {
  const InodeNumber root = instance_->root();
  const InodeNumber file = Make(root, "a").value();
  ASSERT_EQ(WriteError(file, 0), 0);
  ASSERT_EQ(SetXattr(file, "user.a", "12345678"), 0);
  ASSERT_TRUE(Do(instance_->Allocate(file, 0, kPageSize, 4 * kPageSize)).ok());
  ASSERT_EQ(WriteError(file, 2), 0);
  pages_.SetFull(true);
  int error = 0;
  for (int i = 0; i < 100 && error == 0; ++i) {
    error = ErrnoOf(Do(instance_->Link(file, root, std::string(200, 'l') + std::to_string(i))).status());
  }
  EXPECT_EQ(error, ENOSPC) << "there is no room for more names beside the inode";
  EXPECT_EQ(SetXattr(file, "user.b", std::string(4000, 'b')), ENOSPC);
  EXPECT_EQ(SetXattr(file, "user.a", "87654321"), 0);
  EXPECT_EQ(WriteError(file, 0), 0);
  EXPECT_EQ(WriteError(file, 1), ENOSPC) << "it is there, and was never written to";
  EXPECT_EQ(WriteError(file, 2), 0);
  EXPECT_EQ(WriteError(file, 2, 2), ENOSPC);
  EXPECT_TRUE(Do(instance_->SetAttributes(file, {.size_bytes = 5 * kPageSize})).ok()) << "zeros are there already";
  EXPECT_EQ(ErrnoOf(Do(instance_->RemoveXattr(file, "user.a"))), 0);
  EXPECT_EQ(ErrnoOf(Do(instance_->Allocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 5 * kPageSize))), 0);
  EXPECT_EQ(ErrnoOf(Do(instance_->Unlink(root, "a"))), 0);
}

TEST_F(Room, WhatIsRefusedIsNotClearedFirst) {
  const InodeNumber root = instance_->root();
  const InodeNumber file = Make(root, "a").value();
  ASSERT_EQ(WriteError(file, 0, 64), 0);
  ASSERT_EQ(ErrnoOf(Do(instance_->Unlink(root, "a"))), 0);
  const InodeNumber other = Make(root, "b").value();
  ASSERT_EQ(WriteError(other, 0, 8), 0);
  pages_.SetFull(true);
  const uint64_t before = pages_.changes();
  EXPECT_EQ(WriteError(other, 1000, 8), ENOSPC);
  EXPECT_EQ(pages_.changes(), before);
}

// Else nobody could list them, and who checks the fileset would have to hold them all.
TEST_F(Room, AttributesOfAFileHaveALimitTogether) {
  const InodeNumber names = Make(instance_->root(), "names").value();
  const std::string long_name =
      "user." + std::string(247, 'n');  // 256 bytes in a list, with three digits and the zero.
  for (int i = 100; i < 356; ++i) ASSERT_EQ(SetXattr(names, long_name + std::to_string(i), ""), 0) << i;
  EXPECT_EQ(SetXattr(names, "user.a", ""), ENOSPC);
  EXPECT_EQ(Do(instance_->ListXattr(names))->size(), 256u);
  EXPECT_EQ(SetXattr(names, long_name + "100", "a value"), 0);
  EXPECT_EQ(ErrnoOf(Do(instance_->RemoveXattr(names, long_name + "355"))), 0);
  EXPECT_EQ(SetXattr(names, "user.a", ""), 0);

  const InodeNumber values = Make(instance_->root(), "values").value();
  const std::string longest(65'536, 'v');
  for (int i = 0; i < 15; ++i) ASSERT_EQ(SetXattr(values, "user." + std::to_string(i), longest), 0) << i;
  EXPECT_EQ(SetXattr(values, "user.15", longest), ENOSPC) << "the names count too";
  EXPECT_EQ(ErrnoOf(Do(instance_->GetXattr(values, "user.15")).status()), ENODATA);
  EXPECT_EQ(SetXattr(values, "user.15", longest.substr(1000)), 0);
  EXPECT_EQ(SetXattr(values, "user.15", longest), ENOSPC);
  EXPECT_EQ(Do(instance_->GetXattr(values, "user.15"))->size(), longest.size() - 1000);
  EXPECT_EQ(SetXattr(values, "user.15", "short"), 0);
}

TEST_F(Room, AFileMayHaveOneCopyOfItsData) {
  const InodeNumber root = instance_->root();
  const InodeNumber file = Make(root, "a").value();
  ASSERT_EQ(WriteError(file, 0, 2), 0);
  EXPECT_EQ(pages_.replicas(PagesOf(Zone::kData).first), 3u);
  EXPECT_EQ(SetXattr(file, kCopies, "2"), EINVAL);
  EXPECT_EQ(SetXattr(file, kCopies, "1"), 0);
  ASSERT_EQ(WriteError(file, 2, 5), 0);
  EXPECT_EQ(UsedIn(Zone::kSingleCopy), 7u);  // 2 of them ahead.
  EXPECT_EQ(pages_.replicas(PagesOf(Zone::kSingleCopy).first), 1u);
  EXPECT_EQ(Do(instance_->GetAttributes(file))->pages, 9u);
  EXPECT_EQ(Do(instance_->Read(file, 0, 1 << 20)).value(), std::string(7 * kPageSize, 'x'));
  EXPECT_TRUE(Do(instance_->RemoveXattr(file, kCopies)).ok());
  ASSERT_EQ(WriteError(file, 9), 0);
  EXPECT_EQ(UsedIn(Zone::kSingleCopy), 7u);
  EXPECT_EQ(ErrnoOf(Do(instance_->Unlink(root, "a"))), 0);
  EXPECT_EQ(UsedIn(Zone::kSingleCopy), 0u);
  EXPECT_EQ(UsedIn(Zone::kData), 0u);
}

TEST_F(Room, WhatIsMadeInADirectoryOfOneCopyHasOne) {
  const InodeNumber directory = Do(instance_->MakeDirectory({}, instance_->root(), "tmp", 01777))->inode;
  EXPECT_EQ(SetXattr(directory, kCopies, "1"), 0);
  const InodeNumber below = Do(instance_->MakeDirectory({}, directory, "d", 0755))->inode;
  EXPECT_TRUE(Do(instance_->MakeSymlink({}, directory, "link", "to")).ok());
  const InodeNumber file = Make(below, "a").value();
  EXPECT_EQ(Do(instance_->GetXattr(file, kCopies)).value(), "1");
  ASSERT_EQ(WriteError(file, 0, 3), 0);
  EXPECT_EQ(UsedIn(Zone::kSingleCopy), 3u);
  EXPECT_EQ(UsedIn(Zone::kData), 0u);
}

TEST_F(Room, AFilesetsCopiesAreThoseOfWhatItTakesFromThenOn) {
  const InodeNumber file = Make(instance_->root(), "a").value();
  ASSERT_EQ(WriteError(file, 0), 0);
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const absl::StatusOr<EditPage*> page = co_await edit.Get(kFilesetPage, PageKind::kFileset, Intent::kWrite);
    if (page.ok()) PutLittle((*page)->mutable_bytes(), kReplicasAt, uint32_t{2});
    co_return page.status();
  };
  ASSERT_TRUE(Do(RunEdit(&pages_, body)).ok());
  constexpr uint64_t kMuch = 400;
  for (uint64_t page = 0; page < kGroupPages + kMuch; page += kMuch) ASSERT_EQ(WriteError(file, page, kMuch), 0);
  EXPECT_EQ(pages_.replicas(PagesOf(Zone::kData).first), 3u);
  EXPECT_EQ(pages_.replicas(PagesOf(Zone::kData).first + kGroupPages), 2u);
}

}  // namespace
}  // namespace mangrove::fs
