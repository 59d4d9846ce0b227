// The store's log: what was appended comes back whole and in order, or it is said that it does not (L1 to L3).

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <optional>
#include <random>

#include "engine/store/commit_log.h"
#include "engine/store/log_group.h"
#include "engine/store/segment_files.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove::store {
namespace {

using store_test::ExpectSame;
using store_test::MakePage;
using store_test::TemporaryDirectory;

constexpr PageId kPage{absl::MakeUint128(1, 42)};
constexpr uint64_t kSalt = 0x5a17;

// Group `n`: one to three batches, of pages, deletions and records, or of nothing.
std::vector<StoreBatch> GroupOf(uint64_t n) {
  std::mt19937_64 random(n);
  std::vector<StoreBatch> batches(1 + random() % 3);
  for (StoreBatch& batch : batches) {
    for (uint64_t i = random() % 4; i > 0; --i) batch.put_pages.push_back(MakePage(kPage + random() % 100, n));
    if (random() % 3 == 0) batch.delete_pages.push_back({kPage + random() % 100, random() % 50});
    if (random() % 2 == 0) batch.records.push_back({"key " + std::to_string(n), std::string(random() % 6'000, 'v')});
    if (random() % 4 == 0) batch.records.push_back({"", std::nullopt});
  }
  return batches;
}

std::vector<const StoreBatch*> Pointers(const std::vector<StoreBatch>& batches) {
  std::vector<const StoreBatch*> pointers;
  for (const StoreBatch& batch : batches) pointers.push_back(&batch);
  return pointers;
}

// But for where the pages are.
void ExpectSameBatch(const IndexChange& a, const StoreBatch& b) {
  ASSERT_EQ(a.put_pages.size(), b.put_pages.size());
  for (size_t i = 0; i < a.put_pages.size(); ++i) {
    StoredPage header = b.put_pages[i];
    EXPECT_EQ(a.put_pages[i].data_sum, DataSum(header.data->bytes.data()));
    header.data = nullptr;
    ExpectSame(HeaderOf(a.put_pages[i]), header);
  }
  EXPECT_EQ(a.delete_pages, b.delete_pages);
  ASSERT_EQ(a.records.size(), b.records.size());
  for (size_t i = 0; i < a.records.size(); ++i) {
    EXPECT_EQ(a.records[i].key, b.records[i].key);
    EXPECT_EQ(a.records[i].value, b.records[i].value);
  }
}

void ExpectSameGroup(const std::vector<IndexChange>& a, uint64_t n) {
  const std::vector<StoreBatch> b = GroupOf(n);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < b.size(); ++i) ExpectSameBatch(a[i], b[i]);
}

constexpr PagePlace kPlace{77, 1'000};

std::string Encode(uint64_t number, const std::vector<StoreBatch>& batches) {
  std::string out(EncodedGroupBlocks(Pointers(batches)) * kBlockBytes, '?');
  EncodeGroup(number, kSalt, kPlace, Pointers(batches), out);
  return out;
}

std::optional<std::vector<IndexChange>> Decode(std::string_view group) {
  const auto header = DecodeGroupHeader(group, kSalt);
  if (!header.has_value() || header->blocks() * kBlockBytes != group.size()) return std::nullopt;
  return DecodeGroupEntries(group.substr(0, header->entry_blocks * kBlockBytes), kSalt, kPlace);
}

// With the data of its pages.
bool IsSound(std::string_view group) {
  const auto changes = Decode(group);
  if (!changes.has_value()) return false;
  for (const IndexChange& change : *changes) {
    for (const PageEntry& entry : change.put_pages) {
      if (DataSum(group.data() + (entry.place.block - kPlace.block) * kBlockBytes) != entry.data_sum) return false;
    }
  }
  return true;
}

// --- A group ----------------------------------------------------------------------------------------------------------

TEST(LogGroup, WhatIsEncodedIsDecodedAndThePagesAreWhereItSays) {
  for (uint64_t n = 1; n < 50; ++n) {
    const std::vector<StoreBatch> batches = GroupOf(n);
    std::string bytes(EncodedGroupBlocks(Pointers(batches)) * kBlockBytes, '?');
    const auto written = EncodeGroup(n, kSalt, kPlace, Pointers(batches), bytes);
    ASSERT_EQ(DecodeGroupHeader(bytes, kSalt)->number, n);
    const auto read = Decode(bytes);
    ASSERT_TRUE(read.has_value());
    ExpectSameGroup(written, n);
    ExpectSameGroup(*read, n);
    for (size_t i = 0; i < batches.size(); ++i) {
      EXPECT_EQ(written[i].put_pages, (*read)[i].put_pages);
      for (size_t page = 0; page < batches[i].put_pages.size(); ++page) {
        const PagePlace place = written[i].put_pages[page].place;
        ASSERT_EQ(place.segment, kPlace.segment);
        EXPECT_EQ(
            bytes.compare((place.block - kPlace.block) * kBlockBytes, kBlockBytes,
                          reinterpret_cast<const char*>(batches[i].put_pages[page].data->bytes.data()), kBlockBytes),
            0);
      }
    }
  }
}

TEST(LogGroup, BytesAreWhereTheFormatSays) {
  StoreBatch batch;
  batch.delete_pages.push_back({PageId(absl::MakeUint128(1, 2)), 3});
  batch.records.push_back({"k", "vw"});
  batch.records.push_back({"x", std::nullopt});
  const std::string bytes = Encode(0x0102030405060708, {batch});
  ASSERT_EQ(bytes.size(), kBlockBytes);
  const std::string entries(
      "B"
      "D\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"
      "R\1\0\0\0\2\0\0\0kvw"
      "X\1\0\0\0x",
      1 + 25 + 12 + 6);
  EXPECT_EQ(bytes.substr(0, 24), std::string("MGLG\2\0\0\0\x08\7\6\5\4\3\2\1\x2c\0\0\0\0\0\0\0", 24));
  EXPECT_EQ(bytes.substr(40, entries.size()), entries);
  EXPECT_EQ(bytes.substr(40 + entries.size()), std::string(kBlockBytes - 40 - entries.size(), '\0'));
}

TEST(LogGroup, AnotherStoresGroupIsNone) {
  const std::string bytes = Encode(1, GroupOf(1));
  EXPECT_FALSE(DecodeGroupHeader(bytes, kSalt + 1).has_value());
  EXPECT_FALSE(DecodeGroupEntries(bytes.substr(0, kBlockBytes), kSalt + 1, kPlace).has_value());
}

TEST(LogGroup, EveryFlippedBitThatMattersAndEveryOtherLengthIsSeen) {
  StoreBatch batch;
  batch.put_pages.push_back(MakePage(kPage, 1));
  batch.records.push_back({"key", "value"});
  const std::string sound = Encode(1, {batch});
  const size_t used = 40 + 1 + 65 + 9 + 8;
  for (size_t bit = 0; bit < 8 * sound.size(); bit += bit < 8 * used ? 1 : 37) {
    if (bit >= 8 * used && bit < 8 * kBlockBytes) continue;  // Zeros that nobody reads.
    std::string damaged = sound;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    ASSERT_FALSE(IsSound(damaged)) << bit;
  }
  for (size_t size = 0; size < sound.size(); size += 61) {
    ASSERT_FALSE(Decode(sound.substr(0, size)).has_value()) << size;
  }
  EXPECT_FALSE(DecodeGroupEntries(sound, kSalt, kPlace).has_value());
}

// --- The log ----------------------------------------------------------------------------------------------------------

constexpr LogPosition kBeginning;

class CommitLogTest : public testing::Test {
 protected:
  static CommitLogOptions Options() { return {.salt = kSalt, .segment_bytes = uint64_t{96} << 10}; }

  std::unique_ptr<CommitLog> Create() {
    auto log = CommitLog::Create(Options(), &files_);
    EXPECT_TRUE(log.ok()) << log.status();
    positions_ = {kBeginning};
    return *std::move(log);
  }

  // Expects the groups behind `applied` up to `last`, with their pages.
  std::unique_ptr<CommitLog> Open(const LogPosition& applied, uint64_t last) {
    uint64_t expected = applied.number;
    auto log = CommitLog::Open(Options(), &files_, applied, [&](const LoggedGroup& group) {
      EXPECT_EQ(group.position.number, ++expected);
      ExpectSameGroup(group.changes, group.position.number);
      ExpectPagesAreThere(group);
      return absl::OkStatus();
    });
    EXPECT_TRUE(log.ok()) << log.status();
    EXPECT_EQ(expected, last);
    EXPECT_EQ((*log)->position().number, last);
    positions_.resize(last + 1);
    return *std::move(log);
  }

  void ExpectPagesAreThere(const LoggedGroup& group) {
    for (const IndexChange& change : group.changes) {
      for (const PageEntry& entry : change.put_pages) {
        std::string data(kPageBytes, '\0');
        EXPECT_TRUE(files_.Read(entry.place, data).ok());
        EXPECT_EQ(DataSum(data.data()), entry.data_sum);
      }
    }
  }

  void AppendUpTo(CommitLog& log, uint64_t last) {
    while (log.position().number < last) {
      const std::vector<StoreBatch> batches = GroupOf(log.position().number + 1);
      const auto logged = log.Append(Pointers(batches));
      ASSERT_TRUE(logged.ok()) << logged.status();
      positions_.push_back(logged->position);
    }
  }

  absl::Status OpenStatus(const LogPosition& applied) {
    return CommitLog::Open(Options(), &files_, applied, [](const LoggedGroup&) { return absl::OkStatus(); }).status();
  }

  std::vector<uint64_t> Segments() const {
    auto segments = files_.List();
    EXPECT_TRUE(segments.ok()) << segments.status();
    return *std::move(segments);
  }
  // Of which nobody needs anything any more.
  void ReleaseBefore(uint64_t needed) {
    for (const uint64_t segment : Segments()) {
      if (segment >= needed) break;
      EXPECT_TRUE(files_.Release(segment, /*keep=*/true).ok());
    }
  }

  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const uint64_t segment : Segments()) files.push_back(files_.NameOf(segment));
    return files;
  }

  static std::string Contents(const std::string& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  // Where each group begins, also those that nobody needs.
  std::multimap<uint64_t, std::pair<std::string, uint64_t>> Places() const {
    std::multimap<uint64_t, std::pair<std::string, uint64_t>> places;
    for (const std::string& file : Files()) {
      std::ifstream stream(file, std::ios::binary);
      std::string block(kBlockBytes, '\0');
      for (uint64_t at = 0; stream.read(block.data(), kBlockBytes); at += kBlockBytes) {
        const auto header = DecodeGroupHeader(block, kSalt);
        if (header.has_value()) places.insert({header->number, {file, at}});
      }
    }
    return places;
  }
  std::pair<std::string, uint64_t> PlaceOf(uint64_t number) const {
    const auto places = Places();
    const auto place = places.find(number);
    if (place != places.end()) return place->second;
    ADD_FAILURE() << "group " << number << " is nowhere";
    return {};
  }

  void Damage(uint64_t number, uint64_t at) const {
    const auto [file, offset] = PlaceOf(number);
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekp(static_cast<std::streamoff>(offset + at)) << "damage";
    ASSERT_TRUE(stream.good());
  }

  TemporaryDirectory directory_;
  SegmentFiles files_{directory_ / "log"};
  std::vector<LogPosition> positions_;  // Behind each group, by its number.
};

TEST_F(CommitLogTest, WhatWasAppendedComesBackInOrder) {
  AppendUpTo(*Create(), 100);
  EXPECT_GT(Files().size(), 4u);
  AppendUpTo(*Open(kBeginning, 100), 150);
  Open(kBeginning, 150);
}

TEST_F(CommitLogTest, WhatWasAppliedDoesNot) {
  AppendUpTo(*Create(), 100);
  for (const uint64_t applied : {uint64_t{1}, uint64_t{60}, uint64_t{99}, uint64_t{100}}) {
    Open(positions_[applied], 100);
  }
}

TEST_F(CommitLogTest, EachSegmentIsSealedOnceWithItsBlocks) {
  std::map<uint64_t, uint64_t> sealed;
  {
    const auto log = Create();
    while (log->position().number < 100) {
      const LogPosition before = log->position();
      const auto logged = log->Append(Pointers(GroupOf(before.number + 1)));
      ASSERT_TRUE(logged.ok());
      positions_.push_back(logged->position);
      EXPECT_EQ(logged->sealed.has_value(), logged->position.end.segment != before.end.segment);
      if (!logged->sealed.has_value()) continue;
      EXPECT_EQ(logged->sealed->segment, before.end.segment);
      EXPECT_EQ(logged->sealed->blocks, before.end.block);
      sealed[logged->sealed->segment] = logged->sealed->blocks;
    }
  }
  ASSERT_GT(sealed.size(), 3u);
  const auto log = CommitLog::Open(Options(), &files_, kBeginning, [&](const LoggedGroup& group) {
    if (group.sealed.has_value()) {
      EXPECT_EQ(sealed.at(group.sealed->segment), group.sealed->blocks);
      sealed.erase(group.sealed->segment);
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_TRUE(sealed.empty());
}

TEST_F(CommitLogTest, WhoCarriesAWriteOutFindsTheLogAsItWas) {
  auto log = CommitLog::Create({.salt = kSalt, .segment_bytes = uint64_t{1} << 20}, &files_);
  ASSERT_TRUE(log.ok()) << log.status();
  for (uint64_t n = 1; n <= 20; ++n) {
    const LogPosition before = (*log)->position();
    const uint64_t bytes = (*log)->bytes();
    int calls = 0;
    const auto batches = GroupOf(n);
    const auto logged = (*log)->Append(Pointers(batches), [&](CommitLog::Write write) {
      ++calls;
      const absl::Status written = write();
      EXPECT_EQ((*log)->position(), before);
      EXPECT_EQ((*log)->bytes(), bytes);
      return written;
    });
    ASSERT_TRUE(logged.ok()) << logged.status();
    EXPECT_EQ(calls, 1);
    EXPECT_EQ((*log)->position(), logged->position);
    EXPECT_EQ((*log)->position().number, n);
  }
}

TEST_F(CommitLogTest, ReleasedFilesAreUsedAgain) {
  constexpr uint64_t kHeld = 40;
  {
    const auto log = Create();
    for (uint64_t last = kHeld; last <= 1'000; last += kHeld) {
      const uint64_t needed = log->position().end.segment;
      AppendUpTo(*log, last);
      ReleaseBefore(needed);
    }
    EXPECT_GT(log->position().end.segment, 50u);
    EXPECT_LE(Files().size(), 16u);
  }
  AppendUpTo(*Open(positions_[980], 1'000), 1'100);
  Open(positions_[980], 1'100);
}

TEST_F(CommitLogTest, GroupThatIsLargerThanASegmentHasOneToItself) {
  StoreBatch large;
  large.records.push_back({"large", std::string(300'000, 'l')});
  const StoreBatch* const batches[] = {&large};
  {
    const auto log = Create();
    AppendUpTo(*log, 3);
    ASSERT_TRUE(log->Append(batches).ok());
  }
  bool seen = false;
  const auto log = CommitLog::Open(Options(), &files_, positions_[3], [&](const LoggedGroup& group) {
    ExpectSameBatch(group.changes.front(), large);
    seen = true;
    return absl::OkStatus();
  });
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_TRUE(seen);
  positions_.push_back((*log)->position());
  AppendUpTo(**log, 20);
}

TEST_F(CommitLogTest, UnfinishedGroupIsDroppedAndItsNumberUsedAgain) {  // L1
  for (const uint64_t at : {uint64_t{0}, uint64_t{24}}) {
    AppendUpTo(*Create(), 30);
    Damage(30, at);
    {
      const auto log = Open(kBeginning, 29);
      EXPECT_EQ(Places().count(30), 0u) << "it is not found again";
      AppendUpTo(*log, 35);
    }
    Open(kBeginning, 35);
  }
}

// The unfinished one did not fit into the segment before, a smaller one does.
TEST_F(CommitLogTest, UnfinishedGroupInAFurtherSegmentDoesNotHideTheNextOfItsNumber) {  // L1
  StoreBatch large;
  large.records.push_back({"large", std::string(90'000, 'l')});
  const StoreBatch* const batches[] = {&large};
  {
    const auto log = Create();
    AppendUpTo(*log, 2);
    ASSERT_TRUE(log->Append(batches).ok());
    EXPECT_EQ(log->position().end.segment, 2u);
  }
  Damage(3, 50'000);
  AppendUpTo(*Open(kBeginning, 2), 3);
  Open(kBeginning, 3);
}

TEST_F(CommitLogTest, DamagedGroupBeforeAnotherIsDamage) {  // L2
  for (uint64_t damaged = 1; damaged < 30; ++damaged) {
    AppendUpTo(*Create(), 30);
    Damage(damaged, damaged % 2 == 0 ? 0 : 24);
    const absl::Status status = OpenStatus(kBeginning);
    ASSERT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_NE(status.message().find("group " + std::to_string(damaged)), absl::string_view::npos) << status;
    // What is applied is not missed.
    EXPECT_TRUE(OpenStatus(positions_[damaged]).ok());
  }
}

TEST_F(CommitLogTest, DamagedPageInsideTheLogIsLeftToItsReaders) {  // L2
  AppendUpTo(*Create(), 30);
  for (uint64_t damaged = 10; damaged < 30; ++damaged) {
    const uint64_t bytes = Encode(damaged, GroupOf(damaged)).size();
    if (bytes == kBlockBytes) continue;
    Damage(damaged, bytes - kPageBytes / 2);
    EXPECT_TRUE(OpenStatus(kBeginning).ok());
    return;
  }
  FAIL() << "none of the groups has a page";
}

TEST_F(CommitLogTest, MissingSegmentIsDamageAlsoIfItIsTheLast) {  // L2
  AppendUpTo(*Create(), 60);
  const size_t files = Files().size();
  ASSERT_GT(files, 3u);
  for (size_t missing = 0; missing < files; ++missing) {
    AppendUpTo(*Create(), 60);
    std::filesystem::remove(Files()[missing]);
    EXPECT_TRUE(absl::IsDataLoss(OpenStatus(kBeginning))) << missing;
  }
  std::filesystem::remove_all(directory_ / "log");
  EXPECT_TRUE(absl::IsDataLoss(OpenStatus(kBeginning)));
}

TEST_F(CommitLogTest, SegmentsAreOfWholeBlocks) {
  CommitLogOptions options = Options();
  options.segment_bytes = 100'001;
  auto log = CommitLog::Create(options, &files_);
  ASSERT_TRUE(log.ok()) << log.status();
  positions_ = {kBeginning};
  AppendUpTo(**log, 40);
  log->reset();
  Open(kBeginning, 40);
}

// A page can hold anything, also a block of a log; of this one's salt nobody knows.
TEST_F(CommitLogTest, PagesThatLookLikeGroupsOfAnotherLogAreData) {
  std::string group(EncodedGroupBlocks({}) * kBlockBytes, '\0');
  EncodeGroup(1'000'000, kSalt + 1, kPlace, {}, group);
  auto content = std::make_shared<PageBytes>();
  std::memcpy(content->bytes.data(), group.data(), kPageBytes);
  StoreBatch batch;
  batch.put_pages.push_back(MakePage(kPage, 1));
  batch.put_pages.back().data = content;
  const StoreBatch* const batches[] = {&batch};
  ASSERT_TRUE(Create()->Append(batches).ok());
  EXPECT_TRUE(OpenStatus(kBeginning).ok());
}

TEST_F(CommitLogTest, ErrorsOfWhoTakesTheGroupsAreReturned) {
  AppendUpTo(*Create(), 3);
  const auto log = CommitLog::Open(Options(), &files_, kBeginning, [](const LoggedGroup& group) {
    return group.position.number == 2 ? absl::AbortedError("two") : absl::OkStatus();
  });
  EXPECT_EQ(log.status().code(), absl::StatusCode::kAborted);
}

// Whatever of the last write reached the disk, in whatever order: the groups before it are there, and nothing else. What it
// was written over is zeros, or, in a file that is used again, groups of before.
TEST_F(CommitLogTest, AnyPartOfTheLastGroupMayBeMissing) {
  std::mt19937_64 random(7);
  constexpr uint64_t kSector = 512;
  int used_again = 0;
  for (int round = 0; round < 40; ++round) {
    const uint64_t applied = random() % 80;
    const uint64_t last = applied + 1 + random() % 30;
    const auto log = Create();
    AppendUpTo(*log, applied);
    ReleaseBefore(log->position().end.segment);
    AppendUpTo(*log, last - 1);
    std::map<uint64_t, std::string> before;
    for (const uint64_t segment : Segments()) before[segment] = Contents(files_.NameOf(segment));
    AppendUpTo(*log, last);
    const PagePlace end = positions_[last].end;
    const std::string written = Encode(last, GroupOf(last));
    const uint64_t offset = end.block * kBlockBytes - written.size();
    std::string& old = before[end.segment];
    old.resize(std::max<size_t>(old.size(), offset + written.size()));
    used_again += DecodeGroupHeader(std::string_view(old).substr(offset, kBlockBytes), kSalt).has_value() ? 1 : 0;
    const std::string file = files_.NameOf(end.segment);
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    for (uint64_t at = 0; at < written.size(); at += kSector) {
      if (random() % 3 != 0) continue;
      stream.seekp(static_cast<std::streamoff>(offset + at)) << old.substr(offset + at, kSector);
    }
    stream.close();
    // What is missing may have been the same before, or of the zeros that nobody reads.
    const uint64_t found = IsSound(Contents(file).substr(offset, written.size())) ? last : last - 1;
    AppendUpTo(*Open(positions_[applied], found), last + 5);
    Open(positions_[applied], last + 5);
  }
  EXPECT_GT(used_again, 4);
}

}  // namespace
}  // namespace mangrove::store
