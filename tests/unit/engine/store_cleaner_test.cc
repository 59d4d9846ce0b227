// The space of what was overwritten or deleted comes back, and nothing else is lost with it (C1 to C3).

#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "engine/store/cleaner.h"
#include "engine/store/commit_log.h"
#include "engine/store/rocks_db.h"
#include "engine/store/rocks_store.h"
#include "engine/store/segment_files.h"
#include "tests/unit/engine/store_test_support.h"

namespace mangrove {
namespace {

using store_test::BytesOfSegments;
using store_test::ExpectSame;
using store_test::FileAndOffsetOf;
using store_test::FlipByte;
using store_test::MakePage;
using store_test::SmallBuffers;
using store_test::TemporaryDirectory;
using store_test::WaitingStore;

constexpr PageId kPage{absl::MakeUint128(1, 42)};
constexpr uint64_t kSmallLogBytes = uint64_t{512} << 10;

// What the segments may take beside a third of what is needed: garbage, what is not in tables, and files ahead.
constexpr uint64_t kConstantBytes = 6 * kSmallLogBytes;

void PutAll(WaitingStore& s, uint64_t first, uint64_t count, uint64_t counter) {
  StoreBatch batch;
  for (uint64_t i = first; i < first + count; ++i) batch.put_pages.push_back(MakePage(kPage + i, counter));
  ASSERT_TRUE(s.Commit(std::move(batch)).ok());
}

TEST(Cleaner, OverwrittenSpaceComesBackAndEveryPageIsAsItWasLastWritten) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 400;
  std::mt19937_64 random(5);
  std::map<uint64_t, uint64_t> model;
  WaitingStore s(directory.path(), SmallBuffers);
  uint64_t most_bytes = 0;
  for (uint64_t n = 1; n <= 2'500; ++n) {
    const uint64_t page = random() % kPages;
    model[page] = n;
    ASSERT_TRUE(s.Put(kPage + page, n).ok());
    if (n % 7 == 0) {
      const auto& [some, counter] = *std::next(model.begin(), static_cast<ptrdiff_t>(random() % model.size()));
      ExpectSame(*s.Read(kPage + some), MakePage(kPage + some, counter));
    }
    if (n % 100 == 0) most_bytes = std::max(most_bytes, BytesOfSegments(directory.path()));
  }
  EXPECT_LE(most_bytes, 2 * kPages * kPageBytes + kConstantBytes);
  EXPECT_GT(s.store->statistics().pages_moved, 0u);
  EXPECT_GT(s.store->statistics().segments_emptied, 50u);
  EXPECT_EQ(s.store->statistics().segments_kept, 0u);
  for (const auto& [page, counter] : model) ExpectSame(*s.Read(kPage + page), MakePage(kPage + page, counter));
}

// Commits come as fast as they are taken, and wait for the cleaner when it is far behind.
TEST(Cleaner, SpaceIsBoundedHoweverMuchIsOverwrittenAtOnce) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 1'000;
  std::mt19937_64 random(8);
  WaitingStore s(directory.path(), SmallBuffers);
  uint64_t outstanding = 0;
  uint64_t most_bytes = 0;
  for (uint64_t n = 1; n <= 1'500; ++n) {
    StoreBatch batch;
    for (int i = 0; i < 16; ++i) batch.put_pages.push_back(MakePage(kPage + random() % kPages, n));
    ++outstanding;
    s.store->Commit(std::move(batch), [&outstanding](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      --outstanding;
    });
    s.loop.RunUntil([&] { return outstanding < 16; });
    if (n % 20 == 0) most_bytes = std::max(most_bytes, BytesOfSegments(directory.path()));
  }
  s.loop.RunUntil([&] { return outstanding == 0; });
  EXPECT_LE(most_bytes, 2 * kPages * kPageBytes + 4 * kConstantBytes);
  EXPECT_GT(s.store->statistics().pages_moved, 0u);
}

