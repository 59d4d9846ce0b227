// The format of transactions' logs, and what damage to them does.
//
// Covers: G15

#include "engine/transactions/log_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace mangrove {
namespace {

constexpr NodeInstance kOwner{NodeId(7), Incarnation(3)};

LogRecord RecordOf(uint64_t transaction, size_t bytes) {
  LogRecord record{.owner = kOwner, .transaction = transaction, .pages = {}};
  record.pages.push_back({.page = kFirstReservablePage + transaction,
                          .config = ConfigNumber(4),
                          .sequence = transaction + 1,
                          .changes = {{16, std::string(bytes, 'x')}, {0, "y"}}});
  record.pages.push_back({.page = kFirstReservablePage, .config = ConfigNumber(4), .sequence = 9, .changes = {}});
  return record;
}

// The log's pages, as a writer would fill them.
struct Log {
  explicit Log(uint64_t first) : first_number(first) { pages.push_back({.generation = 2, .number = first}); }
  void Append(const LogRecord& record) {
    const std::string bytes = EncodeRecord(record);
    for (size_t i = 0; i < bytes.size(); ++i) {
      if (pages.back().payload.size() == kLogPayloadBytes) {
        pages.push_back({.generation = 2, .number = pages.back().number + 1});
      }
      LogPage& page = pages.back();
      if (i == 0 && page.first_record == kNoRecord) page.first_record = static_cast<uint16_t>(page.payload.size());
      page.payload += bytes[i];
    }
  }
  std::vector<std::shared_ptr<PageBytes>> Encoded() const {
    std::vector<std::shared_ptr<PageBytes>> encoded;
    for (const LogPage& page : pages) {
      encoded.push_back(NewPage());
      EncodeLogPage(page, *encoded.back());
    }
    return encoded;
  }

  uint64_t first_number;
  std::vector<LogPage> pages;
};

std::vector<uint64_t> TransactionsIn(const std::vector<std::shared_ptr<PageBytes>>& pages, uint64_t tail,
                                     uint64_t first_number = 0) {
  LogStream stream({.owner = kOwner, .generation = 2, .ring_pages = 1000, .tail = tail});
  while (stream.next() - first_number < pages.size() && stream.Add(*pages[stream.next() - first_number]).value()) {
  }
  std::vector<uint64_t> transactions;
  for (const LogRecord& record : stream.records()) transactions.push_back(record.transaction);
  return transactions;
}

TEST(LogFormat, AHeaderComesBack) {
  const LogHeader header{.owner = kOwner, .generation = 5, .ring_pages = 31, .tail = 77};
  const auto page = NewPage();
  EncodeLogHeader(header, *page);
  EXPECT_EQ(DecodeLogHeader(*page).value(), header);
}

TEST(LogFormat, TheReplayPageComesBack) {
  ReplayState state{.done = Epoch(77), .logs = {}};
  for (uint64_t node = 1; node <= kMostLogs; ++node) state.logs.push_back(NodeId(node));
  const auto page = NewPage();
  EncodeReplayState(state, *page);
  EXPECT_EQ(DecodeReplayState(*page).value(), state);
}

TEST(LogFormat, ZerosAreAHeaderThatWasNeverUsed) {
  const auto page = NewPage();
  page->bytes.fill(std::byte{0});
  EXPECT_EQ(DecodeLogHeader(*page).value(), LogHeader{});
  EXPECT_EQ(DecodeReplayState(*page).value(), ReplayState{});
}

TEST(LogFormat, ADamagedHeaderIsRefusedWhateverByteItIs) {
  const auto page = NewPage();
  for (size_t at = 0; at < kPageBytes; at += 3) {
    EncodeLogHeader({.owner = kOwner, .generation = 5, .ring_pages = 31, .tail = 77}, *page);
    page->bytes[at] ^= std::byte{0x40};
    EXPECT_EQ(DecodeLogHeader(*page).status().code(), absl::StatusCode::kDataLoss) << at;
    EncodeReplayState({Epoch(12), {NodeId(3)}}, *page);
    page->bytes[at] ^= std::byte{0x40};
    EXPECT_EQ(DecodeReplayState(*page).status().code(), absl::StatusCode::kDataLoss) << at;
  }
}

TEST(LogFormat, ARecordComesBackAndNothingBehindItIsTaken) {
  const LogRecord record = RecordOf(11, 1000);
  const std::string bytes = EncodeRecord(record) + "rest";
  std::string_view left = bytes;
  EXPECT_EQ(TakeRecord(left), record);
  EXPECT_EQ(left, "rest");
}

TEST(LogFormat, ARecordThatIsCutShortOrDamagedIsNone) {
  const std::string bytes = EncodeRecord(RecordOf(11, 100));
  for (size_t length = 0; length < bytes.size(); ++length) {
    std::string_view cut = std::string_view(bytes).substr(0, length);
    EXPECT_EQ(TakeRecord(cut), std::nullopt) << length;
  }
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] ^= 4;
    std::string_view left = damaged;
    EXPECT_EQ(TakeRecord(left), std::nullopt) << at;
  }
}

