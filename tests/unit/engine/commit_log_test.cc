// The store's log: what was appended comes back whole and in order, or it is said that it does not (L1 to L3).

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <map>
#include <random>

#include "engine/store/commit_log.h"
#include "engine/store/log_group.h"
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

void ExpectSameBatch(const StoreBatch& a, const StoreBatch& b) {
  ASSERT_EQ(a.put_pages.size(), b.put_pages.size());
  for (size_t i = 0; i < a.put_pages.size(); ++i) ExpectSame(a.put_pages[i], b.put_pages[i]);
  EXPECT_EQ(a.delete_pages, b.delete_pages);
  ASSERT_EQ(a.records.size(), b.records.size());
  for (size_t i = 0; i < a.records.size(); ++i) {
    EXPECT_EQ(a.records[i].key, b.records[i].key);
    EXPECT_EQ(a.records[i].value, b.records[i].value);
  }
}

void ExpectSameGroup(std::span<const StoreBatch* const> a, uint64_t n) {
  const std::vector<StoreBatch> b = GroupOf(n);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < b.size(); ++i) ExpectSameBatch(*a[i], b[i]);
}

std::string Encode(uint64_t number, const std::vector<StoreBatch>& batches) {
  std::string out(EncodedGroupBytes(Pointers(batches)), '?');
  EncodeGroup({.number = number, .files = 0x0908, .bytes = out.size()}, kSalt, Pointers(batches), out);
  return out;
}

// --- A group ----------------------------------------------------------------------------------------------------------

TEST(LogGroup, WhatIsEncodedIsDecoded) {
  for (uint64_t n = 1; n < 50; ++n) {
    const std::string bytes = Encode(n, GroupOf(n));
    ASSERT_EQ(bytes.size() % kLogBlockBytes, 0u);
    const auto header = DecodeGroupHeader(bytes, kSalt);
    ASSERT_TRUE(header.has_value());
    EXPECT_EQ(header->number, n);
    EXPECT_EQ(header->files, 0x0908);
    EXPECT_EQ(header->bytes, bytes.size());
    const auto batches = DecodeGroup(bytes, kSalt);
    ASSERT_TRUE(batches.has_value());
    ExpectSameGroup(Pointers(*batches), n);
  }
}

TEST(LogGroup, BytesAreWhereTheFormatSays) {
  StoreBatch batch;
  batch.delete_pages.push_back({PageId(absl::MakeUint128(1, 2)), 3});
  batch.records.push_back({"k", "vw"});
  batch.records.push_back({"x", std::nullopt});
  const std::string bytes = Encode(0x0102030405060708, {batch});
  ASSERT_EQ(bytes.size(), kLogBlockBytes);
  const std::string entries(
      "B"
      "D\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"
      "R\1\0\0\0\2\0\0\0kvw"
      "X\1\0\0\0x",
      1 + 25 + 12 + 6);
  EXPECT_EQ(bytes.substr(0, 24), std::string("MGLG\1\0\x08\x09\x08\7\6\5\4\3\2\1\x2c\0\0\0\0\0\0\0", 24));
  EXPECT_EQ(bytes.substr(40, entries.size()), entries);
  EXPECT_EQ(bytes.substr(40 + entries.size()), std::string(kLogBlockBytes - 40 - entries.size(), '\0'));
}

TEST(LogGroup, AnotherStoresGroupIsNone) {
  const std::string bytes = Encode(1, GroupOf(1));
  EXPECT_FALSE(DecodeGroupHeader(bytes, kSalt + 1).has_value());
  EXPECT_FALSE(DecodeGroup(bytes, kSalt + 1).has_value());
}

TEST(LogGroup, EveryFlippedBitThatMattersAndEveryOtherLengthIsSeen) {
  StoreBatch batch;
  batch.put_pages.push_back(MakePage(kPage, 1));
  batch.records.push_back({"key", "value"});
  const std::string sound = Encode(1, {batch});
  const size_t used = 40 + 1 + 89 + 9 + 8;
  for (size_t bit = 0; bit < 8 * sound.size(); bit += bit < 8 * used ? 1 : 37) {
    if (bit >= 8 * used && bit < 8 * kLogBlockBytes) continue;  // Zeros that nobody reads.
    std::string damaged = sound;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << bit % 8));
    ASSERT_FALSE(DecodeGroup(damaged, kSalt).has_value()) << bit;
  }
  for (size_t size = 0; size < sound.size(); size += 61) {
    ASSERT_FALSE(DecodeGroup(sound.substr(0, size), kSalt).has_value()) << size;
  }
  EXPECT_FALSE(DecodeGroup(sound + std::string(kLogBlockBytes, '\0'), kSalt).has_value());
}

// --- The log ----------------------------------------------------------------------------------------------------------

class CommitLogTest : public testing::Test {
 protected:
  CommitLogOptions Options() const {
    return {.directory = directory_ / "log", .salt = kSalt, .segment_bytes = uint64_t{96} << 10};
  }