// Commits and reads of the same pages while they are moved.
TEST(Cleaner, CommitsAndReadsMeetMovesAtAnyTime) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 300;
  std::mt19937_64 random(6);
  std::map<uint64_t, uint64_t> model;
  WaitingStore s(directory.path(), SmallBuffers);
  PutAll(s, 0, kPages, 0);
  uint64_t outstanding = 0;
  for (uint64_t n = 1; n <= 20'000; ++n) {
    const uint64_t page = random() % kPages;
    ++outstanding;
    if (random() % 2 == 0) {
      model[page] = n;
      StoreBatch batch;
      batch.put_pages.push_back(MakePage(kPage + page, n));
      s.store->Commit(std::move(batch), [&outstanding](const absl::Status& status) {
        EXPECT_TRUE(status.ok()) << status;
        --outstanding;
      });
    } else {
      s.store->ReadPage(kPage + page, true, [&, page, least = model[page]](absl::StatusOr<StoredPage> read) {
        EXPECT_TRUE(read.ok()) << read.status();
        if (read.ok()) {
          EXPECT_GE(read->version.counter, least);
          ExpectSame(*read, MakePage(kPage + page, read->version.counter));
        }
        --outstanding;
      });
    }
    s.loop.RunUntil([&] { return outstanding < 12; });
  }
  s.loop.RunUntil([&] { return outstanding == 0; });
  EXPECT_GT(s.store->statistics().pages_moved, 0u);
}

TEST(Cleaner, DeletedSpaceComesBack) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 4'000;
  WaitingStore s(directory.path(), SmallBuffers);
  for (uint64_t first = 0; first < kPages; first += 100) PutAll(s, first, 100, 1);
  EXPECT_GE(BytesOfSegments(directory.path()), kPages * kPageBytes);
  StoreBatch deletion;
  deletion.delete_pages.push_back({kPage, kPages - 10});
  ASSERT_TRUE(s.Commit(std::move(deletion)).ok());
  // What is written later lets it be seen.
  for (uint64_t n = 0; BytesOfSegments(directory.path()) > kConstantBytes; ++n) {
    ASSERT_LT(n, 20'000u);
    PutAll(s, kPages + 10 + n % 20, 1, n);
  }
  for (uint64_t i = kPages - 10; i < kPages; ++i) ExpectSame(*s.Read(kPage + i), MakePage(kPage + i, 1));
  EXPECT_TRUE(absl::IsNotFound(s.Read(kPage).status()));
}

// Makes every segment half garbage, again and again, by overwriting every second of the pages.
void OverwriteOddPages(WaitingStore& s, uint64_t pages, uint64_t round) {
  for (uint64_t i = 1; i < pages; i += 2) PutAll(s, i, 1, 1'000 * round + i);
}

// C3: neither it nor its neighbours are lost, and that it is damaged is not forgotten.
TEST(Cleaner, PageThatCannotBeReadStaysUntilItIsStoredAgain) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 300;
  constexpr uint64_t kDamaged = 30;
  {
    WaitingStore s(directory.path(), SmallBuffers);
    for (uint64_t i = 0; i < kPages; ++i) PutAll(s, i, 1, i);
  }
  const auto [file, offset] = FileAndOffsetOf(directory.path(), kPage + kDamaged);
  FlipByte(file, offset + 99);
  WaitingStore s(directory.path(), SmallBuffers);
  uint64_t round = 1;
  for (; s.store->statistics().segments_kept == 0; ++round) {
    ASSERT_LT(round, 100u);
    OverwriteOddPages(s, kPages, round);
  }
  for (uint64_t i = 0; i < kPages; i += 2) {
    const auto read = s.Read(kPage + i);
    ASSERT_EQ(absl::IsDataLoss(read.status()), i == kDamaged) << i << " " << read.status();
    if (i != kDamaged) ExpectSame(*read, MakePage(kPage + i, i));
  }
  EXPECT_TRUE(std::filesystem::exists(file));
  PutAll(s, kDamaged, 1, 8);
  for (; std::filesystem::exists(file); ++round) {
    ASSERT_LT(round, 200u);
    OverwriteOddPages(s, kPages, round);
  }
  ExpectSame(*s.Read(kPage + kDamaged), MakePage(kPage + kDamaged, 8));
}