TEST(LogFormat, RandomBytesAreNoRecordAndNoPage) {
  std::mt19937_64 random(1);
  const auto page = NewPage();
  for (int i = 0; i < 2000; ++i) {
    std::string bytes(random() % 300, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    std::string_view left = bytes;
    EXPECT_EQ(TakeRecord(left), std::nullopt);
    for (std::byte& b : page->bytes) b = static_cast<std::byte>(random());
    EXPECT_EQ(DecodeLogPage(*page), std::nullopt);
  }
}

TEST(LogFormat, RecordsGoFromPageToPage) {
  Log log(0);
  for (uint64_t i = 1; i <= 5; ++i) log.Append(RecordOf(i, 3000));
  EXPECT_EQ(log.pages.size(), 4u);
  EXPECT_THAT(TransactionsIn(log.Encoded(), 0), testing::ElementsAre(1, 2, 3, 4, 5));
}

TEST(LogFormat, ATailInTheMiddleBeginsWithTheNextRecord) {
  Log log(0);
  for (uint64_t i = 1; i <= 5; ++i) log.Append(RecordOf(i, 3000));
  EXPECT_THAT(TransactionsIn(log.Encoded(), 1), testing::ElementsAre(3, 4, 5));
  EXPECT_THAT(TransactionsIn(log.Encoded(), 2), testing::ElementsAre(4, 5));
}

TEST(LogFormat, APageWithoutTheBeginOfARecordIsPassed) {
  Log log(0);
  log.Append({.owner = kOwner,
              .transaction = 1,
              .pages = {{.page = PageId(5),
                         .changes = {
                             {0, std::string(4000, 'a')}, {0, std::string(4000, 'b')}, {0, std::string(4000, 'c')}}}}});
  log.Append(RecordOf(2, 10));
  ASSERT_EQ(log.pages.size(), 4u);
  EXPECT_THAT(TransactionsIn(log.Encoded(), 0), testing::ElementsAre(1, 2));
  EXPECT_THAT(TransactionsIn(log.Encoded(), 1), testing::ElementsAre(2));
}

TEST(LogFormat, ATornEndIsNotPartOfTheLog) {
  Log log(0);
  for (uint64_t i = 1; i <= 5; ++i) log.Append(RecordOf(i, 3000));
  auto pages = log.Encoded();
  pages.pop_back();
  EXPECT_THAT(TransactionsIn(pages, 0), testing::ElementsAre(1, 2, 3));
}

// The last page is durable, and the one before it as it was before the group: not full, so that nothing goes on behind it.
TEST(LogFormat, APageBehindOneThatIsNotFullIsNotPartOfTheLog) {
  Log before(0);
  before.Append(RecordOf(1, 3000));
  Log log = before;
  for (uint64_t i = 2; i <= 5; ++i) log.Append(RecordOf(i, 3000));
  auto pages = log.Encoded();
  pages[0] = before.Encoded()[0];
  EXPECT_THAT(TransactionsIn(pages, 0), testing::ElementsAre(1));
}

TEST(LogFormat, WhatAnEarlierRoundOrGenerationLeftIsNotPartOfTheLog) {
  Log log(0);
  for (uint64_t i = 1; i <= 5; ++i) log.Append(RecordOf(i, 3000));
  auto pages = log.Encoded();
  Log old = log;
  old.pages[2].generation = 1;
  pages[2] = old.Encoded()[2];
  EXPECT_THAT(TransactionsIn(pages, 0), testing::ElementsAre(1, 2));
  old = log;
  old.pages[2].number = 900;
  pages[2] = old.Encoded()[2];
  EXPECT_THAT(TransactionsIn(pages, 0), testing::ElementsAre(1, 2));
}

// Committed records may lie behind it.
TEST(LogFormat, DamageIsNotTakenForTheEnd) {
  Log log(0);
  for (uint64_t i = 1; i <= 5; ++i) log.Append(RecordOf(i, 3000));
  for (const size_t at : {size_t{0}, size_t{5}, size_t{20}, kLogPageHeaderBytes, kLogPageHeaderBytes + 2000}) {
    const auto pages = log.Encoded();
    pages[1]->bytes[at] ^= std::byte{8};
    LogStream stream({.owner = kOwner, .generation = 2, .ring_pages = 1000, .tail = 0});
    EXPECT_EQ(stream.Add(*pages[0]).value(), true);
    EXPECT_EQ(stream.Add(*pages[1]).status().code(), absl::StatusCode::kDataLoss) << at;
  }
}

TEST(LogFormat, ARecordThatIsAllThereAndDamagedIsNoEnd) {
  Log log(0);
  log.Append(RecordOf(1, 300));
  log.Append(RecordOf(2, 300));
  log.pages[0].payload[100] ^= 1;
  LogStream stream({.owner = kOwner, .generation = 2, .ring_pages = 1000, .tail = 0});
  EXPECT_EQ(stream.Add(*log.Encoded()[0]).status().code(), absl::StatusCode::kDataLoss);
}

TEST(LogFormat, TheTrailerOfAPageSaysItsSequence) {
  const auto page = NewPage();
  page->bytes.fill(std::byte{0});
  EXPECT_EQ(SequenceOf(PageId(9), *page).value(), 0u);
  std::memcpy(page->bytes.data() + kTransactionBytes, EncodeTrailer(41).data(), kTrailerBytes);
  EXPECT_EQ(SequenceOf(PageId(9), *page).value(), 41u);
  page->bytes[kTransactionBytes] = std::byte{42};
  EXPECT_EQ(SequenceOf(PageId(9), *page).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace mangrove
