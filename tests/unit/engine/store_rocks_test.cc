// The promises S1 to S5 of engine/page_store.h, kept by the store over RocksDB.

#include <rocksdb/db.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/store/rocks_store.h"
#include "engine/store/sealed_value.h"
#include "tests/unit/engine/store_test_support.h"
#include "tests/unit/engine/store_vandal.h"

namespace mangrove {
namespace {

using store_test::BytesOfSegments;
using store_test::Content;
using store_test::ExpectSame;
using store_test::KeyOf;
using store_test::MakePage;
using store_test::OptionsFor;
using store_test::SmallBuffers;
using store_test::TemporaryDirectory;
using store_test::TestLoop;
using store_test::Vandal;
using store_test::WaitingStore;

constexpr PageId kStored{absl::MakeUint128(1, 42)};

bool StatusMentions(const absl::Status& status, const std::string& text) {
  return std::string(status.message()).find(text) != std::string::npos;
}

TEST(RocksStore, WhatIsCommittedIsReadBack) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  ASSERT_TRUE(s.Put(kStored, 1).ok());
  const auto read = s.Read(kStored);
  ASSERT_TRUE(read.ok()) << read.status();
  ExpectSame(*read, MakePage(kStored, 1));
}

TEST(RocksStore, HeaderOnlyReadHasNoData) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  ASSERT_TRUE(s.Put(kStored, 1).ok());
  const auto read = s.Read(kStored, /*with_data=*/false);
  ASSERT_TRUE(read.ok()) << read.status();
  StoredPage expected = MakePage(kStored, 1);
  expected.data = nullptr;
  ExpectSame(*read, expected);
}

TEST(RocksStore, PagesOfARangeAreReadAsEachByItself) {  // S3
  TemporaryDirectory directory;
  WaitingStore s(directory.path(), SmallBuffers);
  std::mt19937_64 random(7);
  for (uint64_t round = 1; round <= 200; ++round) {
    StoreBatch batch;
    if (round % 10 == 0) batch.delete_pages.push_back({kStored + random() % 40, random() % 20});
    for (uint64_t i = 0; i < 4; ++i) batch.put_pages.push_back(MakePage(kStored + random() % 60, round));
    for (uint64_t i = 0; round % 5 == 0 && i < 20; ++i) batch.put_pages.push_back(MakePage(kStored + 10 + i, round));
    s.store->Commit(std::move(batch), [](const absl::Status& status) { ASSERT_TRUE(status.ok()) << status; });
    if (round % 7 != 0) continue;
    const PageRange range{kStored + random() % 10, 1 + random() % 64};
    const bool with_data = round % 2 == 0;
    const auto pages = s.ReadRange(range, with_data);
    ASSERT_EQ(pages.size(), range.count);
    for (uint64_t i = 0; i < range.count; ++i) {
      const absl::StatusOr<StoredPage> one = s.Read(range.first + i, with_data);
      ASSERT_EQ(pages[i].status(), one.status());
      if (one.ok()) ExpectSame(*pages[i], *one);
    }
  }
}

TEST(RocksStore, PageThatWasNeverStoredIsNotFoundByItsAddress) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  ASSERT_TRUE(s.Put(kStored, 1).ok());
  const auto read = s.Read(kStored + 1);
  EXPECT_TRUE(absl::IsNotFound(read.status())) << read.status();
  EXPECT_TRUE(StatusMentions(read.status(), ToString(kStored + 1))) << read.status();
}

TEST(RocksStore, LaterCommitAndLaterEntryWin) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  ASSERT_TRUE(s.Put(kStored, 1).ok());
  StoreBatch batch;
  batch.put_pages.push_back(MakePage(kStored, 2));
  batch.put_pages.push_back(MakePage(kStored, 3));
  batch.records.push_back({"key", "first"});
  batch.records.push_back({"key", "second"});
  ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  ExpectSame(*s.Read(kStored), MakePage(kStored, 3));
  EXPECT_EQ(s.Records("key")->at(0).second, "second");
}