// C3: the beginning of a group cannot be read, so nobody knows which pages are behind it.
TEST(Cleaner, SegmentWithADamagedGroupIsNotGivenAway) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 400;
  {
    WaitingStore s(directory.path(), SmallBuffers);
    for (uint64_t i = 0; i < kPages; ++i) PutAll(s, i, 1, i);
  }
  std::set<std::string> files;
  for (uint64_t i = 0; i < kPages; i += 40) {
    const auto [file, offset] = FileAndOffsetOf(directory.path(), kPage + i);
    if (files.insert(file).second) FlipByte(file, offset - kPageBytes + 20);
  }
  WaitingStore s(directory.path(), SmallBuffers);
  for (uint64_t round = 1; round < 8; ++round) OverwriteOddPages(s, kPages, round);
  for (uint64_t i = 0; i < kPages; i += 2) ExpectSame(*s.Read(kPage + i), MakePage(kPage + i, i));
  for (uint64_t i = 1; i < kPages; i += 2) ExpectSame(*s.Read(kPage + i), MakePage(kPage + i, 7'000 + i));
  EXPECT_GT(s.store->statistics().segments_kept, 0u);
}

TEST(Cleaner, SpaceIsKnownAgainAfterCloseAndOpen) {
  TemporaryDirectory directory;
  constexpr uint64_t kPages = 500;
  for (uint64_t round = 1; round <= 20; ++round) {
    WaitingStore s(directory.path(), SmallBuffers);
    for (uint64_t first = 0; first < kPages; first += 100) PutAll(s, first, 100, round);
  }
  WaitingStore s(directory.path(), SmallBuffers);
  EXPECT_LE(BytesOfSegments(directory.path()), 3 * kPages * kPageBytes + kConstantBytes);
  for (uint64_t i = 0; i < kPages; ++i) ExpectSame(*s.Read(kPage + i), MakePage(kPage + i, 20));
}

// The cleaner between an index and a log, without a store: tables are written when the test says so.
class CleanerAlone {
 public:
  explicit CleanerAlone(uint64_t segment_blocks, bool tight = false) {
    auto opened = store::RocksDb::Open(directory_.path(), {}, [] {});
    EXPECT_TRUE(opened.ok()) << opened.status();
    db_ = *std::move(opened);
    auto log = store::CommitLog::Create({.salt = 1, .segment_bytes = segment_blocks * store::kBlockBytes}, &files_);
    EXPECT_TRUE(log.ok()) << log.status();
    log_ = *std::move(log);
    cleaner_ = std::make_unique<store::Cleaner>(store::CleanerOptions{.salt = 1,
                                                                      .slack_bytes = 0,
                                                                      .tight = [tight] { return tight; },
                                                                      .move =
                                                                          [this](const store::PageMove& move) {
                                                                            if (!move.from.empty()) Append(move.batch);
                                                                            return absl::OkStatus();
                                                                          },
                                                                      .caught_up = [] {}},
                                                db_.get(), &files_);
    EXPECT_TRUE(cleaner_->Open(log_->position()).ok());
  }

  void Append(const StoreBatch& batch) {
    const StoreBatch* const one = &batch;
    const auto logged = log_->Append({&one, 1});
    ASSERT_TRUE(logged.ok()) << logged.status();
    store::IndexUpdate update{.position = logged->position};
    for (const auto& change : logged->changes) update.changes.push_back(&change);
    if (logged->sealed.has_value()) {
      update.sealed.push_back(*logged->sealed);
      cleaner_->Seal(*logged->sealed, logged->position.number - 1);
    }
    update.emptied = cleaner_->TakeEmptied();
    ASSERT_TRUE(db_->Apply(update).ok());
  }
  void Put(uint64_t page) {
    StoreBatch batch;
    batch.put_pages.push_back(MakePage(kPage + page, page));
    Append(batch);
  }
  void WriteTables() { ASSERT_TRUE(db_->Flush().ok()); }
  void Clean() {
    const absl::Status cleaned = cleaner_->CleanWhatIsDue();
    EXPECT_TRUE(cleaned.ok()) << cleaned;
  }
  bool HasFile(uint64_t segment) const { return std::filesystem::exists(files_.NameOf(segment)); }
  uint64_t emptied() const { return cleaner_->statistics().segments_emptied; }
  uint64_t moved() const { return cleaner_->statistics().pages_moved; }
  uint64_t bytes() const { return cleaner_->used_bytes(); }

 private:
  TemporaryDirectory directory_;
  store::SegmentFiles files_{directory_ / "segments"};
  std::unique_ptr<store::RocksDb> db_;
  std::unique_ptr<store::CommitLog> log_;
  std::unique_ptr<store::Cleaner> cleaner_;
};

// C2, also where the tables end between a segment's last group and the next one's first.
TEST(Cleaner, FileIsGivenAwayOnlyWhenTheTablesHaveThatNothingRefersToIt) {
  CleanerAlone s(8);
  for (uint64_t page = 0; page < 4; ++page) s.Put(page);  // Two blocks each: segment 1 is full.
  s.WriteTables();
  s.Put(10);
  for (uint64_t round = 0; round < 12; ++round) {
    s.Clean();
    s.Put(11 + round);
    EXPECT_TRUE(s.HasFile(1)) << "what was moved is in no table";
  }
  s.WriteTables();
  s.Clean();
  ASSERT_GE(s.emptied(), 1u);
  s.Put(30);
  s.Clean();
  EXPECT_TRUE(s.HasFile(1)) << "that it is emptied is in no table";
  s.WriteTables();
  s.Clean();
  for (uint64_t page = 31; page < 36; ++page) s.Put(page);
  EXPECT_FALSE(s.HasFile(1)) << "the file is used for a further segment";
}

// Two groups of 31 blocks do not fit into a segment of 48, so that each leaves a third of one empty, and so does each move.
TEST(Cleaner, ComesToAnEndWhereMovesDoNotFillTheSegments) {  // C4
  CleanerAlone s(48, /*tight=*/true);
  constexpr uint64_t kSegments = 40;
  constexpr uint64_t kGroupPages = 30;
  for (uint64_t segment = 0; segment < kSegments; ++segment) {
    StoreBatch batch;
    for (uint64_t i = 0; i < kGroupPages; ++i) batch.put_pages.push_back(MakePage(kPage + segment * 100 + i, i));
    s.Append(batch);
  }
  const auto clean = [&s] {
    for (uint64_t round = 0; round < 3; ++round) {
      s.WriteTables();
      s.Put(100'000 + round);
      s.Clean();
    }
  };
  clean();
  EXPECT_EQ(s.moved(), 0u) << "there is no garbage";
  // What each move leaves are again 30 pages.
  for (uint64_t segment = 0; segment < kSegments; segment += 2) {
    StoreBatch batch;
    batch.delete_pages.push_back({kPage + segment * 100, kGroupPages / 3});
    s.Append(batch);
  }
  // What is garbage is known when the index has merged its tables, in any of these rounds. Each round overwrites three pages itself.
  constexpr uint64_t kRounds = 60;
  for (uint64_t round = 0; round < kRounds; ++round) clean();
  EXPECT_GT(s.moved(), 0u);
  EXPECT_LE(s.moved(), kSegments * kGroupPages + 3 * 3 * kRounds) << "it goes on for ever";
  EXPECT_LE(s.bytes(), kSegments * kGroupPages * kPageBytes);
}

}  // namespace
}  // namespace mangrove