  std::unique_ptr<CommitLog> Create() {
    auto log = CommitLog::Create(Options());
    EXPECT_TRUE(log.ok()) << log.status();
    return *std::move(log);
  }

  // Expects the groups after `released` up to `last`.
  std::unique_ptr<CommitLog> Open(uint64_t released, uint64_t last) {
    uint64_t expected = released;
    auto log = CommitLog::Open(Options(), released, [&](uint64_t number, std::span<const StoreBatch* const> batches) {
      EXPECT_EQ(number, ++expected);
      ExpectSameGroup(batches, number);
      return absl::OkStatus();
    });
    EXPECT_TRUE(log.ok()) << log.status();
    EXPECT_EQ(expected, last);
    EXPECT_EQ((*log)->last_number(), last);
    return *std::move(log);
  }

  static void AppendUpTo(CommitLog& log, uint64_t last) {
    while (log.last_number() < last) {
      const std::vector<StoreBatch> batches = GroupOf(log.last_number() + 1);
      ASSERT_TRUE(log.Append(Pointers(batches)).ok());
    }
  }

  absl::Status OpenStatus(uint64_t released) const {
    return CommitLog::Open(Options(), released, [](uint64_t, auto) { return absl::OkStatus(); }).status();
  }

  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ / "log")) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }

  static std::string Contents(const std::string& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }

  // Where each group begins, also those that were released.
  std::multimap<uint64_t, std::pair<std::string, uint64_t>> Places() const {
    std::multimap<uint64_t, std::pair<std::string, uint64_t>> places;
    for (const std::string& file : Files()) {
      std::ifstream stream(file, std::ios::binary);
      std::string block(kLogBlockBytes, '\0');
      for (uint64_t at = 0; stream.read(block.data(), kLogBlockBytes); at += kLogBlockBytes) {
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
};

TEST_F(CommitLogTest, WhatWasAppendedComesBackInOrder) {
  AppendUpTo(*Create(), 100);
  EXPECT_GT(Files().size(), 2u);
  AppendUpTo(*Open(0, 100), 150);
  Open(0, 150);
}

TEST_F(CommitLogTest, WhatWasReleasedDoesNot) {
  AppendUpTo(*Create(), 100);
  Open(60, 100);
  Open(100, 100);
}

TEST_F(CommitLogTest, ReleasedFilesAreUsedAgain) {
  constexpr uint64_t kHeld = 40;
  {
    const auto log = Create();
    uint64_t most = 0;
    for (uint64_t last = kHeld; last <= 1'000; last += kHeld) {
      AppendUpTo(*log, last);
      most = std::max(most, log->used_bytes());
      log->Release(last - kHeld / 2);
    }
    EXPECT_GT(log->turns(), 50u);
    // As many as were in use at once, the one that was then begun, and a spare one.
    EXPECT_LE(Files().size(), most / Options().segment_bytes + 2);
  }
  AppendUpTo(*Open(980, 1'000), 1'100);
  Open(980, 1'100);
}

TEST_F(CommitLogTest, GroupThatIsLargerThanAFileHasOneToItself) {
  StoreBatch large;
  large.records.push_back({"large", std::string(300'000, 'l')});
  const StoreBatch* const batches[] = {&large};
  {
    const auto log = Create();
    AppendUpTo(*log, 3);
    ASSERT_TRUE(log->Append(batches).ok());
  }
  bool seen = false;
  const auto log = CommitLog::Open(Options(), 3, [&](uint64_t, std::span<const StoreBatch* const> replayed) {
    ExpectSameBatch(*replayed.front(), large);
    seen = true;
    return absl::OkStatus();
  });
  ASSERT_TRUE(log.ok()) << log.status();
  EXPECT_TRUE(seen);
  AppendUpTo(**log, 20);
}

TEST_F(CommitLogTest, UnfinishedGroupIsDroppedAndItsNumberUsedAgain) {  // L1
  for (const uint64_t at : {uint64_t{0}, uint64_t{24}}) {
    AppendUpTo(*Create(), 30);
    Damage(30, at);
    {
      const auto log = Open(0, 29);
      EXPECT_EQ(Places().count(30), 0u) << "it is not found again";
      AppendUpTo(*log, 35);
    }
    Open(0, 35);
  }
}

// The unfinished one did not fit into the file before, a smaller one does: then its number is in two places.
TEST_F(CommitLogTest, UnfinishedGroupInAFurtherFileDoesNotHideTheNextOfItsNumber) {  // L1
  StoreBatch large;
  large.records.push_back({"large", std::string(90'000, 'l')});
  const StoreBatch* const batches[] = {&large};
  {
    const auto log = Create();
    AppendUpTo(*log, 2);
    ASSERT_TRUE(log->Append(batches).ok());
    EXPECT_EQ(log->turns(), 1u);
  }
  Damage(3, 50'000);
  AppendUpTo(*Open(0, 2), 3);
  Open(0, 3);
}

TEST_F(CommitLogTest, DamagedGroupBeforeAnotherIsDamage) {  // L2
  for (uint64_t damaged = 1; damaged < 30; ++damaged) {
    AppendUpTo(*Create(), 30);
    Damage(damaged, damaged % 2 == 0 ? 0 : 24);
    const absl::Status status = OpenStatus(0);
    ASSERT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_NE(status.message().find("group " + std::to_string(damaged)), absl::string_view::npos) << status;
    // What is released is not missed.
    EXPECT_TRUE(OpenStatus(damaged).ok());
  }
}

TEST_F(CommitLogTest, DamagedContentBeforeAnotherGroupIsDamage) {  // L2
  AppendUpTo(*Create(), 30);
  for (uint64_t damaged = 10; damaged < 30; ++damaged) {
    const uint64_t bytes = Encode(damaged, GroupOf(damaged)).size();
    if (bytes == kLogBlockBytes) continue;
    Damage(damaged, bytes - kPageBytes / 2);
    EXPECT_TRUE(absl::IsDataLoss(OpenStatus(0)));
    return;
  }
  FAIL() << "none of the groups has a page";
}

TEST_F(CommitLogTest, MissingFileIsDamageAlsoIfItIsTheLast) {  // L2
  AppendUpTo(*Create(), 60);
  const size_t files = Files().size();
  ASSERT_GT(files, 3u);
  // The last one is the spare, of which the one before tells.
  for (size_t missing = 0; missing < files; ++missing) {
    AppendUpTo(*Create(), 60);
    std::filesystem::remove(Files()[missing]);
    EXPECT_TRUE(absl::IsDataLoss(OpenStatus(0))) << missing;
  }
  std::filesystem::remove_all(directory_ / "log");
  EXPECT_TRUE(absl::IsDataLoss(OpenStatus(0)));
}

TEST_F(CommitLogTest, FilesAreOfWholeBlocks) {
  CommitLogOptions options = Options();
  options.segment_bytes = 100'001;
  auto log = CommitLog::Create(options);
  ASSERT_TRUE(log.ok()) << log.status();
  AppendUpTo(**log, 40);
  log->reset();
  Open(0, 40);
}

// A page can hold anything, also a block of a log; of this one's salt nobody knows.
TEST_F(CommitLogTest, PagesThatLookLikeGroupsOfAnotherLogAreData) {
  std::string group(EncodedGroupBytes({}), '\0');
  EncodeGroup({.number = 1'000'000, .files = 9, .bytes = group.size()}, kSalt + 1, {}, group);
  auto content = std::make_shared<PageBytes>();
  std::memcpy(content->bytes.data(), group.data(), kPageBytes);
  StoreBatch batch;
  batch.put_pages.push_back(MakePage(kPage, 1));
  batch.put_pages.back().data = content;
  const StoreBatch* const batches[] = {&batch};
  ASSERT_TRUE(Create()->Append(batches).ok());
  EXPECT_TRUE(OpenStatus(0).ok());
}

TEST_F(CommitLogTest, ErrorsOfWhoTakesTheGroupsAreReturned) {
  AppendUpTo(*Create(), 3);
  const auto log = CommitLog::Open(
      Options(), 0, [](uint64_t number, auto) { return number == 2 ? absl::AbortedError("two") : absl::OkStatus(); });
  EXPECT_EQ(log.status().code(), absl::StatusCode::kAborted);
}

// Whatever of the last write reached the disk, in whatever order: the groups before it are there, and nothing else. What it
// was written over is zeros, or, in a file that is used again, groups of before.
TEST_F(CommitLogTest, AnyPartOfTheLastGroupMayBeMissing) {
  std::mt19937_64 random(7);
  constexpr uint64_t kSector = 512;
  int used_again = 0;
  for (int round = 0; round < 80; ++round) {
    const uint64_t released = random() % 80;
    const uint64_t last = released + 1 + random() % 30;
    const auto log = Create();
    AppendUpTo(*log, released);
    log->Release(released);
    AppendUpTo(*log, last - 1);
    std::map<std::string, std::string> before;
    for (const std::string& file : Files()) before[file] = Contents(file);
    AppendUpTo(*log, last);
    const auto [file, offset] = PlaceOf(last);
    const std::string written = Encode(last, GroupOf(last));
    std::string& old = before[file];  // Empty if the file is new.
    old.resize(std::max<size_t>(old.size(), offset + written.size()));
    used_again += DecodeGroupHeader(std::string_view(old).substr(offset, kLogBlockBytes), kSalt).has_value() ? 1 : 0;
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    for (uint64_t at = 0; at < written.size(); at += kSector) {
      if (random() % 3 != 0) continue;
      stream.seekp(static_cast<std::streamoff>(offset + at)) << old.substr(offset + at, kSector);
    }
    stream.close();
    // What is missing may have been the same before, or of the zeros that nobody reads.
    const bool whole = DecodeGroup(Contents(file).substr(offset, written.size()), kSalt).has_value();
    const uint64_t found = whole ? last : last - 1;
    AppendUpTo(*Open(released, found), last + 5);
    Open(released, last + 5);
  }
  EXPECT_GT(used_again, 10);
}

}  // namespace
}  // namespace mangrove::store