TEST(RocksStore, RangeIsDeletedBeforePagesOfItsBatchArePut) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  const PageId first(absl::MakeUint128(0, ~uint64_t{0} - 20));  // The range crosses the 64-bit boundary.
  for (uint64_t i = 0; i < 50; ++i) ASSERT_TRUE(s.Put(first + i, i).ok());
  StoreBatch batch;
  batch.delete_pages.push_back({first + 10, 30});
  batch.delete_pages.push_back({first + 45, 2});
  batch.put_pages.push_back(MakePage(first + 20, 99));
  ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  for (uint64_t i = 0; i < 50; ++i) {
    const bool deleted = ((i >= 10 && i < 40) || i == 45 || i == 46) && i != 20;
    const auto read = s.Read(first + i);
    EXPECT_EQ(absl::IsNotFound(read.status()), deleted) << i << " " << read.status();
  }
  ExpectSame(*s.Read(first + 20), MakePage(first + 20, 99));
}

TEST(RocksStore, LastPagesOfTheSpaceCanBeStoredAndDeleted) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  const PageId last(kSpacePages - 1);
  ASSERT_TRUE(s.Put(last, 1).ok());
  ExpectSame(*s.Read(last), MakePage(last, 1));
  StoreBatch batch;
  batch.delete_pages.push_back({PageId(kSpacePages - 512), 512});
  ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  EXPECT_TRUE(absl::IsNotFound(s.Read(last).status()));
}

TEST(RocksStore, RecordsWithAPrefixComeInOrderOfTheirKeys) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  const std::string high("\xff\xff", 2);
  StoreBatch batch;
  for (const std::string key : {"b/2", "a/9", "b/10", "b", "c/1", "b/1"}) batch.records.push_back({key, "of " + key});
  batch.records.push_back({high + "x", ""});
  ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  using Records = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(*s.Records("b/"), (Records{{"b/1", "of b/1"}, {"b/10", "of b/10"}, {"b/2", "of b/2"}}));
  EXPECT_EQ(*s.Records("d"), Records{});
  EXPECT_EQ(*s.Records(high), (Records{{high + "x", ""}}));
  EXPECT_EQ(s.Records("")->size(), 7u);
  StoreBatch removal;
  removal.records.push_back({"b/10", std::nullopt});
  ASSERT_TRUE(s.Commit(std::move(removal)).ok());
  EXPECT_EQ(*s.Records("b/"), (Records{{"b/1", "of b/1"}, {"b/2", "of b/2"}}));
}

TEST(RocksStore, NoCallbackRunsInsideTheCall) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  int calls = 0;
  s.store->Commit(StoreBatch{}, [&](absl::Status) { ++calls; });
  s.store->ReadPage(kStored, true, [&](absl::StatusOr<StoredPage>) { ++calls; });
  s.store->ListPages({kStored, 10}, 5, PageStore::Listed::kAll, [&](auto) { ++calls; });
  s.store->ReadRecords("", [&](auto) { ++calls; });
  EXPECT_EQ(calls, 0);
  s.loop.RunUntil([&] { return calls == 4; });
}

TEST(RocksStore, CommitsThatWaitShareOneSyncedWriteAndOnePost) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  constexpr uint64_t kCommits = 2'000;
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < kCommits; ++i) {
    StoreBatch batch;
    batch.put_pages.push_back(MakePage(kStored + i % 7, i));
    s.store->Commit(std::move(batch), [&order, i](absl::Status status) {
      EXPECT_TRUE(status.ok()) << status;
      order.push_back(i);
    });
  }
  s.loop.RunUntil([&] { return order.size() == kCommits; });
  for (uint64_t i = 0; i < kCommits; ++i) ASSERT_EQ(order[i], i) << "outcomes come in the order of the commits";
  const RocksStoreStatistics statistics = s.store->statistics();
  EXPECT_EQ(statistics.committed, kCommits);
  EXPECT_EQ(statistics.pages_written, kCommits);
  EXPECT_LT(statistics.synced_writes, kCommits / 2);
  EXPECT_EQ(s.loop.posted(), statistics.synced_writes);
  for (uint64_t i = kCommits - 7; i < kCommits; ++i) ExpectSame(*s.Read(kStored + i % 7), MakePage(kStored + i % 7, i));
}

TEST(RocksStore, ReadSeesWhatWasCommittedBeforeIt) {  // S3
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  int reads = 0;
  for (uint64_t i = 1; i <= 300; ++i) {
    StoreBatch batch;
    batch.put_pages.push_back(MakePage(kStored, i));
    batch.records.push_back({"r/" + std::to_string(i % 3), std::to_string(i)});
    s.store->Commit(std::move(batch), [](absl::Status status) { EXPECT_TRUE(status.ok()) << status; });
    s.store->ReadPage(kStored, true, [&reads, i](absl::StatusOr<StoredPage> page) {
      ASSERT_TRUE(page.ok()) << page.status();
      EXPECT_GE(page->version.counter, i);
      ++reads;
    });
    s.store->ReadRecords("r/" + std::to_string(i % 3), [&reads, i](auto records) {
      ASSERT_TRUE(records.ok()) << records.status();
      ASSERT_EQ(records->size(), 1u);
      EXPECT_GE(std::stoull(records->at(0).second), i);
      ++reads;
    });
  }
  s.loop.RunUntil([&] { return reads == 600; });
  EXPECT_GT(s.store->statistics().reads_deferred, 0u);
}

