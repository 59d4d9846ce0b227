#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "fs/acl.h"
#include "fs/bytes.h"
#include "fs/check.h"
#include "fs/instance.h"
#include "fs/status.h"
#include "tests/unit/fs/memory_pages.h"

namespace mangrove::fs {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class StreamsTest : public testing::Test {
 protected:
  StreamsTest() {
    EXPECT_TRUE(Do(Instance::Make(&pages_, {})).ok());
    Reopen();
    file_ = Make("file");
  }
  void Reopen() {
    auto opened = Do(Instance::Open(&pages_));
    EXPECT_TRUE(opened.ok()) << opened.status();
    instance_ = *std::move(opened);
    root_ = instance_->root();
    EXPECT_TRUE(Do(instance_->FinishRemovals()).ok());
  }
  InodeNumber Make(const std::string& name) {
    const auto made = Do(instance_->MakeNode({.uid = 7, .gid = 8}, root_, name, S_IFREG | 0640, 0));
    EXPECT_TRUE(made.ok()) << made.status();
    return made->inode;
  }
  int Set(InodeNumber inode, const std::string& name, const std::string& value, XattrMode mode = XattrMode::kAny) {
    return ErrnoOf(Do(instance_->SetXattr(inode, "user.stream." + name, value, mode)));
  }
  absl::StatusOr<std::string> Get(InodeNumber inode, const std::string& name) {
    return Do(instance_->GetXattr(inode, "user.stream." + name));
  }
  int GetError(InodeNumber inode, const std::string& name) { return ErrnoOf(Get(inode, name).status()); }
  int Remove(InodeNumber inode, const std::string& name) {
    return ErrnoOf(Do(instance_->RemoveXattr(inode, "user.stream." + name)));
  }
  // The directory of streams of what has this name in the root.
  InodeNumber Streams(const std::string& name) {
    const auto found = Do(instance_->Lookup(root_, ".mangrove-streams:" + name));
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->inode : InodeNumber{};
  }
  InodeNumber StreamOf(const std::string& file, const std::string& name) {
    const auto found = Do(instance_->Lookup(Streams(file), name));
    EXPECT_TRUE(found.ok()) << found.status();
    return found.ok() ? found->inode : InodeNumber{};
  }
  Attributes Of(InodeNumber inode) {
    const auto attributes = Do(instance_->GetAttributes(inode));
    EXPECT_TRUE(attributes.ok()) << attributes.status();
    return attributes.ok() ? *attributes : Attributes{};
  }
  std::vector<std::string> Names(InodeNumber directory) {
    const auto entries = Do(instance_->ReadDirectory(directory, 0, 1'000));
    EXPECT_TRUE(entries.ok()) << entries.status();
    std::vector<std::string> names;
    for (const DirectoryEntry& entry : *entries) names.push_back(entry.name);
    return names;
  }
  CheckReport Check() {
    auto report = Do(CheckFileset(&pages_));
    EXPECT_TRUE(report.ok()) << report.status();
    return *std::move(report);
  }
  void ExpectSound() { EXPECT_THAT(Check().problems, IsEmpty()); }

  MemoryPages pages_;
  std::unique_ptr<Instance> instance_;
  InodeNumber root_;
  InodeNumber file_;
};

// Covers: F04
TEST_F(StreamsTest, SmallStreamsAreAttributesAsWholeValues) {
  EXPECT_EQ(GetError(file_, "a"), ENODATA);
  EXPECT_EQ(Set(file_, "a", "first"), 0);
  EXPECT_EQ(Set(file_, "b", std::string(65'536, 'b')), 0);
  EXPECT_EQ(Set(file_, "empty", ""), 0);
  EXPECT_EQ(*Get(file_, "a"), "first");
  EXPECT_EQ(*Get(file_, "b"), std::string(65'536, 'b'));
  EXPECT_EQ(*Get(file_, "empty"), "");
  EXPECT_EQ(Set(file_, "b", "short"), 0);
  EXPECT_EQ(Set(file_, "a", std::string(9'000, 'a')), 0);
  EXPECT_EQ(*Get(file_, "b"), "short");
  EXPECT_EQ(*Get(file_, "a"), std::string(9'000, 'a'));
  EXPECT_TRUE(Do(instance_->SetXattr(file_, "user.other", "x", XattrMode::kAny)).ok());
  EXPECT_THAT(*Do(instance_->ListXattr(file_)),
              UnorderedElementsAre("user.stream.a", "user.stream.b", "user.stream.empty", "user.other"));
  EXPECT_EQ(Remove(file_, "a"), 0);
  EXPECT_EQ(GetError(file_, "a"), ENODATA);
  EXPECT_EQ(Remove(file_, "a"), ENODATA);
  ExpectSound();
}

// Covers: F04
TEST_F(StreamsTest, ErrorsAreThoseOfAttributes) {
  EXPECT_EQ(Set(file_, "a", "1", XattrMode::kReplace), ENODATA);
  EXPECT_EQ(Set(file_, "a", "1", XattrMode::kCreate), 0);
  EXPECT_EQ(Set(file_, "a", "2", XattrMode::kCreate), EEXIST);
  EXPECT_EQ(Set(file_, "a", "3", XattrMode::kReplace), 0);
  EXPECT_EQ(*Get(file_, "a"), "3");
  EXPECT_EQ(Set(file_, "b", std::string(9'000, 'b'), XattrMode::kCreate), 0);
  EXPECT_EQ(Set(file_, "", "1"), EINVAL);
  EXPECT_EQ(Set(file_, "a/b", "1"), EINVAL);
  EXPECT_EQ(Set(file_, "big", std::string(65'537, 'b')), E2BIG);
  EXPECT_EQ(GetError(file_, "big"), ENODATA);
  ASSERT_TRUE(Do(instance_->Write(StreamOf("file", "a"), 65'536, "x", {})).ok());
  EXPECT_EQ(GetError(file_, "a"), E2BIG);
  const auto link = Do(instance_->MakeSymlink({}, root_, "link", "file"));
  EXPECT_EQ(Set(link->inode, "a", "1"), EOPNOTSUPP);
  EXPECT_EQ(GetError(link->inode, "a"), ENODATA);
}

// Covers: F04
TEST_F(StreamsTest, NamesHaveUpTo255Bytes) {
  const std::string longest_attribute(255 - 12, 'n');
  EXPECT_EQ(Set(file_, longest_attribute, "v"), 0);
  EXPECT_EQ(Set(file_, longest_attribute + "n", "v"), ERANGE);
  const std::string longest(255, 'm');
  ASSERT_TRUE(Do(instance_->MakeNode({}, Streams("file"), longest, S_IFREG, 0)).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeNode({}, Streams("file"), longest + "m", S_IFREG, 0)).status()), ENAMETOOLONG);
  EXPECT_THAT(Names(Streams("file")), UnorderedElementsAre(longest_attribute, longest));
  // One that is too long for an attribute's is not listed among these.
  EXPECT_THAT(*Do(instance_->ListXattr(file_)), ElementsAre("user.stream." + longest_attribute));
  ExpectSound();
}

// Covers: F03 F04
TEST_F(StreamsTest, AStreamIsSparseAndOfAnySizeAndItsPagesAreItsFilesToo) {
  ASSERT_TRUE(Do(instance_->Write(file_, 0, std::string(8'192, 'f'), {})).ok());
  EXPECT_EQ(Set(file_, "a", "begin"), 0);
  const InodeNumber stream = StreamOf("file", "a");
  const uint64_t far = uint64_t{1} << 44;
  ASSERT_TRUE(Do(instance_->Write(stream, far, "end", {})).ok());
  EXPECT_EQ(Of(stream).size_bytes, far + 3);
  EXPECT_EQ(*Do(instance_->Read(stream, far - 3, 100)), std::string("\0\0\0end", 6));
  EXPECT_EQ(*Do(instance_->Seek(stream, 4'096, SEEK_DATA)), far);
  EXPECT_GE(Of(stream).pages, 2U);
  EXPECT_EQ(Of(file_).pages, 2 + Of(stream).pages);
  EXPECT_EQ(Of(file_).size_bytes, 8'192U);
  EXPECT_EQ(*Do(instance_->Read(file_, 0, 10'000)), std::string(8'192, 'f'));
  EXPECT_TRUE(Do(instance_->Sync(file_)).ok());
  ExpectSound();
  AttributesChange change;
  change.size_bytes = 5;
  ASSERT_TRUE(Do(instance_->SetAttributes(stream, change)).ok());
  EXPECT_EQ(*Get(file_, "a"), "begin");
  ExpectSound();
  EXPECT_EQ(Remove(file_, "a"), 0);
  EXPECT_EQ(Of(file_).pages, 2U);
  ExpectSound();
}

// Covers: F04
TEST_F(StreamsTest, ADirectoryHasStreamsTooAndGoesWithThem) {
  const auto directory = Do(instance_->MakeDirectory({}, root_, "d", 0755));
  EXPECT_EQ(Set(directory->inode, "a", std::string(5'000, 'd')), 0);
  EXPECT_EQ(Set(root_, "r", "root's"), 0);
  EXPECT_EQ(Do(instance_->Lookup(directory->inode, ".mangrove-streams:"))->inode, Streams("d"));
  EXPECT_THAT(Names(directory->inode), IsEmpty());
  EXPECT_EQ(*Get(directory->inode, "a"), std::string(5'000, 'd'));
  EXPECT_EQ(*Get(root_, "r"), "root's");
  ExpectSound();
  EXPECT_TRUE(Do(instance_->RemoveDirectory(root_, "d")).ok());
  EXPECT_EQ(Check().streams, 1U);
  ExpectSound();
}

// Covers: F04
TEST_F(StreamsTest, StreamsGoWhereTheirFileGoesAndWithTheLastOfItsNames) {
  EXPECT_EQ(Set(file_, "a", "stream"), 0);
  ASSERT_TRUE(Do(instance_->Link(file_, root_, "second")).ok());
  ASSERT_TRUE(Do(instance_->Rename(root_, "file", root_, "moved", 0)).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->Lookup(root_, ".mangrove-streams:file")).status()), ENOENT);
  EXPECT_EQ(Streams("moved"), Streams("second"));
  EXPECT_EQ(*Get(file_, "a"), "stream");
  ASSERT_TRUE(Do(instance_->Unlink(root_, "moved")).ok());
  EXPECT_EQ(*Get(file_, "a"), "stream");
  Make("other");
  ASSERT_TRUE(Do(instance_->Rename(root_, "other", root_, "second", 0)).ok());
  EXPECT_EQ(Check().streams, 0U);
  ExpectSound();
}

// Covers: F04
TEST_F(StreamsTest, AFileWithManyAndLargeStreamsIsRemovedWhole) {
  for (int i = 0; i < 40; ++i) EXPECT_EQ(Set(file_, absl::StrCat("s", i), std::string(100, 's')), 0);
  const InodeNumber large = StreamOf("file", "s7");
  for (uint64_t i = 0; i < 1'200; ++i) ASSERT_TRUE(Do(instance_->Write(large, i * 81'920, "x", {})).ok());
  ExpectSound();
  const InodeNumber streams = Streams("file");
  ASSERT_TRUE(Do(instance_->Unlink(root_, "file")).ok());
  EXPECT_EQ(ErrnoOf(Do(instance_->GetAttributes(large)).status()), ESTALE);
  EXPECT_EQ(ErrnoOf(Do(instance_->GetAttributes(streams)).status()), ESTALE);
  const CheckReport report = Check();
  EXPECT_THAT(report.problems, IsEmpty());
  EXPECT_EQ(report.streams, 0U);
  EXPECT_EQ(report.orphans, 0U);
}

// Covers: F04
TEST_F(StreamsTest, AStreamThatIsOpenOutlivesItsNameAndItsFile) {
  for (const bool with_file : {false, true}) {
    const InodeNumber file = Make("f");
    EXPECT_EQ(Set(file, "a", std::string(6'000, 'o')), 0);
    EXPECT_EQ(Set(file, "b", "closed"), 0);
    const InodeNumber stream = StreamOf("f", "a");
    ASSERT_TRUE(Do(instance_->Open(stream)).ok());
    EXPECT_EQ(with_file ? ErrnoOf(Do(instance_->Unlink(root_, "f"))) : Remove(file, "a"), 0);
    EXPECT_EQ(*Do(instance_->Read(stream, 0, 10'000)), std::string(6'000, 'o'));
    ASSERT_TRUE(Do(instance_->Write(stream, 20'000, "more", {})).ok());
    EXPECT_EQ(Of(stream).mode, mode_t{S_IFREG | 0640});
    EXPECT_EQ(Of(stream).uid, 7U);
    if (!with_file) {
      EXPECT_EQ(Of(file).pages, 1U);
    }
    ExpectSound();
    ASSERT_TRUE(Do(instance_->Close(stream)).ok());
    EXPECT_EQ(ErrnoOf(Do(instance_->GetAttributes(stream)).status()), ESTALE);
    ExpectSound();
    if (!with_file) {
      EXPECT_TRUE(Do(instance_->Unlink(root_, "f")).ok());
    }
  }
}

// Covers: F04
TEST_F(StreamsTest, PermissionsAndOwnersOfStreamsAreTheirFilesAsTheyAreNow) {
  EXPECT_EQ(Set(file_, "a", "x"), 0);
  const InodeNumber stream = StreamOf("file", "a");
  EXPECT_EQ(Of(stream).mode, mode_t{S_IFREG | 0640});
  EXPECT_EQ(Of(Streams("file")).mode, mode_t{S_IFDIR | 0750});
  EXPECT_EQ(Of(stream).uid, 7U);
  AttributesChange change;
  change.mode = 0702;
  change.uid = 9;
  ASSERT_TRUE(Do(instance_->SetAttributes(file_, change)).ok());
  EXPECT_EQ(Of(stream).mode, mode_t{S_IFREG | 0602});
  EXPECT_EQ(Of(Streams("file")).mode, mode_t{S_IFDIR | 0703});
  EXPECT_EQ(Of(stream).uid, 9U);
  EXPECT_EQ(ErrnoOf(Do(instance_->SetAttributes(stream, change)).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->SetAttributes(Streams("file"), change)).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->SetXattr(stream, "user.x", "y", XattrMode::kAny))), EOPNOTSUPP);
  // What everybody may write to, and nobody may remove from, is written to by its owner alone.
  const auto sticky = Do(instance_->MakeDirectory({}, root_, "sticky", 01777));
  EXPECT_EQ(Set(sticky->inode, "a", "x"), 0);
  EXPECT_EQ(Of(Streams("sticky")).mode, mode_t{S_IFDIR | 0755});
  EXPECT_EQ(Of(StreamOf("sticky", "a")).mode, mode_t{S_IFREG | 0644});
}

std::string AclBytes(const std::vector<std::array<uint32_t, 3>>& entries) {
  std::string acl(4 + entries.size() * 8, '\0');
  const std::span<char> bytes(acl.data(), acl.size());
  PutLittle(bytes, 0, uint32_t{2});
  for (size_t i = 0; i < entries.size(); ++i) {
    PutLittle(bytes, 4 + i * 8, static_cast<uint16_t>(entries[i][0]));
    PutLittle(bytes, 6 + i * 8, static_cast<uint16_t>(entries[i][1]));
    PutLittle(bytes, 8 + i * 8, entries[i][2]);
  }
  return acl;
}

// Covers: F04
TEST_F(StreamsTest, AnAclOfAFileIsThatOfItsStreams) {
  constexpr uint32_t kNobody = ~uint32_t{0};
  EXPECT_EQ(Set(file_, "a", "x"), 0);
  const std::string name(kAccessAcl);
  EXPECT_EQ(ErrnoOf(Do(instance_->GetXattr(StreamOf("file", "a"), name)).status()), ENODATA);
  const auto acl = [&](uint32_t user, uint32_t named, uint32_t group, uint32_t mask, uint32_t other) {
    return AclBytes(
        {{1, user, kNobody}, {2, named, 33}, {4, group, kNobody}, {16, mask, kNobody}, {32, other, kNobody}});
  };
  ASSERT_TRUE(Do(instance_->SetXattr(file_, name, acl(7, 6, 1, 7, 0), XattrMode::kAny)).ok());
  EXPECT_EQ(*Do(instance_->GetXattr(StreamOf("file", "a"), name)), acl(6, 6, 0, 6, 0));
  EXPECT_EQ(*Do(instance_->GetXattr(Streams("file"), name)), acl(7, 7, 0, 7, 0));
}

// Covers: F04
TEST_F(StreamsTest, OnlyStreamsAreAmongStreamsAndTheyStayWithTheirFile) {
  EXPECT_EQ(Set(file_, "a", "x"), 0);
  EXPECT_EQ(Set(file_, "b", "y"), 0);
  EXPECT_EQ(Set(Make("other"), "c", "z"), 0);
  const InodeNumber streams = Streams("file");
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeDirectory({}, streams, "d", 0755)).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeSymlink({}, streams, "l", "t")).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->MakeNode({}, streams, "p", S_IFIFO | 0644, 0)).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->Link(file_, streams, "f")).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->Link(StreamOf("file", "a"), root_, "f")).status()), EPERM);
  EXPECT_EQ(ErrnoOf(Do(instance_->Rename(streams, "a", root_, "a", 0))), EXDEV);
  EXPECT_EQ(ErrnoOf(Do(instance_->Rename(root_, "file", streams, "f", 0))), EXDEV);
  EXPECT_EQ(ErrnoOf(Do(instance_->Rename(streams, "a", Streams("other"), "a", 0))), EXDEV);
  EXPECT_EQ(Set(StreamOf("file", "a"), "of a stream", "x"), EOPNOTSUPP);
  // Their directory has no name that can be taken, or given away.
  for (const std::string name : {".mangrove-streams:file", ".mangrove-streams:", ".mangrove-streams:new"}) {
    EXPECT_EQ(ErrnoOf(Do(instance_->MakeNode({}, root_, name, S_IFREG | 0644, 0)).status()), EPERM);
    EXPECT_EQ(ErrnoOf(Do(instance_->RemoveDirectory(root_, name))), EPERM);
    EXPECT_EQ(ErrnoOf(Do(instance_->Rename(root_, name, root_, "x", 0))), EPERM);
    EXPECT_EQ(ErrnoOf(Do(instance_->Rename(root_, "file", root_, name, 0))), EPERM);
  }
  EXPECT_THAT(Names(root_), UnorderedElementsAre("file", "other"));
  ExpectSound();
}

// Covers: F04
TEST_F(StreamsTest, AStreamIsRenamedOverAnotherInOneStep) {
  EXPECT_EQ(Set(file_, "a", "old"), 0);
  EXPECT_EQ(Set(file_, ".put-1", std::string(30'000, 'n')), 0);
  ASSERT_TRUE(Do(instance_->Rename(Streams("file"), ".put-1", Streams("file"), "a", 0)).ok());
  EXPECT_EQ(*Get(file_, "a"), std::string(30'000, 'n'));
  EXPECT_THAT(Names(Streams("file")), ElementsAre("a"));
  EXPECT_EQ(Of(file_).pages, Of(StreamOf("file", "a")).pages);
  ExpectSound();
}

// Covers: F04 F12
TEST_F(StreamsTest, WithAbortsAtEachStepTheyAreWhole) {
  for (const uint64_t each : {61, 67, 97}) {
    pages_.AbortEach(each);
    const InodeNumber file = Make("f");
    EXPECT_EQ(Set(file, "a", std::string(20'000, 'a'), XattrMode::kCreate), 0) << each;
    EXPECT_EQ(Set(file, "b", "bb", XattrMode::kCreate), 0) << each;
    EXPECT_EQ(*Get(file, "a"), std::string(20'000, 'a'));
    EXPECT_EQ(Set(file, "a", "short", XattrMode::kReplace), 0) << each;
    EXPECT_EQ(*Get(file, "a"), "short");
    EXPECT_TRUE(Do(instance_->Unlink(root_, "f")).ok());
    pages_.AbortEach(0);
    EXPECT_EQ(Check().streams, 0U);
    ExpectSound();
  }
}

// Covers: F04 F12
TEST_F(StreamsTest, WhereverThePowerGoesStreamsAreAsBeforeOrAfter) {
  const std::string before(9'000, 'b');
  const std::string after(30'000, 'a');
  for (const int step : {0, 1, 2, 3, 4}) {
    for (uint64_t changes = 1;; ++changes) {
      ASSERT_LT(changes, 200U) << step;
      const InodeNumber file = Make("f");
      ASSERT_EQ(Set(file, "a", before), 0);
      ASSERT_EQ(Set(file, "b", "other"), 0);
      ASSERT_TRUE(Do(instance_->Sync(file)).ok());
      pages_.EndAfter(changes);
      switch (step) {
        case 0: Set(file, "new", after); break;
        case 1: Set(file, "a", "short"); break;
        case 2: Remove(file, "a"); break;
        case 3: Do(instance_->Rename(Streams("f"), "a", Streams("f"), "b", 0)).IgnoreError(); break;
        default: Do(instance_->Unlink(root_, "f")).IgnoreError(); break;
      }
      const bool has_ended = pages_.HasEnded();
      pages_.LosePower();
      Reopen();
      EXPECT_THAT(Check().problems, IsEmpty()) << "step " << step << ", after " << changes << " changes";
      if (Do(instance_->Lookup(root_, "f")).ok()) {
        const auto a = Get(file, "a");
        if (step == 0 || step == 4) {
          EXPECT_EQ(*a, before);
        }
        if (step == 1) {
          EXPECT_TRUE(a->size() == before.size() || a->size() == 5) << a->size();
        }
        if (step == 2 || step == 3) {
          EXPECT_TRUE(ErrnoOf(a.status()) == ENODATA || *a == before);
        }
        if (step == 3) {
          EXPECT_EQ(*Get(file, "b"), a.ok() ? "other" : before);
        }
        ASSERT_TRUE(Do(instance_->Unlink(root_, "f")).ok());
      } else {
        EXPECT_EQ(step, 4);
      }
      EXPECT_EQ(Check().streams, 0U) << step;
      if (!has_ended) break;
    }
  }
}

// Covers: F17
TEST_F(StreamsTest, ACheckFindsWhatIsWrongWithThem) {
  EXPECT_EQ(Set(file_, "a", std::string(5'000, 'a')), 0);
  const InodeNumber other = Make("other");
  EXPECT_EQ(Set(other, "b", "b"), 0);
  ExpectSound();
  EXPECT_EQ(Check().streams, 2U);
  const InodeNumber stream = StreamOf("file", "a");
  const auto with = [&](InodeNumber inode, const std::function<void(Inode*)>& damage, const std::string& found) {
    const std::string kept = pages_.metadata(inode.value);
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      absl::StatusOr<Inode> opened = co_await Inode::Get(&edit, inode, Intent::kWrite);
      if (opened.ok()) damage(&*opened);
      co_return opened.status();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
    EXPECT_THAT(Check().problems, Contains(HasSubstr(found)));
    pages_.metadata(inode.value) = kept;
    ExpectSound();
  };
  with(
      file_, [](Inode* inode) { inode->set_stream_pages(99); }, "counts 99 pages of its streams");
  with(
      file_, [](Inode* inode) { inode->set_streams({}); }, "has 0 names");
  with(
      file_, [&](Inode* inode) { inode->set_streams(other); }, "which is no directory of streams");
  with(
      stream, [&](Inode* inode) { inode->set_parent(other); }, "is among the streams of another one");
  with(
      stream, [](Inode* inode) { inode->Set(Inode::kStream, false); }, "which belongs not among streams");
  with(
      other, [](Inode* inode) { inode->Set(Inode::kStream, true); }, "which belongs among streams");
}

// Covers: F04, F17
TEST_F(StreamsTest, ManyStreamsOfFilesAndDirectoriesAreSound) {
  const InodeNumber directory = Do(instance_->MakeDirectory({}, root_, "directory", 0755))->inode;
  for (const InodeNumber owner : {file_, directory, root_}) {
    for (int i = 0; i < 150; ++i) {
      ASSERT_EQ(Set(owner, absl::StrCat(i), std::string(static_cast<size_t>(i) * 100, 's')), 0);
    }
  }
  ASSERT_EQ(Remove(file_, "7"), 0);
  const InodeNumber open = StreamOf("file", "9");
  ASSERT_TRUE(Do(instance_->Open(open)).ok());
  ASSERT_EQ(Remove(file_, "9"), 0);
  for (const bool repair : {false, true}) {
    // Also in windows of some inodes, and in steps of some records.
    for (const uint64_t most : {500'000, 1}) {
      const auto report = Do(CheckFileset(&pages_, {.repair = repair, .most_inodes = most, .records_at_once = 16}));
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_THAT(report->problems, IsEmpty());
      EXPECT_THAT(report->repairs, IsEmpty());
      EXPECT_EQ(report->unjudged, 0U);
      EXPECT_EQ(report->streams, 3U * 150 - 1);
      EXPECT_EQ(report->files, 1U);
      EXPECT_EQ(report->directories, 2U);
      EXPECT_EQ(report->orphans, 1U);
    }
  }
  EXPECT_EQ(*Get(file_, "149"), std::string(14'900, 's'));
}

// Covers: F04, F17
TEST_F(StreamsTest, RepairOfOtherDamageKeepsEveryStream) {
  const InodeNumber directory = Do(instance_->MakeDirectory({}, root_, "directory", 0755))->inode;
  const auto value = [](InodeNumber owner, int i) {
    return std::string(static_cast<size_t>(i) * 700,
                       static_cast<char>('a' + (owner.value + static_cast<uint64_t>(i)) % 26));
  };
  for (const InodeNumber owner : {file_, directory}) {
    for (int i = 0; i < 40; ++i) ASSERT_EQ(Set(owner, absl::StrCat(i), value(owner, i)), 0);
  }
  const InodeNumber other = Make("other");
  const InodeNumber lost = Make("lost");
  const auto damage = [&](InodeNumber inode, const std::function<void(Inode*)>& change) {
    auto body = [&](Edit& edit) -> Task<absl::Status> {
      absl::StatusOr<Inode> opened = co_await Inode::Get(&edit, inode, Intent::kWrite);
      if (opened.ok()) change(&*opened);
      co_return opened.status();
    };
    EXPECT_TRUE(Do(RunEdit(&pages_, body)).ok());
  };
  damage(other, [](Inode* inode) { inode->set_links(5); });
  damage(file_, [](Inode* inode) { inode->set_stream_pages(99); });
  damage(directory, [](Inode* inode) { inode->set_links(9); });
  pages_.metadata(lost.value)[100] ^= 1;  // A wrong checksum.
  const auto repaired = Do(CheckFileset(&pages_, {.repair = true}));
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_THAT(repaired->problems, IsEmpty());
  EXPECT_THAT(repaired->repairs, Contains(HasSubstr("counts 99 pages of its streams")));
  EXPECT_THAT(repaired->repairs, Contains(HasSubstr("it is free now")));
  ExpectSound();
  EXPECT_EQ(Check().streams, 80U);
  Reopen();
  for (const InodeNumber owner : {file_, directory}) {
    for (int i = 0; i < 40; ++i) EXPECT_EQ(*Get(owner, absl::StrCat(i)), value(owner, i));
  }
  EXPECT_FALSE(Do(instance_->Lookup(root_, "lost+found")).ok());
}

// Covers: F17
TEST_F(StreamsTest, StreamsWithoutAnOwnerGoToLostAndFoundWithTheirBytes) {
  ASSERT_EQ(Set(file_, "a", std::string(5'000, 'a')), 0);
  const InodeNumber stream = StreamOf("file", "a");
  pages_.metadata(file_.value)[100] ^= 1;
  const auto repaired = Do(CheckFileset(&pages_, {.repair = true}));
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_THAT(repaired->problems, IsEmpty());
  ExpectSound();
  Reopen();
  const InodeNumber found = Do(instance_->Lookup(root_, "lost+found"))->inode;
  const auto file = Do(instance_->Lookup(found, absl::StrCat("#", stream.value)));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(*Do(instance_->Read(file->inode, 0, 10'000)), std::string(5'000, 'a'));
}

}  // namespace
}  // namespace mangrove::fs
