// Each kind of damage that is done to a fileset is found, and named; is repaired; and then there is nothing to be found, and what nothing had
// been done to is as it was.

#include "fs/check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "fs/bytes.h"
#include "fs/fileset_page.h"
#include "fs/group_page.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;

class CheckTest : public testing::Test {
 protected:
  CheckTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    instance_ = *Do(Instance::Open(&pages_));
    root_ = instance_->root();
    directory_ = Do(instance_->MakeDirectory({}, root_, "directory", 0755))->inode;
    below_ = Do(instance_->MakeDirectory({}, directory_, "below", 0755))->inode;
    file_ = Do(instance_->MakeNode({}, directory_, "file", S_IFREG | 0644, 0))->inode;
    other_ = Do(instance_->MakeNode({}, root_, "other", S_IFREG | 0644, 0))->inode;
    link_ = Do(instance_->MakeSymlink({}, root_, "link", std::string(2'500, 't')))->inode;
    EXPECT_TRUE(Do(instance_->Link(file_, root_, "second")).ok());
    for (const uint64_t offset : {0, 40'000, 80'000}) {
      EXPECT_TRUE(Do(instance_->Write(file_, offset, "some bytes", {})).ok());
    }
    EXPECT_TRUE(Do(instance_->Write(other_, 0, std::string(10'000, 'o'), {})).ok());
    EXPECT_TRUE(Do(instance_->SetXattr(file_, "user.a", std::string(3'000, 'v'), XattrMode::kAny)).ok());
    const InodeNumber untouched = Do(instance_->MakeNode({}, root_, "untouched", S_IFREG | 0644, 0))->inode;
    EXPECT_TRUE(Do(instance_->Write(untouched, 0, std::string(9'000, 'u'), {})).ok());
    EXPECT_TRUE(Do(instance_->SetXattr(untouched, "user.b", "value", XattrMode::kAny)).ok());
  }

  CheckReport Check() {
    auto report = Do(CheckFileset(&pages_));
    EXPECT_TRUE(report.ok()) << report.status();
    return *std::move(report);
  }
  // Changes bytes of a page, which stays sound.
  template <typename T>
  void Damage(uint64_t page, size_t at, T value) {
    std::string& bytes = pages_.metadata(page);
    PutLittle({bytes.data(), bytes.size()}, at, value);
    SealPage({bytes.data(), bytes.size()}, page);
  }
  template <typename T>
  T At(uint64_t page, size_t at) {
    return GetLittle<T>(std::span<const char>(pages_.metadata(page)), at);
  }
  void InGroup(uint64_t page, bool used, bool marked) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const auto group = co_await edit.Get(page - page % kGroupPages, PageKind::kGroup, Intent::kWrite);
      if (group.ok()) GroupEditor(*group).Set({page % kGroupPages, 1}, used, marked);
      co_return group.status();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  }
  void InDirectory(InodeNumber directory, const std::string& name, InodeNumber inode, mode_t type) {
    SpaceMap space(&pages_);
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const auto parent = co_await Inode::Get(&edit, directory, Intent::kWrite);
      if (!parent.ok()) co_return parent.status();
      Directory entries(&edit, &space, *parent);
      const auto entry = co_await entries.Find(name);
      if (!entry.ok()) co_return entry.status();
      if (inode == InodeNumber{}) co_return co_await entries.Remove((*entry)->key);
      if (entry->has_value()) co_return co_await entries.Replace(**entry, inode, type);
      co_return co_await entries.Add(name, inode, type);
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  }
  // An extent of the file, by its number.
  void PutExtent(InodeNumber file, uint64_t stream_page, uint64_t page, uint32_t count) {
    SpaceMap space(&pages_);
    std::string value(16, '\0');
    PutLittle({value.data(), value.size()}, 0, page);
    PutLittle({value.data(), value.size()}, 8, count);
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      const auto inode = co_await Inode::Get(&edit, file, Intent::kWrite);
      if (!inode.ok()) co_return inode.status();
      Tree tree(&edit, &space, inode->main_root());
      co_return co_await tree.Put(stream_page, value);
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  }
  void ExpectProblem(std::initializer_list<std::string> words) {
    const CheckReport report = Check();
    EXPECT_FALSE(report.IsSound());
    for (const std::string& word : words) EXPECT_THAT(report.problems, Contains(HasSubstr(word)));
    EXPECT_THAT(report.repairs, testing::IsEmpty());
    if (can_be_repaired_) ExpectRepair();
  }
  void ExpectRepair() {
    const CheckReport repaired = *Do(CheckFileset(&pages_, {.repair = true}));
    EXPECT_THAT(repaired.problems, testing::IsEmpty());
    EXPECT_THAT(repaired.repairs, testing::Not(testing::IsEmpty()));
    const CheckReport after = *Do(CheckFileset(&pages_, {.repair = true}));
    EXPECT_THAT(after.problems, testing::IsEmpty());
    EXPECT_THAT(after.repairs, testing::IsEmpty());
    // Whatever was damaged, these are not.
    const auto untouched = Do(instance_->Lookup(root_, "untouched"));
    ASSERT_TRUE(untouched.ok()) << untouched.status();
    EXPECT_EQ(*Do(instance_->Read(untouched->inode, 0, 20'000)), std::string(9'000, 'u'));
    EXPECT_EQ(*Do(instance_->GetXattr(untouched->inode, "user.b")), "value");
    // It can be used, and what is made then is whole.
    EXPECT_TRUE(Do(instance_->FinishRemovals()).ok());
    const auto made = Do(instance_->MakeNode({}, root_, "made", S_IFREG | 0600, 0));
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_TRUE(Do(instance_->Write(made->inode, 0, std::string(50'000, 'm'), {})).ok());
    EXPECT_TRUE(Do(instance_->Unlink(root_, "made")).ok());
    EXPECT_THAT(Check().problems, testing::IsEmpty());
  }
  // What lost+found has.
  std::vector<std::string> Salvaged() {
    const auto directory = Do(instance_->Lookup(root_, "lost+found"));
    std::vector<std::string> names;
    if (!directory.ok()) return names;
    const auto entries = Do(instance_->ReadDirectory(directory->inode, 0, 1'000));
    for (const DirectoryEntry& entry : *entries) {
      names.push_back(entry.name);
    }
    return names;
  }
  static std::string Salvaged(InodeNumber inode) { return absl::StrCat("#", inode.value); }
  static std::string Name(InodeNumber inode) { return absl::StrCat("inode ", inode.value); }
  static constexpr uint64_t kFirstData = PagesOf(Zone::kData).first;
  static constexpr uint64_t kFirstMetadata = PagesOf(Zone::kMetadata).first;

  MemoryPages pages_;
  std::unique_ptr<Instance> instance_;
  bool can_be_repaired_ = true;
  InodeNumber root_, directory_, below_, file_, other_, link_;
};

TEST_F(CheckTest, SoundFilesetHasNoProblemsAndIsCounted) {
  const CheckReport report = Check();
  EXPECT_THAT(report.problems, testing::IsEmpty());
  EXPECT_EQ(report.groups, 2u);
  EXPECT_EQ(report.directories, 3u);
  EXPECT_EQ(report.files, 3u);
  EXPECT_EQ(report.others, 1u);
  EXPECT_EQ(report.orphans, 0u);
}

TEST_F(CheckTest, WrongChecksumIsNamed) {
  pages_.metadata(file_.value)[1'000] ^= 1;
  ExpectProblem({absl::StrCat("page ", file_.value, " of the fileset should be an inode; its checksum is wrong")});
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(root_, "second")).status()), ENOENT);
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(directory_, "file")).status()), ENOENT);
}

TEST_F(CheckTest, UnsoundFirstPageIsNamed) {
  can_be_repaired_ = false;
  pages_.metadata(kFilesetPage)[40] ^= 1;
  ExpectProblem({"page 0 of the fileset"});
}

// Its pages have other layouts: what a repair would make of them is not what was in them.
TEST_F(CheckTest, FilesetOfAnotherFormatIsRefusedAndNotTouched) {
  for (const uint16_t version : {1, 3}) {
    Damage<uint16_t>(kFilesetPage, 4, version);
    const std::string group = pages_.metadata(file_.value - file_.value % kGroupPages);
    const CheckReport report = *Do(CheckFileset(&pages_, {.repair = true}));
    EXPECT_THAT(report.problems, Contains(HasSubstr(absl::StrCat("its format is ", version))));
    EXPECT_THAT(report.repairs, testing::IsEmpty());
    EXPECT_EQ(pages_.metadata(file_.value - file_.value % kGroupPages), group);
    EXPECT_EQ(ErrnoOf(Do(Instance::Open(&pages_)).status()), EIO);
  }
}

TEST_F(CheckTest, GroupsThatCannotBeAreNamed) {
  can_be_repaired_ = false;
  Damage<uint32_t>(kFilesetPage, GroupCountAt(Zone::kMetadata), 1 << 30);
  ExpectProblem({"page 0 counts 1073741824 groups"});
}

TEST_F(CheckTest, GroupOfAnotherZoneIsNamed) {
  Damage<uint32_t>(kFirstData, 40, 0);
  ExpectProblem({absl::StrCat("page ", kFirstData, " of the fileset is another group's")});
}

TEST_F(CheckTest, GroupThatCountsWronglyIsNamed) {
  Damage<uint32_t>(kFirstData, 28, 7);
  ExpectProblem({absl::StrCat("page ", kFirstData), "counts 7 used pages"});
}

TEST_F(CheckTest, PageThatNobodyHasIsNamed) {
  InGroup(kFirstData + 5'000, true, false);
  InGroup(kFirstMetadata + 5'000, true, false);
  ExpectProblem({absl::StrCat("page ", kFirstData + 5'000, " is used, and nothing has it"),
                 absl::StrCat("page ", kFirstMetadata + 5'000, " is used, and nothing has it")});
}

TEST_F(CheckTest, PageOfAFileThatIsFreeIsNamed) {
  const uint64_t page = kFirstData + 1;
  InGroup(page, false, true);
  ExpectProblem({absl::StrCat("has page ", page, ", which its group says is free")});
}

TEST_F(CheckTest, MarksInTheWrongPlaceAreNamed) {
  InGroup(kFirstMetadata + 5'000, false, true);
  InGroup(kFirstData + 1, true, true);
  ExpectProblem({absl::StrCat("page ", kFirstMetadata + 5'000, " is marked as an inode, and is free"),
                 absl::StrCat("page ", kFirstData + 1, " is marked as one that is not zeros, and is used")});
}

TEST_F(CheckTest, InodeWithoutItsMarkIsNamed) {
  InGroup(other_.value, true, false);
  ExpectProblem({Name(other_) + " is one, and its group does not say so",
                 absl::StrCat("\"other\" in the directory of inode ", root_.value, " is inode ", other_.value,
                              ", and its group does not say that it is one")});
  EXPECT_EQ(*Do(instance_->Read(other_, 0, 20'000)), std::string(10'000, 'o'));
}

TEST_F(CheckTest, ModeOfNoFileIsNamed) {
  Damage<uint32_t>(other_.value, 24, 0644);
  ExpectProblem({Name(other_) + ": it has mode 1a4, which is no file's"});
}

TEST_F(CheckTest, WrongLinkCountsAreNamed) {
  Damage<uint32_t>(file_.value, 28, 3);
  Damage<uint32_t>(directory_.value, 28, 2);
  ExpectProblem(
      {Name(file_) + " has 3 links and 2 names", Name(directory_) + ", a directory, has 2 links and 1 subdirectories"});
}

TEST_F(CheckTest, FileWithoutANameIsNamed) {
  InDirectory(root_, "other", {}, 0);
  ExpectProblem({Name(other_) + " has 1 links and 0 names"});
  Damage<uint32_t>(other_.value, 28, 0);
  ExpectProblem({Name(other_) + " has no links, and no node's place knows it"});
}

TEST_F(CheckTest, DirectoryThatIsElsewhereThanItSaysIsNamed) {
  Damage<uint64_t>(below_.value, 96, root_.value);
  ExpectProblem({Name(below_) + ", a directory, says that it is in " + Name(root_)});
}

TEST_F(CheckTest, DirectoryWithTwoNamesIsNamed) {
  InDirectory(root_, "again", below_, S_IFDIR);
  ExpectProblem({Name(below_) + ", a directory, has 2 names"});
  EXPECT_TRUE(Do(instance_->Lookup(directory_, "below")).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(root_, "again")).status()), ENOENT);
}

TEST_F(CheckTest, DirectoriesThatAreInEachOtherAreNamed) {
  InDirectory(root_, "directory", {}, 0);
  InDirectory(below_, "up", directory_, S_IFDIR);
  Damage<uint64_t>(directory_.value, 96, below_.value);
  ExpectProblem({Name(directory_) + ", a directory, is not found from the root",
                 Name(below_) + ", a directory, is not found from the root"});
  EXPECT_THAT(Salvaged(), testing::SizeIs(1));
}

TEST_F(CheckTest, RootThatIsNoDirectoryIsNamed) {
  can_be_repaired_ = false;
  Damage<uint64_t>(kFilesetPage, kRootDirectoryAt, file_.value);
  ExpectProblem({"the root is " + Name(file_) + ", which is no directory"});
}

TEST_F(CheckTest, EntryOfAnotherTypeIsNamed) {
  InDirectory(root_, "other", other_, S_IFIFO);
  ExpectProblem({absl::StrCat("\"other\" in the directory of inode ", root_.value, " has type 1000")});
}

TEST_F(CheckTest, EntryOfNobodysInodeIsNamed) {
  InDirectory(root_, "nobody", {kFirstMetadata + 7'000}, S_IFREG);
  ExpectProblem({absl::StrCat("is inode ", kFirstMetadata + 7'000, ", which is nobody's")});
}

TEST_F(CheckTest, ExtentsThatOverlapAreNamed) {
  const uint64_t page = kFirstData + 1;  // Of `file_`, the first that was written.
  PutExtent(other_, 20, page, 1);
  ExpectProblem({absl::StrCat("has page ", page, ", which inode ")});
  EXPECT_EQ(Do(instance_->Read(file_, 0, 10))->substr(0, 10), "some bytes");
  // It has a copy, so what is written to one is not in the other.
  EXPECT_TRUE(Do(instance_->Write(other_, 20 * kPageSize, "others", {})).ok());
  EXPECT_EQ(Do(instance_->Read(file_, 0, 10))->substr(0, 10), "some bytes");
}

TEST_F(CheckTest, TwoPagesForOneOfAStreamAreNamed) {
  InGroup(kFirstData + 3'000, true, false);
  PutExtent(other_, 1, kFirstData + 3'000, 1);
  ExpectProblem({absl::StrCat(Name(other_), " has two pages for its page 1, one is page ", kFirstData + 3'000)});
}

TEST_F(CheckTest, ExtentOutsideOfAllGroupsIsNamed) {
  PutExtent(other_, 20, kFirstData + 3 * kGroupPages, 1);
  PutExtent(other_, 30, kFirstMetadata + 3, 1);
  ExpectProblem(
      {absl::StrCat(Name(other_), " has page ", kFirstData + 3 * kGroupPages, ", which is in no group of data"),
       Name(other_) + ": the extent of page 30 of a stream is none"});
}

TEST_F(CheckTest, WrongCountOfPagesIsNamed) {
  Damage<uint64_t>(other_.value, 56, 9);
  ExpectProblem({Name(other_) + " counts 9 pages"});
}

TEST_F(CheckTest, NodesOfATreeInTheWrongPlaceAreNamed) {
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(Do(instance_->MakeNode({}, directory_, absl::StrCat("n", i), S_IFIFO | 0600, 0)).ok());
  }
  EXPECT_TRUE(Check().IsSound());
  // The separator of the second child, which is behind the first in the root.
  std::string& inode = pages_.metadata(directory_.value);
  NodeEditor root(std::span<char>(inode).subspan(192, 2'688));
  ASSERT_GT(root.level(), 0);
  const uint64_t child = root.ChildAt(1);
  const uint64_t key = root.KeyAt(1);
  root.Erase(1);
  ASSERT_TRUE(root.Insert(key + (uint64_t{1} << 40), ChildValue(child)));
  SealPage({inode.data(), inode.size()}, directory_.value);
  ExpectProblem({absl::StrCat("page ", child, ", of ", Name(directory_)), "is not where it belongs"});
  for (int i = 0; i < 400; ++i) EXPECT_TRUE(Do(instance_->Lookup(directory_, absl::StrCat("n", i))).ok());
}

TEST_F(CheckTest, TargetOfAnotherLengthIsNamed) {
  Damage<uint64_t>(link_.value, 48, 2'400);
  ExpectProblem({Name(link_) + " has 2500 bytes in its tree, and says that they are 2400"});
}

TEST_F(CheckTest, MissingPieceOfAnAttributeIsNamed) {
  SpaceMap space(&pages_);
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const auto inode = co_await Inode::Get(&edit, file_, Intent::kWrite);
    Tree tree(&edit, &space, inode->xattr_root());
    const auto all = co_await tree.Scan(0, ~uint64_t{0}, 100);
    EXPECT_GT(all->size(), 2u);
    co_return co_await tree.Erase((*all)[1].key);
  };
  EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  ExpectProblem({Name(file_) + ": "});
}

TEST_F(CheckTest, FileThatIsMadeShorterAndThatNoPlaceKnowsIsNamed) {
  Damage<uint32_t>(file_.value, 104, Inode::kShrinking);
  ExpectProblem({Name(file_) + " is being made shorter, and no node's place knows it"});
}

TEST_F(CheckTest, OpenFileWithoutANameIsAnOrphanAndNoProblem) {
  ASSERT_TRUE(Do(instance_->Open(other_)).ok());
  ASSERT_TRUE(Do(instance_->Unlink(root_, "other")).ok());
  const CheckReport report = Check();
  EXPECT_THAT(report.problems, testing::IsEmpty());
  EXPECT_EQ(report.orphans, 1u);
}

TEST_F(CheckTest, OrphanThatIsNoInodesNumberIsNamed) {
  SpaceMap space(&pages_);
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const auto place = co_await edit.Get(kFirstPlacePage + 3, PageKind::kPlace, Intent::kWrite);
    Tree tree(&edit, &space, PlaceRoot(*place));
    co_return co_await tree.Put(kFirstData, std::string(1, '\0'));
  };
  EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  ExpectProblem({absl::StrCat("place 3 has an orphan ", kFirstData)});
}

TEST_F(CheckTest, FileAndDirectoryWithoutNamesGoToLostAndFound) {
  InDirectory(root_, "other", {}, 0);
  InDirectory(root_, "directory", {}, 0);
  ExpectProblem({Name(other_) + " has 1 links and 0 names", Name(directory_) + ", a directory, has 0 names"});
  EXPECT_THAT(Salvaged(), testing::UnorderedElementsAre(Salvaged(other_), Salvaged(directory_)));
  EXPECT_EQ(*Do(instance_->Read(other_, 0, 20'000)), std::string(10'000, 'o'));
  EXPECT_EQ(*Do(instance_->Parent(directory_)), Do(instance_->Lookup(root_, "lost+found"))->inode);
  EXPECT_EQ(Do(instance_->Lookup(directory_, "below"))->inode, below_);
}

// Covers: F12
TEST_F(CheckTest, WhatCanBeReadOfADamagedDirectoryStaysAndTheRestGoesToLostAndFound) {
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(Do(instance_->MakeNode({}, directory_, absl::StrCat("n", i), S_IFREG | 0600, 0)).ok());
  }
  const NodeView root(std::span<const char>(pages_.metadata(directory_.value)).subspan(192, 2'688));
  ASSERT_GT(root.count(), 2);
  pages_.metadata(root.ChildAt(1))[2'000] ^= 1;
  ExpectProblem({"its checksum is wrong"});
  size_t named = 0;
  for (int i = 0; i < 400; ++i) named += Do(instance_->Lookup(directory_, absl::StrCat("n", i))).ok() ? 1 : 0;
  EXPECT_GT(named, 100u);
  EXPECT_GT(Salvaged().size(), 10u);
  EXPECT_GE(named + Salvaged().size(), 400u);
}

TEST_F(CheckTest, DirectoryThatIsTooLargeToBeMadeAnewIsMarkedAndDenied) {
  for (int i = 0; i < 3'200; ++i) {
    const std::string name = std::string(240, 'n') + std::to_string(i);
    ASSERT_TRUE(Do(instance_->MakeNode({}, directory_, name, S_IFIFO | 0600, 0)).ok());
  }
  NodeView node(std::span<const char>(pages_.metadata(directory_.value)).subspan(192, 2'688));
  uint64_t leaf = 0;
  while (node.level() > 0) {
    leaf = node.ChildAt(1);
    node = NodeView(std::span<const char>(pages_.metadata(leaf)).subspan(kTreeNodeAt));
  }
  pages_.metadata(leaf)[2'000] ^= 1;
  const CheckReport repaired = *Do(CheckFileset(&pages_, {.repair = true}));
  EXPECT_THAT(repaired.repairs, Contains(HasSubstr("the directory is marked, and nobody uses it")));
  EXPECT_THAT(repaired.problems, Contains(HasSubstr("its checksum is wrong")));
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(directory_, "below")).status()), EUCLEAN);
  EXPECT_EQ(ErrnoOf(Do(instance_->ReadDirectory(directory_, 0, 10)).status()), EUCLEAN);
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeDirectory({}, directory_, "more", 0700)).status()), EUCLEAN);
  EXPECT_TRUE(Do(instance_->Lookup(root_, "untouched")).ok());
}

TEST_F(CheckTest, DamagedGroupIsMadeAnew) {
  pages_.metadata(kFirstMetadata)[1'500] ^= 1;
  ExpectProblem({absl::StrCat("the group of page ", kFirstMetadata), "its checksum is wrong"});
  pages_.metadata(kFirstData)[1'500] ^= 1;
  ExpectProblem({absl::StrCat("the group of page ", kFirstData), "its checksum is wrong"});
  EXPECT_EQ(*Do(instance_->Read(other_, 0, 20'000)), std::string(10'000, 'o'));
}

TEST_F(CheckTest, NodeOfAFileThatIsDamagedLeavesAHole) {
  AttributesChange longer;
  longer.size_bytes = 2'000 * kPageSize;
  ASSERT_TRUE(Do(instance_->SetAttributes(other_, longer)).ok());
  for (int i = 0; i < 400; ++i) {
    ASSERT_TRUE(Do(instance_->Write(other_, (100 + 2 * i) * kPageSize, "x", {})).ok());
  }
  const NodeView root(std::span<const char>(pages_.metadata(other_.value)).subspan(192, 2'688));
  ASSERT_GT(root.level(), 0);
  pages_.metadata(root.ChildAt(1))[2'000] ^= 1;
  ExpectProblem({"its checksum is wrong"});
  EXPECT_EQ(Do(instance_->Read(other_, 0, 10'000))->substr(0, 9'000), std::string(9'000, 'o'));
}

// Covers: F13
TEST_F(CheckTest, NodeOfNoTreeIsFound) {
  SpaceMap space(&pages_);
  auto body = [&](Edit& edit) -> Task<absl::Status> {
    const auto page = co_await space.Take(&edit);
    const auto node = co_await edit.Make(*page, PageKind::kTree);
    PutLittle((*node)->mutable_bytes(), kTreeOwnerAt, directory_.value);
    NodeEditor editor((*node)->mutable_bytes().subspan(kTreeNodeAt));
    editor.Clear(0);
    EXPECT_TRUE(editor.Insert(7, "value"));
    co_return absl::OkStatus();
  };
  EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  ExpectProblem({" is used, and nothing has it"});
}

// The power goes at each change of a repair: the next one goes on.
TEST_F(CheckTest, RepairThatIsInterruptedIsDoneByTheNextOne) {
  const auto damage = [&] {
    InDirectory(root_, "other", {}, 0);
    InDirectory(root_, "directory", {}, 0);
    InGroup(kFirstData + 5'000, true, false);
    PutExtent(other_, 20, kFirstData + 1, 1);
    Damage<uint32_t>(below_.value, 28, 7);
    pages_.metadata(file_.value)[1'000] ^= 1;
  };
  ASSERT_TRUE(Do(instance_->Sync(other_)).ok());
  damage();
  const MemoryPages damaged = pages_;
  for (uint64_t end = 1; !HasFailure(); ++end) {
    SCOPED_TRACE(testing::Message() << "the power goes at change " << end);
    pages_ = damaged;
    pages_.EndAfter(end);
    const bool is_done = Do(CheckFileset(&pages_, {.repair = true})).ok();
    pages_.LosePower();
    instance_ = *Do(Instance::Open(&pages_));
    EXPECT_THAT(Do(CheckFileset(&pages_, {.repair = true}))->problems, testing::IsEmpty());
    EXPECT_TRUE(Check().IsSound());
    EXPECT_EQ(*Do(instance_->Read(other_, 0, 20'000)), std::string(10'000, 'o'));
    if (is_done) break;
  }
}

TEST_F(CheckTest, PagesThatCannotBeReadAreAnError) {
  pages_.EndAfter(0);
  EXPECT_TRUE(absl::IsUnavailable(Do(CheckFileset(&pages_)).status()));
}

}  // namespace
}  // namespace mangrove::fs