TEST(RocksStore, ReadSeesADeletionCommittedBeforeIt) {  // S3
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  for (uint64_t i = 0; i < 100; ++i) {
    ASSERT_TRUE(s.Put(kStored, i).ok());
    StoreBatch batch;
    batch.delete_pages.push_back({kStored + 0, i % 2 == 0 ? uint64_t{1} : uint64_t{100}});
    s.store->Commit(std::move(batch), [](absl::Status status) { EXPECT_TRUE(status.ok()) << status; });
    EXPECT_TRUE(absl::IsNotFound(s.Read(kStored).status()));
  }
}

// Without a read between them, many commits are applied at once, and of a page that is written again and again the last
// content alone.
TEST(RocksStore, CommitsAppliedAtOnceAreAsOneByOne) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 12;
  std::map<uint64_t, uint64_t> model;
  std::mt19937_64 random(11);
  const auto expect_model = [&](WaitingStore& s) {
    for (uint64_t i = 0; i < kPages; ++i) {
      const auto read = s.Read(kStored + i);
      ASSERT_EQ(read.ok(), model.contains(i)) << i << " " << read.status();
      if (read.ok()) ExpectSame(*read, MakePage(kStored + i, model[i]));
    }
  };
  {
    WaitingStore s(directory.path());
    for (int round = 0; round < 30; ++round) {
      int outcomes = 0;
      const int commits = static_cast<int>(random() % 60);
      for (int n = 0; n < commits; ++n) {
        StoreBatch batch;
        if (random() % 4 == 0) {
          const uint64_t first = random() % kPages;
          batch.delete_pages.push_back({kStored + first, 1 + random() % (kPages - first)});
          std::erase_if(model, [&](const auto& page) { return batch.delete_pages[0].Contains(kStored + page.first); });
        }
        for (uint64_t puts = random() % 3; puts > 0; --puts) {
          const uint64_t page = random() % kPages;
          model[page] = random();
          batch.put_pages.push_back(MakePage(kStored + page, model[page]));
        }
        s.store->Commit(std::move(batch), [&](absl::Status status) {
          EXPECT_TRUE(status.ok()) << status;
          ++outcomes;
        });
      }
      s.loop.RunUntil([&] { return outcomes == commits; });
      expect_model(s);
    }
  }
  WaitingStore s(directory.path());
  expect_model(s);
}

TEST(RocksStore, TheLogDoesNotGrowWithWhatIsWritten) {
  TemporaryDirectory directory;
  constexpr uint64_t kLogBytes = 1 << 20;
  WaitingStore s(directory.path(), [](RocksStoreOptions& options) {
    options.tuning.log_bytes = kLogBytes;
    options.tuning.slack_bytes = kLogBytes / 2;
  });
  // 12 MiB of blocks, and so little in the tables' memory that they would not be written for a long time.
  for (int i = 0; i < 3'000; ++i) {
    StoreBatch batch;
    batch.records.push_back({"key", std::to_string(i)});
    ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  }
  uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory / "segments")) bytes += entry.file_size();
  EXPECT_LE(bytes, 3 * kLogBytes);
  EXPECT_EQ(s.Records("key")->at(0).second, "2999");
}

// Tables of a few pages are small: they are written early, so that what is garbage is given back.
TEST(RocksStore, FewPagesThatAreWrittenAgainAndAgainTakeLittleSpace) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path(), [](RocksStoreOptions& options) {
    options.tuning.log_bytes = size_t{16} << 20;
    options.tuning.slack_bytes = size_t{1} << 20;
  });
  uint64_t most = 0;
  for (uint64_t i = 0; i < 4'000; ++i) {  // 31 MiB of log.
    ASSERT_TRUE(s.Put(kStored + i % 4, i + 1).ok());
    if (i % 100 == 0) most = std::max(most, BytesOfSegments(directory.path()));
  }
  EXPECT_LE(most, uint64_t{7} << 20);
}

TEST(RocksStore, EverythingIsThereAfterCloseAndOpen) {
  TemporaryDirectory directory;
  for (uint64_t round = 0; round < 3; ++round) {
    WaitingStore s(directory / "store");
    for (uint64_t i = 0; i < 100 * round; ++i) ExpectSame(*s.Read(kStored + i), MakePage(kStored + i, i));
    for (uint64_t i = 0; i < 100 * (round + 1); ++i) ASSERT_TRUE(s.Put(kStored + i, i).ok());
  }
}

TEST(RocksStore, MuchMoreThanTheBuffersIsStoredAndReadBack) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 5'000;
  const auto small_buffers = [](RocksStoreOptions& options) { options.tuning.write_buffer_bytes = 1 << 20; };
  for (const bool reopened : {false, true}) {
    WaitingStore s(directory.path(), small_buffers);
    for (uint64_t round = 0; round < 3 && !reopened; ++round) {
      for (uint64_t first = 0; first < kPages; first += 100) {
        StoreBatch batch;
        for (uint64_t i = first; i < first + 100; ++i) batch.put_pages.push_back(MakePage(kStored + i, i + round));
        ASSERT_TRUE(s.Commit(std::move(batch)).ok());
      }
    }
    for (uint64_t i = 0; i < kPages; i += 7) ExpectSame(*s.Read(kStored + i), MakePage(kStored + i, i + 2));
  }
}

TEST(RocksStore, CommitsOfAClosingStoreAreWritten) {
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    for (uint64_t i = 0; i < 100; ++i) {
      StoreBatch batch;
      batch.put_pages.push_back(MakePage(kStored + i, i));
      s.store->Commit(std::move(batch), [](absl::Status) { FAIL() << "a callback after the end of the store"; });
    }
    s.store.reset();
    s.loop.Post([] {});
    const size_t posted = s.loop.posted();
    size_t ran = 0;
    s.loop.Post([&] { ran = posted; });
    s.loop.RunUntil([&] { return ran != 0; });
  }
  WaitingStore s(directory.path());
  for (uint64_t i = 0; i < 100; ++i) ExpectSame(*s.Read(kStored + i), MakePage(kStored + i, i));
}

TEST(RocksStore, StoreThatIsOpenIsNotOpenedAgain) {
  TemporaryDirectory directory;
  WaitingStore s(directory.path());
  TestLoop other;
  const auto again = RocksStore::Open(OptionsFor(directory.path(), other));
  ASSERT_TRUE(absl::IsFailedPrecondition(again.status())) << again.status();
  EXPECT_TRUE(StatusMentions(again.status(), directory.path())) << again.status();
  EXPECT_TRUE(StatusMentions(again.status(), "process " + std::to_string(getpid()))) << again.status();
  EXPECT_TRUE(StatusMentions(again.status(), "stop it first")) << again.status();
  EXPECT_TRUE(s.Put(kStored, 1).ok()) << "the one that has it goes on";
}

TEST(RocksStore, StoreThatAToolHasOpenIsNotOpened) {
  TemporaryDirectory directory;
  rocksdb::Options raw_options;
  raw_options.create_if_missing = true;
  rocksdb::DB* raw = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open(raw_options, directory.path(), &raw).ok());
  const std::unique_ptr<rocksdb::DB> holder(raw);
  TestLoop loop;
  const auto opened = RocksStore::Open(OptionsFor(directory.path(), loop));
  ASSERT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
  EXPECT_TRUE(StatusMentions(opened.status(), directory.path())) << opened.status();
}

TEST(RocksStore, StoreOfAnotherNodeOrClusterIsNotOpened) {
  TemporaryDirectory directory;
  { WaitingStore s(directory.path()); }
  TestLoop loop;
  RocksStoreOptions options = OptionsFor(directory.path(), loop);
  options.node = NodeId(8);
  const auto other_node = RocksStore::Open(options);
  ASSERT_TRUE(absl::IsFailedPrecondition(other_node.status())) << other_node.status();
  EXPECT_TRUE(StatusMentions(other_node.status(), "node 7")) << other_node.status();
  EXPECT_TRUE(StatusMentions(other_node.status(), "node 8")) << other_node.status();
  options = OptionsFor(directory.path(), loop);
  options.cluster.low += 1;
  const auto other_cluster = RocksStore::Open(options);
  ASSERT_TRUE(absl::IsFailedPrecondition(other_cluster.status())) << other_cluster.status();
  EXPECT_TRUE(StatusMentions(other_cluster.status(), "112233445566778899aabbccddeeff00")) << other_cluster.status();
  EXPECT_TRUE(StatusMentions(other_cluster.status(), "112233445566778899aabbccddeeff01")) << other_cluster.status();
  EXPECT_TRUE(RocksStore::Open(OptionsFor(directory.path(), loop)).ok());
}

TEST(RocksStore, PathThatIsNoDirectoryIsRefusedByName) {
  TemporaryDirectory directory;
  std::ofstream(directory / "file") << "x";
  TestLoop loop;
  const auto opened = RocksStore::Open(OptionsFor(directory / "file", loop));
  ASSERT_TRUE(absl::IsFailedPrecondition(opened.status())) << opened.status();
  EXPECT_TRUE(StatusMentions(opened.status(), directory / "file")) << opened.status();
  EXPECT_FALSE(RocksStore::Open(OptionsFor(directory / "file/below", loop)).ok());
}

TEST(RocksStore, DirectoryIsMadeForItsOwnerAlone) {
  TemporaryDirectory directory;
  WaitingStore s(directory / "a/b/store");
  struct stat found;
  ASSERT_EQ(stat((directory / "a/b/store").c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0700u);
}

TEST(RocksStore, UsageCountsPagesAndDisk) {
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    StoreBatch batch;
    for (uint64_t i = 0; i < 100; ++i) batch.put_pages.push_back(MakePage(kStored + i, i));
    ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  }
  WaitingStore s(directory.path());
  EXPECT_EQ(s.store->Usage().pages, 100u);
  EXPECT_GE(s.store->Usage().used_bytes, 100 * kPageBytes);
  EXPECT_GT(s.store->Usage().free_bytes, 0u);
}

TEST(RocksStore, ACorruptPageOfARangeIsDataLossAndItsNeighboursAreRead) {  // S4
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    StoreBatch batch;
    for (uint64_t i = 0; i < 8; ++i) batch.put_pages.push_back(MakePage(kStored + i, i));
    ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  }
  const auto [file, offset] = store_test::FileAndOffsetOf(directory.path(), kStored + 3);
  store_test::FlipByte(file, offset + 1234);
  WaitingStore s(directory.path());
  const auto pages = s.ReadRange({kStored, 9}, /*with_data=*/true);
  for (uint64_t i = 0; i < 8; ++i) {
    SCOPED_TRACE(i);
    if (i != 3) ExpectSame(*pages[i], MakePage(kStored + i, i));
  }
  EXPECT_TRUE(absl::IsDataLoss(pages[3].status())) << pages[3].status();
  EXPECT_TRUE(absl::IsNotFound(pages[8].status())) << pages[8].status();
  EXPECT_EQ(s.store->statistics().corrupt, 1u);
}

TEST(RocksStore, CorruptPageIsDataLossByItsAddressAndTheStoreLivesOn) {  // S4
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(s.Put(kStored + i, i).ok());
  }
  {
    const auto [file, offset] = store_test::FileAndOffsetOf(directory.path(), kStored);
    store_test::FlipByte(file, offset + 1234);
    Vandal vandal(directory.path());
    std::string header_damaged = vandal.Get(1, KeyOf(kStored + 1));
    header_damaged[40] ^= 1;
    vandal.Put(1, KeyOf(kStored + 1), header_damaged);
    vandal.Put(1, KeyOf(kStored + 2), vandal.Get(1, KeyOf(kStored + 3)));
  }
  WaitingStore s(directory.path());
  for (uint64_t i = 0; i < 3; ++i) {
    const auto read = s.Read(kStored + i);
    ASSERT_TRUE(absl::IsDataLoss(read.status())) << read.status();
    EXPECT_TRUE(StatusMentions(read.status(), ToString(kStored + i))) << read.status();
  }
  EXPECT_TRUE(s.Read(kStored, /*with_data=*/false).ok()) << "its header is sound";
  EXPECT_TRUE(absl::IsDataLoss(s.Read(kStored + 1, /*with_data=*/false).status()));
  EXPECT_EQ(s.store->statistics().corrupt, 4u);
  ExpectSame(*s.Read(kStored + 3), MakePage(kStored + 3, 3));
  ASSERT_TRUE(s.Put(kStored, 9).ok()) << "a sound copy from elsewhere replaces it";
  ExpectSame(*s.Read(kStored), MakePage(kStored, 9));
}

TEST(RocksStore, CorruptRecordIsDataLossByItsKeyAndTheStoreLivesOn) {  // S4
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    StoreBatch batch;
    batch.records.push_back({"region/1", "one"});
    batch.records.push_back({"view", "two"});
    ASSERT_TRUE(s.Commit(std::move(batch)).ok());
  }
  {
    Vandal vandal(directory.path());
    std::string value = vandal.Get(2, "region/1");
    value.back() ^= 1;
    vandal.Put(2, "region/1", value);
  }
  WaitingStore s(directory.path());
  const auto records = s.Records("region/");
  ASSERT_TRUE(absl::IsDataLoss(records.status())) << records.status();
  EXPECT_TRUE(StatusMentions(records.status(), "region/1")) << records.status();
  EXPECT_EQ(s.Records("view")->size(), 1u);
}

TEST(RocksStore, CorruptOrMissingStampIsRefused) {
  TemporaryDirectory directory;
  {
    WaitingStore s(directory.path());
    ASSERT_TRUE(s.Put(kStored, 1).ok());
  }
  { Vandal(directory.path()).Put(0, std::string(store::kStampKey), "nonsense"); }
  TestLoop loop;
  EXPECT_TRUE(absl::IsDataLoss(RocksStore::Open(OptionsFor(directory.path(), loop)).status()));
  { Vandal(directory.path()).Delete(0, std::string(store::kStampKey)); }
  EXPECT_TRUE(absl::IsFailedPrecondition(RocksStore::Open(OptionsFor(directory.path(), loop)).status()));
  store::StoreStamp later{store::kStoreFormat + 1, store_test::kCluster, store_test::kNode};
  { Vandal(directory.path()).Put(0, std::string(store::kStampKey), store::EncodeStamp(later)); }
  const auto opened = RocksStore::Open(OptionsFor(directory.path(), loop));
  EXPECT_TRUE(absl::IsFailedPrecondition(opened.status()));
  EXPECT_TRUE(StatusMentions(opened.status(), absl::StrCat("has format ", later.format))) << opened.status();
  // The first format's stamp was shorter.
  {
    Vandal(directory.path())
        .Put(0, std::string(store::kStampKey), std::string("MGST\1\0\0\0", 8) + std::string(36, 'x'));
  }
  const auto first = RocksStore::Open(OptionsFor(directory.path(), loop));
  EXPECT_TRUE(absl::IsFailedPrecondition(first.status()));
  EXPECT_TRUE(StatusMentions(first.status(), "has format 1; this program")) << first.status();
}

// A table that a merge cannot read stops every write: the store ends with the way on in its last words.
TEST(RocksStore, ATableThatIsFoundDamagedByAMergePoisonsAndSaysWhatToDo) {
  TemporaryDirectory directory;
  const auto put_many = [](WaitingStore& s, uint64_t round) {
    absl::Status status;
    for (uint64_t first = 0; first < 2'000 && status.ok(); first += 100) {
      StoreBatch batch;
      for (uint64_t i = first; i < first + 100; ++i) batch.put_pages.push_back(MakePage(kStored + i, round));
      status = s.Commit(std::move(batch));
    }
    return status;
  };
  {
    WaitingStore s(directory.path(), SmallBuffers);
    ASSERT_TRUE(put_many(s, 0).ok());
  }
  int damaged = 0;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path())) {
    if (entry.path().extension() != ".sst") continue;
    std::fstream file(entry.path(), std::ios::binary | std::ios::in | std::ios::out);
    for (uint64_t at = 1000; at + 8192 < entry.file_size(); at += 4096)
      file.seekp(static_cast<std::streamoff>(at)).put('?');
    ++damaged;
  }
  ASSERT_GT(damaged, 0);
  absl::Status poison;
  std::mutex mutex;
  WaitingStore s(directory.path(), [&](RocksStoreOptions& options) {
    SmallBuffers(options);
    options.on_poisoned = [&](const absl::Status& status) {
      const std::lock_guard lock(mutex);
      poison = status;
    };
  });
  absl::Status written;
  for (uint64_t round = 1; round < 500 && written.ok(); ++round) written = put_many(s, round);
  EXPECT_FALSE(written.ok());
  const std::lock_guard lock(mutex);
  for (const absl::Status& status : {written, poison}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_TRUE(StatusMentions(status, "block checksum mismatch")) << status;
    EXPECT_TRUE(StatusMentions(status, absl::StrCat("move the directory ", directory.path(), " away"))) << status;
  }
}

}  // namespace
}  // namespace mangrove
